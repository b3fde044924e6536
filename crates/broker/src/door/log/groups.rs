//! Consumer groups: each has one coordinator, found by its name; offsets are kept by log, not by name.

use model::membership::{Commit, GroupAnswer, GroupDescription, GroupRequest};
use model::topic::PartitionRef;
use model::{ConnId, LogAnswer, LogRefusal, QueueId, ShardId};
use topology::Target;

use crate::Broker;
use crate::log_parcel::CoordinatorQuestion;
use crate::parcel::Content;

/// Bytes of the text a client may commit with an offset.
const METADATA_MAX: usize = 4096;

impl Broker {
    /// A request to the coordinator of a group.
    pub(crate) fn group_request(&mut self, conn: ConnId, token: u64, request: GroupRequest) {
        use CoordinatorQuestion as Question;
        match request {
            GroupRequest::Join(join) => {
                let group = join.group.clone();
                self.ask_one(conn, token, &group, GroupAnswer::Joined(Err(loading())), Question::Join(join));
            }
            GroupRequest::Sync(sync) => {
                let group = sync.who.group.clone();
                self.ask_one(conn, token, &group, GroupAnswer::Synced(Err(loading())), Question::Sync(sync));
            }
            GroupRequest::Heartbeat(who) => {
                let group = who.group.clone();
                self.ask_one(
                    conn,
                    token,
                    &group,
                    GroupAnswer::Done(Err(loading())),
                    Question::Heartbeat(who),
                );
            }
            GroupRequest::Leave { group, members } => {
                let question = Question::Leave { group: group.clone(), members };
                self.ask_one(conn, token, &group, GroupAnswer::Left(Err(loading())), question);
            }
            GroupRequest::Commit(commit) => self.commit(conn, token, commit),
            GroupRequest::Offsets { group, partitions } => self.committed(conn, token, group, partitions),
            GroupRequest::DeleteOffsets { group, partitions } => self.forget(conn, token, group, partitions),
            GroupRequest::Delete(groups) => self.delete_groups(conn, token, groups),
            GroupRequest::List => self.list_groups(conn, token),
            GroupRequest::Describe(groups) => self.describe_groups(conn, token, groups),
        }
    }

    /// The coordinator of a group and the shard that hosts it.
    fn coordinator(&self, group: &str) -> Option<(Target, ShardId)> {
        let all = self.topology.coordinators();
        let slot = base::crc32c(group.as_bytes()) as usize % all.len().max(1);
        self.hosted(*all.get(slot)?)
    }

    fn hosted(&self, target: Target) -> Option<(Target, ShardId)> {
        let at = self.door.by_group.get(&target.group)?;
        Some((target, self.door.outgoing[*at].host))
    }

    fn ask_one(
        &mut self,
        conn: ConnId,
        token: u64,
        group: &str,
        answer: GroupAnswer,
        question: CoordinatorQuestion,
    ) {
        let gather = self.gather(conn, token, LogAnswer::Group(answer));
        self.ask_coordinator(gather, 0, group, question);
        self.gathered(gather);
    }

    fn ask_coordinator(&mut self, gather: u64, position: usize, group: &str, question: CoordinatorQuestion) {
        if let Some((target, host)) = self.coordinator(group) {
            let ticket = self.part(gather, position, host);
            let question = Box::new(question);
            self.post.send(host, Content::Coordinate { target, ticket, question });
        }
    }

    /// The logs of partitions named by a client, `None` where there is no such partition.
    fn logs_of(&mut self, conn: ConnId, partitions: &[PartitionRef]) -> Vec<Option<QueueId>> {
        let log = |at| Some(self.host_of(conn, at).ok()?.1.target.queue);
        partitions.iter().map(log).collect()
    }

    fn commit(&mut self, conn: ConnId, token: u64, commit: Commit) {
        let (partitions, committed): (Vec<_>, Vec<_>) = commit.offsets.into_iter().unzip();
        let logs = self.logs_of(conn, &partitions);
        let mut results = Vec::with_capacity(logs.len());
        let mut offsets = Vec::with_capacity(logs.len());
        for (log, committed) in logs.into_iter().zip(committed) {
            results.push(match log {
                None => Err(LogRefusal::UnknownPartition),
                Some(_) if committed.metadata.len() > METADATA_MAX => Err(LogRefusal::MetadataTooLarge),
                Some(log) => {
                    offsets.push((log, committed));
                    Ok(())
                }
            });
        }
        let group = commit.who.group.clone();
        let gather = self.gather(conn, token, LogAnswer::Group(GroupAnswer::Committed(results)));
        if self.coordinator(&group).is_none() {
            self.log_folded(gather, Err(loading()));
        }
        self.ask_coordinator(gather, 0, &group, CoordinatorQuestion::Commit { who: commit.who, offsets });
        self.gathered(gather);
    }

