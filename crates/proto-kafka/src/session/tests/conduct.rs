//! How a connection behaves: who comes in, how input may be cut, what hostile bytes and endings do.

use base::{Now, Prng};
use bytes::Bytes;
use kafka_protocol::messages::*;
use model::topic::TopicsWanted;
use model::{Event, LogAnswer, LogRequest, Refusal};

use super::core::{batch, produce};
use super::harness::{Asked, Rig, decode, text};
use crate::Step;
use crate::wire::{APIS, api};

fn handshake(mechanism: &str) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(text(mechanism))
}

fn token(token: &'static [u8]) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(token))
}

fn all_topics() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

#[test]
fn a_name_and_password_let_in_who_has_agreed_on_plain() {
    for version in 0..=2 {
        let mut rig = Rig::fresh();
        assert!(rig.send(api::SASL_HANDSHAKE, 1, &handshake("SCRAM-SHA-256")).is_empty());
        let (_, response) = rig.response::<SaslHandshakeResponse>(api::SASL_HANDSHAKE, 1);
        assert_eq!((response.error_code, &*response.mechanisms[0]), (33, "PLAIN"));
        assert!(rig.send(api::SASL_AUTHENTICATE, version, &token(b"\0ada\0pw")).is_empty());
        let (_, response) = rig.response::<SaslAuthenticateResponse>(api::SASL_AUTHENTICATE, version);
        assert_eq!(response.error_code, 34, "nothing was agreed on");
        rig.send(api::SASL_HANDSHAKE, 1, &handshake("PLAIN"));
        assert_eq!(rig.response::<SaslHandshakeResponse>(api::SASL_HANDSHAKE, 1).1.error_code, 0);
        let asked = rig.send(api::SASL_AUTHENTICATE, version, &token(b"\0ada\0pw"));
        let [(_, Asked::Authenticate(user, password))] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!((user.as_str(), &password[..]), ("ada", &b"pw"[..]));
        rig.event(Event::Admitted);
        assert!(matches!(rig.polled()[..], [(_, Asked::Enter)]));
        assert!(rig.sent().is_empty(), "not in yet");
        rig.event(Event::Entered);
        let (_, response) = rig.response::<SaslAuthenticateResponse>(api::SASL_AUTHENTICATE, version);
        assert_eq!((response.error_code, response.session_lifetime_ms), (0, 0));
        assert_eq!(rig.send(api::METADATA, 5, &all_topics()).len(), 1);
    }
}

#[test]
fn the_oldest_login_is_a_bare_token() {
    let mut rig = Rig::fresh();
    rig.send(api::SASL_HANDSHAKE, 0, &handshake("PLAIN"));
    rig.sent();
    let asked = rig.feed(b"\0\0\0\x07\0ada\0pw");
    assert!(matches!(&asked[..], [(_, Asked::Authenticate(user, _))] if user == "ada"));
    rig.event(Event::Admitted);
    rig.polled();
    rig.event(Event::Entered);
    assert_eq!(rig.sent(), [0; 4]);
    assert_eq!(rig.send(api::METADATA, 5, &all_topics()).len(), 1);
}

#[test]
fn a_wrong_password_is_told_and_ends_the_connection() {
    let mut rig = Rig::fresh();
    rig.send(api::SASL_HANDSHAKE, 1, &handshake("PLAIN"));
    rig.sent();
    rig.send(api::SASL_AUTHENTICATE, 2, &token(b"\0ada\0no"));
    rig.event(Event::Refused(None, Refusal::AuthenticationFailed("no".to_owned())));
    let (_, response) = rig.response::<SaslAuthenticateResponse>(api::SASL_AUTHENTICATE, 2);
    assert_eq!(response.error_code, 58);
    assert!(rig.session.is_ended());
}

#[test]
fn who_gives_no_name_and_may_not_is_cut_off_and_what_they_asked_waits_otherwise() {
    let mut rig = Rig::fresh();
    let frame = rig.frame(api::METADATA, 9, &all_topics());
    assert!(matches!(rig.feed(&frame)[..], [(_, Asked::Anonymous)]));
    rig.event(Event::Refused(None, Refusal::AccessRefused("from afar".to_owned())));
    assert!(rig.session.is_ended() && rig.sent().is_empty());
    let mut rig = Rig::fresh();
    let frame = rig.frame(api::METADATA, 9, &all_topics());
    let (used, step) = rig.session.receive(&frame, &mut rig.out);
    assert!(used == 0 && matches!(step, Step::Request(model::Request::Anonymous)));
    assert!(matches!(rig.session.receive(&frame, &mut rig.out), (0, Step::Waiting)));
    rig.event(Event::Admitted);
    rig.polled();
    rig.event(Event::Entered);
    let asked = rig.feed(&frame);
    assert!(matches!(asked[..], [(_, Asked::Log(LogRequest::Topics(TopicsWanted::All)))]));
}

