//! The search for a super-block's integers: least squares, in turns.
//!
//! Element `j` of part `p` is read back as `(d · scale[p]) · q[j] - dmin · min[p]`, where `d` and
//! `dmin` are f16 and all else are small integers ([`Grid`]). Wanted are those that make the sum of
//! squared differences small; the best ones are out of reach, so:
//!
//! 1. each part alone gets a real scale and minimum: rounding to integers from several starts, the
//!    scale and minimum that fit those integers best (the normal equations of a line), and again
//!    from there;
//! 2. `d` and `dmin` are what makes the largest of them the largest integer;
//! 3. each part takes the best of the integer scales and minima near its real ones, its elements
//!    rounded anew for each;
//! 4. `d` and `dmin` are fitted to all integers at once, and 3. repeated, as long as the error
//!    falls;
//! 5. the f16 next to `d` and `dmin` are tried.
//!
//! Every error is measured with the numbers as they are stored. Sums run in [`LANES`] lanes in a
//! fixed order, so the bytes are the same on every machine.

use brooklet_core::quant::SUPER_BLOCK;
use half::f16;

/// Partial sums of every sum, for the compiler to use vectors; a divisor of 16.
const LANES: usize = 8;

/// Most times that 4. is done.
const ROUNDS: usize = 4;

/// Times that the line through a part's elements is fitted anew to the integers it rounds them to.
const FITS: usize = 2;

/// Gains that differ less, of themselves, are the same: the first start's is kept, whose ends are
/// the part's.
const NOISE: f32 = 5e-7;

/// Below half of the smallest f16 every element is 0 in every format, and no square above
/// underflows.
const SMALLEST: f32 = 1.0 / (1 << 25) as f32;

/// The integers of a format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Smallest and largest integer of an element.
    pub quants: (f32, f32),
    /// Smallest and largest scale of a part.
    pub scales: (f32, f32),
    /// Largest minimum of a part; 0 for formats without.
    pub min: f32,
    /// Steps beyond a part's extreme values the integers end: where step 1 starts from.
    pub starts: &'static [f32],
}

/// A super-block before it is packed.
#[derive(Clone, Debug)]
pub(super) struct Found<const PARTS: usize> {
    pub d: f32,
    pub dmin: f32,
    pub scales: [f32; PARTS],
    pub mins: [f32; PARTS],
    error: f32,
}

/// A line: element = scale · q - min.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    scale: f32,
    min: f32,
}

