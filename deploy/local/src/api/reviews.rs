//! Questions about users: TokenReview, SubjectAccessReview and their kin. Access is answered from the roles and bindings, whether
//! or not requests are held to them.

use serde_json::{Value, json};

use super::object::{as_map, at, items, text, uid};
use super::path::Target;
use super::rbac::{self, Attributes, What};
use super::resource::Resource;
use super::server::Server;
use super::status::{ApiError, FieldError};
use super::tokens::{ISSUER, TokenError, audiences};
use super::users::User;

/// Who a bearer token is, if it is meant for one of these audiences. Gives the audiences it shares with them.
pub fn authenticate(server: &Server, token: &str, wanted: &[String]) -> Result<(User, Vec<String>), TokenError> {
    if let Some(user) = server.static_tokens.get(token) {
        return Ok((user.clone(), wanted.to_vec()));
    }
    let claims = server.tokens.verify(token, jiff::Timestamp::now().as_second())?;
    let shared: Vec<String> = audiences(&claims).into_iter().filter(|a| wanted.contains(a)).collect();
    if shared.is_empty() {
        let found = audiences(&claims).join(", ");
        return Err(TokenError::Revoked(format!(
            "the token is for the audiences [{found}], not for [{}]",
            wanted.join(", ")
        )));
    }
    let kubernetes = &claims["kubernetes.io"];
    let (namespace, account) = (text(kubernetes, &["namespace"]), text(kubernetes, &["serviceaccount", "name"]));
    let found = server
        .find("", "serviceaccounts", namespace, account)
        .filter(|a| uid(&a.value) == text(kubernetes, &["serviceaccount", "uid"]))
        .ok_or_else(|| {
            TokenError::Revoked(format!("the service account {namespace}/{account} of the token is gone"))
        })?;
    let mut user = User::named(
        &format!("system:serviceaccount:{namespace}:{account}"),
        &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
    );
    user.uid = uid(&found.value).to_owned();
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    extra("credential-id", &format!("JTI={}", text(&claims, &["jti"])));
    let pod_name = text(kubernetes, &["pod", "name"]);
    if !pod_name.is_empty() {
        let pod = server.find("", "pods", namespace, pod_name);
        pod.filter(|p| uid(&p.value) == text(kubernetes, &["pod", "uid"]))
            .ok_or_else(|| TokenError::Revoked(format!("the pod {namespace}/{pod_name} of the token is gone")))?;
        extra("pod-name", pod_name);
        extra("pod-uid", text(kubernetes, &["pod", "uid"]));
        extra("node-name", text(kubernetes, &["node", "name"]));
    }
    Ok((user, shared))
}

/// Answers a review.
pub fn answer(server: &Server, target: &Target, user: &User, mut review: Value) -> Result<Value, ApiError> {
    let resource = &target.resource;
    let body = as_map(&mut review);
    body.insert("kind".into(), json!(resource.kind));
    body.insert("apiVersion".into(), json!(resource.api_version()));
    let metadata = as_map(body.entry("metadata").or_insert_with(|| json!({})));
    if let Some(namespace) = &target.namespace {
        metadata.insert("namespace".into(), json!(namespace));
    }
    let status = match resource.kind.as_str() {
        "TokenReview" => token_review(server, &review)?,
        "SelfSubjectReview" => json!({"userInfo": user.info()}),
        "SelfSubjectRulesReview" => {
            let namespace = text(&review, &["spec", "namespace"]);
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            let rules = rbac::rules_for(server, user, namespace);
            as_map(&mut review).insert("spec".into(), json!({}));
            json!({"resourceRules": rbac::resource_rules(&rules), "nonResourceRules": rbac::non_resource_rules(&rules),
                "incomplete": false})
        }
        "SelfSubjectAccessReview" => access(server, user, &attributes(target, &review)?),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let subject = subject(resource, &review)?;
            access(server, &subject, &attributes(target, &review)?)
        }
        other => return Err(ApiError::not_implemented(format!("{other} is not answered by this API server"))),
    };
    as_map(&mut review).insert("status".into(), status);
    Ok(review)
}

fn access(server: &Server, user: &User, wanted: &Attributes) -> Value {
    match rbac::allowed(server, user, wanted) {
        Some(reason) if reason.is_empty() => json!({"allowed": true}),
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    }
}

fn invalid(resource: &Resource, error: FieldError) -> ApiError {
    // As a real server has it: without the kind.
    ApiError::invalid(&Resource { kind: String::new(), ..resource.clone() }, "", &[error])
}

/// The user that a review asks about.
fn subject(resource: &Resource, review: &Value) -> Result<User, ApiError> {
    let spec = &review["spec"];
    let groups: Vec<String> = items(spec, &["groups"]).iter().filter_map(Value::as_str).map(Into::into).collect();
    let name = text(spec, &["user"]);
    if name.is_empty() && groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        return Err(invalid(resource, FieldError::invalid("spec.user", &json!(""), detail)));
    }
    Ok(User { name: name.into(), groups, ..User::default() })
}

/// What a review asks for.
fn attributes(target: &Target, review: &Value) -> Result<Attributes, ApiError> {
    let part = |name: &str| at(review, &["spec", name]).filter(|part| !part.is_null());
    let own = |part: &Value, field: &str| text(part, &[field]).to_owned();
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(wanted), None) => {
            let namespace = own(wanted, "namespace");
            if target.namespace.as_ref().is_some_and(|within| *within != namespace) {
                let error = FieldError::invalid(
                    "spec.resourceAttributes.namespace",
                    &json!(namespace),
                    "must match metadata.namespace",
                );
                return Err(invalid(&target.resource, error));
            }
            let what = What::Resource {
                group: own(wanted, "group"),
                resource: own(wanted, "resource"),
                subresource: own(wanted, "subresource"),
                namespace,
                name: own(wanted, "name"),
            };
            Ok(Attributes { verb: own(wanted, "verb"), what })
        }
        (None, Some(wanted)) => Ok(Attributes { verb: own(wanted, "verb"), what: What::Path(own(wanted, "path")) }),
        _ => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(invalid(&target.resource, FieldError::invalid("spec.resourceAttributes", &Value::Null, detail)))
        }
    }
}

fn token_review(server: &Server, review: &Value) -> Result<Value, ApiError> {
    let token = text(review, &["spec", "token"]);
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let mut wanted: Vec<String> =
        items(review, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(Into::into).collect();
    if wanted.is_empty() {
        wanted.push(ISSUER.into());
    }
    Ok(match authenticate(server, token, &wanted) {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.info(), "audiences": audiences}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}
