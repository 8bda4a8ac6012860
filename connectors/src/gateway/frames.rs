//! A body as it comes, cut into the texts of single events.
//!
//! What passes through: bytes, in pieces of any size; the text of each line, or of each object of a JSON array.
//! Guaranteed: where a body is cut into pieces makes no difference, and never more than one text is kept.

use memchr::{memchr, memchr2};

/// What stands between two cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A text, which may be anything.
    Text(&'a [u8]),
    /// A text that has more bytes than it may; it was not kept.
    TooLong,
}

/// A body that cannot be cut, and with it everything that follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at} of the body. Nothing from there on was read")]
pub(super) struct Malformed {
    pub(super) problem: &'static str,
    /// Counted from 0, unpacked.
    pub(super) at: usize,
}

/// A text that is not complete yet.
#[derive(Debug)]
struct Kept {
    most: usize,
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self { most, bytes: Vec::new(), is_too_long: false }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.bytes.len() + bytes.len() > self.most;
        if self.is_too_long {
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Hands over the text that `last` ends, and forgets it.
    fn end(&mut self, last: &[u8], each: &mut dyn FnMut(Frame<'_>)) {
        if self.bytes.is_empty() && !self.is_too_long && last.len() <= self.most {
            return each(Frame::Text(last));
        }
        self.add(last);
        each(if self.is_too_long { Frame::TooLong } else { Frame::Text(&self.bytes) });
        self.bytes.clear();
        self.is_too_long = false;
    }
}

/// Lines, each a text (NDJSON). Empty ones are left out.
#[derive(Debug)]
pub(super) struct Lines(Kept);

impl Lines {
    /// `most`: the most bytes of a text.
    pub(super) fn new(most: usize) -> Self {
        Self(Kept::new(most))
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Frame<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            self.line(&bytes[..end], each);
            bytes = &bytes[end + 1..];
        }
        self.0.add(bytes);
    }

    /// What is left is the last line.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Frame<'_>)) {
        self.line(&[], each);
    }

    fn line(&mut self, last: &[u8], each: &mut dyn FnMut(Frame<'_>)) {
        self.0.end(last, &mut |frame| match frame {
            Frame::Text(text) if text.trim_ascii().is_empty() => {}
            frame => each(frame),
        });
    }
}

/// How many objects a JSON text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One, which is not in an array.
    One,
    /// An array of any number.
    Many,
    /// Either.
    Any,
}

/// The objects of a JSON text.
#[derive(Debug)]
pub(super) struct Objects {
    shape: Shape,
    kept: Kept,
    state: State,
    in_array: bool,
    /// How many bytes have gone by.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// After `[`.
    First,
    /// After `,`.
    Next,
    /// Within an object, so many brackets deep.
    Within {
        depth: usize,
        in_string: bool,
        is_escaped: bool,
    },
    /// After an object of an array.
    After,
    End,
}

impl Objects {
    /// `most`: the most bytes of an object.
    pub(super) fn new(shape: Shape, most: usize) -> Self {
        Self { shape, kept: Kept::new(most), state: State::Start, in_array: false, at: 0 }
    }

    /// The most bytes of an object.
    pub(super) fn most(&self) -> usize {
        self.kept.most
    }

    /// # Errors
    /// Where the text is no object and no array of objects.
    pub(super) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(Frame<'_>)) -> Result<(), Malformed> {
        let (mut start, mut index) = (0, 0);
        while let Some(byte) = bytes.get(index) {
            // What texts hold is most of a body.
            if let State::Within { depth, in_string: true, is_escaped: false } = self.state {
                let Some(end) = memchr2(b'"', b'\\', &bytes[index..]) else { break };
                index += end + 1;
                let is_escaped = bytes[index - 1] == b'\\';
                self.state = State::Within { depth, in_string: is_escaped, is_escaped };
                continue;
            }
            let was_within = matches!(self.state, State::Within { .. });
            self.state = self.after(*byte).map_err(|problem| Malformed { problem, at: self.at + index })?;
            match (was_within, self.state) {
                (false, State::Within { .. }) => start = index,
                (true, State::After | State::End) => self.kept.end(&bytes[start..=index], each),
                _ => {}
            }
            index += 1;
        }
        if let State::Within { .. } = self.state {
            self.kept.add(&bytes[start..]);
        }
        self.at += bytes.len();
        Ok(())
    }

