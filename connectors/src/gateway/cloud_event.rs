//! An event of CloudEvents 1.0: structured, as one JSON object, or binary, as the headers and the body of a request.
//!
//! What says to which dataset it belongs is the extension `dataset` (`bora.person`), or without it `source`, where
//! its path ends in `/agency/dataset`. What has happened is the last part of `type`: `th.go.bora.person.update`.
//! The data is the row after it, or for a delete the key.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>, its JSON format and its HTTP binding.

use std::borrow::Cow;
use std::ops::Range;

use jiter::{Jiter, Peek};
use ruam_event::DatasetId;
use ruam_event::change::Op;

use super::operation::{WORDS, check_name, micros, sequence};
use super::row::{check_nesting, not_json, utf8};
use super::signed::{Data, Statement};

/// What is read of an event. Other extensions are let pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CloudEvent<'a> {
    specversion: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    pub(super) dataset: Option<Cow<'a, str>>,
    sequence: Option<Cow<'a, str>>,
    sequence_type: Option<Cow<'a, str>>,
    pub(super) signature: Option<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
}

/// An event whose attributes hold together.
#[derive(Debug, PartialEq)]
pub(super) struct Attributes<'a> {
    pub(super) source: Cow<'a, str>,
    pub(super) id: Cow<'a, str>,
    pub(super) time: Option<i64>,
    pub(super) operation: Op,
    pub(super) sequence: Option<u64>,
}

#[derive(Clone, Copy)]
enum Member {
    SpecVersion,
    Id,
    Source,
    Type,
    Time,
    ContentType,
    Dataset,
    Sequence,
    SequenceType,
    Signature,
    Data,
    DataBase64,
    Other,
}

impl Member {
    fn of(name: &str) -> Self {
        match name {
            "specversion" => Self::SpecVersion,
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "time" => Self::Time,
            "datacontenttype" => Self::ContentType,
            "dataset" => Self::Dataset,
            "sequence" => Self::Sequence,
            "sequencetype" => Self::SequenceType,
            "signature" => Self::Signature,
            "data" => Self::Data,
            "data_base64" => Self::DataBase64,
            _ => Self::Other,
        }
    }
}

impl<'a> CloudEvent<'a> {
    /// Reads an event in structured mode.
    ///
    /// # Errors
    /// Where the text is none.
    pub(super) fn structured(text: &'a [u8]) -> Result<Self, String> {
        check_nesting(text)?;
        let text = utf8(text)?;
        let mut json = Jiter::new(text.as_bytes());
        let mut event = Self::default();
        let mut data = None::<Range<usize>>;
        let mut next = json.next_object().map_err(not_json)?.map(Member::of);
        while let Some(member) = next {
            let peek = json.peek().map_err(not_json)?;
            let start = json.current_index();
            let attribute = match member {
                Member::SpecVersion => Some(&mut event.specversion),
                Member::Id => Some(&mut event.id),
                Member::Source => Some(&mut event.source),
                Member::Type => Some(&mut event.kind),
                Member::Time => Some(&mut event.time),
                Member::ContentType => Some(&mut event.content_type),
                Member::Dataset => Some(&mut event.dataset),
                Member::Sequence => Some(&mut event.sequence),
                Member::SequenceType => Some(&mut event.sequence_type),
                Member::Signature => Some(&mut event.signature),
                Member::Data | Member::DataBase64 | Member::Other => None,
            };
            match (attribute, peek) {
                (Some(_), Peek::Null) => json.next_skip().map_err(not_json)?,
                (Some(attribute), Peek::String) => {
                    json.known_bytes().map_err(not_json)?;
                    let quoted = text.get(start..json.current_index()).unwrap_or_default();
                    if attribute.replace(unquoted(quoted)?).is_some() {
                        return Err("an attribute of the event comes twice".to_owned());
                    }
                }
                (Some(_), _) => return Err("an attribute of the event is not a text".to_owned()),
                (None, _) => json.next_skip().map_err(not_json)?,
            }
            match (member, peek) {
                (Member::Data, _) if data.replace(start..json.current_index()).is_some() => {
                    return Err("`data` comes twice".to_owned());
                }
                (Member::DataBase64, peek) if peek != Peek::Null => {
                    return Err("the row has to be in `data`, as a JSON object, and not in `data_base64`".to_owned());
                }
                _ => {}
            }
            next = json.next_key().map_err(not_json)?.map(Member::of);
        }
        json.finish().map_err(not_json)?;
        event.data = data.and_then(|range| text.get(range)).map(Cow::Borrowed);
        Ok(event)
    }

