#!/usr/bin/env bash
# Makes what a release consists of: for each target an archive and its SHA-256.
#
#   boards/packaging/release.sh [--out DIR] [TARGET...]
#
# DIR is target/dist unless given; targets are x86_64-unknown-linux-musl and aarch64-unknown-linux-musl unless given. Programs for
# musl are static: one runs on every Linux of its processor, the AArch64 one also in Termux. Any other target that cross.sh can
# build will do. An archive holds the program, stripped, with its licences, README, changelog, manual pages and shell completions;
# for AArch64 an installer and a systemd service too, see README.md here. Made again from the same commit by the same
# compiler it has the same bytes.
#
# Each program is run before it is packed: on this machine's processor, or under QEMU.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly tiny=core/tests/data/random.gguf

die() {
    echo "release.sh: $*" >&2
    exit 1
}

# Words that start a program for target $1 here.
runner_of() {
    case $1 in
    "$(uname -m)"-*) ;;
    aarch64-*-musl) echo "qemu-aarch64" ;;
    aarch64-*) echo "qemu-aarch64 -L /usr/aarch64-linux-gnu" ;;
    *) die "no way known to run programs for $1 here" ;;
    esac
}

# A static program names no interpreter and no library.
check_static() {
    local program=$1 found
    found=$(readelf --program-headers --dynamic --wide "$program" | grep -E 'INTERP|\(NEEDED\)' || true)
    [ -z "$found" ] || die "$program is not static:"$'\n'"$found"
}

# build TARGET: prints where the program is.
build() {
    export CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_DEBUG=none
    # Places in panics' messages: without this machine's folders.
    export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"$'\x1f'"--remap-path-prefix=$PWD=/brooklet"
    boards/cross.sh "$1" -- build --quiet --release --locked -p brooklet --message-format json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# document FOLDER COMMAND...: manual pages and completions, written by the program itself.
document() {
    local folder=$1 shell
    shift
    "$@" man --out "$folder/man/man1"
    mkdir "$folder/completions"
    for shell in bash zsh fish elvish powershell; do
        "$@" completions "$shell" >"$folder/completions/brooklet.$shell"
    done
}

# add_installer FOLDER: what puts the program in place on a Raspberry Pi or in Termux, and the digests that it checks first.
add_installer() {
    mkdir "$1/service"
    cp boards/packaging/brooklet.{service,socket} "$1/service"
    cp boards/packaging/install.sh "$1"
    cp boards/packaging/README.md "$1/INSTALL.md"
    (cd "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum) >"$1.sums"
    mv "$1.sums" "$1/SHA256SUMS"
}

# release TARGET OUT
release() {
    local target=$1 out=$2 name="brooklet-$version-$1" work folder program command
    work=$(mktemp -d)
    folder=$work/$name
    mkdir "$folder"
    if command -v rustup >/dev/null && ! rustup target list --installed | grep -x "$target" >/dev/null; then
        rustup target add "$target" || echo "release.sh: rustup has no $target, trying without" >&2
    fi
    program=$(build "$target")
    cp "$program" "$folder"
    [[ $target != *-musl ]] || check_static "$folder/brooklet"

    read -ra command <<<"$(runner_of "$target") $folder/brooklet"
    [ "$("${command[@]}" --version)" = "brooklet $version" ] || die "the program for $target has another version"
    "${command[@]}" plan -m "$tiny" >/dev/null
    "${command[@]}" run -m "$tiny" "The sea" -n 8 --temp 0 >/dev/null

    document "$folder" "${command[@]}"
    cp LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$folder"
    [[ $target != aarch64-*-linux-* ]] || add_installer "$folder"
    tar --directory "$work" --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner \
        --create "$name" | gzip --no-name --best >"$out/$name.tar.gz"
    (cd "$out" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
    rm -r "$work"
}

out=target/dist
if [ "${1-}" = --out ]; then
    out=${2:?the folder}
    shift 2
fi
(($#)) || set -- x86_64-unknown-linux-musl aarch64-unknown-linux-musl
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
mkdir -p "$out"
for target in "$@"; do
    release "$target" "$out"
done
