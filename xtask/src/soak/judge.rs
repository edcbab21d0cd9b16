//! What the messages at the hub prove about those that were acknowledged to the producer.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Fault;

/// How many numbers are listed of those that are missing or out of order.
const EXAMPLES: usize = 20;
/// How long after a fault what was sent again may still arrive: connections are made anew with growing pauses, and what has
/// piled up goes first.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(60);

/// A message of the producer at the hub, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 1.
    pub number: u64,
    /// When it arrived.
    pub time: Timestamp,
}

/// A fault that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// What.
    pub fault: Fault,
    /// When it began.
    pub began: Timestamp,
    /// When everything was well again.
    pub ended: Timestamp,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// The last number that was acknowledged to the producer, and with it all before.
    pub acknowledged: u64,
    /// Messages at the hub, those that came more than once counted each time.
    pub arrived: u64,
    /// How many of the acknowledged numbers are not at the hub.
    pub missing: u64,
    /// The first of them.
    pub first_missing: Vec<u64>,
    /// Numbers that came for the first time after a higher one, the first of them.
    pub out_of_order: Vec<u64>,
    /// Messages that came again, by the fault after whose begin they did.
    pub duplicates: Vec<Duplicates>,
    /// Messages that came again without a fault.
    pub unexplained: u64,
}

/// Messages that came again after a fault.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Which.
    pub fault: Fault,
    /// When it began.
    pub began: Timestamp,
    /// How many.
    pub count: u64,
}

impl Judgement {
    /// Whether nothing is missing, the order was kept, and every duplicate comes from a fault.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.missing == 0 && self.out_of_order.is_empty() && self.unexplained == 0
    }

    /// All that was found, in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let again: u64 = self.duplicates.iter().map(|duplicates| duplicates.count).sum();
        format!(
            "{} messages acknowledged, {} arrived: {} missing{}, {} out of order{}, {again} again after a fault, {} again \
             without one",
            self.acknowledged,
            self.arrived,
            self.missing,
            examples(&self.first_missing),
            self.out_of_order.len(),
            examples(&self.out_of_order),
            self.unexplained
        )
    }
}

fn examples(numbers: &[u64]) -> String {
    if numbers.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = numbers.iter().take(3).map(u64::to_string).collect();
    format!(" ({}{})", shown.join(", "), if numbers.len() > shown.len() { ", …" } else { "" })
}

/// Judges what arrived. A message that comes again is explained by the last fault that began before, until a while after
/// everything was well again: whoever sends it again has not seen its acknowledgement.
#[must_use]
pub fn judge(acknowledged: u64, arrivals: &[Arrival], faults: &[Happened]) -> Judgement {
    let mut seen = vec![false; usize::try_from(acknowledged).unwrap_or(usize::MAX).saturating_add(1)];
    let mut duplicates: Vec<Duplicates> = faults
        .iter()
        .map(|happened| Duplicates { fault: happened.fault, began: happened.began, count: 0 })
        .collect();
    let (mut highest, mut out_of_order, mut unexplained) = (0, Vec::new(), 0);
    for arrival in arrivals {
        let index = usize::try_from(arrival.number).unwrap_or(usize::MAX);
        if index >= seen.len() {
            // Sent, and not acknowledged when the ledger was read.
            seen.resize(index.min(arrivals.len() + seen.len()) + 1, false);
        }
        let Some(known) = seen.get_mut(index) else { continue };
        if *known {
            match faults.iter().rposition(|happened| happened.began <= arrival.time) {
                Some(last) if arrival.time <= faults[last].ended + AFTERMATH => duplicates[last].count += 1,
                _ => unexplained += 1,
            }
        } else if arrival.number < highest && out_of_order.len() < EXAMPLES {
            out_of_order.push(arrival.number);
        }
        *known = true;
        highest = highest.max(arrival.number);
    }
    let missing =
        || (1..=acknowledged).filter(|number| !seen.get(*number as usize).copied().unwrap_or_default());
    Judgement {
        acknowledged,
        arrived: arrivals.len() as u64,
        missing: missing().count() as u64,
        first_missing: missing().take(EXAMPLES).collect(),
        out_of_order,
        duplicates: duplicates.into_iter().filter(|duplicates| duplicates.count > 0).collect(),
        unexplained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn arrivals(numbers: &[u64]) -> Vec<Arrival> {
        numbers
            .iter()
            .zip(0..)
            .map(|(number, second)| Arrival { number: *number, time: at(second) })
            .collect()
    }

    fn fault(second: i64) -> Happened {
        Happened { fault: Fault::EdgeKilled, began: at(second), ended: at(second + 1) }
    }

    #[test]
    fn all_that_was_acknowledged_is_there_in_order() {
        let judgement = judge(3, &arrivals(&[1, 2, 3, 4]), &[]);
        assert!(judgement.is_proved(), "{judgement:?}");
        assert_eq!(judgement.arrived, 4, "one was not acknowledged yet, which is no fault");
    }

    #[test]
    fn what_is_missing_is_named() {
        let judgement = judge(5, &arrivals(&[1, 3, 4]), &[fault(0)]);
        assert!(!judgement.is_proved());
        assert_eq!((judgement.missing, &judgement.first_missing[..]), (2, &[2, 5][..]));
        assert!(judgement.sentence().contains("2 missing (2, 5)"), "{}", judgement.sentence());
        assert_eq!(judge(2, &[], &[]).missing, 2);
    }

    #[test]
    fn a_number_that_comes_late_for_the_first_time_is_out_of_order() {
        let judgement = judge(3, &arrivals(&[1, 3, 2]), &[fault(0)]);
        assert!(!judgement.is_proved());
        assert_eq!(judgement.out_of_order, [2]);
    }

    #[test]
    fn a_duplicate_is_explained_by_the_last_fault_before_it() {
        let judgement = judge(4, &arrivals(&[1, 2, 1, 2, 3, 3, 4]), &[fault(2), fault(5)]);
        assert!(judgement.is_proved(), "{judgement:?}");
        let counts: Vec<_> = judgement.duplicates.iter().map(|it| (it.began, it.count)).collect();
        assert_eq!(counts, [(at(2), 2), (at(5), 1)]);
        let early = judge(2, &arrivals(&[1, 1, 2]), &[fault(2)]);
        assert_eq!((early.unexplained, early.is_proved()), (1, false));
        let mut late = arrivals(&[1, 1]);
        late[1].time = at(200);
        assert_eq!(judge(1, &late, &[fault(0)]).unexplained, 1, "long after the fault");
    }

    #[test]
    fn an_absurd_number_is_no_reason_for_much_memory() {
        assert_eq!(judge(1, &arrivals(&[u64::MAX, 1]), &[]).missing, 0);
    }
}
