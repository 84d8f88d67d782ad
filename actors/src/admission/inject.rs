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
        let uuid = uuid::Uuid::new_v4().to_string();
        let verdict = match self.injection_knowing(&request.namespace).await {
            Some(injection) => decide_injection(&injection, &request.namespace, &request.object, &uuid),
            None => Verdict::Refuse { message: not_yet_known(&request.namespace) },
        };
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

    /// The state, as soon as it knows that the namespace is a member of the mesh; none if it never learns that.
    ///
    /// The webhook's namespace selector has seen the label already: to let the pod pass without a proxy because the watch
    /// lags behind would open the mesh whenever the controller is slow.
    async fn injection_knowing(&self, namespace: &str) -> Option<Injection> {
        let mut injection = self.injection.clone();
        let known = timeout(PATIENCE, injection.wait_for(|injection| injection.monitors(namespace))).await;
        Some(known.ok()?.ok()?.clone())
    }
}

fn not_yet_known(namespace: &str) -> String {
    format!(
        "the controller has not seen yet that namespace {namespace} belongs to the mesh; create the pod again in a moment"
    )
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
