//! A text that matches an expression: what a request for a route looks like.

use regex_syntax::hir::{Class, Hir, HirKind};

/// A short text that matches; none if the expression is none. Anchors are passed over: routes have to match as a whole anyway.
pub(super) fn matching(expression: &str) -> Option<String> {
    let mut text = Vec::new();
    extend(&mut text, &regex_syntax::parse(expression).ok()?);
    String::from_utf8(text).ok()
}

fn extend(text: &mut Vec<u8>, hir: &Hir) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(class) => {
            if let Some(character) = plain(class) {
                text.extend_from_slice(character.to_string().as_bytes());
            }
        }
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                extend(text, &repetition.sub);
            }
        }
        HirKind::Capture(capture) => extend(text, &capture.sub),
        HirKind::Concat(parts) => parts.iter().for_each(|part| extend(text, part)),
        HirKind::Alternation(parts) => {
            if let Some(first) = parts.first() {
                extend(text, first);
            }
        }
    }
}

/// A letter or a digit of a class, if it has one, or else its first character.
fn plain(class: &Class) -> Option<char> {
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        Class::Bytes(class) => class.iter().map(|range| (char::from(range.start()), char::from(range.end()))).collect(),
    };
    let has = |wanted: char| ranges.iter().any(|(from, to)| (*from..=*to).contains(&wanted));
    "ab0AZz19-_".chars().find(|wanted| has(*wanted)).or(ranges.first().map(|(from, _)| *from))
}

#[cfg(test)]
mod tests {
    use super::matching;

    #[test]
    fn samples_match_their_expressions() {
        let mut samples = Vec::new();
        for expression in ["/buy", ".*a-book.*new", "/a/[0-9]+/(x|y)", "", "[^/]+", "a{3}", "(?i)shop"] {
            samples.push(matching(expression).unwrap());
        }
        assert_eq!(samples, ["/buy", "a-booknew", "/a/0/x", "", "a", "aaa", "SHOP"].map(|text| text.to_owned()));
        assert_eq!(matching("("), None);
    }
}
