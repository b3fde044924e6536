//! The servers under comparison: started on free ports with empty data directories, stopped and removed at the end.
//!
//! In: where the programs are. Out: a running server's address. Never touches a server it did not start.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::client::Client;
use crate::error::{Error, Result, Trying};
use crate::url::Url;

/// How long a server may take to let the first client in, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This broker.
    Waystation,
    /// RabbitMQ as Debian packages it.
    RabbitMq,
}

impl Kind {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Waystation => "Waystation",
            Kind::RabbitMq => "RabbitMQ",
        }
    }
}

/// Where programs and data are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The `waystation` program.
    pub(crate) waystation: PathBuf,
    /// More arguments for `waystation serve`.
    pub(crate) serve_args: Vec<String>,
    /// The `rabbitmq-server` script.
    pub(crate) rabbitmq: PathBuf,
    /// A directory for both servers' data, on the disk to be measured.
    pub(crate) dir: PathBuf,
}

/// A server that was started here.
pub(crate) struct Server {
    /// Which it is.
    pub(crate) kind: Kind,
    /// Where clients connect.
    pub(crate) url: Url,
    /// Where its counters are.
    pub(crate) metrics_url: Option<String>,
    /// What it says of itself.
    pub(crate) version: String,
    child: Child,
    dir: PathBuf,
    name_port: Option<u16>,
}

impl Server {
    /// Starts a server of `kind` and waits until it lets a client in.
    pub(crate) fn start(kind: Kind, places: &Places) -> Result<Server> {
        let dir = places.dir.join(kind.name().to_lowercase());
        fs::create_dir_all(&dir).trying("making a data directory")?;
        let [amqp, second, third] = free_ports()?;
        let mut command = match kind {
            Kind::Waystation => waystation(places, &dir, amqp, second),
            Kind::RabbitMq => rabbitmq(places, &dir, amqp, second, third),
        };
        let log = File::create(dir.join("output.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().trying(&format!("starting {}", kind.name()))?;
        let mut server = Server {
            kind,
            url: Url::parse(&format!("amqp://127.0.0.1:{amqp}"))?,
            metrics_url: (kind == Kind::Waystation).then(|| format!("http://127.0.0.1:{second}/metrics")),
            version: String::new(),
            child,
            dir,
            name_port: (kind == Kind::RabbitMq).then_some(third),
        };
        server.version = server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<String> {
        let start = Instant::now();
        loop {
            match Client::connect(&self.url) {
                Ok(client) => return Ok(client.version().unwrap_or_default().to_owned()),
                Err(error) if start.elapsed() > PATIENCE => return Err(error).trying(self.kind.name()),
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.dir.join("output.log")).unwrap_or_default();
                let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output");
                return Err(Error::new(format!("{} ended with {status}: {last}", self.kind.name())));
            }
            // A server that is starting gives no sign that could be waited for.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to stop, waits, and ends it by force if it does not.
    fn stop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        // The group holds whatever its script left behind; if there is nothing, this fails and that is fine.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
        if let Some(port) = self.name_port {
            let _ = Command::new("epmd").arg("-kill").env("ERL_EPMD_PORT", port.to_string()).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn waystation(places: &Places, dir: &Path, amqp: u16, http: u16) -> Command {
    let mut command = Command::new(&places.waystation);
    command.arg("serve").arg("--data-dir").arg(dir.join("data"));
    command.arg("--listen").arg(format!("amqp://127.0.0.1:{amqp}"));
    command.arg("--listen").arg(format!("http://127.0.0.1:{http}"));
    command.args(&places.serve_args);
    command
}

/// RabbitMQ keeps everything below `dir`: own node name, own ports, no plugins, no configuration of the machine's.
fn rabbitmq(places: &Places, dir: &Path, amqp: u16, distribution: u16, names: u16) -> Command {
    let mut command = Command::new(&places.rabbitmq);
    command
        .env("HOME", dir)
        .env("RABBITMQ_NODENAME", format!("bench{amqp}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", amqp.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_PID_FILE", dir.join("pid"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("none"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("none"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"));
    command
}

/// Three ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0").trying("looking for a free port");
    // Held together, so that they differ.
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Installs RabbitMQ from the distribution's packages.
pub(crate) fn install_rabbitmq() -> Result<()> {
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "rabbitmq-server"]] {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .trying("running apt-get")?;
        if !status.success() {
            return Err(Error::new(format!("apt-get {} ended with {status}", arguments.join(" "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_last_words() {
        let dir = std::env::temp_dir().join(format!("bench-peers-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("broken");
        fs::write(&program, "#!/bin/sh\necho no such flag: $1 >&2\nexit 3\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let places = Places {
            waystation: program.clone(),
            serve_args: Vec::new(),
            rabbitmq: program,
            dir: dir.clone(),
        };
        let error = Server::start(Kind::Waystation, &places).err().unwrap().to_string();
        assert!(error.contains("ended with exit status: 3: no such flag: serve"), "{error}");
        assert!(!dir.join("waystation").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c && a > 0);
    }
}