/// Searches the integers for `x`, whose values are finite; `PARTS` parts of `N`. `None` if a scale
/// is too large for f16.
pub(super) fn search<const N: usize, const PARTS: usize>(
    x: &[f32; SUPER_BLOCK],
    grid: &Grid,
) -> Option<Found<PARTS>> {
    let parts: &[[f32; N]; PARTS] = x
        .as_chunks()
        .0
        .try_into()
        .expect("the parts of a super-block");
    let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let largest = f16::MAX.to_f32()
        * grid.quants.0.abs().max(grid.quants.1)
        * grid.scales.0.abs().max(grid.scales.1);
    if most > 2.0 * largest {
        return None;
    }
    if most < SMALLEST {
        return Some(Found::zero());
    }
    let lines: [Line; PARTS] = if grid.min > 0.0 {
        parts.each_ref().map(|x| line(x, grid))
    } else {
        parts.each_ref().map(|x| line_through_zero(x, grid))
    };
    let pole = if grid.scales.0 < 0.0 {
        grid.scales.0
    } else {
        grid.scales.1
    };
    let d = unit(lines.each_ref().map(|line| line.scale), pole)?;
    let dmin = unit(lines.each_ref().map(|line| line.min), grid.min)?;
    let mut best = Found::near(parts, grid, d, dmin, &lines);
    for _ in 0..ROUNDS {
        let Some((d, dmin)) = best.refit(parts, grid) else {
            break;
        };
        let next = Found::near(parts, grid, d, dmin, &best.lines());
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    Some(best.nudged(parts, grid))
}

impl<const PARTS: usize> Found<PARTS> {
    const fn zero() -> Found<PARTS> {
        Found {
            d: 0.0,
            dmin: 0.0,
            scales: [0.0; PARTS],
            mins: [0.0; PARTS],
            error: 0.0,
        }
    }

    /// The best integers within one of `lines`.
    fn near<const N: usize>(
        parts: &[[f32; N]; PARTS],
        grid: &Grid,
        d: f32,
        dmin: f32,
        lines: &[Line; PARTS],
    ) -> Found<PARTS> {
        let mut found = Found {
            d,
            dmin,
            ..Found::zero()
        };
        for (p, (x, line)) in parts.iter().zip(lines).enumerate() {
            let (scale, min) = (
                round(line.scale * inverse(d)),
                round(line.min * inverse(dmin)),
            );
            let mut least = f32::INFINITY;
            for scale in steps(scale, grid.scales) {
                for min in steps(min, (0.0, grid.min)) {
                    let error = error(x, d * scale, dmin * min, grid);
                    if error < least {
                        (least, found.scales[p], found.mins[p]) = (error, scale, min);
                    }
                }
            }
            found.error += least;
        }
        found
    }

    /// The lines that the integers stand for.
    fn lines(&self) -> [Line; PARTS] {
        std::array::from_fn(|p| Line {
            scale: self.d * self.scales[p],
            min: self.dmin * self.mins[p],
        })
    }

    /// The `d` and `dmin` that fit all integers best; `None` if they are those of before, or no
    /// f16.
    fn refit<const N: usize>(&self, parts: &[[f32; N]; PARTS], grid: &Grid) -> Option<(f32, f32)> {
        // With a = scale · q and b = min, Σ (x - d a + dmin b)² is least where d Σaa - dmin Σab =
        // Σax and d Σab - dmin Σbb = Σbx.
        let [mut aa, mut ab, mut bb, mut ax, mut bx] = [0.0f64; 5];
        for (p, x) in parts.iter().enumerate() {
            let sums = Sums::of(
                x,
                inverse(self.d * self.scales[p]),
                self.dmin * self.mins[p],
                grid,
            );
            let (scale, min) = (f64::from(self.scales[p]), f64::from(self.mins[p]));
            aa += scale * scale * f64::from(sums.qq);
            ab += scale * min * f64::from(sums.q);
            bb += min * min * N as f64;
            ax += scale * f64::from(sums.qx);
            bx += min * f64::from(sums.x);
        }
        let determinant = aa * bb - ab * ab;
        let (d, dmin) = if determinant > aa * bb * 1e-6 {
            (
                (ax * bb - ab * bx) / determinant,
                (ab * ax - aa * bx) / determinant,
            )
        } else if aa > 0.0 {
            ((ax + f64::from(self.dmin) * ab) / aa, f64::from(self.dmin))
        } else {
            (f64::from(self.d), f64::from(self.dmin))
        };
        let (d, dmin) = (
            f16::from_f64(d).to_f32(),
            f16::from_f64(dmin.max(0.0)).to_f32(),
        );
        (d.is_finite() && dmin.is_finite() && (d, dmin) != (self.d, self.dmin)).then_some((d, dmin))
    }

    /// The same integers with the `d` and `dmin` around these that leave the least error.
    fn nudged<const N: usize>(self, parts: &[[f32; N]; PARTS], grid: &Grid) -> Found<PARTS> {
        let mut best = self.clone();
        for d in neighbours(self.d) {
            for dmin in neighbours(self.dmin) {
                let mut next = Found {
                    d,
                    dmin,
                    ..self.clone()
                };
                let line = next.lines();
                next.error = parts
                    .iter()
                    .zip(line)
                    .map(|(x, line)| error(x, line.scale, line.min, grid))
                    .sum();
                if next.error < best.error {
                    best = next;
                }
            }
        }
        best
    }

    /// The integers of part `p`, whose elements are `x`.
    pub fn quants<const N: usize>(&self, p: usize, x: &[f32; N], grid: &Grid) -> [f32; N] {
        let (inverse, min) = (inverse(self.d * self.scales[p]), self.dmin * self.mins[p]);
        x.map(|x| nearest(x, inverse, min, grid))
    }
}

/// Sums over the elements of a part and the integers that they are rounded to.
struct Sums {
    q: f32,
    qq: f32,
    x: f32,
    qx: f32,
}

impl Sums {
    fn of<const N: usize>(x: &[f32; N], inverse: f32, min: f32, grid: &Grid) -> Sums {
        let mut lanes = [[0.0; LANES]; 4];
        for x in x.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let q = nearest(x[i], inverse, min, grid);
                lanes[0][i] += q;
                lanes[1][i] += q * q;
                lanes[2][i] += x[i];
                lanes[3][i] += q * x[i];
            }
        }
        let [q, qq, x, qx] = lanes.map(total);
        Sums { q, qq, x, qx }
    }

    /// The line that fits best, its minimum not below 0, and by how much it lowers Σx².
    fn fit(&self, n: f32) -> (Line, f32) {
        let determinant = n * self.qq - self.q * self.q;
        if determinant > 0.0 {
            let scale = (n * self.qx - self.x * self.q) / determinant;
            let min = (self.q * self.qx - self.qq * self.x) / determinant;
            if min >= 0.0 {
                return (Line { scale, min }, scale * self.qx - min * self.x);
            }
        }
        self.fit_through_zero()
    }

    fn fit_through_zero(&self) -> (Line, f32) {
        let scale = if self.qq > 0.0 {
            self.qx / self.qq
        } else {
            0.0
        };
        (Line { scale, min: 0.0 }, scale * self.qx)
    }
}

