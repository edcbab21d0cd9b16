//! Certificates that the Edge CA issues for a module.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use crate::edge::api::{ApiError, json_body, json_response};
use crate::http::StatusCode;
use crate::pki::{IssuedCertificate, PkiError, Validity};

/// As the real service, whatever expiry the request names.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerCertificateRequest {
    common_name: String,
}

/// For the name that the module asks for, and for its own.
pub(super) async fn server(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ServerCertificateRequest { common_name } = json_body(&headers, &body)?;
    let names = [common_name.as_str(), context.module.trim_start_matches('$')];
    answer(context.services.edge_ca.issue_server(&names, VALIDITY))
}

/// By which the module proves who it is. A body is not needed.
pub(super) async fn identity(State(context): State<Context>) -> Result<Response, ApiError> {
    let upstream = &context.services.upstream;
    let (hub, device) = (&upstream.link.hub_name, upstream.identities.device_id());
    let uri = format!("azureiot://{hub}/devices/{device}/modules/{}", context.module);
    let validity = Validity::for_next(VALIDITY);
    answer(context.services.edge_ca.issue_client_for(&context.module, &uri, validity))
}

fn answer(issued: Result<IssuedCertificate, PkiError>) -> Result<Response, ApiError> {
    let issued = issued.map_err(ApiError::internal)?;
    let expiration = Timestamp::now().checked_add(VALIDITY).unwrap_or(Timestamp::MAX);
    let answer = json!({
        "privateKey": {"type": "key", "bytes": issued.key_pem.expose()},
        "certificate": issued.chain_pem,
        "expiration": expiration.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
    });
    Ok(json_response(StatusCode::CREATED, &answer))
}
