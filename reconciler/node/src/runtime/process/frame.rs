//! Frames between the agent and a shim or exec-in, on a Unix socket: kind (1 byte), length (4, big-endian), payload.

/// The longest payload.
pub(super) const MAX: usize = 64 * 1024;

/// First frame from the agent: a [`Hello`] as JSON.
pub(super) const HELLO: u8 = 0;
/// Bytes for the process; none at all is end of file.
pub(super) const STDIN: u8 = 1;
/// Bytes of its output.
pub(super) const STDOUT: u8 = 2;
/// Bytes of its errors.
pub(super) const STDERR: u8 = 3;
/// The terminal's size: columns, rows, 2 bytes each.
pub(super) const RESIZE: u8 = 4;
/// A signal's number, 1 byte, for the process.
pub(super) const SIGNAL: u8 = 5;
/// The exit code, 4 bytes: the last frame.
pub(super) const EXIT: u8 = 6;
/// Why the process could not start, as text: the last frame.
pub(super) const ERROR: u8 = 7;
/// The program of exec-in has been executed.
pub(super) const STARTED: u8 = 8;

/// What a connection is for.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Hello {
    /// Program and arguments, for exec-in.
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Appends a frame, or several if the payload is long.
pub(super) fn encode(kind: u8, payload: &[u8], into: &mut Vec<u8>) {
    let mut rest = payload;
    loop {
        let (part, more) = rest.split_at(rest.len().min(MAX));
        into.push(kind);
        into.extend((part.len() as u32).to_be_bytes());
        into.extend(part);
        rest = more;
        if rest.is_empty() {
            return;
        }
    }
}

/// Finds frames in bytes as they come.
#[derive(Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next whole frame, `None` if more bytes are needed, an error if there is none to come.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let Some((&[kind, a, b, c, d], rest)) = self.bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind > STARTED || length > MAX {
            return Err(format!("a frame of kind {kind} and {length} bytes"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.bytes.drain(..5 + length);
        Ok(Some((kind, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut(frames in proptest::collection::vec((0..=STARTED, proptest::collection::vec(any::<u8>(), 1..200)), 0..20), cut in 1_usize..50) {
            let mut wire = Vec::new();
            for (kind, payload) in &frames {
                encode(*kind, payload, &mut wire);
            }
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some((kind, payload))) = decoder.next() {
                prop_assert!(kind <= STARTED && payload.len() <= MAX);
            }
        }
    }

    #[test]
    fn a_long_payload_is_cut_and_an_empty_one_is_a_frame() {
        let mut wire = Vec::new();
        encode(STDOUT, &vec![7; MAX + 1], &mut wire);
        encode(STDIN, &[], &mut wire);
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        let mut lengths = Vec::new();
        while let Some((_, payload)) = decoder.next().unwrap() {
            lengths.push(payload.len());
        }
        assert_eq!(lengths, [MAX, 1, 0]);
    }
}
