//! Consuming, settling, prefetch, gets and direct replies.

use super::*;
use crate::wire::properties;

fn consume(talk: &mut Talk, queue: &str, consumer_tag: &str, no_ack: bool) {
    talk.send(
        1,
        Method::BasicConsume {
            queue,
            consumer_tag,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: Arguments::default(),
        },
    );
}

/// A channel with a consumer "c" that was sent this many messages.
fn consuming(backlog: u64, prefetch: u16) -> Talk {
    let mut talk = Talk::open();
    talk.broker.backlog = backlog;
    talk.send(1, Method::BasicQos { prefetch_size: 0, prefetch_count: prefetch, global: false });
    consume(&mut talk, "q", "c", false);
    talk.heard.clear();
    talk.asked.clear();
    talk
}

#[test]
fn deliveries_are_numbered_and_whole() {
    let mut talk = Talk::open();
    talk.broker.backlog = 2;
    talk.broker.body = vec![5; 3];
    talk.send(1, Method::BasicQos { prefetch_size: 0, prefetch_count: 10, global: false });
    talk.expect(1, Method::BasicQosOk {});
    consume(&mut talk, "q", "c", false);
    talk.expect_asked(&[
        "Subscribe(Subscribe { lane: Lane(1), consumer: ConsumerId(1), queue: \"q\", settled: \
                         false, exclusive: false, priority: 0, credit: Some(10), start: None, filter: None })",
    ]);
    talk.expect(1, Method::BasicConsumeOk { consumer_tag: "c" });
    for delivery_tag in 1..=2 {
        talk.expect(
            1,
            Method::BasicDeliver {
                consumer_tag: "c",
                delivery_tag,
                redelivered: false,
                exchange: "ex",
                routing_key: "key",
            },
        );
        assert_eq!(talk.expect_content(1), (vec![0x10, 0, 2], vec![5; 3]));
    }
    talk.expect_nothing();
}

#[test]
fn a_delivery_counts_its_failures_and_a_large_body_is_shared() {
    let mut talk = Talk::new();
    talk.feed(&opening("", "guest", "/", 65_536));
    talk.send(1, Method::ChannelOpen {});
    talk.broker = Broker { backlog: 1, body: (0..200_000u32).map(|at| at as u8).collect(), count: 3 };
    talk.heard.clear();
    consume(&mut talk, "q", "c", true);
    talk.expect(1, Method::BasicConsumeOk { consumer_tag: "c" });
    let (_, _, deliver) = talk.frame().unwrap();
    assert!(matches!(Method::decode(&deliver, 1), Ok(Method::BasicDeliver { redelivered: true, .. })));
    let (block, body) = talk.expect_content(1);
    assert_eq!(body, talk.broker.body);
    assert_eq!(properties::headers(&block).unwrap().get("x-delivery-count"), Some(&Value::Int(3)));
    assert_eq!(Properties::decode(&block).unwrap().delivery_mode, Some(2));
}

#[test]
fn settlements_join_and_grants_follow() {
    let mut talk = consuming(10, 5);
    let mut bytes = Vec::new();
    for delivery_tag in [1, 2, 3] {
        Method::BasicAck { delivery_tag, multiple: false }.put(1, &mut bytes);
    }
    talk.feed(&bytes);
    talk.expect_asked(&["settle 1 7 100..=102 Accept", "grant 1 3"]);
    talk.send(1, Method::BasicAck { delivery_tag: 6, multiple: true });
    talk.expect_asked(&["settle 1 7 103..=105 Accept", "grant 1 3"]);
    talk.send(1, Method::BasicNack { delivery_tag: 8, multiple: false, requeue: true });
    talk.send(1, Method::BasicReject { delivery_tag: 7, requeue: true });
    talk.send(1, Method::BasicReject { delivery_tag: 9, requeue: false });
    talk.send(1, Method::BasicNack { delivery_tag: 0, multiple: true, requeue: false });
    talk.expect_asked(&[
        "settle 1 7 107..=107 Return { failed: false }",
        "grant 1 1",
        "settle 1 7 106..=106 Return { failed: true }",
        "grant 1 1",
        "settle 1 7 108..=108 Reject",
        "grant 1 1",
        "settle 1 7 109..=109 Reject",
        "grant 1 1",
    ]);
    talk.send(1, Method::BasicAck { delivery_tag: 0, multiple: true });
    talk.expect_asked(&[]);
    talk.expect_nothing();
}

