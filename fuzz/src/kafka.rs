//! A session of readers by offset with a broker of a few lines behind it: every question is answered, at once or
//! later, granted or refused as the dice have it.

use std::io::IoSlice;
use std::sync::Arc;

use base::{Now, Pool, Prng, SendBuffer};
use model::membership::{GroupAnswer, GroupDescription, GroupRequest, Joined, Synced};
use model::topic::{
    Appended, Fetched, FetchedBatch, FoundOffset, LogRefusal, PartitionFigures, Topic, TopicsWanted,
};
use model::{Event, Limits, LogAnswer, LogRequest, QueueId, Request};
use proto_kafka::wire::{api, frame};
use proto_kafka::{Product, Session, Step};

/// A session and both its sides.
pub struct KafkaTalk {
    session: Session,
    out: SendBuffer,
    unread: Vec<u8>,
    unsaid: Vec<Event>,
    dice: Prng,
    pool: Pool,
    /// The broker keeps its answers to itself until [`KafkaTalk::say`].
    pub silent: bool,
    /// Bytes given to the session so far.
    pub fed: usize,
    /// Whole responses heard so far.
    pub responses: usize,
}

impl KafkaTalk {
    /// A connection that was just accepted.
    pub fn new(seed: u64) -> KafkaTalk {
        let product = Product { cluster_id: "c".into(), node_id: 1, version: "1".into() };
        let limits = Limits { message_bytes_max: 64 << 10, ..Limits::default() };
        let advertised = ("localhost".to_owned(), 9092);
        KafkaTalk {
            session: Session::new(Arc::new(limits), Arc::new(product), advertised, seed, Now::default()),
            out: SendBuffer::default(),
            unread: Vec::new(),
            unsaid: Vec::new(),
            dice: Prng::new(seed),
            pool: Pool::default(),
            silent: false,
            fed: 0,
            responses: 0,
        }
    }

    /// Whether the connection is over.
    pub fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    /// Gives the session bytes and does all that follows.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.fed += bytes.len();
        loop {
            let (used, step) = self.session.receive(&self.unread, &mut self.out);
            let go_on = match step {
                Step::Request(request) => {
                    let answered = answer(&request, &mut self.dice, &self.pool);
                    self.unsaid.extend(answered);
                    true
                }
                Step::More | Step::End => false,
                Step::Waiting => !self.silent && !self.unsaid.is_empty(),
            };
            self.unread.drain(..used);
            if !self.silent {
                self.say();
            }
            if !go_on {
                break;
            }
        }
        self.hear();
    }

    /// Lets the broker say what it has to say, in any order.
    pub fn say(&mut self) {
        while !self.unsaid.is_empty() {
            let at = self.dice.below(self.unsaid.len() as u64) as usize;
            let event = self.unsaid.swap_remove(at);
            self.session.on_event(&event, &mut self.out);
            while let Some(request) = self.session.poll_request(&mut self.out) {
                self.unsaid.extend(answer(&request, &mut self.dice, &self.pool));
            }
        }
        self.session.flush(&mut self.out);
        self.hear();
    }

    /// The connection breaks, or the node goes away first.
    pub fn end(&mut self, orderly: bool) {
        if orderly {
            self.session.shutdown(&mut self.out);
            self.say();
            assert!(self.session.is_ended(), "all is answered and the session goes on");
        }
        self.session.abandon();
        while self.session.poll_request(&mut self.out).is_some() {}
        self.hear();
    }

    /// What was sent must be whole responses, or the empty frame of the oldest login.
    fn hear(&mut self) {
        let mut heard = Vec::new();
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = self.out.slices(&mut slices);
            let before = heard.len();
            slices[..filled].iter().for_each(|slice| heard.extend_from_slice(slice));
            self.out.advance(heard.len() - before);
        }
        let mut rest = &heard[..];
        while !rest.is_empty() {
            let size = frame::size_of(rest).expect("a whole size") as usize;
            assert!(size == 0 || size >= 4, "a response has a correlation");
            rest = &rest[4 + size..];
            self.responses += 1;
        }
    }
}

/// One request frame of a kind and version that is understood, around these fields.
pub fn request(kind: u8, version: u8, fields: &[u8], out: &mut Vec<u8>) {
    let known = api::APIS[usize::from(kind) % api::APIS.len()];
    let version = known.min + i16::from(version) % (known.max - known.min + 1);
    let tags = usize::from(known.is_flexible(version));
    let size = (10 + tags + fields.len()) as u32;
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&known.key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff]);
    out.resize(out.len() + tags, 0);
    out.extend_from_slice(fields);
}

fn answer(request: &Request<'_>, dice: &mut Prng, pool: &Pool) -> Option<Event> {
    Some(match request {
        Request::Anonymous | Request::Authenticate { .. } => Event::Admitted,
        Request::Enter { .. } => Event::Entered,
        Request::Log { request: LogRequest::Cancel { .. }, .. } => return None,
        Request::Log { request: LogRequest::Append(append), .. }
            if append.required == 0 && dice.chance(3, 4) =>
        {
            return None;
        }
        Request::Log { token, request } => Event::Log(*token, Box::new(log_answer(request, dice, pool))),
        _ => unreachable!("this session asks nothing by lanes"),
    })
}

