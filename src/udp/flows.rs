//! The sessions of one listening socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::list::{AgeList, Links};

/// What tells a session from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The client.
    pub client: SocketAddr,
    /// What it sends to. Replies leave from there.
    pub local: SocketAddr,
}

/// Names a session within its table. Never issued twice for different sessions, but after 4 billion in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    place: u32,
    generation: u32,
}

/// The limits of sessions. They hold for those that are open, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRules {
    /// A session ends when neither side has sent anything for so long.
    pub idle: Duration,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Replies to each datagram of the client, after which the session ends; `None` is no limit.
    pub responses: Option<NonZeroU32>,
    /// Bytes that a client may get for each byte that it has sent, until it is known to receive them; `None` is no limit.
    pub amplification: Option<NonZeroU32>,
}

/// What was counted of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCounts {
    /// Datagrams of the client.
    pub datagrams_in: u64,
    /// Datagrams of the backend.
    pub datagrams_out: u64,
    /// Bytes of the client.
    pub bytes_in: u64,
    /// Bytes of the backend.
    pub bytes_out: u64,
    /// The client has sent something after a reply.
    pub is_answering: bool,
    /// When either side sent its last datagram.
    pub last: Instant,
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It goes to the client.
    Forward,
    /// It goes to the client, and the session ends.
    Last,
    /// It is dropped: the client's address may be forged, and somebody else would get it.
    Amplified,
    /// The session has ended.
    Gone,
}

/// How far a client is known to be where its address says. Decides who makes room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    /// It has sent one datagram, as each address of a flood has.
    Once,
    /// It has sent more.
    Repeated,
    /// It has sent something after a reply.
    Answering,
}

#[derive(Debug)]
struct FlowEntry<T> {
    key: FlowKey,
    generation: u32,
    links: Links,
    proof: Proof,
    last: Instant,
    datagrams_in: u64,
    datagrams_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    value: T,
}

/// The sessions of one listening socket, each with a value of its owner.
#[derive(Debug)]
pub struct FlowTable<T> {
    rules: FlowRules,
    places: HashMap<FlowKey, u32>,
    flows: Vec<Option<FlowEntry<T>>>,
    free: Vec<u32>,
    generation: u32,
    /// By [`Proof`].
    ages: [AgeList; 3],
}

impl<T> FlowTable<T> {
    /// An empty one.
    pub fn new(rules: FlowRules) -> FlowTable<T> {
        FlowTable {
            rules,
            places: HashMap::new(),
            flows: Vec::new(),
            free: Vec::new(),
            generation: 0,
            ages: Default::default(),
        }
    }

    /// Other limits from now on. Sessions beyond a smaller number stay.
    pub fn set_rules(&mut self, rules: FlowRules) {
        self.rules = rules;
    }

    /// Sessions that are open.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether one more would be too many.
    pub fn is_full(&self) -> bool {
        self.len() >= self.rules.max_sessions
    }

    /// Whether a client has a session.
    pub fn contains(&self, key: &FlowKey) -> bool {
        self.places.contains_key(key)
    }

    /// The session of a client, which has sent `datagrams` at once, of `bytes` together; `None` if it has none.
    pub fn arrived(&mut self, key: &FlowKey, datagrams: u64, bytes: u64, now: Instant) -> Option<FlowId> {
        let place = *self.places.get(key)?;
        let flow = self.flows.get_mut(place as usize)?.as_mut()?;
        flow.datagrams_in += datagrams;
        flow.bytes_in += bytes;
        let proof = match flow.datagrams_out > 0 {
            true => Proof::Answering,
            false => Proof::Repeated,
        };
        let (id, proof) = (FlowId { place, generation: flow.generation }, proof.max(flow.proof));
        self.touch(place, proof, now);
        Some(id)
    }

    /// Opens a session for a client that has none, by what it has sent; `None` if there is no room, or it has one.
    pub fn open(&mut self, key: FlowKey, value: T, datagrams: u64, bytes: u64, now: Instant) -> Option<FlowId> {
        if self.is_full() || self.places.contains_key(&key) {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let proof = if datagrams > 1 { Proof::Repeated } else { Proof::Once };
        let flow = FlowEntry {
            key,
            generation,
            links: Links::default(),
            proof,
            last: now,
            datagrams_in: datagrams,
            datagrams_out: 0,
            bytes_in: bytes,
            bytes_out: 0,
            value,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.flows[place as usize] = Some(flow);
                place
            }
            None => {
                self.flows.push(Some(flow));
                // A table of four billion sessions has no memory.
                (self.flows.len() - 1) as u32
            }
        };
        self.places.insert(key, place);
        self.append(place, proof);
        Some(FlowId { place, generation })
    }

    /// What becomes of datagrams that the backend has sent at once, of `bytes` together.
    ///
    /// A client that has not yet sent anything after a reply may be a forged address. It gets one datagram for each that it has sent,
    /// as DNS needs, and more only up to `amplification` times the bytes that it has sent (RFC 9000, section 8.1, has 3).
    pub fn replied(&mut self, id: FlowId, datagrams: u64, bytes: u64, now: Instant) -> Reply {
        let FlowRules { responses, amplification, .. } = self.rules;
        let Some(flow) = self.flow_mut(id) else { return Reply::Gone };
        let (sent, size) = (flow.datagrams_out + datagrams, flow.bytes_out + bytes);
        if let (Some(factor), true) = (amplification, flow.proof < Proof::Answering)
            && sent > flow.datagrams_in
            && size > flow.bytes_in.saturating_mul(u64::from(factor.get()))
        {
            return Reply::Amplified;
        }
        (flow.datagrams_out, flow.bytes_out) = (sent, size);
        let is_last = responses.is_some_and(|each| sent >= flow.datagrams_in.saturating_mul(u64::from(each.get())));
        let proof = flow.proof;
        self.touch(id.place, proof, now);
        if is_last { Reply::Last } else { Reply::Forward }
    }

