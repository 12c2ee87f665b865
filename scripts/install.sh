#!/usr/bin/env bash
# usage: sudo scripts/install.sh [--prefix DIR] [--uninstall]
# Installs the CNI plugins to /opt/cni/bin, the daemons flanneld-rs, weft-proxy, weft-dns and weft (API
# server, server, node, client) to /usr/local/bin, their systemd units (not started) and a sample conflist
# to /usr/local/share/weft; --uninstall removes them and puts back plugins of the same name that were
# there before. With --prefix everything goes below DIR.
set -euo pipefail

usage() { sed -n '2,6s/^# //p' "$0"; }
prefix='' uninstall=''
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage && exit ;;
        --prefix) prefix=${2:?--prefix wants a folder} && shift ;;
        --prefix=*) prefix=${1#*=} ;;
        --uninstall) uninstall=yes ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
plugins="$prefix/opt/cni/bin" bin="$prefix/usr/local/bin" share="$prefix/usr/local/share/weft"
units="$prefix/etc/systemd/system"
saved="$share/plugins-before"
daemons=(flanneld-rs weft-proxy weft-dns weft)
units_of=(flanneld-rs.service weft-proxy.service weft-dns.service weft-dns.socket weft.service weft-server.service weft-node.service)

reload_units() {
    if [ -z "$prefix" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
}

if [ -n "$uninstall" ]; then
    if [ -z "$prefix" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now "${units_of[@]}" 2>/dev/null || true
    fi
    # Only what is ours: the links to weft-cni.
    if [ -e "$plugins/weft-cni" ]; then
        find "$plugins" -maxdepth 1 -samefile "$plugins/weft-cni" ! -name weft-cni -delete
        rm -f "$plugins/weft-cni"
    fi
    [ ! -d "$saved" ] || find "$saved" -type f -exec mv -n -t "$plugins" {} +
    rm -rf "$share"
    for daemon in "${daemons[@]}"; do rm -f "$bin/$daemon"; done
    for unit in "${units_of[@]}"; do rm -f "$units/$unit"; done
    reload_units
    echo "removed. What the daemons made in the kernel goes with 'flanneld-rs cleanup', 'weft-proxy cleanup' and 'weft-dns --cleanup --local-address=…', run before this; the API server's data and keys stay in /var/lib/weft."
    exit
fi

# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"
need_rust
build_release flanneld-rs/flanneld-rs proxy/weft-proxy dns/weft-dns weft/weft
built="$(target_folder)/release"
install -d "$plugins" "$bin" "$units" "$share"
# Another vendor's plugin under one of our names is kept, once, for --uninstall.
for name in $("$built/weft-cni" list); do
    if [ -f "$plugins/$name" ] && ! [ "$plugins/$name" -ef "$plugins/weft-cni" ]; then
        install -d "$saved"
        mv -n "$plugins/$name" "$saved/"
    fi
done
"$built/weft-cni" install "$plugins"
for daemon in "${daemons[@]}"; do
    install -m 755 "$built/$daemon" "$bin/$daemon"
done
for unit in "${units_of[@]}"; do
    install -m 644 "$REPOSITORY/scripts/install/$unit" "$units/"
done
install -m 644 "$REPOSITORY/scripts/install/10-flannel.conflist" "$REPOSITORY/README.md" "$share/"
reload_units
cat <<END
installed the daemons to $bin, their units to $units.
next:  put FLANNELD_ETCD_ENDPOINTS=… into /etc/default/flanneld-rs
       write the network: etcdctl put /coreos.com/network/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
       cp $share/10-flannel.conflist /etc/cni/net.d/
       systemctl enable --now flanneld-rs
and for Services, in place of kube-proxy (remove what it left: weft-proxy cleanup --kube-proxy):
       put WEFT_PROXY_FLAGS=… into /etc/default/weft-proxy, at the least --kubeconfig=FILE, or
       --source=dir:/etc/weft/services where there is no API server
       systemctl enable --now weft-proxy
and for names of Services, in place of CoreDNS:
       put WEFT_DNS_FLAGS=… into /etc/default/weft-dns: --kubeconfig=FILE, and --local-address=169.254.20.10,
       which is then the kubelet's clusterDNS; systemctl enable --now weft-dns
and for an API server on this machine (flags: WEFT_APISERVER_FLAGS=… in /etc/default/weft):
       systemctl enable --now weft
       weft get all -A
or for a whole cluster: weft-server on one host (WEFT_SERVER_FLAGS in /etc/default/weft-server), weft-node on
each (WEFT_NODE_FLAGS in /etc/default/weft-node); on this machine alone, to try: weft up
END
