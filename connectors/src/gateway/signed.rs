//! What an agency signs of an event.
//!
//! It is one text for all ways in which the event can be sent: the canonical form ([`canonical`]) of an object with
//! these members, each a text but for the data, and those left out that the event does not have:
//!
//! | member | of a CloudEvent | of a row |
//! |---|---|---|
//! | `data` | its data | its columns: the row without the members that begin with `_` and are named here |
//! | `dataset` | the extension | |
//! | `id` | the attribute | `_id`, which a row that is signed has to have |
//! | `sequence` | the extension | `_sequence` |
//! | `source` | the attribute | `/agency/dataset` |
//! | `time` | the attribute, as it is written | `_time`, as it is written |
//! | `type` | the attribute | the operation: `_operation`, or that of the request |
//!
//! So a signature counts for one event of one dataset, with this data, this operation and this time. Of a row of CSV,
//! the columns are texts, and what is empty is null. Other attributes, such as those that a server in between adds,
//! are not signed.
//!
//! ```text
//! {"data":{"number":"7"},"id":"a-7","source":"/bora/permit","type":"th.go.bora.insert"}
//! ```

use ruam_event::spec::Signatures;
use ruam_event::{DatasetSpec, Row, Value};
use ruam_identity::KnownSigners;

use super::canonical::{write_object, write_text, write_texts, write_value};
use super::row::is_of_itself;

/// What is signed of an event.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) data: Data<'a>,
    pub(super) dataset: Option<&'a str>,
    pub(super) id: &'a str,
    pub(super) sequence: Option<&'a str>,
    pub(super) source: &'a str,
    pub(super) time: Option<&'a str>,
    pub(super) kind: &'a str,
}

/// The data of an event.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// That of a CloudEvent, as JSON.
    Event(&'a [u8]),
    /// A row as JSON, with what it says of itself.
    JsonRow(&'a [u8]),
    /// A row of CSV.
    CsvRow(&'a Row),
}

impl<'a> Statement<'a> {
    /// The text that is signed.
    ///
    /// # Errors
    /// Where the data has no canonical form; what is told names no value.
    pub(super) fn text(&self) -> Result<Vec<u8>, String> {
        let mut text = b"{\"data\":".to_vec();
        match self.data {
            Data::Event(data) => write_value(data, &mut text),
            Data::JsonRow(row) => write_object(row, &is_of_itself, &mut text),
            Data::CsvRow(row) => {
                // What is not a text is null.
                let text_of = |value: &'a Value| if let Value::Text(text) = value { Some(text.as_str()) } else { None };
                write_texts(row.iter().map(|(name, value)| (name, text_of(value))).collect(), &mut text);
                Ok(())
            }
        }
        .map_err(|why| format!("the event cannot be signed as it is: {why}"))?;
        let members = [
            ("dataset", self.dataset),
            ("id", Some(self.id)),
            ("sequence", self.sequence),
            ("source", Some(self.source)),
            ("time", self.time),
            ("type", Some(self.kind)),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                text.push(b',');
                write_text(name, &mut text);
                text.push(b':');
                write_text(value, &mut text);
            }
        }
        text.push(b'}');
        Ok(text)
    }
}

/// Checks the signatures of a request's events.
#[derive(Debug, Default)]
pub(super) struct Signed(Option<KnownSigners>);

impl Signed {
    /// By the keys that are known; none where no dataset takes signatures.
    pub(super) fn by(known: Option<KnownSigners>) -> Self {
        Self(known)
    }

    /// The signature of an event of a dataset with what it has signed, a compact JWS; none where it is not signed and
    /// need not be.
    ///
    /// # Errors
    /// Where it has to be signed and is not, is signed and cannot be, or by no key of the agency's; what is told
    /// names no value.
    pub(super) fn check<'s>(
        &self,
        spec: &DatasetSpec,
        signature: Option<&str>,
        statement: impl FnOnce() -> Result<Statement<'s>, String>,
    ) -> Result<Option<String>, String> {
        let signature = match (spec.signatures(), signature) {
            (None | Some(Signatures::Optional), None) => return Ok(None),
            (Some(Signatures::Required), None) => {
                return Err("the event has to be signed. /openapi.json says what is signed, and how".to_owned());
            }
            (None, Some(_)) => {
                return Err("the event is signed, and its dataset takes no signatures: its file has to say signatures = \"optional\" or \"required\"".to_owned());
            }
            (Some(_), Some(signature)) => signature,
        };
        let known = self.0.as_ref().ok_or("no key to check signatures with is known here")?;
        let text = statement()?.text()?;
        known.check(spec.id().agency(), signature, &text).map(Some).map_err(|error| error.for_strangers())
    }
}

