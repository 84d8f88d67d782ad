//! Volumes: directories of the host filled from the API, to be bound into containers, and kept as the API has them.

mod contents;
mod memory;
mod payload;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};
use kube::{Client, ResourceExt};
use tokio::sync::{broadcast, watch};

use super::changes::{Change, Kind};
use super::env::{Facts, expand, parse_quantity};
use super::pod::Desired;
use super::rootfs::Bind;
use super::token::Token;
use contents::Filling;
pub use memory::unmount_below;
use payload::{Content, Files};

/// After a refresh that failed. The files stay as they were.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume}: {kind} \"{name}\" not found")]
    Missing { volume: String, kind: &'static str, name: String },
    #[error("volume {volume}: {kind} {name} has no key {key}")]
    MissingKey { volume: String, kind: &'static str, name: String, key: String },
    #[error("volume {volume}: {why}")]
    Invalid { volume: String, why: String },
    #[error(
        "volume {0}: the local cluster supports emptyDir, hostPath, configMap, secret, downwardAPI and projected volumes only"
    )]
    Unsupported(String),
    #[error("volume {volume}: the API refused: {source}")]
    Api { volume: String, source: kube::Error },
    #[error("volume {volume}: cannot write {path}: {source}", path = path.display())]
    Write { volume: String, path: PathBuf, source: io::Error },
    #[error("container {container} mounts volume \"{volume}\", which the pod does not have")]
    NoVolume { container: String, volume: String },
}

/// The pod's volumes on the host.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Where each volume is on the host.
    paths: BTreeMap<String, PathBuf>,
    /// Those whose files come from the API.
    filled: Vec<Filled>,
}

/// A volume with files from the API, as last written.
#[derive(Debug, Clone)]
struct Filled {
    volume: Volume,
    path: PathBuf,
    files: Files,
    tokens: Vec<Token>,
}

/// Makes one volume after the other below `dir`.
pub async fn prepare(client: &Client, pod: &Pod, facts: &Facts, dir: &Path) -> Result<Volumes, VolumeError> {
    let mut volumes = Volumes::default();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let path = match host_path(volume)? {
            Some(path) => path,
            None => {
                let path = dir.join(&volume.name);
                make(&volume.name, &path)?;
                if is_in_memory(volume) {
                    let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
                    let bytes = limit.and_then(|q| parse_quantity(&q.0)).map(|bytes| bytes.ceil() as u64);
                    memory::make(&path, bytes).map_err(|source| write_error(&volume.name, &path, source))?;
                } else if volume.empty_dir.is_none() {
                    let filling = Filling { client, pod, facts, volume: &volume.name };
                    volumes.filled.push(Filled::make(&filling, volume, &path).await?);
                }
                path
            }
        };
        volumes.paths.insert(volume.name.clone(), path);
    }
    Ok(volumes)
}

