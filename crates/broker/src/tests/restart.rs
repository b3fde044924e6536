//! What is left after the power has failed.

use model::{Event, Outcome, Request};

use super::node::{LANE, Node, bodies, confirmed, delivered};

#[test]
fn confirmed_messages_survive_and_what_was_handed_out_is_redelivered() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2);
        let client = node.connect(usize::from(shards) - 1);
        node.declare(client, "q");
        node.subscribe(client, 1, "q", Some(2));
        for (token, body) in [(1, "a"), (2, "b")] {
            node.publish(client, "q", token, body);
        }
        node.run();
        let heard = node.heard(client);
        assert_eq!(confirmed(&heard), [1, 2]);
        let (first, ..) = delivered(&heard)[0];
        node.settle(client, first, Outcome::Accept);
        node.run_after(20);
        node.publish(client, "q", 3, "c");
        node.run();
        assert_eq!(confirmed(&node.heard(client)), [3]);
        node.hold_up_disks(true);
        node.publish(client, "q", 4, "never durable");
        node.run();
        node.restart();
        let client = node.connect(0);
        assert_eq!(node.declare(client, "q"), (2, 0));
        node.subscribe(client, 1, "q", None);
        node.run();
        let heard = node.heard(client);
        assert_eq!(bodies(&heard), ["b", "c"]);
        assert!(delivered(&heard)[0].2, "it was handed out before");
        node.assert_nothing_waits();
    }
}

#[test]
fn checkpoints_and_many_restarts_lose_and_double_nothing() {
    let mut node = Node::start(1, 2);
    let mut expected = 0;
    for round in 0..4 {
        let client = node.connect(0);
        assert_eq!(node.declare(client, "q"), (expected, 0), "round {round}");
        // Some segments' worth, of which the first half is settled.
        let body = "x".repeat(3000);
        for token in 1..=100 {
            node.publish(client, "q", token, &body);
            if token % 10 == 0 {
                node.run();
            }
        }
        assert_eq!(confirmed(&node.heard(client)).len(), 100);
        for _ in 0..50 {
            node.ask(client, Request::Get { lane: LANE, queue: "q", settled: true });
        }
        node.run_after(20);
        let gots = node.heard(client).iter().filter(|event| matches!(event, Event::Got(..))).count();
        assert_eq!(gots, 50);
        expected += 50;
        node.run_after(20);
        node.assert_nothing_waits();
        assert!(node.brokers[0].counters.checkpoints > 0, "the log was cut short");
        node.restart();
    }
}
