//! What a seed decides about Kafka: topics and how each keeps its records, clients, and what they like to do.

use base::Prng;

/// Clients write as if it were so much earlier: no jump of the node's clock makes their times lie in its future.
pub(super) const BEHIND_MS: i64 = 24 * 3_600_000;

/// A record's time lies so far before or behind its writing, at most.
pub(super) const DRAWN_MS: i64 = 250;

/// How a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// For ever.
    All,
    /// So many milliseconds beyond [`BEHIND_MS`].
    Age(i64),
    /// So many bytes.
    Size(u64),
    /// The last one of each key; marks of deleted keys so many milliseconds from when they came.
    Keys(i64),
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How it keeps its records.
    pub keeping: Keeping,
    /// Whether nobody declares it: it comes to be when it is asked for.
    pub by_itself: bool,
    /// Whether the times of its records are those of their appends.
    pub is_stamped: bool,
    /// Whether partitions are added to it.
    pub grows: bool,
}

impl Topic {
    fn new(name: &str, partitions: i32, keeping: Keeping) -> Topic {
        Topic {
            name: name.to_owned(),
            partitions,
            keeping,
            by_itself: false,
            is_stamped: false,
            grows: false,
        }
    }

    /// What it is created with.
    pub(super) fn configs(&self) -> Vec<(&'static str, String)> {
        let forever = ("retention.ms", "-1".to_owned());
        // What has just come stays so long, whatever time it has.
        let open = ("segment.ms", "1000".to_owned());
        match self.keeping {
            Keeping::All if self.is_stamped => {
                vec![forever, ("message.timestamp.type", "LogAppendTime".to_owned())]
            }
            Keeping::All => vec![forever],
            Keeping::Age(ms) => vec![("retention.ms", (BEHIND_MS + ms).to_string()), open],
            Keeping::Size(bytes) => vec![forever, ("retention.bytes", bytes.to_string())],
            Keeping::Keys(ms) => vec![
                ("cleanup.policy", "compact".to_owned()),
                open,
                ("min.cleanable.dirty.ratio", "0.1".to_owned()),
                ("delete.retention.ms", ms.to_string()),
            ],
        }
    }
}

/// What Kafka's clients do in one run.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Plan {
    pub topics: Vec<Topic>,
    pub producers: usize,
    pub readers: usize,
    /// Clients of AMQP, to whom partitions are streams.
    pub streamers: usize,
    /// Members of the consumer group.
    pub members: usize,
    /// How many of them in a hundred are static.
    pub statics: u64,
    /// Milliseconds after which a silent one is taken for dead.
    pub session_ms: i32,
    /// Batches without an answer that a producer may have per partition.
    pub window: usize,
    /// Records of a batch, at most.
    pub records: u64,
    /// Bytes of a value, at most.
    pub bytes: u64,
    /// How many of them in a hundred may have more than a few.
    pub large: u64,
    /// Different keys.
    pub keys: u64,
    /// Each in percent of the chances.
    pub produce: u64,
    pub delete_records: u64,
    pub look_up: u64,
    pub commit: u64,
    pub leave: u64,
    /// A static member begins anew.
    pub restart: u64,
    /// Asks for what must be refused.
    pub probe: u64,
    pub disconnect: u64,
    /// Whether somebody creates and deletes topics and adds partitions.
    pub cares: bool,
}

impl Plan {
    /// The plan of a seed: often none.
    pub(crate) fn draw(prng: &mut Prng) -> Option<Plan> {
        if prng.chance(1, 4) {
            return None;
        }
        let mut sometimes = |one_in: u64, percent: u64| if prng.chance(1, one_in) { percent } else { 0 };
        let (delete_records, look_up, leave) = (sometimes(2, 10), sometimes(2, 15), sometimes(3, 3));
        let (probe, disconnect, trickle) = (sometimes(2, 10), sometimes(3, 3), sometimes(3, 30));
        let restart = sometimes(2, 2);
        Some(Plan {
            topics: topics(prng),
            producers: 1 + prng.below(3) as usize,
            readers: prng.below(3) as usize,
            streamers: prng.below(3) as usize,
            members: *prng.pick(&[0, 0, 1, 2, 2, 3]),
            statics: *prng.pick(&[0, 50, 100]),
            session_ms: *prng.pick(&[6_000, 6_000, 45_000]),
            window: *prng.pick(&[1, 2, 5]),
            records: *prng.pick(&[1, 4, 20]),
            bytes: *prng.pick(&[20, 600, 600, 20_000, 60_000]),
            large: 25,
            keys: *prng.pick(&[1, 3, 8, 30]),
            produce: if trickle > 0 { 10 } else { 50 },
            delete_records,
            look_up,
            commit: 30,
            leave,
            restart,
            probe,
            disconnect,
            cares: prng.chance(1, 2),
        })
    }

    /// Few clients that write large batches and nothing else.
    pub(crate) fn of_large_batches(prng: &mut Prng) -> Plan {
        // Beyond what the ring holds, so that it is still needed when it leaves the ring and not long after.
        let bounded = Topic::new("bounded", 1, Keeping::Size(400_000));
        let kept = Topic::new("kept", 1 + prng.below(3) as i32, Keeping::All);
        Plan {
            topics: vec![prng.pick(&[kept, bounded]).clone()],
            producers: 2,
            readers: 1,
            streamers: 0,
            members: 0,
            statics: 0,
            session_ms: 6_000,
            window: 5,
            records: 4,
            bytes: 60_000,
            large: 95,
            keys: 30,
            produce: 12,
            delete_records: if prng.chance(1, 3) { 4 } else { 0 },
            look_up: 2,
            commit: 10,
            leave: 0,
            restart: 0,
            probe: 0,
            disconnect: 0,
            cares: false,
        }
    }
}

fn topics(prng: &mut Prng) -> Vec<Topic> {
    let mut topics = vec![Topic::new("kept", 1 + prng.below(3) as i32, Keeping::All)];
    if prng.chance(1, 2) {
        let marks_ms = *prng.pick(&[0, 0, 2_000, 60_000]);
        topics.push(Topic::new("keyed", 1 + prng.below(2) as i32, Keeping::Keys(marks_ms)));
    }
    if prng.chance(1, 3) {
        topics.push(Topic::new("aging", 1, Keeping::Age(*prng.pick(&[1_000, 10_000]))));
    }
    if prng.chance(1, 3) {
        topics.push(Topic::new("bounded", 1, Keeping::Size(*prng.pick(&[2_000, 40_000, 300_000]))));
    }
    if prng.chance(1, 3) {
        topics.push(Topic { by_itself: true, ..Topic::new("found", 1, Keeping::All) });
    }
    if prng.chance(1, 3) {
        topics.push(Topic { is_stamped: true, ..Topic::new("stamped", 1, Keeping::All) });
    }
    // The last: its partitions are numbered behind all others, so that those of a topic stay together.
    if prng.chance(1, 3) {
        topics.push(Topic { grows: true, ..Topic::new("growing", 1, Keeping::All) });
    }
    topics
}
