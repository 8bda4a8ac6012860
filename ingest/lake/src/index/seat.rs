//! An index that enters what was committed while its writer goes on.
//!
//! What passes through: the rows of a commit, into the index, on a thread of its own. Whoever needs the
//! index next waits for that.
//!
//! Guaranteed: nothing is looked for in an index that is still to learn of a commit, and when a seat is gone
//! its index is closed.

use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::KeyIndex;
use crate::fold::{Outcome, Pending};

/// Where a writer has its index, if it has one.
pub(crate) struct Seat {
    index: Option<KeyIndex>,
    entering: Option<Entering>,
}

struct Entering {
    thread: JoinHandle<()>,
    index: oneshot::Receiver<Option<KeyIndex>>,
}

impl Seat {
    pub(crate) fn of(index: Option<KeyIndex>) -> Self {
        Self { index, entering: None }
    }

    /// The index, when it knows all that it was given. None where there is none, or it could not be used.
    pub(crate) async fn index(&mut self) -> &mut Option<KeyIndex> {
        if let Some(Entering { index, .. }) = &mut self.entering {
            let entered = index.await;
            self.entering = None;
            self.index = entered.unwrap_or_else(|_| {
                tracing::warn!("a thread of the key index ended early; the table is searched until it is opened again");
                None
            });
        }
        &mut self.index
    }

    /// Enters a file of rows that was just committed; where that fails, the next look finds it. Returns at
    /// once.
    pub(crate) async fn enter(&mut self, path: String, changes: Pending, rows: Vec<Outcome>) {
        let Some(mut index) = self.index().await.take() else { return };
        let (entered, entering) = oneshot::channel();
        let folder = index.folder.clone();
        let enter = move || {
            let index = match index.committed(path, &changes, &rows) {
                Ok(()) => Some(index),
                Err(error) => {
                    tracing::warn!(%error, folder = %index.folder.display(), "the key index cannot be written; it is made anew");
                    index.anew()
                }
            };
            // Where nobody waits for it, it is closed.
            drop(entered.send(index));
        };
        match thread::Builder::new().name("key-index".to_owned()).spawn(enter) {
            Ok(thread) => self.entering = Some(Entering { thread, index: entering }),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "no thread for the key index; the table is searched until it is opened again");
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Another writer may open it next.
        if let Some(Entering { thread, .. }) = self.entering.take() {
            drop(thread.join());
        }
    }
}
