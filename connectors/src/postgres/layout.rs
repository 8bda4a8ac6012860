//! How rows as the server brings them become rows of the dataset.

use std::borrow::Cow;
use std::collections::HashSet;

use ruam_event::spec::UnknownColumns;
use ruam_event::{Columns, DatasetSpec, Row, Value};

use super::copied::Copied;
use super::pgoutput::Datum;
use super::values::{Kind, value};

/// Which columns a dataset wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// None: all there are, so that one that is not declared is seen.
    declared: Option<HashSet<String>>,
}

impl Wanted {
    pub(super) fn of(spec: &DatasetSpec) -> Self {
        let names = || spec.columns.iter().map(|column| column.name().to_owned()).collect();
        Self { declared: (spec.unknown_columns == UnknownColumns::Ignore).then(names) }
    }

    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self { declared: None }
    }

    fn has(&self, name: &str) -> bool {
        self.declared.as_ref().is_none_or(|declared| declared.contains(name))
    }
}

/// The order of columns in which rows come, and what is made of them.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// All columns, in the order in which rows come.
    names: Vec<String>,
    /// The columns that go on, with their places, which grow, and kinds.
    columns: Columns,
    fields: Vec<(usize, Kind)>,
    /// The places of the key, in the order of its index.
    key: Vec<usize>,
    /// The columns of the key that go on.
    key_columns: Columns,
    key_fields: Vec<(usize, Kind)>,
}

impl Layout {
    /// The layout of rows that come with these columns, or none where a column of the key is not among them.
    pub(super) fn new(columns: &[(&str, Kind)], key: &[String], wanted: &Wanted) -> Option<Self> {
        let place = |name: &String| columns.iter().position(|(column, _)| column == name);
        let key: Vec<_> = key.iter().map(place).collect::<Option<_>>()?;
        let pick = |is_picked: &dyn Fn(usize, &str) -> bool| {
            let picked = columns.iter().enumerate().filter(|(place, (name, _))| is_picked(*place, name));
            let (names, fields): (Vec<_>, Vec<_>) =
                picked.map(|(place, (name, kind))| ((*name).to_owned(), (place, *kind))).unzip();
            (Columns::from(names), fields)
        };
        let (names, fields) = pick(&|_, name| wanted.has(name));
        let (key_columns, key_fields) = pick(&|place, name| key.contains(&place) && wanted.has(name));
        let all = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Some(Self { names: all, columns: names, fields, key, key_columns, key_fields })
    }

    /// So many values of a row are enough to know its key.
    pub(super) fn key_ends(&self) -> usize {
        self.key.iter().max().map_or(0, |last| last + 1)
    }

    /// The name of the column at a place.
    pub(super) fn name(&self, place: usize) -> Option<&str> {
        self.names.get(place).map(String::as_str)
    }

    /// A row; `of` gives the value at a place.
    pub(super) fn row<'a>(&self, of: impl Fn(usize) -> Datum<'a>) -> Row {
        Self::pick(&self.columns, &self.fields, of)
    }

    /// The key of a row.
    pub(super) fn key_row<'a>(&self, of: impl Fn(usize) -> Datum<'a>) -> Row {
        Self::pick(&self.key_columns, &self.key_fields, of)
    }

    /// A row of these values, one after another; none where they are not as many as there are columns.
    pub(super) fn row_of<'a>(&self, values: impl Iterator<Item = Copied<'a>>) -> Option<Row> {
        let (mut picked, mut fields) = (Vec::with_capacity(self.fields.len()), self.fields.iter().peekable());
        let mut count = 0;
        for text in values {
            if let Some((_, kind)) = fields.next_if(|(place, _)| *place == count) {
                picked.push(text.map_or(Value::Null, |text| value(*kind, text)));
            }
            count += 1;
        }
        (count == self.names.len()).then(|| Row::new(self.columns.clone(), picked))
    }

    fn pick<'a>(columns: &Columns, fields: &[(usize, Kind)], of: impl Fn(usize) -> Datum<'a>) -> Row {
        let read = |(place, kind): &(usize, Kind)| match of(*place) {
            Datum::Null => Value::Null,
            Datum::Unchanged => Value::Unchanged,
            Datum::Text(text) => value(*kind, Cow::Borrowed(text)),
        };
        Row::new(columns.clone(), fields.iter().map(read).collect())
    }

    /// The texts of a key, as one that no other key has.
    pub(super) fn key_bytes<'a>(&self, of: impl Fn(usize) -> Datum<'a>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        for place in &self.key {
            if let Datum::Text(text) = of(*place) {
                bytes.extend_from_slice(text.as_bytes());
            }
            // No text has it.
            bytes.push(0);
        }
        bytes
    }

    /// The texts of a key; none where a part of it is null.
    pub(super) fn key_texts<'a>(&self, of: impl Fn(usize) -> Datum<'a>) -> Option<Vec<String>> {
        let text = |place: &usize| match of(*place) {
            Datum::Text(text) => Some(text.to_owned()),
            Datum::Null | Datum::Unchanged => None,
        };
        self.key.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_nobody_declares_are_left_out() {
        let columns = [("b", Kind::Number), ("secret", Kind::Text), ("a", Kind::Text)];
        let wanted = Wanted { declared: Some(["a", "b"].map(str::to_owned).into()) };
        let layout = Layout::new(&columns, &["a".to_owned(), "b".to_owned()], &wanted).unwrap();
        let of = |place: usize| [Datum::Text("1"), Datum::Text("x"), Datum::Text("y")][place];
        let row = layout.row(of);
        assert_eq!(row.iter().collect::<Vec<_>>(), [("b", &Value::Number("1".into())), ("a", &"y".into())]);
        let texts = |texts: &'static [&str]| texts.iter().map(|text| Some(Cow::Borrowed(*text)));
        assert_eq!(layout.row_of(texts(&["1", "x", "y"])), Some(row));
        assert_eq!(layout.row_of(texts(&["1", "x"])), None);
        assert_eq!(layout.row_of(texts(&["1", "x", "y", "z"])), None);
        assert_eq!(layout.key_bytes(of), b"y\x001\x00");
        assert_eq!(layout.key_texts(of), Some(vec!["y".to_owned(), "1".to_owned()]));
        let all = Layout::new(&columns, &["b".to_owned()], &Wanted::all()).unwrap();
        assert_eq!(all.row(of).iter().count(), 3);
        assert_eq!(all.key_row(of).iter().collect::<Vec<_>>(), [("b", &Value::Number("1".into()))]);
        assert!(Layout::new(&columns[1..], &["b".to_owned()], &wanted).is_none());
    }
}
