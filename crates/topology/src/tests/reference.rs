//! Random sequences of changes against a router that only keeps lists and looks through all of them every time.

use model::{Arguments, Change as Wanted, ExchangeDeclaration, Limits, QueueDeclaration, Value};
use proptest::prelude::*;

use super::fixture::*;
use crate::trie::{tests::matches_naively, words};
use crate::{Answer, Command, Destination, Topology};

const KEYS: [&str; 5] = ["", "a", "a.b", "a.b.a", "b"];
const PATTERNS: [&str; 8] = ["", "a", "#", "a.*", "#.a", "*.#", "#.#.b", "b"];

#[derive(Clone, Debug)]
enum Step {
    Queue(u8),
    Exclusive(u8, u64),
    DeleteQueue(u8),
    Exchange(u8),
    DeleteExchange(u8, bool),
    Bind(Link),
    Unbind(Link),
    EndConnection(u64),
    Boot(u32),
}

/// A binding in the making: to a queue or to an exchange.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    source: u8,
    to_queue: bool,
    destination: u8,
    pattern: usize,
    headers: u8,
}

impl Link {
    fn wanted(&self, bind: bool) -> Wanted {
        let (source, key) = (exchange_name(self.source), PATTERNS[self.pattern].to_owned());
        let arguments = binding_headers(self.headers);
        match (self.to_queue, bind) {
            (true, true) => {
                Wanted::BindQueue { exchange: source, queue: queue_name(self.destination), key, arguments }
            }
            (true, false) => {
                Wanted::UnbindQueue { exchange: source, queue: queue_name(self.destination), key, arguments }
            }
            (false, true) => {
                Wanted::BindExchange { source, destination: exchange_name(self.destination), key, arguments }
            }
            (false, false) => Wanted::UnbindExchange {
                source,
                destination: exchange_name(self.destination),
                key,
                arguments,
            },
        }
    }
}

fn queue_name(number: u8) -> String {
    format!("q{number}")
}

fn exchange_name(number: u8) -> String {
    format!("e{number}")
}

fn kind_of(exchange: u8) -> &'static str {
    ["direct", "fanout", "topic", "headers", "topic", "fanout"][usize::from(exchange)]
}

fn is_auto_delete(exchange: u8) -> bool {
    exchange >= 4
}

fn alternate_of(exchange: u8) -> Option<u8> {
    (exchange.is_multiple_of(2)).then_some((exchange + 1) % 6)
}

fn exchange_of(number: u8) -> ExchangeDeclaration {
    let mut declaration = an_exchange(&exchange_name(number), kind_of(number));
    declaration.auto_delete = is_auto_delete(number);
    if let Some(alternate) = alternate_of(number) {
        declaration.arguments = table(&[("alternate-exchange", Value::text(&exchange_name(alternate)))]);
    }
    declaration
}

/// 0: nothing; 1 and 2: all of one or two; 3: any of two.
fn binding_headers(number: u8) -> Arguments {
    let (g, h) = (("g", Value::Int(1)), ("h", Value::Int(1)));
    match number {
        0 => table(&[]),
        1 => table(&[h]),
        2 => table(&[h, g]),
        _ => table(&[("x-match", Value::text("any")), g, h]),
    }
}

/// The lists.
#[derive(Clone, Debug, Default)]
struct Lists {
    queues: Vec<(u8, Option<u64>)>,
    exchanges: Vec<u8>,
    links: Vec<Link>,
}

impl Lists {
    fn has_queue(&self, number: u8) -> bool {
        self.queues.iter().any(|(queue, _)| *queue == number)
    }

    fn is_source(&self, exchange: u8) -> bool {
        self.links.iter().any(|link| link.source == exchange)
    }

