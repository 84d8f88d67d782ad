//! Sessions: a client that brings no cookie is given one, and with it comes to the same endpoint again.
//!
//! The cookie names no endpoint. It is a key for [consistent hashing](super::hash), so it tells nobody who the endpoints are, is
//! understood by every proxy without memory of it.

use std::time::Duration;

use http::header::HeaderValue;

use super::hash::{cookie, hash};
use crate::decide::RequestHead;

/// A cookie that the proxy gives to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// A token (RFC 6265, section 4.1.1).
    pub name: String,
    /// How long clients keep it; none: until they end.
    pub max_age: Option<Duration>,
}

/// A session that begins with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSession<'p> {
    cookie: &'p SessionCookie,
    id: u64,
}

impl SessionCookie {
    /// The hash of the request's session: the one that it brings, or one that begins, by `draw`.
    pub fn key(&self, head: &RequestHead<'_>, draw: impl FnOnce() -> u64) -> (u64, Option<NewSession<'_>>) {
        match cookie(head, &self.name).filter(|value| !value.is_empty()) {
            Some(value) => (hash(value), None),
            None => {
                let session = NewSession { cookie: self, id: draw() };
                (hash(session.value().as_bytes()), Some(session))
            }
        }
    }
}

impl NewSession<'_> {
    fn value(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// The value of the header `set-cookie`. None for a name that is no token.
    pub fn set_cookie(&self) -> Option<HeaderValue> {
        let (name, value) = (&self.cookie.name, self.value());
        let age = self.cookie.max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        HeaderValue::try_from(format!("{name}={value}; Path=/{age}; HttpOnly; SameSite=Lax")).ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::COOKIE;

    use super::*;

    #[test]
    fn a_session_that_is_brought_back_has_the_key_with_which_it_began() {
        let cookie = SessionCookie { name: "fsm".into(), max_age: Some(Duration::from_secs(3_600)) };
        let key = |brings: &str, draw: u64| {
            let headers = HeaderMap::from_iter([(COOKIE, brings.parse().unwrap())]);
            let head = RequestHead { method: "GET", authority: "a", path: "/", headers: &headers, flaw: None };
            let (key, new) = cookie.key(&head, || draw);
            (key, new.map(|new| new.set_cookie().unwrap().to_str().unwrap().to_owned()))
        };
        let (first, given) = key("other=1", 0xabc);
        let given = given.unwrap();
        assert_eq!(given, "fsm=0000000000000abc; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        let (brought, _) = given.split_once(';').unwrap();
        assert_eq!(key(&format!("other=1; {brought}"), 7), (first, None));
        assert_ne!(key("", 7).0, first);
        assert!(key("fsm=", 7).1.is_some(), "an empty one is none");
    }
}
