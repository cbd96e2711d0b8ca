//! Who tries, and when, on a real worker thread. The socket is a number of places.

use std::fs::File;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::Notify;

use super::*;
use crate::worker::Worker;

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// A unix socket, as connect(2) sees it.
#[derive(Default)]
struct FullBacklog {
    room: AtomicUsize,
    tries: AtomicUsize,
    is_dead: AtomicBool,
}

impl FullBacklog {
    fn connect(&self) -> Result<OwnedFd, CallError> {
        self.tries.fetch_add(1, SeqCst);
        let failed = |errno| Err(CallError { call: Call::Connect, errno });
        if self.is_dead.load(SeqCst) {
            return failed(Errno::CONNREFUSED);
        }
        match self.room.try_update(SeqCst, SeqCst, |room| room.checked_sub(1)) {
            Ok(_) => Ok(File::open("/dev/null").unwrap().into()),
            Err(_) => failed(Errno::AGAIN),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectOutcome {
    Connected,
    TimedOut,
    Refused,
    Left,
}

/// Which client's connect ended, and how.
type ConnectionEnd = (usize, ConnectOutcome);

thread_local! {
    static QUEUES: Rc<RetryQueues> = Rc::default();
}

struct Rig {
    worker: Worker,
    backlog: Arc<FullBacklog>,
    begun: (Sender<()>, Receiver<()>),
    ends: (Sender<ConnectionEnd>, Receiver<ConnectionEnd>),
}

impl Rig {
    fn new() -> Rig {
        let worker = Worker::start("test", || {}).unwrap();
        Rig { worker, backlog: Arc::default(), begun: channel(), ends: channel() }
    }

    /// Begins to connect client `number`, which leaves when it is notified. Returns once it has its place in the queue.
    fn client(&self, number: usize, timeout: Duration) -> Arc<Notify> {
        let leave = Arc::new(Notify::new());
        let (left, backlog) = (Arc::clone(&leave), Arc::clone(&self.backlog));
        let (begun, ends) = (self.begun.0.clone(), self.ends.0.clone());
        self.worker.remote().run(move || {
            worker::spawn(async move {
                let resource = Resource::ListenQueue(Arc::new(PathBuf::from("/socket")));
                let queues = QUEUES.with(Rc::clone);
                let outcome = {
                    let mut left = pin!(left.notified());
                    let deadline = worker::now() + timeout;
                    let mut connecting = pin!(queues.start(&resource, deadline, || backlog.connect()));
                    poll_fn(|cx| {
                        if left.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(ConnectOutcome::Left);
                        }
                        let polled = connecting.as_mut().poll(cx).map(|outcome| match outcome {
                            Ok(_) => ConnectOutcome::Connected,
                            Err(error) if error.errno == Errno::AGAIN => ConnectOutcome::TimedOut,
                            Err(_) => ConnectOutcome::Refused,
                        });
                        let _ = begun.send(());
                        polled
                    })
                    .await
                };
                let _ = ends.send((number, outcome));
            });
        });
        self.begun.1.recv_timeout(LIMIT).unwrap();
        while self.begun.1.try_recv().is_ok() {}
        leave
    }

    fn next_end(&self) -> ConnectionEnd {
        self.ends.1.recv_timeout(LIMIT).expect("somebody tries, and the connection that waits gets its end")
    }

    /// Sockets that somebody waits for, on the worker.
    fn queues(&self) -> usize {
        let (sender, receiver) = channel();
        self.worker.remote().run(move || {
            let _ = sender.send(QUEUES.with(|queues| queues.by_resource.borrow().len()));
        });
        receiver.recv_timeout(LIMIT).unwrap()
    }
}

#[test]
fn places_go_by_order_of_arrival() {
    let rig = Rig::new();
    for number in 0..50 {
        rig.client(number, LONG);
    }
    rig.backlog.room.store(20, SeqCst);
    let mut order: Vec<_> = (0..20).map(|_| rig.next_end()).collect();
    // There is room, but those who wait come first.
    rig.client(50, LONG);
    rig.backlog.room.store(31, SeqCst);
    order.extend((0..31).map(|_| rig.next_end()));
    assert_eq!(order, (0..51).map(|number| (number, ConnectOutcome::Connected)).collect::<Vec<_>>());
    assert_eq!(rig.queues(), 0);
    rig.worker.stop();
}

#[test]
fn tries_do_not_grow_with_the_number_of_those_who_wait() {
    let rig = Rig::new();
    let began = Instant::now();
    for number in 0..500 {
        rig.client(number, LONG);
    }
    let before = rig.backlog.tries.load(SeqCst);
    // The last one's timeout measures the worker's time.
    rig.client(500, Duration::from_millis(500));
    assert_eq!(rig.next_end(), (500, ConnectOutcome::TimedOut));
    let tries = rig.backlog.tries.load(SeqCst);
    let most = 10 + began.elapsed().as_millis() / PAUSE_MAX.as_millis();
    assert!((tries as u128) < most, "{tries} tries, {before} of them at first, in {:?}", began.elapsed());
    rig.worker.stop();
}

#[test]
fn next_one_tries_when_the_first_leaves() {
    let rig = Rig::new();
    let clients: Vec<_> = (0..5).map(|number| rig.client(number, LONG)).collect();
    // One of the middle, then the one that tries, then the one that tries after it.
    for number in [2, 0, 1] {
        clients[number].notify_one();
        assert_eq!(rig.next_end(), (number, ConnectOutcome::Left));
    }
    rig.backlog.room.store(2, SeqCst);
    assert_eq!([rig.next_end(), rig.next_end()], [(3, ConnectOutcome::Connected), (4, ConnectOutcome::Connected)]);
    assert_eq!(rig.queues(), 0);
    rig.worker.stop();
}

#[test]
fn each_has_its_own_timeout() {
    let rig = Rig::new();
    rig.client(0, Duration::from_millis(200));
    rig.client(1, Duration::from_millis(30));
    rig.client(2, LONG);
    assert_eq!(rig.next_end(), (1, ConnectOutcome::TimedOut));
    assert_eq!(rig.next_end(), (0, ConnectOutcome::TimedOut));
    rig.backlog.room.store(1, SeqCst);
    assert_eq!(rig.next_end(), (2, ConnectOutcome::Connected));
    rig.worker.stop();
}

#[test]
fn all_are_refused_when_the_server_dies() {
    let rig = Rig::new();
    for number in 0..20 {
        rig.client(number, LONG);
    }
    rig.backlog.is_dead.store(true, SeqCst);
    let ends: Vec<_> = (0..20).map(|_| rig.next_end()).collect();
    assert_eq!(ends, (0..20).map(|number| (number, ConnectOutcome::Refused)).collect::<Vec<_>>());
    rig.worker.stop();
}
