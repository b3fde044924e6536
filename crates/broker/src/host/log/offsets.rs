//! Questions about one log: where an offset is, where an epoch ends, what may be forgotten, how large it is.

use std::cmp::Reverse;

use base::{Bug, planted};
use model::topic::{FoundOffset, OffsetAt};
use model::{GroupId, LogRefusal, OperationKind, QueueId, ShardId};
use queue::ChunkAt;
use recordbatch::Opened;

use super::AskedLog;
use super::reading::Chunk;
use crate::door::outgoing::{Turn, Waits};
use crate::log_parcel::{LogFigures, LogQuestion, LogReply};
use crate::parcel::{Content, Ticket};
use crate::{Broker, OPENED_BYTES_MAX};

/// Offset and time of a record that was looked for, if there is such; `None` while a batch is being read.
type Sought = Option<Result<Option<(u64, i64)>, LogRefusal>>;

impl Broker {
    /// A question about a log hosted here.
    pub(crate) fn asked_log(
        &mut self,
        from: ShardId,
        (group, log): (GroupId, QueueId),
        ticket: Ticket,
        question: LogQuestion,
    ) {
        let asked = AskedLog { from, group, log, ticket, question };
        let reply = match question {
            LogQuestion::Offset(wanted) => match self.offset_of(group, log, wanted) {
                Some(found) => LogReply::Offset(found),
                None => return self.host.logs.asked.push(asked),
            },
            LogQuestion::EpochEnd(epoch) => LogReply::EpochEnd(self.epoch_end(group, log, epoch)),
            LogQuestion::Trim(below) => match self.trim_log(&asked, below) {
                Some(refusal) => LogReply::Trimmed(Err(refusal)),
                None => return,
            },
            LogQuestion::Figures => LogReply::Figures(self.figures_of(group, log)),
        };
        self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
    }

    /// Something was read from disk: what waited for it is answered.
    pub(super) fn ask_logs_again(&mut self) {
        for asked in std::mem::take(&mut self.host.logs.asked) {
            self.asked_log(asked.from, (asked.group, asked.log), asked.ticket, asked.question);
        }
    }

    fn log_of(&self, group: GroupId, log: QueueId) -> Result<&queue::LogState, LogRefusal> {
        let at = *self.host.by_group.get(&group).ok_or(LogRefusal::UnknownPartition)?;
        self.host.groups[at].machine.log(log).ok_or(LogRefusal::UnknownPartition)
    }

    /// `None` while the batch that has it is being read.
    fn offset_of(
        &mut self,
        group: GroupId,
        log: QueueId,
        wanted: OffsetAt,
    ) -> Option<Result<FoundOffset, LogRefusal>> {
        let state = match self.log_of(group, log) {
            Ok(state) => state,
            Err(refusal) => return Some(Err(refusal)),
        };
        let epoch = state.epoch();
        let at = *self.host.by_group.get(&group)?;
        let found = |offset, timestamp_ms| FoundOffset { offset, timestamp_ms, epoch };
        let sought = match wanted {
            OffsetAt::Earliest => return Some(Ok(found(Some(state.start()), None))),
            OffsetAt::Latest => return Some(Ok(found(Some(state.end()), None))),
            OffsetAt::Timestamp(timestamp) => self.first_of(at, log, timestamp)?,
            OffsetAt::MaxTimestamp => self.latest_of(at, log)?,
        };
        let place = |(offset, timestamp)| found(Some(offset), Some(timestamp));
        Some(sought.map(|sought| sought.map_or(found(None, None), place)))
    }

    /// The first record of this time or a later one.
    fn first_of(&mut self, at: usize, log: QueueId, timestamp: i64) -> Sought {
        let mut from = 0;
        // The record that gives a batch its time may be below the log's start, or removed: then it is a later batch.
        while let Some(chunk) = self.chunk_since(at, log, from, timestamp) {
            match self.first_in(at, log, &chunk, timestamp)? {
                Ok(None) => from = chunk.end,
                found => return Some(found),
            }
        }
        Some(Ok(None))
    }

    /// The first batch from an offset on that has, or had, a record of this time or a later one.
    fn chunk_since(&self, at: usize, log: QueueId, from: u64, timestamp: i64) -> Option<Chunk> {
        let state = self.host.groups[at].machine.log(log)?;
        let found = match from {
            0 => state.chunk_by_time(timestamp),
            _ => state.chunks_from(from).find(|chunk| chunk.timestamp_max >= timestamp),
        };
        found.map(|chunk| Chunk::of(state, &chunk))
    }

