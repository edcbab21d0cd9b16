//! The workload API: what a module asks of the runtime over its own unix socket.
//!
//! Each module has a socket of its own, so the socket says who asks; a request for another module
//! is refused. Bodies need no content type, because the Python SDK sends none.

mod certificates;
mod keys;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio_util::sync::DropGuard;

use super::api::{ApiError, json_response, require_api_version};
use super::identity::ModuleIdentity;
use super::link::Upstream;
use super::management::module_list;
use super::seal::Sealer;
use crate::http::StatusCode;
use crate::pki::CertificateAuthority;
use crate::unix_http;

/// Modules run as any user, so everybody may write; the bind decides which module sees the socket.
const SOCKET_MODE: u32 = 0o666;
const MAX_BODY: usize = 1024 * 1024;

/// The workload sockets of all modules.
pub struct Workloads {
    folder: PathBuf,
    services: Services,
    open: Mutex<HashMap<String, DropGuard>>,
}

/// What requests are answered from.
#[derive(Clone)]
pub struct Services {
    /// Identities and state.
    pub upstream: Arc<Upstream>,
    /// Issues certificates for modules.
    pub edge_ca: Arc<CertificateAuthority>,
    /// Encrypts what modules keep.
    pub sealer: Arc<Sealer>,
    /// What modules trust.
    pub trust_bundle: String,
}

impl Workloads {
    /// Sockets in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf, services: Services) -> Self {
        Self { folder, services, open: Mutex::default() }
    }

    /// Where the socket of a module is.
    #[must_use]
    pub fn socket(&self, module: &str) -> PathBuf {
        self.folder.join(format!("{module}.sock"))
    }

    /// Serves the socket of a module, unless it is served already.
    pub async fn open(&self, module: &str) -> io::Result<()> {
        if self.opened().contains_key(module) {
            return Ok(());
        }
        let listener = unix_http::listen(&self.socket(module), SOCKET_MODE).await?;
        let stop = self.services.upstream.shutdown.child_token();
        tokio::spawn(unix_http::serve(listener, router(module, &self.services), stop.clone()));
        self.opened().insert(module.to_owned(), stop.drop_guard());
        Ok(())
    }

    /// Stops serving the socket of a module.
    pub fn close(&self, module: &str) {
        self.opened().remove(module);
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<String, DropGuard>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Context {
    module: Arc<str>,
    services: Services,
}

fn router(module: &str, services: &Services) -> Router {
    let context = Context { module: module.into(), services: services.clone() };
    let own = Router::new()
        .route("/modules/{module}/genid/{generation}/sign", post(keys::sign))
        .route("/modules/{module}/genid/{generation}/encrypt", post(keys::encrypt))
        .route("/modules/{module}/genid/{generation}/decrypt", post(keys::decrypt))
        .route("/modules/{module}/genid/{generation}/certificate/server", post(certificates::server))
        .route("/modules/{module}/certificate/identity", post(certificates::identity))
        .route_layer(axum::middleware::from_fn_with_state(context.clone(), only_its_own_module));
    Router::new()
        .route("/modules", get(list))
        .route("/trust-bundle", get(trust_bundle))
        .route("/manifest-trust-bundle", get(manifest_trust_bundle))
        .merge(own)
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(axum::middleware::from_fn(require_api_version))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(context)
}

async fn only_its_own_module(
    State(context): State<Context>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    if path.get("module").map(String::as_str) == Some(&*context.module) {
        return next.run(request).await;
    }
    tracing::warn!("Module {} asked the workload API for another module", context.module);
    ApiError::forbidden().into_response()
}

async fn list(State(context): State<Context>) -> Response {
    json_response(StatusCode::OK, &module_list(&context.services.upstream.board.state()))
}

async fn trust_bundle(State(context): State<Context>) -> Response {
    json_response(StatusCode::OK, &json!({"certificate": context.services.trust_bundle}))
}

/// There is no signing of manifests here.
async fn manifest_trust_bundle() -> Response {
    json_response(StatusCode::OK, &json!({"certificate": ""}))
}

impl Context {
    fn identity(&self) -> Result<Arc<ModuleIdentity>, ApiError> {
        let identity = self.services.upstream.identities.get(&self.module);
        identity.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "module identity not found"))
    }
}
