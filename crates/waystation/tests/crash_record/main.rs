//! Crashes of the real broker on real files: its disk calls are recorded, the record is cut at random points, what was
//! synced is kept with a random part of the rest, and the real broker starts on that.
//!
//! Whatever was confirmed before the cut must be there, whatever was settled for certain must not, nothing may be there
//! that was not published, and what was handed out comes as redelivered. 1,000 cuts in a release build, fewer in a debug build.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Tests of a program that has files and sockets.

mod account;
mod client;
mod disk_image;
mod load;
mod recorder;
mod scratch;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base::Prng;
use runtime::config::Scheme;
use runtime::disk::{Calls, System};
use runtime::{Config, Failure, Node, Signals};

use account::{Account, Found};
use client::Client;
use load::Load;
use recorder::{Recorder, Step};
use scratch::Scratch;

const CUTS: u64 = if cfg!(debug_assertions) { 100 } else { 1000 };

/// Shards and groups of a node.
type Shape = (u16, u32);

const SHAPES: [Shape; 2] = [(1, 1), (2, 5)];

fn config(data_dir: &Path) -> Config {
    let listen = vec!["amqp://127.0.0.1:0".parse().expect("an address")];
    // Small segments and a small ring, so that the record crosses several of them, and old messages are moved.
    let data_dir = data_dir.to_path_buf();
    Config { data_dir, listen, segment_bytes: 4 << 20, ring_bytes_max: 0, ..Config::default() }
}

/// A node in an empty directory, recorded.
fn found<C: Calls>(data_dir: &Path, calls: Arc<C>, (shards, groups): Shape) -> (Node, SocketAddr) {
    let config = Config { shards: Some(shards), groups: Some(groups), ..config(data_dir) };
    let node = Node::start(&config, calls, Signals::Ignored).expect("a node");
    let address = address(&node);
    (node, address)
}

fn start<C: Calls>(data_dir: &Path, calls: Arc<C>) -> (Node, SocketAddr) {
    try_start(data_dir, calls).expect("a node")
}

fn try_start<C: Calls>(data_dir: &Path, calls: Arc<C>) -> Result<(Node, SocketAddr), Failure> {
    let node = Node::start(&config(data_dir), calls, Signals::Ignored)?;
    let address = address(&node);
    Ok((node, address))
}

fn address(node: &Node) -> SocketAddr {
    let (_, address) =
        node.addresses().iter().find(|(scheme, _)| *scheme == Scheme::Amqp).expect("listening");
    *address
}

/// Everything in the queue, by message number, each body checked; `None` when there is no such queue.
fn empty_queue(client: &mut Client, queue: &str) -> Option<Vec<Found>> {
    client.open_channel();
    client.declare(queue, true)?;
    let mut found = Vec::new();
    while let Some(got) = client.get(queue, true) {
        found.push(Found { number: load::number(&got.body), redelivered: got.redelivered });
    }
    client.close_channel();
    Some(found)
}

fn check(account: &Account, address: SocketAddr, cut: usize) -> Result<(), String> {
    let mut client = Client::connect(address);
    for (at, queue) in load::QUEUES.iter().enumerate() {
        let found = empty_queue(&mut client, queue);
        account.check(at, cut, found)?;
    }
    Ok(())
}

