//! A session: a client's datagrams to a backend and back, by a connected socket.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use super::super::crew::WorkerSlot;
use super::super::listener::Listener;
use super::super::session::Permits;
use super::super::worker_state::{SessionHandle, WorkerState};
use super::admit::AdmittedClient;
use super::backend::{choose, tell};
use super::client_datagram::{ClientDatagram, whole};
use super::handover::HandedSession;
use super::outgoing::{Sent, send};
use super::scratch;
use crate::log::access::{AccessLine, OpenConnections};
use crate::net::addr::ClientAddr;
use crate::net::datagrams::{OutgoingDatagram, ReceiveBatch};
use crate::net::sys::{UDP_GRO, set_option};
use crate::pool::{Backend, Excluded, Lease, Pool};
use crate::sniff::proxy_protocol::{Ends, Outgoing};
use crate::stats::latency::Stage;
use crate::stats::termination::{Side, Termination};
use crate::stats::udp::DatagramDrop;
use crate::udp::{FlowId, FlowKey, Reply};
use crate::worker::{self, DatagramSocket, poll_fn};

/// Batches that are read in a turn of the loop, before other sessions have theirs.
const BATCHES: usize = 4;

/// Datagrams, or trains, that are received at once.
const BATCH: usize = 16;

/// Replies at once from which on a backend is taken for one that sends trains.
const TRAIN: usize = 8;

/// Datagrams of a session that are kept until the backend answers. An ICMP error comes before there are more; a backend that never
/// answers, such as one of syslog, costs no copies beyond them.
const HELD: u64 = 8;

/// The listening socket of a session.
pub(super) trait SessionOwner {
    fn state(&self) -> &Rc<WorkerState>;

    /// Another process reads.
    fn is_held(&self) -> bool;

    /// What replies leave by.
    fn socket(&self) -> BorrowedFd<'_>;

    /// As it is configured now.
    fn listener(&self) -> Arc<Listener>;

    /// What becomes of datagrams from the backend.
    fn replied(&self, id: FlowId, datagrams: u64, bytes: u64, now: Instant) -> Reply;

    /// The session has ended by itself.
    fn ended(&self, id: FlowId);

    /// Keeps a datagram until the backend has answered.
    fn hold(&self, id: FlowId, datagram: &[u8]);

    /// The datagrams that were kept of a session.
    fn take_held(&self, id: FlowId) -> Vec<Box<[u8]>>;

    /// The address that replies leave from, where the socket does not decide it.
    fn source(&self, key: &FlowKey) -> Option<IpAddr>;

    fn drop_datagrams(&self, why: DatagramDrop, count: u64);
}

/// A session of a client.
pub(super) struct UdpSession {
    reader: Rc<dyn SessionOwner>,
    key: FlowKey,
    id: Cell<Option<FlowId>>,
    handle: SessionHandle,
    pool: Arc<Pool>,
    /// `None` once it has ended.
    socket: RefCell<Option<Rc<DatagramSocket>>>,
    /// Of its present backend: what the first datagram begins with.
    header: RefCell<Option<Vec<u8>>>,
    tried: RefCell<Excluded>,
    receives_trains: Cell<bool>,
    /// When the last datagram was forwarded that no reply has come to yet.
    asked: Cell<Option<Instant>>,
    first_reply: Cell<Option<Duration>>,
    turnarounds: Cell<(u32, Duration)>,
    datagrams: Cell<(u64, u64)>,
    retries: Cell<u32>,
    room: RefCell<Option<(Permits, WorkerSlot)>>,
}

impl UdpSession {
    /// Chooses a backend.
    ///
    /// # Errors
    /// None can be had: why the client's datagram is dropped.
    pub(super) fn open(
        reader: &Rc<impl SessionOwner + 'static>,
        key: FlowKey,
        admitted: AdmittedClient,
        now: Instant,
    ) -> Result<Rc<UdpSession>, DatagramDrop> {
        let pool = Arc::clone(reader.listener().pool(admitted.preamble.route));
        let mut tried = Excluded::new();
        let (lease, socket) = choose(&reader.listener(), &pool, &key, &mut tried)?;
        let session = UdpSession::new(reader, key, admitted, now);
        session.tried.replace(tried);
        session.use_backend(lease, socket);
        Ok(session)
    }

