//! Label and field selectors.

use serde_json::Value;

use super::object::{at, items, text};
use super::resource::Resource;
use super::status::ApiError;

/// One condition of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// The value is a number beyond another one: greater when true, less when false.
    Beyond(String, bool, i64),
}

/// A label selector: every requirement must hold. The empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses the form of the `labelSelector` parameter: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut requirements = Vec::new();
        for piece in split_outside_parentheses(text) {
            let piece = piece.trim();
            if piece.is_empty() {
                continue;
            }
            let refuse = || {
                ApiError::bad_request(format!(
                    "unable to parse requirement: {piece:?} of the label selector {text:?}: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
                ))
            };
            requirements.push(parse_requirement(piece).ok_or_else(refuse)?);
        }
        Ok(Self(requirements))
    }

    /// Reads a `LabelSelector` object (`matchLabels`, `matchExpressions`). An unknown operator selects nothing.
    pub fn from_object(selector: &Value) -> Self {
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().into()]));
        }
        for expression in items(selector, &["matchExpressions"]) {
            let key = text(expression, &["key"]).to_owned();
            let values = items(expression, &["values"]).iter().filter_map(Value::as_str).map(Into::into).collect();
            requirements.push(match text(expression, &["operator"]) {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                _ => Requirement::In(key, Vec::new()),
            });
        }
        Self(requirements)
    }

    /// Whether an object's labels satisfy the selector.
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| at(object, &["metadata", "labels", key]).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::Beyond(key, greater, bound) => {
                let number = label(key).and_then(|v| v.parse::<i64>().ok());
                number.is_some_and(|n| if *greater { n > *bound } else { n < *bound })
            }
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name that a field selector asks for, if it asks for one object.
pub fn only_name(text: &str) -> Option<String> {
    let wanted = text.split(',').find_map(|piece| piece.trim().strip_prefix("metadata.name="))?;
    Some(wanted.trim_start_matches('=').to_owned())
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut pieces, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                pieces.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

fn parse_requirement(piece: &str) -> Option<Requirement> {
    let key = |text: &str| is_label_key(text.trim()).then(|| text.trim().to_owned());
    let value = |text: &str| is_label_value(text.trim()).then(|| text.trim().to_owned());
    if let Some(rest) = piece.strip_prefix('!') {
        return Some(Requirement::Absent(key(rest)?));
    }
    if let Some((k, v)) = piece.split_once("!=") {
        return Some(Requirement::NotIn(key(k)?, vec![value(v)?]));
    }
    if let Some((k, v)) = piece.split_once("==").or_else(|| piece.split_once('=')) {
        return Some(Requirement::In(key(k)?, vec![value(v)?]));
    }
    if let Some((k, v)) = piece.split_once(['<', '>']) {
        return Some(Requirement::Beyond(key(k)?, piece.contains('>'), v.trim().parse().ok()?));
    }
    if let Some((head, list)) = piece.strip_suffix(')').and_then(|p| p.split_once('(')) {
        let (k, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = list.split(',').map(value).collect::<Option<Vec<_>>>()?;
        return match operator {
            "in" => Some(Requirement::In(key(k)?, values)),
            "notin" => Some(Requirement::NotIn(key(k)?, values)),
            _ => None,
        };
    }
    Some(Requirement::Exists(key(piece)?))
}

fn is_label_key(key: &str) -> bool {
    super::names::label_key_problem(key).is_none()
}

fn is_label_value(value: &str) -> bool {
    super::names::label_value_problem(value).is_none()
}

/// A field selector: every condition must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(Vec<String>, String, bool)>);

impl FieldSelector {
    /// Parses `metadata.name=x,spec.nodeName!=y`, refusing fields that the resource can't be selected by.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, ApiError> {
        let mut conditions = Vec::new();
        for piece in text.split(',').filter(|p| !p.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = piece.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = piece.split_once("==").or_else(|| piece.split_once('=')) {
                (field, value, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid selector: '{piece}'; can't understand '{piece}'")));
            };
            if !resource.selectable(field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
            conditions.push((field.split('.').map(Into::into).collect(), value.to_owned(), equal));
        }
        Ok(Self(conditions))
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, wanted, equal)| {
            let found = path.iter().try_fold(object, |value, key| value.get(key));
            let found = match found {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing but names and namespaces is looked at.
    pub fn about_names(&self) -> bool {
        self.0.iter().all(|(path, ..)| path[0] == "metadata")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selects(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn every_requirement_must_hold() {
        assert!(selects("app=web,tier!=db,env in (a, b),zone notin (x),app,!gone", json!({"app": "web", "env": "b"})));
        assert!(!selects("app=web", json!({"app": "other"})));
        assert!(selects("n>4,n<6", json!({"n": "5"})) && !selects("n>5", json!({"n": "5"})));
        assert!(!selects("!app", json!({"app": ""})));
        assert!(selects("", json!({})));
    }

    #[test]
    fn what_cannot_be_parsed_is_refused() {
        for bad in ["a in b", "=x", "a b", "a=b c", "a in (x"] {
            assert_eq!(LabelSelector::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
