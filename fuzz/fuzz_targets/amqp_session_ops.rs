//! Well-formed frames of a client in any order, between events of the broker that fit or do not, late answers, passing
//! time and wrong bytes. Nothing panics, what is sent are whole frames, and bounds hold.
#![no_main]

use fuzzing::broker::{delivered, refused, unroutable};
use fuzzing::{Draws, Talk, client};
use libfuzzer_sys::fuzz_target;
use model::{ConsumerId, Event, Lane};

fn event(draws: &mut Draws<'_>) -> Event {
    let (lane, consumer) = (Lane(1 + draws.below(3)), ConsumerId(u32::from(draws.below(4))));
    let (first, count) = (draws.number() % 1000, u64::from(draws.below(4)));
    match draws.below(18) {
        0 => Event::LaneClosed(lane),
        1 => Event::Confirmed(lane, first, first + count),
        2 => Event::Rejected(lane, first, first + count),
        3 => unroutable(lane),
        4 => Event::Done(lane),
        5 => Event::Declared(lane, "q".into(), draws.number(), 1),
        6 => Event::Purged(lane, draws.number()),
        7 => Event::Subscribed(lane, consumer),
        8 => Event::Unsubscribed(lane, consumer),
        9 => Event::Revoked(lane, consumer),
        10..13 => Event::Delivered(delivered(lane, consumer, first, count)),
        13 => Event::Got(delivered(lane, consumer, first, 1), draws.number()),
        14 => Event::Empty(lane),
        15 => Event::Blocked("why"),
        16 => Event::Unblocked,
        _ if draws.below(8) == 0 => [Event::Closed, Event::ShuttingDown][usize::from(draws.flag())].clone(),
        _ => refused(draws.flag().then_some(lane), draws.byte()),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let mut talk = Talk::new(u64::from(draws.byte()));
    let mut bytes = Vec::new();
    client::opening(&mut bytes);
    while !draws.is_empty() && !talk.ended {
        match draws.below(16) {
            0..9 => client::frame(&mut draws, &mut bytes),
            9..12 => talk.event(event(&mut draws)),
            12 => talk.say(),
            13 => talk.silent = draws.flag(),
            14 => talk.pass(u64::from(draws.byte())),
            _ => bytes.extend_from_slice(draws.piece()),
        }
        let cut = if draws.below(4) == 0 { bytes.len() / 2 } else { bytes.len() };
        talk.feed(&bytes[..cut]);
        bytes.drain(..cut);
    }
    talk.abandon();
});
