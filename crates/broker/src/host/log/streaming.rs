//! Consumers of streams: each has a place of its own, and what it is handed stays where it is.
//!
//! Rows are handed out where they stand in their entry's block. What came in another encoding, or in parts, is
//! converted in stretches that all consumers share. A consumer may want only messages with certain values, and passes
//! over the others. Its credit, in messages and bytes, bounds what is under
//! way to it; who has credit and finds nothing waits for the log to grow or for the disk.
//!
//! In: subscriptions, grants, growth. Out: `Handed`. Never: settles anything, remembers a place beyond its consumer.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use base::{Block, Bug, Map, map, planted};
use model::batch::{self, Encoding};
use model::{
    Batch, ConnId, ConsumerId, GroupId, Item, Items, Lane, LogRefusal, Protocol, QueueId, Record, Seq,
    ShardId, StreamFilter, StreamStart, Value,
};
use queue::{ConsumerKey, Handed, LogState, Subscription};

use super::Converted;
use super::converting::{self, Rows};
use super::reading::{Chunk, damaged};
use crate::Broker;
use crate::broker::{Notice, ReadBlock};
use crate::parcel::Content;

/// Bytes one consumer is handed before the others have their turn.
const FEED_BYTES: i64 = 256 << 10;
/// What looking at a batch counts for beside the bytes handed out of it.
const LOOK_BYTES: i64 = 4 << 10;
/// Bytes converted at once: what a small batch unpacks to may be far more than anybody takes of it.
const STRETCH_BYTES: usize = 2 << 20;

/// The header by whose value a writer lets a message be filtered.
const FILTER_VALUE: &str = "x-stream-filter-value";

/// One consumer of a stream.
#[derive(Debug)]
struct Follower {
    lane: Lane,
    group: GroupId,
    log: QueueId,
    /// The offset that is handed out next, or the next behind it that there is.
    next: u64,
    /// Where in the rows of a batch that is: the batch's first offset, the offset, the place in the batch's body.
    place: Option<(u64, u64, usize)>,
    messages: Option<u32>,
    bytes: i64,
    filter: Option<Arc<StreamFilter>>,
    ripe: bool,
}

impl Follower {
    fn has_credit(&self) -> bool {
        self.messages != Some(0) && self.bytes > 0
    }

    fn spend(&mut self, bytes: usize) {
        self.messages = self.messages.map(|messages| messages.saturating_sub(1));
        self.bytes -= bytes as i64;
    }
}

/// All consumers of the streams hosted here.
#[derive(Debug)]
pub(crate) struct Followers {
    by_key: Map<ConsumerKey, Follower>,
    by_log: BTreeSet<(QueueId, ConsumerKey)>,
    /// To be looked at in this turn.
    ripe: VecDeque<ConsumerKey>,
    /// Waiting for the disk.
    loading: BTreeSet<ConsumerKey>,
    converted: Converted<Stretch>,
}

/// Rows that were converted together, shared by all who read them.
#[derive(Clone, Debug)]
struct Stretch {
    block: Block,
    /// As in [`Rows`].
    places: Arc<[(u64, u32)]>,
    end: u64,
}

/// The rows of a batch, or some of them.
enum Found {
    /// All of them, one behind the other, in this part of the block.
    Stored(Block, Range<usize>),
    Converted(Stretch),
}

/// How a look at a consumer's place ended.
enum End {
    /// It has no credit, or there is nothing more.
    Idle,
    /// What comes next is being read.
    Loading,
    /// It goes on when the others have had their turn.
    More,
    /// What comes next cannot be read.
    Broken(LogRefusal),
}

