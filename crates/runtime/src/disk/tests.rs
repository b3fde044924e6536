//! The disk adapter on real files: order of completions, what is durable when, and what a failure leaves.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base::{Block, PAGE, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp, FileName, OpId};
use model::ConnId;

use super::*;
use crate::mailbox::{Letter, Mailbox};
use crate::scratch::Scratch;

/// Notes what is asked for and fails what it is told to fail.
#[derive(Default)]
struct Watched {
    asked: Mutex<Vec<String>>,
    fail_sync: AtomicBool,
    fail_write: AtomicBool,
}

impl Watched {
    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        self.asked.lock().expect("sound").push(format!("{what} {name}"));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("sound"))
    }
}

impl Calls for Watched {
    fn write(&self, file: &OpenFile, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.note("write", &file.path);
        if self.fail_write.load(SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        // Half of what was wanted, in whole pages: writes may be short.
        let first = &parts[0];
        let some = (first.len() / 2).next_multiple_of(PAGE).min(first.len());
        System.write(file, offset, &[IoSlice::new(&first[..some])])
    }

    fn read_parts(&self, file: &OpenFile, offset: u64, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.note(&format!("read {} parts of", parts.len()), &file.path);
        System.read_parts(file, offset, parts)
    }

    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        self.note("sync", &file.path);
        if self.fail_sync.load(SeqCst) { Err(io::Error::other("not synced")) } else { System.sync(file) }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.note("sync-directory", path);
        System.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename-to", to);
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note("remove", path);
        System.remove(path)
    }

