#!/bin/sh
# Installs the brooklet that lies beside this script, or takes it away again.
#
#   sh install.sh [--prefix DIR] [--service | --no-service] [--ram SIZE [--weights SIZE]]
#   sh install.sh --uninstall [--prefix DIR]
#
# DIR is $PREFIX where that is set, as Termux does, else /usr/local, which needs root. Without either option the systemd service is
# put in place by root in /usr/local or /usr, where systemd runs and looks; it is not started. SIZE is 16777216, 16MiB or 1GiB: the
# service's arena, and the model file's size; MemoryMax becomes their sum and 16 MiB. Weights are 96 MiB unless given.
#
# Everything is checked before anything is replaced: the digests of what lies here, and that the program runs. Done twice, it does
# the same once. What was put where stands in DIR/share/brooklet/files, and --uninstall takes away that and no more.
#
# BROOKLET_RUNNER: words in front of the program, such as `qemu-aarch64 -cpu cortex-a53`, to install for another machine.
set -eu
LC_ALL=C
export LC_ALL

readonly mib=1048576
readonly units=lib/systemd/system
readonly budget=$units/brooklet.service.d/10-ram.conf
readonly list=share/brooklet/files

die() {
    echo "install.sh: $*" >&2
    exit 1
}

# bytes OPTION SIZE: the size as a number.
bytes() {
    number=${2%%[!0-9]*}
    case $2 in
    "" | [!1-9]* | ????????????*) die "$1 is a size such as 16MiB, not \"$2\"" ;;
    esac
    case ${2#"$number"} in
    "") echo "$number" ;;
    KiB) echo $((number * 1024)) ;;
    MiB) echo $((number * mib)) ;;
    GiB) echo $((number * mib * 1024)) ;;
    *) die "$1 is a size such as 16MiB, not \"$2\"" ;;
    esac
}

# Runs the program at path $1 with the rest.
run() {
    # The runner is several words.
    # shellcheck disable=SC2086
    ${BROOKLET_RUNNER-} "$@" </dev/null
}

# Whether root works on a system whose systemd looks into the prefix.
is_live() {
    [ "$(id -u)" -eq 0 ] && [ -d /run/systemd/system ] && case $prefix in /usr/local | /usr) true ;; *) false ;; esac
}

# The nearest folder that is there can be written to.
check_permission() {
    folder=$prefix
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    [ -w "$folder" ] || die "$folder cannot be written to: run this with sudo, or choose a folder: --prefix ~/.local"
}

check_archive() {
    command -v sha256sum >/dev/null || die "there is no sha256sum, with which to check the files"
    [ -f "$here/SHA256SUMS" ] || die "$here is no unpacked release: there is no SHA256SUMS"
    (cd "$here" && sha256sum -c SHA256SUMS >/dev/null 2>&1) ||
        die "files in $here are damaged (sha256sum -c SHA256SUMS tells which): download it again"
    # Some shells take a program for another processor for a script.
    [ -n "${BROOKLET_RUNNER-}" ] || [ "$(uname -m)" = aarch64 ] ||
        die "this release is for 64-bit Arm, and this machine is $(uname -m)"
    version=$(run "$here/brooklet" --version) || die "$here/brooklet does not run here: may programs run in this folder?"
    run "$here/brooklet" run "The sea" -n 4 --temp 0 >/dev/null || die "$here/brooklet starts, but its own model does not run"
}

# make_folder PATH, in the prefix; what was not there before is noted, to be taken away again.
make_folder() {
    [ ! -d "$prefix/$1" ] || return 0
    if [ "$1" = . ]; then
        mkdir -p "$prefix"
    else
        make_folder "$(dirname "$1")"
        mkdir "$prefix/$1"
    fi
    made="$made$1/
"
}

# put MODE PATH: standard input becomes a file in the prefix, whole or not at all.
put() {
    make_folder "$(dirname "$2")"
    cat >"$prefix/$2.new"
    chmod "$1" "$prefix/$2.new"
    mv -f "$prefix/$2.new" "$prefix/$2"
    files="$files$2
"
}

put_program() {
    put 755 bin/brooklet <"$here/brooklet"
    for page in "$here"/man/man1/*.1; do
        put 644 "share/man/man1/${page##*/}" <"$page"
    done
    put 644 share/bash-completion/completions/brooklet <"$here/completions/brooklet.bash"
    put 644 share/zsh/site-functions/_brooklet <"$here/completions/brooklet.zsh"
    put 644 share/fish/vendor_completions.d/brooklet.fish <"$here/completions/brooklet.fish"
    for text in LICENSE-MIT LICENSE-APACHE README.md INSTALL.md CHANGELOG.md; do
        put 644 "share/doc/brooklet/$text" <"$here/$text"
    done
    put 755 share/brooklet/install.sh <"$here/install.sh"
}

