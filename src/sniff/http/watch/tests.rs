use proptest::prelude::*;

use super::*;
use crate::sniff::http::MAX_HEAD;

const MS: Duration = Duration::from_millis(1);

/// A connection whose clock goes by one millisecond with each piece.
struct Watched {
    watcher: Watcher,
    now: Instant,
    events: Vec<Event>,
}

impl Watched {
    fn new() -> Watched {
        Watched { watcher: Watcher::default(), now: Instant::now(), events: Vec::new() }
    }

    fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut Watched {
        self.now += MS;
        self.watcher.client_sent(bytes.as_ref(), self.now, &mut |event| self.events.push(event));
        self
    }

    fn backend(&mut self, bytes: impl AsRef<[u8]>) -> &mut Watched {
        self.now += MS;
        self.watcher.backend_sent(bytes.as_ref(), self.now, &mut |event| self.events.push(event));
        self
    }

    fn passed(&mut self, count: u64) -> &mut Watched {
        self.now += MS;
        self.watcher.passed_from_backend(count, self.now, &mut |event| self.events.push(event));
        self
    }

    #[track_caller]
    fn saw(&mut self, events: &[Event]) -> &mut Watched {
        assert_eq!(self.events, events);
        self.events.clear();
        self
    }

    fn unseen(&self) -> (u64, u64) {
        (self.watcher.unseen_from_client(), self.watcher.unseen_from_backend())
    }
}

fn responded(method: Method, class: StatusClass, first_byte: u32, took: u32) -> Event {
    Event::Responded { method, class, first_byte: MS * first_byte, took: MS * took }
}

#[test]
fn times_are_from_the_end_of_the_requests_head_to_the_final_response() {
    use {Method::*, StatusClass::*};
    let mut watched = Watched::new();
    watched.client("POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n").client("\r\n");
    watched
        .backend("HTTP/1.1 100 Continue\r\n\r\n")
        .client("abc")
        .backend("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    watched.backend("\r\n").backend("H").backend("TTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12").saw(&[]);
    watched.backend("3").passed(5).saw(&[]).passed(1).saw(&[responded(Post, Successful, 5, 9)]);

    // Pipelined: the second waits for the first, and that is in its time.
    watched.client("GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n");
    watched.backend("HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 3");
    watched.saw(&[responded(Get, ClientError, 1, 1)]);
    watched.backend("02 Found\r\nContent-Length: 5\r\n\r\n").saw(&[responded(Head, Redirection, 1, 2)]);

    // Until the close.
    watched.client("GET / HTTP/1.0\r\n\r\n").backend("HTTP/1.0 500\r\n\r\nxxx").saw(&[]);
    let (watcher, now) = (&mut watched.watcher, watched.now + MS);
    watcher.backend_finished(now, &mut |event| watched.events.push(event));
    watched.saw(&[responded(Get, ServerError, 1, 2)]);
    watched.watcher.ended(&mut |event| panic!("{event:?}"));
}

#[test]
fn a_quiet_connection_holds_nothing() {
    let mut watched = Watched::new();
    let quiet = |watched: &Watched| {
        let Watcher { client: FromClient::Head(from_client), backend, outstanding } = &watched.watcher else {
            return false;
        };
        let FromBackend::Head { kept, began: None } = backend else { return false };
        from_client.capacity() == 0 && kept.capacity() == 0 && outstanding.capacity() <= KEPT_PLACES
    };
    for pipelined in [1, 3, MAX_OUTSTANDING] {
        let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(pipelined);
        let (first, others) = requests.as_bytes().split_at(1);
        assert!(!quiet(watched.client(first)));
        others.chunks(5).for_each(|part| _ = watched.client(part));
        let responses = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.".repeat(pipelined);
        responses.as_bytes().chunks(5).for_each(|part| _ = watched.backend(part));
        watched.client("\r\n").backend("\r\n");
        assert_eq!(watched.events.drain(..).count(), pipelined);
        assert!(quiet(&watched), "{:?}", watched.watcher);
    }
}

#[test]
fn requests_that_wait_are_bounded_and_those_before_keep_their_answers() {
    let mut watched = Watched::new();
    watched.client("GET / HTTP/1.1\r\n\r\n".repeat(MAX_OUTSTANDING)).saw(&[]);
    watched.client("GET / HTTP/1.1\r\n\r\n").saw(&[Event::Opaque(OpaqueReason::Pipelined)]);
    assert_eq!(watched.unseen(), (u64::MAX, 0));
    watched.client("\0").backend("HTTP/1.1 204 No Content\r\n\r\n".repeat(MAX_OUTSTANDING));
    let answers = std::mem::take(&mut watched.events);
    assert_eq!(answers.len(), MAX_OUTSTANDING);
    assert!(answers.iter().all(|event| matches!(event, Event::Responded { class: StatusClass::Successful, .. })));
    assert_eq!(watched.unseen(), (u64::MAX, u64::MAX));
    watched.backend("HTTP/1.1 200 OK\r\n\r\n\0").saw(&[]);
}

#[test]
fn heads_are_bounded() {
    let begin = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD - 20));
    assert_eq!(begin.len(), MAX_HEAD - 4);
    for portion in [1000, MAX_HEAD * 2] {
        let mut watched = Watched::new();
        begin.as_bytes().chunks(portion).for_each(|part| _ = watched.client(part));
        watched.client("A: ").saw(&[]).client("b").saw(&[Event::Opaque(OpaqueReason::LongHead)]);
        let mut watched = Watched::new();
        let whole = format!("\r\n\r\n{}", begin.replace(" HTTP", "aa HTTP") + "\r\n");
        whole.as_bytes().chunks(portion).for_each(|part| _ = watched.client(part));
        watched.saw(&[]).backend("HTTP/1.1 204 x\r\n\r\n");
        assert!(matches!(watched.events[..], [Event::Responded { .. }]), "{:?}", watched.events);
    }
    let fields = "A: b\r\n".repeat(101);
    Watched::new().client(format!("GET / HTTP/1.1\r\n{fields}\r\n")).saw(&[Event::Opaque(OpaqueReason::ManyFields)]);
    let mut watched = Watched::new();
    watched.client("GET / HTTP/1.1\r\n\r\n").backend(format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD)));
    watched.saw(&[Event::Opaque(OpaqueReason::LongHead), Event::Unanswered]);
}

