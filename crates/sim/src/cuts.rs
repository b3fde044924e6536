//! The property that results do not depend on how inputs are cut into steps: the same bytes on the same connections
//! get the same answers and leave the same messages, whatever arrives together, however long the disk takes, and
//! whichever shard a connection is on.
//!
//! Each connection sends one unbroken string of bytes, from the protocol header on, and works on a queue of its own.
//! Only which publishes share a confirm is left open. It does not say goodbye: what a close overtakes is not answered.

use std::collections::BTreeSet;

use base::Prng;
use model::{Arguments, ConnId};
use proto_amqp::wire::{Method, PROTOCOL_HEADER, Properties, frame, next_frame, put_content};

use crate::node::{Node, USER};
use crate::plan::Plan;

/// Turns within which everything must be answered.
const PATIENCE: u64 = 50_000;
/// Turns for which nothing more may come.
const BEHIND: u64 = 100;
const FRAME_MAX: usize = 8192;

/// What one connection heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Everything but confirms, frame by frame.
    pub frames: Vec<Vec<u8>>,
    /// The publishes that were confirmed.
    pub confirmed: BTreeSet<u64>,
    answers: u64,
}

/// What one connection says.
#[derive(Debug, Default)]
struct Script {
    bytes: Vec<u8>,
    /// Requests that are answered on the channel.
    asks: u64,
    publishes: u64,
}

impl Script {
    fn ask(&mut self, method: &Method<'_>) {
        self.asks += 1;
        method.put(1, &mut self.bytes);
    }

    fn is_answered(&self, heard: &Heard) -> bool {
        heard.answers >= self.asks && heard.confirmed.len() as u64 >= self.publishes
    }
}

/// Sends the scripts of `seed`, cut and timed as `cuts` says; `Err` if something stays without an answer.
pub fn hear(seed: u64, cuts: u64) -> Result<Vec<Heard>, String> {
    let mut prng = Prng::new(seed);
    let plan = Plan::draw(&mut prng).calm();
    let scripts: Vec<Script> = (0..3).map(|number| script(number, &mut prng)).collect();
    let mut chance = Prng::new(cuts);
    let mut node = Node::new(&plan, &crate::password_hash(), Prng::new(chance.draw()));
    node.start(&mut chance)?;
    wait(&mut node, &mut chance, |node| node.is_ready())?;
    let conns: Vec<ConnId> = scripts.iter().map(|_| node.connect(&mut chance)).collect();
    conns.iter().zip(&scripts).for_each(|(conn, script)| node.send(*conn, &script.bytes));
    let mut heard = vec![Heard::default(); conns.len()];
    let mut turns = 0;
    let mut inputs = vec![Vec::new(); conns.len()];
    wait(&mut node, &mut chance, |node| {
        for ((conn, input), heard) in conns.iter().zip(&mut inputs).zip(&mut heard) {
            let _ = node.receive(*conn, input);
            heard.take(input);
        }
        let mut both = scripts.iter().zip(&heard);
        turns += u64::from(both.all(|(script, heard)| script.is_answered(heard)));
        turns == BEHIND
    })?;
    Ok(heard)
}

fn wait(node: &mut Node, prng: &mut Prng, mut done: impl FnMut(&mut Node) -> bool) -> Result<(), String> {
    for _ in 0..PATIENCE {
        if done(node) {
            return Ok(());
        }
        node.step(prng);
        if let Some(why) = &node.halted {
            return Err(why.clone());
        }
    }
    Err("something is never answered".to_owned())
}

impl Heard {
    fn take(&mut self, input: &mut Vec<u8>) {
        let mut used = 0;
        while let Ok(Some(frame)) = next_frame(&input[used..], FRAME_MAX) {
            let whole = &input[used..used + frame.len()];
            let method = (frame.kind == frame::METHOD).then(|| Method::decode(frame.payload, 8));
            match method {
                Some(Ok(Method::BasicAck { delivery_tag, multiple })) => {
                    let first = if multiple { 1 } else { delivery_tag };
                    self.confirmed.extend(first..=delivery_tag);
                }
                // The greeting depends on nothing but the version.
                Some(Ok(Method::ConnectionStart { .. })) => {}
                _ => self.frames.push(whole.to_vec()),
            }
            let is_answer = frame.kind == frame::METHOD && frame.channel == 1;
            let is_confirm = matches!(method, Some(Ok(Method::BasicAck { .. })));
            self.answers += u64::from(is_answer && !is_confirm);
            used += frame.len();
        }
        input.drain(..used);
    }
}

