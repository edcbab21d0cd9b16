//! The direct methods of edgeAgent: `ping`, `RestartModule` and `GetModuleLogs`.
//!
//! Names are compared without regard to case, and so are the names in a payload. Errors are
//! `{"message":"…"}`, with status 400 for what the caller did wrong and 500 for everything else.

mod logs;

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::FusedFuture as _;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::engine::Engine;
use super::link::{SessionEnd, Upstream};
use super::supervisor::{Action, Orders};
use crate::module_client::MethodCall;
use crate::mqtt::ClientError;

const SUPPORTED: &str = "ping,RestartModule,GetModuleLogs";
/// Calls that are worked on at the same time.
const MAX_CALLS: usize = 4;

/// A call that failed, as the caller sees it.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    status: i32,
    message: String,
}

impl Failure {
    /// The caller's fault.
    fn argument(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    /// Anything else.
    fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into() }
    }
}

/// Answers the methods of edgeAgent.
pub struct Methods<E> {
    engine: Arc<E>,
    orders: Orders,
    upstream: Arc<Upstream>,
}

impl<E: Engine> Methods<E> {
    /// Methods that act on the modules of `engine`.
    #[must_use]
    pub fn new(engine: Arc<E>, orders: Orders, upstream: Arc<Upstream>) -> Self {
        Self { engine, orders, upstream }
    }

    /// Answers calls until the connection ends, or until the `renewal` has ended the calls and all that came before are
    /// answered.
    pub async fn serve(
        &self,
        mut calls: mpsc::Receiver<MethodCall>,
        renewal: impl Future<Output = Result<(), ClientError>>,
    ) -> SessionEnd {
        let mut answers = FuturesUnordered::new();
        let mut renewal = pin!(renewal.fuse());
        let mut has_calls = true;
        while has_calls || !answers.is_empty() {
            tokio::select! {
                outcome = &mut renewal => if let Err(error) = outcome {
                    return error.into();
                },
                call = calls.recv(), if has_calls && answers.len() < MAX_CALLS => match call {
                    Some(call) => answers.push(self.answer(call)),
                    None if renewal.is_terminated() => has_calls = false,
                    None => return ClientError::Closed.into(),
                },
                Some(outcome) = answers.next(), if !answers.is_empty() => {
                    if let Err(error) = outcome {
                        return error.into();
                    }
                }
            }
        }
        SessionEnd::Renewal
    }

    async fn answer(&self, call: MethodCall) -> Result<(), ClientError> {
        let (status, body) = self.handle(&call.name, &call.body).await;
        call.answer(status, body).await
    }

    /// Status and payload for a call.
    async fn handle(&self, name: &str, body: &[u8]) -> (i32, Bytes) {
        tracing::info!("Received request {name}{}", if body.is_empty() { "" } else { " with payload" });
        let outcome = match name.to_ascii_lowercase().as_str() {
            "ping" => Ok(None),
            "restartmodule" => self.restart(body).await.map(|()| None),
            "getmodulelogs" => self.logs(body).await.map(Some),
            _ => Err(Failure::argument(format!(
                "Command '{name}' not found. The supported commands are - {SUPPORTED}"
            ))),
        };
        match outcome {
            Ok(payload) => {
                tracing::info!("Successfully handled request {name}");
                (200, payload.map_or_else(Bytes::new, |payload: Value| payload.to_string().into()))
            }
            Err(Failure { status, message }) => {
                tracing::warn!("Error handling request {name}: {message}");
                (status, json!({"message": message}).to_string().into())
            }
        }
    }

    async fn restart(&self, body: &[u8]) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Request {
            schemaversion: Option<Value>,
            id: Option<String>,
        }
        let request: Request = payload(body)?;
        let id = request.id.filter(|id| !id.trim().is_empty());
        let id = id.ok_or_else(|| Failure::argument(format!("{PARSING}id is missing")))?;
        check_schema(request.schemaversion.as_ref(), "restart module request schema")?;
        tracing::info!("Processing request to restart {id}");
        if id == "edgeAgent" || id == "edgeHub" {
            return Err(Failure::internal(format!(
                "Module {id} is a part of the simulated runtime, which restarts as a whole only"
            )));
        }
        let modules = self.engine.modules().await.map_err(|error| Failure::internal(error.message))?;
        if !modules.contains_key(&id) {
            return Err(Failure::internal(format!("Module {id} not found in the current environment")));
        }
        tracing::info!("Restarting {id}...");
        self.orders.give(&id, Action::Restart).await.map_err(Failure::internal)?;
        tracing::info!("Restarted {id}");
        Ok(())
    }
}

const PARSING: &str = "Error parsing command payload because of error - ";

/// Reads a payload, whatever the case of its names.
fn payload<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let parsing = |error: &dyn std::fmt::Display| Failure::argument(format!("{PARSING}{error}"));
    let value: Value = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|error| parsing(&error))?,
    };
    match value {
        Value::Null => Err(Failure::argument("Request payload not found")),
        value @ Value::Object(_) => {
            serde_json::from_value(in_lower_case(value)).map_err(|error| parsing(&error))
        }
        _ => Err(parsing(&"it is no object")),
    }
}

fn in_lower_case(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let lower = |(key, value): (String, Value)| (key.to_ascii_lowercase(), in_lower_case(value));
            Value::Object(map.into_iter().map(lower).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(in_lower_case).collect()),
        other => other,
    }
}

/// Any version 1; newer minor versions may say more than is understood.
fn check_schema(version: Option<&Value>, what: &str) -> Result<(), Failure> {
    let text = match version {
        Some(Value::String(text)) if !text.trim().is_empty() => text.trim().to_owned(),
        Some(number @ Value::Number(_)) => number.to_string(),
        _ => return Err(Failure::argument(format!("{PARSING}schemaVersion is missing"))),
    };
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([1, rest @ ..]) if (1..=3).contains(&rest.len()) => Ok(()),
        Some([_, rest @ ..]) if (1..=3).contains(&rest.len()) => Err(Failure::internal(format!(
            "The {what} version {text} is not compatible with the expected version 1.0"
        ))),
        _ => Err(Failure::internal(format!("Invalid {what} version {text}"))),
    }
}

#[cfg(test)]
pub(super) mod tests;
