//! How the body of a frame is compressed: by zstd, with a dictionary of what Kubernetes objects have in common. Without one, a frame of a
//! single record would take three times the space.

use std::cell::RefCell;
use std::io;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// Level 3: with the dictionary, records one by one take a twentieth less than at level 1; higher levels gain nothing more.
const LEVEL: i32 = 3;

/// Dictionary 1. It stays as it is for ever, since logs are read with it; a better one gets the next number.
static DICTIONARY: &[u8] = include_bytes!("dictionary/1.zdict");
/// Its number, which zstd writes into whatever it compresses with it.
const NUMBER: u32 = 1;

static PACKING: LazyLock<EncoderDictionary<'static>> = LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static UNPACKING: LazyLock<DecoderDictionary<'static>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    // A context is larger than most frames, so each thread keeps its own.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(super) fn pack(body: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(compressor) => compressor.compress(body),
        None => kept.insert(Compressor::with_prepared_dictionary(&PACKING)?).compress(body),
    })
}

/// Unpacks what takes up to `most` bytes: format 1 named no dictionary, format 2 names one.
pub(super) fn unpack(packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
    match zstd::zstd_safe::get_dict_id_from_frame(packed).map(u32::from) {
        None => zstd::bulk::decompress(packed, most),
        Some(NUMBER) => DECOMPRESSOR.with_borrow_mut(|kept| match kept {
            Some(decompressor) => decompressor.decompress(packed, most),
            None => kept.insert(Decompressor::with_prepared_dictionary(&UNPACKING)?).decompress(packed, most),
        }),
        Some(number) => Err(io::Error::other(format!("it needs dictionary {number}, which this program lacks"))),
    }
}