/// A part's scale and minimum in a format that has both.
fn line<const N: usize>(x: &[f32; N], grid: &Grid) -> Line {
    let low = x.iter().fold(0.0, |low: f32, &x| low.min(x));
    let high = x.iter().fold(low, |high: f32, &x| high.max(x));
    if high == low {
        return Line {
            scale: 0.0,
            min: -low,
        };
    }
    let mut best = Best::default();
    let range = high - low;
    for below in grid.starts {
        for above in grid.starts {
            let step = range / (grid.quants.1 + below + above);
            best.take(Sums::of(x, 1.0 / step, -(low + step * below), grid).fit(N as f32));
        }
    }
    for _ in 0..FITS {
        best.take(Sums::of(x, inverse(best.line.scale), best.line.min, grid).fit(N as f32));
    }
    best.line
}

/// A part's scale in a format without minima.
fn line_through_zero<const N: usize>(x: &[f32; N], grid: &Grid) -> Line {
    let larger = |most: f32, &x: &f32| if most.abs() < x.abs() { x } else { most };
    let extreme = x.iter().fold(0.0, larger);
    let mut best = Best::default();
    if extreme.abs() < SMALLEST {
        return best.line;
    }
    for end in [grid.quants.0, grid.quants.1] {
        for beyond in grid.starts {
            let inverse = (end + beyond * end.signum()) / extreme;
            best.take(Sums::of(x, inverse, 0.0, grid).fit_through_zero());
        }
    }
    for _ in 0..FITS {
        best.take(Sums::of(x, inverse(best.line.scale), 0.0, grid).fit_through_zero());
    }
    best.line
}

/// The best line yet, and by how much it lowers Σx².
#[derive(Default)]
struct Best {
    line: Line,
    gain: f32,
}

impl Best {
    fn take(&mut self, (line, gain): (Line, f32)) {
        if gain > self.gain * (1.0 + NOISE) {
            *self = Best { line, gain };
        }
    }
}

/// The f16 that makes the number of largest magnitude the integer `pole`, or hardly less. `None` if
/// it is infinite.
fn unit<const PARTS: usize>(numbers: [f32; PARTS], pole: f32) -> Option<f32> {
    let larger = |most: f32, x: f32| if most.abs() < x.abs() { x } else { most };
    let extreme = numbers.into_iter().fold(0.0, larger);
    if extreme == 0.0 || pole == 0.0 {
        return Some(0.0);
    }
    let mut unit = f16::from_f32(extreme / pole);
    // Subnormal numbers may be rounded down by half and more.
    if (extreme * inverse(unit.to_f32())).abs() > pole.abs() + 0.5 || unit == f16::ZERO {
        unit = f16::from_bits(unit.to_bits() + 1);
    }
    unit.is_finite().then(|| unit.to_f32())
}

/// An f16 and those next to it, as far as they are finite and not zero; zero alone.
fn neighbours(x: f32) -> impl Iterator<Item = f32> {
    let bits = f16::from_f32(x).to_bits();
    let around = [bits, bits.wrapping_sub(1), bits + 1].map(f16::from_bits);
    let keep =
        move |(i, y): &(usize, f16)| *i == 0 || x != 0.0 && y.is_finite() && y.to_f32() != 0.0;
    around
        .into_iter()
        .enumerate()
        .filter(keep)
        .map(|(_, y)| y.to_f32())
}

/// `middle` and its neighbours, as far as they are in `range`.
fn steps(middle: f32, range: (f32, f32)) -> impl Iterator<Item = f32> {
    let middle = clamp(middle, range);
    [middle, middle - 1.0, middle + 1.0]
        .into_iter()
        .filter(move |x| range.0 <= *x && *x <= range.1)
}

/// The sum of squared differences.
fn error<const N: usize>(x: &[f32; N], scale: f32, min: f32, grid: &Grid) -> f32 {
    let inverse = inverse(scale);
    let mut lanes = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            let difference = scale * nearest(x[i], inverse, min, grid) - min - x[i];
            lanes[i] += difference * difference;
        }
    }
    total(lanes)
}

fn total(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

/// The integer whose value is nearest to `x`.
fn nearest(x: f32, inverse: f32, min: f32, grid: &Grid) -> f32 {
    round(clamp((x + min) * inverse, grid.quants))
}

/// Clamps `x` by comparisons that are single instructions in vectors, too.
fn clamp(x: f32, (low, high): (f32, f32)) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// The nearest integer, the even one of two, of a number under 2^22: beyond 2^23 f32 has only
/// integers.
fn round(x: f32) -> f32 {
    const INTEGERS: f32 = (3 << 22) as f32;
    (x + INTEGERS) - INTEGERS
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
