//! One table of nf_tables, written anew as a whole. The namespace's kernel does the rest.

mod expression;
mod message;

use std::io;

use crate::net::Netns;
pub(super) use expression::{Expressions, Header, Meta, Reg};
use expression::{data, go_to};
use message::{Attributes, Batch, Socket, Verb};

/// Elements sent in one message; an attribute has at most 64 KiB.
const PORTION: usize = 256;

/// Where a chain begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

pub(super) const PREROUTING: u32 = 0;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;

/// What a map leads to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Chain(String),
    Value(Vec<u8>),
}

/// A table being written.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    batch: Batch,
    sets: u32,
}

impl Table {
    /// Begins with an empty table in place of the one there may be.
    pub fn anew(name: &'static str) -> Self {
        let mut batch = Batch::new();
        let attributes = Attributes::default().text(1, name);
        // To remove what may not be there it is made first.
        for verb in [Verb::NewTable, Verb::DeleteTable, Verb::NewTable] {
            batch.add(verb, &attributes);
        }
        Self { name, batch, sets: 0 }
    }

    pub fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = Attributes::default().text(1, self.name).text(3, name);
        if let Some(Hook { kind, number, priority }) = hook {
            let place = Attributes::default().number(1, number).number(2, priority.cast_unsigned());
            attributes = attributes.nest(4, &place).text(7, kind);
        }
        self.batch.add(Verb::NewChain, &attributes);
    }

    pub fn rule(&mut self, chain: &str, expressions: &Expressions) {
        let attributes = Attributes::default().text(1, self.name).text(2, chain).nest(4, expressions.list());
        self.batch.add(Verb::NewRule, &attributes);
    }

    /// A set of keys, all of the same length.
    pub fn set(&mut self, name: &str, key_bytes: usize, keys: &[Vec<u8>]) {
        let id = self.new_set(name, key_bytes, 0, None);
        self.elements(name, id, keys.iter().map(|key| (key, None)));
    }

    /// A map whose values are chains, or bytes of the same length.
    pub fn map(&mut self, name: &str, key_bytes: usize, value_bytes: Option<usize>, entries: &[(Vec<u8>, Target)]) {
        const MAP: u32 = 8;
        let id = self.new_set(name, key_bytes, MAP, Some(value_bytes));
        self.elements(name, id, entries.iter().map(|(key, target)| (key, Some(target))));
    }

    fn new_set(&mut self, name: &str, key_bytes: usize, flags: u32, value: Option<Option<usize>>) -> u32 {
        const VERDICT: u32 = 0xffff_ff00;
        self.sets += 1;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(0);
        let attributes = Attributes::default().text(1, self.name).text(2, name).number(3, flags);
        let mut attributes = attributes.number(4, 0).number(5, size(key_bytes)).number(10, self.sets);
        match value {
            Some(None) => attributes = attributes.number(6, VERDICT),
            Some(Some(bytes)) => attributes = attributes.number(6, 0).number(7, size(bytes)),
            None => {}
        }
        self.batch.add(Verb::NewSet, &attributes);
        self.sets
    }

    fn elements<'a>(&mut self, name: &str, id: u32, elements: impl Iterator<Item = (&'a Vec<u8>, Option<&'a Target>)>) {
        let elements: Vec<Attributes> = elements
            .map(|(key, target)| {
                let element = Attributes::default().nest(1, &data(key));
                match target {
                    None => element,
                    Some(Target::Chain(chain)) => element.nest(2, &go_to(chain)),
                    Some(Target::Value(value)) => element.nest(2, &data(value)),
                }
            })
            .collect();
        for portion in elements.chunks(PORTION) {
            let list = portion.iter().fold(Attributes::default(), |list, element| list.nest(1, element));
            let attributes = Attributes::default().text(1, self.name).text(2, name).nest(3, &list).number(4, id);
            self.batch.add(Verb::NewElements, &attributes);
        }
    }

    /// Puts the table in force in the namespace, all at once.
    pub fn commit(self, netns: &Netns) -> io::Result<()> {
        let batch = self.batch;
        netns.run(|| batch.commit(&Socket::open()?))?
    }
}
