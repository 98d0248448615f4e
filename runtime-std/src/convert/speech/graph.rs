//! A graph in the form of ONNX Runtime (`onnxruntime/core/flatbuffers/schema/ort.fbs`).
//!
//! Constants have names; matrices often have only numbers, so that each is found by the node that
//! multiplies by it. What only depends on constants is computed here.

use std::collections::HashMap;

use super::ConvertError;
use super::array::{Array, count};
use super::flat::Table;

/// Most dimensions of a constant.
const MOST_DIMS: usize = 8;

/// Deepest chain of nodes that depend on constants only; real files have four.
const DEEPEST: usize = 8;

/// A constant as it is stored.
#[derive(Clone)]
struct Constant<'b> {
    dims: Vec<usize>,
    kind: i32,
    bytes: &'b [u8],
}

/// A node of the graph.
struct Node<'b> {
    operation: &'b str,
    name: &'b str,
    inputs: Vec<&'b str>,
}

/// A graph, with the branch for an empty cache if it has branches.
pub(super) struct Graph<'b> {
    constants: HashMap<&'b str, Constant<'b>>,
    nodes: Vec<Node<'b>>,
    /// The node that computes a value.
    makers: HashMap<&'b str, usize>,
}

impl<'b> Graph<'b> {
    /// Reads the graph of `file`, called `name`.
    ///
    /// # Errors
    /// [`ConvertError::Form`] and [`ConvertError::Damaged`].
    pub(super) fn read(file: &'b [u8], name: &'static str) -> Result<Graph<'b>, ConvertError> {
        if file.get(4..8) != Some(b"ORTM") {
            let form = "ONNX Runtime (.ort)";
            return Err(ConvertError::Form { file: name, form });
        }
        let mut graph = Graph {
            constants: HashMap::new(),
            nodes: Vec::new(),
            makers: HashMap::new(),
        };
        // Session, model, graph.
        Table::root(file)
            .and_then(|session| graph.walk(session.table(1)?.table(7)?, true))
            .ok_or(ConvertError::Damaged(name))?;
        Ok(graph)
    }

    /// Adds a graph and its branch for an empty cache, which has no further one.
    fn walk(&mut self, graph: Table<'b>, has_branch: bool) -> Option<()> {
        for tensor in graph.tables(0)? {
            let dims = tensor.vector(2, 8)?.as_chunks().0;
            (dims.len() <= MOST_DIMS).then_some(())?;
            let dims = dims.iter().map(|dim| u64::from_le_bytes(*dim).try_into());
            let constant = Constant {
                dims: dims.collect::<Result<_, _>>().ok()?,
                kind: tensor.number(3),
                bytes: tensor.vector(4, 1)?,
            };
            self.constants.insert(tensor.text(0)?, constant);
        }
        for node in graph.tables(2)? {
            for output in node.texts(9)? {
                self.makers.insert(output, self.nodes.len());
            }
            self.nodes.push(Node {
                operation: node.text(5)?,
                name: node.text(0)?,
                inputs: node.texts(8)?,
            });
            for attribute in node.tables(10)? {
                if has_branch && attribute.text(0)? == "else_branch" {
                    self.walk(attribute.table(7)?, false)?;
                }
            }
        }
        Some(())
    }

    /// The value called `name`, if it depends on constants only.
    fn value(&self, name: &str, depth: usize) -> Option<Array> {
        if let Some(constant) = self.constants.get(name) {
            return constant.array();
        }
        let node = &self.nodes[*self.makers.get(name)?];
        let depth = depth.checked_sub(1)?;
        let input = |i: usize| self.value(node.inputs.get(i)?, depth);
        match node.operation {
            "Cast" => input(0),
            "Mul" => by_one(input(0)?, input(1)?, |a, b| a * b),
            "Add" => by_one(input(0)?, input(1)?, |a, b| a + b),
            "Sub" => by_one(input(0)?, input(1)?, |a, b| a - b),
            "DequantizeLinear" => dequantized(input(0)?, input(1)?, self.zero(node, 2, depth)?),
            _ => None,
        }
    }

    /// The matrix by which the node called `name` multiplies, or from which it takes rows.
    ///
    /// # Errors
    /// [`ConvertError::Missing`] if there is no such node, or its matrix is no constant.
    pub(super) fn weight(&self, name: &str) -> Result<Array, ConvertError> {
        let quant = format!("{name}_quant");
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name == name || node.name == quant)
            .and_then(|node| self.weight_of(node))
            .ok_or_else(|| ConvertError::Missing(format!("weight of the node {name}")))
    }

    fn weight_of(&self, node: &Node<'_>) -> Option<Array> {
        let value = |i: usize| self.value(node.inputs.get(i)?, DEEPEST);
        match node.operation {
            "MatMul" | "Gemm" | "Conv" | "FusedConv" | "Mul" | "Add" => value(1),
            "MatMulIntegerToFloat" => {
                dequantized(value(1)?, value(3)?, self.zero(node, 5, DEEPEST)?)
            }
            "DynamicQuantizeMatMul" => {
                dequantized(value(1)?, value(2)?, self.zero(node, 3, DEEPEST)?)
            }
            "Gather" => {
                let name = node.inputs.first()?;
                let Some(start) = name.strip_suffix("_quantized") else {
                    return value(0);
                };
                let scale = self.value(&format!("{start}_scale"), DEEPEST)?;
                let zero = self.value(&format!("{start}_zero_point"), DEEPEST)?;
                dequantized(value(0)?, scale, Some(zero))
            }
            _ => None,
        }
    }

    /// The zero point that is input `i` of a node, if it has one; `None` if that cannot be read.
    fn zero(&self, node: &Node<'_>, i: usize, depth: usize) -> Option<Option<Array>> {
        match node.inputs.get(i) {
            None | Some(&"") => Some(None),
            Some(name) => self.value(name, depth).map(Some),
        }
    }

    /// The constant called `name`, as files with branches spell it, too.
    ///
    /// # Errors
    /// [`ConvertError::Missing`].
    pub(super) fn constant(&self, name: &str) -> Result<Array, ConvertError> {
        [name, &format!("{name}_merged_0")]
            .into_iter()
            .find_map(|name| self.constants.get(name)?.array())
            .ok_or_else(|| ConvertError::Missing(format!("constant {name}")))
    }

    /// True if a node is called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        let quant = format!("{name}_quant");
        self.nodes
            .iter()
            .any(|node| node.name == name || node.name == quant)
    }
}

