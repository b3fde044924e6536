//! What is served: `/health/live`, `/health/ready`, `/metrics`, `/api/status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::{NodeId, PartitionStatus, Status};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::metrics;
use super::phase::{Phase, Stage};
use crate::mailbox::{Letter, Mailbox};

/// How long a shard may take to answer before it counts as not ready.
const ANSWER: Duration = Duration::from_secs(1);
/// How long before it counts as not alive: a slow disk may hold it up without being its end.
const LIVENESS: Duration = Duration::from_secs(30);

/// What the pages are made from.
#[derive(Debug)]
pub struct Front {
    /// This node.
    pub node: NodeId,
    /// Its stage.
    pub phase: Arc<Phase>,
    /// Its shards.
    pub mailboxes: Vec<Arc<Mailbox>>,
}

/// The pages.
pub fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .with_state(front)
}

impl Front {
    /// The figures of each shard; `None` for one that does not answer in time.
    async fn statuses(&self, within: Duration) -> Vec<Option<Status>> {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (reply, answer) = oneshot::channel();
            mailbox.push(Letter::Status(reply));
            answer
        };
        let until = tokio::time::Instant::now() + within;
        let answers: Vec<_> = self.mailboxes.iter().map(ask).collect();
        let mut statuses = Vec::with_capacity(answers.len());
        for answer in answers {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            statuses.push(timeout(left, answer).await.ok().and_then(Result::ok));
        }
        statuses
    }

    /// Why clients cannot be served; empty when they can.
    fn obstacles(&self, statuses: &[Option<Status>]) -> Vec<String> {
        if let Some(obstacle) = self.phase.stage().obstacle() {
            return vec![obstacle.to_owned()];
        }
        let of_shard = |(shard, status): (usize, &Option<Status>)| {
            let reason = match status {
                Some(status) if status.ready => return None,
                Some(status) => status.reason.clone().unwrap_or_else(|| "not ready".into()),
                None => format!("no answer within {ANSWER:?}"),
            };
            Some(format!("shard {shard}: {reason}"))
        };
        statuses.iter().enumerate().filter_map(of_shard).collect()
    }

    /// The figures now, without asking shards that do not run their loops yet.
    async fn present(&self) -> Vec<Option<Status>> {
        match self.phase.stage() {
            Stage::Recovering => Vec::new(),
            _ => self.statuses(ANSWER).await,
        }
    }
}

async fn index() -> &'static str {
    concat!(
        "waystation ",
        env!("CARGO_PKG_VERSION"),
        "\n/health/live\n/health/ready\n/metrics\n/api/status\n"
    )
}

async fn live(State(front): State<Arc<Front>>) -> Response {
    let dead = match front.phase.stage() {
        Stage::Recovering => false,
        _ => front.statuses(LIVENESS).await.iter().any(Option::is_none),
    };
    match dead {
        false => "alive\n".into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, format!("a shard has not answered for {LIVENESS:?}\n"))
            .into_response(),
    }
}

async fn ready(State(front): State<Arc<Front>>) -> Response {
    let obstacles = front.obstacles(&front.present().await);
    match obstacles.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n").into_response(),
    }
}

async fn metrics(State(front): State<Arc<Front>>) -> Response {
    let statuses = front.present().await;
    let ready = front.obstacles(&statuses).is_empty();
    match metrics::encode(ready, &statuses) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(front): State<Arc<Front>>) -> axum::Json<Value> {
    let statuses = front.present().await;
    let obstacles = front.obstacles(&statuses);
    let mut shards = Vec::new();
    let mut queues = Vec::new();
    let mut partitions = BTreeMap::new();
    for (shard, status) in statuses.into_iter().enumerate() {
        let status = status.unwrap_or_default();
        let counters: Map<String, Value> =
            status.counters.iter().map(|(name, n)| (name.to_string(), json!(n))).collect();
        let gauges: Map<String, Value> =
            status.gauges.iter().map(|(name, n)| (name.to_string(), json!(n))).collect();
        shards.push(json!({ "shard": shard, "ready": status.ready, "counters": counters, "gauges": gauges }));
        queues.extend(status.queues);
        let place = |of: &PartitionStatus| (of.vhost.clone(), of.topic.clone(), of.partition);
        partitions.extend(status.partitions.into_iter().map(|of| (place(&of), of)));
    }
    queues.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
    let queues: Vec<Value> = queues
        .into_iter()
        .map(|queue| {
            json!({
                "vhost": queue.vhost, "name": queue.name, "ready": queue.ready, "unacked": queue.unacked,
                "consumers": queue.consumers, "enqueued": queue.published, "handed_out": queue.delivered,
                "settled": queue.settled,
            })
        })
        .collect();
    axum::Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": front.node.0,
        "ready": obstacles.is_empty(),
        "reasons": obstacles,
        "shards": shards,
        "queues": queues,
        "partitions": partitions.values().map(partition).collect::<Vec<_>>(),
    }))
}

fn partition(of: &PartitionStatus) -> Value {
    json!({
        "vhost": of.vhost, "topic": of.topic, "partition": of.partition, "start": of.start, "end": of.end,
        "bytes": of.bytes, "consumers": of.consumers,
    })
}
