//! A made-up civil register: births and late registrations, moves, corrections and deaths; and about
//! three rows in a hundred that are wrong in the ways in which such rows are wrong.

use chrono::{Days, NaiveDate};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_event::{Change, ChangeEvent, Columns, DatasetSpec, OldRow, Row, Value};

use super::calendar::{self, SHORT_MONTHS, be_year};
use super::names::{self, pick};
use super::{Generator, citizen_id, position, source_time, thai_digits};
use crate::source::{Source, SourceError};
use crate::{Surroundings, areas};

/// One row in so many is wrong.
const WRONG_IN: u32 = 33;
/// Milliseconds between events.
const EVERY_MS: i64 = 20_000;

pub(crate) fn open(
    spec: &DatasetSpec,
    with: &toml::Table,
    surroundings: &Surroundings,
) -> Result<Box<dyn Source>, String> {
    super::open::<Persons>(spec, with, surroundings)
}

struct Persons {
    seed: u64,
    columns: Columns,
    chance: ChaCha8Rng,
    areas: Vec<String>,
    /// How many persons have ever been registered.
    registered: u64,
    living: Vec<Person>,
}

/// A person as the register has them.
#[derive(Clone, Debug)]
struct Person {
    number: u64,
    sex: &'static str,
    title: &'static str,
    name: String,
    born: NaiveDate,
    area: usize,
    house: u32,
}

/// How a row can be wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// One digit of the ID mistyped.
    CheckDigit,
    /// A digit of the ID left out.
    ShortId,
    /// 31 February and its like.
    ImpossibleDate,
    /// A year of the common era where one of the Buddhist era belongs.
    CommonEra,
    /// A year of two digits.
    TwoDigitYear,
    /// Day and month unknown.
    IncompleteDate,
    /// No name.
    NoName,
    /// The code of a district instead of a subdistrict.
    ShortArea,
    /// A province that does not exist.
    NoProvince,
    /// UTF-8 read as something else on the way.
    Mojibake,
}

const WRONGS: [Wrong; 10] = [
    Wrong::CheckDigit,
    Wrong::ShortId,
    Wrong::ImpossibleDate,
    Wrong::CommonEra,
    Wrong::TwoDigitYear,
    Wrong::IncompleteDate,
    Wrong::NoName,
    Wrong::ShortArea,
    Wrong::NoProvince,
    Wrong::Mojibake,
];

impl Generator for Persons {
    const SHARE: u64 = 40;

    fn new(seed: u64, columns: Columns) -> Result<Self, SourceError> {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(2);
        Ok(Self { seed, columns, chance, areas: areas::subdistrict_codes()?, registered: 0, living: Vec::new() })
    }

    fn event(&mut self, number: u64) -> ChangeEvent {
        let change = if self.chance.random_ratio(1, WRONG_IN) { self.wrong() } else { self.right() };
        ChangeEvent { position: position(number), source_time: Some(source_time(number, EVERY_MS)), change }
    }
}

impl Persons {
    fn right(&mut self) -> Change {
        // Until the register has a few, everything is a registration.
        let kind = if self.living.len() < 50 { 0 } else { self.chance.random_range(0..100) };
        match kind {
            0..70 => {
                let person = self.register();
                let row = self.row(&person, None);
                self.living.push(person);
                // Most were there when the register was first read; some are born while it is.
                if kind < 60 { Change::Snapshot(row) } else { Change::Insert(row) }
            }
            70..85 => {
                let at = self.someone();
                let (area, house) = (self.chance.random_range(0..self.areas.len()), self.chance.random_range(1..400));
                self.update(at, |person| (person.area, person.house) = (area, house))
            }
            85..95 => {
                let at = self.someone();
                let family = names::family(&mut self.chance);
                self.update(at, |person| {
                    let given = person.name.split(' ').next().unwrap_or_default();
                    person.name = format!("{given} {family}");
                })
            }
            _ => {
                let at = self.someone();
                let person = self.living.swap_remove(at);
                let id = citizen_id(&self.areas, self.seed, person.number);
                let value = |name: &String| if name == "citizen_id" { Value::from(id.as_str()) } else { Value::Null };
                let key: Columns = self.columns.iter().filter(|name| *name == "citizen_id").cloned().collect();
                let values = key.iter().map(value).collect();
                Change::Delete(OldRow::Key(Row::new(key, values)))
            }
        }
    }

    fn someone(&mut self) -> usize {
        self.chance.random_range(0..self.living.len())
    }

    fn update(&mut self, at: usize, change: impl FnOnce(&mut Person)) -> Change {
        let before = self.living[at].clone();
        let old = OldRow::Full(self.row(&before, None));
        change(&mut self.living[at]);
        let after = self.living[at].clone();
        Change::Update { old, new: self.row(&after, None) }
    }

