//! What clients sent and what came back, and every promise that can be checked against it.
//!
//! In: what clients do and receive, in the order in which they do. Out: the first broken promise, by the id of its
//! invariant: L1 what was confirmed or handed out is not lost; L2 nothing is invented; L11 no body is altered; Q1 a
//! return precedes its confirm; Q2 nobody gets what another holds; Q3 what was durably settled stays settled; Q4 each
//! publisher's order holds per queue; Q5 redelivered=false is the first delivery; Q7 failed deliveries are not
//! forgotten; Q14 each publish has one answer; Q15 prefetch holds.

use std::collections::BTreeMap;

/// A message by its number.
pub type MessageId = usize;

/// What its publisher has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Unknown,
    /// It was taken.
    Confirmed,
}

/// How far a copy is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Settled {
    No,
    /// Its consumer said so; a crash may forget that.
    Said,
    /// And something that waits for it was answered.
    Durably,
}

/// One message in one queue.
#[derive(Clone, Debug)]
struct Copy {
    queue: usize,
    /// The connection that holds it.
    held_by: Option<u64>,
    /// The number of the delivery that it was received with last.
    received_at: u64,
    received: u32,
    settled: Settled,
    failed_durably: u32,
    /// It may be gone without anybody having settled it: purged, or taken by a consumer that settles by taking.
    may_be_gone: bool,
}

#[derive(Clone, Debug)]
struct Message {
    publisher: u64,
    bytes: usize,
    answer: Answer,
    copies: Vec<Copy>,
}

/// A delivery as a client sees it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Delivery<'a> {
    pub connection: u64,
    /// Distinguishes the consumers of all connections.
    pub consumer: u64,
    pub queue: usize,
    pub message: MessageId,
    pub body: &'a [u8],
    pub redelivered: bool,
    pub count: u32,
    /// Whether it is settled by being sent.
    pub auto_ack: bool,
}

/// Places in the queue that one client has for itself, as far as they are known.
#[derive(Debug, Default)]
struct Lonely {
    queue: Option<usize>,
    /// In the order in which they were first taken.
    places: BTreeMap<MessageId, usize>,
    /// Those that are certainly ready again.
    ready: BTreeMap<usize, MessageId>,
}

impl Lonely {
    fn taken(&mut self, message: MessageId, redelivered: bool) -> Result<(), (&'static str, String)> {
        let next = self.places.len();
        if !redelivered {
            self.places.entry(message).or_insert(next);
        }
        // Somebody who is gone may have held it meanwhile: then its place is not known.
        let Some(place) = self.places.get(&message).copied() else { return Ok(()) };
        self.ready.remove(&place);
        match self.ready.first_key_value().filter(|(first, _)| **first < place) {
            Some((_, first)) => Err(("Q4", format!("message {first} was given back to its place before it"))),
            None => Ok(()),
        }
    }

    fn is_ready(&mut self, queue: usize, message: MessageId) {
        if self.queue == Some(queue)
            && let Some(place) = self.places.get(&message)
        {
            self.ready.insert(*place, message);
        }
    }
}

/// How often what was checked.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Seen {
    pub published: u64,
    pub confirmed: u64,
    pub delivered: u64,
    pub redelivered: u64,
    pub first: u64,
    pub settled: u64,
    pub settled_durably: u64,
    pub requeued: u64,
    pub counted: u64,
    pub excused: u64,
    /// Connections that were told that publishers are held back.
    pub blocked: u64,
}

/// All messages of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: Vec<Message>,
    /// The last first delivery of a publisher's message to a consumer.
    order: BTreeMap<(u64, u64), MessageId>,
    /// The queue that only one client takes from, one by one.
    lonely: Lonely,
    /// The first broken promise.
    pub broken: Option<String>,
    /// Figures.
    pub seen: Seen,
    /// Whether to tell the story on standard error.
    pub is_loud: bool,
}

impl Ledger {
    fn say(&self, what: &str, message: MessageId, queue: usize) {
        if self.is_loud {
            eprintln!("    message {message} of q{queue} {what}");
        }
    }

    /// Notes a broken promise.
    pub fn fail(&mut self, invariant: &str, what: String) {
        self.broken.get_or_insert_with(|| format!("{invariant}: {what}"));
    }

