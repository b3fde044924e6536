//! The figures of a run, computed once from the samples and shown as a table or as JSON.
//!
//! In: samples, histograms, the ledger. Out: text. A figure that could not be taken is absent, never 0.

use serde_json::{Map, Number, Value};

use crate::clients::{Clients, Plan as _};
use crate::drive::Outcome;
use crate::http::{Counters, growth};
use crate::latency::Percentiles;
use crate::load::{Amqp, Flaws, Plan, Routing};
use crate::procfs::Processes;

/// What one run measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The settings, for the reader.
    pub(crate) settings: String,
    /// Process ids of the server.
    pub(crate) server: Option<String>,
    /// Seconds from the end of the warm-up to the last publish.
    pub(crate) seconds: f64,
    /// Messages sent in that time, and in the same way the next two.
    pub(crate) published: u64,
    /// Messages confirmed.
    pub(crate) confirmed: u64,
    /// Deliveries taken.
    pub(crate) delivered: u64,
    /// Messages of the whole run, warm-up included.
    pub(crate) published_in_all: u64,
    /// Confirms of the whole run.
    pub(crate) confirmed_in_all: u64,
    /// Deliveries of the whole run.
    pub(crate) delivered_in_all: u64,
    /// Deliveries outstanding when publishing stopped.
    pub(crate) backlog: u64,
    /// Publish to confirm, if confirms were asked for.
    pub(crate) confirm: Option<Percentiles>,
    /// Publish to delivery, if bodies carried stamps.
    pub(crate) delivery: Option<Percentiles>,
    /// Server CPU per delivered message (per confirmed one without consumers), the drain included, in microseconds.
    pub(crate) server_us: Option<f64>,
    /// Server CPU per published message: differs from the former for a fan-out.
    pub(crate) server_us_published: Option<f64>,
    /// Server CPU per megabyte of bodies, in microseconds.
    pub(crate) server_us_per_mb: Option<f64>,
    /// Megabytes of bodies per second.
    pub(crate) megabytes_per_second: Option<f64>,
    /// CPU of the load generator per delivered message.
    pub(crate) client_us: Option<f64>,
    /// CPU of all kernel threads per delivered message.
    pub(crate) kernel_us: Option<f64>,
    /// Resident bytes of the server at the end.
    pub(crate) resident: Option<u64>,
    /// Bytes the server wrote per byte published (bodies, each counted once).
    pub(crate) written_per_byte: Option<f64>,
    /// Syncs in the whole run.
    pub(crate) syncs: Option<f64>,
    /// Log entries per sync.
    pub(crate) entries_per_sync: Option<f64>,
    /// Messages the server refused.
    pub(crate) refused: u64,
    /// Deliveries with the redelivered flag.
    pub(crate) redelivered: u64,
    /// What must not happen.
    pub(crate) flaws: Flaws,
}

/// One line of the report.
enum Figure {
    Count(u64),
    Real(f64),
    Text(String),
}

/// Microseconds of CPU for each of `count`; `None` where it is not known, or fell: kernel threads come and go.
pub(crate) fn us_per(count: f64, begin_ns: Option<u64>, end_ns: Option<u64>) -> Option<f64> {
    let spent = end_ns?.checked_sub(begin_ns?)?;
    (count > 0.0).then(|| spent as f64 / 1000.0 / count)
}

impl Report {
    /// Works out what every protocol has: the samples' differences, and CPU for each of `finished` messages of `size`
    /// bytes.
    pub(crate) fn measured(
        server: Option<&Processes>,
        outcome: &Outcome,
        finished: u64,
        size: usize,
    ) -> Report {
        let (begin, stopped, end) = (&outcome.begin, &outcome.stopped, &outcome.end);
        let published = (end.counts.published - begin.counts.published) as f64;
        let (messages, megabytes) = (finished as f64, (finished * size as u64) as f64 / 1e6);
        let server_us = |count| us_per(count, begin.server_cpu_ns, end.server_cpu_ns);
        Report {
            server: server.map(Processes::names),
            seconds: (stopped.at_ns - begin.at_ns) as f64 / 1e9,
            published: stopped.counts.published - begin.counts.published,
            confirmed: stopped.counts.confirmed - begin.counts.confirmed,
            delivered: stopped.counts.delivered - begin.counts.delivered,
            published_in_all: end.counts.published,
            confirmed_in_all: end.counts.confirmed,
            delivered_in_all: end.counts.delivered,
            server_us: server_us(messages),
            server_us_published: server_us(published),
            server_us_per_mb: server_us(megabytes),
            client_us: us_per(messages, begin.client_cpu_ns, end.client_cpu_ns),
            kernel_us: us_per(messages, begin.kernel_cpu_ns, end.kernel_cpu_ns),
            resident: outcome.resident,
            ..Report::default()
        }
    }

