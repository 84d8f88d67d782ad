//! AdmissionReview (admission.k8s.io/v1): the question, and what an answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde_json::{Value, json};

use super::matching::{Hook, Match};
use super::{Operation, Question};
use crate::api::object::{name, namespace, text};
use crate::api::resource::Resource;
use crate::api::status::ApiError;
use crate::api::writing::Writing;

/// What a webhook said.
#[derive(Debug)]
pub struct Verdict {
    /// The refusal, if it isn't allowed.
    pub denial: Option<ApiError>,
    pub patch: Option<Patch>,
    pub warnings: Vec<String>,
}

/// The review to send.
pub fn request(writing: &Writing<'_>, found: &Match, question: Question<'_>, id: &str) -> Value {
    let kind = |r: &Resource| json!({"group": r.group, "version": r.version, "kind": r.kind});
    let plural = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural});
    let asked = &writing.target.resource;
    let object = question.object.or(question.old).unwrap_or(&Value::Null);
    let mut request = json!({
        "uid": id,
        "kind": kind(&found.resource),
        "resource": plural(&found.resource),
        "requestKind": kind(asked),
        "requestResource": plural(asked),
        "operation": question.operation.name(),
        "userInfo": writing.user.info(),
        "object": question.object,
        "oldObject": question.old,
        "dryRun": writing.options.dry_run,
        "options": options(writing, question.operation),
    });
    // There is none yet, or many.
    if !name(object).is_empty() && !writing.options.collection {
        request["name"] = json!(name(object));
    }
    // A namespace is within itself.
    let within = if asked.is("", "namespaces") { name(object) } else { namespace(object) };
    if !within.is_empty() {
        request["namespace"] = json!(within);
    }
    if !question.subresource.is_empty() {
        request["subResource"] = json!(question.subresource);
        request["requestSubResource"] = json!(question.subresource);
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

fn options(writing: &Writing<'_>, operation: Operation) -> Value {
    // A patch is an update or a creation here.
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if operation != Operation::Delete {
        if writing.options.manager_named {
            options["fieldManager"] = json!(writing.options.manager);
        }
        if writing.options.validation_named {
            options["fieldValidation"] = json!(writing.options.validation.name());
        }
    }
    if writing.options.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// What an answer means. The error says why it is none.
pub fn verdict(hook: &Hook, id: &str, answer: &Value) -> Result<Verdict, String> {
    let (version, kind) = (text(answer, &["apiVersion"]), text(answer, &["kind"]));
    if (version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let wanted = "admission.k8s.io/v1, Kind=AdmissionReview";
        return Err(format!(
            "received invalid webhook response: expected webhook response of {wanted}, got {version}, Kind={kind}"
        ));
    }
    let Some(response) = answer.get("response").filter(|r| r.is_object()) else {
        return Err("received invalid webhook response: webhook response was absent".into());
    };
    let answered = text(response, &["uid"]);
    if answered != id {
        return Err(format!("received invalid webhook response: expected response.uid={id:?}, got {answered:?}"));
    }
    let warnings = crate::api::object::items(response, &["warnings"]);
    let warnings = warnings.iter().filter_map(Value::as_str).map(Into::into).collect();
    if response["allowed"] != true {
        return Ok(Verdict { denial: Some(denial(hook, &response["status"])), patch: None, warnings });
    }
    Ok(Verdict { denial: None, patch: patch(hook, response)?, warnings })
}

fn patch(hook: &Hook, response: &Value) -> Result<Option<Patch>, String> {
    let Some(encoded) = response.get("patch").filter(|p| !p.is_null()) else { return Ok(None) };
    if !hook.mutating {
        return Err("received invalid webhook response: validating webhook may not return response.patch".into());
    }
    match response.get("patchType").and_then(Value::as_str) {
        Some("JSONPatch") => {}
        Some(other) => return Err(format!("received invalid webhook response: unsupported patch type {other:?}")),
        None => {
            return Err(
                "received invalid webhook response: webhook returned response.patch but not response.patchType".into(),
            );
        }
    }
    let bytes = STANDARD
        .decode(encoded.as_str().unwrap_or_default())
        .map_err(|e| format!("failed to call webhook: illegal base64 data: {e}"))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let patch =
        serde_json::from_slice(&bytes).map_err(|e| format!("received undecodable patch in webhook response: {e}"))?;
    Ok(Some(patch))
}

fn denial(hook: &Hook, status: &Value) -> ApiError {
    // Success codes make no refusal: they count as none.
    let code = status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
    let (message, reason) = (text(status, &["message"]), text(status, &["reason"]));
    let why = match (message, reason) {
        ("", "") => "denied the request without explanation".to_owned(),
        ("", reason) => format!("denied the request: {reason}"),
        (message, _) => format!("denied the request: {message}"),
    };
    let mut error = ApiError::new(code.unwrap_or(400), "", format!("admission webhook {:?} {why}", hook.name));
    error.reason = reason.to_owned().into();
    error.details = status.get("details").filter(|d| !d.is_null()).cloned().map(Box::new);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(mutating: bool) -> Hook {
        let configuration = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "a.example.com"}]});
        Hook::of(&configuration, mutating).remove(0)
    }

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn denials_are_worded_as_by_a_real_server() {
        let denied = |status: Value| {
            let verdict = verdict(&hook(true), "1", &answer(json!({"uid": "1", "allowed": false, "status": status})));
            let error = verdict.unwrap().denial.unwrap();
            (error.code, error.message)
        };
        let text = |rest: &str| format!("admission webhook \"a.example.com\" {rest}");
        assert_eq!(denied(json!(null)), (400, text("denied the request without explanation")));
        assert_eq!(denied(json!({"message": "no"})), (400, text("denied the request: no")));
        assert_eq!(denied(json!({"code": 418, "message": "a teapot"})), (418, text("denied the request: a teapot")));
        assert_eq!(denied(json!({"code": 200, "reason": "Conflict"})), (400, text("denied the request: Conflict")));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let bad = |hook: Hook, answer: Value| verdict(&hook, "1", &answer).unwrap_err();
        assert!(bad(hook(true), json!({})).contains("expected webhook response of"));
        assert!(bad(hook(true), answer(json!(null))).contains("was absent"));
        assert!(bad(hook(true), answer(json!({"uid": "2", "allowed": true}))).contains("expected response.uid"));
        let patch = json!({"uid": "1", "allowed": true, "patch": "W10="});
        assert!(bad(hook(true), answer(patch.clone())).contains("not response.patchType"));
        assert!(bad(hook(false), answer(patch)).contains("may not return response.patch"));
    }

    #[test]
    fn a_left_out_permission_is_a_refusal() {
        assert!(verdict(&hook(true), "1", &answer(json!({"uid": "1"}))).unwrap().denial.is_some());
    }
}
