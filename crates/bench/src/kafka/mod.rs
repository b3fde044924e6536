//! `waystation bench kafka`: one run of writing and reading against any Kafka server, the figures of the AMQP bench.
//!
//! In: a [`Plan`]. Out: a report. Topics have names of their own and are deleted at the end. Batches are not
//! compressed and not numbered by a producer; connections are plain and do not log in.

mod batch;
mod cli;
mod client;
mod consumer;
mod ledger;
mod link;
mod plan;
mod producer;
#[cfg(test)]
mod tests;
mod wire;

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::batch::{Template, records_in};
pub(crate) use self::cli::{command, plan};
use self::client::Address;
use self::consumer::Consumer;
use self::ledger::Ledger;
use self::link::Link;
use self::plan::{Mode, Plan};
use self::producer::{Producer, Target};
use crate::clients::{Clients, Protocol};
use crate::course::Course;
use crate::drive::{Drive, Outcome};
use crate::error::Result;
use crate::http;
use crate::procfs::Processes;
use crate::report::Report;

/// Kafka.
enum Kafka {}

impl Protocol for Kafka {
    type Plan = Plan;
    type Publisher = Producer;
    type Consumer = Consumer;
    type Ledger = Ledger;
}

/// Runs `plan` and reports.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = |topic| format!("bench-{}-{}-{topic}", std::process::id(), now.as_millis());
    let names: Rc<[String]> = (0..plan.topics).map(name).collect();
    let mut control = Link::connect(&plan.host, plan.port)?;
    client::check_versions(&mut control)?;
    let created = client::create(&mut control, plan, &names);
    let leader = created.and_then(|()| client::leader(&mut control, plan, &names));
    let measured = leader.and_then(|leader| Stage { plan, names: names.clone(), leader }.measure());
    // On a connection of its own, because the run may have broken the other.
    let cleaned =
        Link::connect(&plan.host, plan.port).and_then(|mut control| client::delete(&mut control, &names));
    let report = measured?;
    cleaned?;
    Ok(report)
}

/// The topics of one run and who leads them.
struct Stage<'a> {
    plan: &'a Plan,
    names: Rc<[String]>,
    leader: Address,
}

impl Stage<'_> {
    fn measure(&self) -> Result<Report> {
        let host = self.plan.host.as_str();
        let is_here = matches!(host, "localhost" | "::1") || host.starts_with("127.");
        let server = Processes::of_server(&self.plan.server_pids, is_here, self.plan.port);
        let before = self.plan.metrics_url.as_deref().map(http::counters).transpose()?;
        let course = Course { warmup: Duration::ZERO, ..self.plan.course };
        let filling = Plan { mode: Mode::Produce, course, ..self.plan.clone() };
        let reading = Plan { course, ..self.plan.clone() };
        let brought = match self.plan.mode {
            Mode::Produce => self.drive(self.plan, server.as_ref(), self.producers()?, false)?,
            Mode::Both => self.drive(self.plan, server.as_ref(), self.producers()?, true)?,
            Mode::Fetch => {
                let filled = self.drive(&filling, None, self.producers()?, false)?;
                self.drive(&reading, server.as_ref(), filled.1.publishers, true)?
            }
        };
        for refusal in brought.1.publishers.iter().filter_map(Producer::refusal) {
            eprintln!("bench: {refusal}");
        }
        let after = self.plan.metrics_url.as_deref().map(http::counters).transpose()?;
        let mut report = report(self.plan, server.as_ref(), brought);
        if let Some((before, after)) = before.zip(after) {
            report.add_metrics(&before, &after, report.published_in_all * self.plan.size as u64);
        }
        Ok(report)
    }

    fn drive<'a>(
        &self,
        plan: &'a Plan,
        server: Option<&Processes>,
        producers: Vec<Producer>,
        reads: bool,
    ) -> Result<(Outcome, Clients<'a, Kafka>)> {
        let consumers = if reads { self.consumers()? } else { Vec::new() };
        let clients = Clients::<Kafka>::new(plan, producers, consumers, Ledger::new(&plan.streams()));
        Drive::new(plan.course, server, clients)?.run()
    }

    fn link(&self) -> Result<Link> {
        let mut link = Link::connect(&self.leader.0, self.leader.1)?;
        link.unblock()?;
        Ok(link)
    }

    fn producers(&self) -> Result<Vec<Producer>> {
        let plan = self.plan;
        let each = records_in(plan.batch, plan.size);
        let streams = plan.streams();
        let producer = |number| {
            let own = streams.iter().enumerate().filter(|(_, stream)| stream.producer == number);
            let targets = own.map(|(at, stream)| {
                let (topic, partition) = plan.place(stream.partition);
                let template = Template::new(&self.names[topic], partition, plan.acks, plan.size, each);
                Target::new(at as u16, template)
            });
            Ok(Producer::new(self.link()?, number, each, targets.collect()))
        };
        (0..plan.producers).map(producer).collect()
    }

    fn consumers(&self) -> Result<Vec<Consumer>> {
        let consumer = |number| Ok(Consumer::new(self.link()?, self.names.clone(), self.plan.reads(number)));
        (0..self.plan.consumers).map(consumer).collect()
    }
}

/// Works the figures out.
fn report(
    plan: &Plan,
    server: Option<&Processes>,
    (mut outcome, clients): (Outcome, Clients<'_, Kafka>),
) -> Report {
    let (begin, stopped, end) = (outcome.begin.counts, outcome.stopped.counts, outcome.end.counts);
    let finished = match (plan.mode, plan.acks) {
        (Mode::Produce, 0) => end.published - begin.published,
        (Mode::Produce, _) => end.confirmed - begin.confirmed,
        _ => end.delivered - begin.delivered,
    };
    let latencies = &mut outcome.latencies;
    let confirm = (plan.acks != 0 && plan.mode != Mode::Fetch).then(|| latencies.confirm.percentiles());
    let delivery = (plan.mode == Mode::Both && plan.size >= 16).then(|| latencies.delivery.percentiles());
    let reads = plan.mode != Mode::Produce;
    let mut report = Report {
        settings: settings(plan),
        backlog: if reads { stopped.published.saturating_sub(stopped.delivered) } else { 0 },
        confirm,
        delivery,
        server_us_published: None,
        refused: clients.refused(),
        flaws: clients.ledger.flaws,
        ..Report::measured(server, &outcome, finished, plan.size)
    };
    report.megabytes_per_second = Some(report.rate() * plan.size as f64 / 1e6);
    report
}

/// The plan in one line.
fn settings(plan: &Plan) -> String {
    let until = plan.course.end("records");
    let each = records_in(plan.batch, plan.size);
    let acks = match plan.acks {
        -1 => "all".to_owned(),
        acks => acks.to_string(),
    };
    format!(
        "{} {until} at {}:{}, {} producers, {} consumers, {} topics of {} partitions, {} B, {each} per batch, acks \
         {acks}, {} under way, rate {}",
        match plan.mode {
            Mode::Produce => "write",
            Mode::Fetch => "read",
            Mode::Both => "write and read",
        },
        plan.host,
        plan.port,
        plan.producers,
        if plan.mode == Mode::Produce { 0 } else { plan.consumers },
        plan.topics,
        plan.partitions,
        plan.size,
        plan.pipeline,
        plan.course.pace(),
    )
}
