//! What every source has to hold to, as a suite that each runs in its own tests.

use ruam_event::{ChangeEvent, Position};

use crate::source::{Feed, Source, SourceError};

/// A source broke a promise.
#[derive(Debug, thiserror::Error)]
pub enum Breach {
    /// A position did not grow.
    #[error("position {after} follows {before}")]
    PositionsShrink {
        /// The position before.
        before: Position,
        /// The one after it.
        after: Position,
    },
    /// What came after a position was not what had come there before.
    #[error("opened after {after}, the source yields other events than it did at first")]
    Replay {
        /// The position.
        after: Position,
    },
    /// More events came than were asked for, or none at all.
    #[error("asked for {asked} events, the source gave {given}")]
    Limit {
        /// How many were asked for.
        asked: usize,
        /// How many came.
        given: usize,
    },
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Reads a source to its end, in bites of a size; one that has none, up to an event that is the last to be read.
///
/// # Errors
/// Where it fails, or gives more than was asked for.
pub fn drain(
    source: &mut dyn Source,
    after: Option<Position>,
    bite: usize,
    is_last: &dyn Fn(&ChangeEvent) -> bool,
) -> Result<Vec<ChangeEvent>, Breach> {
    source.open(after)?;
    let mut events = Vec::new();
    loop {
        match source.next(bite)? {
            Feed::Events(next) if next.is_empty() || next.len() > bite => {
                return Err(Breach::Limit { asked: bite, given: next.len() });
            }
            Feed::Events(next) => match next.iter().position(is_last) {
                Some(last) => {
                    events.extend(next.into_iter().take(last + 1));
                    return Ok(events);
                }
                None => events.extend(next),
            },
            Feed::Idle => {}
            Feed::Ended => return Ok(events),
        }
    }
}

/// Holds a source to its promises: positions grow; opened after any position it yields exactly what
/// followed there, in bites of any size. Of a source without end it is read up to an event that is the last.
///
/// # Errors
/// The first promise that it breaks.
pub fn check(
    make: impl Fn() -> Box<dyn Source>,
    is_last: &dyn Fn(&ChangeEvent) -> bool,
) -> Result<Vec<ChangeEvent>, Breach> {
    let all = drain(make().as_mut(), None, 1000, is_last)?;
    for pair in all.windows(2) {
        if pair[1].position <= pair[0].position {
            return Err(Breach::PositionsShrink { before: pair[0].position, after: pair[1].position });
        }
    }
    let places = [0, 1, all.len() / 3, all.len() / 2, all.len().saturating_sub(1)];
    for (place, bite) in places.into_iter().zip([1, 7, 100, 1000, 3]) {
        let Some(event) = all.get(place).filter(|event| !is_last(event)) else { continue };
        // A source that starts again, and one that has been read from before, are to do the same.
        let mut used = make();
        drain(used.as_mut(), None, 100, is_last)?;
        let again = drain(used.as_mut(), Some(event.position), bite, is_last)?;
        // Of a source that knows who reads it there is one at a time.
        drop(used);
        for read in [again, drain(make().as_mut(), Some(event.position), bite, is_last)?] {
            if read != all[place + 1..] {
                return Err(Breach::Replay { after: event.position });
            }
        }
    }
    Ok(all)
}