/// A conversation of several requests, one of them with batches.
fn conversation(rig: &mut Rig) -> Vec<u8> {
    let batches = [Some(batch(0, 300)), Some(batch(1, 90)), None, Some(batch(0, 61))];
    let produced: [&[Option<Vec<u8>>]; 2] = [&batches, &batches[..1]];
    let mut all = rig.frame(api::METADATA, 9, &all_topics());
    all.extend(rig.frame(api::PRODUCE, 9, &produce(9, -1, produced[0])));
    all.extend(rig.frame(api::API_VERSIONS, 3, &ApiVersionsRequest::default()));
    all.extend(rig.frame(api::PRODUCE, 13, &produce(13, 0, produced[0])));
    all.extend(rig.frame(api::PRODUCE, 3, &produce(3, 1, produced[1])));
    all.extend(rig.frame(api::LIST_GROUPS, 4, &ListGroupsRequest::default()));
    all
}

#[test]
fn input_may_be_cut_anywhere() {
    let mut whole = Rig::open();
    let input = conversation(&mut whole);
    let expected = format!("{:?}", whole.feed(&input));
    let mut prng = Prng::new(4);
    for round in 0..300 {
        let mut rig = Rig::open();
        let (mut start, mut end, mut asked) = (0, 0, Vec::new());
        while end < input.len() {
            let piece = if round == 0 { 1 } else { 1 + prng.below(400) };
            end = input.len().min(end + piece as usize);
            let (used, more) = rig.feed_some(&input[start..end], &mut prng);
            asked.extend(more);
            start += used;
        }
        let (_, more) = rig.feed_some(&input[start..], &mut Prng::new(0));
        asked.extend(more);
        asked.extend(rig.feed(&[]));
        assert_eq!(format!("{asked:?}"), expected);
    }
}

#[test]
fn a_size_that_cannot_be_ends_the_connection() {
    for size in [[0xff; 4], [0x7f, 0xff, 0xff, 0xff]] {
        let mut rig = Rig::open();
        assert!(rig.feed(&size).is_empty());
        assert!(rig.session.is_ended());
    }
    // Before anybody is in, only little is read.
    let mut rig = Rig::fresh();
    rig.feed(&[0, 1, 0, 0, 0, 18]);
    assert!(rig.session.is_ended());
    let mut rig = Rig::fresh();
    assert!(matches!(rig.feed(&[0, 1, 0, 0, 0, 0])[..], [(_, Asked::Anonymous)]));
}

