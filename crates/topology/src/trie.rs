//! The patterns of one topic exchange as a trie over their words.
//!
//! In: patterns (`*` is one word, `#` any number of words) with destinations, and keys. Out: the destinations of every
//! pattern that matches. A key is matched by advancing a set of nodes word by word; a node is in the set once however
//! many ways lead there, so the cost is bounded by words × nodes even for `#.#.#.#`, which is kept as `#`. Never:
//! recursion, backtracking.

use base::{Map, map};

use crate::Destination;
use crate::fan::{Fan, Leads};

const ROOT: u32 = 0;

/// One node: the patterns that begin with the words on the way here.
#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    step: Step,
    words: Map<Box<str>, u32>,
    star: Option<u32>,
    hash: Option<u32>,
    fan: Fan,
}

/// What one word of a pattern matches.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Word(Box<str>),
    Star,
    Hash,
}

impl Step {
    fn of(word: &str) -> Step {
        match word {
            "*" => Step::Star,
            "#" => Step::Hash,
            word => Step::Word(word.into()),
        }
    }
}

/// A trie of patterns.
#[derive(Clone, Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
}

impl Default for Trie {
    fn default() -> Self {
        Trie { nodes: vec![Node::new(ROOT, Step::Hash)], free: Vec::new() }
    }
}

impl Node {
    fn new(parent: u32, step: Step) -> Node {
        Node { parent, step, words: map(0), star: None, hash: None, fan: Fan::default() }
    }

    fn is_bare(&self) -> bool {
        self.words.is_empty() && self.star.is_none() && self.hash.is_none() && self.fan.is_empty()
    }

    fn child(&self, word: &str) -> Option<u32> {
        match word {
            "*" => self.star,
            "#" => self.hash,
            word => self.words.get(word).copied(),
        }
    }
}

/// The words of a key or pattern; an empty one has none.
pub(crate) fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// The words of a pattern without the `#` that follow a `#`, which match nothing more.
fn steps(pattern: &str) -> impl Iterator<Item = &str> {
    let mut before = "";
    words(pattern).filter(move |word| {
        let repeats = *word == "#" && before == "#";
        before = word;
        !repeats
    })
}

impl Trie {
    /// Adds a binding.
    pub(crate) fn add(&mut self, pattern: &str, to: Leads) {
        let mut at = ROOT;
        for word in steps(pattern) {
            at = match self.nodes[at as usize].child(word) {
                Some(child) => child,
                None => self.grow(at, Step::of(word)),
            };
        }
        self.nodes[at as usize].fan.add(to);
    }

    /// Removes a binding that was added.
    pub(crate) fn remove(&mut self, pattern: &str, destination: Destination) {
        let mut at = ROOT;
        for word in steps(pattern) {
            at = self.nodes[at as usize].child(word).expect("a bound pattern is in the trie");
        }
        self.nodes[at as usize].fan.remove(destination);
        while at != ROOT && self.nodes[at as usize].is_bare() {
            at = self.prune(at);
        }
    }

    fn grow(&mut self, parent: u32, step: Step) -> u32 {
        let node = Node::new(parent, step.clone());
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let parent = &mut self.nodes[parent as usize];
        match step {
            Step::Word(word) => {
                parent.words.insert(word, at);
            }
            Step::Star => parent.star = Some(at),
            Step::Hash => parent.hash = Some(at),
        }
        at
    }

    /// Cuts off a bare node and returns its parent.
    fn prune(&mut self, at: u32) -> u32 {
        let Node { parent, step, .. } =
            std::mem::replace(&mut self.nodes[at as usize], Node::new(ROOT, Step::Hash));
        let above = &mut self.nodes[parent as usize];
        match step {
            Step::Word(word) => {
                above.words.remove(&word);
            }
            Step::Star => above.star = None,
            Step::Hash => above.hash = None,
        }
        self.free.push(at);
        parent
    }

    /// Shows the fan of every pattern that matches `key`, each once. Returns the number of nodes looked at.
    pub(crate) fn matches(&self, key: &str, mut show: impl FnMut(&Fan)) -> usize {
        let mut here = Vec::with_capacity(8);
        let mut next = Vec::with_capacity(8);
        self.enter(ROOT, &mut here);
        let mut visited = here.len();
        for word in words(key) {
            for at in here.drain(..) {
                self.advance(at, word, &mut next);
            }
            next.sort_unstable();
            next.dedup();
            visited += next.len();
            std::mem::swap(&mut here, &mut next);
        }
        here.into_iter()
            .map(|at| &self.nodes[at as usize].fan)
            .filter(|fan| !fan.is_empty())
            .for_each(&mut show);
        visited
    }

