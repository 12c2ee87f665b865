/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading inner packets. */
#ifndef WEFT_INNER_H
#define WEFT_INNER_H

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

#include "maps.h"

/* What egress and ingress want to know of an inner packet. */
struct inner {
	struct peer *peer;
	__u32 length;		/* by its own header */
	__u32 headers;		/* of IP, without extensions of IPv6 */
	__u8 tos;
	__u8 protocol;
	__u8 version;
};

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Fewer bytes than that can be read in place (yet). */
static __always_inline int too_short(struct __sk_buff *skb, __u32 length)
{
	return (void *)(long)skb->data + length > (void *)(long)skb->data_end;
}

/* Reads the inner header at `offset`; the peer is of its source or destination. 0: well-formed. */
static __always_inline int parse(struct __sk_buff *skb, __u32 offset, int by_source, struct inner *inner)
{
	void *start, *end;
	struct iphdr *ip;

	/* The kernel's own packets have their headers at hand; others may need a pull, which fails for
	 * what is too short. */
	if (too_short(skb, offset + sizeof(*ip)) && bpf_skb_pull_data(skb, offset + sizeof(*ip)))
		return -1;
	start = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = start + offset;
	if ((void *)(ip + 1) > end)
		return -1;
	if (ip->version == 4) {
		inner->version = 4;
		inner->length = bpf_ntohs(ip->tot_len);
		inner->headers = ip->ihl * 4;
		inner->tos = ip->tos;
		inner->protocol = ip->protocol;
		if (inner->headers < sizeof(*ip) || inner->length < inner->headers)
			return -1;
		inner->peer = peer_of_v4(by_source ? ip->saddr : ip->daddr);
		return 0;
	}
	if (ip->version == 6) {
		struct ipv6hdr *ip6;
		__u64 half[2];

		if (too_short(skb, offset + sizeof(*ip6)) && bpf_skb_pull_data(skb, offset + sizeof(*ip6)))
			return -1;
		start = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip6 = start + offset;
		if ((void *)(ip6 + 1) > end)
			return -1;
		inner->version = 6;
		inner->length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		inner->headers = sizeof(*ip6);
		inner->tos = ip6->priority << 4 | ip6->flow_lbl[0] >> 4;
		inner->protocol = ip6->nexthdr;
		__builtin_memcpy(half, by_source ? &ip6->saddr : &ip6->daddr, sizeof(half));
		inner->peer = peer_of_v6(half);
		return 0;
	}
	return -1;
}

/* Bytes of the largest packet that a large one becomes; 0: cannot tell. */
static __always_inline __u32 largest(struct __sk_buff *skb, const struct inner *inner)
{
	__u8 offset_byte;

	if (!skb->gso_size)
		return inner->length;
	/* The kernel cuts UDP inside UDP wrongly after a program took the outer header off. */
	if (inner->protocol != IPPROTO_TCP)
		return 0;
	if (bpf_skb_load_bytes(skb, config.link_header + inner->headers + 12, &offset_byte, 1))
		return 0;
	return inner->headers + (offset_byte >> 4) * 4 + skb->gso_size;
}

#endif
