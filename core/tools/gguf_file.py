"""Writes and reads GGUF files, through the Python package `gguf` 0.19.0 (`pip install gguf==0.19.0 numpy`): for every script that needs it.

A script beside or below this folder's own finds it by `sys.path.append(str(Path(__file__).resolve().parents[N] / "core/tools"))`.
"""

import numpy as np
from gguf import GGUFWriter
from gguf.quants import dequantize


def whole(tensor):
    """The values of a tensor that `GGUFReader` has read, in f32, in the order of its dimensions."""
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return np.ascontiguousarray(values.reshape([int(dim) for dim in reversed(tensor.shape)]))


def finish(writer):
    """Writes what was added to `writer`, and closes the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(path, architecture, facts, tensors):
    """Writes one file.

    `facts` are pairs of a name and a value in the file's order; a name is that of the writer's method without `add_` (`block_count`).
    `tensors` are pairs of a name and an array of plain numbers, or of a name and a pair of quantised bytes and their type.
    """
    writer = GGUFWriter(str(path), architecture)
    for name, value in facts:
        getattr(writer, f"add_{name}")(value)
    for name, data in tensors:
        data, kind = data if isinstance(data, tuple) else (data, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)
