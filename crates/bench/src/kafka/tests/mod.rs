//! Whole runs against a server in memory: clean ones have no flaws, and every broken promise is told.

mod fake;

use std::time::Duration;

use self::fake::Fault;
use super::plan::{Mode, Plan};
use super::run;
use crate::course::{Course, Until};
use crate::load::Flaws;
use crate::report::Report;

fn plan(fault: Option<Fault>) -> Plan {
    Plan {
        course: Course {
            until: Until::Published(300),
            warmup: Duration::ZERO,
            patience: Duration::from_millis(800),
            progress: false,
            ..Course::default()
        },
        size: 32,
        batch: 61 + 10 * 42,
        fetch_wait: Duration::from_millis(5),
        ..Plan::new("127.0.0.1".into(), fake::start(fault))
    }
}

fn clean(plan: &Plan) -> Report {
    let report = run(plan).unwrap();
    assert_eq!((report.flaws, report.refused), (Flaws::default(), 0));
    report
}

#[test]
fn what_is_written_is_read_with_any_shape_of_run() {
    for (producers, consumers, topics, partitions) in [(1, 1, 1, 1), (3, 2, 1, 2), (2, 3, 2, 3)] {
        for acks in [0, 1, -1] {
            let plan = Plan { producers, consumers, topics, partitions, acks, ..plan(None) };
            let report = clean(&plan);
            assert_eq!((report.published, report.delivered), (300, 300));
            assert_eq!(report.confirmed, if acks == 0 { 0 } else { 300 });
            assert_eq!(report.confirm.is_some(), acks != 0);
            assert!(report.delivery.is_some_and(|p| p.p50 > 0.0));
        }
    }
}

#[test]
fn writing_and_reading_are_measured_alone() {
    let report = clean(&Plan { mode: Mode::Produce, ..plan(None) });
    assert_eq!((report.published, report.confirmed, report.delivered), (300, 300, 0));
    assert!(report.delivery.is_none() && report.rate() > 0.0);
    let report = clean(&Plan { mode: Mode::Fetch, partitions: 3, consumers: 2, ..plan(None) });
    assert_eq!((report.published, report.delivered), (0, 300));
    assert!(report.confirm.is_none() && report.delivery.is_none() && report.rate() > 0.0);
}

#[test]
fn values_too_small_for_a_stamp_are_counted() {
    let report = clean(&Plan { size: 4, batch: 61 + 10 * 14, ..plan(None) });
    assert_eq!(report.delivered, 300);
    let lost = Plan { size: 4, batch: 61 + 10 * 14, ..plan(Some(Fault::Lose(2))) };
    assert_eq!(run(&lost).unwrap().flaws.lost, 10);
}

#[test]
fn a_rate_is_kept() {
    let mut plan = plan(None);
    plan.course.rate = Some(1000);
    let report = clean(&plan);
    assert!(report.seconds >= 0.25, "{} s for 300 records", report.seconds);
}

#[test]
fn every_broken_promise_is_told() {
    let flaws = |fault| run(&Plan { partitions: 2, ..plan(Some(fault)) }).unwrap().flaws;
    assert_eq!(flaws(Fault::Lose(3)), Flaws { lost: 10, ..Flaws::default() });
    let repeated = flaws(Fault::Repeat(3));
    assert_eq!((repeated.duplicated, repeated.lost, repeated.corrupt), (10, 0, 0));
    let swapped = flaws(Fault::Swap(3));
    assert_eq!((swapped.misordered, swapped.lost, swapped.duplicated), (10, 0, 0));
    let flipped = flaws(Fault::Flip(3));
    assert_eq!((flipped.corrupt, flipped.lost), (1, 10), "one batch, and what was in it is missing");
    let forged = flaws(Fault::Forge(3));
    assert_eq!((forged.corrupt, forged.lost), (1, 1), "a byte was changed and the checksum with it");
    let misrouted = flaws(Fault::Misroute(3));
    assert_eq!((misrouted.misrouted, misrouted.lost), (10, 10));
}

#[test]
fn what_is_refused_is_not_lost() {
    let report = run(&plan(Some(Fault::Refuse(3)))).unwrap();
    assert_eq!((report.flaws, report.refused, report.delivered), (Flaws::default(), 10, 290));
}

#[test]
fn a_server_without_an_api_is_named() {
    let error = run(&plan(Some(Fault::NoFetch))).unwrap_err().to_string();
    assert_eq!(error, "the server does not speak version 11 of request 1");
}
