//! Topics as Kafka clients see them, streams as AMQP clients see them, and both at once.

use model::topic::{ConfigChange, TopicDeclaration, TopicRef};
use model::{
    Change as Wanted, GroupId, Limits, LogRefusal, NodeId, QueueDeclaration, Refusal, ShardId, Value,
};

use super::fixture::*;
use crate::{Answer, Command, QueueKind, QueueRecord, Replica, TopicRecord, Topology};

fn declaration(name: &str, partitions: u32) -> TopicDeclaration {
    TopicDeclaration { name: name.into(), partitions: Some(partitions), replicas: None, configs: Vec::new() }
}

fn configured(name: &str, configs: &[(&str, &str)]) -> TopicDeclaration {
    let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    TopicDeclaration { configs, ..declaration(name, 1) }
}

fn create(topology: &mut Topology, declaration: TopicDeclaration) -> Answer {
    let groups = vec![LOGGED; declaration.partitions.unwrap_or(1) as usize];
    apply(topology, Command::CreateTopic { vhost: "/".into(), declaration, groups })
}

fn add(topology: &mut Topology, name: &str, count: u32, groups: usize) -> Answer {
    let groups = vec![LOGGED; groups];
    apply(topology, Command::AddPartitions { vhost: "/".into(), name: name.into(), count, groups })
}

fn delete_topic(topology: &mut Topology, name: &str) -> Answer {
    let id = topology.topic("/", name).expect("it is there").id;
    apply(topology, Command::DeleteTopic { vhost: "/".into(), id })
}

fn created(answer: Answer) -> (TopicRecord, Vec<QueueRecord>) {
    let Answer::TopicCreated { topic, queues } = answer else { panic!("not created: {answer:?}") };
    (topic, queues)
}

fn names(queues: &[QueueRecord]) -> Vec<&str> {
    queues.iter().map(|queue| queue.name.as_str()).collect()
}

fn a_stream(name: &str, arguments: &[(&str, Value)]) -> QueueDeclaration {
    let kind = ("x-queue-type", Value::text("stream"));
    QueueDeclaration { arguments: table(&[&[kind], arguments].concat()), ..a_queue(name) }
}

fn stream(name: &str) -> Wanted {
    Wanted::DeclareQueue(a_stream(name, &[]))
}

fn altered(topology: &Topology, changes: &[ConfigChange], replace: bool) -> crate::ConfigValues {
    topology.altered("/", "t", changes, replace, &Limits::default()).expect("they make sense")
}

fn alter(topology: &mut Topology, changes: &[ConfigChange], replace: bool) -> Answer {
    let configs = altered(topology, changes, replace);
    apply(topology, Command::AlterTopic { vhost: "/".into(), name: "t".into(), configs })
}

fn set(name: &str, value: &str) -> ConfigChange {
    ConfigChange::Set(name.into(), value.into())
}

fn config<'a>(topology: &'a Topology, name: &str) -> Option<&'a str> {
    topology.topic("/", "t").expect("it is there").configs.get(name).map(String::as_str)
}

#[test]
fn a_topic_of_one_partition_is_the_stream_of_its_name() {
    let mut topology = fresh();
    let (topic, queues) = created(create(&mut topology, declaration("t", 1)));
    assert_eq!(names(&queues), ["t"]);
    assert_eq!((queues[0].kind, queues[0].group, queues[0].durable), (QueueKind::Stream, LOGGED, true));
    assert_eq!(topology.topic("/", "t"), Some(&topic));
    assert_eq!(topology.topic_by_id(topic.id), Some(&topic));
    assert_eq!(topology.topic_of(queues[0].id), Some((&topic, 0)));
    assert_eq!(topology.partition("/", "t", 0), Some(queues[0].target()));
    assert_eq!(topology.partition("/", "t", 0).expect("it exists").kind, QueueKind::Stream);
    assert_eq!(topology.partition("/", "t", 1), None);
    assert_eq!(routed(&topology, "", "t"), ["t"]);
    assert_eq!(topology.exchange("/", "t"), None);
    assert_eq!(topic.settings().retention_ms, Some(604_800_000), "as Kafka has it");
    assert_ne!(topic.id.0, 0);
}

