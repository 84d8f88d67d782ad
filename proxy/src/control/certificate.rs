//! The workload's certificate: the key is made here and stays here; the controller signs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::ca::SignRequest;
use fsm_proxy_config::ca::certificate_authority_client::CertificateAuthorityClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use super::channel::{Channel, ConnectError, origin};
use super::{Environment, State, backoff};
use crate::tls::{Identity, InvalidIdentity, InvalidTrust, MeshTls, NotReady, Trust};

/// The wall clock is looked at this often, so that a machine that slept renews in time.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// No certificate is renewed sooner than this.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("token {path}: {source}; the pod needs a projected ServiceAccount token with audience \"fsm\" there")]
    Token { path: PathBuf, source: std::io::Error },
    #[error("token {path} is no text on one line")]
    TokenText { path: PathBuf },
    #[error(
        "the controller refuses the token {path} of pod {pod}: {message}; check that the pod still exists, that it runs as \
         ServiceAccount {service_account}, and that the token has audience \"fsm\""
    )]
    Refused { pod: String, service_account: String, path: PathBuf, message: String },
    #[error("the controller does not sign: {message} ({code:?})")]
    Status { code: Code, message: String },
    #[error("the controller signed for {found}, but this pod is {expected}: is SERVICE_ACCOUNT that of the pod?")]
    WrongIdentity { found: Box<SpiffeId>, expected: Box<SpiffeId> },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller's answer: {0}")]
    Identity(#[from] InvalidIdentity),
    #[error("the controller's answer: {0}")]
    Trust(#[from] InvalidTrust),
    #[error("making the key or the signing request: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] NotReady),
}

/// Keeps a valid certificate in `tls`, for ever: tries until there is one, renews it at about half of its life.
pub(super) async fn keep(
    environment: Arc<Environment>,
    tls: MeshTls,
    certified: watch::Sender<Option<Identity>>,
    state: Arc<watch::Sender<State>>,
) {
    let mut backoff = environment.backoff.clone();
    loop {
        let signed = sign(&environment).await.and_then(|identity| {
            tls.set(identity.clone())?;
            Ok(identity)
        });
        match signed {
            Ok(identity) => {
                backoff.reset();
                state.send_modify(|state| {
                    state.certificates += 1;
                    state.certificate_error = None;
                });
                let lasts = identity.not_after().duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(identity = %identity.spiffe(), serial = identity.serial(), lasts_s = lasts.as_secs(), "certificate signed");
                let at = renewal(SystemTime::now(), identity.not_after(), backoff::chance());
                certified.send_replace(Some(identity));
                sleep_until(at).await;
            }
            Err(error) => {
                let wait = backoff.wait();
                let expired = matches!(tls.server_config(), Err(NotReady::Expired { .. }));
                tracing::warn!(%error, retry_ms = wait.as_millis(), expired, "no new certificate");
                state.send_modify(|state| state.certificate_error = Some(error.to_string()));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Half of what is left of the life, give or take a tenth, so that pods that started together do not renew together; at
/// least a moment, so that a clock that is wrong does not make a storm of requests.
fn renewal(now: SystemTime, not_after: SystemTime, chance: f64) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or_default();
    now + left.mul_f64(0.4 + 0.2 * chance).max(SHORTEST_LIFE)
}

async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        // A moment more than nothing, so that a clock that is a little late does not spin.
        tokio::time::sleep(left.min(LOOK_EVERY) + Duration::from_millis(1)).await;
    }
}

/// One key, one request, one certificate.
async fn sign(environment: &Environment) -> Result<Identity, CertificateError> {
    let token = token(&environment.token_path).await?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    // Who we are is in the token; the request proves that we have the key.
    params.distinguished_name = DistinguishedName::new();
    let mut request = Request::new(SignRequest { csr_der: params.serialize_request(&key)?.der().to_vec() });
    let bearer = format!("Bearer {token}").parse();
    let bearer = bearer.map_err(|_| CertificateError::TokenText { path: environment.token_path.clone() })?;
    request.metadata_mut().insert("authorization", bearer);

    let channel = Channel::connect(environment, None).await?;
    let mut client = CertificateAuthorityClient::with_origin(channel, origin(environment));
    let answer = tokio::time::timeout(environment.timeout, client.sign(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    let answer = answer.map_err(|status| refused(environment, &status))?.into_inner();

    let chain = answer.chain_der.into_iter().map(Into::into).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let identity = Identity::new(chain, key, Arc::new(Trust::from_pem(&answer.trust_pem)?))?;
    if *identity.spiffe() != environment.identity {
        let (found, expected) = (Box::new(identity.spiffe().clone()), Box::new(environment.identity.clone()));
        return Err(CertificateError::WrongIdentity { found, expected });
    }
    Ok(identity)
}

async fn token(path: &std::path::Path) -> Result<String, CertificateError> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(CertificateError::Token { path: path.to_owned(), source }),
    }
}

fn refused(environment: &Environment, status: &Status) -> CertificateError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => CertificateError::Refused {
            pod: environment.node_id(),
            service_account: environment.identity.service_account().to_owned(),
            path: environment.token_path.clone(),
            message,
        },
        code => CertificateError::Status { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_about_half_way() {
        let (now, left) = (SystemTime::UNIX_EPOCH, Duration::from_secs(1000));
        let seconds = |chance| renewal(now, now + left, chance).duration_since(now).unwrap().as_secs();
        assert_eq!((seconds(0.0), seconds(0.5), seconds(1.0)), (400, 500, 600));
    }

    #[test]
    fn a_certificate_that_is_expired_already_is_not_renewed_in_a_storm() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(renewal(now, SystemTime::UNIX_EPOCH, 0.0), now + SHORTEST_LIFE);
    }
}