    /// A publish is about to be sent.
    pub fn publish(&mut self, publisher: u64, bytes: usize, queues: &[usize]) -> MessageId {
        queues.iter().for_each(|queue| self.say("is published", self.messages.len(), *queue));
        let copy = |queue: &usize| Copy {
            queue: *queue,
            held_by: None,
            received_at: 0,
            received: 0,
            settled: Settled::No,
            failed_durably: 0,
            may_be_gone: false,
        };
        let copies = queues.iter().map(copy).collect();
        self.messages.push(Message { publisher, bytes, answer: Answer::Unknown, copies });
        self.seen.published += 1;
        self.messages.len() - 1
    }

    /// A publish was confirmed.
    pub fn confirm(&mut self, message: MessageId) {
        let message = &mut self.messages[message];
        message.answer = Answer::Confirmed;
        self.seen.confirmed += u64::from(!message.copies.is_empty());
    }

    /// A message came.
    pub fn deliver(&mut self, delivery: &Delivery<'_>) {
        self.say("comes", delivery.message, delivery.queue);
        if let Err((invariant, what)) = self.check_delivery(delivery) {
            let Delivery { message, queue, connection, redelivered, count, .. } = delivery;
            let which = format!(
                "message {message} from queue q{queue} to connection {connection} (redelivered={redelivered}, count {count}): {what}"
            );
            self.fail(invariant, which);
        }
    }

    fn check_delivery(&mut self, d: &Delivery<'_>) -> Result<(), (&'static str, String)> {
        let message = self.messages.get_mut(d.message).ok_or(("L2", "nobody sent it".to_owned()))?;
        let (publisher, bytes) = (message.publisher, message.bytes);
        let copy = message.copies.iter_mut().find(|copy| copy.queue == d.queue);
        let copy = copy.ok_or(("L2", "it was not sent to that queue".to_owned()))?;
        if !is_body(d.message, bytes, d.body) {
            return Err(("L11", format!("its body of {bytes} bytes was altered ({} came)", d.body.len())));
        }
        if copy.settled == Settled::Durably {
            return Err(("Q3", "it was settled, durably".to_owned()));
        }
        if let Some(holder) = copy.held_by {
            return Err(("Q2", format!("connection {holder} holds it (settled: {:?})", copy.settled)));
        }
        if copy.received > 0 && !d.redelivered {
            return Err(("Q5", format!("it was received {} times before", copy.received)));
        }
        if d.count < copy.failed_durably {
            return Err(("Q7", format!("it failed durably {} times", copy.failed_durably)));
        }
        self.seen.counted += u64::from(copy.failed_durably > 0);
        copy.received += 1;
        self.seen.delivered += 1;
        copy.received_at = self.seen.delivered;
        self.seen.redelivered += u64::from(d.redelivered);
        self.seen.first += u64::from(!d.redelivered);
        // It came back: a settlement that a crash may forget was forgotten.
        copy.settled = Settled::No;
        match d.auto_ack {
            true => copy.settled = Settled::Said,
            false => copy.held_by = Some(d.connection),
        }
        if self.lonely.queue == Some(d.queue) {
            self.lonely.taken(d.message, d.redelivered)?;
        }
        if !d.redelivered {
            let last = self.order.insert((d.consumer, publisher), d.message);
            if let Some(last) = last.filter(|last| *last > d.message) {
                return Err(("Q4", format!("message {last} of the same publisher came before it")));
            }
        }
        Ok(())
    }

    fn copy(&mut self, message: MessageId, queue: usize) -> &mut Copy {
        let copies = &mut self.messages[message].copies;
        let at = copies.iter().position(|copy| copy.queue == queue);
        &mut copies[at.expect("what was delivered has a copy there")]
    }

    /// A client settles what it holds.
    pub fn settle(&mut self, message: MessageId, queue: usize) {
        self.seen.settled += 1;
        self.say("is settled", message, queue);
        let copy = self.copy(message, queue);
        copy.settled = copy.settled.max(Settled::Said);
    }

    /// A client gives back what it holds, as a failed delivery or not.
    pub fn give_back(&mut self, message: MessageId, queue: usize, failed: bool) {
        self.seen.requeued += 1;
        self.say(if failed { "failed" } else { "goes back" }, message, queue);
        let copy = self.copy(message, queue);
        copy.held_by = None;
        self.lonely.is_ready(queue, message);
    }

