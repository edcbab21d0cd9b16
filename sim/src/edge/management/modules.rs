//! Modules: what they are, their logs, and starting and stopping them.

use std::collections::HashMap;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shared;
use crate::edge::api::{ApiError, json_response};
use crate::edge::board::{ModuleState, RuntimeState};
use crate::edge::engine::{Engine, LogFrame, LogRequest};
use crate::edge::logs::point_in_time;
use crate::edge::supervisor::Action;
use crate::http::{StatusCode, header};

/// The answer of `GET /modules`, of both local APIs.
pub(in crate::edge) fn module_list(state: &RuntimeState) -> Value {
    let modules = state.modules.iter().map(|(name, module)| details(name, module));
    json!({"modules": modules.collect::<Vec<_>>()})
}

pub(super) async fn list<E: Engine>(State(services): Shared<E>) -> Response {
    json_response(StatusCode::OK, &module_list(&services.upstream.board.state()))
}

pub(super) async fn one<E: Engine>(
    State(services): Shared<E>,
    Path(module): Path<String>,
) -> Result<Response, ApiError> {
    match services.upstream.board.state().modules.get(&module) {
        Some(state) => Ok(json_response(StatusCode::OK, &details(&module, state))),
        None => Err(no_such_module(&module)),
    }
}

/// The id is the real daemon's, for which all modules are equal.
fn details(name: &str, module: &ModuleState) -> Value {
    let observed = module.observed.as_ref();
    let mut status = json!({"runtimeStatus": {"status": module.status, "description": module.description}});
    if let Some(started) = observed.and_then(|seen| seen.started_at.as_ref()) {
        status["startTime"] = json!(started);
    }
    if let Some((code, time)) = observed.and_then(|seen| seen.exit_code.zip(seen.finished_at.as_ref())) {
        status["exitStatus"] = json!({"exitTime": time, "statusCode": code.to_string()});
    }
    json!({
        "id": "id",
        "name": name,
        "type": "docker",
        "config": {
            "settings": {"image": module.spec.image, "createOptions": module.spec.create_options},
            "env": [],
        },
        "status": status,
    })
}

pub(super) async fn act<E: Engine>(
    State(services): Shared<E>,
    Path((module, action)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let action = match action.to_ascii_lowercase().as_str() {
        "start" => Action::Start,
        "stop" => Action::Stop,
        "restart" => Action::Restart,
        _ => return Err(ApiError::not_found()),
    };
    must_exist(&*services.engine, &module).await?;
    services.orders.give(&module, action).await.map_err(ApiError::internal)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// In the frames of the container engine.
pub(super) async fn logs<E: Engine>(
    State(services): Shared<E>,
    Path(module): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let request = log_request(&query, Timestamp::now())?;
    must_exist(&*services.engine, &module).await?;
    let frames = services.engine.logs(&module, request).map_err(ApiError::internal)?;
    let body = Body::from_stream(frames.map_ok(framed));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

fn framed(frame: LogFrame) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + frame.text.len());
    bytes.put_u32(if frame.is_error { 2 << 24 } else { 1 << 24 });
    bytes.put_u32(u32::try_from(frame.text.len()).unwrap_or(u32::MAX));
    bytes.put(frame.text);
    bytes.freeze()
}

fn log_request(query: &HashMap<String, String>, now: Timestamp) -> Result<LogRequest, ApiError> {
    fn parsed<T: FromStr>(query: &HashMap<String, String>, name: &str) -> Result<Option<T>, ApiError> {
        let value = query.get(name).map(|text| text.parse()).transpose();
        value.map_err(|_| invalid(name))
    }
    fn invalid(name: &str) -> ApiError {
        ApiError::bad_request(&format!("invalid parameter: {name}"))
    }
    let time = |name: &str| match query.get(name) {
        Some(text) => point_in_time(text, now).map(Some).ok_or_else(|| invalid(name)),
        None => Ok(None),
    };
    let tail = match query.get("tail").map(String::as_str) {
        Some("all") => None,
        _ => parsed(query, "tail")?,
    };
    Ok(LogRequest {
        follow: parsed(query, "follow")?.unwrap_or_default(),
        tail,
        since: time("since")?,
        until: time("until")?,
        timestamps: parsed(query, "timestamps")?.unwrap_or_default(),
    })
}

async fn must_exist(engine: &impl Engine, module: &str) -> Result<(), ApiError> {
    match engine.modules().await.map_err(ApiError::internal)?.contains_key(module) {
        true => Ok(()),
        false => Err(no_such_module(module)),
    }
}

fn no_such_module(module: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, &format!("No such module: {module}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Result<LogRequest, ApiError> {
        let query = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        log_request(&query, "2026-01-02T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_lines_of_a_log_are_chosen_by_the_query() {
        assert_eq!(request(&[("tail", "all")]).unwrap(), LogRequest::default());
        let since = Some(1_767_225_600);
        let all = request(&[("follow", "true"), ("tail", "5"), ("since", "1d"), ("timestamps", "true")]);
        let expected = LogRequest { follow: true, tail: Some(5), since, until: None, timestamps: true };
        assert_eq!(all.unwrap(), expected);
        for name in ["follow", "tail", "since", "until", "timestamps"] {
            assert!(request(&[(name, "some")]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_frame_has_its_stream_and_its_length_in_front() {
        let frame = |is_error, text: &'static str| framed(LogFrame { is_error, text: text.into() });
        assert_eq!(frame(false, "out\n").as_ref(), b"\x01\0\0\0\0\0\0\x04out\n");
        assert_eq!(frame(true, "e").as_ref(), b"\x02\0\0\0\0\0\0\x01e");
    }
}
