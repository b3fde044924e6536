//! The program as its users meet it: flags, messages, exit codes, signals, HTTP.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Tests of a program that has files and sockets.

mod node;

use std::io::{Read, Write};
use std::net::TcpListener;

use node::{Node, Scratch, http, waystation};
use rustix::process::Signal;

#[test]
fn the_ready_line_names_every_address_and_a_signal_ends_the_node_in_order() {
    let scratch = Scratch::new();
    let mut node = Node::start(&scratch, &[]);
    assert!(node.ready_line.starts_with("waystation 0.1.0 ready: amqp://127.0.0.1:"), "{}", node.ready_line);
    assert!(node.ready_line.ends_with(&format!(" data={}", scratch.data())), "{}", node.ready_line);
    assert!(node.amqp.port() != 0 && node.http.port() != 0);
    node.await_ready();
    node.signal(Signal::TERM);
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("INFO draining") && log.contains("INFO stopped"), "{log}");
    assert!(!log.contains("not drained"), "{log}");
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let scratch = Scratch::new();
    let mut node = Node::start(&scratch, &[]);
    let silent = std::net::TcpStream::connect(node.amqp).expect("a connection");
    // Any answer shows that the shard knows the connection.
    (&silent).write_all(b"AMQP\x00\x00\x09\x01").expect("greeted");
    (&silent).read_exact(&mut [0; 7]).expect("answered");
    node.signal(Signal::TERM);
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("not drained"), "{log}");
}

#[test]
fn health_metrics_and_status_answer() {
    let scratch = Scratch::new();
    let node = Node::start(&scratch, &[]);
    node.await_ready();
    assert_eq!(http(node.http, "/health/live").0, 200);
    assert_eq!(http(node.http, "/health/ready").0, 200);
    let (code, metrics) = http(node.http, "/metrics");
    assert_eq!(code, 200);
    for name in
        ["\nwaystation_ready 1.0\n", "\nprocess_cpu_seconds_total ", "\nprocess_resident_memory_bytes "]
    {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    let url = format!("http://{}", node.http);
    let (code, text, _) = waystation(&["health", "--url", &url], "");
    assert_eq!((code, text.as_str()), (Some(0), "ready\n"));
    let (code, text, _) = waystation(&["status", "--url", &url], "");
    assert!(code == Some(0) && text.contains("node 1  ready") && text.contains("shard 0"), "{text}");
    let (code, text, _) = waystation(&["status", "-o", "json", "--url", &url], "");
    assert!(code == Some(0) && text.starts_with('{') && text.contains("\"ready\":true"), "{text}");
}

#[test]
fn a_node_that_cannot_be_reached_is_told_apart_from_one_that_is_not_ready() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (code, _, message) = waystation(&["health", "--url", &format!("http://{free}")], "");
    assert_eq!(code, Some(69), "{message}");
    assert!(message.contains("cannot reach"), "{message}");
}

#[test]
fn a_second_node_in_the_same_directory_is_refused_with_the_first_ones_number() {
    let scratch = Scratch::new();
    let node = Node::start(&scratch, &[]);
    let (code, _, message) =
        waystation(&["serve", "--listen", "amqp://127.0.0.1:0", "--data-dir", &scratch.data()], "");
    assert_eq!(code, Some(73), "{message}");
    let holder = format!("locked by another waystation process (pid {})", node.pid());
    assert!(message.contains(&holder), "{message}");
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_helps() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("amqp://{}", taken.local_addr().expect("an address"));
    let (code, _, message) = waystation(&["serve", "--listen", &url, "--data-dir", &scratch.data()], "");
    assert_eq!(code, Some(69), "{message}");
    let port = taken.local_addr().expect("an address").port();
    assert!(
        message.contains(&format!("port {port} is already in use")) && message.contains("--listen"),
        "{message}"
    );
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.data()).expect("made");
    std::fs::write(format!("{}/node", scratch.data()), "version = 99\n").expect("written");
    let (code, _, message) =
        waystation(&["serve", "--listen", "amqp://127.0.0.1:0", "--data-dir", &scratch.data()], "");
    assert_eq!(code, Some(73), "{message}");
    assert!(message.contains("newer waystation (format 99"), "{message}");
}

#[test]
fn a_mistyped_key_is_refused_with_what_was_probably_meant() {
    let scratch = Scratch::new();
    let file = scratch.file("waystation.toml", "data_dri = \"x\"\n");
    for command in [vec!["serve", "--config", &file], vec!["check-config", &file]] {
        let (code, _, message) = waystation(&command, "");
        assert_eq!(code, Some(78), "{message}");
        assert!(message.contains("unknown key 'data_dri'; did you mean 'data_dir'?"), "{message}");
    }
    let file = scratch.file("good.toml", "listen = [\"amqp://127.0.0.1:1\"]\n");
    let (code, text, _) = waystation(&["check-config", &file], "");
    assert!(code == Some(0) && text.contains("is valid") && text.contains("amqp://127.0.0.1:1"), "{text}");
}

#[test]
fn an_open_address_without_a_user_is_refused_and_a_hashed_user_lets_it_open() {
    let scratch = Scratch::new();
    let open = ["serve", "--listen", "amqp://0.0.0.0:0", "--data-dir", &scratch.data()];
    let (code, _, message) = waystation(&open, "");
    assert_eq!(code, Some(78), "{message}");
    assert!(message.contains("hash-password"), "{message}");
    let (code, hash, _) = waystation(&["hash-password"], "secret\n");
    assert!(code == Some(0) && hash.starts_with("pbkdf2-sha256$"), "{hash}");
    let text = format!(
        "listen = [\"amqp://0.0.0.0:1\"]\n[[users]]\nname = \"a\"\npassword_hash = \"{}\"\n",
        hash.trim()
    );
    let file = scratch.file("waystation.toml", &text);
    assert_eq!(waystation(&["check-config", &file], "").0, Some(0));
}

#[test]
fn a_wrong_command_line_ends_with_the_usage_code() {
    assert_eq!(waystation(&["serve", "--lisen", "x"], "").0, Some(64));
    assert_eq!(waystation(&["hash-password"], "").0, Some(1), "an empty password");
    let (code, text, _) = waystation(&["--help"], "");
    assert!(code == Some(0) && text.contains("Exit codes:"), "{text}");
}

#[test]
fn log_lines_are_json_when_asked_for() {
    let scratch = Scratch::new();
    let mut node = Node::start(&scratch, &["--log-format", "json"]);
    node.await_ready();
    node.signal(Signal::INT);
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
    let json = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["level"] == "INFO")
    };
    assert!(log.lines().all(json), "{log}");
}

#[test]
fn every_start_raises_the_start_number() {
    let scratch = Scratch::new();
    for boot in 1..=3 {
        let mut node = Node::start(&scratch, &[]);
        node.signal(Signal::KILL);
        node.end();
        let file = std::fs::read_to_string(format!("{}/node", scratch.data())).expect("read");
        assert!(file.contains(&format!("boot = {boot}\n")), "{file}");
    }
}
