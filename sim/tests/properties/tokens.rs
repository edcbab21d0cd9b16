//! SAS tokens: good for their resource and their time, with their key, and for nothing else.

use kedge_sim::sas::{CLOCK_SKEW_SECS, SasError, SharedAccessKey, Token, sign};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{id, text};

fn key() -> impl Strategy<Value = SharedAccessKey> {
    vec(any::<u8>(), 1..64).prop_map(|bytes| SharedAccessKey::from_bytes(bytes).unwrap())
}

proptest! {
    #[test]
    fn a_token_proves_its_resource_until_it_expires(
        key in key(), device in id(), expiry in 1u64..=u64::from(u32::MAX), late in 1u64..=u64::from(u32::MAX)
    ) {
        let resource = format!("hub.test/devices/{device}");
        let token = Token::parse(&sign(&resource, &key, expiry, None)).unwrap();
        let last = expiry + CLOCK_SKEW_SECS;
        prop_assert_eq!(token.policy(), None);
        prop_assert_eq!(token.verify(std::slice::from_ref(&key), &resource, last), Ok(()));
        prop_assert_eq!(token.verify(&[key], &resource, last + late), Err(SasError::Expired));
    }

    #[test]
    fn a_token_of_another_key_or_device_is_refused(key in key(), other in key(), device in id(), second in id()) {
        let resource = format!("hub.test/devices/{device}");
        let token = Token::parse(&sign(&resource, &key, 1000, None)).unwrap();
        if key != other {
            prop_assert_eq!(token.verify(&[other], &resource, 1000), Err(SasError::WrongSignature));
        }
        // Audiences are compared without regard to case, as at the real hub.
        if !device.eq_ignore_ascii_case(&second) {
            let foreign = format!("hub.test/devices/{second}");
            prop_assert_eq!(token.verify(&[key], &foreign, 1000), Err(SasError::WrongAudience));
        }
    }

    #[test]
    fn a_changed_token_never_verifies(key in key(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let resource = "hub.test/devices/d";
        let text = sign(resource, &key, 1000, None);
        let mut changed: Vec<char> = text.chars().collect();
        let position = at.index(changed.len());
        changed[position] = with;
        let changed: String = changed.into_iter().collect();
        if let Ok(token) = Token::parse(&changed) {
            let same_signature = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
            // An escape may be written in either case.
            if !same_signature(&changed, &text) {
                prop_assert!(token.verify(&[key], resource, 1000).is_err(), "{changed:?}");
            }
        }
    }

    #[test]
    fn a_key_is_read_back_from_its_text(key in key()) {
        prop_assert_eq!(SharedAccessKey::from_base64(key.to_base64().expose()), Ok(key));
    }

    #[test]
    fn any_text_is_read_or_refused(text in text()) {
        let _ = (Token::parse(&text), Token::parse(&format!("SharedAccessSignature {text}")));
        let _ = SharedAccessKey::from_base64(&text);
    }
}
