//! Random use of logs and committed offsets beside the queues.

use ::model::batch::{Encoding, KAFKA_MIN, Producer, Summary};
use ::model::commit::{Commit, CommitOffset, Forget, Forgotten};
use ::model::entry::{COORDINATOR, LOG};
use ::model::{Index, OperationKind, Protocol, QueueId, Replaced, Seq};

use super::super::log_model::{Log, LogBatch};
use super::World;
use crate::{ChunkAt, LogState, Wanted};

/// One falls together with a queue's id in the object tables, one has none near it.
const LOGS: [u64; 3] = [65, 66, 1000];
const COORDINATORS: [u64; 2] = [7, 2000];
const PRODUCERS: u64 = 4;

impl World {
    fn log_id(&mut self) -> u64 {
        *self.prng.pick(&LOGS)
    }

    pub(super) fn some_logs(&mut self) -> Vec<QueueId> {
        let mut logs: Vec<QueueId> = LOGS.into_iter().map(QueueId).collect();
        logs.retain(|_| self.prng.chance(1, 8));
        logs
    }

    pub(super) fn configure_others(&mut self) {
        for (ids, flags) in [(&LOGS[..], LOG), (&COORDINATORS[..], COORDINATOR)] {
            for id in ids {
                let id = QueueId(*id);
                self.propose(|_, entry| entry.operation(OperationKind::Configure, flags, id, b"c"));
            }
        }
    }

    pub(super) fn step_logs(&mut self) {
        match self.prng.below(100) {
            0..2 => self.configure_log(),
            2..50 => self.append_native(),
            50..60 => self.trim(),
            60..68 => self.remove(),
            68..72 => self.rewrite(),
            72..73 => self.delete_other(),
            73..90 => self.commit(),
            90..96 => self.forget(),
            _ => self.read_logs(),
        }
    }

    fn configure_log(&mut self) {
        let id = QueueId(self.log_id());
        let config = self.body();
        self.propose(|_, entry| entry.operation(OperationKind::Configure, LOG, id, &config));
    }

    fn delete_other(&mut self) {
        let id = if self.prng.chance(1, 2) { self.log_id() } else { *self.prng.pick(&COORDINATORS) };
        self.propose(|_, entry| entry.operation(OperationKind::Delete, 0, QueueId(id), &[]));
        let flags = if LOGS.contains(&id) { LOG } else { COORDINATOR };
        self.propose(|_, entry| entry.operation(OperationKind::Configure, flags, QueueId(id), b"again"));
    }

    /// Batches of producers that mostly follow their own numbers, of some that do not, and of none.
    fn append_native(&mut self) {
        self.propose(|world, entry| {
            for _ in 0..1 + world.prng.below(3) {
                let id = if world.prng.chance(1, 30) { world.queue() } else { world.log_id() };
                let summary = world.summary(id);
                let mut body = world.body();
                body.resize(KAFKA_MIN + body.len(), 7);
                entry.append_batch(QueueId(id), &summary, &body);
            }
        });
    }

    fn summary(&mut self, id: u64) -> Summary {
        let count = 1 + self.prng.below(3) as u32;
        let gaps = if self.prng.chance(1, 4) { self.prng.below(70) as u32 } else { 0 };
        let mut summary = Summary {
            encoding: Encoding::KafkaV2,
            count,
            span: count + gaps,
            timestamp_max: self.prng.below(1000) as i64 - 10,
            ..Summary::new(Protocol::Kafka, 1000 * id as i64 + i64::from(gaps))
        };
        if self.prng.chance(3, 4) {
            let producer = self.prng.below(PRODUCERS) as i64;
            let (batch, span) = self.numbers(id, producer, summary.span);
            summary.producer = Some(batch);
            (summary.span, summary.count) = (span, summary.count.min(span));
        }
        summary
    }

    fn numbers(&mut self, id: u64, producer: i64, span: u32) -> (Producer, u32) {
        let choice = self.prng.below(10);
        let log = self.group.logs.get(&id);
        let known = log.and_then(|log| log.expects(producer));
        let (mut epoch, mut first, mut length) = (0, 0, span);
        if let Some((last_epoch, follows)) = known {
            (epoch, first) = (last_epoch, follows);
        }
        match choice {
            0..6 => {}
            6 => first = first.wrapping_add(1 + self.prng.below(3) as i32) & i32::MAX,
            7 => epoch += 1 - self.prng.below(3) as i16,
            8 => (epoch, first) = (epoch + 1, 0),
            _ => {
                let back = self.prng.below(7) as usize;
                let sent = self.group.logs.get(&id).and_then(|log| log.sent(producer, back));
                (epoch, first, length) = sent.unwrap_or((epoch, first, length));
            }
        }
        (Producer { id: producer, epoch, base_sequence: first }, length)
    }

