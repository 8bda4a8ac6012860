//! Made-up welfare payments of a ministry: three a person, one after another.

use chrono::NaiveDate;
use rand::Rng;
use ruam_event::{Change, ChangeEvent, Columns, DatasetSpec, Row, Value};

use super::payments::{Entitlement, WELFARE_EACH};
use super::{Generator, calendar, chance, citizen_id, position, source_time};
use crate::source::{Source, SourceError};
use crate::{Surroundings, areas};

const EVERY_MS: i64 = 15_000;
/// One row in so many is wrong.
const WRONG_IN: u32 = 200;

pub(crate) fn open(
    spec: &DatasetSpec,
    with: &toml::Table,
    surroundings: &Surroundings,
) -> Result<Box<dyn Source>, String> {
    super::open::<WelfarePayments>(spec, with, surroundings)
}

pub(super) struct WelfarePayments {
    seed: u64,
    columns: Columns,
    areas: Vec<String>,
}

impl WelfarePayments {
    /// The number of the event that is a person's first payment.
    pub(super) fn first_of(person: u64) -> u64 {
        person * WELFARE_EACH
    }
}

impl Generator for WelfarePayments {
    const SHARE: u64 = 40;

    fn new(seed: u64, columns: Columns) -> Result<Self, SourceError> {
        Ok(Self { seed, columns, areas: areas::subdistrict_codes()? })
    }

    fn event(&mut self, number: u64) -> ChangeEvent {
        let (person, payment) = (number / WELFARE_EACH, number % WELFARE_EACH);
        let entitlement = Entitlement::of(self.seed, person);
        let (purpose, period) = entitlement.welfare(payment);
        let mut chance = chance(self.seed, 4, number);
        let (be, month) = period.be();
        let day = NaiveDate::from_ymd_opt(be as i32 - 543, month, chance.random_range(1..=10)).unwrap_or_default();
        let mut paid_on = calendar::spelled(day, chance.random_range(0..6));
        let mut amount = match chance.random_range(0..4) {
            0 => format!("{}", entitlement.amount),
            1 => format!("{} บาท", entitlement.amount),
            2 => format!("฿{}.00", entitlement.amount),
            _ => format!("{}.00", entitlement.amount),
        };
        let is_planted = entitlement.planted && payment == 0;
        if !is_planted && chance.random_ratio(1, WRONG_IN) {
            match chance.random_range(0..3) {
                0 => paid_on = format!("31/06/{be}"),
                1 => amount = format!("-{}", entitlement.amount),
                _ => amount = "ไม่ระบุ".to_owned(),
            }
        }
        let id = citizen_id(&self.areas, self.seed, person);
        let area = &self.areas[chance.random_range(0..self.areas.len())];
        let value = |column: &String| match column.as_str() {
            "payment_id" => format!("MSDHS-{number:010}").into(),
            "citizen_id" => id.as_str().into(),
            "programme" => purpose.into(),
            "period" => period.name().into(),
            "fiscal_year" => i64::from(period.fiscal_year()).into(),
            "amount" => amount.as_str().into(),
            "paid_on" => paid_on.as_str().into(),
            "area_code" => area.as_str().into(),
            "by_transfer" => Value::Bool(!number.is_multiple_of(5)),
            _ => Value::Null,
        };
        let row = Row::new(self.columns.clone(), self.columns.iter().map(value).collect());
        ChangeEvent {
            position: position(number),
            source_time: Some(source_time(number, EVERY_MS)),
            change: Change::Insert(row),
        }
    }
}
