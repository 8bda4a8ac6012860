//! The answer to an upload: what became of each event.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ruam_door::{Problem, json};
use serde_json::{Value, json};

use super::intake::{Outcome, Unavailable};

/// So many events are listed whatever became of them; behind them, so many that were not stored.
const MAX_LISTED: usize = 10_000;

/// What became of events.
#[derive(Debug, Default)]
pub(super) struct Report {
    accepted: u64,
    duplicate: u64,
    rejected: u64,
    failed: u64,
    listed: Vec<(u64, Value)>,
    /// Those of the list that nothing is wrong with.
    listed_right: usize,
    omitted: u64,
}

/// An event's place in its upload, from 1, and its id, if it has one.
pub(super) type Named = (u64, Option<String>);

impl Report {
    pub(super) fn add(&mut self, (number, id): Named, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => {
                self.accepted += 1;
                self.list(number, id, "accepted", None);
            }
            Outcome::Duplicate => {
                self.duplicate += 1;
                self.list(number, id, "duplicate", None);
            }
            Outcome::Rejected(why) => {
                self.rejected += 1;
                self.list(number, id, "rejected", Some(why));
            }
        }
    }

    /// An event of which nobody knows whether it is stored.
    pub(super) fn add_failed(&mut self, (number, id): Named, why: &Unavailable) {
        self.failed += 1;
        self.list(number, id, "failed", Some(why.to_string()));
    }

    fn list(&mut self, number: u64, id: Option<String>, result: &str, why: Option<String>) {
        let wrong = self.listed.len() - self.listed_right;
        if if why.is_some() { wrong >= MAX_LISTED } else { self.listed_right >= MAX_LISTED } {
            self.omitted += 1;
            return;
        }
        self.listed_right += usize::from(why.is_none());
        let mut entry = json!({ "number": number, "id": id, "result": result });
        if let Some(why) = why {
            entry["why"] = why.into();
        }
        self.listed.push((number, entry));
    }

    /// The answer; `problem` is what kept the rest from being read or stored, if anything did.
    pub(super) fn answer(mut self, problem: Option<Problem>) -> Response {
        let stored = self.accepted + self.duplicate;
        if let Some(problem) = &problem
            && stored + self.rejected + self.failed == 0
        {
            return problem.clone().into_response();
        }
        let status = match &problem {
            Some(problem) => problem.status(),
            None if self.rejected == 0 => StatusCode::ACCEPTED,
            None if stored == 0 => StatusCode::UNPROCESSABLE_ENTITY,
            None => StatusCode::MULTI_STATUS,
        };
        self.listed.sort_unstable_by_key(|(number, _)| *number);
        let mut told = json!({
            "accepted": self.accepted, "duplicate": self.duplicate, "rejected": self.rejected, "failed": self.failed,
            "results": self.listed.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
        });
        if self.omitted > 0 {
            told["omitted"] = self.omitted.into();
        }
        let mut headers = Default::default();
        if let Some(problem) = problem {
            headers = problem.headers();
            told["problem"] = problem.told();
        }
        (status, headers, json(&told)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_how_it_went() {
        let rejected = || Outcome::Rejected("no".to_owned());
        let problem = || Problem::new(StatusCode::BAD_REQUEST, "cut off");
        for (outcomes, problem, status) in [
            (vec![Outcome::Accepted, Outcome::Duplicate], None, 202),
            (vec![], None, 202),
            (vec![Outcome::Accepted, rejected()], None, 207),
            (vec![rejected()], None, 422),
            (vec![Outcome::Accepted], Some(problem()), 400),
            (vec![], Some(problem()), 400),
        ] {
            let mut report = Report::default();
            for outcome in outcomes.clone() {
                report.add((1, None), outcome);
            }
            assert_eq!(report.answer(problem).status(), status, "{outcomes:?}");
        }
    }

    #[test]
    fn what_was_not_stored_is_listed_however_much_was() {
        let mut report = Report::default();
        for number in 0..MAX_LISTED as u64 + 5 {
            report.add((number, None), Outcome::Accepted);
        }
        report.add((9, None), Outcome::Rejected("no".to_owned()));
        assert_eq!((report.listed.len(), report.omitted), (MAX_LISTED + 1, 5));
    }
}
