//! How names of header fields are written.

/// How names of fields are written in HTTP/1.1 where it is not known how they were written at first: between two proxies they
/// travel in HTTP/2, which has lower-case names only (RFC 9113, section 8.2). HTTP/1.1 does not tell them apart (RFC 9110,
/// section 5.1), but some applications do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FieldNames {
    /// `x-request-id`
    #[default]
    Lower,
    /// `X-Request-Id`
    Title,
}

impl FieldNames {
    pub fn is_title(self) -> bool {
        self == Self::Title
    }
}
