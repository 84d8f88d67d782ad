//! Writing a volume's files all at once, as the kubelet does: they are in a directory of their own, which the symbolic link
//! `..data` names, and each name in the volume is a link through it. Moving `..data` changes all files in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The link that names the files in force.
pub(super) const DATA: &str = "..data";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// By path inside the volume.
pub(super) type Files = BTreeMap<PathBuf, Content>;

/// Makes `files` the files of the volume at `dir`.
pub(super) fn write(dir: &Path, files: &Files) -> io::Result<()> {
    let fresh = format!("..{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%N"));
    fs::create_dir(dir.join(&fresh))?;
    for (path, content) in files {
        let path = dir.join(&fresh).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &content.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(content.mode))?;
    }
    let before = fs::read_link(dir.join(DATA)).ok();
    let moving = dir.join("..data_tmp");
    fs::remove_file(&moving).ok();
    symlink(&fresh, &moving)?;
    fs::rename(&moving, dir.join(DATA))?;

    let names: BTreeSet<_> = files.keys().filter_map(|path| path.components().next()).collect();
    for name in &names {
        let link = dir.join(name);
        if !link.is_symlink() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("..");
        if !ours && !names.iter().any(|known| known.as_os_str() == name) {
            fs::remove_file(entry.path())?;
        }
    }
    match before {
        Some(before) => fs::remove_dir_all(dir.join(before)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let content = |text: &str| Content { bytes: text.into(), mode: 0o600 };
        list.iter().map(|(path, text)| (PathBuf::from(path), content(text))).collect()
    }

    #[test]
    fn all_files_change_at_once_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!((read("a"), read("sub/b")), (Some("1".into()), Some("2".into())));
        assert_eq!(fs::read_link(dir.path().join("a")).unwrap(), PathBuf::from("..data/a"));
        let first = fs::read_link(dir.path().join(DATA)).unwrap();
        let held = fs::File::open(dir.path().join("a")).unwrap();
        write(dir.path(), &files(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!((read("a"), read("c"), read("sub/b")), (Some("3".into()), Some("4".into()), None));
        assert!(!dir.path().join(first).exists() && !dir.path().join("sub").is_symlink());
        assert_eq!(io::read_to_string(held).unwrap(), "1");
        let mode = fs::metadata(dir.path().join("c")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
