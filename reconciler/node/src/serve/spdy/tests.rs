use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::frame::{self, Control, FIN, Head};
use super::headers::{self, Reader, Writer};
use super::{Opened, carry};
use crate::serve::link;

/// As kubectl 1.36 began a port-forward.
const RECORDED: &[u8] =
    b"x\xf9\xe3\xc6\xa7\xc2\x02%:p:+)JM\xcc\x85\x16%\xac\xa9\xa0\x80\x86\x14\xcbE\xa0$\xccjhff\
    `\xc0\xc0\xc0\xc0Y\x04\x89\xc7LP\xfaf4\x00\x00\x00\x00\xff\xff";

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_recorded_block_is_read() {
    let mut reader = Reader::new();
    assert_eq!(
        reader.read(RECORDED).unwrap(),
        [
            pair("streamtype", "error"),
            pair("port", "16600"),
            pair("requestid", "0")
        ]
    );
    assert_eq!(headers::dictionary().len(), 1423);
}

#[test]
fn blocks_of_one_connection_depend_on_each_other() {
    let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
    let long = "v".repeat(20_000);
    for value in ["a", "a", &long, ""] {
        let block = writer
            .write(&[("streamtype", "data"), ("requestid", value)])
            .unwrap();
        let read = reader.read(&block).unwrap();
        assert_eq!(read, [pair("streamtype", "data"), pair("requestid", value)]);
    }
    assert_eq!(reader.read(&writer.write(&[]).unwrap()).unwrap(), []);
    // What would fill memory does not.
    let bomb = "0".repeat(10_000_000);
    let block = writer.write(&[("a", &bomb)]).unwrap();
    assert!(block.len() < 100_000);
    assert!(reader.read(&block).unwrap_err().contains("too large"));
}

proptest! {
    #[test]
    fn no_block_makes_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), keep in 0..RECORDED.len()) {
        let _ = headers::parse(&bytes);
        let _ = Reader::new().read(&bytes);
        let mut block = RECORDED[..keep].to_vec();
        block.append(&mut bytes);
        let _ = Reader::new().read(&block);
    }

    #[test]
    fn headers_come_back_as_they_were(
        pairs in proptest::collection::vec(("[a-z]{0,9}", "\\PC{0,40}"), 0..9)
    ) {
        let block = Writer::new().unwrap()
            .write(&pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
            .unwrap();
        prop_assert_eq!(Reader::new().read(&block).unwrap(), pairs);
    }

    #[test]
    fn heads_and_bodies_are_read_or_refused(bytes in any::<[u8; 8]>(), body in proptest::collection::vec(any::<u8>(), 0..40)) {
        match frame::head(bytes) {
            Ok(Head::Data { stream, flags, length }) => prop_assert_eq!(frame::data(stream, flags, length), bytes),
            Ok(Head::Control { kind, length, .. }) => {
                prop_assert!(length <= frame::LARGEST_CONTROL);
                let _ = frame::control(kind, &body);
            }
            Err(_) => {}
        }
    }

    #[test]
    fn no_bytes_make_a_connection_panic_or_hang(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        shapes in proptest::collection::vec((0u16..10, 0usize..40), 0..6),
    ) {
        let mut all = Vec::new();
        for (kind, length) in shapes {
            all.extend_from_slice(&[0x80, 3, 0, kind as u8, 0, 0, 0, length as u8]);
            all.extend(bytes.iter().copied().take(length));
        }
        all.extend(bytes);
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
            let (ours, mut client) = tokio::io::duplex(1 << 16);
            let served = carry(ours, echo);
            let asked = async {
                client.write_all(&all).await.unwrap();
                client.shutdown().await.unwrap();
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
            };
            tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(served, asked) }).await.unwrap();
        });
    }
}

