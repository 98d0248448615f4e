#!/usr/bin/env bash
# Tries a release archive for AArch64 as its user would, under QEMU's user emulation.
#
#   boards/packaging/check.sh ARCHIVE PROGRAM
#
# PROGRAM is a brooklet of this machine. On the processors of a Raspberry Pi 3, 4 and 5, and one with everything, the archive's
# program must continue a text in that one's words, with the model that both hold. SIGTERM must end it as a service. Then it is installed
# into a folder, installed again, refused once damaged, and taken away again; nothing may be left.
set -euo pipefail
readonly archive=$1 program=$2
readonly story=(run "Tom had a" -n 40 --temp 0)
# The folder is for programs that are not static; others do not look there.
readonly emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
readonly maps=65536

fail() {
    echo "error: $*" >&2
    exit 1
}

check_words() {
    local cpu said text
    text=$("$program" "${story[@]}")
    for cpu in cortex-a53 cortex-a72 cortex-a76 max; do
        said=$($emulator -cpu $cpu "$1" "${story[@]}")
        [ "$said" = "$text" ] || fail "$cpu says: $said"$'\n'"this machine says: $text"
        echo "$cpu: Tom had a${said%%.*}. ..."
    done
}

# Kernels of the Pi 5 and of newer phones have pages of 16 KiB, some of 64 KiB.
check_pages() {
    local alignment
    for alignment in $(readelf --program-headers --wide "$1" | awk '$1 == "LOAD" { print $NF }'); do
        ((alignment >= maps)) || fail "$1 has a segment aligned to $alignment, which kernels with larger pages refuse"
    done
}

# What lies under folder $1, with digests.
listing() {
    (cd "$1" && find . -mindepth 1 \( -type f -exec sha256sum {} + -o -print \) | LC_ALL=C sort)
}

# check_installer FOLDER PREFIX
check_installer() {
    local folder=$1 prefix=$2 install=(sh "$1/install.sh" --prefix "$2") first
    export BROOKLET_RUNNER="$emulator -cpu cortex-a53"
    "${install[@]}" --service --ram 8MiB
    first=$(listing "$prefix")
    $BROOKLET_RUNNER "$prefix/bin/brooklet" --version >/dev/null
    grep -qx 'MemoryMax=125829120' "$prefix"/lib/systemd/system/brooklet.service.d/*.conf || fail "MemoryMax is not the sum"
    "${install[@]}" --service >/dev/null
    [ "$(listing "$prefix")" = "$first" ] || fail "installed again, it is something else"
    "${install[@]}" --no-service >/dev/null
    ! find "$prefix" -path '*systemd*' -type f | grep . || fail "--no-service left the service"

    first=$(listing "$prefix")
    printf x >>"$folder/brooklet"
    ! "${install[@]}" 2>/dev/null || fail "a damaged program was installed"
    [ "$(listing "$prefix")" = "$first" ] || fail "a damaged archive changed what was installed"
    sh "$prefix/share/brooklet/install.sh" --uninstall --prefix "$prefix"
    [ ! -e "$prefix" ] || fail "left behind:"$'\n'"$(find "$prefix")"
}

# systemd's SIGTERM ends the service at once: a chat that waits on its FIFO, which systemd opens for both directions, and a stream of
# stories.
check_stop() {
    local brooklet=$1 fifo=$2/fifo arguments process status turn
    mkfifo "$fifo"
    for arguments in "chat -m small --chat-template chatml" "run -n -1"; do
        $emulator -cpu cortex-a53 "$brooklet" $arguments <>"$fifo" >/dev/null &
        process=$!
        sleep 5
        kill -TERM $process || fail "brooklet $arguments has ended by itself"
        for turn in {1..50}; do
            kill -0 $process 2>/dev/null || break
            sleep 0.1
        done
        ! kill -0 $process 2>/dev/null || fail "SIGTERM does not end brooklet $arguments within five seconds"
        status=0
        wait $process || status=$?
        [ $status = 143 ] || fail "brooklet $arguments, ended by SIGTERM, has the status $status"
    done
    echo "SIGTERM ends it"
}

folder=$(mktemp -d)
tar --directory "$folder" --extract --file "$archive"
unpacked=$(echo "$folder"/brooklet-*)
check_pages "$unpacked/brooklet"
check_words "$unpacked/brooklet"
check_stop "$unpacked/brooklet" "$folder"
check_installer "$unpacked" "$folder/prefix"
rm -r "$folder"