    /// Reads an event in binary mode: `header` gives the value of a header, `body` is its data.
    ///
    /// # Errors
    /// Where a header is not as the binding has it.
    pub(super) fn binary<'h>(header: impl Fn(&str) -> Option<&'h [u8]>, body: &'a [u8]) -> Result<Self, String> {
        let text = |name| header(name).map(|value| percent_decoded(value).map(Cow::Owned)).transpose();
        Ok(Self {
            specversion: text("ce-specversion")?,
            id: text("ce-id")?,
            source: text("ce-source")?,
            kind: text("ce-type")?,
            time: text("ce-time")?,
            content_type: text("content-type")?,
            dataset: text("ce-dataset")?,
            sequence: text("ce-sequence")?,
            sequence_type: text("ce-sequencetype")?,
            signature: text("ce-signature")?,
            data: Some(Cow::Borrowed(utf8(body)?)),
        })
    }

    /// The dataset that the event belongs to.
    ///
    /// # Errors
    /// Where it does not say.
    pub(super) fn dataset(&self) -> Result<DatasetId, String> {
        if let Some(named) = &self.dataset {
            return named.parse().map_err(|_| "`dataset` does not name a dataset: write agency.dataset".to_owned());
        }
        let path = self.source.as_deref().unwrap_or_default().trim_end_matches('/');
        let mut parts = path.rsplit('/');
        let named = match (parts.next(), parts.next()) {
            (Some(name), Some(agency)) => format!("{agency}.{name}").parse().ok(),
            _ => None,
        };
        named.ok_or_else(|| {
            "the event does not say to which dataset it belongs: let `source` end in /agency/dataset, or add the extension `dataset`".to_owned()
        })
    }

    /// What its agency signs of it.
    ///
    /// # Errors
    /// Where that is missing.
    pub(super) fn statement(&self) -> Result<Statement<'_>, String> {
        Ok(Statement {
            data: Data::Event(self.data.as_deref().map(str::as_bytes).ok_or_else(|| missing("data"))?),
            dataset: self.dataset.as_deref(),
            id: self.id.as_deref().ok_or_else(|| missing("id"))?,
            sequence: self.sequence.as_deref(),
            source: self.source.as_deref().ok_or_else(|| missing("source"))?,
            time: self.time.as_deref(),
            kind: self.kind.as_deref().ok_or_else(|| missing("type"))?,
        })
    }

    /// Its number among the events of its source. A sequence of CloudEvents need not be one of numbers.
    fn number(&self) -> Result<Option<u64>, String> {
        match (self.sequence.as_deref().map(sequence), self.sequence_type.as_deref()) {
            (None, _) | (Some(Err(_)), None) => Ok(None),
            (Some(number), None | Some("Integer")) => number.map(Some),
            (Some(_), Some(_)) => Ok(None),
        }
    }

    /// What else it says, and its row as JSON.
    ///
    /// # Errors
    /// Where something is missing, or is not what it has to be.
    pub(super) fn read(self) -> Result<(Attributes<'a>, Cow<'a, str>), String> {
        let sequence = self.number()?;
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(_) => return Err("`specversion` is not 1.0".to_owned()),
            None => return Err(missing("specversion")),
        }
        let (id, source) = (self.id.ok_or_else(|| missing("id"))?, self.source.ok_or_else(|| missing("source"))?);
        check_name(&id, "id")?;
        check_name(&source, "source")?;
        let kind = self.kind.ok_or_else(|| missing("type"))?;
        let operation = Op::from_word(kind.rsplit('.').next().unwrap_or_default())
            .ok_or_else(|| format!("`type` has to end in what has happened: {WORDS}, behind a point"))?;
        let time = self.time.as_deref().map(micros).transpose()?;
        let media = self.content_type.as_deref().and_then(|kind| kind.split(';').next()).unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        if !(media.is_empty() || media == "application/json" || media.ends_with("+json")) {
            return Err("the data has to be application/json".to_owned());
        }
        let data = self.data.ok_or_else(|| missing("data"))?;
        Ok((Attributes { source, id, time, operation, sequence }, data))
    }
}

fn missing(name: &str) -> String {
    format!("the event has no `{name}`")
}

/// What a JSON string stands for, which the parser has found to be well formed.
fn unquoted(quoted: &str) -> Result<Cow<'_, str>, String> {
    let within = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if memchr::memchr(b'\\', within.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(within));
    }
    let text = Jiter::new(quoted.as_bytes()).next_str().map(str::to_owned);
    text.map(Cow::Owned).map_err(not_json)
}

