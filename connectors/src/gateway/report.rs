//! The answer to an upload: what became of each event.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ruam_door::{Problem, json};
use serde::{Serialize, Serializer};
use serde_json::Value;

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
    listed: Vec<Entry>,
    /// Those of the list that nothing is wrong with.
    listed_right: usize,
    omitted: u64,
}

/// An event's place in its upload, from 1, and its id, if it has one.
pub(super) type Named = (u64, Option<Arc<str>>);

/// What became of an event.
#[derive(Debug, Serialize)]
struct Entry {
    number: u64,
    #[serde(serialize_with = "as_text")]
    id: Option<Arc<str>>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What the answer says.
#[derive(Serialize)]
struct Told {
    accepted: u64,
    duplicate: u64,
    rejected: u64,
    failed: u64,
    #[serde(skip_serializing_if = "is_none")]
    omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Value>,
    results: Vec<Entry>,
}

fn as_text<S: Serializer>(id: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    id.as_deref().serialize(serializer)
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

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

    fn list(&mut self, number: u64, id: Option<Arc<str>>, result: &'static str, why: Option<String>) {
        let wrong = self.listed.len() - self.listed_right;
        if if why.is_some() { wrong >= MAX_LISTED } else { self.listed_right >= MAX_LISTED } {
            self.omitted += 1;
            return;
        }
        self.listed_right += usize::from(why.is_none());
        self.listed.push(Entry { number, id, result, why });
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
        self.listed.sort_unstable_by_key(|entry| entry.number);
        let headers = problem.as_ref().map(Problem::headers).unwrap_or_default();
        let told = Told {
            accepted: self.accepted,
            duplicate: self.duplicate,
            rejected: self.rejected,
            failed: self.failed,
            omitted: self.omitted,
            problem: problem.map(|problem| problem.told()),
            results: self.listed,
        };
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
