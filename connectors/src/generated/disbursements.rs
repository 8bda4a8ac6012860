//! Made-up disbursements of the Comptroller General: two of three to persons, the third to a company.

use chrono::{DateTime, NaiveDate};
use rand::Rng;
use ruam_event::{Change, ChangeEvent, Columns, DatasetSpec, Row, Value};

use super::names::pick;
use super::payments::{DISBURSEMENTS_EACH, Entitlement};
use super::{Generator, calendar, chance, citizen_id, position, source_time, with_check_digit};
use crate::source::{Source, SourceError};
use crate::{Surroundings, areas};

const EVERY_MS: i64 = 30_000;
/// One row in so many is wrong.
const WRONG_IN: u32 = 200;

const AGENCIES: [&str; 5] = [
    "กรมกิจการผู้สูงอายุ",
    "กรมกิจการเด็กและเยาวชน",
    "กรมส่งเสริมและพัฒนาคุณภาพชีวิตคนพิการ",
    "กรมป้องกันและบรรเทาสาธารณภัย",
    "กรมการปกครอง",
];

pub(crate) fn open(
    spec: &DatasetSpec,
    with: &toml::Table,
    surroundings: &Surroundings,
) -> Result<Box<dyn Source>, String> {
    super::open::<Disbursements>(spec, with, surroundings)
}

pub(super) struct Disbursements {
    seed: u64,
    columns: Columns,
    areas: Vec<String>,
}

/// Who is paid, and for what.
struct Payee {
    citizen_id: Option<String>,
    juristic_id: Option<String>,
    purpose: &'static str,
    period: String,
    fiscal_year: i64,
    amount: String,
}

impl Disbursements {
    /// The number of the event that is a person's first payment.
    pub(super) fn first_of(person: u64) -> u64 {
        person * (DISBURSEMENTS_EACH + 1)
    }

    fn person(&self, number: u64, person: u64, payment: u64) -> (Payee, (u32, u32), bool) {
        let entitlement = Entitlement::of(self.seed, person);
        let (purpose, period) = entitlement.disbursement(payment);
        let payee = Payee {
            citizen_id: Some(citizen_id(&self.areas, self.seed, person)),
            juristic_id: None,
            purpose,
            period: period.name(),
            fiscal_year: period.fiscal_year().into(),
            amount: format!("{}.00", entitlement.amount + (number % 3) as i64 * 50),
        };
        (payee, period.be(), entitlement.planted && payment == 0)
    }

    fn company(&self, number: u64) -> (Payee, (u32, u32), bool) {
        let mut chance = chance(self.seed, 5, number);
        let month = chance.random_range(1..=9);
        let payee = Payee {
            citizen_id: None,
            juristic_id: Some(with_check_digit(&format!("0{:011}", 10_555_000_000_u64 + number))),
            purpose: "procurement",
            period: format!("2568-{month:02}"),
            fiscal_year: 2568,
            amount: format!("{}.{:02}", chance.random_range(1_000..5_000_000), chance.random_range(0..100)),
        };
        (payee, (2568, month), false)
    }
}

impl Generator for Disbursements {
    const SHARE: u64 = 20;

    fn new(seed: u64, columns: Columns) -> Result<Self, SourceError> {
        Ok(Self { seed, columns, areas: areas::subdistrict_codes()? })
    }

    fn event(&mut self, number: u64) -> ChangeEvent {
        let (group, place) = (number / (DISBURSEMENTS_EACH + 1), number % (DISBURSEMENTS_EACH + 1));
        let is_company = place == DISBURSEMENTS_EACH;
        let (mut payee, (be, month), is_planted) =
            if is_company { self.company(number) } else { self.person(number, group, place) };
        let mut chance = chance(self.seed, 6, number);
        let day = NaiveDate::from_ymd_opt(be as i32 - 543, month, chance.random_range(11..=25)).unwrap_or_default();
        let paid_on = calendar::spelled(day, chance.random_range(0..6));
        if !is_planted && chance.random_ratio(1, WRONG_IN) {
            match chance.random_range(0..2) {
                0 => payee.amount = "0,5".to_owned(),
                _ => payee.juristic_id = Some("0105536112015".to_owned()),
            }
        }
        let recorded = source_time(number, EVERY_MS);
        let recorded_at = DateTime::from_timestamp_micros(recorded).unwrap_or_default().to_rfc3339();
        let agency = *pick(&mut chance, &AGENCIES);
        let area = &self.areas[chance.random_range(0..self.areas.len())];
        let value = |column: &String| match column.as_str() {
            "disbursement_id" => format!("CGD-{number:010}").into(),
            "paying_agency" => agency.into(),
            "payee_citizen_id" => payee.citizen_id.as_deref().into(),
            "payee_juristic_id" => payee.juristic_id.as_deref().into(),
            "purpose" => payee.purpose.into(),
            "period" => payee.period.as_str().into(),
            "fiscal_year" => payee.fiscal_year.into(),
            "amount" => payee.amount.as_str().into(),
            "paid_on" => paid_on.as_str().into(),
            "area_code" => area.as_str().into(),
            "recorded_at" => recorded_at.as_str().into(),
            _ => Value::Null,
        };
        let row = Row::new(self.columns.clone(), self.columns.iter().map(value).collect());
        ChangeEvent { position: position(number), source_time: Some(recorded), change: Change::Insert(row) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::welfare_payments::WelfarePayments;
    use super::super::{Generated, events_of, planted_payments};
    use super::*;
    use crate::PlantedPayment;
    use crate::conformance;
    use std::collections::{BTreeMap, BTreeSet};

    const TOTAL: u64 = 20_000;

    fn source<G: Generator + 'static>(columns: &[&str]) -> Box<dyn Source> {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Box::new(Generated::<G> { seed: 7, columns, count: events_of::<G>(TOTAL), generator: None, next: 0, first: 0 })
    }

    fn payments(events: &[ChangeEvent], id: &str, purpose: &str) -> BTreeMap<PlantedPayment, usize> {
        let mut payments = BTreeMap::new();
        for event in events {
            let Change::Insert(row) = &event.change else { panic!("only inserts") };
            let text = |column: &str| match row.get(column) {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            if let Some(citizen_id) = text(id) {
                let payment =
                    PlantedPayment { citizen_id, purpose: text(purpose).unwrap(), period: text("period").unwrap() };
                *payments.entry(payment).or_default() += 1;
            }
        }
        payments
    }

    #[test]
    fn the_planted_payments_are_made_twice_and_no_others() {
        let checked = |make: &dyn Fn() -> Box<dyn Source>| conformance::check(make, &|_| false).unwrap();
        let disbursements =
            checked(&|| source::<Disbursements>(&["payee_citizen_id", "purpose", "period", "amount", "paid_on"]));
        let welfare = checked(&|| source::<WelfarePayments>(&["citizen_id", "programme", "period", "amount"]));
        let disbursements = payments(&disbursements, "payee_citizen_id", "purpose");
        let welfare = payments(&welfare, "citizen_id", "programme");
        assert!(disbursements.values().chain(welfare.values()).all(|count| *count == 1), "an agency pays once");
        let both: BTreeSet<_> = disbursements.keys().filter(|payment| welfare.contains_key(payment)).cloned().collect();
        let planted: BTreeSet<_> = planted_payments(7, TOTAL).unwrap().into_iter().collect();
        assert!(planted.len() > 20, "{}", planted.len());
        assert_eq!(both, planted);
    }
}
