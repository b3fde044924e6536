//! `waystation bench peers`: this broker and RabbitMQ, measured alternately with the same tool and settings.
//!
//! In: where the programs are, how long and how often. Out: a table in Markdown on stdout and, if asked for, in a
//! document between two marks; every single run as a line of JSON. Installs nothing unless told to.

mod disk;
mod scenario;
mod server;
mod table;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::scenario::SCENARIOS as ALL;
use self::scenario::{SCENARIOS, Scenario, Shape, Work};
pub(crate) use self::server::Kind;
use self::server::{Places, Server, install_rabbitmq};
use self::table::{Medians, Row, markdown};
use crate::connections;
use crate::error::{Error, Result, Trying};
use crate::load;
use crate::report::Report;

const BEGIN: &str = "<!-- peers: begin -->";
const END: &str = "<!-- peers: end -->";

/// All settings of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// The `waystation` program; `None` is the running one.
    pub(crate) waystation: Option<PathBuf>,
    /// More arguments for `waystation serve`.
    pub(crate) serve_args: Vec<String>,
    /// The `rabbitmq-server` script.
    pub(crate) rabbitmq: PathBuf,
    /// Install RabbitMQ if it is missing.
    pub(crate) install: bool,
    /// Where data goes; `None` is the directory for temporary files.
    pub(crate) dir: Option<PathBuf>,
    /// The servers.
    pub(crate) kinds: Vec<Kind>,
    /// Names of the scenarios; empty means all.
    pub(crate) scenarios: Vec<String>,
    /// Runs per scenario and server.
    pub(crate) runs: u64,
    /// Length of a run after its warm-up.
    pub(crate) duration: Duration,
    /// Its warm-up.
    pub(crate) warmup: Duration,
    /// A document whose marked part is replaced by the table.
    pub(crate) write: Option<PathBuf>,
    /// A file that gets one line of JSON per run.
    pub(crate) raw: Option<PathBuf>,
}

/// Runs everything and returns the report, and whether every gate that was measured is passed and nothing was lost.
pub(crate) fn run(comparison: &Comparison) -> Result<(String, bool)> {
    if let Some(path) = &comparison.write {
        // Found out before the measuring, not after it.
        replaced(path, "")?;
    }
    if comparison.kinds.contains(&Kind::RabbitMq) && !comparison.rabbitmq.exists() {
        if !comparison.install {
            let path = comparison.rabbitmq.display();
            return Err(Error::new(format!(
                "{path} does not exist: use --install, --rabbitmq or --only waystation"
            )));
        }
        install_rabbitmq()?;
    }
    let base = comparison.dir.clone().unwrap_or_else(std::env::temp_dir);
    let places = Places {
        waystation: match &comparison.waystation {
            Some(path) => path.clone(),
            None => std::env::current_exe().trying("finding the running program")?,
        },
        serve_args: comparison.serve_args.clone(),
        rabbitmq: comparison.rabbitmq.clone(),
        dir: base.join(format!("waystation-peers-{}", std::process::id())),
    };
    let outcome = compare(comparison, &places);
    let _ = fs::remove_dir_all(&places.dir);
    let (text, passed) = outcome?;
    if let Some(path) = &comparison.write {
        fs::write(path, replaced(path, &text)?).trying("writing the --write document")?;
    }
    Ok((text, passed))
}