fn grant<T>(dice: &mut Prng, value: T) -> Result<T, LogRefusal> {
    if dice.chance(3, 4) {
        Ok(value)
    } else {
        Err(LogRefusal::Unavailable("dice".to_owned(), dice.chance(1, 2)))
    }
}

fn each<T: Clone>(dice: &mut Prng, count: usize, value: T) -> Vec<Result<T, LogRefusal>> {
    (0..count).map(|_| grant(dice, value.clone())).collect()
}

fn topic() -> Topic {
    Topic { name: "t".to_owned(), partitions: vec![QueueId(1), QueueId(2)], ..Topic::default() }
}

fn log_answer(request: &LogRequest<'_>, dice: &mut Prng, pool: &Pool) -> LogAnswer {
    use LogRequest as R;
    let appended = Appended { base_offset: 1, log_append_ms: None, start: 0 };
    let place = FoundOffset { offset: Some(3), timestamp_ms: None, epoch: 0 };
    match request {
        R::Append(_) => LogAnswer::Appended(grant(dice, appended)),
        R::Fetch(fetch) => {
            let mut one = || {
                let found = found(dice, pool);
                grant(dice, found)
            };
            LogAnswer::Fetched(fetch.cursors.iter().map(|_| one()).collect())
        }
        R::Offsets(wanted) => LogAnswer::Offsets(each(dice, wanted.len(), place)),
        R::EpochEnds(wanted) => LogAnswer::EpochEnds(each(dice, wanted.len(), (0, 5))),
        R::Topics(TopicsWanted::All) => LogAnswer::Topics(vec![Ok(topic())]),
        R::Topics(TopicsWanted::Named { topics, .. }) => {
            let found = topics.iter().map(|named| grant(dice, topic()).map_err(|no| (named.clone(), no)));
            LogAnswer::Topics(found.collect())
        }
        R::CreateTopics { topics, .. } => LogAnswer::Changed(each(dice, topics.len(), topic())),
        R::CreatePartitions { topics, .. } => LogAnswer::Changed(each(dice, topics.len(), topic())),
        R::DeleteTopics(topics) => LogAnswer::Changed(each(dice, topics.len(), topic())),
        R::AlterTopics { topics, .. } => LogAnswer::Changed(each(dice, topics.len(), topic())),
        R::Trim(places) => LogAnswer::Trimmed(each(dice, places.len(), 4)),
        R::Partitions(wanted) => {
            let figures = PartitionFigures {
                topic: "t".to_owned(),
                partition: 0,
                start: 0,
                end: 1,
                bytes: 2,
                producers: Vec::new(),
            };
            let wanted = wanted.clone().unwrap_or_default();
            let found = wanted.into_iter().map(|at| grant(dice, figures.clone()).map_err(|no| (at, no)));
            LogAnswer::Partitions(found.collect())
        }
        R::Producer => LogAnswer::Producer(grant(dice, 9)),
        R::Group(group) => LogAnswer::Group(group_answer(group, dice)),
        R::Cancel { .. } => unreachable!("not answered"),
    }
}

fn found(dice: &mut Prng, pool: &Pool) -> Fetched {
    let end = dice.below(3);
    let batches = (0..dice.below(3)).map(|_| {
        let length = 61 + dice.below(40_000) as usize;
        FetchedBatch { block: pool.block(&vec![0; length]), range: 0..length, base_offset: 1, epoch: 0 }
    });
    Fetched { start: 0, end, batches: batches.collect() }
}

fn group_answer(request: &GroupRequest, dice: &mut Prng) -> GroupAnswer {
    use GroupRequest as R;
    match request {
        R::Join(_) => GroupAnswer::Joined(grant(dice, Joined::default())),
        R::Sync(_) => GroupAnswer::Synced(grant(dice, Synced::default())),
        R::Heartbeat(_) => GroupAnswer::Done(grant(dice, ())),
        R::Leave { members, .. } => {
            let left = each(dice, members.len(), ());
            GroupAnswer::Left(grant(dice, left))
        }
        R::Commit(commit) => GroupAnswer::Committed(each(dice, commit.offsets.len(), ())),
        R::DeleteOffsets { partitions, .. } => GroupAnswer::Committed(each(dice, partitions.len(), ())),
        R::Offsets { partitions, .. } => {
            let all = partitions.clone().unwrap_or_default();
            GroupAnswer::Offsets(grant(dice, all.into_iter().map(|at| (at, None)).collect()))
        }
        R::Delete(names) => GroupAnswer::Deleted(each(dice, names.len(), ())),
        R::List => GroupAnswer::Groups(vec![GroupDescription::default()]),
        R::Describe(names) => {
            GroupAnswer::Groups(names.iter().map(|_| GroupDescription::default()).collect())
        }
    }
}