#[test]
fn hostile_bytes_never_break_the_session() {
    let mut prng = Prng::new(9);
    for _ in 0..20_000 {
        let mut rig = Rig::open();
        let known = prng.pick(APIS);
        let version = known.min + prng.below((known.max - known.min + 1) as u64) as i16;
        let mut frame = vec![0; 4];
        frame.extend_from_slice(&known.key.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
        for _ in 0..prng.below(60) {
            // Mostly small numbers: they are counts and lengths.
            let byte = if prng.chance(3, 4) { prng.below(4) } else { prng.below(256) };
            frame.push(byte as u8);
        }
        let size = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        rig.feed(&frame);
        rig.polled();
        rig.event(Event::ShuttingDown);
        rig.polled();
    }
}

#[test]
fn a_damaged_request_of_any_kind_is_refused_or_understood_but_never_breaks_anything() {
    let mut prng = Prng::new(11);
    let mut rig = Rig::open();
    let input = conversation(&mut rig);
    for _ in 0..5_000 {
        let mut rig = Rig::open();
        let mut damaged = input.clone();
        for _ in 0..1 + prng.below(4) {
            let at = prng.below(damaged.len() as u64) as usize;
            damaged[at] = prng.below(256) as u8;
        }
        rig.feed(&damaged);
    }
}

#[test]
fn waiting_is_called_off_when_the_connection_breaks() {
    let mut rig = Rig::open();
    let fetch = FetchRequest::default().with_session_epoch(-1);
    let fetch = fetch.with_topics(vec![super::core::fetch_topic(11, &[(0, 0)])]);
    let fetched = rig.send(api::FETCH, 11, &fetch);
    let produced = rig.send(api::PRODUCE, 9, &produce(9, 1, &[Some(batch(0, 80))]));
    let joined = rig.send(api::JOIN_GROUP, 2, &JoinGroupRequest::default());
    assert_eq!((fetched.len(), produced.len(), joined.len()), (1, 1, 1));
    rig.session.abandon();
    let called_off: Vec<u64> = rig
        .polled()
        .into_iter()
        .filter_map(|(_, asked)| match asked {
            Asked::Log(LogRequest::Cancel { token }) => Some(token),
            _ => None,
        })
        .collect();
    assert_eq!(called_off, [fetched[0].0, joined[0].0]);
}

#[test]
fn a_node_that_goes_away_answers_what_waits_and_what_was_taken() {
    let mut rig = Rig::open();
    let joined = rig.send(api::JOIN_GROUP, 2, &JoinGroupRequest::default());
    let produced = rig.send(api::PRODUCE, 9, &produce(9, 1, &[Some(batch(0, 80))]));
    rig.session.shutdown(&mut rig.out);
    assert!(
        matches!(rig.polled()[..], [(_, Asked::Log(LogRequest::Cancel { token }))] if token == joined[0].0)
    );
    let (_, response) = rig.response::<JoinGroupResponse>(api::JOIN_GROUP, 2);
    assert_eq!((response.error_code, rig.session.is_ended()), (15, false));
    let appended = model::topic::Appended { base_offset: 4, log_append_ms: None, start: 0 };
    rig.answer(produced[0].0, LogAnswer::Appended(Ok(appended)));
    assert!(rig.session.is_ended());
    let sent = rig.sent();
    let (_, response, _) = decode::<ProduceResponse>(&sent, api::PRODUCE, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 4);
}

#[test]
fn only_so_many_requests_are_under_way() {
    let mut rig = Rig::open();
    let mut asked = Vec::new();
    for _ in 0..64 {
        asked.extend(rig.send(api::METADATA, 1, &all_topics()));
    }
    let frame = rig.frame(api::METADATA, 1, &all_topics());
    assert!(matches!(rig.session.receive(&frame, &mut rig.out), (0, Step::Waiting)));
    let bound = model::Limits::default().partial_bytes_max;
    assert!(rig.session.partial_bytes() > bound, "the socket is to be left alone");
    rig.answer(asked[0].0, LogAnswer::Topics(Vec::new()));
    assert!(rig.session.partial_bytes() < bound);
    assert_eq!(rig.feed(&frame).len(), 1);
}

#[test]
fn who_does_not_read_is_not_read_either() {
    let mut rig = Rig::open();
    let frame = rig.frame(api::API_VERSIONS, 0, &ApiVersionsRequest::default());
    let mut taken = 0;
    while rig.session.receive(&frame, &mut rig.out).0 > 0 {
        taken += 1;
        assert!(taken < 100_000);
    }
    assert!(rig.out.len() < model::Limits::default().send_bytes_max + 1000);
    rig.sent();
    assert_eq!(rig.session.receive(&frame, &mut rig.out).0, frame.len());
}

#[test]
fn who_never_comes_in_or_falls_silent_goes_and_who_waits_stays() {
    let at = |s: u64| Now { mono_us: s * 1_000_000, wall_ms: 0 };
    let mut rig = Rig::fresh();
    assert!(matches!(rig.session.tick(at(9), &mut rig.out), Step::More));
    assert!(matches!(rig.session.tick(at(10), &mut rig.out), Step::End));
    let mut rig = Rig::open();
    assert!(matches!(rig.session.tick(at(1), &mut rig.out), Step::More));
    assert_eq!(rig.session.next_deadline(), Some(601_000_000));
    let asked = rig.send(api::METADATA, 1, &all_topics());
    assert!(matches!(rig.session.tick(at(601), &mut rig.out), Step::More), "it spoke");
    assert!(matches!(rig.session.tick(at(1201), &mut rig.out), Step::More), "it waits for an answer");
    rig.answer(asked[0].0, LogAnswer::Topics(Vec::new()));
    assert!(matches!(rig.session.tick(at(1801), &mut rig.out), Step::End));
}
