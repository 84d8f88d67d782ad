//! GET and LIST.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::cel::duration_ns;
use super::database::Key;
use super::media::Form;
use super::packed::{Object, Packed};
use super::path::Target;
use super::query::Query;
use super::resource::Resource;
use super::routes::Answer;
use super::selector::{FieldSelector, LabelSelector};
use super::server::{Server, present, shows_stored};
use super::status::ApiError;
use super::table;

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    pub fn of(query: &Query, resource: &Resource) -> Result<Self, ApiError> {
        Ok(Self {
            labels: query.get("labelSelector").map(LabelSelector::parse).transpose()?.unwrap_or_default(),
            fields: query
                .get("fieldSelector")
                .map(|text| FieldSelector::parse(text, resource))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// Whether an object passes that is kept packed. It is unpacked as far as needed.
    pub fn admits(&self, resource: &Resource, object: &Packed) -> bool {
        if self.is_empty() {
            true
        } else if self.fields.about_names() {
            self.matches(&object.heading())
        } else {
            self.matches(&present(resource, &object.unpack()))
        }
    }

    /// Whether an object passes, in the form in which the resource shows it.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

/// One object, in its stored form.
pub fn find(server: &Server, target: &Target) -> Result<Object, ApiError> {
    let name = target.name.as_deref().unwrap_or_default();
    let key = Key::new(target.namespace.as_deref().unwrap_or_default(), name);
    server.database.get(&target.resource.storage, &key).ok_or_else(|| ApiError::not_found(&target.resource, name))
}

/// GET of one object.
pub async fn get(server: &Server, target: &Target, query: &Query, form: Form) -> Result<Value, ApiError> {
    reachable(server, query.get("resourceVersion")).await?;
    let object = present(&target.resource, &find(server, target)?);
    Ok(shaped(&target.resource, object, form, query))
}

/// One object in the form asked for.
pub fn shaped(resource: &Resource, object: Value, form: Form, query: &Query) -> Value {
    match form {
        Form::Whole | Form::Discovery => object,
        Form::Metadata => partial(&object),
        Form::Table => {
            let version = super::object::resource_version(&object).to_owned();
            table::of(
                resource,
                std::slice::from_ref(&object),
                json!({"resourceVersion": version}),
                include_object(query),
            )
        }
    }
}

pub fn include_object(query: &Query) -> table::Include {
    match query.get("includeObject") {
        Some("Object") => table::Include::Object,
        Some("None") => table::Include::None,
        _ => table::Include::Metadata,
    }
}

/// The metadata of an object, as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// What a continue token says: the version of the first page, and the key after which to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Continue {
    /// `None` to go on at the newest version, whichever that is.
    version: Option<u64>,
    start: Key,
}

impl Continue {
    fn token(&self) -> String {
        let start = format!("{}/{}\u{0}", self.start.namespace, self.start.name);
        let version = self.version.map_or(json!(-1), |version| json!(version));
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": version, "start": start}).to_string())
    }

    fn parse(token: &str) -> Option<Self> {
        let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?).ok()?;
        let (namespace, name) = decoded["start"].as_str()?.strip_suffix('\u{0}')?.split_once('/')?;
        let version = match decoded["rv"].as_i64()? {
            -1 => None,
            version => Some(u64::try_from(version).ok()?),
        };
        Some(Self { version, start: Key::new(namespace, name) })
    }
}

/// LIST. A version that has not been reached yet is waited for, and refused after three seconds.
pub async fn list(server: &Server, target: &Target, query: &Query, form: Form, yaml: bool) -> Result<Answer, ApiError> {
    check_timeout(query)?;
    let resource = &target.resource;
    let filter = Filter::of(query, resource)?;
    let exact = query.get("resourceVersionMatch") == Some("Exact");
    let wanted = query.get("resourceVersion");
    check_version_match(resource, query)?;
    reachable(server, wanted).await?;
    let page = page_of(query, wanted)?;
    // With a limit a version means that very one, so that the pages belong together.
    let exact = exact || (page.limit.is_some() && !query.all("resourceVersionMatch").any(|m| m == "NotOlderThan"));
    let named = wanted.filter(|_| exact).and_then(|w| w.parse().ok()).filter(|version| *version > 0);
    let then = page.after.as_ref().map_or(named, |after| after.version);
    let (version, objects) = match then {
        None => server.database.list_packed(&resource.storage, target.namespace.as_deref()),
        Some(then) => {
            let known = server.database.list_at(&resource.storage, target.namespace.as_deref(), then);
            (then, known.map_err(|_| too_old(page.after.as_ref()))?)
        }
    };
    let start = page.after.as_ref().map_or(0, |after| objects.partition_point(|(key, _)| *key <= after.start));
    let mut passing = objects[start..].iter().filter(|(key, object)| {
        target.name.as_ref().is_none_or(|name| *name == key.name) && filter.admits(resource, object)
    });
    let shown: Vec<&(Key, Arc<Packed>)> = passing.by_ref().take(page.limit.unwrap_or(usize::MAX)).collect();
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), json!(version.to_string()));
    match shown.last().filter(|_| passing.next().is_some()) {
        Some((last, _)) => {
            let next = Continue { version: Some(version), start: last.clone() };
            metadata.insert("continue".into(), json!(next.token()));
            if filter.is_empty() {
                metadata.insert("remainingItemCount".into(), json!(objects.len() - start - shown.len()));
            }
        }
        None if resource.custom().is_some() && form == Form::Whole => {
            metadata.insert("continue".into(), json!(""));
        }
        None => {}
    }
    let metadata = Value::Object(metadata);
    if form == Form::Whole && shows_stored(resource) && !yaml {
        return Ok(Answer::Json(packed_collection(resource, &metadata, &shown)));
    }
    let items = shown.into_iter().map(|(_, object)| present(resource, &object.unpack())).collect();
    Ok(Answer::value(200, collection(resource, items, metadata, form, query)))
}

