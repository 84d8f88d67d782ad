//! Questions about users: TokenReview, SubjectAccessReview and their kin. Everything an authenticated user asks is allowed:
//! this server does not enforce RBAC.

use serde_json::{Value, json};

use super::object::{as_map, at, items, text, uid};
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
pub fn answer(server: &Server, resource: &Resource, user: &User, mut review: Value) -> Result<Value, ApiError> {
    let body = as_map(&mut review);
    body.insert("kind".into(), json!(resource.kind));
    body.insert("apiVersion".into(), json!(resource.api_version()));
    body.entry("metadata").or_insert_with(|| json!({}));
    let status = match resource.kind.as_str() {
        "TokenReview" => token_review(server, &review)?,
        "SelfSubjectReview" => json!({"userInfo": user.info()}),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        "SubjectAccessReview" | "SelfSubjectAccessReview" | "LocalSubjectAccessReview" => {
            access_review(resource, &review)?;
            json!({"allowed": true, "reason": "RBAC is not enforced by this API server"})
        }
        other => return Err(ApiError::not_implemented(format!("{other} is not answered by this API server"))),
    };
    as_map(&mut review).insert("status".into(), status);
    Ok(review)
}

fn access_review(resource: &Resource, review: &Value) -> Result<(), ApiError> {
    let attributes = |name: &str| at(review, &["spec", name]).is_some_and(|v| !v.is_null());
    if attributes("resourceAttributes") == attributes("nonResourceAttributes") {
        let error = FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
        return Err(ApiError::invalid(resource, "", &[error]));
    }
    Ok(())
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
