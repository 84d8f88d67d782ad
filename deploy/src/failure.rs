//! How a failure is told to a person: each cause once, from what was tried to what went wrong.

/// One line: the causes of `error`, outermost first, without those that an outer one already tells.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let client = cause.downcast_ref::<kube::Error>();
        let text = client.map_or_else(|| cause.to_string(), fsm_local::refusal::sentence);
        if !told.contains(text.trim()) {
            if !told.is_empty() {
                told.push_str(": ");
            }
            told.push_str(text.trim());
        }
        if matches!(client, Some(kube::Error::Api(_))) {
            // What follows is the client's rendering of the same answer.
            break;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[derive(Debug, thiserror::Error)]
    #[error("can't listen on {port}: {source}; choose another port")]
    struct InUse {
        port: u16,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_repeated() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let error = anyhow::Error::new(InUse { port: 80, source }).context("starting");
        assert_eq!(sentence(&error), "starting: can't listen on 80: address in use; choose another port");
    }

    #[test]
    fn an_api_server_is_quoted_with_its_reason() {
        let status = kube::core::Status::failure(".bogus: field not declared in schema", "Invalid").with_code(422);
        let error = anyhow::Error::new(kube::Error::Api(status.boxed())).context("ConfigMap x");
        assert_eq!(sentence(&error), "ConfigMap x: .bogus: field not declared in schema (Invalid)");
    }
}
