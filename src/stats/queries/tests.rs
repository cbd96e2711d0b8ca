use super::*;

fn statement(protocol: QueryProtocol, word: &str) -> StatementKind {
    protocol.statement(word.as_bytes())
}

#[test]
fn word_of_a_table_is_found_in_any_case_and_no_other() {
    for protocol in QueryProtocol::ALL {
        for table in [protocol.statements(), protocol.classes()] {
            assert!(table.len() <= usize::from(u8::MAX) && table.is_sorted_by(|one, two| one < two), "{protocol:?}");
            assert!(table.iter().all(|word| *word == word.to_ascii_uppercase()), "{protocol:?}");
        }
        for word in protocol.statements() {
            assert_eq!(protocol.statement_name(statement(protocol, word)), *word);
            assert_eq!(statement(protocol, &word.to_ascii_lowercase()), statement(protocol, word));
            assert_eq!(statement(protocol, &format!("{word}?")), StatementKind::OTHER, "{word}");
        }
        for class in protocol.classes() {
            assert_eq!(protocol.class_name(protocol.error_class(class.as_bytes())), *class);
        }
        assert_eq!(protocol.statement_name(statement(protocol, "")), "other");
        assert_eq!(protocol.class_name(protocol.error_class(b"\xff")), "other");
        assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.name());
    }
    assert_eq!(QueryProtocol::Redis.statement(b"getdel").0, QueryProtocol::Redis.statement(b"GETDEL").0);
    assert!(PassthroughReason::ALL.iter().all(|it| serde_json::to_value(it).unwrap() == it.name()));
}

#[test]
fn event_is_the_same_after_packing() {
    let mut events = vec![QueryEvent::Unanswered];
    for place in 0..=u8::MAX {
        for (failed, pipelined) in [(false, false), (true, false), (false, true), (true, true)] {
            events.push(QueryEvent::Answered { statement: StatementKind(place), failed, pipelined });
        }
        events.push(QueryEvent::Failed(ErrorClass(place)));
    }
    events.extend(PassthroughReason::ALL.map(QueryEvent::Passthrough));
    for event in events {
        let bits = PackedQuery::from(event).bits();
        assert_eq!(QueryEvent::from(PackedQuery::of_bits(bits)), event);
    }
}

#[test]
fn counts_are_by_protocol_and_statement() {
    let mut counts = QueryCounts::default();
    let (sql, redis) = (QueryProtocol::Postgres, QueryProtocol::Redis);
    let answered = |protocol, word, failed, pipelined| QueryEvent::Answered {
        statement: statement(protocol, word),
        failed,
        pipelined,
    };
    for (protocol, event) in [
        (sql, answered(sql, "select", false, false)),
        (sql, answered(sql, "SELECT", true, true)),
        (sql, answered(sql, "frobnicate", false, true)),
        (sql, QueryEvent::Failed(sql.error_class(b"42"))),
        (sql, QueryEvent::Unanswered),
        (redis, answered(redis, "GET", false, false)),
        (redis, QueryEvent::Passthrough(PassthroughReason::Streaming)),
    ] {
        counts.count(protocol, event);
    }
    let of = |wanted| counts.protocols().find(|(protocol, _)| *protocol == wanted).map(|(_, counts)| counts);
    let postgres = of(sql).unwrap();
    let statements: Vec<_> = postgres.statements().map(|(it, count)| (sql.statement_name(it), count)).collect();
    assert_eq!(statements, [("SELECT", 2), ("other", 1)]);
    let errors: Vec<_> = postgres.errors().map(|(it, count)| (sql.class_name(it), count)).collect();
    assert_eq!(errors, [("42", 1)]);
    assert_eq!((postgres.queries(), postgres.failed(), postgres.pipelined(), postgres.unanswered()), (4, 1, 2, 1));
    assert_eq!(of(redis).unwrap().passthrough().collect::<Vec<_>>(), [(PassthroughReason::Streaming, 1)]);
    assert!(of(QueryProtocol::Mysql).is_none());
    assert_eq!(counts.queries(), 5);
}
