//! Every advertised request in every version: what it asks, and that its response is one the other side can read to
//! its last byte, granted and refused.

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig as Replaced};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as ChangedResource, AlterableConfig as ChangedConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use model::membership::*;
use model::topic::*;
use model::{LogAnswer, LogRequest, QueueId};

use super::harness::{Asked, Rig, text};
use crate::wire::api;

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn refusal() -> LogRefusal {
    LogRefusal::Denied("no".to_owned())
}

fn topic_of(name: &str) -> Topic {
    let configs = vec![("retention.ms".to_owned(), "5".to_owned())];
    Topic { name: name.to_owned(), id: TopicId(9), partitions: vec![QueueId(1)], configs, ..Topic::default() }
}

fn results<T: Clone>(count: usize, granted: bool, value: T) -> Vec<Result<T, LogRefusal>> {
    vec![if granted { Ok(value) } else { Err(refusal()) }; count]
}

/// What a broker says that grants everything, or refuses everything.
fn answer(request: &LogRequest<'static>, granted: bool) -> LogAnswer {
    use LogRequest as R;
    match request {
        R::Topics(TopicsWanted::Named { topics, .. }) => {
            let found = topics.iter().map(|topic| match granted {
                true => Ok(topic_of("t")),
                false => Err((topic.clone(), refusal())),
            });
            LogAnswer::Topics(found.collect())
        }
        R::CreateTopics { topics, .. } => LogAnswer::Changed(results(topics.len(), granted, topic_of("t"))),
        R::CreatePartitions { topics, .. } => {
            LogAnswer::Changed(results(topics.len(), granted, topic_of("t")))
        }
        R::AlterTopics { topics, .. } => LogAnswer::Changed(results(topics.len(), granted, topic_of("t"))),
        R::DeleteTopics(topics) => LogAnswer::Changed(results(topics.len(), granted, topic_of("t"))),
        R::Trim(places) => LogAnswer::Trimmed(results(places.len(), granted, 17)),
        R::Producer => LogAnswer::Producer(if granted { Ok(1000) } else { Err(refusal()) }),
        R::Partitions(Some(wanted)) => LogAnswer::Partitions(
            wanted
                .iter()
                .map(|at| if granted { Ok(figures()) } else { Err((at.clone(), refusal())) })
                .collect(),
        ),
        R::Group(group) => LogAnswer::Group(group_answer(group, granted)),
        other => unreachable!("{other:?}"),
    }
}

fn figures() -> PartitionFigures {
    let producers = vec![ProducerFigures { id: 5, epoch: 1, last_sequence: 7, last_timestamp_ms: 8 }];
    PartitionFigures { topic: "t".to_owned(), partition: 1, start: 0, end: 4, bytes: 400, producers }
}

fn group_answer(request: &GroupRequest, granted: bool) -> GroupAnswer {
    use GroupRequest as R;
    fn grant<T>(granted: bool, value: T) -> Result<T, LogRefusal> {
        if granted { Ok(value) } else { Err(refusal()) }
    }
    match request {
        R::Join(join) => GroupAnswer::Joined(grant(granted, joined(join))),
        R::Sync(_) => GroupAnswer::Synced(grant(
            granted,
            Synced { protocol_type: "consumer".into(), protocol: "range".into(), assignment: vec![1, 2] },
        )),
        R::Heartbeat(_) => GroupAnswer::Done(grant(granted, ())),
        R::Leave { members, .. } => GroupAnswer::Left(grant(granted, results(members.len(), true, ()))),
        R::Commit(commit) => GroupAnswer::Committed(results(commit.offsets.len(), granted, ())),
        R::DeleteOffsets { partitions, .. } => GroupAnswer::Committed(results(partitions.len(), granted, ())),
        R::Offsets { partitions, .. } => {
            let wanted = partitions.clone().expect("named");
            let known = CommittedOffset { offset: 11, epoch: Some(0), metadata: "m".to_owned() };
            let offsets = wanted.into_iter().zip([Some(known), None]).collect();
            GroupAnswer::Offsets(grant(granted, offsets))
        }
        R::Delete(names) => GroupAnswer::Deleted(results(names.len(), granted, ())),
        R::List => GroupAnswer::Groups(vec![described("g")]),
        R::Describe(names) => GroupAnswer::Groups(names.iter().map(|name| described(name)).collect()),
    }
}

