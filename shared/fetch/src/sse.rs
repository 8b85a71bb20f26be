//! Server-sent events, cut out of a stream of bytes without changing one of them.
//!
//! However the bytes were split into chunks, the same events come out, and put together they are the same bytes (property
//! tests below). Each byte is looked at once.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// An event that is longer than the framer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// Cuts events out of chunks. Holds back only an incomplete event.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// How much of the buffer was looked at.
    scanned: usize,
    /// Whether the line that is being looked at is empty so far.
    line_is_empty: bool,
    max_event: usize,
}

impl Framer {
    /// A framer for events of at most `max_event` bytes.
    pub fn new(max_event: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, line_is_empty: true, max_event }
    }

    /// Takes the next bytes; [`Framer::next_event`] then gives what they complete.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete event, with the blank line that ends it; `None` until more bytes come.
    ///
    /// # Errors
    /// [`TooLong`] when the incomplete event is longer than allowed.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, TooLong> {
        while let Some(byte) = self.buffer.get(self.scanned) {
            let end_of_line = match byte {
                b'\n' => 1,
                // A CR may be followed by the LF that belongs to it, which is not here yet.
                b'\r' => match self.buffer.get(self.scanned + 1) {
                    None => break,
                    Some(b'\n') => 2,
                    Some(_) => 1,
                },
                _ => {
                    let rest = &self.buffer[self.scanned..];
                    self.scanned += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                    self.line_is_empty = false;
                    continue;
                }
            };
            self.scanned += end_of_line;
            if std::mem::replace(&mut self.line_is_empty, true) {
                let event = self.buffer.split_to(self.scanned).freeze();
                self.scanned = 0;
                return Ok(Some(event));
            }
        }
        if self.buffer.len() > self.max_event { Err(TooLong(self.max_event)) } else { Ok(None) }
    }

    /// What is left at the end of the stream: an event without its blank line, or nothing.
    pub fn rest(&mut self) -> Bytes {
        self.scanned = 0;
        self.line_is_empty = true;
        self.buffer.split().freeze()
    }
}

/// The `data` of an event, its lines joined by LF; `None` for a comment or an event without data.
pub fn event_data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(value) = line.strip_prefix(b"data") else { continue };
        let value = match value.strip_prefix(b":") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if value.is_empty() => value,
            None => continue,
        };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(data) => {
                let data = data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Bytes>, Bytes) {
        let mut framer = Framer::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            framer.push(chunk);
            while let Some(event) = framer.next_event().unwrap() {
                events.push(event);
            }
        }
        (events, framer.rest())
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "data: ?[a-z\u{e9}\u{4e16}]{0,8}",
            Just(": comment".to_owned()),
            Just("event: x".to_owned()),
            Just(String::new())
        ]
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
        proptest::collection::vec((line(), end), 0..40).prop_map(|lines| {
            lines.into_iter().flat_map(|(line, end)| [line.as_str(), end].concat().into_bytes()).collect()
        })
    }

    proptest! {
        #[test]
        fn every_split_into_chunks_gives_the_same_events(bytes in stream(), cuts in proptest::collection::vec(0usize..400, 0..30)) {
            let (mut events, rest) = frame([&bytes[..]]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            let split = frame(chunks);
            prop_assert_eq!(&split.0, &events);
            prop_assert_eq!(&split.1, &rest);
            events.push(rest);
            prop_assert_eq!(events.concat(), bytes);
        }
    }

    #[test]
    fn bytes_one_by_one() {
        let bytes = b"data: a\r\n\r\n: c\n\ndata:b\rdata: d\r\rdata: e";
        let (events, rest) = frame(bytes.chunks(1));
        let expected: [&[u8]; 3] = [b"data: a\r\n\r\n", b": c\n\n", b"data:b\rdata: d\r\r"];
        assert_eq!(events, expected);
        assert_eq!(rest, &b"data: e"[..]);
    }

    #[test]
    fn data_is_read_as_the_standard_says() {
        let data = |event: &str| event_data(event.as_bytes()).map(|data| String::from_utf8(data.into_owned()).unwrap());
        assert_eq!(data("data: {\"a\":1}\n\n").as_deref(), Some("{\"a\":1}"));
        assert_eq!(data("\u{feff}data:x\r\n\r\n").as_deref(), Some("x"));
        assert_eq!(data("event: e\ndata: a\ndata:  b\n\n").as_deref(), Some("a\n b"));
        assert_eq!(data("data\n\n").as_deref(), Some(""));
        assert_eq!(data(": data: x\n\n"), None);
        assert_eq!(data("database: x\n\n"), None);
    }

    #[test]
    fn bounded_everywhere_an_endless_event_is_refused() {
        let mut framer = Framer::new(10);
        framer.push(b"data: 1\n\ndata: 12345678");
        assert!(framer.next_event().unwrap().is_some());
        assert_eq!(framer.next_event(), Err(TooLong(10)));
    }
}
