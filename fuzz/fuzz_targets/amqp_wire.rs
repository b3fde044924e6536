//! Frames, methods, content headers, property blocks and tables of any bytes: what decodes is encoded again to
//! something that decodes to the same, and what only checks agrees with what decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_amqp::wire::{ContentHeader, Malformed, Method, Properties, frame, next_frame, properties, table};

const DEPTH: u8 = 16;

fn method(payload: &[u8]) {
    let Ok(method) = Method::decode(payload, DEPTH) else { return };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    method.encode(&mut once);
    // Bytes are compared, since a number that is none is not equal to itself.
    Method::decode(&once, DEPTH).expect("what was encoded decodes").encode(&mut twice);
    assert_eq!(once, twice);
}

fn fields(bytes: &[u8]) {
    let decoded = table::decode_fields(bytes, DEPTH);
    match table::check_fields(bytes, DEPTH) {
        // Only decoding minds what names are made of.
        Ok(()) => assert!(matches!(decoded, Ok(_) | Err(Malformed::Text)), "sound and not decoded"),
        Err(_) => assert!(decoded.is_err(), "unsound and decoded"),
    }
    let Ok(decoded) = decoded else { return };
    let mut encoded = Vec::new();
    table::encode(&decoded, &mut encoded);
    let again = table::decode_fields(&encoded[4..], DEPTH).expect("what was encoded decodes");
    let mut twice = Vec::new();
    table::encode(&again, &mut twice);
    assert_eq!(encoded, twice);
}

fn block(bytes: &[u8]) {
    let mut with_header = Vec::new();
    properties::put_with_header(bytes, "x-delivery-count", 7, &mut with_header);
    let Ok(found) = Properties::decode(bytes) else { return assert_eq!(with_header, bytes) };
    let mut encoded = Vec::new();
    found.encode(&mut encoded);
    assert_eq!(Properties::decode(&encoded), Ok(found));
    Properties::decode(&with_header).expect("a header more does not spoil the block");
    let _ = properties::headers(bytes);
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(frame)) = next_frame(rest, 4096) {
        let mut again = Vec::new();
        frame::put_frame(&mut again, frame.kind, frame.channel, frame.payload);
        assert_eq!(again, rest[..frame.len()]);
        method(frame.payload);
        rest = &rest[frame.len()..];
    }
    method(data);
    fields(data);
    block(ContentHeader::decode(data).map_or(data, |header| header.properties));
    block(data);
});
