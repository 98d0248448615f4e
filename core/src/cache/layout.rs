//! Cache layouts: the rows that a layer keeps of a token. Both the bytes and the carving of a
//! layer's cache follow from one description.

use core::fmt;
use core::str::FromStr;

use super::layer::LayerCache;
use super::planes::{Order, Plane};
use super::policy::UnknownName;
use crate::arena::{Carver, padded};
use crate::kernels::attend::ElementType;

/// Rows that a layer keeps of each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Layout {
    /// Keys, already rotated at their absolute position, and values.
    Kv,
    /// Keys as they come from the projection, and `rank` rank-correction channels; values are
    /// computed from both (slim attention, Graef and Wasielewski, arXiv 2503.05840; with rank 0 its
    /// plain form). The values of the policy's sinks are kept in f32.
    KR {
        /// Number of rank-correction channels.
        rank: u16,
    },
    /// The layer's normed input, from which keys and values are computed. It is exact if keys are
    /// not rotated; no matrix is inverted.
    X,
}

impl Layout {
    /// Number of rank-correction channels.
    pub const fn rank(self) -> usize {
        match self {
            Layout::KR { rank } => rank as usize,
            Layout::Kv | Layout::X => 0,
        }
    }

    /// Returns true if values are computed from what is kept, not kept themselves.
    pub(crate) const fn derives_values(self) -> bool {
        !matches!(self, Layout::Kv)
    }

    /// Name of the layout: `kv`, `k+r` or `x`.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Kv => "kv",
            Layout::KR { .. } => "k+r",
            Layout::X => "x",
        }
    }

    /// Number of elements kept of a token, for a layer of these columns.
    pub const fn elements(self, columns: Columns) -> usize {
        match self {
            Layout::Kv => 2 * columns.kv,
            Layout::KR { rank } => columns.kv + rank as usize,
            Layout::X => columns.input,
        }
    }
}

/// Layouts that a run asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LayoutChoice {
    /// The layouts that the file is made for: [`Layout::KR`] in layers for which the file has a map
    /// from keys to values, [`Layout::Kv`] in the others.
    #[default]
    Auto,
    /// [`Layout::Kv`] in every layer.
    Kv,
    /// [`Layout::KR`] with rank 0 in every layer; the file must be made for it.
    K,
    /// [`Layout::KR`] in every layer; the file must be made for it.
    KR,
    /// [`Layout::X`] in every layer; the model must not rotate its keys.
    X,
}

impl LayoutChoice {
    /// All choices.
    pub const ALL: [LayoutChoice; 5] = [
        LayoutChoice::Auto,
        LayoutChoice::Kv,
        LayoutChoice::K,
        LayoutChoice::KR,
        LayoutChoice::X,
    ];

    /// Name of the choice, as in a command line.
    pub const fn name(self) -> &'static str {
        match self {
            LayoutChoice::Auto => "auto",
            LayoutChoice::Kv => "kv",
            LayoutChoice::K => "k",
            LayoutChoice::KR => "k+r",
            LayoutChoice::X => "x",
        }
    }

    /// Layout of a layer for which the file is made for `of_file`.
    pub const fn of_layer(self, of_file: Layout) -> Layout {
        match self {
            LayoutChoice::Auto | LayoutChoice::K | LayoutChoice::KR => of_file,
            LayoutChoice::Kv => Layout::Kv,
            LayoutChoice::X => Layout::X,
        }
    }
}

impl fmt::Display for LayoutChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for LayoutChoice {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let choice = LayoutChoice::ALL
            .into_iter()
            .find(|choice| choice.name() == text);
        choice.ok_or(UnknownName {
            known: "auto, kv, k, k+r, x",
        })
    }
}

/// Rows that a model with an encoder keeps of the encoder's output, for cross-attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CrossLayout {
    /// Keys and values in every layer.
    Kv,
    /// The output itself, once for all layers (slim attention, Graef and Wasielewski, arXiv
    /// 2503.05840, section 4): each layer computes with its own keys' and values' matrices. It is
    /// exact, since cross-attention rotates no key.
    #[default]
    E,
}

impl CrossLayout {
    /// All layouts.
    pub const ALL: [CrossLayout; 2] = [CrossLayout::Kv, CrossLayout::E];

    /// Name of the layout, as in a command line.
    pub const fn name(self) -> &'static str {
        match self {
            CrossLayout::Kv => "kv",
            CrossLayout::E => "e",
        }
    }

    /// Layout of one cache, and the number of caches in a model of `layers` layers.
    pub(crate) const fn caches(self, layers: usize) -> (Layout, usize) {
        match self {
            CrossLayout::Kv => (Layout::Kv, layers),
            CrossLayout::E => (Layout::X, 1),
        }
    }
}

impl fmt::Display for CrossLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CrossLayout {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let layout = CrossLayout::ALL
            .into_iter()
            .find(|layout| layout.name() == text);
        layout.ok_or(UnknownName { known: "kv, e" })
    }
}

/// Columns of a layer, from which the size of a cache follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Columns of all KV heads' keys together; values have the same number.
    pub kv: usize,
    /// Columns of the layer's input: the width of the residual stream.
    pub input: usize,
}

