#!/usr/bin/env bash
# usage: . scripts/deps.sh   (the other scripts do): finds or installs what they need, and builds.
set -euo pipefail

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# need PROGRAM=PACKAGE…: installs the Debian packages of those programs (or files) that are missing.
need() {
    local pair missing=()
    for pair in "$@"; do
        [ -e "${pair%%=*}" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null ||
            missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing, and only root may install: ${missing[*]} (run this script with sudo)" >&2
        return 0
    fi
    echo "installing: ${missing[*]}" >&2
    install_packages "${missing[@]}"
}

install_packages() {
    # Some of these packages start a service when they are installed (etcd, containerd). We run our own,
    # in a namespace: forbid the start for this one installation, unless the machine has its own policy.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes
    fi
    local status=0
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } || status=$?
    [ -z "$made" ] || rm -f "$policy"
    return "$status"
}

# The person whose toolchain and target/ these are: with sudo, the one who typed it.
builder() {
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        echo "$SUDO_USER"
    else
        id -un
    fi
}

# as_builder COMMAND…: runs it as that person, with that person's toolchain in PATH.
as_builder() {
    local user home path
    user=$(builder)
    home=$(getent passwd "$user" | cut -d: -f6)
    # sudo drops the PATH that leads to cargo.
    path="$home/.cargo/bin:${CARGO_HOME:-$home/.cargo}/bin:/usr/local/cargo/bin:$PATH"
    if [ "$user" = "$(id -un)" ]; then
        (cd "$REPOSITORY" && PATH=$path "$@")
    else
        (cd "$REPOSITORY" && sudo -u "$user" -H env PATH="$path" ${CARGO_TARGET_DIR:+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} "$@")
    fi
}

# A Rust toolchain, a C linker, the protocol compiler that etcd-client's build calls, and what turns
# the eBPF programs into an object.
need_rust() {
    need cc=gcc protoc=protobuf-compiler \
        /usr/include/google/protobuf/descriptor.proto=libprotobuf-dev \
        clang=clang /usr/include/bpf/bpf_helpers.h=libbpf-dev
    if ! as_builder cargo --version >/dev/null 2>&1; then
        echo "no Rust toolchain for $(builder): install one as in https://rustup.rs, then run this again" >&2
        return 1
    fi
}

# build_release [PACKAGE/PROGRAM…]: those, and the plugins as one static file, which starts faster and
# runs on any distribution.
build_release() {
    local packages=("${@%/*}") names=("${@#*/}")
    as_builder cargo build --quiet --release "${packages[@]/#/--package=}" "${names[@]/#/--bin=}"
    as_builder cargo rustc --quiet --release --package=plugins --bin weft-cni -- \
        -C target-feature=+crt-static -C relocation-model=static
}

target_folder() { echo "${CARGO_TARGET_DIR:-$REPOSITORY/target}"; }

export PATH="$PATH:/usr/sbin:/sbin"
