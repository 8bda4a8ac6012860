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

/// Reads a source to its end, in bites of a size.
///
/// # Errors
/// Where it fails, or gives more than was asked for.
pub fn drain(source: &mut dyn Source, after: Option<Position>, bite: usize) -> Result<Vec<ChangeEvent>, Breach> {
    source.open(after)?;
    let mut events = Vec::new();
    while let Feed::Events(next) = source.next(bite)? {
        if next.is_empty() || next.len() > bite {
            return Err(Breach::Limit { asked: bite, given: next.len() });
        }
        events.extend(next);
    }
    Ok(events)
}

/// Holds a source to its promises: positions grow; opened after any position it yields exactly what
/// followed there, in bites of any size.
///
/// # Errors
/// The first promise that it breaks.
pub fn check(make: impl Fn() -> Box<dyn Source>) -> Result<Vec<ChangeEvent>, Breach> {
    let all = drain(make().as_mut(), None, 1000)?;
    for pair in all.windows(2) {
        if pair[1].position <= pair[0].position {
            return Err(Breach::PositionsShrink { before: pair[0].position, after: pair[1].position });
        }
    }
    let places = [0, 1, all.len() / 3, all.len() / 2, all.len().saturating_sub(1)];
    for (place, bite) in places.into_iter().zip([1, 7, 100, 1000, 3]) {
        let Some(event) = all.get(place) else { continue };
        // A source that starts again, and one that has been read from before, are to do the same.
        let mut used = make();
        drain(used.as_mut(), None, 100)?;
        for source in [make().as_mut(), used.as_mut()] {
            if drain(source, Some(event.position), bite)? != all[place + 1..] {
                return Err(Breach::Replay { after: event.position });
            }
        }
    }
    Ok(all)
}
