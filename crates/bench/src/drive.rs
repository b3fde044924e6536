//! The loop of one run: all connections on one thread and one epoll, because the client shares its cores with the
//! server and must be cheap itself.
//!
//! In: the set-up connections of one protocol, a [`Load`]. Out: an [`Outcome`]. Phases: warm-up, measurement, then
//! nothing more is published until all is confirmed and delivered or nothing has moved for the patience of the run.
//! Never knows a protocol.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::course::{Course, Until};
use crate::error::Result;
use crate::latency::Latency;
use crate::procfs::{self, Processes};
use crate::socket::Socket;

/// How often progress is shown and a stall looked for.
const TICK_NS: u64 = 1_000_000_000;

/// The connections of one run: what a protocol does when the loop says so.
pub(crate) trait Load {
    /// How many sockets there are; none comes or goes.
    fn sockets(&self) -> usize;

    /// One of them.
    fn socket(&mut self, index: usize) -> &mut Socket;

    /// Messages published, confirmed and delivered so far.
    fn counts(&self) -> Counts;

    /// Deliveries that are still to come of what was published.
    fn waiting(&self, counts: Counts) -> u64;

    /// Whether every publisher has sent its share; never where a run ends by time.
    fn is_published(&self) -> bool;

    /// Whether all that was published is confirmed and delivered.
    fn is_drained(&self) -> bool;

    /// Prepares what may leave, new messages only where `publishes`, and hands it to the kernel.
    fn send(&mut self, now_ns: u64, publishes: bool) -> Result<()>;

    /// Whether a socket has more to read, or a message may leave.
    fn has_more(&mut self, now_ns: u64, publishes: bool) -> bool;

    /// When the next message is due, if that is later than now.
    fn due_ns(&self, now_ns: u64) -> Option<u64>;

    /// Takes what arrived.
    fn receive(&mut self, now_ns: u64, latency: &mut Latencies) -> Result<()>;

    /// Looks for what never arrived.
    fn close(&mut self, end: Counts);
}

/// Messages of a whole run at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sent.
    pub(crate) published: u64,
    /// Confirmed.
    pub(crate) confirmed: u64,
    /// Delivered.
    pub(crate) delivered: u64,
}

/// What a run measures of single messages.
pub(crate) struct Latencies {
    /// Publish to confirm.
    pub(crate) confirm: Latency,
    /// Publish to delivery.
    pub(crate) delivery: Latency,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Nanoseconds since the start.
    pub(crate) at_ns: u64,
    /// Messages.
    pub(crate) counts: Counts,
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
    /// Of single messages.
    pub(crate) latencies: Latencies,
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
pub(crate) struct Drive<'a, L> {
    course: Course,
    server: Option<&'a Processes>,
    load: L,
    epoll: OwnedFd,
    start: Instant,
    phase: Phase,
    begin: Sample,
    stopped: Sample,
    latencies: Latencies,
    tick: Tick,
}

/// The last look at progress.
#[derive(Clone, Copy, Debug, Default)]
struct Tick {
    next_ns: u64,
    at_ns: u64,
    shown: Counts,
    moved_ns: u64,
}

