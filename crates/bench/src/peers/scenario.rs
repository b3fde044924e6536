//! The scenarios that servers are compared in, and the gate each must pass.
//!
//! All are persistent, with confirms and manual acks; publishers, consumers and servers share the machine's cores.

use std::time::Duration;

use crate::course::{Course, Until};
use crate::load::{Plan, Routing};
use crate::url::Url;

/// One row of the comparison.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Short name for `--scenario`.
    pub(crate) name: &'static str,
    /// What the table says.
    pub(crate) title: &'static str,
    /// What is done.
    pub(crate) work: Work,
    /// What must hold.
    pub(crate) gate: Gate,
}

/// What is done to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Publish and consume.
    Load(Shape),
    /// Hold this many idle connections.
    Idle(u32),
}

/// The part of a plan that scenarios differ in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of a body.
    pub(crate) size: usize,
    /// Unconfirmed messages per publisher.
    pub(crate) window: u64,
    /// Publishers and as many consumers.
    pub(crate) pairs: u16,
    /// Queues.
    pub(crate) queues: u32,
    /// How publishes find them.
    pub(crate) routing: Routing,
    /// Messages per second, in an open loop.
    pub(crate) rate: Option<u64>,
}

/// What must hold for this broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gate {
    /// Server CPU per message below this, in microseconds.
    Cpu(f64),
    /// Publish to delivery, in microseconds: half of all below the first, 99 of 100 below the second.
    Latency(f64, f64),
    /// Server CPU per message at most this many times that of another scenario.
    Times(f64, &'static str),
    /// Bytes written per byte published below this.
    Written(f64),
    /// Bytes of server memory per connection below this.
    Memory(f64),
}

const ONE: Shape = Shape { size: 16, window: 1000, pairs: 1, queues: 1, routing: Routing::Own, rate: None };
const KIB: Shape = Shape { size: 1024, ..ONE };

/// All rows; memory comes first because it needs servers that have done nothing yet.
pub(crate) const SCENARIOS: [Scenario; 10] = [
    row("idle", "1,000 idle connections, one channel each", Work::Idle(1000), Gate::Memory(10_000.0)),
    load("16b", "16 B, window 1000", ONE, Gate::Cpu(0.6)),
    load("1k", "1 KiB, window 1000", KIB, Gate::Cpu(1.8)),
    load("64k", "64 KiB, window 100", Shape { size: 65_536, window: 100, ..ONE }, Gate::Cpu(80.0)),
    load("16b-w100", "16 B, window 100", Shape { window: 100, ..ONE }, Gate::Cpu(1.5)),
    load("1k-w100", "1 KiB, window 100", Shape { window: 100, ..KIB }, Gate::Cpu(2.5)),
    load(
        "4x4",
        "1 KiB, 4 publishers, 4 consumers, 4 queues",
        Shape { pairs: 4, queues: 4, ..KIB },
        Gate::Cpu(1.8),
    ),
    load("paced", "1 KiB, paced at 5,000/s", Shape { rate: Some(5000), ..KIB }, Gate::Latency(600.0, 3000.0)),
    load(
        "in-turn",
        "1 KiB, 1,000 queues in turn",
        Shape { queues: 1000, routing: Routing::Spread, ..KIB },
        Gate::Times(2.0, "1k"),
    ),
    load(
        "fanout",
        "1 KiB, fan-out to 10 queues",
        Shape { queues: 10, routing: Routing::Fanout, ..KIB },
        Gate::Written(2.0),
    ),
];

const fn row(name: &'static str, title: &'static str, work: Work, gate: Gate) -> Scenario {
    Scenario { name, title, work, gate }
}

const fn load(name: &'static str, title: &'static str, shape: Shape, gate: Gate) -> Scenario {
    row(name, title, Work::Load(shape), gate)
}

impl Shape {
    /// The plan of one run against `url`.
    pub(crate) fn plan(&self, url: &Url, duration: Duration, warmup: Duration) -> Plan {
        Plan {
            publishers: self.pairs,
            consumers: self.pairs,
            queues: self.queues,
            routing: self.routing,
            size: self.size,
            window: Some(self.window).filter(|_| self.rate.is_none()),
            course: Course {
                rate: self.rate,
                until: Until::Elapsed(duration),
                warmup,
                progress: false,
                ..Course::default()
            },
            ..Plan::new(url.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_plan_that_makes_sense() {
        let url = Url::parse("amqp://").unwrap();
        for scenario in SCENARIOS {
            if let Work::Load(shape) = scenario.work {
                let plan = shape.plan(&url, Duration::from_secs(5), Duration::from_secs(1));
                plan.check().unwrap();
                assert!(plan.persistent && plan.confirms && !plan.auto_ack && plan.prefetch == 1000);
            }
            if let Gate::Times(_, other) = scenario.gate {
                let measured_before = SCENARIOS.iter().take_while(|s| s.name != scenario.name);
                assert!(measured_before.into_iter().any(|s| s.name == other));
            }
        }
    }
}
