//! The rules of the house, as docs/architecture.md has them, checked on the source.

#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod dependencies;
mod purity;

use std::path::{Path, PathBuf};

/// The workspace's top folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