#[test]
fn without_prefetch_there_is_nothing_to_grant() {
    let mut talk = consuming(2, 0);
    talk.send(1, Method::BasicAck { delivery_tag: 1, multiple: false });
    talk.expect_asked(&["settle 1 7 100..=100 Accept"]);
}

#[test]
fn a_tag_is_settled_once() {
    for settle in [
        Method::BasicAck { delivery_tag: 2, multiple: false },
        Method::BasicAck { delivery_tag: 2, multiple: true },
        Method::BasicNack { delivery_tag: 2, multiple: false, requeue: true },
        Method::BasicReject { delivery_tag: 2, requeue: false },
    ] {
        let mut talk = consuming(3, 0);
        talk.send(1, Method::BasicAck { delivery_tag: 2, multiple: false });
        let ids = settle.ids();
        talk.send(1, settle);
        talk.expect_channel_error(1, 406, "PRECONDITION_FAILED - unknown delivery tag 2", ids);
    }
    let mut talk = consuming(3, 0);
    talk.send(1, Method::BasicAck { delivery_tag: 4, multiple: true });
    talk.expect_channel_error(1, 406, "PRECONDITION_FAILED - unknown delivery tag 4", (60, 80));
}

#[test]
fn recover_returns_everything() {
    let mut talk = consuming(4, 9);
    talk.send(1, Method::BasicAck { delivery_tag: 2, multiple: false });
    talk.asked.clear();
    talk.send(1, Method::BasicRecover { requeue: true });
    talk.expect(1, Method::BasicRecoverOk {});
    talk.expect_asked(&[
        "settle 1 7 100..=100 Return { failed: false }",
        "settle 1 7 102..=103 Return { failed: false }",
        "grant 1 3",
    ]);
    talk.send(1, Method::BasicRecoverAsync { requeue: true });
    talk.expect_asked(&[]);
    talk.expect_nothing();
}

#[test]
fn a_dead_connection_returns_what_it_held_as_failed() {
    let mut talk = consuming(4, 9);
    talk.send(1, Method::BasicAck { delivery_tag: 3, multiple: false });
    talk.session.abandon();
    let mut ended = Vec::new();
    while let Some(request) = talk.session.poll_request(&mut talk.out) {
        ended.extend(told(&request));
    }
    let expected =
        ["settle 1 7 100..=101 Return { failed: true }", "settle 1 7 103..=103 Return { failed: true }"];
    assert_eq!(ended, expected);
    assert!(talk.session.is_ended());
    talk.session.abandon();
    assert!(talk.session.poll_request(&mut talk.out).is_none());
}

#[test]
fn cancelling_ends_a_consumer_but_not_what_it_holds() {
    let mut talk = consuming(2, 5);
    talk.send(1, Method::BasicCancel { consumer_tag: "c", nowait: false });
    talk.expect_asked(&["Unsubscribe { lane: Lane(1), consumer: ConsumerId(1) }"]);
    talk.expect(1, Method::BasicCancelOk { consumer_tag: "c" });
    talk.send(1, Method::BasicAck { delivery_tag: 2, multiple: true });
    // The grant finds nobody.
    talk.expect_asked(&["settle 1 7 100..=101 Accept", "grant 1 2"]);
    talk.send(1, Method::BasicCancel { consumer_tag: "unknown", nowait: false });
    talk.expect(1, Method::BasicCancelOk { consumer_tag: "unknown" });
    talk.send(1, Method::BasicCancel { consumer_tag: "unknown", nowait: true });
    talk.expect_asked(&[]);
    talk.expect_nothing();
    consume(&mut talk, "q", "c", false);
    talk.expect(1, Method::BasicConsumeOk { consumer_tag: "c" });
}

#[test]
fn a_tag_in_use_is_not_allowed_and_an_empty_one_is_drawn() {
    let mut talk = consuming(0, 0);
    consume(&mut talk, "q", "", true);
    consume(&mut talk, "q", "", true);
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let (_, _, payload) = talk.frame().unwrap();
        let Ok(Method::BasicConsumeOk { consumer_tag }) = Method::decode(&payload, 1) else { panic!() };
        assert!(consumer_tag.starts_with("amq.ctag-"));
        drawn.push(consumer_tag.to_owned());
    }
    assert_ne!(drawn[0], drawn[1]);
    consume(&mut talk, "q", "c", false);
    talk.expect_connection_error(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", (60, 20));
}