fn joined(join: &Join) -> Joined {
    let members = vec![MemberMetadata { member: "m1".into(), instance: None, metadata: vec![4] }];
    Joined {
        generation: 3,
        protocol_type: join.protocol_type.clone(),
        protocol: "range".into(),
        leader: "m1".into(),
        member: "m1".into(),
        skip_assignment: false,
        members,
    }
}

fn described(group: &str) -> GroupDescription {
    let member = MemberDescription { member: "m1".into(), client_id: "c".into(), ..Default::default() };
    GroupDescription {
        group: group.to_owned(),
        phase: GroupPhase::Stable,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        members: vec![member],
    }
}

/// Sends a request in one version; returns what was asked and what the client reads.
fn exchange<R: Decodable>(
    key: i16,
    version: i16,
    request: &impl Encodable,
    granted: bool,
) -> (Vec<LogRequest<'static>>, R) {
    let mut rig = Rig::open();
    let mut requests = Vec::new();
    for (token, asked) in rig.send(key, version, request) {
        let Asked::Log(asked) = asked else { unreachable!("{asked:?}") };
        rig.answer(token, answer(&asked, granted));
        requests.push(asked);
    }
    assert!(!rig.session.is_ended(), "{key} version {version} was not understood");
    (requests, rig.response(key, version).1)
}

/// Sends a request in every version, granted and refused, and hands what came of it to a check.
fn all_versions<Q: Encodable, R: Decodable>(
    key: i16,
    request: impl Fn(i16) -> Q,
    check: impl Fn(i16, bool, Vec<LogRequest<'static>>, R),
) {
    let known = api::api_of(key).expect("known");
    for version in known.min..=known.max {
        for granted in [true, false] {
            let (asked, response) = exchange(key, version, &request(version), granted);
            check(version, granted, asked, response);
        }
    }
}

fn code(granted: bool, refused: i16) -> i16 {
    if granted { 0 } else { refused }
}

#[test]
fn find_coordinator() {
    let request = |version| match version {
        ..4 => FindCoordinatorRequest::default().with_key(text("g")),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]),
    };
    all_versions(api::FIND_COORDINATOR, request, |version, _, _, response: FindCoordinatorResponse| {
        match version {
            ..4 => assert_eq!((response.error_code, response.node_id.0, response.port), (0, 3, 9092)),
            _ => {
                let second = &response.coordinators[1];
                assert_eq!((&*second.key, second.node_id.0, &*second.host), ("h", 3, "localhost"));
            }
        }
    });
    let transaction = FindCoordinatorRequest::default().with_key(text("t")).with_key_type(1);
    let (_, response) = exchange::<FindCoordinatorResponse>(api::FIND_COORDINATOR, 2, &transaction, true);
    assert_eq!(response.error_code, 53);
}

#[test]
fn join_group() {
    let request = |version| {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"md"));
        let mut request = JoinGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_session_timeout_ms(6000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        if version >= 1 {
            request = request.with_rebalance_timeout_ms(9000);
        }
        if version >= 5 {
            request = request.with_group_instance_id(Some(text("i")));
        }
        request
    };
    all_versions(api::JOIN_GROUP, request, |version, granted, asked, response: JoinGroupResponse| {
        let [LogRequest::Group(GroupRequest::Join(join))] = &asked[..] else { unreachable!("{asked:?}") };
        let rebalance = if version >= 1 { 9000 } else { 6000 };
        assert_eq!((join.session_timeout_ms, join.rebalance_timeout_ms), (6000, rebalance));
        assert_eq!((join.client_id.as_str(), join.id_required), ("tester", version >= 4));
        assert_eq!(join.client_host, "/10.0.0.7");
        assert_eq!(join.protocols, [("range".to_owned(), b"md".to_vec())]);
        assert_eq!(join.instance.as_deref(), (version >= 5).then_some("i"));
        assert_eq!(response.error_code, code(granted, 30));
        assert_eq!(response.generation_id, if granted { 3 } else { -1 });
        assert_eq!(response.members.len(), usize::from(granted));
    });
}

