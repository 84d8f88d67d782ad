#!/bin/sh
# Fuzzes one parser of the proxy, or each in turn, with libFuzzer; the stable compiler and a C++ one are enough.
#
#   proxy/fuzz/run.sh                       each for a minute
#   proxy/fuzz/run.sh TARGET [SECONDS]      first_bytes, configuration, kept, identity or head
#
# What was found to reach new code is kept in $CARGO_TARGET_DIR/corpus/TARGET; an input that fails is written to the current folder, and
# `run.sh TARGET 0 FILE` runs it again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target}
export CARGO_TARGET_DIR
host=$(rustc -vV | sed -n 's/^host: //p')
# The instrumentation that libFuzzer reads. With --target it is for what is fuzzed only, not for build scripts.
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
seconds=${2:-60}
for target in ${1:-first_bytes configuration kept identity head}; do
  cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target "$host" --bin "$target"
  corpus=$CARGO_TARGET_DIR/corpus/$target
  mkdir -p "$corpus"
  if [ -n "${3:-}" ]; then
    "$CARGO_TARGET_DIR/$host/release/$target" "$3"
  else
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -print_final_stats=1 "$corpus"
  fi
done
