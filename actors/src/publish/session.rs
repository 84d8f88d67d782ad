//! One proxy's stream as an actor.

use std::collections::BTreeMap;

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Running, WrapFuture};
use fsm_proxy_config::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use fsm_proxy_config::{ConfigSet, Digest, SpiffeId};
use fsm_store::Seq;
use tokio::sync::mpsc;
use tonic::Status;

use super::actor::{ConfigOf, Connect, Disconnect, PublisherActor, ToSession};
use super::delivery::{Answer, Delivery, Version};
use crate::FactSink;
use crate::catalog::ObjectName;
use crate::catalog::view::Account;
use crate::fact::{Ack, Fact, Nack, ProxyFact, ProxyPhase};
use crate::span::ActiveSpan;

/// Streams one proxy's versions, one at a time, and turns its answers into facts.
pub(super) struct Session {
    pub proxy: ObjectName,
    pub account: Account,
    pub identity: SpiffeId,
    /// Names this stream in facts.
    pub instance: String,
    /// The first request's `initial_resource_versions`.
    pub held: BTreeMap<String, String>,
    /// The first request's `running_seq`.
    pub running_seq: u64,
    pub out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    pub facts: FactSink,
    pub publisher: Addr<PublisherActor>,
    pub delivery: Delivery,
    /// From sending a version to its acknowledgement.
    pub under_way: Option<ActiveSpan>,
    /// The proxy was sent everything since its content last differed from what it should be.
    pub resent: bool,
}

impl Session {
    fn send(&mut self, response: Option<DeltaDiscoveryResponse>, ctx: &mut Context<Self>) {
        let Some(response) = response else { return };
        self.under_way = self.delivery.under_way().map(|(seq, trace)| {
            let mut span = crate::span::child("deliver", &trace, seq);
            span.note("fsm.proxy", || self.proxy.to_string());
            span
        });
        // At most one version is on its way, so the channel has room unless the stream has ended.
        if self.out.try_send(Ok(response)).is_err() {
            ctx.stop();
        }
    }

    fn close(&mut self, status: Status, ctx: &mut Context<Self>) {
        tracing::info!(proxy = %self.proxy, reason = status.message(), "stream closed");
        // If there is no room, the stream has ended already.
        let _ = self.out.try_send(Err(status));
        ctx.stop();
    }

    fn connect(&mut self, ctx: &mut Context<Self>) {
        let connect = Connect {
            proxy: self.proxy.clone(),
            account: self.account.clone(),
            instance: self.instance.clone(),
            recipient: ctx.address().recipient(),
        };
        // `wait`: updates that come after the answer are handled after it.
        ctx.wait(self.publisher.send(connect).into_actor(self).map(|answer, session, ctx| match answer {
            Ok(Ok(config)) => {
                let first = Delivery::first(&config, &session.held, session.running_seq);
                let response = session.delivery.offer(first);
                session.send(response, ctx);
            }
            Ok(Err(_)) => session.close(Status::permission_denied("the pod is gone"), ctx),
            Err(_) => session.close(Status::unavailable("the controller is stopping"), ctx),
        }));
    }

    fn resend(&mut self, ctx: &mut Context<Self>) {
        let ask = self.publisher.send(ConfigOf(self.proxy.clone()));
        ctx.wait(ask.into_actor(self).map(|config, session, ctx| {
            if let Ok(Some(config)) = config {
                let response = session.delivery.offer(everything(&config, &session.held));
                session.send(response, ctx);
            }
        }));
    }

    fn nack(&self, seq: Seq, error: String) {
        tracing::warn!(proxy = %self.proxy, seq = seq.0, error, "a proxy refused a version");
        self.facts.append_later(Fact::Nack(Nack { proxy: self.proxy.clone(), seq, error }));
    }
}

/// The whole configuration, whatever the proxy holds.
fn everything(config: &ConfigSet, held: &BTreeMap<String, String>) -> Version {
    Delivery::first(config, held, u64::MAX)
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.connect(ctx);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.publisher.do_send(Disconnect { proxy: self.proxy.clone(), instance: self.instance.clone() });
        self.facts.append_later(Fact::Proxy(ProxyFact {
            phase: ProxyPhase::Disconnected,
            proxy: self.proxy.clone(),
            identity: self.identity.clone(),
            instance: self.instance.clone(),
            version: String::new(),
            running_seq: 0,
        }));
        Running::Stop
    }
}

impl Handler<ToSession> for Session {
    type Result = ();

    fn handle(&mut self, message: ToSession, ctx: &mut Self::Context) {
        match message {
            ToSession::Update(update) => {
                let response = self.delivery.offer(update.into());
                self.send(response, ctx);
            }
            ToSession::Close(reason) => self.close(Status::aborted(reason), ctx),
        }
    }
}

/// A request after the first one: an answer of the proxy.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromProxy(pub DeltaDiscoveryRequest);

impl Handler<FromProxy> for Session {
    type Result = ();

    fn handle(&mut self, FromProxy(request): FromProxy, ctx: &mut Self::Context) {
        let nonce = &request.response_nonce;
        let digest = <[u8; 32]>::try_from(request.config_digest.as_slice()).ok().map(Digest);
        let answer = match &request.error_detail {
            Some(_) => self.delivery.nacked(nonce),
            None => self.delivery.acked(nonce, digest),
        };
        match answer {
            Answer::Stale => {}
            Answer::Acked { seq } => {
                self.resent = false;
                self.under_way = None;
                // From now on it is known what the proxy has.
                self.held.clear();
                if let Some(digest) = digest {
                    self.facts.append_later(Fact::Ack(Ack { proxy: self.proxy.clone(), seq, digest }));
                } else {
                    self.nack(seq, "acknowledged without the digest of the configuration".to_owned());
                }
            }
            Answer::Nacked { seq } => {
                self.under_way = None;
                let error = request.error_detail.map(|status| status.message).unwrap_or_default();
                self.nack(seq, error);
            }
            Answer::Differs { seq, expected } => {
                let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
                self.nack(
                    seq,
                    format!("its configuration has digest {digest}, but should have {expected}: sent again in full"),
                );
                if !std::mem::replace(&mut self.resent, true) {
                    self.resend(ctx);
                }
            }
        }
        let next = self.delivery.send();
        self.send(next, ctx);
    }
}

/// The proxy's side of the stream has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StreamEnded;

impl Handler<StreamEnded> for Session {
    type Result = ();

    fn handle(&mut self, _: StreamEnded, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
