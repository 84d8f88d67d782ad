//! The gRPC service that signs certificate requests.

use std::time::SystemTime;

use fsm_proxy_config::ca::certificate_authority_server::CertificateAuthority;
use fsm_proxy_config::ca::{SignRequest, SignResponse};
use fsm_store::Timestamp;
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::api::{Api, PostParams};
use tonic::{Request, Response, Status};

use super::{CaError, Caller, CallerError, Signer};
use crate::FactSink;
use crate::catalog::ObjectName;
use crate::fact::{CertificateIssued, Fact};
use crate::trace::Change;

/// Signs for workloads that prove themselves with a ServiceAccount token; every certificate is in the log before it is handed out.
pub struct SigningService {
    signer: Signer,
    reviews: Api<TokenReview>,
    facts: FactSink,
    trust_domain: String,
}

impl SigningService {
    /// A service that asks the API server behind `client` about tokens.
    pub fn new(signer: Signer, client: kube::Client, facts: FactSink, trust_domain: String) -> Self {
        Self { signer, reviews: Api::all(client), facts, trust_domain }
    }

    async fn caller(&self, request: &Request<SignRequest>) -> Result<Caller, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Status::from(CallerError::Missing))?;
        let review = self.reviews.create(&PostParams::default(), &Caller::review(token)).await;
        let review = review.map_err(|error| {
            tracing::error!(%error, "can't review a ServiceAccount token: the controller's ServiceAccount needs the role system:auth-delegator");
            Status::unavailable("the Kubernetes API does not review tokens now: try again")
        })?;
        Ok(Caller::from_review(review.status.as_ref(), &self.trust_domain)?)
    }
}

#[tonic::async_trait]
impl CertificateAuthority for SigningService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = self.caller(&request).await.inspect_err(|status| {
            tracing::warn!(status = status.message(), "refused to sign a certificate");
        })?;
        let change = Change::begin("certificate", caller.identity.to_string());
        let now = SystemTime::now();
        let issued = self.signer.sign(&request.get_ref().csr_der, &caller.identity, now)?;
        let fact = Fact::CertificateIssued(CertificateIssued {
            pod: caller.pod.as_deref().map(|pod| ObjectName::new(caller.identity.namespace(), pod)),
            identity: caller.identity.clone(),
            serial: issued.serial,
            fingerprint: issued.fingerprint,
            not_after: timestamp(issued.not_after),
        });
        self.facts
            .append(&fact, change.context)
            .await
            .map_err(|error| Status::unavailable(format!("the certificate can't be recorded: {error}")))?;
        tracing::info!(identity = %caller.identity, pod = caller.pod.as_deref().unwrap_or_default(), "signed a certificate");
        Ok(Response::new(SignResponse {
            chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust_pem: self.signer.authority().trust_pem().to_owned(),
        }))
    }
}

impl From<CallerError> for Status {
    fn from(error: CallerError) -> Self {
        match error {
            CallerError::NotAWorkload(_) => Self::permission_denied(error.to_string()),
            _ => Self::unauthenticated(error.to_string()),
        }
    }
}

impl From<CaError> for Status {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request(_) => Self::invalid_argument(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let micros = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}
