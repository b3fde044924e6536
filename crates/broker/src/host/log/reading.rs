//! Reads by offset: what is in memory is answered at once, what is not waits for the disk, and what does not exist
//! yet waits for its writer.

use std::ops::Range;

use base::{Block, Bug, planted};
use commitlog::Prefetch;
use model::batch::{COMPRESSED, Encoding};
use model::topic::{Fetched, FetchedBatch};
use model::{Batch, Index, LogRefusal, QueueId, ShardId, batch};
use queue::ChunkAt;

use super::Reading;
use super::converting::{self, Wanted};
use crate::Broker;
use crate::host::entries::{Ahead, find, prefetch};
use crate::log_parcel::{LogReply, ReadCursor, ReadRequest};
use crate::parcel::{Content, Ticket};

/// Batches looked at at once for what is to be read ahead.
const AHEAD: usize = 512;

/// A chunk of a log, apart from the state it was found in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub index: Index,
    pub at: u32,
    pub first: u64,
    pub end: u64,
    pub bytes: usize,
    pub taken_ms: i64,
    pub in_parts: bool,
    /// How many of its offsets were removed.
    pub removed: u64,
    /// Its bytes have records that were removed.
    pub thinned: bool,
}

impl Chunk {
    pub fn of(state: &queue::LogState, chunk: &ChunkAt<'_>) -> Chunk {
        let removed = state.removed_of(chunk);
        Chunk {
            index: chunk.index,
            at: chunk.at,
            first: chunk.first,
            end: chunk.end(),
            bytes: chunk.bytes as usize,
            taken_ms: chunk.taken_ms,
            in_parts: !chunk.parts.is_empty(),
            removed,
            thinned: removed > u64::from(chunk.left_out),
        }
    }
}

/// What one look at a read's cursors found.
struct Look {
    results: Vec<(usize, Result<Fetched, LogRefusal>)>,
    bytes: usize,
    /// Something is being read from disk.
    loading: bool,
    refused: bool,
}

impl Broker {
    /// A door wants to read.
    pub(crate) fn read_logs(&mut self, from: ShardId, ticket: Ticket, request: ReadRequest) {
        let logs = &mut self.host.logs;
        let id = logs.next_reading;
        logs.next_reading += 1;
        logs.deadlines.insert((request.deadline_us, id));
        logs.by_ticket.insert((from, ticket), id);
        logs.readings.insert(id, Reading { from, ticket, request });
        logs.ripe.push_back(id);
    }

    /// The door wants what there is, now.
    pub(crate) fn hurry_read(&mut self, from: ShardId, ticket: Ticket) {
        let logs = &mut self.host.logs;
        let Some(id) = logs.by_ticket.get(&(from, ticket)).copied() else { return };
        if let Some(reading) = logs.readings.get_mut(&id) {
            logs.deadlines.remove(&(reading.request.deadline_us, id));
            reading.request.deadline_us = 0;
            logs.deadlines.insert((0, id));
            logs.ripe.push_back(id);
        }
    }

    /// Nobody waits for this any more.
    pub(crate) fn cancel_log(&mut self, from: ShardId, ticket: Ticket) {
        let logs = &mut self.host.logs;
        if let Some(id) = logs.by_ticket.remove(&(from, ticket)) {
            if let Some(reading) = logs.readings.remove(&id) {
                logs.deadlines.remove(&(reading.request.deadline_us, id));
            }
            return;
        }
        logs.asked.retain(|asked| (asked.from, asked.ticket) != (from, ticket));
        self.cancel_member(from, ticket);
    }

    /// A log has more records: whoever waits for them is looked at again.
    pub(crate) fn log_grown(&mut self, log: QueueId) {
        let logs = &mut self.host.logs;
        if let Some(waiting) = logs.watching.get_mut(&log) {
            logs.ripe.extend(waiting.drain(..));
        }
        logs.followers.wake_all(log);
    }

    /// Something was read from disk.
    pub(crate) fn look_again(&mut self) {
        self.host.logs.compaction.waits_for_disk = false;
        let loading = std::mem::take(&mut self.host.logs.loading);
        self.host.logs.ripe.extend(loading);
        self.host.logs.followers.look_again();
        self.ask_logs_again();
    }