    fn register(&mut self) -> Person {
        let number = self.registered;
        self.registered += 1;
        self.person(number)
    }

    fn person(&mut self, number: u64) -> Person {
        let age_days = self.chance.random_range(0..95 * 365);
        let today = NaiveDate::from_ymd_opt(2024, 10, 1).unwrap_or_default();
        let born = today.checked_sub_days(Days::new(age_days)).unwrap_or(today);
        let (sex, title, name) = names::person(&mut self.chance, age_days < 15 * 365);
        let (area, house) = (self.chance.random_range(0..self.areas.len()), self.chance.random_range(1..400));
        Person { number, sex, title, name, born, area, house }
    }

    /// A row that does not belong into the register: a garbled copy of somebody's.
    fn wrong(&mut self) -> Change {
        let wrong = *pick(&mut self.chance, &WRONGS);
        if self.living.is_empty() {
            let number = self.registered;
            let person = self.person(number);
            return Change::Insert(self.row(&person, Some(wrong)));
        }
        let at = self.someone();
        let person = self.living[at].clone();
        let new = self.row(&person, Some(wrong));
        Change::Update { old: OldRow::None, new }
    }

    fn row(&mut self, person: &Person, wrong: Option<Wrong>) -> Row {
        let area = self.areas[person.area].clone();
        let style = self.chance.random_range(0..6);
        let village = self.chance.random_range(1..15);
        let mut id = citizen_id(&self.areas, self.seed, person.number);
        let mut name = format!("{}{}", person.title, person.name);
        let mut born = calendar::spelled(person.born, style);
        let mut address = format!("{}/{} หมู่ {village}", person.house, person.house % 7 + 1);
        if style % 2 == 1 {
            address = thai_digits(&address);
        }
        // Typing faults that a repair mends, and that are no reason to refuse a row.
        if self.chance.random_ratio(1, 50) {
            address = address.replace("หมู่", "หมู่่ ");
        }
        let mut code = area;
        match wrong {
            Some(Wrong::CheckDigit) => id = wrong_check_digit(&id),
            Some(Wrong::ShortId) => drop(id.pop()),
            Some(Wrong::ImpossibleDate) => born = format!("31 {} {}", SHORT_MONTHS[1], be_year(person.born)),
            Some(Wrong::CommonEra) => born = format!("15/06/{}", be_year(person.born) - 543),
            Some(Wrong::TwoDigitYear) => born = format!("15/06/{:02}", be_year(person.born) % 100),
            Some(Wrong::IncompleteDate) => born = format!("00/00/{}", be_year(person.born)),
            Some(Wrong::NoName) => name = " ".to_owned(),
            Some(Wrong::ShortArea) => code.truncate(4),
            Some(Wrong::NoProvince) => code = format!("99{}", &code[2..]),
            Some(Wrong::Mojibake) => name = "à¸ªà¸¡à¸Šà¸²à¸¢".to_owned(),
            None => {}
        }
        let value = |column: &String| match column.as_str() {
            "citizen_id" => Value::from(id.as_str()),
            "full_name" => name.as_str().into(),
            "sex" => person.sex.into(),
            "birth_date" => born.as_str().into(),
            "address" => address.as_str().into(),
            "area_code" => code.as_str().into(),
            _ => Value::Null,
        };
        Row::new(self.columns.clone(), self.columns.iter().map(value).collect())
    }
}

/// The ID with a last digit that is not its check digit.
fn wrong_check_digit(id: &str) -> String {
    let (leading, last) = id.split_at(12);
    let digit = last.parse::<u32>().map_or(0, |digit| (digit + 1) % 10);
    format!("{leading}{digit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use crate::generated::Generated;
    use ruam_event::change::Op;
    use std::collections::BTreeSet;

    fn persons(count: u64) -> Box<dyn Source> {
        let columns =
            ["citizen_id", "full_name", "sex", "birth_date", "address", "area_code"].map(str::to_owned).into();
        Box::new(Generated::<Persons> { seed: 7, columns, count, generator: None, next: 0, first: 0 })
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let short = conformance::check(|| persons(2000), &|_| false).unwrap();
        let long = conformance::drain(persons(5000).as_mut(), None, 1000, &|_| false).unwrap();
        assert_eq!(long[..2000], short);
        let ops: BTreeSet<_> = long.iter().map(|event| event.change.op().letter()).collect();
        assert_eq!(ops, BTreeSet::from(["c", "d", "r", "u"]));
        let deaths = long.iter().filter(|event| event.change.op() == Op::Delete).count();
        assert!((150..350).contains(&deaths), "{deaths}");
    }
}