    /// The figures of an AMQP run.
    pub(crate) fn new(
        plan: &Plan,
        server: Option<&Processes>,
        mut outcome: Outcome,
        clients: &Clients<'_, Amqp>,
        metrics: Option<(Counters, Counters)>,
    ) -> Report {
        let (begin, stopped, end) = (outcome.begin.counts, outcome.stopped.counts, outcome.end.counts);
        let finished = match (plan.consumers, plan.confirms) {
            (0, false) => end.published - begin.published,
            (0, true) => end.confirmed - begin.confirmed,
            _ => end.delivered - begin.delivered,
        };
        let latencies = &mut outcome.latencies;
        let confirm = plan.confirms.then(|| latencies.confirm.percentiles());
        let delivery = (plan.consumers > 0 && plan.size >= 16).then(|| latencies.delivery.percentiles());
        let mut report = Report {
            settings: settings(plan),
            backlog: (stopped.published * plan.copies()).saturating_sub(stopped.delivered),
            confirm,
            delivery,
            server_us_per_mb: None,
            refused: clients.refused(),
            redelivered: clients.ledger.redelivered,
            flaws: clients.ledger.flaws,
            ..Report::measured(server, &outcome, finished, plan.size)
        };
        if let Some((before, after)) = metrics {
            report.add_metrics(&before, &after, end.published * plan.size as u64);
        }
        report
    }

    /// Adds what the server's own counters say, where `bytes` of bodies were published.
    pub(crate) fn add_metrics(&mut self, before: &Counters, after: &Counters, bytes: u64) {
        let written = growth(before, after, "waystation_log_written_bytes_total");
        self.written_per_byte = written.filter(|_| bytes > 0).map(|written| written / bytes as f64);
        self.syncs = growth(before, after, "waystation_log_syncs_total");
        let entries = growth(before, after, "waystation_log_entries_total");
        self.entries_per_sync = entries.zip(self.syncs).filter(|(_, syncs)| *syncs > 0.0).map(|(e, s)| e / s);
    }

