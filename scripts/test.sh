#!/usr/bin/env bash
# usage: [sudo] scripts/test.sh [FILTER]
# Runs all unit and integration tests, or those whose name contains FILTER. Those on real network
# namespaces need root; without it they are skipped, and every skip is named at the end.
# With WEFT_REQUIRE_ROOT=1 a skip for lack of root is a failure.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,5s/^# //p' "$0" && exit ;; esac
# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"

need ip=iproute2 ping=iputils-ping ss=iproute2 etcd=etcd-server etcdctl=etcd-client \
    tcpdump=tcpdump iptables=iptables nft=nftables conntrack=conntrack setpriv=util-linux \
    containerd=containerd runc=runc podman=podman busybox=busybox-static
need iptables-legacy=iptables ip6tables-legacy=iptables iptables-nft=iptables
need ethtool=ethtool bpftool=bpftool tc=iproute2 iperf3=iperf3
need openssl=openssl /bin/kill=procps /usr/lib/cni/bridge=containernetworking-plugins
need containerd=containerd ctr=containerd runc=runc podman=podman busybox=busybox-static
need kubectl=kubernetes-client curl=curl mount=mount dig=bind9-dnsutils
need_rust

echo "building"
# In one go, so that what they share is built once. One line a test program: the folder of its crate, and the program.
programs=$(as_builder cargo build --quiet --workspace --bins --tests --message-format=json |
    sed -nE 's|.*"manifest_path":"([^"]*)/Cargo.toml".*"profile":\{[^}]*"test":true\}.*"executable":"([^"]+)".*|\1 \2|p')
if [ -z "$programs" ]; then
    echo "cargo named no test programs" >&2
    exit 1
fi

export RUST_LIB_BACKTRACE=0
results=$(mktemp -d)
failed=()
trap '"$(target_folder)/debug/testbed" sweep; rm -rf "$results"' EXIT
# Tests wait more than they compute, so as many programs as there are cores run at a time. The output of
# each comes whole, when it ends. One that fails runs once more, alone: what the load of others did is told
# apart from what is broken, and is told too.
export results filter=${1:-}
one() {
    local folder=$1 program=$2 how=$3 began=$SECONDS verdict=ok
    local log=$results/${program##*/}.$how.log
    # A crate's tests find their files relative to the crate, as under cargo.
    (cd "$folder" && "$program" ${filter:+"$filter"}) >"$log" 2>&1 </dev/null || verdict=FAILED
    [ "$verdict" = ok ] || echo "$folder $program" >>"$results/$how"
    (
        flock 9
        echo "== $(basename "$folder"): $(basename "${program%-*}"), $((SECONDS - began)) s"
        cat "$log"
    ) 9>"$results/turn"
}
export -f one
# shellcheck disable=SC2016 # the inner bash expands it
xargs -P "$(nproc)" -L 1 bash -c 'one "$1" "$2" beside' one <<<"$programs"
if [ -e "$results/beside" ]; then
    while read -r folder program; do
        rm -f "$results/${program##*/}.beside.log"
        one "$folder" "$program" alone
    done <"$results/beside"
fi
if [ -e "$results/alone" ]; then mapfile -t failed <"$results/alone"; fi
echo "== examples in the documentation"
as_builder cargo test --quiet --workspace --doc || failed+=("documentation")

echo
passed=$(cat "$results"/*.log | grep -c ' \.\.\. ok$' || true)
echo "passed: $passed"
skipped=$(cat "$results"/*.log | grep -oE 'SKIPPED:? .*' | sort -u || true)
if [ -n "$skipped" ]; then
    echo "skipped: $(wc -l <<<"$skipped")"
    echo "$skipped"
fi
if [ -e "$results/beside" ]; then
    echo "failed beside others: $(sed 's|.*/||' "$results/beside" | tr '\n' ' ')"
fi
if [ ${#failed[@]} -gt 0 ]; then
    cat "$results"/*.log | grep -E '^test .* \.\.\. FAILED$' || true
    echo "FAILED: ${failed[*]##*/}"
    exit 1
fi