#[test]
fn a_topic_of_more_is_an_exchange_over_its_streams() {
    let mut topology = fresh();
    let (topic, queues) = created(create(&mut topology, declaration("t", 3)));
    assert_eq!(names(&queues), ["t-0", "t-1", "t-2"]);
    assert_eq!(topic.partitions, queues.iter().map(|queue| queue.id).collect::<Vec<_>>());
    assert_eq!(routed(&topology, "t", "1"), ["t-1"]);
    assert_eq!(routed(&topology, "t", "3"), [""; 0]);
    assert_eq!(topology.topic_of(queues[2].id), Some((&topic, 2)));
    assert!(topology.exchange("/", "t").expect("it was created").durable);
    assert_eq!(topology.topic("/", "t-1"), None, "a partition is no topic");
}

#[test]
fn a_stream_declared_by_amqp_is_a_topic() {
    let mut topology = fresh();
    let aged = Wanted::DeclareQueue(a_stream("t", &[("x-max-age", Value::text("1D"))]));
    let queue = declared(change(&mut topology, aged.clone()));
    let topic = topology.topic("/", "t").expect("it goes with the stream");
    assert_eq!((queue.kind, topic.partitions.as_slice()), (QueueKind::Stream, &[queue.id][..]));
    assert_eq!((&topic.arguments, topic.settings().retention_ms), (&queue.arguments, Some(86_400_000)));
    assert!(matches!(change(&mut topology, aged), Answer::Declared { created: false, .. }));
    assert!(
        matches!(refused(&mut topology, stream("t")), Refusal::InequivalentArgument(..)),
        "without an age"
    );
    assert!(matches!(refused(&mut topology, super::fixture::queue("t")), Refusal::InequivalentArgument(..)));
    change(&mut topology, stream("kept"));
    let kept = topology.topic("/", "kept").expect("it goes with the stream").settings();
    assert_eq!((kept.retention_ms, kept.retention_bytes), (None, None), "without a bound everything stays");
    assert_eq!(deleted(change(&mut topology, delete("t"))), ["t"]);
    assert_eq!((topology.topic("/", "t"), topology.topic_of(queue.id)), (None, None));
}

#[test]
fn a_topic_created_by_kafka_can_be_declared_as_the_stream_it_is() {
    let mut topology = fresh();
    created(create(&mut topology, declaration("t", 1)));
    assert!(matches!(change(&mut topology, stream("t")), Answer::Declared { created: false, .. }));
    assert!(matches!(refused(&mut topology, queue("t")), Refusal::InequivalentArgument(..)));
    assert_eq!(create(&mut topology, declaration("t", 1)), exists("topic 't'"));
}

fn exists(what: &str) -> Answer {
    Answer::LogRefused(LogRefusal::Exists(format!("{what} already exists")))
}

#[test]
fn streams_whose_names_are_no_topic_s_are_for_amqp_only() {
    let mut topology = with([stream("with space"), stream("ü"), stream("t")]);
    let listed: Vec<_> = topology.topics("/").map(|topic| topic.name.as_str()).collect();
    assert_eq!(listed, ["t"]);
    let hidden = topology.queue("/", "with space").expect("it was declared").id;
    let (topic, _) = topology.topic_of(hidden).expect("it has settings all the same");
    assert_eq!(topic.settings().retention_ms, None);
    let id = topic.id;
    assert_eq!((topology.topic("/", "with space"), topology.topic_by_id(id)), (None, None));
    let gone = apply(&mut topology, Command::DeleteTopic { vhost: "/".into(), id });
    assert_eq!(gone, Answer::LogRefused(LogRefusal::UnknownTopicId));
    assert_eq!(deleted(change(&mut topology, delete("with space"))), ["with space"]);
}

