//! Who asks for a certificate: what the API server says about a ServiceAccount token.

use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::ca::TOKEN_AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};

/// A workload that has proved itself with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub identity: SpiffeId,
    /// The pod's name in the identity's namespace, if the token is bound to one.
    pub pod: Option<String>,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    #[error("no ServiceAccount token was sent: send `authorization: Bearer <token>`")]
    Missing,
    #[error(
        "the ServiceAccount token was refused by the Kubernetes API ({0}): read the token file again, it may have expired"
    )]
    Refused(String),
    #[error(
        "the ServiceAccount token is for the audience {0}, not \"{TOKEN_AUDIENCE}\": mount a projected token with that audience"
    )]
    Audience(String),
    #[error("the token is that of \"{0}\", which is not a ServiceAccount: only workloads are given certificates")]
    NotAWorkload(String),
}

impl Caller {
    /// The question to the API server.
    pub fn review(token: &str) -> TokenReview {
        TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        }
    }

    /// Who the API server says it is.
    pub fn from_review(status: Option<&TokenReviewStatus>, trust_domain: &str) -> Result<Self, CallerError> {
        let status = status.ok_or_else(|| CallerError::Refused("it gave no status".to_owned()))?;
        if status.authenticated != Some(true) {
            let reason = status.error.as_deref().filter(|reason| !reason.is_empty());
            return Err(CallerError::Refused(reason.unwrap_or("not authenticated").to_owned()));
        }
        let audiences = status.audiences.as_deref().unwrap_or_default();
        if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
            return Err(CallerError::Audience(format!("{audiences:?}")));
        }
        let user = status.user.as_ref();
        let username = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
        let identity = username
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .and_then(|(namespace, name)| SpiffeId::new(trust_domain, namespace, name).ok())
            .ok_or_else(|| CallerError::NotAWorkload(username.to_owned()))?;
        let pod = user
            .and_then(|user| user.extra.as_ref())
            .and_then(|extra| extra.get("authentication.kubernetes.io/pod-name"))
            .and_then(|values| values.first())
            .cloned();
        Ok(Self { identity, pod })
    }
}
