/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The overlay without leaving the kernel: an IP packet inside a UDP datagram, flannel's udp format.
 *
 * weft_egress runs on the TUN device: what routes send there gets an outer header and leaves by the
 * underlay. weft_ingress runs on the underlay: it takes the header off and hands the packet to the
 * TUN device. Whatever they do not handle they leave alone (TC_ACT_UNSPEC, so that programs of others
 * run too): then it goes on into the TUN or up to the socket, to the user-space path.
 *
 * Invariant: a packet is checked wholly before its first byte is changed.
 *
 * No tunnel mark. BPF_F_ADJ_ROOM_ENCAP_* marks a packet as one inside another, so that whoever has to
 * cut a large (GSO) one, a network card at last, does it right. Between namespaces of one kernel nobody
 * cuts it, the mark arrives with the packet, and no program can take it off again (Linux 6.18); a
 * bridge behind it, having no features for marked packets, then cuts it in software. So on virtual links
 * the mark is left out towards peers of which it is known that large packets reach them whole, up to the
 * length that has: something on the way (a shaper) may cut from some length on, and what it cuts without
 * the mark is lost. Who has got such a packet says so by the identification of its own outer headers (free
 * for any use where DF is set, RFC 6864): this kernel's cookie, and that length. Both facts expire. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "inner.h"
#include "maps.h"

#define AF_INET 2
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4
/* Linux 6.3; older headers lack it. */
#define DECAP_L3_IPV6 (1ULL << 8)
#define DF 0x4000
#define MORE_OR_OFFSET 0x3fff
#define OUTER (sizeof(struct iphdr) + sizeof(struct udphdr))
/* Below this no path is believed to be (RFC 791 wants 576 reassembled by everybody). */
#define MTU_FLOOR 576
/* How long a next hop is believed. Each time it is asked for anew, one packet takes the kernel's own way,
 * which keeps the neighbour entry alive and confirmed. */
#define NEXT_FOR_NS 1000000000ULL
#define WHOLE_FOR_NS 10000000000ULL
/* A length of up to 65,535 bytes in one byte. */
#define LENGTH_UNIT 257
#define RAISE_AFTER_NS (600ULL * 1000000000)
#define ECN 3
#define CE 3
/* ENOTSUPP of the kernel, in no header for programs. */
#define NOT_SUPPORTED 524

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

static __always_inline __u32 path_mtu(struct peer *peer)
{
	__u32 mtu = peer->mtu;

	if (!mtu || mtu >= config.underlay_mtu)
		return config.underlay_mtu;
	if (bpf_ktime_get_ns() - peer->lowered_at > RAISE_AFTER_NS) {
		peer->mtu = 0;
		return config.underlay_mtu;
	}
	return mtu;
}

static __always_inline void outer_header(struct outer *outer, const struct peer *peer, __u32 length, __u8 tos,
					 __u32 hash, __u16 id)
{
	__u32 sum;

	__builtin_memset(outer, 0, sizeof(*outer));
	outer->eth.h_proto = bpf_htons(ETH_P_IP);
	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = tos;
	outer->ip.tot_len = bpf_htons(length + OUTER);
	outer->ip.id = id;
	outer->ip.frag_off = bpf_htons(DF);
	outer->ip.ttl = 64;
	outer->ip.protocol = IPPROTO_UDP;
	outer->ip.saddr = config.local;
	outer->ip.daddr = peer->address;
	sum = bpf_htons(0x4500 | tos) + (__u32)outer->ip.tot_len + bpf_htons(DF) + bpf_htons(64 << 8 | IPPROTO_UDP);
	sum += id;
	sum += (outer->ip.saddr & 0xffff) + (outer->ip.saddr >> 16);
	sum += (outer->ip.daddr & 0xffff) + (outer->ip.daddr >> 16);
	outer->ip.check = ~fold(sum);
	/* 32768..60999, as the kernel's own choice: spreads flows over queues and paths. */
	outer->udp.source = bpf_htons(32768 + (__u32)((__u64)hash * 28232 >> 32));
	outer->udp.dest = peer->port;
	outer->udp.len = bpf_htons(length + sizeof(struct udphdr));
	/* Checksum 0: none, RFC 768. */
}

