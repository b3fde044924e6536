//! What one run against a Kafka server does: who writes where, who reads what, for how long. Pure: no sockets, no
//! clock.
//!
//! Partitions of all topics are numbered through. A *stream* is what one producer writes to one partition; its
//! messages are numbered from 0, so that order and loss can be told for each.

use std::time::Duration;

use crate::clients;
use crate::course::{Course, Until};
use crate::error::{Error, Result};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writing alone.
    Produce,
    /// Reading what was written before, without a writer.
    Fetch,
    /// Both at once.
    Both,
}

/// All settings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Host name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// What is measured.
    pub(crate) mode: Mode,
    /// Writing connections.
    pub(crate) producers: u16,
    /// Reading connections.
    pub(crate) consumers: u16,
    /// Topics.
    pub(crate) topics: u32,
    /// Partitions of each.
    pub(crate) partitions: u32,
    /// Replicas of each partition; -1 is the server's default.
    pub(crate) replicas: i16,
    /// Bytes that each partition keeps at least; `None` is the server's default.
    pub(crate) retention: Option<u64>,
    /// Bytes of a record's value.
    pub(crate) size: usize,
    /// Bytes of a batch, about.
    pub(crate) batch: usize,
    /// 0, 1 or -1 for all.
    pub(crate) acks: i16,
    /// Requests of a producer without an answer.
    pub(crate) pipeline: usize,
    /// Most bytes of one partition in an answer.
    pub(crate) fetch_bytes: i32,
    /// How long the server may hold an answer back for want of records.
    pub(crate) fetch_wait: Duration,
    /// How fast, until when, and when to give up.
    pub(crate) course: Course,
    /// Processes of the server; empty means to look for the listener.
    pub(crate) server_pids: Vec<u32>,
    /// Where the server shows `waystation_*` counters.
    pub(crate) metrics_url: Option<String>,
}

/// One producer's share of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Who writes.
    pub(crate) producer: u16,
    /// Into which partition, of all topics.
    pub(crate) partition: u32,
}

impl Plan {
    /// A plan with one producer, one consumer and one partition.
    pub(crate) fn new(host: String, port: u16) -> Plan {
        Plan {
            host,
            port,
            mode: Mode::Both,
            producers: 1,
            consumers: 1,
            topics: 1,
            partitions: 1,
            replicas: 1,
            retention: None,
            size: 1024,
            batch: 64 << 10,
            acks: -1,
            pipeline: 5,
            fetch_bytes: 1 << 20,
            fetch_wait: Duration::from_millis(500),
            course: Course::default(),
            server_pids: Vec::new(),
            metrics_url: None,
        }
    }

