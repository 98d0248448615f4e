//! Finding tensors by name, and checking their shapes.

use super::names::{Naming, Stack};
use super::{LayerName, ModelError, Norm, NormKind};
use crate::const_fn::tri;
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::F32;
use crate::tensor::Matrix;

/// Tensors of a layer, or those that belong to no layer.
pub(super) struct Tensors<'f, 'w> {
    file: &'f Gguf<'w>,
    naming: Naming,
    stack: Stack,
    layer: Option<LayerName>,
}

impl<'f, 'w> Tensors<'f, 'w> {
    /// Tensors of a stack that belong to no layer.
    pub(super) const fn of_model(file: &'f Gguf<'w>, naming: Naming, stack: Stack) -> Self {
        Tensors {
            file,
            naming,
            stack,
            layer: None,
        }
    }

    /// Tensors of layer `layer` of a stack.
    pub(super) const fn of_layer(
        file: &'f Gguf<'w>,
        naming: Naming,
        stack: Stack,
        layer: usize,
    ) -> Self {
        Tensors {
            file,
            naming,
            stack,
            layer: Some(LayerName {
                stack: naming.prefix(stack),
                layer,
            }),
        }
    }

    /// Name in this file of the tensor that llama.cpp's files call `name`.
    pub(super) const fn name(&self, name: &'static str) -> &'static str {
        self.naming.of(self.stack, name)
    }

    /// Returns the tensor that llama.cpp's files call `name`.
    pub(super) const fn find(&self, name: &'static str) -> Result<TensorInfo<'w>, ModelError> {
        let name = self.name(name);
        let tensor = match self.layer {
            Some(LayerName { stack, layer }) => self.file.stack_tensor(stack, layer, name),
            None => self.file.tensor(name),
        };
        match tensor {
            Some(tensor) => Ok(tensor),
            None => Err(ModelError::MissingTensor {
                name,
                layer: self.layer,
            }),
        }
    }

    /// Returns a matrix of `rows` x `cols`.
    pub(super) const fn matrix(
        &self,
        name: &'static str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix<'w>, ModelError> {
        self.stored(name, (rows, cols), (rows, cols))
    }

    /// Returns a matrix of `shape` (rows, columns) that the file stores with the shape `stored`.
    pub(super) const fn stored(
        &self,
        name: &'static str,
        stored: (usize, usize),
        shape: (usize, usize),
    ) -> Result<Matrix<'w>, ModelError> {
        let tensor = tri!(self.find(name));
        let (name, layer) = (self.name(name), self.layer);
        let unsupported = ModelError::UnsupportedFormat {
            name,
            layer,
            ggml_type: tensor.ggml_type(),
        };
        let Some(format) = tensor.format() else {
            return Err(unsupported);
        };
        if !format.is_built() {
            return Err(unsupported);
        }
        let shape_error = ModelError::BadShape {
            name,
            layer,
            expected: stored,
            found: (tensor.rows(), tensor.cols()),
        };
        if tensor.rows() != stored.0 || tensor.cols() != stored.1 {
            return Err(shape_error);
        }
        match Matrix::new(format, shape.0, shape.1, tensor.data()) {
            Ok(matrix) => Ok(matrix),
            Err(_) => Err(shape_error),
        }
    }

    /// Returns a row of F32.
    pub(super) const fn row(
        &self,
        name: &'static str,
        len: usize,
    ) -> Result<&'w [F32], ModelError> {
        match tri!(self.matrix(name, 1, len)).row() {
            Some(row) => Ok(row),
            None => Err(ModelError::UnsupportedFeature(
                "norms or biases in a format other than F32",
            )),
        }
    }

    /// Returns a row of F32, none of which is less than `least`, infinite or NaN.
    pub(super) const fn finite_row(
        &self,
        name: &'static str,
        len: usize,
        least: f32,
    ) -> Result<&'w [F32], ModelError> {
        let row = tri!(self.row(name, len));
        let mut i = 0;
        while i < row.len() {
            let value = row[i].to_f32();
            if !(value >= least && value <= f32::MAX) {
                return Err(ModelError::FloatOutOfRange { key: name, value });
            }
            i += 1;
        }
        Ok(row)
    }

    /// Returns `rows` rows of `cols` F32 numbers, one after the other.
    pub(super) const fn rows_of_f32(
        &self,
        name: &'static str,
        rows: usize,
        cols: usize,
    ) -> Result<&'w [F32], ModelError> {
        let len = rows.saturating_mul(cols);
        match tri!(self.stored(name, (rows, cols), (1, len))).row() {
            Some(row) => Ok(row),
            None => Err(ModelError::UnsupportedFeature(
                "a front end of sound in a format other than F32",
            )),
        }
    }

    /// Returns a row of F32 that may be absent.
    pub(super) const fn bias(
        &self,
        name: &'static str,
        len: usize,
    ) -> Result<Option<&'w [F32]>, ModelError> {
        match self.find(name) {
            Ok(_) => Ok(Some(tri!(self.row(name, len)))),
            Err(_) => Ok(None),
        }
    }

    /// Returns a norm's weight and, for a kind that has one, its bias; `None` unless `is_there`.
    pub(super) const fn norm(
        &self,
        is_there: bool,
        kind: NormKind,
        [weight, bias]: [&'static str; 2],
        len: usize,
    ) -> Result<Option<Norm<'w>>, ModelError> {
        if !is_there {
            return Ok(None);
        }
        Ok(Some(tri!(self.present_norm(kind, [weight, bias], len))))
    }

    /// Returns the norm after the last layer of the stack.
    pub(super) const fn output_norm(
        &self,
        kind: NormKind,
        len: usize,
    ) -> Result<Norm<'w>, ModelError> {
        self.present_norm(kind, ["output_norm.weight", "output_norm.bias"], len)
    }

    /// Returns a norm's weight and, for a kind that has one, its bias.
    pub(super) const fn present_norm(
        &self,
        kind: NormKind,
        [weight, bias]: [&'static str; 2],
        len: usize,
    ) -> Result<Norm<'w>, ModelError> {
        Ok(Norm {
            weight: tri!(self.row(weight, len)),
            bias: match kind {
                NormKind::Rms => None,
                NormKind::Layer => tri!(self.bias(bias, len)),
            },
        })
    }
}
