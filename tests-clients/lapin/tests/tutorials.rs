//! RabbitMQ's tutorials 1 to 7 with lapin.
//!
//! Each program of a tutorial is a connection of its own, as it is there; what it shows is asserted.

use std::time::Duration;

use client_lapin::{connect, name, next, next_text, own_queue, publish};
use futures_lite::StreamExt;
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Consumer, ExchangeKind};

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..Default::default() }
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Consumer {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.expect("consuming")
}

async fn exchange(channel: &Channel, kind: ExchangeKind) -> String {
    let name = name("exchange");
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel
        .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
        .await
        .expect("declared");
    name
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
        .await
        .expect("bound");
}

async fn delete(channel: &Channel, queue: &str) {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
}

#[tokio::test]
async fn hello_world() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    let queue = name("hello");
    channel
        .queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), FieldTable::default())
        .await
        .expect("declared");
    publish(&channel, "", &queue, b"Hello World!").await;
    let mut consumer = consume(&channel, &queue, true).await;
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.data.as_slice(), delivery.redelivered), (b"Hello World!".as_slice(), false));
    delete(&channel, &queue).await;
    connection.close(200, "bye".into()).await.expect("closed in order");
}

#[tokio::test]
async fn work_queue_with_prefetch_one() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    let queue = name("tasks");
    channel.queue_declare(queue.as_str().into(), durable(), FieldTable::default()).await.expect("declared");
    for number in 0..10 {
        publish(&channel, "", &queue, number.to_string().as_bytes()).await;
    }
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
    let mut worker = consume(&channel, &queue, false).await;
    let first = next(&mut worker).await;
    assert_eq!(first.data, b"0");
    let early = tokio::time::timeout(Duration::from_millis(200), worker.next()).await;
    assert!(early.is_err(), "the second task waits for the first");
    first.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.expect("returned");
    let again = next(&mut worker).await;
    assert_eq!((again.data.as_slice(), again.redelivered), (b"0".as_slice(), true));
    again.ack(BasicAckOptions::default()).await.expect("acknowledged");
    for number in 1..10 {
        assert_eq!(next_text(&mut worker).await, number.to_string());
    }
    delete(&channel, &queue).await;
}

#[tokio::test]
async fn publish_and_subscribe() {
    let sender = connect().await;
    let channel = sender.create_channel().await.expect("channel");
    let logs = exchange(&channel, ExchangeKind::Fanout).await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let connection = connect().await;
        let channel = connection.create_channel().await.expect("channel");
        let queue = own_queue(&channel).await;
        bind(&channel, &queue, &logs, "").await;
        listeners.push((consume(&channel, &queue, false).await, channel, connection));
    }
    for text in ["info: one", "info: two"] {
        publish(&channel, &logs, "", text.as_bytes()).await;
    }
    for (consumer, _, _) in &mut listeners {
        assert_eq!(next_text(consumer).await, "info: one");
        assert_eq!(next_text(consumer).await, "info: two");
    }
}

async fn routed(kind: ExchangeKind, bound: &[&str], keys: &[&str]) -> Vec<String> {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    let logs = exchange(&channel, kind).await;
    let queue = own_queue(&channel).await;
    for key in bound.iter().chain(&["the.end"]) {
        bind(&channel, &queue, &logs, key).await;
    }
    for key in keys.iter().chain(&["the.end"]) {
        publish(&channel, &logs, key, key.as_bytes()).await;
    }
    let mut consumer = consume(&channel, &queue, false).await;
    let mut found = Vec::new();
    while found.last().is_none_or(|last| last != "the.end") {
        found.push(next_text(&mut consumer).await);
    }
    found.pop();
    found
}

#[tokio::test]
async fn routing() {
    let found =
        routed(ExchangeKind::Direct, &["info", "error"], &["debug", "error", "info", "warning"]).await;
    assert_eq!(found, ["error", "info"]);
}

#[tokio::test]
async fn topics() {
    let keys =
        ["quick.orange.rabbit", "lazy.pink.rabbit", "quick.brown.fox", "lazy", "quick.orange.new.rabbit"];
    assert_eq!(routed(ExchangeKind::Topic, &["*.orange.*"], &keys).await, ["quick.orange.rabbit"]);
    let found = routed(ExchangeKind::Topic, &["*.*.rabbit", "lazy.#"], &keys).await;
    assert_eq!(found, ["quick.orange.rabbit", "lazy.pink.rabbit", "lazy"]);
    assert_eq!(routed(ExchangeKind::Topic, &["#"], &keys).await, keys);
}

