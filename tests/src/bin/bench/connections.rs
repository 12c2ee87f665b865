//! New TCP connections a second: a few clients connect, wait for the server's close, close, again.
//!
//! The server closes first, so that the waiting state (TIME_WAIT) stays on its side and the clients
//! never run out of ports. Clients take the source address that the route gives them.

use ::tests::Namespace;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clients at once: enough to fill the way, few enough for two cores.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections a second from `from` to a listener on `listen` in `to`, counted for `time`. Clients
/// ask for `front`, where there is one, and for the listener's own address otherwise.
pub fn measure(
    from: &Namespace,
    to: &Namespace,
    listen: SocketAddr,
    front: Option<SocketAddr>,
    time: Duration,
) -> Result<f64> {
    let listener = to.run(|| Ok(TcpListener::bind(listen)?))?;
    let server = listener.local_addr()?;
    let asked = front.unwrap_or(server);
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let counted = std::thread::scope(|scope| {
        let acceptor = scope.spawn(move || accept(&listener, stop));
        let started = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || from.run(|| client(asked, time))))
            .collect();
        let mut sum = 0;
        let mut failure = None;
        for client in clients {
            match client.join() {
                Ok(Ok(count)) => sum += count,
                Ok(Err(error)) => failure = Some(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let spent = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        // One more, from beside the server, wakes the acceptor so that it sees the flag.
        to.run(|| Ok(TcpStream::connect_timeout(&server, PATIENCE)?))
            .context("wake the acceptor")?;
        match acceptor.join() {
            Ok(accepted) => accepted?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(f64::from(sum) / spent),
        }
    })?;
    Ok(counted)
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let (stream, _) = listener.accept().context("accept")?;
        drop(stream);
    }
    Ok(())
}

fn client(server: SocketAddr, time: Duration) -> Result<u32> {
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)
            .with_context(|| format!("connection {count} to {server}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = stream
            .read(&mut [0])
            .with_context(|| format!("wait for the close of connection {count} to {server}"))?;
        if length != 0 {
            bail!("the server of connections sent something");
        }
        count += 1;
    }
    Ok(count)
}
