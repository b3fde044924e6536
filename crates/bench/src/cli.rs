//! The command line of the load generator: options in, a plan out, and the report printed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::connections;
use crate::course::{Course, Until};
use crate::error::{Error, Result};
use crate::kafka;
use crate::load::{self, Plan, Routing};
use crate::peers::{self, Comparison, Kind};
use crate::url::Url;

/// The `bench` command with its subcommands.
pub fn command() -> Command {
    dressed(Command::new("bench").about("Measure this broker or any other AMQP 0-9-1 or Kafka server"))
}

/// The same as a variant of a derived `Subcommand`, for a program that has others.
#[derive(Clone, Debug)]
pub struct Bench(ArgMatches);

impl Bench {
    /// Runs what was parsed; see [`run`].
    pub fn run(&self) -> ExitCode {
        run(&self.0)
    }
}

impl FromArgMatches for Bench {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Bench(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

impl Args for Bench {
    fn augment_args(command: Command) -> Command {
        dressed(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        dressed(command)
    }
}

fn dressed(command: Command) -> Command {
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(amqp_command())
        .subcommand(kafka::command())
        .subcommand(connections_command())
        .subcommand(peers_command())
}

/// Runs what [`command`] parsed; the exit code is 1 when the run failed or a message was lost, doubled or damaged.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let done = match matches.subcommand() {
        Some(("amqp", matches)) => run_amqp(matches),
        Some(("kafka", matches)) => run_kafka(matches),
        Some(("connections", matches)) => run_connections(matches),
        Some(("peers", matches)) => run_peers(matches),
        _ => Err(Error::new("which bench? see waystation bench --help")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}

fn run_amqp(matches: &ArgMatches) -> Result<ExitCode> {
    let report = load::run(&plan(matches)?)?;
    print(&if wants_json(matches) { report.json() + "\n" } else { report.table() })?;
    Ok(if report.flaws.none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_kafka(matches: &ArgMatches) -> Result<ExitCode> {
    let report = kafka::run(&kafka::plan(matches)?)?;
    print(&if wants_json(matches) { report.json() + "\n" } else { report.table() })?;
    let is_clean = report.flaws.none() && report.refused == 0;
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_connections(matches: &ArgMatches) -> Result<ExitCode> {
    let count = number(matches, "count", 1000) as u32;
    let idle = connections::run(&url(matches)?, count, &pids(matches))?;
    print(&if wants_json(matches) { idle.json() + "\n" } else { idle.table() })?;
    Ok(ExitCode::SUCCESS)
}

fn run_peers(matches: &ArgMatches) -> Result<ExitCode> {
    let (text, passed) = peers::run(&comparison(matches))?;
    print(&text)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn amqp_command() -> Command {
    let number = |name: &'static str, help: &'static str, parser: ValueParser| {
        Arg::new(name).long(name).value_name("N").value_parser(parser).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let small = || ValueParser::from(value_parser!(u64).range(0..=60_000));
    let any = || ValueParser::from(value_parser!(u64));
    let seconds = || ValueParser::new(seconds);
    target_args(Command::new("amqp"))
        .about("Publish and consume over AMQP 0-9-1 and check every message")
        .arg(number("publishers", "Publishing connections [default: 1]", small()))
        .arg(number("consumers", "Consuming connections; 0 only publishes [default: 1]", small()))
        .arg(number("queues", "Durable queues; publisher i uses queue i mod N [default: 1]", any()))
        .arg(flag("spread", "Every publisher goes through all queues in turn").conflicts_with("fanout"))
        .arg(number("fanout", "One fanout exchange that copies to N queues", any()).conflicts_with("queues"))
        .arg(number("size", "Bytes of a body; from 16 on every byte is checked [default: 1024]", any()))
        .arg(number("window", "Unconfirmed messages per publisher [default: 1000, none with --rate]", any()))
        .arg(number(
            "prefetch",
            "Unacknowledged messages per consumer, 0 for no bound [default: 1000]",
            small(),
        ))
        .arg(number("rate", "Messages per second in all; latency counts from when each was due", any()))
        .arg(number("duration", "Seconds to publish after the warm-up [default: 10]", seconds()))
        .arg(number("messages", "Publish this many in all instead", any()).conflicts_with("duration"))
        .arg(number("warmup", "Seconds before the figures begin [default: 1, 0 with --messages]", seconds()))
        .arg(number(
            "patience",
            "Seconds without progress after which missing messages are lost [default: 10]",
            seconds(),
        ))
        .arg(flag("persistent", "Delivery mode 2 (the default)"))
        .arg(flag("transient", "Delivery mode 1").conflicts_with("persistent"))
        .arg(flag("auto-ack", "Consume without acknowledging"))
        .arg(flag("no-confirm", "Publish without confirms"))
        .arg(
            Arg::new("metrics-url").long("metrics-url").value_name("URL").help(
                "Read waystation_* counters here before and after: bytes written, syncs, entries per sync",
            ),
        )
        .arg(flag("quiet", "No progress on stderr"))
}

fn connections_command() -> Command {
    let count =
        Arg::new("count").long("count").value_name("N").value_parser(value_parser!(u64).range(1..=1_000_000));
    target_args(Command::new("connections"))
        .about("Open idle connections and show what each costs the server in memory")
        .arg(count.help("Connections with one channel each [default: 1000]"))
}

fn peers_command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let many = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
    let names = PossibleValuesParser::new(peers::ALL.iter().map(|scenario| scenario.name));
    Command::new("peers")
        .about("Start this broker and RabbitMQ, measure both alternately and print the table")
        .arg(flag("quick", "One run of 2 seconds each"))
        .arg(
            Arg::new("only")
                .long("only")
                .value_parser(PossibleValuesParser::new(["waystation", "rabbitmq"]))
                .help("Measure one of the two"),
        )
        .arg(many("scenario").value_parser(names).help("Measure this one only; repeatable"))
        .arg(Arg::new("runs").long("runs").value_parser(value_parser!(u64).range(1..)).help("[default: 5]"))
        .arg(Arg::new("seconds").long("seconds").value_parser(seconds).help("Length of a run [default: 5]"))
        .arg(path("waystation", "The program to measure [default: this one]"))
        .arg(
            many("serve-arg")
                .allow_hyphen_values(true)
                .help("One more argument for waystation serve; repeatable"),
        )
        .arg(path("rabbitmq", "Its start script").default_value("/usr/lib/rabbitmq/bin/rabbitmq-server"))
        .arg(flag("install", "Install RabbitMQ with apt-get if it is missing"))
        .arg(path("dir", "Keep data below this directory; must be on a real disk [default: temporary files]"))
        .arg(path("write", "Put the table between the marks of this document"))
        .arg(path("raw", "Append every run to this file as a line of JSON"))
}

/// The comparison that the options describe.
fn comparison(matches: &ArgMatches) -> Comparison {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let list = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    let quick = matches.get_flag("quick");
    let length = Duration::from_secs(if quick { 2 } else { 5 });
    Comparison {
        waystation: path("waystation"),
        serve_args: list("serve-arg"),
        rabbitmq: path("rabbitmq").unwrap_or_default(),
        install: matches.get_flag("install"),
        dir: path("dir"),
        kinds: match matches.get_one::<String>("only").map(String::as_str) {
            Some("waystation") => vec![Kind::Waystation],
            Some(_) => vec![Kind::RabbitMq],
            None => vec![Kind::Waystation, Kind::RabbitMq],
        },
        scenarios: list("scenario"),
        runs: number(matches, "runs", if quick { 1 } else { 5 }),
        duration: matches.get_one("seconds").copied().unwrap_or(length),
        warmup: Duration::from_secs(1),
        write: path("write"),
        raw: path("raw"),
    }
}

/// The options that say which server, and how to print.
fn target_args(command: Command) -> Command {
    let url =
        Arg::new("url").long("url").default_value("amqp://guest:guest@127.0.0.1:5672").help("The server");
    let pid = Arg::new("server-pid").long("server-pid").value_name("PID").value_delimiter(',');
    let pid = pid.value_parser(value_parser!(u32)).action(ArgAction::Append);
    let output = Arg::new("output").short('o').long("output").default_value("table");
    command
        .arg(url)
        .arg(pid.help("The server's processes; without it whoever listens on the port"))
        .arg(output.value_parser(PossibleValuesParser::new(["table", "json"])).help("Form of the report"))
}

/// The plan that the options describe.
fn plan(matches: &ArgMatches) -> Result<Plan> {
    let url = url(matches)?;
    let default = Plan::new(url.clone());
    let optional = |name: &str| matches.get_one::<u64>(name).copied();
    let fanout = optional("fanout");
    let course = course(matches);
    let queues = fanout.unwrap_or_else(|| number(matches, "queues", 1));
    let plan = Plan {
        url,
        publishers: number(matches, "publishers", 1) as u16,
        consumers: number(matches, "consumers", 1) as u16,
        queues: u32::try_from(queues).map_err(|_| Error::new("that is too many queues"))?,
        routing: match (fanout, matches.get_flag("spread")) {
            (Some(_), _) => Routing::Fanout,
            (None, true) => Routing::Spread,
            (None, false) => Routing::Own,
        },
        size: usize::try_from(number(matches, "size", 1024)).unwrap_or(usize::MAX),
        window: optional("window").or(default.window.filter(|_| course.rate.is_none())),
        prefetch: number(matches, "prefetch", 1000) as u16,
        course,
        persistent: !matches.get_flag("transient"),
        auto_ack: matches.get_flag("auto-ack"),
        confirms: !matches.get_flag("no-confirm"),
        server_pids: pids(matches),
        metrics_url: matches.get_one::<String>("metrics-url").cloned(),
    };
    plan.check().map(|()| plan)
}

/// The course that the options describe, which are the same for every protocol.
pub(crate) fn course(matches: &ArgMatches) -> Course {
    let default = Course::default();
    let messages = matches.get_one::<u64>("messages").copied();
    let time = |name: &str| matches.get_one::<Duration>(name).copied();
    let (until, warmup) = match messages {
        Some(messages) => (Until::Published(messages), Duration::ZERO),
        None => (time("duration").map_or(default.until, Until::Elapsed), default.warmup),
    };
    Course {
        rate: matches.get_one("rate").copied(),
        until,
        warmup: time("warmup").unwrap_or(warmup),
        patience: time("patience").unwrap_or(default.patience),
        progress: !matches.get_flag("quiet"),
    }
}

fn url(matches: &ArgMatches) -> Result<Url> {
    Url::parse(matches.get_one::<String>("url").map_or("amqp://", String::as_str))
}

/// The processes of the server that are named.
pub(crate) fn pids(matches: &ArgMatches) -> Vec<u32> {
    matches.get_many::<u32>("server-pid").into_iter().flatten().copied().collect()
}

fn number(matches: &ArgMatches, name: &str, otherwise: u64) -> u64 {
    matches.get_one::<u64>(name).copied().unwrap_or(otherwise)
}

fn wants_json(matches: &ArgMatches) -> bool {
    matches.get_one::<String>("output").is_some_and(|form| form == "json")
}

/// Seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 =
        text.trim_end_matches('s').parse().map_err(|_| format!("{text} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Plan> {
        let matches = amqp_command().try_get_matches_from(line.split(' '));
        plan(&matches.map_err(|e| Error::new(e.to_string()))?)
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn without_options_it_is_one_durable_queue_with_window_1000() {
        let plan = parsed("amqp").unwrap();
        assert_eq!((plan.publishers, plan.consumers, plan.queues), (1, 1, 1));
        assert_eq!((plan.window, plan.prefetch, plan.size), (Some(1000), 1000, 1024));
        assert!(plan.persistent && plan.confirms && !plan.auto_ack && plan.course.progress);
        assert_eq!(plan.course.until, Until::Elapsed(Duration::from_secs(10)));
    }

    #[test]
    fn every_option_reaches_the_plan() {
        let plan = parsed(
            "amqp --url amqp://u:p@h:1/v --publishers 2 --consumers 3 --fanout 5 --size 17 --prefetch 9 --rate 100 \
             --messages 50 --transient --auto-ack --no-confirm --patience 3 --server-pid 4,5 --server-pid 6 --quiet",
        )
        .unwrap();
        assert_eq!((plan.publishers, plan.consumers, plan.queues), (2, 3, 5));
        assert_eq!((plan.routing, plan.size, plan.prefetch), (Routing::Fanout, 17, 9));
        assert_eq!(
            (plan.course.rate, plan.window, plan.course.until),
            (Some(100), None, Until::Published(50))
        );
        assert!(!plan.persistent && plan.auto_ack && !plan.confirms && !plan.course.progress);
        assert_eq!((plan.course.warmup, plan.course.patience), (Duration::ZERO, Duration::from_secs(3)));
        assert_eq!(plan.server_pids, [4, 5, 6]);
        let spread = parsed("amqp --queues 1000 --spread --duration 2.5 --warmup 0.5s --window 7").unwrap();
        assert_eq!((spread.routing, spread.queues, spread.window), (Routing::Spread, 1000, Some(7)));
        assert_eq!(spread.course.until, Until::Elapsed(Duration::from_millis(2500)));
        assert_eq!(spread.course.warmup, Duration::from_millis(500));
    }

    #[test]
    fn a_comparison_is_five_runs_of_everything_unless_told_otherwise() {
        let parse = |line: &str| comparison(&peers_command().try_get_matches_from(line.split(' ')).unwrap());
        let all = parse("peers");
        assert_eq!((all.runs, all.duration, all.kinds.len()), (5, Duration::from_secs(5), 2));
        assert!(all.scenarios.is_empty() && !all.install);
        let some =
            parse("peers --quick --only waystation --scenario 16b --scenario idle --serve-arg --shards");
        assert_eq!(
            (some.runs, some.duration, some.kinds),
            (1, Duration::from_secs(2), vec![Kind::Waystation])
        );
        assert_eq!(
            (some.scenarios, some.serve_args),
            (vec!["16b".into(), "idle".into()], vec!["--shards".into()])
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for line in
            ["amqp --spread --fanout 2", "amqp --window 0", "amqp --messages 5 --duration 1", "amqp --size x"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
