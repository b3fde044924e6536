//! A disk that answers nothing for long: what its groups cannot take waits, and is refused after a time.

use model::{Event, Limits, Outcome, Refusal};

use super::node::{Client, LANE, Node, bodies, confirmed, delivered};

const PARK_MS: u64 = 500;

/// One entry under way fills a group.
fn narrow(shards: u16, groups: u32) -> Node {
    let limits = Limits { uncommitted_bytes_max: 1, park_ms_max: PARK_MS, ..Limits::default() };
    Node::with_limits(shards, groups, limits)
}

/// What the client was told of its publishes: tokens confirmed, tokens rejected.
fn answers(node: &mut Node, client: Client) -> (Vec<u64>, Vec<u64>) {
    let (rejections, others): (Vec<_>, Vec<_>) =
        node.heard(client).into_iter().partition(|event| matches!(event, Event::Rejected(..)));
    let rejected = rejections.iter().flat_map(|event| match event {
        Event::Rejected(LANE, first, last) => *first..=*last,
        other => panic!("{other:?}"),
    });
    (confirmed(&others), rejected.collect())
}

#[test]
fn publishes_beyond_the_bound_are_refused_after_a_time_and_never_stored() {
    for shards in [1, 2] {
        let mut node = narrow(shards, 2);
        let client = node.connect(usize::from(shards) - 1);
        node.declare(client, "q");
        node.subscribe(client, 1, "q", Some(1));
        node.publish(client, "q", 1, "held");
        node.run();
        let heard = node.heard(client);
        let (held, ..) = delivered(&heard)[0];
        node.hold_up_disks(true);
        // The second fills the group; a settlement rides with the third and must not be lost with it.
        node.publish(client, "q", 2, "within");
        node.run();
        node.publish(client, "q", 3, "beyond");
        node.publish(client, "q", 4, "beyond");
        node.settle(client, held, Outcome::Accept);
        node.run_after(20);
        node.publish(client, "q", 5, "later");
        node.run_after(PARK_MS - 21);
        assert_eq!(answers(&mut node, client), (vec![], vec![]), "there is time left");
        node.run_after(1);
        node.run_after(20);
        assert_eq!(answers(&mut node, client), (vec![], vec![3, 4]));
        node.run_after(PARK_MS - 20);
        assert_eq!(answers(&mut node, client), (vec![], vec![5]));
        node.hold_up_disks(false);
        node.run_after(20);
        let (taken, refused) = answers(&mut node, client);
        assert_eq!((taken, refused), (vec![2], vec![]));
        node.publish(client, "q", 6, "after");
        node.run_after(20);
        assert_eq!(answers(&mut node, client), (vec![6], vec![]));
        node.assert_nothing_waits();
        assert!(node.brokers.iter().all(|broker| broker.is_quiet() && broker.deadline().is_none()));
        node.restart();
        let client = node.connect(0);
        node.subscribe(client, 1, "q", None);
        node.run();
        assert_eq!(bodies(&node.heard(client)), ["within", "after"]);
    }
}

#[test]
fn the_deadline_is_when_patience_ends() {
    let mut node = narrow(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.hold_up_disks(true);
    node.publish(client, "q", 1, "within");
    node.run();
    assert_eq!(node.brokers[0].deadline(), None);
    node.publish(client, "q", 2, "beyond");
    node.run();
    let deadline = node.brokers[0].deadline().expect("somebody waits");
    node.run_after(PARK_MS);
    assert_eq!(answers(&mut node, client), (vec![], vec![2]));
    assert_eq!(node.brokers[0].deadline(), None, "nobody does any more");
    assert_eq!(deadline, node.mono_us());
}

#[test]
fn whoever_asks_for_no_answers_loses_the_lane() {
    let mut node = narrow(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.hold_up_disks(true);
    for _ in 0..2 {
        node.publish(client, "q", 0, "m");
        node.run();
    }
    node.run_after(PARK_MS);
    let heard = node.heard(client);
    assert!(matches!(&heard[..], [Event::Refused(Some(LANE), Refusal::Unavailable(_, false))]), "{heard:?}");
}

#[test]
fn a_copy_that_one_group_refuses_is_answered_once() {
    let mut node = narrow(1, 2);
    let client = node.connect(0);
    for queue in ["a", "b"] {
        node.declare(client, queue);
        node.bind(client, "amq.fanout", queue);
    }
    node.hold_up_disks(true);
    node.publish(client, "a", 1, "within");
    node.run();
    node.publish_to(client, "amq.fanout", "", 2, b"both");
    node.run();
    node.run_after(PARK_MS);
    assert_eq!(answers(&mut node, client), (vec![], vec![2]));
    node.hold_up_disks(false);
    node.run();
    assert_eq!(answers(&mut node, client), (vec![1], vec![]));
    assert_eq!((node.declare(client, "a"), node.declare(client, "b")), ((1, 0), (1, 0)));
    node.assert_nothing_waits();
}

#[test]
fn a_message_in_parts_is_refused_whole_or_not_at_all() {
    let large = |byte: char| byte.to_string().repeat(2 << 20);
    for begun in [true, false] {
        let mut node = narrow(1, 1);
        let client = node.connect(0);
        node.declare(client, "q");
        node.hold_up_disks(true);
        if !begun {
            node.publish(client, "q", 1, "within");
            node.run();
        }
        // Where nothing is in front of it, its first part leaves.
        node.publish(client, "q", 2, &large('a'));
        node.publish(client, "q", 3, "behind");
        node.run();
        node.run_after(PARK_MS);
        let expected = if begun { vec![3] } else { vec![2, 3] };
        assert_eq!(answers(&mut node, client), (vec![], expected));
        node.hold_up_disks(false);
        node.run();
        assert_eq!(answers(&mut node, client), (vec![if begun { 2 } else { 1 }], vec![]));
        node.publish(client, "q", 4, &large('b'));
        node.subscribe(client, 1, "q", None);
        node.run();
        let found = bodies(&node.heard(client));
        let first = if begun { large('a') } else { "within".to_owned() };
        assert!(found == [first, large('b')], "{} messages", found.len());
        node.assert_nothing_waits();
    }
}
