//! The observed state: how each part of the system is found, as the engine, the cluster, the registry, the hub and the
//! files themselves tell it. Looking changes nothing, and nothing here is remembered from an earlier run.

use std::time::Duration;

use anyhow::Error;
use futures_util::future::join_all;

use crate::context::Context;
use crate::engine::Foreign;
use crate::plan::{Action, Condition, Observed};
use crate::steps;

/// A part that does not answer within this does not work.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks at all that `goals` need, at the same time.
pub async fn observe(context: &Context, goals: &[Action]) -> Observed {
    let looks = Action::leading_to(goals, context.settings.shape()).into_iter().map(|action| async move {
        let condition = match tokio::time::timeout(LIMIT, steps::observe(context, action)).await {
            Ok(Ok(condition)) => condition,
            Ok(Err(error)) => judge(&error),
            Err(_) => Condition::Unseen(format!("it does not answer within {} s", LIMIT.as_secs())),
        };
        (action, condition)
    });
    join_all(looks).await.into_iter().collect()
}

/// What cannot be looked at is to be brought about; what belongs to somebody else must stay.
fn judge(error: &Error) -> Condition {
    if error.chain().any(<dyn std::error::Error>::is::<Foreign>) {
        Condition::Blocked(format!("{error:#}"))
    } else {
        Condition::Unseen(format!("{error:#}"))
    }
}