    fn sending(&self, conn: ConnId, parts: &[IoSlice<'_>]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.asked.lock().expect("sound").push(format!("send {bytes} to {conn}"));
    }
}

fn name(text: &str) -> FileName {
    FileName::from(text)
}

fn create(id: u64, file: &str, bytes: u64) -> DiskOp {
    DiskOp::Create { id: OpId(id), file: name(file), bytes }
}

fn prepare(id: u64, file: &str, bytes: u64) -> DiskOp {
    DiskOp::Prepare { id: OpId(id), file: name(file), bytes, written: true }
}

fn write(id: u64, file: &str, offset: u64, blocks: Vec<Block>) -> DiskOp {
    DiskOp::Write { id: OpId(id), file: name(file), offset, blocks }
}

fn read(id: u64, file: &str, offset: u64, bytes: usize) -> DiskOp {
    DiskOp::Read { id: OpId(id), file: name(file), offset, bytes }
}

fn put(id: u64, file: &str, content: &[&str]) -> DiskOp {
    let content = content.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    DiskOp::Put { id: OpId(id), file: name(file), content }
}

fn delete(id: u64, file: &str) -> DiskOp {
    DiskOp::Delete { id: OpId(id), file: name(file) }
}

fn bytes_of(done: DiskDone) -> Vec<u8> {
    done.result.expect("it worked").as_slice().to_vec()
}

fn round_trip(scratch: &Scratch) {
    let pool = Pool::default();
    let files = Files::new(&scratch.path, Arc::new(Watched::default()), pool.clone());
    for op in [create(1, "shard-0/a", 3 * PAGE as u64), prepare(2, "shard-0/b", (3 << 20) + 4096)] {
        files.perform(&op).result.expect("made");
    }
    let blocks = vec![pool.block(&[7; 5000]), pool.block(&[8; PAGE])];
    files.perform(&write(3, "shard-0/b", PAGE as u64, blocks)).result.expect("written");
    let found = bytes_of(files.perform(&read(4, "shard-0/b", PAGE as u64 - 1, 3 * PAGE + 2)));
    let mut expected = vec![0];
    expected.extend_from_slice(&[7; 5000]);
    expected.resize(2 * PAGE + 1, 0);
    expected.extend_from_slice(&[8; PAGE]);
    expected.push(0);
    assert!(found == expected, "the padded blocks one behind the other, zeros around them");
    files.perform(&put(5, "shard-0/c", &["one", "two"])).result.expect("put");
    files.perform(&put(6, "shard-0/c", &["three"])).result.expect("replaced");
    assert_eq!(bytes_of(files.perform(&read(7, "shard-0/c", 0, 5))), b"three");
    let listed = [("shard-0/a", 3 * PAGE as u64), ("shard-0/b", (3 << 20) + 4096), ("shard-0/c", 5)];
    let listed: Vec<(String, u64)> = listed.iter().map(|(name, bytes)| (name.to_string(), *bytes)).collect();
    assert_eq!(files.list("shard-0"), Ok(listed));
    assert_eq!(files.list("shard-1"), Ok(Vec::new()));
    files.perform(&delete(8, "shard-0/a")).result.expect("deleted");
    files.perform(&delete(9, "shard-0/a")).result.expect("deleting twice is no failure");
    assert!(files.perform(&read(10, "shard-0/a", 0, 1)).result.is_err(), "its handle is gone too");
    let mut few = [9; 8];
    assert_eq!(Disk::read(&files, "shard-0/c", 3, &mut few), Ok(2));
    assert_eq!(few[..2], *b"ee");
    assert!(files.perform(&read(11, "shard-0/c", 0, 6)).result.is_err(), "a short read is a failure");
}

#[test]
fn what_is_written_is_found_again() {
    round_trip(&Scratch::new());
}

#[test]
fn a_file_system_without_a_disk_serves_as_well() {
    round_trip(&Scratch::below(Path::new("/dev/shm")));
}

#[test]
fn without_direct_io_a_write_is_followed_by_a_sync() {
    let scratch = Scratch::new();
    let pool = Pool::default();
    let calls = Arc::new(Watched::default());
    for direct in [true, false] {
        let files = Files::with_direct(&scratch.path, calls.clone(), pool.clone(), direct);
        let file = if direct { "direct" } else { "buffered" };
        files.perform(&create(1, file, PAGE as u64)).result.expect("made");
        calls.asked();
        files.perform(&write(2, file, 0, vec![pool.block(&[1; 10])])).result.expect("written");
        let asked = calls.asked();
        assert_eq!(asked[0], format!("write {file}"));
        assert_eq!(asked.contains(&format!("sync {file}")), !direct, "{asked:?}");
        assert_eq!(bytes_of(files.perform(&read(3, file, 9, 2))), [1, 0]);
    }
}

#[test]
fn a_new_file_is_synced_before_its_name_and_its_name_before_the_completion() {
    let scratch = Scratch::new();
    let calls = Arc::new(Watched::default());
    let files = Files::new(&scratch.path, calls.clone(), Pool::default());
    std::fs::create_dir(scratch.path.join("shard-0")).expect("made");
    files.perform(&put(1, "shard-0/c", &["one"])).result.expect("put");
    let expected = ["write c.tmp", "sync c.tmp", "rename-to c", "sync-directory shard-0"];
    assert_eq!(calls.asked(), expected);
    files.perform(&delete(2, "shard-0/c")).result.expect("deleted");
    assert_eq!(calls.asked(), ["remove c", "sync-directory shard-0"]);
}

#[test]
fn one_failed_sync_ends_all_writing_and_is_never_repeated() {
    let scratch = Scratch::new();
    let calls = Arc::new(Watched::default());
    let files = Files::new(&scratch.path, calls.clone(), Pool::default());
    files.perform(&put(1, "a", &["one"])).result.expect("put");
    calls.fail_sync.store(true, SeqCst);
    let first = files.perform(&put(2, "a", &["two"])).result.expect_err("not synced");
    assert!(first.contains("not synced"), "{first}");
    calls.fail_sync.store(false, SeqCst);
    calls.asked();
    for op in [put(3, "b", &["x"]), create(4, "c", 4096), prepare(5, "d", 4096), delete(6, "a")] {
        let refused = files.perform(&op).result.expect_err("poisoned");
        assert!(refused.contains("earlier failure") && refused.contains("not synced"), "{refused}");
    }
    assert_eq!(calls.asked(), [""; 0], "nothing was even tried");
    assert_eq!(
        bytes_of(files.perform(&read(7, "a", 0, 3))),
        b"one",
        "reading goes on; the old content stands"
    );
}

#[test]
fn a_failed_log_write_poisons_but_a_file_that_cannot_be_made_does_not() {
    let scratch = Scratch::new();
    let calls = Arc::new(Watched::default());
    let pool = Pool::default();
    let files = Files::new(&scratch.path, calls.clone(), pool.clone());
    files.perform(&create(1, "a", 4096)).result.expect("made");
    files.perform(&create(2, "a", 4096)).result.expect_err("it exists");
    calls.fail_write.store(true, SeqCst);
    files.perform(&prepare(3, "b", 4096)).result.expect_err("no room, say");
    assert_eq!(files.list(""), Ok(vec![("a".to_owned(), 4096)]), "nothing half-made is left");
    files.perform(&create(4, "c", 4096)).result.expect("not poisoned");
    let block = || vec![pool.block(&[1])];
    let reason = files.perform(&write(5, "a", 0, block())).result.expect_err("failed");
    assert!(reason.contains("on fire"), "{reason}");
    calls.fail_write.store(false, SeqCst);
    files.perform(&write(6, "a", 0, block())).result.expect_err("poisoned");
}

#[test]
fn what_an_interrupted_run_left_half_made_is_not_listed_and_is_tidied_up() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path.join("shard-0")).expect("made");
    for name in ["shard-0/a", "shard-0/b.tmp"] {
        std::fs::write(scratch.path.join(name), b"x").expect("written");
    }
    let files = Files::new(&scratch.path, Arc::new(System), Pool::default());
    assert_eq!(files.list("").expect("listed"), [("shard-0/a".to_owned(), 1)]);
    remove_unfinished(&scratch.path).expect("tidied up");
    assert!(scratch.path.join("shard-0/a").exists() && !scratch.path.join("shard-0/b.tmp").exists());
}

