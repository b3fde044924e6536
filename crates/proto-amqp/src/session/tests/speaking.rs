//! Heartbeats, blocking, shutdown.

use super::*;

const HALF: u64 = 30_000_000;

fn tick(talk: &mut Talk, mono_us: u64) -> bool {
    let step = talk.session.tick(Now { mono_us, wall_ms: 0 }, &mut talk.out);
    let ended = matches!(step, Step::End);
    talk.drain();
    ended
}

#[test]
fn an_idle_side_beats_and_a_silent_peer_is_gone_after_two_intervals() {
    let mut talk = Talk::open();
    let mut now = NOW.mono_us;
    assert!(!tick(&mut talk, now));
    talk.expect_nothing();
    for beat in 1..=4 {
        assert_eq!(talk.session.next_deadline(), Some(now + HALF));
        now += HALF;
        assert!(!tick(&mut talk, now - 1));
        assert_eq!(tick(&mut talk, now), beat == 4);
        assert_eq!(talk.frame(), Some((8, 0, vec![])));
    }
    assert!(talk.session.is_ended());
}

#[test]
fn whoever_speaks_need_not_beat_and_unread_input_is_no_silence() {
    let mut talk = Talk::open();
    let mut now = NOW.mono_us;
    assert!(!tick(&mut talk, now));
    for _ in 0..10 {
        now += HALF;
        talk.send(1, Method::ChannelFlow { active: true });
        talk.expect(1, Method::ChannelFlowOk { active: true });
        assert!(!tick(&mut talk, now));
        talk.expect_nothing();
    }
    for _ in 0..10 {
        now += HALF;
        talk.session.excuse_silence();
        assert!(!tick(&mut talk, now));
        assert_eq!(talk.frame(), Some((8, 0, vec![])));
    }
}

#[test]
fn only_clients_that_know_of_blocking_hear_of_it() {
    let mut talk = Talk::new();
    talk.feed(&opening("connection.blocked", "guest", "/", 8192));
    talk.heard.clear();
    talk.event(Event::Blocked("low on disk"));
    talk.event(Event::Unblocked);
    talk.expect(0, Method::ConnectionBlocked { reason: "low on disk" });
    talk.expect(0, Method::ConnectionUnblocked {});
    let mut talk = Talk::open();
    talk.event(Event::Blocked("low on disk"));
    talk.expect_nothing();
}

#[test]
fn shutdown_is_told_and_does_not_wait_for_ever() {
    let mut talk = Talk::open();
    talk.event(Event::ShuttingDown);
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    talk.expect_connection_error(320, text, (0, 0));
    talk.expect_asked(&["Close"]);
    assert!(!tick(&mut talk, NOW.mono_us));
    let deadline = talk.session.next_deadline().unwrap();
    assert!(!tick(&mut talk, deadline - 1));
    assert!(tick(&mut talk, deadline));
    let mut talk = Talk::new();
    talk.session.shutdown(&mut talk.out);
    assert!(talk.session.is_ended());
}
