//! Tells systemd how we are (sd_notify(3)): a datagram to the socket named by NOTIFY_SOCKET.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (`READY=1`, `STOPPING=1`, …) to `socket`, if there is one.
pub fn notify(socket: Option<&OsStr>, state: &str) {
    let Some(path) = socket else {
        return;
    };
    if let Err(error) = send(path.as_encoded_bytes(), state) {
        tracing::warn!("notify systemd at {}: {error}", path.to_string_lossy());
    }
}

/// A leading `@` names an abstract socket.
fn send(path: &[u8], state: &str) -> std::io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::path::Path::new(OsStr::new(
            std::str::from_utf8(path).map_err(std::io::Error::other)?,
        )))?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("weft-notify-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let sockets = [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.display().to_string(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
                format!("@{name}"),
            ),
        ];
        for (socket, path) in sockets {
            send(path.as_bytes(), "READY=1").unwrap();
            let mut buffer = [0; 32];
            let n = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1");
        }
    }
}
