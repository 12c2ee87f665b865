use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Two connected pairs: (client, its peer), (endpoint, its peer); the peers are the stream's sockets.
fn pairs() -> ([TcpStream; 2], Stream) {
    let pair = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (inner, _) = listener.accept().unwrap();
        inner.set_nonblocking(true).unwrap();
        outer
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        (outer, inner)
    };
    let ((client, from_client), (endpoint, to_endpoint)) = (pair(), pair());
    let stream = Stream::new(from_client, to_endpoint, Arc::new(()));
    ([client, endpoint], stream)
}

/// Advances as a thread that is told of every readiness would, until `done`.
fn drive(stream: &mut Stream, stock: &mut Stock, done: impl Fn(Progress) -> bool) -> Progress {
    let start = Instant::now();
    loop {
        stream.note(Side::Client, true, true);
        stream.note(Side::Endpoint, true, true);
        let progress = stream.advance(stock);
        if done(progress) {
            return progress;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{progress:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn stocks() -> [Stock; 2] {
    [Stock::default(), Stock::without_splice()]
}

#[test]
fn bytes_and_ends_pass_with_splice_and_without() {
    for mut stock in stocks() {
        let ([mut client, mut endpoint], mut stream) = pairs();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            endpoint.read_to_end(&mut received).unwrap();
            endpoint.write_all(b"thanks").unwrap();
            received
        });
        let end = drive(&mut stream, &mut stock, |p| {
            !matches!(p, Progress::Waiting | Progress::More)
        });
        assert_eq!(end, Progress::Ended);
        assert_eq!(stream.passed(), [expected.len() as u64, 6]);
        drop(stream);
        assert!(reader.join().unwrap() == expected);
        assert_eq!(writer.join().unwrap(), b"thanks");
    }
}

#[test]
fn a_side_that_takes_no_more_is_heard_to_its_end() {
    for mut stock in stocks() {
        let ([mut client, mut endpoint], mut stream) = pairs();
        // The endpoint answers without reading the question, and goes.
        client.write_all(b"question").unwrap();
        drive(&mut stream, &mut stock, |_| true);
        endpoint.write_all(b"too large").unwrap();
        while stream.passed() != [8, 0] {
            drive(&mut stream, &mut stock, |_| true);
        }
        thread::sleep(Duration::from_millis(20));
        drop(endpoint);
        thread::sleep(Duration::from_millis(20));
        client.write_all(b"more of it").unwrap();
        let end = drive(&mut stream, &mut stock, |p| {
            !matches!(p, Progress::Waiting | Progress::More)
        });
        assert_eq!(end, Progress::Broken(Side::Endpoint));
        let mut answer = [0; 9];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"too large");
    }
}

#[test]
fn an_idle_stream_holds_no_store_and_a_blocked_one_keeps_its_bytes() {
    let mut stock = Stock::default();
    let ([mut client, mut endpoint], mut stream) = pairs();
    client.set_nonblocking(true).unwrap();
    let block = vec![7; 1 << 20];
    let mut sent = 0;
    // Nobody reads: the last bytes that fit nowhere else rest in the stream.
    while stream.directions[0].store.is_none() {
        sent += client.write(&block).unwrap_or(0);
        drive(&mut stream, &mut stock, |progress| {
            progress == Progress::Waiting
        });
    }
    drop(client);
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        endpoint.read_to_end(&mut received).unwrap();
        received.len()
    });
    let end = drive(&mut stream, &mut stock, |p| p == Progress::Ended);
    assert_eq!(end, Progress::Ended);
    assert!(
        stream
            .directions
            .iter()
            .all(|direction| direction.store.is_none())
    );
    drop(stream);
    assert_eq!(reader.join().unwrap(), sent);
}
