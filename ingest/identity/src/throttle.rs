//! How often a password may be guessed.
//!
//! What passes through: each failed attempt, by its address and by its user at that address. Guaranteed: who
//! failed too often waits, however many users and addresses there are, and the memory for that is fixed. A
//! place in it is found by a hash with a key of this process: that two share one is rare, cannot be brought
//! about by intent, and makes one wait for the other's mistakes at worst.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::SignOnError;

/// Each kind of attempt has so many places, of 8 bytes.
const PLACES: usize = 1 << 14;

/// One user at one address: 10 failures at once, then 10 a minute.
const OF_USER: Limit = Limit { at_once: 10, each: 6_000 };
/// One address: enough for a machine that many people come from.
const OF_ADDRESS: Limit = Limit { at_once: 100, each: 600 };

/// A limit on failures.
#[derive(Clone, Copy)]
struct Limit {
    /// So many may come at once.
    at_once: i64,
    /// So long it takes until one is forgotten, in milliseconds.
    each: i64,
}

/// Counts failures. A place holds the time at which all of its failures will be forgotten, as in the
/// generic cell rate algorithm: one number tells how many there are.
pub(crate) struct Throttle {
    clock: Arc<dyn Clock>,
    key: RandomState,
    users: Box<[AtomicI64]>,
    addresses: Box<[AtomicI64]>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

impl Throttle {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let places = || (0..PLACES).map(|_| AtomicI64::new(0)).collect();
        Self { clock, key: RandomState::new(), users: places(), addresses: places() }
    }

    /// Lets an attempt pass, or says how long to wait.
    ///
    /// # Errors
    /// Where too many have failed.
    pub(crate) fn check(&self, user: &str, from: IpAddr) -> Result<(), SignOnError> {
        let now = self.clock.now().timestamp_millis();
        let wait = self.places(user, from).map(|(place, limit)| {
            // Where the clock was set back, nobody waits for longer than that.
            let until = place.load(Ordering::Relaxed).min(now + limit.at_once * limit.each);
            until - now - (limit.at_once - 1) * limit.each
        });
        match wait.into_iter().max().and_then(|wait| u64::try_from(wait).ok()).filter(|wait| *wait > 0) {
            Some(wait) => Err(SignOnError::TooMany { wait: Duration::from_millis(wait) }),
            None => Ok(()),
        }
    }

    /// Counts an attempt that failed.
    pub(crate) fn failed(&self, user: &str, from: IpAddr) {
        // Without the name: people type passwords there, too.
        tracing::info!(%from, "a sign-in by name and password failed");
        let now = self.clock.now().timestamp_millis();
        for (place, limit) in self.places(user, from) {
            let after = |until: i64| (until.max(now) + limit.each).min(now + limit.at_once * limit.each);
            let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| Some(after(until)));
        }
    }

    fn places(&self, user: &str, from: IpAddr) -> [(&AtomicI64, Limit); 2] {
        // Whoever has one address of IPv6 has all of its /64.
        let from = match from.to_canonical() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        };
        let place = |hash: u64| usize::try_from(hash).unwrap_or_default() % PLACES;
        [
            (&self.users[place(self.key.hash_one((user, from)))], OF_USER),
            (&self.addresses[place(self.key.hash_one(from))], OF_ADDRESS),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::tests::Hand;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn throttle() -> (Arc<Hand>, Throttle) {
        let clock = Arc::new(Hand::default());
        (clock.clone(), Throttle::new(clock))
    }

    #[test]
    fn who_fails_too_often_waits_and_others_do_not() {
        let (clock, throttle) = throttle();
        for _ in 0..10 {
            throttle.check("a", HERE).unwrap();
            throttle.failed("a", HERE);
        }
        let error = throttle.check("a", HERE).unwrap_err().to_string();
        assert_eq!(error, "too many sign-ins failed. Wait 6 s, then try again");
        throttle.check("a", "10.0.0.2".parse().unwrap()).unwrap();
        throttle.check("b", HERE).unwrap();
        clock.forward(6);
        throttle.check("a", HERE).unwrap();
        throttle.failed("a", HERE);
        throttle.check("a", HERE).unwrap_err();
        clock.forward(60);
        throttle.check("a", HERE).unwrap();
    }

    #[test]
    fn many_users_of_one_address_count_together() {
        let (_, throttle) = throttle();
        for user in 0..100 {
            throttle.failed(&user.to_string(), "2001:db8::1".parse().unwrap());
        }
        throttle.check("another", "2001:db8::2".parse().unwrap()).unwrap_err();
        throttle.check("another", "2001:db8:0:1::2".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let (clock, throttle) = throttle();
        (0..10).for_each(|_| throttle.failed("a", HERE));
        clock.forward(-86_400);
        let SignOnError::TooMany { wait } = throttle.check("a", HERE).unwrap_err() else { panic!("it waits") };
        assert_eq!(wait, Duration::from_secs(6));
    }
}