/// An adapter, and a stand-in for the shard that collects its completions.
struct Bench {
    adapter: Adapter<Watched>,
    mailbox: Arc<Mailbox>,
    done: Vec<DiskDone>,
    pool: Pool,
    _scratch: Scratch,
}

impl Bench {
    fn new() -> Bench {
        let scratch = Scratch::new();
        let pool = Pool::default();
        let files = Arc::new(Files::new(&scratch.path, Arc::new(Watched::default()), pool.clone()));
        let mailbox = Arc::new(Mailbox::new().expect("a mailbox"));
        let (notices, _) = std::sync::mpsc::channel();
        let adapter = Adapter::start("test", files, &mailbox, &notices).expect("threads");
        Bench { adapter, mailbox, done: Vec::new(), pool, _scratch: scratch }
    }

    fn inline(&mut self) -> bool {
        let done = &mut self.done;
        self.adapter.work_inline(|one| done.push(one))
    }

    /// Works until `wanted` operations have ended; returns their numbers in that order.
    fn until(&mut self, wanted: usize) -> Vec<u64> {
        let poller = crate::net::Poller::new().expect("a poller");
        poller.add_bell(self.mailbox.bell(), 0).expect("watched");
        let mut letters = Vec::new();
        while self.done.len() < wanted {
            self.mailbox.collect(&mut letters);
            for letter in letters.drain(..) {
                let Letter::Disk(done) = letter else { panic!("only completions are sent") };
                self.adapter.finished(done.id);
                self.done.push(done);
            }
            if !self.inline() && self.done.len() < wanted && self.mailbox.may_sleep() {
                poller.wait(None, &mut Vec::new()).expect("waited");
            }
        }
        self.done.iter().map(|done| done.id.0).collect()
    }
}

#[test]
fn small_writes_are_done_by_the_caller_and_large_ones_by_the_log_thread() {
    let mut bench = Bench::new();
    bench.adapter.submit(create(1, "log", 4 << 20));
    bench.until(1);
    let small = bench.pool.block(&[1; 100]);
    let large = bench.pool.block(&vec![2; 1 << 20]);
    bench.adapter.submit(write(2, "log", 0, vec![small.clone()]));
    assert!(bench.inline(), "small and alone: done at once");
    assert_eq!(bench.done.len(), 2);
    bench.adapter.submit(write(3, "log", 4096, vec![large]));
    assert!(!bench.inline(), "large: handed over");
    bench.adapter.submit(write(4, "log", (1 << 20) + 4096, vec![small]));
    assert!(!bench.inline(), "small but not alone: behind the large one");
    assert_eq!(bench.until(4), [1, 2, 3, 4]);
    assert!(bench.done.iter().all(|done| done.result.is_ok()));
}

#[test]
fn a_small_write_that_waits_to_be_done_inline_is_not_overtaken_by_a_large_one() {
    let mut bench = Bench::new();
    bench.adapter.submit(create(1, "log", 4 << 20));
    bench.until(1);
    let large = bench.pool.block(&vec![2; 1 << 20]);
    bench.adapter.submit(write(2, "log", 0, vec![bench.pool.block(&[1; 100])]));
    bench.adapter.submit(write(3, "log", 4096, vec![large]));
    assert!(!bench.inline(), "both went to the log thread");
    assert_eq!(bench.until(3), [1, 2, 3]);
    bench.adapter.submit(write(4, "log", 0, vec![bench.pool.block(&[3; 100])]));
    assert!(bench.inline(), "and small ones are done inline again");
}

