//! Inbound: may this identity do this here?

use super::{Allow, Decision, Refusal, RefusalKind, RequestHead};
use crate::identity::SpiffeId;
use crate::snapshot::Snapshot;
use crate::trace::{Steps, Trace};

pub(super) fn decide<'s>(
    snapshot: &'s Snapshot,
    port: u16,
    peer: Option<&SpiffeId>,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    let Some(peer) = peer else {
        return Err(Refusal::new(
            RefusalKind::NoPeer,
            format!("port {port} takes mesh traffic only, and the caller showed no certificate"),
        ));
    };
    let ours = &snapshot.settings.trust_domain;
    if peer.trust_domain() != ours {
        return Err(Refusal::new(
            RefusalKind::ForeignPeer,
            format!("{peer} is not of the trust domain \"{ours}\" of this mesh"),
        ));
    }
    trace.step(|| format!("the caller is {peer}, by its certificate"));
    if snapshot.settings.permissive {
        trace.step(|| "the mesh is in permissive mode: TrafficTargets are not looked at".to_owned());
        return Ok(Decision::Allow(Allow { policy: None, rule: None }));
    }
    if let Some(allow) = allowed(snapshot, port, peer, head, trace) {
        return Ok(Decision::Allow(allow));
    }
    // Refusals are rare: the reasons are made by going over the same rules again, this time with a listener.
    let mut why = Steps::default();
    allowed(snapshot, port, peer, head, &mut why);
    Err(match snapshot.by_source.contains_key(peer) {
        false => Refusal::new(RefusalKind::NoPolicy, format!("no TrafficTarget allows {peer} to call port {port}")),
        true => Refusal::new(
            RefusalKind::NoRule,
            format!("no route that {peer} may use matches on port {port}: {}", why.0.join("; ")),
        ),
    })
}

fn allowed<'s>(
    snapshot: &'s Snapshot,
    port: u16,
    peer: &SpiffeId,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Option<Allow<'s>> {
    let policies = snapshot.by_source.get(peer).map_or(&[][..], Vec::as_slice);
    policies.iter().map(|index| &snapshot.policies[*index]).find_map(|policy| {
        let rule = policy.allows(port, head, trace)?;
        Some(Allow { policy: Some(&policy.name), rule: Some(rule) })
    })
}
