//! Where a JSON value ends, found 64 bytes at a time: each block becomes sets of places (quotes, backslashes, brackets), one bit for
//! each byte.

use wide::u8x16;

/// Bytes in a block: as many as a set has bits.
const BLOCK: usize = u64::BITS as usize;
/// `[` and `{`, and `]` and `}`, differ in this bit only.
const CURLY: u8 = 0x20;

/// The length of the object or array that a text begins with.
pub(super) fn container(text: &[u8]) -> Option<usize> {
    let mut strings = Strings::default();
    let mut depth = 0;
    for (number, block) in blocks(text).enumerate() {
        let outside = !strings.inside(&block);
        let opens = block.places(CURLY, b'{') & outside;
        let closes = block.places(CURLY, b'}') & outside;
        // With fewer ends than levels it can't end here.
        if closes.count_ones() < depth {
            depth = depth + opens.count_ones() - closes.count_ones();
            continue;
        }
        let mut rest = opens | closes;
        while rest != 0 {
            let place = rest & rest.wrapping_neg();
            if opens & place != 0 {
                depth += 1;
            } else {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(number * BLOCK + place.trailing_zeros() as usize + 1);
                }
            }
            rest ^= place;
        }
    }
    None
}

/// The length of the string that a text begins with, quotes included.
pub(super) fn string(text: &[u8]) -> Option<usize> {
    let mut from = 1;
    loop {
        let found = from + quote_or_backslash(text.get(from..)?)?;
        if text[found] == b'"' {
            return Some(found + 1);
        }
        // What is escaped ends nothing.
        from = found + 2;
    }
}

/// The place of the first quote or backslash.
pub(super) fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    // Most strings are short: what is next is looked at before anything is prepared for more.
    let (sixteens, _) = text.as_chunks::<16>();
    for (number, next) in sixteens.iter().take(4).enumerate() {
        let next = u8x16::new(*next);
        let found = (next.simd_eq(u8x16::splat(b'"')) | next.simd_eq(u8x16::splat(b'\\'))).to_bitmask();
        if found != 0 {
            return Some(16 * number + found.trailing_zeros() as usize);
        }
    }
    memchr::memchr2(b'"', b'\\', text)
}

struct Block([u8x16; 4]);

impl Block {
    fn new(bytes: &[u8; BLOCK]) -> Self {
        let (quarters, _) = bytes.as_chunks::<16>();
        Self(std::array::from_fn(|quarter| u8x16::new(quarters[quarter])))
    }

    /// Whether a byte is anywhere in it.
    fn has(&self, wanted: u8) -> bool {
        let [one, two, three, four] = self.0.map(|quarter| quarter.simd_eq(u8x16::splat(wanted)));
        (one | two | three | four).to_bitmask() != 0
    }

    /// The places of a byte, whatever the bits of `ignored` are there.
    fn places(&self, ignored: u8, wanted: u8) -> u64 {
        let (ignored, wanted) = (u8x16::splat(ignored), u8x16::splat(wanted));
        let quarter = |at: usize| u64::from((self.0[at] | ignored).simd_eq(wanted).to_bitmask()) << (16 * at);
        quarter(0) | quarter(1) | quarter(2) | quarter(3)
    }
}

/// The blocks of a text; after its end come blanks.
fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let (whole, rest) = text.as_chunks::<BLOCK>();
    // Most values end before the last block.
    let last = std::iter::once(rest).filter(|rest| !rest.is_empty()).map(|rest| {
        let mut padded = [b' '; BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        Block::new(&padded)
    });
    whole.iter().map(Block::new).chain(last)
}

/// Knows from block to block what is inside of strings.
#[derive(Default)]
struct Strings {
    /// All ones if the block before ended inside of a string.
    inside: u64,
    /// Whether its last byte escapes the next one: bit 0.
    escaped: u64,
}

impl Strings {
    /// The places that are inside of strings, or their first quote.
    fn inside(&mut self, block: &Block) -> u64 {
        let mut quotes = block.places(0, b'"');
        if self.escaped != 0 || block.has(b'\\') {
            quotes &= !self.escaped(block.places(0, b'\\'));
        }
        // Each bit becomes the parity of the quotes up to it.
        let mut inside = quotes;
        for distance in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << distance;
        }
        inside ^= self.inside;
        self.inside = if inside >> (BLOCK - 1) == 1 { u64::MAX } else { 0 };
        inside
    }

    /// The places that are escaped by a backslash before them.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        let mut escaped = std::mem::take(&mut self.escaped);
        let mut rest = backslashes & !escaped;
        while rest != 0 {
            let place = rest & rest.wrapping_neg();
            let next = place << 1;
            self.escaped |= place >> (BLOCK - 1);
            escaped |= next;
            rest &= !(place | next);
        }
        escaped
    }
}
