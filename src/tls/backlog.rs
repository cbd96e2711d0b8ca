//! Bytes of a connection that wait for room.

/// A queue of bytes. It takes one pointer while it is empty, as it is on an idle connection.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<Queued>>);

struct Queued {
    bytes: Vec<u8>,
    /// Bytes at the front that were taken.
    taken: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let queued = self.0.get_or_insert_with(|| Box::new(Queued { bytes: Vec::new(), taken: 0 }));
            queued.bytes.extend_from_slice(bytes);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |queued| &queued.bytes[queued.taken..])
    }

    /// Takes `count` bytes from the front, at most all of them. Memory is freed with the last.
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(queued) = &mut self.0 {
            queued.taken += count;
            if queued.taken >= queued.bytes.len() {
                self.0 = None;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_returns_bytes_in_order_and_frees_its_memory_with_the_last() {
        let mut backlog = Backlog::default();
        backlog.push(b"");
        assert!(backlog.0.is_none());
        backlog.push(b"abc");
        backlog.advance(2);
        backlog.push(b"de");
        assert_eq!(backlog.bytes(), b"cde");
        backlog.advance(3);
        assert_eq!(backlog.bytes(), b"");
        assert!(backlog.0.is_none());
        assert_eq!(size_of::<Backlog>(), size_of::<usize>());
    }
}
