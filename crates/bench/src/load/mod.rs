//! One run against one server: declare queues, open the connections, drive the load, clean up, report.
//!
//! In: a [`Plan`]. Out: a [`Report`]. Queues have names of their own and are deleted at the end, so that a run can be
//! pointed at a server in use.

pub(crate) mod body;
mod consumer;
mod ledger;
mod link;
mod plan;
mod publisher;
pub(crate) mod seen;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::{Client, put_consume};
use crate::clients::{Clients, Protocol};
use crate::drive::Drive;
use crate::error::Result;
use crate::http;
use crate::procfs::Processes;
use crate::report::Report;

use self::body::Template;
use self::consumer::Consumer;
pub(crate) use self::ledger::Flaws;
use self::ledger::Ledger;
use self::link::Link;
pub(crate) use self::plan::{Plan, Routing};
use self::publisher::Publisher;

/// AMQP 0-9-1.
pub(crate) enum Amqp {}

impl Protocol for Amqp {
    type Plan = Plan;
    type Publisher = Publisher;
    type Consumer = Consumer;
    type Ledger = Ledger;
}

/// The queues and the exchange of one run.
struct Stage {
    names: Vec<String>,
    exchange: Option<String>,
}

/// Runs `plan` and reports.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let server = Processes::of_server(&plan.server_pids, plan.url.is_loopback(), plan.url.port);
    let mut control = Client::connect(&plan.url)?;
    let stage = Stage::new(plan);
    let measured = stage.declare(&mut control).and_then(|()| measure(plan, server.as_ref(), &stage));
    let cleaned = stage.delete(&plan.url);
    let report = measured?;
    cleaned?;
    Ok(report)
}

fn measure(plan: &Plan, server: Option<&Processes>, stage: &Stage) -> Result<Report> {
    let before = plan.metrics_url.as_deref().map(http::counters).transpose()?;
    let consumers = (0..plan.consumers).map(|c| stage.consumer(plan, c)).collect::<Result<Vec<_>>>()?;
    let publishers = (0..plan.publishers).map(|p| stage.publisher(plan, p)).collect::<Result<Vec<_>>>()?;
    let clients = Clients::<Amqp>::new(plan, publishers, consumers, Ledger::new(plan));
    let (outcome, clients) = Drive::new(plan.course, server, clients)?.run()?;
    let after = plan.metrics_url.as_deref().map(http::counters).transpose()?;
    Ok(Report::new(plan, server, outcome, &clients, before.zip(after)))
}

impl Stage {
    fn new(plan: &Plan) -> Stage {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("bench-{}-{}", std::process::id(), now.as_millis());
        Stage {
            names: (0..plan.queues).map(|queue| format!("{run}-{queue}")).collect(),
            exchange: (plan.routing == Routing::Fanout).then_some(run),
        }
    }

    fn declare(&self, control: &mut Client) -> Result<()> {
        if let Some(exchange) = &self.exchange {
            control.declare_fanout(exchange)?;
        }
        for name in &self.names {
            control.declare_queue(name)?;
            if let Some(exchange) = &self.exchange {
                control.bind(name, exchange)?;
            }
        }
        Ok(())
    }

    /// Removes everything, on a connection of its own because the run may have broken the other.
    fn delete(&self, url: &crate::url::Url) -> Result<()> {
        let mut control = Client::connect(url)?;
        for name in &self.names {
            control.delete_queue(name)?;
        }
        self.exchange.iter().try_for_each(|exchange| control.delete_exchange(exchange))
    }

    fn publisher(&self, plan: &Plan, number: u16) -> Result<Publisher> {
        let mut client = Client::connect(&plan.url)?;
        if plan.confirms {
            client.select_confirms()?;
        }
        let targets: Vec<(String, String)> = match &self.exchange {
            Some(exchange) => vec![(exchange.clone(), String::new())],
            None => {
                let queues = plan.targets(number).into_iter();
                queues.map(|queue| (String::new(), self.names[queue as usize].clone())).collect()
            }
        };
        let template = Template::new(&targets, plan.size, plan.persistent, client.frame_max());
        Ok(Publisher::new(Link::new(client)?, number, template))
    }

    fn consumer(&self, plan: &Plan, number: u16) -> Result<Consumer> {
        let mut client = Client::connect(&plan.url)?;
        if plan.prefetch > 0 && !plan.auto_ack {
            client.prefetch(plan.prefetch)?;
        }
        let queues = plan.subscriptions(number);
        let mut link = Link::new(client)?;
        for (subscription, queue) in queues.iter().enumerate() {
            let name = &self.names[*queue as usize];
            put_consume(&mut link.socket.out, name, &format!("c{subscription}"), plan.auto_ack);
        }
        // Ahead of the first publish, so that no run begins with a backlog.
        link.socket.flush()?;
        Ok(Consumer::new(link, queues, plan.publishers))
    }
}
