//! The loop of one run: all connections on one thread and one epoll, because the client shares its cores with the
//! server and must be cheap itself.
//!
//! In: set-up connections. Out: an [`Outcome`]. Phases: warm-up, measurement, then no more publishes until all is
//! confirmed and delivered or nothing has moved for the plan's patience.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::body::pattern;
use super::consumer::{Consumer, Taking};
use super::ledger::Ledger;
use super::plan::{Plan, Until};
use super::publisher::Publisher;
use crate::error::Result;
use crate::latency::Latency;
use crate::procfs::{self, Processes};

/// How often progress is shown and a stall looked for.
const TICK_NS: u64 = 1_000_000_000;

/// Counters of the whole run at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Nanoseconds since the start.
    pub(crate) at_ns: u64,
    /// Messages sent.
    pub(crate) published: u64,
    /// Messages confirmed.
    pub(crate) confirmed: u64,
    /// Deliveries taken.
    pub(crate) delivered: u64,
    /// CPU time of the server, if it can be seen.
    pub(crate) server_cpu_ns: Option<u64>,
    /// CPU time of this process.
    pub(crate) client_cpu_ns: Option<u64>,
    /// CPU time of kernel threads, whoever caused it.
    pub(crate) kernel_cpu_ns: Option<u64>,
}

/// What a run brought.
pub(crate) struct Outcome {
    /// When the figures begin.
    pub(crate) begin: Sample,
    /// When publishing stopped.
    pub(crate) stopped: Sample,
    /// When all was delivered or given up.
    pub(crate) end: Sample,
    /// Publish to confirm.
    pub(crate) confirm: Latency,
    /// Publish to delivery.
    pub(crate) delivery: Latency,
    /// The account of the deliveries.
    pub(crate) ledger: Ledger,
    /// Messages refused with a nack.
    pub(crate) refused: u64,
    /// Resident bytes of the server at the end.
    pub(crate) resident: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warmup,
    Measure,
    Drain,
}

/// A run in progress.
pub(crate) struct Drive<'a> {
    plan: &'a Plan,
    server: Option<&'a Processes>,
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    epoll: OwnedFd,
    start: Instant,
    phase: Phase,
    begin: Sample,
    stopped: Sample,
    confirm: Latency,
    delivery: Latency,
    ledger: Ledger,
    pattern: Vec<u8>,
    /// Messages sent by each publisher, as consumers check them.
    published: Vec<u64>,
    tick: Tick,
}

/// The last look at progress.
#[derive(Clone, Copy, Debug, Default)]
struct Tick {
    next_ns: u64,
    shown: Sample,
    moved_ns: u64,
}

