//! Any bytes in any cuts into a session whose broker answers, at once or late. Nothing panics, what is sent are whole
//! frames, and no more memory is held than what was received can account for.
#![no_main]

use base::Prng;
use fuzzing::memory::{Counting, Mark};
use fuzzing::{Draws, Talk, client};
use libfuzzer_sys::fuzz_target;
use proto_amqp::wire::frame::put_frame;

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a connection may take whatever it received, and for each byte received: a channel or a delivery costs a few
/// hundred bytes and is asked for with a dozen.
const FIXED: usize = 96 << 10;
const PER_BYTE: usize = 128;

/// The bytes to be sent: as they are, or cut into the payloads of frames, behind some that are well formed or not.
fn stream(settings: u8, data: &[u8]) -> Vec<u8> {
    let (mut draws, mut out) = (Draws(data), Vec::new());
    for _ in 0..settings >> 4 {
        client::frame(&mut draws, &mut out);
    }
    while settings & 8 != 0 && !draws.is_empty() {
        let (kind, channel) = (draws.pick(&[1, 1, 1, 2, 3, 8]), draws.below(4));
        put_frame(&mut out, kind, channel, draws.piece());
    }
    out.extend_from_slice(draws.0);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some(([seed, settings], data)) = data.split_first_chunk() else { return };
    let data = stream(*settings, data);
    let mark = Mark::set();
    let mut prng = Prng::new(u64::from(*seed));
    let mut talk = Talk::new(u64::from(*seed));
    if settings & 1 != 0 {
        let mut bytes = Vec::new();
        client::opening(&mut bytes);
        talk.feed(&bytes);
    }
    talk.silent = settings & 2 != 0;
    let most = if settings & 4 != 0 { 8 } else { 1 + data.len() as u64 };
    let mut rest = &data[..];
    while !rest.is_empty() && !talk.ended {
        let (now, later) = rest.split_at((1 + prng.below(most) as usize).min(rest.len()));
        talk.feed(now);
        rest = later;
        if prng.chance(1, 4) {
            talk.say();
        }
        let (highest, allowed) = (mark.highest(), FIXED + PER_BYTE * talk.fed);
        assert!(highest <= allowed, "{highest} bytes were held for {} received", talk.fed);
    }
    talk.abandon();
    assert_eq!(mark.held(), 0, "something outlives its connection");
});