#[test]
fn a_first_join_is_told_its_member_id() {
    let mut rig = Rig::open();
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_rebalance_timeout_ms(9000)
        .with_session_timeout_ms(9000);
    let asked = rig.send(api::JOIN_GROUP, 7, &request);
    let refused = GroupAnswer::Joined(Err(LogRefusal::MemberIdRequired("m-1".to_owned())));
    rig.answer(asked[0].0, LogAnswer::Group(refused));
    let (_, response) = rig.response::<JoinGroupResponse>(api::JOIN_GROUP, 7);
    assert_eq!((response.error_code, &*response.member_id), (79, "m-1"));
}

#[test]
fn sync_group() {
    let request = |_| {
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(text("m1"))
            .with_assignment(Bytes::from_static(b"as"));
        SyncGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id(3)
            .with_member_id(text("m1"))
            .with_assignments(vec![assignment])
    };
    all_versions(api::SYNC_GROUP, request, |_, granted, asked, response: SyncGroupResponse| {
        let [LogRequest::Group(GroupRequest::Sync(sync))] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!((sync.who.generation, sync.who.member.as_str()), (3, "m1"));
        assert_eq!(sync.assignments, [("m1".to_owned(), b"as".to_vec())]);
        assert_eq!(response.error_code, code(granted, 30));
        assert_eq!(&*response.assignment, if granted { &[1, 2][..] } else { &[] });
    });
}

#[test]
fn heartbeat_and_leave() {
    let request = |_| {
        HeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id(3)
            .with_member_id(text("m"))
    };
    all_versions(api::HEARTBEAT, request, |_, granted, _, response: HeartbeatResponse| {
        assert_eq!(response.error_code, code(granted, 30));
    });
    let request = |version| {
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text("g")));
        match version {
            ..3 => request.with_member_id(text("m")),
            _ => request.with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
        }
    };
    all_versions(api::LEAVE_GROUP, request, |version, granted, _, response: LeaveGroupResponse| {
        assert_eq!(response.error_code, code(granted, 30));
        assert_eq!(response.members.len(), usize::from(granted && version >= 3));
    });
}

#[test]
fn offset_commit() {
    let request = |version| {
        let at = |index, offset| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_committed_metadata(Some(text("m")));
            if version >= 6 { partition.with_committed_leader_epoch(0) } else { partition }
        };
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![
            at(0, 5),
            at(1, -2),
            at(2, 7),
        ]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id_or_member_epoch(3)
            .with_member_id(text("m"))
            .with_topics(vec![topic])
    };
    all_versions(api::OFFSET_COMMIT, request, |version, granted, asked, response: OffsetCommitResponse| {
        let [LogRequest::Group(GroupRequest::Commit(commit))] = &asked[..] else { unreachable!("{asked:?}") };
        let offsets: Vec<_> =
            commit.offsets.iter().map(|(at, to)| (at.partition, to.offset, to.epoch)).collect();
        let epoch = (version >= 6).then_some(0);
        assert_eq!(offsets, [(0, 5, epoch), (1, u64::MAX - 1, epoch), (2, 7, epoch)]);
        let codes: Vec<_> = response.topics[0].partitions.iter().map(|part| part.error_code).collect();
        assert_eq!(codes, [code(granted, 29); 3]);
    });
}

#[test]
fn offset_fetch() {
    let request = |version| match version {
        ..8 => {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(vec![0, 1]);
            OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic]))
        }
        _ => {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(vec![0, 1]);
            let group = |name| {
                OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(name)))
                    .with_topics(Some(vec![topic.clone()]))
            };
            OffsetFetchRequest::default().with_groups(vec![group("g"), group("h")])
        }
    };
    all_versions(api::OFFSET_FETCH, request, |version, granted, asked, response: OffsetFetchResponse| {
        assert_eq!(asked.len(), if version >= 8 { 2 } else { 1 });
        match (version, granted) {
            (..8, true) => {
                let parts = &response.topics[0].partitions;
                let told: Vec<_> =
                    parts.iter().map(|p| (p.partition_index, p.committed_offset, p.error_code)).collect();
                assert_eq!(told, [(0, 11, 0), (1, -1, 0)]);
                assert_eq!(parts[0].committed_leader_epoch, if version >= 5 { 0 } else { -1 });
                assert_eq!(parts[1].metadata.as_deref(), Some(""));
            }
            (1, false) => assert_eq!(response.topics[0].partitions[1].error_code, 30),
            (..8, false) => assert_eq!(response.error_code, 30),
            (_, granted) => {
                let group = &response.groups[1];
                assert_eq!((&*group.group_id.0, group.error_code), ("h", code(granted, 30)));
                assert_eq!(group.topics.len(), usize::from(granted));
            }
        }
    });
}

