//! Who counts the free bytes of the node's disk and tells the shards, as the runtime does.
//!
//! In: time, free bytes. Out: what each shard is told, when that arrives. Never: decides when the disk is nearly full,
//! which [`DiskAlarm`] does.

use std::collections::VecDeque;

use base::Prng;
use shard::DiskAlarm;

use crate::plan::Plan;

/// What a shard is told: why publishers are held back, or that they may go on.
type Told = Option<&'static str>;

/// The counting of one start of the node.
#[derive(Debug)]
pub struct Room {
    alarm: DiskAlarm,
    count_at_us: u64,
    /// What is on its way to each shard, and when it arrives.
    letters: Vec<VecDeque<(u64, Told)>>,
    /// Whether each shard holds publishers back.
    hold_back: Vec<bool>,
    /// How often a shard began to hold them back, or let them go on.
    changes: u64,
    mail_us: u64,
    /// How often the alarm began and ended.
    pub seen: (u64, u64),
}

impl Room {
    /// Begins to count.
    pub fn new(plan: &Plan, now_us: u64) -> Room {
        let shards = usize::from(plan.shards);
        Room {
            alarm: DiskAlarm::new(plan.free_bytes_min()),
            count_at_us: now_us,
            letters: vec![VecDeque::new(); shards],
            hold_back: vec![false; shards],
            changes: 0,
            mail_us: plan.mail_us,
            seen: (0, 0),
        }
    }

    /// Counts if it is time to.
    pub fn look(&mut self, free: u64, now_us: u64, prng: &mut Prng) {
        if now_us < self.count_at_us {
            return;
        }
        let counted = self.alarm.counted(free);
        self.count_at_us = now_us + counted.again_us;
        if counted.has_changed {
            let (begun, ended) = &mut self.seen;
            *(if self.alarm.is_on() { begun } else { ended }) += 1;
        }
        let Some(told) = counted.tell else { return };
        for letters in &mut self.letters {
            let after = letters.back().map_or(0, |(due, _)| *due);
            letters.push_back((after.max(now_us + prng.below(self.mail_us)), told));
        }
    }

    /// What arrives at a shard.
    pub fn letter(&mut self, shard: u16, now_us: u64) -> Option<Told> {
        let at = usize::from(shard);
        let (_, told) = self.letters[at].pop_front_if(|(due, _)| *due <= now_us)?;
        self.changes += u64::from(self.hold_back[at] != told.is_some());
        self.hold_back[at] = told.is_some();
        Some(told)
    }

    /// When something happens next.
    pub fn next_due_us(&self) -> u64 {
        let letters = self.letters.iter().filter_map(|letters| letters.front()).map(|(due, _)| *due);
        letters.min().unwrap_or(u64::MAX).min(self.count_at_us)
    }

    /// Whether any shard holds publishers back, or will.
    pub fn is_alarmed(&self) -> bool {
        self.alarm.is_on()
            || self.hold_back.contains(&true)
            || self.letters.iter().any(|letters| !letters.is_empty())
    }

    /// Whether every shard holds publishers back: as long as it is the same number, none has let them go on.
    pub fn holds_back(&self) -> Option<u64> {
        let all = self.hold_back.iter().all(|holds_back| *holds_back);
        all.then_some(self.changes)
    }
}
