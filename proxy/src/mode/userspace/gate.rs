//! The program on a listening socket that ignores handshakes from where nobody may come.
//!
//! A TCP server cannot read who knocks before the kernel has answered; a socket filter can: it sees each
//! segment first, and what it refuses gets no answer at all, as a firewall would do it.
//! Reference: Documentation/networking/filter.rst (SKF_NET_OFF reaches the IP header).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::sys::Instruction;

/// BPF_MAXINSNS, linux/bpf_common.h.
pub(super) const LONGEST: usize = 4096;
/// SKF_NET_OFF, linux/filter.h: loads from here on are relative to the IP header.
const NET: u32 = -0x10_0000_i32 as u32;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A program that accepts a packet if its source is in one network of each group (`groups` all of one family).
/// `None` if it would be longer than [`LONGEST`].
pub(super) fn program(groups: &[Vec<IpNet>]) -> Option<Vec<Instruction>> {
    let mut program = Vec::new();
    for group in groups {
        let mut tests: Vec<Vec<Instruction>> = group.iter().map(test).collect();
        // A match jumps over the remaining tests and over the refusal at their end.
        let mut left = 1;
        for test in tests.iter_mut().rev() {
            test.push(plain(JUMP, left));
            left += test.len() as u32;
        }
        program.extend(tests.into_iter().flatten());
        program.push(plain(RETURN, 0));
        if program.len() >= LONGEST {
            return None;
        }
    }
    program.push(plain(RETURN, u32::MAX));
    Some(program)
}

/// Falls through at the end if the source is in the network (one instruction is to follow), else continues after
/// that instruction.
fn test(net: &IpNet) -> Vec<Instruction> {
    let (words, mask): (Vec<u32>, Vec<u32>) = match (net.network(), net.netmask()) {
        (IpAddr::V4(net), IpAddr::V4(mask)) => (vec![net.to_bits()], vec![mask.to_bits()]),
        (IpAddr::V6(net), IpAddr::V6(mask)) => (words(net.to_bits()), words(mask.to_bits())),
        // A network's mask is of its family.
        _ => (Vec::new(), Vec::new()),
    };
    let source = if net.addr().is_ipv4() { 12 } else { 8 };
    let tested = mask.iter().filter(|mask| **mask != 0).count();
    let mut test = Vec::new();
    for at in 0..tested {
        test.push(plain(LOAD_WORD, NET.wrapping_add(source + 4 * at as u32)));
        if mask[at] != u32::MAX {
            test.push(plain(AND, mask[at]));
        }
        // Filled in below: how far it is to the end.
        test.push(plain(JUMP_EQUAL, words[at]));
    }
    let length = test.len();
    for (at, instruction) in test.iter_mut().enumerate() {
        if instruction.code == JUMP_EQUAL {
            // At most 12 instructions in all.
            instruction.jf = (length - at) as u8;
        }
    }
    test
}

fn words(bits: u128) -> Vec<u32> {
    (0..4).map(|at| (bits >> (96 - 32 * at)) as u32).collect()
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The few operations that we use, done as the kernel would.
    fn accepts(program: &[Instruction], packet: &[u8]) -> bool {
        let (mut at, mut register) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD_WORD => {
                    let offset = k.wrapping_sub(NET) as usize;
                    register = u32::from_be_bytes(packet[offset..offset + 4].try_into().unwrap());
                }
                AND => register &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => at += usize::from(if register == k { jt } else { jf }),
                RETURN => return k != 0,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    fn packet(source: IpAddr) -> Vec<u8> {
        let mut packet = vec![0; 40];
        match source {
            IpAddr::V4(ip) => packet[12..16].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => packet[8..24].copy_from_slice(&ip.octets()),
        }
        packet
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|net| net.parse().unwrap())
            .collect()
    }

    #[test]
    fn a_source_must_be_in_each_group() {
        let program = program(&[
            nets("10.0.0.0/8 192.168.0.0/16"),
            nets("10.1.0.0/16 192.168.7.9/32"),
        ]);
        let program = program.unwrap();
        for (source, expected) in [
            ("10.1.2.3", true),
            ("10.2.2.3", false),
            ("192.168.7.9", true),
            ("192.168.7.8", false),
            ("172.16.0.1", false),
        ] {
            let packet = packet(source.parse().unwrap());
            assert_eq!(accepts(&program, &packet), expected, "{source}");
        }
        let none = super::program(&[Vec::new()]).unwrap();
        assert!(!accepts(&none, &packet("10.1.2.3".parse().unwrap())));
        let long = vec![nets("10.1.2.3/32"); 2000];
        assert_eq!(super::program(&long), None);
    }

    proptest! {
        #[test]
        fn it_decides_as_the_networks_do(
            v6 in any::<bool>(),
            groups in prop::collection::vec(prop::collection::vec((0_u128..16, 0_u8..=128), 0..4), 0..3),
            source in 0_u128..16,
        ) {
            // Addresses that differ in the first and the last bits only, so that they often match.
            let spread = |n: u128| (n >> 2) << 126 | (n >> 1 & 1) << 96 | (n & 1);
            let address = |n| -> IpAddr {
                if v6 {
                    std::net::Ipv6Addr::from_bits(spread(n)).into()
                } else {
                    std::net::Ipv4Addr::from_bits((n << 28) as u32 | (n & 3) as u32).into()
                }
            };
            let longest = if v6 { 128 } else { 32 };
            let groups: Vec<Vec<IpNet>> = groups
                .into_iter()
                .map(|group| {
                    let net = |(n, length): (u128, u8)| IpNet::new(address(n), length.min(longest)).unwrap();
                    group.into_iter().map(net).collect()
                })
                .collect();
            let source = address(source);
            let expected = groups.iter().all(|group| group.iter().any(|net| net.contains(&source)));
            let program = program(&groups).unwrap();
            prop_assert_eq!(accepts(&program, &packet(source)), expected);
        }
    }
}
