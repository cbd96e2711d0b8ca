//! Memory for what a worker receives at once, lent for the time of a call.

use std::cell::RefCell;

use crate::net::datagrams::ReceiveBatch;

thread_local! {
    static BATCH: RefCell<Option<Box<ReceiveBatch>>> = const { RefCell::new(None) };
}

/// Runs `f` with this worker's memory.
pub(super) fn with<T>(f: impl FnOnce(&mut ReceiveBatch) -> T) -> T {
    let mut batch = BATCH.with(RefCell::take).unwrap_or_default();
    let result = f(&mut batch);
    BATCH.with(|kept| kept.replace(Some(batch)));
    result
}

pub(super) fn release() {
    BATCH.with(|kept| drop(kept.take()));
}
