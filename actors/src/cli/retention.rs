//! How much history is kept, as one types it.

use std::time::Duration;

use fsm_api::duration::parse_duration;

/// A limit; none keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retain<T>(pub Option<T>);

/// `720h`, `90m`, `0s`.
pub fn age(text: &str) -> Result<Retain<Duration>, String> {
    let age = parse_duration(text)
        .map_err(|error| format!("{error}; write it like 720h or 90m, or 0s to keep everything"))?;
    Ok(Retain((!age.is_zero()).then_some(age)))
}

/// `1000000`, `512MiB`, `8GiB`, `0`.
pub fn bytes(text: &str) -> Result<Retain<u64>, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "" => 1,
        "KiB" => 1_u64 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        other => return Err(format!("\"{other}\" is no unit of size: write bytes, KiB, MiB, GiB or TiB")),
    };
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(scale));
    let bytes = bytes.ok_or_else(|| format!("\"{text}\" is no size: write it like 8GiB, or 0 to keep everything"))?;
    Ok(Retain((bytes > 0).then_some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(age("720h"), Ok(Retain(Some(Duration::from_secs(720 * 3600)))));
        assert_eq!(age("0s"), Ok(Retain(None)));
        assert!(age("often").unwrap_err().contains("720h"));
        assert_eq!(bytes("0"), Ok(Retain(None)));
        assert_eq!(bytes("17"), Ok(Retain(Some(17))));
        assert_eq!(bytes("8GiB"), Ok(Retain(Some(8 << 30))));
        for wrong in ["", "8 gigs", "-1", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
