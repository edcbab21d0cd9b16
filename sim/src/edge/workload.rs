//! The workload API: what a module asks of the runtime over its own unix socket.
//!
//! Each module has a socket of its own, so the socket says who asks; a request for another module
//! is refused. Bodies need no content type, because the Python SDK sends none.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::DropGuard;

use super::api::{ApiError, json_response, require_api_version};
use super::identity::ModuleIdentity;
use super::link::Upstream;
use super::management::module_list;
use crate::http::StatusCode;
use crate::pki::CertificateAuthority;
use crate::unix_http;

/// Modules run as any user, so everybody may write; the bind decides which module sees the socket.
const SOCKET_MODE: u32 = 0o666;
const MAX_BODY: usize = 64 * 1024;
/// As the real service, whatever expiry the request names.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

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
        .route("/modules/{module}/genid/{generation}/sign", post(sign))
        .route("/modules/{module}/genid/{generation}/certificate/server", post(server_certificate))
        .route_layer(axum::middleware::from_fn_with_state(context.clone(), only_its_own_module));
    Router::new()
        .route("/modules", get(list))
        .route("/trust-bundle", get(trust_bundle))
        .route("/manifest-trust-bundle", get(trust_bundle))
        .merge(own)
        .fallback(async || ApiError::not_found())
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
    ApiError::new(StatusCode::FORBIDDEN, "forbidden").into_response()
}

async fn list(State(context): State<Context>) -> Response {
    json_response(StatusCode::OK, &module_list(&context.services.upstream.board.state()))
}

async fn trust_bundle(State(context): State<Context>) -> Response {
    json_response(StatusCode::OK, &json!({"certificate": context.services.trust_bundle}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignRequest {
    key_id: String,
    algo: String,
    data: String,
}

async fn sign(State(context): State<Context>, body: Bytes) -> Result<Response, ApiError> {
    let request: SignRequest = parse(&body)?;
    let data = STANDARD.decode(&request.data).map_err(|_| ApiError::bad_request("data is not base64"))?;
    if request.algo != "HMACSHA256" {
        return Err(ApiError::bad_request("algo is not HMACSHA256"));
    }
    let identity = context.identity()?;
    let digest = match request.key_id.as_str() {
        "primary" => identity.sign(&data),
        "secondary" => identity.sign_with_secondary(&data),
        _ => return Err(ApiError::bad_request("keyId is neither primary nor secondary")),
    };
    Ok(json_response(StatusCode::OK, &json!({"digest": STANDARD.encode(digest)})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateRequest {
    common_name: String,
}

async fn server_certificate(State(context): State<Context>, body: Bytes) -> Result<Response, ApiError> {
    let request: CertificateRequest = parse(&body)?;
    let names = [request.common_name.as_str(), context.module.trim_start_matches('$')];
    let issued = context
        .services
        .edge_ca
        .issue_server(&names, CERTIFICATE_VALIDITY)
        .map_err(|error| ApiError::bad_request(&error.to_string()))?;
    let expiration = Timestamp::now().checked_add(CERTIFICATE_VALIDITY).unwrap_or(Timestamp::MAX);
    let answer = json!({
        "privateKey": {"type": "key", "bytes": issued.key_pem.expose()},
        "certificate": issued.chain_pem,
        "expiration": expiration.to_string(),
    });
    Ok(json_response(StatusCode::CREATED, &answer))
}

impl Context {
    fn identity(&self) -> Result<Arc<ModuleIdentity>, ApiError> {
        let identity = self.services.upstream.identities.get(&self.module);
        identity.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "module identity not found"))
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(&format!("malformed request body: {error}")))
}