    /// Refuses combinations that mean nothing.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |sentence: &str| Err(Error::new(sentence));
        if self.producers == 0 || self.topics == 0 || self.partitions == 0 || self.pipeline == 0 {
            return wrong("a run needs at least one producer, topic, partition and request under way");
        }
        if self.mode != Mode::Produce && self.consumers == 0 {
            return wrong("reading needs at least one consumer: use --mode produce to write only");
        }
        if self.mode == Mode::Fetch && !matches!(self.course.until, Until::Published(_)) {
            return wrong("--mode fetch needs --messages: how many records to write before they are read");
        }
        if self.course.rate == Some(0) || !matches!(self.acks, -1..=1) {
            return wrong("--rate must not be 0, and --acks is 0, 1 or all");
        }
        if self.size > 64 << 20 || self.batch > 64 << 20 {
            return wrong("--size and --batch: more than 64 MiB is beyond what servers accept");
        }
        match u64::from(self.topics) * u64::from(self.partitions) + u64::from(self.producers) {
            0..=60_000 => Ok(()),
            _ => wrong("that is too many partitions"),
        }
    }

    /// Partitions of all topics.
    pub(crate) fn all_partitions(&self) -> u32 {
        self.topics * self.partitions
    }

    /// The topic of a partition, and which it is there.
    pub(crate) fn place(&self, partition: u32) -> (usize, u32) {
        ((partition / self.partitions) as usize, partition % self.partitions)
    }

    /// All streams: every partition has a writer and every producer a partition.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        let (partitions, producers) = (self.all_partitions(), u32::from(self.producers));
        let pairs = 0..partitions.max(producers);
        pairs.map(|at| Stream { producer: (at % producers) as u16, partition: at % partitions }).collect()
    }

    /// The partitions that a consumer reads.
    pub(crate) fn reads(&self, consumer: u16) -> Vec<u32> {
        let consumers = usize::from(self.consumers);
        (0..self.all_partitions()).skip(usize::from(consumer)).step_by(consumers).collect()
    }

    /// How many batches of `each` records a producer writes before it is done; `None` without a bound.
    pub(crate) fn quota(&self, producer: u16, each: usize) -> Option<u64> {
        let Until::Published(records) = self.course.until else { return None };
        let batches = records.div_ceil(each as u64);
        let (all, own) = (u64::from(self.producers), u64::from(producer));
        Some((batches + all - 1 - own) / all)
    }

    /// When a batch of a producer is due, in nanoseconds since the start.
    pub(crate) fn due_ns(&self, producer: u16, batch: u64, each: usize) -> Option<u64> {
        let number = u128::from(batch) * u128::from(self.producers) + u128::from(producer);
        self.course.due_ns(number * each as u128)
    }
}

impl clients::Plan for Plan {
    fn size(&self) -> usize {
        self.size
    }

    fn copies(&self) -> u64 {
        1
    }

    fn confirms(&self) -> bool {
        self.acks != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(producers: u16, topics: u32, partitions: u32) -> Plan {
        Plan { producers, topics, partitions, ..Plan::new("h".into(), 1) }
    }

    #[test]
    fn every_partition_has_a_writer_and_every_producer_a_partition() {
        for (producers, topics, partitions) in [(1, 1, 1), (3, 1, 2), (2, 2, 3), (1, 2, 2), (5, 1, 5)] {
            let plan = plan(producers, topics, partitions);
            let streams = plan.streams();
            assert!((0..producers).all(|p| streams.iter().any(|s| s.producer == p)));
            assert!((0..topics * partitions).all(|p| streams.iter().any(|s| s.partition == p)));
            let mut pairs: Vec<_> = streams.iter().map(|s| (s.producer, s.partition)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), streams.len(), "no stream is there twice");
        }
        assert_eq!(plan(1, 2, 3).place(4), (1, 1));
    }

    #[test]
    fn every_partition_has_one_reader() {
        let plan = Plan { consumers: 2, ..plan(1, 1, 5) };
        assert_eq!((plan.reads(0), plan.reads(1)), (vec![0, 2, 4], vec![1, 3]));
    }

    #[test]
    fn batches_are_shared_out_and_due_in_turn() {
        let mut plan = plan(2, 1, 1);
        plan.course = Course { until: Until::Published(70), rate: Some(1000), ..plan.course };
        assert_eq!((plan.quota(0, 10), plan.quota(1, 10)), (Some(4), Some(3)));
        assert_eq!((plan.due_ns(0, 0, 10), plan.due_ns(1, 0, 10)), (Some(0), Some(10_000_000)));
        assert_eq!(plan.due_ns(0, 1, 10), Some(20_000_000));
    }

    #[test]
    fn senseless_plans_are_refused() {
        assert!(plan(1, 1, 1).check().is_ok());
        assert!(plan(0, 1, 1).check().is_err());
        assert!(Plan { consumers: 0, ..plan(1, 1, 1) }.check().is_err());
        assert!(Plan { consumers: 0, mode: Mode::Produce, ..plan(1, 1, 1) }.check().is_ok());
        assert!(Plan { mode: Mode::Fetch, ..plan(1, 1, 1) }.check().is_err());
        assert!(Plan { acks: 2, ..plan(1, 1, 1) }.check().is_err());
        assert!(plan(1, 1000, 1000).check().is_err());
    }
}
