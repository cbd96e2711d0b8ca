//! Tasks: futures of one thread, run when they are woken.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::{Task, if_local};

/// The way to a worker from other threads: an inbox, and an eventfd that ends its wait.
#[derive(Debug)]
pub struct Remote {
    eventfd: OwnedFd,
    inbox: Mutex<Inbox>,
    /// Set until the worker takes the inbox, so that only the first of many messages makes a system call.
    signalled: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    woken: Vec<u32>,
    calls: Vec<Box<dyn FnOnce() + Send>>,
    closed: bool,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({} woken, {} calls)", self.woken.len(), self.calls.len())
    }
}

impl Remote {
    pub(super) fn new() -> io::Result<Remote> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Remote { eventfd, inbox: Mutex::default(), signalled: AtomicBool::new(false) })
    }

    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Runs `call` on the worker's thread, in a coming turn of its loop. On a worker that has stopped it is
    /// dropped, with what it holds.
    pub fn run(&self, call: impl FnOnce() + Send + 'static) {
        self.post(|inbox| inbox.calls.push(Box::new(call)));
    }

    fn post(&self, add: impl FnOnce(&mut Inbox)) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.closed {
                return;
            }
            add(&mut inbox);
        }
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // It can only fail when its counter is full, and then the worker is awake.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Inbox {
        // Cleared before the inbox is taken: what is posted from here on signals again.
        self.signalled.store(false, Ordering::SeqCst);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        Inbox { woken: std::mem::take(&mut inbox.woken), calls: std::mem::take(&mut inbox.calls), closed: inbox.closed }
    }

    fn close(&self) {
        let left = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.closed = true;
            std::mem::take(&mut inbox.calls)
        };
        drop(left);
    }
}

/// What a waker of a task is made of.
#[derive(Debug)]
struct Handle {
    task: u32,
    /// In a queue already: further wakes add nothing until it runs.
    queued: AtomicBool,
    remote: Arc<Remote>,
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let at_home = if_local(|worker| {
            let at_home = Arc::ptr_eq(&worker.executor.remote, &self.remote);
            if at_home {
                worker.executor.ready.borrow_mut().push_back(self.task);
            }
            at_home
        });
        if at_home != Some(true) {
            self.remote.post(|inbox| inbox.woken.push(self.task));
        }
    }
}

/// The tasks of a worker and those of them that are to run.
pub(super) struct Executor {
    remote: Arc<Remote>,
    tasks: RefCell<Slab<Option<Entry>>>,
    ready: RefCell<VecDeque<u32>>,
}

struct Entry {
    future: Task,
    handle: Arc<Handle>,
    waker: Waker,
}

impl Executor {
    pub(super) fn new(remote: Arc<Remote>) -> Executor {
        Executor { remote, tasks: RefCell::default(), ready: RefCell::default() }
    }

    pub(super) fn spawn(&self, future: Task) {
        let mut tasks = self.tasks.borrow_mut();
        let vacant = tasks.vacant_entry();
        // 2^32 tasks would need terabytes first.
        let task = vacant.key() as u32;
        let remote = Arc::clone(&self.remote);
        let handle = Arc::new(Handle { task, queued: AtomicBool::new(true), remote });
        let waker = Waker::from(Arc::clone(&handle));
        vacant.insert(Some(Entry { future, handle, waker }));
        self.ready.borrow_mut().push_back(task);
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// Runs the tasks that are ready now, each once; those they wake run in the next turn, after new events.
    pub(super) fn run_ready(&self) {
        let turn = self.ready.borrow().len();
        for _ in 0..turn {
            let Some(task) = self.ready.borrow_mut().pop_front() else { break };
            self.run(task);
        }
    }

    fn run(&self, task: u32) {
        // The entry leaves the slab while it runs, so that it may spawn and wake others. A waker that
        // outlived its task names an empty or a newer entry: a poll for nothing, which futures bear.
        let Some(mut entry) = self.tasks.borrow_mut().get_mut(task as usize).and_then(Option::take) else { return };
        entry.handle.queued.store(false, Ordering::Release);
        let mut cx = Context::from_waker(&entry.waker);
        // A task's state is dropped when it panics; nobody sees it half-changed.
        let outcome = catch_unwind(AssertUnwindSafe(|| entry.future.as_mut().poll(&mut cx)));
        if matches!(outcome, Ok(std::task::Poll::Pending)) {
            self.tasks.borrow_mut()[task as usize] = Some(entry);
            return;
        }
        // Dropped before its key is free, in case its Drop spawns; and a panic in there stays in here.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
        self.tasks.borrow_mut().remove(task as usize);
    }

    /// Takes what other threads have left.
    pub(super) fn take_remote(&self) {
        let mut drained = [0u8; 8];
        let _ = rustix::io::read(&self.remote.eventfd, &mut drained);
        let Inbox { woken, calls, .. } = self.remote.take();
        self.ready.borrow_mut().extend(woken);
        for call in calls {
            let _ = catch_unwind(AssertUnwindSafe(call));
        }
    }

    /// Drops every task, and all that other threads may still send.
    pub(super) fn clear(&self) {
        self.remote.close();
        loop {
            let entries: Vec<Entry> =
                self.tasks.borrow_mut().iter_mut().filter_map(|(_, entry)| entry.take()).collect();
            if entries.is_empty() {
                break;
            }
            drop(entries);
        }
        self.tasks.borrow_mut().clear();
    }
}
