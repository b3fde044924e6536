//! A client and a broker around one session: requests are encoded, and responses decoded, by code that is not ours.

use std::sync::Arc;

use base::{Now, Prng, SendBuffer};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use model::{Event, Limits, LogAnswer, LogRequest, Request};

use crate::wire::api;
use crate::{Product, Session, Step};

pub(super) struct Rig {
    pub session: Session,
    pub out: SendBuffer,
    next_correlation: i32,
}

/// A request for the log as a test looks at it: an append's batch is copied.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Append { topic: String, id: Option<model::TopicId>, partition: u32, batch: Vec<u8>, required: i16 },
    Log(LogRequest<'static>),
    Anonymous,
    Authenticate(String, Vec<u8>),
    Enter,
}

fn asked(request: Request<'_>) -> (u64, Asked) {
    match request {
        Request::Log { token, request: LogRequest::Append(append) } => {
            let (topic, batch) = (append.topic.to_owned(), append.batch.to_vec());
            let (id, partition, required) = (append.id, append.partition, append.required);
            (token, Asked::Append { topic, id, partition, batch, required })
        }
        Request::Log { token, request } => (token, Asked::Log(owned(request))),
        Request::Anonymous => (0, Asked::Anonymous),
        Request::Authenticate { user, password } => {
            (0, Asked::Authenticate(user.to_owned(), password.to_vec()))
        }
        Request::Enter { vhost: "/" } => (0, Asked::Enter),
        other => unreachable!("{other:?}"),
    }
}

fn owned(request: LogRequest<'_>) -> LogRequest<'static> {
    use LogRequest as R;
    match request {
        R::Append(_) => unreachable!("looked at before"),
        R::Fetch(fetch) => R::Fetch(fetch),
        R::Offsets(offsets) => R::Offsets(offsets),
        R::EpochEnds(ends) => R::EpochEnds(ends),
        R::Topics(topics) => R::Topics(topics),
        R::CreateTopics { topics, validate_only } => R::CreateTopics { topics, validate_only },
        R::CreatePartitions { topics, validate_only } => R::CreatePartitions { topics, validate_only },
        R::DeleteTopics(topics) => R::DeleteTopics(topics),
        R::AlterTopics { topics, validate_only, replace } => {
            R::AlterTopics { topics, validate_only, replace }
        }
        R::Trim(places) => R::Trim(places),
        R::Partitions(partitions) => R::Partitions(partitions),
        R::Producer => R::Producer,
        R::Group(group) => R::Group(group),
        R::Cancel { token } => R::Cancel { token },
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from(text.to_owned())
}

impl Rig {
    /// A connection nobody has come in on.
    pub(super) fn fresh() -> Rig {
        Rig::fresh_with(Limits::default())
    }

    /// Likewise, with these bounds.
    pub(super) fn fresh_with(limits: Limits) -> Rig {
        let product = Product { cluster_id: "the-cluster".to_owned(), node_id: 3, version: "0.1".to_owned() };
        let advertised = ("localhost".to_owned(), 9092);
        let mut session = Session::new(Arc::new(limits), Arc::new(product), advertised, 1, Now::default());
        session.set_peer("10.0.0.7:51234");
        Rig { session, out: SendBuffer::default(), next_correlation: 0 }
    }

    /// A connection that somebody without a name has come in on.
    pub(super) fn open() -> Rig {
        Rig::open_with(Limits::default())
    }

    /// Likewise, with these bounds.
    pub(super) fn open_with(limits: Limits) -> Rig {
        let mut rig = Rig::fresh_with(limits);
        let first = rig.feed(&[0, 0, 0, 10, 0, 3, 0, 0]);
        assert!(matches!(first[..], [(0, Asked::Anonymous)]), "{first:?}");
        rig.event(Event::Admitted);
        assert!(matches!(rig.polled()[..], [(0, Asked::Enter)]));
        rig.event(Event::Entered);
        rig
    }

    /// Gives input as an owner does, and returns what was asked.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Vec<(u64, Asked)> {
        let mut all = Vec::new();
        loop {
            let (used, step) = self.session.receive(input, &mut self.out);
            input = &input[used..];
            match step {
                Step::Request(request) => all.push(asked(request)),
                _ => return all,
            }
        }
    }

    /// Gives input, and what is left of it again or not, as chance has it. Returns what was used.
    pub(super) fn feed_some(&mut self, input: &[u8], prng: &mut Prng) -> (usize, Vec<(u64, Asked)>) {
        let (mut all, mut start) = (Vec::new(), 0);
        loop {
            let (used, step) = self.session.receive(&input[start..], &mut self.out);
            start += used;
            match step {
                // An owner may end its turn between any two requests.
                Step::Request(request) => {
                    all.push(asked(request));
                    if prng.chance(1, 3) {
                        return (start, all);
                    }
                }
                _ => return (start, all),
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.session.on_event(&event, &mut self.out);
    }

    pub(super) fn answer(&mut self, token: u64, answer: LogAnswer) {
        self.event(Event::Log(token, Box::new(answer)));
    }

    pub(super) fn polled(&mut self) -> Vec<(u64, Asked)> {
        let mut all = Vec::new();
        while let Some(request) = self.session.poll_request(&mut self.out) {
            all.push(asked(request));
        }
        all
    }

    /// A whole request frame, with the next correlation.
    pub(super) fn frame(&mut self, key: i16, version: i16, body: &impl Encodable) -> Vec<u8> {
        self.next_correlation += 1;
        let flexible = api::api_of(key).expect("known").is_flexible(version);
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.next_correlation)
            .with_client_id(Some(text("tester")));
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes, if flexible { 2 } else { 1 }).expect("header");
        body.encode(&mut bytes, version).expect("body");
        let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&bytes);
        frame
    }

    /// Sends a request and returns what was asked for it.
    pub(super) fn send(&mut self, key: i16, version: i16, body: &impl Encodable) -> Vec<(u64, Asked)> {
        let frame = self.frame(key, version, body);
        self.feed(&frame)
    }

    /// Takes everything that was sent.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while !self.out.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let filled = self.out.slices(&mut slices);
            let length = all.len();
            slices[..filled].iter().for_each(|slice| all.extend_from_slice(slice));
            self.out.advance(all.len() - length);
        }
        all
    }

    /// Takes the one response that was sent: its correlation and itself.
    pub(super) fn response<R: Decodable>(&mut self, key: i16, version: i16) -> (i32, R) {
        let sent = self.sent();
        let (correlation, response, rest) = decode(&sent, key, version);
        assert!(rest.is_empty(), "more than one response");
        (correlation, response)
    }
}

/// Decodes the response at the front; every byte of it must have a meaning.
pub(super) fn decode<R: Decodable>(sent: &[u8], key: i16, version: i16) -> (i32, R, &[u8]) {
    let size = u32::from_be_bytes(sent[..4].try_into().expect("a size")) as usize;
    let mut body = Bytes::copy_from_slice(&sent[4..4 + size]);
    let flexible = api::api_of(key).expect("known").is_flexible(version) && key != api::API_VERSIONS;
    let header = ResponseHeader::decode(&mut body, i16::from(flexible)).expect("header");
    let response = R::decode(&mut body, version).expect("response");
    assert!(body.is_empty(), "{} bytes without meaning in {key} version {version}", body.len());
    (header.correlation_id, response, &sent[4 + size..])
}
