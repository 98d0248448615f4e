#!/usr/bin/env bash
# Builds llama-peer (../../oracles/llama-cpp) for 64-bit Arm, to count its instructions beside ours with per_token.py.
#
#   bench/guest/build_peer.sh OUT [ARCH]     ARCH is what GCC's -march takes (default armv8.2-a+dotprod+fp16, a Pi 5;
#                                            armv8-a is a Pi 3 or 4); the program's path is printed at the end
#
# Needs what ../../../boards/cross.sh needs, and cmake, g++-aarch64-linux-gnu and libclang. llama-cpp-sys-2 builds for plain armv8-a
# whatever the flags say: the last -march counts, and a compiler of our own puts it last.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:?a folder for the outputs}")
arch=${2:-armv8.2-a+dotprod+fp16}
mkdir -p "$out"
for tool in gcc g++; do
    printf '#!/bin/sh\nexec aarch64-linux-gnu-%s "$@" -march=%s\n' "$tool" "$arch" >"$out/$tool"
    chmod +x "$out/$tool"
done
export CC_aarch64_unknown_linux_gnu=$out/gcc CXX_aarch64_unknown_linux_gnu=$out/g++ BROOKLET_CACHE=$out
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--target=aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
"$here/../../../boards/cross.sh" aarch64-unknown-linux-gnu -- build --release --locked --manifest-path "$here/../../oracles/llama-cpp/Cargo.toml"
ls "$out"/cross/*/aarch64-unknown-linux-gnu/release/llama-peer
