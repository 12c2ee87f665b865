#!/usr/bin/env bash
# usage: sudo scripts/demo.sh [--nodes N] [--backend vxlan|udp|host-gw] [--keep]
# A cluster of N (3) nodes in network namespaces of this machine: flanneld-rs over a real etcd, two
# Pods a node, weft-proxy with a Service before them, and the proof that all reach each other. Cleans
# up; --keep waits for Ctrl-C first.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,5s/^# //p' "$0" && exit ;; esac
# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"

if [ "$(id -u)" != 0 ]; then
    echo "the demo makes network namespaces and needs root: sudo scripts/demo.sh" >&2
    exit 1
fi
need ip=iproute2 ping=iputils-ping etcd=etcd-server etcdctl=etcd-client tcpdump=tcpdump \
    iptables=iptables nft=nftables
need_rust
echo "building"
as_builder cargo build --quiet --workspace --bins
exec "$(target_folder)/debug/demo" "$@"