    fn is_locked(&self, number: u8) -> bool {
        self.queues.iter().any(|(queue, holder)| *queue == number && holder.is_some_and(|holder| holder != 1))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Queue(queue) if !self.has_queue(*queue) => self.queues.push((*queue, None)),
            Step::Exclusive(queue, conn) if !self.has_queue(*queue) => {
                self.queues.push((*queue, Some(*conn)))
            }
            Step::DeleteQueue(queue) if !self.is_locked(*queue) => self.remove_queues(|(at, _)| at == *queue),
            Step::Exchange(exchange) if !self.exchanges.contains(exchange) => self.exchanges.push(*exchange),
            Step::DeleteExchange(exchange, if_unused) if !(*if_unused && self.is_source(*exchange)) => {
                self.remove_exchange(*exchange);
            }
            Step::Bind(link) => self.bind(link),
            Step::Unbind(link) if !(link.to_queue && self.is_locked(link.destination)) => {
                self.remove_links(|at| at == link);
            }
            Step::EndConnection(conn) => self.remove_queues(|(_, holder)| holder == Some(*conn)),
            Step::Boot(boot) if *boot > 1 => self.remove_queues(|(_, holder)| holder.is_some()),
            _ => (),
        }
    }

    fn bind(&mut self, link: &Link) {
        let exists = if link.to_queue {
            self.has_queue(link.destination) && !self.is_locked(link.destination)
        } else {
            self.exchanges.contains(&link.destination)
        };
        if exists && self.exchanges.contains(&link.source) && !self.links.contains(link) {
            self.links.push(link.clone());
        }
    }

    fn remove_queues(&mut self, goes: impl Fn((u8, Option<u64>)) -> bool) {
        self.queues.retain(|queue| !goes(*queue));
        let left: Vec<u8> = self.queues.iter().map(|(queue, _)| *queue).collect();
        self.remove_links(|link| link.to_queue && !left.contains(&link.destination));
    }

    fn remove_exchange(&mut self, exchange: u8) {
        self.exchanges.retain(|at| *at != exchange);
        self.links.retain(|link| link.source != exchange);
        self.remove_links(|link| !link.to_queue && link.destination == exchange);
    }

    fn remove_links(&mut self, goes: impl Fn(&Link) -> bool) {
        let sources: Vec<u8> = self.links.iter().filter(|link| goes(link)).map(|link| link.source).collect();
        self.links.retain(|link| !goes(link));
        for source in sources {
            if !self.is_source(source) && is_auto_delete(source) && self.exchanges.contains(&source) {
                self.remove_exchange(source);
            }
        }
    }

    fn route(&self, first: u8, key: &str, headers: u8) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![first];
        let mut seen = Vec::new();
        while let Some(exchange) = waiting.pop() {
            if seen.contains(&exchange) || !self.exchanges.contains(&exchange) {
                continue;
            }
            seen.push(exchange);
            let links = self.links.iter().filter(|link| link.source == exchange);
            let links: Vec<_> = links.filter(|link| matches(exchange, link, key, headers)).collect();
            if links.is_empty() {
                waiting.extend(alternate_of(exchange));
            }
            for link in links {
                if link.to_queue {
                    found.push(queue_name(link.destination));
                } else {
                    waiting.push(link.destination);
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

fn matches(exchange: u8, link: &Link, key: &str, headers: u8) -> bool {
    let pattern = PATTERNS[link.pattern];
    match kind_of(exchange) {
        "direct" => pattern == key,
        "fanout" => true,
        "topic" => matches_naively(&words(pattern).collect::<Vec<_>>(), &words(key).collect::<Vec<_>>()),
        _ => match link.headers {
            0 => true,
            1 => headers & 1 != 0,
            2 => headers == 3,
            _ => headers != 0,
        },
    }
}

/// Bit 0: `h` is there, bit 1: `g` is.
fn message_headers(bits: u8) -> Arguments {
    let all = [("h", 1u8), ("g", 2)];
    let there = all.iter().filter(|(_, bit)| bits & bit != 0);
    table(&there.map(|(name, _)| (*name, Value::Int(1))).collect::<Vec<_>>())
}

fn command(step: &Step) -> Command {
    let by = |conn, wanted| command_by(Some(owner(conn)), wanted);
    match step {
        Step::Queue(number) => by(1, queue(&queue_name(*number))),
        Step::Exclusive(number, conn) => {
            let declaration = QueueDeclaration { exclusive: true, ..a_queue(&queue_name(*number)) };
            by(*conn, Wanted::DeclareQueue(declaration))
        }
        Step::DeleteQueue(number) => by(1, delete(&queue_name(*number))),
        Step::Exchange(number) => by(1, Wanted::DeclareExchange(exchange_of(*number))),
        Step::DeleteExchange(number, if_unused) => {
            by(1, Wanted::DeleteExchange { name: exchange_name(*number), if_unused: *if_unused })
        }
        Step::Bind(link) => by(1, link.wanted(true)),
        Step::Unbind(link) => by(1, link.wanted(false)),
        Step::EndConnection(conn) => Command::EndConnection(owner(*conn)),
        Step::Boot(boot) => Command::Boot(owner_in(*boot, 0).origin),
    }
}

fn link() -> impl Strategy<Value = Link> {
    (0..6u8, any::<bool>(), 0..6u8, 0..PATTERNS.len(), 0..4u8).prop_map(
        |(source, to_queue, destination, pattern, headers)| Link {
            source,
            to_queue,
            destination,
            pattern,
            headers,
        },
    )
}

/// Steps over few enough bindings that the same one comes and goes more than once.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(link(), 4..14)
        .prop_flat_map(|pool| proptest::collection::vec(step(pool), 1..60))
}

fn step(pool: Vec<Link>) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6u8).prop_map(Step::Queue),
        2 => (0..6u8, 1..3u64).prop_map(|(queue, conn)| Step::Exclusive(queue, conn)),
        1 => (0..6u8).prop_map(Step::DeleteQueue),
        4 => (0..6u8).prop_map(Step::Exchange),
        1 => (0..6u8, any::<bool>()).prop_map(|(exchange, gently)| Step::DeleteExchange(exchange, gently)),
        12 => proptest::sample::select(pool.clone()).prop_map(Step::Bind),
        3 => proptest::sample::select(pool).prop_map(Step::Unbind),
        1 => (1..3u64).prop_map(Step::EndConnection),
        1 => (1..3u32).prop_map(Step::Boot),
    ]
}

