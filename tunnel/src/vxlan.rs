//! VXLAN (RFC 7348) as bytes: puts the header and an inner Ethernet header before an IP packet, and
//! takes them off again. Pure: slices in, slices out, no allocation.
//!
//! Theory. A kernel VXLAN device is a layer-2 device: it sends Ethernet frames, and its neighbours have
//! MACs. Ours is a TUN, layer 3. So the Ethernet header of what we send is made from the leases (each
//! node announces its VTEP's MAC), and the one of what we receive is only checked: a frame for our MAC
//! holds a packet for our host. Our own kernel never asks for a neighbour, because a TUN has none. But
//! a peer's kernel may (its permanent entry was deleted, or it verifies one): ARP requests and
//! neighbour solicitations for the address of our TUN are answered here ([`Question::answer`]), all
//! others ignored, and so is everything else that goes to a group: there is no flooding in flannel.
//!
//! ```text
//!  0       1       2       3       4       5       6       7
//! | flags |       reserved        |         VNI           | res.  |   flags: 0x08, the VNI is valid
//! | destination MAC (6) | source MAC (6) | ethertype (2) | IP packet …
//! ```
//!
//! On receive reserved bits and unknown flags are ignored, as RFC 7348 section 5 says. With group
//! policies (GBP) they carry a mark, for which a TUN has no place: the packet goes on without it.

mod arp;
mod neighbour;

use std::net::{Ipv4Addr, Ipv6Addr};

use kernel::Mac;

use crate::{DropReason, Own};

/// Bytes before the inner IP packet.
pub const HEADER: usize = VXLAN + ETHERNET;
/// The longest answer to a [`Question`]: a neighbour advertisement.
pub const ANSWER: usize = HEADER + neighbour::ADVERTISEMENT;

const VXLAN: usize = 8;
const ETHERNET: usize = 14;
/// Flag I: "the VNI is valid".
const VALID_VNI: u8 = 0x08;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Writes what goes before an IP packet: `vni` (24 bits), from station `from` to station `to`.
pub fn encode(headroom: &mut [u8; HEADER], vni: u32, from: Mac, to: Mac, v6: bool) {
    encode_for(headroom, vni, from, to, if v6 { IPV6 } else { IPV4 });
}

fn encode_for(headroom: &mut [u8; HEADER], vni: u32, from: Mac, to: Mac, ethertype: u16) {
    headroom[..4].copy_from_slice(&[VALID_VNI, 0, 0, 0]);
    headroom[4..8].copy_from_slice(&(vni << 8).to_be_bytes());
    headroom[8..14].copy_from_slice(&to.0);
    headroom[14..20].copy_from_slice(&from.0);
    headroom[20..].copy_from_slice(&ethertype.to_be_bytes());
}

/// What a datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner<'a> {
    /// An IP packet for this host. Its version nibble is that of the frame; nothing else was looked at,
    /// and there may be padding behind it.
    Packet(&'a [u8]),
    /// A peer asks for our MAC.
    Question(Question),
}

/// Takes a received datagram (UDP payload) apart.
///
/// # Errors
/// Why it is not for us: [`DropReason::Malformed`] (too short, no valid VNI, not what the ethertype says),
/// [`DropReason::NotForUs`] (another VNI, or another station's frame), [`DropReason::Unsupported`]
/// (broadcast and multicast, a VLAN tag inside, other ethertypes, questions about others).
pub fn decode<'a>(datagram: &'a [u8], vni: u32, own: &Own) -> Result<Inner<'a>, DropReason> {
    let (header, frame) = datagram
        .split_first_chunk::<VXLAN>()
        .ok_or(DropReason::Malformed)?;
    if header[0] & VALID_VNI == 0 {
        return Err(DropReason::Malformed);
    }
    if header[4..7] != vni.to_be_bytes()[1..] {
        return Err(DropReason::NotForUs);
    }
    let (ethernet, payload) = frame
        .split_first_chunk::<ETHERNET>()
        .ok_or(DropReason::Malformed)?;
    let [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, e0, e1] = *ethernet;
    let (to, from) = (Mac([t0, t1, t2, t3, t4, t5]), Mac([f0, f1, f2, f3, f4, f5]));
    let ours = own.mac.ok_or(DropReason::NotForUs)?;
    let is_ours = to == ours;
    if !is_ours && !is_group(to) {
        return Err(DropReason::NotForUs);
    }
    let version = match u16::from_be_bytes([e0, e1]) {
        IPV4 => 4,
        IPV6 => 6,
        ARP => {
            let (asker, asked) = arp::parse(payload)?;
            let about_us = own.v4.map(|net| net.network()) == Some(asked.asked);
            return question(vni, ours, asker, Subject::Arp(asked), about_us);
        }
        _ => return Err(DropReason::Unsupported),
    };
    if payload.first().map(|byte| byte >> 4) != Some(version) {
        return Err(DropReason::Malformed);
    }
    if version == 6
        && let Some((asker, asked)) = neighbour::parse(payload, from)?
    {
        let about_us = own.v6.map(|net| net.network()) == Some(asked.asked);
        return question(vni, ours, asker, Subject::Neighbour(asked), about_us);
    }
    if is_ours {
        Ok(Inner::Packet(payload))
    } else {
        Err(DropReason::Unsupported)
    }
}

fn question<'a>(
    vni: u32,
    ours: Mac,
    asker: Mac,
    subject: Subject,
    about_us: bool,
) -> Result<Inner<'a>, DropReason> {
    if !about_us || is_group(asker) {
        return Err(DropReason::Unsupported);
    }
    Ok(Inner::Question(Question {
        vni,
        ours,
        asker,
        subject,
    }))
}

/// "Who has the address of your TUN?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    vni: u32,
    ours: Mac,
    asker: Mac,
    subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Arp(Asked<Ipv4Addr>),
    Neighbour(Asked<Ipv6Addr>),
}

/// Who asks for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked<Ip> {
    /// The asker's address; unspecified in a probe (is the address taken?).
    asker: Ip,
    /// The address whose MAC is wanted.
    asked: Ip,
}

impl Question {
    /// Writes the datagram that answers and returns its length; it goes to the node that asked, at the
    /// VXLAN port.
    pub fn answer(&self, out: &mut [u8; ANSWER]) -> usize {
        let (headroom, body) = out
            .split_first_chunk_mut::<HEADER>()
            .expect("an answer is longer than its header");
        match self.subject {
            Subject::Arp(asked) => {
                encode_for(headroom, self.vni, self.ours, self.asker, ARP);
                HEADER + arp::reply(body, asked, self.ours, self.asker)
            }
            Subject::Neighbour(asked) => {
                let (to, station) = neighbour::destination(asked, self.asker);
                encode_for(headroom, self.vni, self.ours, station, IPV6);
                HEADER + neighbour::advertise(body, asked, to, self.ours)
            }
        }
    }
}

fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 != 0
}

#[cfg(test)]
mod tests;
