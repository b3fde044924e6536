//! Topology, names, order behind an answer, and every error with its code and class.

use super::*;

fn declare(queue: &str, nowait: bool) -> Method<'_> {
    Method::QueueDeclare {
        queue,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait,
        arguments: Arguments::default(),
    }
}

#[test]
fn topology_methods_get_their_replies() {
    let mut talk = Talk::open();
    let arguments = Arguments::default;
    let exchange_declare = Method::ExchangeDeclare {
        exchange: "e\r\n",
        kind: "topic",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: arguments(),
    };
    let (destination, source, routing_key, nowait) = ("d", "s", "k", false);
    let (queue, exchange) = ("q", "e");
    let asked_and_replied = [
        (exchange_declare, Method::ExchangeDeclareOk {}, "name: \"e\", kind: \"topic\""),
        (
            Method::ExchangeBind { destination, source, routing_key, nowait, arguments: arguments() },
            Method::ExchangeBindOk {},
            "BindExchange { source: \"s\", destination: \"d\", key: \"k\"",
        ),
        (
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments: arguments() },
            Method::ExchangeUnbindOk {},
            "UnbindExchange { source: \"s\", destination: \"d\", key: \"k\"",
        ),
        (
            Method::ExchangeDelete { exchange, if_unused: true, nowait },
            Method::ExchangeDeleteOk {},
            "DeleteExchange { name: \"e\", if_unused: true }",
        ),
        (
            declare("q", false),
            Method::QueueDeclareOk { queue: "q", message_count: 5, consumer_count: 1 },
            "DeclareQueue(QueueDeclaration { name: \"q\", passive: false, durable: true",
        ),
        (
            Method::QueueBind { queue, exchange, routing_key, nowait, arguments: arguments() },
            Method::QueueBindOk {},
            "BindQueue { exchange: \"e\", queue: \"q\", key: \"k\"",
        ),
        (
            Method::QueueUnbind { queue, exchange, routing_key, arguments: arguments() },
            Method::QueueUnbindOk {},
            "UnbindQueue { exchange: \"e\", queue: \"q\", key: \"k\"",
        ),
        (
            Method::QueuePurge { queue, nowait },
            Method::QueuePurgeOk { message_count: 3 },
            "PurgeQueue { name: \"q\" }",
        ),
        (
            Method::QueueDelete { queue, if_unused: true, if_empty: false, nowait },
            Method::QueueDeleteOk { message_count: 2 },
            "DeleteQueue { name: \"q\", if_unused: true, if_empty: false }",
        ),
    ];
    for (method, reply, asked) in asked_and_replied {
        talk.send(1, method);
        let request = talk.asked.pop().unwrap();
        assert!(request.contains(asked), "{request} does not say {asked}");
        talk.expect(1, reply);
    }
    let access = Method::AccessRequest {
        realm: "/data",
        exclusive: false,
        passive: true,
        active: true,
        write: true,
        read: true,
    };
    talk.send(1, access);
    talk.expect(1, Method::AccessRequestOk { ticket: 1 });
    talk.send(1, declare("quiet", true));
    talk.expect_nothing();
}

#[test]
fn the_empty_name_is_the_last_declared_queue() {
    let mut talk = Talk::open();
    talk.send(1, Method::QueuePurge { queue: "", nowait: false });
    talk.expect_channel_error(1, 404, "NOT_FOUND - no previously declared queue", (50, 30));
    let mut talk = Talk::open();
    talk.send(1, declare("", false));
    talk.expect(1, Method::QueueDeclareOk { queue: "amq.gen-1", message_count: 0, consumer_count: 0 });
    talk.asked.clear();
    let (queue, exchange, nowait) = ("", "e", false);
    let arguments = Arguments::default;
    talk.send(1, Method::QueueBind { queue, exchange, routing_key: "", nowait, arguments: arguments() });
    talk.send(1, Method::QueueBind { queue, exchange, routing_key: "k", nowait, arguments: arguments() });
    talk.send(1, Method::QueueBind { queue: "q", exchange, routing_key: "", nowait, arguments: arguments() });
    let keys = [("amq.gen-1", "amq.gen-1"), ("amq.gen-1", "k"), ("q", "")];
    for (asked, (queue, key)) in talk.asked.iter().zip(keys) {
        assert!(asked.contains(&format!("queue: \"{queue}\", key: \"{key}\"")), "{asked}");
    }
    talk.asked.clear();
    talk.send(1, Method::BasicGet { queue: "", no_ack: true });
    talk.expect_asked(&["Get { lane: Lane(1), queue: \"amq.gen-1\", settled: true }"]);
}