fn compare(comparison: &Comparison, places: &Places) -> Result<(String, bool)> {
    fs::create_dir_all(&places.dir).trying("making a directory for the data")?;
    let limits = disk::measure(&places.dir).trying("measuring the disk")?;
    connections::allow_many_files();
    let servers =
        comparison.kinds.iter().map(|kind| Server::start(*kind, places)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    let mut flawed = Vec::new();
    for scenario in comparison.chosen()? {
        let results = match scenario.work {
            Work::Idle(count) => comparison.idle(&servers, count)?,
            Work::Load(shape) => comparison.load(&servers, &scenario, &shape, &mut flawed)?,
        };
        rows.push(Row { scenario, results });
    }
    let mut text = comparison.heading(&servers, places, limits);
    text += &markdown(&rows);
    for flaw in &flawed {
        text += &format!("\n{flaw}\n");
    }
    let passed = flawed.is_empty() && rows.iter().all(|row| row.passes(&rows) != Some(false));
    Ok((text, passed))
}

impl Comparison {
    fn chosen(&self) -> Result<Vec<Scenario>> {
        if self.scenarios.is_empty() {
            return Ok(SCENARIOS.to_vec());
        }
        let find = |name: &String| {
            let found = SCENARIOS.iter().find(|scenario| scenario.name == name).cloned();
            found.ok_or_else(|| Error::new(format!("there is no scenario {name}")))
        };
        self.scenarios.iter().map(find).collect()
    }

    fn idle(&self, servers: &[Server], count: u32) -> Result<Vec<(Kind, Medians)>> {
        let mut results = Vec::new();
        for server in servers {
            let idle = connections::run(&server.url, count, &[])?;
            eprintln!("idle      {:<11} {:8.0} bytes per connection", server.kind.name(), idle.each());
            self.keep(server, "idle", &idle.json())?;
            results.push((server.kind, Medians::of_idle(&idle)));
        }
        Ok(results)
    }

    /// All runs of one scenario, the servers taking turns.
    fn load(
        &self,
        servers: &[Server],
        scenario: &Scenario,
        shape: &Shape,
        flawed: &mut Vec<String>,
    ) -> Result<Vec<(Kind, Medians)>> {
        let mut reports: Vec<Vec<Report>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.runs {
            for (server, reports) in servers.iter().zip(&mut reports) {
                let mut plan = shape.plan(&server.url, self.duration, self.warmup);
                plan.metrics_url = server.metrics_url.clone();
                let report =
                    load::run(&plan).trying(&format!("{} on {}", scenario.name, server.kind.name()))?;
                show(scenario, server.kind, &report);
                self.keep(server, scenario.name, &report.json())?;
                if !report.flaws.none() {
                    let name = server.kind.name();
                    flawed.push(format!("**{name}, {}: {:?}**", scenario.title, report.flaws));
                }
                reports.push(report);
            }
        }
        Ok(servers.iter().zip(&reports).map(|(server, runs)| (server.kind, Medians::of(runs))).collect())
    }

    fn keep(&self, server: &Server, scenario: &str, json: &str) -> Result<()> {
        let Some(path) = &self.raw else { return Ok(()) };
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).trying("opening the --raw file")?;
        let name = server.kind.name();
        writeln!(file, "{{\"server\":\"{name}\",\"scenario\":\"{scenario}\",\"figures\":{json}}}")?;
        Ok(())
    }

    /// What was measured where: figures without it mean nothing.
    fn heading(&self, servers: &[Server], places: &Places, limits: disk::Limits) -> String {
        let servers: Vec<String> =
            servers.iter().map(|s| format!("{} {}", s.kind.name(), s.version)).collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let times =
            if self.runs == 1 { "one run".to_owned() } else { format!("medians of {} runs", self.runs) };
        format!(
            "{}; {times} of {} s each, servers taking turns; {cores} cores shared with the client ({}, Linux {}), \
             data on {} (4 KiB durable in {:.0} µs, {:.0} MB/s of durable 1 MiB writes).\n\n",
            servers.join(", "),
            self.duration.as_secs_f64(),
            processor().unwrap_or_else(|| "unknown processor".to_owned()),
            fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            filesystem(&places.dir).unwrap_or_else(|| "an unknown file system".to_owned()),
            limits.small_us,
            limits.large_mb_per_second,
        )
    }
}

fn show(scenario: &Scenario, kind: Kind, report: &Report) {
    let latency = report.delivery.unwrap_or_default();
    eprintln!(
        "{:<9} {:<11} {:8.2} us/msg {:9.0} msg/s  p50 {:7.0} us  p99 {:7.0} us  client {:5.2} us/msg{}",
        scenario.name,
        kind.name(),
        report.server_us.unwrap_or(f64::NAN),
        report.rate(),
        latency.p50,
        latency.p99,
        report.client_us.unwrap_or(f64::NAN),
        if report.flaws.none() { String::new() } else { format!("  {:?}", report.flaws) },
    );
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

/// The type of the file system that holds `dir`: a comparison on one in memory would say nothing about syncs.
fn filesystem(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
    });
    holding.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// The document at `path` with `text` between its marks.
fn replaced(path: &Path, text: &str) -> Result<String> {
    let document = fs::read_to_string(path).trying("reading the --write document")?;
    between_marks(&document, text)
        .ok_or_else(|| Error::new(format!("{} lacks the lines {BEGIN} and {END}", path.display())))
}

fn between_marks(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_of_a_document_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(between_marks(&document, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(between_marks("no marks", "new"), None);
    }

    #[test]
    fn the_machine_can_be_described() {
        assert!(filesystem(Path::new("/proc")).is_some_and(|kind| kind == "proc"));
        assert_eq!(filesystem(Path::new("/no/such/place")), None);
    }
}