    /// Messages per second, by deliveries or, without consumers, by publishes.
    pub(crate) fn rate(&self) -> f64 {
        let count = if self.delivered > 0 { self.delivered } else { self.published };
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    fn figures(&self) -> Vec<(&'static str, Figure)> {
        let mut list = vec![
            ("settings", Figure::Text(self.settings.clone())),
            ("seconds", Figure::Real(self.seconds)),
            ("published", Figure::Count(self.published)),
            ("confirmed", Figure::Count(self.confirmed)),
            ("delivered", Figure::Count(self.delivered)),
            ("messages_per_second", Figure::Real(self.rate())),
            ("backlog", Figure::Count(self.backlog)),
        ];
        let optional = [
            ("megabytes_per_second", self.megabytes_per_second),
            ("server_cpu_us_per_message", self.server_us),
            ("server_cpu_us_per_mb", self.server_us_per_mb),
            ("server_cpu_us_per_published", self.server_us_published),
            ("kernel_threads_us_per_message", self.kernel_us),
            ("client_cpu_us_per_message", self.client_us),
            ("server_resident_mb", self.resident.map(|bytes| bytes as f64 / 1e6)),
            ("bytes_written_per_byte_published", self.written_per_byte),
            ("syncs", self.syncs),
            ("entries_per_sync", self.entries_per_sync),
        ];
        list.extend(self.server.iter().map(|pids| ("server_pids", Figure::Text(pids.clone()))));
        list.extend(optional.into_iter().filter_map(|(name, value)| Some((name, Figure::Real(value?)))));
        let latencies = [(&CONFIRM, self.confirm), (&DELIVERY, self.delivery)];
        for (names, p) in latencies.into_iter().filter_map(|(names, p)| Some((names, p?))) {
            let values = [p.p50, p.p90, p.p99, p.p999, p.max];
            list.extend(names.iter().copied().zip(values.map(Figure::Real)));
        }
        list.extend([
            ("published_in_all", Figure::Count(self.published_in_all)),
            ("confirmed_in_all", Figure::Count(self.confirmed_in_all)),
            ("delivered_in_all", Figure::Count(self.delivered_in_all)),
            ("redelivered", Figure::Count(self.redelivered)),
            ("refused", Figure::Count(self.refused)),
            ("lost", Figure::Count(self.flaws.lost)),
            ("duplicated", Figure::Count(self.flaws.duplicated)),
            ("misordered", Figure::Count(self.flaws.misordered)),
            ("corrupt", Figure::Count(self.flaws.corrupt)),
            ("misrouted", Figure::Count(self.flaws.misrouted)),
        ]);
        list
    }

    /// Name and value, one per line.
    pub(crate) fn table(&self) -> String {
        let line = |(name, figure): (&'static str, Figure)| {
            let value = match figure {
                Figure::Count(count) => count.to_string(),
                Figure::Real(real) if real >= 1000.0 => format!("{real:.0}"),
                Figure::Real(real) => format!("{real:.3}"),
                Figure::Text(text) => text,
            };
            format!("{name:<34}{value}\n")
        };
        self.figures().into_iter().map(line).collect()
    }

    /// The same as one JSON object.
    pub(crate) fn json(&self) -> String {
        let value = |figure| match figure {
            Figure::Count(count) => Value::Number(count.into()),
            Figure::Real(real) => Number::from_f64(real).map_or(Value::Null, Value::Number),
            Figure::Text(text) => Value::String(text),
        };
        let fields = self.figures().into_iter().map(|(name, figure)| (name.to_owned(), value(figure)));
        Value::Object(fields.collect::<Map<_, _>>()).to_string()
    }
}

const CONFIRM: [&str; 5] =
    ["confirm_us_p50", "confirm_us_p90", "confirm_us_p99", "confirm_us_p99.9", "confirm_us_max"];
const DELIVERY: [&str; 5] =
    ["delivery_us_p50", "delivery_us_p90", "delivery_us_p99", "delivery_us_p99.9", "delivery_us_max"];

/// The plan in one line.
fn settings(plan: &Plan) -> String {
    let routing = match plan.routing {
        Routing::Own => "",
        Routing::Spread => " in turn",
        Routing::Fanout => " by fanout",
    };
    let bound = |count: Option<u64>| count.map_or("unbounded".to_owned(), |count| count.to_string());
    format!(
        "{} to {}, {} publishers, {} consumers, {} queues{routing}, {} B {}, window {}, prefetch {}, rate {}, {}{}",
        plan.course.end("messages"),
        plan.url.address(),
        plan.publishers,
        plan.consumers,
        plan.queues,
        plan.size,
        if plan.persistent { "persistent" } else { "transient" },
        bound(plan.window),
        plan.prefetch,
        plan.course.pace(),
        if plan.confirms { "confirms" } else { "no confirms" },
        if plan.auto_ack { ", auto-ack" } else { ", acks" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_absent_and_the_rest_is_valid_json() {
        let report = Report {
            seconds: 2.0,
            delivered: 10,
            server_us: Some(1.5),
            confirm: Some(Percentiles { p50: 3.0, ..Percentiles::default() }),
            ..Report::default()
        };
        let parsed: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(parsed["messages_per_second"], 5.0);
        assert_eq!(parsed["server_cpu_us_per_message"], 1.5);
        assert_eq!(parsed["confirm_us_p50"], 3.0);
        assert_eq!(parsed["lost"], 0);
        assert!(parsed.get("delivery_us_p50").is_none() && parsed.get("syncs").is_none());
        assert!(report.table().contains("server_cpu_us_per_message         1.500\n"));
    }

    #[test]
    fn counters_become_ratios() {
        let counters = |w: f64, s: f64, e: f64| {
            let names = [
                "waystation_log_written_bytes_total",
                "waystation_log_syncs_total",
                "waystation_log_entries_total",
            ];
            names.iter().map(|n| (*n).to_owned()).zip([w, s, e]).collect::<Counters>()
        };
        let mut report = Report::default();
        report.add_metrics(&counters(100.0, 1.0, 2.0), &counters(1300.0, 5.0, 12.0), 1000);
        assert_eq!(report.written_per_byte, Some(1.2));
        assert_eq!((report.syncs, report.entries_per_sync), (Some(4.0), Some(2.5)));
    }

    #[test]
    fn cpu_that_fell_is_not_known() {
        assert_eq!(us_per(4.0, Some(1_000), Some(9_000)), Some(2.0));
        assert_eq!(us_per(4.0, Some(9_000), Some(1_000)), None);
        assert_eq!((us_per(0.0, Some(1), Some(2)), us_per(1.0, None, Some(2))), (None, None));
    }
}