/// The text of a header, in which what is not ASCII is written as %XX (section 3.1.3.2 of the binding).
fn percent_decoded(value: &[u8]) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "a header of the event is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"A-1","source":"https://a.go.th/systems/bora/person/","type":"th.go.bora.update",
        "time":"1970-01-01T00:00:01Z","datacontenttype":"application/json","traceparent":"x","data": {"code":"1"} }"#;

    fn read(text: &str) -> Result<(DatasetId, Attributes<'_>, String), String> {
        let event = CloudEvent::structured(text.as_bytes())?;
        let dataset = event.dataset()?;
        let (attributes, data) = event.read()?;
        Ok((dataset, attributes, data.into_owned()))
    }

    #[test]
    fn structured_events_are_read() {
        let (dataset, attributes, data) = read(EVENT).unwrap();
        assert_eq!((dataset.to_string().as_str(), data.as_str()), ("bora.person", r#"{"code":"1"}"#));
        assert_eq!((&*attributes.id, attributes.time, attributes.operation), ("A-1", Some(1_000_000), Op::Update));
        for (sequence, expected) in [
            (r#""sequence":"17""#, Some(17)),
            (r#""sequence":"017","sequencetype":"Integer""#, Some(17)),
            (r#""sequence":"0/16B3748""#, None),
            (r#""sequence":"17","sequencetype":"Timestamp""#, None),
            (r#""sequence":null"#, None),
        ] {
            let event = EVENT.replace("\"id\"", &format!("{sequence},\"id\""));
            assert_eq!(read(&event).unwrap().1.sequence, expected, "{sequence}");
        }
        let named = EVENT.replace("\"id\"", "\"dataset\":\"dopa.area\",\"id\"");
        assert_eq!(read(&named).unwrap().0.to_string(), "dopa.area");
    }

    #[test]
    fn binary_events_are_read() {
        let header = |name: &str| match name {
            "ce-specversion" => Some("1.0"),
            "ce-id" => Some("%E0%B8%81-1%"),
            "ce-source" => Some("/bora/person"),
            "ce-type" => Some("delete"),
            "content-type" => Some("Application/JSON; charset=utf-8"),
            _ => None,
        };
        let event = CloudEvent::binary(|name| header(name).map(str::as_bytes), b"{}").unwrap();
        assert_eq!(event.dataset().unwrap().to_string(), "bora.person");
        let (attributes, data) = event.read().unwrap();
        assert_eq!((&*attributes.id, attributes.operation, &*data), ("ก-1%", Op::Delete, "{}"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (from, to, expected) in [
            ("\"1.0\"", "\"0.3\"", "`specversion` is not 1.0"),
            ("\"specversion\"", "\"x\"", "the event has no `specversion`"),
            ("\"id\":\"A-1\"", "\"id\":7", "an attribute of the event is not a text"),
            ("\"id\":\"A-1\"", "\"id\":\"\"", "the id has to have 1 to 256 bytes"),
            ("\"id\":\"A-1\"", "\"id\":\"A-1\",\"id\":\"A-2\"", "an attribute of the event comes twice"),
            (".update", ".truncate", "`type` has to end in what has happened: insert, update"),
            ("/systems/bora/person/", "/", "the event does not say to which dataset it belongs"),
            ("1970-01-01T00:00:01Z", "yesterday", "the time is not one of RFC 3339"),
            ("application/json", "text/xml", "the data has to be application/json"),
            ("\"data\":", "\"data_base64\":", "the row has to be in `data`"),
            ("\"traceparent\":\"x\"", "\"signature\":7", "an attribute of the event is not a text"),
            (
                "\"traceparent\":\"x\"",
                "\"sequence\":\"x\",\"sequencetype\":\"Integer\"",
                "the number in the sequence has to have 1 to 18 decimal digits",
            ),
            ("\"data\":", "\"dat\":", "the event has no `data`"),
            ("} }", "} ", "not JSON: EOF"),
        ] {
            let error = read(&EVENT.replace(from, to)).unwrap_err();
            assert!(error.starts_with(expected), "{from}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\{(\"(id|source|type|data|x)\":(\"[a.\\\\]{0,3}\"|1|\\{\\}|null),?){0,4}\\}|.{0,40}") {
            let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
            prop_assert!(CloudEvent::structured(text.as_bytes()).is_err() || is_object);
        }

        #[test]
        fn no_header_breaks_the_decoder(value in prop::collection::vec(any::<u8>(), 0..20), text in "\\PC{0,12}") {
            let _ = percent_decoded(&value);
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), Ok(text));
        }
    }
}
