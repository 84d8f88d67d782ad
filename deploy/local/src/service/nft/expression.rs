//! The expressions rules are made of (nft's own names are in the comments).

use super::message::Attributes;

/// Four-byte registers; wider values take several in a row.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

/// A register, counted from 0 to 15.
#[derive(Debug, Clone, Copy)]
pub struct Reg(pub u32);

impl Reg {
    fn number(self) -> u32 {
        FIRST_REGISTER + self.0
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Meta {
    Mark = 3,
    /// IPv4 is 2, IPv6 is 10.
    Protocol = 15,
    Transport = 16,
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// The expressions of one rule, in order.
#[derive(Debug, Clone, Default)]
pub struct Expressions(Attributes);

impl Expressions {
    pub(super) fn list(&self) -> &Attributes {
        &self.0
    }

    fn add(self, name: &str, data: &Attributes) -> Self {
        Self(self.0.nest(1, &Attributes::default().text(1, name).nest(2, data)))
    }

    /// `meta … `
    pub fn load_meta(self, key: Meta, to: Reg) -> Self {
        self.add("meta", &Attributes::default().number(1, to.number()).number(2, key as u32))
    }

    /// `meta … set`
    pub fn set_meta(self, key: Meta, from: Reg) -> Self {
        self.add("meta", &Attributes::default().number(2, key as u32).number(3, from.number()))
    }

    /// `@nh,…` or `@th,…`; offset and length in bytes.
    pub fn load(self, header: Header, offset: u32, length: u32, to: Reg) -> Self {
        let data = Attributes::default().number(1, to.number()).number(2, header as u32);
        self.add("payload", &data.number(3, offset).number(4, length))
    }

    pub fn equals(self, register: Reg, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    pub fn differs(self, register: Reg, value: &[u8]) -> Self {
        self.compare(register, 1, value)
    }

    fn compare(self, register: Reg, how: u32, value: &[u8]) -> Self {
        self.add("cmp", &Attributes::default().number(1, register.number()).number(2, how).nest(3, &data(value)))
    }

    /// Keeps the bits of `mask`.
    pub fn mask(self, register: Reg, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        let both = Attributes::default().number(1, register.number()).number(2, register.number()).number(3, length);
        self.add("bitwise", &both.nest(4, &data(mask)).nest(5, &data(&vec![0; mask.len()])))
    }

    pub fn value(self, to: Reg, value: &[u8]) -> Self {
        self.add("immediate", &Attributes::default().number(1, to.number()).nest(2, &data(value)))
    }

    pub fn drop(self) -> Self {
        let verdict = Attributes::default().nest(2, &Attributes::default().number(1, 0));
        self.add("immediate", &Attributes::default().number(1, VERDICT_REGISTER).nest(2, &verdict))
    }

    /// Goes where the map says for the key, or on to the next rule.
    pub fn dispatch(self, map: &str, key: Reg) -> Self {
        self.add("lookup", &Attributes::default().text(1, map).number(2, key.number()).number(3, VERDICT_REGISTER))
    }

    /// Goes on only if the set has the key.
    pub fn in_set(self, set: &str, key: Reg) -> Self {
        self.add("lookup", &Attributes::default().text(1, set).number(2, key.number()))
    }

    /// Replaces the key by what the map says, in the registers from `to` on.
    pub fn translate(self, map: &str, key: Reg, to: Reg) -> Self {
        self.add("lookup", &Attributes::default().text(1, map).number(2, key.number()).number(3, to.number()))
    }

    /// `numgen random mod …`
    pub fn random(self, below: u32, to: Reg) -> Self {
        self.add("numgen", &Attributes::default().number(1, to.number()).number(2, below).number(3, 1))
    }

    /// `jhash … mod … seed 1`
    pub fn hash(self, from: Reg, length: u32, below: u32, to: Reg) -> Self {
        let data = Attributes::default().number(1, from.number()).number(2, to.number()).number(3, length);
        self.add("hash", &data.number(4, below).number(5, 1))
    }

    /// `dnat ip to …:…`; `family` as in [`Meta::Protocol`].
    pub fn destination(self, family: u8, address: Reg, port: Reg) -> Self {
        let data = Attributes::default().number(1, 1).number(2, u32::from(family));
        self.add("nat", &data.number(3, address.number()).number(5, port.number()))
    }

    pub fn masquerade(self) -> Self {
        self.add("masq", &Attributes::default())
    }
}

/// A value as nf_tables takes it.
pub(super) fn data(value: &[u8]) -> Attributes {
    Attributes::default().bytes(1, value)
}

/// `goto …`, as a value.
pub(super) fn go_to(chain: &str) -> Attributes {
    const GOTO: u32 = (-4_i32).cast_unsigned();
    Attributes::default().nest(2, &Attributes::default().number(1, GOTO).text(2, chain))
}