impl<'a> Drive<'a> {
    /// Registers all connections.
    pub(crate) fn new(
        plan: &'a Plan,
        server: Option<&'a Processes>,
        publishers: Vec<Publisher>,
        consumers: Vec<Consumer>,
    ) -> Result<Drive<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let links = publishers.iter().map(|p| &p.link).chain(consumers.iter().map(|c| &c.link));
        for (index, link) in links.enumerate() {
            let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, link.fd(), epoll::EventData::new_u64(index as u64), interest)?;
        }
        Ok(Drive {
            published: vec![0; publishers.len()],
            plan,
            server,
            publishers,
            consumers,
            epoll,
            start: Instant::now(),
            phase: Phase::Warmup,
            begin: Sample::default(),
            stopped: Sample::default(),
            confirm: Latency::new(),
            delivery: Latency::new(),
            ledger: Ledger::new(plan),
            pattern: pattern(plan.size),
            tick: Tick { next_ns: TICK_NS.min(nanos(plan.patience)), ..Tick::default() },
        })
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Outcome> {
        if self.plan.rate.is_some() {
            // Else the kernel wakes the loop up to 50 us late, which would count as the server's latency. Where this
            // is not allowed, it does.
            let _ = std::fs::write("/proc/self/timerslack_ns", "1");
        }
        self.start = Instant::now();
        loop {
            let now_ns = self.now_ns();
            if self.advance(now_ns) {
                return Ok(self.outcome());
            }
            // Read again: moving on may have taken long, and what is sent now is not to be stamped as sent before.
            let now_ns = self.now_ns();
            self.send(now_ns)?;
            self.wait(now_ns)?;
            let now_ns = self.now_ns();
            self.receive(now_ns)?;
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Moves on to the next phase when it is time; true at the end.
    fn advance(&mut self, now_ns: u64) -> bool {
        if self.phase == Phase::Warmup && now_ns >= nanos(self.plan.warmup) {
            self.phase = Phase::Measure;
            self.begin = self.sample(now_ns);
            // The look at /proc held the loop up: what was sent before it is over does not count.
            self.begin.at_ns = self.now_ns();
            self.confirm.restart(self.begin.at_ns);
            self.delivery.restart(self.begin.at_ns);
        }
        if self.phase == Phase::Measure && self.is_published(now_ns) {
            self.phase = Phase::Drain;
            self.stopped = self.sample(now_ns);
            self.tick.moved_ns = now_ns;
        }
        let stalled = now_ns >= self.tick.next_ns && self.tick(now_ns);
        self.phase == Phase::Drain && (stalled || self.is_drained())
    }

    fn is_published(&self, now_ns: u64) -> bool {
        match self.plan.until {
            Until::Elapsed(time) => now_ns >= self.begin.at_ns + nanos(time),
            Until::Published(_) => self.publishers.iter().all(|p| p.is_done(self.plan)),
        }
    }

    fn is_drained(&self) -> bool {
        let refused: u64 = self.publishers.iter().map(|p| p.refused).sum();
        let published: u64 = self.publishers.iter().map(|p| p.published).sum();
        let expected = (published - refused) * self.plan.copies();
        self.publishers.iter().all(Publisher::is_settled)
            && (self.consumers.is_empty() || self.ledger.distinct >= expected)
    }

    /// Shows a line and looks whether anything moved; true if nothing has for too long.
    fn tick(&mut self, now_ns: u64) -> bool {
        let (last, now) = (self.tick.shown, self.counters(now_ns));
        if (now.published, now.confirmed, now.delivered) != (last.published, last.confirmed, last.delivered) {
            self.tick.moved_ns = now_ns;
        }
        if self.plan.progress {
            let seconds = (now.at_ns - last.at_ns) as f64 / 1e9;
            let rate = |now: u64, last: u64| ((now - last) as f64 / seconds).round();
            let waiting = (now.published * self.plan.copies()).saturating_sub(now.delivered);
            // During the warm-up, and where nothing is consumed, there is none.
            let p99 = self.delivery.percentiles().p99;
            let p99 = if p99 > 0.0 { format!("{p99:.0} us") } else { "-".to_owned() };
            eprintln!(
                "{:4.0} s  published {:>9}/s  confirmed {:>9}/s  delivered {:>9}/s  waiting {waiting}  p99 {p99}",
                now.at_ns as f64 / 1e9,
                rate(now.published, last.published),
                rate(now.confirmed, last.confirmed),
                rate(now.delivered, last.delivered),
            );
        }
        self.tick.shown = now;
        self.tick.next_ns = now_ns + TICK_NS.min(nanos(self.plan.patience));
        now_ns.saturating_sub(self.tick.moved_ns) >= nanos(self.plan.patience)
    }

    /// The counters without a look at `/proc`.
    fn counters(&self, at_ns: u64) -> Sample {
        Sample {
            at_ns,
            published: self.publishers.iter().map(|p| p.published).sum(),
            confirmed: self.publishers.iter().map(|p| p.confirms).sum(),
            delivered: self.consumers.iter().map(|c| c.delivered).sum(),
            ..Sample::default()
        }
    }

    fn sample(&self, at_ns: u64) -> Sample {
        Sample {
            server_cpu_ns: self.server.and_then(Processes::cpu_ns),
            client_cpu_ns: procfs::own_cpu_ns(),
            kernel_cpu_ns: procfs::kernel_cpu_ns(),
            ..self.counters(at_ns)
        }
    }

    fn send(&mut self, now_ns: u64) -> Result<()> {
        for (publisher, published) in self.publishers.iter_mut().zip(&mut self.published) {
            if self.phase != Phase::Drain {
                publisher.fill(self.plan, now_ns);
                *published = publisher.published;
            }
            publisher.link.flush()?;
        }
        let batch = if self.phase == Phase::Drain { 1 } else { self.plan.ack_batch() };
        for consumer in &mut self.consumers {
            consumer.acknowledge(self.plan, batch);
            consumer.link.flush()?;
        }
        Ok(())
    }

    /// Waits for a socket, the next due message, the end of the phase or the next progress line.
    fn wait(&mut self, now_ns: u64) -> Result<()> {
        let mut events: [std::mem::MaybeUninit<epoll::Event>; 64] = [std::mem::MaybeUninit::uninit(); 64];
        let nanos = self.pause_ns(now_ns);
        let pause =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&pause)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for event in ready {
            let index = event.data.u64() as usize;
            let flags = event.flags;
            let consumer = index.checked_sub(self.publishers.len());
            let link = match consumer {
                None => &mut self.publishers[index].link,
                Some(index) => &mut self.consumers[index].link,
            };
            link.writable |= flags.contains(epoll::EventFlags::OUT);
            let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
            link.readable |= flags.intersects(epoll::EventFlags::IN | ended);
        }
        Ok(())
    }

    /// How long the loop may sleep: not at all while a socket has more.
    fn pause_ns(&self, now_ns: u64) -> u64 {
        let sending = self.phase != Phase::Drain;
        let more =
            |p: &Publisher| p.link.readable || (sending && p.link.writable && p.may_send(self.plan, now_ns));
        if self.publishers.iter().any(more) || self.consumers.iter().any(|c| c.link.readable) {
            return 0;
        }
        let mut until = self.tick.next_ns;
        match (self.phase, self.plan.until) {
            (Phase::Warmup, _) => until = until.min(nanos(self.plan.warmup)),
            (Phase::Measure, Until::Elapsed(time)) => until = until.min(self.begin.at_ns + nanos(time)),
            _ => {}
        }
        if sending {
            let due =
                self.publishers.iter().filter(|p| !p.is_done(self.plan)).filter_map(|p| p.due_ns(self.plan));
            // What is due and was not sent waits for the window or the socket, not for the clock.
            until = due.filter(|due| *due > now_ns).fold(until, u64::min);
        }
        until.saturating_sub(now_ns)
    }

    fn receive(&mut self, now_ns: u64) -> Result<()> {
        for publisher in &mut self.publishers {
            if publisher.link.readable {
                publisher.receive(now_ns, &mut self.confirm)?;
            }
        }
        let mut taking = Taking {
            plan: self.plan,
            pattern: &self.pattern,
            published: &self.published,
            ledger: &mut self.ledger,
            latency: &mut self.delivery,
            now_ns,
        };
        for consumer in &mut self.consumers {
            if consumer.link.readable {
                consumer.receive(&mut taking)?;
            }
        }
        Ok(())
    }

    fn outcome(mut self) -> Outcome {
        let end = self.sample(self.now_ns());
        let (plan, publishers) = (self.plan, &self.publishers);
        if plan.consumers > 0 && plan.size >= super::body::STAMP {
            let owed = |p: u16, sequence| publishers[usize::from(p)].is_owed(plan, sequence);
            self.ledger.close(plan, &self.published, owed);
        } else if plan.consumers > 0 {
            let owed = if plan.confirms { end.confirmed } else { end.published };
            self.ledger.flaws.lost = (owed * plan.copies()).saturating_sub(self.ledger.distinct);
            self.ledger.flaws.duplicated = self.ledger.distinct.saturating_sub(end.published * plan.copies());
        }
        Outcome {
            begin: self.begin,
            // A count of messages is measured until they have all arrived, a time until it is over.
            stopped: if matches!(plan.until, Until::Published(_)) { end } else { self.stopped },
            end,
            confirm: self.confirm,
            delivery: self.delivery,
            refused: publishers.iter().map(|p| p.refused).sum(),
            ledger: self.ledger,
            resident: self.server.and_then(Processes::resident),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
