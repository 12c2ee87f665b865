#!/usr/bin/env bash
# usage: sudo scripts/test-vm.sh [FILTER]
# Runs the plugin tests whose name contains FILTER (vlan) in a small virtual machine with Debian's
# cloud kernel: for what the kernel of this machine lacks, as VLAN filtering on bridges.
# It takes about a minute, no /dev/kvm, and nothing of the machine but a temporary folder.
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,5s/^# //p' "$0" && exit ;; esac
# shellcheck source=scripts/deps.sh
. "$(dirname "$0")/deps.sh"

need qemu-system-x86_64=qemu-system-x86 cpio=cpio busybox=busybox-static ip=iproute2 \
    ping=iputils-ping nft=nftables iptables=iptables
need /usr/lib/cni/bridge=containernetworking-plugins
need_rust

as_builder cargo build --quiet -p plugins --bins
program=$(as_builder cargo test --quiet -p plugins --test attachments --no-run --message-format=json |
    sed -nE 's|.*"executable":"([^"]*/attachments-[^"]+)".*|\1|p')
plugins=$(target_folder)/debug/weft-cni

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root
mkdir -p "$root"/{bin,dev,proc,root,run,sys,tmp}

package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
(cd "$folder" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x "$package"_*.deb kernel)
version=${package#linux-image-}

# put FILE [TARGET]: the file, and the libraries it is linked with, at the same paths as here.
put() {
    local target=$root${2:-$1} library
    mkdir -p "$(dirname "$target")"
    cp -L "$1" "$target"
    # A static program has none.
    { ldd "$1" 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' || true; } | while read -r library; do
        [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
    done
}
put "$program" /root/attachments
put "$plugins"
for tool in ip bridge nft ping sysctl; do put "$(readlink -f "$(command -v "$tool")")" "/usr/bin/$tool"; done
for tool in iptables ip6tables; do
    for suffix in '' -save -restore; do put "$(readlink -f "$(command -v $tool)")" "/usr/bin/$tool$suffix"; done
done
for plugin in bridge host-local static ptp portmap; do put "/usr/lib/cni/$plugin"; done
strip "$root/root/attachments" "$root$plugins"
put "$(command -v busybox)" /bin/busybox
for applet in sh cat modprobe mount mkdir poweroff true; do ln -s /bin/busybox "$root/bin/$applet"; done

modules=$root/lib/modules/$version
mkdir -p "$modules/kernel/drivers/net"
cp -r "$folder/kernel/lib/modules/$version"/{modules.builtin,modules.order} "$modules"
cp -r "$folder/kernel/lib/modules/$version"/kernel/{net,lib,crypto} "$modules/kernel"
cp "$folder/kernel/lib/modules/$version"/kernel/drivers/net/veth.ko "$modules/kernel/drivers/net"
busybox depmod -b "$root" "$version"

cat >"$root/init" <<EOF
#!/bin/sh
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev && mount -t tmpfs run /run
export PATH=/usr/bin:/bin HOME=/root
for module in veth bridge 8021q nf_tables nft_chain_nat nft_masq nft_compat; do modprobe \$module; done
/root/attachments --test-threads 1 '${1:-vlan}' 2>&1 && echo VM-PASSED
poweroff -f
EOF
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$folder/initrd"

timeout 600 qemu-system-x86_64 -accel tcg -m 1500 -smp 2 -nographic -no-reboot \
    -kernel "$folder/kernel/boot/vmlinuz-$version" -initrd "$folder/initrd" \
    -append "console=ttyS0 quiet panic=-1 no_timer_check" </dev/null | tr -d '\r' >"$folder/log" || true
if ! grep -q VM-PASSED "$folder/log"; then
    sed -n '/^running/,$p' "$folder/log" | grep . >&2 || cat "$folder/log" >&2
    exit 1
fi
grep -E '^(test |SKIPPED)' "$folder/log"
