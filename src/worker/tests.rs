//! The loop as tasks see it, on a real worker thread.

mod waiters;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::relay::Stream;

const TIMEOUT: Duration = Duration::from_secs(10);

fn worker() -> Worker {
    Worker::start("test", || ()).unwrap()
}

/// Runs a task on the worker and hands over what it sends.
fn on<T, F>(worker: &Worker, task: impl FnOnce(std::sync::mpsc::Sender<T>) -> F + Send + 'static) -> Receiver<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (sender, receiver) = channel();
    worker.remote().run(move || spawn(task(sender)));
    receiver
}

/// Counts itself while it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Alive {
        count.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    let (worker, alive) = (worker(), Arc::new(AtomicUsize::new(0)));
    let of_task = Arc::clone(&alive);
    let panicking = on(&worker, move |sender| {
        let guard = Alive::new(&of_task);
        async move {
            let _guard = guard;
            sleep_until(now() + Duration::from_millis(1)).await;
            sender.send(()).unwrap();
            panic!("on purpose");
        }
    });
    panicking.recv_timeout(TIMEOUT).unwrap();
    worker.remote().run(|| panic!("a call may panic too, on purpose"));
    let other = on(&worker, |sender| async move {
        sleep_until(now() + Duration::from_millis(5)).await;
        sender.send("well").unwrap();
    });
    assert_eq!(other.recv_timeout(TIMEOUT), Ok("well"));
    assert_eq!(alive.load(Ordering::SeqCst), 0, "what it held was given back");
    worker.stop().join().unwrap();
}

#[test]
fn stopping_drops_what_is_left() {
    let (worker, alive) = (worker(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..10 {
        let alive = Arc::clone(&alive);
        let started = on(&worker, |sender| async move {
            let _guard = Alive::new(&alive);
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        started.recv_timeout(TIMEOUT).unwrap();
    }
    assert_eq!(alive.load(Ordering::SeqCst), 10);
    let remote = Arc::clone(worker.remote());
    worker.stop().join().unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let late = Alive::new(&alive);
    remote.run(move || drop(late));
    assert_eq!(alive.load(Ordering::SeqCst), 0, "what comes too late is dropped, not kept");
}

#[test]
fn other_threads_wake_tasks() {
    let worker = worker();
    let (ping, pong) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (of_task, count) = (Arc::clone(&ping), Arc::clone(&pong));
    let done = on(&worker, |sender| async move {
        while count.fetch_add(1, Ordering::SeqCst) < 1_000 {
            of_task.notified().await;
        }
        sender.send(()).unwrap();
    });
    // A lost wake-up would leave it waiting for good: each is sent only once the last was seen.
    for seen in 1..=1_000 {
        let started = Instant::now();
        while pong.load(Ordering::SeqCst) < seen {
            assert!(started.elapsed() < TIMEOUT, "wake-up {seen} was lost");
            std::thread::yield_now();
        }
        ping.notify_one();
    }
    done.recv_timeout(TIMEOUT).unwrap();
    worker.stop().join().unwrap();
}

#[test]
fn timers_fire_in_order_and_never_early() {
    let worker = worker();
    let (sender, fired) = channel();
    // All in one turn of the loop, so that their order is that of their deadlines however slow the machine is.
    worker.remote().run(move || {
        let start = Instant::now();
        for millis in [30, 10, 70, 10, 0, 50] {
            let sender = sender.clone();
            spawn(async move {
                let deadline = start + Duration::from_millis(millis);
                sleep_until(deadline).await;
                sender.send((millis, Instant::now() >= deadline)).unwrap();
            });
        }
    });
    let fired: Vec<_> = (0..6).map(|_| fired.recv_timeout(TIMEOUT).unwrap()).collect();
    assert!(fired.iter().all(|&(_, on_time)| on_time), "{fired:?}");
    assert!(fired.is_sorted_by_key(|&(millis, _)| millis), "{fired:?}");
    worker.stop().join().unwrap();
}

#[test]
fn a_lazy_timer_follows_its_deadline_both_ways() {
    let worker = worker();
    let done = on(&worker, |sender| async move {
        let mut timer = Timer::default();
        let (start, mut deadline) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
        let mut polls = 0;
        poll_fn(|_| {
            polls += 1;
            // Armed far away, moved near, then moved further while it waits.
            deadline = match polls {
                1 => {
                    reschedule();
                    deadline
                }
                2 => start + Duration::from_millis(10),
                _ => start + Duration::from_millis(40),
            };
            timer.poll_expired(deadline)
        })
        .await;
        sender.send((polls, start.elapsed() >= Duration::from_millis(40))).unwrap();
    });
    let (polls, on_time) = done.recv_timeout(TIMEOUT).unwrap();
    assert!(on_time && (3..=5).contains(&polls), "{polls} polls");
    worker.stop().join().unwrap();
}

#[test]
fn bytes_and_their_end_in_one_event_are_both_seen() {
    let (worker, (ours, mut theirs)) = (worker(), UnixStream::pair().unwrap());
    ours.set_nonblocking(true).unwrap();
    theirs.write_all(b"last words").unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let read = on(&worker, |sender| async move {
        // As over TCP, where a short read is taken to have emptied the socket.
        let socket = Socket::new(ours.into(), Transport::Tcp).unwrap();
        let mut buffer = [0; 100];
        for _ in 0..2 {
            let count = poll_fn(|_| socket.poll_read(&mut buffer)).await.unwrap();
            sender.send(buffer[..count].to_vec()).unwrap();
        }
        assert!(matches!(socket.poll_shutdown(false), Poll::Ready(Ok(()))));
    });
    assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), b"last words");
    assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), b"", "the FIN that came with them");
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
    worker.stop().join().unwrap();
}

#[test]
fn a_panicking_future_does_not_poison_timers_of_others() {
    let worker = worker();
    for _ in 0..20 {
        worker.remote().run(|| {
            spawn(async {
                let mut timer = Timer::default();
                poll_fn(|_| {
                    assert!(timer.poll_expired(now() + Duration::from_millis(2)).is_ready(), "on purpose");
                    Poll::Ready(())
                })
                .await;
            });
        });
    }
    let other = on(&worker, |sender| async move {
        sleep_until(now() + Duration::from_millis(10)).await;
        sender.send(()).unwrap();
    });
    other.recv_timeout(TIMEOUT).unwrap();
    worker.stop().join().unwrap();
}

#[test]
fn what_came_before_a_reset_is_read_even_if_nobody_saw_the_connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = crate::net::addr::Address::Tcp(listener.local_addr().unwrap());
    let options = crate::net::dial::Options { nodelay: true, keepalive: None };
    let started = crate::net::dial::start(&address, None, options).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"last words").unwrap();
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    let worker = worker();
    let read = on(&worker, |sender| async move {
        let socket = Socket::new(started, Transport::Tcp).unwrap();
        sender.send(socket.connected().await.map(|()| Vec::new())).unwrap();
        for _ in 0..2 {
            let mut buffer = [0; 100];
            let count = poll_fn(|_| socket.poll_read(&mut buffer)).await;
            sender.send(count.map(|count| buffer[..count].to_vec())).unwrap();
        }
    });
    assert!(read.recv_timeout(TIMEOUT).unwrap().is_ok(), "it was connected");
    assert_eq!(read.recv_timeout(TIMEOUT).unwrap().unwrap(), b"last words");
    let end = read.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    worker.stop().join().unwrap();
}
