//! Frames: heads of eight bytes, and the bodies of control frames.

/// Sends no more.
pub const FIN: u8 = 1;
/// The longest body of a control frame that is taken; one of a client has some hundred bytes.
pub const LARGEST_CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is given up: nobody wants it any more.
const CANCEL: u32 = 5;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Bytes of a stream follow.
    Data {
        /// The stream.
        stream: u32,
        /// [`FIN`]
        flags: u8,
        /// Bytes.
        length: usize,
    },
    /// A control frame's body follows.
    Control {
        /// Its type.
        kind: u16,
        /// [`FIN`]
        flags: u8,
        /// Bytes.
        length: usize,
    },
}

/// Reads a head.
///
/// # Errors
/// Another version; a control frame that is too long.
pub fn head(bytes: [u8; 8]) -> Result<Head, String> {
    let [a, b, c, d, flags, x, y, z] = bytes;
    let length = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
    if a & 0x80 == 0 {
        let stream = u32::from_be_bytes([a, b, c, d]);
        return Ok(Head::Data {
            stream,
            flags,
            length,
        });
    }
    let version = u16::from_be_bytes([a & 0x7f, b]);
    if version != VERSION {
        return Err(format!("a frame of SPDY version {version}"));
    }
    if length > LARGEST_CONTROL {
        return Err(format!("a control frame of {length} bytes"));
    }
    Ok(Head::Control {
        kind: u16::from_be_bytes([c, d]),
        flags,
        length,
    })
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// A stream is opened.
    Open {
        /// Which.
        stream: u32,
        /// Compressed.
        headers: &'a [u8],
    },
    /// Headers that mean nothing to us, but that the decompression must have seen.
    Headers(&'a [u8]),
    /// A stream is given up.
    Reset(u32),
    /// To be sent back if its number is odd.
    Ping(u32),
    /// No more streams will come.
    GoAway,
    /// Anything else.
    Other,
}

/// Reads a control frame's body.
///
/// # Errors
/// It is too short.
pub fn control(kind: u16, body: &[u8]) -> Result<Control<'_>, String> {
    let word = |at: usize| -> Result<u32, String> {
        body.get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| format!("a control frame of type {kind} with {} bytes", body.len()))
    };
    // The highest bit of a stream's number is not of it.
    let stream = || word(0).map(|stream| stream & 0x7fff_ffff);
    let rest = |at: usize| body.get(at..).unwrap_or_default();
    Ok(match kind {
        SYN_STREAM => {
            // After the number: another stream's, a priority, a slot.
            word(6)?;
            Control::Open {
                stream: stream()?,
                headers: rest(10),
            }
        }
        SYN_REPLY | HEADERS => {
            word(0)?;
            Control::Headers(rest(4))
        }
        RST_STREAM => Control::Reset(stream()?),
        PING => Control::Ping(word(0)?),
        GOAWAY => Control::GoAway,
        _ => Control::Other,
    })
}

/// The head of a data frame. A length beyond 24 bits cannot be: what is read at a time is less.
pub fn data(stream: u32, flags: u8, length: usize) -> [u8; 8] {
    let [a, b, c, d] = (stream & 0x7fff_ffff).to_be_bytes();
    let [.., x, y, z] = length.to_be_bytes();
    [a, b, c, d, flags, x, y, z]
}

fn frame(kind: u16, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let [a, b] = (VERSION | 0x8000).to_be_bytes();
    let [c, d] = kind.to_be_bytes();
    let [.., x, y, z] = length.to_be_bytes();
    let mut bytes = vec![a, b, c, d, 0, x, y, z];
    for part in body {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Accepts a stream.
pub fn reply(stream: u32, headers: &[u8]) -> Vec<u8> {
    frame(SYN_REPLY, &[&stream.to_be_bytes(), headers])
}

/// Opens a stream.
#[cfg(test)]
pub fn open(stream: u32, headers: &[u8]) -> Vec<u8> {
    frame(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], headers])
}

/// Gives a stream up.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, &[&stream.to_be_bytes(), &CANCEL.to_be_bytes()])
}

/// Asks whether the other is there, or answers.
pub fn ping(number: u32) -> Vec<u8> {
    frame(PING, &[&number.to_be_bytes()])
}

/// Takes no more streams.
pub fn go_away(last: u32) -> Vec<u8> {
    frame(GOAWAY, &[&last.to_be_bytes(), &[0; 4]])
}
