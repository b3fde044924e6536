//! Figures for metrics and health checks.

use model::{CommittedStatus, PartitionStatus, QueueStatus, Status};
use topology::QueueKind;

use crate::Broker;

impl Broker {
    /// This shard's figures.
    pub fn status(&self) -> Status {
        let reason = self.failed.clone().or_else(|| (!self.ready).then(|| "starting".to_owned()));
        Status {
            ready: self.is_ready(),
            reason,
            counters: self.counters(),
            gauges: self.gauges(),
            queues: self.queue_figures(),
            partitions: self.partition_status(),
            committed: self.committed_status(),
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let c = &self.counters;
        let log = self.log.stats();
        let enqueued = self.host.groups.iter().map(|group| group.enqueued).sum();
        let settled = self.host.groups.iter().map(|group| group.settled).sum();
        vec![
            ("messages_published", c.published),
            ("messages_published_bytes", c.published_bytes),
            ("messages_confirmed", c.confirmed),
            ("messages_rejected", c.rejected),
            ("messages_unroutable", c.unroutable),
            ("messages_enqueued", enqueued),
            ("messages_delivered", c.delivered),
            ("messages_settled", settled),
            ("requests_refused", c.refusals),
            ("connections_opened", c.connections_opened),
            ("connections_closed", c.connections_closed),
            ("authentication_failures", c.authentication_failures),
            ("checkpoints", c.checkpoints),
            ("compaction_rewritten_batches", c.rewritten),
            ("compaction_freed_bytes", c.rewritten_freed_bytes),
            ("log_syncs", log.syncs),
            ("log_entries", log.frames),
            ("log_written_bytes", log.bytes_written),
            ("log_payload_bytes", log.payload_bytes),
            ("log_evacuated_bytes", log.evacuated_bytes),
            ("log_evacuated_segments", log.evacuated_segments),
            ("log_adopted_segments", log.adopted_segments),
            ("log_adopted_segments_reused", log.adopted_reused),
            ("log_run_written_bytes", log.run_bytes_written),
            ("log_punched_bytes", log.punched_bytes),
        ]
    }

    fn gauges(&self) -> Vec<(&'static str, f64)> {
        let log = self.log.stats();
        let fill = if log.segments == 0 { 0.0 } else { 1.0 - log.segments_free as f64 / log.segments as f64 };
        let held_back = self.door.outgoing.iter().filter(|outgoing| outgoing.is_held_back()).count();
        vec![
            ("publishing_held_back", f64::from(u8::from(self.alarm.is_some()))),
            ("connections", self.door.connections.len() as f64),
            ("queues", self.count_of(QueueKind::Queue)),
            ("partitions", self.count_of(QueueKind::Stream)),
            ("groups", self.host.groups.len() as f64),
            ("groups_held_back", held_back as f64),
            ("log_entries_per_sync", ratio(log.frames, log.syncs)),
            ("log_written_bytes_per_published_byte", ratio(log.bytes_written, self.counters.published_bytes)),
            ("log_segments", log.segments as f64),
            ("log_ring_bytes", log.ring_bytes as f64),
            ("log_dead_bytes", log.dead_bytes as f64),
            ("log_ring_fill_ratio", fill),
            ("log_live_bytes", log.live_bytes as f64),
            ("log_runs", log.runs as f64),
            ("log_run_bytes", log.run_bytes as f64),
            ("log_cache_bytes", log.cache_bytes as f64),
        ]
    }

    fn count_of(&self, kind: QueueKind) -> f64 {
        self.topology.queues().filter(|queue| queue.kind == kind).count() as f64
    }

    fn queue_figures(&self) -> Vec<QueueStatus> {
        let mut figures = Vec::new();
        for group in &self.host.groups {
            for (id, hosted) in group.queues.iter() {
                let Some(record) = self.topology.queue_by_id(*id) else { continue };
                let state = group.machine.queue(*id);
                let counters =
                    state.map_or(queue::Counters { enqueued: 0, settled: 0, live: 0 }, |s| s.counters());
                figures.push(QueueStatus {
                    vhost: record.vhost.to_string(),
                    name: record.name.to_string(),
                    ready: state.map_or(0, |state| hosted.delivery.ready(state)),
                    unacked: hosted.delivery.unacked(),
                    consumers: hosted.delivery.consumer_count() as u64,
                    published: counters.enqueued,
                    delivered: hosted.delivered,
                    settled: counters.settled,
                });
            }
        }
        figures
    }
}

/// Committed offsets told of one shard: figures are for people, who read no more.
const COMMITTED_MAX: usize = 10_000;

impl Broker {
    fn partition_status(&self) -> Vec<PartitionStatus> {
        let logs = self.host.groups.iter().flat_map(|group| group.machine.logs());
        let status = |(log, state): (model::QueueId, &queue::LogState)| {
            let (topic, partition) = self.topology.topic_of(log)?;
            Some(PartitionStatus {
                vhost: topic.vhost.clone(),
                topic: topic.name.clone(),
                partition,
                start: state.start(),
                end: state.end(),
                bytes: state.bytes(),
                consumers: self.host.logs.followers.count(log) as u64,
            })
        };
        logs.filter_map(status).collect()
    }

    fn committed_status(&self) -> Vec<CommittedStatus> {
        let coordinators = self.host.groups.iter().flat_map(|group| group.machine.coordinators());
        let groups = coordinators.flat_map(|(_, coordinator)| coordinator.groups());
        let offsets = groups
            .flat_map(|(name, group)| group.offsets().map(move |(log, committed)| (name, log, committed)));
        let status = |(group, log, committed): (&str, model::QueueId, &queue::Committed)| {
            let (topic, partition) = self.topology.topic_of(log)?;
            let (vhost, topic) = (topic.vhost.clone(), topic.name.clone());
            Some(CommittedStatus { group: group.into(), vhost, topic, partition, offset: committed.offset })
        };
        offsets.filter_map(status).take(COMMITTED_MAX).collect()
    }
}

/// Since the start; 0 while there is nothing to divide by.
fn ratio(of: u64, by: u64) -> f64 {
    if by == 0 { 0.0 } else { of as f64 / by as f64 }
}
