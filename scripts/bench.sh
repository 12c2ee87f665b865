#!/usr/bin/env bash
# usage: sudo scripts/bench.sh [--strict] [--rounds N] [--quick] [cni|peers|overlay|proxy|api|cluster|dns]…
#        sudo scripts/bench.sh overlay [--quick] [--subject NAME[,NAME]…] [--peers 5000]
# Measures against the reference in the same run and says which promise of SPECIFICATION.md holds.
# Writes target/bench/*.json and *.svg. With --strict a missed promise is a failure.
# overlay: two nodes joined in every way; about 12 minutes, with --quick under two. FLANNELD=PATH (a Go
# flanneld) adds flannel's own udp and vxlan. --peers: lookups among so many subnets against 2.
# proxy: the Service proxy against bare loads of the classic rulesets; with --quick a fifth of it.
# api: the API server under load; KUBE_APISERVER=PATH runs the same on that, over an etcd, beside ours.
# cluster: weft up with three nodes, and Pods in it.
# dns: the cluster DNS on one core; COREDNS=PATH runs the same on that, beside ours.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,11s/^# //p' "$0" && exit ;; esac
# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"

if [ "$(id -u)" != 0 ]; then
    echo "the benchmarks make network namespaces and need root: sudo scripts/bench.sh" >&2
    exit 1
fi
need ip=iproute2 etcd=etcd-server etcdctl=etcd-client iptables=iptables nft=nftables \
    iperf3=iperf3 ping=iputils-ping unshare=util-linux conntrack=conntrack \
    iptables-legacy-restore=iptables curl=curl openssl=openssl
need /usr/lib/cni/bridge=containernetworking-plugins
need dnsperf=dnsperf taskset=util-linux
need_rust
build_release flanneld-rs/flanneld-rs proxy/weft-proxy dns/weft-dns weft/weft tests/bench
cd "$REPOSITORY"
as_builder mkdir -p "$(target_folder)/bench"
exec "$(target_folder)/release/bench" --folder "$(target_folder)/bench" "$@"
