//! Where a message goes.
//!
//! In: virtual host, exchange, routing key, headers where they count. Out: every queue once, in the order of their ids.
//! Exchanges that lead to exchanges are followed, each once, so that cycles end; an exchange that leads nowhere with this
//! message hands it to its alternate exchange. Direct, fanout and default routing look up and append, nothing else.

use base::{Set, set};
use model::{Arguments, Entity, Refusal};

use crate::bindings::{Exchange, Table, not_found};
use crate::fan::{Fan, Leads};
use crate::topology::Vhost;
use crate::{ExchangeId, ExchangeKind, Target, Topology};

/// One message on its way through the exchanges.
struct Walk<'a> {
    keys: &'a [&'a str],
    read_headers: &'a mut dyn FnMut() -> Option<Arguments>,
    headers: Option<Arguments>,
    out: &'a mut Vec<Target>,
    /// Sources of targets so far: two of them may have given the same one.
    fans: usize,
    onward: Vec<ExchangeId>,
    seen: Set<ExchangeId>,
}

impl Walk<'_> {
    fn take(&mut self, fan: &Fan) {
        self.fans += 1;
        self.out.extend(fan.targets());
        self.onward.extend(fan.exchanges());
    }

    /// Adds the destinations of one exchange; `false` where it has none for this message.
    fn pass(&mut self, exchange: &Exchange) -> bool {
        let keys = self.keys;
        let before = (self.out.len(), self.onward.len());
        match &exchange.table {
            Table::Direct(fans) => {
                keys.iter().filter_map(|key| fans.get(*key)).for_each(|fan| self.take(fan));
            }
            Table::Fanout(fan) => self.take(fan),
            Table::Topic(trie) => {
                for key in keys {
                    trie.matches(key, |fan| self.take(fan));
                }
            }
            Table::Headers(matchers) => {
                if self.headers.is_none() {
                    self.headers = Some((self.read_headers)().unwrap_or_default());
                }
                let headers = self.headers.as_ref().expect("they were just read");
                for matcher in matchers.values().filter(|matcher| matcher.matches(headers)) {
                    self.fans += 1;
                    match matcher.to {
                        Leads::Queue(target) => self.out.push(target),
                        Leads::Exchange(exchange) => self.onward.push(exchange),
                    }
                }
            }
        }
        before != (self.out.len(), self.onward.len())
    }
}

impl Topology {
    /// Fills `out` with where a message published to `exchange` goes. `headers` is called at most once, and only where a
    /// headers exchange is met; a message whose headers cannot be read has none.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        key: &str,
        headers: &mut dyn FnMut() -> Option<Arguments>,
        out: &mut Vec<Target>,
    ) -> Result<(), Refusal> {
        self.route_by_any(vhost, exchange, &[key], headers, out)
    }

    /// Like `route`, for a message with several routing keys: it goes where any of them leads.
    pub fn route_by_any(
        &self,
        vhost: &str,
        exchange: &str,
        keys: &[&str],
        headers: &mut dyn FnMut() -> Option<Arguments>,
        out: &mut Vec<Target>,
    ) -> Result<(), Refusal> {
        out.clear();
        let host = self.vhosts.get(vhost).ok_or_else(|| not_found(Entity::Vhost, vhost))?;
        if exchange.is_empty() {
            out.extend(keys.iter().filter_map(|key| host.queues.get(*key)));
            out.sort_unstable();
            out.dedup();
            return Ok(());
        }
        let id = *host.exchanges.get(exchange).ok_or_else(|| not_found(Entity::Exchange, exchange))?;
        if self.exchanges[&id].record.internal {
            let text = format!("cannot publish to internal exchange '{exchange}' in vhost '{vhost}'");
            return Err(Refusal::AccessRefused(text));
        }
        let (onward, seen) = (Vec::new(), set(0));
        let mut walk = Walk { keys, read_headers: headers, headers: None, out, fans: 0, onward, seen };
        self.walk(host, id, &mut walk);
        Ok(())
    }

    fn walk(&self, host: &Vhost, first: ExchangeId, walk: &mut Walk<'_>) {
        let mut at = first;
        loop {
            let exchange = &self.exchanges[&at];
            if !walk.pass(exchange)
                && let Some(alternate) = exchange.record.alternate()
            {
                pass_alternate(host, alternate, walk);
            }
            if walk.onward.is_empty() {
                break;
            }
            walk.seen.insert(at);
            match next_unseen(walk) {
                Some(next) => at = next,
                None => break,
            }
        }
        if walk.fans > 1 {
            walk.out.sort_unstable();
            walk.out.dedup();
        }
    }

    /// Whether the headers of a message can decide where it goes from this exchange, so that the key alone cannot.
    pub fn needs_headers(&self, vhost: &str, exchange: &str) -> bool {
        let Some(host) = self.vhosts.get(vhost) else { return false };
        let mut seen = set(0);
        let mut waiting: Vec<ExchangeId> = host.exchanges.get(exchange).copied().into_iter().collect();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let exchange = &self.exchanges[&id];
            if exchange.record.kind == ExchangeKind::Headers {
                return true;
            }
            waiting.extend(exchange.onward.exchanges());
            let alternate = exchange.record.alternate().and_then(|name| host.exchanges.get(name));
            waiting.extend(alternate);
        }
        false
    }
}

/// An alternate exchange that does not exist takes nothing.
fn pass_alternate(host: &Vhost, alternate: &str, walk: &mut Walk<'_>) {
    if alternate.is_empty() {
        walk.fans += walk.keys.len();
        walk.out.extend(walk.keys.iter().filter_map(|key| host.queues.get(*key)));
    } else {
        walk.onward.extend(host.exchanges.get(alternate));
    }
}

fn next_unseen(walk: &mut Walk<'_>) -> Option<ExchangeId> {
    while let Some(next) = walk.onward.pop() {
        if !walk.seen.contains(&next) {
            return Some(next);
        }
    }
    None
}
