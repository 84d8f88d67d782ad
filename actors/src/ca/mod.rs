//! The certificate authority of the mesh: a root, an intermediate that signs, and the gRPC service that proxies ask.
//!
//! Keys of the authority live in one Secret of the mesh namespace and in this process, nowhere else; workload keys are
//! never seen here (a proxy sends a certificate request, which holds its public key only).

mod authority;
mod caller;
mod secret;
mod server_certificate;
mod service;
mod signer;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityPem};
pub use caller::{Caller, CallerError};
pub use secret::{SECRET_NAME, load_or_create};
pub use server_certificate::ServerCertificate;
pub use service::SigningService;
pub use signer::{IssuedCertificate, Signer};

use crate::kubernetes::ApiError;

/// What can go wrong in the authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(
        "the certificate request can't be used ({0}): send a PKCS#10 request in DER, signed with its own ECDSA P-256 key"
    )]
    Request(String),
    #[error("a certificate for {subject} can't be made: {source}")]
    Issue { subject: String, source: rcgen::Error },
    #[error(
        "\"{field}\" of the authority can't be used ({reason}): restore it, or delete the Secret to begin with a new authority (all proxies must then be restarted)"
    )]
    Stored { field: &'static str, reason: String },
    #[error(
        "Secret {namespace}/{name} can't be {action}: {cause}; check that the controller's ServiceAccount may get, create and update Secrets there"
    )]
    Secret { namespace: String, name: String, action: &'static str, cause: ApiError },
    #[error("the system gives no random numbers")]
    Random,
    #[error("the certificate of the controller itself can't be used: {0}")]
    Server(#[from] rustls::Error),
}