impl Followers {
    pub(super) fn new(seed: u64) -> Followers {
        Followers {
            by_key: map(seed),
            by_log: BTreeSet::new(),
            ripe: VecDeque::new(),
            loading: BTreeSet::new(),
            converted: Converted::new(seed),
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        !self.loading.is_empty()
    }

    /// How many consumers a log has.
    pub(crate) fn count(&self, log: QueueId) -> usize {
        self.by_log.range(all_of(log)).count()
    }

    /// More may be handed to a consumer.
    pub(crate) fn grant(&mut self, key: ConsumerKey, messages: u32, bytes: u32) {
        let Some(follower) = self.by_key.get_mut(&key) else { return };
        follower.messages = follower.messages.map(|credit| credit.saturating_add(messages));
        follower.bytes = follower.bytes.saturating_add(i64::from(bytes));
        self.wake(key);
    }

    /// A consumer goes.
    pub(crate) fn remove(&mut self, key: ConsumerKey) {
        if let Some(follower) = self.by_key.remove(&key) {
            self.by_log.remove(&(follower.log, key));
        }
    }

    /// The log has grown: whoever waits for that is looked at again.
    pub(super) fn wake_all(&mut self, log: QueueId) {
        for (_, key) in self.by_log.range(all_of(log)) {
            wake_one(&mut self.by_key, &mut self.ripe, *key);
        }
    }

    /// Something was read from disk.
    pub(super) fn look_again(&mut self) {
        for key in std::mem::take(&mut self.loading) {
            self.wake(key);
        }
    }

    fn wake(&mut self, key: ConsumerKey) {
        wake_one(&mut self.by_key, &mut self.ripe, key);
    }
}

fn wake_one(by_key: &mut Map<ConsumerKey, Follower>, ripe: &mut VecDeque<ConsumerKey>, key: ConsumerKey) {
    if let Some(follower) = by_key.get_mut(&key)
        && follower.has_credit()
        && !follower.ripe
    {
        follower.ripe = true;
        ripe.push_back(key);
    }
}

/// Everybody who reads this log.
fn all_of(log: QueueId) -> std::ops::RangeInclusive<(QueueId, ConsumerKey)> {
    let key = |shard, conn, consumer| ConsumerKey {
        shard: ShardId(shard),
        conn: ConnId(conn),
        consumer: ConsumerId(consumer),
    };
    (log, key(0, 0, 0))..=(log, key(u16::MAX, u64::MAX, u32::MAX))
}

/// The offset where a new consumer begins; what of it lies below the log's start is passed over later.
fn begin(state: &LogState, start: StreamStart, now_ms: u64) -> u64 {
    let since = |ms: u64| {
        let chunk = state.chunk_by_time(i64::try_from(ms).unwrap_or(i64::MAX));
        chunk.map_or(state.end(), |chunk| chunk.first)
    };
    match start {
        StreamStart::First => state.start(),
        StreamStart::Next => state.end(),
        StreamStart::Last => {
            let newest = state.chunk(state.end().saturating_sub(1));
            // Where the newest records were removed, the last chunk lies before them.
            let last = newest.or_else(|| state.chunks_from(state.start()).last());
            last.map_or(state.end(), |chunk| chunk.first)
        }
        // The planted bug begins one too late.
        StreamStart::Offset(offset) => offset + u64::from(planted(Bug::StreamBeginsBehind)),
        StreamStart::Timestamp(seconds) => since(seconds.saturating_mul(1000)),
        StreamStart::Interval(ms) => since(now_ms.saturating_sub(ms)),
    }
}

impl Broker {
    /// Starts a consumer of a log hosted here.
    pub(crate) fn follow(
        &mut self,
        at: usize,
        log: QueueId,
        with: &Subscription,
        (start, filter): (StreamStart, Option<Arc<StreamFilter>>),
    ) {
        let group = &self.host.groups[at];
        let Some(state) = group.machine.log(log) else { return };
        let follower = Follower {
            lane: with.lane,
            group: group.id,
            log,
            next: begin(state, start, self.now.wall_ms),
            place: None,
            messages: with.messages,
            bytes: with.bytes,
            filter,
            ripe: false,
        };
        let followers = &mut self.host.logs.followers;
        followers.by_key.insert(with.key, follower);
        followers.by_log.insert((log, with.key));
        followers.wake(with.key);
    }

    /// The log is gone: its consumers are told.
    pub(crate) fn revoke_followers(&mut self, log: QueueId) {
        let keys: Vec<_> = self.host.logs.followers.by_log.range(all_of(log)).map(|(_, key)| *key).collect();
        keys.into_iter().for_each(|key| self.revoke_follower(key));
    }

    fn revoke_follower(&mut self, key: ConsumerKey) {
        self.host.logs.followers.remove(key);
        self.post.send(key.shard, Content::Revoked { key });
    }

    /// Hands out what consumers of streams have credit for; returns whether anything moved.
    pub(crate) fn feed_followers(&mut self) -> bool {
        let mut any = false;
        for _ in 0..self.host.logs.followers.ripe.len() {
            let Some(key) = self.host.logs.followers.ripe.pop_front() else { break };
            any |= self.feed(key);
        }
        any
    }

    fn feed(&mut self, key: ConsumerKey) -> bool {
        let Some(mut follower) = self.host.logs.followers.by_key.remove(&key) else { return false };
        follower.ripe = false;
        let mut any = false;
        let end = self.feed_on(key, &mut follower, &mut any);
        let log = follower.log;
        let followers = &mut self.host.logs.followers;
        followers.by_key.insert(key, follower);
        match end {
            End::Idle => any,
            End::Loading => {
                followers.loading.insert(key);
                any
            }
            End::More => {
                followers.wake(key);
                true
            }
            // What is damaged is unknown, not absent: nobody is served past it.
            End::Broken(refusal) => {
                let text = format!("a consumer of stream {log} is cancelled: {refusal:?}");
                self.notices.push_back(Notice::Warn(text));
                self.revoke_follower(key);
                true
            }
        }
    }

