//! What a client sends, looked at before it is read.
//!
//! What passes through: the bytes of a connection, as they came, as soon as they are a whole message. Guaranteed:
//! what goes on is well-formed. pgwire takes that for granted: it reads past the end of a message whose parts do
//! not fill it, and panics where that is the end of all. And no message is larger than it may be: before sign-in
//! that is little, so that strangers do not fill the memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The most bytes of a message of a client that has signed in: a statement, or the values of its parameters.
const MOST: usize = 16 << 20;
/// The most of one that has not: a token of an issuer is the longest that is meant.
const MOST_BEFORE: usize = 64 << 10;
/// So many bytes are read at once.
const AT_ONCE: usize = 8 << 10;
/// The bytes of a message's length, which counts itself.
const LENGTH: usize = 4;

/// A connection of which only messages are read.
pub(super) struct Messages<S> {
    socket: S,
    came: BytesMut,
    /// So many bytes at the beginning of what came are whole messages.
    whole: usize,
    /// The first message has no type.
    has_begun: bool,
    most: usize,
}

impl<S> Messages<S> {
    /// Those of a connection of which some bytes have been read.
    pub(super) fn new(socket: S, came: BytesMut) -> Self {
        Self { socket, came, whole: 0, has_begun: false, most: MOST_BEFORE }
    }

    /// The client has signed in.
    pub(super) fn admit(&mut self) {
        self.most = MOST;
    }

    /// How long the message is that comes next, once all of it is there.
    fn next(&self) -> io::Result<Option<usize>> {
        let kind = usize::from(self.has_begun);
        let Some(length) = self.came.get(kind..kind + LENGTH) else { return Ok(None) };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > self.most {
            return Err(wrong(format!("a message has {length} bytes, and here {} are the most. Send less", self.most)));
        }
        let Some(message) = self.came.get(..(kind + length).max(kind + LENGTH)) else { return Ok(None) };
        let (kind, body) = message.split_at(kind + LENGTH);
        let fits = length >= LENGTH && if self.has_begun { is_message(kind[0], body) } else { is_start(body) };
        if fits {
            Ok(Some(message.len()))
        } else {
            Err(wrong("a message is not as PostgreSQL's protocol has it. Update the client".to_owned()))
        }
    }
}

/// A message that is none.
fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// What is left to read of a message.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number<const BYTES: usize>(&mut self) -> Option<u32> {
        Some(self.bytes(BYTES)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// A text, which ends with a zero.
    fn text(&mut self) -> Option<&'a [u8]> {
        let text = self.bytes(self.0.iter().position(|byte| *byte == 0)?)?;
        self.bytes(1)?;
        Some(text)
    }

    /// A count, and so many things of some bytes each.
    fn list(&mut self, bytes: usize) -> Option<()> {
        let count = self.number::<2>()?;
        self.bytes(usize::try_from(count).ok()?.checked_mul(bytes)?).map(drop)
    }

    /// A count, and so many values, each with its length. One that has none is null.
    fn values(&mut self) -> Option<()> {
        for _ in 0..self.number::<2>()? {
            if let Ok(length) = usize::try_from(self.number::<4>()?.cast_signed()) {
                self.bytes(length)?;
            }
        }
        Some(())
    }
}

/// Whether bytes are the first message: a version and settings, or the wish to cancel.
fn is_start(body: &[u8]) -> bool {
    const CANCEL: u32 = 80_877_102;
    let mut parts = Parts(body);
    match parts.number::<4>() {
        // A process, and a secret of up to 256 bytes.
        Some(CANCEL) => (8..=260).contains(&parts.0.len()),
        Some(_) => loop {
            match parts.text() {
                Some([]) => break parts.0.is_empty(),
                Some(_) if parts.text().is_some() => {}
                _ => break false,
            }
        },
        None => false,
    }
}

/// Whether bytes are the body of a message of a type.
fn is_message(kind: u8, body: &[u8]) -> bool {
    let mut parts = Parts(body);
    let read = match kind {
        // A statement; why a copy has failed.
        b'Q' | b'f' => parts.text().map(drop),
        // Parse: name, statement, types of parameters.
        b'P' => parts.text().and_then(|_| parts.text()).and_then(|_| parts.list(4)),
        // Bind: portal, statement, formats, values, formats of the answer.
        b'B' => {
            let names = parts.text().and_then(|_| parts.text());
            names.and_then(|_| parts.list(2)).and_then(|()| parts.values()).and_then(|()| parts.list(2))
        }
        // Close and describe: a statement or a portal, and its name.
        b'C' | b'D' => parts.bytes(1).and_then(|_| parts.text()).map(drop),
        // Execute: portal, the most rows.
        b'E' => parts.text().and_then(|_| parts.bytes(4)).map(drop),
        // Copy done, flush, sync, terminate.
        b'c' | b'H' | b'S' | b'X' => Some(()),
        // Data of a copy, and what proves a password: whatever it is.
        b'd' | b'p' => return true,
        _ => None,
    };
    read.is_some() && parts.0.is_empty()
}

