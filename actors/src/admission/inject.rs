//! The mutating webhook: gives pods of the mesh their sidecar.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{AdmissionRequest, AdmissionResponse};
use crate::FactSink;
use crate::concern::injection::Injection;
use crate::concern::pod::{Verdict, decide_injection};
use crate::fact::{Fact, PodAdmitted};
use crate::trace::Change;

/// A namespace that the API server counts as a member may have become one just now: its change has this long to arrive here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Decides with the newest state of the mesh, and records every answer that is not for a dry run.
#[derive(Clone)]
pub struct InjectionWebhook {
    injection: watch::Receiver<Injection>,
    facts: FactSink,
}

impl InjectionWebhook {
    /// Decides by `injection`, records in `facts`.
    pub fn new(injection: watch::Receiver<Injection>, facts: FactSink) -> Self {
        Self { injection, facts }
    }

    /// The answer to one question.
    pub async fn answer(&self, request: &AdmissionRequest) -> AdmissionResponse {
        if request.kind.kind != "Pod" || request.operation != "CREATE" {
            return AdmissionResponse::Allowed { warnings: Vec::new() };
        }
        let injection = self.injection_knowing(&request.namespace).await;
        let uuid = uuid::Uuid::new_v4().to_string();
        let verdict = decide_injection(&injection, &request.namespace, &request.object, &uuid);
        if let Verdict::Refuse { message } = &verdict {
            tracing::warn!(namespace = request.namespace, pod = request.object_name(), message, "refused a pod");
        }
        let fact = fact(request, &verdict, uuid);
        let response = response(verdict);
        if request.dry_run {
            return response;
        }
        let change = Change::begin("admission", format!("{}/{}", fact.namespace, fact.pod));
        match self.facts.append(&Fact::PodAdmitted(fact), change.context).await {
            Ok(_) => response,
            Err(error) => AdmissionResponse::Denied {
                message: format!("the admission of the pod can't be recorded: {error}"),
                warnings: Vec::new(),
            },
        }
    }

    /// The state, as soon as it knows that the namespace is a member of the mesh; else as it is when patience ends.
    async fn injection_knowing(&self, namespace: &str) -> Injection {
        let mut injection = self.injection.clone();
        let known = timeout(PATIENCE, injection.wait_for(|injection| injection.monitors(namespace))).await;
        match known {
            Ok(Ok(injection)) => injection.clone(),
            Ok(Err(_)) | Err(_) => self.injection.borrow().clone(),
        }
    }
}

fn fact(request: &AdmissionRequest, verdict: &Verdict, uuid: String) -> PodAdmitted {
    let account = request.object.pointer("/spec/serviceAccountName").and_then(serde_json::Value::as_str);
    let (outcome, uuid, reason) = match verdict {
        Verdict::Patch { .. } => ("injected", Some(uuid), None),
        Verdict::Skip { reason } => ("skipped", None, Some(reason.clone())),
        Verdict::Refuse { message } => ("refused", None, Some(message.clone())),
    };
    PodAdmitted {
        namespace: request.namespace.clone(),
        pod: request.object_name(),
        service_account: account.filter(|name| !name.is_empty()).unwrap_or("default").to_owned(),
        outcome: outcome.to_owned(),
        uuid,
        reason,
    }
}

fn response(verdict: Verdict) -> AdmissionResponse {
    match verdict {
        Verdict::Patch { operations, warnings } => AdmissionResponse::Patched { patch: json!(operations), warnings },
        Verdict::Skip { .. } => AdmissionResponse::Allowed { warnings: Vec::new() },
        Verdict::Refuse { message } => AdmissionResponse::Denied { message, warnings: Vec::new() },
    }
}
