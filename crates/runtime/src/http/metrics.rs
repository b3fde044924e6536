//! The shards' figures as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt;

use model::{PartitionStatus, QueueStatus, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::meanings::meaning;

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Partitions told, by name, and likewise offsets of consumer groups: every one is a time series of its own.
const PARTITIONS_MAX: usize = 1000;
const LAGS_MAX: usize = 1000;

type Labels = Vec<(&'static str, String)>;

/// Values of one figure, each with the labels that tell them apart.
#[derive(Debug)]
struct Family<T> {
    help: String,
    values: Vec<(Labels, T)>,
}

#[derive(Debug, Default)]
struct Figures {
    counters: BTreeMap<String, Family<u64>>,
    gauges: BTreeMap<String, Family<f64>>,
    cpu_seconds: f64,
}

/// The text of everything the shards and the process say of themselves.
pub fn encode(ready: bool, statuses: &[Option<Status>]) -> Result<String, fmt::Error> {
    let mut figures = Figures { cpu_seconds: cpu_seconds(), ..Figures::default() };
    figures.gauge(
        "waystation_ready",
        "Whether clients can be served",
        Vec::new(),
        f64::from(u8::from(ready)),
    );
    if let Some(bytes) = resident_bytes() {
        figures.gauge("process_resident_memory_bytes", "Resident memory size in bytes", Vec::new(), bytes);
    }
    for (shard, status) in statuses.iter().enumerate() {
        if let Some(status) = status {
            figures.add_shard(shard, status);
        }
    }
    figures.add_partitions(statuses);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Figures {
    fn add_shard(&mut self, shard: usize, status: &Status) {
        let labels = || vec![("shard", shard.to_string())];
        for (name, value) in &status.counters {
            self.counter(&format!("waystation_{name}"), &meaning(name), labels(), *value);
        }
        for (name, value) in &status.gauges {
            self.gauge(&format!("waystation_{name}"), &meaning(name), labels(), *value);
        }
        for queue in &status.queues {
            self.add_queue(queue);
        }
    }

    fn add_queue(&mut self, queue: &QueueStatus) {
        let labels = || vec![("vhost", queue.vhost.clone()), ("queue", queue.name.clone())];
        for (name, help, value) in [
            ("waystation_queue_ready", "Messages ready to be delivered", queue.ready),
            ("waystation_queue_unacked", "Messages handed out and not settled yet", queue.unacked),
            ("waystation_queue_consumers", "Consumers", queue.consumers),
        ] {
            self.gauge(name, help, labels(), value as f64);
        }
        for (name, help, value) in [
            (
                "waystation_queue_enqueued",
                "Messages put into the queue since it was declared",
                queue.published,
            ),
            (
                "waystation_queue_handed_out",
                "Messages handed out since the node started, each time they were; messages_delivered leaves out those \
                 that were taken back before they were sent",
                queue.delivered,
            ),
            (
                "waystation_queue_settled",
                "Messages that left the queue since it was declared, acknowledged, discarded or purged",
                queue.settled,
            ),
        ] {
            self.counter(name, help, labels(), value);
        }
    }

    /// Partitions and how far consumer groups are behind them, which may be known to different shards.
    fn add_partitions(&mut self, statuses: &[Option<Status>]) {
        let mut ends = BTreeMap::new();
        let mut lags = BTreeMap::new();
        for status in statuses.iter().flatten() {
            let place = |of: &PartitionStatus| (of.vhost.clone(), of.topic.clone(), of.partition);
            ends.extend(status.partitions.iter().map(|of| (place(of), of)));
            lags.extend(status.committed.iter().map(|of| {
                let place = (of.vhost.clone(), of.topic.clone(), of.partition);
                ((of.group.clone(), place), of.offset)
            }));
        }
        for ((vhost, topic, partition), of) in ends.iter().take(PARTITIONS_MAX) {
            let labels = || place_labels(vhost, topic, *partition);
            for (name, help, value) in [
                ("waystation_partition_log_start", "The first offset there is", of.start),
                ("waystation_partition_log_end", "The offset behind the last record", of.end),
                ("waystation_partition_bytes", "Bytes of the partition's batches", of.bytes),
                ("waystation_partition_consumers", "AMQP consumers of the stream", of.consumers),
            ] {
                self.gauge(name, help, labels(), value as f64);
            }
        }
        let known = lags.iter().filter_map(|(at, offset)| {
            let of = ends.get(&at.1)?;
            // What was committed below 0 is no offset: nothing was read.
            let is_offset = i64::try_from(*offset).is_ok();
            Some((at, of.end.saturating_sub(if is_offset { *offset } else { of.start })))
        });
        let mut lags_shown = 0;
        for ((group, (vhost, topic, partition)), lag) in known.take(LAGS_MAX) {
            let mut labels = vec![("group", group.clone())];
            labels.extend(place_labels(vhost, topic, *partition));
            let help = "Offsets between what a consumer group committed and the end of the partition";
            self.gauge("waystation_group_lag", help, labels, lag as f64);
            lags_shown += 1;
        }
        for (name, help, count) in [
            (
                "waystation_partitions_not_shown",
                "Partitions beyond those with figures of their own",
                ends.len().saturating_sub(PARTITIONS_MAX),
            ),
            (
                "waystation_group_lags_not_shown",
                "Committed offsets beyond those with a lag here, or of partitions without figures",
                lags.len() - lags_shown,
            ),
        ] {
            self.gauge(name, help, Vec::new(), count as f64);
        }
    }

    fn counter(&mut self, name: &str, help: &str, labels: Labels, value: u64) {
        // The encoder adds the ending that the format demands.
        let name = name.strip_suffix("_total").unwrap_or(name);
        add(&mut self.counters, name, help, labels, value);
    }

    fn gauge(&mut self, name: &str, help: &str, labels: Labels, value: f64) {
        add(&mut self.gauges, name, help, labels, value);
    }
}

fn place_labels(vhost: &str, topic: &str, partition: u32) -> Labels {
    vec![("vhost", vhost.to_owned()), ("topic", topic.to_owned()), ("partition", partition.to_string())]
}

fn add<T>(families: &mut BTreeMap<String, Family<T>>, name: &str, help: &str, labels: Labels, value: T) {
    let family = families
        .entry(name.to_owned())
        .or_insert_with(|| Family { help: help.to_owned(), values: Vec::new() });
    family.values.push((labels, value));
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Total user and system CPU time spent in seconds";
        let mut cpu = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        cpu.encode_counter::<NoLabelSet, f64, f64>(&self.cpu_seconds, None)?;
        for (name, family) in &self.counters {
            let mut metric = encoder.encode_descriptor(name, &family.help, None, MetricType::Counter)?;
            for (labels, value) in &family.values {
                let mut labelled = metric.encode_family(labels)?;
                labelled.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
            }
        }
        for (name, family) in &self.gauges {
            let mut metric = encoder.encode_descriptor(name, &family.help, None, MetricType::Gauge)?;
            for (labels, value) in &family.values {
                // A value without labels stands for itself, not for a family with an empty set of them.
                match labels.is_empty() {
                    true => metric.encode_gauge(value)?,
                    false => metric.encode_family(labels)?.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The second number of statm is the resident pages.
fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64) as f64)
}

#[cfg(test)]
mod tests {
    use model::CommittedStatus;

    use super::*;

    #[test]
    fn every_figure_has_its_name_labels_and_value() {
        let queue = QueueStatus {
            vhost: "/".into(),
            name: "a \"b\"".into(),
            ready: 3,
            published: 7,
            ..QueueStatus::default()
        };
        let status = Status {
            counters: vec![("confirmed_total", 5), ("syncs", 2)],
            gauges: vec![("connections", 4.0)],
            queues: vec![queue],
            ..Status::default()
        };
        let text = encode(true, &[Some(status.clone()), None, Some(status)]).expect("encoded");
        for line in [
            "waystation_ready 1.0",
            "waystation_confirmed_total{shard=\"0\"} 5",
            "waystation_confirmed_total{shard=\"2\"} 5",
            "waystation_syncs_total{shard=\"0\"} 2",
            "waystation_connections{shard=\"2\"} 4.0",
            "waystation_queue_ready{vhost=\"/\",queue=\"a \\\"b\\\"\"} 3.0",
            "waystation_queue_enqueued_total{vhost=\"/\",queue=\"a \\\"b\\\"\"} 7",
            "# TYPE waystation_confirmed counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(
            text.contains("process_cpu_seconds_total ") && text.contains("process_resident_memory_bytes ")
        );
        assert_eq!(text.matches("# TYPE waystation_confirmed counter").count(), 1);
    }

    fn partition(topic: &str, partition: u32, start: u64, end: u64) -> PartitionStatus {
        let (vhost, topic) = ("/".to_owned(), topic.to_owned());
        PartitionStatus { vhost, topic, partition, start, end, bytes: 10 * (end - start), consumers: 1 }
    }

    fn committed(group: &str, topic: &str, partition: u32, offset: u64) -> CommittedStatus {
        CommittedStatus { group: group.into(), vhost: "/".into(), topic: topic.into(), partition, offset }
    }

    #[test]
    fn figures_of_shards_say_what_they_count() {
        let status =
            Status { counters: vec![("log_syncs", 1)], gauges: vec![("new_one", 1.0)], ..Status::default() };
        let text = encode(true, &[Some(status)]).expect("encoded");
        assert!(text.contains("# HELP waystation_log_syncs Times the log was made durable\n"), "{text}");
        assert!(text.contains("# HELP waystation_new_one new one\n"), "{text}");
    }

    #[test]
    fn lag_is_told_of_groups_and_partitions_of_different_shards() {
        let partitions = vec![partition("t", 0, 3, 10), partition("t", 1, 0, 4)];
        let one = Status { partitions, ..Status::default() };
        let all = [("g", 0, 7), ("g", 1, 5), ("h", 0, 10), ("i", 0, u64::MAX - 1)];
        let mut offsets: Vec<_> = all.map(|(group, at, offset)| committed(group, "t", at, offset)).into();
        offsets.push(committed("g", "gone", 0, 1));
        let other = Status { committed: offsets, ..Status::default() };
        let text = encode(true, &[Some(one), Some(other)]).expect("encoded");
        for line in [
            "waystation_partition_log_start{vhost=\"/\",topic=\"t\",partition=\"0\"} 3.0",
            "waystation_partition_log_end{vhost=\"/\",topic=\"t\",partition=\"1\"} 4.0",
            "waystation_partition_bytes{vhost=\"/\",topic=\"t\",partition=\"0\"} 70.0",
            "waystation_partition_consumers{vhost=\"/\",topic=\"t\",partition=\"0\"} 1.0",
            "waystation_group_lag{group=\"g\",vhost=\"/\",topic=\"t\",partition=\"0\"} 3.0",
            "waystation_group_lag{group=\"g\",vhost=\"/\",topic=\"t\",partition=\"1\"} 0.0",
            "waystation_group_lag{group=\"h\",vhost=\"/\",topic=\"t\",partition=\"0\"} 0.0",
            "waystation_group_lag{group=\"i\",vhost=\"/\",topic=\"t\",partition=\"0\"} 7.0",
            "waystation_partitions_not_shown 0.0",
            "waystation_group_lags_not_shown 1.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_bounded_number_of_partitions_has_figures_of_its_own() {
        let many = 0..PARTITIONS_MAX as u32 + 7;
        let partitions = many.clone().map(|number| partition("t", number, 0, 1)).collect();
        let offsets = many.map(|number| committed("g", "t", number, 1)).collect();
        let status = Status { partitions, committed: offsets, ..Status::default() };
        let text = encode(true, &[Some(status)]).expect("encoded");
        let count = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!(count("waystation_partition_log_end"), PARTITIONS_MAX);
        assert_eq!(count("waystation_group_lag"), LAGS_MAX);
        assert!(text.contains("waystation_partitions_not_shown 7.0\n"));
        assert!(text.contains("waystation_group_lags_not_shown 7.0\n"));
    }
}