#[test]
fn what_need_not_be_seen_is_told() {
    let mut watched = Watched::new();
    assert_eq!(watched.unseen(), (0, 0));
    watched.client("PUT / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n0123");
    assert_eq!(watched.unseen(), (999_996, 0));
    watched.watcher.passed_from_client(999_995);
    assert_eq!(watched.unseen(), (1, 0));
    watched.watcher.passed_from_client(1);
    assert_eq!(watched.unseen(), (0, 0));
    watched.backend("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10");
    assert_eq!(watched.unseen(), (0, 0));
    watched.backend("0;x\r\n.");
    assert_eq!(watched.unseen(), (0, 255));
    watched.passed(255).backend("\r\n0\r\n").saw(&[]).backend("\r\n");
    watched.saw(&[responded(Method::Put, StatusClass::Successful, 1, 5)]);
    watched.client("GET / HTTP/1.1\r\n\r\n").backend("HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(watched.unseen(), (0, u64::MAX));
    watched.passed(u64::MAX).saw(&[]);
    watched.watcher.ended(&mut |event| assert_eq!(event, Event::Unanswered));
    assert_eq!(watched.unseen(), (u64::MAX, u64::MAX));
}

/// How a generated message's body is framed.
#[derive(Clone, Debug)]
enum Framed {
    Nothing,
    Sized(usize),
    Chunked(Vec<usize>),
}

/// A message, and which of its bytes are data of a body: for each, how many follow with it.
#[derive(Clone, Debug, Default)]
struct WrittenEvents {
    bytes: Vec<u8>,
    data: Vec<u64>,
}

impl WrittenEvents {
    fn line(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self.data.resize(self.bytes.len(), 0);
    }

    /// Data that looks like what it is not.
    fn data(&mut self, length: usize) {
        let lure = b"\r\n0\r\n\r\nHTTP/1.1 500 No\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        self.bytes.extend(lure.iter().cycle().take(length));
        self.data.extend((1..=length as u64).rev());
    }

    fn message(start: &str, framed: &Framed, has_body: bool) -> WrittenEvents {
        let mut written = WrittenEvents::default();
        written.line(start);
        match framed {
            Framed::Nothing => written.line("Content-Length: 0"),
            Framed::Sized(length) => written.line(&format!("content-LENGTH:\t{length} , {length}")),
            Framed::Chunked(_) => written.line("Transfer-Encoding: gzip\r\ntransfer-encoding: , Chunked"),
        }
        written.line("X: y\r\n");
        match framed {
            _ if !has_body => {}
            Framed::Nothing => {}
            Framed::Sized(length) => written.data(*length),
            Framed::Chunked(sizes) => {
                for &size in sizes {
                    written.line(&format!("{size:03X};name=\"{size}; \""));
                    written.data(size);
                    written.line("");
                }
                written.line("0\r\nTrailer: 0\r\n");
            }
        }
        written
    }
}

#[derive(Clone, Debug)]
struct Exchange {
    method: &'static str,
    asked: Framed,
    interim: usize,
    status: u16,
    answered: Framed,
    /// Whether the next request comes before this one is answered.
    pipelined: bool,
}

impl Exchange {
    fn request(&self) -> WrittenEvents {
        WrittenEvents::message(&format!("{} /x HTTP/1.1", self.method), &self.asked, true)
    }

    fn response(&self) -> WrittenEvents {
        let mut all = WrittenEvents::default();
        for _ in 0..self.interim {
            all.line("HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n");
        }
        let has_body = self.method != "HEAD" && !matches!(self.status, 204 | 304);
        let last = WrittenEvents::message(&format!("HTTP/1.1 {}", self.status), &self.answered, has_body);
        all.bytes.extend(last.bytes);
        all.data.extend(last.data);
        all
    }

    fn event(&self) -> (Method, StatusClass) {
        (Method::named(self.method), StatusClass::of(self.status).unwrap_or(StatusClass::ServerError))
    }
}

fn framed() -> impl Strategy<Value = Framed> {
    prop_oneof![
        Just(Framed::Nothing),
        (1..300_usize).prop_map(Framed::Sized),
        proptest::collection::vec(1..200_usize, 0..4).prop_map(Framed::Chunked),
    ]
}

prop_compose! {
    fn exchange()(
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "LOCK"]),
        asked in framed(),
        interim in 0..3_usize,
        status in proptest::sample::select(vec![200, 204, 206, 301, 304, 400, 404, 418, 500, 503, 999]),
        answered in framed(),
        pipelined: bool,
    ) -> Exchange {
        Exchange { method, asked, interim, status, answered, pipelined }
    }
}