#[test]
fn topics_are_told_in_the_order_of_their_names() {
    let mut topology = with([stream("b")]);
    created(create(&mut topology, declaration("c", 2)));
    created(create(&mut topology, declaration("a", 1)));
    let listed: Vec<_> = topology.topics("/").map(|topic| topic.name.as_str()).collect();
    assert_eq!(listed, ["a", "b", "c"]);
    assert_eq!(topology.topics("elsewhere").count(), 0);
    let by_name = topology.resolve("/", &TopicRef::Name("b".into())).expect("it is there");
    assert_eq!(topology.resolve("/", &TopicRef::Id(by_name.id)), Ok(by_name));
    assert_eq!(topology.resolve("x", &TopicRef::Id(by_name.id)), Err(LogRefusal::UnknownTopicId));
    assert_eq!(topology.resolve("/", &TopicRef::Name("z".into())), Err(LogRefusal::UnknownPartition));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut topology = fresh();
    for name in ["", ".", "..", "a b", "ä", "a/b", "amq.topic", &"x".repeat(250)] {
        let answer = create(&mut topology, declaration(name, 1));
        assert!(matches!(answer, Answer::LogRefused(LogRefusal::BadName(_))), "{name:?}: {answer:?}");
    }
    created(create(&mut topology, declaration(&"x".repeat(249), 1)));
    created(create(&mut topology, declaration("a.B_c-9", 2)));
}

#[test]
fn names_that_are_taken_are_refused() {
    let mut topology = with([queue("q"), queue("t-1"), exchange("e", "fanout"), stream("s-0")]);
    assert_eq!(create(&mut topology, declaration("q", 1)), exists("queue 'q'"));
    assert_eq!(create(&mut topology, declaration("q", 2)), exists("queue 'q'"));
    assert_eq!(create(&mut topology, declaration("t", 2)), exists("queue 't-1'"));
    assert_eq!(create(&mut topology, declaration("s", 2)), exists("queue 's-0'"));
    assert_eq!(create(&mut topology, declaration("e", 2)), exists("exchange 'e'"));
    created(create(&mut topology, declaration("e", 1)));
    created(create(&mut topology, declaration("u", 2)));
    assert!(matches!(refused(&mut topology, stream("u")), Refusal::Invalid(_)), "a topic has the name");
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let mut topology = fresh();
    for count in [0, 4097] {
        let answer = create(&mut topology, declaration("t", count));
        assert!(matches!(answer, Answer::LogRefused(LogRefusal::InvalidPartitions(_))), "{count}");
    }
    let replicated = |replicas| TopicDeclaration { replicas: Some(replicas), ..declaration("t", 1) };
    for count in [0, 2] {
        let answer = create(&mut topology, replicated(count));
        assert!(matches!(answer, Answer::LogRefused(LogRefusal::InvalidReplicas(_))), "{count}");
    }
    let in_sync = create(&mut topology, configured("t", &[("min.insync.replicas", "2")]));
    assert!(matches!(in_sync, Answer::LogRefused(LogRefusal::InvalidConfig(_))), "there is one node");
    let replicas = [1, 2].map(|node| Replica { node: NodeId(node), shard: ShardId(0) }).to_vec();
    apply(&mut topology, Command::PlaceGroup(LOGGED, replicas));
    created(create(&mut topology, TopicDeclaration { replicas: Some(2), ..declaration("t", 1) }));
    created(create(&mut topology, configured("u", &[("min.insync.replicas", "2")])));
}

#[test]
fn partitions_need_groups_that_exist() {
    let mut topology = fresh();
    for groups in [vec![], vec![LOGGED], vec![LOGGED, GroupId(9)]] {
        let declaration = declaration("t", 2);
        let answer = apply(&mut topology, Command::CreateTopic { vhost: "/".into(), declaration, groups });
        assert!(matches!(answer, Answer::LogRefused(LogRefusal::Unavailable(_, true))), "{answer:?}");
    }
    assert_eq!((topology.topics("/").count(), topology.queues().count()), (0, 0));
}

#[test]
fn bounds_hold_for_partitions() {
    for limits in [
        Limits { queues_max: 2, ..Limits::default() },
        Limits { exchanges_max: 7, ..Limits::default() },
        Limits { bindings_max: 3, ..Limits::default() },
    ] {
        let mut topology = Topology::new(&limits);
        apply(&mut topology, Command::CreateGroups(1));
        let answer = create(&mut topology, declaration("t", 3));
        assert!(matches!(answer, Answer::LogRefused(LogRefusal::Forbidden(_))), "{answer:?}");
        created(create(&mut topology, declaration("t", 1)));
    }
}

