//! Publishing, confirms and returns.

use super::*;
use crate::wire::properties;

#[test]
fn a_message_goes_in_as_it_came() {
    let mut talk = Talk::open();
    talk.publish(1, "ex", "key", false, b"hello");
    talk.publish(1, "", "q", true, b"");
    talk.expect_asked(&[
        "publish 1 0 false ex/key 0 [16, 0, 2] [104, 101, 108, 108, 111]",
        "publish 1 0 true /q 0 [16, 0, 2] []",
    ]);
    let properties = block(Properties { priority: Some(7), timestamp: Some(3), ..Properties::default() });
    talk.feed(&publishing(1, "ex", "key", false, &properties, b"x"));
    talk.expect_asked(&[&format!("publish 1 0 false ex/key 7 {properties:?} [120]")]);
    assert_eq!(talk.session.partial_bytes(), 0);
    talk.expect_nothing();
}

#[test]
fn the_timestamp_and_the_headers_are_lifted() {
    let mut talk = Talk::open();
    let headers = properties::block_of(&[("a", Value::Int(1))]);
    let fields = &headers[6..];
    let properties = block(Properties { headers: Some(fields), timestamp: Some(3), ..Properties::default() });
    let bytes = publishing(1, "ex", "key", false, &properties, b"x");
    let (used, step) = talk.session.receive(&bytes, &mut talk.out);
    let Step::Request(Request::Publish(publish)) = step else { panic!("{step:?}") };
    assert_eq!((used, publish.record.timestamp_ms), (bytes.len(), Some(3000)));
    assert_eq!((publish.headers)(publish.record.prefix).unwrap().get("a"), Some(&Value::Int(1)));
}

#[test]
fn large_bodies_and_interleaved_channels_are_assembled() {
    let mut talk = Talk::open();
    talk.send(2, Method::ChannelOpen {});
    let (one, two) = (
        publishing(1, "ex", "1", false, &[0x10, 0, 2], &[1; 20_000]),
        publishing(2, "ex", "2", false, &[0x08, 0, 9], &[2; 9_000]),
    );
    let mut frames: Vec<Vec<&[u8]>> = Vec::new();
    for mut rest in [&one[..], &two[..]] {
        let mut of_one = Vec::new();
        while let Ok(Some(frame)) = next_frame(rest, 1 << 20) {
            of_one.push(&rest[..frame.len()]);
            rest = &rest[frame.len()..];
        }
        frames.push(of_one);
    }
    let mut bytes = Vec::new();
    for at in 0..5 {
        frames.iter().filter_map(|of_one| of_one.get(at)).for_each(|frame| bytes.extend_from_slice(frame));
    }
    let end = bytes.len() - 1;
    talk.feed(&bytes[..end]);
    talk.expect_asked(&["publish 2 0 false ex/2 9 [8, 0, 9] 9000 bytes"]);
    assert!(talk.session.partial_bytes() > 16_000);
    talk.feed(&bytes[end..]);
    talk.expect_asked(&["publish 1 0 false ex/1 0 [16, 0, 2] 20000 bytes"]);
    talk.feed(&[]);
    assert_eq!(talk.session.partial_bytes(), 0);
}

#[test]
fn a_whole_message_is_waited_for_without_being_consumed() {
    let mut talk = Talk::open();
    let bytes = publishing(1, "ex", "key", false, &[0x10, 0, 2], &[7; 5000]);
    for cut in [30, 60, bytes.len() - 1] {
        let (used, step) = talk.session.receive(&bytes[..cut], &mut talk.out);
        assert!(matches!((used, step), (0, Step::More)), "cut at {cut}");
    }
    let (used, step) = talk.session.receive(&bytes, &mut talk.out);
    let Step::Request(Request::Publish(publish)) = step else { panic!("{step:?}") };
    let body = publish.record.body.unwrap();
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "the body is borrowed from the input");
    assert_eq!(used, bytes.len());
}

#[test]
fn confirms_are_one_method_and_returns_come_first() {
    let mut talk = Talk::open();
    talk.publish(1, "ex", "unnumbered", false, b"");
    talk.send(1, Method::ConfirmSelect { nowait: false });
    talk.expect(1, Method::ConfirmSelectOk {});
    talk.send(1, Method::ConfirmSelect { nowait: true });
    talk.asked.clear();
    talk.publish(1, "ex", "key", false, b"1");
    talk.publish(1, "ex", "nowhere", true, b"2");
    talk.publish(1, "ex", "key", false, b"3");
    talk.expect(
        1,
        Method::BasicReturn {
            reply_code: 312,
            reply_text: "NO_ROUTE",
            exchange: "ex",
            routing_key: "nowhere",
        },
    );
    assert_eq!(talk.expect_content(1), (vec![0x10, 0, 2], b"2".to_vec()));
    talk.expect_nothing();
    talk.flush();
    talk.expect(1, Method::BasicAck { delivery_tag: 3, multiple: true });
    talk.publish(1, "ex", "full", false, b"4");
    talk.publish(1, "ex", "key", false, b"5");
    talk.flush();
    talk.expect(1, Method::BasicNack { delivery_tag: 4, multiple: false, requeue: false });
    talk.expect(1, Method::BasicAck { delivery_tag: 5, multiple: false });
    talk.flush();
    talk.expect_nothing();
    assert!(talk.asked[4].starts_with("publish 1 5 "), "{:?}", talk.asked);
}

