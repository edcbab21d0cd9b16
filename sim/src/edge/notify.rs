//! Tells systemd that the daemon is ready, by `sd_notify`'s protocol.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to the socket that systemd named in `NOTIFY_SOCKET`.
pub fn ready(notify_socket: &OsStr) -> io::Result<()> {
    let address = match notify_socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(notify_socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_over_a_file_and_over_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("@kedge-notify-test-{}", std::process::id());
        let addresses = [
            (path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap()),
            (abstract_name.clone().into(), SocketAddr::from_abstract_name(&abstract_name[1..]).unwrap()),
        ];
        for (name, address) in addresses {
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            ready(&name).unwrap();
            let mut message = [0; 16];
            let length = listener.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1\n");
        }
        assert!(ready(OsStr::new("/nonexistent/notify")).is_err());
    }
}