#[test]
fn a_topic_grows_and_keeps_what_it_has() {
    let mut topology = fresh();
    let (before, _) = created(create(&mut topology, declaration("t", 1)));
    let (grown, queues) = created(add(&mut topology, "t", 3, 2));
    assert_eq!(names(&queues), ["t-1", "t-2"]);
    assert_eq!((grown.id, grown.partitions[0], grown.partitions.len()), (before.id, before.partitions[0], 3));
    assert_eq!(routed(&topology, "t", "0"), ["t"]);
    assert_eq!(routed(&topology, "t", "2"), ["t-2"]);
    let (_, queues) = created(add(&mut topology, "t", 4, 1));
    assert_eq!(names(&queues), ["t-3"]);
    assert_eq!(topology.partition("/", "t", 3), Some(queues[0].target()));
    assert_eq!((routed(&topology, "t", "3"), topology.bindings().count()), (vec!["t-3".to_owned()], 4));
}

#[test]
fn growth_that_cannot_be_is_refused() {
    let mut topology = with([exchange("t", "direct")]);
    created(create(&mut topology, declaration("t", 1)));
    assert_eq!(add(&mut topology, "t", 2, 1), exists("exchange 't'"));
    change(&mut topology, delete_exchange("t"));
    for count in [0, 1, 5000] {
        let refusal = topology.validate_partitions("/", "t", count);
        assert!(matches!(refusal, Err(LogRefusal::InvalidPartitions(_))), "{count}: {refusal:?}");
    }
    assert_eq!(topology.validate_partitions("/", "t", 3), Ok(2));
    let short = add(&mut topology, "t", 3, 1);
    assert!(
        matches!(short, Answer::LogRefused(LogRefusal::Unavailable(_, true))),
        "somebody else deleted some"
    );
    assert_eq!(add(&mut topology, "none", 3, 2), Answer::LogRefused(LogRefusal::UnknownPartition));
}

#[test]
fn a_topic_goes_with_everything_that_was_its() {
    let mut topology = with([queue("q")]);
    let (topic, _) = created(create(&mut topology, declaration("t", 2)));
    change(&mut topology, bind("t", "q", "0"));
    change(&mut topology, bind("amq.fanout", "t-1", ""));
    let Answer::TopicDeleted { topic: gone, queues } = delete_topic(&mut topology, "t") else { panic!() };
    assert_eq!((gone, names(&queues)), (topic.clone(), vec!["t-0", "t-1"]));
    assert_eq!((topology.exchange("/", "t"), topology.bindings().count()), (None, 0));
    assert_eq!((topology.topic("/", "t"), topology.topic_of(topic.partitions[0])), (None, None));
    let again = apply(&mut topology, Command::DeleteTopic { vhost: "/".into(), id: topic.id });
    assert_eq!(again, Answer::LogRefused(LogRefusal::UnknownTopicId));
    let (new, _) = created(create(&mut topology, declaration("t", 2)));
    assert_ne!(new.id, topic.id, "ids are never given twice");
}

#[test]
fn amqp_takes_nothing_out_of_a_topic() {
    let mut topology = with([queue("q")]);
    created(create(&mut topology, declaration("t", 2)));
    let order = |number| table(&[("x-stream-partition-order", Value::Int(number))]);
    let unbind_partition = Wanted::UnbindQueue {
        exchange: "t".into(),
        queue: "t-1".into(),
        key: "1".into(),
        arguments: order(1),
    };
    for wanted in [delete("t-0"), delete_exchange("t"), unbind_partition] {
        assert!(matches!(refused(&mut topology, wanted), Refusal::AccessRefused(_)));
    }
    let purge = Wanted::PurgeQueue { name: "t-0".into() };
    assert!(matches!(refused(&mut topology, purge), Refusal::Unsupported(_)));
    change(&mut topology, stream("s"));
    let gently = Wanted::DeleteQueue { name: "s".into(), if_unused: true, if_empty: false };
    assert!(matches!(refused(&mut topology, gently), Refusal::Unsupported(_)));
    for wanted in [bind("t", "q", "0"), unbind("t", "q", "0"), bind("t", "t-1", "0"), unbind("t", "t-1", "0")]
    {
        assert_eq!(change(&mut topology, wanted), Answer::Done, "what it adds is its own");
    }
    assert_eq!(routed(&topology, "t", "1"), ["t-1"]);
}

