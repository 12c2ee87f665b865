#!/usr/bin/env bash
# usage: sudo scripts/demo.sh [--nodes N] [--backend vxlan|udp|host-gw] [--store embedded|etcd] [--keep]
# A cluster of N (3) nodes in network namespaces of this machine by weft up, the examples/ in it by
# kubectl, and the proof: who reaches whom, a rollout under load, a node that fails. With --store etcd
# without the Pod layer: flanneld-rs over a real etcd, Pods by CNI, weft-proxy. Cleans up; --keep waits
# for Ctrl-C first.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,6s/^# //p' "$0" && exit ;; esac
# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"

if [ "$(id -u)" != 0 ]; then
    echo "the demo makes network namespaces and needs root: sudo scripts/demo.sh" >&2
    exit 1
fi
need ip=iproute2 ping=iputils-ping iptables=iptables nft=nftables
case " $* " in
    *" --store etcd "* | *" --store=etcd "*) need etcd=etcd-server etcdctl=etcd-client tcpdump=tcpdump ;;
    *) need kubectl=kubernetes-client busybox=busybox-static ;;
esac
need_rust
echo "building"
# After the tests (.ci/run) with their features, or all that is shared would be built again.
as_builder cargo build --quiet --workspace --bins ${WEFT_AFTER_TESTS:+--tests}
exec "$(target_folder)/debug/demo" "$@"
