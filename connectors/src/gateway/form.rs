//! What a body is made of, by its content type: pieces of it in, events out.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use ruam_door::Problem;
use ruam_event::DatasetId;
use ruam_event::change::Op;

use super::cloud_event::CloudEvent;
use super::csv::{CsvReader, CsvRow};
use super::frames::{Frame, Lines, Objects, Shape};
use super::intake::SentEvent;
use super::operation::{WORDS, change, check_name, micros, sequence};
use super::row::{RowReader, SentRow, utf8};
use super::signed::{Data, Signed, Statement};
use super::{Offered, Offers};

/// An event of a body; where it is none that can be stored, why.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it belongs; none where that cannot be told.
    pub(super) dataset: Option<Arc<Offered>>,
    pub(super) id: Option<Arc<str>>,
    /// How many bytes it has.
    pub(super) size: usize,
    pub(super) event: Result<SentEvent, String>,
}

/// Whether whoever sends may send events of an agency.
pub(super) type May<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// Reads bodies of CloudEvents.
pub(super) struct Events<'a> {
    pub(super) objects: Objects,
    pub(super) reader: EventReader<'a>,
}

/// Reads single CloudEvents.
pub(super) struct EventReader<'a> {
    offers: &'a Offers,
    may: May<'a>,
    signed: Signed,
    rows: RowReader,
    /// Where the event before belonged; most belong where it did.
    before: Option<Origin>,
}

/// What says to which dataset events belong, and that dataset.
struct Origin {
    source: Arc<str>,
    dataset: Option<String>,
    offered: Arc<Offered>,
}

impl<'a> EventReader<'a> {
    pub(super) fn new(offers: &'a Offers, may: May<'a>, signed: Signed) -> Self {
        Self { offers, may, signed, rows: RowReader::default(), before: None }
    }

    fn structured(&mut self, frame: Frame<'_>, most: usize) -> Item {
        match frame {
            Frame::TooLong => Item::refused(None, most, format!("the event has more than {most} bytes")),
            Frame::Text(text) => self.read(CloudEvent::structured(text), text.len()),
        }
    }

    pub(super) fn read(&mut self, event: Result<CloudEvent<'_>, String>, size: usize) -> Item {
        let event = match event {
            Ok(event) => event,
            Err(why) => return Item::refused(None, size, why),
        };
        let id: Option<Arc<str>> = event.id.as_deref().filter(|id| check_name(id, "id").is_ok()).map(Arc::from);
        let (source, offered) = match self.origin(&event) {
            Ok(origin) => (origin.source.clone(), origin.offered.clone()),
            Err(why) => return Item::refused(id, size, why),
        };
        let signature = self.signed.check(&offered.spec, event.signature.as_deref(), || event.statement());
        let event = signature.and_then(|signature| {
            let (attributes, data) = event.read()?;
            let row =
                self.rows.read(&data)?.row.unwrap_or_else(|| ruam_event::Row::new(Default::default(), Vec::new()));
            let change = change(attributes.operation, &row, &offered.spec)?;
            let id = id.clone().unwrap_or_else(|| attributes.id.into());
            Ok(SentEvent { source, id, time: attributes.time, change, sequence: attributes.sequence, signature })
        });
        Item { dataset: Some(offered), id, size, event }
    }

    /// Where an event belongs.
    ///
    /// # Errors
    /// Where it does not say, or may not be sent there.
    fn origin(&mut self, event: &CloudEvent<'_>) -> Result<&Origin, String> {
        let (source, dataset) = (event.source.as_deref().unwrap_or_default(), event.dataset.as_deref());
        let is_same = self
            .before
            .as_ref()
            .is_some_and(|before| &*before.source == source && before.dataset.as_deref() == dataset);
        let before = match self.before.take().filter(|_| is_same) {
            Some(before) => before,
            None => {
                let offered = self.offered(&event.dataset()?)?;
                Origin { source: source.into(), dataset: dataset.map(str::to_owned), offered }
            }
        };
        Ok(self.before.insert(before))
    }

    fn offered(&self, dataset: &DatasetId) -> Result<Arc<Offered>, String> {
        if !(self.may)(dataset.agency()) {
            return Err(format!("you may not send events of `{}`", dataset.agency()));
        }
        self.offers
            .get(dataset)
            .cloned()
            .ok_or_else(|| format!("there is no dataset `{dataset}` that takes events here"))
    }
}

/// Reads bodies of rows.
pub(super) struct Rows {
    texts: RowTexts,
    reader: RowReader,
    rest: RowContext,
}

enum RowTexts {
    Lines(Lines),
    Objects(Objects),
    Csv(Box<CsvReader>),
}