#[test]
fn further_keys_go_with_their_message_and_blind_ones_only_there() {
    let list = |text| Value::List(vec![Value::text(text)]);
    let (open, blind) = (("CC", list("copy")), ("BCC", list("blind")));
    let both = properties::block_of(&[open.clone(), blind]);
    let seen = properties::block_of(&[open]);
    let mut talk = Talk::open();
    talk.feed(&publishing(1, "ex", "key", false, &both, b"1"));
    talk.publish(1, "ex", "key", false, b"2");
    talk.feed(&publishing(1, "ex", "key", false, &both, b""));
    let copied =
        |body: &str| format!("publish 1 0 false ex/key 0 {seen:?} {body} also [\"copy\", \"blind\"]");
    let plain = "publish 1 0 false ex/key 0 [16, 0, 2] [50]";
    talk.expect_asked(&[&copied("[49]"), plain, &copied("[]")]);
    assert_eq!(talk.session.partial_bytes(), 0);
    talk.feed(&publishing(
        1,
        "ex",
        "key",
        false,
        &properties::block_of(&[("CC", Value::text("copy"))]),
        b"x",
    ));
    let text = "PRECONDITION_FAILED - invalid message: header 'CC' is 'copy', not a list of routing keys";
    talk.expect_channel_error(1, 406, text, (60, 40));
}

#[test]
fn refused_messages_close_the_channel() {
    let user = |user_id| block(Properties { user_id: Some(user_id), ..Properties::default() });
    let expiration = |text| block(Properties { expiration: Some(text), ..Properties::default() });
    let cases = [
        (user(b"eve"), "user_id property set to 'eve' but authenticated user was 'guest'"),
        (expiration(b"soon"), "invalid expiration 'soon': no_integer"),
        (expiration(b""), "invalid expiration '': no_integer"),
        (
            block(Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Properties::default() }),
            "fast reply consumer does not exist",
        ),
    ];
    for (properties, text) in cases {
        let mut talk = Talk::open();
        talk.feed(&publishing(1, "ex", "key", false, &properties, b"x"));
        talk.expect_channel_error(1, 406, &format!("PRECONDITION_FAILED - {text}"), (60, 40));
        assert!(talk.asked.is_empty());
    }
    let mut talk = Talk::open();
    for properties in [user(b"guest"), expiration(b"1000")] {
        talk.feed(&publishing(1, "ex", "key", false, &properties, b"x"));
    }
    assert_eq!(talk.asked.len(), 2);
    talk.publish(1, "missing", "key", false, b"x");
    talk.expect_channel_error(1, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'", (60, 40));
    // A question behind it is not what was refused.
    let mut talk = Talk::open();
    talk.silent = true;
    talk.publish(1, "missing", "key", false, b"x");
    talk.send(1, Method::QueueDelete { queue: "q", if_unused: false, if_empty: false, nowait: false });
    talk.silent = false;
    talk.release();
    talk.expect_channel_error(1, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'", (60, 40));
    talk.expect_nothing();
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_it_arrives() {
    let mut talk = Talk::open_with(Limits { message_bytes_max: 10_000, ..Limits::default() });
    talk.publish(1, "ex", "key", false, &[0; 10_000]);
    assert_eq!(talk.asked.len(), 1);
    talk.asked.clear();
    talk.publish(1, "ex", "key", false, &[0; 10_001]);
    let text = "PRECONDITION_FAILED - message size 10001 is larger than configured max size 10000";
    talk.expect_channel_error(1, 406, text, (60, 40));
    talk.expect_nothing();
    assert_eq!(talk.session.partial_bytes(), 0);
}

#[test]
fn incomplete_messages_are_bounded_together() {
    let mut talk = Talk::open_with(Limits { partial_bytes_max: 30_000, ..Limits::default() });
    talk.send(2, Method::ChannelOpen {});
    talk.heard.clear();
    for channel in [1, 2] {
        let bytes = publishing(channel, "ex", "key", false, &[0x10, 0, 2], &[0; 20_000]);
        let last_frame = 20_000 - 2 * 8184 + 8;
        talk.feed(&bytes[..bytes.len() - last_frame]);
    }
    let text = "RESOURCE_ERROR - incomplete messages of the connection hold more than 30000 bytes";
    talk.expect_connection_error(506, text, (60, 40));
    assert_eq!(talk.session.partial_bytes(), 0);
}

#[test]
fn what_was_confirmed_is_told_before_the_channel_closes() {
    let mut talk = Talk::open();
    talk.send(1, Method::ConfirmSelect { nowait: true });
    talk.publish(1, "ex", "key", false, b"1");
    talk.publish(1, "missing", "key", false, b"2");
    talk.expect(1, Method::BasicAck { delivery_tag: 1, multiple: false });
    talk.expect_channel_error(1, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'", (60, 40));
    talk.flush();
    talk.expect_nothing();
}
