use std::fs;
use std::sync::mpsc;

use super::*;
use crate::log::file::LogFile;

const DEADLINE: Duration = Duration::from_secs(60);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sink with scripted answers, which keeps what was written.
struct ScriptedSink {
    answers: mpsc::Receiver<io::Result<Written>>,
    got: mpsc::Sender<Vec<u8>>,
}

impl Sink for ScriptedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        // After the test's end there is no more to answer.
        let answer = self.answers.recv().unwrap_or(Ok(Written::Bytes(bytes.len())))?;
        if let Written::Bytes(count) = answer {
            let count = count.min(bytes.len());
            self.got.send(bytes[..count].to_vec()).unwrap();
            return Ok(Written::Bytes(count));
        }
        Ok(answer)
    }
}

fn scripted() -> (LogThread, mpsc::Sender<io::Result<Written>>, mpsc::Receiver<Vec<u8>>) {
    let ((answer, answers), (got, gets)) = (mpsc::channel(), mpsc::channel());
    (LogThread::start(LogCounters::new("access"), ScriptedSink { answers, got }).unwrap(), answer, gets)
}

fn text(gets: &mpsc::Receiver<Vec<u8>>) -> String {
    String::from_utf8(gets.recv_timeout(DEADLINE).unwrap()).unwrap()
}

#[test]
fn lines_are_written_in_order_and_in_pieces_that_the_sink_takes() {
    let (log, answer, gets) = scripted();
    let writer = log.writer();
    writer.line(b"one\n");
    for count in [2, 99] {
        answer.send(Ok(Written::Bytes(count))).unwrap();
    }
    assert_eq!((text(&gets), text(&gets)), ("on".into(), "e\n".into()));
    assert!(log.queue().flush(Instant::now() + FLUSH_LIMIT));
    assert_eq!(writer.counters().write_errors(), 0);
}

#[test]
fn failed_write_counts_its_lines_and_the_next_line_begins_a_new_one() {
    let (log, answer, gets) = scripted();
    let writer = log.writer();
    writer.line(b"lost\n");
    answer.send(Ok(Written::Bytes(2))).unwrap();
    assert_eq!(text(&gets), "lo");
    answer.send(Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()))).unwrap();
    eventually("the line is counted", || writer.counters().write_errors() == 1);
    eventually("the fault is known", || {
        writer.counters().failing().is_some_and(|failing| failing.error.contains("No space"))
    });
    writer.line(b"next\n");
    answer.send(Ok(Written::Bytes(1))).unwrap();
    answer.send(Ok(Written::Bytes(99))).unwrap();
    assert_eq!((text(&gets), text(&gets)), ("\n".into(), "next\n".into()));
    eventually("the fault is over", || writer.counters().failing().is_none());
}

#[test]
fn next_reader_of_a_fifo_gets_whole_lines() {
    let (log, answer, gets) = scripted();
    log.writer().line(b"one\ntwo\n");
    answer.send(Ok(Written::Bytes(6))).unwrap();
    answer.send(Ok(Written::ReaderLost)).unwrap();
    answer.send(Ok(Written::Bytes(99))).unwrap();
    assert_eq!((text(&gets), text(&gets)), ("one\ntw".into(), "two\n".into()));
}

#[test]
fn full_queue_drops_and_counters() {
    let (log, answer, _gets) = scripted();
    let (writer, line) = (log.writer(), [b'x'; 1024]);
    writer.line(b"at the sink\n");
    eventually("the sink is asked", || log.queue().state().writing.is_some());
    for _ in 0..QUEUE_LIMIT / line.len() {
        writer.line(&line);
    }
    assert_eq!(writer.counters().dropped_lines(), 0);
    writer.line(&line);
    assert_eq!(writer.counters().dropped_lines(), 1);
    drop(answer);
}