/// A list whose items are written as they are kept.
fn packed_collection(resource: &Resource, metadata: &Value, items: &[&(Key, Arc<Packed>)]) -> Bytes {
    let (kind, version) = (json!(resource.list_kind), json!(resource.api_version()));
    let mut list =
        format!("{{\"kind\":{kind},\"apiVersion\":{version},\"metadata\":{metadata},\"items\":[").into_bytes();
    for (i, (_, object)) in items.iter().enumerate() {
        if i > 0 {
            list.push(b',');
        }
        object.write_item(resource.custom().is_some(), &mut list);
    }
    list.extend_from_slice(b"]}");
    list.into()
}

/// The answer when a version is no longer known. With a page's token comes one that goes on with what there is now.
fn too_old(after: Option<&Continue>) -> ApiError {
    let Some(after) = after else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
                   the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
                   Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
                   deleted between the time the first chunk was returned and now may show up in the list.";
    let token = Continue { version: None, start: after.start.clone() }.token();
    ApiError { next_page: Some(token), ..ApiError::expired(message) }
}

/// A list in the form asked for.
fn collection(resource: &Resource, mut items: Vec<Value>, metadata: Value, form: Form, query: &Query) -> Value {
    match form {
        Form::Table => table::of(resource, &items, metadata, include_object(query)),
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(partial).collect();
            // As a real server has it: no items is null here.
            let items = if items.is_empty() { Value::Null } else { json!(items) };
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        Form::Whole | Form::Discovery => {
            if resource.custom().is_none() {
                for item in &mut items {
                    let item = super::object::as_map(item);
                    item.remove("kind");
                    item.remove("apiVersion");
                }
            }
            json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items})
        }
    }
}

struct Page {
    limit: Option<usize>,
    after: Option<Continue>,
}

fn page_of(query: &Query, wanted: Option<&str>) -> Result<Page, ApiError> {
    let limit = query.number("limit")?.filter(|l| *l > 0).and_then(|l| usize::try_from(l).ok());
    // With version 0 a real server answers from its cache, which knows no pages.
    let limit = if wanted == Some("0") { None } else { limit };
    let after = match query.get("continue") {
        None => None,
        Some(token) => Some(
            Continue::parse(token)
                .ok_or_else(|| ApiError::bad_request("continue key is not valid: it was not made by this server"))?,
        ),
    };
    if after.is_some() && wanted.is_some_and(|w| w != "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(Page { limit, after })
}

/// A list takes no time here, so a time-out is only looked at.
fn check_timeout(query: &Query) -> Result<(), ApiError> {
    let Some(timeout) = query.get("timeout") else { return Ok(()) };
    if duration_ns(timeout).is_some() {
        return Ok(());
    }
    let message = format!("invalid timeout specified in the request URL - time: invalid duration {timeout:?}");
    Err(ApiError::bad_request(message))
}

fn check_version_match(resource: &Resource, query: &Query) -> Result<(), ApiError> {
    let Some(kind) = query.get("resourceVersionMatch") else { return Ok(()) };
    let problem = match (kind, query.get("resourceVersion")) {
        (_, None) => Some(super::status::FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        ("Exact", Some("0")) => Some(super::status::FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("Exact" | "NotOlderThan", _) => None,
        (other, _) => Some(super::status::FieldError::unsupported(
            "resourceVersionMatch",
            &json!(other),
            &["Exact", "NotOlderThan", ""],
        )),
    };
    let list = Resource { kind: "ListOptions".into(), group: "meta.k8s.io".into(), ..resource.clone() };
    problem.map_or(Ok(()), |problem| Err(ApiError::invalid(&list, "", &[problem])))
}

/// Waits until a version has been reached, for at most three seconds.
async fn reachable(server: &Server, version: Option<&str>) -> Result<(), ApiError> {
    let Some(version) = version else { return Ok(()) };
    let wanted: u64 = version
        .parse()
        .map_err(|_| ApiError::bad_request(format!("Invalid value: {version:?}: not a resource version")))?;
    let current = server.database.version();
    if wanted <= current {
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
    while server.database.version() < wanted {
        if tokio::time::Instant::now() >= deadline {
            let message = format!("Too large resource version: {wanted}, current: {current}");
            let causes = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
            return Err(ApiError::new(504, "Timeout", format!("Timeout: {message}")).with_details(causes));
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Objects of a resource that pass a filter.
pub fn matching(server: &Server, target: &Target, filter: &Filter) -> Vec<(Key, Object)> {
    let (_, mut objects) = server.database.list_packed(&target.resource.storage, target.namespace.as_deref());
    objects.retain(|(_, object)| filter.admits(&target.resource, object));
    objects.into_iter().map(|(key, object)| (key, object.unpack())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_read_back() {
        for version in [Some(7), None] {
            let at = Continue { version, start: Key::new("a", "b.c") };
            assert_eq!(Continue::parse(&at.token()), Some(at));
        }
        assert_eq!(Continue::parse("nonsense"), None);
    }
}
