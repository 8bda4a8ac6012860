//! Bytes of Avro, value by value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::meaning::{Meaning, write_decimal};
use super::super::{DecodeError, RowSink, Scalar, UNCHANGED};
use super::schema::{AvroSchema, Field, Kind};

/// How deep values may lie in each other.
const DEEPEST: usize = 64;
/// How many values there may be for each byte and each type of the schema. What has no bytes, such as null, could
/// otherwise be there without end.
const VALUES_PER_BYTE: usize = 16;

/// How far bytes are read.
pub(super) struct Reader<'a, 's> {
    schema: &'s AvroSchema,
    bytes: &'a [u8],
    at: usize,
    /// How many values may still come.
    budget: usize,
    /// The text of a value that is written otherwise than it stands there.
    written: String,
}

impl<'a, 's> Reader<'a, 's> {
    pub(super) fn new(schema: &'s AvroSchema, bytes: &'a [u8]) -> Self {
        let budget = (bytes.len() + schema.len()) * VALUES_PER_BYTE;
        Self { schema, bytes, at: 0, budget, written: String::new() }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn go_back(&mut self, at: usize) {
        self.at = at;
    }

    /// Whether all is read.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong("there is more than the schema has")) }
    }

    fn wrong(&self, what: &'static str) -> DecodeError {
        DecodeError::NotAsSchema { what, at: self.at }
    }

