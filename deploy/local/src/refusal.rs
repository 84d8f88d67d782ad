//! What a client's error says to a person.

/// An API server's refusal by its own message and reason, without the client's rendering of the whole Status; other errors as they are.
pub fn sentence(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else { return error.to_string() };
    let kind = if status.reason.is_empty() { status.code.to_string() } else { status.reason.clone() };
    match status.message.as_str() {
        "" => format!("the API server answered {kind}"),
        message => format!("{message} ({kind})"),
    }
}