async fn serve(channel: Channel, mut requests: Consumer, count: usize) {
    for _ in 0..count {
        let request = next(&mut requests).await;
        let number: u64 = String::from_utf8(request.data.clone()).expect("text").parse().expect("a number");
        let reply_to = request.properties.reply_to().clone().expect("reply_to").to_string();
        let correlation = request.properties.correlation_id().clone().expect("correlation id");
        let properties = BasicProperties::default().with_correlation_id(correlation);
        let answer = (number * number).to_string();
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), reply_to.into(), options, answer.as_bytes(), properties)
            .await
            .expect("answered");
        request.ack(BasicAckOptions::default()).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn remote_procedure_call() {
    let (server, client) = (connect().await, connect().await);
    let serving = server.create_channel().await.expect("channel");
    let queue = own_shared_queue(&serving).await;
    let requests = consume(&serving, &queue, false).await;
    let server_task = tokio::spawn(serve(serving, requests, 6));
    let channel = client.create_channel().await.expect("channel");
    for reply_to in [own_queue(&channel).await, "amq.rabbitmq.reply-to".to_string()] {
        let mut answers = consume(&channel, &reply_to, true).await;
        for number in [3_u64, 12, 1000] {
            let id = name("call");
            let properties = BasicProperties::default()
                .with_reply_to(reply_to.as_str().into())
                .with_correlation_id(id.as_str().into());
            let (options, body) = (BasicPublishOptions::default(), number.to_string());
            channel
                .basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), properties)
                .await
                .expect("asked");
            let answer = next(&mut answers).await;
            assert_eq!(answer.data, (number * number).to_string().as_bytes());
            assert_eq!(
                answer.properties.correlation_id().as_ref().map(|found| found.as_str()),
                Some(id.as_str())
            );
        }
    }
    server_task.await.expect("the server ends");
}

/// A queue that others may publish to by name and that ends with its consumer.
async fn own_shared_queue(channel: &Channel) -> String {
    let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
    let queue = name("rpc");
    channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.expect("declared");
    queue
}

#[tokio::test]
async fn publisher_confirms() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let queue = name("confirmed");
    channel.queue_declare(queue.as_str().into(), durable(), FieldTable::default()).await.expect("declared");
    for number in 0..50 {
        let confirm =
            publish(&channel, "", &queue, number.to_string().as_bytes()).await.await.expect("an answer");
        assert_eq!(confirm, Confirmation::Ack(None));
    }
    let mut waiting = Vec::new();
    for number in 50..1050 {
        waiting.push(publish(&channel, "", &queue, number.to_string().as_bytes()).await);
    }
    for confirm in waiting {
        assert_eq!(confirm.await.expect("an answer"), Confirmation::Ack(None));
    }
    let mut consumer = consume(&channel, &queue, false).await;
    for number in 0..1050 {
        assert_eq!(next_text(&mut consumer).await, number.to_string());
    }
    delete(&channel, &queue).await;
}

#[tokio::test]
async fn mandatory_comes_back_with_its_confirm() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let (exchange, key) = ("amq.direct".into(), "nowhere".into());
    let sent = channel
        .basic_publish(exchange, key, options, b"lost", BasicProperties::default())
        .await
        .expect("sent");
    let confirm = sent.await.expect("an answer");
    assert!(confirm.is_ack());
    let returned = confirm.take_message().expect("the message comes back");
    assert_eq!((returned.reply_code, returned.delivery.data.as_slice()), (312, b"lost".as_slice()));
}

#[tokio::test]
async fn an_unknown_queue_is_a_channel_error_and_nothing_more() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("channel");
    let missing = name("missing");
    let refused = channel.basic_get(missing.as_str().into(), BasicGetOptions::default()).await;
    let text = refused.expect_err("refused").to_string();
    assert!(text.contains("NOT_FOUND") || text.contains("404"), "{text}");
    let other = connection.create_channel().await.expect("the connection goes on");
    assert!(own_queue(&other).await.starts_with("amq.gen-"));
}
