//! What is told of single requests: the access log, and traces.

use crate::proto;

/// Which requests and connections are written down, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub format: LogFormat,
    pub sampled: Share,
    /// What ended with an error is always written.
    pub errors_always: bool,
}

/// What a line of the access log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// Fields in a fixed order, for people.
    Text,
}

/// Which requests and connections are sent to a server of the user's own, as the JSON lines of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLog {
    /// `http://host:port/path?query`, where arrays are posted.
    pub url: String,
    pub sampled: Share,
}

/// Which requests become spans, and where these go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// `http://host:port`, where OTLP over gRPC is spoken; none: the one in the proxy's environment.
    pub endpoint: Option<String>,
    pub sampled: Share,
}

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    pub const ALL: Self = Self(1_000_000);
    pub const NONE: Self = Self(0);

    /// That many of a million; more than all is all.
    pub fn per_million(millionths: u32) -> Self {
        Self(millionths.min(Self::ALL.0))
    }

    /// Whether `draw`, which is uniform over all of `u64`, falls into it. What falls into a share falls into every larger one.
    pub fn takes(self, draw: u64) -> bool {
        ((draw >> 32) * u64::from(Self::ALL.0)) >> 32 < u64::from(self.0)
    }
}

impl From<proto::LogFormat> for LogFormat {
    fn from(format: proto::LogFormat) -> Self {
        match format {
            proto::LogFormat::Json => Self::Json,
            proto::LogFormat::Text => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_its_part_of_all_draws() {
        let taken = |share: Share| (0..10_000_u64).filter(|index| share.takes(index * (u64::MAX / 10_000))).count();
        assert_eq!((taken(Share::NONE), taken(Share::ALL)), (0, 10_000));
        assert!(taken(Share::per_million(250_000)).abs_diff(2500) <= 1);
        assert!(Share::ALL.takes(u64::MAX) && Share::per_million(u32::MAX).takes(u64::MAX));
    }
}
