//! `area_name(code, date)`, `area_successor(code)` and `area_successor(code, date)`: administrative areas as
//! they were.
//!
//! What passes through: columns of codes and of days, into names and codes. What areas there are comes as a
//! first argument, one list for all rows, that nobody has to write: [`shorthand`](crate::shorthand) does.
//!
//! An area is in force from the day on that its source gives, or since ever, until the day on which its code
//! was abolished, and not on that day.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, ListBuilder, StringArray, StringBuilder, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use chrono::NaiveDate;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, TypeSignature, Volatility};

use super::day::Days;

/// The functions of areas.
pub(crate) const AREA_FUNCTIONS: [&str; 2] = [NAME, SUCCESSOR];
/// How each of them is called.
pub(crate) const AREA_USAGE: [&str; 2] =
    ["area_name(code, date)", "area_successor(code) or area_successor(code, date)"];

const NAME: &str = "area_name";
const SUCCESSOR: &str = "area_successor";

/// The name that an area had on a day; null where no area of that code was in force then.
pub(super) fn name() -> ScalarUDF {
    let names = |areas: &Areas<'_>, codes: &StringArray, days: Option<&Days>| -> ArrayRef {
        let days = days.into_iter().flat_map(Days::iter);
        let names = codes.iter().zip(days).map(|(code, day)| areas.in_force(code?, day?)?.name);
        Arc::new(names.collect::<StringArray>())
    };
    of_areas(NAME, AREA_USAGE[0], TypeSignature::Any(3), DataType::Utf8, names)
}

/// The codes that replaced one, as its source names them; with a day, those of them that were in force then, or
/// of those that had replaced them, and the code itself where it still was. Null where a code is not known.
pub(super) fn successor() -> ScalarUDF {
    let successors = |areas: &Areas<'_>, codes: &StringArray, days: Option<&Days>| -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut days = days.map(|days| days.iter());
        for code in codes {
            let day = days.as_mut().map(|days| days.next().flatten());
            let found: Option<BTreeSet<_>> = match (code.filter(|code| areas.is_known(code)), day) {
                (None, _) | (_, Some(None)) => None,
                (Some(code), None) => Some(areas.successors(code).collect()),
                (Some(code), Some(Some(day))) => Some(areas.in_force_instead(code, day)),
            };
            lists.append_option(found.map(|codes| codes.into_iter().map(Some)));
        }
        Arc::new(lists.finish())
    };
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let arguments = TypeSignature::OneOf(vec![TypeSignature::Any(2), TypeSignature::Any(3)]);
    of_areas(SUCCESSOR, AREA_USAGE[1], arguments, list, successors)
}

/// A function of all areas, a column of codes, and perhaps one of days.
fn of_areas(
    name: &'static str,
    usage: &'static str,
    arguments: TypeSignature,
    returns: DataType,
    of: impl Fn(&Areas<'_>, &StringArray, Option<&Days>) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let of = move |arguments: &[ColumnarValue]| {
        let [ColumnarValue::Scalar(areas), asked @ ..] = arguments else {
            return Err(exec_datafusion_err!("{name} is told what areas there are once, and not for each row"));
        };
        let known = Known::of(areas)?;
        let areas = Areas::of(&known);
        let is_one = asked.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let asked = ColumnarValue::values_to_arrays(asked)?;
        let codes = cast(&asked[0], &DataType::Utf8)?;
        let days = asked.get(1).map(|days| Days::of(name, usage, days)).transpose()?;
        let found = of(&areas, codes.as_string(), days.as_ref());
        match is_one {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(found)),
        }
    };
    let signature = Signature::new(arguments, Volatility::Immutable);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, returns, Arc::new(of)))
}

/// All areas, as columns.
struct Known {
    codes: StringArray,
    names: StringArray,
    successors: StringArray,
    from: Date32Array,
    to: Date32Array,
    abolished: Date32Array,
}

impl Known {
    /// Reads a list of them; there are none where it is null.
    fn of(list: &ScalarValue) -> Result<Self> {
        let list = list.to_array()?;
        let rows = list.as_list_opt::<i32>().map(|list| list.value(0));
        let rows = rows.as_ref().and_then(|rows| rows.as_struct_opt());
        let column = |name: &str, data_type: DataType| match rows.and_then(|rows| rows.column_by_name(name)) {
            Some(column) => cast(column, &data_type),
            None => Ok(new_empty_array(&data_type)),
        };
        let text = |name| Ok::<StringArray, ArrowError>(column(name, DataType::Utf8)?.as_string().clone());
        let day = |name| Ok::<Date32Array, ArrowError>(column(name, DataType::Date32)?.as_primitive().clone());
        Ok(Self {
            codes: text("code")?,
            names: text("name")?,
            successors: text("successors")?,
            from: day("valid_from")?,
            to: day("valid_to")?,
            abolished: day("abolished_on")?,
        })
    }
}

/// All areas, by their codes.
struct Areas<'a>(HashMap<&'a str, Vec<Area<'a>>>);

/// What an area was for a time.
struct Area<'a> {
    name: Option<&'a str>,
    from: Option<NaiveDate>,
    /// The day from which on it was no more.
    to: Option<NaiveDate>,
    successors: Option<&'a str>,
}

impl<'a> Areas<'a> {
    fn of(known: &'a Known) -> Self {
        let mut areas: HashMap<_, Vec<_>> = HashMap::new();
        let day = |days: &Date32Array, row| days.is_valid(row).then(|| days.value_as_date(row)).flatten();
        let rows = known.codes.iter().zip(&known.names).zip(&known.successors).enumerate();
        for (row, ((code, name), successors)) in rows {
            let Some(code) = code else { continue };
            let to = [day(&known.to, row), day(&known.abolished, row)].into_iter().flatten().min();
            areas.entry(code).or_default().push(Area { name, from: day(&known.from, row), to, successors });
        }
        Self(areas)
    }

    fn is_known(&self, code: &str) -> bool {
        self.0.contains_key(code)
    }

    /// What a code stood for on a day.
    fn in_force(&self, code: &str, day: NaiveDate) -> Option<&Area<'a>> {
        let was = |area: &&Area<'_>| area.from.is_none_or(|from| from <= day) && area.to.is_none_or(|to| day < to);
        self.0.get(code)?.iter().find(was)
    }

    /// The codes that replaced one.
    fn successors(&self, code: &str) -> impl Iterator<Item = &'a str> {
        let areas = self.0.get(code).into_iter().flatten();
        areas.filter_map(|area| area.successors).flat_map(str::split_whitespace)
    }

    /// The codes that stand for one on a day: itself, or whatever it has come to.
    fn in_force_instead<'b>(&'b self, code: &'b str, day: NaiveDate) -> BTreeSet<&'b str> {
        let (mut found, mut seen, mut left) = (BTreeSet::new(), HashSet::new(), vec![code]);
        while let Some(code) = left.pop() {
            if self.in_force(code, day).is_some() {
                found.insert(code);
            } else if seen.insert(code) {
                left.extend(self.successors(code));
            }
        }
        found
    }
}
