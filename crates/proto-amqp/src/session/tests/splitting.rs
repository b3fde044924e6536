//! However the input is cut and however late the broker answers: same requests, same replies, per channel.

use std::collections::BTreeMap;

use super::*;

/// A script of a client that does not wait for replies but knows what it will be sent.
pub(super) fn script(prng: &mut Prng, closes: bool) -> Vec<u8> {
    let mut bytes = opening("consumer_cancel_notify", "guest", "/", 8192);
    let channels = 1 + prng.below(3) as u16;
    for channel in 1..=channels {
        Method::ChannelOpen {}.put(channel, &mut bytes);
        Method::ConfirmSelect { nowait: prng.chance(1, 2) }.put(channel, &mut bytes);
        Method::BasicQos { prefetch_size: 0, prefetch_count: 20, global: false }.put(channel, &mut bytes);
        Method::BasicConsume {
            queue: "q",
            consumer_tag: "c",
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: prng.chance(1, 2),
            arguments: Arguments::default(),
        }
        .put(channel, &mut bytes);
    }
    let mut unsettled: Vec<Vec<u64>> = vec![(1..=20).collect(); usize::from(channels)];
    for _ in 0..prng.below(60) {
        let channel = 1 + prng.below(u64::from(channels)) as u16;
        act(prng, channel, &mut unsettled[usize::from(channel) - 1], &mut bytes);
    }
    match prng.below(3) {
        _ if !closes => {}
        0 => {
            Method::ConnectionClose { reply_code: 0, reply_text: "", class: 0, method: 0 }.put(0, &mut bytes)
        }
        1 => Method::ChannelClose { reply_code: 0, reply_text: "", class: 0, method: 0 }.put(1, &mut bytes),
        _ => {}
    }
    bytes
}

fn act(prng: &mut Prng, channel: u16, unsettled: &mut Vec<u64>, bytes: &mut Vec<u8>) {
    match prng.below(10) {
        0..5 => {
            let size = *prng.pick(&[0, 1, 100, 8184, 8185, 30_000]);
            let key = *prng.pick(&["a", "b", "full", "nowhere"]);
            let properties =
                block(Properties { priority: Some(prng.below(3) as u8), ..Properties::default() });
            let body = vec![prng.draw() as u8; size];
            bytes.extend(publishing(channel, "ex", key, true, &properties, &body));
        }
        5..8 if !unsettled.is_empty() => {
            let at = prng.below(unsettled.len() as u64) as usize;
            let (delivery_tag, multiple) = (unsettled[at], prng.chance(1, 4));
            unsettled.retain(|tag| *tag != delivery_tag && !(multiple && *tag < delivery_tag));
            match prng.chance(2, 3) {
                true => Method::BasicAck { delivery_tag, multiple }.put(channel, bytes),
                false => Method::BasicNack { delivery_tag, multiple, requeue: true }.put(channel, bytes),
            }
        }
        8 => Method::QueuePurge { queue: "q", nowait: prng.chance(1, 2) }.put(channel, bytes),
        _ => bytes.extend([8, 0, 0, 0, 0, 0, 0, 0xce]),
    }
}

/// Requests and frames per channel, with settlements taken apart and grants added up.
type Seen = (BTreeMap<String, Vec<String>>, BTreeMap<String, u64>, BTreeMap<u16, Vec<String>>);

fn seen(mut talk: Talk) -> Seen {
    talk.flush();
    let (mut asked, mut grants, mut heard) = <Seen>::default();
    for request in std::mem::take(&mut talk.asked) {
        let words: Vec<&str> = request.split(' ').collect();
        match words[0] {
            "grant" => *grants.entry(words[1].to_owned()).or_default() += words[2].parse::<u64>().unwrap(),
            "settle" => {
                let (first, last) = words[3].split_once("..=").unwrap();
                for seq in first.parse::<u64>().unwrap()..=last.parse().unwrap() {
                    let one = format!("settle {} {seq} {}", words[2], words[4..].join(" "));
                    asked.entry(words[1].to_owned()).or_default().push(one);
                }
            }
            "publish" => asked.entry(words[1].to_owned()).or_default().push(request.clone()),
            _ => {
                let lane = request.split_once("lane: Lane(").map_or("0", |(_, rest)| &rest[..1]);
                asked.entry(lane.to_owned()).or_default().push(request.clone());
            }
        }
    }
    while let Some((kind, channel, payload)) = talk.frame() {
        let told = match kind {
            1 => format!("{:?}", Method::decode(&payload, 4).unwrap()),
            kind => format!("{kind} {} {:x}", payload.len(), base::crc32c(&payload)),
        };
        heard.entry(channel).or_default().push(told);
    }
    (asked, grants, heard)
}

fn talk() -> Talk {
    let mut talk = Talk::new();
    talk.broker = Broker { backlog: 20, body: vec![1; 10], count: 0 };
    talk
}

#[test]
fn cuts_do_not_matter() {
    let mut prng = Prng::new(11);
    for round in 0..60 {
        let bytes = script(&mut prng, true);
        let mut whole = talk();
        whole.feed(&bytes);
        let expected = seen(whole);
        for cutting in 0..4 {
            let mut cut = talk();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = [1, 20, 5000, 20_000][cutting];
                let (now, later) = rest.split_at((1 + prng.below(most) as usize).min(rest.len()));
                // Bytewise is slow for large bodies: only the first few thousand bytes go like that.
                let now = if cutting == 0 && bytes.len() - rest.len() > 3000 { rest } else { now };
                cut.feed(now);
                rest = if now.len() == rest.len() { &[] } else { later };
            }
            assert_eq!(seen(cut), expected, "round {round}, cutting {cutting}");
        }
    }
}

#[test]
fn late_answers_do_not_matter() {
    let mut prng = Prng::new(12);
    for round in 0..60 {
        let closes = prng.chance(1, 2);
        let bytes = script(&mut prng, closes);
        let mut whole = talk();
        whole.feed(&bytes);
        let expected = seen(whole);
        let mut late = talk();
        late.silent = true;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + prng.below(3000) as usize).min(rest.len()));
            late.feed(now);
            rest = later;
            if prng.chance(1, 3) {
                late.release();
            }
        }
        for _ in 0..200 {
            late.release();
        }
        let late = seen(late);
        assert_eq!((late.0, late.1), (expected.0, expected.1), "round {round}");
        if closes {
            // Answers behind the client's own close are not sent, so their lateness shows.
            continue;
        }
        let without_confirms = |mut heard: BTreeMap<u16, Vec<String>>| {
            // How many confirms one method covers may differ.
            heard.values_mut().for_each(|frames| frames.retain(|frame| !is_confirm(frame)));
            heard
        };
        assert_eq!(without_confirms(late.2), without_confirms(expected.2), "round {round}");
    }
}

fn is_confirm(frame: &str) -> bool {
    frame.starts_with("BasicAck") || frame.starts_with("BasicNack")
}
