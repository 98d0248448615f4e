//! The score of a prediction.

/// `-ln softmax(logits)[target]`, in double precision.
pub fn negative_log_likelihood(logits: &[f32], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits
        .iter()
        .map(|&logit| (logit as f64 - largest).exp())
        .sum();
    largest + sum.ln() - logits[target] as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_log_of_the_softmax() {
        // softmax of [ln 1, ln 2, ln 5] is [1/8, 2/8, 5/8].
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        for (target, probability) in [(0, 0.125f64), (1, 0.25), (2, 0.625)] {
            assert!((negative_log_likelihood(&logits, target) + probability.ln()).abs() < 1e-6);
        }
        assert!(negative_log_likelihood(&[1e30, -1e30], 0).abs() < 1e-9);
    }
}
