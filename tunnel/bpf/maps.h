/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Maps, and which peer an inner address belongs to.
 *
 * flannel's subnets all have one length, so a hash finds them in the same time however many there
 * are. A trie walks bits and grows slower; it is asked only while some subnet has another length. */
#ifndef WEFT_MAPS_H
#define WEFT_MAPS_H

#include "overlay.h"
#include <bpf/bpf_helpers.h>

#define FAMILY_V4 4
#define FAMILY_V6 6

/* In a section of its own, so that the map holds nothing else: the next process reads it. */
const volatile struct config config SEC(".rodata.config") = {};
volatile struct lookup lookup = {};

/* max_entries of all but the counters is set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, __u32);
} subnets_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct subnet_v6);
	__type(value, __u32);
} subnets_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct trie_key);
	__type(value, __u32);
} subnets_odd SEC(".maps");

/* Underlay address to index in peers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, __u32);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct carried);
} carried SEC(".maps");

static __always_inline struct counters *count(void)
{
	__u32 zero = 0;

	/* So that the map belongs to the programs and is found through them; costs one instruction. */
	asm volatile("" : : "r"(&carried));
	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct peer *peer_at(const __u32 *index)
{
	struct peer *peer;

	if (!index)
		return 0;
	peer = bpf_map_lookup_elem(&peers, index);
	return peer && peer->address ? peer : 0;
}

static __always_inline struct peer *peer_of_v4(__be32 ip)
{
	__be32 net = ip & lookup.mask_v4;
	__u32 *index = bpf_map_lookup_elem(&subnets_v4, &net);

	if (!index && lookup.odd) {
		struct trie_key key = {.bits = 32 + 32, .family = FAMILY_V4};

		__builtin_memcpy(key.address, &ip, sizeof(ip));
		index = bpf_map_lookup_elem(&subnets_odd, &key);
	}
	return peer_at(index);
}

static __always_inline struct peer *peer_of_v6(const __u64 half[2])
{
	struct subnet_v6 net = {{half[0] & lookup.mask_v6[0], half[1] & lookup.mask_v6[1]}};
	__u32 *index = bpf_map_lookup_elem(&subnets_v6, &net);

	if (!index && lookup.odd) {
		struct trie_key key = {.bits = 32 + 128, .family = FAMILY_V6};

		__builtin_memcpy(key.address, half, sizeof(key.address));
		index = bpf_map_lookup_elem(&subnets_odd, &key);
	}
	return peer_at(index);
}

/* How many packets a large one becomes on the wire. */
static __always_inline __u32 segments(struct __sk_buff *skb, __u32 headers)
{
	__u32 size = skb->gso_size, segs = skb->gso_segs;

	if (!size)
		return 1;
	if (segs)
		return segs;
	return skb->len > headers ? (skb->len - headers + size - 1) / size : 1;
}

#endif
