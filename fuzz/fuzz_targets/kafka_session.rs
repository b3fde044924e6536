//! Any bytes in any cuts into a session of readers by offset whose broker answers, at once or late, in any order.
//! Nothing panics, what is sent are whole responses, and no more memory is held than what was received accounts for.
#![no_main]

use base::Prng;
use fuzzing::Draws;
use fuzzing::kafka::{KafkaTalk, request};
use fuzzing::memory::{Counting, Mark};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a connection may take whatever it received (the batches a broker found among it), and for each byte received:
/// a partition costs some hundred bytes on its way and is named with four.
const FIXED: usize = 24 << 20;
const PER_BYTE: usize = 2048;

/// The bytes to be sent: as they are, or as the fields of requests that are understood.
fn stream(settings: u8, data: &[u8]) -> Vec<u8> {
    let (mut draws, mut out) = (Draws(data), Vec::new());
    while settings & 1 != 0 && !draws.is_empty() {
        let (kind, version) = (draws.byte(), draws.byte());
        request(kind, version, draws.piece(), &mut out);
    }
    if settings & 16 != 0 {
        // The beginning of a request of records that is larger than what is held of one.
        let header = [0, 0, 0, draws.byte() % 14, 0, 0, 0, 1, 0xff, 0xff];
        out.extend_from_slice(&(4u32 << 20).to_be_bytes());
        out.extend_from_slice(&header);
    }
    out.extend_from_slice(draws.0);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some(([seed, settings], data)) = data.split_first_chunk() else { return };
    let data = stream(*settings, data);
    let mark = Mark::set();
    let mut prng = Prng::new(u64::from(*seed));
    let mut talk = KafkaTalk::new(u64::from(*seed));
    talk.silent = settings & 2 != 0;
    let most = if settings & 4 != 0 { 8 } else { 1 + data.len() as u64 };
    let mut rest = &data[..];
    while !rest.is_empty() && !talk.is_ended() {
        let (now, later) = rest.split_at((1 + prng.below(most) as usize).min(rest.len()));
        talk.feed(now);
        rest = later;
        if prng.chance(1, 4) {
            talk.say();
        }
        let (highest, allowed) = (mark.highest(), FIXED + PER_BYTE * talk.fed);
        assert!(highest <= allowed, "{highest} bytes were held for {} received", talk.fed);
    }
    talk.end(settings & 8 != 0);
    drop(talk);
    assert_eq!(mark.held(), 0, "something outlives its connection");
});
