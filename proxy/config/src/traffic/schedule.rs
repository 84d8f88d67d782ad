//! Weighted round robin: an order in which every member comes as often as its weight says, well mixed.

/// Turns in a round at most.
const MOST: f64 = 4096.0;
/// Turns of the member with the least weight at most.
const FINEST: u32 = 32;

/// The order of one round, as indexes of `weights`; equal weights: each once. Members with weight 0 do not come.
///
/// The turns of a member are spread evenly over the round, so that the heavy one does not come many times in a row.
pub(super) fn round(weights: &[f64]) -> Box<[u32]> {
    let unit = unit(weights);
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let count = (weight / unit).round().max(1.0);
        turns.extend((0..count as u32).map(|turn| ((f64::from(turn) + 0.5) / count, index as u32)));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, index)| index).collect()
}

/// The weight of one turn: as large as it may be for each member to get whole turns, nearly.
fn unit(weights: &[f64]) -> f64 {
    let given = || weights.iter().copied().filter(|weight| *weight > 0.0);
    let least = given().fold(f64::INFINITY, f64::min);
    let whole = |unit: f64| given().all(|weight| (weight / unit).fract().min(1.0 - (weight / unit).fract()) < 0.01);
    let unit = (1..FINEST).map(|parts| least / f64::from(parts)).find(|unit| whole(*unit));
    unit.unwrap_or(least / f64::from(FINEST)).max(given().sum::<f64>() / MOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns_of(order: &[u32], index: usize) -> usize {
        order.iter().filter(|one| **one as usize == index).count()
    }

    proptest! {
        #[test]
        fn shares_of_a_round_match_the_weights(weights in proptest::collection::vec(0u32..50, 1..12)) {
            let floats: Vec<f64> = weights.iter().copied().map(f64::from).collect();
            let order = round(&floats);
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(order.is_empty(), total == 0);
            for (index, weight) in weights.iter().enumerate().filter(|_| total > 0) {
                let share = turns_of(&order, index) as f64 / order.len() as f64;
                let fair = f64::from(*weight) / f64::from(total);
                prop_assert!((share - fair).abs() <= 0.02, "{index} has {share} instead of {fair}");
            }
        }

        #[test]
        fn equal_weights_take_turns(count in 1usize..40, weight in 0.1f64..9.0) {
            let order = round(&vec![weight; count]);
            prop_assert_eq!(&*order, &(0..count as u32).collect::<Vec<_>>()[..]);
        }

        #[test]
        fn a_round_is_bounded(weights in proptest::collection::vec(1u32.., 1..40)) {
            let floats: Vec<f64> = weights.iter().copied().map(f64::from).collect();
            prop_assert!(round(&floats).len() <= MOST as usize + 2 * weights.len());
        }
    }

    #[test]
    fn the_heavy_one_is_spread() {
        let order = round(&[3.0, 1.0]);
        assert_eq!(*order, [0, 0, 1, 0]);
        assert_eq!(*round(&[30.0, 20.0]), [0, 1, 0, 1, 0]);
    }
}
