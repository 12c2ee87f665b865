//! Programs on a link's clsact qdisc: RTM_{GET,DEL}TFILTER, RTM_DELQDISC. See tc-bpf(8).

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::{Netlink, Request};
use crate::{Error, Result};

/// Where a clsact qdisc holds filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
}

/// A filter, of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Lower ones run first.
    pub priority: u16,
    /// Unique within its priority.
    pub handle: u32,
    /// The name of its eBPF program, as whoever attached it wrote it.
    pub program: Option<String>,
    /// The id of its eBPF program.
    pub program_id: Option<u32>,
}

impl Netlink {
    /// The filters on a link's clsact qdisc; none if it has no such qdisc, or the kernel no filters at all
    /// (CONFIG_NET_CLS).
    pub fn filters(&mut self, dev: u32, direction: Direction) -> Result<Vec<Filter>> {
        let mut message = TcMessage::default();
        message.header.index = index(dev)?;
        // TC_H_MIN_INGRESS, TC_H_MIN_EGRESS, linux/pkt_sched.h.
        let minor = match direction {
            Direction::Ingress => 0xfff2,
            Direction::Egress => 0xfff3,
        };
        message.header.parent = TcHandle {
            major: 0xffff,
            minor,
        };
        let message = RouteNetlinkMessage::GetTrafficFilter(message);
        none_if_unknown(self.dump("filters", &message, |message| match message {
            RouteNetlinkMessage::NewTrafficFilter(filter) => parse(&filter),
            _ => None,
        }))
    }

    /// Removes a link's clsact qdisc with all that is attached to it.
    pub fn delete_clsact(&mut self, dev: u32) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = index(dev)?;
        // TC_H_CLSACT.
        message.header.parent = TcHandle {
            major: 0xffff,
            minor: 0xfff1,
        };
        let request = Request::plain(RouteNetlinkMessage::DelQueueDiscipline(message));
        let what = || format!("delete qdisc clsact of link {dev}");
        let answers = self
            .transact(std::iter::once(request))
            .map_err(|cause| Error::new(what(), cause))?;
        match answers.first().map(|answer| answer.code) {
            Some(0) | None => Ok(()),
            Some(code) => Err(Error::new(what(), std::io::Error::from_raw_os_error(code))),
        }
    }
}

/// A kernel that does not know the sort of thing has none of it.
fn none_if_unknown<T>(found: Result<Vec<T>>) -> Result<Vec<T>> {
    match found {
        Err(error) if error.is_not_supported() => Ok(Vec::new()),
        found => found,
    }
}

fn index(dev: u32) -> Result<i32> {
    i32::try_from(dev)
        .map_err(|_| Error::other(format!("name link {dev}"), "the index is too large"))
}

/// `None` for the message that only announces a priority.
fn parse(message: &TcMessage) -> Option<Filter> {
    let handle =
        u32::from(message.header.handle.major) << 16 | u32::from(message.header.handle.minor);
    if handle == 0 {
        return None;
    }
    let mut filter = Filter {
        // The lower half is the protocol.
        priority: (message.header.info >> 16) as u16,
        handle,
        program: None,
        program_id: None,
    };
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else {
            continue;
        };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                    filter.program = Some(name.clone());
                }
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program_id = Some(*id),
                _ => {}
            }
        }
    }
    Some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_filters_has_none() {
        let answer = |code| -> Result<Vec<Filter>> {
            let cause = std::io::Error::from_raw_os_error(code);
            none_if_unknown(Err(Error::new("list filters", cause)))
        };
        assert_eq!(answer(libc::EOPNOTSUPP).unwrap(), []);
        let refused = answer(libc::EPERM).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EPERM));
    }
}
