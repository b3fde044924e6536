//! The command line of `waystation bench kafka`: options in, a plan out.

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::plan::{Mode, Plan};
use crate::cli::{course, pids, seconds};
use crate::error::{Error, Result};

/// The command.
pub(crate) fn command() -> Command {
    let number = |name: &'static str, help: &'static str, parser: ValueParser| {
        Arg::new(name).long(name).value_name("N").value_parser(parser).help(help)
    };
    let choice = |name: &'static str, values: &'static [&'static str]| {
        Arg::new(name).long(name).value_parser(PossibleValuesParser::new(values))
    };
    let small = || ValueParser::from(value_parser!(u64).range(0..=60_000));
    let any = || ValueParser::from(value_parser!(u64));
    let time = || ValueParser::new(seconds);
    let url = Arg::new("url").long("url").default_value("kafka://127.0.0.1:9092").help("The server");
    let pid = Arg::new("server-pid").long("server-pid").value_name("PID").value_delimiter(',');
    let pid = pid.value_parser(value_parser!(u32)).action(ArgAction::Append);
    Command::new("kafka")
        .about("Write and read record batches over Kafka's protocol and check every record")
        .arg(url)
        .arg(choice("mode", &["produce", "fetch", "both"]).default_value("both").help("What is measured"))
        .arg(number("producers", "Writing connections [default: 1]", small()))
        .arg(number("consumers", "Reading connections [default: 1]", small()))
        .arg(number("topics", "Topics [default: 1]", small()))
        .arg(number("partitions", "Partitions of each [default: 1]", small()))
        .arg(number(
            "replicas",
            "Replicas of each partition, 0 for the server's default [default: 1]",
            small(),
        ))
        .arg(number("retention-bytes", "Bytes each partition keeps, so that a long run fits the disk", any()))
        .arg(number("size", "Bytes of a value; from 16 on every byte is checked [default: 1024]", any()))
        .arg(number("batch", "Bytes of a batch, about [default: 65536]", any()))
        .arg(choice("acks", &["0", "1", "all"]).default_value("all").help("Who must have a batch"))
        .arg(number("pipeline", "Requests of a producer without an answer [default: 5]", small()))
        .arg(number("fetch-bytes", "Most bytes of one partition in an answer [default: 1048576]", any()))
        .arg(number("fetch-wait", "Seconds an answer may be held back [default: 0.5]", time()))
        .arg(number("rate", "Records per second in all; latency counts from when each was due", any()))
        .arg(number("duration", "Seconds to write after the warm-up [default: 10]", time()))
        .arg(number("messages", "Write this many in all instead", any()).conflicts_with("duration"))
        .arg(number("warmup", "Seconds before the figures begin [default: 1, 0 with --messages]", time()))
        .arg(number(
            "patience",
            "Seconds without progress until what is missing is lost [default: 10]",
            time(),
        ))
        .arg(pid.help("The server's processes; without it whoever listens on the port"))
        .arg(
            Arg::new("metrics-url").long("metrics-url").value_name("URL").help(
                "Read waystation_* counters here before and after: bytes written, syncs, entries per sync",
            ),
        )
        .arg(
            choice("output", &["table", "json"]).short('o').default_value("table").help("Form of the report"),
        )
        .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).help("No progress on stderr"))
}

