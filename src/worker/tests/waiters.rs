//! Which future an event wakes.

use std::sync::atomic::AtomicBool;
use std::task::Wake;

use super::*;

/// A combinator as FuturesUnordered is one: each part has a waker of its own, and is polled only once that was woken.
struct Parts<'p>(Vec<(SubFuture<'p>, Arc<Woken>)>);

type SubFuture<'p> = Pin<Box<dyn Future<Output = ()> + 'p>>;

struct Woken {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake_by_ref();
    }
}

impl<'p> Parts<'p> {
    async fn run(parts: Vec<Pin<Box<dyn Future<Output = ()> + 'p>>>) {
        // The task's waker does not change.
        let task = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let woken = || Arc::new(Woken { woken: AtomicBool::new(true), task: task.clone() });
        Parts(parts.into_iter().map(|part| (part, woken())).collect()).await;
    }
}

impl Future for Parts<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0.retain_mut(|(part, woken)| {
            let waker = Waker::from(Arc::clone(woken));
            !woken.woken.swap(false, Ordering::SeqCst)
                || part.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        if self.0.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

async fn read_byte(socket: &Socket) -> u8 {
    let mut byte = [0];
    assert_eq!(poll_fn(|_| socket.poll_read(&mut byte)).await.unwrap(), 1);
    byte[0]
}

#[test]
fn socket_moved_to_another_task_wakes_that_one() {
    let (worker, (ours, mut theirs)) = (worker(), pair());
    let read = on(&worker, |sender| async move {
        let socket = Socket::new(ours.into(), Transport::Other).unwrap();
        sender.send(read_byte(&socket).await).unwrap();
        spawn(async move {
            for _ in 0..2 {
                sender.send(read_byte(&socket).await).unwrap();
            }
        });
        // It lives on, and would be woken instead.
        std::future::pending::<()>().await;
    });
    for byte in 1..=3 {
        theirs.write_all(&[byte]).unwrap();
        assert_eq!(read.recv_timeout(TIMEOUT), Ok(byte));
    }
    worker.stop().join().unwrap();
}

#[test]
fn socket_in_a_combinator_wakes_the_part_that_waits_for_it() {
    let (worker, (first, mut to_first), (second, mut to_second)) = (worker(), pair(), pair());
    let read = on(&worker, |sender| async move {
        let sockets = [first, second].map(|fd| Socket::new(fd.into(), Transport::Other).unwrap());
        let parts = sockets.iter().map(|socket| {
            let sender = sender.clone();
            Box::pin(async move {
                for _ in 0..2 {
                    sender.send(read_byte(socket).await).unwrap();
                }
            }) as Pin<Box<dyn Future<Output = ()>>>
        });
        Parts::run(parts.collect()).await;
        // The task itself waits after its parts did.
        sender.send(read_byte(&sockets[0]).await).unwrap();
    });
    for (socket, byte) in [(&mut to_second, 1), (&mut to_first, 2)] {
        socket.write_all(&[byte]).unwrap();
        assert_eq!(read.recv_timeout(TIMEOUT), Ok(byte));
    }
    for (socket, byte) in [(&mut to_first, 3), (&mut to_second, 4)] {
        socket.write_all(&[byte]).unwrap();
        assert_eq!(read.recv_timeout(TIMEOUT), Ok(byte));
    }
    to_first.write_all(&[5]).unwrap();
    assert_eq!(read.recv_timeout(TIMEOUT), Ok(5));
    worker.stop().join().unwrap();
}

#[test]
fn timers_and_reschedules_in_a_combinator_wake_the_part_that_waits() {
    let worker = worker();
    let done = on(&worker, |sender| async move {
        let parts = (1..=3u64).map(|n| {
            let sender = sender.clone();
            Box::pin(async move {
                yield_now().await;
                sleep_until(now() + Duration::from_millis(n * 2)).await;
                sender.send(n).unwrap();
            }) as Pin<Box<dyn Future<Output = ()>>>
        });
        Parts::run(parts.collect()).await;
        sender.send(4).unwrap();
    });
    for n in 1..=4 {
        assert_eq!(done.recv_timeout(TIMEOUT), Ok(n));
    }
    worker.stop().join().unwrap();
}

#[test]
fn armed_timer_moved_to_another_task_wakes_that_one() {
    let worker = worker();
    let done = on(&worker, |sender| async move {
        let (mut timer, deadline) = (Timer::default(), now() + Duration::from_millis(20));
        poll_fn(|_| {
            assert!(timer.poll_expired(deadline).is_pending());
            Poll::Ready(())
        })
        .await;
        spawn(async move {
            poll_fn(|_| timer.poll_expired(deadline)).await;
            sender.send(now() >= deadline).unwrap();
        });
        std::future::pending::<()>().await;
    });
    assert_eq!(done.recv_timeout(TIMEOUT), Ok(true));
    worker.stop().join().unwrap();
}