#[test]
fn groups_are_described_listed_and_deleted() {
    let request = |version| {
        let asked = version == 3 || version == 6;
        let groups = vec![GroupId(text("g"))];
        DescribeGroupsRequest::default().with_groups(groups).with_include_authorized_operations(asked)
    };
    all_versions(api::DESCRIBE_GROUPS, request, |version, _, _, response: DescribeGroupsResponse| {
        let group = &response.groups[0];
        let told = group.authorized_operations;
        assert_eq!(told, if version == 3 || version == 6 { 1 << 3 | 1 << 6 | 1 << 8 } else { i32::MIN });
        assert_eq!((&*group.group_state, &*group.protocol_data, group.members.len()), ("Stable", "range", 1));
    });
    let request = |version| match version {
        ..4 => ListGroupsRequest::default(),
        4 => ListGroupsRequest::default().with_states_filter(vec![text("stable")]),
        _ => ListGroupsRequest::default().with_types_filter(vec![text("Classic")]),
    };
    all_versions(api::LIST_GROUPS, request, |_, _, _, response: ListGroupsResponse| {
        assert_eq!((&*response.groups[0].group_id.0, &*response.groups[0].protocol_type), ("g", "consumer"));
    });
    let empty = ListGroupsRequest::default().with_states_filter(vec![text("Empty")]);
    let (_, response) = exchange::<ListGroupsResponse>(api::LIST_GROUPS, 4, &empty, true);
    assert!(response.groups.is_empty());
    let request = |_| DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g"))]);
    all_versions(api::DELETE_GROUPS, request, |_, granted, _, response: DeleteGroupsResponse| {
        assert_eq!(response.results[0].error_code, code(granted, 30));
    });
    let request = |_| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(1);
        let topic =
            OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        OffsetDeleteRequest::default().with_group_id(GroupId(text("g"))).with_topics(vec![topic])
    };
    all_versions(api::OFFSET_DELETE, request, |_, granted, _, response: OffsetDeleteResponse| {
        assert_eq!(response.topics[0].partitions[0].error_code, code(granted, 29));
    });
}

#[test]
fn topics_are_created() {
    let request = |_| {
        let config =
            CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("5")));
        let topic = |name, partitions| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(partitions)
                .with_replication_factor(-1)
                .with_configs(vec![config.clone()])
        };
        let topics = vec![topic("t", 4), topic("twice", 1), topic("twice", 1), topic("u", -1)];
        CreateTopicsRequest::default().with_topics(topics).with_validate_only(true)
    };
    all_versions(api::CREATE_TOPICS, request, |version, granted, asked, response: CreateTopicsResponse| {
        let [LogRequest::CreateTopics { topics, validate_only: true }] = &asked[..] else {
            unreachable!("{asked:?}")
        };
        let wanted: Vec<_> = topics.iter().map(|t| (t.name.as_str(), t.partitions, t.replicas)).collect();
        assert_eq!(wanted, [("t", Some(4), None), ("u", None, None)]);
        let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [code(granted, 29), 42, code(granted, 29)]);
        let first = &response.topics[0];
        if version >= 5 && granted {
            assert_eq!((first.num_partitions, first.replication_factor), (1, 1));
            let retention = first.configs.iter().flatten().find(|config| &*config.name == "retention.ms");
            assert_eq!(retention.map(|config| config.config_source), Some(1));
        }
        assert_eq!(first.topic_id.as_u128(), if version >= 7 && granted { 9 } else { 0 });
    });
}

