//! What the consumers of a lane may hold together.

use std::collections::VecDeque;

use base::Prng;
use model::{ConsumerId, Outcome, Request};

use super::node::{LANE, Node, delivered};

#[test]
fn a_window_is_never_exceeded_and_always_used() {
    for seed in 1..=4 {
        let mut prng = Prng::new(seed);
        let mut node = Node::start(1, 2);
        let client = node.connect(0);
        let window = 1 + prng.below(5) as usize;
        for queue in ["a", "b"] {
            node.declare(client, queue);
        }
        node.ask(client, Request::Window { lane: LANE, messages: Some(window as u32) });
        for (consumer, queue) in [(1, "a"), (2, "b"), (3, "a")] {
            node.subscribe(client, consumer, queue, None);
        }
        for token in 1..=60 {
            node.publish(client, ["a", "b"][prng.below(2) as usize], token, "m");
        }
        let (mut held, mut settled) = (VecDeque::new(), 0);
        while settled < 60 {
            node.run_after(20);
            held.extend(delivered(&node.heard(client)).into_iter().map(|(place, ..)| place));
            assert_eq!(held.len(), window.min(60 - settled), "seed {seed}, {settled} settled");
            for _ in 0..1 + prng.below(held.len() as u64) {
                let at = prng.below(held.len() as u64) as usize;
                let place = held.remove(at).expect("within");
                let returns = prng.chance(1, 4);
                let outcome = if returns { Outcome::Return { failed: true } } else { Outcome::Accept };
                settled += usize::from(!returns);
                node.settle(client, place, outcome);
            }
        }
        node.run_after(20);
        node.assert_nothing_waits();
    }
}

#[test]
fn what_consumers_without_the_window_settle_does_not_open_it() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    for queue in ["free", "bound"] {
        node.declare(client, queue);
    }
    node.subscribe(client, 1, "free", None);
    node.run();
    node.ask(client, Request::Window { lane: LANE, messages: Some(4) });
    node.subscribe(client, 2, "bound", None);
    for token in 1..=3 {
        node.publish(client, "free", token, "m");
    }
    node.run();
    let free = delivered(&node.heard(client));
    assert_eq!(free.len(), 3);
    for token in 4..=10 {
        node.publish(client, "bound", token, "m");
    }
    node.run();
    assert_eq!(delivered(&node.heard(client)).len(), 1, "the lane holds three already");
    free.iter().for_each(|(place, ..)| node.settle(client, *place, Outcome::Accept));
    node.run_after(20);
    assert_eq!(delivered(&node.heard(client)).len(), 3);
    node.assert_nothing_waits();
}

#[test]
fn a_window_may_be_lifted_and_come_back() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.ask(client, Request::Window { lane: LANE, messages: Some(2) });
    node.subscribe(client, 1, "q", None);
    node.ask(client, Request::Window { lane: LANE, messages: None });
    for token in 1..=5000 {
        node.publish(client, "q", token, "m");
    }
    node.run();
    let held = delivered(&node.heard(client));
    assert_eq!(held.len(), 5000, "nothing bounds it");
    node.ask(client, Request::Window { lane: LANE, messages: Some(2) });
    for token in 5001..=9000 {
        node.publish(client, "q", token, "m");
    }
    node.run();
    assert!(delivered(&node.heard(client)).is_empty());
    held.iter().for_each(|(place, ..)| node.settle(client, *place, Outcome::Accept));
    node.run_after(20);
    let held = delivered(&node.heard(client));
    assert_eq!(held.len(), 2);
    assert!(held.iter().all(|(_, _, redelivered)| !redelivered));
    node.assert_nothing_waits();
}

#[test]
fn a_window_that_opens_before_its_consumer_is_started_is_not_lost() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    for queue in ["a", "b"] {
        node.declare(client, queue);
    }
    node.ask(client, Request::Window { lane: LANE, messages: Some(1) });
    node.subscribe(client, 1, "a", None);
    node.publish(client, "a", 1, "m");
    node.run();
    let got = delivered(&node.heard(client));
    node.hold_up_disks(true);
    // The second consumer waits behind this write when the only message held is settled.
    node.publish(client, "b", 2, "m");
    node.run();
    node.subscribe(client, 2, "b", None);
    node.run();
    node.settle(client, got[0].0, Outcome::Accept);
    node.run();
    node.hold_up_disks(false);
    node.run();
    assert_eq!(delivered(&node.heard(client)).len(), 1);
    node.ask(client, Request::Unsubscribe { lane: LANE, consumer: ConsumerId(1) });
    node.run_after(20);
    node.assert_nothing_waits();
}
