#!/bin/sh
# Installs what build.sh needs from Debian 12 packages and crates.io only; needs root for apt-get.
# PREFIX (default: cargo's home) gets bin/bpf-linker.
set -eu
PREFIX=${PREFIX:-${CARGO_HOME:-$HOME/.cargo}}
# rustc-web and rust-web-src come from one source package, so core's sources fit the compiler.
apt-get update -qq
apt-get install -y -qq --no-install-recommends rustc-web rust-web-src llvm-14
version=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\)\.\([0-9]*\).*/\1.\2/p')
mkdir -p "$PREFIX/lib/bpf-llvm/lib"
for name in libLLVM.so "libLLVM.so.$version"; do
  ln -sf "/usr/lib/$(uname -m)-linux-gnu/libLLVM.so.$version" "$PREFIX/lib/bpf-llvm/lib/$name"
done
# The linker must be built on the LLVM of the compiler; its shared library is enough.
LLVM_PREFIX="$PREFIX/lib/bpf-llvm" CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=symbols \
  cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features "llvm-${version%%.*}" --root "$PREFIX"
"$PREFIX/bin/bpf-linker" --version
