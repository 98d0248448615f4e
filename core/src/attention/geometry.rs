//! Runs of consecutive positions: the places of the tokens of a pass and of those before them, for
//! caches whose keys are rotated when they are read.

use crate::cache::Ring;
use crate::kernels::attend::TILE;
use crate::kernels::attend::{LaneAngles, Run};
use crate::nn::rope::{self, Pairs};

/// Largest number of runs of a pass: sinks, the window's newer and older slots, and the chunk.
const MAX_RUNS: usize = 4;

/// The group of tokens that a run belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Sinks,
    Window,
    Chunk,
}

/// Slots that hold tokens of consecutive positions, and the place of their tiles' angles.
pub(crate) struct Placed {
    pub(crate) run: Run,
    pub(crate) of: Of,
    /// Index of the first tile's angles, in tiles.
    pub(crate) base: usize,
}

/// The layout of a pass.
pub(crate) struct Geometry<'a> {
    pub(crate) runs: heapless::Vec<Placed, MAX_RUNS>,
    /// Angles of every run's tiles, `[cos, sin]` per pair.
    pub(crate) bases: &'a [[f32; 2]],
    pub(crate) lanes: &'a [LaneAngles],
    pub(crate) pairs: Pairs,
}

/// Largest number of tiles whose angles a pass needs, for a ring of `capacity` slots and a chunk:
/// two runs meet in a tile twice at most.
pub(crate) const fn base_tiles(capacity: usize, chunk: usize) -> usize {
    let of_chunk = if chunk > 1 { chunk.div_ceil(TILE) } else { 0 };
    capacity
        .div_ceil(TILE)
        .saturating_add(2)
        .saturating_add(of_chunk)
}

/// Fills the angles of every position in a tile. `magnitude` multiplies cosines and sines, as for a
/// query; it is 1 except for LongRoPE.
pub(crate) fn fill_lanes(frequencies: &[u64], magnitude: f32, lanes: &mut [LaneAngles]) {
    for (frequency, lanes) in frequencies.iter().zip(lanes) {
        let [cosines, sines] = lanes;
        for (place, (cos, sin)) in cosines.iter_mut().zip(sines).enumerate() {
            let mut angle = [[0.0; 2]];
            rope::angles(&[*frequency], place as u64, &mut angle);
            [*cos, *sin] = angle[0].map(|x| x * magnitude);
        }
    }
}

/// Tables of angles that do not change from pass to pass.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    /// Turns per position of each pair.
    pub(crate) frequencies: &'a [u64],
    /// Angles of every pair at every position in a tile.
    pub(crate) lanes: &'a [LaneAngles],
    pub(crate) pairs: Pairs,
}

impl<'a> Geometry<'a> {
    /// Creates the layout of a pass of `tokens` tokens, the first at `ring.position()`; `bases` is
    /// scratch for [`base_tiles`] tiles.
    pub(crate) fn new(
        ring: &Ring,
        tokens: usize,
        tables: Tables<'a>,
        bases: &'a mut [[f32; 2]],
    ) -> Self {
        let Tables {
            frequencies,
            lanes,
            pairs,
        } = tables;
        let mut runs: heapless::Vec<Placed, MAX_RUNS> = heapless::Vec::new();
        let mut tiles = 0;
        let mut add = |of, run: Run| {
            if run.slots.is_empty() {
                return;
            }
            for (i, tile) in run.tiles().enumerate() {
                let angles = &mut bases[(tiles + i) * frequencies.len()..][..frequencies.len()];
                rope::angles(frequencies, run.tile_position(tile), angles);
            }
            let placed = Placed {
                base: tiles,
                of,
                run,
            };
            tiles += placed.run.tiles().len();
            if runs.push(placed).is_err() {
                unreachable!("there are at most {MAX_RUNS} runs");
            }
        };
        // A single token is already in the ring when it attends.
        let seen = ring.position() + u64::from(tokens == 1);
        let (sinks, capacity) = (ring.sinks(), ring.capacity());
        let used = if seen < capacity as u64 {
            seen as usize
        } else {
            capacity
        };
        add(
            Of::Sinks,
            Run {
                slots: 0..sinks.min(used),
                position: 0,
            },
        );
        if used > sinks {
            let newest = ring.slot(seen - 1);
            let begin = seen - 1 - (newest - sinks) as u64;
            add(
                Of::Window,
                Run {
                    slots: sinks..newest + 1,
                    position: begin,
                },
            );
            add(
                Of::Window,
                Run {
                    slots: newest + 1..used,
                    position: seen.wrapping_sub((capacity - sinks) as u64),
                },
            );
        }
        if tokens > 1 {
            add(
                Of::Chunk,
                Run {
                    slots: 0..tokens,
                    position: ring.position(),
                },
            );
        }
        Geometry {
            runs,
            bases,
            lanes,
            pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot's token by the geometry, against a ring that the test keeps.
    #[test]
    fn runs_say_which_token_is_where() {
        for (sinks, window, chunk) in [
            (0, 5, 1),
            (2, 40, 7),
            (4, 70, 33),
            (35, 64, 64),
            (1, 31, 31),
        ] {
            let mut ring = Ring::new(sinks, window);
            let mut slots = std::vec![None; sinks + window];
            let frequencies = [1u64 << 58];
            let mut bases = std::vec![[0.0; 2]; base_tiles(sinks + window, chunk)];
            for pass in 0..40 {
                let tokens = 1 + pass % chunk;
                let first = ring.position();
                let is_single = tokens == 1;
                if is_single {
                    slots[ring.slot(first)] = Some(first);
                }
                let tables = Tables {
                    frequencies: &frequencies,
                    lanes: &[],
                    pairs: Pairs::Neighbours,
                };
                let geometry = Geometry::new(&ring, tokens, tables, &mut bases);
                let mut seen = std::vec![None; sinks + window];
                let mut of_chunk = std::vec![];
                for placed in &geometry.runs {
                    for (i, slot) in placed.run.slots.clone().enumerate() {
                        let position = placed.run.position + i as u64;
                        if placed.of == Of::Chunk {
                            of_chunk.push((slot, position));
                        } else {
                            assert_eq!(placed.of == Of::Sinks, slot < sinks);
                            assert!(seen[slot].replace(position).is_none());
                        }
                        let tile = slot / TILE;
                        let back = placed
                            .run
                            .tile_position(tile)
                            .wrapping_add((slot % TILE) as u64);
                        assert_eq!(back, position);
                    }
                }
                assert_eq!(seen, slots, "{sinks} {window} {pass}");
                if !is_single {
                    assert!(
                        of_chunk
                            .iter()
                            .enumerate()
                            .all(|(i, at)| *at == (i, first + i as u64))
                    );
                    for position in first..first + tokens as u64 {
                        slots[ring.slot(position)] = Some(position);
                    }
                }
                ring.advance(tokens);
            }
        }
    }
}