/// What both sides say, in turns: `true` with the client's.
fn dialogue(exchanges: &[Exchange]) -> Vec<(bool, WrittenEvents)> {
    let mut said = Vec::new();
    let mut waiting = Vec::new();
    for exchange in exchanges {
        said.push((true, exchange.request()));
        waiting.push((false, exchange.response()));
        if !exchange.pipelined {
            said.append(&mut waiting);
        }
    }
    said.append(&mut waiting);
    said
}

proptest! {
    /// Whatever the pieces, and whichever of them go by unseen, the events are those of the dialogue, and what is said to
    /// need no look is data.
    #[test]
    fn legal_dialogues_are_read_in_any_pieces(
        exchanges in proptest::collection::vec(exchange(), 1..8),
        cuts in proptest::collection::vec(1..60_usize, 1..40),
        pass: bool,
    ) {
        let mut cuts = cuts.into_iter().cycle();
        let mut watched = Watched::new();
        let now = watched.now;
        for (of_client, said) in dialogue(&exchanges) {
            let mut here = 0;
            while here < said.bytes.len() {
                let unseen = if of_client { watched.unseen().0 } else { watched.unseen().1 };
                prop_assert_eq!(unseen, said.data[here]);
                let length = cuts.next().unwrap().min(said.bytes.len() - here);
                if pass && unseen > 0 {
                    let length = length.min(unseen as usize);
                    match of_client {
                        true => watched.watcher.passed_from_client(length as u64),
                        false => _ = watched.passed(length as u64),
                    }
                    here += length;
                    continue;
                }
                let piece = &said.bytes[here..here + length];
                if of_client { watched.client(piece) } else { watched.backend(piece) };
                here += length;
            }
        }
        let seen: Vec<_> = watched.events.iter().map(|event| match event {
            Event::Responded { method, class, first_byte, took } if first_byte <= took => Some((*method, *class)),
            _ => None,
        }).collect();
        let wanted: Vec<_> = exchanges.iter().map(|exchange| Some(exchange.event())).collect();
        prop_assert_eq!(seen, wanted);
        prop_assert!(watched.now >= now);
        watched.watcher.ended(&mut |event| panic!("{event:?}"));
    }
}