    fn trim(&mut self) {
        let id = self.log_id();
        let (start, end) = self.group.logs.get(&id).map_or((0, 5), |log| (log.start, log.end));
        let bound = match self.prng.below(12) {
            0 => u64::MAX,
            1 => self.prng.below(end + 1),
            _ => start + self.prng.below(6),
        };
        self.propose(|_, entry| entry.operation(OperationKind::Trim, 0, QueueId(id), &bound.to_le_bytes()));
    }

    fn remove(&mut self) {
        let id = self.log_id();
        let mut at = self.group.logs.get(&id).map_or(0, |log| log.start);
        let mut ranges = Vec::new();
        for _ in 0..1 + self.prng.below(5) {
            let first = at + self.prng.below(10);
            let last = first + if self.prng.chance(1, 4) { self.prng.below(80) } else { self.prng.below(3) };
            ranges.push((Seq(first), Seq(last)));
            at = last + 1;
        }
        self.propose(|_, entry| entry.ranges(OperationKind::Drop, 0, QueueId(id), ranges));
    }

    /// Smaller batches in place of some that are there; at times of what is not, or not there any more.
    fn rewrite(&mut self) {
        let id = QueueId(self.log_id());
        self.propose(|world, entry| {
            for _ in 0..1 + world.prng.below(2) {
                let Some((replaced, summary)) = world.rewritten(id) else { return };
                let mut body = world.body();
                body.resize(KAFKA_MIN + body.len(), 7);
                entry.rewrite(id, &replaced, &summary, &body);
            }
        });
    }

    fn rewritten(&mut self, id: QueueId) -> Option<(Replaced, Summary)> {
        let state = self.machine.log(id)?;
        let chunks: Vec<ChunkAt<'_>> = state.chunks_from(0).collect();
        let chunk = chunks.get(self.prng.below(chunks.len().max(1) as u64) as usize)?;
        let left_out = state.removed_of(chunk) as u32;
        let mut replaced = Replaced { first: chunk.first, index: chunk.index, at: chunk.at, left_out };
        let mut summary = Summary {
            encoding: Encoding::KafkaV2,
            count: 1 + self.prng.below(u64::from(chunk.records)) as u32,
            span: chunk.span,
            ..Summary::new(Protocol::Kafka, 0)
        };
        match self.prng.below(20) {
            0 => replaced.first += 1,
            1 => replaced.index.0 -= 1,
            2 => replaced.at = replaced.at.wrapping_sub(1),
            3 => replaced.left_out += 1,
            4 => summary.span += 1,
            5 => (summary.count, summary.span) = (summary.count + 1, summary.span.max(summary.count + 1)),
            _ => replaced.left_out -= self.prng.below(2).min(u64::from(left_out)) as u32,
        }
        Some((replaced, summary))
    }

    fn group_name(&mut self) -> String {
        format!("group-{}", self.prng.below(12))
    }

    fn commit(&mut self) {
        let (id, name) = (QueueId(*self.prng.pick(&COORDINATORS)), self.group_name());
        let text = "m".repeat(self.prng.below(4) as usize);
        let mut offsets = Vec::new();
        for _ in 0..self.prng.below(4) {
            let epoch = self.prng.chance(1, 2).then(|| self.prng.below(1 << 32) as u32);
            let (log, offset) = (QueueId(self.log_id()), self.prng.below(1000));
            offsets.push(CommitOffset { log, offset, epoch, metadata: &text });
        }
        let mut body = Vec::new();
        Commit { group: &name, offsets }.encode(&mut body);
        self.propose(|_, entry| entry.operation(OperationKind::Commit, 0, id, &body));
    }

    fn forget(&mut self) {
        let (id, name) = (QueueId(*self.prng.pick(&COORDINATORS)), self.group_name());
        let what = match self.prng.below(3) {
            0 => Forgotten::Logs(self.some_logs()),
            1 => Forgotten::UnlessSince(u64::MAX),
            _ => Forgotten::UnlessSince(self.group.time_ms.saturating_sub(self.prng.below(1 << 17))),
        };
        let mut body = Vec::new();
        Forget { group: &name, what }.encode(&mut body);
        self.propose(|_, entry| entry.operation(OperationKind::Forget, 0, id, &body));
    }

    pub(super) fn compare_logs(&self) {
        assert!(self.machine.logs().map(|(id, _)| id.0).eq(order(self.group.logs.keys().copied())));
        for (id, log) in &self.group.logs {
            let state = self.machine.log(QueueId(*id)).unwrap();
            assert!(self.machine.queue(QueueId(*id)).is_none());
            assert_eq!(state.config(), log.config);
            assert_eq!((state.start(), state.end()), (log.start, log.end), "log {id}");
            assert_eq!(state.bytes(), log.batches().map(|batch| batch.bytes.len() as u64).sum::<u64>());
            assert_eq!(state.records(), log.batches().map(LogBatch::left).sum::<u64>());
            assert_eq!(state.timestamp_max(), log.timestamp_max());
            assert_eq!(state.epoch_end(3), (0, log.end));
            compare_chunks(state, log);
            compare_times(state, log);
            for producer in state.producers() {
                let expected = log.expects(producer.id as i64).unwrap();
                let follows = (i64::from(producer.last_sequence) + 1) % (1 << 31);
                assert_eq!((producer.epoch, follows), (expected.0, i64::from(expected.1)));
            }
        }
    }

