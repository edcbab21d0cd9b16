//! A network that can be cut.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on while it is whole; a cut drops the open ones and refuses new ones.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// How often it was cut or mended: an even number while it is whole. A connection so sees also a cut that was mended
    /// before it looked.
    changes: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (changes, state) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut inbound, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    let began = *state.borrow();
                    if began % 2 == 1 {
                        return;
                    }
                    let Ok(mut outbound) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inbound, &mut outbound) => {}
                        _ = state.wait_for(|now| *now != began) => {}
                    }
                });
            }
        });
        Self { address, changes }
    }

    pub(crate) fn cut(&self) {
        self.changes.send_modify(|changes| *changes |= 1);
    }

    pub(crate) fn mend(&self) {
        self.changes.send_modify(|changes| *changes += *changes % 2);
    }
}
