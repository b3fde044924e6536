//! What happened over many seeds, and the proof that the faults bit: a run in which nothing went wrong shows nothing.

use std::fmt;
use std::ops::AddAssign;

macro_rules! tally {
    ($($field:ident: $must:literal,)*) => {
        /// Figures of one run or of many.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // The names say it.
        pub struct Tally { $(pub $field: u64,)* }

        impl AddAssign for Tally {
            fn add_assign(&mut self, other: Tally) {
                $(self.$field += other.$field;)*
            }
        }

        impl Tally {
            /// What a large number of seeds must have seen and has not.
            pub fn missing(&self) -> Vec<&'static str> {
                let all: Vec<(&'static str, u64, bool)> = vec![$((stringify!($field), self.$field, $must)),*];
                all.into_iter().filter(|(_, seen, must)| *must && *seen == 0).map(|(name, ..)| name).collect()
            }
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:<28} {}", stringify!($field).replace('_', " "), self.$field)?;)*
                Ok(())
            }
        }
    };
}

tally! {
    starts: true,
    crashes: true,
    orderly_ends: true,
    published: true,
    confirmed: true,
    first_deliveries: true,
    redeliveries: true,
    settled: true,
    known_durable: true,
    given_back: true,
    counted_failures: true,
    excused: false,
    drained: true,
    disk_writes: true,
    disk_reads: true,
    checkpoints: true,
    prepared_segments: true,
    recycled_segments: true,
    evacuated_bytes: true,
    evacuated_for_room: true,
    adopted_segments: true,
    adopted_reused: true,
    cut_behind_adoptions: true,
    cut_within_moves: true,
    punched_bytes: true,
    evacuating_boots: true,
    queued_writes: true,
    lost_writes: true,
    torn_writes: true,
    hidden_writes: true,
    cut_puts: true,
    reordered: true,
    failed_operations: true,
    flipped_bits: true,
    misdirected_writes: true,
    refused_starts: true,
    halts: true,
    wall_jumps: true,
    full: true,
    alarmed: true,
    unblocked: true,
    told_of_blocked: true,
    lived_through_full: true,
    deleted_segments: true,
    kafka_written: true,
    kafka_acked: true,
    kafka_resent: true,
    kafka_read: true,
    kafka_packed: true,
    kafka_stamped: true,
    kafka_topics_deleted: true,
    kafka_recreated: true,
    kafka_recreated_read: true,
    kafka_deleted_ids: true,
    kafka_grown: true,
    kafka_incremental: true,
    kafka_untold: true,
    streams_confirmed: true,
    streams_read: true,
    kafka_looked_up: true,
    kafka_latest: true,
    kafka_deleted: true,
    kafka_outlived: true,
    kafka_compacted: true,
    kafka_marks_gone: true,
    kafka_rewritten: true,
    kafka_out_of_range: true,
    kafka_probes: true,
    kafka_transactions_refused: true,
    kafka_put_off: false,
    kafka_held_back: true,
    kafka_commits: true,
    kafka_commits_refused: true,
    kafka_offsets_fetched: true,
    kafka_generations: true,
    kafka_assigned: true,
    kafka_vanished: true,
    kafka_settled_groups: true,
    kafka_statics_kept: true,
    kafka_fenced: true,
}
