//! A proxy: what it runs, what it keeps, and its end of the stream.

use std::collections::VecDeque;

use fastrand::Rng;
use fsm_actors::catalog::ObjectName;
use fsm_proxy_config::discovery::DeltaDiscoveryResponse;
use fsm_proxy_config::{ConfigSet, Digest, Snapshot, Update};

use super::controller::Controller;
use super::{Outcome, Story};

pub struct Proxy {
    name: ObjectName,
    /// The pod's uid and account: another one is another proxy.
    incarnation: (String, String),
    config: ConfigSet,
    stream: Option<u64>,
    /// It refused the last version: it gets that again with the next change only.
    refused: bool,
    /// Nonces and answers on their way to the controller.
    answers: VecDeque<(String, Result<Digest, String>)>,
}

impl Proxy {
    pub fn new(name: ObjectName, incarnation: (String, String)) -> Self {
        Self { name, incarnation, config: ConfigSet::default(), stream: None, refused: false, answers: VecDeque::new() }
    }

    pub fn incarnation(&self) -> &(String, String) {
        &self.incarnation
    }

    pub fn stream(&self) -> Option<u64> {
        self.stream
    }

    pub fn config(&self) -> &ConfigSet {
        &self.config
    }

    /// Whether it still lacks what it refused.
    pub fn has_refused(&self) -> bool {
        self.refused
    }

    /// Serves on with what it has.
    pub fn lose_stream(&mut self) {
        self.stream = None;
        self.answers.clear();
    }

    pub fn step(&mut self, controller: &mut Controller, rng: &mut Rng, story: &mut Story) -> Outcome {
        let Some(stream) = self.stream.filter(|stream| controller.has(&self.name, *stream)) else {
            self.lose_stream();
            return self.connect(controller, story);
        };
        match rng.u32(0..60) {
            0 => self.lose_stream(),
            // Starts anew; what it ran is on its disk.
            1 => self.lose_stream(),
            // Its disk is gone too.
            2 => {
                self.lose_stream();
                self.config = ConfigSet::default();
            }
            3..32 => {
                let refuses = rng.u32(0..8) == 0;
                self.receive(stream, controller, refuses, story)?;
            }
            _ => self.answer(controller, story)?,
        }
        Ok(())
    }

    pub fn connect(&mut self, controller: &mut Controller, story: &mut Story) -> Outcome {
        let account = ObjectName::new(self.name.namespace(), &self.incarnation.1);
        story.reconnects += u64::from(self.config.seq > 0);
        self.stream = controller.connect(&self.name, &account, &self.config.versions(), self.config.seq);
        Ok(())
    }

    /// Takes the next version, or refuses it; the answer is then on its way.
    pub fn receive(&mut self, _: u64, controller: &mut Controller, refuses: bool, story: &mut Story) -> Outcome {
        let Some(response) = controller.receive(&self.name) else { return Ok(()) };
        let nonce = response.nonce.clone();
        if refuses {
            story.refusals += 1;
            self.refused = true;
            self.answers.push_back((nonce, Err("not this one".to_owned())));
            return Ok(());
        }
        self.take(&response)?;
        self.answers.push_back((nonce, Ok(self.config.digest())));
        Ok(())
    }

    /// All of a version or nothing of it.
    fn take(&mut self, response: &DeltaDiscoveryResponse) -> Outcome {
        let update = Update::from_response(response).map_err(|error| format!("{}: {error}", self.name))?;
        let mut next = self.config.clone();
        next.apply(&update);
        Snapshot::compile(next.clone())
            .map_err(|error| format!("{} can't use version {}: {error}", self.name, next.seq))?;
        let others = next.resources.keys().filter(|name| name.kind == fsm_proxy_config::Kind::Workload).count();
        if others > 1 {
            return Err(format!("{} is told of other workloads than itself", self.name));
        }
        self.config = next;
        self.refused = false;
        Ok(())
    }

    pub fn answer(&mut self, controller: &mut Controller, story: &mut Story) -> Outcome {
        let Some((nonce, answer)) = self.answers.pop_front() else { return Ok(()) };
        story.versions_acknowledged += u64::from(answer.is_ok());
        controller.answer(&self.name, &nonce, answer)
    }
}
