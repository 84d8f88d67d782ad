//! Reading through a JSON text without building anything of it.
//!
//! Of an object of Kubernetes the mesh reads a few hundred bytes; most objects that pass have some kB. A [`Skim`] goes over a text from
//! front to back, hands out what is asked for as it stands there, and jumps over the rest.
//!
//! It finds its way in every text that is JSON, but doesn't look into what it jumps over, and has no words for what is wrong: where
//! something else stands than is asked for it gives up (`None`). Whoever calls it reads the text with a parser then.

use memchr::memmem::Finder;

use super::jump;

/// A place in a JSON text. After a `None` it is of no use any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skim<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Skim<'a> {
    /// Before the first value of a text.
    pub fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Calls `member` with the key of every member of the object that is next; it has to step over the member's value.
    pub fn object(&mut self, mut member: impl FnMut(&'a str, &mut Self) -> Option<()>) -> Option<()> {
        self.until(|key, value| member(key, value).map(|()| false)).map(drop)
    }

    /// As [`Skim::object`], up to a member at which `member` says true; whether it did.
    pub fn until(&mut self, member: impl FnMut(&'a str, &mut Self) -> Option<bool>) -> Option<bool> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(false);
        }
        self.members(member)
    }

    /// Steps out of the object that it stands in after a member. What follows the object is `next` as a rule: the place is searched for
    /// then instead of stepping over every member before it. It must not stand in there after an object.
    pub fn leave_for(&mut self, next: &Finder<'_>) -> Option<()> {
        let from = self.at - 1;
        match next.find(&self.text.as_bytes()[from..]) {
            Some(found) => self.at = from + found + 1,
            None if self.goes_on(b'}')? => drop(self.members(|_, value| value.skip().map(|()| false))?),
            None => {}
        }
        Some(())
    }

    /// Goes to the value of the member that is written like `member`, however deep in what follows it is; whether there is one.
    pub fn jump_to(&mut self, member: &Finder<'_>) -> bool {
        let found = member.find(&self.text.as_bytes()[self.at..]);
        self.at += found.map_or(0, |found| found + member.needle().len());
        found.is_some()
    }

    fn members(&mut self, mut member: impl FnMut(&'a str, &mut Self) -> Option<bool>) -> Option<bool> {
        loop {
            let key = self.string()?;
            self.take(b':')?;
            if member(key, self)? {
                return Some(true);
            }
            if !self.goes_on(b'}')? {
                return Some(false);
            }
        }
    }

    /// Calls `element` at every element of the array that is next; it has to step over it.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            if !self.goes_on(b']')? {
                return Some(());
            }
        }
    }

    /// The string that is next, if nothing in it is escaped.
    #[inline]
    pub fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let end = start + jump::quote_or_backslash(rest)?;
        self.at = end + 1;
        (self.text.as_bytes()[end] == b'"').then(|| &self.text[start..end])
    }

    /// Whether `null` is next; it is stepped over then.
    pub fn null(&mut self) -> Option<bool> {
        let is_null = self.peek()? == b'n' && self.text.as_bytes()[self.at..].starts_with(b"null");
        self.at += if is_null { 4 } else { 0 };
        Some(is_null)
    }

    /// The string that is next, as [`Skim::string`]; empty if it is `null`.
    pub fn string_or_null(&mut self) -> Option<&'a str> {
        if self.null()? { Some("") } else { self.string() }
    }

    /// `true` or `false` if that is next; none of them if it is `null`.
    pub fn bool_or_null(&mut self) -> Option<Option<bool>> {
        match self.value()? {
            "true" => Some(Some(true)),
            "false" => Some(Some(false)),
            "null" => Some(None),
            _ => None,
        }
    }

    /// The text of the value that `read` steps over.
    pub fn extent(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        read(self)?;
        self.text.get(start..self.at)
    }

    /// Whether the value that is next is written like `value`; it is stepped over then. That has to be the text of an object or array.
    pub fn same(&mut self, value: &str) -> Option<bool> {
        self.peek()?;
        let same = self.text.as_bytes()[self.at..].starts_with(value.as_bytes());
        self.at += if same { value.len() } else { 0 };
        Some(same)
    }

    /// The text of the value that is next, whatever it is.
    pub fn value(&mut self) -> Option<&'a str> {
        self.extent(Self::skip)
    }

    /// Steps over the value that is next.
    pub fn skip(&mut self) -> Option<()> {
        let first = self.peek()?;
        let rest = &self.text.as_bytes()[self.at..];
        self.at += match first {
            b'{' | b'[' => jump::container(rest)?,
            b'"' => jump::string(rest)?,
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_space(*byte);
                rest.iter().position(ends).unwrap_or(rest.len())
            }
            _ => return None,
        };
        Some(())
    }

    /// Nothing follows any more.
    pub fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// The next byte that means something.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let mut next = *bytes.get(self.at)?;
        while is_space(next) {
            self.at += 1;
            next = *bytes.get(self.at)?;
        }
        Some(next)
    }

    #[inline]
    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Whether another value follows in an object or array that ends with `end`.
    #[inline]
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            next if next == end => Some(false),
            _ => None,
        }
    }
}

