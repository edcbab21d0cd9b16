//! A question over AMQP and its answer, as Event Hubs use it for tokens and for what they tell of themselves: a message
//! to a node, and a reply to an address of our own, on a link each.

use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, Properties, Source, Target,
};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Sender};

use super::message;
use super::trouble::Trouble;

/// The answer to a question.
#[derive(Debug)]
pub(super) struct Answer {
    /// As in HTTP.
    pub(super) status: u64,
    /// What is wrong, in the server's words.
    pub(super) description: String,
    /// What was asked for.
    pub(super) body: Value,
}

/// Asks the node; the caller sets the time limit.
pub(super) async fn ask(
    session: &mut SessionHandle<()>,
    node: &str,
    properties: ApplicationProperties,
    body: Value,
) -> Result<Answer, Trouble> {
    let own = format!("kedge-{}", node.trim_start_matches('$'));
    let mut sender = Sender::builder()
        .name(format!("{own}-request"))
        .source(Source::builder().address(own.as_str()).build())
        .target(node)
        .attach(session)
        .await?;
    let mut receiver = Receiver::builder()
        .name(format!("{own}-answer"))
        .source(node)
        .target(Target::builder().address(own.as_str()).build())
        .auto_accept(true)
        .attach(session)
        .await?;
    let message = Message::builder()
        .properties(Properties::builder().message_id(own.clone()).reply_to(own).build())
        .application_properties(properties)
        .body(Body::Value(AmqpValue(body)))
        .build();
    sender.send(message).await?;
    let answer = receiver.recv::<Body<Value>>().await?.into_message();
    // The answer is here; how the links end does not matter.
    let _ = sender.close().await;
    let _ = receiver.close().await;
    Ok(read(answer))
}

fn read(message: Message<Body<Value>>) -> Answer {
    let properties = message.application_properties.map(|all| all.0).unwrap_or_default();
    // Tokens are answered with one spelling, questions to `$management` with either.
    let property = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| properties.get(*name));
        found.cloned().map(|value: SimpleValue| Value::from(value))
    };
    let status = property(["status-code", "statusCode"]).as_ref().and_then(message::number);
    let description = property(["status-description", "statusDescription"]);
    Answer {
        status: status.unwrap_or_default(),
        description: description.as_ref().and_then(message::text).unwrap_or_default(),
        body: message.body.try_into_value().unwrap_or_default(),
    }
}
