//! A snapshot as it is stored: compressed, with a checksum.

const MAGIC: &[u8; 4] = b"FSMS";
const FORMAT: u16 = 1;
/// Magic, format, two zero bytes, length before compression, checksum of all that follows.
const HEADER_BYTES: usize = 4 + 2 + 2 + 8 + 4;
const COMPRESSION_LEVEL: i32 = 1;

/// As it is stored.
pub(crate) fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, COMPRESSION_LEVEL)?;
    let mut value = Vec::with_capacity(HEADER_BYTES + packed.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&FORMAT.to_le_bytes());
    value.extend_from_slice(&[0; 2]);
    value.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    value.extend_from_slice(&crc32fast::hash(&packed).to_le_bytes());
    value.extend_from_slice(&packed);
    Ok(value)
}

/// As it was handed in; none if it is damaged or of a newer form.
pub(crate) fn unpack(value: &[u8]) -> Option<Vec<u8>> {
    let (header, packed) = value.split_at_checked(HEADER_BYTES)?;
    let length = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    let checksum = u32::from_le_bytes(header.get(16..20)?.try_into().ok()?);
    if header.get(..4)? != MAGIC || header.get(4..6)? != FORMAT.to_le_bytes() || crc32fast::hash(packed) != checksum {
        return None;
    }
    let bytes = zstd::bulk::decompress(packed, usize::try_from(length).ok()?).ok()?;
    (bytes.len() as u64 == length).then_some(bytes)
}