/// Sends each stream back to where it came from.
async fn echo(mut opened: tokio::sync::mpsc::Receiver<Opened>) {
    let mut all = tokio::task::JoinSet::new();
    while let Some(mut stream) = opened.recv().await {
        all.spawn(async move {
            while let Some(bytes) = stream.input.recv().await {
                if stream.output.send(bytes).await.is_err() {
                    return;
                }
            }
            let _ = stream.output.end().await;
        });
    }
}

async fn next(client: &mut DuplexStream) -> (Head, Bytes) {
    let mut bytes = [0; 8];
    client.read_exact(&mut bytes).await.unwrap();
    let head = frame::head(bytes).unwrap();
    let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.unwrap();
    (head, body.into())
}

#[tokio::test]
async fn megabytes_come_back_byte_for_byte_and_pings_too() {
    let (ours, client) = tokio::io::duplex(10_000);
    let served = tokio::spawn(carry(ours, echo));
    let (mut from, mut to) = tokio::io::split(client);
    let sent: Vec<u8> = (0..5_000_000u32).map(|number| (number / 7) as u8).collect();
    let bytes = sent.clone();
    let sending = tokio::spawn(async move {
        let mut writer = Writer::new().unwrap();
        for stream in [1, 3] {
            let block = writer.write(&[("streamtype", "data")]).unwrap();
            to.write_all(&frame::open(stream, &block)).await.unwrap();
        }
        to.write_all(&frame::ping(7)).await.unwrap();
        for (number, piece) in bytes.chunks(100_001).enumerate() {
            let stream = 1 + 2 * (number as u32 % 2);
            to.write_all(&frame::data(stream, 0, piece.len()))
                .await
                .unwrap();
            to.write_all(piece).await.unwrap();
        }
        for stream in [1, 3] {
            to.write_all(&frame::data(stream, FIN, 0)).await.unwrap();
        }
        to
    });
    let mut back = [Vec::new(), Vec::new()];
    let (mut ends, mut pong) = (0, false);
    while ends < 2 {
        let mut head = [0; 8];
        from.read_exact(&mut head).await.unwrap();
        let head = frame::head(head).unwrap();
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let mut body = vec![0; length];
        from.read_exact(&mut body).await.unwrap();
        match head {
            Head::Data { stream, flags, .. } => {
                back[(stream / 2) as usize].extend(body);
                ends += u8::from(flags & FIN != 0);
            }
            Head::Control { kind, .. } => {
                if let Control::Ping(number) = frame::control(kind, &body).unwrap() {
                    assert_eq!(number, 7);
                    pong = true;
                }
            }
        }
    }
    assert!(pong);
    for (stream, back) in back.iter().enumerate() {
        let pieces = sent.chunks(100_001).skip(stream).step_by(2);
        assert!(*back == pieces.flatten().copied().collect::<Vec<_>>());
    }
    drop((from, sending.await.unwrap()));
    served.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_given_up_ends_its_life_and_its_work() {
    let (ours, mut client) = tokio::io::duplex(10_000);
    let served = tokio::spawn(carry(ours, |mut opened| async move {
        let stream = opened.recv().await.unwrap();
        assert_eq!(stream.header("streamtype"), "error");
        assert_eq!(stream.header("nothing"), "");
        stream.life.await.unwrap_err();
        stream.output.send("over").await.unwrap();
        stream.output.end().await.unwrap();
    }));
    client.write_all(&frame::open(1, RECORDED)).await.unwrap();
    assert!(matches!(
        next(&mut client).await.0,
        Head::Control { kind: 2, .. }
    ));
    client.write_all(&frame::reset(1)).await.unwrap();
    let (head, body) = next(&mut client).await;
    assert!(matches!(head, Head::Data { stream: 1, .. }));
    assert_eq!(body, "over");
    assert!(matches!(
        next(&mut client).await.0,
        Head::Data { flags: FIN, .. }
    ));
    let (head, body) = next(&mut client).await;
    assert!(matches!(head, Head::Control { kind: 7, .. }));
    assert_eq!(body[..4], [0, 0, 0, 1]);
    drop(client);
    served.await.unwrap();
    let _ = link::CHUNK;
}
