//! The publisher as an actor: names versions, and hands every session its part of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::{Context, Handler, Message, Recipient};
use fsm_proxy_config::{ConfigSet, Digest};
use fsm_store::Seq;
use tokio::sync::watch;

use super::barrier::{Barrier, Joined, Part};
use super::{Counters, Followed, ProxyUpdate, Publisher};
use crate::FactSink;
use crate::catalog::view::Account;
use crate::catalog::{Catalog, ObjectName};
use crate::concern::Change;
use crate::core::{CATALOG, CONCERNS, Core, PUBLISHER};
use crate::fact::{Fact, StateDigest};
use crate::shell::{Machine, Shell};

/// The actor.
pub type PublisherActor = Shell<PublisherMachine>;

/// The publisher, and whom it tells.
pub struct PublisherMachine {
    pub publisher: Publisher,
    /// The last version.
    pub seq: Seq,
    barrier: Barrier,
    sessions: BTreeMap<ObjectName, OpenSession>,
    facts: FactSink,
    /// The catalog of the last version.
    published: watch::Sender<Catalog>,
    counters: Arc<Counters>,
}

struct OpenSession {
    instance: String,
    recipient: Recipient<ToSession>,
}

/// What a session is told.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ToSession {
    Update(ProxyUpdate),
    /// This stream may not go on.
    Close(String),
}

impl PublisherMachine {
    /// A publisher in the state of `core`, without sessions.
    pub fn new(core: Core, facts: FactSink, published: watch::Sender<Catalog>, counters: Arc<Counters>) -> Self {
        let seq = core.seq();
        let mut publisher = core.publisher;
        publisher.follow(Followed::Nobody);
        let barrier = Barrier::new(CONCERNS.len());
        Self { publisher, seq, barrier, sessions: BTreeMap::new(), facts, published, counters }
    }

    /// Ends the streams of proxies that left, or whose pod's name is somebody else's by now: the predecessor is told nothing of
    /// what is for the new one. A proxy that still is there connects again, and says what it holds.
    fn close(&mut self, left: BTreeSet<ObjectName>) {
        for proxy in left {
            self.publisher.unfollow_one(&proxy);
            if let Some(session) = self.sessions.remove(&proxy) {
                session
                    .recipient
                    .do_send(ToSession::Close(format!("{proxy} left the mesh, or runs as somebody else now")));
            }
        }
    }

    fn record_digests(&mut self, joined: &Joined, catalog: Digest) {
        let concerns = joined.done.iter().filter_map(|done| Some((CONCERNS[done.concern], done.digest?)));
        self.publisher.settle_digest();
        let others = [(CATALOG, catalog), (PUBLISHER, self.publisher.digest())];
        let digests = concerns.chain(others).map(|(name, digest)| (name.to_owned(), digest.to_string())).collect();
        self.facts.append_later(Fact::StateDigest(StateDigest { seq: joined.batch.last(), digests }));
    }
}

impl Machine for PublisherMachine {
    const NAME: &'static str = PUBLISHER;
    type Job = Joined;
    type Output = ();

    fn seqs(joined: &Joined) -> Vec<Seq> {
        joined.batch.steps.iter().map(|step| step.seq).collect()
    }

    fn apply(&mut self, joined: &Joined, index: usize) {
        let step = &joined.batch.steps[index];
        let _span = crate::span::child(Self::NAME, &step.trace, step.seq);
        let changes: Vec<Change> = joined.done.iter().flat_map(|done| done.changes[index].iter().cloned()).collect();
        self.publisher.apply(step.seq, &step.catalog, &step.delta, &changes, step.trace);
    }

    fn pass_over(&mut self, _: &Joined, _: usize) {}

    fn finish(&mut self, joined: Joined, _: Vec<()>) {
        self.seq = joined.batch.last();
        let left = self.publisher.take_left();
        self.close(left);
        let updates = self.publisher.take_updates(self.seq);
        self.counters.published(updates.len());
        for update in updates {
            if let Some(session) = self.sessions.get(&update.proxy) {
                session.recipient.do_send(ToSession::Update(update));
            }
        }
        if let Some(catalog) = joined.batch.digest {
            self.record_digests(&joined, catalog);
        }
        if let Some(step) = joined.batch.steps.last() {
            self.published.send_replace(step.catalog.clone());
        }
    }

    fn restore(&mut self, core: Core) {
        self.publisher = core.publisher;
        self.publisher.follow(Followed::These(self.sessions.keys().cloned().collect()));
    }

    fn next_job(&mut self) -> Option<Joined> {
        self.barrier.pop()
    }
}

impl Message for Part {
    type Result = ();
}

impl Handler<Part> for PublisherActor {
    type Result = ();

    fn handle(&mut self, part: Part, ctx: &mut Context<Self>) {
        self.machine.barrier.put(part);
        if let Some(joined) = self.machine.barrier.pop() {
            self.run(joined, ctx);
        }
    }
}

/// Begins to send a proxy's updates to a session; answers with all that the proxy is told now.
#[derive(Message)]
#[rtype(result = "Result<ConfigSet, UnknownProxy>")]
pub struct Connect {
    pub proxy: ObjectName,
    pub account: Account,
    pub instance: String,
    pub recipient: Recipient<ToSession>,
}

/// No pod of this name with a proxy and this service account is known.
#[derive(Debug)]
pub struct UnknownProxy;

impl Handler<Connect> for PublisherActor {
    type Result = Result<ConfigSet, UnknownProxy>;

    fn handle(&mut self, connect: Connect, _: &mut Context<Self>) -> Self::Result {
        let machine = &mut self.machine;
        if machine.publisher.account_of(&connect.proxy) != Some(&connect.account) {
            return Err(UnknownProxy);
        }
        let config = machine.publisher.config_of(&connect.proxy, machine.seq).ok_or(UnknownProxy)?;
        machine.publisher.follow_one(&connect.proxy);
        let session = OpenSession { instance: connect.instance, recipient: connect.recipient };
        if let Some(older) = machine.sessions.insert(connect.proxy, session) {
            older.recipient.do_send(ToSession::Close("the proxy opened another stream".to_owned()));
        }
        Ok(config)
    }
}

/// A stream has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Disconnect {
    pub proxy: ObjectName,
    pub instance: String,
}

impl Handler<Disconnect> for PublisherActor {
    type Result = ();

    fn handle(&mut self, ended: Disconnect, _: &mut Context<Self>) {
        let machine = &mut self.machine;
        if machine.sessions.get(&ended.proxy).is_some_and(|session| session.instance == ended.instance) {
            machine.sessions.remove(&ended.proxy);
            machine.publisher.unfollow_one(&ended.proxy);
        }
    }
}

/// Asks for all that a proxy is told now.
#[derive(Message)]
#[rtype(result = "Option<ConfigSet>")]
pub struct ConfigOf(pub ObjectName);

impl Handler<ConfigOf> for PublisherActor {
    type Result = Option<ConfigSet>;

    fn handle(&mut self, ask: ConfigOf, _: &mut Context<Self>) -> Self::Result {
        self.machine.publisher.config_of(&ask.0, self.machine.seq)
    }
}

/// Asks which service account a proxy has; none if there is no such proxy.
#[derive(Message)]
#[rtype(result = "Option<Account>")]
pub struct AccountOf(pub ObjectName);

impl Handler<AccountOf> for PublisherActor {
    type Result = Option<Account>;

    fn handle(&mut self, ask: AccountOf, _: &mut Context<Self>) -> Self::Result {
        self.machine.publisher.account_of(&ask.0).cloned()
    }
}
