//! What the two made-up payers have in common, so that some payments can be made by both.
//!
//! Every person who is paid gets three payments of one programme from the ministry, in periods that
//! follow each other, and two payments of another programme from the Comptroller General. For one
//! person in forty the Comptroller General's first payment is the same as the ministry's first: same
//! person, same purpose, same period. Those are the planted ones, and there are no others.

use rand::Rng;

use super::disbursements::Disbursements;
use super::welfare_payments::WelfarePayments;
use super::{chance, citizen_id, events_of};
use crate::areas;
use crate::source::SourceError;

/// What payments are made for, in the words of both payers.
pub(super) const PURPOSES: [&str; 6] = [
    "elderly_allowance",
    "disability_allowance",
    "child_support_grant",
    "low_income_aid",
    "disaster_relief",
    "scholarship",
];

/// One person in so many is paid twice.
const PLANTED_IN: u32 = 40;
/// How many payments the ministry makes to a person, and the Comptroller General.
pub(super) const WELFARE_EACH: u64 = 3;
pub(super) const DISBURSEMENTS_EACH: u64 = 2;

/// What a person is paid for, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entitlement {
    purpose: usize,
    /// Months since October 2024.
    month: u32,
    /// Baht.
    pub amount: i64,
    /// Whether the Comptroller General pays it, too.
    pub planted: bool,
}

impl Entitlement {
    pub(super) fn of(seed: u64, person: u64) -> Self {
        let mut chance = chance(seed, 3, person);
        let (purpose, month) = (chance.random_range(0..PURPOSES.len()), chance.random_range(0..9));
        let amount = [600, 700, 800, 1000, 2000, 3000][chance.random_range(0..6)];
        Self { purpose, month, amount, planted: chance.random_ratio(1, PLANTED_IN) }
    }

    /// Purpose and period of the ministry's payment with a number, from 0.
    pub(super) fn welfare(&self, payment: u64) -> (&'static str, Period) {
        (PURPOSES[self.purpose], Period(self.month + payment as u32))
    }

    /// Purpose and period of the Comptroller General's payment with a number, from 0.
    pub(super) fn disbursement(&self, payment: u64) -> (&'static str, Period) {
        if self.planted && payment == 0 {
            return self.welfare(0);
        }
        (PURPOSES[(self.purpose + 1) % PURPOSES.len()], Period(self.month + payment as u32))
    }
}

/// A month, counted from October 2024 (BE 2567).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(u32);

impl Period {
    /// Year of the Buddhist era and month.
    pub(super) fn be(self) -> (u32, u32) {
        let months = 9 + self.0;
        (2567 + months / 12, months % 12 + 1)
    }

    /// As payments name it: `2567-10`.
    pub(super) fn name(self) -> String {
        let (year, month) = self.be();
        format!("{year}-{month:02}")
    }

    /// The fiscal year, which begins in October and is named by the year it ends in.
    pub(super) fn fiscal_year(self) -> u32 {
        let (year, month) = self.be();
        if month >= 10 { year + 1 } else { year }
    }
}

/// A payment that two agencies both made to one person for one purpose and period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlantedPayment {
    /// Who was paid.
    pub citizen_id: String,
    /// For what.
    pub purpose: String,
    /// For which month of the Buddhist era.
    pub period: String,
}

/// The payments that were made twice among the events of a run, in the order of their persons: what
/// an auditor's query has to find, and nothing else.
///
/// # Errors
/// Where the areas cannot be read.
pub fn planted_payments(seed: u64, total: u64) -> Result<Vec<PlantedPayment>, SourceError> {
    let areas = areas::subdistrict_codes()?;
    let (welfare, disbursements) = (events_of::<WelfarePayments>(total), events_of::<Disbursements>(total));
    let mut planted = Vec::new();
    for person in 0.. {
        if WelfarePayments::first_of(person) >= welfare || Disbursements::first_of(person) >= disbursements {
            break;
        }
        let entitlement = Entitlement::of(seed, person);
        if entitlement.planted {
            let (purpose, period) = entitlement.welfare(0);
            let citizen_id = citizen_id(&areas, seed, person);
            planted.push(PlantedPayment { citizen_id, purpose: purpose.to_owned(), period: period.name() });
        }
    }
    Ok(planted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_their_fiscal_year() {
        assert_eq!((Period(0).name(), Period(0).fiscal_year()), ("2567-10".to_owned(), 2568));
        assert_eq!((Period(3).name(), Period(3).fiscal_year()), ("2568-01".to_owned(), 2568));
        assert_eq!((Period(12).name(), Period(12).fiscal_year()), ("2568-10".to_owned(), 2569));
    }
}
