//! Flows in the order of their last datagram: lists linked through the table's places.

/// The neighbours of a flow in its list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    before: Option<u32>,
    after: Option<u32>,
}

/// A list, the longest idle first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgeList {
    first: Option<u32>,
    last: Option<u32>,
}

impl AgeList {
    /// The place that has been idle for longest.
    pub(super) fn first(&self) -> Option<u32> {
        self.first
    }

    /// Appends a place that is in no list.
    pub(super) fn append(&mut self, place: u32, links: &mut impl FnMut(u32, &mut dyn FnMut(&mut Links))) {
        let last = self.last.replace(place);
        match last {
            Some(last) => links(last, &mut |links| links.after = Some(place)),
            None => self.first = Some(place),
        }
        links(place, &mut |links| *links = Links { before: last, after: None });
    }

    /// Takes a place out of this list, which it is in.
    pub(super) fn remove(&mut self, place: u32, links: &mut impl FnMut(u32, &mut dyn FnMut(&mut Links))) {
        let mut own = Links::default();
        links(place, &mut |links| own = std::mem::take(links));
        match own.before {
            Some(before) => links(before, &mut |links| links.after = own.after),
            None => self.first = own.after,
        }
        match own.after {
            Some(after) => links(after, &mut |links| links.before = own.before),
            None => self.last = own.before,
        }
    }
}
