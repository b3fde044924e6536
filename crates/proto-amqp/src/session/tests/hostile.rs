//! Bytes that no client would send: nothing panics, and no more is held than was received.

use super::splitting::script;
use super::*;

fn feed_in_pieces(talk: &mut Talk, bytes: &[u8], prng: &mut Prng) {
    let (mut rest, mut fed) = (bytes, 0);
    while !rest.is_empty() && !talk.ended {
        let (now, later) = rest.split_at((1 + prng.below(4000) as usize).min(rest.len()));
        talk.feed(now);
        fed += now.len();
        rest = later;
        assert!(talk.session.partial_bytes() <= fed, "more is held than was received");
        if prng.chance(1, 4) {
            talk.release();
        }
    }
    talk.flush();
    talk.session.abandon();
    while talk.session.poll_request(&mut talk.out).is_some() {}
    assert_eq!(talk.session.partial_bytes(), 0);
}

#[test]
fn noise() {
    let mut prng = Prng::new(21);
    for _ in 0..300 {
        let mut talk = if prng.chance(1, 2) { Talk::open() } else { Talk::new() };
        let noise: Vec<u8> = (0..prng.below(300)).map(|_| prng.draw() as u8).collect();
        feed_in_pieces(&mut talk, &noise, &mut prng);
    }
}

#[test]
fn scripts_with_wrong_bytes() {
    let mut prng = Prng::new(22);
    for _ in 0..400 {
        let mut bytes = script(&mut prng, true);
        for _ in 0..1 + prng.below(4) {
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = *prng.pick(&[0, 1, 2, 3, 8, 0xce, 0xff, at as u8]);
        }
        let mut talk = Talk::new();
        talk.broker = Broker { backlog: 20, body: vec![1; 10], count: 1 };
        talk.silent = prng.chance(1, 2);
        feed_in_pieces(&mut talk, &bytes, &mut prng);
    }
}

#[test]
fn every_method_in_every_order() {
    let mut prng = Prng::new(23);
    for _ in 0..200 {
        let mut talk = Talk::open();
        talk.broker = Broker { backlog: 3, body: vec![1; 10], count: 1 };
        talk.silent = prng.chance(1, 2);
        let mut bytes = Vec::new();
        let methods = Method::one_of_each(&mut prng);
        for _ in 0..30 {
            let method = prng.pick(&methods);
            method.put(prng.below(3) as u16, &mut bytes);
        }
        feed_in_pieces(&mut talk, &bytes, &mut prng);
    }
}

#[test]
fn events_that_nobody_asked_for() {
    let mut prng = Prng::new(24);
    for _ in 0..300 {
        let mut talk = if prng.chance(3, 4) { Talk::open() } else { Talk::new() };
        for _ in 0..20 {
            let lane = Lane(prng.below(3) as u16);
            let consumer = ConsumerId(prng.below(3) as u32);
            let events = [
                Event::Admitted,
                Event::Entered,
                Event::Refused(Some(lane), Refusal::Invalid("no".into())),
                Event::PublishRefused(lane, Refusal::Invalid("no".into())),
                Event::LaneClosed(lane),
                Event::Confirmed(lane, 1, 3),
                Event::Rejected(lane, 2, 2),
                Event::Done(lane),
                Event::Declared(lane, "q".into(), 1, 1),
                Event::Purged(lane, 1),
                Event::Deleted(lane, 1),
                Event::Subscribed(lane, consumer),
                Event::Unsubscribed(lane, consumer),
                Event::Revoked(lane, consumer),
                Event::Delivered(delivered(lane, consumer, &[1], b"x", 0)),
                Event::Got(delivered(lane, consumer, &[1], b"x", 0), 1),
                Event::Empty(lane),
                Event::Closed,
            ];
            talk.event(prng.pick(&events).clone());
            if prng.chance(1, 3) {
                talk.send(1, Method::BasicGet { queue: "q", no_ack: false });
            }
        }
        talk.flush();
    }
}
