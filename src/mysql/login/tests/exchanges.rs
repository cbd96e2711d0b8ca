//! Logins that come to their end.

use super::*;

#[test]
fn tls_in_front_shifts_by_one() {
    // Also where the server has no TLS, or does not use what it has.
    for (method, capabilities) in [(NATIVE, ALL & !TLS), (NATIVE, ALL), (CACHING, ALL)] {
        let (with, without) = (request(TLS, method), request(0, method));
        let request = tls_request();
        let begins = [Client(1, &request), ClientTls, Client(2, &with), ToServer(1, &without), Turn(Speaker::Server)];
        let succeeds = [Server(2, OK), ToClient(3, OK), Done];
        dialogue(FRONT, capabilities, method, &[&begins[..], &succeeds].concat());
        let fails = [Server(2, DENIED), ToClient(3, DENIED), Done];
        dialogue(FRONT, capabilities, method, &[&begins[..], &fails].concat());
    }
}

#[test]
fn tls_on_both_sides_shifts_nothing() {
    let (with, request) = (request(TLS, CACHING), tls_request());
    let lines = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &with[..TLS_REQUEST]),
        ServerTls,
        ToServer(2, &with),
        // In full: the server sees a secure connection, and takes what the client sends.
        Server(3, &[1, 4]),
        ToClient(3, &[1, 4]),
        Client(4, b"secret\0"),
        ToServer(4, b"secret\0"),
        Server(5, OK),
        ToClient(5, OK),
        Done,
    ];
    dialogue(BOTH, ALL, CACHING, &lines);
}

#[test]
fn tls_in_the_back_shifts_the_other_way() {
    for rules in [BACK, LoginRules { allows_plain: true, ..BOTH }] {
        let (with, without) = (request(TLS, NATIVE), request(0, NATIVE));
        let lines = [
            Client(1, &without),
            ToServer(1, &with[..TLS_REQUEST]),
            ServerTls,
            ToServer(2, &with),
            Turn(Speaker::Server),
            Server(3, SWITCH_TO_CACHING),
            ToClient(2, SWITCH_TO_CACHING),
            Turn(Speaker::Client),
            Client(3, b"proof"),
            ToServer(4, b"proof"),
            Server(5, &[1, 3]),
            ToClient(4, &[1, 3]),
            Turn(Speaker::Server),
            Server(6, OK),
            ToClient(5, OK),
            Done,
        ];
        dialogue(rules, ALL, NATIVE, &lines);
    }
}

#[test]
fn plain_client_of_a_plain_server_is_not_shifted() {
    let request = request(0, NATIVE);
    let lines = [Client(1, &request), ToServer(1, &request), Server(2, OK), ToClient(2, OK), Done];
    dialogue(LoginRules { allows_plain: true, ..FRONT }, ALL, NATIVE, &lines);
}

/// The password goes to the server encrypted by its key, with the scramble of the last change of method.
#[test]
fn password_in_clear_text_is_encrypted_for_a_plain_server() {
    let begins = |method: &'static str| {
        let (with, without) = (request(TLS, method), request(0, method));
        (tls_request(), with, without)
    };
    let full = |first: u8, scramble: &[u8]| {
        // Numbers of the server's packets: the client's are one ahead.
        let encrypted = [b"RSA:secret:", scramble].concat();
        (first, encrypted)
    };
    // At once.
    let (request, with, without) = begins(CACHING);
    let (first, encrypted) = full(2, SCRAMBLE);
    let full_of = |first: u8, encrypted: &'static [u8]| {
        [
            Server(first, &[1, 4]),
            ToClient(first + 1, &[1, 4]),
            Turn(Speaker::Client),
            Client(first + 2, b"secret\0"),
            ToServer(first + 1, &[2]),
            Turn(Speaker::Server),
            Server(first + 2, b"\x01PEM"),
            ToServer(first + 3, encrypted),
            Turn(Speaker::Server),
            Server(first + 4, OK),
            // One ahead before, one behind now.
            ToClient(first + 3, OK),
            Done,
        ]
    };
    let opening = [Client(1, &request), ClientTls, Client(2, &with), ToServer(1, &without)];
    dialogue(FRONT, ALL, CACHING, &[&opening[..], &full_of(first, encrypted.leak())].concat());

    // After a change of method: its scramble counts.
    let (request, with, without) = begins(NATIVE);
    let opening = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &without),
        Server(2, SWITCH_TO_CACHING),
        ToClient(3, SWITCH_TO_CACHING),
        Client(4, b"proof"),
        ToServer(3, b"proof"),
    ];
    let (first, encrypted) = full(4, b"ABCDEFGHIJKLMNOPQRST");
    dialogue(FRONT, ALL, NATIVE, &[&opening[..], &full_of(first, encrypted.leak())].concat());

    // With a method of which these bytes mean something else, nothing is encrypted.
    let (request, with, without) = begins(CACHING);
    let lines = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &without),
        Server(2, SWITCH_TO_NATIVE),
        ToClient(3, SWITCH_TO_NATIVE),
        Client(4, b"proof"),
        ToServer(3, b"proof"),
        Server(4, &[1, 4]),
        ToClient(5, &[1, 4]),
        Client(6, b"secret\0"),
        ToServer(5, b"secret\0"),
        Server(6, OK),
        ToClient(7, OK),
        Done,
    ];
    dialogue(FRONT, ALL, CACHING, &lines);
}

