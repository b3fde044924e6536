//! What a client sends: well-formed frames, with what is in them drawn from a few names and numbers.

use model::{Arguments, Value};
use proto_amqp::wire::{Method, Properties, put_content};

use crate::Draws;

const NAMES: [&str; 5] = ["", "q", "ex", "amq.direct", "amq.rabbitmq.reply-to"];

/// All that a client sends until its connection is open.
pub fn opening(out: &mut Vec<u8>) {
    let known = ["consumer_cancel_notify", "connection.blocked", "publisher_confirms", "basic.nack"];
    let known = known.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
    let client_properties = Arguments(vec![("capabilities".into(), Value::Table(Arguments(known)))]);
    let (mechanism, response, locale) = ("PLAIN", &b"\0guest\0guest"[..], "en_US");
    out.extend_from_slice(b"AMQP\0\0\x09\x01");
    Method::ConnectionStartOk { client_properties, mechanism, response, locale }.put(0, out);
    Method::ConnectionTuneOk { channel_max: 8, frame_max: 8192, heartbeat: 60 }.put(0, out);
    Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false }.put(0, out);
}

fn arguments(draws: &mut Draws<'_>) -> Arguments {
    let values = [Value::Null, Value::Int(draws.number() as i64), Value::text("all"), Value::Bool(true)];
    let names = ["x-match", "x-priority", "x-queue-type", "x-expires", "a"];
    let mut one = || (draws.pick(&names).to_owned(), values[usize::from(draws.below(4))].clone());
    Arguments((0..values.len() % 3).map(|_| one()).collect())
}

fn message(draws: &mut Draws<'_>, channel: u16, out: &mut Vec<u8>) {
    let (exchange, routing_key) = (draws.pick(&NAMES), draws.pick(&NAMES));
    Method::BasicPublish { exchange, routing_key, mandatory: draws.flag(), immediate: false }
        .put(channel, out);
    let headers = [1, b'k', b'I', 0, 0, 0, 7];
    let properties = Properties { headers: draws.flag().then_some(&headers), ..Properties::default() };
    let mut block = Vec::new();
    properties.encode(&mut block);
    let body = vec![7; draws.pick(&[0, 1, 100, 8184, 8185, 30_000, 40_000])];
    put_content(out, channel, &block, &body, 8192);
}

/// One frame, or the frames of one message.
pub fn frame(draws: &mut Draws<'_>, out: &mut Vec<u8>) {
    let channel = 1 + draws.below(3);
    let (queue, exchange, routing_key) = (draws.pick(&NAMES), draws.pick(&NAMES), draws.pick(&NAMES));
    let (nowait, multiple, requeue) = (draws.flag(), draws.flag(), draws.flag());
    let consumer_tag = ["", "c", "d"][usize::from(draws.below(3))];
    let delivery_tag = draws.number();
    let method = match draws.below(24) {
        0..4 => Method::ChannelOpen {},
        4 => Method::ConfirmSelect { nowait },
        5..8 => return message(draws, channel, out),
        8 => Method::BasicQos { prefetch_size: 0, prefetch_count: draws.below(4), global: nowait },
        9 | 10 => {
            let (no_local, no_ack, exclusive) = (false, multiple, draws.flag());
            let arguments = arguments(draws);
            Method::BasicConsume { queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments }
        }
        11 => Method::BasicCancel { consumer_tag, nowait },
        12 | 13 => Method::BasicAck { delivery_tag, multiple },
        14 => Method::BasicNack { delivery_tag, multiple, requeue },
        15 => Method::BasicReject { delivery_tag, requeue },
        16 => Method::BasicGet { queue, no_ack: multiple },
        17 => Method::BasicRecover { requeue },
        18 => Method::QueueDeclare {
            queue,
            passive: draws.flag(),
            durable: true,
            exclusive: multiple,
            auto_delete: requeue,
            nowait,
            arguments: arguments(draws),
        },
        19 => Method::QueueBind { queue, exchange, routing_key, nowait, arguments: arguments(draws) },
        20 => Method::QueuePurge { queue, nowait },
        21 => Method::ChannelClose { reply_code: 200, reply_text: "", class: 0, method: 0 },
        22 => Method::ChannelCloseOk {},
        _ => Method::ConnectionClose { reply_code: 200, reply_text: "", class: 0, method: 0 },
    };
    method.put(channel * u16::from(!matches!(method, Method::ConnectionClose { .. })), out);
}
