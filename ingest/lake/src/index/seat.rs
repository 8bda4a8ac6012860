//! An index that enters the rows of a commit while the commit is made.
//!
//! What passes through: the rows of a file, into the index, on a thread of its own. Whoever needs the index
//! next waits for that.
//!
//! Guaranteed: nothing is looked for in an index that is still to learn of a commit, or that has rows of one
//! that never came to be: unless it is confirmed, they are taken back first. When a seat is gone its index is
//! closed, in the same order.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::KeyIndex;
use crate::error::BoxError;
use crate::fold::{Outcome, Pending};

/// Where a writer has its index, if it has one.
pub(crate) struct Seat {
    index: Option<KeyIndex>,
    entering: Option<Entering>,
    /// Whether what was entered last is committed.
    is_confirmed: bool,
}

struct Entering {
    thread: JoinHandle<()>,
    index: oneshot::Receiver<Option<KeyIndex>>,
}

impl Seat {
    pub(crate) fn of(index: Option<KeyIndex>) -> Self {
        Self { index, entering: None, is_confirmed: false }
    }

    /// The index, when it knows all that was committed. None where there is none, or it could not be used.
    pub(crate) async fn index(&mut self) -> &mut Option<KeyIndex> {
        self.entered().await;
        self.settle();
        &mut self.index
    }

    /// When all is entered.
    pub(crate) async fn entered(&mut self) {
        if let Some(Entering { index, .. }) = &mut self.entering {
            let entered = index.await;
            self.entering = None;
            self.index = entered.unwrap_or_else(|_| {
                tracing::warn!("a thread of the key index ended early; the table is searched until it is opened again");
                None
            });
        }
    }

    fn settle(&mut self) {
        let Some(index) = &mut self.index else { return };
        if let Err(error) = index.settle(std::mem::take(&mut self.is_confirmed)) {
            self.index = self.index.take().and_then(|index| anew(index, &error));
        }
    }

    /// Enters a file of rows that is about to be committed, as far as that is [confirmed](Self::confirm).
    /// Returns at once.
    pub(crate) async fn enter(&mut self, path: String, changes: Arc<Pending>, rows: Vec<Outcome>) {
        let Some(mut index) = self.index().await.take() else { return };
        let (entered, entering) = oneshot::channel();
        let folder = index.folder.clone();
        let enter = move || {
            let index = match index.enter_ahead(path, &changes, &rows) {
                Ok(()) => Some(index),
                Err(error) => anew(index, &error),
            };
            // Where nobody waits for it any more, it is made anew when it is opened.
            drop(entered.send(index));
        };
        match thread::Builder::new().name("key-index".to_owned()).spawn(enter) {
            Ok(thread) => self.entering = Some(Entering { thread, index: entering }),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "no thread for the key index; the table is searched until it is opened again");
            }
        }
    }

    /// What was entered last is committed.
    pub(crate) fn confirm(&mut self) {
        self.is_confirmed = true;
    }
}

/// What is left of an index that could not be written.
fn anew(index: KeyIndex, error: &BoxError) -> Option<KeyIndex> {
    tracing::warn!(%error, folder = %index.folder.display(), "the key index cannot be written; it is made anew");
    index.anew()
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Another writer may open it next.
        if let Some(Entering { thread, mut index }) = self.entering.take() {
            drop(thread.join());
            self.index = index.try_recv().ok().flatten();
        }
        self.settle();
    }
}