/// What rows have in common.
struct RowContext {
    offered: Arc<Offered>,
    signed: Signed,
    source: Arc<str>,
    /// What happened to rows that do not say.
    operation: Op,
    /// What the ids of rows begin with that have none.
    request: String,
    /// How many rows have come.
    number: u64,
    most: usize,
}

impl Rows {
    /// Rows of a dataset, as the content type has them. `request` names the request, so that rows without an id
    /// can be told apart; `most`: the most bytes of a row.
    ///
    /// # Errors
    /// Where the content type is not known.
    pub(super) fn new(
        offered: Arc<Offered>,
        signed: Signed,
        headers: &HeaderMap,
        operation: Op,
        request: String,
        most: usize,
    ) -> Result<Self, Problem> {
        let (media, charset) = content_type(headers);
        let texts = match media.as_str() {
            "application/json" => RowTexts::Objects(Objects::new(Shape::Any, most)),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => RowTexts::Lines(Lines::new(most)),
            "text/csv" => {
                let reader = CsvReader::new(charset.as_deref(), most);
                RowTexts::Csv(Box::new(reader.map_err(|why| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))?))
            }
            _ => {
                let told = "rows come as application/json, application/x-ndjson or text/csv. Say which in the header content-type";
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, told));
            }
        };
        let id = offered.spec.id();
        let source = format!("/{}/{}", id.agency(), id.name()).into();
        let rest = RowContext { offered, signed, source, operation, request, number: 0, most };
        Ok(Self { texts, reader: RowReader::default(), rest })
    }
}

impl RowContext {
    fn of_frame(&mut self, frame: Frame<'_>, reader: &mut RowReader) -> Item {
        match frame {
            Frame::TooLong => self.item(Err(format!("the row has more than {} bytes", self.most)), None, self.most),
            Frame::Text(text) => self.item(utf8(text).and_then(|text| reader.read(text)), Some(text), text.len()),
        }
    }

    /// A row, which may have come as a text of JSON.
    fn item(&mut self, row: Result<SentRow, String>, text: Option<&[u8]>, size: usize) -> Item {
        self.number += 1;
        let named = row.as_ref().ok().and_then(|row| row.id.as_deref());
        let id: Arc<str> = match named {
            Some(named) => named.into(),
            None => format!("{}/{}", self.request, self.number).into(),
        };
        let event = row.and_then(|row| self.event(row, text, &id));
        let id = Some(id).filter(|id| check_name(id, "id").is_ok());
        Item { dataset: Some(self.offered.clone()), id, size, event }
    }

    fn event(&self, sent: SentRow, text: Option<&[u8]>, id: &Arc<str>) -> Result<SentEvent, String> {
        check_name(id, "_id")?;
        let operation = match sent.operation.as_deref() {
            None => self.operation,
            Some(word) => Op::from_word(word).ok_or_else(|| format!("`_operation` has to be {WORDS}"))?,
        };
        let row = sent.row.unwrap_or_else(|| ruam_event::Row::new(Default::default(), Vec::new()));
        let statement = || {
            if sent.id.is_none() {
                return Err("a row that is signed has to have `_id`, which is signed with it".to_owned());
            }
            Ok(Statement {
                data: text.map_or(Data::CsvRow(&row), Data::JsonRow),
                dataset: None,
                id,
                sequence: sent.sequence.as_deref(),
                source: &self.source,
                time: sent.time.as_deref(),
                kind: operation.word(),
            })
        };
        let signature = self.signed.check(&self.offered.spec, sent.signature.as_deref(), statement)?;
        Ok(SentEvent {
            source: self.source.clone(),
            id: id.clone(),
            time: sent.time.as_deref().map(micros).transpose()?,
            change: change(operation, &row, &self.offered.spec)?,
            sequence: sent.sequence.as_deref().map(sequence).transpose()?,
            signature,
        })
    }
}

impl Item {
    fn refused(id: Option<Arc<str>>, size: usize, why: String) -> Self {
        Self { dataset: None, id, size, event: Err(why) }
    }
}

/// What cuts a body into events.
pub(super) trait Form: Send {
    /// Takes a piece of the body; adds the events that it ends.
    ///
    /// # Errors
    /// Where nothing more can be read.
    fn push(&mut self, piece: &[u8], items: &mut Vec<Item>) -> Result<(), String>;

    /// Adds the last event, if one is left.
    ///
    /// # Errors
    /// Where the body is not complete.
    fn finish(&mut self, items: &mut Vec<Item>) -> Result<(), String>;
}

