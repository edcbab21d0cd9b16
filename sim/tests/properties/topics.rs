//! Topics, filters, and the names of a CONNECT.

use kedge_sim::identity::{Identity, Username};
use kedge_sim::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};
use proptest::prelude::*;

use crate::{id, request_id, text};

fn identity() -> impl Strategy<Value = Identity> {
    (id(), proptest::option::of(id())).prop_map(|(device, module)| match module {
        Some(module) => Identity::module(&device, &module).unwrap(),
        None => Identity::device(&device).unwrap(),
    })
}

fn bag() -> impl Strategy<Value = PropertyBag> {
    proptest::collection::btree_map("[a-z$.ü ]{1,12}", text(), 0..6)
        .prop_map(|pairs| pairs.into_iter().collect())
}

fn client_topic() -> impl Strategy<Value = ClientTopic> {
    prop_oneof![
        (identity(), bag())
            .prop_map(|(identity, properties)| ClientTopic::Telemetry { identity, properties }),
        request_id().prop_map(|request_id| ClientTopic::TwinGet { request_id }),
        request_id().prop_map(|request_id| ClientTopic::ReportedPatch { request_id }),
        (any::<i32>(), request_id())
            .prop_map(|(status, request_id)| ClientTopic::MethodResponse { status, request_id }),
    ]
}

fn hub_topic() -> impl Strategy<Value = HubTopic> {
    let version = proptest::option::of(any::<u64>());
    prop_oneof![
        (any::<u16>(), request_id(), version).prop_map(|(status, request_id, version)| {
            HubTopic::TwinResponse { status, request_id, version }
        }),
        any::<u64>().prop_map(|version| HubTopic::DesiredPatch { version }),
        ("[A-Za-z0-9_.-]{1,64}", request_id())
            .prop_map(|(name, request_id)| HubTopic::MethodCall { name, request_id }),
        (id(), bag()).prop_map(|(device, properties)| {
            HubTopic::CloudToDevice { identity: Identity::device(&device).unwrap(), properties }
        }),
        (id(), id(), "[A-Za-z0-9_-]{1,32}", bag()).prop_map(|(device, module, input, properties)| {
            HubTopic::ModuleInput { identity: Identity::module(&device, &module).unwrap(), input, properties }
        }),
    ]
}

proptest! {
    #[test]
    fn what_a_client_publishes_on_is_read_back_the_same(topic in client_topic()) {
        prop_assert_eq!(ClientTopic::parse(&topic.to_string()), Ok(topic));
    }

    #[test]
    fn what_the_hub_publishes_on_is_read_back_the_same(topic in hub_topic()) {
        prop_assert_eq!(HubTopic::parse(&topic.to_string()), Ok(topic));
    }

    #[test]
    fn a_filter_is_read_back_the_same_and_open_to_its_owner_alone(one in identity(), other in identity()) {
        let mut subscriptions = vec![Subscription::CloudToDevice(one.clone())];
        if one.module_id().is_some() {
            subscriptions.push(Subscription::ModuleInputs(one.clone()));
        }
        for subscription in subscriptions {
            prop_assert_eq!(Subscription::parse(&subscription.to_string()), Ok(subscription.clone()));
            prop_assert!(subscription.is_open_to(&one));
            prop_assert_eq!(subscription.is_open_to(&other), one == other);
        }
    }

    #[test]
    fn an_identity_is_read_from_its_client_id_and_its_user_name(identity in identity(), hub in "[a-z][a-z0-9.-]{0,40}") {
        prop_assert_eq!(Identity::from_client_id(&identity.client_id()), Ok(identity.clone()));
        let username = Username::parse(&identity.username(&hub)).unwrap();
        prop_assert_eq!((username.hub_name, username.identity), (hub, identity));
    }

    #[test]
    fn any_text_is_read_or_refused(text in text()) {
        let _ = (ClientTopic::parse(&text), HubTopic::parse(&text), Subscription::parse(&text));
        let _ = (Identity::from_client_id(&text), Username::parse(&text));
    }
}