    fn spend(&mut self) -> Result<(), DecodeError> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| self.wrong("there are values without end"))?;
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| self.wrong("the bytes end within a value"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| self.wrong("the bytes end within a value"))
    }

    /// A whole number: seven bits a byte, the lowest first, its sign in the lowest of all.
    fn long(&mut self) -> Result<i64, DecodeError> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            bits |= part << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(self.wrong("a number is too long"))
    }

    fn int(&mut self) -> Result<i64, DecodeError> {
        let long = self.long()?;
        if i32::try_from(long).is_ok() { Ok(long) } else { Err(self.wrong("a number is too large for its type")) }
    }

    fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| self.wrong("a length is below zero"))?;
        self.take(length)
    }

    fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.sized()?).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(self.wrong("a boolean is neither 0 nor 1")),
        }
    }

    fn symbol(&mut self, symbols: &'s [Box<str>]) -> Result<&'s str, DecodeError> {
        let index = usize::try_from(self.long()?).ok();
        let symbol = index.and_then(|index| symbols.get(index));
        symbol.map(|symbol| &**symbol).ok_or_else(|| self.wrong("an enum has no such symbol"))
    }

    /// The type that a value has, which a union chooses.
    fn resolve(&mut self, mut node: usize) -> Result<usize, DecodeError> {
        while let Kind::Union(branches) = &self.schema.node(node).kind {
            self.spend()?;
            let index = usize::try_from(self.long()?).ok();
            let branch = index.and_then(|index| branches.get(index));
            node = *branch.ok_or_else(|| self.wrong("a union has no such branch"))?;
        }
        Ok(node)
    }

    /// The fields of a record that comes next; none where something else comes, which is passed over.
    pub(super) fn record(&mut self, node: usize) -> Result<Option<&'s [Field]>, DecodeError> {
        let node = self.resolve(node)?;
        if let Kind::Record(fields) = &self.schema.node(node).kind {
            return Ok(Some(fields));
        }
        self.skip(node)?;
        Ok(None)
    }

    /// A text or symbol that comes next; none where something else comes, which is passed over.
    pub(super) fn text(&mut self, node: usize) -> Result<Option<&'s str>, DecodeError>
    where
        'a: 's,
    {
        let node = self.resolve(node)?;
        match &self.schema.node(node).kind {
            Kind::String => self.string().map(Some),
            Kind::Enum(symbols) => self.symbol(symbols).map(Some),
            _ => self.skip(node).map(|()| None),
        }
    }

    /// The time of the change, in microseconds; Debezium gives it in up to three units.
    pub(super) fn source_time(&mut self, node: usize) -> Result<Option<i64>, DecodeError> {
        let (mut millis, mut micros) = (None, None);
        for field in self.record(node)?.unwrap_or_default() {
            let unit = match &*field.name {
                "ts_ms" => &mut millis,
                "ts_us" => &mut micros,
                _ => {
                    self.skip(field.node)?;
                    continue;
                }
            };
            let node = self.resolve(field.node)?;
            match self.schema.node(node).kind {
                Kind::Long => *unit = Some(self.long()?),
                _ => self.skip(node)?,
            }
        }
        Ok(micros.or_else(|| millis.and_then(|millis: i64| millis.checked_mul(1000))))
    }

    pub(super) fn read_row(&mut self, fields: &'s [Field], sink: &mut impl RowSink) -> Result<(), DecodeError> {
        for field in fields {
            if sink.wants_more() {
                self.read_column(field, sink)?;
            } else {
                self.skip(field.node)?;
            }
        }
        Ok(())
    }

    fn read_column(&mut self, field: &Field, sink: &mut impl RowSink) -> Result<(), DecodeError> {
        self.spend()?;
        let index = self.resolve(field.node)?;
        let schema = self.schema;
        let node = schema.node(index);
        let mut written = std::mem::take(&mut self.written);
        written.clear();
        let mut digits = itoa::Buffer::new();
        let value = match &node.kind {
            Kind::Null => Scalar::Null,
            Kind::Boolean => Scalar::Bool(self.boolean()?),
            Kind::Int | Kind::Long => {
                let count = if matches!(node.kind, Kind::Int) { self.int()? } else { self.long()? };
                match node.meaning.and_then(|meaning| meaning.write_count(count, &mut written)) {
                    Some(()) => Scalar::Text(&written),
                    None => Scalar::Number(digits.format(count)),
                }
            }
            Kind::Float => float(f32::from_le_bytes(self.array()?), f32::is_finite, &mut written),
            Kind::Double => float(f64::from_le_bytes(self.array()?), f64::is_finite, &mut written),
            Kind::String => match (self.string()?, node.meaning) {
                (UNCHANGED, _) => Scalar::Unchanged,
                (text, Some(Meaning::Zoneless)) => Scalar::Text(text.strip_suffix('Z').unwrap_or(text)),
                (text, _) => Scalar::Text(text),
            },
            Kind::Enum(symbols) => Scalar::Text(self.symbol(symbols)?),
            Kind::Bytes => bytes(self.sized()?, node.meaning, &mut written),
            Kind::Fixed(size) => bytes(self.take(*size)?, node.meaning, &mut written),
            Kind::Record(fields) if node.meaning == Some(Meaning::AnyDecimal) => {
                match self.any_decimal(fields, &mut written)? {
                    Some(()) => Scalar::Number(&written),
                    None => Scalar::Nested(""),
                }
            }
            Kind::Array(_) | Kind::Map(_) | Kind::Record(_) | Kind::Union(_) => {
                self.skip(index)?;
                Scalar::Nested("")
            }
        };
        sink.column(&field.name, value);
        self.written = written;
        Ok(())
    }

    /// A number that says itself how many of its digits stand behind the point.
    fn any_decimal(&mut self, fields: &'s [Field], out: &mut String) -> Result<Option<()>, DecodeError> {
        let (mut scale, mut digits) = (None, None);
        for field in fields {
            let node = self.resolve(field.node)?;
            match (&*field.name, &self.schema.node(node).kind) {
                ("scale", Kind::Int) => scale = Some(self.int()?),
                ("value", Kind::Bytes) => digits = Some(self.sized()?),
                _ => self.skip(node)?,
            }
        }
        Ok(scale.zip(digits).and_then(|(scale, digits)| write_decimal(digits, scale, out)))
    }

    pub(super) fn skip(&mut self, node: usize) -> Result<(), DecodeError> {
        self.skip_at(node, DEEPEST)
    }

    fn skip_at(&mut self, node: usize, deeper: usize) -> Result<(), DecodeError> {
        self.spend()?;
        let deeper = deeper.checked_sub(1).ok_or_else(|| self.wrong("values lie too deep in each other"))?;
        let node = self.resolve(node)?;
        let schema = self.schema;
        match &schema.node(node).kind {
            Kind::Null | Kind::Union(_) => Ok(()),
            Kind::Boolean => self.boolean().map(drop),
            Kind::Int => self.int().map(drop),
            Kind::Long => self.long().map(drop),
            Kind::Float => self.take(4).map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Bytes => self.sized().map(drop),
            Kind::String => self.string().map(drop),
            Kind::Fixed(size) => self.take(*size).map(drop),
            Kind::Enum(symbols) => self.symbol(symbols).map(drop),
            Kind::Array(items) => self.skip_blocks(|reader| reader.skip_at(*items, deeper)),
            Kind::Map(values) => self.skip_blocks(|reader| {
                reader.string()?;
                reader.skip_at(*values, deeper)
            }),
            Kind::Record(fields) => fields.iter().try_for_each(|field| self.skip_at(field.node, deeper)),
        }
    }

    /// Items come in blocks, each after its number of items; where that is below zero, its size comes, too.
    fn skip_blocks(&mut self, item: impl Fn(&mut Self) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }
}

/// A number with as many digits as tell it from others, or the name of what is no number.
fn float<'w, T: std::fmt::Display + Copy>(number: T, is_finite: impl Fn(T) -> bool, out: &'w mut String) -> Scalar<'w> {
    use std::fmt::Write;

    // Writing to a text cannot fail.
    let _ = write!(out, "{number}");
    if is_finite(number) {
        return Scalar::Number(out);
    }
    Scalar::Text(match out.as_str() {
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        other => other,
    })
}

/// Bytes as what they stand for; as in JSON, in Base64 where that is nothing else.
fn bytes<'w>(bytes: &[u8], meaning: Option<Meaning>, out: &'w mut String) -> Scalar<'w> {
    if bytes == UNCHANGED.as_bytes() {
        return Scalar::Unchanged;
    }
    if let Some(Meaning::Decimal(scale)) = meaning
        && write_decimal(bytes, scale, out).is_some()
    {
        return Scalar::Number(out);
    }
    STANDARD.encode_string(bytes, out);
    Scalar::Text(out)
}
