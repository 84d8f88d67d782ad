//! Holding requests to the roles, and asking in somebody else's name.

use http::Method;
use serde_json::json;

use super::{Attributes, What, allowed};
use crate::api::path::Target;
use crate::api::routes::Request;
use crate::api::selector::only_name;
use crate::api::server::Server;
use crate::api::status::{ApiError, about};
use crate::api::users::User;
use crate::api::verbs::is_watch;

/// Refuses a request about a resource that the user may not make.
pub fn enforce(server: &Server, request: &Request, target: &Target) -> Result<(), ApiError> {
    if !server.rbac {
        return Ok(());
    }
    let wanted = wanted(request, target);
    if allowed(server, &request.user, &wanted).is_some() {
        Ok(())
    } else {
        Err(forbidden(&request.user, target, &wanted))
    }
}

/// Refuses a request about a path that is no resource.
pub fn enforce_path(server: &Server, request: &Request) -> Result<(), ApiError> {
    if !server.rbac {
        return Ok(());
    }
    let path = request.path.clone();
    let verb = request.method.as_str().to_lowercase();
    let wanted = Attributes { verb: verb.clone(), what: What::Path(path.clone()) };
    if allowed(server, &request.user, &wanted).is_some() {
        return Ok(());
    }
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", request.user.name);
    Err(ApiError::new(403, "Forbidden", message).with_details(json!({})))
}

fn wanted(request: &Request, target: &Target) -> Attributes {
    let named = target.name.is_some();
    let verb = match request.method {
        Method::GET if is_watch(request, target) => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    };
    // Listing one object by its name is allowed to whom the object is.
    let selected = || request.query.get("fieldSelector").and_then(only_name);
    let what = What::Resource {
        group: target.resource.group.clone(),
        resource: target.resource.plural.clone(),
        subresource: target.subresource.clone().unwrap_or_default(),
        namespace: within(target).unwrap_or_default().to_owned(),
        name: target.name.clone().or_else(selected).unwrap_or_default(),
    };
    Attributes { verb: verb.into(), what }
}

/// The namespace whose roles hold for a request: a Namespace lies in itself.
fn within(target: &Target) -> Option<&str> {
    let itself = target.resource.is("", "namespaces").then_some(target.name.as_deref()).flatten();
    target.namespace.as_deref().or(itself)
}

fn forbidden(user: &User, target: &Target, wanted: &Attributes) -> ApiError {
    let resource = &target.resource;
    let sub = target.subresource.as_ref().map(|sub| format!("/{sub}")).unwrap_or_default();
    let place = match within(target) {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".into(),
    };
    let name = target.name.as_deref().unwrap_or_default();
    let object = if name.is_empty() { resource.qualified() } else { format!("{} {name:?}", resource.qualified()) };
    let message = format!(
        "{object} is forbidden: User {:?} cannot {} resource \"{}{sub}\" in API group {:?} {place}",
        user.name, wanted.verb, resource.plural, resource.group,
    );
    ApiError::new(403, "Forbidden", message).with_details(about(resource, name))
}

/// The user a request is made for: `kubectl --as`.
pub fn impersonated(server: &Server, headers: &http::HeaderMap, user: User) -> Result<User, ApiError> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(Into::into).collect()
    };
    let (names, groups, uids) = (values("impersonate-user"), values("impersonate-group"), values("impersonate-uid"));
    let extra = headers.iter().filter_map(|(name, value)| {
        let key = name.as_str().strip_prefix("impersonate-extra-")?;
        Some((key.to_owned(), value.to_str().ok()?.to_owned()))
    });
    let Some(name) = names.into_iter().next() else {
        if groups.is_empty() && uids.is_empty() && extra.count() == 0 {
            return Ok(user);
        }
        return Err(ApiError::internal("requested impersonation without impersonating a user"));
    };
    let (resource, namespace, shown) = match name.strip_prefix("system:serviceaccount:").and_then(|n| n.split_once(':'))
    {
        Some((namespace, account)) => ("serviceaccounts", namespace, account),
        None => ("users", "", name.as_str()),
    };
    let mut wanted = vec![(resource, namespace, shown)];
    wanted.extend(groups.iter().map(|group| ("groups", "", group.as_str())));
    for (resource, namespace, name) in wanted {
        let what = What::Resource {
            group: String::new(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let wanted = Attributes { verb: "impersonate".into(), what };
        if server.rbac && allowed(server, &user, &wanted).is_none() {
            let message = format!(
                "{resource} {name:?} is forbidden: User {:?} cannot impersonate resource {resource:?} in API group \"\" at the cluster scope",
                user.name
            );
            let details = json!({"name": name, "kind": resource});
            return Err(ApiError::new(403, "Forbidden", message).with_details(details));
        }
    }
    let mut other = if groups.is_empty() && resource == "serviceaccounts" {
        let all = format!("system:serviceaccounts:{namespace}");
        User::named(&name, &["system:serviceaccounts", &all])
    } else {
        User::named(&name, &groups.iter().map(String::as_str).collect::<Vec<_>>())
    };
    if name == "system:anonymous" {
        other.groups.retain(|group| group != "system:authenticated");
        other.groups.push("system:unauthenticated".into());
    }
    other.uid = uids.into_iter().next().unwrap_or_default();
    for (key, value) in extra {
        other.extra.entry(key).or_default().push(value);
    }
    Ok(other)
}
