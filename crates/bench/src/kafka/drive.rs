//! The loop of one run against a Kafka server: all connections on one thread and one epoll.
//!
//! In: set-up connections. Out: a [`Brought`]. Phases as in the AMQP bench: warm-up, measurement, then nothing more is
//! written until all is confirmed and read or nothing has moved for the plan's patience.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{Timespec, epoll};

use super::consumer::{Consumer, Taking};
use super::ledger::Ledger;
use super::plan::{Plan, Stream};
use super::producer::Producer;
use crate::error::Result;
use crate::latency::Latency;
use crate::load::body::{STAMP, pattern};
use crate::load::{Sample, Until};
use crate::procfs::{self, Processes};

const TICK_NS: u64 = 1_000_000_000;

/// What a run brought.
pub(crate) struct Brought {
    /// When the figures begin.
    pub(crate) begin: Sample,
    /// When writing stopped.
    pub(crate) stopped: Sample,
    /// When all was read or given up.
    pub(crate) end: Sample,
    /// Write to answer, per batch.
    pub(crate) confirm: Latency,
    /// Write to read, per record.
    pub(crate) delivery: Latency,
    /// The account of what was read.
    pub(crate) ledger: Ledger,
    /// The connections, to go on with.
    pub(crate) producers: Vec<Producer>,
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
    names: &'a [String],
    server: Option<&'a Processes>,
    producers: Vec<Producer>,
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
    /// Records sent into each stream, as readers check them.
    written: Vec<u64>,
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
        names: &'a [String],
        server: Option<&'a Processes>,
        streams: &[Stream],
        producers: Vec<Producer>,
        consumers: Vec<Consumer>,
    ) -> Result<Drive<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let links = producers.iter().map(|p| &p.link).chain(consumers.iter().map(|c| &c.link));
        for (index, link) in links.enumerate() {
            let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, link.fd(), epoll::EventData::new_u64(index as u64), interest)?;
        }
        Ok(Drive {
            plan,
            names,
            server,
            producers,
            consumers,
            epoll,
            start: Instant::now(),
            phase: Phase::Warmup,
            begin: Sample::default(),
            stopped: Sample::default(),
            confirm: Latency::new(),
            delivery: Latency::new(),
            ledger: Ledger::new(streams),
            pattern: pattern(plan.size),
            written: vec![0; streams.len()],
            tick: Tick { next_ns: TICK_NS.min(nanos(plan.patience)), ..Tick::default() },
        })
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Brought> {
        if self.plan.rate.is_some() {
            // Else the kernel wakes the loop up late, which would count as the server's latency. Where this is not
            // allowed, it does.
            let _ = std::fs::write("/proc/self/timerslack_ns", "1");
        }
        self.start = Instant::now();
        loop {
            let now_ns = self.now_ns();
            if self.advance(now_ns) {
                return Ok(self.brought());
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
        if self.phase == Phase::Measure && self.is_written(now_ns) {
            self.phase = Phase::Drain;
            self.stopped = self.sample(now_ns);
            self.tick.moved_ns = now_ns;
        }
        let stalled = now_ns >= self.tick.next_ns && self.tick(now_ns);
        self.phase == Phase::Drain && (stalled || self.is_drained())
    }

    fn is_written(&self, now_ns: u64) -> bool {
        match self.plan.until {
            Until::Elapsed(time) => now_ns >= self.begin.at_ns + nanos(time),
            Until::Published(_) => self.producers.iter().all(|p| p.is_done(self.plan)),
        }
    }

    fn is_drained(&self) -> bool {
        let expected: u64 = self.producers.iter().map(|p| p.written - p.refused).sum();
        self.producers.iter().all(Producer::is_settled)
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
            let rate = |now: u64, last: u64| (now.saturating_sub(last) as f64 / seconds).round();
            eprintln!(
                "{:4.0} s  written {:>10}/s  confirmed {:>10}/s  read {:>10}/s  waiting {}",
                now.at_ns as f64 / 1e9,
                rate(now.published, last.published),
                rate(now.confirmed, last.confirmed),
                rate(now.delivered, last.delivered),
                now.published.saturating_sub(now.delivered),
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
            published: self.producers.iter().map(|p| p.written).sum(),
            confirmed: self.producers.iter().map(|p| p.confirms).sum(),
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
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        for producer in &mut self.producers {
            if self.phase != Phase::Drain {
                producer.fill(self.plan, now_ns, now_ms);
            }
            producer.report(&mut self.written);
            producer.link.flush()?;
        }
        for consumer in &mut self.consumers {
            consumer.ask(self.plan, self.names);
            consumer.link.flush()?;
        }
        Ok(())
    }

    /// Waits for a socket, the next due batch, the end of the phase or the next progress line.
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
            let link = match index.checked_sub(self.producers.len()) {
                None => &mut self.producers[index].link,
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
            |p: &Producer| p.link.readable || (sending && p.link.writable && p.may_send(self.plan, now_ns));
        if self.producers.iter().any(more) || self.consumers.iter().any(|c| c.link.readable) {
            return 0;
        }
        let mut until = self.tick.next_ns;
        match (self.phase, self.plan.until) {
            (Phase::Warmup, _) => until = until.min(nanos(self.plan.warmup)),
            (Phase::Measure, Until::Elapsed(time)) => until = until.min(self.begin.at_ns + nanos(time)),
            _ => {}
        }
        if sending {
            let open = self.producers.iter().filter(|p| !p.is_done(self.plan));
            // What is due and was not sent waits for the pipeline or the socket, not for the clock.
            until =
                open.filter_map(|p| p.due_ns(self.plan)).filter(|due| *due > now_ns).fold(until, u64::min);
        }
        until.saturating_sub(now_ns)
    }

    fn receive(&mut self, now_ns: u64) -> Result<()> {
        for producer in &mut self.producers {
            if producer.link.readable {
                producer.receive(now_ns, &mut self.confirm)?;
            }
        }
        let mut taking = Taking {
            plan: self.plan,
            pattern: &self.pattern,
            written: &self.written,
            ledger: &mut self.ledger,
            latency: &mut self.delivery,
            now_ns,
        };
        for consumer in &mut self.consumers {
            if consumer.link.readable {
                consumer.receive(&mut taking, self.names)?;
            }
        }
        Ok(())
    }

    fn brought(mut self) -> Brought {
        let end = self.sample(self.now_ns());
        let (plan, producers) = (self.plan, &self.producers);
        if !self.consumers.is_empty() && plan.size >= STAMP {
            let owed = |stream, sequence| {
                producers.iter().find_map(|p| p.is_owed(plan, stream, sequence)).unwrap_or(false)
            };
            self.ledger.close(&self.written, owed);
        } else if !self.consumers.is_empty() {
            let owed = if plan.acks == 0 { end.published } else { end.confirmed };
            self.ledger.flaws.lost = owed.saturating_sub(self.ledger.distinct);
            self.ledger.flaws.duplicated = self.ledger.distinct.saturating_sub(end.published);
        }
        Brought {
            begin: self.begin,
            // A count of records is measured until they have all arrived, a time until it is over.
            stopped: if matches!(plan.until, Until::Published(_)) { end } else { self.stopped },
            end,
            confirm: self.confirm,
            delivery: self.delivery,
            ledger: self.ledger,
            producers: self.producers,
            resident: self.server.and_then(Processes::resident),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
