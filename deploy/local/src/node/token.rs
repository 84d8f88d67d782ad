//! ServiceAccount tokens of projected volumes: requested from the API for this pod, renewed before they expire.

use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// A token as the manifest asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// Inside the volume.
    pub path: PathBuf,
    /// The API server's own when none is given.
    pub audience: Option<String>,
    pub lifetime_seconds: i64,
    /// Permission bits.
    pub mode: u32,
}

/// A token in force.
#[derive(Debug, Clone)]
pub struct Token {
    pub source: TokenSource,
    pub bytes: Vec<u8>,
    pub renew_at: Timestamp,
}

impl Token {
    /// Whether it is time for the next one.
    pub fn is_due(&self) -> bool {
        self.renew_at <= Timestamp::now()
    }
}

impl TokenSource {
    /// Requests a token bound to the pod.
    pub async fn request(self, client: &Client, pod: &Pod) -> Result<Token, kube::Error> {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(self.audience.iter().cloned().collect()),
                expiration_seconds: Some(self.lifetime_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let now = Timestamp::now();
        let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
        let status = answer.status.unwrap_or_default();
        let bytes = status.token.unwrap_or_default().into_bytes();
        let expires = status.expiration_timestamp.map_or(now, |t| t.0);
        Ok(Token { source: self, bytes, renew_at: renew_at(now, expires) })
    }
}

/// At four fifths of the lifetime, as the kubelet does.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let seconds = expires.duration_since(now).as_secs();
    now + jiff::SignedDuration::from_secs(seconds / 5 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(renew_at(at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z")), at("2026-01-01T00:48:00Z"));
    }
}
