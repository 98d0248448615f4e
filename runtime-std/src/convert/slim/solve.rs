//! The linear algebra of slim attention with a rank correction, in f64.
//!
//! For inputs `x` (rows), `K = x·W_K` and `V = x·W_V`. Wanted are `A`, `B` and `Z` with `V ≈ K·A +
//! R·B`, `R = x·W_V·Z` of `r` columns, where `K` is rounded with an error of mean square `N` (a
//! diagonal) before it is used. For a given second moment `C` of the inputs the expected square
//! error of `V` without `R` is least for
//!
//! ```text
//! A₀ = argmin ‖C^½·(W_V - W_K·A)‖² + ‖N^½·A‖²
//! ```
//!
//! an ordinary least-squares problem of `P = [C^½·W_K; N^½]` and `Q = [C^½·W_V; 0]`, solved by the
//! singular value decomposition of `P` (its normal equations would square the condition). What is
//! left, `E = Q - P·A₀`, is the error by output; `Z` are its first right singular vectors, the
//! directions of `V` that have most of it. They are cached as they are, and `A = A₀·(I - Z·Zᵀ)`, `B
//! = Zᵀ`.

use faer::{Mat, MatRef};

/// A solution: the matrices that make values.
pub struct Solution {
    /// `key columns x value columns`.
    pub a: Mat<f64>,
    /// `rank x value columns`: `Zᵀ`.
    pub b: Mat<f64>,
    /// `d_model x rank`: `W_V·Z`, which makes the rank-correction channels of the input.
    pub channels: Mat<f64>,
}

/// The problem of one layer.
pub struct Problem {
    /// `d_model x key columns`.
    pub w_k: Mat<f64>,
    /// `d_model x value columns`.
    pub w_v: Mat<f64>,
    /// `d_model x d_model`: a root of the inputs' second moment, `rootᵀ·root = C`.
    pub root: Mat<f64>,
    /// Mean square of the rounding error of each key column.
    pub noise: Vec<f64>,
}

/// Singular values under this fraction of the largest are zero.
const CUTOFF: f64 = 1e-14;

/// A decomposition that did not converge: its matrix holds NaN or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its singular values cannot be computed: it holds NaN or an infinity")]
pub struct NoConvergence;

/// A decomposition, from which solutions of every rank follow.
pub struct Solver<'p> {
    problem: &'p Problem,
    a0: Mat<f64>,
    /// Right singular vectors of the residual, by size.
    directions: Mat<f64>,
}