#[test]
fn configurations_are_altered() {
    let mut topology = fresh();
    created(create(&mut topology, configured("t", &[("retention.ms", "5"), ("segment.bytes", "99")])));
    let Answer::TopicAltered { topic, queues } = alter(&mut topology, &[set("retention.ms", "6")], false)
    else {
        panic!()
    };
    assert_eq!((topic.settings().retention_ms, names(&queues)), (Some(6), vec!["t"]));
    assert_eq!(config(&topology, "segment.bytes"), Some("99"), "what is not named stays");
    let version = topology.version();
    let Answer::TopicAltered { queues, .. } = alter(&mut topology, &[set("retention.ms", "6")], false) else {
        panic!()
    };
    assert_eq!((queues.len(), topology.version()), (0, version), "nothing changed");
    alter(&mut topology, &[ConfigChange::Append("cleanup.policy".into(), "compact,delete".into())], false);
    assert_eq!(config(&topology, "cleanup.policy"), Some("delete,compact"));
    alter(&mut topology, &[ConfigChange::Subtract("cleanup.policy".into(), "delete".into())], false);
    assert_eq!(config(&topology, "cleanup.policy"), Some("compact"));
    alter(&mut topology, &[ConfigChange::Default("retention.ms".into())], false);
    assert_eq!((config(&topology, "retention.ms"), config(&topology, "segment.bytes")), (None, Some("99")));
    alter(&mut topology, &[set("retention.ms", "7")], true);
    assert_eq!(topology.topic("/", "t").expect("it is there").configs.len(), 1, "the others are replaced");
}

#[test]
fn the_default_of_a_declared_stream_is_its_declaration() {
    let mut topology = with([stream("t")]);
    alter(&mut topology, &[set("retention.ms", "7")], false);
    assert_eq!(config(&topology, "retention.ms"), Some("7"));
    alter(&mut topology, &[], true);
    assert_eq!(config(&topology, "retention.ms"), Some("-1"));
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let mut topology = fresh();
    let limits = Limits { message_bytes_max: 2_000_000, ..Limits::default() };
    let too_large = configured("t", &[("max.message.bytes", "2000001")]);
    let refusal = topology.validate_topic("/", &too_large, &limits);
    assert!(
        matches!(&refusal, Err(LogRefusal::InvalidConfig(text)) if text.contains("2000000")),
        "{refusal:?}"
    );
    let unknown = create(&mut topology, configured("t", &[("retention.mss", "1")]));
    assert!(matches!(unknown, Answer::LogRefused(LogRefusal::InvalidConfig(_))));
    let never = configured("t", &[("min.compaction.lag.ms", "8"), ("max.compaction.lag.ms", "7")]);
    assert!(matches!(topology.validate_topic("/", &never, &limits), Err(LogRefusal::InvalidConfig(_))));
    let loose = configured("t", &[("preallocate", "True"), ("retention.ms", " 5 ")]);
    let plain = topology.validate_topic("/", &loose, &limits).map(|topic| topic.configs);
    assert_eq!(plain, Ok(configured("t", &[("preallocate", "true"), ("retention.ms", "5")]).configs));
    let resolved =
        topology.validate_topic("/", &TopicDeclaration { partitions: None, ..declaration("t", 1) }, &limits);
    assert_eq!(resolved, Ok(declaration("t", 1)));
    created(create(&mut topology, declaration("t", 1)));
    for changes in [
        vec![set("retention.ms", "soon")],
        vec![set("retention.mss", "1")],
        vec![ConfigChange::Default("nothing".into())],
        vec![ConfigChange::Append("retention.ms".into(), "1".into())],
        vec![ConfigChange::Subtract("cleanup.policy".into(), "delete".into())],
        vec![set("max.message.bytes", "2000001")],
        vec![set("min.insync.replicas", "3")],
        vec![set("min.compaction.lag.ms", "8"), set("max.compaction.lag.ms", "7")],
    ] {
        let refusal = topology.altered("/", "t", &changes, false, &limits);
        assert!(matches!(refusal, Err(LogRefusal::InvalidConfig(_))), "{changes:?}: {refusal:?}");
    }
    let twice = [set("retention.ms", "1"), set("retention.ms", "2")];
    assert!(matches!(topology.altered("/", "t", &twice, false, &limits), Err(LogRefusal::Invalid(_))));
    let loose = topology.altered("/", "t", &[set("preallocate", "TRUE ")], false, &limits);
    assert_eq!(loose, Ok(vec![("preallocate".to_owned(), Some("true".to_owned()))]));
    let none = topology.altered("/", "none", &[], false, &limits);
    assert_eq!(none, Err(LogRefusal::UnknownPartition));
    let never = topology.altered("/", "no such", &[], false, &limits);
    assert!(matches!(never, Err(LogRefusal::BadName(_))), "{never:?}");
}

