//! The query string of a request.

use std::borrow::Cow;

use super::status::ApiError;

/// Decoded query parameters, in the order sent. Empty pieces (kube-rs sends `?&a=b` and a bare `?`) are ignored.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|piece| !piece.is_empty()).map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter; `None` when it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A boolean as the real server reads it: present and neither `false` nor `0` is true.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().find(|(n, _)| n == name).is_some_and(|(_, v)| v != "false" && v != "0")
    }

    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|v| v.parse().map_err(|_| ApiError::bad_request(format!("{name}: {v:?} is not a number"))))
            .transpose()
    }
}

/// Percent decoding; `+` is a space.
pub fn decode(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let mut out = Vec::with_capacity(spaced.len());
    let bytes = spaced.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| spaced.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_rs_queries_begin_with_an_ampersand() {
        let query = Query::parse("&limit=500&fieldSelector=metadata.name%3Dk&watch=maybe&x=false");
        assert_eq!(query.number("limit").unwrap(), Some(500));
        assert_eq!(query.get("fieldSelector"), Some("metadata.name=k"));
        assert!(query.flag("watch"));
        assert!(!query.flag("x"));
        assert!(!query.flag("absent"));
    }

    #[test]
    fn broken_escapes_are_kept_as_they_are() {
        assert_eq!(decode("a%zz%4"), "a%zz%4");
        assert_eq!(decode("a+b%20c"), "a b c");
    }
}
