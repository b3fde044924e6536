//! What the clients did while the record was made: one publishes with confirms, one gets and acknowledges in rounds.

use std::net::SocketAddr;

use base::Prng;

use crate::client::Client;
use crate::recorder::Recorder;

pub const QUEUES: [&str; 2] = ["first", "second"];
const MESSAGES: u64 = 600;
/// Publishes that wait for their confirm at most.
const WINDOW: u64 = 24;

/// A message, as its clients saw it. Places are positions in the record.
#[derive(Clone, Debug)]
pub struct Message {
    pub queue: usize,
    /// Before it was sent.
    pub published: usize,
    /// When it had come to somebody.
    pub handed_out: Option<usize>,
    /// Before its acknowledgement was sent, and in which round.
    pub acknowledged: Option<(usize, usize)>,
}

/// Everything that was done. Message `n` is at `n - 1`.
#[derive(Clone, Debug, Default)]
pub struct Load {
    pub messages: Vec<Message>,
}

impl Load {
    /// Declares, publishes, gets and acknowledges, until done or until the server is gone.
    pub fn run(address: SocketAddr, recorder: &Recorder) -> Load {
        let mut load = Load::default();
        let mut publisher = Client::connect(address);
        publisher.open_channel();
        for queue in QUEUES {
            publisher.declare(queue, false);
        }
        publisher.select_confirms();
        let mut consumer = Client::connect(address);
        let mut prng = Prng::new(7);
        let mut confirmed = 0;
        for number in 1..=MESSAGES {
            let queue = prng.below(2) as usize;
            let body = body(number, size(&mut prng));
            load.messages.push(Message {
                queue,
                published: recorder.position(),
                handed_out: None,
                acknowledged: None,
            });
            publisher.publish(QUEUES[queue], &body);
            while number - confirmed >= WINDOW && !publisher.is_broken() {
                confirmed = publisher.confirm().unwrap_or(number).max(confirmed);
            }
            if number % 60 == 0 {
                load.acknowledge_some(&mut consumer, recorder, (number / 60) as usize);
            }
        }
        while confirmed < MESSAGES && !publisher.is_broken() {
            confirmed = publisher.confirm().unwrap_or(MESSAGES).max(confirmed);
        }
        load
    }

    /// One round: a channel that is opened, gets some, acknowledges most of them and is closed in order.
    fn acknowledge_some(&mut self, consumer: &mut Client, recorder: &Recorder, round: usize) {
        consumer.open_channel();
        for turn in 0..40 {
            let Some(got) = consumer.get(QUEUES[turn % 2], false) else { continue };
            let message = &mut self.messages[number(&got.body) as usize - 1];
            message.handed_out.get_or_insert(recorder.position());
            if turn % 5 == 4 {
                continue;
            }
            message.acknowledged = Some((recorder.position(), round));
            consumer.ack(got.tag);
        }
        consumer.close_channel();
    }
}

fn size(prng: &mut Prng) -> usize {
    match prng.below(40) {
        0 => 1_500_000,
        1..=4 => 50_000 + prng.below(150_000) as usize,
        _ => 8 + prng.below(3000) as usize,
    }
}

fn body(number: u64, size: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size.max(8), number as u8);
    body
}

/// The number of a message; its body must be what was published under it.
pub fn number(body: &[u8]) -> u64 {
    let number = u64::from_be_bytes(body[..8].try_into().expect("eight bytes"));
    assert!(body[8..].iter().all(|byte| *byte == number as u8), "the body of message {number} is damaged");
    number
}
