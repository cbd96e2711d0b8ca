//! What the gate passes is read by hyper as the same requests.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use proptest::prelude::*;

use super::*;

/// A client that has sent all, and reads what comes.
struct SentBytes(Vec<u8>, usize);

impl Read for SentBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = buffer.remaining().min(self.0.len() - self.1);
        buffer.put_slice(&self.0[self.1..self.1 + count]);
        self.1 += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for SentBytes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A request: its method, its target, and its body if it came to its end.
type ReadRequest = (String, String, Option<Vec<u8>>);

/// The requests that hyper reads.
fn read_by_hyper(bytes: &[u8]) -> Vec<ReadRequest> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            seen.lock().unwrap().push((parts.method.to_string(), parts.uri.to_string(), body));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(true);
    // An error is the end of what it reads.
    drop(runtime.block_on(builder.serve_connection(SentBytes(bytes.to_vec(), 0), service)));
    std::mem::take(&mut seen.lock().unwrap())
}

#[derive(Clone, Debug)]
enum SentBody {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, String, Vec<(String, String)>),
}

#[derive(Clone, Debug)]
struct SentRequest {
    empty_lines: usize,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: SentBody,
}

impl SentRequest {
    fn bytes(&self) -> Vec<u8> {
        let SentRequest { empty_lines, method, target, fields, body } = self;
        let mut bytes = format!("{}{method} {target} HTTP/1.1\r\n", "\r\n".repeat(*empty_lines)).into_bytes();
        let add = |bytes: &mut Vec<u8>, text: &str| bytes.extend_from_slice(text.as_bytes());
        for (name, value) in fields {
            add(&mut bytes, &format!("{name}:{value}\r\n"));
        }
        match body {
            SentBody::None => add(&mut bytes, "\r\n"),
            SentBody::Length(body) => {
                add(&mut bytes, &format!("Content-Length: {}\r\n\r\n", body.len()));
                bytes.extend_from_slice(body);
            }
            SentBody::Chunked(chunks, extension, trailers) => {
                add(&mut bytes, "transfer-encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    add(&mut bytes, &format!("{:x}{extension}\r\n", chunk.len()));
                    bytes.extend_from_slice(chunk);
                    add(&mut bytes, "\r\n");
                }
                add(&mut bytes, "0\r\n");
                for (name, value) in trailers {
                    add(&mut bytes, &format!("{name}:{value}\r\n"));
                }
                add(&mut bytes, "\r\n");
            }
        }
        bytes
    }

    fn seen(&self) -> ReadRequest {
        let body = match &self.body {
            SentBody::None => Vec::new(),
            SentBody::Length(body) => body.clone(),
            SentBody::Chunked(chunks, ..) => chunks.concat(),
        };
        (self.method.clone(), self.target.clone(), Some(body))
    }
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("x[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}", "[\t -~]{0,20}"), 0..4)
}

fn requests() -> impl Strategy<Value = Vec<SentRequest>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let chunk = prop::collection::vec(any::<u8>(), 1..40);
    let body = prop_oneof![
        Just(SentBody::None),
        bytes().prop_map(SentBody::Length),
        // What looks like a request.
        Just(SentBody::Length(b"0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec())),
        (prop::collection::vec(chunk, 0..4), "(;[ -~]{0,9})?", fields())
            .prop_map(|(chunks, extension, trailers)| SentBody::Chunked(chunks, extension, trailers)),
    ];
    let request = (0..3_usize, "[A-Z!#$]{1,9}", "/[a-z0-9/?%&=;:@+,.~_-]{0,20}", fields(), body).prop_map(
        |(empty_lines, method, target, fields, body)| SentRequest { empty_lines, method, target, fields, body },
    );
    prop::collection::vec(request, 1..5)
}

/// The bytes in portions that end at these places.
fn split<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sound_requests_pass_in_any_portions_and_hyper_reads_the_same(
        requests in requests(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(SentRequest::bytes).collect();
        let heads = requests.len() as u64;
        prop_assert_eq!(passed(&split(&bytes, &cuts)), (bytes.len(), heads, None));
        let seen: Vec<ReadRequest> = requests.iter().map(SentRequest::seen).collect();
        prop_assert_eq!(read_by_hyper(&bytes), seen);
    }
}

/// Bytes that mean something to a parser.
fn letter() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(b"\r\n \t:;,#0123aAfxX\0\x7f\x80\xff\x0b".to_vec()), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// hyper reads no request that the gate has not counted, and never another body. It may read fewer: it refuses targets
    /// that are no URI, and ends where the client wants it to.
    #[test]
    fn what_passes_after_a_change_of_bytes_is_read_by_hyper_with_the_same_bounds(
        requests in requests(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, letter()), 1..3),
    ) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(SentRequest::bytes).collect();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes.insert(at, byte),
                1 => bytes[at] = byte,
                _ => drop(bytes.remove(at)),
            }
        }
        let (count, heads, why) = passed(&[&bytes]);
        let bytes = &bytes[..count];
        let mut ends = Vec::new();
        let mut gate = RequestGate::new(MAX_HEAD);
        let mut last = 0;
        for (at, byte) in bytes.iter().enumerate() {
            gate.take(&[*byte]).unwrap();
            if gate.is_between_requests() && gate.heads() > last {
                last = gate.heads();
                ends.push(at + 1);
            }
        }
        prop_assert!(why.is_none() || ends.last().copied().unwrap_or(0) == count);
        let all = read_by_hyper(bytes);
        prop_assert!(all.len() as u64 <= heads, "{all:?} of {heads}");
        // Each request by itself is one request, and the same as in the sequence.
        let starts = [0].into_iter().chain(ends.iter().copied());
        let alone: Vec<Vec<ReadRequest>> = starts.zip(&ends).map(|(start, end)| read_by_hyper(&bytes[start..*end])).collect();
        for (index, seen) in all.iter().enumerate().take(ends.len()) {
            prop_assert_eq!(std::slice::from_ref(seen), alone[index].as_slice());
            prop_assert!(seen.2.is_some(), "the body of {:?} is cut", seen);
        }
    }
}