    pub(super) fn compare_offsets(&self) {
        for (id, coordinator) in &self.group.coordinators {
            let state = self.machine.coordinator(QueueId(*id)).unwrap();
            assert_eq!(state.config(), coordinator.config);
            assert!(state.groups().map(|(name, _)| name).eq(coordinator.groups.keys()));
            for (name, (touched, offsets)) in &coordinator.groups {
                let group = state.group(name).unwrap();
                assert_eq!(group.touched_ms(), *touched);
                let plain = |(log, at): (QueueId, &crate::Committed)| {
                    (log.0, (at.offset, at.epoch, at.metadata.to_string(), at.time_ms))
                };
                assert!(group.offsets().map(plain).eq(offsets.iter().map(|(log, at)| (*log, at.clone()))));
            }
            let now = self.machine.time_ms();
            let idle = coordinator.groups.iter().filter(|(_, (touched, _))| now - touched > 100_000);
            assert!(state.idle(now, 100_000).map(|(name, _)| name).eq(idle.map(|(name, _)| name)));
        }
    }

    /// Reads every batch of every log, from entries or from what was kept of them.
    pub(super) fn read_logs(&mut self) {
        for (id, log) in &self.group.logs {
            let state = self.machine.log(QueueId(*id)).unwrap();
            for (chunk, batch) in state.chunks_from(0).zip(log.batches()) {
                assert_eq!(self.read_chunk(*id, &chunk), batch.bytes);
            }
        }
    }

    fn read_chunk(&self, id: u64, chunk: &ChunkAt<'_>) -> Vec<u8> {
        let read = |index: Index, at: u32, length: u32| {
            let found = self.entries[&index.0].fetch(id, Wanted { index, at, ordinal: 0 });
            let within = at - found.entry_at;
            assert!(within + length <= found.length);
            let start = (found.start + within) as usize;
            found.block.as_slice()[start..start + length as usize].to_vec()
        };
        if chunk.parts.is_empty() {
            assert!(self.machine.needs_piece(QueueId(id), chunk.index, chunk.at, 0));
            assert!(self.machine.needs(QueueId(id), chunk.index, chunk.index));
            return read(chunk.index, chunk.at, chunk.bytes);
        }
        chunk.parts.iter().flat_map(|part| read(Index(part.index), part.at, part.len)).collect()
    }
}

/// The order of the object tables.
fn order(ids: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable_by_key(|id| (id % 64, *id));
    ids.into_iter()
}

fn compare_chunks(state: &LogState, log: &Log) {
    let batches: Vec<&LogBatch> = log.batches().collect();
    let plain = |chunk: ChunkAt<'_>| {
        (chunk.first, chunk.end(), (chunk.timestamp_max, chunk.taken_ms), u64::from(chunk.records))
    };
    let expected =
        batches.iter().map(|batch| (batch.first, batch.end(), (batch.timestamp, batch.taken), batch.records));
    assert!(state.chunks_from(0).map(plain).eq(expected));
    for offset in log.start.saturating_sub(2)..log.end + 2 {
        let has = batches.iter().find(|batch| offset < batch.end());
        assert_eq!(state.chunk(offset).map(|chunk| chunk.first), has.map(|batch| batch.first));
    }
    for (chunk, batch) in state.chunks_from(0).zip(&batches) {
        assert_eq!(chunk.parts.is_empty(), !batch.in_parts);
        let place = (chunk.index.0, chunk.at, chunk.left_out);
        assert!(batch.in_parts || place == (batch.entries[0], batch.at, batch.left_out));
        assert_eq!(state.has_removed(&chunk), batch.removed.contains(&true));
        for (offset, removed) in (batch.first..).zip(&batch.removed) {
            assert_eq!(state.is_removed(&chunk, offset), *removed);
        }
        assert!(!state.is_removed(&chunk, batch.end()));
    }
}

fn compare_times(state: &LogState, log: &Log) {
    for timestamp in [i64::MIN, -10, 0, 300, 600, 900, 989, i64::MAX] {
        let first = log.batches().find(|batch| batch.timestamp >= timestamp).map(|batch| batch.first);
        assert_eq!(state.chunk_by_time(timestamp).map(|chunk| chunk.first), first);
    }
    let highest = log.batches().map(|batch| batch.timestamp).max();
    let first = log.batches().find(|batch| Some(batch.timestamp) == highest).map(|batch| batch.first);
    assert_eq!(state.chunk_of_latest().map(|chunk| chunk.first), first);
}
