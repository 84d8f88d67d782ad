//! Circuit limits: how much may be under way to a service port at once.

/// None: as much as comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Opaque connections.
    pub connections: Option<u32>,
    /// HTTP requests, until the end of their responses.
    pub requests: Option<u32>,
    /// Requests that were sent again by policy.
    pub retries: Option<u32>,
    /// HTTP requests for which a connection has to be made first, until it is.
    pub pending: Option<u32>,
}