#[test]
fn password_goes_as_it_is_where_the_server_takes_it() {
    let (with, without, request) = (request(TLS, CACHING), request(0, CACHING), tls_request());
    let local = LoginRules { server: ServerLink::Local, ..FRONT };
    let lines = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &without),
        Server(2, &[1, 4]),
        ToClient(3, &[1, 4]),
        Client(4, b"secret\0"),
        ToServer(3, b"secret\0"),
        Server(4, DENIED),
        ToClient(5, DENIED),
        Done,
    ];
    dialogue(local, ALL, CACHING, &lines);

    // A client that asks for the key although it has TLS encrypts by itself.
    let lines = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &without),
        Server(2, &[1, 4]),
        ToClient(3, &[1, 4]),
        Client(4, &[2]),
        ToServer(3, &[2]),
        Server(4, b"\x01PEM"),
        ToClient(5, b"\x01PEM"),
        Client(6, b"ciphertext"),
        ToServer(5, b"ciphertext"),
        Server(6, OK),
        ToClient(7, OK),
        Done,
    ];
    dialogue(FRONT, ALL, CACHING, &lines);

    // Over a unix socket, a client sends secrets as over TLS.
    let local = LoginRules { client_is_local: true, allows_plain: true, ..FRONT };
    let lines = [
        Client(1, &without),
        ToServer(1, &without),
        Server(2, &[1, 4]),
        ToClient(2, &[1, 4]),
        Client(3, b"secret\0"),
        ToServer(3, &[2]),
        Server(4, b"\x01PEM"),
        ToServer(5, b"RSA:secret:abcdefghijklmnopqrst"),
        Server(6, OK),
        ToClient(4, OK),
        Done,
    ];
    dialogue(local, ALL, CACHING, &lines);
}

#[test]
fn error_of_the_server_ends_the_login_at_any_point() {
    let (with, without, request) = (request(TLS, CACHING), request(0, CACHING), tls_request());
    let lines = [
        Client(1, &request),
        ClientTls,
        Client(2, &with),
        ToServer(1, &without),
        Server(2, &[1, 4]),
        ToClient(3, &[1, 4]),
        Client(4, b"secret\0"),
        ToServer(2 + 1, &[2]),
        Server(4, b"\x01PEM"),
        ToServer(5, b"RSA:secret:abcdefghijklmnopqrst"),
        Turn(Speaker::Server),
    ];
    // After each number of lines, with the number that the client expects.
    for (length, sequence) in [(0, 1), (2, 2), (4, 3), (6, 4), (8, 5), (10, 5)] {
        let ends = [Server(9, DENIED), ToClient(sequence, DENIED), Done];
        dialogue(FRONT, ALL, CACHING, &[&lines[..length], &ends].concat());
    }
}

#[test]
fn what_follows_the_last_packet_goes_on_as_it_is() {
    let (request, without, with) = (tls_request(), request(0, NATIVE), request(TLS, NATIVE));
    let body = greeting(ALL, NATIVE);
    let mut login = Login::new(&body, &Greeting::read(&body).unwrap(), FRONT, cipher);
    assert!(matches!(login.step(), LoginStep::ToClient(_)));
    // Its handshake begins in the same segment, and its first command comes before the answer to its login.
    login.from_client(&[&packet(1, &request)[..], b"\x16\x03\x01"].concat());
    assert!(login.step() == LoginStep::ClientTls(b"\x16\x03\x01".to_vec()));
    login.from_client(&[packet(2, &with), packet(0, b"\x03select 1")].concat());
    assert!(login.step() == LoginStep::ToServer(Zeroizing::new(packet(1, &without))));
    assert!(login.step() == LoginStep::Read(Speaker::Server));
    login.from_server(&[&packet(2, OK)[..], b"more"].concat());
    assert!(login.step() == LoginStep::ToClient(Zeroizing::new([&packet(3, OK)[..], b"more"].concat())));
    assert!(login.step() == LoginStep::ToServer(Zeroizing::new(packet(0, b"\x03select 1"))));
    assert!(login.step() == LoginStep::Done);
}

#[test]
fn next_factor_is_a_change_of_method_where_both_sides_know_it() {
    let next = b"\x02caching_sha2_password\0ABCDEFGHIJKLMNOPQRST\0";
    for (capabilities, passed_on) in [(MULTI_FACTOR, &[2][..]), (0, b"secret\0")] {
        let (with, without) = (request(TLS | capabilities, NATIVE), request(capabilities, NATIVE));
        let request = tls_request();
        let lines = [
            Client(1, &request),
            ClientTls,
            Client(2, &with),
            ToServer(1, &without),
            Server(2, next),
            ToClient(3, next),
            Client(4, b"proof"),
            ToServer(3, b"proof"),
            Server(4, &[1, 4]),
            ToClient(5, &[1, 4]),
            Client(6, b"secret\0"),
            ToServer(5, passed_on),
        ];
        dialogue(FRONT, ALL, NATIVE, &lines);
    }
}

#[test]
fn clear_text_is_noticed_where_the_server_has_no_tls() {
    let switch = b"\xfemysql_clear_password\0";
    for (rules, is_noticed) in
        [(FRONT, true), (BOTH, false), (LoginRules { server: ServerLink::Local, ..FRONT }, false)]
    {
        let body = greeting(ALL, NATIVE);
        let mut login = Login::new(&body, &Greeting::read(&body).unwrap(), rules, cipher);
        login.from_client(&packet(1, &tls_request()));
        login.from_client(&packet(2, &request(TLS, NATIVE)));
        // As if the handshake were none.
        while match login.step() {
            LoginStep::Read(_) => false,
            LoginStep::ClientTls(rest) => {
                login.from_client(&rest);
                true
            }
            _ => true,
        } {}
        assert_eq!(login.clear_text_method(), None);
        login.from_server(&packet(2, switch));
        while !matches!(login.step(), LoginStep::Read(_)) {}
        assert_eq!(login.clear_text_method(), is_noticed.then_some("mysql_clear_password"));
    }
}