    /// One without a backend yet.
    pub(super) fn new(
        reader: &Rc<impl SessionOwner + 'static>,
        key: FlowKey,
        AdmittedClient { preamble, permits, slot }: AdmittedClient,
        now: Instant,
    ) -> Rc<UdpSession> {
        let listener = reader.listener();
        let pool = Arc::clone(listener.pool(preamble.route));
        listener.counters().opened();
        let handle = reader.state().enter(Arc::clone(&listener), ClientAddr::Tcp(key.client), now);
        handle.connection().opened(preamble);
        handle.connection().set_sent(true);
        Rc::new(UdpSession {
            reader: Rc::clone(reader) as Rc<dyn SessionOwner>,
            key,
            id: Cell::new(None),
            handle,
            pool,
            socket: RefCell::default(),
            header: RefCell::default(),
            tried: RefCell::default(),
            receives_trains: Cell::new(false),
            asked: Cell::new(None),
            first_reply: Cell::new(None),
            turnarounds: Cell::default(),
            datagrams: Cell::default(),
            retries: Cell::new(0),
            room: RefCell::new(Some((permits, slot))),
        })
    }

    /// Goes on with the backend and the socket that another process had for it.
    pub(super) fn resume(&self, lease: Lease, socket: DatagramSocket, handed: &HandedSession) {
        self.use_backend(lease, socket);
        // It has had that.
        self.header.take();
        self.datagrams.set(handed.datagrams);
        // Whether there was a reply, not how long it took.
        self.first_reply.set((handed.datagrams.1 > 0).then_some(Duration::ZERO));
        self.handle.connection().moved(handed.bytes.0, handed.bytes.1, worker::now());
    }

    /// Pool and backend, when it began, and a duplicate of its socket.
    pub(super) fn handed(&self) -> Option<(String, String, Instant, OwnedFd)> {
        let socket = self.socket()?.as_fd().try_clone_to_owned().ok()?;
        let backend = self.backend()?.name().to_string();
        Some((self.pool.name().to_string(), backend, self.handle.connection().accepted, socket))
    }

    /// Ends here without a line, as it goes on in another process.
    pub(super) fn give_up(&self) {
        if self.socket.take().is_none() {
            return;
        }
        let connection = self.handle.connection();
        connection.wake();
        drop(connection.take_lease());
        connection.listener.counters().closed(Termination::Closed(Side::Client));
        self.room.take();
    }

    pub(super) fn wake(&self) {
        self.handle.connection().wake();
    }

    /// Its backend is this one from now on.
    fn use_backend(&self, lease: Lease, socket: DatagramSocket) {
        let connection = self.handle.connection();
        let backend = lease.backend();
        backend.counters().connected();
        if backend.settings().send_proxy.is_some() {
            let id = connection.id.to_string();
            let client = Some(Ends { source: self.key.client, destination: self.key.local });
            let unique_id = Some(id.as_bytes());
            let header = Outgoing { client, unique_id, datagrams: true, ..Outgoing::default() }.v2();
            self.header.replace(Some(header));
        }
        connection.connects_to(backend.id());
        connection.mark_connected();
        connection.hold(lease);
        self.receives_trains.set(false);
        self.socket.replace(Some(Rc::new(socket)));
    }

    /// Has its name in the table: starts its task.
    pub(super) fn begin(self: &Rc<Self>, id: FlowId) {
        self.id.set(Some(id));
        let session = Rc::clone(self);
        worker::spawn(async move {
            session.handle.connection().begin();
            poll_fn(|_| session.poll()).await;
        });
    }

    fn backend(&self) -> Option<Arc<Backend>> {
        self.handle.connection().lease().as_ref().map(|lease| Arc::clone(lease.backend()))
    }

    fn socket(&self) -> Option<Rc<DatagramSocket>> {
        self.socket.borrow().clone()
    }

