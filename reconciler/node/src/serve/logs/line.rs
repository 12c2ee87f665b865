//! Lines of a log file: `TIME STREAM TAG TEXT`, where the tag `P` says that the line goes on.

use jiff::Timestamp;

use super::Options;

/// One line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written.
    pub time: &'a str,
    /// `stdout` or `stderr`
    pub stream: &'a str,
    /// The text ends here.
    pub full: bool,
    /// What the container wrote, without the end of line.
    pub text: &'a [u8],
}

/// Reads a line, without its `\n`.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, tag) = (word()?, word()?, word()?);
    let full = match tag.split(':').next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Line {
        time,
        stream,
        full,
        // Nothing was written, and the blank before it has been trimmed.
        text: parts.next().unwrap_or_default(),
    })
}

/// Picks and writes out lines.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    /// What is still allowed.
    left: u64,
    /// The last that was written had no end of line.
    within: bool,
}

impl Printer {
    /// For one answer.
    pub fn new(options: Options) -> Self {
        Self {
            left: options.limit.unwrap_or(u64::MAX),
            options,
            within: false,
        }
    }

    /// Whether no more will be written.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Adds a line of the file to what is to be sent, if it is wanted. What is no line of a log is passed over.
    pub fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else {
            if !line.is_empty() {
                tracing::debug!("a line of a log is none: {} bytes", line.len());
            }
            return;
        };
        if self
            .options
            .stream
            .is_some_and(|stream| stream != line.stream)
        {
            return;
        }
        if let Some(since) = self.options.since
            && line
                .time
                .parse::<Timestamp>()
                .is_ok_and(|time| time < since)
        {
            return;
        }
        if self.options.timestamps && !self.within {
            self.put(line.time.as_bytes(), out);
            self.put(b" ", out);
        }
        self.put(line.text, out);
        if line.full {
            self.put(b"\n", out);
        }
        self.within = !line.full;
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        out.extend_from_slice(bytes);
        self.left = self
            .left
            .saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}
