//! One connection of an AMQP client that works on streams: its handshake, one channel, contents put together.
//!
//! In: bytes from the node. Out: bytes for the node, and what came, in order. Never: knows what a message says.

use base::Prng;
use model::{Arguments, ConnId, Value};
use proto_amqp::wire::{ContentHeader, Method, PROTOCOL_HEADER, frame, next_frame, put_content};

use crate::client::Fault;
use crate::node::{Node, USER};

/// The channel that everything goes over.
const CHANNEL: u16 = 1;

/// What came over the channel.
#[derive(Debug)]
pub(super) enum Came {
    /// Publishes up to this one were confirmed, or this one alone.
    Confirmed {
        tag: u64,
        multiple: bool,
    },
    /// A message for a consumer: its property block and body.
    Delivered {
        consumer: String,
        tag: u64,
        properties: Vec<u8>,
        body: Vec<u8>,
    },
    /// A consumer has begun, or is gone.
    Consumes,
    Cancelled(String),
}

/// A content being received.
#[derive(Debug)]
struct Incoming {
    consumer: String,
    tag: u64,
    properties: Option<Vec<u8>>,
    body: Vec<u8>,
    missing: u64,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeted,
    Tuning,
    Opening,
    Preparing,
    Ready,
}

/// One connection.
#[derive(Debug)]
pub(super) struct StreamLink {
    conn: ConnId,
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    frame_max: usize,
    prefetch: u16,
    incoming: Option<Incoming>,
    is_loud: bool,
}

impl StreamLink {
    /// A new connection, which holds so many messages at most.
    pub fn new(prefetch: u16, node: &mut Node, prng: &mut Prng) -> StreamLink {
        StreamLink {
            conn: node.connect(prng),
            stage: Stage::Greeted,
            input: Vec::new(),
            output: PROTOCOL_HEADER.to_vec(),
            frame_max: 8192,
            prefetch,
            incoming: None,
            is_loud: node.is_loud,
        }
    }

    /// Whether the channel may be used.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Takes what has come; false once the node has hung up.
    pub fn receive(&mut self, node: &mut Node) -> bool {
        node.receive(self.conn, &mut self.input).is_some()
    }

    /// Sends what was written.
    pub fn flush(&mut self, node: &mut Node) {
        node.send(self.conn, &std::mem::take(&mut self.output));
    }

    /// Goes without a word.
    pub fn hang_up(self, node: &mut Node) {
        node.hang_up(self.conn);
    }

    /// Sends a method over the channel.
    pub fn send(&mut self, method: &Method<'_>) {
        self.send_on(CHANNEL, method);
    }

    fn send_on(&mut self, channel: u16, method: &Method<'_>) {
        if self.is_loud {
            eprintln!("  {}.{channel} -> {method:?}", self.conn);
        }
        method.put(channel, &mut self.output);
    }

    /// Publishes to a queue.
    pub fn publish(&mut self, routing_key: &str, properties: &[u8], body: &[u8]) {
        self.send(&Method::BasicPublish { exchange: "", routing_key, mandatory: true, immediate: false });
        put_content(&mut self.output, CHANNEL, properties, body, self.frame_max);
    }

    /// Subscribes to a stream from a place on.
    pub fn consume(&mut self, queue: &str, consumer_tag: &str, from: Value) {
        self.send(&Method::BasicConsume {
            queue,
            consumer_tag,
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Arguments(vec![("x-stream-offset".to_owned(), from)]),
        });
    }

