//! Volumes: directories of the host filled from the API, to be bound into containers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume, VolumeMount,
};
use kube::{Api, Client, ResourceExt};

use super::env::{Facts, expand, field_value, resource_value};
use super::rootfs::Bind;
use super::token::{Token, TokenSource};

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

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

type Files = BTreeMap<PathBuf, Content>;

/// The pod's volumes on the host.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Where each volume is on the host.
    paths: BTreeMap<String, PathBuf>,
    /// Tokens to renew.
    pub tokens: Vec<Token>,
}

/// Fills one volume after the other below `dir`.
pub async fn prepare(client: &Client, pod: &Pod, facts: &Facts, dir: &Path) -> Result<Volumes, VolumeError> {
    let mut volumes = Volumes::default();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let path = match host_path(volume)? {
            Some(path) => path,
            None => {
                let path = dir.join(&volume.name);
                let filling = Filling { client, pod, facts, volume: &volume.name };
                write(&volume.name, &path, BTreeMap::new())?;
                let (files, tokens) = filling.files(volume).await?;
                write(&volume.name, &path, files)?;
                for source in tokens {
                    let token = source.request(client, pod, &path).await;
                    volumes
                        .tokens
                        .push(token.map_err(|source| VolumeError::Api { volume: volume.name.clone(), source })?);
                }
                path
            }
        };
        volumes.paths.insert(volume.name.clone(), path);
    }
    Ok(volumes)
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
            binds.push(Bind {
                source,
                target: mount.mount_path.clone().into(),
                read_only: mount.read_only == Some(true),
            });
        }
        // Outer mounts before those inside them.
        binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(binds)
    }
}

struct Filling<'a> {
    client: &'a Client,
    pod: &'a Pod,
    facts: &'a Facts,
    volume: &'a str,
}