    /// # Errors
    /// Where the text is not complete.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match self.state {
            State::End => Ok(()),
            State::Start => Err(Malformed { problem: "there is nothing", at: self.at }),
            _ => Err(Malformed { problem: "the JSON text is cut off", at: self.at }),
        }
    }

    fn after(&mut self, byte: u8) -> Result<State, &'static str> {
        const WITHIN: State = State::Within { depth: 1, in_string: false, is_escaped: false };
        Ok(match (self.state, byte) {
            (State::Within { depth, in_string: true, .. }, _) => {
                State::Within { depth, in_string: true, is_escaped: false }
            }
            (State::Within { depth, .. }, b'"') => State::Within { depth, in_string: true, is_escaped: false },
            (State::Within { depth, .. }, b'{' | b'[') => {
                State::Within { depth: depth + 1, in_string: false, is_escaped: false }
            }
            (State::Within { depth: 1, .. }, b'}' | b']') => {
                if self.in_array {
                    State::After
                } else {
                    State::End
                }
            }
            (State::Within { depth, .. }, b'}' | b']') => {
                State::Within { depth: depth - 1, in_string: false, is_escaped: false }
            }
            (state @ State::Within { .. }, _) => state,
            (state, b' ' | b'\t' | b'\n' | b'\r') => state,
            (State::Start, b'[') if self.shape != Shape::One => {
                self.in_array = true;
                State::First
            }
            (State::Start, b'{') if self.shape != Shape::Many => WITHIN,
            (State::Start, _) => {
                return Err(match self.shape {
                    Shape::One => "a JSON object has to stand here, and does not",
                    Shape::Many => "a JSON array has to stand here, and does not",
                    Shape::Any => "a JSON object or array has to stand here, and does not",
                });
            }
            (State::First | State::Next, b'{') => WITHIN,
            (State::First, b']') | (State::After, b']') => State::End,
            (State::First | State::Next, _) => return Err("an object has to stand in the array here, and does not"),
            (State::After, b',') => State::Next,
            (State::After, _) => return Err("a comma or the end of the array has to stand here, and does not"),
            (State::End, _) => return Err("something stands behind the JSON text"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The texts of a body that comes in pieces of a size; "!" for one that is too long.
    fn objects(shape: Shape, body: &[u8], piece: usize) -> (Vec<String>, Result<(), Malformed>) {
        let (mut objects, mut texts) = (Objects::new(shape, 40), Vec::new());
        let mut each = |frame: Frame<'_>| texts.push(text(frame));
        let done = body.chunks(piece.max(1)).try_for_each(|piece| objects.push(piece, &mut each));
        (texts, done.and_then(|()| objects.finish()))
    }

    fn lines(body: &[u8], piece: usize) -> Vec<String> {
        let (mut lines, mut texts) = (Lines::new(40), Vec::new());
        let mut each = |frame: Frame<'_>| texts.push(text(frame));
        body.chunks(piece.max(1)).for_each(|piece| lines.push(piece, &mut each));
        lines.finish(&mut each);
        texts
    }

    fn text(frame: Frame<'_>) -> String {
        match frame {
            Frame::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Frame::TooLong => "!".to_owned(),
        }
    }

    #[test]
    fn arrays_are_cut_into_their_objects() {
        let body = br#" [ {"a":"]},{\"\\"} , {"b":[{},[]]},{"c":"012345678901234567890123456789012345678"},{} ] "#;
        for piece in 1..body.len() {
            let (texts, done) = objects(Shape::Any, body, piece);
            assert_eq!(texts, [r#"{"a":"]},{\"\\"}"#, r#"{"b":[{},[]]}"#, "!", "{}"], "{piece}");
            done.unwrap();
        }
        assert_eq!(objects(Shape::Any, b"[]", 1), (vec![], Ok(())));
        assert_eq!(objects(Shape::One, b"{}\n", 1), (vec!["{}".to_owned()], Ok(())));
    }

    #[test]
    fn what_cannot_be_cut_is_told_with_its_place() {
        for (shape, body, texts, expected) in [
            (Shape::Any, "", 0, "there is nothing at byte 0 of the body"),
            (Shape::Any, "1", 0, "a JSON object or array has to stand here, and does not at byte 0"),
            (Shape::Many, "{}", 0, "a JSON array has to stand here"),
            (Shape::One, "[{}]", 0, "a JSON object has to stand here"),
            (Shape::Any, "[1]", 0, "an object has to stand in the array here, and does not at byte 1"),
            (Shape::Any, "[{},]", 1, "an object has to stand in the array here, and does not at byte 4"),
            (Shape::Any, "[{}{}]", 1, "a comma or the end of the array has to stand here, and does not at byte 3"),
            (Shape::Any, "{} {}", 1, "something stands behind the JSON text at byte 3"),
            (Shape::Any, "[{}", 1, "the JSON text is cut off at byte 3"),
            (Shape::Any, "{\"a\":{}", 0, "the JSON text is cut off at byte 7"),
        ] {
            let (found, done) = objects(shape, body.as_bytes(), 2);
            assert_eq!(found.len(), texts, "{body}");
            assert!(done.unwrap_err().to_string().starts_with(expected), "{body}");
        }
    }

    #[test]
    fn lines_may_end_as_they_like() {
        assert_eq!(lines(b"{}\r\n\n  \n[\nx", 3), ["{}\r", "[", "x"]);
        assert_eq!(lines(&[b'a'; 41], 7), ["!"]);
        assert_eq!(lines(&[&[b'a'; 41][..], b"\nb\n"].concat(), 7), ["!", "b"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "[\\[\\]{},\"\\\\a \n]{0,60}", piece in 1_usize..9) {
            prop_assert_eq!(objects(Shape::Any, body.as_bytes(), piece), objects(Shape::Any, body.as_bytes(), 1000));
            prop_assert_eq!(lines(body.as_bytes(), piece), lines(body.as_bytes(), 1000));
        }

        #[test]
        fn what_serde_takes_is_cut_as_serde_does(
            values in prop::collection::vec(prop::collection::btree_map("[a-c\"\\\\]{0,3}", "[ก-ฮ\"\\\\{}\\[\\],]{0,3}", 0..2), 0..5),
            piece in 1_usize..9,
        ) {
            let body = serde_json::to_string_pretty(&values).unwrap();
            let mut found: Vec<std::collections::BTreeMap<String, String>> = Vec::new();
            let mut objects = Objects::new(Shape::Many, 1000);
            for piece in body.as_bytes().chunks(piece) {
                objects.push(piece, &mut |frame| if let Frame::Text(text) = frame {
                    found.push(serde_json::from_slice(text).unwrap());
                }).unwrap();
            }
            objects.finish().unwrap();
            prop_assert_eq!(found, values);
        }
    }
}
