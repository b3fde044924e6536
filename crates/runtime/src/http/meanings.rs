//! What each figure of a shard means, in a sentence for whoever watches it.
//!
//! In: the name of a figure. Out: the text that `/metrics` shows as its help. Never: values.

/// What the figure counts; for one without a sentence here its own name, in words.
pub fn meaning(name: &str) -> String {
    let words = || name.replace('_', " ");
    sentence(name).map_or_else(words, str::to_owned)
}

fn sentence(name: &str) -> Option<&'static str> {
    clients(name).or_else(|| messages(name)).or_else(|| log(name)).or_else(|| runs(name))
}

fn clients(name: &str) -> Option<&'static str> {
    Some(match name {
        "authentication_failures" => "Logins with a wrong name or password",
        "connections" => "Connections that are open, of all protocols",
        "connections_closed" => "Connections that ended",
        "connections_opened" => "Connections that were let in",
        "groups" => "Raft groups that this shard hosts",
        "groups_held_back" => "Groups that take no publishes now because their log is behind",
        "partitions" => "Streams and partitions of topics, the same number on every shard",
        "publishing_held_back" => "1 while publishers are held back because the disk is nearly full",
        "queues" => "Queues, the same number on every shard; streams are counted as partitions",
        "requests_refused" => "Requests that were answered with an error",
        _ => return None,
    })
}

fn messages(name: &str) -> Option<&'static str> {
    Some(match name {
        "messages_confirmed" => "Publishes of AMQP that were confirmed",
        "messages_delivered" => {
            "Messages sent to AMQP clients, each time they were, those read from streams included"
        }
        "messages_enqueued" => "Messages put into queues, once for each queue; of one queue: queue_enqueued",
        "messages_published" => "Messages of AMQP and records of Kafka that arrived",
        "messages_published_bytes" => "Bytes of bodies of AMQP and of batches of Kafka that arrived",
        "messages_rejected" => "Publishes that were refused and answered so",
        "messages_settled" => {
            "Messages that left their queue, acknowledged, discarded or purged; of one queue: queue_settled"
        }
        "messages_unroutable" => "Messages that no queue was bound for",
        _ => return None,
    })
}

fn log(name: &str) -> Option<&'static str> {
    Some(match name {
        "checkpoints" => "Checkpoints of groups that were written",
        "compaction_freed_bytes" => "Bytes that batches of compacted topics lost by being rewritten",
        "compaction_rewritten_batches" => "Batches of compacted topics rewritten without what was removed",
        "log_cache_bytes" => "Memory that holds entries for reading them again",
        "log_entries" => "Entries written to the log",
        "log_entries_per_sync" => "Entries that one sync made durable, on average since the start",
        "log_live_bytes" => "Bytes in the ring of segments that are still needed",
        "log_payload_bytes" => "Bytes of the entries written to the log, without frames and padding",
        "log_ring_bytes" => "Size of the ring of segments; kept near ring_bytes_max",
        "log_ring_fill_ratio" => "Share of the ring's segments that may not be written again yet",
        "log_segments" => "Segments of the ring",
        "log_syncs" => "Times the log was made durable",
        "log_written_bytes" => "Bytes written to the disk: log, checkpoints and runs",
        "log_written_bytes_per_published_byte" => {
            "Bytes written to the disk for each byte that was published here, since the start"
        }
        _ => return None,
    })
}

fn runs(name: &str) -> Option<&'static str> {
    Some(match name {
        "log_adopted_segments" => "Old segments that became runs as they are, without being copied",
        "log_adopted_segments_reused" => {
            "Such segments that went back to the ring when nobody needed them any more"
        }
        "log_dead_bytes" => "Bytes of runs that nobody needs and that were not given back yet",
        "log_evacuated_bytes" => "Bytes moved from old segments to runs, those in adopted ones included",
        "log_evacuated_segments" => "Old segments whose content was moved to runs",
        "log_punched_bytes" => "Bytes of runs that were given back to the file system",
        "log_run_bytes" => "Bytes of the blocks in runs that were not given back",
        "log_run_written_bytes" => "Bytes written for runs and their manifests",
        "log_runs" => "Runs: files that hold what old segments still held",
        _ => return None,
    })
}