impl Form for Events<'_> {
    fn push(&mut self, piece: &[u8], items: &mut Vec<Item>) -> Result<(), String> {
        let (reader, most) = (&mut self.reader, self.objects.most());
        let pushed = self.objects.push(piece, &mut |frame| items.push(reader.structured(frame, most)));
        pushed.map_err(|error| error.to_string())
    }

    fn finish(&mut self, _: &mut Vec<Item>) -> Result<(), String> {
        self.objects.finish().map_err(|error| error.to_string())
    }
}

impl Form for Rows {
    fn push(&mut self, piece: &[u8], items: &mut Vec<Item>) -> Result<(), String> {
        let Self { texts, reader, rest } = self;
        match texts {
            RowTexts::Lines(lines) => {
                lines.push(piece, &mut |frame| items.push(rest.of_frame(frame, reader)));
                Ok(())
            }
            RowTexts::Objects(objects) => {
                let pushed = objects.push(piece, &mut |frame| items.push(rest.of_frame(frame, reader)));
                pushed.map_err(|error| error.to_string())
            }
            RowTexts::Csv(csv) => csv.push(piece, &mut |row: CsvRow, size| items.push(rest.item(row, None, size))),
        }
    }

    fn finish(&mut self, items: &mut Vec<Item>) -> Result<(), String> {
        let Self { texts, reader, rest } = self;
        match texts {
            RowTexts::Lines(lines) => {
                lines.finish(&mut |frame| items.push(rest.of_frame(frame, reader)));
                Ok(())
            }
            RowTexts::Objects(objects) => objects.finish().map_err(|error| error.to_string()),
            RowTexts::Csv(csv) => csv.finish(&mut |row, size| items.push(rest.item(row, None, size))),
        }
    }
}

/// The media type of a body, in small letters, and its charset.
pub(super) fn content_type(headers: &HeaderMap) -> (String, Option<String>) {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset =
        parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    (media, charset.map(|(_, value)| value.trim().trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::operation::tests::spec;
    use axum::http::HeaderValue;

    fn offered(mode: &str) -> Arc<Offered> {
        Arc::new(Offered { spec: Arc::new(spec(mode)), schema: serde_json::Value::Null })
    }

    fn read(form: &mut dyn Form, body: &[u8]) -> Vec<Result<SentEvent, String>> {
        let mut items = Vec::new();
        for piece in body.chunks(3) {
            form.push(piece, &mut items).unwrap();
        }
        form.finish(&mut items).unwrap();
        items.into_iter().map(|item| item.event).collect()
    }

    fn rows(media: &'static str, body: &[u8]) -> Vec<Result<SentEvent, String>> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
        let form = Rows::new(offered("upsert"), Signed::default(), &headers, Op::Insert, "r".to_owned(), 1000);
        read(&mut form.unwrap(), body)
    }

    #[test]
    fn each_form_says_the_same() {
        let json = br#"[{"code":"1","name":"a"},{"_id":"x","_operation":"delete","code":"2"},{"name":"b"}]"#;
        let lines = b"{\"code\":\"1\",\"name\":\"a\"}\n{\"code\":\"2\",\"_id\":\"x\",\"_operation\":\"delete\"}\n{\"name\":\"b\"}";
        let csv = b"_id,_operation,code,name\n,,1,a\nx,delete,2,\n,,,b\n";
        let expected = rows("application/json", json);
        let ids: Vec<_> =
            expected.iter().map(|row| row.as_ref().map(|event| &*event.id).map_err(String::as_str)).collect();
        assert_eq!(ids, [Ok("r/1"), Ok("x"), Err("the key column `code` has no value")]);
        assert_eq!(rows("application/x-ndjson", lines), expected);
        assert_eq!(rows("text/csv; charset=utf-8", csv), expected);
    }

    #[test]
    fn events_go_where_their_sender_may_send() {
        let offers = Offers::from([(spec("upsert").id().clone(), offered("upsert"))]);
        let event = |source: &str| {
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"{source}\",\"type\":\"insert\",\"data\":{{\"code\":\"1\"}}}}"
            )
        };
        let body = format!("[{},{},{}]", event("/bora/person"), event("/cgd/payment"), event("/bora/payment"));
        let reader = EventReader::new(&offers, &|agency| agency == "bora", Signed::default());
        let mut form = Events { objects: Objects::new(Shape::Many, 1000), reader };
        let found: Vec<_> = read(&mut form, body.as_bytes())
            .into_iter()
            .map(|event| event.map(|event| event.source.to_string()))
            .collect();
        assert_eq!(
            found,
            [
                Ok("/bora/person".to_owned()),
                Err("you may not send events of `cgd`".to_owned()),
                Err("there is no dataset `bora.payment` that takes events here".to_owned()),
            ]
        );
    }
}