#[test]
fn a_consumer_whose_queue_goes_is_told_if_it_wants() {
    for capable in ["consumer_cancel_notify", ""] {
        let mut talk = Talk::new();
        talk.feed(&opening(capable, "guest", "/", 8192));
        talk.send(1, Method::ChannelOpen {});
        consume(&mut talk, "q", "c", false);
        talk.heard.clear();
        talk.event(Event::Revoked(Lane(1), ConsumerId(1)));
        if !capable.is_empty() {
            talk.expect(1, Method::BasicCancel { consumer_tag: "c", nowait: true });
        }
        talk.expect_nothing();
        talk.send(1, Method::BasicCancel { consumer_tag: "c", nowait: false });
        talk.expect(1, Method::BasicCancelOk { consumer_tag: "c" });
    }
}

#[test]
fn one_message_at_a_time() {
    let mut talk = Talk::open();
    talk.send(1, Method::BasicGet { queue: "empty", no_ack: false });
    talk.expect_asked(&["Get { lane: Lane(1), queue: \"empty\", settled: false }"]);
    talk.expect(1, Method::BasicGetEmpty {});
    talk.broker.body = b"m".to_vec();
    for (delivery_tag, no_ack) in [(1, false), (2, true)] {
        talk.send(1, Method::BasicGet { queue: "q", no_ack });
        talk.expect(
            1,
            Method::BasicGetOk {
                delivery_tag,
                redelivered: false,
                exchange: "ex",
                routing_key: "key",
                message_count: 4,
            },
        );
        assert_eq!(talk.expect_content(1).1, b"m");
    }
    talk.asked.clear();
    talk.send(1, Method::BasicAck { delivery_tag: 1, multiple: false });
    talk.expect_asked(&["settle 1 7 50..=50 Accept"]);
    talk.send(1, Method::BasicAck { delivery_tag: 2, multiple: false });
    talk.expect_channel_error(1, 406, "PRECONDITION_FAILED - unknown delivery tag 2", (60, 80));
}

