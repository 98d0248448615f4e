#!/usr/bin/env bash
# Runs cargo for another processor than this machine's, and runs what it built under QEMU.
#
#   boards/cross.sh aarch64-unknown-linux-gnu -- test -p brooklet-core
#   boards/cross.sh aarch64-unknown-linux-musl -- build -p brooklet --release       static; see packaging/release.sh
#   boards/cross.sh aarch64-unknown-none -- build -p brooklet-core --release
#   boards/cross.sh thumbv7em-none-eabihf -- check -p brooklet-core
#   boards/cross.sh thumbv6m-none-eabi -- check -p brooklet-core --features critical-section       RP2040; no compare-and-swap
#   boards/cross.sh riscv32imc-unknown-none-elf -- check -p brooklet-core --features critical-section     ESP32-C3; the same
#   boards/cross.sh thumbv7neon-unknown-linux-gnueabihf -- test -p brooklet-core --features dsp    a Cortex-M's kernels on Linux
#   boards/cross.sh aarch64-linux-android -- check -p brooklet                      checked only: there is no linker for it here
#   boards/cross.sh --install aarch64-unknown-linux-gnu      fetches what the two lines below say is missing
#
# Which compiler: the `rustc` on PATH where it has the target's standard library (`rustup target add` gives it), else Debian's
# rustc and cargo in /usr/bin with the library source (packages rustc-web, cargo-web, rust-web-src), which then builds the
# standard library too. RUSTC_BOOTSTRAP is set for that one purpose; the project itself uses stable Rust. A compiler older than
# the workspace's `rust-version` is refused.
#
# Environment
#   CARGO_TARGET_DIR    where outputs go, if it is set
#   BROOKLET_CACHE      else where they go (default ~/.cache/brooklet): to cross/<compiler version>/ there, not in the tree
#   BROOKLET_QEMU_CPU   emulated processor (default cortex-a76 for AArch64; cortex-a53 has no dot product; cortex-m4 for thumbv7em,
#                       cortex-a7 for thumbv7neon)
#   BROOKLET_QEMU_ARGS  more words for QEMU, such as `-plugin ./count.so`
#   BROOKLET_QEMU_MACHINE   emulated board without a system (default mps2-an386 for Cortex-M, raspi3b for AArch64)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
msrv=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")

die() {
    echo "cross.sh: $*" >&2
    exit 1
}

# Whether version $1 is at least version $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

version_of() {
    "$1" --version | cut -d ' ' -f 2
}

install_missing() {
    if command -v rustup >/dev/null && rustup target add "$1"; then
        echo "cross.sh: rustup has the standard library of $1"
    else
        apt-get update
        apt-get install -y rustc-web cargo-web rust-web-src
    fi
    apt-get install -y qemu-user qemu-system-arm gcc-aarch64-linux-gnu
    [[ $1 != *gnueabihf ]] || apt-get install -y gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
}

# Sets `rustc`, `cargo` and `build_std` (words for cargo; empty where the standard library is there already).
choose_compiler() {
    local target=$1 crates=$2 sysroot version
    build_std=()
    if command -v rustc >/dev/null; then
        sysroot=$(rustc --print sysroot)
        version=$(version_of rustc)
        if compgen -G "$sysroot/lib/rustlib/$target/lib/libcore-*.rlib" >/dev/null && at_least "$version" "$msrv"; then
            rustc=$(command -v rustc) cargo=$(command -v cargo)
            echo "cross.sh: rustc $version with its own standard library for $target" >&2
            return
        fi
    fi
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] || die "no standard library for $target: run '$0 --install $target'"
    version=$(version_of /usr/bin/rustc)
    at_least "$version" "$msrv" || die "/usr/bin/rustc is $version, this project needs $msrv or newer"
    sysroot=$(/usr/bin/rustc --print sysroot)
    [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ] ||
        die "/usr/bin/rustc has no library source: run '$0 --install $target'"
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo build_std=(-Z "build-std=$crates")
    # Its own clippy (package rust-web-clippy), too.
    export RUSTC_BOOTSTRAP=1 RUSTDOC=/usr/bin/rustdoc PATH=/usr/bin:$PATH
    echo "cross.sh: /usr/bin/rustc $version, building the standard library for $target" >&2
}

