//! Binding an address: the port is taken at once, clients are let in later, when the node can serve them.

use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::config::{Listen, Scheme};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address that is ours but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    /// What it speaks.
    pub scheme: Scheme,
    /// Where; the port that was picked if any would do.
    pub address: SocketAddr,
    socket: TcpListener,
}

impl Bound {
    /// Starts answering.
    pub fn open(self) -> Result<TcpListener, String> {
        let told = |error: std::io::Error| refusal(self.scheme, self.address, &error);
        rustix::net::listen(&self.socket, BACKLOG).map_err(|error| told(error.into()))?;
        self.socket.set_nonblocking(true).map_err(told)?;
        Ok(self.socket)
    }
}

/// Takes the address; `Err` says what to do about it.
pub fn bind(listen: &Listen) -> Result<Bound, String> {
    let address = listen.address;
    let bound = || -> std::io::Result<Bound> {
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A restart must not wait for the connections of the previous run to time out.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        let socket = TcpListener::from(socket);
        Ok(Bound { scheme: listen.scheme, address: socket.local_addr()?, socket })
    };
    bound().map_err(|error| refusal(listen.scheme, address, &error))
}

fn refusal(scheme: Scheme, address: SocketAddr, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let port = address.port();
    let advice = match error.kind() {
        AddrInUse => format!(
            "port {port} is already in use, perhaps by another waystation or another broker; stop that, or choose \
             another port with --listen {scheme}://{}:PORT (0 picks a free one)",
            host(address)
        ),
        AddrNotAvailable => format!("{} is not an address of this machine", address.ip()),
        PermissionDenied => format!("port {port} needs a privilege this process does not have"),
        _ => error.to_string(),
    };
    format!("cannot listen on {scheme}://{address}: {advice}")
}

fn host(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() }
}
