//! gRPC through `protocol: http`: client and server are those of grpcio.

use crate::support::authority::Authority;
use crate::support::process::Process;
use crate::support::python;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::web::{balance_requests, over_tls};

/// A server of one service, whose messages are plain bytes. `/test.Service/Cancelled` tells how many calls were cancelled.
const SERVER: &str = "
import grpc, sys, threading
from concurrent import futures

name, cancelled = sys.argv[1], threading.Semaphore(0)

def unary(request, context):
    context.send_initial_metadata((('served-by', name),))
    if request == b'fail':
        context.set_trailing_metadata((('reason', 'because'), ('detail-bin', b'\\x00\\xff')))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'not now: \\u00e4')
    if request == b'slow':
        wait_for_end(context)
    return b'hello ' + request

def wait_for_end(context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    cancelled.release()

def was_cancelled(request, context):
    return b'yes' if cancelled.acquire(timeout=30) else b'no'

def server_stream(request, context):
    if request == b'slow':
        yield b'begun'
        wait_for_end(context)
        return
    for number in range(int(request)):
        yield b'%d' % number

def client_stream(requests, context):
    return b'%d' % sum(len(request) for request in requests)

def bidi(requests, context):
    for request in requests:
        yield request.upper()

handlers = {
    'Unary': grpc.unary_unary_rpc_method_handler(unary),
    'Cancelled': grpc.unary_unary_rpc_method_handler(was_cancelled),
    'ServerStream': grpc.unary_stream_rpc_method_handler(server_stream),
    'ClientStream': grpc.stream_unary_rpc_method_handler(client_stream),
    'Bidi': grpc.stream_stream_rpc_method_handler(bidi),
}
server = grpc.server(futures.ThreadPoolExecutor(32))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('test.Service', handlers),))
print(server.add_insecure_port('127.0.0.1:0'), flush=True)
server.start()
server.wait_for_termination()
";

/// Makes a `channel`; its input is an address, and the certificate of an authority or nothing.
const CHANNEL: &str = "
import grpc, sys, threading
address, _, ca = sys.stdin.read().partition('\\n')
if ca:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.encode()))
else:
    channel = grpc.insecure_channel(address)
unary = channel.unary_unary('/test.Service/Unary')
was_cancelled = channel.unary_unary('/test.Service/Cancelled')
server_stream = channel.unary_stream('/test.Service/ServerStream')
client_stream = channel.stream_unary('/test.Service/ClientStream')
bidi = channel.stream_stream('/test.Service/Bidi')
";

fn server(name: &str) -> (Process, String) {
    let (process, port) = python::serve(SERVER, &[name]);
    (process, format!("127.0.0.1:{port}"))
}

/// Runs a client's script over HTTP/2 in plain text, and over TLS.
fn with_clients(backends: &[&str], script: &str) {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1"]);
    let ca = std::fs::read_to_string(authority.file()).unwrap();
    for (listener, ca) in [("", ""), (over_tls(&issued).as_str(), ca.as_str())] {
        let yaml = balance_requests(backends, listener, "http: { version: 2 }");
        let tidegate = Tidegate::start(&format!("{ADMIN}{yaml}"));
        let said = python::run(&format!("{CHANNEL}{script}"), format!("{}\n{ca}", tidegate.at("in")).as_bytes());
        assert_eq!(said.trim(), "done", "{listener}");
    }
}

#[test]
fn calls_of_all_four_kinds_come_through() {
    let (_server, at) = server("one");
    with_clients(
        &[&at],
        "
for number in range(50):
    assert unary(b'%d' % number, timeout=60) == b'hello %d' % number
large = b'x' * 3_000_000
assert unary(large, timeout=60) == b'hello ' + large
assert list(server_stream(b'1000', timeout=60)) == [b'%d' % number for number in range(1000)]
assert list(server_stream(b'0', timeout=60)) == []
assert client_stream((b'x' * 10_000 for _ in range(300)), timeout=60) == b'3000000'
assert client_stream(iter(()), timeout=60) == b'0'

# Each message is sent once the answer to the one before has come: neither direction waits for the end of the other.
answered = threading.Semaphore(1)
def messages():
    for number in range(100):
        assert answered.acquire(timeout=60)
        yield b'm%d' % number
seen = []
for answer in bidi(messages(), timeout=60):
    seen.append(answer)
    answered.release()
assert seen == [b'M%d' % number for number in range(100)], seen

calls = [unary.future(b'%d' % number, timeout=60) for number in range(300)]
assert [call.result() for call in calls] == [b'hello %d' % number for number in range(300)]
print('done')
",
    );
}

#[test]
fn statuses_come_in_trailers_with_their_metadata() {
    let (_server, at) = server("one");
    with_clients(
        &[&at],
        "
try:
    unary(b'fail', timeout=60)
    raise SystemExit('it did not fail')
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == 'not now: \\u00e4', error
    trailers = dict(error.trailing_metadata())
    assert trailers['reason'] == 'because' and trailers['detail-bin'] == b'\\x00\\xff', trailers
try:
    channel.unary_unary('/test.Service/Nothing')(b'', timeout=60)
    raise SystemExit('it did not fail')
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
print('done')
",
    );
}

#[test]
fn the_server_learns_that_a_call_was_cancelled_or_has_met_its_deadline() {
    let (_server, at) = server("one");
    with_clients(
        &[&at],
        "
try:
    unary(b'slow', timeout=1)
    raise SystemExit('it met no deadline')
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert was_cancelled(b'', timeout=60) == b'yes'
call = server_stream(b'slow', timeout=60)
assert next(call) == b'begun'
call.cancel()
assert was_cancelled(b'', timeout=60) == b'yes'
# Others on the connection go on.
assert unary(b'again', timeout=60) == b'hello again'
print('done')
",
    );
}

#[test]
fn calls_of_one_channel_go_to_the_servers_in_turn() {
    let ((_one, first), (_two, second)) = (server("one"), server("two"));
    with_clients(
        &[&first, &second],
        "
served = []
for _ in range(10):
    _, call = unary.with_call(b'', timeout=60)
    served.append(dict(call.initial_metadata())['served-by'])
assert served == ['one', 'two'] * 5, served
print('done')
",
    );
}

#[test]
fn a_call_finds_no_server_and_says_so() {
    with_clients(
        &["127.0.0.1:1"],
        "
try:
    unary(b'', timeout=60)
    raise SystemExit('it did not fail')
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
print('done')
",
    );
}