#[test]
fn frames_behind_an_open_question_wait_and_other_channels_go_on() {
    let mut talk = Talk::open();
    talk.send(2, Method::ChannelOpen {});
    (talk.heard, talk.silent) = (Vec::new(), true);
    talk.send(1, declare("a", false));
    talk.publish(1, "ex", "behind", false, b"x");
    talk.send(1, declare("b", false));
    talk.publish(1, "ex", "last", false, b"y");
    talk.publish(2, "ex", "other", false, b"z");
    assert_eq!(talk.asked.len(), 2);
    assert!(talk.asked[1].starts_with("publish 2 "));
    assert!(talk.session.partial_bytes() > 0);
    talk.release();
    talk.expect(1, Method::QueueDeclareOk { queue: "a", message_count: 5, consumer_count: 1 });
    talk.expect_nothing();
    assert_eq!(talk.asked.len(), 4, "{:?}", talk.asked);
    assert!(talk.asked[2].contains("ex/behind"));
    talk.release();
    talk.expect(1, Method::QueueDeclareOk { queue: "b", message_count: 5, consumer_count: 1 });
    assert!(talk.asked[4].contains("ex/last"));
    assert_eq!((talk.asked.len(), talk.session.partial_bytes()), (5, 0));
}

#[test]
fn no_more_is_parked_than_may_be() {
    let mut talk = Talk::open_with(Limits { partial_bytes_max: 20_000, ..Limits::default() });
    talk.silent = true;
    talk.send(1, declare("a", false));
    for _ in 0..100 {
        talk.publish(1, "ex", "key", false, &[0; 1000]);
    }
    assert!(talk.session.partial_bytes() <= 10_000);
    assert_eq!(talk.asked.len(), 1);
    talk.silent = false;
    talk.release();
    assert_eq!((talk.asked.len(), talk.session.partial_bytes()), (101, 0));
}

#[test]
fn a_channel_closes_and_opens_again() {
    let mut talk = Talk::open();
    talk.silent = true;
    talk.send(1, Method::ChannelClose { reply_code: 200, reply_text: "", class: 0, method: 0 });
    talk.send(1, Method::ChannelOpen {});
    talk.publish(1, "ex", "again", false, b"");
    talk.expect_nothing();
    talk.expect_asked(&["CloseLane { lane: Lane(1) }"]);
    talk.release();
    talk.expect(1, Method::ChannelCloseOk {});
    talk.expect(1, Method::ChannelOpenOk {});
    assert!(talk.asked[0].contains("ex/again"));
}

#[test]
fn behind_a_channel_error_everything_waits_for_the_end_of_both_sides() {
    let mut talk = Talk::open();
    talk.silent = true;
    talk.send(1, declare("locked", false));
    talk.publish(1, "ex", "never", false, b"");
    talk.asked.clear();
    talk.release();
    let text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'locked' in vhost '/'. It could be \
                originally declared on another connection or the exclusive property value does not match that of \
                the original declaration.";
    talk.expect_channel_error(1, 405, text, (50, 10));
    talk.publish(1, "ex", "never", false, b"");
    talk.send(1, Method::BasicAck { delivery_tag: 99, multiple: false });
    talk.session.on_event(&Event::Confirmed(Lane(1), 1, 1), &mut talk.out);
    talk.send(1, Method::ChannelCloseOk {});
    talk.send(1, Method::ChannelOpen {});
    talk.expect_nothing();
    talk.expect_asked(&[]);
    talk.release();
    talk.expect(1, Method::ChannelOpenOk {});
}

#[test]
fn both_sides_may_close_a_channel_at_once() {
    let mut talk = Talk::open();
    talk.publish(1, "missing", "key", false, b"");
    talk.heard.clear();
    talk.send(1, Method::ChannelClose { reply_code: 200, reply_text: "", class: 0, method: 0 });
    talk.expect(1, Method::ChannelCloseOk {});
    talk.send(1, Method::ChannelCloseOk {});
    talk.send(1, Method::ChannelOpen {});
    talk.expect(1, Method::ChannelOpenOk {});
}

fn payload(method: Method<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    method.put(1, &mut bytes);
    bytes
}