impl<'p> Solver<'p> {
    /// Solves for `A₀`, and decomposes the residual.
    ///
    /// # Errors
    /// If a number is NaN or infinite.
    pub fn new(problem: &'p Problem) -> Result<Solver<'p>, NoConvergence> {
        let p = stacked(&(&problem.root * &problem.w_k), &problem.noise);
        let mut q = Mat::zeros(p.nrows(), problem.w_v.ncols());
        let top = &problem.root * &problem.w_v;
        q.as_mut()
            .submatrix_mut(0, 0, top.nrows(), top.ncols())
            .copy_from(&top);
        let a0 = least_squares(p.as_ref(), q.as_ref())?;
        let left = &q - &p * &a0;
        let svd = finite(left.as_ref())?
            .thin_svd()
            .map_err(|_| NoConvergence)?;
        Ok(Solver {
            problem,
            a0,
            directions: svd.V().to_owned(),
        })
    }

    /// With `rank` rank-correction channels; at most as many as there are value columns.
    pub fn with_rank(&self, rank: usize) -> Solution {
        let z = self
            .directions
            .as_ref()
            .subcols(0, rank.min(self.directions.ncols()));
        let a = &self.a0 - (&self.a0 * z) * z.transpose();
        Solution {
            a,
            b: z.transpose().to_owned(),
            channels: &self.problem.w_v * z,
        }
    }
}

/// `top` over the square roots of a diagonal.
fn stacked(top: &Mat<f64>, diagonal: &[f64]) -> Mat<f64> {
    let (rows, columns) = top.shape();
    Mat::from_fn(rows + columns, columns, |i, j| {
        if i < rows {
            top[(i, j)]
        } else if i - rows == j {
            diagonal[j].sqrt()
        } else {
            0.0
        }
    })
}

/// The smallest `x` that minimises `‖p·x - q‖`.
fn least_squares(p: MatRef<'_, f64>, q: MatRef<'_, f64>) -> Result<Mat<f64>, NoConvergence> {
    let svd = finite(p)?.thin_svd().map_err(|_| NoConvergence)?;
    let values = svd.S().column_vector();
    let cutoff = values[0] * CUTOFF;
    let mut y = svd.U().transpose() * q;
    for i in 0..y.nrows() {
        let inverse = if values[i] > cutoff {
            1.0 / values[i]
        } else {
            0.0
        };
        for j in 0..y.ncols() {
            y[(i, j)] *= inverse;
        }
    }
    Ok(svd.V() * y)
}

fn finite(matrix: MatRef<'_, f64>) -> Result<MatRef<'_, f64>, NoConvergence> {
    if matrix.is_all_finite() {
        Ok(matrix)
    } else {
        Err(NoConvergence)
    }
}

/// Singular values, largest first.
///
/// # Errors
/// If a number is NaN or infinite.
pub fn singular_values(matrix: MatRef<'_, f64>) -> Result<Vec<f64>, NoConvergence> {
    finite(matrix)?.singular_values().map_err(|_| NoConvergence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
        let mut state = seed;
        Mat::from_fn(rows, columns, |_, _| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
        })
    }

    fn largest(matrix: Mat<f64>) -> f64 {
        matrix.norm_max()
    }

    #[test]
    fn invertible_keys_give_values_without_channels() {
        for (d, e) in [(8, 8), (8, 12)] {
            let problem = Problem {
                w_k: noise(d, e, 1),
                w_v: noise(d, e, 2),
                root: Mat::identity(d, d),
                noise: vec![0.0; e],
            };
            let solution = Solver::new(&problem).unwrap().with_rank(0);
            assert!(largest(&problem.w_k * &solution.a - &problem.w_v) < 1e-12);
        }
    }

    #[test]
    fn singular_keys_take_as_many_channels_as_they_lack() {
        let mut w_k = noise(10, 10, 3);
        for i in 0..10 {
            w_k[(i, 7)] = w_k[(i, 1)] + w_k[(i, 2)];
            w_k[(i, 8)] = 2.0 * w_k[(i, 0)];
        }
        let problem = Problem {
            w_k,
            w_v: noise(10, 10, 4),
            root: noise(10, 10, 5),
            noise: vec![0.0; 10],
        };
        let solver = Solver::new(&problem).unwrap();
        let left = |rank| {
            let solution = solver.with_rank(rank);
            largest(&problem.w_k * &solution.a + &solution.channels * &solution.b - &problem.w_v)
        };
        assert!(left(1) > 1e-3 && left(2) < 1e-10, "{} {}", left(1), left(2));
        assert!(left(10) < 1e-12);
    }

    /// Against noise that is drawn: no other map of the same rank does better.
    #[test]
    fn noise_is_traded_for_exactness() {
        let mut w_k = noise(6, 6, 6);
        for i in 0..6 {
            w_k[(i, 5)] = w_k[(i, 4)] + 1e-3 * w_k[(i, 5)];
        }
        let problem = Problem {
            w_k,
            w_v: noise(6, 6, 7),
            root: Mat::identity(6, 6),
            noise: vec![1e-4; 6],
        };
        let error = |solution: &Solution| {
            let missed =
                &problem.w_k * &solution.a + &solution.channels * &solution.b - &problem.w_v;
            missed.squared_norm_l2() + 1e-4 * solution.a.squared_norm_l2()
        };
        let exact = Problem {
            noise: vec![0.0; 6],
            w_k: problem.w_k.clone(),
            w_v: problem.w_v.clone(),
            root: problem.root.clone(),
        };
        let (ours, plain) = (Solver::new(&problem).unwrap(), Solver::new(&exact).unwrap());
        for rank in 0..3 {
            assert!(error(&ours.with_rank(rank)) <= error(&plain.with_rank(rank)) * (1.0 + 1e-9));
        }
        assert!(error(&ours.with_rank(0)) < 0.1 * error(&plain.with_rank(0)));
        assert!(error(&ours.with_rank(1)) < 0.1 * error(&ours.with_rank(0)));
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let mut w_k = noise(4, 4, 8);
        w_k[(1, 2)] = f64::NAN;
        let problem = Problem {
            w_v: noise(4, 4, 9),
            root: Mat::identity(4, 4),
            noise: vec![0.0; 4],
            w_k,
        };
        assert_eq!(Solver::new(&problem).err(), Some(NoConvergence));
    }
}