impl Constant<'_> {
    /// The constant in f32; `None` for other types than f32 and integers of 8 bits, and for a
    /// number of bytes that does not fit the dimensions.
    fn array(&self) -> Option<Array> {
        let values: Vec<f32> = match self.kind {
            1 => {
                let (values, rest) = self.bytes.as_chunks();
                rest.is_empty().then_some(())?;
                values.iter().map(|x| f32::from_le_bytes(*x)).collect()
            }
            2 => self.bytes.iter().map(|x| f32::from(*x)).collect(),
            3 => self.bytes.iter().map(|x| f32::from(*x as i8)).collect(),
            _ => return None,
        };
        (count(&self.dims) == Some(values.len())).then(|| Array {
            dims: self.dims.clone(),
            values,
        })
    }
}

/// Applies `f` to each value of an array and a single one, in this order.
fn by_one(a: Array, b: Array, f: impl Fn(f32, f32) -> f32) -> Option<Array> {
    let ([one], mut all) = (&b.values[..], a) else {
        return None;
    };
    all.values.iter_mut().for_each(|x| *x = f(*x, *one));
    Some(all)
}

fn dequantized(values: Array, scale: Array, zero: Option<Array>) -> Option<Array> {
    let centred = match zero {
        Some(zero) => by_one(values, zero, |x, zero| x - zero)?,
        None => values,
    };
    by_one(centred, scale, |x, scale| x * scale)
}