/// Whether the body of a message is the first word of SASL: a mechanism, and what it begins with.
pub(super) fn is_first_of_sasl(body: &[u8]) -> bool {
    let mut parts = Parts(body);
    let Some(length) = parts.text().and_then(|_| parts.number::<4>()) else { return false };
    // Less than nothing is one number alone.
    let length = if length == u32::MAX { Some(0) } else { usize::try_from(length).ok() };
    length == Some(parts.0.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for Messages<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.whole == 0 {
            if let Some(length) = this.next()? {
                this.whole = length;
                this.has_begun = true;
                break;
            }
            this.came.reserve(AT_ONCE);
            if ready!(poll_read_buf(Pin::new(&mut this.socket), context, &mut this.came))? == 0 {
                // What is left is no message, and nobody's.
                return Poll::Ready(Ok(()));
            }
        }
        let taken = this.whole.min(out.remaining());
        out.put_slice(&this.came[..taken]);
        this.came.advance(taken);
        this.whole -= taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Messages<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_postgres::pgwire::messages::startup::PasswordMessageFamily;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    fn message(kind: &[u8], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + LENGTH).unwrap().to_be_bytes();
        [kind, &length, body].concat()
    }

    fn start() -> Vec<u8> {
        message(b"", b"\0\x03\0\0user\0somchai\0database\0\0\0")
    }

    fn read(bytes: &[u8]) -> (Vec<u8>, io::Result<usize>) {
        let mut read = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime.block_on(Messages::new(bytes, BytesMut::new()).read_to_end(&mut read));
        (read, ended)
    }

    #[test]
    fn what_is_well_formed_goes_on() {
        let messages = [
            message(b"p", b"anything"),
            message(b"Q", b"select 1\0"),
            message(b"P", b"\0select $1\0\0\x01\0\0\0\x19"),
            message(b"B", b"\0\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0"),
            message(b"D", b"S\0"),
            message(b"E", b"\0\0\0\0\0"),
            message(b"S", b""),
            message(b"X", b""),
        ];
        let all = [start(), messages.concat()].concat();
        assert_eq!(read(&all).0, all);
        let cancel = message(b"", &[&80_877_102_u32.to_be_bytes()[..], &[1; 8]].concat());
        assert_eq!(read(&cancel).0, cancel);
    }

    /// Each of these is a panic of pgwire, or leaves it in the middle of a message.
    #[test]
    fn what_is_not_goes_no_further() {
        for wrong in [
            message(b"P", b""),
            message(b"P", b"\0select\0\0\x02\0\0\0\x01"),
            message(b"B", b"\0\0\0\0\0\x01\0\0\0\xffx"),
            message(b"B", b"\0\0\0\0\0\x01"),
            message(b"C", b""),
            message(b"D", b"S"),
            message(b"E", b"\0\0"),
            message(b"Q", b"select 1"),
            message(b"Q", b"select 1\0more"),
            message(b"S", b"x"),
            message(b"?", b""),
            b"p\0\0\0\x03".to_vec(),
            b"d\0\0\0\0".to_vec(),
            b"Q\x7f\xff\xff\xff".to_vec(),
            b"Q\xff\xff\xff\xff".to_vec(),
        ] {
            let (went_on, ended) = read(&[start(), wrong.clone()].concat());
            assert!(went_on == start() && ended.is_err(), "{wrong:?}");
        }
        for wrong in [
            message(b"", b""),
            message(b"", b"\0\x03\0\0"),
            message(b"", b"\0\x03\0\0user"),
            message(b"", b"\0\x03\0\0user\0x\0"),
            message(b"", b"\0\x03\0\0user\0x\0\0more"),
            message(b"", &80_877_102_u32.to_be_bytes()),
        ] {
            let (went_on, ended) = read(&[wrong.clone(), message(b"P", b"")].concat());
            assert!(went_on.is_empty() && ended.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn strangers_send_little() {
        let long = message(b"Q", &[&[b' '; MOST_BEFORE][..], b"\0"].concat());
        let all = [start(), long].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(read(&all).1.unwrap_err().to_string().contains("65536 are the most"));
        let mut known = Messages::new(&all[..], BytesMut::new());
        known.admit();
        let mut went_on = Vec::new();
        runtime.block_on(known.read_to_end(&mut went_on)).unwrap();
        assert_eq!(went_on, all);
    }

    fn can_be_read(body: &[u8]) -> bool {
        PasswordMessageFamily::Raw(BytesMut::from(body)).into_sasl_initial_response().is_ok()
    }

    #[test]
    fn a_first_word_of_sasl_is_as_long_as_it_says() {
        for word in [&b"S\0\0\0\0\0"[..], b"S\0\0\0\0\x03n,,", b"S\0\xff\xff\xff\xff"] {
            assert!(is_first_of_sasl(word) && can_be_read(word), "{word:?}");
        }
        // The last of them is of the fuzzer.
        for word in [&b""[..], b"S", b"S\0\0\0\0", b"S\0\0\0\0\x01", b"S\0\0\0\0\0n", b"S\0\xfa\0\x04\x10"] {
            assert!(!is_first_of_sasl(word), "{word:?}");
        }
    }

    proptest! {
        /// Whatever the first word of SASL is, pgwire reads what passes.
        #[test]
        fn the_first_word_of_sasl_can_be_read(body in prop::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..12)) {
            if is_first_of_sasl(&body) {
                prop_assert!(can_be_read(&body));
            }
        }

        /// What goes on is what came, from its beginning.
        #[test]
        fn nothing_is_made_up(kinds in prop::collection::vec((any::<u8>(), prop::collection::vec(0_u8..4, 0..9)), 0..6)) {
            let messages = kinds.iter().map(|(kind, body)| message(&[*kind], body)).collect::<Vec<_>>().concat();
            let all = [start(), messages].concat();
            let (went_on, _) = read(&all);
            prop_assert!(all.starts_with(&went_on) && went_on.len() >= start().len());
        }
    }
}
