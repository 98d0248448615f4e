//! Finding tensors by name, and checking their shapes.

use super::{ModelError, Norm, NormKind};
use crate::const_fn::tri;
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::F32;
use crate::tensor::Matrix;

/// Tensors of a layer, or those that belong to no layer.
pub(super) struct Tensors<'f, 'w> {
    file: &'f Gguf<'w>,
    layer: Option<usize>,
}

impl<'f, 'w> Tensors<'f, 'w> {
    /// Tensors that belong to no layer.
    pub(super) const fn of_model(file: &'f Gguf<'w>) -> Self {
        Tensors { file, layer: None }
    }

    /// Tensors of layer `layer`, whose names begin with `blk.{layer}.`.
    pub(super) const fn of_layer(file: &'f Gguf<'w>, layer: usize) -> Self {
        Tensors {
            file,
            layer: Some(layer),
        }
    }

    /// Returns the tensor with the name `name`.
    pub(super) const fn find(&self, name: &'static str) -> Result<TensorInfo<'w>, ModelError> {
        let tensor = match self.layer {
            Some(layer) => self.file.layer_tensor(layer, name),
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
        let tensor = tri!(self.find(name));
        let layer = self.layer;
        let Some(format) = tensor.format() else {
            return Err(ModelError::UnsupportedFormat {
                name,
                layer,
                ggml_type: tensor.ggml_type(),
            });
        };
        if !format.is_built() {
            return Err(ModelError::UnsupportedFormat {
                name,
                layer,
                ggml_type: tensor.ggml_type(),
            });
        }
        let shape_error = ModelError::BadShape {
            name,
            layer,
            expected: (rows, cols),
            found: (tensor.rows(), tensor.cols()),
        };
        if tensor.rows() != rows || tensor.cols() != cols {
            return Err(shape_error);
        }
        match Matrix::new(format, rows, cols, tensor.data()) {
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
        Ok(Some(Norm {
            weight: tri!(self.row(weight, len)),
            bias: match kind {
                NormKind::Rms => None,
                NormKind::Layer => tri!(self.bias(bias, len)),
            },
        }))
    }
}
