//! Queues: questions behind writes, purging, deleting, automatic and exclusive ends, several shards.

use model::{Change, ConsumerId, Event, QueueDeclaration, Refusal, Request};

use super::node::{LANE, Node, bodies, confirmed};

#[test]
fn purge_and_get_come_behind_earlier_writes() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2);
        let far = node.connect(usize::from(shards) - 1);
        let client = node.connect(0);
        node.declare(far, "q");
        for token in 1..=3 {
            node.publish(client, "q", token, "m");
        }
        node.ask(client, Request::Get { lane: LANE, queue: "q", settled: true });
        node.run();
        let heard = node.heard(client);
        assert!(heard.iter().any(|event| matches!(event, Event::Got(_, 2))), "{heard:?}");
        node.publish(client, "q", 4, "m");
        node.ask_change(client, Change::PurgeQueue { name: "q".into() });
        node.run();
        let heard = node.heard(client);
        assert!(heard.iter().any(|event| matches!(event, Event::Purged(LANE, 3))), "{heard:?}");
        node.ask(client, Request::Get { lane: LANE, queue: "q", settled: true });
        node.run();
        assert!(matches!(node.heard(client)[..], [Event::Empty(LANE)]));
        node.assert_nothing_waits();
    }
}

#[test]
fn what_is_handed_out_is_counted_whoever_takes_it() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2);
        let client = node.connect(0);
        node.declare(client, "q");
        for token in 1..=5 {
            node.publish(client, "q", token, "m");
        }
        node.ask(client, Request::Get { lane: LANE, queue: "q", settled: true });
        node.run();
        node.subscribe(client, 9, "q", Some(2));
        node.run();
        let all = node.brokers.iter().flat_map(|broker| broker.status().queues);
        let figures: Vec<_> = all.map(|of| (of.name, of.published, of.delivered, of.unacked)).collect();
        assert_eq!(figures, [("q".to_owned(), 5, 3, 2)]);
    }
}

#[test]
fn a_host_where_nothing_else_happens_still_hands_out() {
    for shards in [1, 2, 7] {
        let mut node = Node::start(shards, 5);
        let (publisher, taker) = (node.connect(0), node.connect(usize::from(shards) - 1));
        for queue in ["a", "b", "c", "d", "e"] {
            node.declare(publisher, queue);
            node.publish(publisher, queue, 1, queue);
            node.run();
            assert_eq!(confirmed(&node.heard(publisher)), [1]);
            node.subscribe(taker, 9, queue, Some(1));
            node.run();
            assert_eq!(bodies(&node.heard(taker)), [queue], "{shards} shards");
            node.ask(taker, Request::Unsubscribe { lane: LANE, consumer: ConsumerId(9) });
            node.run();
            node.heard(taker);
        }
    }
}

#[test]
fn deleting_tells_the_count_and_the_consumers() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2);
        let far = node.connect(usize::from(shards) - 1);
        let client = node.connect(0);
        node.declare(far, "q");
        node.subscribe(far, 9, "q", Some(1));
        node.run();
        node.heard(far);
        for token in 1..=3 {
            node.publish(client, "q", token, "m");
        }
        node.run();
        assert_eq!(confirmed(&node.heard(client)), [1, 2, 3]);
        let delete = |if_unused| Change::DeleteQueue { name: "q".into(), if_unused, if_empty: false };
        node.ask_change(client, delete(true));
        node.run();
        assert!(matches!(&node.heard(client)[..], [Event::Refused(Some(LANE), Refusal::InUse(..))]));
        node.ask_change(client, delete(false));
        node.run();
        assert!(matches!(node.heard(client)[..], [Event::Deleted(LANE, 3)]));
        let heard = node.heard(far);
        assert!(matches!(heard.last(), Some(Event::Revoked(LANE, ConsumerId(9)))), "{heard:?}");
        node.disconnect(far);
        node.run();
        node.assert_nothing_waits();
    }
}

