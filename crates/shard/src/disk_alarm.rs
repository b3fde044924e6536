//! When publishers are held back because the disk is nearly full, and when they go on.
//!
//! In: how many bytes are free, time and again. Out: what the shards are to be told, and when to count again. Never:
//! asks the disk or a clock.

/// How often the free bytes are counted, microseconds.
const INTERVAL_US: u64 = 100_000;
/// As [`INTERVAL_US`], when there is little more than the least: what publishers write meanwhile must fit into it.
const INTERVAL_NEAR_US: u64 = 5_000;
/// Fewer free bytes than so many times the least are little more.
const NEAR: u64 = 4;
/// After so many counts the shards are told again while it lasts, so that they go on making room.
const REMIND: u32 = 10;
const REASON: &str = "the disk is nearly full";

/// The alarm of one disk.
#[derive(Clone, Debug)]
pub struct DiskAlarm {
    least: u64,
    is_on: bool,
    /// Counts since the shards were told.
    counts: u32,
}

/// What follows from a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// What every shard is to be told now: the reason, or that there is none any more.
    pub tell: Option<Option<&'static str>>,
    /// Whether that is new.
    pub has_changed: bool,
    /// Microseconds until the next count.
    pub again_us: u64,
}

impl DiskAlarm {
    /// Publishers are held back below so many free bytes.
    pub fn new(least: u64) -> DiskAlarm {
        DiskAlarm { least, is_on: false, counts: 0 }
    }

    /// Free bytes below which publishers are held back.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Whether publishers are held back.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// So many bytes are free now.
    pub fn counted(&mut self, free: u64) -> Counted {
        let is_near = !self.is_on && free < self.least.saturating_mul(NEAR);
        let again_us = if is_near { INTERVAL_NEAR_US } else { INTERVAL_US };
        let has_changed = self.is_short(free) != self.is_on;
        if has_changed {
            self.is_on = !self.is_on;
        } else if !self.is_on || self.counts < REMIND {
            self.counts = self.counts.saturating_add(1);
            return Counted { tell: None, has_changed, again_us };
        }
        self.counts = 0;
        Counted { tell: Some(self.is_on.then_some(REASON)), has_changed, again_us }
    }

    /// It takes a quarter more than the least to go on, lest it go to and fro.
    fn is_short(&self, free: u64) -> bool {
        free < if self.is_on { self.least.saturating_add(self.least / 4) } else { self.least }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_below_the_least_and_ends_clearly_above() {
        let mut alarm = DiskAlarm::new(100);
        let tell = |alarm: &mut DiskAlarm, free| alarm.counted(free).tell;
        assert_eq!(tell(&mut alarm, 100), None);
        assert_eq!(tell(&mut alarm, 99), Some(Some(REASON)));
        assert_eq!((tell(&mut alarm, 124), alarm.is_on()), (None, true));
        assert_eq!(tell(&mut alarm, 125), Some(None));
        assert_eq!((tell(&mut alarm, 100), alarm.is_on()), (None, false));
    }

    #[test]
    fn it_counts_often_where_little_is_left_and_reminds_while_it_lasts() {
        let mut alarm = DiskAlarm::new(100);
        assert_eq!(alarm.counted(400).again_us, INTERVAL_US);
        assert_eq!(alarm.counted(399).again_us, INTERVAL_NEAR_US);
        assert!(alarm.counted(1).has_changed);
        let told = (0..=REMIND).filter(|_| alarm.counted(1).tell == Some(Some(REASON))).count();
        assert_eq!(told, 1);
        assert_eq!(alarm.counted(1), Counted { tell: None, has_changed: false, again_us: INTERVAL_US });
    }
}
