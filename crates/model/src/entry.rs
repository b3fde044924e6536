//! An entry: what one step proposes to one group, and the payload of one Raft entry.
//!
//! ```text
//! entry      0 format u8 = 1   1 flags u8 = 0    2 machine version u16   4 operation count u32
//!            8 group time u64 (ms)              16 group epoch u32      20 reserve (12 bytes)
//!           32 operations
//! operation  0 kind u8         1 flags u8        2 reserve u16           4 body length u32
//!            8 object u64      16 origin u64    24 origin sequence u64
//!           32 body
//! ```
//! Numbers are little endian. Bodies by kind:
//!
//! | kind | body |
//! | --- | --- |
//! | 1 append | with FANOUT: queue count u32 and that many queue ids u64 (the object is the first of them); then a batch. With PARTS: no batch, the one row is what the PART operations of this origin directly before carried |
//! | 2 settle | ranges: pairs of varints, distance of the first from the end of the pair before, and length - 1 |
//! | 3 return | ranges; with COUNT the delivery count of each rises |
//! | 4 hand out | u64: messages below this place may be delivered from now on |
//! | 5 drop | ranges (purge of a queue, compaction of a log); the answer is how many were there |
//! | 6 configure | the object's configuration, opaque here; creates the object: a queue, with LOG a log, with COORDINATOR the committed offsets of consumer groups |
//! | 7 delete | nothing; the answer is how many messages or records went with it |
//! | 8 part | bytes of a row too large for one entry |
//! | 9 topology | a command of the metadata group, opaque here |
//! | 10 trim | u64: what a log has below this offset is forgotten; the answer is the log's first offset then |
//! | 11 commit | offsets of a consumer group: see `commit` |
//! | 12 forget | which offsets of a consumer group go: see `commit` |
//! | 13 rewrite | a batch that stands in place of one of a log, without what was removed: see `rewrite` |

use base::{BlockBuilder, Pool, Put, Reader, Short};

use crate::batch::{self, Encoding, Summary};
use crate::record::Damaged;
use crate::rewrite::Replaced;
use crate::{Batch, OpSequence, Origin, QueueId, Record, Seq};

/// Bytes of the entry header.
pub const ENTRY_HEADER: usize = 32;
/// Bytes of an operation header.
pub const OPERATION_HEADER: usize = 32;
/// The machine version written and the highest understood.
pub const MACHINE_VERSION: u16 = 1;
const FORMAT: u8 = 1;

/// Append: the body begins with several queue ids.
pub const FANOUT: u8 = 1;
/// Append: everything up to and with this batch may be delivered once committed.
pub const HAND_OUT: u8 = 2;
/// Append: the row came in parts.
pub const PARTS: u8 = 4;
/// Return: counts as a failed delivery.
pub const COUNT: u8 = 1;
/// Configure: creates a log.
pub const LOG: u8 = 1;
/// Configure: creates a coordinator's committed offsets.
pub const COORDINATOR: u8 = 2;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // Drawn at the head of this file.
pub enum OperationKind {
    Append = 1,
    Settle = 2,
    Return = 3,
    HandOut = 4,
    Drop = 5,
    Configure = 6,
    Delete = 7,
    Part = 8,
    Topology = 9,
    Trim = 10,
    Commit = 11,
    Forget = 12,
    Rewrite = 13,
}

impl OperationKind {
    fn from_byte(byte: u8) -> Option<OperationKind> {
        use OperationKind::*;
        let all = [
            Append, Settle, Return, HandOut, Drop, Configure, Delete, Part, Topology, Trim, Commit, Forget,
            Rewrite,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One operation, borrowed from its entry.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What it does.
    pub kind: OperationKind,
    /// See the constants of this module.
    pub flags: u8,
    /// The queue (or other object) it is for.
    pub object: QueueId,
    /// Who numbered it.
    pub origin: Origin,
    /// Its number.
    pub sequence: OpSequence,
    /// Where `body` begins in the entry.
    pub at: usize,
    /// The rest.
    pub body: &'a [u8],
}

impl<'a> Operation<'a> {
    /// The queues an append is for, and its batch with the batch's place in the entry; no batch with PARTS.
    #[inline]
    pub fn append(&self) -> Result<(Queues<'a>, Option<(usize, Batch<'a>)>), Damaged> {
        let mut body = Reader::new(self.body);
        let more = if self.flags & FANOUT != 0 {
            let count = body.u32_le()? as usize;
            body.bytes(count.checked_mul(8).ok_or(Damaged("too many queues"))?)?
        } else {
            &[]
        };
        let queues = Queues { first: self.object, more };
        if self.flags & PARTS != 0 {
            return Ok((queues, None));
        }
        let at = self.at + self.body.len() - body.rest().len();
        Ok((queues, Some((at, Batch::decode(body.rest())?))))
    }

    /// Whether this appends one batch as it came: an operation that has an answer of its own.
    pub fn is_native_append(&self) -> bool {
        let plain = self.kind == OperationKind::Append && self.flags & (FANOUT | PARTS) == 0;
        plain && self.body.get(1) == Some(&(Encoding::KafkaV2 as u8))
    }

    /// The ranges of a settle, return or drop.
    pub fn ranges(&self) -> Ranges<'a> {
        Ranges { body: Reader::new(self.body), end: 0 }
    }
}

