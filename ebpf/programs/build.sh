#!/bin/sh
# Builds sockets.bpf.o and inbound.bpf.o from the sources here and records the compiler in objects.rustc.
#
#   ./install-toolchain.sh    once, on Debian 12: rustc-web and rust-web-src of one version, llvm-14, bpf-linker
#   ./build.sh                writes the objects; the same compiler gives the same bytes, from any folder
#   ./build.sh --check        compares with the committed objects; says so and passes where the compiler is another one
#
# On another machine: rustup's nightly with rust-src, `cargo install bpf-linker`, and
#   RUSTC=$(rustup which --toolchain nightly rustc) ./build.sh
# Environment: RUSTC (default /usr/bin/rustc), BPF_LINKER (default: found in PATH), LLVM_STRIP (default llvm-strip-14).
set -eu
cd "$(dirname "$0")"

export RUSTC="${RUSTC:-/usr/bin/rustc}" RUSTC_BOOTSTRAP=1
linker=${BPF_LINKER:-$(command -v bpf-linker || true)}
strip=${LLVM_STRIP:-$(command -v llvm-strip-14 || command -v llvm-strip || true)}

missing() {
  echo "build.sh: $1; ./install-toolchain.sh installs it on Debian" >&2
  if [ "${2:-}" = check ]; then echo "build.sh: objects not compared"; exit 0; fi
  exit 1
}
mode=build
if [ "${1:-}" = --check ]; then mode=check; fi
[ -n "$linker" ] || missing "bpf-linker not found" $mode
[ -n "$strip" ] || missing "llvm-strip not found" $mode
[ -x "$RUSTC" ] || missing "no compiler at $RUSTC" $mode
if [ $mode = check ] && [ "$("$RUSTC" -vV)" != "$(cat objects.rustc)" ]; then
  echo "build.sh: objects not compared: they were built by another compiler (see objects.rustc)"
  exit 0
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
# Paths are remapped so that the folder of a build leaves no trace in the objects.
export RUSTFLAGS="-C linker=$linker -C link-arg=--btf -C target-cpu=v3 \
--remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=crates"
CARGO_TARGET_DIR="$target" cargo build --release --locked -Z build-std=core --target bpfel-unknown-none

for name in sockets inbound; do
  built="$target/bpfel-unknown-none/release/$name.bpf.o"
  cp "$target/bpfel-unknown-none/release/$name" "$built"
  "$strip" -g "$built" # drops DWARF, keeps .BTF and .BTF.ext
  if [ $mode = check ]; then
    cmp "$built" "$name.bpf.o" || { echo "build.sh: $name.bpf.o is not what its source gives: run ./build.sh" >&2; exit 1; }
  else
    cp "$built" "$name.bpf.o"
  fi
done
if [ $mode = check ]; then echo "build.sh: objects match their source"; else "$RUSTC" -vV > objects.rustc; fi
