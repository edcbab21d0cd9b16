//! Lists in pages: the caller says by headers how many items it wants, and where to go on.
//!
//! An item is made only when it is in the page, and a page ends early when its items are large, so that no question
//! holds the state for long or fills the memory.

use axum::response::{IntoResponse, Response};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use serde_json::Value;

const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 1000;
/// A page ends after the item that brings it to this size.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The part of a list that a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) struct Paging {
    size: usize,
    begin: usize,
}

impl Paging {
    /// Reads the headers of a request.
    pub(in crate::hub) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let size = number(headers, &PAGE_SIZE)?.filter(|&size| size > 0).unwrap_or(DEFAULT_SIZE);
        Ok(Self { size: size.min(MAX_SIZE), begin: number(headers, &CONTINUATION)?.unwrap_or(0) })
    }

    /// The page of a list as an answer. What `view` makes nothing of is left out.
    pub(in crate::hub) fn answer<T>(
        self,
        item_type: &'static str,
        items: impl Iterator<Item = T>,
        view: impl Fn(T) -> Option<Value>,
    ) -> Response {
        let mut items = items.skip(self.begin).peekable();
        let (mut body, mut count) = (String::from("["), 0);
        while count < self.size
            && body.len() < MAX_BYTES
            && let Some(item) = items.next()
        {
            count += 1;
            if let Some(item) = view(item) {
                if body.len() > 1 {
                    body.push(',');
                }
                body.push_str(&item.to_string());
            }
        }
        body.push(']');
        let headers = [(CONTENT_TYPE, "application/json"), (ITEM_TYPE, item_type)];
        let mut response = (headers, body).into_response();
        if items.peek().is_some() {
            response.headers_mut().insert(CONTINUATION, (self.begin + count).into());
        }
        response
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, String> {
    let text = headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let number = text.filter(|text| !text.is_empty()).map(str::parse).transpose();
    number.map_err(|_| format!("{name} is not a number"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    fn headers(size: &'static str, begin: &'static str) -> HeaderMap {
        let pairs = [(PAGE_SIZE, size), (CONTINUATION, begin)];
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    async fn page(paging: Paging, items: &[Value]) -> (Vec<Value>, Option<String>) {
        let answer = paging.answer("thing", items.iter(), |item| (!item.is_null()).then(|| item.clone()));
        let next = answer.headers().get(CONTINUATION).map(|next| next.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (serde_json::from_slice(&body).unwrap(), next)
    }

    #[test]
    fn the_size_of_a_page_is_bounded() {
        assert_eq!(Paging::of(&HeaderMap::new()), Ok(Paging { size: DEFAULT_SIZE, begin: 0 }));
        for (size, given) in [("", DEFAULT_SIZE), ("0", DEFAULT_SIZE), ("7", 7), ("1001", MAX_SIZE)] {
            assert_eq!(Paging::of(&headers(size, "5")), Ok(Paging { size: given, begin: 5 }), "{size}");
        }
        for (size, begin) in [("x", ""), ("-1", ""), ("", "next")] {
            assert!(Paging::of(&headers(size, begin)).is_err(), "{size} {begin}");
        }
    }

    #[tokio::test]
    async fn pages_follow_each_other_until_the_end() {
        let items = [json!(0), json!(null), json!(2), json!(3)];
        let at = |begin| Paging { size: 2, begin };
        assert_eq!(page(at(0), &items).await, (vec![json!(0)], Some("2".to_owned())));
        assert_eq!(page(at(2), &items).await, (vec![json!(2), json!(3)], None));
        assert_eq!(page(at(usize::MAX), &items).await, (vec![], None));
    }

    #[tokio::test]
    async fn large_items_end_a_page_early() {
        let items = vec![json!("x".repeat(MAX_BYTES / 2)); 4];
        let (found, next) = page(Paging { size: 100, begin: 0 }, &items).await;
        assert_eq!((found.len(), next.as_deref()), (2, Some("2")));
    }
}
