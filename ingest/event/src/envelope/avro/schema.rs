//! Schemas of Avro, as far as reading needs them.
//!
//! What passes through: the JSON of a schema, into nodes that refer to each other by index, so that a type may
//! contain itself. <https://avro.apache.org/docs/1.12.0/specification/#schema-declaration>

use std::collections::HashMap;

use serde_json::Value as Json;

use super::super::meaning::{MICROS, MILLIS, Meaning, NANOS};

/// The most types that a schema has in it.
const MOST_NODES: usize = 10_000;

/// How some bytes are to be read.
#[derive(Clone, Debug)]
pub struct AvroSchema {
    nodes: Vec<Node>,
    root: usize,
}

/// A text that is no schema of Avro.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a schema of Avro: {0}")]
pub struct SchemaError(pub(super) &'static str);

/// A type, and what its values stand for.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) meaning: Option<Meaning>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// So many bytes.
    Fixed(usize),
    /// Its symbols.
    Enum(Vec<Box<str>>),
    /// What its items are.
    Array(usize),
    /// What its values are.
    Map(usize),
    /// What its branches are.
    Union(Vec<usize>),
    Record(Vec<Field>),
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) node: usize,
}

impl AvroSchema {
    /// Reads the text of a schema.
    ///
    /// # Errors
    /// Where it is not one.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        Self::parse_with(&[], text)
    }

    /// Reads the text of a schema that refers to types which others declare; each of those may refer to those before.
    ///
    /// # Errors
    /// Where it is not one, or refers to what is not declared.
    pub fn parse_with(declared: &[String], text: &str) -> Result<Self, SchemaError> {
        let mut builder = Builder::default();
        for text in declared.iter().map(String::as_str) {
            builder.read(text)?;
        }
        let root = builder.read(text)?;
        Ok(Self { nodes: builder.nodes, root })
    }

    pub(super) fn root(&self) -> usize {
        self.root
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// The fields of a record; none of what is no record.
    pub(super) fn fields(&self, node: usize) -> &[Field] {
        match &self.nodes[node].kind {
            Kind::Record(fields) => fields,
            _ => &[],
        }
    }

    /// Whether it is that of Debezium's notes of where a transaction begins and ends.
    pub(super) fn is_boundary(&self) -> bool {
        let has = |name: &str| self.fields(self.root).iter().any(|field| &*field.name == name);
        ["status", "id", "event_count", "data_collections"].into_iter().all(has)
    }
}

/// The nodes so far, and those that have names.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    names: HashMap<String, usize>,
}

impl Builder {
    fn read(&mut self, text: &str) -> Result<usize, SchemaError> {
        let json = serde_json::from_str(text).map_err(|_| SchemaError("it is not JSON"))?;
        self.add(&json, "")
    }

    fn push(&mut self, kind: Kind, meaning: Option<Meaning>) -> Result<usize, SchemaError> {
        if self.nodes.len() == MOST_NODES {
            return Err(SchemaError("it has too many types"));
        }
        self.nodes.push(Node { kind, meaning });
        Ok(self.nodes.len() - 1)
    }

    fn add(&mut self, json: &Json, namespace: &str) -> Result<usize, SchemaError> {
        match json {
            Json::String(name) => self.named(name, None, namespace),
            Json::Array(branches) => {
                let branches = branches.iter().map(|branch| self.add(branch, namespace)).collect::<Result<_, _>>()?;
                self.push(Kind::Union(branches), None)
            }
            Json::Object(_) => self.add_object(json, namespace),
            _ => Err(SchemaError("a type is neither a name nor an object nor a list")),
        }
    }

