//! Signatures with the key of a module, and what the runtime encrypts for it.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use crate::edge::api::{ApiError, json_body, json_response};
use crate::http::StatusCode;

/// Key and algorithm may be named, and are always the module's primary key and HMAC-SHA256.
#[derive(Deserialize)]
struct SignRequest {
    data: String,
}

pub(super) async fn sign(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let SignRequest { data } = json_body(&headers, &body)?;
    let digest = context.identity()?.sign(&decoded(&data)?);
    Ok(json_response(StatusCode::OK, &json!({"digest": STANDARD.encode(digest)})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest {
    plaintext: String,
    initialization_vector: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest {
    ciphertext: String,
    initialization_vector: String,
}

pub(super) async fn encrypt(
    State(context): State<Context>,
    Path((module, generation)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let EncryptRequest { plaintext, initialization_vector } = json_body(&headers, &body)?;
    let (plaintext, vector) = (decoded(&plaintext)?, decoded(&initialization_vector)?);
    let owner = owner(&module, &generation);
    let ciphertext = context.services.sealer.seal(owner.as_bytes(), &vector, plaintext);
    let ciphertext = STANDARD.encode(ciphertext.map_err(ApiError::internal)?);
    Ok(json_response(StatusCode::OK, &json!({"ciphertext": ciphertext})))
}

pub(super) async fn decrypt(
    State(context): State<Context>,
    Path((module, generation)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let DecryptRequest { ciphertext, initialization_vector } = json_body(&headers, &body)?;
    let (ciphertext, vector) = (decoded(&ciphertext)?, decoded(&initialization_vector)?);
    let owner = owner(&module, &generation);
    let plaintext = context.services.sealer.open(owner.as_bytes(), &vector, ciphertext);
    let plaintext = STANDARD.encode(plaintext.map_err(ApiError::internal)?);
    Ok(json_response(StatusCode::OK, &json!({"plaintext": plaintext})))
}

/// For whom something is encrypted. The id of a module has no slash, so the two stay apart.
fn owner(module: &str, generation: &str) -> String {
    format!("{module}/{generation}")
}

fn decoded(text: &str) -> Result<Vec<u8>, ApiError> {
    STANDARD.decode(text).map_err(|error| ApiError::bad_request(&format!("invalid parameter: {error}")))
}
