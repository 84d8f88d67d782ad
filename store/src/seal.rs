//! Sealing: what is secret enters the log only as AES-256-GCM ciphertext, under a key that lies elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Sealed text begins with this, then the key's id, a colon, and base64 of nonce, ciphertext and tag.
const SEALED: &str = "fsm-sealed:v1:";
/// A key file holds this and the key in hex.
const KEY_FILE: &str = "fsm-seal-key:v1:";
const KEY_BYTES: usize = 32;

/// Why something can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("can't {action} the key file {path}: {source}", path = path.display())]
    KeyFile { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not a key file of fsm; name another file, or one that doesn't exist yet to make a key", path = path.display())]
    ForeignKeyFile { path: PathBuf },
    #[error("the key file {path} can be read by every user (mode {mode:03o}): `chmod 600` it, and consider what is sealed with it known", path = path.display())]
    ReadableByAll { path: PathBuf, mode: u32 },
    #[error("the key file {path} lies in the log's directory {dir}: whoever copies the log would have the key; put it elsewhere", path = path.display(), dir = dir.display())]
    InsideLog { path: PathBuf, dir: PathBuf },
    #[error(
        "this is sealed with key {sealed_with}, and the key at hand is {have}: use the key file that was in use when it was written"
    )]
    WrongKey { sealed_with: String, have: String },
    #[error("this is not sealed text of a form this program knows")]
    NotSealed,
    #[error("the sealed text was changed, or belongs to something other than {context:?}")]
    Tampered { context: String },
    #[error("the cryptographic library refused to {0}")]
    Crypto(&'static str),
}

/// Seals and opens texts with one key.
pub struct Sealer {
    key: RandomizedNonceKey,
    id: String,
}

impl Sealer {
    /// Reads the key file, or makes one (mode 0600) with a new random key if there is none.
    ///
    /// `log_dir` is where what is sealed will be stored: the key must not lie in there.
    pub fn open_or_create(path: &Path, log_dir: &Path) -> Result<Self, SealError> {
        let failed = |action| move |source| SealError::KeyFile { action, path: path.into(), source };
        let outside = |path: &Path| {
            let (real, dir) = (path.canonicalize(), log_dir.canonicalize());
            let inside = matches!((real, &dir), (Ok(real), Ok(dir)) if real.starts_with(dir));
            if inside { Err(SealError::InsideLog { path: path.into(), dir: log_dir.into() }) } else { Ok(()) }
        };
        match fs::read_to_string(path) {
            Ok(text) => {
                outside(path)?;
                let mode = fs::metadata(path).map_err(failed("read"))?.permissions().mode() & 0o777;
                if mode & 0o007 != 0 {
                    return Err(SealError::ReadableByAll { path: path.into(), mode });
                }
                let key = text.trim().strip_prefix(KEY_FILE).and_then(parse_hex);
                Self::new(&key.ok_or_else(|| SealError::ForeignKeyFile { path: path.into() })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent,
                    _ => Path::new("."),
                };
                fs::create_dir_all(parent).map_err(failed("make a directory for"))?;
                outside(parent)?;
                let mut key = [0; KEY_BYTES];
                rand::fill(&mut key).map_err(|_| SealError::Crypto("make a key"))?;
                write_key(path, &key).map_err(failed("write"))?;
                Self::new(&key)
            }
            Err(error) => Err(failed("read")(error)),
        }
    }