/* Whether the peer is reached by the underlay: else the kernel must send, from the socket. What its tables
 * say of the next hop is used for a second (where the node forwards packets; else bpf_fib_lookup refuses,
 * and the underlay it is). Asked as if for a packet that came in: asked as for one of our own, the answer
 * could be no other link than the one named. Ports are left out: of several ways one is taken. */
static __always_inline int is_by_underlay(struct __sk_buff *skb, struct peer *peer, __u64 now)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .l4_protocol = IPPROTO_UDP};
	__u64 next = 0, own = 0;

	fib.ifindex = config.underlay;
	fib.ipv4_src = config.local;
	fib.ipv4_dst = peer->address;
	switch (bpf_fib_lookup(skb, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return 1;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return fib.ifindex == config.underlay;
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	default:
		return 0;
	}
	if (fib.ifindex != config.underlay)
		return 0;
	__builtin_memcpy(&next, fib.dmac, ETH_ALEN);
	__builtin_memcpy(&own, fib.smac, ETH_ALEN);
	peer->next = next;
	peer->own = own;
	peer->next_until = now + NEXT_FOR_NS;
	return 1;
}

static __always_inline int pass_out(struct counters *counters, __u32 packets)
{
	if (counters)
		counters->passed_out += packets;
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int weft_egress(struct __sk_buff *skb)
{
	const __u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO;
	struct counters *counters = count();
	struct inner inner = {};
	struct outer outer;
	__u32 length = skb->len - config.link_header, packets, size;
	struct peer *peer;
	__u64 now, next, own;
	int fresh, unmarked, failed;
	__u16 id;

	if (parse(skb, config.link_header, 0, &inner) || inner.length != length)
		return pass_out(counters, 1);
	packets = segments(skb, config.link_header + inner.headers + sizeof(struct tcphdr));
	peer = inner.peer;
	if (!peer || !(peer->flags & PEER_FINISHES_CHECKSUMS))
		return pass_out(counters, packets);
	size = largest(skb, &inner);
	if (!size || size + OUTER > path_mtu(peer) || length + OUTER > 0xffff)
		return pass_out(counters, packets);

	now = bpf_ktime_get_coarse_ns();
	fresh = now < peer->next_until;
	if (!fresh && !is_by_underlay(skb, peer, now))
		return pass_out(counters, packets);
	id = config.cookie && now < peer->whole_until ? config.cookie | peer->whole << 8 : 0;
	outer_header(&outer, peer, length, inner.tos, bpf_get_hash_recalc(skb), id);
	if (fresh) {
		next = peer->next;
		own = peer->own;
		__builtin_memcpy(outer.eth.h_dest, &next, ETH_ALEN);
		__builtin_memcpy(outer.eth.h_source, &own, ETH_ALEN);
	}
	/* Without the mark the network header stays the inner one: only for a frame that is finished. */
	unmarked = fresh && config.cookie && !config.link_header && now < peer->unmarked_until &&
		   (!skb->gso_size || length / LENGTH_UNIT <= peer->unmarked);
	if (unmarked ? bpf_skb_change_head(skb, sizeof(outer), 0)
		     : bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, flags))
		return pass_out(counters, packets);
	failed = !unmarked && !config.link_header && bpf_skb_change_head(skb, sizeof(outer.eth), 0);
	if (failed || bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0)) {
		if (counters)
			counters->dropped[DROP_SEND_ERROR] += packets;
		return TC_ACT_SHOT;
	}
	if (counters) {
		counters->sent_packets += packets;
		counters->sent_bytes += length;
	}
	/* The kernel's neighbour layer finds the next hop at the cost of a lookup, and waits for it if need be.
	 * It gets one packet a second: that keeps the neighbour entry alive and confirmed. (Naming the next hop
	 * to it would do as well, but then packets that wait for the neighbour go astray: they still have the
	 * route into the TUN device.) */
	return fresh ? bpf_redirect(config.underlay, 0) : bpf_redirect_neigh(config.underlay, 0, 0, 0);
}

/* ICMP "fragmentation needed" about a datagram of ours: RFC 1191. Whoever forges it could as well forge
 * it for the kernel's own sockets; the floor bounds the harm. */
