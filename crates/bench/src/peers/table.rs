//! Medians of the runs, judged by the gates, as a table in Markdown. Pure.

use std::fmt::Write;

use super::scenario::{Gate, Scenario};
use super::server::Kind;
use crate::connections::Idle;
use crate::report::Report;

/// Figures of one scenario on one server: medians of all runs, each figure for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Medians {
    /// Server CPU per delivered message, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Messages per second.
    pub(crate) rate: Option<f64>,
    /// Publish to delivery, in microseconds.
    pub(crate) p50_us: Option<f64>,
    /// The same for 99 of 100.
    pub(crate) p99_us: Option<f64>,
    /// Bytes written per byte published.
    pub(crate) written: Option<f64>,
    /// Resident bytes of the server.
    pub(crate) resident: Option<f64>,
    /// Bytes per idle connection.
    pub(crate) connection: Option<f64>,
}

impl Medians {
    /// Those of some runs under load.
    pub(crate) fn of(runs: &[Report]) -> Medians {
        let median = |figure: fn(&Report) -> Option<f64>| median(runs.iter().filter_map(figure).collect());
        Medians {
            cpu_us: median(|run| run.server_us),
            rate: median(|run| Some(run.rate())),
            p50_us: median(|run| Some(run.delivery?.p50)),
            p99_us: median(|run| Some(run.delivery?.p99)),
            written: median(|run| run.written_per_byte),
            resident: median(|run| run.resident.map(|bytes| bytes as f64)),
            connection: None,
        }
    }

    /// That of idle connections.
    pub(crate) fn of_idle(idle: &Idle) -> Medians {
        Medians { connection: Some(idle.each()), resident: Some(idle.after as f64), ..Medians::default() }
    }
}

/// The middle of the values, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// One scenario with what each server did.
pub(crate) struct Row {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// Medians by server.
    pub(crate) results: Vec<(Kind, Medians)>,
}

impl Row {
    fn of(&self, kind: Kind) -> Option<&Medians> {
        self.results.iter().find(|(k, _)| *k == kind).map(|(_, medians)| medians)
    }

    /// Whether this broker passes; `None` when it was not measured.
    pub(crate) fn passes(&self, rows: &[Row]) -> Option<bool> {
        let own = self.of(Kind::Waystation)?;
        match self.scenario.gate {
            Gate::Cpu(limit) => Some(own.cpu_us? < limit),
            Gate::Latency(p50, p99) => Some(own.p50_us? < p50 && own.p99_us? < p99),
            Gate::Times(times, other) => {
                let other = rows.iter().find(|row| row.scenario.name == other)?;
                Some(own.cpu_us? <= other.of(Kind::Waystation)?.cpu_us? * times)
            }
            Gate::Written(limit) => Some(own.written? < limit),
            Gate::Memory(limit) => Some(own.connection? < limit),
        }
    }

    fn ratio(&self) -> Option<f64> {
        let figure = |medians: &Medians| medians.cpu_us.or(medians.connection);
        let own = figure(self.of(Kind::Waystation)?)?;
        Some(figure(self.of(Kind::RabbitMq)?)? / own).filter(|ratio| ratio.is_finite())
    }
}

/// The whole table.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| scenario | Waystation µs/msg | RabbitMQ µs/msg | RabbitMQ : Waystation | Waystation msg/s | RabbitMQ msg/s \
         | Waystation p50 / p99 ms | RabbitMQ p50 / p99 ms | gate | |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (own, peer) = (row.of(Kind::Waystation), row.of(Kind::RabbitMq));
        let verdict = match row.passes(rows) {
            Some(true) => "ok",
            Some(false) => "**missed**",
            None => "not measured",
        };
        let cells = [
            row.scenario.title.to_owned(),
            cost(own),
            cost(peer),
            row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.1}")),
            rate(own),
            rate(peer),
            latency(own),
            latency(peer),
            gate(row.scenario.gate, own),
            verdict.to_owned(),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn cost(medians: Option<&Medians>) -> String {
    match medians {
        Some(Medians { cpu_us: Some(us), .. }) if *us < 10.0 => format!("{us:.2}"),
        Some(Medians { cpu_us: Some(us), .. }) => format!("{us:.1}"),
        Some(Medians { connection: Some(bytes), .. }) => format!("{:.1} kB each", bytes / 1000.0),
        _ => "-".to_owned(),
    }
}

fn rate(medians: Option<&Medians>) -> String {
    medians.and_then(|m| m.rate).map_or("-".to_owned(), |rate| match rate {
        rate if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.1}k", rate / 1e3),
    })
}

fn latency(medians: Option<&Medians>) -> String {
    match medians {
        Some(Medians { p50_us: Some(p50), p99_us: Some(p99), .. }) => {
            format!("{:.2} / {:.2}", p50 / 1000.0, p99 / 1000.0)
        }
        _ => "-".to_owned(),
    }
}

fn gate(gate: Gate, own: Option<&Medians>) -> String {
    match gate {
        Gate::Cpu(limit) => format!("< {limit} µs"),
        Gate::Latency(p50, p99) => format!("p50 < {} ms, p99 < {} ms", p50 / 1000.0, p99 / 1000.0),
        Gate::Times(times, other) => format!("≤ {times} × `{other}`"),
        Gate::Written(limit) => match own.and_then(|own| own.written) {
            Some(written) => format!("body stored once: {written:.2} B written per B < {limit}"),
            None => format!("body stored once: < {limit} B written per B"),
        },
        Gate::Memory(limit) => format!("< {} kB each", limit / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::SCENARIOS;
    use super::*;

    fn row(name: &str, own: Medians, peer: Option<Medians>) -> Row {
        let scenario = SCENARIOS.iter().find(|s| s.name == name).unwrap().clone();
        let peer = peer.map(|peer| (Kind::RabbitMq, peer));
        Row { scenario, results: [(Kind::Waystation, own)].into_iter().chain(peer).collect() }
    }

    fn cpu(us: f64) -> Medians {
        Medians { cpu_us: Some(us), rate: Some(1_234_567.0), ..Medians::default() }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![5.0, 1.0, 9.0]), Some(5.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        let runs = [1.0, 3.0, 2.0].map(|us| Report { server_us: Some(us), ..Report::default() });
        assert_eq!(Medians::of(&runs).cpu_us, Some(2.0));
    }

    #[test]
    fn gates_are_judged_by_this_brokers_figures() {
        let rows = [row("1k", cpu(1.7), Some(cpu(51.0))), row("in-turn", cpu(3.5), None)];
        assert_eq!(rows[0].passes(&rows), Some(true));
        assert_eq!(rows[1].passes(&rows), Some(false));
        let paced = Medians { p50_us: Some(500.0), p99_us: Some(3100.0), ..Medians::default() };
        assert_eq!(row("paced", paced, None).passes(&[]), Some(false));
        let idle = Medians::of_idle(&Idle { count: 10, before: 0, after: 99_000 });
        assert_eq!(row("idle", idle, None).passes(&[]), Some(true));
        assert_eq!(row("fanout", cpu(1.0), None).passes(&[]), None);
    }

    #[test]
    fn a_row_shows_both_servers_and_the_ratio() {
        let text = markdown(&[row("1k", cpu(1.7), Some(cpu(51.0))), row("16b", cpu(0.61), None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            "| 1 KiB, window 1000 | 1.70 | 51.0 | 30.0 | 1.23M | 1.23M | - | - | < 1.8 µs | ok |"
        );
        assert!(
            lines[3].starts_with("| 16 B, window 1000 | 0.61 | - | - |")
                && lines[3].ends_with("**missed** |")
        );
    }
}