/// The plan that the options describe.
pub(crate) fn plan(matches: &ArgMatches) -> Result<Plan> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let number = |name: &str, otherwise: u64| matches.get_one::<u64>(name).copied().unwrap_or(otherwise);
    let (host, port) = address(text("url"))?;
    let default = Plan::new(host, port);
    let plan = Plan {
        mode: match text("mode") {
            "produce" => Mode::Produce,
            "fetch" => Mode::Fetch,
            _ => Mode::Both,
        },
        producers: number("producers", 1) as u16,
        consumers: number("consumers", 1) as u16,
        topics: number("topics", 1) as u32,
        partitions: number("partitions", 1) as u32,
        replicas: match number("replicas", 1) {
            0 => -1,
            replicas => i16::try_from(replicas).unwrap_or(i16::MAX),
        },
        retention: matches.get_one("retention-bytes").copied(),
        size: usize::try_from(number("size", 1024)).unwrap_or(usize::MAX),
        batch: usize::try_from(number("batch", 64 << 10)).unwrap_or(usize::MAX),
        acks: text("acks").parse().unwrap_or(-1),
        pipeline: number("pipeline", 5) as usize,
        fetch_bytes: i32::try_from(number("fetch-bytes", 1 << 20)).unwrap_or(i32::MAX),
        fetch_wait: matches.get_one("fetch-wait").copied().unwrap_or(default.fetch_wait),
        course: course(matches),
        server_pids: pids(matches),
        metrics_url: matches.get_one::<String>("metrics-url").cloned(),
        ..default
    };
    plan.check().map(|()| plan)
}

/// Host and port of `kafka://host[:port]`, or the same without the scheme.
fn address(url: &str) -> Result<(String, u16)> {
    let bad = || Error::new(format!("--url {url}: it is kafka://host[:port]"));
    let rest = url.strip_prefix("kafka://").unwrap_or(url).trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
        None => rest.rsplit_once(':').unwrap_or((rest, "")),
    };
    let port = if port.is_empty() { Some(9092) } else { port.parse().ok() };
    match port.filter(|_| !host.is_empty() && !host.contains(['/', '@'])) {
        Some(port) => Ok((host.to_owned(), port)),
        None => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::course::Until;

    fn parsed(line: &str) -> Result<Plan> {
        plan(&command().try_get_matches_from(line.split(' ')).map_err(|e| Error::new(e.to_string()))?)
    }

    #[test]
    fn every_option_reaches_the_plan() {
        let plan = parsed("kafka").unwrap();
        assert_eq!(
            (plan.host.as_str(), plan.port, plan.mode, plan.acks),
            ("127.0.0.1", 9092, Mode::Both, -1)
        );
        assert_eq!((plan.batch, plan.pipeline, plan.course.warmup), (65_536, 5, Duration::from_secs(1)));
        let plan = parsed(
            "kafka --url kafka://h:1 --mode fetch --producers 2 --consumers 3 --topics 4 --partitions 5 --replicas 0 \
             --size 17 --batch 99 --acks 1 --pipeline 7 --fetch-bytes 8 --fetch-wait 0.1 --rate 100 --messages 50 \
             --patience 3 --retention-bytes 9 --server-pid 4,5 -o json --quiet",
        )
        .unwrap();
        assert_eq!((plan.host.as_str(), plan.port, plan.mode, plan.acks), ("h", 1, Mode::Fetch, 1));
        assert_eq!((plan.producers, plan.consumers, plan.topics, plan.partitions), (2, 3, 4, 5));
        assert_eq!((plan.replicas, plan.size, plan.batch, plan.pipeline), (-1, 17, 99, 7));
        assert_eq!((plan.fetch_bytes, plan.fetch_wait), (8, Duration::from_millis(100)));
        assert_eq!((plan.course.rate, plan.course.until), (Some(100), Until::Published(50)));
        assert_eq!((plan.server_pids.as_slice(), plan.course.warmup), (&[4, 5][..], Duration::ZERO));
        assert!(!plan.course.progress && plan.retention == Some(9));
        assert_eq!(parsed("kafka --acks 0").unwrap().acks, 0);
    }

    #[test]
    fn addresses_are_told_apart_from_nonsense() {
        assert_eq!(address("kafka://[::1]:7").unwrap(), ("::1".to_owned(), 7));
        assert_eq!(address("h").unwrap(), ("h".to_owned(), 9092));
        for text in ["kafka://", "kafka://h:x", "http://h:1", "kafka://u@h"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