/// Neither of a sink that does not return nor of one that has no room.
#[test]
fn flush_does_not_wait_for_a_stuck_write() {
    for not_yet in [false, true] {
        let (log, answer, _gets) = scripted();
        log.writer().line(b"stuck\n");
        if not_yet {
            answer.send(Ok(Written::NotYet)).unwrap();
        }
        eventually("the sink is asked", || log.queue().state().writing.is_some());
        assert!(!log.queue().flush(Instant::now() + FLUSH_LIMIT));
        drop(answer);
    }
}

#[test]
fn renamed_file_is_followed_and_reopened_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let log = LogThread::start(LogCounters::new("access"), LogFile::open(&path).unwrap()).unwrap();
    let writer = log.writer();
    writer.line(b"old\n");
    assert!(log.queue().flush(Instant::now() + FLUSH_LIMIT));
    fs::rename(&path, &moved).unwrap();
    log.queue().reopen();
    eventually("the new file, without any line", || path.exists());
    writer.line(b"new\n");
    assert!(log.queue().flush(Instant::now() + FLUSH_LIMIT));
    assert_eq!(fs::read_to_string(&moved).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    fs::rename(&path, &moved).unwrap();
    eventually("the rotation is noticed by lines alone", || {
        writer.line(b"line\n");
        path.exists()
    });
}

#[test]
fn file_removed_with_its_folder_loses_lines_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = LogThread::start(LogCounters::new("access"), LogFile::open(&path).unwrap()).unwrap();
    let writer = log.writer();
    fs::remove_dir_all(folder.path()).unwrap();
    eventually("the loss is counted", || {
        writer.line(b"line\n");
        writer.counters().write_errors() > 0
    });
    fs::create_dir(folder.path()).unwrap();
    eventually("lines are written again", || {
        writer.line(b"line\n");
        fs::read_to_string(&path).is_ok_and(|text| text.contains("line\n"))
    });
}

#[test]
fn full_device_counts_lines() {
    let log = LogThread::start(LogCounters::new("access"), LogFile::open("/dev/full".as_ref()).unwrap()).unwrap();
    log.writer().line(b"one\n");
    log.writer().line(b"two\n");
    eventually("both are counted", || log.writer().counters().write_errors() == 2);
}

#[test]
fn fifo_is_opened_without_a_reader_and_keeps_lines_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let file = LogFile::open(&path).unwrap();
    assert!(file.waits_for_reader());
    let log = LogThread::start(LogCounters::new("access"), file).unwrap();
    log.writer().line(b"kept\n");
    for turn in ["kept\n", "also kept\n"] {
        let mut reader = io::BufReader::new(fs::File::open(&path).unwrap());
        let mut line = String::new();
        io::BufRead::read_line(&mut reader, &mut line).unwrap();
        assert_eq!(line, turn);
        drop(reader);
        log.writer().line(b"also kept\n");
    }
    assert_eq!(log.writer().counters().write_errors(), 0);
}

#[test]
fn replaced_log_writes_the_lines_of_writers_that_are_left_and_ends_with_the_last() {
    let (log, answer, gets) = scripted();
    let (writer, queue) = (log.writer(), Arc::downgrade(log.queue()));
    writer.line(b"before\n");
    log.retire();
    writer.line(b"after\n");
    drop(writer);
    assert!(queue.upgrade().is_some(), "its lines are not written yet");
    drop(answer);
    let mut all = String::new();
    while all.len() < "before\nafter\n".len() {
        all += &text(&gets);
    }
    assert_eq!(all, "before\nafter\n");
    eventually("the thread ends", || queue.strong_count() == 0);
}

#[test]
fn lines_for_a_reader_that_never_comes_are_dropped_and_counted() {
    let (log, answer, _gets) = scripted();
    let (writer, queue) = (log.writer(), Arc::downgrade(log.queue()));
    let counters = writer.counters().clone();
    (0..3).for_each(|_| writer.line(b"line\n"));
    for _ in 0..1_000 {
        answer.send(Ok(Written::NotYet)).unwrap();
    }
    drop(writer);
    log.0.state().retired = Instant::now().checked_sub(RETIRE_LIMIT);
    drop(log);
    eventually("they are counted", || counters.dropped_lines() == 3);
    eventually("the thread ends", || queue.strong_count() == 0);
}
