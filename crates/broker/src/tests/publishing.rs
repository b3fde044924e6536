//! Publishes, their confirms, and what is asked behind them.

use model::{Event, Outcome, Request};

use super::node::{LANE, Node, bodies, confirmed, delivered};

#[test]
fn a_message_is_confirmed_delivered_and_settled() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    assert_eq!(node.declare(client, "q"), (0, 0));
    node.subscribe(client, 1, "q", None);
    node.publish(client, "q", 1, "hello");
    node.publish(client, "q", 2, "world");
    node.run();
    let heard = node.heard(client);
    assert_eq!(confirmed(&heard), [1, 2]);
    let got = delivered(&heard);
    assert_eq!(bodies(&heard), ["hello", "world"]);
    assert!(got.iter().all(|(_, _, redelivered)| !redelivered));
    assert_eq!(node.declare(client, "q"), (0, 1));
    got.iter().for_each(|(place, _, _)| node.settle(client, *place, Outcome::Accept));
    node.ask(client, Request::CloseLane { lane: LANE });
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::LaneClosed(LANE)]));
    assert_eq!(node.declare(client, "q"), (0, 0));
    node.assert_nothing_waits();
}

#[test]
fn nothing_is_confirmed_or_delivered_before_it_is_durable() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.subscribe(client, 1, "q", None);
    node.run();
    node.heard(client);
    node.hold_up_disks(true);
    for token in 1..=3 {
        node.publish(client, "q", token, "m");
        node.run();
    }
    assert!(node.heard(client).is_empty());
    assert!(!node.brokers[0].is_quiet());
    node.hold_up_disks(false);
    node.run();
    let heard = node.heard(client);
    assert_eq!((confirmed(&heard), bodies(&heard).len()), (vec![1, 2, 3], 3));
    node.assert_nothing_waits();
}

#[test]
fn a_message_for_several_groups_is_confirmed_once_all_have_it() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2 * u32::from(shards));
        let client = node.connect(0);
        let other = node.connect(usize::from(shards) - 1);
        for (declarer, queue) in [(client, "a"), (client, "b"), (other, "c"), (other, "d")] {
            node.declare(declarer, queue);
            node.bind(declarer, "amq.fanout", queue);
        }
        node.heard(client);
        node.disks[usize::from(shards) - 1].held_up = true;
        for token in 1..=5 {
            node.publish_to(client, "amq.fanout", "", token, b"m");
            if token == 3 {
                node.run();
            }
        }
        node.run();
        assert!(node.heard(client).is_empty());
        assert_eq!(node.brokers[0].door.spread.len(), 5);
        node.hold_up_disks(false);
        node.run();
        assert_eq!(confirmed(&node.heard(client)), [1, 2, 3, 4, 5]);
        for queue in ["a", "b", "c", "d"] {
            assert_eq!(node.declare(client, queue), (5, 0));
        }
        node.assert_nothing_waits();
    }
}

#[test]
fn a_dead_publisher_leaves_its_messages_and_nothing_else() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    let other = node.connect(0);
    for queue in ["a", "b"] {
        node.declare(other, queue);
        node.bind(other, "amq.fanout", queue);
    }
    node.hold_up_disks(true);
    node.publish_to(client, "amq.fanout", "", 1, b"m");
    node.run();
    node.disconnect(client);
    node.hold_up_disks(false);
    node.run();
    assert_eq!(node.declare(other, "a"), (1, 0));
    node.assert_nothing_waits();
}

#[test]
fn a_message_larger_than_an_entry_keeps_its_place() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    let large = vec![b'x'; 3 << 20];
    node.publish(client, "q", 1, "before");
    node.publish_to(client, "", "q", 2, &large);
    node.publish(client, "q", 3, "behind");
    node.subscribe(client, 1, "q", None);
    node.run();
    let heard = node.heard(client);
    assert_eq!(confirmed(&heard), [1, 2, 3]);
    let lengths: Vec<usize> = bodies(&heard).iter().map(String::len).collect();
    assert_eq!(lengths, [6, 3 << 20, 6]);
    node.assert_nothing_waits();
}

#[test]
fn it_is_not_quiet_while_settlements_wait_for_company() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.subscribe(client, 1, "q", None);
    node.publish(client, "q", 1, "m");
    node.run();
    let (place, ..) = delivered(&node.heard(client))[0];
    assert!(node.brokers[0].is_quiet());
    node.settle(client, place, Outcome::Accept);
    node.disconnect(client);
    node.run();
    assert!(!node.brokers[0].is_quiet(), "the settlement has not left");
    assert!(node.brokers[0].deadline().is_some());
    node.run_after(20);
    assert!(node.brokers[0].is_quiet());
    node.restart();
    let client = node.connect(0);
    assert_eq!(node.declare(client, "q"), (0, 0));
}