fn check_same(topology: &Topology, lists: &Lists) {
    assert_eq!(topology.bindings().count(), lists.links.len());
    assert_eq!(topology.queues().count(), lists.queues.len());
    assert_eq!(topology.exchanges().count(), 7 + lists.exchanges.len());
    for exchange in lists.exchanges.iter().copied() {
        for (key, headers) in KEYS.into_iter().flat_map(|key| (0..4).map(move |headers| (key, headers))) {
            let mut routed = routed_with(topology, &exchange_name(exchange), key, &message_headers(headers));
            routed.sort();
            assert_eq!(
                routed,
                lists.route(exchange, key, headers),
                "e{exchange} {key:?} {headers} {lists:?}"
            );
        }
        let reads = reads_headers(topology, &exchange_name(exchange));
        assert!(!reads || topology.needs_headers("/", &exchange_name(exchange)));
    }
    let sources: Vec<_> = topology.bindings().map(|binding| (binding.source, binding.destination)).collect();
    let queues = sources.iter().filter(|(_, to)| matches!(to, Destination::Queue(_))).count();
    assert_eq!(queues, lists.links.iter().filter(|link| link.to_queue).count());
}

fn reads_headers(topology: &Topology, exchange: &str) -> bool {
    KEYS.into_iter().any(|key| {
        let mut read = false;
        let mut headers = || {
            read = true;
            None
        };
        topology.route("/", exchange, key, &mut headers, &mut Vec::new()).expect("it exists");
        read
    })
}

proptest! {
    #[test]
    fn any_sequence_routes_like_the_lists(steps in steps()) {
        let (mut topology, mut twin, mut lists) = (fresh(), fresh(), Lists::default());
        for step in &steps {
            let command = command(step);
            let version = (topology.version(), topology.hash());
            let answer = apply(&mut topology, command.clone());
            prop_assert_eq!(&answer, &twin.apply_command(command));
            if let Answer::Refused(_) = answer {
                prop_assert_eq!((topology.version(), topology.hash()), version, "a refusal changes nothing");
            }
            let unchanged = topology.version() == version.0;
            prop_assert_eq!(unchanged, topology.hash() == version.1, "the version says what changed");
            lists.step(step);
        }
        check_same(&topology, &lists);
        prop_assert_eq!(topology.hash(), twin.hash());
        let mut bytes = Vec::new();
        topology.encode(&mut bytes);
        let mut copy = Topology::decode(&bytes, &Limits::default()).expect("it was just written");
        check_same(&copy, &lists);
        for step in &steps {
            prop_assert_eq!(copy.apply_command(command(step)), topology.apply_command(command(step)));
            prop_assert_eq!(copy.hash(), topology.hash(), "a copy goes on like the original");
        }
    }
}