    fn feed_on(&mut self, key: ConsumerKey, follower: &mut Follower, any: &mut bool) -> End {
        let Some(at) = self.host.by_group.get(&follower.group).copied() else { return End::Idle };
        let mut left = FEED_BYTES;
        while follower.has_credit() {
            let Some(state) = self.host.groups[at].machine.log(follower.log) else { return End::Idle };
            // What was trimmed meanwhile is not there to be read.
            follower.next = follower.next.max(state.start());
            let Some(chunk) = self.chunk_from(at, follower.log, follower.next) else { return End::Idle };
            if left <= 0 {
                return End::More;
            }
            let found = self.rows_of(at, follower, &chunk);
            self.read_ahead(at, follower.log, (chunk.first, chunk.first), found.is_none());
            let found = match found {
                None => return End::Loading,
                Some(Err(refusal)) => return End::Broken(refusal),
                Some(Ok(found)) => found,
            };
            let handed = match self.hand(at, key, follower, &chunk, (found, left)) {
                Ok(handed) => handed,
                Err(refusal) => return End::Broken(refusal),
            };
            left -= LOOK_BYTES + handed.bytes as i64;
            if !handed.items.is_empty() {
                *any = true;
                let (group, queue) = (follower.group, follower.log);
                self.post.send(key.shard, Content::Handed { group, queue, handed });
            }
        }
        End::Idle
    }

    /// The rows of a chunk from the consumer's place on; `None` while they are being read.
    fn rows_of(
        &mut self,
        at: usize,
        follower: &Follower,
        chunk: &Chunk,
    ) -> Option<Result<Found, LogRefusal>> {
        let (log, next) = (follower.log, follower.next.max(chunk.first));
        // Whoever reads on from the beginning, or from where a stretch ended, finds what others have left there.
        let key = |from| (follower.group, log, chunk.first, from);
        for from in [chunk.first, next] {
            let stretch = self.host.logs.followers.converted.find(&key(from));
            if let Some(stretch) = stretch.filter(|stretch| next < stretch.end) {
                return Some(Ok(Found::Converted(stretch)));
            }
        }
        if chunk.in_parts {
            let row = self.row_in_parts(at, log, chunk)?;
            let rows = |bytes| Rows { bytes, places: vec![(chunk.first, 0)], end: chunk.end };
            return Some(row.map(|row| self.keep_rows(key(chunk.first), rows(row))));
        }
        let (block, range) = match self.chunk_bytes(at, log, chunk)? {
            Ok(found) => found,
            Err(refusal) => return Some(Err(refusal)),
        };
        let decoded = match Batch::decode(&block.as_slice()[range.clone()]) {
            Ok(decoded) => decoded,
            Err(broken) => return Some(Err(damaged(broken.0))),
        };
        if decoded.summary.encoding == Encoding::KafkaV2 {
            return Some(Ok(self.convert_rows(&decoded, chunk, (follower.group, log), next)));
        }
        if decoded.summary.protocol != Protocol::Amqp091 as u8 {
            return Some(Err(damaged("rows of a protocol that writes none")));
        }
        let body = range.start + batch::HEADER..range.end;
        Some(Ok(Found::Stored(block, body)))
    }

    /// Converts what others may have use for too, the beginning, and where that does not reach so far, from `next` on.
    fn convert_rows(
        &mut self,
        batch: &Batch<'_>,
        chunk: &Chunk,
        (group, log): (GroupId, QueueId),
        next: u64,
    ) -> Found {
        let topic = self.topology.topic_of(log).map_or("", |(topic, _)| topic.name.as_str());
        let blocks = (self.settings.read_block, self.settings.write_block);
        let from = |from| {
            let offsets = (chunk.first, from, chunk.end);
            converting::to_rows(batch, offsets, topic, blocks, STRETCH_BYTES)
        };
        let mut begun = chunk.first;
        let (mut rows, mut error) = from(begun);
        if rows.end <= next {
            begun = next;
            (rows, error) = from(begun);
        }
        if let Some(error) = error {
            let first = chunk.first;
            let text =
                format!("stream '{topic}': consumers pass over the batch at offset {first}: {error:?}");
            self.notices.push_back(Notice::Warn(text));
        }
        self.keep_rows((group, log, chunk.first, begun), rows)
    }

    fn keep_rows(&mut self, key: super::ConvertedKey, rows: Rows) -> Found {
        let block = self.pool.block(&rows.bytes);
        let stretch = Stretch { block, places: rows.places.into(), end: rows.end };
        let bytes = stretch.block.capacity() + size_of_val(&*stretch.places);
        self.host.logs.followers.converted.insert(key, stretch.clone(), bytes);
        Found::Converted(stretch)
    }