/// The queues of one append.
#[derive(Clone, Copy, Debug)]
pub struct Queues<'a> {
    first: QueueId,
    more: &'a [u8],
}

impl<'a> Queues<'a> {
    /// Each queue once.
    pub fn iter(&self) -> impl Iterator<Item = QueueId> + use<'a> {
        let single = self.more.is_empty().then_some(self.first);
        let listed = self.more.as_chunks::<8>().0.iter().map(|id| QueueId(u64::from_le_bytes(*id)));
        single.into_iter().chain(listed)
    }
}

/// Inclusive ranges of places in a queue.
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    body: Reader<'a>,
    end: u64,
}

impl Iterator for Ranges<'_> {
    type Item = Result<(Seq, Seq), Damaged>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.body.is_empty() {
            return None;
        }
        Some(self.read().map_err(|Short| Damaged("a range ends early")))
    }
}

impl Ranges<'_> {
    #[inline]
    fn read(&mut self) -> Result<(Seq, Seq), Short> {
        let first = self.end.checked_add(self.body.varint()?).ok_or(Short)?;
        let last = first.checked_add(self.body.varint()?).ok_or(Short)?;
        self.end = last.checked_add(1).ok_or(Short)?;
        Ok((Seq(first), Seq(last)))
    }
}

/// A stored entry, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The machine version its commands need.
    pub machine_version: u16,
    /// The time it was stamped with, milliseconds since 1970.
    pub time_ms: u64,
    /// The group's epoch.
    pub epoch: u32,
    /// How many operations follow.
    pub count: u32,
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the header.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Damaged> {
        let mut header = Reader::new(bytes);
        if header.u8()? != FORMAT || header.u8()? != 0 {
            return Err(Damaged("an entry has an unknown format or flags"));
        }
        let machine_version = header.u16_le()?;
        let count = header.u32_le()?;
        let time_ms = header.u64_le()?;
        let epoch = header.u32_le()?;
        header.bytes(12)?;
        Ok(Entry { machine_version, time_ms, epoch, count, bytes })
    }

    /// The operations in order.
    pub fn operations(&self) -> Operations<'a> {
        Operations { bytes: self.bytes, at: ENTRY_HEADER }
    }

    /// What the operations are for, in order: read ahead of them to ask for its memory. Ends where the entry is damaged.
    pub fn objects(&self) -> impl Iterator<Item = QueueId> + use<'a> {
        let mut rest = self.bytes.get(ENTRY_HEADER..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (header, behind) = rest.split_first_chunk::<OPERATION_HEADER>()?;
            let mut header = Reader::new(&header[4..]);
            let length = header.u32_le().ok()? as usize;
            rest = behind.get(length..)?;
            header.u64_le().ok().map(QueueId)
        })
    }
}

/// Iterates over the operations of an entry.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>, Damaged>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.at = self.bytes.len();
        }
        Some(read)
    }
}

impl<'a> Operations<'a> {
    #[inline]
    fn read(&mut self) -> Result<Operation<'a>, Damaged> {
        let rest = &self.bytes[self.at..];
        let (header, rest) =
            rest.split_first_chunk::<OPERATION_HEADER>().ok_or(Damaged("an operation ends early"))?;
        let mut reader = Reader::new(header);
        let kind = OperationKind::from_byte(reader.u8()?).ok_or(Damaged("an operation of unknown kind"))?;
        let flags = reader.u8()?;
        reader.u16_le()?;
        let length = reader.u32_le()? as usize;
        let object = QueueId(reader.u64_le()?);
        let origin = Origin(reader.u64_le()?);
        let sequence = OpSequence(reader.u64_le()?);
        let at = self.at + OPERATION_HEADER;
        let body = rest.get(..length).ok_or(Damaged("an operation ends early"))?;
        self.at = at + length;
        Ok(Operation { kind, flags, object, origin, sequence, at, body })
    }
}