    /// Sends datagrams of the client to the backend, or if that refuses them, to another one.
    pub(super) fn forward(self: &Rc<Self>, datagrams: &[ClientDatagram<'_>], now: Instant) {
        self.asked.set(Some(now));
        let mut rest = datagrams;
        while let (Some(socket), false) = (self.socket(), rest.is_empty()) {
            let header = self.header.take().unwrap_or_default();
            let outgoing: Vec<OutgoingDatagram<'_>> = rest
                .iter()
                .enumerate()
                .map(|(place, it)| OutgoingDatagram {
                    head: if place == 0 { &header } else { &[] },
                    bytes: it.bytes,
                    peer: None,
                    local: None,
                    segment: it.segment,
                })
                .collect();
            let (sent, refused) = send(socket.as_fd(), &outgoing);
            self.count_in(sent, now);
            let Some((done, errno)) = refused else {
                rest = &[];
                break;
            };
            if done == 0 && !header.is_empty() {
                self.header.replace(Some(header));
            }
            rest = &rest[done..];
            self.refused(errno);
            // It came before.
            self.send_held();
        }
        if !rest.is_empty() {
            let count = rest.iter().map(ClientDatagram::count).sum();
            self.reader.drop_datagrams(DatagramDrop::NoBackend, count);
        }
        if self.first_reply.get().is_none()
            && self.datagrams.get().0 <= HELD
            && let Some(id) = self.id.get()
        {
            datagrams.iter().flat_map(ClientDatagram::apart).for_each(|datagram| self.reader.hold(id, datagram));
        }
    }

    fn count_in(&self, sent: Sent, now: Instant) {
        let connection = self.handle.connection();
        connection.moved(connection.bytes_in() + sent.bytes, connection.bytes_out(), now);
        let (datagrams_in, datagrams_out) = self.datagrams.get();
        self.datagrams.set((datagrams_in + sent.datagrams, datagrams_out));
        let (listener, worker) = (&connection.listener, self.reader.state().worker);
        listener.traffic().add(worker, sent.bytes, 0);
        listener.datagrams().add(worker, sent.datagrams, 0);
        if let Some(backend) = self.backend() {
            backend.traffic().add(worker, sent.bytes, 0);
        }
        if sent.failed > 0 {
            listener.datagrams().dropped(DatagramDrop::ToBackend, sent.failed);
        }
    }

    fn poll(self: &Rc<Self>) -> Poll<()> {
        if let Some(abort) = self.handle.aborted() {
            self.end(abort.into());
        }
        if self.reader.is_held() && self.socket.borrow().is_some() {
            return Poll::Pending;
        }
        for _ in 0..BATCHES {
            let Some(socket) = self.socket() else { return Poll::Ready(()) };
            if socket.poll_readable().is_pending() {
                return Poll::Pending;
            }
            match scratch::with(|batch| {
                let count = batch.receive(&*socket, BATCH)?;
                self.reply(batch, count);
                Ok(count)
            }) {
                Ok(count) => {
                    if count >= TRAIN && !self.receives_trains.replace(true) {
                        // Without the option, all is as before.
                        let _ = set_option(&*socket, UDP_GRO, 1);
                    }
                }
                Err(Errno::AGAIN) => socket.clear_readable(),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.refused(errno);
                    self.send_held();
                }
            }
        }
        worker::reschedule();
        Poll::Pending
    }

    /// Sends what the backend has sent to the client.
    fn reply(self: &Rc<Self>, batch: &ReceiveBatch, count: usize) {
        let Some(id) = self.id.get() else { return };
        let now = worker::now();
        self.answered(now);
        let (mut outgoing, mut is_last) = (Vec::with_capacity(count), false);
        for datagram in (0..count).filter_map(|place| batch.get(place)) {
            let size = datagram.bytes.len() as u64;
            match self.reader.replied(id, datagram.count(), size, now) {
                Reply::Forward => {}
                Reply::Last => is_last = true,
                Reply::Amplified => {
                    self.reader.drop_datagrams(DatagramDrop::Amplification, datagram.count());
                    continue;
                }
                Reply::Gone => break,
            }
            outgoing.push(OutgoingDatagram {
                head: &[],
                bytes: datagram.bytes,
                peer: Some(self.key.client),
                local: self.reader.source(&self.key),
                segment: datagram.segment,
            });
        }
        let (mut rest, mut all) = (&outgoing[..], Sent::default());
        loop {
            let (sent, error) = send(self.reader.socket(), rest);
            all.add(sent);
            // That a host is not there is of the client here, and ends nothing.
            let Some((done, _)) = error else { break };
            all.failed += 1;
            rest = rest.get(done + 1..).unwrap_or_default();
        }
        self.count_out(all, now);
        if is_last {
            self.end(Termination::Closed(Side::Backend));
        }
    }

    fn count_out(&self, sent: Sent, now: Instant) {
        let connection = self.handle.connection();
        connection.moved(connection.bytes_in(), connection.bytes_out() + sent.bytes, now);
        let (datagrams_in, datagrams_out) = self.datagrams.get();
        self.datagrams.set((datagrams_in, datagrams_out + sent.datagrams));
        let (listener, worker) = (&connection.listener, self.reader.state().worker);
        listener.traffic().add(worker, 0, sent.bytes);
        listener.datagrams().add(worker, 0, sent.datagrams);
        if let Some(backend) = self.backend() {
            backend.traffic().add(worker, 0, sent.bytes);
        }
        if sent.failed > 0 {
            listener.datagrams().dropped(DatagramDrop::ToClient, sent.failed);
        }
    }