    /// Takes rows from the consumer's place on for as long as there is credit, and moves its place behind them.
    fn hand(
        &self,
        at: usize,
        key: ConsumerKey,
        follower: &mut Follower,
        chunk: &Chunk,
        (found, left): (Found, i64),
    ) -> Result<Handed, LogRefusal> {
        let state = self.host.groups[at].machine.log(follower.log);
        let place = state.and_then(|state| state.chunk(chunk.first));
        let removed = |offset| {
            chunk.removed > 0
                && state.zip(place).is_some_and(|(state, place)| state.is_removed(&place, offset))
        };
        let (filter, read_block) = (follower.filter.clone(), self.settings.read_block);
        let passed_over = |row: &[u8]| filter.as_ref().is_some_and(|filter| !takes(filter, row, read_block));
        let hidden = |offset, row: &[u8]| removed(offset) || passed_over(row);
        let mut taken = Taken { items: Items::new(), bytes: 0, left: left as u64 };
        let block = match found {
            Found::Stored(block, body) => {
                taken.take_stored(follower, chunk, &block.as_slice()[..body.end], body.start, hidden)?;
                block
            }
            Found::Converted(stretch) => {
                taken.take_converted(follower, &stretch, hidden);
                stretch.block
            }
        };
        let Taken { items, bytes, .. } = taken;
        Ok(Handed { key, lane: follower.lane, settled: false, block, items, bytes })
    }
}

/// Whether a row has a value that the filter takes. What cannot be read has none.
fn takes(filter: &StreamFilter, row: &[u8], read_block: ReadBlock) -> bool {
    let properties = Record::decode(row).ok().and_then(|(record, _)| read_block(record.prefix));
    let value = properties.as_ref().and_then(|properties| properties.headers.get(FILTER_VALUE));
    match value {
        Some(Value::Text(value)) => filter.takes(Some(value)),
        _ => filter.takes(None),
    }
}

/// What one look takes.
struct Taken {
    items: Items,
    bytes: u64,
    left: u64,
}

impl Taken {
    fn has_room(&self, follower: &Follower) -> bool {
        follower.has_credit() && self.bytes < self.left
    }

    /// Looking at what is not handed out takes its time too.
    fn pass_over(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }

    fn push(&mut self, follower: &mut Follower, offset: u64, at: usize, bytes: usize) {
        follower.spend(bytes);
        self.bytes += bytes as u64;
        self.items.push(Item { seq: Seq(offset), at: at as u32, count: 0, redelivered: false });
    }

    /// Walks the rows of a batch, which begin at `start` and end where `bytes` does.
    fn take_stored(
        &mut self,
        follower: &mut Follower,
        chunk: &Chunk,
        bytes: &[u8],
        start: usize,
        hidden: impl Fn(u64, &[u8]) -> bool,
    ) -> Result<(), LogRefusal> {
        let known =
            follower.place.filter(|(first, offset, _)| (*first, *offset) == (chunk.first, follower.next));
        let (mut offset, mut at) = known.map_or((chunk.first, start), |(_, offset, at)| (offset, start + at));
        while at < bytes.len() && self.has_room(follower) {
            let length = bytes.get(at..).and_then(|row| row.first_chunk());
            let length = length.map(|length| u32::from_le_bytes(*length) as usize + 4);
            let length = length.filter(|length| *length <= bytes.len() - at);
            let length = length.ok_or_else(|| damaged("a row ends outside of its batch"))?;
            if offset >= follower.next {
                match hidden(offset, &bytes[at..at + length]) {
                    true => self.pass_over(length),
                    false => self.push(follower, offset, at, length),
                }
            }
            (offset, at) = (offset + 1, at + length);
        }
        let done = at >= bytes.len();
        follower.place = (!done).then_some((chunk.first, offset, at - start));
        follower.next = follower.next.max(if done { chunk.end } else { offset });
        Ok(())
    }

    fn take_converted(
        &mut self,
        follower: &mut Follower,
        stretch: &Stretch,
        hidden: impl Fn(u64, &[u8]) -> bool,
    ) {
        let from = stretch.places.partition_point(|(offset, _)| *offset < follower.next);
        for (number, (offset, at)) in stretch.places.iter().enumerate().skip(from) {
            if !self.has_room(follower) {
                // The planted bug does not come back for the rest.
                follower.next = if planted(Bug::StreamSkipsRest) { stretch.end } else { *offset };
                return;
            }
            let end = stretch.places.get(number + 1).map_or(stretch.block.len(), |(_, at)| *at as usize);
            let at = *at as usize;
            match hidden(*offset, &stretch.block.as_slice()[at..end]) {
                true => self.pass_over(end - at),
                false => self.push(follower, *offset, at, end - at),
            }
        }
        follower.next = follower.next.max(stretch.end);
    }
}