#[test]
fn behind_a_refused_publish_nothing_is_done_until_its_lane_is_closed() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.publish_to(client, "missing", "q", 0, b"m");
    node.publish_to(client, "", "q", 0, b"m");
    let delete = Change::DeleteQueue { name: "q".into(), if_unused: false, if_empty: false };
    node.ask_change(client, delete);
    node.run();
    let heard = node.heard(client);
    assert!(matches!(&heard[..], [Event::PublishRefused(LANE, Refusal::NotFound(..))]), "{heard:?}");
    node.ask(client, Request::CloseLane { lane: LANE });
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::LaneClosed(LANE)]));
    assert_eq!(node.declare(client, "q"), (0, 0));
    node.publish_to(client, "", "q", 0, b"m");
    node.run();
    assert_eq!(node.declare(client, "q"), (1, 0));
    node.assert_nothing_waits();
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut node = Node::start(1, 1);
    let (client, other) = (node.connect(0), node.connect(0));
    let declaration = QueueDeclaration { auto_delete: true, ..Node::declaration("q") };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.subscribe(client, 1, "q", None);
    node.run();
    node.heard(client);
    node.subscribe(client, 1, "q", None);
    node.subscribe(other, 1, "q", None);
    node.run();
    node.ask(client, Request::Unsubscribe { lane: LANE, consumer: ConsumerId(1) });
    node.run();
    node.heard(client);
    assert!(matches!(node.passive(client, "q")[..], [Event::Declared(LANE, _, 0, 1)]));
    node.disconnect(other);
    node.run();
    assert!(matches!(node.passive(client, "q")[..], [Event::Refused(Some(LANE), Refusal::NotFound(..))]));
    node.assert_nothing_waits();
}

#[test]
fn an_exclusive_queue_goes_with_its_connection() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2);
        let client = node.connect(0);
        let far = node.connect(usize::from(shards) - 1);
        let declaration = QueueDeclaration { exclusive: true, ..Node::declaration("q") };
        node.ask_change(client, Change::DeclareQueue(declaration));
        node.run();
        assert!(matches!(node.passive(far, "q")[..], [Event::Refused(Some(LANE), Refusal::Locked(_))]));
        node.heard(client);
        node.ask(client, Request::Close);
        node.run();
        assert!(matches!(node.heard(client)[..], [Event::Closed]));
        node.disconnect(client);
        node.run();
        assert_eq!(node.declare(far, "q"), (0, 0));
        node.assert_nothing_waits();
    }
}

#[test]
fn queues_that_are_bound_at_once_spread_over_the_groups() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    for queue in ["a", "b"] {
        node.declare(client, queue);
        node.bind(client, "amq.fanout", queue);
    }
    let groups: Vec<_> = node.brokers[0].topology.queues().map(|queue| queue.group).collect();
    assert_ne!(groups[0], groups[1]);
}

#[test]
fn a_queue_that_its_host_still_makes_can_be_consumed_from_elsewhere() {
    let mut node = Node::start(2, 2);
    let (near, far) = (node.connect(0), node.connect(1));
    // The metadata group is on shard 0, the queue's group on shard 1, whose disk takes its time.
    node.disks[1].held_up = true;
    node.ask_change(far, Change::DeclareQueue(Node::declaration("q")));
    node.run();
    assert!(node.heard(far).is_empty());
    node.subscribe(near, 1, "q", None);
    node.publish(near, "q", 1, "m");
    node.run();
    assert!(node.heard(near).is_empty());
    node.hold_up_disks(false);
    node.run();
    let heard = node.heard(near);
    assert!(matches!(heard[0], Event::Subscribed(LANE, ConsumerId(1))), "{heard:?}");
    assert_eq!((confirmed(&heard), bodies(&heard)), (vec![1], vec!["m".to_owned()]));
    node.assert_nothing_waits();
}