/// What is sent; code, text and method of the close that answers.
type Case = (Vec<u8>, u16, &'static str, (u16, u16));

#[test]
fn errors_that_end_the_connection() {
    let frame = |kind: u8, channel: u16, payload: &[u8]| {
        let mut bytes = Vec::new();
        crate::wire::frame::put_frame(&mut bytes, kind, channel, payload);
        bytes
    };
    let publish =
        payload(Method::BasicPublish { exchange: "", routing_key: "", mandatory: false, immediate: false });
    let immediate =
        payload(Method::BasicPublish { exchange: "", routing_key: "", mandatory: false, immediate: true });
    let header = |size: u8| frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0]);
    let cases: [Case; 25] = [
        (payload(Method::TxSelect {}), 540, "transactions are not supported", (90, 10)),
        (payload(Method::ChannelFlow { active: false }), 540, "active=false", (20, 20)),
        (payload(Method::BasicRecover { requeue: false }), 540, "requeue=false", (60, 110)),
        ([immediate, header(0)].concat(), 540, "immediate=true", (60, 40)),
        (frame(1, 1, &[0, 60, 0, 41]), 540, "unknown method 41 of class 60", (60, 41)),
        (payload(Method::ChannelOpen {}), 504, "second 'channel.open' seen", (20, 10)),
        (frame(1, 9, &[0, 60, 0, 12]), 540, "unknown method 12 of class 60", (60, 12)),
        (frame(1, 9, &[0, 85, 0, 10, 0]), 504, "expected 'channel.open'", (85, 10)),
        (payload(Method::BasicQosOk {}), 503, "unimplemented method", (60, 11)),
        (frame(1, 0, &[0, 20, 0, 10, 0]), 504, "unexpected method in connection state running", (20, 10)),
        (frame(1, 1, &[0, 60, 0, 80, 1]), 502, "the fields end early", (60, 80)),
        (frame(1, 1, &[0, 60, 0, 30, 1, 0xff, 0]), 501, "Malformed UTF-8 in shortstr", (60, 30)),
        (frame(8, 1, &[]), 505, "type 8, 0 octets on channel 1", (0, 0)),
        (frame(8, 0, &[1]), 501, "type 8, 1 octets on channel 0", (0, 0)),
        (frame(5, 1, &[1]), 501, "type 5, 1 octets on channel 1", (0, 0)),
        (frame(2, 0, &[1]), 505, "type 2, 1 octets on channel 0", (0, 0)),
        (frame(3, 7, &[1]), 505, "expected method frame, got non method frame instead", (0, 0)),
        (header(1), 505, "expected method frame, got non method frame instead", (0, 0)),
        (
            [publish.clone(), frame(3, 1, &[1])].concat(),
            505,
            "expected content header for class 60, got non content header frame instead",
            (60, 40),
        ),
        (
            [publish.clone(), header(1), header(1)].concat(),
            505,
            "expected content body, got non content body frame instead",
            (60, 40),
        ),
        (
            [publish.clone(), payload(Method::ConfirmSelect { nowait: true })].concat(),
            505,
            "expected content header for class 60, got non content header frame instead",
            (85, 10),
        ),
        (
            [publish.clone(), frame(2, 1, &[0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0])].concat(),
            505,
            "expected content header for class 60, got one for class 10 instead",
            (60, 40),
        ),
        (
            [publish.clone(), header(1), frame(3, 1, &[1, 2])].concat(),
            501,
            "content body frame exceeds remaining content size",
            (60, 40),
        ),
        (
            [publish.clone(), frame(2, 1, &[0, 60, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0])].concat(),
            501,
            "content body size 72057594037927937 exceeds maximum allowed size 536870912",
            (60, 40),
        ),
        (
            [publish, frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])].concat(),
            502,
            "a message has unknown properties",
            (60, 40),
        ),
    ];
    for (bytes, code, text, ids) in cases {
        let mut talk = Talk::open();
        talk.feed(&bytes);
        let name = match code {
            501 => "FRAME_ERROR",
            502 => "SYNTAX_ERROR",
            503 => "COMMAND_INVALID",
            504 => "CHANNEL_ERROR",
            505 => "UNEXPECTED_FRAME",
            _ => "NOT_IMPLEMENTED",
        };
        talk.expect_connection_error(code, &format!("{name} - {text}"), ids);
        talk.expect_asked(&["Close"]);
        assert!(!talk.ended, "close-ok is awaited");
        talk.publish(1, "ex", "ignored", false, b"");
        talk.send(0, Method::ConnectionCloseOk {});
        talk.expect_nothing();
        talk.expect_asked(&[]);
        assert!(talk.ended);
    }
}

#[test]
fn a_lost_stream_ends_at_once() {
    for bytes in [&[1, 0, 1, 0, 2, 0, 1][..], &[8, 0, 0, 0, 0, 0, 0, 0xcd]] {
        let mut talk = Talk::open();
        talk.feed(bytes);
        let (_, _, payload) = talk.frame().unwrap();
        let close = Method::decode(&payload, 1);
        assert!(matches!(close, Ok(Method::ConnectionClose { reply_code: 501, .. })), "{close:?}");
        assert!(talk.ended);
    }
}

#[test]
fn there_are_no_more_channels_than_negotiated() {
    let mut talk = Talk::open_with(Limits { channels_max: 2048, ..Limits::default() });
    (2..=2047).for_each(|channel| talk.send(channel, Method::ChannelOpen {}));
    talk.heard.clear();
    talk.send(60_000, Method::ChannelOpen {});
    let text = "NOT_ALLOWED - number of channels opened (2047) has reached the negotiated channel_max (2047)";
    talk.expect_connection_error(530, text, (0, 0));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| {
        (0..depth).fold(Arguments::default(), |inner, _| Arguments(vec![("n".into(), Value::Table(inner))]))
    };
    let bind = |depth| Method::QueueBind {
        queue: "q",
        exchange: "e",
        routing_key: "",
        nowait: false,
        arguments: nested(depth),
    };
    let mut talk = Talk::open();
    talk.send(1, bind(31));
    talk.expect(1, Method::QueueBindOk {});
    talk.send(1, bind(32));
    talk.expect_connection_error(502, "SYNTAX_ERROR - tables are nested too deeply", (50, 20));
}