    /// The nodes that `word` leads to from the node `at`.
    fn advance(&self, at: u32, word: &str, next: &mut Vec<u32>) {
        let node = &self.nodes[at as usize];
        if at != ROOT && node.step == Step::Hash {
            self.enter(at, next);
        }
        if let Some(child) = node.words.get(word) {
            self.enter(*child, next);
        }
        if let Some(child) = node.star {
            self.enter(child, next);
        }
    }

    /// The node and the one behind it that no word is needed for; behind that one there is none, see [`steps`].
    fn enter(&self, at: u32, set: &mut Vec<u32>) {
        set.push(at);
        set.extend(self.nodes[at as usize].hash);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{QueueKind, Target};
    use model::{GroupId, QueueId};
    use proptest::prelude::*;

    /// What the words mean, written down as plainly as possible.
    pub(crate) fn matches_naively(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => (0..=key.len()).any(|skip| matches_naively(rest, &key[skip..])),
            (Some((&"*", pattern)), Some((_, key))) => matches_naively(pattern, key),
            (Some((word, pattern)), Some((found, key))) => word == found && matches_naively(pattern, key),
            _ => false,
        }
    }

    fn queue(number: usize) -> Destination {
        Destination::Queue(QueueId(number as u64))
    }

    fn leads(number: usize) -> Leads {
        let queue = QueueId(number as u64);
        Leads::Queue(Target { queue, group: GroupId(1), kind: QueueKind::Queue })
    }

    fn matched(trie: &Trie, key: &str) -> Vec<u64> {
        let mut found = Vec::new();
        trie.matches(key, |fan| found.extend(fan.targets().map(|target| target.queue.0)));
        found.sort_unstable();
        found
    }

    fn topic() -> impl Strategy<Value = String> {
        let word = prop_oneof![Just("a"), Just("b"), Just(""), Just("*"), Just("#")];
        proptest::collection::vec(word, 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn a_trie_agrees_with_its_meaning(
            patterns in proptest::collection::vec(topic(), 1..12),
            removed in any::<u16>(),
            keys in proptest::collection::vec(topic(), 1..8),
        ) {
            let mut trie = Trie::default();
            for (number, pattern) in patterns.iter().enumerate() {
                trie.add(pattern, leads(number));
            }
            let stays = |number: &usize| removed >> number & 1 == 0;
            for (number, pattern) in patterns.iter().enumerate().filter(|(number, _)| !stays(number)) {
                trie.remove(pattern, queue(number));
            }
            for key in &keys {
                let key_words: Vec<_> = words(key).collect();
                let expected: Vec<_> = (0..patterns.len())
                    .filter(stays)
                    .filter(|at| matches_naively(&words(&patterns[*at]).collect::<Vec<_>>(), &key_words))
                    .map(|at| at as u64)
                    .collect();
                prop_assert_eq!(matched(&trie, key), expected, "{:?} with {:?}", key, patterns);
            }
            for (number, pattern) in patterns.iter().enumerate().filter(|(number, _)| stays(number)) {
                trie.remove(pattern, queue(number));
            }
            prop_assert_eq!(trie.len(), 1, "an empty trie keeps no nodes");
        }
    }

    #[test]
    fn an_empty_key_has_no_words() {
        let mut trie = Trie::default();
        for (number, pattern) in ["", "#", "*", "#.*"].into_iter().enumerate() {
            trie.add(pattern, leads(number));
        }
        assert_eq!(matched(&trie, ""), [0, 1]);
        assert_eq!(matched(&trie, "."), [1, 3], "two empty words");
    }

    #[test]
    fn many_hashes_cost_words_times_nodes() {
        let mut trie = Trie::default();
        let pattern = ["#.*"; 60].join(".") + ".end";
        trie.add(&pattern, leads(0));
        trie.add(&["#"; 120].join("."), leads(1));
        let key = ["w"; 120].join(".");
        let visited = trie.matches(&key, |_| ());
        assert!(visited <= 121 * trie.len(), "{visited} nodes for {}", trie.len());
        assert_eq!(matched(&trie, &key), [1]);
    }

    #[test]
    fn other_patterns_cost_nothing() {
        let mut trie = Trie::default();
        for number in 0..20_000 {
            trie.add(&format!("device.{number}.state"), leads(number));
        }
        assert!(trie.matches("device.77.state", |_| ()) <= 4);
        assert_eq!(matched(&trie, "device.77.state"), [77]);
    }
}