    /// Answers the reads that can be; returns whether any was.
    pub(crate) fn answer_reads(&mut self) -> bool {
        let now = self.now.mono_us;
        while let Some((due, id)) = self.host.logs.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.host.logs.deadlines.remove(&(due, id));
            self.host.logs.ripe.push_back(id);
        }
        let mut any = false;
        for _ in 0..self.host.logs.ripe.len() {
            let Some(id) = self.host.logs.ripe.pop_front() else { break };
            any |= self.look(id);
        }
        any
    }

    /// Looks at one read, and answers it if that is possible.
    fn look(&mut self, id: u64) -> bool {
        let Some(reading) = self.host.logs.readings.remove(&id) else { return false };
        let look = self.look_at(&reading.request);
        let late = reading.request.deadline_us <= self.now.mono_us;
        let enough =
            look.refused || (look.bytes >= reading.request.min_bytes && (look.bytes > 0 || !look.loading));
        if enough || (late && (look.bytes > 0 || !look.loading)) {
            let logs = &mut self.host.logs;
            logs.deadlines.remove(&(reading.request.deadline_us, id));
            logs.by_ticket.remove(&(reading.from, reading.ticket));
            let reply = LogReply::Read(look.results);
            self.post.send(reading.from, Content::LogReplied { ticket: reading.ticket, reply: reply.into() });
            return true;
        }
        self.wait(id, reading, look.loading);
        false
    }

    fn wait(&mut self, id: u64, reading: Reading, loading: bool) {
        let logs = &mut self.host.logs;
        if loading {
            logs.loading.push(id);
        }
        for cursor in &reading.request.cursors {
            let waiting = logs.watching.entry(cursor.log).or_default();
            if !waiting.contains(&id) {
                // Those that were answered meanwhile are not there any more.
                let readings = &logs.readings;
                waiting.retain(|other| readings.contains_key(other));
                waiting.push(id);
            }
        }
        logs.readings.insert(id, reading);
    }

    fn look_at(&mut self, request: &ReadRequest) -> Look {
        let mut look = Look { results: Vec::new(), bytes: 0, loading: false, refused: false };
        for cursor in &request.cursors {
            let room = request.max_bytes.saturating_sub(look.bytes).min(cursor.max_bytes);
            let result = self.read_cursor_at(cursor, room, &mut look);
            look.refused |= result.is_err();
            look.results.push((cursor.position, result));
        }
        look
    }

    /// The batches from a cursor on, as many as fit; one too large for the room is taken where it is the first.
    fn read_cursor_at(
        &mut self,
        cursor: &ReadCursor,
        room: usize,
        look: &mut Look,
    ) -> Result<Fetched, LogRefusal> {
        let at = self.host.by_group.get(&cursor.group).copied().ok_or(LogRefusal::UnknownPartition)?;
        let state = self.host.groups[at].machine.log(cursor.log).ok_or(LogRefusal::UnknownPartition)?;
        let (start, end) = (state.start(), state.end());
        check_epoch(cursor.epoch, state.epoch())?;
        // The planted bug has nobody wait at the end.
        let behind = if planted(Bug::EndIsOutOfRange) { end.max(1) - 1 } else { end };
        if cursor.offset < start || cursor.offset > behind {
            return Err(LogRefusal::OutOfRange(start, end));
        }
        let epoch = state.epoch();
        let mut fetched = Fetched { start, end, batches: Vec::new() };
        let (mut taken, mut missed) = (0, false);
        let mut offset = cursor.offset;
        while let Some(chunk) = self.chunk_from(at, cursor.log, offset) {
            let first = look.bytes + taken == 0;
            if taken + chunk.bytes > room && !first {
                break;
            }
            match self.batch_of(at, cursor.log, &chunk) {
                Some(Ok((block, range))) => {
                    taken += range.len();
                    let base_offset = chunk.first;
                    fetched.batches.push(FetchedBatch { block, range, base_offset, epoch });
                }
                Some(Err(refusal)) if fetched.batches.is_empty() => return Err(refusal),
                Some(Err(_)) => break,
                // The planted bug passes over what is not in memory.
                None if planted(Bug::FetchSkipsUnread) => {}
                None => {
                    missed = true;
                    break;
                }
            }
            // The planted bug passes over one in the middle of an answer.
            let leaps = planted(Bug::FetchLeapsWithin) && fetched.batches.len() == 1;
            let behind = self.chunk_from(at, cursor.log, chunk.end).filter(|_| leaps);
            offset = behind.map_or(chunk.end, |passed_over| passed_over.end);
        }
        look.bytes += taken;
        look.loading |= missed;
        self.read_ahead(at, cursor.log, (cursor.offset, offset), missed);
        Ok(fetched)
    }

    /// The chunk with this offset, or the first behind it.
    pub(super) fn chunk_from(&self, at: usize, log: QueueId, offset: u64) -> Option<Chunk> {
        let state = self.host.groups[at].machine.log(log)?;
        state.chunk(offset).map(|chunk| Chunk::of(state, &chunk))
    }

    /// The Kafka batch of a chunk: as stored, or converted; `None` while it is being read.
    pub(super) fn batch_of(
        &mut self,
        at: usize,
        log: QueueId,
        chunk: &Chunk,
    ) -> Option<Result<(Block, Range<usize>), LogRefusal>> {
        let group = &self.host.groups[at];
        // Two that differ in what was removed of them are not the same.
        let key = (group.id, log, chunk.first, chunk.removed);
        if let Some(block) = self.host.logs.converted.find(&key) {
            let length = block.len();
            return Some(Ok((block, 0..length)));
        }
        if chunk.in_parts {
            let converted = self.parts_of(at, log, chunk)?;
            return Some(converted.map(|bytes| self.keep_converted(key, &bytes)));
        }
        let (block, range) = match self.chunk_bytes(at, log, chunk)? {
            Ok(found) => found,
            Err(refusal) => return Some(Err(refusal)),
        };
        let decoded = match Batch::decode(&block.as_slice()[range.clone()]) {
            Ok(decoded) => decoded,
            Err(broken) => return Some(Err(damaged(broken.0))),
        };
        // The planted bug packs anew what nothing was removed from.
        let is_packed = decoded.summary.flags & COMPRESSED != 0 && planted(Bug::OpenCompressed);
        if decoded.summary.encoding == Encoding::KafkaV2 && !chunk.thinned && !is_packed {
            return Some(Ok((block.clone(), range.start + batch::HEADER..range.end)));
        }
        let state = self.host.groups[at].machine.log(log)?;
        let place = state.chunk(chunk.first)?;
        let keep = |offset: u64| !state.is_removed(&place, offset);
        let converted = converting::to_kafka(&decoded, &self.wanted(log, chunk, &keep));
        Some(converted.map(|bytes| self.keep_converted(key, &bytes)))
    }

    /// The batch of a chunk as it is stored, our own header first; `None` while it is being read.
    pub(super) fn chunk_bytes(
        &mut self,
        at: usize,
        log: QueueId,
        chunk: &Chunk,
    ) -> Option<Result<(Block, Range<usize>), LogRefusal>> {
        let wanted = queue::Wanted { index: chunk.index, at: chunk.at, ordinal: 0 };
        let found = find(self.host.groups[at].bytes(), &mut self.log, log, wanted, Ahead::Nothing)?;
        let range = place_in(&found, chunk.at, chunk.bytes);
        Some(range.map(|range| (found.block, range)))
    }

    /// A reader is at the first of these offsets and has everything below the second, or missed what is there: reads
    /// what comes next in the log, which other logs' batches may lie between.
    pub(super) fn read_ahead(&mut self, at: usize, log: QueueId, place: (u64, u64), missed: bool) {
        let limits = &self.settings.limits;
        let total = (limits.read_bytes_max / 2).min(limits.cache_bytes_max / 8);
        let ahead = &mut self.host.logs.ahead;
        let Some((next, mut room)) = ahead.moved(log, place, missed, (total, self.now.mono_us)) else {
            return;
        };
        let group = &self.host.groups[at];
        let Some(state) = group.machine.log(log) else { return };
        for chunk in state.chunks_from(next).take(AHEAD) {
            if room == 0 || !chunk.parts.is_empty() {
                break;
            }
            let bytes = match prefetch(
                (&group.log, &group.loaded, group.id),
                &mut self.log,
                log,
                (chunk.index, chunk.at),
            ) {
                Prefetch::Known => 0,
                Prefetch::Begun(bytes) => bytes,
                Prefetch::NoRoom => break,
            };
            room = room.saturating_sub(bytes);
            ahead.asked((log, place.0), chunk.end(), bytes);
        }
    }

    fn keep_converted(&mut self, key: super::ConvertedKey, bytes: &[u8]) -> (Block, Range<usize>) {
        let block = self.pool.block(bytes);
        self.host.logs.converted.insert(key, block.clone(), block.capacity());
        (block, 0..bytes.len())
    }

    /// The one row that came in parts, as a batch.
    fn parts_of(&mut self, at: usize, log: QueueId, chunk: &Chunk) -> Option<Result<Vec<u8>, LogRefusal>> {
        let row = match self.row_in_parts(at, log, chunk)? {
            Ok(row) => row,
            Err(refusal) => return Some(Err(refusal)),
        };
        let keep = |_| true;
        Some(converting::row_to_kafka(&row, self.now.wall_ms as i64, &self.wanted(log, chunk, &keep)))
    }

    /// The one row that came in parts; `None` while one of them is being read.
    pub(super) fn row_in_parts(
        &mut self,
        at: usize,
        log: QueueId,
        chunk: &Chunk,
    ) -> Option<Result<Vec<u8>, LogRefusal>> {
        let group = &mut self.host.groups[at];
        let place = group.machine.log(log)?.chunk(chunk.first)?;
        let reader = (log, chunk.first);
        let mut row = Vec::with_capacity(chunk.bytes);
        for part in place.parts {
            let wanted = queue::Wanted { index: Index(part.index), at: part.at, ordinal: 0 };
            let bytes = (&group.log, &mut group.loaded, group.id);
            let found = find(bytes, &mut self.log, log, wanted, Ahead::Entries(reader))?;
            match place_in(&found, part.at, part.len as usize) {
                Ok(range) => row.extend_from_slice(&found.block.as_slice()[range]),
                Err(refusal) => return Some(Err(refusal)),
            }
        }
        group.loaded.served(reader);
        Some(Ok(row))
    }

    fn wanted<'a>(&'a self, log: QueueId, chunk: &Chunk, keep: &'a dyn Fn(u64) -> bool) -> Wanted<'a> {
        let topic = self.topology.topic_of(log).map_or("", |(topic, _)| topic.name.as_str());
        Wanted { base: chunk.first, topic, read_block: self.settings.read_block, keep }
    }
}

/// Where in its block a part of an entry lies that begins at `at` in the entry.
fn place_in(found: &queue::Fetched, at: u32, length: usize) -> Result<Range<usize>, LogRefusal> {
    let within = at.checked_sub(found.entry_at).map(|within| within as usize);
    let within = within.filter(|within| within + length <= found.length as usize);
    let start = found.start as usize + within.ok_or_else(|| damaged("a batch lies outside of its entry"))?;
    if start + length > found.block.len() {
        return Err(damaged("a batch lies outside of its block"));
    }
    Ok(start..start + length)
}

/// What is stored cannot be read.
pub(super) fn damaged(what: &str) -> LogRefusal {
    LogRefusal::Unavailable(format!("damaged: {what}"), false)
}

/// A reader that knows an older leader, or a newer one, is told.
fn check_epoch(known: Option<u32>, current: u32) -> Result<(), LogRefusal> {
    match known {
        Some(known) if known < current => Err(LogRefusal::FencedEpoch),
        Some(known) if known > current => Err(LogRefusal::UnknownEpoch),
        _ => Ok(()),
    }
}