#[test]
fn what_depends_on_something_under_way_elsewhere_waits_for_it() {
    let mut bench = Bench::new();
    let block = bench.pool.block(&[5; PAGE]);
    bench.adapter.submit(prepare(1, "log", 8 << 20));
    bench.adapter.submit(write(2, "log", 0, vec![block.clone()]));
    bench.adapter.submit(read(3, "log", 0, 10));
    bench.adapter.submit(delete(4, "log"));
    bench.adapter.submit(create(5, "log", PAGE as u64));
    bench.adapter.submit(read(6, "log", 0, 1));
    let order = bench.until(6);
    assert_eq!(order, [1, 2, 3, 4, 5, 6], "one after the other, on three threads");
    assert_eq!(bench.done[2].result.as_ref().expect("read").as_slice(), [5; 10]);
    assert_eq!(bench.done[5].result.as_ref().expect("read").as_slice(), [0]);
}

#[test]
fn writes_of_different_files_keep_their_order_and_none_is_begun_after_one_that_failed() {
    let mut bench = Bench::new();
    let large = bench.pool.block(&vec![2; 1 << 20]);
    bench.adapter.submit(create(1, "next", 4 << 20));
    bench.until(1);
    bench.adapter.submit(prepare(2, "log", 64 << 20));
    bench.adapter.submit(write(3, "log", 0, vec![large.clone()]));
    bench.adapter.submit(write(4, "next", 0, vec![large.clone()]));
    assert_eq!(bench.until(4), [1, 2, 3, 4], "the second waits for the first, which waits for its file");
    bench.adapter.calls().asked();
    bench.adapter.calls().fail_write.store(true, SeqCst);
    bench.adapter.submit(write(5, "log", 0, vec![large.clone()]));
    bench.adapter.submit(write(6, "next", 0, vec![large]));
    assert_eq!(bench.until(6)[4..], [5, 6]);
    assert!(bench.done[4..].iter().all(|done| done.result.is_err()));
    assert_eq!(bench.adapter.calls().asked(), ["write log"], "the second was not even tried");
}

#[test]
fn reads_behind_each_other_become_one_and_each_gets_its_bytes() {
    let scratch = Scratch::new();
    let calls = Arc::new(Watched::default());
    let files = Files::new(&scratch.path, calls.clone(), Pool::default());
    let content: Vec<u8> = (0..3 * PAGE + 10).map(|at| (at / 100) as u8).collect();
    std::fs::write(scratch.path.join("run"), &content).expect("written");
    calls.asked();
    // Between the first and the second lies what nobody wants; the last one ends with the file.
    let run = [
        read(1, "run", 0, PAGE - 7),
        read(2, "run", PAGE as u64, 2 * PAGE),
        read(3, "run", 3 * PAGE as u64, 10),
    ];
    let done = files.read_run(&run);
    assert_eq!(calls.asked(), ["read 3 parts of run"]);
    let places = [(1, 0..PAGE - 7), (2, PAGE..3 * PAGE), (3, 3 * PAGE..3 * PAGE + 10)];
    for (done, (id, place)) in done.into_iter().zip(places) {
        assert_eq!(done.id, OpId(id));
        assert!(bytes_of(done) == content[place], "read {id}");
    }
    // One that cannot be read keeps nothing from the others.
    let run = [read(4, "run", 2 * PAGE as u64, PAGE), read(5, "run", 3 * PAGE as u64, 11)];
    let [fourth, fifth] = files.read_run(&run).try_into().expect("two");
    assert_eq!(bytes_of(fourth), content[2 * PAGE..3 * PAGE]);
    let short = fifth.result.expect_err("beyond the end of the file");
    assert!(short.contains("only 10 of 11"), "{short}");
}

#[test]
fn many_reads_are_each_done_once_whichever_thread_does_them() {
    let mut bench = Bench::new();
    for file in 0..40 {
        bench.adapter.submit(prepare(file, &format!("file-{file}"), 64 << 10));
    }
    bench.until(40);
    bench.done.clear();
    for file in 0..40 {
        bench.adapter.submit(read(100 + file, &format!("file-{file}"), 0, 64 << 10));
    }
    let mut order = bench.until(40);
    order.sort_unstable();
    assert_eq!(order, (100..140).collect::<Vec<_>>());
    assert!(bench.done.iter().all(|done| done.result.as_ref().is_ok_and(|block| block.len() == 64 << 10)));
}