# A linker without a system: rustc's own, that of another toolchain, or binutils', whose name is given.
bare_linker() {
    local found
    for found in "$("$rustc" --print sysroot)"/lib/rustlib/*/bin/rust-lld "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/stable*/lib/rustlib/*/bin/rust-lld; do
        [ -x "$found" ] && echo "$found" && return
    done
    command -v ld.lld || command -v "$1" || die "no linker for $target (rust-lld, ld.lld or $1)"
}

if [ "${1-}" = --install ]; then
    install_missing "${2:?the target}"
    exit
fi
target=${1:?a target such as aarch64-unknown-linux-gnu}
[ "${2-}" = -- ] && [ -n "${3-}" ] || die "usage: $0 TARGET -- CARGO-COMMAND [ARGUMENTS]"
shift 2

case $target in
*-linux-*) crates=std,panic_unwind,panic_abort ;;
*-none*) crates=core,alloc ;;
*) die "no way known to run $target" ;;
esac
choose_compiler "$target" "$crates"

variable=CARGO_TARGET_$(echo "$target" | tr 'a-z.-' 'A-Z__')
case $target in
aarch64-unknown-none*)
    linker=$(bare_linker aarch64-linux-gnu-ld)
    export "${variable}_LINKER=$linker"
    export "${variable}_RUNNER=qemu-system-aarch64 -M ${BROOKLET_QEMU_MACHINE:-raspi3b} -display none -serial stdio -no-reboot ${BROOKLET_QEMU_ARGS-} -kernel"
    ;;
aarch64-unknown-linux-gnu)
    export "${variable}_LINKER=aarch64-linux-gnu-gcc"
    export "${variable}_RUNNER=qemu-aarch64 -cpu ${BROOKLET_QEMU_CPU:-cortex-a76} ${BROOKLET_QEMU_ARGS-} -L /usr/aarch64-linux-gnu"
    ;;
thumbv7neon-unknown-linux-gnueabihf)
    # The processor has what a Cortex-M4F has and the target's oldest one lacks: conversions of halves.
    export "${variable}_LINKER=arm-linux-gnueabihf-gcc" "${variable}_RUSTFLAGS=-C target-cpu=cortex-a7"
    export "${variable}_RUNNER=qemu-arm -cpu ${BROOKLET_QEMU_CPU:-cortex-a7} ${BROOKLET_QEMU_ARGS-} -L /usr/arm-linux-gnueabihf"
    ;;
*-linux-musl)
    # Static: rustup's standard library brings the C library and the start files, and the toolchain its own linker.
    ((${#build_std[@]} == 0)) || die "musl's C library comes with rustup's standard library only: rustup target add $target"
    export "${variable}_LINKER=rust-lld"
    [[ $target != aarch64-* ]] ||
        export "${variable}_RUNNER=qemu-aarch64 -cpu ${BROOKLET_QEMU_CPU:-cortex-a76} ${BROOKLET_QEMU_ARGS-}"
    ;;
thumb*-none-eabi*)
    linker=$(bare_linker arm-none-eabi-ld)
    export "${variable}_LINKER=$linker"
    export "${variable}_RUNNER=qemu-system-arm -M ${BROOKLET_QEMU_MACHINE:-mps2-an386} -cpu ${BROOKLET_QEMU_CPU:-cortex-m4} -nographic -semihosting-config enable=on,target=native ${BROOKLET_QEMU_ARGS-} -kernel"
    ;;
riscv32*-none-elf)
    # Built, never run: there is no board for it here.
    linker=$(bare_linker riscv64-unknown-elf-ld)
    export "${variable}_LINKER=$linker"
    ;;
esac

export RUSTC=$rustc CARGO_BUILD_TARGET=$target
if [ -z "${CARGO_TARGET_DIR-}" ]; then
    CARGO_TARGET_DIR=${BROOKLET_CACHE:-$HOME/.cache/brooklet}/cross/$(version_of "$rustc")
    export CARGO_TARGET_DIR
fi
echo "cross.sh: outputs go to $CARGO_TARGET_DIR" >&2
exec "$cargo" "$1" "${build_std[@]}" "${@:2}"
