//! What a resource is made of: the objects without which it would be another one.
//!
//! Found by trying: each object is taken away and put back, and the state machines say what difference that makes. So it is right for
//! every concern, also for those that are still to come.

use bytes::Bytes;
use fsm_proxy_config::ResourceName;
use fsm_store::{Record, Timestamp, TraceContext};
use serde::Serialize;

use crate::Core;
use crate::catalog::{Object, ObjectKey, ObjectName};
use crate::concern::ResourceKey;
use crate::fact::{Fact, ObjectChange, ObjectFact};

/// What would be different without an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the resource says, or whether there is such a resource.
    Content,
    /// Whether this proxy is told about it.
    Audience,
    /// Whether there is this proxy.
    Proxy,
}

/// An object that a resource depends on.
#[derive(Clone, Debug)]
pub struct Input {
    pub key: ObjectKey,
    pub object: Object,
    pub role: Role,
    /// One of several of which any would do: only without all of them it would be different.
    pub alternative: bool,
}

/// The objects without which a proxy would not be told this resource as it is. None if it is not told it.
pub fn inputs(core: &Core, proxy: &ObjectName, name: &ResourceName) -> Option<Vec<Input>> {
    let look = |core: &Core| Seen::of(core, proxy, name);
    let seen = look(core);
    seen.told.as_ref()?;
    let mut trial = Trial::on(core.clone());
    let mut inputs = Vec::new();
    // Objects that something is computed from, but without which alone nothing is different here.
    let mut others: Vec<(&ObjectKey, &Object)> = Vec::new();
    for (key, object) in core.catalog().objects().iter() {
        let Some(without) = trial.without(key, object, look) else { continue };
        match seen.role_of_difference(&without) {
            Some(role) => inputs.push(Input { key: key.clone(), object: object.clone(), role, alternative: false }),
            None => others.push((key, object)),
        }
    }
    inputs.extend(alternatives(core, &others, &seen, look));
    Some(inputs)
}

/// The objects of which any one would do. Taking one object after the other away, for good, ends with those that are needed when the others
/// are gone; whatever is needed when one of those is gone stands in for it.
fn alternatives(
    core: &Core,
    others: &[(&ObjectKey, &Object)],
    seen: &Seen,
    look: impl Fn(&Core) -> Seen,
) -> Vec<Input> {
    let mut rest = Trial::on(core.clone());
    let mut found = Vec::new();
    for (index, (key, object)) in others.iter().enumerate() {
        let Some(without) = rest.without(key, object, &look) else { continue };
        let Some(role) = seen.role_of_difference(&without) else {
            rest.take(key, object);
            continue;
        };
        let mut input = |key: &ObjectKey, object: &Object| {
            found.push(Input { key: key.clone(), object: object.clone(), role, alternative: true });
        };
        input(key, object);
        let mut one_gone = Trial::on(core.clone());
        one_gone.take(key, object);
        for (other, its_object) in &others[..index] {
            if one_gone
                .without(other, its_object, &look)
                .is_some_and(|without| seen.role_of_difference(&without).is_some())
            {
                input(other, its_object);
            }
        }
    }
    found
}

/// What there is to see of a resource.
#[derive(PartialEq)]
struct Seen {
    proxy: bool,
    /// Of the resource, whoever is told about it.
    content: Option<Bytes>,
    /// To this proxy.
    told: Option<Bytes>,
}

impl Seen {
    /// What is different without something.
    fn role_of_difference(&self, without: &Self) -> Option<Role> {
        if without.content != self.content {
            Some(Role::Content)
        } else if without.proxy != self.proxy {
            Some(Role::Proxy)
        } else if without.told != self.told {
            Some(Role::Audience)
        } else {
            None
        }
    }

    fn of(core: &Core, proxy: &ObjectName, name: &ResourceName) -> Self {
        let own = core.resource(&ResourceKey::of(proxy.clone(), name.clone()));
        let content = own.or_else(|| core.resource(&ResourceKey::shared(name.clone())));
        let account = core.account_of(proxy);
        let told =
            content.filter(|told| account.is_some_and(|account| own.is_some() || told.audience.contains(account)));
        Self {
            proxy: account.is_some(),
            content: content.map(|told| told.bytes.clone()),
            told: told.map(|told| told.bytes.clone()),
        }
    }
}

/// A state to try things on.
struct Trial {
    /// To begin again with.
    core: Core,
    scratch: Core,
}

impl Trial {
    fn on(core: Core) -> Self {
        Self { scratch: core.clone(), core }
    }

    /// What is seen without an object; none if nothing is computed from it, or taking it away can't be tried.
    fn without<T>(&mut self, key: &ObjectKey, object: &Object, look: impl Fn(&Core) -> T) -> Option<T> {
        let taken = self.apply(key, object, ObjectChange::Deleted);
        let seen = (taken == Some(true)).then(|| look(&self.scratch));
        let put_back = self.apply(key, object, ObjectChange::Applied);
        // What is put back may not be what was taken: the last good MeshConfig stays in force when it becomes unusable.
        let same_mesh = self.scratch.catalog().mesh() == self.core.catalog().mesh();
        if taken.is_none() || taken != put_back || !same_mesh {
            self.scratch = self.core.clone();
        }
        seen
    }

    /// Takes an object away for good.
    fn take(&mut self, key: &ObjectKey, object: &Object) {
        if self.apply(key, object, ObjectChange::Deleted).is_some() {
            self.core = self.scratch.clone();
        } else {
            self.scratch = self.core.clone();
        }
    }

    /// Whether anything is computed from it. None if a state machine panicked.
    fn apply(&mut self, (gvk, name): &ObjectKey, object: &Object, change: ObjectChange) -> Option<bool> {
        let fact = ObjectFact { gvk: gvk.clone(), name: name.clone(), change, object: object.json.clone() };
        let entry = Fact::Object(fact).to_entry(TraceContext::default());
        let record = Record { seq: self.scratch.seq().next(), time: Timestamp(0), entry };
        self.scratch.try_apply_one(&record).ok().map(|effect| !effect.delta.is_empty())
    }
}
