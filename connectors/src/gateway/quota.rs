//! How much an agency may send.
//!
//! What passes through: the number and the size of events, as they come. Guaranteed: over any time, an agency's
//! events and bytes are at most what its quota allows for that time and one second more, and what one batch holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// What may come at once, as time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How much may come.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Events a second.
    pub events_per_second: u32,
    /// Bytes a second, unpacked.
    pub bytes_per_second: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { events_per_second: 50_000, bytes_per_second: 50_000_000 }
    }
}

impl Quota {
    /// How long so much takes at this rate.
    fn time_of(self, events: usize, bytes: usize) -> [Duration; 2] {
        let time = |count: usize, rate: f64| Duration::from_secs_f64((count as f64 / rate.max(1.0)).min(1e9));
        [time(events, f64::from(self.events_per_second)), time(bytes, self.bytes_per_second as f64)]
    }
}

/// What each agency has sent. For each of the two a time is kept at which all that came would have come at
/// exactly the rate that is allowed, as in the generic cell rate algorithm.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    usual: Quota,
    own: HashMap<String, Quota>,
    until: Mutex<HashMap<String, [Instant; 2]>>,
}

impl Quotas {
    pub(super) fn new(usual: Quota, own: HashMap<String, Quota>) -> Self {
        Self { usual, own, until: Mutex::default() }
    }

    /// Counts what has come.
    pub(super) fn charge(&self, agency: &str, events: usize, bytes: usize, now: Instant) {
        let times = self.own.get(agency).unwrap_or(&self.usual).time_of(events, bytes);
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        // Agencies are those of datasets that there are, so that these are few.
        let until = until.entry(agency.to_owned()).or_insert([now; 2]);
        for (until, time) in until.iter_mut().zip(times) {
            *until = (*until).max(now) + time;
        }
    }

    /// How long until an agency may send more; none where it may now.
    pub(super) fn wait(&self, agency: &str, now: Instant) -> Option<Duration> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = until.get(agency)?.iter().max().copied()?;
        latest.checked_duration_since(now + AT_ONCE).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_too_much_waits_and_others_do_not() {
        let own = HashMap::from([("b".to_owned(), Quota { events_per_second: 100, bytes_per_second: 1_000 })]);
        let (quotas, now) = (Quotas::new(Quota::default(), own), Instant::now());
        quotas.charge("b", 100, 0, now);
        assert_eq!(quotas.wait("b", now), None);
        quotas.charge("b", 50, 0, now);
        assert_eq!(quotas.wait("b", now), Some(Duration::from_millis(500)));
        assert_eq!(quotas.wait("b", now + Duration::from_millis(500)), None);
        quotas.charge("b", 1, 5_000, now);
        assert_eq!(quotas.wait("b", now), Some(Duration::from_secs(4)));
        quotas.charge("a", 150, 5_000, now);
        assert_eq!(quotas.wait("a", now), None);
        assert_eq!(quotas.wait("nobody", now), None);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (quotas, now) =
            (Quotas::new(Quota { events_per_second: 10, bytes_per_second: 1_000 }, HashMap::new()), Instant::now());
        quotas.charge("a", 1, 1, now);
        let later = now + Duration::from_secs(3_600);
        quotas.charge("a", 20, 1, later);
        assert_eq!(quotas.wait("a", later), Some(Duration::from_secs(1)));
    }
}
