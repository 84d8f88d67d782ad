//! The authority's Secret in the mesh namespace.
//!
//! Several controllers may start at once on an empty cluster: each tries to create the Secret, one succeeds, and all
//! use what is there then. An authority that FSM's older versions made (root only) is taken over and given an intermediate.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};

use super::{Authority, AuthorityPem, CaError};

/// The Secret's name, unless the controller is told another.
pub const SECRET_NAME: &str = "fsm-ca-bundle";

const ROOT_CERTIFICATE: &str = "ca.crt";
const ROOT_KEY: &str = "private.key";
const INTERMEDIATE_CERTIFICATE: &str = "intermediate.crt";
const INTERMEDIATE_KEY: &str = "intermediate.key";

/// What is in the Secret.
enum Stored {
    /// All four parts.
    Whole(AuthorityPem),
    /// A root without an intermediate.
    RootOnly { certificate: String, key: String },
}

/// The authority of the mesh: the one in the Secret, or a new one. Replaces an intermediate that is old.
pub async fn load_or_create(
    client: kube::Client,
    namespace: &str,
    name: &str,
    now: SystemTime,
) -> Result<Authority, CaError> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let failed = |action| {
        move |error: kube::Error| CaError::Secret {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action,
            cause: error.into(),
        }
    };
    // Each turn either ends or lost a race against another controller, which has then made progress.
    loop {
        let Some(secret) = api.get_opt(name).await.map_err(failed("read"))? else {
            let secret = secret(namespace, name, &AuthorityPem::generate(now)?);
            match api.create(&PostParams::default(), &secret).await {
                Ok(_) => tracing::info!(%namespace, %name, "created the mesh's certificate authority"),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed("created")(error)),
            }
            continue;
        };
        let (root_certificate, root_key) = match stored(&secret)? {
            Stored::Whole(pem) => {
                let authority = Authority::from_pem(&pem)?;
                if !authority.intermediate_is_old(now) {
                    return Ok(authority);
                }
                (pem.root_certificate, pem.root_key)
            }
            Stored::RootOnly { certificate, key } => (certificate, key),
        };
        let renewed = with_data(secret, &AuthorityPem::with_root(root_certificate, root_key, now)?);
        match api.replace(name, &PostParams::default(), &renewed).await {
            Ok(_) => tracing::info!(%namespace, %name, "gave the mesh's certificate authority a new intermediate"),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(failed("updated")(error)),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn stored(secret: &Secret) -> Result<Stored, CaError> {
    let text = |field: &'static str| -> Result<Option<String>, CaError> {
        let Some(ByteString(bytes)) = secret.data.as_ref().and_then(|data| data.get(field)) else { return Ok(None) };
        let text = String::from_utf8(bytes.clone());
        text.map(Some).map_err(|_| CaError::Stored { field, reason: "it is not text".to_owned() })
    };
    let required = |field| text(field)?.ok_or(CaError::Stored { field, reason: "it is missing".to_owned() });
    let (root_certificate, root_key) = (required(ROOT_CERTIFICATE)?, required(ROOT_KEY)?);
    Ok(match (text(INTERMEDIATE_CERTIFICATE)?, text(INTERMEDIATE_KEY)?) {
        (Some(intermediate_certificate), Some(intermediate_key)) => {
            Stored::Whole(AuthorityPem { root_certificate, root_key, intermediate_certificate, intermediate_key })
        }
        _ => Stored::RootOnly { certificate: root_certificate, key: root_key },
    })
}

fn secret(namespace: &str, name: &str, pem: &AuthorityPem) -> Secret {
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "flomesh.io".to_owned())]);
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    with_data(Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }, pem)
}

/// The Secret with this authority in it; other members stay.
fn with_data(mut secret: Secret, pem: &AuthorityPem) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (field, text) in [
        (ROOT_CERTIFICATE, &pem.root_certificate),
        (ROOT_KEY, &pem.root_key),
        (INTERMEDIATE_CERTIFICATE, &pem.intermediate_certificate),
        (INTERMEDIATE_KEY, &pem.intermediate_key),
    ] {
        data.insert(field.to_owned(), ByteString(text.clone().into_bytes()));
    }
    secret
}