impl<'a, L: Load> Drive<'a, L> {
    /// Registers all connections.
    pub(crate) fn new(course: Course, server: Option<&'a Processes>, mut load: L) -> Result<Drive<'a, L>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for index in 0..load.sockets() {
            let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, load.socket(index).fd(), epoll::EventData::new_u64(index as u64), interest)?;
        }
        Ok(Drive {
            course,
            server,
            load,
            epoll,
            start: Instant::now(),
            phase: Phase::Warmup,
            begin: Sample::default(),
            stopped: Sample::default(),
            latencies: Latencies { confirm: Latency::new(), delivery: Latency::new() },
            tick: Tick { next_ns: TICK_NS.min(nanos(course.patience)), ..Tick::default() },
        })
    }

    /// Runs to the end and gives the connections back.
    pub(crate) fn run(mut self) -> Result<(Outcome, L)> {
        if self.course.rate.is_some() {
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
            self.load.send(now_ns, self.phase != Phase::Drain)?;
            self.wait(now_ns)?;
            let now_ns = self.now_ns();
            self.load.receive(now_ns, &mut self.latencies)?;
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Moves on to the next phase when it is time; true at the end.
    fn advance(&mut self, now_ns: u64) -> bool {
        if self.phase == Phase::Warmup && now_ns >= nanos(self.course.warmup) {
            self.phase = Phase::Measure;
            self.begin = self.sample(now_ns);
            // The look at /proc held the loop up: what was sent before it is over does not count.
            self.begin.at_ns = self.now_ns();
            self.latencies.confirm.restart(self.begin.at_ns);
            self.latencies.delivery.restart(self.begin.at_ns);
        }
        if self.phase == Phase::Measure && self.is_published(now_ns) {
            self.phase = Phase::Drain;
            self.stopped = self.sample(now_ns);
            self.tick.moved_ns = now_ns;
        }
        let stalled = now_ns >= self.tick.next_ns && self.tick(now_ns);
        self.phase == Phase::Drain && (stalled || self.load.is_drained())
    }

    fn is_published(&self, now_ns: u64) -> bool {
        match self.course.until {
            Until::Elapsed(time) => now_ns >= self.begin.at_ns + nanos(time),
            Until::Published(_) => self.load.is_published(),
        }
    }

    /// Shows a line and looks whether anything moved; true if nothing has for too long.
    fn tick(&mut self, now_ns: u64) -> bool {
        let (last, now) = (self.tick.shown, self.load.counts());
        if now != last {
            self.tick.moved_ns = now_ns;
        }
        if self.course.progress {
            self.show(now_ns, now);
        }
        (self.tick.shown, self.tick.at_ns) = (now, now_ns);
        self.tick.next_ns = now_ns + TICK_NS.min(nanos(self.course.patience));
        now_ns.saturating_sub(self.tick.moved_ns) >= nanos(self.course.patience)
    }

    fn show(&mut self, now_ns: u64, now: Counts) {
        let (last, seconds) = (self.tick.shown, (now_ns - self.tick.at_ns) as f64 / 1e9);
        // A reader that goes on where another one was counts from 0.
        let rate = |now: u64, last: u64| (now.saturating_sub(last) as f64 / seconds).round();
        // During the warm-up, and where nothing is consumed, there is none.
        let p99 = self.latencies.delivery.percentiles().p99;
        let p99 = if p99 > 0.0 { format!("{p99:.0} us") } else { "-".to_owned() };
        eprintln!(
            "{:4.0} s  published {:>9}/s  confirmed {:>9}/s  delivered {:>9}/s  waiting {}  p99 {p99}",
            now_ns as f64 / 1e9,
            rate(now.published, last.published),
            rate(now.confirmed, last.confirmed),
            rate(now.delivered, last.delivered),
            self.load.waiting(now),
        );
    }

    fn sample(&self, at_ns: u64) -> Sample {
        Sample {
            at_ns,
            counts: self.load.counts(),
            server_cpu_ns: self.server.and_then(Processes::cpu_ns),
            client_cpu_ns: procfs::own_cpu_ns(),
            kernel_cpu_ns: procfs::kernel_cpu_ns(),
        }
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
            let socket = self.load.socket(event.data.u64() as usize);
            let flags = event.flags;
            socket.writable |= flags.contains(epoll::EventFlags::OUT);
            let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
            socket.readable |= flags.intersects(epoll::EventFlags::IN | ended);
        }
        Ok(())
    }

    /// How long the loop may sleep: not at all while a socket has more.
    fn pause_ns(&mut self, now_ns: u64) -> u64 {
        let publishes = self.phase != Phase::Drain;
        if self.load.has_more(now_ns, publishes) {
            return 0;
        }
        let mut until = self.tick.next_ns;
        match (self.phase, self.course.until) {
            (Phase::Warmup, _) => until = until.min(nanos(self.course.warmup)),
            (Phase::Measure, Until::Elapsed(time)) => until = until.min(self.begin.at_ns + nanos(time)),
            _ => {}
        }
        if publishes {
            // What is due and was not sent waits for the window or the socket, not for the clock.
            until = until.min(self.load.due_ns(now_ns).unwrap_or(u64::MAX));
        }
        until.saturating_sub(now_ns)
    }

    fn outcome(mut self) -> (Outcome, L) {
        let end = self.sample(self.now_ns());
        self.load.close(end.counts);
        let outcome = Outcome {
            begin: self.begin,
            // A count of messages is measured until they have all arrived, a time until it is over.
            stopped: if matches!(self.course.until, Until::Published(_)) { end } else { self.stopped },
            end,
            latencies: self.latencies,
            resident: self.server.and_then(Processes::resident),
        };
        (outcome, self.load)
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