    /// A primitive type, or one that has been declared.
    fn named(&mut self, name: &str, meaning: Option<Meaning>, namespace: &str) -> Result<usize, SchemaError> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
                return known.copied().ok_or(SchemaError("it names a type that is not declared"));
            }
        };
        self.push(kind, meaning)
    }

    fn add_object(&mut self, json: &Json, namespace: &str) -> Result<usize, SchemaError> {
        let kind = json.get("type").ok_or(SchemaError("a type has no `type`"))?;
        let Json::String(kind) = kind else { return self.add(kind, namespace) };
        let part = |name: &str| json.get(name).ok_or(SchemaError("a type lacks one of its parts"));
        let meaning = meaning_of(json, kind);
        let kind = match kind.as_str() {
            "array" => Kind::Array(self.add(part("items")?, namespace)?),
            "map" => Kind::Map(self.add(part("values")?, namespace)?),
            "record" | "error" | "enum" | "fixed" => {
                let name = part("name")?.as_str().ok_or(SchemaError("the name of a type is no text"))?;
                let namespace = json.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
                let name = full_name(name, namespace);
                // It is known by its name before its fields are read, which may be of it.
                let node = self.push(Kind::Null, meaning)?;
                let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
                if self.names.insert(name, node).is_some() {
                    return Err(SchemaError("it declares a name twice"));
                }
                self.nodes[node].kind = match kind.as_str() {
                    "enum" => Kind::Enum(symbols(part("symbols")?)?),
                    "fixed" => Kind::Fixed(size(part("size")?)?),
                    _ => Kind::Record(self.fields(part("fields")?, &namespace)?),
                };
                return Ok(node);
            }
            name => return self.named(name, meaning, namespace),
        };
        self.push(kind, meaning)
    }

    fn fields(&mut self, fields: &Json, namespace: &str) -> Result<Vec<Field>, SchemaError> {
        let fields = fields.as_array().ok_or(SchemaError("the fields of a record are no list"))?;
        let field = |field: &Json| {
            let name = field.get("name").and_then(Json::as_str).ok_or(SchemaError("a field has no name"))?;
            let kind = field.get("type").ok_or(SchemaError("a field has no type"))?;
            Ok(Field { name: name.into(), node: self.add(kind, namespace)? })
        };
        fields.iter().map(field).collect()
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn symbols(symbols: &Json) -> Result<Vec<Box<str>>, SchemaError> {
    let wrong = SchemaError("the symbols of an enum are no list of texts");
    let symbols = symbols.as_array().ok_or(wrong)?;
    symbols.iter().map(|symbol| symbol.as_str().map(Into::into).ok_or(wrong)).collect()
}

fn size(size: &Json) -> Result<usize, SchemaError> {
    size.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or(SchemaError("the size of a fixed type is none"))
}

/// What the values of a type stand for: as Kafka Connect says, which knows it better, or as Avro does.
fn meaning_of(json: &Json, kind: &str) -> Option<Meaning> {
    let text = |name: &str| json.get(name).and_then(Json::as_str);
    let scale = || json.get("scale").and_then(Json::as_i64);
    let parameter = || json.get("connect.parameters")?.get("scale")?.as_str()?.parse().ok();
    let connect = text("connect.name").and_then(|name| Meaning::of(name, parameter().or_else(scale)));
    connect.or_else(|| {
        Some(match (text("logicalType")?, kind) {
            ("decimal", "bytes" | "fixed") => Meaning::Decimal(scale().unwrap_or(0)),
            ("date", "int") => Meaning::Days,
            ("time-millis", "int") => Meaning::TimeOfDay(MILLIS),
            ("time-micros", "long") => Meaning::TimeOfDay(MICROS),
            ("timestamp-millis", "long") => Meaning::Instant(MILLIS),
            ("timestamp-micros", "long") => Meaning::Instant(MICROS),
            ("timestamp-nanos", "long") => Meaning::Instant(NANOS),
            ("local-timestamp-millis", "long") => Meaning::Moment(MILLIS),
            ("local-timestamp-micros", "long") => Meaning::Moment(MICROS),
            ("local-timestamp-nanos", "long") => Meaning::Moment(NANOS),
            _ => return None,
        })
    })
}
