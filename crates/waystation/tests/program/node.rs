//! A running node and short-lived commands, for the tests of the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_waystation");
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes when the test ends.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("waystation-program-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch { path }
    }

    pub fn data(&self) -> String {
        self.path.join("data").display().to_string()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A node on ports of its own; killed when dropped.
pub struct Node {
    child: Child,
    log: BufReader<ChildStderr>,
    before: String,
    pub ready_line: String,
    pub amqp: SocketAddr,
    pub http: SocketAddr,
}

impl Node {
    pub fn start(scratch: &Scratch, more: &[&str]) -> Node {
        let data = scratch.data();
        let flags = [
            "serve",
            "--listen",
            "amqp://127.0.0.1:0",
            "--listen",
            "http://127.0.0.1:0",
            "--data-dir",
            &data,
        ];
        let mut command = Command::new(PROGRAM);
        let mut child = command.args(flags).args(more).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut before = String::new();
        let ready_line = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("a log") > 0, "it ended before it was ready:\n{before}");
            before += &line;
            if line.contains(" ready: ") {
                break line.trim_end().to_owned();
            }
        };
        let address = |scheme: &str| {
            let (_, rest) = ready_line.split_once(scheme).expect("named in the ready line");
            let end = rest.find([' ', '"']).unwrap_or(rest.len());
            rest[..end].parse().expect("an address")
        };
        let (amqp, http) = (address("amqp://"), address("http://"));
        Node { child, log, before, ready_line, amqp, http }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn await_ready(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (code, reason) = http(self.http, "/health/ready");
            if code == 200 {
                return;
            }
            assert!(Instant::now() < until, "never ready: {reason}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a number");
        kill_process(pid, signal).expect("signalled");
    }

    /// Waits for the end; the exit code and everything it logged.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let mut log = std::mem::take(&mut self.before);
        self.log.read_to_string(&mut log).expect("a log");
        (self.child.wait().expect("ended").code(), log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end: exit code, standard output, standard error.
pub fn waystation(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("ended");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Asks a node's HTTP address; code and body.
pub fn http(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("connected");
    write!(socket, "GET {path} HTTP/1.0\r\nhost: test\r\n\r\n").expect("asked");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let code = head.split(' ').nth(1).expect("a code").parse().expect("a number");
    (code, body.to_owned())
}
