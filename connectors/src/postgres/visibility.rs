//! Which transactions a moment sees.

use std::collections::HashSet;
use std::str::FromStr;

/// Microseconds from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What `pg_current_snapshot()` tells: all before `first` have ended, none from `next` on has begun, and of those
/// between these are open.
///
/// <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT>
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    first: u64,
    next: u64,
    open: HashSet<u64>,
}

impl FromStr for Moment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse().ok();
        let (Some(first), Some(next)) = (number(), number()) else { return Err(()) };
        let open = parts.next().ok_or(())?;
        let open = open.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().map_err(drop));
        Ok(Self { first, next, open: open.collect::<Result<_, _>>()? })
    }
}

impl Moment {
    /// Whether the moment sees a transaction that has been committed. The stream has only the lower half of its
    /// number; the upper is that of the nearest.
    pub(super) fn sees(&self, id: u32) -> bool {
        let ahead = id.wrapping_sub(self.next as u32) as i32;
        let id = self.next.saturating_add_signed(i64::from(ahead));
        id < self.first || (id < self.next && !self.open.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_sees_what_has_ended() {
        let moment: Moment = "10:20:10,14,15".parse().unwrap();
        let seen: Vec<_> = (8..23).filter(|id| moment.sees(*id)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        // Numbers go round; the nearest is meant.
        let wrapped: Moment = "4294967290:4294967300:".parse().unwrap();
        assert!(wrapped.sees(4_294_967_295) && wrapped.sees(3) && !wrapped.sees(4) && !wrapped.sees(5));
        assert_eq!("10:20:".parse::<Moment>().unwrap().open.len(), 0);
        for text in ["", "1", "1:2", "a:2:", "1:2:x"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