/// Rewrites volumes whose sources change and renews tokens, for as long as it is polled.
pub(super) async fn keep_fresh(
    client: Client,
    volumes: &Volumes,
    facts: &Facts,
    mut changes: broadcast::Receiver<Change>,
    mut desired: watch::Receiver<Desired>,
) {
    let mut filled = volumes.filled.clone();
    let mut pod: Option<Arc<Pod>> = None;
    let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
    loop {
        if let Desired::Run(now) = &*desired.borrow() {
            pod.get_or_insert_with(|| Arc::clone(now));
        }
        let Some(current) = pod.clone() else { return };
        let namespace = current.namespace().unwrap_or_default();
        let renewal = filled.iter().flat_map(|f| &f.tokens).map(|token| token.renew_at).min();
        let renewal = async {
            match renewal {
                Some(at) => {
                    let wait = at.duration_since(Timestamp::now());
                    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        let concerned: Vec<bool> = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) if change.namespace != namespace => continue,
                Ok(change) => filled.iter().map(|f| f.refers_to(&change)).collect(),
                // Too many at once to look at each.
                Err(broadcast::error::RecvError::Lagged(_)) => vec![true; filled.len()],
                Err(broadcast::error::RecvError::Closed) => return,
            },
            changed = desired.changed() => {
                if changed.is_err() {
                    return;
                }
                match &*desired.borrow_and_update() {
                    Desired::Run(now) if shown(now) != shown(&current) => pod = Some(Arc::clone(now)),
                    _ => continue,
                }
                filled.iter().map(Filled::refers_to_pod).collect()
            }
            () = renewal => filled.iter().map(|f| f.tokens.iter().any(Token::is_due)).collect(),
        };
        let Some(current) = pod.clone() else { return };
        for (old, _) in filled.iter_mut().zip(concerned).filter(|(_, concerned)| *concerned) {
            let (volume, path) = (old.volume.clone(), old.path.clone());
            let filling = Filling { client: &client, pod: &current, facts, volume: &volume.name };
            match old.refresh(&filling, &volume, &path).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(pod = current.name_any(), %error, "the volume stays as it is; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Filled {
    async fn make(filling: &Filling<'_>, volume: &Volume, path: &Path) -> Result<Self, VolumeError> {
        let (files, tokens) = (Files::new(), Vec::new());
        let mut new = Self { volume: volume.clone(), path: path.to_owned(), files, tokens };
        new.refresh(filling, volume, path).await?;
        Ok(new)
    }

    /// Brings the files up to date, all at once.
    async fn refresh(&mut self, filling: &Filling<'_>, volume: &Volume, path: &Path) -> Result<(), VolumeError> {
        let (mut files, sources) = filling.files(volume).await?;
        let mut tokens = Vec::new();
        for source in sources {
            let known = self.tokens.iter().find(|token| token.source == source && !token.is_due());
            let token = match known {
                Some(token) => token.clone(),
                None => source
                    .request(filling.client, filling.pod)
                    .await
                    .map_err(|source| VolumeError::Api { volume: volume.name.clone(), source })?,
            };
            let content = Content { bytes: token.bytes.clone(), mode: token.source.mode };
            files.insert(token.source.path.clone(), content);
            tokens.push(token);
        }
        self.tokens = tokens;
        if self.files != files || !path.join(payload::DATA).exists() {
            payload::write(path, &files).map_err(|e| write_error(&volume.name, path, e))?;
            self.files = files;
        }
        Ok(())
    }

    fn refers_to(&self, change: &Change) -> bool {
        let named = |kind: Kind, name: Option<&str>| change.kind == kind && name == Some(change.name.as_str());
        let of_volume = named(Kind::ConfigMap, self.volume.config_map.as_ref().map(|s| s.name.as_str()))
            || named(Kind::Secret, self.volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
        let parts = self.volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        of_volume
            || parts.into_iter().any(|part| {
                named(Kind::ConfigMap, part.config_map.as_ref().map(|s| s.name.as_str()))
                    || named(Kind::Secret, part.secret.as_ref().map(|s| s.name.as_str()))
            })
    }

    /// Labels and annotations may change while a pod runs.
    fn refers_to_pod(&self) -> bool {
        let projected = self.volume.projected.as_ref();
        let parts = projected.iter().flat_map(|p| p.sources.iter().flatten());
        self.volume.downward_api.is_some() || parts.into_iter().any(|part| part.downward_api.is_some())
    }
}

impl Volumes {
    /// The binds a container's mounts stand for.
    pub fn binds(
        &self,
        container: &str,
        mounts: &[VolumeMount],
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<Bind>, VolumeError> {
        let mut binds = Vec::new();
        for mount in mounts {
            let Some(path) = self.paths.get(&mount.name) else {
                return Err(VolumeError::NoVolume { container: container.to_owned(), volume: mount.name.clone() });
            };
            let sub = mount.sub_path_expr.as_ref().map(|e| expand(e, env)).or_else(|| mount.sub_path.clone());
            let source = match sub.filter(|s| !s.is_empty()) {
                None => path.clone(),
                Some(sub) => {
                    let source = path.join(inside(&mount.name, &sub)?);
                    if !source.exists() {
                        fs::create_dir_all(&source).map_err(|e| write_error(&mount.name, &source, e))?;
                    }
                    source
                }
            };
            let from_api = self.filled.iter().any(|f| f.volume.name == mount.name);
            binds.push(Bind {
                source,
                target: mount.mount_path.clone().into(),
                read_only: from_api || mount.read_only == Some(true),
            });
        }
        // Outer mounts before those inside them.
        binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(binds)
    }
}

/// Whether it is an `emptyDir` in memory.
pub(in crate::node) fn is_in_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() == Some("Memory"))
}

/// The host's own path, for volumes that are one.
fn host_path(volume: &Volume) -> Result<Option<PathBuf>, VolumeError> {
    let Some(source) = &volume.host_path else { return Ok(None) };
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let problem = |why: String| VolumeError::Invalid { volume: volume.name.clone(), why };
    match kind {
        "" | "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(|e| write_error(&volume.name, &path, e))?;
        }
        "FileOrCreate" if !path.exists() => fs::write(&path, b"").map_err(|e| write_error(&volume.name, &path, e))?,
        "Directory" if !path.is_dir() => {
            return Err(problem(format!("hostPath {} is not a directory", path.display())));
        }
        "File" if !path.is_file() => return Err(problem(format!("hostPath {} is not a file", path.display()))),
        _ => {}
    }
    Ok(Some(path))
}

/// Makes a volume's directory, for whatever user the containers have.
fn make(volume: &str, dir: &Path) -> Result<(), VolumeError> {
    fs::create_dir_all(dir).map_err(|e| write_error(volume, dir, e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(|e| write_error(volume, dir, e))
}

/// A path of a manifest that must stay inside its volume.
fn inside(volume: &str, path: &str) -> Result<PathBuf, VolumeError> {
    let parsed = PathBuf::from(path);
    if parsed.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Ok(parsed);
    }
    let why = format!("path \"{path}\" leads out of the volume; give a relative path without ..");
    Err(VolumeError::Invalid { volume: volume.to_owned(), why })
}

fn write_error(volume: &str, path: &Path, source: io::Error) -> VolumeError {
    VolumeError::Write { volume: volume.to_owned(), path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_their_volume() {
        assert_eq!(inside("v", "a/b").unwrap(), PathBuf::from("a/b"));
        for path in ["../x", "a/../../x", "/etc/passwd"] {
            assert!(inside("v", path).unwrap_err().to_string().contains("leads out"), "{path}");
        }
    }

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let volumes =
            Volumes { paths: [("a".into(), "/v/a".into()), ("b".into(), "/v/b".into())].into(), filled: vec![] };
        let mount = |name: &str, path: &str| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            ..VolumeMount::default()
        };
        let binds = volumes.binds("c", &[mount("a", "/data/in"), mount("b", "/data")], &BTreeMap::new()).unwrap();
        assert_eq!(binds.iter().map(|b| b.target.to_str().unwrap()).collect::<Vec<_>>(), ["/data", "/data/in"]);
        let error = volumes.binds("c", &[mount("x", "/x")], &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("container c mounts volume \"x\""), "{error}");
    }
}
