//! Whole runs against a server in this process: a clean one has no flaws, and each broken promise is noticed as
//! what it is.

mod fake;

use std::time::Duration;

use self::fake::Fault;
use super::*;
use crate::course::{Course, Until};

/// A run that ends after so many messages.
fn course(messages: u64) -> Course {
    Course {
        until: Until::Published(messages),
        warmup: Duration::ZERO,
        patience: Duration::from_millis(200),
        progress: false,
        ..Course::default()
    }
}

/// A short run of 500 messages against a server that breaks one promise.
fn plan(fault: Option<Fault>) -> Plan {
    let url = crate::url::Url::parse(&format!("amqp://127.0.0.1:{}", fake::start(fault))).unwrap();
    Plan { size: 64, window: Some(20), prefetch: 40, course: course(500), ..Plan::new(url) }
}

fn flaws(fault: Fault) -> Flaws {
    run(&plan(Some(fault))).unwrap().flaws
}

#[test]
fn an_honest_server_is_found_without_flaws() {
    let report = run(&plan(None)).unwrap();
    assert_eq!((report.published_in_all, report.delivered_in_all), (500, 500));
    assert_eq!((report.confirmed_in_all, report.flaws), (500, Flaws::default()));
    assert_eq!((report.published, report.confirmed, report.delivered, report.backlog), (500, 500, 500, 0));
    assert!(report.confirm.unwrap().p50 > 0.0 && report.delivery.unwrap().p50 > 0.0);
    assert_eq!(report.server.unwrap(), std::process::id().to_string());
}

#[test]
fn every_shape_of_run_ends_with_all_delivered() {
    let shapes = [
        Plan { publishers: 3, consumers: 2, queues: 2, ..plan(None) },
        Plan { queues: 7, routing: Routing::Spread, publishers: 2, consumers: 3, ..plan(None) },
        Plan { size: 10_000, course: course(40), ..plan(None) },
        Plan { size: 5, auto_ack: true, ..plan(None) },
        Plan { confirms: false, consumers: 4, ..plan(None) },
        Plan { course: Course { rate: Some(5000), ..course(500) }, window: None, ..plan(None) },
        Plan {
            course: Course {
                until: Until::Elapsed(Duration::from_millis(100)),
                warmup: Duration::from_millis(50),
                ..course(0)
            },
            ..plan(None)
        },
    ];
    for shape in shapes {
        let report = run(&shape).unwrap();
        assert!(report.delivered_in_all > 0, "{}", report.settings);
        assert_eq!(report.delivered_in_all, report.published_in_all, "{}", report.settings);
        assert!(report.flaws.none(), "{}: {:?}", report.settings, report.flaws);
    }
}

#[test]
fn a_fanout_delivers_every_copy() {
    let report = run(&Plan { queues: 3, routing: Routing::Fanout, ..plan(None) }).unwrap();
    assert_eq!((report.published_in_all, report.delivered_in_all), (500, 1500));
    assert!(report.flaws.none());
    let one_short =
        run(&Plan { queues: 3, routing: Routing::Fanout, ..plan(Some(Fault::Lose(499))) }).unwrap();
    assert_eq!(one_short.flaws, Flaws { lost: 3, ..Flaws::default() });
}

#[test]
fn each_broken_promise_is_noticed_as_what_it_is() {
    let none = Flaws::default();
    assert_eq!(flaws(Fault::Lose(7)), Flaws { lost: 1, ..none });
    assert_eq!(flaws(Fault::Repeat(7)), Flaws { duplicated: 1, misordered: 1, ..none });
    assert_eq!(flaws(Fault::Swap(7)), Flaws { misordered: 1, ..none });
    assert_eq!(flaws(Fault::Flip(7)), Flaws { corrupt: 1, lost: 1, ..none });
    let two = Plan { queues: 2, publishers: 2, consumers: 2, ..plan(Some(Fault::Misroute(7))) };
    assert_eq!(run(&two).unwrap().flaws, Flaws { misrouted: 1, lost: 1, ..none });
}

#[test]
fn honest_repeats_and_refusals_are_no_flaws() {
    let report = run(&plan(Some(Fault::RepeatHonestly(7)))).unwrap();
    assert_eq!((report.redelivered, report.flaws), (1, Flaws::default()));
    let report = run(&plan(Some(Fault::Refuse(7)))).unwrap();
    assert_eq!((report.refused, report.delivered_in_all, report.flaws), (1, 499, Flaws::default()));
}

#[test]
fn messages_too_small_for_a_stamp_are_counted() {
    let report = run(&Plan { size: 4, ..plan(Some(Fault::Lose(7))) }).unwrap();
    assert_eq!(report.flaws, Flaws { lost: 1, ..Flaws::default() });
}