/// Everything one connection says, on a queue of its own.
fn script(number: usize, prng: &mut Prng) -> Script {
    let mut script = Script { bytes: PROTOCOL_HEADER.to_vec(), ..Script::default() };
    let queue = format!("own-{number}");
    greet(&mut script.bytes);
    script.ask(&Method::ChannelOpen {});
    script.ask(&declare(&queue, false));
    script.ask(&Method::ConfirmSelect { nowait: false });
    let mut own = Own::default();
    for at in 0..40 + prng.below(80) {
        own.act(&queue, at, prng, &mut script);
    }
    script.ask(&declare(&queue, true));
    for _ in 0..own.ready + 1 {
        script.ask(&Method::BasicGet { queue: &queue, no_ack: true });
    }
    script.ask(&declare(&queue, true));
    script
}

fn greet(out: &mut Vec<u8>) {
    let response = format!("\0{}\0{}", USER.0, USER.1);
    let (client_properties, response) = (Arguments::default(), response.as_bytes());
    Method::ConnectionStartOk { client_properties, mechanism: "PLAIN", response, locale: "en_US" }
        .put(0, out);
    let frame_max = FRAME_MAX as u32;
    Method::ConnectionTuneOk { channel_max: 10, frame_max, heartbeat: 0 }.put(0, out);
    Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false }.put(0, out);
}

fn declare(queue: &str, passive: bool) -> Method<'_> {
    Method::QueueDeclare {
        queue,
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Arguments::default(),
    }
}

/// What the script knows of its queue.
#[derive(Debug, Default)]
struct Own {
    ready: u64,
    tags: u64,
    held: Vec<u64>,
}

impl Own {
    fn act(&mut self, queue: &str, at: u64, prng: &mut Prng, script: &mut Script) {
        let out = &mut script.bytes;
        match prng.below(10) {
            0..5 => {
                self.ready += 1;
                script.publishes += 1;
                publish(queue, at, prng, out);
            }
            5 | 6 if self.ready > 0 => {
                self.ready -= 1;
                self.tags += 1;
                self.held.push(self.tags);
                script.ask(&Method::BasicGet { queue, no_ack: false });
            }
            7 | 8 if !self.held.is_empty() => {
                let place = prng.below(self.held.len() as u64) as usize;
                let delivery_tag = self.held.remove(place);
                let requeue = prng.chance(1, 2);
                self.ready += u64::from(requeue);
                match prng.below(3) {
                    0 => Method::BasicReject { delivery_tag, requeue }.put(1, out),
                    1 => Method::BasicNack { delivery_tag, multiple: false, requeue }.put(1, out),
                    _ if requeue => Method::BasicReject { delivery_tag, requeue }.put(1, out),
                    _ => Method::BasicAck { delivery_tag, multiple: false }.put(1, out),
                }
            }
            9 if prng.chance(1, 5) => {
                self.ready = 0;
                script.ask(&Method::QueuePurge { queue, nowait: false });
            }
            _ => script.ask(&declare(queue, true)),
        }
    }
}

fn publish(queue: &str, at: u64, prng: &mut Prng, out: &mut Vec<u8>) {
    let most = if prng.chance(1, 8) { 40_000 } else { 300 };
    let bytes = prng.below(most) as usize;
    let mut block = Vec::new();
    Properties { delivery_mode: Some(2), ..Properties::default() }.encode(&mut block);
    Method::BasicPublish { exchange: "", routing_key: queue, mandatory: false, immediate: false }.put(1, out);
    put_content(out, 1, &block, &vec![at as u8; bytes], FRAME_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first thing that one run heard and the other did not, in words.
    fn differs(one: &[Heard], other: &[Heard]) -> Option<String> {
        for (number, (one, other)) in one.iter().zip(other).enumerate() {
            let count = one.frames.len().max(other.frames.len());
            let place = (0..count).find(|at| one.frames.get(*at) != other.frames.get(*at));
            if let Some(at) = place {
                let told = |heard: &Heard| heard.frames.get(at).map(|frame| tell(frame));
                let (one, other) = (told(one), told(other));
                return Some(format!("connection {number}, frame {at}: {one:?} and {other:?}"));
            }
            if one.confirmed != other.confirmed {
                return Some(format!("confirms of connection {number}"));
            }
        }
        None
    }

    fn tell(frame: &[u8]) -> String {
        match Method::decode(&frame[7..frame.len() - 1], 8) {
            Ok(method) if frame[0] == frame::METHOD => format!("{method:?}"),
            _ => format!("{} bytes of kind {}", frame.len(), frame[0]),
        }
    }

    #[test]
    fn answers_and_what_is_left_do_not_depend_on_the_cuts() {
        for seed in 0..12 {
            let reference = hear(seed, 1).unwrap();
            for heard in &reference {
                let gets =
                    heard.frames.iter().filter(|frame| frame.get(7..11) == Some(&[0, 60, 0, 71])).count();
                assert!(gets > 0 && !heard.confirmed.is_empty(), "seed {seed}");
            }
            for cuts in 2..6 {
                let other = hear(seed, cuts).unwrap();
                assert_eq!(differs(&reference, &other), None, "seed {seed}, cuts {cuts}");
            }
        }
    }
}