    /// The backend has sent something: how long it took, if that was an answer.
    fn answered(&self, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        let took = now.saturating_duration_since(asked);
        let connection = self.handle.connection();
        let (count, sum) = self.turnarounds.get();
        self.turnarounds.set((count.saturating_add(1), sum.saturating_add(took)));
        self.reader.state().measure(&connection.listener, connection.backend(), Stage::Turnaround, took);
        if self.first_reply.get().is_none() {
            self.first_reply.set(Some(took));
            if let Some(backend) = self.backend() {
                self.pool.record_answer(&backend, took);
            }
            self.reader.state().measure(&connection.listener, connection.backend(), Stage::FirstByte, took);
            self.id.get().into_iter().for_each(|id| drop(self.reader.take_held(id)));
        }
    }

    /// Goes on with another backend, as an ICMP error says that nothing listens at this one; ends if there is no other.
    fn refused(self: &Rc<Self>, errno: Errno) {
        let connection = self.handle.connection();
        let Some(lease) = connection.take_lease() else { return };
        let backend = Arc::clone(lease.backend());
        tell(&self.pool, &backend, errno);
        self.pool.record_connect_failure(&backend, Duration::ZERO);
        self.tried.borrow_mut().add(backend.id());
        drop(lease);
        let chosen = choose(&self.reader.listener(), &self.pool, &self.key, &mut self.tried.borrow_mut());
        match chosen {
            Ok((lease, socket)) => {
                backend.counters().retried();
                connection.listener.counters().retried();
                connection.listener.datagrams().moved();
                self.retries.set(self.retries.get().saturating_add(1));
                self.use_backend(lease, socket);
            }
            Err(_) => self.end(Termination::ConnectFailed),
        }
    }

    /// Sends the datagrams again that the backend refused.
    fn send_held(self: &Rc<Self>) {
        let Some(id) = self.id.get() else { return };
        let held = self.reader.take_held(id);
        let datagrams = whole(&held);
        if !datagrams.is_empty() {
            self.forward(&datagrams, worker::now());
        }
    }

    fn end(&self, ending: Termination) {
        if let Some(id) = self.id.get() {
            self.reader.ended(id);
        }
        self.finish(ending);
    }

    /// Closes the socket, counts and logs, once.
    pub(super) fn finish(&self, ending: Termination) {
        if self.socket.take().is_none() {
            return;
        }
        // Its task sees that the socket is gone.
        self.handle.connection().wake();
        self.record(ending);
        self.room.take();
    }

    fn record(&self, ending: Termination) {
        let (connection, state) = (self.handle.connection(), self.reader.state());
        let listener = &connection.listener;
        let duration = worker::now().saturating_duration_since(connection.accepted);
        let lease = connection.take_lease();
        let backend = lease.as_ref().map(|lease| Arc::clone(lease.backend()));
        let open = state.access().is_some().then(|| OpenConnections {
            process: state.plane.open(),
            listener: listener.counters().open(),
            pool: self.pool.connections(),
            backend: backend.as_ref().map_or(0, |backend| backend.connections()),
        });
        if let Some(lease) = lease {
            self.pool.record_end(connection.client.get().ip(), lease.backend());
        }
        listener.counters().closed(ending);
        state.measure(listener, connection.backend(), Stage::Session, duration);
        let (Some(writer), Some(open)) = (&mut *state.access(), open) else { return };
        let (turnarounds, turnaround) = self.turnarounds.get();
        writer.write(&AccessLine {
            time: SystemTime::now(),
            listener: &listener.config().name,
            pool: self.pool.name(),
            client: connection.client.get(),
            backend: backend.as_ref().map(|backend| &**backend.name()),
            id: connection.id.get(),
            queue: Some(Duration::ZERO),
            queued_behind: 0,
            connect: Some(Duration::ZERO),
            client_handshake: None,
            backend_handshake: None,
            first_byte: self.first_reply.get(),
            turnarounds,
            turnaround: turnaround.checked_div(turnarounds),
            duration,
            bytes_in: connection.bytes_in(),
            bytes_out: connection.bytes_out(),
            protocol: None,
            request: None,
            proxy_tlvs: &[],
            user: None,
            database: None,
            queries: None,
            datagrams: Some(self.datagrams.get()),
            retries: self.retries.get(),
            failed_connects: &[],
            open,
            is_empty: false,
            ending,
        });
    }
}

impl Drop for UdpSession {
    /// Where the worker ends before the session, or a panic has ended its task.
    fn drop(&mut self) {
        self.finish(Termination::InternalError);
    }
}
