//! What two answers have in common, and what they don't.
//!
//! What is generated (uids, versions, times, field ownership) is taken out. Of refusals the reason, the object and the refused fields
//! count; the words only where they are no decoder's or schema's.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// Keys whose values are made by the server.
const GENERATED: [&str; 19] = [
    "description",
    "lastUpdateTime",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "continue",
    "nodePort",
    "healthCheckNodePort",
    "tolerations",
    "ca.crt",
    // Of the program that answers.
    "buildDate",
    "gitCommit",
    "goVersion",
    "compiler",
];

/// A body without what is generated, and with the words of messages that name such things made alike.
pub fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let refusal = map.get("kind").is_some_and(|kind| kind == "Status");
            let decoded = refusal && !matches!(map.get("code").and_then(Value::as_u64), Some(403 | 404 | 409));
            // A cause; that of an internal error has nothing but words.
            let cause = map.contains_key("field") && map.contains_key("reason") || map.keys().eq(["message"]);
            let kept = map.iter().filter(|(key, value)| {
                !GENERATED.contains(&key.as_str()) && !value.is_null() && !((decoded || cause) && *key == "message")
            });
            Value::Object(kept.map(|(key, value)| (key.clone(), comparable(value))).collect())
        }
        Value::Array(items) => {
            // What a real server adds where it could not go on checking.
            let told = items.iter().filter(|item| item["field"] != "<nil>");
            let mut items: Vec<Value> = told.map(comparable).collect();
            if items.iter().all(|item| item["field"].is_string()) {
                items.sort_by_key(|item| item["field"].to_string());
                items.dedup();
            }
            Value::Array(items)
        }
        Value::String(text) => json!(alike(text)),
        other => other.clone(),
    }
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("a pattern"));
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\d{2,}\b").expect("a pattern"));
static AGE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d+s$").expect("a pattern"));

fn alike(text: &str) -> String {
    if AGE.is_match(text) {
        return "AGE".into();
    }
    NUMBER.replace_all(&UUID.replace_all(text, "UID"), "N").into_owned()
}

/// What a recorded server gave names to, and what this one calls it.
#[derive(Default)]
pub struct Names(HashMap<String, String>);

impl Names {
    pub fn learn(&mut self, recorded: &Value, found: &Value) {
        // Names are given by the client, but for the random ones.
        let generated = recorded.get("generateName").is_some();
        for key in ["uid", "resourceVersion", "name", "continue"].into_iter().filter(|key| *key != "name" || generated)
        {
            let (recorded, found) = (&recorded[key], &found[key]);
            if let (Some(recorded), Some(found)) = (recorded.as_str(), found.as_str())
                && recorded != found
            {
                self.0.insert(recorded.into(), found.into());
            }
        }
        match (recorded, found) {
            (Value::Object(recorded), Value::Object(found)) => {
                for (key, value) in recorded {
                    self.learn(value, found.get(key).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(recorded), Value::Array(found)) => {
                recorded.iter().zip(found).for_each(|(r, f)| self.learn(r, f));
            }
            _ => {}
        }
    }

    pub fn translate(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.0.get(text).unwrap_or(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.translate(item)).collect()),
            Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), self.translate(v))).collect()),
            other => other.clone(),
        }
    }

    pub fn translate_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, found) in self.0.iter().filter(|(recorded, _)| recorded.len() > 8) {
            text = text.replace(recorded, found);
        }
        text
    }

    pub fn translate_query(&self, query: &str) -> String {
        let translated = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, value)) => format!("{key}={}", self.0.get(value).map_or(value, String::as_str)),
            None => pair.to_owned(),
        });
        translated.collect::<Vec<_>>().join("&")
    }
}

pub fn compare(recorded: &Value, found: &Value, path: &str, report: &mut dyn FnMut(String)) {
    match (recorded, found) {
        (Value::Object(recorded), Value::Object(found)) => {
            for (key, value) in recorded {
                match found.get(key) {
                    Some(other) => compare(value, other, &format!("{path}.{key}"), report),
                    None => report(format!("{path}.{key} is missing, recorded {value}")),
                }
            }
            for (key, value) in found.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
                report(format!("{path}.{key} is too much: {value}"));
            }
        }
        (Value::Array(recorded), Value::Array(found)) if recorded.len() == found.len() => {
            for (i, (recorded, found)) in recorded.iter().zip(found).enumerate() {
                compare(recorded, found, &format!("{path}[{i}]"), report);
            }
        }
        _ if recorded == found => {}
        // Names with random ends.
        (Value::String(a), Value::String(b))
            if a.len() == b.len() && a.len() > 5 && a[..a.len() - 5] == b[..b.len() - 5] => {}
        _ => report(format!("{path} is {found}, recorded {recorded}")),
    }
}