#[test]
fn topics_are_enlarged_and_deleted_and_their_records_too() {
    let request = |_| {
        CreatePartitionsRequest::default().with_topics(vec![
            CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(6).with_assignments(None),
        ])
    };
    all_versions(api::CREATE_PARTITIONS, request, |_, granted, asked, response: CreatePartitionsResponse| {
        let [LogRequest::CreatePartitions { topics, .. }] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!(topics[..], [("t".to_owned(), 6)]);
        assert_eq!(response.results[0].error_code, code(granted, 29));
    });
    let request = |version| match version {
        ..6 => DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t"), topic_name("u")]),
        _ => {
            let state = |name: Option<&str>, id: u128| {
                let id = format!("{id:032x}").parse().expect("an id");
                DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id)
            };
            let (unclear, nothing, twice) = (state(Some("v"), 8), state(None, 0), state(Some("w"), 0));
            let topics = vec![state(Some("t"), 0), state(None, 7), unclear, nothing, twice.clone(), twice];
            DeleteTopicsRequest::default().with_topics(topics)
        }
    };
    all_versions(api::DELETE_TOPICS, request, |version, granted, asked, response: DeleteTopicsResponse| {
        let [LogRequest::DeleteTopics(topics)] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!((topics.len(), matches!(topics[1], TopicRef::Id(_))), (2, version >= 6));
        let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes[..2], [code(granted, 29); 2]);
        assert_eq!(codes[2..], if version >= 6 { vec![42, 42, 42] } else { vec![] });
    });
    let request = |_| {
        let at =
            |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![
            at(0, -1),
            at(1, -2),
            at(2, 8),
        ]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    };
    all_versions(api::DELETE_RECORDS, request, |_, granted, asked, response: DeleteRecordsResponse| {
        let [LogRequest::Trim(places)] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!(places.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [u64::MAX, 8]);
        let codes: Vec<_> = response.topics[0].partitions.iter().map(|part| part.error_code).collect();
        assert_eq!(codes, [code(granted, 29), 1, code(granted, 29)]);
    });
}

#[test]
fn configs_are_described() {
    let request = |_| {
        let resource = |kind, name| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(None)
        };
        let some =
            resource(2, "u").with_configuration_keys(Some(vec![text("retention.ms"), text("flush.ms")]));
        DescribeConfigsRequest::default()
            .with_resources(vec![resource(2, "t"), resource(4, "3"), some, resource(4, "9")])
            .with_include_synonyms(true)
    };
    all_versions(api::DESCRIBE_CONFIGS, request, |version, granted, _, response: DescribeConfigsResponse| {
        let codes: Vec<_> = response.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [code(granted, 29), 0, code(granted, 29), 42]);
        assert!(response.results[1].configs.iter().any(|config| &*config.name == "num.partitions"));
        if granted {
            assert_eq!(response.results[0].configs.len(), 33);
            let some = &response.results[2].configs;
            let told: Vec<_> = some.iter().map(|c| (&*c.name, c.config_source, c.synonyms.len())).collect();
            assert_eq!(told, [("flush.ms", 5, 1), ("retention.ms", 1, 2)]);
            assert_eq!(some[0].config_type, if version >= 3 { 5 } else { 0 });
        }
    });
}

#[test]
fn configs_are_altered() {
    let request = |_| {
        let set = Replaced::default().with_name(text("retention.ms")).with_value(Some(text("7")));
        let resource = |kind, name| {
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configs(vec![set.clone()])
        };
        AlterConfigsRequest::default().with_resources(vec![resource(2, "t"), resource(4, "3")])
    };
    all_versions(api::ALTER_CONFIGS, request, |_, granted, asked, response: AlterConfigsResponse| {
        let [LogRequest::AlterTopics { topics, replace: true, .. }] = &asked[..] else {
            unreachable!("{asked:?}")
        };
        assert_eq!(topics[0].1[..], [ConfigChange::Set("retention.ms".to_owned(), "7".to_owned())]);
        let codes: Vec<_> = response.responses.iter().map(|one| one.error_code).collect();
        assert_eq!(codes, [code(granted, 29), 42]);
    });
    let request = |_| {
        let change = |operation, value: Option<&str>| {
            ChangedConfig::default()
                .with_name(text("cleanup.policy"))
                .with_config_operation(operation)
                .with_value(value.map(text))
        };
        let resource = |name, changes: Vec<ChangedConfig>| {
            ChangedResource::default()
                .with_resource_type(2)
                .with_resource_name(text(name))
                .with_configs(changes)
        };
        let sound = vec![change(1, None), change(2, Some("compact")), change(3, Some("delete"))];
        let resources = vec![resource("u", vec![change(9, Some("x"))]), resource("t", sound)];
        IncrementalAlterConfigsRequest::default().with_resources(resources)
    };
    all_versions(
        api::INCREMENTAL_ALTER_CONFIGS,
        request,
        |_, granted, asked, response: IncrementalAlterConfigsResponse| {
            let [LogRequest::AlterTopics { topics, replace: false, .. }] = &asked[..] else {
                unreachable!("{asked:?}")
            };
            assert_eq!(topics.len(), 1);
            assert_eq!(topics[0].1[0], ConfigChange::Default("cleanup.policy".to_owned()));
            let codes: Vec<_> = response.responses.iter().map(|one| one.error_code).collect();
            assert_eq!(codes, [42, code(granted, 29)]);
        },
    );
}