    /// Puts one outcome in place of every success that was hoped for.
    fn log_folded(&mut self, gather: u64, outcome: Result<(), LogRefusal>) {
        if let Some(gather) = self.door.gathers.get_mut(&gather)
            && let LogAnswer::Group(GroupAnswer::Committed(all)) = &mut gather.answer
        {
            all.iter_mut().filter(|one| one.is_ok()).for_each(|one| *one = outcome.clone());
        }
    }

    fn committed(&mut self, conn: ConnId, token: u64, group: String, wanted: Option<Vec<PartitionRef>>) {
        let asked: Vec<_> = match &wanted {
            Some(partitions) => {
                let logs = self.logs_of(conn, partitions);
                partitions.iter().cloned().zip(logs).collect()
            }
            None => Vec::new(),
        };
        let logs = wanted.is_some().then(|| asked.iter().filter_map(|(_, log)| *log).collect::<Vec<_>>());
        // A coordinator that is not there yet must not look like offsets that were never committed (G4).
        let answer = LogAnswer::Group(GroupAnswer::Offsets(Err(loading())));
        let gather = self.gather(conn, token, answer);
        if let Some(gather) = self.door.gathers.get_mut(&gather) {
            gather.asked = asked;
        }
        let question = CoordinatorQuestion::Offsets { group: group.clone(), logs };
        self.ask_coordinator(gather, 0, &group, question);
        self.gathered(gather);
    }

    fn forget(&mut self, conn: ConnId, token: u64, group: String, partitions: Vec<PartitionRef>) {
        let found = self.logs_of(conn, &partitions);
        let mut results = Vec::with_capacity(found.len());
        let mut logs = Vec::with_capacity(found.len());
        for log in found {
            results.push(log.map(|_| ()).ok_or(LogRefusal::UnknownPartition));
            let topic = log.and_then(|log| self.topology.topic_of(log)).map(|(topic, _)| topic.name.clone());
            logs.extend(log.zip(topic));
        }
        let gather = self.gather(conn, token, LogAnswer::Group(GroupAnswer::Committed(results)));
        if self.coordinator(&group).is_none() {
            self.log_folded(gather, Err(loading()));
        }
        let question = CoordinatorQuestion::Forget { group: group.clone(), logs };
        self.ask_coordinator(gather, 0, &group, question);
        self.gathered(gather);
    }

    fn delete_groups(&mut self, conn: ConnId, token: u64, groups: Vec<String>) {
        let answer = GroupAnswer::Deleted(vec![Err(loading()); groups.len()]);
        let gather = self.gather(conn, token, LogAnswer::Group(answer));
        for (position, group) in groups.into_iter().enumerate() {
            self.ask_coordinator(gather, position, &group, CoordinatorQuestion::Delete(group.clone()));
        }
        self.gathered(gather);
    }

    fn describe_groups(&mut self, conn: ConnId, token: u64, groups: Vec<String>) {
        let unknown = |group: &String| GroupDescription { group: group.clone(), ..Default::default() };
        let answer = GroupAnswer::Groups(groups.iter().map(unknown).collect());
        let gather = self.gather(conn, token, LogAnswer::Group(answer));
        for (position, group) in groups.into_iter().enumerate() {
            self.ask_coordinator(gather, position, &group, CoordinatorQuestion::Describe(group.clone()));
        }
        self.gathered(gather);
    }

    fn list_groups(&mut self, conn: ConnId, token: u64) {
        let gather = self.gather(conn, token, LogAnswer::Group(GroupAnswer::Groups(Vec::new())));
        let all: Vec<_> = self.topology.coordinators().iter().filter_map(|slot| self.hosted(*slot)).collect();
        for (target, host) in all {
            let ticket = self.part(gather, usize::MAX, host);
            let question = Box::new(CoordinatorQuestion::List);
            self.post.send(host, Content::Coordinate { target, ticket, question });
        }
        self.gathered(gather);
    }
}

fn loading() -> LogRefusal {
    LogRefusal::CoordinatorLoading
}