    /// Takes out the session that is to make room for another one: the longest idle of those whose client has sent a single
    /// datagram, or else of those whose client has sent nothing after a reply; `None` if there are no others.
    ///
    /// So does conntrack with what is not ASSURED. A flood of forged addresses displaces itself, not those who converse.
    pub fn evict(&mut self) -> Option<(FlowKey, T)> {
        let place = [Proof::Once, Proof::Repeated].into_iter().find_map(|proof| self.ages[proof as usize].first())?;
        self.take(place)
    }

    /// Takes out a session that has been idle for too long, if there is one.
    pub fn expire(&mut self, now: Instant) -> Option<(FlowKey, T)> {
        let is_due = |place: &u32| self.deadline(*place).is_some_and(|deadline| deadline <= now);
        let place = self.ages.iter().filter_map(AgeList::first).find(is_due)?;
        self.take(place)
    }

    /// When the next session will have been idle for too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.ages.iter().filter_map(AgeList::first).filter_map(|place| self.deadline(place)).min()
    }

    /// Takes out a session; `None` if it has ended.
    pub fn remove(&mut self, id: FlowId) -> Option<(FlowKey, T)> {
        self.flow_mut(id)?;
        self.take(id.place)
    }

    /// The value of a session; `None` if it has ended.
    pub fn get(&self, id: FlowId) -> Option<&T> {
        let flow = self.flows.get(id.place as usize)?.as_ref()?;
        (flow.generation == id.generation).then_some(&flow.value)
    }

    /// All sessions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&FlowKey, &T, FlowCounts)> {
        self.flows.iter().flatten().map(|flow| {
            let FlowEntry { datagrams_in, datagrams_out, bytes_in, bytes_out, last, .. } = *flow;
            let is_answering = flow.proof == Proof::Answering;
            let counts = FlowCounts { datagrams_in, datagrams_out, bytes_in, bytes_out, is_answering, last };
            (&flow.key, &flow.value, counts)
        })
    }

    /// Sets what was counted of a session elsewhere.
    pub fn restore(&mut self, id: FlowId, counts: FlowCounts) {
        let Some(flow) = self.flow_mut(id) else { return };
        let FlowCounts { datagrams_in, datagrams_out, bytes_in, bytes_out, is_answering, last } = counts;
        (flow.datagrams_in, flow.datagrams_out) = (datagrams_in, datagrams_out);
        (flow.bytes_in, flow.bytes_out) = (bytes_in, bytes_out);
        let proof = match is_answering {
            true => Proof::Answering,
            false if datagrams_in > 1 => Proof::Repeated,
            false => Proof::Once,
        };
        self.touch(id.place, proof, last);
    }

    fn deadline(&self, place: u32) -> Option<Instant> {
        let flow = self.flows.get(place as usize)?.as_ref()?;
        flow.last.checked_add(self.rules.idle)
    }

    fn flow_mut(&mut self, id: FlowId) -> Option<&mut FlowEntry<T>> {
        let flow = self.flows.get_mut(id.place as usize)?.as_mut()?;
        (flow.generation == id.generation).then_some(flow)
    }

    fn take(&mut self, place: u32) -> Option<(FlowKey, T)> {
        let proof = self.flows.get(place as usize)?.as_ref()?.proof;
        self.unlink(place, proof);
        let flow = self.flows.get_mut(place as usize)?.take()?;
        self.places.remove(&flow.key);
        self.free.push(place);
        if self.places.is_empty() {
            // What a flood has taken is given back.
            (self.flows, self.free) = (Vec::new(), Vec::new());
            self.places.shrink_to_fit();
        }
        Some((flow.key, flow.value))
    }

    /// Makes a session the last that would end, among those of as much proof.
    fn touch(&mut self, place: u32, proof: Proof, now: Instant) {
        let Some(Some(flow)) = self.flows.get_mut(place as usize) else { return };
        let before = std::mem::replace(&mut flow.proof, proof);
        flow.last = flow.last.max(now);
        self.unlink(place, before);
        self.append(place, proof);
    }

    fn append(&mut self, place: u32, proof: Proof) {
        let FlowTable { ages, flows, .. } = self;
        ages[proof as usize].append(place, &mut linked(flows));
    }

    fn unlink(&mut self, place: u32, proof: Proof) {
        let FlowTable { ages, flows, .. } = self;
        ages[proof as usize].remove(place, &mut linked(flows));
    }
}

fn linked<T>(flows: &mut [Option<FlowEntry<T>>]) -> impl FnMut(u32, &mut dyn FnMut(&mut Links)) {
    |place, change| {
        if let Some(Some(flow)) = flows.get_mut(place as usize) {
            change(&mut flow.links);
        }
    }
}
