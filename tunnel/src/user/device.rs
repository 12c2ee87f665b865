//! The TUN device: opened or taken over with its queues, persistent, offloads as far as the kernel takes them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
};

use kernel::{LinkKind, Netlink};

use super::{Error, Mode, notes::Notes};
use crate::{sys, vnet::VnetHeader};

/// What the reader of a TUN device can be given unfinished, best first.
const OFFLOADS: [(u32, &str); 4] = [
    (
        libc::TUN_F_CSUM
            | libc::TUN_F_TSO4
            | libc::TUN_F_TSO6
            | libc::TUN_F_TSO_ECN
            | libc::TUN_F_USO4
            | libc::TUN_F_USO6,
        "checksum, TCP and UDP segmentation",
    ),
    (
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
        "checksum and TCP segmentation",
    ),
    (
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
        "checksum and TCP segmentation without ECN",
    ),
    (libc::TUN_F_CSUM, "checksum"),
];

/// An open TUN device.
pub(super) struct Device {
    /// One file a queue, non-blocking.
    pub(super) queues: Vec<File>,
    /// Packets carry a virtio_net_hdr.
    pub(super) has_header: bool,
    /// UDP segmentation is taken, in both directions.
    pub(super) takes_uso: bool,
}

/// Opens the device with at most `queues` queues; makes it when it is not there.
///
/// A device that was made without IFF_MULTI_QUEUE (by a former version) is taken with one queue. One of which
/// anybody holds a queue already is refused (EBUSY): the kernel would share its packets between both.
pub(super) fn open(name: &str, mode: Mode, queues: usize, notes: &Notes) -> Result<Device, Error> {
    let has_header = mode == Mode::Offload;
    let single = libc::IFF_TUN | libc::IFF_NO_PI | if has_header { libc::IFF_VNET_HDR } else { 0 };
    let many = single | libc::IFF_MULTI_QUEUE;
    let refused = |cause| refusal(name, cause);

    if is_held(name)? {
        return Err(refused(io::Error::from_raw_os_error(libc::EBUSY)));
    }
    let mut files = Vec::with_capacity(queues);
    let mut wanted = queues;
    match queue(name, many) {
        Ok(file) => files.push(file),
        // Not a multi-queue device, or no TUN at all: the second try tells.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            files.push(queue(name, single).map_err(refused)?);
            wanted = 1;
            notes.note(format!(
                "TUN device {name} has a single queue: one worker (delete the device to have it made anew)"
            ));
        }
        Err(error) => return Err(refused(error)),
    }
    while files.len() < wanted {
        files.push(queue(name, many).map_err(refused)?);
    }

    let first = files[0].as_fd();
    let setting = |what: &'static str| {
        move |cause| Error::new(format!("{what} of TUN device {name}"), cause, "")
    };
    sys::set_persistent(first, true).map_err(setting("set persistence"))?;
    let mut takes_uso = false;
    if has_header {
        sys::set_vnet_header_length(first, VnetHeader::LEN as i32)
            .map_err(setting("set header length"))?;
        takes_uso = set_offloads(name, first, notes)?;
    } else {
        sys::set_offload(first, 0).map_err(setting("clear offloads"))?;
    }
    Ok(Device {
        queues: files,
        has_header,
        takes_uso,
    })
}

/// Some process holds a queue of the TUN device of this name: a device nobody holds has no carrier.
fn is_held(name: &str) -> Result<bool, Error> {
    let held = || -> Result<bool, kernel::Error> {
        let mut netlink = Netlink::open()?;
        match netlink.link(name)? {
            Some(link) if link.kind == LinkKind::Tun => netlink.has_carrier(link.index),
            _ => Ok(false),
        }
    };
    match held() {
        // No name of a link; TUNSETIFF says so, too, and gets the remedy.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ERANGE)) => Ok(false),
        Err(error) => Err(Error::new(
            format!("open TUN device {name}"),
            io::Error::other(error),
            "",
        )),
        Ok(held) => Ok(held),
    }
}

/// The best offloads that the kernel takes; answers whether UDP segmentation is among them.
fn set_offloads(
    name: &str,
    queue: std::os::fd::BorrowedFd<'_>,
    notes: &Notes,
) -> Result<bool, Error> {
    for (at, (flags, text)) in OFFLOADS.into_iter().enumerate() {
        match sys::set_offload(queue, flags) {
            Ok(()) => {
                if at > 0 {
                    notes.note(format!("TUN device {name} offers only {text} offload"));
                }
                return Ok(flags & libc::TUN_F_USO4 != 0);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => {
                return Err(Error::new(
                    format!("set offloads of TUN device {name}"),
                    error,
                    "",
                ));
            }
        }
    }
    notes.note(format!("TUN device {name} offers no offload"));
    Ok(false)
}

/// One queue of the device.
pub(super) fn queue(name: &str, flags: i32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    sys::attach(file.as_fd(), name, flags)?;
    Ok(file)
}

/// The error with its remedy.
pub(super) fn refusal(name: &str, cause: io::Error) -> Error {
    let remedy = match cause.raw_os_error() {
        Some(libc::EBUSY) => "another process holds it: stop that one, or delete the device",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "there is no /dev/net/tun: modprobe tun, or give the container that device"
        }
        Some(libc::EINVAL) => {
            "a link of that name is not a TUN device, or the name is longer than 15 bytes"
        }
        Some(libc::EPERM | libc::EACCES) => "needs CAP_NET_ADMIN and access to /dev/net/tun",
        _ => "",
    };
    Error::new(format!("open TUN device {name}"), cause, remedy)
}
