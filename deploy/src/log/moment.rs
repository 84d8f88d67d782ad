//! A place in history, as one types it: a seq, a time, or so long ago.

use std::str::FromStr;

use fsm_store::{Seq, Timestamp};

/// A place in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// `41`: after this record.
    Seq(Seq),
    /// `2026-11-22T14:03:00Z`: after the last record of that time.
    Time(Timestamp),
    /// `-5m`: so long before now; in an exported file before its last record.
    Ago { micros: u64 },
}

/// Why a text is no moment.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is neither a seq (41), nor a time (2026-11-22T14:03:00Z), nor a while ago (-90s, -5m, -2h, -1d)")]
pub(crate) struct InvalidMoment(String);

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMoment(text.to_owned());
        if let Some(ago) = text.strip_prefix('-') {
            let unit_at = ago.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let (count, unit) = ago.split_at(unit_at);
            let micros = match unit {
                "ms" => 1_000_u64,
                "s" => 1_000_000,
                "m" => 60_000_000,
                "h" => 3_600_000_000,
                "d" => 86_400_000_000,
                _ => return Err(invalid()),
            };
            let count: u64 = count.parse().map_err(|_| invalid())?;
            return Ok(Self::Ago { micros: count.checked_mul(micros).ok_or_else(invalid)? });
        }
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(Seq(seq)));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| invalid())?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| invalid())?;
        // Times are printed to the millisecond: one that was copied means the record that it was printed with.
        let rest = if has_milliseconds(text) { 999 } else { 0 };
        Ok(Self::Time(Timestamp(micros + rest)))
    }
}

/// Whether a time is written to the millisecond, no more and no less.
fn has_milliseconds(text: &str) -> bool {
    let fraction = text.rsplit_once('.').map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).count());
    fraction == Some(3)
}

/// A time as text: RFC 3339 in UTC, to the millisecond.
pub(crate) fn time_text(time: Timestamp) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(|| format!("{} µs", time.0), |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Moment> {
        text.parse().ok()
    }

    #[test]
    fn moments_are_seqs_times_and_whiles_ago() {
        assert_eq!(parse("41"), Some(Moment::Seq(Seq(41))));
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(Moment::Time(Timestamp(1_500_000))));
        assert_eq!(parse("1970-01-01T01:00:01+01:00"), Some(Moment::Time(Timestamp(1_000_000))));
        assert_eq!(parse("1970-01-01T00:00:01.250Z"), Some(Moment::Time(Timestamp(1_250_999))));
        assert_eq!(parse("1970-01-01T00:00:01.250000Z"), Some(Moment::Time(Timestamp(1_250_000))));
        assert_eq!(parse("-5m"), Some(Moment::Ago { micros: 300_000_000 }));
        assert_eq!(parse("-250ms"), Some(Moment::Ago { micros: 250_000 }));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "-", "-5", "-m", "-5y", "yesterday", "-99999999999999d", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(time_text(Timestamp(1_500_000)), "1970-01-01T00:00:01.500Z");
    }
}
