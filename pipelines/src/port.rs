//! Listening where one is told to, and saying who is in the way where that is not possible.

use std::fs;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// A place that cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// Somebody else listens there.
    #[error("{address} is in use by {by}. {free}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who listens there, as far as can be seen.
        by: String,
        /// Another address and how to take it.
        free: String,
    },
    /// Others could reach it.
    #[error("{setting} = \"{address}\" would let anybody on the network in: {missing}. {remedy}")]
    Open {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What would have to be there.
        missing: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// It cannot be listened at for another reason.
    #[error("cannot listen at {address}: {source}. Correct {setting}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What happened.
        source: io::Error,
    },
}

/// Listens at an address.
///
/// # Errors
/// Where that is not possible; if somebody else does, with their name and another port.
pub(crate) async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, PortError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(in_use(address, setting).await),
        Err(source) => Err(PortError::Io { address, setting, source }),
    }
}

/// Who is in the way at an address, and where it is free.
pub(crate) async fn in_use(address: SocketAddr, setting: &'static str) -> PortError {
    let by = listener_at(address.port()).unwrap_or_else(|| "another program".to_owned());
    let free = match free_after(address).await {
        Some(port) => format!("Port {port} is free: set {setting} = \"{}\"", SocketAddr::new(address.ip(), port)),
        None => format!("Choose another for {setting}"),
    };
    PortError::InUse { address, by, free }
}

async fn free_after(address: SocketAddr) -> Option<u16> {
    for port in (1..=100).filter_map(|step| address.port().checked_add(step)) {
        if TcpListener::bind(SocketAddr::new(address.ip(), port)).await.is_ok() {
            return Some(port);
        }
    }
    None
}

/// The program that listens at a port, by what Linux tells of sockets and processes. Other users'
/// processes are not visible to everybody.
fn listener_at(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
            (local == port && *fields.get(3)? == LISTEN).then(|| fields.get(9).map(ToString::to_string)).flatten()
        })
    })?;
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()));
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

/// Refuses an address that others on the network reach, for the broker inside ruam: it has neither sign-on nor
/// TLS. What servers may listen at, [`Guard`](crate::guard::Guard) says.
///
/// # Errors
/// Where it is not a loopback address.
pub(crate) fn only_here(address: SocketAddr, setting: &'static str) -> Result<(), PortError> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let missing = "the broker inside ruam has no sign-on";
    let remedy = "Use 127.0.0.1; for several machines, run Kafka and name it in log.bootstrap_servers";
    Err(PortError::Open { address, setting, missing, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_in_the_way_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address, "query.listen").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{address} is in use by ")), "{error}");
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert!(error.contains(" is free: set query.listen = \"127.0.0.1:"), "{error}");
    }
}