impl Filling<'_> {
    async fn files(&self, volume: &Volume) -> Result<(Files, Vec<TokenSource>), VolumeError> {
        let mut files = Files::new();
        if volume.empty_dir.is_some() {
            return Ok((files, Vec::new()));
        }
        if let Some(source) = &volume.config_map {
            let found = self.config_map(&source.name, source.optional).await?;
            self.select(
                "configmap",
                &source.name,
                found,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
                &mut files,
            )?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.clone().unwrap_or_default();
            let found = self.secret(&name, source.optional).await?;
            self.select(
                "secret",
                &name,
                found,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
                &mut files,
            )?;
        } else if let Some(source) = &volume.downward_api {
            self.downward(source.items.as_deref().unwrap_or_default(), source.default_mode, &mut files)?;
        } else if let Some(source) = &volume.projected {
            let tokens = self.project(source, &mut files).await?;
            return Ok((files, tokens));
        } else {
            return Err(VolumeError::Unsupported(self.volume.to_owned()));
        }
        Ok((files, Vec::new()))
    }

    async fn project(
        &self,
        source: &ProjectedVolumeSource,
        files: &mut Files,
    ) -> Result<Vec<TokenSource>, VolumeError> {
        let mut tokens = Vec::new();
        let mode = source.default_mode;
        for part in source.sources.iter().flatten() {
            if let Some(wanted) = &part.config_map {
                let found = self.config_map(&wanted.name, wanted.optional).await?;
                self.select("configmap", &wanted.name, found, wanted.items.as_deref(), mode, wanted.optional, files)?;
            } else if let Some(wanted) = &part.secret {
                let found = self.secret(&wanted.name, wanted.optional).await?;
                self.select("secret", &wanted.name, found, wanted.items.as_deref(), mode, wanted.optional, files)?;
            } else if let Some(wanted) = &part.downward_api {
                self.downward(wanted.items.as_deref().unwrap_or_default(), mode, files)?;
            } else if let Some(wanted) = &part.service_account_token {
                tokens.push(TokenSource {
                    path: inside(self.volume, &wanted.path)?,
                    audience: wanted.audience.clone().filter(|a| !a.is_empty()),
                    lifetime_seconds: wanted.expiration_seconds.unwrap_or(3600),
                    mode: bits(mode),
                });
            } else {
                return Err(VolumeError::Unsupported(self.volume.to_owned()));
            }
        }
        Ok(tokens)
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let found: Option<ConfigMap> = self.fetch(name).await?;
        let Some(map) = found else { return self.absent("configmap", name, optional) };
        let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
        Ok(text.chain(map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect())
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let found: Option<Secret> = self.fetch(name).await?;
        let Some(secret) = found else { return self.absent("secret", name, optional) };
        Ok(secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect())
    }

    async fn fetch<K>(&self, name: &str) -> Result<Option<K>, VolumeError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        api.get_opt(name).await.map_err(|source| VolumeError::Api { volume: self.volume.to_owned(), source })
    }

    fn absent<T: Default>(&self, kind: &'static str, name: &str, optional: Option<bool>) -> Result<T, VolumeError> {
        if optional == Some(true) {
            return Ok(T::default());
        }
        Err(VolumeError::Missing { volume: self.volume.to_owned(), kind, name: name.to_owned() })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields ConfigMap and Secret sources have in common")]
    fn select(
        &self,
        kind: &'static str,
        name: &str,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
        files: &mut Files,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            files.extend(data.into_iter().map(|(key, bytes)| (key.into(), Content { bytes, mode: bits(mode) })));
            return Ok(());
        };
        for item in items {
            match data.remove(&item.key) {
                Some(bytes) => {
                    let content = Content { bytes, mode: bits(item.mode.or(mode)) };
                    files.insert(inside(self.volume, &item.path)?, content);
                }
                None if optional == Some(true) => {}
                None => {
                    return Err(VolumeError::MissingKey {
                        volume: self.volume.to_owned(),
                        kind,
                        name: name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn downward(
        &self,
        items: &[DownwardAPIVolumeFile],
        mode: Option<i32>,
        files: &mut Files,
    ) -> Result<(), VolumeError> {
        let invalid = |why| VolumeError::Invalid { volume: self.volume.to_owned(), why };
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => field_value(self.pod, self.facts, &field.field_path)
                    .ok_or_else(|| invalid(format!("fieldRef {} is not supported", field.field_path)))?,
                (None, Some(wanted)) => resource_value(self.pod, None, wanted).map_err(invalid)?,
                (None, None) => return Err(invalid(format!("downwardAPI item {} has no source", item.path))),
            };
            let content = Content { bytes: value.into_bytes(), mode: bits(item.mode.or(mode)) };
            files.insert(inside(self.volume, &item.path)?, content);
        }
        Ok(())
    }
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
        "FileOrCreate" if !path.exists() => {
            write_file(&path, b"", 0o644).map_err(|e| write_error(&volume.name, &path, e))?
        }
        "Directory" if !path.is_dir() => {
            return Err(problem(format!("hostPath {} is not a directory", path.display())));
        }
        "File" if !path.is_file() => return Err(problem(format!("hostPath {} is not a file", path.display()))),
        _ => {}
    }
    Ok(Some(path))
}

fn write(volume: &str, dir: &Path, files: Files) -> Result<(), VolumeError> {
    fs::create_dir_all(dir).map_err(|e| write_error(volume, dir, e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(|e| write_error(volume, dir, e))?;
    for (path, content) in files {
        let path = dir.join(path);
        write_file(&path, &content.bytes, content.mode).map_err(|e| write_error(volume, &path, e))?;
    }
    Ok(())
}

/// Writes a file so that a reader sees the old or the new content, never a mixture.
pub(super) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = dir.join(format!("..{name}.new"));
    fs::write(&fresh, bytes)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(fresh, path)
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

/// Permission bits; 0644 unless said otherwise.
fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777
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
            Volumes { paths: [("a".into(), "/v/a".into()), ("b".into(), "/v/b".into())].into(), tokens: vec![] };
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
