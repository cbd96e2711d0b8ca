//! The demo's tidegate: started as by `tidegate run`, with a configuration and sockets of the demo's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use tidegate::app::control::Controller;
use tidegate::app::upgrade::inheritance::Inheritance;
use tidegate::app::{App, ControlLink};
use tidegate::config::Loaded;
use tidegate::control::outcome::Refusal;
use tidegate::control::request::{self, Change, ChangeReceiver, ChangeRequest};
use tidegate::control::status::SharedStatus;
use tidegate::log::Logging;
use tidegate::net::inherited::{InheritedSocket, InheritedSockets};
use tidegate::pool::Backend;
use tidegate::server::DataPlane;
use tokio::sync::mpsc;

/// Changes that wait for the balancer.
const QUEUE: usize = 16;

/// The name of its pool, and of its listener.
pub(super) const POOL: &str = "demo";

/// A listening socket, and where it was wanted if that was not possible.
pub(super) struct DemoSocket {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    /// The address, and why not.
    pub(super) instead_of: Option<(SocketAddr, io::Error)>,
}

impl DemoSocket {
    /// On this port of 127.0.0.1, or where that is not available, on one that the kernel chooses.
    ///
    /// # Errors
    /// Those of bind(2) without a port.
    pub(super) fn prefer(port: u16) -> io::Result<DemoSocket> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (socket, instead_of) = match TcpListener::bind(wanted) {
            Ok(socket) => (socket, None),
            Err(error) => (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, Some((wanted, error))),
        };
        Ok(DemoSocket { address: socket.local_addr()?, socket, instead_of })
    }

    /// On this port of 127.0.0.1 and no other.
    ///
    /// # Errors
    /// Those of bind(2), with the address.
    pub(super) fn require(port: u16) -> io::Result<DemoSocket> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}:{port}: {error}", Ipv4Addr::LOCALHOST))
        })?;
        Ok(DemoSocket { address: socket.local_addr()?, socket, instead_of: None })
    }
}

/// The balancer, and what asks it for changes.
pub(super) struct DemoBalancer {
    controller: Controller,
    status: Arc<SharedStatus>,
    /// What the admin interface asks for.
    asked: ChangeReceiver,
    /// Of this, what a demo can do.
    admitted: (mpsc::Sender<ChangeRequest>, ChangeReceiver),
}

impl DemoBalancer {
    /// Starts it with the configuration of `path`, whose addresses are those of the sockets.
    ///
    /// # Errors
    /// Why it cannot start.
    pub(super) async fn start(
        path: &Path,
        loaded: Loaded,
        logging: &Logging,
        sockets: impl IntoIterator<Item = DemoSocket>,
    ) -> io::Result<DemoBalancer> {
        let inherit = |it: DemoSocket| InheritedSocket::new(it.socket.into(), POOL, None).map_err(io::Error::other);
        let sockets = sockets.into_iter().map(inherit).collect::<io::Result<Vec<_>>>()?;
        let inheritance = Inheritance::from(InheritedSockets::new(sockets));
        let (changes, asked) = request::queue();
        let link = ControlLink { changes: Some(changes), ..ControlLink::default() };
        let status = Arc::clone(&link.status);
        let observer = Box::new(|_, _: &DataPlane| {});
        let controller = Controller::start(path, loaded, logging, link, inheritance, observer).await;
        let controller = controller.map_err(io::Error::other)?;
        Ok(DemoBalancer { controller, status, asked, admitted: mpsc::channel(QUEUE) })
    }

    pub(super) fn plane(&self) -> &Arc<DataPlane> {
        self.controller.app().plane()
    }

    pub(super) fn status(&self) -> &Arc<SharedStatus> {
        &self.status
    }

    /// Carries out changes until one asks for the end.
    pub(super) async fn run(&mut self) {
        let (admitted, changes) = &mut self.admitted;
        tokio::select! {
            _ = self.controller.run(changes) => {}
            () = admit(&mut self.asked, admitted) => {}
        }
    }

    /// From here on changes are refused.
    pub(super) fn into_app(self) -> App {
        self.controller.into_app()
    }
}

/// Passes requests on, but for upgrades: what would be started is another demo.
async fn admit(asked: &mut ChangeReceiver, admitted: &mpsc::Sender<ChangeRequest>) {
    while let Some(request) = asked.recv().await {
        if matches!(request.change, Change::Upgrade(_)) {
            let why = "a demo is not upgraded: try it with `tidegate run`";
            // Who asked may have gone.
            let _ = request.reply.send(Err(Refusal::Conflict(why.to_owned())));
        } else if admitted.send(request).await.is_err() {
            return;
        }
    }
}

/// A backend of the demo's pool by its name; `None` if somebody has removed it.
pub(super) fn backend(plane: &DataPlane, name: &str) -> Option<Arc<Backend>> {
    backends(plane).into_iter().find(|backend| **backend.name() == *name)
}

/// The backends of the demo's pool, without those that leave.
pub(super) fn backends(plane: &DataPlane) -> Vec<Arc<Backend>> {
    let pools = plane.pools();
    let pool = pools.iter().find(|pool| **pool.name() == *POOL);
    let backends = pool.map(|pool| pool.backends());
    let present = backends.iter().flat_map(|backends| backends.iter()).filter(|backend| !backend.is_leaving());
    present.map(Arc::clone).collect()
}
