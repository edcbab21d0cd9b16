use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const LATER: i64 = i64::MAX;

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgehub/messages.db");
    (folder, path)
}

fn parcel(path: &str, priority: u32, expires: i64) -> Parcel {
    let body = Bytes::from_static(b"{}");
    Parcel { endpoint: Endpoint::Upstream, priority, expires, path: path.to_owned(), body }
}

async fn put(spool: &Spool, parcels: Vec<Parcel>) {
    let room = spool.try_room(parcels.iter().map(Parcel::size).sum()).unwrap();
    spool.committed(spool.put(room, parcels)).await.unwrap();
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivered> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(consumer.next().await.unwrap());
    }
    taken
}

fn paths(delivered: &[Delivered]) -> Vec<&str> {
    delivered.iter().map(|message| message.path.as_str()).collect()
}

#[tokio::test]
async fn messages_come_by_priority_and_in_order_and_stay_until_they_are_done() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    put(&spool, vec![parcel("a", 5, LATER), parcel("b", 5, LATER)]).await;
    put(&spool, vec![parcel("c", 0, LATER), parcel("d", 5, LATER)]).await;
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let taken = take(&mut consumer, 3).await;
    assert_eq!(paths(&taken), ["c", "a", "b"]);
    consumer.done([taken[1].id]);
    drop(consumer);
    // The next consumer gets what the former one held, and so does the next process.
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let taken = take(&mut consumer, 3).await;
    assert_eq!(paths(&taken), ["c", "b", "d"]);
    consumer.done([taken[0].id, taken[0].id]);
    drop((consumer, spool));
    let spool = Spool::open(&path).unwrap();
    assert_eq!(spool.usage().messages, 2);
    put(&spool, vec![parcel("e", 5, LATER), parcel("f", 1, LATER)]).await;
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let taken = take(&mut consumer, 4).await;
    assert_eq!(paths(&taken), ["f", "b", "d", "e"]);
    consumer.done(taken.iter().map(|message| message.id));
    assert_eq!(spool.usage(), Usage::default());
}

#[tokio::test]
async fn a_queue_that_is_longer_than_a_page_keeps_its_order_while_it_grows() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let count = 2 * queue::PAGE_ROWS + 10;
    for number in 0..count {
        let parcels = vec![parcel(&number.to_string(), 3, LATER)];
        let room = spool.try_room(parcels[0].size()).unwrap();
        spool.put(room, parcels);
    }
    for number in 0..count {
        let message = consumer.next().await.unwrap();
        assert_eq!(message.path, number.to_string());
        consumer.done([message.id]);
        if number % 100 == 0 {
            put(&spool, vec![parcel("urgent", 1, LATER)]).await;
            let urgent = consumer.next().await.unwrap();
            assert_eq!(urgent.path, "urgent", "after {number}");
            consumer.done([urgent.id]);
        }
    }
    assert_eq!(spool.usage(), Usage::default());
}

#[tokio::test]
async fn a_consumer_waits_for_the_next_message_and_for_the_former_consumer() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    let mut consumer = spool.consumer(Endpoint::Module("m".to_owned())).await;
    let other = spool.clone();
    let second = tokio::spawn(async move { other.consumer(Endpoint::Module("m".to_owned())).await });
    {
        let mut waiting = std::pin::pin!(consumer.next());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        put(&spool, vec![parcel("not for it", 1, LATER)]).await;
        let endpoint = Endpoint::Module("m".to_owned());
        put(&spool, vec![Parcel { endpoint, ..parcel("for it", 1, LATER) }]).await;
        assert_eq!(waiting.await.unwrap().path, "for it");
    }
    assert!(!second.is_finished());
    drop(consumer);
    assert_eq!(second.await.unwrap().next().await.unwrap().path, "for it");
}