/// All facts from which the cache of one layer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Layout of the kept rows.
    pub layout: Layout,
    /// Element type of the first plane; rank-correction channels have their own type
    /// ([`ElementType::of_channels`]).
    pub element: ElementType,
    /// Columns of the layer.
    pub columns: Columns,
    /// Number of slots.
    pub slots: usize,
    /// Number of first sinks whose values are kept in f32, in layouts that compute values.
    pub exact_sinks: usize,
}

/// Shape of a plane: an element for every slot and column.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaneShape {
    pub(super) element: ElementType,
    pub(super) order: Order,
    pub(super) slots: usize,
    pub(super) columns: usize,
}

impl PlaneShape {
    /// Number of elements, and number of their scales.
    pub(super) const fn counts(&self) -> (usize, usize) {
        let scales = self.element.row_scales(self.columns);
        (
            self.slots.saturating_mul(self.columns),
            self.slots.saturating_mul(scales),
        )
    }

    /// Bytes of a slot, without padding.
    const fn token_bytes(&self) -> usize {
        let scales = self.element.row_scales(self.columns);
        self.columns * self.element.element_bytes() + scales * size_of::<u16>()
    }

    const fn bytes(&self) -> usize {
        let (elements, scales) = self.counts();
        padded(elements, self.element.element_bytes())
            .saturating_add(padded(scales, size_of::<u16>()))
    }
}

impl CacheShape {
    const fn tiles(&self, element: ElementType, columns: usize) -> PlaneShape {
        PlaneShape {
            element,
            order: Order::Interleaved,
            slots: self.slots,
            columns,
        }
    }

    /// Planes of the layout: first the one that is multiplied by queries, then the one beside it.
    const fn planes(&self) -> (PlaneShape, Option<PlaneShape>) {
        let keys = self.tiles(self.element, self.columns.kv);
        match self.layout {
            Layout::Kv => {
                let values = PlaneShape {
                    order: Order::Rows,
                    ..keys
                };
                (keys, Some(values))
            }
            Layout::KR { rank: 0 } => (keys, None),
            Layout::KR { rank } => {
                let channels = self.tiles(self.element.of_channels(), rank as usize);
                (keys, Some(channels))
            }
            Layout::X => (self.tiles(self.element, self.columns.input), None),
        }
    }

    /// Number of floats of the first sinks' values.
    const fn sink_values(&self) -> usize {
        if self.layout.derives_values() {
            self.exact_sinks.saturating_mul(self.columns.kv)
        } else {
            0
        }
    }

    /// Bytes that [`CacheShape::carve`] takes; saturates.
    pub(crate) const fn bytes(&self) -> usize {
        let (first, beside) = self.planes();
        let planes = match beside {
            Some(beside) => first.bytes().saturating_add(beside.bytes()),
            None => first.bytes(),
        };
        planes.saturating_add(padded(self.sink_values(), size_of::<f32>()))
    }

    /// Number of bytes that a layer keeps of a token, without padding and without the first sinks'
    /// values.
    pub const fn token_bytes(layout: Layout, element: ElementType, columns: Columns) -> usize {
        let shape = CacheShape {
            layout,
            element,
            columns,
            slots: 1,
            exact_sinks: 0,
        };
        let (first, beside) = shape.planes();
        match beside {
            Some(beside) => first.token_bytes() + beside.token_bytes(),
            None => first.token_bytes(),
        }
    }

    /// Takes the cache off the front of `carver`; `None` if its buffer is too short.
    pub(crate) fn carve<'a>(&self, carver: &mut Carver<'a>) -> Option<LayerCache<'a>> {
        let (first, beside) = self.planes();
        Some(LayerCache::new(
            Plane::carve(carver, first)?,
            match beside {
                Some(beside) => Some(Plane::carve(carver, beside)?),
                None => None,
            },
            carver.take(self.sink_values())?,
        ))
    }

    /// First element type of the layout that this build does not have.
    pub(crate) const fn not_built(&self) -> Option<ElementType> {
        let (first, beside) = self.planes();
        if !first.element.is_built() {
            return Some(first.element);
        }
        match beside {
            Some(beside) if !beside.element.is_built() => Some(beside.element),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::arena::Aligned;

    #[test]
    fn choices_have_names_that_are_read_back() {
        for choice in LayoutChoice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("v".parse::<LayoutChoice>().is_err());
        for layout in CrossLayout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
        assert!("x".parse::<CrossLayout>().is_err());
    }

    /// The carver takes exactly the bytes that the plan counts, in every layout.
    #[test]
    fn bytes_are_what_carving_takes() {
        let mut memory = [Aligned([0u8; 1 << 16])];
        for layout in [
            Layout::Kv,
            Layout::KR { rank: 0 },
            Layout::KR { rank: 5 },
            Layout::X,
        ] {
            for element in [ElementType::F32, ElementType::F16, ElementType::Q8_0] {
                for (slots, exact_sinks) in [(1, 0), (37, 4), (64, 1)] {
                    let shape = CacheShape {
                        layout,
                        element,
                        columns: Columns { kv: 24, input: 72 },
                        slots,
                        exact_sinks,
                    };
                    let bytes = shape.bytes();
                    let memory = &mut memory[0].0;
                    assert!(
                        shape
                            .carve(&mut Carver::new(&mut memory[..bytes]).unwrap())
                            .is_some()
                    );
                    let short = bytes - 1;
                    assert!(
                        shape
                            .carve(&mut Carver::new(&mut memory[..short]).unwrap())
                            .is_none()
                    );
                }
            }
        }
    }
}