    /// The first record of all that are there with the highest time.
    ///
    /// It is in the first batch of the highest time, unless that one's was removed, lies below the start, or came in
    /// parts, when nobody had seen its time: then batches of earlier times are looked at, too.
    fn latest_of(&mut self, at: usize, log: QueueId) -> Sought {
        let (mut latest, mut seen): (Option<(u64, i64)>, _) = (None, None);
        while let Some((chunk, timestamp_max)) = self.next_latest(at, log, seen) {
            if latest.is_some_and(|(_, known)| known >= timestamp_max) {
                break;
            }
            let found = match self.find_in(at, log, &chunk, |opened, from| opened.latest(from))? {
                Ok(found) => found,
                Err(refusal) => return Some(Err(refusal)),
            };
            latest = found.filter(|found| latest.is_none_or(|latest| found.1 > latest.1)).or(latest);
            seen = Some((timestamp_max, Reverse(chunk.first)));
        }
        Some(Ok(latest))
    }

    /// The batch of the highest time, or of the next lower one, with that time.
    fn next_latest(
        &self,
        at: usize,
        log: QueueId,
        seen: Option<(i64, Reverse<u64>)>,
    ) -> Option<(Chunk, i64)> {
        let state = self.host.groups[at].machine.log(log)?;
        let key = |chunk: &ChunkAt<'_>| (chunk.timestamp_max, Reverse(chunk.first));
        let next = match seen {
            // The planted bug takes the last batch for the latest.
            None if planted(Bug::LastIsLatest) => state.chunk(state.end().max(1) - 1),
            None => state.chunk_of_latest(),
            Some(seen) => state.chunks_from(state.start()).filter(|chunk| key(chunk) < seen).max_by_key(key),
        };
        next.map(|chunk| (Chunk::of(state, &chunk), chunk.timestamp_max))
    }

    /// The first record of a batch that is there and of this time or later.
    fn first_in(&mut self, at: usize, log: QueueId, chunk: &Chunk, timestamp: i64) -> Sought {
        self.find_in(at, log, chunk, |opened, from| {
            let first = opened.first_since(from, timestamp);
            // The planted bug takes the one behind it.
            let next = first.filter(|_| planted(Bug::LookUpTakesNext));
            next.and_then(|(delta, _)| opened.first_since(delta + 1, timestamp)).or(first)
        })
    }

    /// The record that is looked for in a batch, from an offset delta on.
    fn find_in(
        &mut self,
        at: usize,
        log: QueueId,
        chunk: &Chunk,
        find: impl Fn(&Opened<'_>, i32) -> Option<(i32, i64)>,
    ) -> Sought {
        let start = self.host.groups[at].machine.log(log)?.start();
        let below = start.saturating_sub(chunk.first);
        let (block, range) = match self.batch_of(at, log, chunk)? {
            Ok(found) => found,
            Err(refusal) => return Some(Err(refusal)),
        };
        let opened = match recordbatch::open(&block.as_slice()[range], OPENED_BYTES_MAX) {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error.into())),
        };
        let found = find(&opened, i32::try_from(below).unwrap_or(i32::MAX));
        Some(Ok(found.map(|(delta, timestamp)| (chunk.first + delta as u64, timestamp))))
    }

    fn epoch_end(&self, group: GroupId, log: QueueId, epoch: u32) -> Result<(u32, u64), LogRefusal> {
        Ok(self.log_of(group, log)?.epoch_end(epoch))
    }

    /// `None`: it is answered once it is applied.
    fn trim_log(&mut self, asked: &AskedLog, below: u64) -> Option<LogRefusal> {
        let state = match self.log_of(asked.group, asked.log) {
            Ok(state) => state,
            Err(refusal) => return Some(refusal),
        };
        let (start, end) = (state.start(), state.end());
        let below = if below == u64::MAX { end } else { below };
        if below > end {
            return Some(LogRefusal::OutOfRange(start, end));
        }
        // Everybody waits for an answer: nothing is left without one, however it came to be so.
        let Some(at) = self.door.by_group.get(&asked.group) else { return Some(LogRefusal::NotYet) };
        let reply = LogReply::Trimmed(Ok(below.max(start)));
        let waits = Waits::Reply { to: asked.from, ticket: asked.ticket, reply: reply.into() };
        let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
        let body = below.to_le_bytes();
        self.door.outgoing[*at].awaited(turn, OperationKind::Trim, asked.log, &body, waits);
        None
    }

    fn figures_of(&self, group: GroupId, log: QueueId) -> Result<LogFigures, LogRefusal> {
        let state = self.log_of(group, log)?;
        let producers = state.producers().collect();
        Ok(LogFigures { start: state.start(), end: state.end(), bytes: state.bytes(), producers })
    }
}
