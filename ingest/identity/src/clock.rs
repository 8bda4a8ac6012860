//! The time, as a sign-in asks for it.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// Tells the time. Tests have one that stands still.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use chrono::TimeDelta;

    use super::*;

    /// A clock that is set by hand.
    #[derive(Debug)]
    pub(crate) struct Hand(Mutex<DateTime<Utc>>);

    impl Default for Hand {
        fn default() -> Self {
            Self(Mutex::new("2026-01-31T12:00:00Z".parse().unwrap()))
        }
    }

    impl Hand {
        pub(crate) fn forward(&self, seconds: i64) {
            *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> DateTime<Utc> {
            *self.0.lock().unwrap()
        }
    }
}
