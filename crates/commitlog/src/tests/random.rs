//! Thousands of seeds of everything at once.

use super::model::{Driver, Mix};

pub const CRASHES: Mix = Mix { steps: 600, crashes: true, failures: false, flips: false, evacuates: false };
pub const FAILURES: Mix = Mix { steps: 300, crashes: true, failures: true, flips: false, evacuates: false };
pub const FLIPS: Mix = Mix { steps: 400, crashes: true, failures: false, flips: true, evacuates: false };

pub const MOVES: Mix = Mix { steps: 2000, crashes: true, failures: false, flips: false, evacuates: true };
pub const MOVES_FAIL: Mix = Mix { failures: true, ..MOVES };
pub const MOVES_FLIP: Mix = Mix { flips: true, ..MOVES };

fn run(seeds: std::ops::Range<u64>, mix: Mix) -> Driver {
    let mut sum = Driver::new(0);
    for seed in seeds {
        let mut driver = Driver::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.run(mix)));
        if let Err(why) = outcome {
            eprintln!("seed {seed} of {mix:?}");
            std::panic::resume_unwind(why);
        }
        sum.reused += driver.reused;
        sum.damage_found += driver.damage_found;
        sum.torn += driver.torn;
        sum.queued += driver.queued;
        sum.reads += driver.reads;
        sum.pieces_read += driver.pieces_read;
        sum.evacuated += driver.evacuated;
        sum.adopted += driver.adopted;
        sum.adopted_reused += driver.adopted_reused;
        sum.unread += driver.unread;
        sum.punched += driver.punched;
    }
    sum
}

#[test]
fn what_was_reported_durable_survives_any_crash_and_nothing_else_appears() {
    let sum = run(0..1200, CRASHES);
    assert!(sum.reused > 300, "segments were reused {} times", sum.reused);
    assert!(sum.torn > 300 && sum.reads > 1000, "{} torn, {} read", sum.torn, sum.reads);
    assert!(sum.queued > 3000, "{} flushes queued", sum.queued);
}

#[test]
fn after_a_failed_write_nothing_is_promised_and_what_was_promised_holds() {
    run(10_000..10_800, FAILURES);
}

#[test]
fn a_flipped_bit_is_reported_or_harmless() {
    let sum = run(20_000..20_500, FLIPS);
    assert!(sum.damage_found > 100, "damage was found {} times", sum.damage_found);
}

#[test]
fn what_left_the_ring_is_read_from_runs_whatever_happens_on_the_way() {
    let sum = run(30_000..30_080, MOVES);
    eprintln!("{} {} {} {} {}", sum.evacuated, sum.adopted, sum.unread, sum.punched, sum.pieces_read);
    assert!(sum.evacuated > 300 && sum.adopted > 10, "{} evacuated, {} adopted", sum.evacuated, sum.adopted);
    assert!(sum.adopted_reused > 3, "{} went back to the ring", sum.adopted_reused);
    assert!(sum.unread > 20, "{} unread", sum.unread);
    assert!(sum.punched > 100_000 && sum.pieces_read > 200, "{} {}", sum.punched, sum.pieces_read);
}

#[test]
fn evacuation_that_fails_is_tried_again_and_poisons_nothing() {
    let sum = run(40_000..40_050, MOVES_FAIL);
    assert!(sum.evacuated > 50, "{} evacuated", sum.evacuated);
}

#[test]
fn a_flipped_bit_of_a_run_is_reported_or_harmless() {
    let sum = run(50_000..50_050, MOVES_FLIP);
    assert!(sum.damage_found > 100 && sum.evacuated > 100, "{} {}", sum.damage_found, sum.evacuated);
}

#[test]
#[ignore = "takes minutes; for changes of recovery and of the law of reuse"]
fn many_more_seeds() {
    run(300_000..310_000, FLIPS);
    run(400_000..400_300, Mix { steps: 10_000, ..FLIPS });
    run(100_000..120_000, CRASHES);
    run(200_000..210_000, FAILURES);
}

#[test]
#[ignore = "takes minutes; for changes of evacuation"]
fn many_more_moves() {
    run(500_000..502_000, MOVES);
    run(600_000..602_000, MOVES_FAIL);
    run(700_000..702_000, MOVES_FLIP);
}