/// An entry being filled by one origin, one per group and step.
#[derive(Debug)]
pub struct EntryBuilder {
    block: BlockBuilder,
    count: u32,
    origin: Origin,
    next: OpSequence,
    open: Option<OpenBatch>,
}

#[derive(Debug)]
struct OpenBatch {
    operation_at: usize,
    batch_at: usize,
    flags: u8,
    summary: Summary,
}

impl EntryBuilder {
    /// An empty entry whose first operation gets the number `next`.
    pub fn new(pool: &Pool, capacity: usize, origin: Origin, next: OpSequence) -> EntryBuilder {
        let mut block = pool.builder(capacity.max(ENTRY_HEADER));
        block.put(&[0; ENTRY_HEADER]);
        EntryBuilder { block, count: 0, origin, next, open: None }
    }

    /// Bytes so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// True without operations.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number the next new operation would get.
    #[inline]
    pub fn next_sequence(&self) -> OpSequence {
        self.next
    }

    /// Adds a record for `queues` (at least one) and returns the number of the operation it went into: that of
    /// the record before where that had the same queues.
    #[inline]
    pub fn append(
        &mut self,
        queues: &[QueueId],
        hand_out: bool,
        ingest_ms: i64,
        record: &Record<'_>,
    ) -> OpSequence {
        let flags = if hand_out { HAND_OUT } else { 0 } | if queues.len() > 1 { FANOUT } else { 0 };
        if !self.continues(queues, flags) {
            self.begin_batch(queues, flags, ingest_ms, record);
        }
        let before = self.block.len();
        record.encode(&mut self.block);
        let encoded = self.block.len() - before;
        if let Some(open) = &mut self.open {
            open.summary.add(record, encoded);
        }
        OpSequence(self.next.0 - 1)
    }

    #[inline]
    fn continues(&self, queues: &[QueueId], flags: u8) -> bool {
        let Some(open) = &self.open else { return false };
        if open.flags != flags {
            return false;
        }
        let operation = &self.block.as_slice()[open.operation_at..];
        if let [queue] = queues {
            return operation[8..16] == queue.0.to_le_bytes();
        }
        let listed = &operation[OPERATION_HEADER..open.batch_at - open.operation_at];
        listed[..4] == (queues.len() as u32).to_le_bytes()
            && listed[4..]
                .as_chunks::<8>()
                .0
                .iter()
                .zip(queues)
                .all(|(id, queue)| *id == queue.0.to_le_bytes())
    }

    fn begin_batch(&mut self, queues: &[QueueId], flags: u8, ingest_ms: i64, record: &Record<'_>) {
        let operation_at = self.begin(OperationKind::Append, flags, queues[0]);
        self.put_queues(queues);
        let batch_at = self.block.len();
        self.block.extend(batch::HEADER);
        let summary = Summary::new(record.protocol, ingest_ms);
        self.open = Some(OpenBatch { operation_at, batch_at, flags, summary });
    }

    fn put_queues(&mut self, queues: &[QueueId]) {
        if queues.len() > 1 {
            self.block.put_u32_le(queues.len() as u32);
            for queue in queues {
                self.block.put_u64_le(queue.0);
            }
        }
    }

    /// Adds an append of one batch as it came, which is an operation of its own.
    pub fn append_batch(&mut self, queue: QueueId, summary: &Summary, body: &[u8]) -> OpSequence {
        let at = self.begin(OperationKind::Append, 0, queue);
        self.put_batch(summary, body);
        self.finish(at)
    }

    fn put_batch(&mut self, summary: &Summary, body: &[u8]) {
        let mut header = [0; batch::HEADER];
        summary.encode(&mut header, body);
        self.block.put(&header);
        self.block.put(body);
    }

    /// Adds a batch that stands in place of one that the log has.
    pub fn rewrite(
        &mut self,
        log: QueueId,
        replaced: &Replaced,
        summary: &Summary,
        body: &[u8],
    ) -> OpSequence {
        let at = self.begin(OperationKind::Rewrite, 0, log);
        self.block.put(&replaced.encode());
        self.put_batch(summary, body);
        self.finish(at)
    }

