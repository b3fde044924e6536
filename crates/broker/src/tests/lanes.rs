//! The end of lanes and connections while something is under way.

use model::{Change, ConsumerId, Event, Lane, Outcome, Request};

use super::node::{LANE, Node, bodies, confirmed, delivered};

#[test]
fn nothing_of_a_lane_follows_its_end() {
    let asking: [fn(&mut Node, super::node::Client); 6] = [
        |node, client| node.ask_change(client, Change::DeclareQueue(Node::declaration("new"))),
        |node, client| node.ask(client, Request::Get { lane: LANE, queue: "q", settled: false }),
        |node, client| node.ask_change(client, Change::PurgeQueue { name: "q".into() }),
        |node, client| node.subscribe(client, 1, "q", None),
        |node, client| {
            let delete = Change::DeleteQueue { name: "q".into(), if_unused: true, if_empty: false };
            node.ask_change(client, delete);
        },
        |node, client| node.publish(client, "q", 3, "m"),
    ];
    for shards in [1, 2] {
        for (case, ask) in asking.iter().enumerate() {
            let mut node = Node::start(shards, 2);
            let far = node.connect(usize::from(shards) - 1);
            let client = node.connect(0);
            node.declare(far, "q");
            node.hold_up_disks(true);
            node.publish(client, "q", 1, "m");
            node.publish(client, "q", 2, "m");
            ask(&mut node, client);
            node.run();
            node.ask(client, Request::CloseLane { lane: LANE });
            node.run();
            assert!(node.heard(client).is_empty());
            node.hold_up_disks(false);
            node.run_after(20);
            let heard = node.heard(client);
            assert!(matches!(heard.last(), Some(Event::LaneClosed(LANE))), "case {case}: {heard:?}");
            let ends = heard.iter().filter(|event| matches!(event, Event::LaneClosed(_))).count();
            assert_eq!((ends, &confirmed(&heard)[..2]), (1, &[1, 2][..]));
            node.assert_nothing_waits();
            assert!(node.brokers[0].door.connections[&client.1].lanes.is_empty());
        }
    }
}

#[test]
fn lanes_end_apart_from_each_other() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.hold_up_disks(true);
    node.ask_change(client, Change::DeclareQueue(Node::declaration("q")));
    node.ask(client, Request::CloseLane { lane: Lane(2) });
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::LaneClosed(Lane(2))]));
    node.disconnect(client);
    node.hold_up_disks(false);
    node.run();
    node.assert_nothing_waits();
}

#[test]
fn a_connection_that_dies_while_its_lane_ends_leaves_nothing() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.hold_up_disks(true);
    node.ask_change(client, Change::DeclareQueue(Node::declaration("q")));
    node.ask(client, Request::CloseLane { lane: LANE });
    node.disconnect(client);
    node.hold_up_disks(false);
    node.run();
    node.assert_nothing_waits();
}

#[test]
fn a_consumer_that_has_gone_before_it_was_started_takes_nothing() {
    for dies in [true, false] {
        let mut node = Node::start(1, 1);
        let client = node.connect(0);
        let other = node.connect(0);
        node.declare(other, "q");
        node.hold_up_disks(true);
        node.publish(other, "q", 1, "m");
        node.run();
        node.subscribe(client, 1, "q", None);
        node.run();
        match dies {
            true => node.disconnect(client),
            false => node.ask(client, Request::CloseLane { lane: LANE }),
        }
        node.run();
        node.hold_up_disks(false);
        node.run();
        assert!(delivered(&node.heard(client)).is_empty());
        node.heard(other);
        assert_eq!(node.declare(other, "q"), (1, 0), "one message and no consumer");
        node.subscribe(other, 1, "q", None);
        node.run();
        assert_eq!(bodies(&node.heard(other)), ["m"]);
        node.assert_nothing_waits();
    }
}

#[test]
fn what_was_returned_comes_again_before_what_is_granted_behind_it() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.subscribe(client, 1, "q", Some(2));
    for (token, body) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        node.publish(client, "q", token, body);
    }
    node.run();
    let got = delivered(&node.heard(client));
    assert_eq!(got.len(), 2);
    node.hold_up_disks(true);
    node.settle(client, got[0].0, Outcome::Return { failed: true });
    node.run();
    // The return is on its way to the disk when the next message is settled.
    node.settle(client, got[1].0, Outcome::Accept);
    node.ask(client, Request::Grant(&[(ConsumerId(1), 1)]));
    node.run();
    node.hold_up_disks(false);
    node.run();
    let again = delivered(&node.heard(client));
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].1.as_str(), again[0].2), ("a", true));
    node.run_after(20);
    node.assert_nothing_waits();
}
