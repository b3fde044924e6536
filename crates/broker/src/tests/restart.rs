//! What is left after the power has failed.

use model::{Arguments, Change, Event, Limits, Outcome, QueueDeclaration, Request, Value};

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

#[test]
fn what_is_left_of_old_messages_moves_out_of_the_ring_and_is_still_delivered() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    node.declare(client, "old");
    node.declare(client, "new");
    let body = |number: u64| format!("{number}:{}", "x".repeat(1500));
    let mut token = 0;
    for round in 0..40 {
        for _ in 0..20 {
            token += 1;
            // One in twenty stays for long; the others come and go.
            let queue = if token % 20 == 0 { "old" } else { "new" };
            node.publish(client, queue, token, &body(token));
        }
        node.run();
        assert_eq!(confirmed(&node.heard(client)).len(), 20, "round {round}");
        for _ in 0..19 {
            node.ask(client, Request::Get { lane: LANE, queue: "new", settled: true });
        }
        node.run_after(20);
        node.heard(client);
    }
    let stats = node.brokers[0].log.stats();
    assert!(stats.evacuated_segments > 0 && stats.runs > 0, "{stats:?}");
    assert!(stats.ring_bytes <= 12 * (64 << 10), "the ring stays bounded: {stats:?}");
    // Forty rows and what runs have around them. Whole entries, each with nineteen others, would be twenty times that.
    let stayed = 40 * (1500 + 64);
    assert!(stats.run_bytes <= stayed + (64 << 10), "what was settled is not moved along: {stats:?}");
    node.restart();
    let client = node.connect(0);
    assert_eq!(node.declare(client, "old"), (40, 0));
    node.subscribe(client, 1, "old", None);
    node.run();
    let heard = node.heard(client);
    let expected: Vec<String> = (1..=40).map(|n| body(n * 20)).collect();
    assert_eq!(bodies(&heard), expected);
}

/// A node that is quiet but for a purge of what it has in runs.
fn with_purged_runs() -> Node {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    node.declare(client, "deep");
    let body = "x".repeat(1500);
    for token in 1..=600 {
        node.publish(client, "deep", token, &body);
        node.run();
    }
    let stats = node.brokers[0].log.stats();
    assert!(stats.run_bytes > 4 * (64 << 10), "{stats:?}");
    node.run_after(20_000);
    assert_eq!(node.brokers[0].log.stats(), stats, "nothing was freed, so nothing is asked for");
    node.ask_change(client, Change::PurgeQueue { name: "deep".into() });
    node.run();
    node
}

fn run_bytes(node: &Node) -> u64 {
    node.brokers[0].log.stats().run_bytes
}

#[test]
fn a_quiet_node_gives_back_what_was_purged() {
    let mut node = with_purged_runs();
    let held = run_bytes(&node);
    node.run_after(9_000);
    assert_eq!(run_bytes(&node), held);
    node.run_after(2_000);
    assert_eq!(run_bytes(&node), 0);
}

#[test]
fn what_was_purged_before_a_restart_is_given_back_after_it() {
    let mut node = with_purged_runs();
    node.restart();
    assert!(run_bytes(&node) > 0);
    node.run_after(11_000);
    node.run_after(1);
    assert_eq!(run_bytes(&node), 0);
}

#[test]
fn topic_ids_stay_over_restarts_and_differ_from_those_of_another_start() {
    let id = |node: &Node, name: &str| node.brokers[0].topology.topic("/", name).expect("it exists").id;
    let create = |node: &mut Node, name: &str| {
        let client = node.connect(0);
        let kind = Arguments(vec![("x-queue-type".into(), Value::text("stream"))]);
        let declaration = QueueDeclaration { arguments: kind, ..Node::declaration(name) };
        node.ask_change(client, Change::DeclareQueue(declaration));
        node.run();
    };
    let mut node = Node::start(2, 2);
    create(&mut node, "t");
    let before = id(&node, "t");
    node.run_after(1000);
    node.restart();
    assert_eq!(id(&node, "t"), before);
    create(&mut node, "u");
    assert_eq!(id(&node, "u").0 >> 64, before.0 >> 64, "of the same cluster");
    // All disks are replaced: the same topics are others.
    node.wipe();
    create(&mut node, "t");
    assert_ne!(id(&node, "t").0 >> 64, before.0 >> 64);
    assert_eq!(id(&node, "t").0 as u64, before.0 as u64, "but for when it began");
}

#[test]
fn queues_whose_large_messages_do_not_fit_in_memory_together_are_all_served() {
    let limits = Limits {
        message_bytes_max: 64 << 10,
        entry_bytes_max: 8 << 10,
        cache_bytes_max: 64 << 10,
        read_bytes_max: 32 << 10,
        ..Limits::default()
    };
    let mut node = Node::with_limits(1, 1, limits);
    let client = node.connect(0);
    let names: Vec<String> = (0..8).map(|number| format!("q{number}")).collect();
    names.iter().for_each(|name| assert_eq!(node.declare(client, name), (0, 0)));
    for (token, name) in names.iter().enumerate() {
        node.publish(client, name, token as u64 + 1, &format!("{name}:{}", "x".repeat(60_000)));
    }
    node.run();
    assert_eq!(confirmed(&node.heard(client)).len(), names.len());
    node.restart();
    let client = node.connect(0);
    for (consumer, name) in names.iter().enumerate() {
        node.subscribe(client, consumer as u32, name, Some(1));
    }
    // Each message is in parts that must be in memory together, and the budget has room for two of them.
    let turns = (0..5_000).take_while(|_| node.turn()).count();
    assert!(turns < 5_000, "what one has read is put out for the others, over and over");
    let mut heard: Vec<String> =
        bodies(&node.heard(client)).iter().map(|body| body[..2].to_owned()).collect();
    heard.sort();
    assert_eq!(heard, names);
}