    /// Adds an append whose row the part operations directly before carried.
    pub fn append_parts(&mut self, queues: &[QueueId], hand_out: bool) -> OpSequence {
        let flags = PARTS | if hand_out { HAND_OUT } else { 0 } | if queues.len() > 1 { FANOUT } else { 0 };
        let at = self.begin(OperationKind::Append, flags, queues[0]);
        self.put_queues(queues);
        self.finish(at)
    }

    /// Adds a settle, return or drop of ascending, separate, inclusive ranges.
    pub fn ranges(
        &mut self,
        kind: OperationKind,
        flags: u8,
        queue: QueueId,
        ranges: impl IntoIterator<Item = (Seq, Seq)>,
    ) -> OpSequence {
        let at = self.begin(kind, flags, queue);
        let mut end = 0;
        for (first, last) in ranges {
            assert!(first.0 >= end && last >= first, "ranges ascend and do not overlap");
            self.block.put_varint(first.0 - end);
            self.block.put_varint(last.0 - first.0);
            end = last.0 + 1;
        }
        self.finish(at)
    }

    /// Adds an operation with an opaque body.
    pub fn operation(&mut self, kind: OperationKind, flags: u8, object: QueueId, body: &[u8]) -> OpSequence {
        let at = self.begin(kind, flags, object);
        self.block.put(body);
        self.finish(at)
    }

    /// Copies the operations of a sealed entry of another origin behind these.
    pub fn merge(&mut self, other: &[u8], count: u32) {
        self.close_batch();
        self.block.put(&other[ENTRY_HEADER..]);
        self.count += count;
    }

    fn begin(&mut self, kind: OperationKind, flags: u8, object: QueueId) -> usize {
        self.close_batch();
        let at = self.block.len();
        let mut header = [0; OPERATION_HEADER];
        header[0] = kind as u8;
        header[1] = flags;
        header[8..16].copy_from_slice(&object.0.to_le_bytes());
        header[16..24].copy_from_slice(&self.origin.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.next.0.to_le_bytes());
        self.block.put(&header);
        self.next.0 += 1;
        self.count += 1;
        at
    }

