//! What the log knows of the watched kinds when the controller starts.

use std::collections::BTreeMap;

use fsm_api::kinds;
use serde_json::Value;

use crate::catalog::Catalog;
use crate::watch::KindWatch;

/// A watch for every kind, which knows the objects of the catalog.
pub fn watches(catalog: &Catalog) -> Vec<KindWatch> {
    let mut watches: BTreeMap<&str, KindWatch> =
        kinds::WATCHED.into_iter().map(|kind| (kind.gvk(), KindWatch::new(kind))).collect();
    for ((gvk, name), object) in catalog.objects().iter() {
        let Some(watch) = watches.get_mut(&**gvk) else { continue };
        match serde_json::from_str::<Value>(object.json.get()) {
            Ok(object) => watch.know(&object),
            Err(error) => tracing::error!(%gvk, %name, %error, "an object of the log can't be read"),
        }
    }
    watches.into_values().collect()
}
