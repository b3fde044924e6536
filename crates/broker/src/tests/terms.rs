//! What topics ask for of those who publish to them: the time of the log, and a size.

use std::collections::BTreeSet;

use model::topic::{OffsetAt, PartitionRef, TopicRef};
use model::{Event, LogAnswer, LogRequest, Refusal, Request};

use super::keeping::{NOW_MS, create, publish};
use super::node::{Client, LANE, Node, confirmed};

/// Where the first record of this time or a later one is.
fn offset_at(node: &mut Node, client: Client, topic: &str, time_ms: i64) -> Option<u64> {
    let at = PartitionRef { topic: TopicRef::Name(topic.into()), partition: 0 };
    let request = LogRequest::Offsets(vec![(at, OffsetAt::Timestamp(time_ms))]);
    node.ask(client, Request::Log { token: 5, request });
    node.run();
    let [Event::Log(5, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Offsets(found) = &**answer else { panic!("{answer:?}") };
    found[0].as_ref().expect("it is there").offset
}

#[test]
fn a_topic_with_the_time_of_its_log_gives_it_to_messages_too() {
    let mut node = Node::start(1, 1);
    let client = node.connect(0);
    create(&mut node, client, "writers", &[]);
    create(&mut node, client, "logs", &[("message.timestamp.type", "LogAppendTime")]);
    for topic in ["writers", "logs"] {
        // Both in one group, and to one of them by name.
        node.bind(client, "amq.fanout", topic);
        publish(&mut node, client, topic, Some(5));
    }
    assert_eq!([0, NOW_MS].map(|time| offset_at(&mut node, client, "writers", time)), [Some(0), None]);
    assert_eq!([0, NOW_MS].map(|time| offset_at(&mut node, client, "logs", time)), [Some(0), Some(0)]);
    assert_eq!(offset_at(&mut node, client, "logs", NOW_MS + 1), None);
}

#[test]
fn what_is_larger_than_a_topic_takes_is_refused_and_others_have_it() {
    for shards in [1, 2] {
        let mut node = Node::start(shards, 2 * u32::from(shards));
        let client = node.connect(0);
        create(&mut node, client, "small", &[("max.message.bytes", "200")]);
        create(&mut node, client, "plain", &[]);
        node.declare(client, "q");
        for queue in ["small", "plain", "q"] {
            node.bind(client, "amq.fanout", queue);
        }
        for (token, bytes) in [(1, 100), (2, 300), (3, 100)] {
            node.publish_to(client, "amq.fanout", "", token, &vec![b'x'; bytes]);
        }
        node.publish(client, "small", 4, &"x".repeat(300));
        node.run();
        let (mut confirmed, mut rejected) = (Vec::new(), Vec::new());
        for event in node.heard(client) {
            match event {
                Event::Confirmed(LANE, first, last) => confirmed.extend(first..=last),
                Event::Rejected(LANE, first, last) => rejected.extend(first..=last),
                other => panic!("{other:?}"),
            }
        }
        confirmed.sort();
        assert_eq!((confirmed, rejected), (vec![1, 3], vec![2, 4]));
        assert_eq!(node.declare(client, "q").0, 3);
        node.publish(client, "small", 0, &"x".repeat(300));
        node.run();
        let heard = node.heard(client);
        assert!(matches!(&heard[..], [Event::PublishRefused(LANE, Refusal::Invalid(_))]), "{heard:?}");
        assert_eq!(offset_at(&mut node, client, "small", 0), Some(0));
        node.assert_nothing_waits();
    }
}

#[test]
fn a_group_is_sent_a_message_once_for_all_of_its_queues_that_ask_for_the_same() {
    for groups in [1, 3] {
        let mut node = Node::start(1, groups);
        let client = node.connect(0);
        let queues: Vec<String> = (0..6).map(|n| format!("q-{n}")).collect();
        for queue in &queues {
            // Queues and topics in turn, so that neither the order of names nor that of ids puts like to like.
            let topic = format!("{queue}-stamped");
            node.declare(client, queue);
            create(&mut node, client, &topic, &[("message.timestamp.type", "LogAppendTime")]);
            node.bind(client, "amq.fanout", queue);
            node.bind(client, "amq.fanout", &topic);
        }
        node.publish_to(client, "amq.fanout", "", 1, b"m");
        node.run();
        assert_eq!(confirmed(&node.heard(client)), [1]);
        assert!(queues.iter().all(|queue| node.declare(client, queue).0 == 1));
        let broker = &mut node.brokers[0];
        let (slot, is_known) = broker.door.routes.find(broker.topology.version(), "/", "amq.fanout", "");
        assert!(is_known, "it was remembered");
        let targets = broker.door.routes.at(slot);
        assert_eq!(targets.iter().map(|target| target.queues.len()).sum::<usize>(), 2 * queues.len());
        let kinds: BTreeSet<_> = targets.iter().map(|target| (target.group, target.terms)).collect();
        let most = 2 * groups as usize;
        assert_eq!((kinds.len(), targets.len()), (most, most), "two kinds of queues in each group");
    }
}