put_service() {
    case $prefix in *[!A-Za-z0-9_./-]*) die "a service cannot lie in \"$prefix\": letters, digits and ._- only" ;; esac
    put 644 $units/brooklet.service <<END
$(sed "s|^ExecStart=/usr/local/|ExecStart=$prefix/|" "$here/service/brooklet.service")
END
    put 644 $units/brooklet.socket <"$here/service/brooklet.socket"
    if [ -n "$ram" ]; then
        put 644 $budget <<END
# Written by install.sh --ram: the arena; and with it 16 MiB for the program and $weights bytes of weights.
[Service]
Environment=BROOKLET_RAM=$ram
MemoryMax=$((ram + 16 * mib + weights))
END
    elif [ -f "$prefix/$budget" ]; then
        files="$files$budget
"
    fi
}

stop_service() {
    if is_live && [ -f "$prefix/$units/brooklet.service" ]; then
        systemctl disable --quiet --now brooklet.service brooklet.socket || die "systemd could not stop the service"
    fi
}

# Takes away the files that the list names and standard input, a newer list, does not.
remove_files() {
    kept=$(cat)
    while IFS= read -r path; do
        case $path in
        */) ;;
        *) printf '%s\n' "$kept" | grep -qxF -e "$path" || rm -f "$prefix/$path" ;;
        esac
    done <"$prefix/$list"
}

install() {
    check_permission
    check_archive
    files="" made=""
    [ ! -f "$prefix/$list" ] || made=$(grep '/$' "$prefix/$list" || true; echo .)
    made=${made%.}
    put_program
    if [ "$service" = yes ]; then put_service; else stop_service; fi
    [ ! -f "$prefix/$list" ] || printf %s "$files" | remove_files
    put 644 $list <<END
$(printf '%s%s' "$made" "$files")
END
    ! is_live || systemctl daemon-reload
    tell
}

tell() {
    echo "$version is installed in $prefix; \`brooklet run\` streams stories at once, \`brooklet chat\` talks"
    case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) echo "note: $prefix/bin is not among the folders of PATH" ;;
    esac
    [ "$service" = yes ] && is_live || return 0
    if systemctl is-active --quiet brooklet; then
        echo "the service still runs as before: systemctl restart brooklet"
    else
        echo "the service needs its model, then it can start:"
        echo "    BROOKLET_MODELS=/var/lib/brooklet brooklet pull smollm2-135m && systemctl enable --now brooklet"
    fi
    grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
        echo "warning: this kernel counts no memory, so MemoryMax binds nothing: see INSTALL.md, \"The bound\""
}

uninstall() {
    if [ ! -f "$prefix/$list" ]; then
        echo "install.sh: nothing is installed in $prefix"
        return
    fi
    check_permission
    stop_service
    remove_files </dev/null
    folders=$(grep '/$' "$prefix/$list" | sort -r)
    rm "$prefix/$list"
    printf '%s\n' "$folders" | while IFS= read -r folder; do
        # Others may have put something there.
        [ -z "$folder" ] || rmdir "$prefix/${folder#./}" 2>/dev/null || true
    done
    ! is_live || systemctl daemon-reload
    echo "brooklet is gone from $prefix; models that were pulled are left"
}

here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local} action=install service="" ram="" weights=$((96 * mib))
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --ram | --weights) [ $# -gt 1 ] || die "$1 needs a value" ;;
    esac
    case $1 in
    --prefix) prefix=$2 ;;
    --ram) ram=$(bytes "$@") || exit ;;
    --weights) weights=$(bytes "$@") || exit ;;
    --service) service=yes ;;
    --no-service) service=no ;;
    --uninstall) action=uninstall ;;
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
        exit
        ;;
    *) die "there is no option $1: see --help" ;;
    esac
    case $1 in
    --prefix | --ram | --weights) shift ;;
    esac
    shift
done
case $prefix in
/*) prefix=${prefix%/} ;;
*) die "--prefix is a folder from the root on, not \"$prefix\"" ;;
esac
[ -n "$service" ] || if is_live; then service=yes; else service=no; fi
$action
