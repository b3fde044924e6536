//! Bindings, and the tables that exchanges route by.
//!
//! In: binds and unbinds. Out: the same bindings reachable by identity, by source and by destination, so that neither
//! deleting a queue nor deleting an exchange looks at bindings that are not its own. An exchange that deletes itself
//! with its last binding goes here too. Never: two bindings of the same source, destination, key and arguments.

use std::collections::{BTreeMap, BTreeSet};

use base::{Map, Put, map};
use model::{Arguments, Entity, Refusal};

use crate::fan::{Fan, Leads};
use crate::headers::{self, Matcher, Matchers};
use crate::topology::Answer;
use crate::trie::Trie;
use crate::values::{canonical, put_text};
use crate::{
    BindingId, BindingRecord, Destination, ExchangeId, ExchangeKind, ExchangeRecord, Owner, Topology,
};

/// An exchange and what it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) record: ExchangeRecord,
    pub(crate) table: Table,
    /// The bindings that it is the source of.
    pub(crate) outgoing: BTreeSet<BindingId>,
    /// The exchanges among their destinations.
    pub(crate) onward: Fan,
}

/// How one exchange finds destinations.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    Direct(Map<String, Fan>),
    Fanout(Fan),
    Topic(Trie),
    Headers(Matchers),
}

impl Table {
    pub(crate) fn new(kind: ExchangeKind) -> Table {
        match kind {
            ExchangeKind::Direct => Table::Direct(map(0)),
            ExchangeKind::Fanout => Table::Fanout(Fan::default()),
            ExchangeKind::Topic => Table::Topic(Trie::default()),
            ExchangeKind::Headers => Table::Headers(Matchers::new()),
        }
    }

    fn add(&mut self, binding: &BindingRecord, to: Leads) {
        match self {
            Table::Direct(keys) => keys.entry_ref(binding.key.as_str()).or_default().add(to),
            Table::Fanout(fan) => fan.add(to),
            Table::Topic(trie) => trie.add(&binding.key, to),
            Table::Headers(matchers) => {
                matchers.insert(binding.id, Matcher::new(to, &binding.arguments));
            }
        }
    }

    fn remove(&mut self, binding: &BindingRecord) {
        let to = binding.destination;
        match self {
            Table::Direct(keys) => {
                let fan = keys.get_mut(&binding.key).expect("a bound key is in its table");
                fan.remove(to);
                if fan.is_empty() {
                    keys.remove(&binding.key);
                }
            }
            Table::Fanout(fan) => fan.remove(to),
            Table::Topic(trie) => trie.remove(&binding.key, to),
            Table::Headers(matchers) => {
                matchers.remove(&binding.id);
            }
        }
    }
}

/// All bindings.
#[derive(Clone, Debug)]
pub(crate) struct Bindings {
    pub(crate) next: u64,
    pub(crate) records: BTreeMap<BindingId, BindingRecord>,
    by_identity: Map<Vec<u8>, BindingId>,
    by_destination: BTreeMap<Destination, BTreeSet<BindingId>>,
}

impl Default for Bindings {
    fn default() -> Self {
        Bindings { next: 1, records: BTreeMap::new(), by_identity: map(0), by_destination: BTreeMap::new() }
    }
}

impl Bindings {
    fn insert(&mut self, binding: BindingRecord) {
        self.by_identity.insert(identity(&binding), binding.id);
        self.by_destination.entry(binding.destination).or_default().insert(binding.id);
        self.records.insert(binding.id, binding);
    }

    fn remove(&mut self, id: BindingId) -> BindingRecord {
        let binding = self.records.remove(&id).expect("an indexed binding exists");
        self.by_identity.remove(&identity(&binding));
        let siblings = self.by_destination.get_mut(&binding.destination);
        let siblings = siblings.expect("a binding is indexed by its destination");
        siblings.remove(&id);
        if siblings.is_empty() {
            self.by_destination.remove(&binding.destination);
        }
        binding
    }

    pub(crate) fn find(&self, binding: &BindingRecord) -> Option<BindingId> {
        self.by_identity.get(&identity(binding)).copied()
    }

    fn to(&self, destination: Destination) -> Vec<BindingId> {
        self.by_destination.get(&destination).into_iter().flatten().copied().collect()
    }
}

/// Bytes that two bindings share only if they are the same binding.
fn identity(binding: &BindingRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + binding.key.len());
    out.put_varint(binding.source.0);
    match binding.destination {
        Destination::Queue(queue) => out.put_varint(queue.0 << 1),
        Destination::Exchange(exchange) => out.put_varint(exchange.0 << 1 | 1),
    }
    put_text(&mut out, &binding.key);
    out.extend_from_slice(&canonical(&binding.arguments));
    out
}

impl Topology {
    pub(crate) fn bind_exchange(
        &mut self,
        vhost: &str,
        [source, destination]: [&str; 2],
        key: String,
        arguments: Arguments,
    ) -> Result<Answer, Refusal> {
        refuse_default(source)?;
        refuse_default(destination)?;
        let source = self.exchange_id(vhost, source)?;
        let destination = Destination::Exchange(self.exchange_id(vhost, destination)?);
        self.check_binding(source, &arguments)?;
        self.bind(source, destination, key, arguments)
    }

    pub(crate) fn bind_queue(
        &mut self,
        vhost: &str,
        [exchange, queue]: [&str; 2],
        owner: Option<Owner>,
        key: String,
        arguments: Arguments,
    ) -> Result<Answer, Refusal> {
        refuse_default(exchange)?;
        let source = self.exchange_id(vhost, exchange)?;
        let queue = self.queue(vhost, queue).ok_or_else(|| not_found(Entity::Queue, queue))?;
        self.check_binding(source, &arguments)?;
        queue.check_access(owner)?;
        let destination = Destination::Queue(queue.id);
        self.bind(source, destination, key, arguments)
    }

