//! What a seed decides before its run begins: the shape of the node, what clients like to do, which faults come.
//!
//! Every seed switches many things off (a swarm): a fault that is always there hides what happens without it.

use base::Prng;
use model::Limits;

use crate::kafka;

/// Bytes that publishers may have on the way to a disk.
const ON_THE_WAY: u64 = 64 << 20;

/// Faults of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Bits of durable sectors flip.
    pub flips: bool,
    /// Writes went to other places.
    pub misdirects: bool,
    /// A write or sync fails once.
    pub write_errors: bool,
    /// A checkpoint's file cannot be put once.
    pub put_errors: bool,
    /// The disk is full for a while.
    pub full: bool,
    /// Others fill the disk at times so far that the node must notice.
    pub scarce: bool,
    /// The machine's clock jumps.
    pub wall_jumps: bool,
}

/// What clients like to do, each in percent of the chances they get.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Habits {
    pub publish: u64,
    pub settle: u64,
    pub requeue: u64,
    pub reject: u64,
    pub ask: u64,
    pub cancel: u64,
    pub close_channel: u64,
    pub disconnect: u64,
    pub unroutable: u64,
    pub large: u64,
    pub huge: u64,
    pub purge: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shards of the node.
    pub shards: u16,
    /// Queue groups.
    pub groups: u32,
    /// Queues.
    pub queues: usize,
    /// Clients that publish, consume or both.
    pub workers: usize,
    /// How often the node is started before the last time.
    pub boots: u64,
    /// Turns of one boot.
    pub turns: u64,
    /// Publishes without an answer that a channel may have.
    pub window: u64,
    /// Prefetch of a consumer; 0: no bound.
    pub prefetch: u16,
    /// Whether the prefetch is shared by the channel's consumers.
    pub shared_prefetch: bool,
    /// Whether some consumers settle by taking.
    pub auto_ack: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of the ring beyond which it is evacuated.
    pub ring_bytes_max: u64,
    /// One boot in so many ends as a segment was just adopted, each time it is.
    pub cut_one_in: u64,
    /// Bounds.
    pub limits: Limits,
    /// Most microseconds of a disk operation.
    pub disk_us: u64,
    /// One disk operation in so many is slow.
    pub slow_one_in: u64,
    /// Most microseconds of mail between shards.
    pub mail_us: u64,
    /// What clients do.
    pub habits: Habits,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether clients rest now and then, so that much time passes.
    pub rests: bool,
    /// What clients of Kafka do, where there are any.
    pub kafka: Option<kafka::Plan>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(prng: &mut Prng) -> Plan {
        let shards = *prng.pick(&[1, 1, 1, 2, 2, 7]);
        let groups = *prng.pick(&[1, 1, 2, 5]);
        let plan = Plan {
            shards,
            groups,
            queues: 2 + prng.below(3) as usize,
            workers: 1 + prng.below(4) as usize,
            boots: 1 + prng.below(4),
            turns: 60 + prng.below(240),
            window: *prng.pick(&[1, 5, 50, 500]),
            prefetch: *prng.pick(&[1, 2, 10, 100, 0]),
            shared_prefetch: prng.chance(1, 5),
            auto_ack: prng.chance(1, 8),
            segment_bytes: *prng.pick(&[64 << 10, 64 << 10, 128 << 10, 1 << 20]),
            ring_bytes_max: *prng.pick(&[0, 0, 512 << 10, 1 << 30]),
            cut_one_in: 2,
            limits: limits(prng),
            disk_us: *prng.pick(&[20, 200, 2000]),
            slow_one_in: *prng.pick(&[0, 0, 10, 50]),
            mail_us: *prng.pick(&[10, 300, 3000]),
            habits: habits(prng),
            faults: faults(prng),
            rests: prng.chance(1, 2),
            kafka: kafka::Plan::draw(prng),
        };
        if prng.chance(1, 10) { plan.of_large_batches(prng) } else { plan }
    }

    /// As a plan in which segments are full of batches so large that they become runs as they are.
    fn of_large_batches(self, prng: &mut Prng) -> Plan {
        let habits = Habits { publish: 2, large: 0, huge: 0, ..self.habits };
        Plan {
            turns: *prng.pick(&[300, 1500]),
            segment_bytes: 64 << 10,
            ring_bytes_max: 0,
            // Some live until what was adopted is not needed any more.
            cut_one_in: *prng.pick(&[2, 50]),
            habits,
            kafka: Some(kafka::Plan::of_large_batches(prng)),
            ..self
        }
    }

    /// Free bytes below which publishers are held back: what moving old messages takes at once, and what publishers
    /// may have on the way.
    pub fn free_bytes_min(&self) -> u64 {
        u64::from(self.shards) * commitlog::evacuation_bytes_max(self.segment_bytes) + ON_THE_WAY
    }

    /// A plan in which nothing goes wrong and no timer plays a part.
    pub fn calm(&self) -> Plan {
        Plan { faults: Faults::default(), rests: false, ..self.clone() }
    }
}

fn limits(prng: &mut Prng) -> Limits {
    Limits {
        entry_bytes_max: *prng.pick(&[16 << 10, 64 << 10, 1 << 20]),
        frame_bytes_max: *prng.pick(&[8192, 131_072]),
        heartbeat_s: 0,
        handshake_ms: 600_000,
        turn_bytes_max: *prng.pick(&[4 << 10, 256 << 10]),
        unconfirmed_bytes_max: *prng.pick(&[64 << 10, 64 << 20]),
        uncommitted_bytes_max: *prng.pick(&[64 << 10, 64 << 20]),
        send_bytes_max: *prng.pick(&[8 << 10, 1 << 20]),
        settle_delay_ms: *prng.pick(&[1, 10]),
        cache_bytes_max: *prng.pick(&[4 << 10, 64 << 10, 64 << 20]),
        read_bytes_max: *prng.pick(&[64 << 10, 16 << 20]),
        ..Limits::default()
    }
}

fn habits(prng: &mut Prng) -> Habits {
    let mut sometimes = |one_in: u64, percent: u64| if prng.chance(1, one_in) { percent } else { 0 };
    Habits {
        publish: 20 + sometimes(2, 40),
        settle: 15 + sometimes(2, 60),
        requeue: sometimes(2, 25),
        reject: sometimes(4, 5),
        ask: sometimes(2, 20),
        cancel: sometimes(3, 4),
        close_channel: sometimes(3, 4),
        disconnect: sometimes(3, 3),
        unroutable: sometimes(3, 10),
        large: sometimes(3, 15),
        huge: sometimes(25, 2),
        purge: sometimes(8, 3),
    }
}

fn faults(prng: &mut Prng) -> Faults {
    Faults {
        flips: prng.chance(1, 6),
        misdirects: prng.chance(1, 10),
        write_errors: prng.chance(1, 6),
        put_errors: prng.chance(1, 12),
        full: prng.chance(1, 12),
        scarce: prng.chance(1, 5),
        wall_jumps: prng.chance(1, 4),
    }
}
