//! From the first byte to an open connection, and every way it fails before that.

use super::*;

fn started() -> Talk {
    let mut talk = Talk::new();
    talk.feed(b"AMQP\0\0\x09\x01");
    talk
}

fn login(talk: &mut Talk, mechanism: &str, response: &[u8], capable: &[&str]) {
    talk.heard.clear();
    talk.send(
        0,
        Method::ConnectionStartOk {
            client_properties: capabilities(capable),
            mechanism,
            response,
            locale: "en_US",
        },
    );
}

#[test]
fn the_whole_way_in_and_out() {
    let mut talk = started();
    let (_, _, payload) = talk.frame().unwrap();
    let Ok(Method::ConnectionStart {
        version_major: 0, version_minor: 9, server_properties, mechanisms, ..
    }) = Method::decode(&payload, 4)
    else {
        panic!("no start");
    };
    assert_eq!(mechanisms, b"PLAIN AMQPLAIN");
    assert_eq!(server_properties.get("product"), Some(&Value::text("Waystation")));
    assert_eq!(server_properties.get("version"), Some(&Value::text("1.2.3")));
    let Some(Value::Table(able)) = server_properties.get("capabilities") else { panic!("no capabilities") };
    assert_eq!(able.0.len(), 9);
    login(&mut talk, "PLAIN", b"\0guest\0guest", &[]);
    talk.expect_asked(&["Authenticate { user: \"guest\", password: [103, 117, 101, 115, 116] }"]);
    talk.expect(0, Method::ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
    talk.send(0, Method::ConnectionTuneOk { channel_max: 10, frame_max: 8192, heartbeat: 0 });
    talk.send(0, Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
    talk.expect_asked(&["Enter { vhost: \"/\" }"]);
    talk.expect(0, Method::ConnectionOpenOk {});
    assert_eq!((talk.session.user(), talk.session.vhost()), ("guest", "/"));
    talk.send(0, Method::ConnectionUpdateSecret { new_secret: b"s", reason: "r" });
    talk.expect(0, Method::ConnectionUpdateSecretOk {});
    talk.send(0, Method::ConnectionClose { reply_code: 200, reply_text: "bye", class: 0, method: 0 });
    talk.expect_asked(&["Close"]);
    talk.expect(0, Method::ConnectionCloseOk {});
    talk.expect_nothing();
    assert!(talk.ended);
}

#[test]
fn amqplain_is_understood_and_unknown_mechanisms_are_dropped() {
    let mut talk = started();
    login(&mut talk, "AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest", &[]);
    talk.expect(0, Method::ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
    for (mechanism, response) in [("EXTERNAL", &b""[..]), ("PLAIN", b"guest")] {
        let mut talk = started();
        login(&mut talk, mechanism, response, &["authentication_failure_close"]);
        talk.expect_nothing();
        assert!(talk.ended && talk.asked.is_empty());
    }
}

#[test]
fn another_protocol_is_told_what_is_spoken_here() {
    for header in [&b"AMQP\x03\x01\0\0"[..], b"GET / HTTP/1.1\r\n", b"AMQP\0\0\x09\x02", b"X"] {
        let mut talk = Talk::new();
        talk.feed(header);
        assert_eq!(talk.heard, b"AMQP\0\0\x09\x01");
        assert!(talk.ended);
    }
}

#[test]
fn a_wrong_password_closes_or_drops() {
    let mut talk = started();
    login(&mut talk, "PLAIN", b"\0guest\0no", &["authentication_failure_close"]);
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                broker logfile.";
    talk.expect_connection_error(403, text, (0, 0));
    talk.send(0, Method::ConnectionCloseOk {});
    assert!(talk.ended);
    let mut talk = started();
    login(&mut talk, "PLAIN", b"\0guest\0no", &[]);
    talk.expect_nothing();
    assert!(talk.ended);
}

#[test]
fn tuning_stays_within_bounds() {
    let text = |field: &str, value: &str| format!("NOT_ALLOWED - negotiated {field} = {value}");
    let cases = [
        (2047, 4096, text("frame_max", "4096 is lower than the minimum allowed value (8192)")),
        (2047, 131_073, text("frame_max", "131073 is higher than the maximum allowed value (131072)")),
        (2047, 0, text("frame_max", "0 (no limit) is higher than the maximum allowed value (131072)")),
        (0, 8192, text("channel_max", "0 (no limit) is higher than the maximum allowed value (2047)")),
        (2048, 8192, text("channel_max", "2048 is higher than the maximum allowed value (2047)")),
    ];
    for (channel_max, frame_max, text) in cases {
        let mut talk = started();
        login(&mut talk, "PLAIN", b"\0guest\0guest", &[]);
        talk.heard.clear();
        talk.send(0, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 });
        talk.expect_connection_error(530, &text, (10, 30));
    }
}

#[test]
fn an_unknown_virtual_host_is_not_allowed() {
    let mut talk = Talk::new();
    talk.feed(&opening("", "guest", "other", 8192));
    talk.frame();
    talk.frame();
    talk.expect_connection_error(530, "NOT_ALLOWED - vhost other not found", (10, 40));
    talk.send(0, Method::ConnectionClose { reply_code: 0, reply_text: "", class: 0, method: 0 });
    talk.expect(0, Method::ConnectionCloseOk {});
    assert!(talk.ended);
}

#[test]
fn methods_out_of_turn_end_it() {
    let mut talk = started();
    talk.heard.clear();
    talk.send(0, Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
    talk.expect_nothing();
    assert!(talk.ended && talk.asked.is_empty());
    let mut talk = started();
    login(&mut talk, "PLAIN", b"\0guest\0guest", &[]);
    talk.heard.clear();
    talk.send(1, Method::ChannelOpen {});
    talk.expect_connection_error(505, "UNEXPECTED_FRAME - type 1, 5 octets on channel 1", (0, 0));
    let mut talk = started();
    login(&mut talk, "PLAIN", b"\0guest\0guest", &[]);
    login(&mut talk, "PLAIN", b"\0guest\0guest", &[]);
    let text = "CHANNEL_ERROR - unexpected method in connection state Tuning";
    talk.expect_connection_error(504, text, (10, 11));
}

#[test]
fn a_client_may_close_at_any_time() {
    let mut talk = started();
    talk.heard.clear();
    talk.send(0, Method::ConnectionClose { reply_code: 0, reply_text: "", class: 0, method: 0 });
    talk.expect(0, Method::ConnectionCloseOk {});
    assert!(talk.ended);
}

#[test]
fn nobody_sends_much_before_they_are_known() {
    let mut talk = started();
    talk.feed(&[1, 0, 0, 0, 0, 0x3f, 0xff]);
    assert!(!talk.ended);
    talk.feed(&vec![0; 16 << 10]);
    assert!(talk.ended);
    let mut talk = started();
    talk.heard.clear();
    for _ in 0..2048 {
        talk.feed(&[8, 0, 0, 0, 0, 0, 0, 0xce]);
    }
    assert!(!talk.ended, "as many heartbeats as allowed");
    talk.feed(&[8, 0, 0, 0, 0, 0, 0, 0xce]);
    assert!(talk.ended);
}

#[test]
fn a_handshake_has_its_time() {
    let mut talk = started();
    let deadline = talk.session.next_deadline().unwrap();
    assert_eq!(deadline, NOW.mono_us + 10_000_000);
    let at = |mono_us| Now { mono_us, wall_ms: 0 };
    assert!(matches!(talk.session.tick(at(deadline - 1), &mut talk.out), Step::More));
    assert!(matches!(talk.session.tick(at(deadline), &mut talk.out), Step::End));
}