#[tokio::test]
async fn what_is_too_old_is_dropped_and_counted_wherever_it_lies() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    let long_ago = now() - 10;
    put(&spool, vec![parcel("old", 1, long_ago), parcel("young", 1, LATER)]).await;
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    assert_eq!(consumer.next().await.unwrap().path, "young");
    assert_eq!(spool.usage().expired, 1);
    // A page is ready, and the rest is in the database only.
    for number in 0..queue::PAGE_ROWS + 20 {
        let expires = if number % 2 == 0 { now() + 1000 } else { LATER };
        put(&spool, vec![parcel(&number.to_string(), 1, expires)]).await;
    }
    spool.sweep(now()).await.unwrap();
    assert_eq!(spool.usage().expired, 1);
    spool.sweep(now() + 2000).await.unwrap();
    let left = queue::PAGE_ROWS / 2 + 10;
    assert_eq!((spool.usage().expired, spool.usage().messages), (left as u64 + 1, left as u64 + 1));
    let rest = take(&mut consumer, left).await;
    assert!(rest.iter().all(|message| message.path.parse::<usize>().unwrap() % 2 == 1), "{rest:?}");
    drop(consumer);
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let all = take(&mut consumer, left + 1).await;
    consumer.done(all.iter().map(|message| message.id));
    assert_eq!((spool.usage().messages, spool.usage().bytes), (0, 0));
}

#[tokio::test]
async fn a_full_store_has_room_again_when_something_is_done() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    let size = parcel("a", 1, LATER).size();
    spool.set_limit(Some(2 * size));
    put(&spool, vec![parcel("a", 1, LATER)]).await;
    drop(spool.try_room(size).expect("room that is not used is given back"));
    put(&spool, vec![parcel("b", 1, LATER)]).await;
    assert!(spool.try_room(1).is_none());
    let mut waiting = std::pin::pin!(spool.room(size));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    let first = consumer.next().await.unwrap();
    consumer.done([first.id]);
    let room = waiting.await.unwrap();
    assert!(spool.try_room(1).is_none());
    drop(room);
    spool.set_limit(Some(0));
    assert!(spool.try_room(1).is_none());
    let second = consumer.next().await.unwrap();
    consumer.done([second.id]);
    assert!(spool.try_room(10 * size).is_some(), "the only message always comes in");
}

#[test]
fn what_is_stored_does_not_make_the_limit_smaller() {
    let mib = 1024 * 1024;
    for (free, stored, expected) in [(100, 0, 50), (60, 40, 50), (0, 100, 50), (0, 0, 0), (8000, 0, 1024)] {
        assert_eq!(share(free * mib, stored * mib), expected * mib, "{free} free, {stored} stored");
    }
    assert_eq!(share(u64::MAX, 1), DEFAULT_LIMIT);
}

#[test]
fn the_default_limit_follows_the_disk_and_that_of_the_user_stays() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    let limit = || spool.0.limit.load(Ordering::Relaxed);
    // As after a start on a full disk.
    spool.0.limit.store(0, Ordering::Relaxed);
    spool.refresh_limit();
    assert!(limit() > 0);
    spool.set_limit(Some(7));
    spool.refresh_limit();
    assert_eq!(limit(), 7);
    spool.set_limit(None);
    spool.0.limit.store(0, Ordering::Relaxed);
    spool.refresh_limit();
    assert!(limit() > 0);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stops_new_messages_only() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    put(&spool, vec![parcel("a", 1, LATER)]).await;
    let blocker = Connection::open(&path).unwrap();
    blocker
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON message BEGIN SELECT RAISE(FAIL, 'disk full'); END",
        )
        .unwrap();
    let size = u64::from(MAX_UNCOMMITTED);
    let receipt = spool.put(spool.try_room(size).unwrap(), vec![parcel("b", 1, LATER)]);
    let mut consumer = spool.consumer(Endpoint::Upstream).await;
    assert_eq!(consumer.next().await.unwrap().path, "a");
    assert!(spool.try_room(1).is_none(), "what is not committed is bounded");
    while spool.trouble().is_none() {
        tokio::task::yield_now().await;
    }
    blocker.execute_batch("DROP TRIGGER full").unwrap();
    spool.committed(receipt).await.unwrap();
    drop(spool.room(1).await.unwrap());
    assert_eq!(consumer.next().await.unwrap().path, "b");
}

#[tokio::test]
async fn a_text_that_is_kept_is_there_after_the_next_start() {
    let (_folder, path) = file();
    let spool = Spool::open(&path).unwrap();
    spool.keep("a", Some("1".to_owned()));
    spool.keep("b", Some("2".to_owned()));
    spool.keep("a", Some("3".to_owned()));
    spool.committed(spool.keep("b", None)).await.unwrap();
    drop(spool);
    let spool = Spool::open(&path).unwrap();
    assert_eq!((spool.kept("a").await.unwrap(), spool.kept("b").await.unwrap()), (Some("3".into()), None));
}