#[test]
fn a_resource_that_is_named_twice_is_not_changed() {
    let resource = |name: &str| {
        let change = ChangedConfig::default().with_name(text("retention.ms")).with_value(Some(text("5")));
        ChangedResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configs(vec![change])
    };
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
        resource("t"),
        resource("u"),
        resource("t"),
    ]);
    let (asked, response) =
        exchange::<IncrementalAlterConfigsResponse>(api::INCREMENTAL_ALTER_CONFIGS, 1, &request, true);
    let [LogRequest::AlterTopics { topics, .. }] = &asked[..] else { unreachable!("{asked:?}") };
    assert_eq!((topics.len(), topics[0].0.as_str()), (1, "u"));
    let codes: Vec<_> = response.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [42, 0, 42]);
}

#[test]
fn producers_get_ids_and_partitions_tell_figures() {
    let request =
        |_| InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1);
    all_versions(api::INIT_PRODUCER_ID, request, |_, granted, _, response: InitProducerIdResponse| {
        let told = (response.error_code, response.producer_id.0, response.producer_epoch);
        assert_eq!(told, if granted { (0, 1000, 0) } else { (31, -1, -1) });
    });
    let transaction =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t"))));
    let (asked, response) = exchange::<InitProducerIdResponse>(api::INIT_PRODUCER_ID, 4, &transaction, true);
    assert_eq!((asked.len(), response.error_code), (0, 53));
    let request = |_| {
        let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![1]);
        DescribeProducersRequest::default().with_topics(vec![topic])
    };
    all_versions(api::DESCRIBE_PRODUCERS, request, |_, granted, _, response: DescribeProducersResponse| {
        let part = &response.topics[0].partitions[0];
        assert_eq!((part.error_code, part.active_producers.len()), (code(granted, 29), usize::from(granted)));
    });
    let request = |_| {
        let topic = DescribableLogDirTopic::default().with_topic(topic_name("t")).with_partitions(vec![1]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    };
    all_versions(api::DESCRIBE_LOG_DIRS, request, |_, granted, _, response: DescribeLogDirsResponse| {
        let topics = &response.results[0].topics;
        assert_eq!(topics.len(), usize::from(granted));
        assert!(topics.iter().all(|topic| topic.partitions[0].partition_size == 400));
    });
}

#[test]
fn a_broker_is_no_controller_and_says_so() {
    for (endpoint, error) in [(1, 0), (2, 114), (3, 115)] {
        let request = DescribeClusterRequest::default().with_endpoint_type(endpoint);
        let (_, response) = exchange::<DescribeClusterResponse>(api::DESCRIBE_CLUSTER, 1, &request, true);
        assert_eq!((response.error_code, response.endpoint_type), (error, 1));
    }
}

#[test]
fn the_cluster_is_described() {
    let request =
        |version| DescribeClusterRequest::default().with_include_cluster_authorized_operations(version == 1);
    all_versions(api::DESCRIBE_CLUSTER, request, |version, _, _, response: DescribeClusterResponse| {
        let told = response.cluster_authorized_operations;
        assert_eq!(told, if version == 1 { 1 << 5 | 1 << 8 | 1 << 10 | 1 << 12 } else { i32::MIN });
        assert_eq!((&*response.cluster_id, response.controller_id.0), ("the-cluster", 3));
        assert_eq!((response.brokers.len(), response.brokers[0].port), (1, 9092));
    });
}