#[test]
fn a_window_for_the_whole_channel() {
    let mut talk = Talk::open();
    for prefetch_count in [7, 0] {
        talk.send(1, Method::BasicQos { prefetch_size: 0, prefetch_count, global: true });
        talk.expect(1, Method::BasicQosOk {});
    }
    talk.expect_asked(&[
        "Window { lane: Lane(1), messages: Some(7) }",
        "Window { lane: Lane(1), messages: None }",
    ]);
    talk.send(1, Method::BasicQos { prefetch_size: 1, prefetch_count: 0, global: false });
    talk.expect_connection_error(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", (60, 10));
}

#[test]
fn consumer_priorities() {
    let mut talk = Talk::open();
    let consume = |value| Method::BasicConsume {
        queue: "q",
        consumer_tag: "",
        no_local: false,
        no_ack: true,
        exclusive: true,
        nowait: true,
        arguments: Arguments(vec![("x-priority".into(), value)]),
    };
    talk.send(1, consume(Value::Int(-3)));
    talk.expect_asked(&[
        "Subscribe(Subscribe { lane: Lane(1), consumer: ConsumerId(1), queue: \"q\", settled: \
                         true, exclusive: true, priority: -3, credit: None, start: None, filter: None })",
    ]);
    talk.expect_nothing();
    talk.send(1, consume(Value::text("high")));
    let text = "PRECONDITION_FAILED - invalid arg 'x-priority': 'high' is not an integer";
    talk.expect_channel_error(1, 406, text, (60, 20));
}

#[test]
fn direct_replies() {
    let mut talk = Talk::open();
    consume(&mut talk, "amq.rabbitmq.reply-to", "replies", true);
    assert_eq!(talk.asked.len(), 2);
    assert!(talk.asked[0].contains("DeclareQueue") && talk.asked[0].contains("exclusive: true"));
    assert!(talk.asked[1].contains("queue: \"amq.rabbitmq.reply-to.1\""), "{:?}", talk.asked);
    talk.expect(1, Method::BasicConsumeOk { consumer_tag: "replies" });
    let of = |reply_to: &'static [u8]| {
        block(Properties { reply_to: Some(reply_to), message_id: Some(b"id"), ..Properties::default() })
    };
    talk.asked.clear();
    talk.feed(&publishing(1, "", "server", false, &of(b"amq.rabbitmq.reply-to"), b"ask"));
    talk.expect_asked(&[&format!(
        "publish 1 0 false /server 0 {:?} [97, 115, 107]",
        of(b"amq.rabbitmq.reply-to.1")
    )]);
    let declare = Method::QueueDeclare {
        queue: "amq.rabbitmq.reply-to",
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Arguments::default(),
    };
    talk.send(1, declare.clone());
    let queue = "amq.rabbitmq.reply-to";
    talk.expect(1, Method::QueueDeclareOk { queue, message_count: 0, consumer_count: 1 });
    consume(&mut talk, "amq.rabbitmq.reply-to", "again", true);
    talk.expect_channel_error(1, 406, "PRECONDITION_FAILED - reply consumer already set", (60, 20));
    let mut talk = Talk::open();
    consume(&mut talk, "amq.rabbitmq.reply-to", "acking", false);
    talk.expect_channel_error(1, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", (60, 20));
    let mut talk = Talk::open();
    talk.send(1, declare);
    talk.expect(1, Method::QueueDeclareOk { queue, message_count: 0, consumer_count: 1 });
}

#[test]
fn a_consumer_that_is_gone_is_granted_nothing() {
    let mut talk = consuming(2, 5);
    let mut ack = Vec::new();
    Method::BasicAck { delivery_tag: 1, multiple: false }.put(1, &mut ack);
    let (used, step) = talk.session.receive(&ack, &mut talk.out);
    assert!(used == ack.len() && matches!(step, Step::Request(Request::Settle { .. })));
    talk.session.on_event(&Event::Revoked(Lane(1), ConsumerId(1)), &mut talk.out);
    assert!(talk.session.poll_request(&mut talk.out).is_none());
}

#[test]
fn what_comes_for_a_consumer_that_is_gone_goes_back_unless_it_is_settled() {
    for settled in [false, true] {
        let mut talk = consuming(0, 5);
        talk.session.on_event(&Event::Revoked(Lane(1), ConsumerId(1)), &mut talk.out);
        let late = Delivered { settled, ..delivered(Lane(1), ConsumerId(1), &[4], b"late", 0) };
        talk.session.on_event(&Event::Delivered(late), &mut talk.out);
        let goes_back = matches!(talk.session.poll_request(&mut talk.out), Some(Request::Settle { .. }));
        assert_eq!(goes_back, !settled);
    }
}

fn consume_from(talk: &mut Talk, start: Value) {
    talk.send(
        1,
        Method::BasicConsume {
            queue: "s",
            consumer_tag: "c",
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Arguments(vec![("x-stream-offset".into(), start)]),
        },
    );
}

#[test]
fn where_a_reader_of_a_stream_begins() {
    for (value, start) in [
        (Value::text("first"), "First"),
        (Value::Int(7), "Offset(7)"),
        (Value::Timestamp(9), "Timestamp(9)"),
        (Value::text("5m"), "Interval(300000)"),
    ] {
        let mut talk = Talk::open();
        consume_from(&mut talk, value);
        let asked = format!(
            "Subscribe(Subscribe {{ lane: Lane(1), consumer: ConsumerId(1), queue: \"s\", settled: \
             false, exclusive: false, priority: 0, credit: None, start: Some({start}), filter: None }})"
        );
        talk.expect_asked(&[&asked]);
    }
    let mut talk = Talk::open();
    consume_from(&mut talk, Value::text("sometime"));
    talk.expect_asked(&["CloseLane { lane: Lane(1) }"]);
    let (_, _, payload) = talk.frame().unwrap();
    let Method::ChannelClose { reply_code, reply_text, .. } = Method::decode(&payload, 8).unwrap() else {
        panic!("{payload:?}");
    };
    let text = "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 's' in vhost '/'";
    assert!(reply_code == 406 && reply_text.starts_with(text), "{reply_code} {reply_text}");
}

#[test]
fn messages_of_a_stream_say_where_they_stand() {
    #[rustfmt::skip]
    let golden = [
        0x30, 0, 0, 0, 0, 25, 15, b'x', b'-', b's', b't', b'r', b'e', b'a', b'm', b'-',
        b'o', b'f', b'f', b's', b'e', b't', b'l', 0, 0, 0, 0, 0, 0, 1, 0x2c, 2,
    ];
    // Short bodies and long ones are written in two ways.
    for length in [0, 3, 40_000] {
        let mut talk = consuming(0, 5);
        let body = vec![7; length];
        let of_stream = Delivered { stream: true, ..delivered(Lane(1), ConsumerId(1), &[300], &body, 0) };
        talk.event(Event::Delivered(of_stream));
        let deliver = Method::BasicDeliver {
            consumer_tag: "c",
            delivery_tag: 1,
            redelivered: false,
            exchange: "ex",
            routing_key: "key",
        };
        talk.expect(1, deliver);
        assert_eq!(talk.expect_content(1), (golden.to_vec(), body));
        talk.expect_nothing();
    }
}