static __always_inline void learn_mtu(struct __sk_buff *skb)
{
	struct {
		__u8 type, code;
		__be16 checksum, unused, mtu;
		struct iphdr ip;
		struct udphdr udp;
	} quote;
	struct peer *peer;
	__u32 mtu;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &quote, sizeof(quote)))
		return;
	if (quote.type != ICMP_DEST_UNREACH || quote.code != ICMP_FRAG_NEEDED)
		return;
	if (quote.ip.version != 4 || quote.ip.ihl != 5 || quote.ip.protocol != IPPROTO_UDP)
		return;
	if (quote.ip.saddr != config.local)
		return;
	peer = peer_at(bpf_map_lookup_elem(&addresses, &quote.ip.daddr));
	if (!peer || quote.udp.dest != peer->port)
		return;
	mtu = bpf_ntohs(quote.mtu);
	if (!mtu)
		return;
	if (mtu < MTU_FLOOR)
		mtu = MTU_FLOOR;
	if (mtu < path_mtu(peer)) {
		peer->lowered_at = bpf_ktime_get_ns();
		peer->mtu = mtu;
	}
}

/* RFC 6040, section 4.2: the inner ECN field after decapsulation; -1: drop. */
static __always_inline int decapsulated_ecn(__u8 inner, __u8 outer)
{
	if (outer == CE)
		return inner ? CE : -1;
	if (inner == 2 && outer == 1)
		return 1;
	return inner;
}

/* Writes the ECN field of the inner header at `offset`. */
static __always_inline int set_ecn(struct __sk_buff *skb, __u32 offset, const struct inner *inner, __u8 ecn)
{
	__u8 tos = (inner->tos & ~ECN) | ecn;

	if (inner->version == 4) {
		__be16 from = bpf_htons(0x4000 | inner->headers << 6 | inner->tos);
		__be16 to = bpf_htons(0x4000 | inner->headers << 6 | tos);

		/* Neither touches the sum of the whole packet, if the card gave one: the two changes cancel there. */
		return bpf_l3_csum_replace(skb, offset + offsetof(struct iphdr, check), from, to, 2) ||
		       bpf_skb_store_bytes(skb, offset + offsetof(struct iphdr, tos), &tos, 1, 0);
	} else {
		__u8 second;

		if (bpf_skb_load_bytes(skb, offset + 1, &second, 1))
			return -1;
		second = (second & 0x0f) | tos << 4;
		return bpf_skb_store_bytes(skb, offset + 1, &second, 1, BPF_F_RECOMPUTE_CSUM);
	}
}

/* "No tunnel mark", above. Written rarely: other CPUs read the entry. */
static __always_inline void learn_whole(struct __sk_buff *skb, struct peer *peer, __u16 id, __u32 length)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 soon = now + WHOLE_FOR_NS / 2;
	__u16 units = length / LENGTH_UNIT;

	if (skb->gso_size && (units > peer->whole || now >= peer->whole_until ||
			      (units == peer->whole && peer->whole_until < soon))) {
		peer->whole = units;
		peer->whole_until = now + WHOLE_FOR_NS;
	}
	if ((id & 0xff) == config.cookie && (id >> 8 != peer->unmarked || peer->unmarked_until < soon)) {
		peer->unmarked = id >> 8;
		peer->unmarked_until = now + WHOLE_FOR_NS;
	}
}

static __always_inline int pass_in(struct counters *counters, __u32 packets)
{
	if (counters)
		counters->passed_in += packets;
	return TC_ACT_UNSPEC;
}

static __always_inline int drop_in(struct counters *counters, enum drop reason, __u32 packets)
{
	if (counters)
		counters->dropped[reason] += packets;
	return TC_ACT_SHOT;
}

/* Whether the outer checksum may be one that a virtual link left unfinished. With the outer header gone the
 * kernel would finish it inside the packet, unless it sees that the place is gone too: it looks while
 * bytes are taken away, and the place is the UDP header. So 8 bytes more than the outer headers are
 * taken, and put back (skb_postpull_rcsum() in include/linux/skbuff.h).
 *
 * Not so when the card has verified it, or has summed the whole packet: that sum is kept up to date. */
static __always_inline int maybe_unfinished(struct __sk_buff *skb)
{
	return bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) < 0 && bpf_csum_update(skb, 0) == -NOT_SUPPORTED;
}

