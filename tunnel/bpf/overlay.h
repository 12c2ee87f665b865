/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the programs and src/ebpf/maps.rs must agree on: layouts of configuration, maps and counters. */
#ifndef WEFT_OVERLAY_H
#define WEFT_OVERLAY_H

#include <linux/bpf.h>
#include <linux/types.h>

/* Fixed at load. Addresses and ports are in network order. */
struct config {
	__be32 local;		/* our underlay address */
	__be16 port;		/* our UDP port */
	__u16 link_header;	/* bytes before the inner IP header on the device; 0 for a TUN */
	__u32 underlay;		/* interface index, where datagrams leave and arrive */
	__u32 device;		/* interface index of the TUN device */
	__u32 underlay_mtu;
	__u16 cookie;		/* 1..255, names this kernel, if the underlay is a virtual link; else 0 */
	__u16 unused;
};

/* Which lookups are worth it; changed by user space while the programs run. */
struct lookup {
	__be32 mask_v4;		/* of the subnets in subnets_v4 */
	__u32 odd;		/* some subnet has another length: ask the trie too */
	__u64 mask_v6[2];	/* as four_bytes in subnet_v6 */
};

struct subnet_v6 {
	__u64 half[2];
};

/* Families share the trie: the first four bytes tell which, so that ::/0 never finds IPv4. */
struct trie_key {
	__u32 bits;		/* of family and address */
	__u32 family;
	__u8 address[16];
};

#define PEER_FINISHES_CHECKSUMS 1

struct peer {
	__be32 address;		/* 0: none */
	__be16 port;
	__u16 flags;
	/* The rest is the programs' own. */
	__u32 mtu;		/* of outer packets; 0: the underlay's */
	/* "No tunnel mark", overlay.bpf.c: how long a packet came whole from there, and gets whole there. */
	__u16 whole, unmarked;
	__u64 lowered_at;	/* CLOCK_MONOTONIC, nanoseconds */
	/* The next hop's Ethernet address and our own there, as the first six bytes; good until then. */
	__u64 next_until;
	__u64 next;
	__u64 own;
	__u64 whole_until;
	__u64 unmarked_until;
};

/* In the order of DropReason. */
enum drop {
	DROP_UNKNOWN_PEER,
	DROP_FOREIGN_SOURCE,
	DROP_CONGESTION_UNMARKABLE,
	DROP_SEND_ERROR,
	DROP_DEVICE_ERROR,
	DROP_COUNT,
};

struct counters {
	__u64 sent_packets, sent_bytes;
	__u64 received_packets, received_bytes;
	__u64 passed_out;	/* left to the user path: into the TUN */
	__u64 passed_in;	/* left to the user path: to the socket */
	__u64 dropped[DROP_COUNT];
};

/* Only user space reads and writes it. */
struct carried {
	struct counters counters;	/* what earlier programs counted */
	__u64 clsact_made;		/* 1: on the device, 2: on the underlay */
};

#endif
