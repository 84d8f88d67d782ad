//! The compiled programs, as `programs/build.sh` left them.

/// Bytes aligned for the ELF reader.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static SOCKETS_BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!("../programs/sockets.bpf.o"));
static INBOUND_BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!("../programs/inbound.bpf.o"));

/// Programs and tables shared by all pods.
pub(crate) fn sockets() -> &'static [u8] {
    &SOCKETS_BYTES.0
}

/// The program loaded once for each pod.
pub(crate) fn inbound() -> &'static [u8] {
    &INBOUND_BYTES.0
}