SEC("classifier")
int weft_ingress(struct __sk_buff *skb)
{
	const __u32 offset = sizeof(struct outer);
	struct counters *counters;
	struct inner inner = {};
	struct outer *outer;
	void *end;
	__u32 packets, length, sum = 0;
	__be32 from;
	__u64 head = 0, flags;
	__u16 id;
	__u8 ecn;
	int after, unfinished;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (too_short(skb, sizeof(*outer)) && bpf_skb_pull_data(skb, sizeof(*outer)))
		return TC_ACT_UNSPEC;
	outer = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((void *)(outer + 1) > end)
		return TC_ACT_UNSPEC;
	if (outer->ip.version != 4 || outer->ip.ihl != 5 || outer->ip.daddr != config.local)
		return TC_ACT_UNSPEC;
	if (outer->ip.frag_off & bpf_htons(MORE_OR_OFFSET))
		return TC_ACT_UNSPEC;
	if (outer->ip.protocol == IPPROTO_ICMP) {
		learn_mtu(skb);
		return TC_ACT_UNSPEC;
	}
	if (outer->ip.protocol != IPPROTO_UDP || outer->udp.dest != config.port)
		return TC_ACT_UNSPEC;

	counters = count();
	from = outer->ip.saddr;
	id = outer->ip.id;
	ecn = outer->ip.tos & ECN;
	length = bpf_ntohs(outer->udp.len);
	/* What the kernel would verify on the way to a socket. */
	for (int word = 0; word < 10; word++)
		sum += ((__u16 *)((void *)outer + ETH_HLEN))[word];
	if (fold(sum) != 0xffff || length < sizeof(struct udphdr) ||
	    bpf_ntohs(outer->ip.tot_len) != length + sizeof(struct iphdr) ||
	    skb->len != length + sizeof(struct iphdr) + ETH_HLEN)
		return pass_in(counters, 1);
	unfinished = outer->udp.check && maybe_unfinished(skb);
	if (unfinished && skb->gso_size)
		return pass_in(counters, 1);
	length -= sizeof(struct udphdr);
	if (parse(skb, offset, 1, &inner) || inner.length != length)
		return pass_in(counters, 1);
	packets = segments(skb, offset + inner.headers + sizeof(struct tcphdr));
	/* Large, but not one large TCP packet: datagrams that the network card joined, or UDP inside. */
	if (skb->gso_size && inner.protocol != IPPROTO_TCP)
		return pass_in(counters, packets);
	if (!inner.peer || inner.peer->address != from) {
		int known = bpf_map_lookup_elem(&addresses, &from) != 0;

		return drop_in(counters, known ? DROP_FOREIGN_SOURCE : DROP_UNKNOWN_PEER, packets);
	}
	if (config.cookie)
		learn_whole(skb, inner.peer, id, length);
	after = decapsulated_ecn(inner.tos & ECN, ecn);
	if (after < 0)
		return drop_in(counters, DROP_CONGESTION_UNMARKABLE, packets);
	if (after != (inner.tos & ECN) && set_ecn(skb, offset, &inner, after))
		return drop_in(counters, DROP_DEVICE_ERROR, packets);
	/* The flag sets skb->protocol. Without it (before Linux 6.3) IPv6 is for the socket. */
	flags = BPF_F_ADJ_ROOM_FIXED_GSO | (inner.version == 6 ? DECAP_L3_IPV6 : 0);
	if (unfinished && bpf_skb_load_bytes(skb, offset, &head, sizeof(head)))
		return pass_in(counters, packets);
	if (bpf_skb_adjust_room(skb, -(__s32)(OUTER + (unfinished ? sizeof(head) : 0)), BPF_ADJ_ROOM_MAC, flags))
		return pass_in(counters, packets);
	if (unfinished && (bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
			   bpf_skb_store_bytes(skb, ETH_HLEN, &head, sizeof(head), 0)))
		return drop_in(counters, DROP_DEVICE_ERROR, packets);
	if (counters) {
		counters->received_packets += packets;
		counters->received_bytes += length;
	}
	return bpf_redirect(config.device, BPF_F_INGRESS);
}

/* The kernel lets only such programs use the helpers above. */
char _license[] SEC("license") = "GPL";