#[inline]
fn is_space(byte: u8) -> bool {
    byte <= b' ' && matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let text = || prop::string::string_regex("[ -~\\\\\"{}\\[\\]é\n]{0,90}").unwrap();
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 120, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// All that can be skimmed of a value; a plain string and what a parser says of the rest.
    fn rebuilt(skim: &mut Skim<'_>) -> Option<Value> {
        match skim.peek()? {
            b'{' => {
                let mut members = serde_json::Map::new();
                skim.object(|key, value| {
                    members.insert(key.to_owned(), rebuilt(value)?);
                    Some(())
                })?;
                Some(Value::Object(members))
            }
            b'[' => {
                let mut elements = Vec::new();
                skim.array(|element| {
                    elements.push(rebuilt(element)?);
                    Some(())
                })?;
                Some(Value::Array(elements))
            }
            b'n' => skim.null()?.then_some(Value::Null),
            _ => serde_json::from_str(skim.value()?).ok(),
        }
    }

    proptest! {
        #[test]
        fn a_value_ends_where_a_parser_says(before in any_json(), value in any_json(), pretty in any::<bool>()) {
            let array = Value::from(vec![before.clone(), value.clone()]);
            let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) }.unwrap();
            let expected: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
            let mut found = Vec::new();
            let mut skim = Skim::of(&text);
            skim.array(|element| { found.push(element.value()?); Some(()) }).unwrap();
            skim.end().unwrap();
            prop_assert_eq!(found, expected.iter().map(|raw| raw.get()).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_skimmed_is_what_is_there(value in any_json()) {
            let text = value.to_string();
            match rebuilt(&mut Skim::of(&text)) {
                Some(found) => prop_assert_eq!(found, value),
                // Only a key that is escaped is too much.
                None => prop_assert!(text.contains('\\')),
            }
        }

        #[test]
        fn any_text_is_gone_over_without_a_panic(text in "[ -~\\\\\"{}\\[\\]:,né]{0,200}") {
            let mut skim = Skim::of(&text);
            while skim.value().is_some() && skim.at < text.len() {}
            rebuilt(&mut Skim::of(&text));
        }
    }

    #[test]
    fn a_member_is_found_however_deep_it_is() {
        let mut skim = Skim::of("{\"f:p\":{},\"a\":[{\"s\":\"\\\"p\\\":1\",\"p\":2}]}");
        assert!(skim.jump_to(&Finder::new("\"p\":")));
        assert_eq!(skim.value(), Some("2"));
        assert!(!skim.jump_to(&Finder::new("\"p\":")));
    }

    #[test]
    fn the_rest_of_an_object_is_left_for_what_follows_it() {
        let next = Finder::new("},\"n\":");
        for (text, expected) in [
            ("{\"o\":{\"a\":{},\"b\":[{\"f:n\":{}}],\"n\":\"}\"},\"n\":1}", Some("1")),
            ("{\"o\":{\"a\":{}},\"n\":2}", Some("2")),
            ("{\"o\":{\"a\":{\"b\":7}},\"c\":1,\"n\":3}", Some("3")),
            ("{\"o\": {\"a\": {}, \"b\": 7}, \"n\": 4 }", Some("4")),
            ("{\"o\":{\"a\":{},\"b\":7}}", None),
        ] {
            let mut found = None;
            let mut skim = Skim::of(text);
            skim.object(|key, value| match key {
                "o" => {
                    assert!(value.until(|_, value| value.skip().map(|()| true))?);
                    value.leave_for(&next)
                }
                "n" => value.value().map(|value| found = Some(value)),
                _ => value.skip(),
            })
            .unwrap();
            assert_eq!((found, skim.end()), (expected, Some(())), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_written_as_before_is_stepped_over() {
        let mut skim = Skim::of("{\"a\": {\"b\":[1]}, \"c\":2}");
        let (mut same, mut places) = (Vec::new(), Vec::new());
        skim.object(|_, value| {
            let place = value.extent(|value| {
                same.push((value.same("{\"b\":[2]}")?, value.same("{\"b\":[1]}")?));
                if same.len() == 2 { value.skip() } else { Some(()) }
            })?;
            places.push(place);
            Some(())
        });
        assert_eq!((same, places), (vec![(false, true), (false, false)], vec!["{\"b\":[1]}", "2"]));
        assert_eq!(skim.end(), Some(()));
    }

    #[test]
    fn what_is_not_expected_ends_it() {
        let plain = |text: &'static str| Skim::of(text).string();
        assert_eq!(plain(" \"a\""), Some("a"));
        for text in ["\"a\\n\"", "7", "\"a", "", "null"] {
            assert_eq!(plain(text), None, "{text}");
        }
        for text in ["{\"a\":1", "{\"a\":1]", "{\"a\" 1}", "{\"a\":}", "[1}", "{,}"] {
            assert_eq!(Skim::of(text).object(|_, value| value.skip()), None, "{text}");
        }
        assert_eq!(Skim::of("{} x").end(), None);
    }
}
