//! Connections of the lapin client to the server under test, named by WAYSTATION_AMQP_URL.
//!
//! In: that variable. Out: channels, and the few calls every tutorial makes.
//! Never: starts a server; `with_broker.py` does.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

/// A connection.
pub async fn connect() -> Connection {
    let url = std::env::var("WAYSTATION_AMQP_URL").expect("WAYSTATION_AMQP_URL names the server");
    Connection::connect(&url, ConnectionProperties::default()).await.expect("connected")
}

/// A name that nobody else uses.
pub fn name(stem: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("lapin-{stem}-{}-{}", std::process::id(), now.as_nanos())
}

/// An exclusive queue named by the server.
pub async fn own_queue(channel: &Channel) -> String {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.expect("declared");
    queue.name().to_string()
}

/// Publishes a persistent message without waiting for its confirm.
pub async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> lapin::PublisherConfirm {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), key.into(), options, body, persistent).await.expect("sent")
}

/// The next delivery; fails when none comes within five seconds.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    let found =
        tokio::time::timeout(Duration::from_secs(5), consumer.next()).await.expect("a delivery in time");
    found.expect("the consumer goes on").expect("no error")
}

/// The next delivery's text, acknowledged.
pub async fn next_text(consumer: &mut Consumer) -> String {
    let delivery = next(consumer).await;
    assert!(delivery.ack(BasicAckOptions::default()).await.expect("acknowledged"));
    String::from_utf8(delivery.data).expect("text")
}
