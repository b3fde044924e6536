//! Publisher confirms of a channel: which tokens the client has heard of, and the fewest methods that tell the rest.
//!
//! `multiple` covers everything up to its tag that the client still waits for, so it is used only where all of
//! that has this very answer.

use std::collections::BTreeMap;

use super::Session;
use crate::wire::Method;

/// Answers to publishes of one channel.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Publishes so far: the last token given.
    pub published: u64,
    /// Everything up to here was answered.
    below: u64,
    /// Ranges above `below` that were answered, first to last.
    early: BTreeMap<u64, u64>,
    /// Answers not sent yet: first, last, whether taken.
    due: Vec<(u64, u64, bool)>,
}

impl Confirms {
    /// Notes an answer; returns whether it is the first one due.
    pub(super) fn answer(&mut self, first: u64, last: u64, taken: bool) -> bool {
        let is_first = self.due.is_empty();
        match self.due.last_mut() {
            Some((_, end, same)) if *same == taken && *end + 1 == first => *end = last,
            _ => self.due.push((first, last, taken)),
        }
        is_first
    }

    /// Appends what is due.
    pub(super) fn put(&mut self, channel: u16, out: &mut Vec<u8>) {
        let mut due = std::mem::take(&mut self.due);
        due.sort_unstable();
        for &(first, last, taken) in &due {
            if first == self.below + 1 {
                put_answer(channel, last, first != last, taken, out);
                self.below = last;
                self.join();
            } else {
                (first..=last).for_each(|token| put_answer(channel, token, false, taken, out));
                self.note_early(first, last);
            }
        }
        due.clear();
        self.due = due;
    }

    fn note_early(&mut self, first: u64, last: u64) {
        match self.early.range_mut(..first).next_back() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => drop(self.early.insert(first, last)),
        }
    }

    fn join(&mut self) {
        while let Some(early) = self.early.first_entry().filter(|early| *early.key() == self.below + 1) {
            self.below = early.remove();
        }
    }
}

fn put_answer(channel: u16, delivery_tag: u64, multiple: bool, taken: bool, out: &mut Vec<u8>) {
    match taken {
        true => Method::BasicAck { delivery_tag, multiple }.put(channel, out),
        false => Method::BasicNack { delivery_tag, multiple, requeue: false }.put(channel, out),
    }
}

impl Session {
    pub(super) fn answer_publishes(&mut self, lane: u16, first: u64, last: u64, taken: bool) {
        let confirms = self.channels.get_mut(&lane).and_then(|channel| channel.confirms.as_mut());
        if confirms.is_some_and(|confirms| confirms.answer(first, last, taken)) {
            self.confirming.push(lane);
        }
    }

    pub(super) fn flush_confirms(&mut self, out: &mut Vec<u8>) {
        for lane in std::mem::take(&mut self.confirming) {
            let confirms = self.channels.get_mut(&lane).and_then(|channel| channel.confirms.as_mut());
            if let Some(confirms) = confirms {
                confirms.put(lane, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::next_frame;
    use base::Prng;
    use std::collections::BTreeSet;

    /// What a client makes of the methods: the tokens each one settles.
    fn heard(bytes: &[u8], waiting: &mut BTreeSet<u64>) -> Vec<(u64, bool)> {
        let (mut rest, mut heard) = (bytes, Vec::new());
        while let Ok(Some(frame)) = next_frame(rest, 100) {
            let (tag, multiple, taken) = match Method::decode(frame.payload, 1) {
                Ok(Method::BasicAck { delivery_tag, multiple }) => (delivery_tag, multiple, true),
                Ok(Method::BasicNack { delivery_tag, multiple, .. }) => (delivery_tag, multiple, false),
                other => panic!("{other:?}"),
            };
            assert!(waiting.contains(&tag), "{tag} was answered before");
            let covered: Vec<u64> =
                waiting.iter().copied().filter(|token| *token == tag || multiple && *token < tag).collect();
            covered.iter().for_each(|token| assert!(waiting.remove(token)));
            heard.extend(covered.into_iter().map(|token| (token, taken)));
            rest = &rest[frame.len()..];
        }
        heard
    }

    #[test]
    fn every_publish_gets_exactly_its_own_answer() {
        let mut prng = Prng::new(9);
        for _ in 0..300 {
            let mut confirms = Confirms::default();
            let count = 1 + prng.below(60);
            let mut waiting: BTreeSet<u64> = (1..=count).collect();
            let mut unanswered: Vec<u64> = (1..=count).collect();
            let (mut given, mut got) = (BTreeSet::new(), BTreeSet::new());
            while !unanswered.is_empty() {
                for _ in 0..prng.below(6) {
                    let at = if prng.chance(2, 3) { 0 } else { prng.below(unanswered.len() as u64) as usize };
                    let first = unanswered[at];
                    let run = unanswered[at..].iter().zip(first..).take_while(|(token, next)| *token == next);
                    let length = 1 + prng.below(run.count() as u64) as usize;
                    let last = unanswered[at + length - 1];
                    let taken = prng.chance(4, 5);
                    unanswered.drain(at..at + length);
                    confirms.answer(first, last, taken);
                    given.extend((first..=last).map(|token| (token, taken)));
                    if unanswered.is_empty() {
                        break;
                    }
                }
                let mut out = Vec::new();
                confirms.put(1, &mut out);
                got.extend(heard(&out, &mut waiting));
            }
            assert_eq!(got, given);
            assert!(confirms.early.is_empty() && confirms.below == count);
        }
    }

    #[test]
    fn a_turn_of_confirms_in_order_is_one_method() {
        let mut confirms = Confirms::default();
        for token in 1..=100 {
            confirms.answer(token, token, true);
        }
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        confirms.put(3, &mut out);
        Method::BasicAck { delivery_tag: 100, multiple: true }.put(3, &mut expected);
        assert_eq!(out, expected);
    }
}