    fn new(key: &[u8; KEY_BYTES]) -> Result<Self, SealError> {
        let fingerprint = digest::digest(&digest::SHA256, key);
        let id = hex(fingerprint.as_ref().get(..8).unwrap_or_default());
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Crypto("take the key"))?;
        Ok(Self { key, id })
    }

    /// Names the key: the first 8 bytes of its SHA-256, in hex.
    pub fn key_id(&self) -> &str {
        &self.id
    }

    /// Seals bytes as printable text. `context` says what they belong to (e.g. "v1/Secret ns/name data.token"); the text opens only with
    /// the same context, so that nobody can pass one secret off as another.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String, SealError> {
        let mut cipher = plain.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(context), &mut cipher)
            .map_err(|_| SealError::Crypto("seal"))?;
        let sealed = [&nonce.as_ref()[..], &cipher].concat();
        Ok(format!("{SEALED}{}:{}", self.id, STANDARD_NO_PAD.encode(sealed)))
    }

    /// Opens what [`seal`](Self::seal) made.
    pub fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let (id, text) =
            sealed.strip_prefix(SEALED).and_then(|rest| rest.split_once(':')).ok_or(SealError::NotSealed)?;
        if id != self.id {
            return Err(SealError::WrongKey { sealed_with: id.into(), have: self.id.clone() });
        }
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| SealError::NotSealed)?;
        let (nonce, cipher) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(SealError::NotSealed)?;
        let mut plain = cipher.to_vec();
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut plain)
            .map_err(|_| SealError::Tampered { context: context.into() })?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    /// Whether a text looks like sealed text, with any key.
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(SEALED)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(key {})", self.id)
    }
}

fn write_key(path: &Path, key: &[u8; KEY_BYTES]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{KEY_FILE}{}", hex(key))?;
    file.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(&[7; KEY_BYTES]).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(plain: Vec<u8>, context: String) {
            let sealed = sealer().seal(&context, &plain).unwrap();
            prop_assert!(Sealer::is_sealed(&sealed));
            prop_assert_eq!(sealer().open(&context, &sealed).unwrap(), plain);
        }

        #[test]
        fn sealed_text_that_was_changed_does_not_open(plain: Vec<u8>, place: prop::sample::Index) {
            let mut sealed = sealer().seal("here", &plain).unwrap().into_bytes();
            let at = place.index(sealed.len());
            sealed[at] = if sealed[at] == b'A' { b'B' } else { b'A' };
            prop_assert!(sealer().open("here", std::str::from_utf8(&sealed).unwrap()).is_err());
        }
    }

    #[test]
    fn a_secret_can_not_be_passed_off_as_another() {
        let sealed = sealer().seal("v1/Secret a/x", b"secret").unwrap();
        assert!(matches!(sealer().open("v1/Secret b/x", &sealed), Err(SealError::Tampered { .. })));
    }

    #[test]
    fn another_key_is_named_as_the_reason() {
        let sealed = sealer().seal("here", b"secret").unwrap();
        let other = Sealer::new(&[8; KEY_BYTES]).unwrap();
        let error = other.open("here", &sealed).unwrap_err();
        assert!(error.to_string().contains(sealer().key_id()), "{error}");
        assert!(matches!(error, SealError::WrongKey { .. }));
    }

    #[test]
    fn plain_text_is_not_taken_for_sealed_text() {
        assert!(matches!(sealer().open("here", "aGVsbG8="), Err(SealError::NotSealed)));
        assert!(!Sealer::is_sealed("aGVsbG8="));
    }

    #[test]
    fn the_key_file_is_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, log) = (dir.path().join("keys/seal.key"), dir.path().join("log"));
        let sealed = Sealer::open_or_create(&path, &log).unwrap().seal("here", b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Sealer::open_or_create(&path, &log).unwrap().open("here", &sealed).unwrap(), b"secret");
    }

    #[test]
    fn a_key_in_the_logs_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Sealer::open_or_create(&dir.path().join("seal.key"), dir.path()).unwrap_err();
        assert!(matches!(error, SealError::InsideLog { .. }), "{error}");
        assert!(!dir.path().join("seal.key").exists());
    }

    #[test]
    fn a_file_that_is_no_key_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        fs::write(&path, "my notes").unwrap();
        let error = Sealer::open_or_create(&path, &dir.path().join("log")).unwrap_err();
        assert!(matches!(error, SealError::ForeignKeyFile { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "my notes");
    }

    #[test]
    fn a_key_that_every_user_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        Sealer::open_or_create(&path, &dir.path().join("log")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Sealer::open_or_create(&path, &dir.path().join("log")).unwrap_err();
        assert!(matches!(error, SealError::ReadableByAll { mode: 0o644, .. }), "{error}");
    }
}
