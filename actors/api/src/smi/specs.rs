//! HTTPRouteGroup and TCPRoute: what traffic looks like.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::meta::{ObjectMeta, null_as_default};
use crate::report::{Report, Validate};

/// specs.smi-spec.io/v1alpha4 HTTPRouteGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpRouteGroup {
    pub metadata: ObjectMeta,
    pub spec: HttpRouteGroupSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpRouteGroupSpec {
    #[serde(deserialize_with = "null_as_default")]
    pub matches: Vec<HttpMatch>,
}

/// One kind of request. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatch {
    pub name: String,
    /// Must match the whole path, without the query. Empty means any path.
    pub path_regex: String,
    /// Upper-case methods; `*`, or none, means any.
    #[serde(deserialize_with = "null_as_default")]
    pub methods: Vec<String>,
    /// Objects of one pair each: header name to a regular expression that must match the whole value.
    #[serde(deserialize_with = "null_as_default")]
    pub headers: Vec<BTreeMap<String, String>>,
}

impl HttpMatch {
    /// The header conditions, one after the other: name, expression on the value.
    pub fn header_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The methods that a match may list.
const METHODS: [&str; 10] = ["*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

impl Validate for HttpRouteGroup {
    fn validate(&self) -> Report {
        let mut report = Report::new("HTTPRouteGroup", &self.metadata.namespace, &self.metadata.name);
        let matches = &self.spec.matches;
        if matches.is_empty() {
            report.warn("spec.matches", "is empty, so no request belongs to this group: add a match");
        }
        for (index, each) in matches.iter().enumerate() {
            let field = format!("spec.matches[{index}]");
            if each.name.is_empty() {
                report.error(format!("{field}.name"), "is empty: TrafficTargets choose matches by name");
            } else if matches[..index].iter().any(|other| other.name == each.name) {
                report.error(
                    format!("{field}.name"),
                    format!("\"{}\" is the name of an earlier match too: give each its own", each.name),
                );
            }
            expression(&mut report, &format!("{field}.pathRegex"), &each.path_regex);
            for (method_index, method) in each.methods.iter().enumerate() {
                if !METHODS.contains(&method.as_str()) {
                    report.error(
                        format!("{field}.methods[{method_index}]"),
                        format!("\"{method}\" is not a method: write one of {} in upper case", METHODS.join(", ")),
                    );
                }
            }
            for (name, value) in each.header_pairs() {
                let field = format!("{field}.headers[\"{name}\"]");
                if name.is_empty() || !name.bytes().all(is_token) {
                    report.error(field.clone(), "is not a header name: write letters, digits and hyphens");
                }
                expression(&mut report, &field, value);
            }
        }
        report
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The largest compiled expression that a proxy takes, in bytes.
const EXPRESSION_BYTES: usize = 1 << 20;

fn anchored(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!(r"\A(?:{expression})\z")).size_limit(EXPRESSION_BYTES).build()
}

/// Whether an expression has nothing in it that can become large: then its syntax is all there is to check. Compiling costs a hundred times
/// as much.
fn is_plain(expression: &str) -> bool {
    expression.len() <= 256
        && expression.is_ascii()
        && !expression.contains(['[', '{', '\\'])
        && !expression.contains("(?")
}

/// Refuses what a proxy would refuse: one such expression would keep it from taking any newer configuration.
fn expression(report: &mut Report, field: &str, expression: &str) {
    if is_plain(expression) && regex_syntax::parse(expression).is_ok() {
        return;
    }
    // On its own first: inside the anchors, brackets that do not belong together could close the group (`a)|(?:b`).
    if let Err(error) = Regex::new(expression).and_then(|_| anchored(expression)) {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        report.error(
            field,
            format!(
                "\"{expression}\" is not a regular expression that FSM can use ({reason}): \
                 write RE2-style syntax, without look-around and back-references"
            ),
        );
    }
}

/// specs.smi-spec.io/v1alpha4 TCPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    pub metadata: ObjectMeta,
    pub spec: TcpRouteSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpRouteSpec {
    #[serde(deserialize_with = "null_as_default")]
    pub matches: TcpMatch,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpMatch {
    /// Empty means every port.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<i64>,
}

impl Validate for TcpRoute {
    fn validate(&self) -> Report {
        let mut report = Report::new("TCPRoute", &self.metadata.namespace, &self.metadata.name);
        for (index, port) in self.spec.matches.ports.iter().enumerate() {
            if !(1..=65535).contains(port) {
                report.error(format!("spec.matches.ports[{index}]"), format!("{port} is not a port: write 1 to 65535"));
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_plain_and_well_formed_compiles(
            parts in prop::collection::vec(prop::sample::select(&["a", "/", ".", ".*", "x?", "^", "$", "(b|c)+", "(.|d)*", "|"][..]), 0..60),
        ) {
            let text = parts.concat();
            prop_assert!(regex_syntax::parse(&text).is_ok() && is_plain(&text) == (text.len() <= 256));
            prop_assert!(anchored(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn the_largest_plain_expressions_compile() {
        for unit in [".", ".*", ".+", "(.)", ".?", "a|", "(.|.)*"] {
            let text = unit.repeat(256 / unit.len());
            assert!(is_plain(&text) && anchored(&text).is_ok(), "{unit}");
        }
    }
}