    fn check_binding(&self, source: ExchangeId, arguments: &Arguments) -> Result<(), Refusal> {
        match self.exchanges[&source].record.kind {
            ExchangeKind::Headers => headers::check(arguments),
            _ => Ok(()),
        }
    }

    fn bind(
        &mut self,
        source: ExchangeId,
        destination: Destination,
        key: String,
        arguments: Arguments,
    ) -> Result<Answer, Refusal> {
        let binding =
            BindingRecord { id: BindingId(self.bindings.next), source, destination, key, arguments };
        if self.bindings.find(&binding).is_some() {
            return Ok(Answer::Done);
        }
        if self.bindings.records.len() >= self.bounds.bindings {
            let text =
                format!("there are already {} bindings, as many as there may be", self.bounds.bindings);
            return Err(Refusal::LimitReached(text));
        }
        self.bindings.next += 1;
        self.add_binding(binding);
        self.version += 1;
        Ok(Answer::Done)
    }

    /// Indexes a binding whose source and destination exist.
    pub(crate) fn add_binding(&mut self, binding: BindingRecord) {
        let to = match binding.destination {
            Destination::Queue(queue) => Leads::Queue(self.queues[&queue].target()),
            Destination::Exchange(exchange) => Leads::Exchange(exchange),
        };
        let exchange = self.exchanges.get_mut(&binding.source).expect("the source of a binding exists");
        exchange.table.add(&binding, to);
        exchange.outgoing.insert(binding.id);
        if binding.destination.entity() == Entity::Exchange {
            exchange.onward.add(to);
        }
        self.bindings.insert(binding);
    }

    /// What is not there needs no unbinding, so nothing that is missing is refused.
    pub(crate) fn unbind_exchange(
        &mut self,
        vhost: &str,
        [source, destination]: [&str; 2],
        key: &str,
        arguments: &Arguments,
    ) -> Result<Answer, Refusal> {
        refuse_default(source)?;
        refuse_default(destination)?;
        let ids = self.exchange_id(vhost, source).and_then(|source| {
            let destination = self.exchange_id(vhost, destination)?;
            Ok((source, Destination::Exchange(destination)))
        });
        if let Ok((source, destination)) = ids {
            self.unbind(source, destination, key, arguments)?;
        }
        Ok(Answer::Done)
    }

    pub(crate) fn unbind_queue(
        &mut self,
        vhost: &str,
        [exchange, queue]: [&str; 2],
        owner: Option<Owner>,
        key: &str,
        arguments: &Arguments,
    ) -> Result<Answer, Refusal> {
        refuse_default(exchange)?;
        let Some(queue) = self.queue(vhost, queue) else { return Ok(Answer::Done) };
        queue.check_access(owner)?;
        let destination = Destination::Queue(queue.id);
        if let Ok(source) = self.exchange_id(vhost, exchange) {
            self.unbind(source, destination, key, arguments)?;
        }
        Ok(Answer::Done)
    }

    fn unbind(
        &mut self,
        source: ExchangeId,
        destination: Destination,
        key: &str,
        arguments: &Arguments,
    ) -> Result<(), Refusal> {
        let (key, arguments) = (key.to_owned(), arguments.clone());
        let wanted = BindingRecord { id: BindingId(0), source, destination, key, arguments };
        if let Some(id) = self.bindings.find(&wanted) {
            self.check_no_partition(&wanted)?;
            let withered = self.drop_binding(id);
            self.version += 1;
            withered.into_iter().for_each(|exchange| self.remove_exchange(exchange));
        }
        Ok(())
    }

    /// Removes every binding that leads to a queue that is gone.
    pub(crate) fn remove_bindings_to_queue(&mut self, destination: Destination) {
        for id in self.bindings.to(destination) {
            let withered = self.drop_binding(id);
            withered.into_iter().for_each(|exchange| self.remove_exchange(exchange));
        }
    }

    /// Removes an exchange, its bindings, and the exchanges that go with their last binding because of it.
    pub(crate) fn remove_exchange(&mut self, id: ExchangeId) {
        let mut leaving = vec![id];
        while let Some(id) = leaving.pop() {
            let Some(exchange) = self.exchanges.remove(&id) else { continue };
            self.forget_exchange(&exchange.record);
            for binding in exchange.outgoing {
                self.bindings.remove(binding);
            }
            for binding in self.bindings.to(Destination::Exchange(id)) {
                leaving.extend(self.drop_binding(binding));
            }
            self.version += 1;
        }
    }

    /// Removes one binding; returns its source if that has to go now.
    fn drop_binding(&mut self, id: BindingId) -> Option<ExchangeId> {
        let binding = self.bindings.remove(id);
        let exchange = self.exchanges.get_mut(&binding.source).expect("the source of a binding exists");
        exchange.table.remove(&binding);
        exchange.outgoing.remove(&id);
        if binding.destination.entity() == Entity::Exchange {
            exchange.onward.remove(binding.destination);
        }
        (exchange.record.auto_delete && exchange.outgoing.is_empty()).then_some(binding.source)
    }

    /// All bindings, oldest first.
    pub fn bindings(&self) -> impl Iterator<Item = &BindingRecord> {
        self.bindings.records.values()
    }
}

/// Refuses to touch the default exchange, which always leads to each queue by its name.
pub(crate) fn refuse_default(exchange: &str) -> Result<(), Refusal> {
    if exchange.is_empty() {
        return Err(Refusal::AccessRefused("operation not permitted on the default exchange".into()));
    }
    Ok(())
}

pub(crate) fn not_found(entity: Entity, name: &str) -> Refusal {
    Refusal::NotFound(entity, name.into())
}