#[cfg(test)]
mod tests {
    use ruam_event::Columns;
    use ruam_identity::{PublicKey, Signers};

    use super::*;
    use crate::gateway::OPENAPI;
    use crate::gateway::cloud_event::CloudEvent;
    use crate::gateway::operation::tests::{signed_spec, spec};

    /// The key of RFC 8037, appendix A.
    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    /// The event of the OpenAPI document, what is signed of it, and its signature.
    fn example() -> [String; 3] {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let told = document["tags"][0]["description"].as_str().unwrap();
        let mut lines = told.lines().filter_map(|line| line.strip_prefix("    "));
        [(); 3].map(|()| lines.next().unwrap().to_owned())
    }

    fn signed() -> Signed {
        let folder = tempfile::tempdir().unwrap();
        let signers = Signers::open(folder.path());
        signers.add("bora", "register", PublicKey::parse(KEY).unwrap()).unwrap();
        Signed::by(Some(signers.known().unwrap()))
    }

    #[test]
    fn the_example_of_the_document_holds() {
        let [event, text, signature] = example();
        let event = CloudEvent::structured(event.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(event.statement().unwrap().text().unwrap()).unwrap(), text);
        let whole = signed().check(&signed_spec("required"), Some(&signature), || event.statement()).unwrap().unwrap();
        assert_eq!(whole.split('.').nth(2), signature.split('.').nth(2));
    }

    #[test]
    fn a_row_is_signed_as_the_event_that_it_is() {
        let columns: Columns = ["number".to_owned(), "holder".to_owned(), "note".to_owned()].into();
        let row = Row::new(columns, vec!["7".into(), "สมชาย".into(), Value::Null]);
        let json =
            r#"{"_signature":"x","_id":"a-7","note":null,"number":"7","_time":"t","holder":"สมชาย","_sequence":1}"#;
        let text = |data| {
            let (dataset, time) = (None, Some("t"));
            let statement = Statement {
                data,
                dataset,
                id: "a-7",
                sequence: Some("1"),
                source: "/bora/person",
                time,
                kind: "insert",
            };
            String::from_utf8(statement.text().unwrap()).unwrap()
        };
        let expected = r#"{"data":{"holder":"สมชาย","note":null,"number":"7"},"id":"a-7","sequence":"1","source":"/bora/person","time":"t","type":"insert"}"#;
        assert_eq!(text(Data::JsonRow(json.as_bytes())), expected);
        assert_eq!(text(Data::CsvRow(&row)), expected);
    }

    #[test]
    fn a_dataset_says_whether_its_events_are_signed() {
        let [_, _, signature] = example();
        let never = || panic!("nothing is looked at");
        assert_eq!(signed().check(&spec("append"), None, never), Ok(None));
        assert_eq!(signed().check(&signed_spec("optional"), None, never), Ok(None));
        for (spec, signature, expected) in [
            (signed_spec("required"), None, "the event has to be signed"),
            (spec("append"), Some(&*signature), "the event is signed, and its dataset takes no signatures"),
        ] {
            assert!(signed().check(&spec, signature, never).unwrap_err().starts_with(expected));
        }
        let unknown = || Err("the event has no `id`".to_owned());
        let told = signed().check(&signed_spec("optional"), Some(&signature), unknown);
        assert_eq!(told.unwrap_err(), "the event has no `id`");
    }
}
