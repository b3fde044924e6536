//! Reading by offset and asking where offsets are.

use model::topic::{Cursor, Fetch, Fetched, OffsetAt, PartitionRef, TopicRef};
use model::{ConnId, LogAnswer, LogRefusal, ShardId};

use super::partitions::Partition;
use super::unanswered;
use crate::Broker;
use crate::log_parcel::{LogQuestion, ReadCursor, ReadRequest};
use crate::parcel::Content;

/// Bytes of one answer: a client may allow more than is worth holding for it.
const FETCH_BYTES_MAX: usize = 8 << 20;

impl Broker {
    /// Reads from several cursors; the answer waits for enough bytes or the time the reader gave.
    pub(crate) fn fetch(&mut self, conn: ConnId, token: u64, fetch: &Fetch) {
        let mut results: Vec<Result<Fetched, LogRefusal>> = Vec::with_capacity(fetch.cursors.len());
        let mut by_host: Vec<(ShardId, Vec<ReadCursor>)> = Vec::new();
        let mut refused = false;
        for (position, cursor) in fetch.cursors.iter().enumerate() {
            match self.read_cursor(conn, position, cursor) {
                Ok((host, cursor)) => {
                    match by_host.iter_mut().find(|(other, _)| *other == host) {
                        Some((_, cursors)) => cursors.push(cursor),
                        None => by_host.push((host, vec![cursor])),
                    }
                    results.push(Ok(Fetched::default()));
                }
                Err(refusal) => {
                    refused = true;
                    results.push(Err(refusal));
                }
            }
        }
        let gather = self.gather(conn, token, LogAnswer::Fetched(results));
        let max_bytes = (fetch.max_bytes as usize).min(FETCH_BYTES_MAX);
        let min_bytes = if refused { 0 } else { (fetch.min_bytes as usize).min(max_bytes) };
        let wait_us = if by_host.is_empty() { 0 } else { u64::from(fetch.max_wait_ms) * 1000 };
        let deadline_us = self.now.mono_us + wait_us;
        for (host, cursors) in by_host {
            let ticket = self.part(gather, 0, host);
            let request = ReadRequest { cursors, min_bytes, max_bytes, deadline_us };
            self.post.send(host, Content::Read { ticket, request });
        }
        self.gathered(gather);
    }

    fn read_cursor(
        &mut self,
        conn: ConnId,
        position: usize,
        cursor: &Cursor,
    ) -> Result<(ShardId, ReadCursor), LogRefusal> {
        let (host, partition) = self.host_of(conn, &cursor.at)?;
        let (group, log) = (partition.target.group, partition.target.queue);
        let (offset, max_bytes, epoch) = (cursor.offset, cursor.max_bytes as usize, cursor.epoch);
        Ok((host, ReadCursor { position, group, log, offset, max_bytes, epoch }))
    }

    /// The partition and the shard that hosts its group.
    pub(super) fn host_of(
        &mut self,
        conn: ConnId,
        at: &PartitionRef,
    ) -> Result<(ShardId, Partition), LogRefusal> {
        let vhost = self.vhost_of(conn);
        let partition = self.door.partitions.resolve(&self.topology, &vhost, at)?;
        let outgoing = self.door.by_group.get(&partition.target.group);
        let host = outgoing.map(|at| self.door.outgoing[*at].host).ok_or_else(unanswered)?;
        Ok((host, partition.clone()))
    }

    /// Asks each partition's host one question.
    fn ask_logs<'a>(
        &mut self,
        conn: ConnId,
        gather: u64,
        questions: impl Iterator<Item = (usize, &'a PartitionRef, LogQuestion)>,
    ) {
        for (position, at, question) in questions {
            let Ok((host, partition)) = self.host_of(conn, at) else { continue };
            let ticket = self.part(gather, position, host);
            let (group, log) = (partition.target.group, partition.target.queue);
            self.post.send(host, Content::AskLog { group, log, ticket, question });
        }
        self.gathered(gather);
    }

    /// What is said of a partition before its host has answered.
    fn unasked<T>(&mut self, conn: ConnId, at: &PartitionRef) -> Result<T, LogRefusal> {
        Err(self.host_of(conn, at).err().unwrap_or_else(unanswered))
    }

    /// Where offsets are.
    pub(crate) fn offsets(&mut self, conn: ConnId, token: u64, queries: &[(PartitionRef, OffsetAt)]) {
        let answer = queries.iter().map(|(at, _)| self.unasked(conn, at)).collect();
        let gather = self.gather(conn, token, LogAnswer::Offsets(answer));
        let questions = queries.iter().enumerate();
        self.ask_logs(conn, gather, questions.map(|(n, (at, wanted))| (n, at, LogQuestion::Offset(*wanted))));
    }

    /// Where leader epochs end.
    pub(crate) fn epoch_ends(&mut self, conn: ConnId, token: u64, queries: &[(PartitionRef, u32)]) {
        let answer = queries.iter().map(|(at, _)| self.unasked(conn, at)).collect();
        let gather = self.gather(conn, token, LogAnswer::EpochEnds(answer));
        let questions = queries.iter().enumerate();
        self.ask_logs(conn, gather, questions.map(|(n, (at, epoch))| (n, at, LogQuestion::EpochEnd(*epoch))));
    }

    /// Forgets records below offsets.
    pub(crate) fn trim(&mut self, conn: ConnId, token: u64, queries: &[(PartitionRef, u64)]) {
        let answer = queries.iter().map(|(at, _)| self.unasked(conn, at)).collect();
        let gather = self.gather(conn, token, LogAnswer::Trimmed(answer));
        let questions = queries.iter().enumerate();
        self.ask_logs(conn, gather, questions.map(|(n, (at, below))| (n, at, LogQuestion::Trim(*below))));
    }

    fn all_partitions(&self, conn: ConnId) -> Vec<PartitionRef> {
        let vhost = self.vhost_of(conn);
        let topics = self.topology.topics(&vhost);
        let partitions = topics.flat_map(|topic| {
            let name = |partition| PartitionRef {
                topic: TopicRef::Name(topic.name.clone()),
                partition: partition as u32,
            };
            (0..topic.partitions.len()).map(name)
        });
        partitions.collect()
    }

    /// Sizes and producers.
    pub(crate) fn partition_figures(&mut self, conn: ConnId, token: u64, wanted: Option<Vec<PartitionRef>>) {
        let wanted = wanted.unwrap_or_else(|| self.all_partitions(conn));
        let mut answer = Vec::with_capacity(wanted.len());
        for at in &wanted {
            let refusal = self.host_of(conn, at).err().unwrap_or_else(unanswered);
            answer.push(Err((at.clone(), refusal)));
        }
        let gather = self.gather(conn, token, LogAnswer::Partitions(answer));
        let questions = wanted.iter().enumerate();
        self.ask_logs(conn, gather, questions.map(|(n, at)| (n, at, LogQuestion::Figures)));
    }
}
