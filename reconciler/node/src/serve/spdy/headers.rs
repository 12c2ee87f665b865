//! Header blocks: names and values, compressed with SPDY's dictionary, one compressor for each way of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names, in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// The most that a block may become.
const LARGEST: usize = 64 << 10;

/// Common names, each with its length before it; then common parts of values.
const NAMES: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
const VALUES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Appendix A of draft 3.
pub fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in NAMES {
        // None is longer than a byte can say.
        bytes.extend_from_slice(&[0, 0, 0, name.len().to_le_bytes()[0]]);
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes.extend_from_slice(VALUES.as_bytes());
    bytes
}

/// Reads blocks, in the order in which they come.
pub struct Reader(Decompress);

impl Reader {
    /// For a new connection.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads the next block.
    ///
    /// # Errors
    /// It cannot be decompressed, is too large, or is no list of headers.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, String> {
        let bytes = self.inflate(block)?;
        parse(&bytes)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("decompress headers: {error}");
        let mut bytes = Vec::new();
        loop {
            if bytes.len() >= LARGEST {
                return Err(failed(&"they are too large"));
            }
            bytes.reserve(4096);
            let (before, had) = (self.0.total_in(), bytes.len());
            let outcome = self
                .0
                .decompress_vec(block, &mut bytes, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(block.len());
            block = block.get(taken..).unwrap_or_default();
            match outcome {
                Ok(Status::StreamEnd) => return Err(failed(&"they are the last")),
                Ok(_) if taken == 0 && bytes.len() == had => match block.is_empty() {
                    true => return Ok(bytes),
                    false => return Err(failed(&"they are broken")),
                },
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|error| failed(&error))?;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

/// Reads a decompressed block.
///
/// # Errors
/// It is cut off, or has more after its end.
pub fn parse(mut bytes: &[u8]) -> Result<Headers, String> {
    let cut = || "headers that are cut off".to_owned();
    let word = |bytes: &mut &[u8]| -> Result<usize, String> {
        let (word, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*word)).map_err(|_| cut())
    };
    let text = |bytes: &mut &[u8]| -> Result<String, String> {
        let length = word(bytes)?;
        let (text, rest) = bytes.split_at_checked(length).ok_or_else(cut)?;
        *bytes = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let (count, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    bytes = rest;
    let mut headers = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        headers.push((text(&mut bytes)?, text(&mut bytes)?));
    }
    match bytes.is_empty() {
        true => Ok(headers),
        false => Err("headers with something after them".to_owned()),
    }
}

/// Writes blocks, in the order in which they are sent.
pub struct Writer(Compress);

impl Writer {
    /// For a new connection.
    ///
    /// # Errors
    /// The compressor's.
    pub fn new() -> Result<Self, String> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&dictionary())
            .map_err(|error| format!("compress headers: {error}"))?;
        Ok(Self(compress))
    }

    /// Writes the next block.
    ///
    /// # Errors
    /// The compressor's.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let word = |plain: &mut Vec<u8>, length: usize| {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            plain.extend_from_slice(&length.to_be_bytes());
        };
        word(&mut plain, headers.len());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            word(&mut plain, text.len());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            self.0
                .compress_vec(rest, &mut block, FlushCompress::Sync)
                .map_err(|error| format!("compress headers: {error}"))?;
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(rest.len());
            rest = rest.get(taken..).unwrap_or_default();
            // All is flushed when there was room for more.
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}