#[test]
fn coordinators_are_created_once_and_no_client_names_them() {
    let mut topology = fresh();
    let none = apply(&mut topology, Command::CreateCoordinators { groups: Vec::new() });
    assert!(matches!(none, Answer::LogRefused(LogRefusal::InvalidPartitions(_))));
    let groups = vec![LOGGED; 3];
    let Answer::Coordinators { queues } = apply(&mut topology, Command::CreateCoordinators { groups }) else {
        panic!()
    };
    assert!(queues.iter().all(|queue| queue.kind == QueueKind::Coordinator));
    let targets: Vec<_> = queues.iter().map(QueueRecord::target).collect();
    assert_eq!(topology.coordinators(), targets);
    let version = topology.version();
    let again = apply(&mut topology, Command::CreateCoordinators { groups: vec![LOGGED; 9] });
    assert_eq!((again, topology.version()), (Answer::Coordinators { queues: Vec::new() }, version));
    assert_eq!(topology.queue("/", "coordinator-0"), None);
    assert_eq!(topology.queue("", "coordinator-0"), None);
    assert_eq!(topology.queues().count(), 3, "they are there for whoever hosts their group");
}

#[test]
fn a_copy_has_the_same_topics() {
    let mut topology = with([stream("s"), stream("with space")]);
    created(create(&mut topology, configured("t", &[("retention.ms", "5")])));
    created(add(&mut topology, "t", 3, 2));
    apply(&mut topology, Command::CreateCoordinators { groups: vec![LOGGED; 2] });
    let mut bytes = Vec::new();
    topology.encode(&mut bytes);
    let mut copy = Topology::decode(&bytes, &Limits::default()).expect("it was just written");
    assert_eq!(copy.topics("/").collect::<Vec<_>>(), topology.topics("/").collect::<Vec<_>>());
    assert_eq!((copy.hash(), copy.coordinators()), (topology.hash(), topology.coordinators()));
    assert_eq!(delete_topic(&mut copy, "t"), delete_topic(&mut topology, "t"));
    assert_eq!(copy.hash(), topology.hash());
}

#[test]
fn topic_ids_begin_with_what_was_chosen_first() {
    let mut topology = fresh();
    create(&mut topology, declaration("before", 1));
    let upper = |topology: &Topology, name: &str| topology.topic("/", name).expect("it exists").id.0 >> 64;
    assert_ne!(upper(&topology, "before"), 0);
    for (chosen, name) in [(0, "zero"), (77, "first"), (88, "second")] {
        assert_eq!(apply(&mut topology, Command::NameTopics(chosen)), Answer::Done);
        created(create(&mut topology, declaration(name, 2)));
    }
    assert_eq!(upper(&topology, "zero"), upper(&topology, "before"));
    assert_eq!((upper(&topology, "first"), upper(&topology, "second")), (77, 77));
    let mut bytes = Vec::new();
    topology.encode(&mut bytes);
    let mut copy = Topology::decode(&bytes, &Limits::default()).expect("it was just written");
    create(&mut copy, declaration("later", 1));
    assert_eq!(upper(&copy, "later"), 77);
}