    /// The next thing that came.
    pub fn next(&mut self) -> Result<Option<Came>, Fault> {
        loop {
            let input = std::mem::take(&mut self.input);
            let frame = next_frame(&input, self.frame_max).map_err(|error| ("L11", format!("{error:?}")))?;
            let Some(frame) = frame else {
                self.input = input;
                return Ok(None);
            };
            let came = self.frame(frame.kind, frame.payload)?;
            self.input = input[frame.len()..].to_vec();
            if came.is_some() {
                return Ok(came);
            }
        }
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<Option<Came>, Fault> {
        let unreadable = |malformed| ("L11", format!("a frame cannot be read: {malformed:?}"));
        match kind {
            frame::HEARTBEAT => Ok(None),
            frame::METHOD => {
                let method = Method::decode(payload, 8).map_err(unreadable)?;
                if self.is_loud {
                    eprintln!("  {} <- {method:?}", self.conn);
                }
                self.method(&method)
            }
            _ => {
                let unasked = || ("L2", "a content that was not announced".to_owned());
                let incoming = self.incoming.as_mut().ok_or_else(unasked)?;
                if kind == frame::HEADER {
                    let header = ContentHeader::decode(payload).map_err(unreadable)?;
                    incoming.missing = header.body_size;
                    incoming.properties = Some(header.properties.to_vec());
                } else {
                    let missing = incoming.missing.checked_sub(payload.len() as u64);
                    incoming.missing = missing.ok_or_else(unasked)?;
                    incoming.body.extend_from_slice(payload);
                }
                Ok(self.complete())
            }
        }
    }

    fn complete(&mut self) -> Option<Came> {
        let is_whole = |incoming: &mut Incoming| incoming.properties.is_some() && incoming.missing == 0;
        let Incoming { consumer, tag, properties, body, .. } = self.incoming.take_if(is_whole)?;
        Some(Came::Delivered { consumer, tag, properties: properties.unwrap_or_default(), body })
    }

    fn method(&mut self, method: &Method<'_>) -> Result<Option<Came>, Fault> {
        match (self.stage, method) {
            (_, Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked {}) => {}
            (Stage::Greeted, Method::ConnectionStart { .. }) => {
                self.stage = Stage::Tuning;
                let response = format!("\0{}\0{}", USER.0, USER.1);
                self.send_on(
                    0,
                    &Method::ConnectionStartOk {
                        client_properties: Arguments::default(),
                        mechanism: "PLAIN",
                        response: response.as_bytes(),
                        locale: "en_US",
                    },
                );
            }
            (Stage::Tuning, Method::ConnectionTune { channel_max, frame_max, .. }) => {
                self.stage = Stage::Opening;
                self.frame_max = *frame_max as usize;
                let (channel_max, frame_max, heartbeat) = (*channel_max, *frame_max, 0);
                self.send_on(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat });
                self.send_on(
                    0,
                    &Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false },
                );
            }
            (Stage::Opening, Method::ConnectionOpenOk {}) => {
                self.stage = Stage::Preparing;
                self.send(&Method::ChannelOpen {});
                let prefetch_count = self.prefetch;
                self.send(&Method::BasicQos { prefetch_size: 0, prefetch_count, global: false });
                self.send(&Method::ConfirmSelect { nowait: false });
            }
            (Stage::Preparing, Method::ChannelOpenOk {} | Method::BasicQosOk {}) => {}
            (Stage::Preparing, Method::ConfirmSelectOk {}) => self.stage = Stage::Ready,
            (Stage::Ready, Method::BasicConsumeOk { .. }) => return Ok(Some(Came::Consumes)),
            (Stage::Ready, Method::BasicCancelOk { consumer_tag }) => {
                return Ok(Some(Came::Cancelled((*consumer_tag).to_owned())));
            }
            (Stage::Ready, Method::BasicAck { delivery_tag, multiple }) => {
                return Ok(Some(Came::Confirmed { tag: *delivery_tag, multiple: *multiple }));
            }
            (Stage::Ready, Method::BasicDeliver { consumer_tag, delivery_tag, redelivered: false, .. }) => {
                let (consumer, tag) = ((*consumer_tag).to_owned(), *delivery_tag);
                let (properties, body) = (None, Vec::new());
                self.incoming = Some(Incoming { consumer, tag, properties, body, missing: 0 });
            }
            (stage, method) => return Err(("L10", format!("the node said {method:?} while {stage:?}"))),
        }
        Ok(None)
    }
}
