//! How the Kubernetes API is asked, and what it says when it refuses.

use std::fmt;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Client, Config};

/// A client that calls itself `program`: the objects that it writes say so in their `managedFields`.
pub fn client(mut config: Config, program: &'static str) -> kube::Result<Client> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(program)));
    Client::try_from(config)
}

/// An error of the Kubernetes API or of the way to it, in one line without repetition.
#[derive(Debug)]
pub struct ApiError(Box<kube::Error>);

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            kube::Error::Api(status) => write!(f, "{} (HTTP {})", status.message, status.code),
            error => write_causes(error, f),
        }
    }
}

/// Any error with its causes, in one line; an answer of the API server is cut down to its message.
pub struct Causes<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        while let Some(error) = next {
            if let Some(kube::Error::Api(status)) = error.downcast_ref() {
                return write!(f, "{} (HTTP {})", status.message, status.code);
            }
            next = error.source();
        }
        write_causes(self.0, f)
    }
}

fn write_causes(error: &dyn std::error::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut said = error.to_string();
    f.write_str(&said)?;
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        // Many errors quote their cause.
        if !said.contains(&text) {
            write!(f, ": {text}")?;
            said.push_str(&text);
        }
        next = error.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refusal() -> kube::Error {
        kube::Error::Api(Status::failure("namespaces \"fsm-system\" not found", "NotFound").with_code(404).boxed())
    }

    #[test]
    fn a_refusal_is_said_once() {
        assert_eq!(ApiError::from(refusal()).to_string(), "namespaces \"fsm-system\" not found (HTTP 404)");
        let watching = kube::runtime::watcher::Error::InitialListFailed(refusal());
        assert_eq!(Causes(&watching).to_string(), "namespaces \"fsm-system\" not found (HTTP 404)");
    }

    #[test]
    fn causes_that_were_quoted_are_not_repeated() {
        let io = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(io));
        assert_eq!(ApiError::from(error).to_string().matches("connection refused").count(), 1);
    }
}
