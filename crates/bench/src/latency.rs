//! Latencies of one run as a histogram, in nanoseconds, exact to three digits. In: latencies, or runs of equal
//! ones. Out: percentiles in microseconds. Never allocates after it is made.

use hdrhistogram::Histogram;

/// Ten minutes: anything slower is recorded as this.
const SLOWEST_NS: u64 = 600_000_000_000;

/// The distribution of one latency.
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    /// Equal latencies in a row, which batches produce, reach the histogram as one.
    run: (u64, u64),
    /// Messages sent earlier belong to the warm-up.
    since_ns: u64,
}

/// The percentiles that are reported, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Percentiles {
    /// Half of all messages were at least this fast.
    pub(crate) p50: f64,
    /// Nine of ten.
    pub(crate) p90: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1,000.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
}

impl Latency {
    /// An empty distribution.
    pub(crate) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(100, SLOWEST_NS, 3).expect("the bounds are constants in range");
        Latency { histogram, run: (0, 0), since_ns: 0 }
    }

    /// Counts a message sent at `sent_ns` whose answer came at `now_ns`.
    pub(crate) fn record(&mut self, sent_ns: u64, now_ns: u64) {
        if sent_ns >= self.since_ns {
            self.count(now_ns.saturating_sub(sent_ns), 1);
        }
    }

    /// Counts `count` messages that all took `nanos`.
    fn count(&mut self, nanos: u64, count: u64) {
        if self.run.0 == nanos {
            self.run.1 += count;
        } else {
            self.flush();
            self.run = (nanos, count);
        }
    }

    fn flush(&mut self) {
        let (nanos, count) = std::mem::take(&mut self.run);
        if count > 0 {
            self.histogram.saturating_record_n(nanos, count);
        }
    }

    /// Forgets everything, as at the end of a warm-up, and ignores what was sent before `since_ns`.
    pub(crate) fn restart(&mut self, since_ns: u64) {
        self.since_ns = since_ns;
        self.run = (0, 0);
        self.histogram.reset();
    }

    /// The percentiles so far; all 0 when nothing was recorded.
    pub(crate) fn percentiles(&mut self) -> Percentiles {
        self.flush();
        if self.histogram.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.histogram.max() as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), Percentiles::default());
        for micros in 1..=1000 {
            latency.record(7, 7 + micros * 1000);
        }
        let p = latency.percentiles();
        for (got, want) in [(p.p50, 500.0), (p.p90, 900.0), (p.p99, 990.0), (p.p999, 999.0), (p.max, 1000.0)]
        {
            assert!((got - want).abs() / want < 0.002, "{got} is not {want}");
        }
    }

    #[test]
    fn a_run_counts_as_often_as_it_is_long() {
        let mut latency = Latency::new();
        latency.count(1_000_000, 99);
        latency.count(50_000_000, 1);
        assert!(latency.percentiles().p99 < 1_001.0 && latency.percentiles().p999 > 49_900.0);
        latency.record(0, u64::MAX);
        assert!(latency.percentiles().max >= 599_000_000.0);
        latency.restart(10);
        latency.record(9, 20);
        assert_eq!(latency.percentiles(), Percentiles::default());
    }
}
