//! The sampler's distribution against exact sums, for vocabularies from 50 to 262,144 tokens, and
//! that it never draws what it must not.

use brooklet_core::sampler::{BANNED, Sampler, SamplerOptions};

/// Increment of SplitMix64, the sampler's random sequence.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Logits like a model's: a few probable tokens, and a long tail that falls slowly. The most
/// probable comes first, so that sorting them, draw after draw, takes little time.
fn logits(vocab: usize) -> Vec<f32> {
    let mut random = 7u64;
    let mut noise = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut logits: Vec<f32> = (0..vocab)
        .map(|rank| 12.0 - 1.1 * (rank as f32 + 1.0).ln() + 0.3 * noise())
        .collect();
    logits.sort_by(|a, b| b.total_cmp(a));
    logits
}

/// Probabilities of the tokens, in f64 throughout: the filters in the documented order.
fn exact(logits: &[f32], options: &SamplerOptions) -> Vec<f64> {
    let most = f64::from(logits[0]);
    let mut kept: Vec<usize> = (0..logits.len())
        .filter(|token| logits[*token] > BANNED)
        .collect();
    if options.top_k > 0 {
        kept.truncate(options.top_k);
    }
    let power = |token: &usize| (f64::from(logits[*token]) - most).exp();
    if options.top_p < 1.0 {
        let least = f64::from(options.top_p) * kept.iter().map(power).sum::<f64>();
        let mut sum = 0.0;
        kept.retain(|token| {
            let wanted = sum < least;
            sum += power(token);
            wanted
        });
    }
    kept.retain(|token| power(token) >= f64::from(options.min_p));
    let heat = f64::from(options.temperature);
    let mut weights = vec![0.0; logits.len()];
    for token in &kept {
        weights[*token] = ((f64::from(logits[*token]) - most) / heat).exp();
    }
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Pearson's statistic of `draws` draws, in groups of neighbours that each expect `least` draws or
/// more, and the number of groups.
fn chi_square(counts: &[usize], exact: &[f64], draws: usize, least: f64) -> (f64, usize) {
    let (mut sum, mut groups) = (0.0, 0);
    let (mut count, mut expected) = (0.0, 0.0);
    let mut left: f64 = draws as f64;
    for (drawn, probability) in counts.iter().zip(exact) {
        count += *drawn as f64;
        expected += probability * draws as f64;
        // The last group takes what is left.
        if expected >= least && left - expected >= least {
            sum += (count - expected) * (count - expected) / expected;
            left -= expected;
            (groups, count, expected) = (groups + 1, 0.0, 0.0);
        }
    }
    sum += (count - expected) * (count - expected) / expected;
    (sum, groups + 1)
}

/// Options of the suite, by name.
fn suite() -> Vec<(&'static str, SamplerOptions)> {
    let plain = SamplerOptions {
        temperature: 1.0,
        seed: 3,
        ..SamplerOptions::default()
    };
    vec![
        ("plain", plain),
        (
            "hot",
            SamplerOptions {
                temperature: 2.0,
                ..plain
            },
        ),
        (
            "cold",
            SamplerOptions {
                temperature: 0.5,
                ..plain
            },
        ),
        ("top-k", SamplerOptions { top_k: 20, ..plain }),
        (
            "top-p",
            SamplerOptions {
                top_p: 0.9,
                ..plain
            },
        ),
        (
            "min-p",
            SamplerOptions {
                min_p: 0.05,
                ..plain
            },
        ),
        (
            "all",
            SamplerOptions {
                temperature: 1.5,
                top_k: 40,
                top_p: 0.95,
                min_p: 0.01,
                ..plain
            },
        ),
    ]
}

/// Tokens that are banned in every test.
const BANNED_TOKENS: [usize; 3] = [0, 2, 7];

/// The part of `count` that is tried where the suite is asked for fewer random cases than 64, as
/// under an emulator.
fn share(count: usize) -> usize {
    let cases = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    (count * cases.min(64)).div_ceil(64)
}

#[test]
fn draws_follow_the_exact_distribution() {
    for (vocab, draws) in [
        (50, 100_000),
        (2_048, 10_000),
        (49_152, 1_000),
        (262_144, 400),
    ] {
        let draws = share(draws).max(60);
        let mut logits = logits(vocab);
        // The most probable ones of all, so that a ban that leaks would be seen.
        for token in BANNED_TOKENS {
            logits[token] = BANNED;
        }
        logits.sort_by(|a, b| b.total_cmp(a));
        let mut scratch = vec![0; vocab];
        for (name, options) in suite() {
            let exact = exact(&logits, &options);
            let mut sampler = Sampler::new(options);
            let mut counts = vec![0usize; vocab];
            for _ in 0..draws {
                counts[sampler.sample(&mut logits.clone(), &mut scratch) as usize] += 1;
            }
            let forbidden = counts
                .iter()
                .zip(&exact)
                .position(|(count, p)| *count > 0 && *p == 0.0);
            assert_eq!(forbidden, None, "{name} of {vocab}");
            let (statistic, groups) = chi_square(&counts, &exact, draws, 10.0);
            // Six standard deviations of the statistic above its mean.
            let free = (groups - 1) as f64;
            let most = free + 6.0 * (2.0 * free).sqrt() + 6.0;
            assert!(
                statistic < most,
                "{name} of {vocab}: {statistic} in {groups} groups"
            );
            assert!(groups > 2, "{name} of {vocab}: {groups} groups");
        }
    }
}

#[test]
fn a_million_draws_without_a_token_that_must_not_be_drawn() {
    let mut logits = logits(50);
    // Weights of zero, by several ways; and bans, also of the most probable.
    logits[49] = -1e30;
    logits[48] = f32::MIN;
    logits[47] = -3e4;
    for token in BANNED_TOKENS {
        logits[token] = BANNED;
    }
    let options = SamplerOptions {
        temperature: 2.0,
        repeat_penalty: 1.1,
        ..SamplerOptions::default()
    };
    let mut sampler = Sampler::new(options);
    let mut scratch = [0; 50];
    let mut work = logits.clone();
    for draw in 0..share(1_000_000) {
        work.copy_from_slice(&logits);
        let token = sampler.sample(&mut work, &mut scratch) as usize;
        assert!(
            !BANNED_TOKENS.contains(&token) && token < 47,
            "{token} at draw {draw}"
        );
    }
}

/// Returns the seed whose first random number is `first`: SplitMix64's mixer, backwards.
fn seed_of(first: u64) -> u64 {
    /// Inverse of an odd number modulo 2^64, by Newton's method.
    fn inverse(x: u64) -> u64 {
        (0..6).fold(x, |y, _| {
            y.wrapping_mul(2u64.wrapping_sub(x.wrapping_mul(y)))
        })
    }
    let unshift = |z: u64, by: u32| {
        let mut x = z;
        for _ in 0..64 / by {
            x = z ^ (x >> by);
        }
        x
    };
    let z = unshift(first, 31).wrapping_mul(inverse(0x94D0_49BB_1331_11EB));
    let z = unshift(z, 27).wrapping_mul(inverse(0xBF58_476D_1CE4_E5B9));
    unshift(z, 30).wrapping_sub(STEP)
}

/// Random numbers next to their largest, where sums that are rounded leave something over, and the
/// last of all candidates would be drawn: the one that is banned, or has no weight.
#[test]
fn the_largest_random_numbers_draw_tokens_that_may_be_drawn() {
    for (vocab, temperature) in [(50, 2.0), (151_936, 2.0), (262_144, 2.0), (262_144, 0.7)] {
        let mut logits = logits(vocab);
        logits[vocab - 1] = BANNED;
        logits[vocab - 2] = -1e30;
        let options = SamplerOptions {
            temperature,
            ..SamplerOptions::default()
        };
        let exact = exact(&logits, &options);
        let mut scratch = vec![0; vocab];
        let firsts = [
            0,
            1,
            2,
            1 << 20,
            1 << 30,
            1 << 40,
            1 << 44,
            1 << 48,
            1 << 50,
        ];
        for &below in &firsts[..share(firsts.len())] {
            let first = u64::MAX - below;
            let mut sampler = Sampler::new(SamplerOptions {
                seed: seed_of(first),
                ..options
            });
            let token = sampler.sample(&mut logits.clone(), &mut scratch) as usize;
            assert!(token < vocab - 2, "{token} of {vocab} by {first}");
            // The token whose part of the whole the number lies in, but for the rounding of
            // probabilities.
            let above: f64 = exact[token + 1..].iter().sum();
            let wanted = below as f64 / 2f64.powi(64);
            assert!(
                (above..above + exact[token]).contains(&wanted)
                    || (above - wanted).abs() < 1e-3 * wanted.max(1e-4),
                "{token} of {vocab} by {first}: {above}, {}",
                exact[token]
            );
        }
    }
}

/// No temperature, penalty or filter makes a banned token probable.
#[test]
fn banned_tokens_stay_banned_under_any_options() {
    let logits = [BANNED, 1.0, 2.0, BANNED, 0.5, BANNED];
    for temperature in [0.0, 1e-30, 1.0, 1e30, f32::INFINITY] {
        for repeat_penalty in [0.0, 1e-30, 1.0, 1e30] {
            for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.99, 1e-3)] {
                let mut sampler = Sampler::new(SamplerOptions {
                    temperature,
                    repeat_penalty,
                    top_k,
                    top_p,
                    min_p,
                    ..SamplerOptions::default()
                });
                (0..6).for_each(|token| sampler.accept(token));
                for _ in 0..200 {
                    let token = sampler.sample(&mut logits.clone(), &mut [0; 6]);
                    assert!(
                        [1, 2, 4].contains(&token),
                        "{token}: {temperature} {repeat_penalty}"
                    );
                }
            }
        }
    }
}