/// A record of a node of that shape, and what it had promised where.
fn record(scratch: &Scratch, shape: Shape) -> (Vec<Step>, Account) {
    let recorder = Arc::new(Recorder::default());
    let (node, address) = found(&scratch.path, recorder.clone(), shape);
    let load = Load::run(address, &recorder);
    drop(node);
    let steps = recorder.steps();
    let account = Account::new(&steps, load);
    assert!(account.promises() > 300, "the record has promises to check: {}", account.promises());
    assert!(account.handed_out() > 100, "{} messages were handed out", account.handed_out());
    for kind in ["checkpoint-", "run-", "manifest-"] {
        let is_one = |step: &Step| matches!(step, Step::Rename { to, .. } if name(to).starts_with(kind));
        assert!(steps.iter().any(is_one), "the record has no {kind}");
    }
    (steps, account)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn a_broker_started_on_any_cut_of_the_record_keeps_every_promise() {
    for shape in SHAPES {
        let scratch = Scratch::on_disk();
        let (steps, account) = record(&scratch, shape);
        let node_file = std::fs::read(scratch.path.join("node")).expect("the node file");
        for seed in 0..CUTS / SHAPES.len() as u64 {
            let mut prng = Prng::new(seed);
            let cut = prng.below(steps.len() as u64 + 1) as usize;
            let image = Scratch::in_memory();
            std::fs::write(image.path.join("node"), &node_file).expect("written");
            disk_image::build(&steps[..cut], &scratch.path, &image.path, &mut prng);
            let outcome = match try_start(&image.path, Arc::new(System)) {
                Ok((_node, address)) => check(&account, address, cut),
                Err(failure) => Err(format!("it does not start: {failure:?}")),
            };
            assert_eq!(outcome, Ok(()), "{shape:?}, seed {seed}, cut at step {cut} of {}", steps.len());
        }
    }
}

#[test]
fn the_checks_notice_a_disk_that_forgets_what_it_synced() {
    let scratch = Scratch::on_disk();
    let (steps, account) = record(&scratch, (1, 1));
    // All the writes of a part of the record are lost although they were synced: one behind which nothing is moved.
    let part = steps.len() * 3 / 4..steps.len() * 9 / 10;
    let forgetful = disk_image::without_writes(&steps, part);
    let image = Scratch::in_memory();
    std::fs::copy(scratch.path.join("node"), image.path.join("node")).expect("copied");
    disk_image::build(&forgetful, &scratch.path, &image.path, &mut Prng::new(1));
    match try_start(&image.path, Arc::new(System)) {
        // Saying that something is missing is as good as being caught.
        Err(Failure::DataDir(reason) | Failure::Halted(reason)) => assert!(!reason.is_empty()),
        Err(other) => panic!("{other:?}"),
        Ok((_node, address)) => {
            check(&account, address, steps.len()).expect_err("messages are missing");
        }
    }
}

/// Runs the load until the disk fails once: the node must stop and say why, and nothing may be confirmed behind the
/// failure. What the failure left is started on twice: as the files are, and as they may be after a crash.
fn fail_once(recorder: Recorder) {
    let scratch = Scratch::on_disk();
    let recorder = Arc::new(recorder);
    let (node, address) = found(&scratch.path, recorder.clone(), (1, 1));
    let running = std::thread::spawn(move || node.run());
    let load = Load::run(address, &recorder);
    let ended = running.join().expect("no panic");
    let told = matches!(&ended, Err(Failure::Halted(reason)) if reason.contains(recorder::FAILURE));
    assert!(told, "{ended:?}");
    let steps = recorder.steps();
    let failed = recorder.failed_at().expect("it failed");
    let account = Account::new(&steps, load);
    assert!(account.promises() > 0, "something was confirmed before the failure");
    assert_eq!(account.confirmed_after(failed), 0, "a confirm left after the failure");
    for seed in 0..8 {
        let image = Scratch::in_memory();
        std::fs::copy(scratch.path.join("node"), image.path.join("node")).expect("copied");
        disk_image::build(&steps, &scratch.path, &image.path, &mut Prng::new(seed));
        let (_node, address) = start(&image.path, Arc::new(System));
        check(&account, address, steps.len()).expect("kept without what was not synced");
    }
    let (_node, address) = start(&scratch.path, Arc::new(System));
    check(&account, address, steps.len()).expect("kept");
}

#[test]
fn after_one_failed_write_nothing_is_confirmed_and_nothing_confirmed_is_lost() {
    [40, 41, 60].into_iter().for_each(|number| fail_once(Recorder::failing_at(number)));
}

#[test]
fn after_one_failed_sync_nothing_is_confirmed_and_nothing_confirmed_is_lost() {
    [40, 41, 60].into_iter().for_each(|number| fail_once(Recorder::failing_sync_at(number)));
}