    /// Notes how long the newest operation has become and returns its number.
    fn finish(&mut self, at: usize) -> OpSequence {
        let length = (self.block.len() - at - OPERATION_HEADER) as u32;
        self.block.as_mut_slice()[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
        OpSequence(self.next.0 - 1)
    }

    fn close_batch(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.finish(open.operation_at);
        let (header, body) = self.block.as_mut_slice()[open.batch_at..].split_at_mut(batch::HEADER);
        if let Some(header) = header.first_chunk_mut() {
            open.summary.encode(header, body);
        }
    }

    /// Writes the header and seals the entry.
    pub fn seal(mut self, time_ms: u64, epoch: u32) -> base::Block {
        self.close_batch();
        let count = self.count;
        let header = &mut self.block.as_mut_slice()[..ENTRY_HEADER];
        header.fill(0);
        header[0] = FORMAT;
        header[2..4].copy_from_slice(&MACHINE_VERSION.to_le_bytes());
        header[4..8].copy_from_slice(&count.to_le_bytes());
        header[8..16].copy_from_slice(&time_ms.to_le_bytes());
        header[16..20].copy_from_slice(&epoch.to_le_bytes());
        self.block.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn record(body: &[u8]) -> Record<'_> {
        Record { routing_key: "q", prefix: &[0, 0], body: Some(body), ..Record::bare(Protocol::Amqp091) }
    }

    fn builder() -> EntryBuilder {
        EntryBuilder::new(&Pool::default(), 0, Origin(7), OpSequence(1))
    }

    #[test]
    fn the_drawing_holds() {
        let mut entry = builder();
        entry.ranges(OperationKind::Settle, 0, QueueId(3), [(Seq(5), Seq(6)), (Seq(9), Seq(9))]);
        let block = entry.seal(0x0102, 4);
        #[rustfmt::skip]
        let golden = [
            1, 0, 1, 0, 1, 0, 0, 0,  2, 1, 0, 0, 0, 0, 0, 0,  4, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 4, 0, 0, 0,  3, 0, 0, 0, 0, 0, 0, 0,  7, 0, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0, 0, 0, 0, 0,
            5, 1, 2, 0,
        ];
        assert_eq!(block.as_slice(), golden);
        let entry = Entry::decode(&golden).unwrap();
        assert_eq!((entry.count, entry.time_ms, entry.epoch), (1, 0x0102, 4));
        let operation = entry.operations().next().unwrap().unwrap();
        let ranges: Result<Vec<_>, _> = operation.ranges().collect();
        assert_eq!(ranges, Ok(vec![(Seq(5), Seq(6)), (Seq(9), Seq(9))]));
    }

    #[test]
    fn the_drawing_of_a_batch_holds() {
        let mut entry = builder();
        entry.append(&[QueueId(3)], true, 1000, &record(b"hi"));
        let block = entry.seal(0, 0);
        let batch = &block.as_slice()[64..];
        #[rustfmt::skip]
        let golden = [
            1, 0, 0, 0, 96, 0, 1, 0,  25, 0, 0, 0, 0x80, 0x6a, 0x74, 0xae,  1, 0, 0, 0, 1, 0, 0, 0,
            0xe8, 3, 0, 0, 0, 0, 0, 0,  0xe8, 3, 0, 0, 0, 0, 0, 0,  0xe8, 3, 0, 0, 0, 0, 0, 0,
            255, 255, 255, 255, 255, 255, 255, 255,  255, 255, 0, 0, 255, 255, 255, 255,
            0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,  25, 0, 0, 0, 25, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
            21, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'q', 0, 0, b'h', b'i',
        ];
        assert_eq!(batch, golden);
        assert!(Batch::decode(&golden).unwrap().is_intact());
    }

    #[test]
    fn neighbours_for_the_same_queues_share_a_batch() {
        let mut entry = builder();
        let (a, b) = ([QueueId(1)], [QueueId(1), QueueId(2)]);
        let numbers: Vec<u64> = [&a[..], &a, &b, &b, &a]
            .iter()
            .map(|queues| entry.append(queues, false, 0, &record(b"x")).0)
            .collect();
        assert_eq!(numbers, [1, 1, 2, 2, 3]);
        let block = entry.seal(0, 0);
        let entry = Entry::decode(block.as_slice()).unwrap();
        let shapes: Vec<(Vec<u64>, u32)> = entry
            .operations()
            .map(|operation| {
                let (queues, batch) = operation.unwrap().append().unwrap();
                let (at, batch) = batch.unwrap();
                assert_eq!(Batch::decode(&block.as_slice()[at..][..96 + batch.body.len()]).unwrap(), batch);
                assert!(batch.is_intact() && batch.records().all(|r| r.unwrap().1.body == Some(b"x")));
                (queues.iter().map(|q| q.0).collect(), batch.summary.count)
            })
            .collect();
        assert_eq!(shapes, [(vec![1], 2), (vec![1, 2], 2), (vec![1], 1)]);
    }

    #[test]
    fn a_batch_as_it_came_is_an_operation_of_its_own() {
        let summary =
            Summary { encoding: Encoding::KafkaV2, count: 2, span: 5, ..Summary::new(Protocol::Kafka, 7) };
        let body = [3; batch::KAFKA_MIN];
        let mut entry = builder();
        entry.append(&[QueueId(1)], false, 0, &record(b"x"));
        assert_eq!(entry.append_batch(QueueId(1), &summary, &body), OpSequence(2));
        assert_eq!(entry.append_batch(QueueId(1), &summary, &body), OpSequence(3));
        assert_eq!(entry.append(&[QueueId(1)], false, 0, &record(b"x")), OpSequence(4));
        let block = entry.seal(0, 0);
        let operations = Entry::decode(block.as_slice()).unwrap().operations().map(Result::unwrap);
        let native: Vec<bool> = operations.clone().map(|operation| operation.is_native_append()).collect();
        assert_eq!(native, [false, true, true, false]);
        for operation in operations.filter(Operation::is_native_append) {
            let (queues, batch) = operation.append().unwrap();
            let (at, batch) = batch.unwrap();
            assert_eq!((at, batch.body, batch.summary), (operation.at, &body[..], summary));
            assert!(queues.iter().eq([QueueId(1)]));
        }
    }

    #[test]
    fn merging_keeps_foreign_operations_whole() {
        let mut other = EntryBuilder::new(&Pool::default(), 0, Origin(9), OpSequence(5));
        other.append(&[QueueId(4)], false, 0, &record(b"y"));
        let other = other.seal(0, 0);
        let mut entry = builder();
        entry.append(&[QueueId(4)], false, 0, &record(b"x"));
        entry.merge(other.as_slice(), 1);
        let block = entry.seal(0, 0);
        let origins: Vec<_> = Entry::decode(block.as_slice())
            .unwrap()
            .operations()
            .map(|o| o.map(|o| (o.origin.0, o.sequence.0)).unwrap())
            .collect();
        assert_eq!(origins, [(7, 1), (9, 5)]);
    }
}
