//! What a volume's files hold, from the API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};
use kube::{Api, Client, ResourceExt};

use super::payload::{Content, Files};
use super::{VolumeError, inside};
use crate::node::env::{Facts, field_value, resource_value};
use crate::node::token::TokenSource;

pub(super) struct Filling<'a> {
    pub client: &'a Client,
    pub pod: &'a Pod,
    pub facts: &'a Facts,
    pub volume: &'a str,
}

impl Filling<'_> {
    pub async fn files(&self, volume: &Volume) -> Result<(Files, Vec<TokenSource>), VolumeError> {
        let mut files = Files::new();
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

/// Permission bits; 0644 unless said otherwise.
fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777
}
