//! HTTP matching: route groups as SMI specs v1alpha4 defines them.
//!
//! Expressions are anchored: they must match the whole path (without query) or header value. Methods and header names
//! compare as HTTP has it: methods exactly, names without case.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::decide::RequestHead;

/// A compiled route group.
#[derive(Debug)]
pub(crate) struct RouteGroup {
    /// `ns/name`.
    pub name: String,
    pub matches: Vec<HttpMatch>,
}

/// A reference to a route group; it may not exist.
#[derive(Clone, Debug)]
pub(crate) struct GroupRef {
    pub name: String,
    pub group: Option<Arc<RouteGroup>>,
}

/// One compiled match of a group: all its conditions must hold.
#[derive(Debug)]
pub(crate) struct HttpMatch {
    pub name: String,
    /// None: any path.
    pub path: Option<Pattern<regex::Regex>>,
    /// Empty: any method.
    pub methods: Vec<String>,
    pub headers: Vec<(http::HeaderName, Pattern<regex::bytes::Regex>)>,
}

/// An expression as written, and compiled with anchors.
#[derive(Debug)]
pub(crate) struct Pattern<R> {
    pub written: String,
    pub anchored: R,
}

/// The condition of a match that does not hold.
#[derive(Debug)]
pub(crate) enum Mismatch<'a> {
    Method { got: &'a str, allowed: &'a [String] },
    Path { got: Cow<'a, str>, pattern: &'a str },
    NoHeader { name: &'a str },
    Header { name: &'a str, pattern: &'a str },
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method { got, allowed } => write!(f, "method {got} is not one of {}", allowed.join(", ")),
            Self::Path { got, pattern } => write!(f, "path {got} does not match {pattern}"),
            Self::NoHeader { name } => write!(f, "header {name} is missing"),
            Self::Header { name, pattern } => write!(f, "header {name} does not match {pattern}"),
        }
    }
}

impl HttpMatch {
    /// The first condition that `head` does not meet.
    pub fn mismatch<'a>(&'a self, head: &RequestHead<'a>) -> Option<Mismatch<'a>> {
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == head.method) {
            return Some(Mismatch::Method { got: head.method, allowed: &self.methods });
        }
        if let Some(pattern) = &self.path {
            let path = without_query(head.path);
            // An application may or may not resolve dot segments before it routes, so both readings must be allowed.
            for got in [Some(Cow::Borrowed(path)), resolved(path).map(Cow::Owned)].into_iter().flatten() {
                if !pattern.anchored.is_match(&got) {
                    return Some(Mismatch::Path { got, pattern: &pattern.written });
                }
            }
        }
        self.headers.iter().find_map(|(name, pattern)| {
            let mut values = head.headers.get_all(name).iter().peekable();
            if values.peek().is_none() {
                return Some(Mismatch::NoHeader { name: name.as_str() });
            }
            let matches = values.any(|value| pattern.anchored.is_match(value.as_bytes()));
            (!matches).then_some(Mismatch::Header { name: name.as_str(), pattern: &pattern.written })
        })
    }
}

/// The path without its query.
pub(crate) fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// The path with `.` and `..` segments (also percent-encoded ones) resolved, as RFC 3986 section 5.2.4 has it; none if it has
/// no such segment.
fn resolved(path: &str) -> Option<String> {
    let dots = |segment: &str| match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    };
    if !(path.contains("/.") || path.contains("/%2")) || path.split('/').all(|segment| dots(segment) == 0) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            0 => kept.push(segment),
            count => {
                if count == 2 {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
        }
    }
    Some(format!("/{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_resolved_as_the_rfc_has_it() {
        for (path, expected) in [
            ("/a/b", None),
            ("/a/.b/..c", None),
            ("/a/../b", Some("/b")),
            ("/a/./b", Some("/a/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/b/.", Some("/a/b/")),
            ("/../../a", Some("/a")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/.%2e/b", Some("/b")),
        ] {
            assert_eq!(resolved(path).as_deref(), expected, "{path}");
        }
    }
}