    /// Only one client takes from this queue, one by one: what it gave back must come before everything behind it.
    pub fn is_lonely(&mut self, queue: usize) {
        self.lonely.queue = Some(queue);
    }

    /// A channel's orderly end gave a copy back.
    pub fn came_back(&mut self, message: MessageId, queue: usize) {
        self.lonely.is_ready(queue, message);
    }

    /// It is not known any more which of the given back messages are ready.
    pub fn forget_places(&mut self) {
        self.lonely.ready.clear();
    }

    /// The node was started again: whatever was taken and not settled is ready.
    pub fn restarted(&mut self) {
        let Some(queue) = self.lonely.queue else { return };
        let taken: Vec<MessageId> = self.lonely.places.keys().copied().collect();
        for message in taken {
            let copy = self.copy(message, queue);
            if copy.settled == Settled::No && !copy.may_be_gone {
                self.lonely.is_ready(queue, message);
            }
        }
    }

    /// An answer came that waits for a settlement.
    pub fn settled_durably(&mut self, message: MessageId, queue: usize) {
        self.seen.settled_durably += 1;
        self.say("is settled durably", message, queue);
        let copy = self.copy(message, queue);
        copy.settled = Settled::Durably;
        copy.held_by = None;
    }

    /// An answer came that waits for a failed delivery.
    pub fn failed_durably(&mut self, message: MessageId, queue: usize) {
        self.say("has failed durably", message, queue);
        self.copy(message, queue).failed_durably += 1;
    }

    /// The connection that held a copy is gone.
    pub fn let_go(&mut self, message: MessageId, queue: usize) {
        self.say("is let go", message, queue);
        self.copy(message, queue).held_by = None;
    }

    /// Everything in the queue may be gone but what somebody held before that delivery and holds still.
    pub fn excuse(&mut self, queue: usize, since: u64) {
        for copy in self.messages.iter_mut().flat_map(|message| &mut message.copies) {
            let is_safe = copy.held_by.is_some() && copy.received_at <= since;
            if copy.queue == queue && !is_safe && !copy.may_be_gone {
                copy.may_be_gone = true;
                self.seen.excused += 1;
            }
        }
    }

    /// What must come when a queue is drained: nobody has settled it, and it was confirmed or handed out.
    pub fn owed(&self, queue: usize) -> Vec<MessageId> {
        let owed = |message: &Message| {
            let of_queue = message.copies.iter().find(|copy| copy.queue == queue);
            of_queue.is_some_and(|copy| {
                let known = message.answer == Answer::Confirmed || copy.received > 0;
                known && copy.settled == Settled::No && !copy.may_be_gone
            })
        };
        (0..self.messages.len()).filter(|id| owed(&self.messages[*id])).collect()
    }

    /// What a queue was found to hold, in order, by somebody who was alone with it.
    pub fn drained(&mut self, queue: usize, found: &[MessageId]) {
        let mut last: BTreeMap<u64, MessageId> = BTreeMap::new();
        for message in found {
            let Some(publisher) = self.messages.get(*message).map(|message| message.publisher) else {
                continue;
            };
            if let Some(before) = last.insert(publisher, *message).filter(|before| before >= message) {
                self.fail("Q4", format!("draining q{queue} gave message {message} behind message {before}"));
            }
        }
    }
}

