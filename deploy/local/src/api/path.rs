//! What a request path means.

use std::sync::Arc;

use super::query::decode;
use super::resource::{Registry, Resource};
use super::status::ApiError;

/// A path below `/api/VERSION` or `/apis/GROUP/VERSION` that names a resource.
#[derive(Debug, Clone)]
pub struct Target {
    pub resource: Arc<Resource>,
    /// `None` for cluster-scoped resources and for all namespaces.
    pub namespace: Option<String>,
    /// `None` for the collection.
    pub name: Option<String>,
    pub subresource: Option<String>,
    /// Whether the path itself asks for a watch, as the deprecated ones below `/watch` do.
    pub watched: bool,
}

/// What a path asks for.
#[derive(Debug, Clone)]
pub enum Route {
    Resource(Target),
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all named groups.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Version(String, String),
    /// Anything else, such as `/version`; no trailing slash.
    Other(String),
}

/// Reads a path. Unknown groups and versions are answered with plain text, unknown resources with a `Status`.
pub fn parse(path: &str, registry: &Registry) -> Result<Route, ApiError> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<String> = trimmed.split('/').skip(1).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api"] => return Ok(Route::CoreVersions),
        ["apis"] => return Ok(Route::Groups),
        ["apis", group] => return Ok(Route::Group((*group).into())),
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Ok(Route::Other(trimmed.into())),
    };
    let (watched, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    if rest.is_empty() {
        return Ok(Route::Version(group.into(), version.into()));
    }
    if registry.of_version(group, version).next().is_none() {
        let built_in = registry.iter().any(|r| r.group == group && r.custom().is_none());
        return Err(if built_in { ApiError::no_such_resource() } else { ApiError::no_such_path() });
    }
    let (namespace, rest) = match rest {
        // A namespace object, its subresources, or something within it.
        ["namespaces", namespace, plural, rest @ ..]
            if !group.is_empty() || registry.get(group, version, plural).is_some_and(|r| r.namespaced) =>
        {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        _ => (None, rest.to_vec()),
    };
    let plural = rest[0];
    let unknown = || {
        let custom = registry.of_version(group, version).any(|r| r.custom().is_some());
        if custom { ApiError::no_such_path() } else { ApiError::no_such_resource() }
    };
    let resource = registry.get(group, version, plural).ok_or_else(unknown)?.clone();
    let (name, subresource) = match &rest[1..] {
        [] => (None, None),
        [name] => (Some((*name).to_owned()), None),
        [name, subresource] => (Some((*name).to_owned()), Some((*subresource).to_owned())),
        _ => return Err(ApiError::no_such_resource()),
    };
    if namespace.is_some() != resource.namespaced && (namespace.is_some() || name.is_some()) {
        return Err(ApiError::no_such_resource());
    }
    if let Some(subresource) = &subresource {
        let known = match subresource.as_str() {
            "status" => resource.status,
            "scale" => resource.scale.is_some(),
            other => resource.extras.iter().any(|extra| extra.name == other),
        };
        if !known {
            // Custom resources have these two, or say that there is no such object.
            let own = resource.custom().is_some() && matches!(subresource.as_str(), "status" | "scale");
            let missing = || ApiError::not_found(&resource, name.as_deref().unwrap_or_default());
            return Err(if own { missing() } else { ApiError::no_such_resource() });
        }
    }
    Ok(Route::Resource(Target { resource, namespace, name, subresource, watched }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::builtin;

    fn target(path: &str) -> Target {
        match parse(path, &builtin::registry()) {
            Ok(Route::Resource(target)) => target,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_objects_and_containers() {
        let t = target("/api/v1/namespaces/a/pods/p/log");
        assert_eq!(
            (t.namespace.as_deref(), t.name.as_deref(), t.subresource.as_deref()),
            (Some("a"), Some("p"), Some("log"))
        );
        let t = target("/api/v1/namespaces/a/status");
        assert_eq!(
            (t.resource.plural.as_str(), t.name.as_deref(), t.subresource.as_deref()),
            ("namespaces", Some("a"), Some("status"))
        );
        let t = target("/api/v1/watch/namespaces/a/configmaps/c");
        assert_eq!((t.watched, t.namespace.as_deref(), t.name.as_deref()), (true, Some("a"), Some("c")));
        let t = target("/apis/apps/v1/deployments/");
        assert_eq!((t.namespace, t.name), (None, None));
    }

    #[test]
    fn what_is_not_served_is_refused_as_a_real_server_does() {
        let refused = |path: &str| parse(path, &builtin::registry()).unwrap_err();
        assert!(refused("/apis/nope.io/v1/things").plain);
        assert!(!refused("/apis/apps/v1/things").plain);
        assert!(!refused("/apis/apps/v9/deployments").plain);
        assert_eq!(refused("/api/v1/namespaces/a/configmaps/x/status").code, 404);
    }
}
