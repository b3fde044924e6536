//! Declaring, finding and deleting exchanges.
//!
//! In: declarations. Out: answers, refusals. Never: the default exchange, which is there and cannot be touched.

use std::collections::BTreeSet;

use model::{Entity, ExchangeDeclaration, Refusal, Value};

use crate::arguments::check_same_exchange;
use crate::bindings::{Exchange, Table, not_found, refuse_default};
use crate::fan::Fan;
use crate::topology::{Answer, check_name};
use crate::{ExchangeId, ExchangeKind, ExchangeRecord, Owner, Topology};

impl Topology {
    pub(crate) fn declare_exchange(
        &mut self,
        vhost: &str,
        declaration: ExchangeDeclaration,
        owner: Option<Owner>,
    ) -> Result<Answer, Refusal> {
        if declaration.passive {
            self.passive_exchange(vhost, &declaration.name)?;
            return Ok(Answer::Done);
        }
        let kind = ExchangeKind::from_name(&declaration.kind)
            .ok_or_else(|| Refusal::Unsupported(format!("unknown exchange type '{}'", declaration.kind)))?;
        refuse_default(&declaration.name)?;
        match self.exchange(vhost, &declaration.name) {
            Some(exchange) => check_same(exchange, kind, &declaration)?,
            None => self.create_exchange(vhost, kind, declaration, owner)?,
        }
        Ok(Answer::Done)
    }

    fn create_exchange(
        &mut self,
        vhost: &str,
        kind: ExchangeKind,
        declaration: ExchangeDeclaration,
        owner: Option<Owner>,
    ) -> Result<(), Refusal> {
        let ExchangeDeclaration { name, durable, auto_delete, internal, arguments, .. } = declaration;
        check_name(Entity::Exchange, &name)?;
        if let Some(value) = arguments.get("alternate-exchange").filter(|value| value.as_str().is_none()) {
            let text =
                format!("invalid argument 'alternate-exchange': {value} is not the name of an exchange");
            return Err(Refusal::Invalid(text));
        }
        if self.exchanges.len() >= self.bounds.exchanges {
            let text =
                format!("there are already {} exchanges, as many as there may be", self.bounds.exchanges);
            return Err(Refusal::LimitReached(text));
        }
        let id = self.draw_exchange_id();
        let home = owner.filter(|_| !durable).map(|owner| owner.origin);
        let vhost = vhost.to_owned();
        self.add_exchange(ExchangeRecord {
            id,
            vhost,
            name,
            kind,
            durable,
            auto_delete,
            internal,
            arguments,
            home,
        });
        self.version += 1;
        Ok(())
    }

    pub(crate) fn draw_exchange_id(&mut self) -> ExchangeId {
        self.next_exchange += 1;
        ExchangeId(self.next_exchange - 1)
    }

    /// Indexes an exchange of an existing virtual host.
    pub(crate) fn add_exchange(&mut self, record: ExchangeRecord) {
        let vhost = self.vhosts.get_mut(&record.vhost).expect("the virtual host of an exchange exists");
        vhost.exchanges.insert(record.name.clone(), record.id);
        if let Some(home) = record.home {
            self.homes.entry(home.place()).or_default().exchanges.insert(record.id);
        }
        let table = Table::new(record.kind);
        let exchange = Exchange { table, outgoing: BTreeSet::new(), onward: Fan::default(), record };
        self.exchanges.insert(exchange.record.id, exchange);
    }

    /// Takes an exchange that is gone out of the indexes by name and home.
    pub(crate) fn forget_exchange(&mut self, record: &ExchangeRecord) {
        let vhost = self.vhosts.get_mut(&record.vhost).expect("the virtual host of an exchange exists");
        vhost.exchanges.remove(&record.name);
        if let Some(home) = record.home {
            let place = self.homes.get_mut(&home.place()).expect("an exchange is known at its home");
            place.exchanges.remove(&record.id);
            self.drop_empty_home(home.place());
        }
    }

    pub(crate) fn drop_empty_home(&mut self, place: u32) {
        if self.homes.get(&place).is_some_and(|home| home.queues.is_empty() && home.exchanges.is_empty()) {
            self.homes.remove(&place);
        }
    }

    pub(crate) fn delete_exchange(
        &mut self,
        vhost: &str,
        name: &str,
        if_unused: bool,
    ) -> Result<Answer, Refusal> {
        refuse_default(name)?;
        if name.starts_with("amq.") {
            let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
            return Err(Refusal::AccessRefused(text));
        }
        let Ok(id) = self.exchange_id(vhost, name) else { return Ok(Answer::Done) };
        self.check_no_super_stream(vhost, name)?;
        if if_unused && !self.exchanges[&id].outgoing.is_empty() {
            return Err(Refusal::InUse(Entity::Exchange, name.into()));
        }
        self.remove_exchange(id);
        Ok(Answer::Done)
    }

    pub(crate) fn exchange_id(&self, vhost: &str, name: &str) -> Result<ExchangeId, Refusal> {
        let vhost = self.vhosts.get(vhost).ok_or_else(|| not_found(Entity::Vhost, vhost))?;
        vhost.exchanges.get(name).copied().ok_or_else(|| not_found(Entity::Exchange, name))
    }

    /// The exchange of this name.
    pub fn exchange(&self, vhost: &str, name: &str) -> Option<&ExchangeRecord> {
        let id = self.vhosts.get(vhost)?.exchanges.get(name)?;
        Some(&self.exchanges[id].record)
    }

    /// What a passive declaration of an exchange answers.
    pub fn passive_exchange(&self, vhost: &str, name: &str) -> Result<&ExchangeRecord, Refusal> {
        refuse_default(name)?;
        let id = self.exchange_id(vhost, name)?;
        Ok(&self.exchanges[&id].record)
    }

    /// All exchanges, oldest first.
    pub fn exchanges(&self) -> impl Iterator<Item = &ExchangeRecord> {
        self.exchanges.values().map(|exchange| &exchange.record)
    }
}

fn check_same(had: &ExchangeRecord, kind: ExchangeKind, given: &ExchangeDeclaration) -> Result<(), Refusal> {
    if had.kind != kind {
        return Err(differs(&had.name, "type", kind.name(), had.kind.name()));
    }
    for (argument, given, had_it) in [
        ("durable", given.durable, had.durable),
        ("auto_delete", given.auto_delete, had.auto_delete),
        ("internal", given.internal, had.internal),
    ] {
        if given != had_it {
            return Err(differs(&had.name, argument, Value::Bool(given), Value::Bool(had_it)));
        }
    }
    check_same_exchange(&had.name, &had.arguments, &given.arguments)
}

fn differs(name: &str, argument: &'static str, given: impl ToString, had: impl ToString) -> Refusal {
    Refusal::Inequivalent(Entity::Exchange, name.into(), argument, given.to_string(), had.to_string())
}