/// The body of a message.
pub fn body_of(message: MessageId, bytes: usize) -> Vec<u8> {
    let word = (message as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut body: Vec<u8> = word.iter().copied().cycle().take(bytes).collect();
    // Every page of it is its own, so that pages that change places are noticed.
    for (page, chunk) in body.chunks_mut(512).enumerate() {
        chunk[0] ^= page as u8;
    }
    body
}

/// Whether it is the body of that message.
pub fn is_body(message: MessageId, bytes: usize, body: &[u8]) -> bool {
    let word = (message as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    body.len() == bytes
        && body.chunks(512).enumerate().all(|(page, chunk)| {
            chunk[0] == word[0] ^ page as u8
                && chunk[1..].iter().zip(word.iter().cycle().skip(1)).all(|(a, b)| a == b)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery<'a>(message: MessageId, body: &'a [u8], connection: u64) -> Delivery<'a> {
        let (consumer, queue, redelivered) = (connection, 0, false);
        Delivery { connection, consumer, queue, message, body, redelivered, count: 0, auto_ack: false }
    }

    fn one() -> (Ledger, Vec<u8>) {
        let mut ledger = Ledger::default();
        let id = ledger.publish(1, 700, &[0]);
        (ledger, body_of(id, 700))
    }

    fn broken(ledger: &Ledger) -> &str {
        ledger.broken.as_deref().map_or("", |what| what.split(':').next().unwrap())
    }

    #[test]
    fn a_good_life_breaks_nothing() {
        let (mut ledger, body) = one();
        ledger.confirm(0);
        assert_eq!(ledger.owed(0), [0]);
        ledger.deliver(&delivery(0, &body, 1));
        ledger.give_back(0, 0, true);
        ledger.deliver(&Delivery { redelivered: true, ..delivery(0, &body, 2) });
        ledger.settle(0, 0);
        ledger.settled_durably(0, 0);
        assert_eq!(ledger.broken, None);
        assert_eq!(ledger.owed(0), []);
    }

    #[test]
    fn each_promise_is_noticed_when_broken() {
        let mut ledger = Ledger::default();
        ledger.deliver(&delivery(3, b"", 1));
        assert_eq!(broken(&ledger), "L2");

        let (mut ledger, mut body) = one();
        body[600] ^= 1;
        ledger.deliver(&delivery(0, &body, 1));
        assert_eq!(broken(&ledger), "L11");

        let (mut ledger, body) = one();
        ledger.deliver(&delivery(0, &body, 1));
        ledger.deliver(&Delivery { redelivered: true, ..delivery(0, &body, 2) });
        assert_eq!(broken(&ledger), "Q2");

        let (mut ledger, body) = one();
        ledger.deliver(&delivery(0, &body, 1));
        ledger.settle(0, 0);
        ledger.settled_durably(0, 0);
        ledger.deliver(&Delivery { redelivered: true, ..delivery(0, &body, 2) });
        assert_eq!(broken(&ledger), "Q3");

        let (mut ledger, body) = one();
        ledger.deliver(&delivery(0, &body, 1));
        ledger.let_go(0, 0);
        ledger.deliver(&delivery(0, &body, 2));
        assert_eq!(broken(&ledger), "Q5");

        let (mut ledger, body) = one();
        ledger.deliver(&delivery(0, &body, 1));
        ledger.give_back(0, 0, true);
        ledger.failed_durably(0, 0);
        ledger.deliver(&Delivery { redelivered: true, ..delivery(0, &body, 2) });
        assert_eq!(broken(&ledger), "Q7");
    }

    #[test]
    fn what_was_given_back_comes_before_what_is_behind_it() {
        let mut ledger = Ledger::default();
        ledger.is_lonely(0);
        let bodies: Vec<Vec<u8>> = (0..3).map(|id| body_of(id, 5)).collect();
        for _ in 0..3 {
            ledger.publish(1, 5, &[0]);
        }
        ledger.deliver(&delivery(0, &bodies[0], 1));
        ledger.deliver(&delivery(1, &bodies[1], 1));
        ledger.give_back(0, 0, true);
        ledger.deliver(&Delivery { redelivered: true, ..delivery(0, &bodies[0], 1) });
        ledger.give_back(1, 0, false);
        assert_eq!(ledger.broken, None);
        ledger.deliver(&delivery(2, &bodies[2], 1));
        assert_eq!(broken(&ledger), "Q4");
    }

    #[test]
    fn order_is_per_publisher_and_consumer() {
        let mut ledger = Ledger::default();
        let bodies: Vec<Vec<u8>> = (0..3).map(|id| body_of(id, 5)).collect();
        for publisher in [1, 2, 1] {
            ledger.publish(publisher, 5, &[0]);
        }
        ledger.deliver(&delivery(1, &bodies[1], 1));
        ledger.deliver(&delivery(2, &bodies[2], 1));
        assert_eq!(ledger.broken, None);
        ledger.deliver(&delivery(0, &bodies[0], 1));
        assert_eq!(broken(&ledger), "Q4");
        let mut ledger = Ledger { broken: None, ..ledger };
        ledger.drained(0, &[1, 0, 2]);
        assert_eq!(ledger.broken, None);
        ledger.drained(0, &[2, 0]);
        assert_eq!(broken(&ledger), "Q4");
    }
}
