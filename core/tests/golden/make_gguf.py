#!/usr/bin/env python3
"""Writes ../data/all-types-v3.gguf and ../data/plain-v2.gguf with the Python package `gguf`, and reads both back with it.

Usage: pip install gguf==0.19.0 numpy && python3 make_gguf.py

The name and version of the writer stand in each file under `golden.writer`. The expected values stand in ../gguf.rs.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quant, GGUFReader, GGUFValueType as Type, GGUFWriter, gguf_writer
from gguf.quants import quantize

sys.path.append(str(Path(__file__).resolve().parents[3] / "core/tools"))
from gguf_file import finish  # noqa: E402

DATA = Path(__file__).parent.parent / "data"
WRITER = f"gguf {version('gguf')} (Python), numpy {version('numpy')}"


def read_back(path: Path, metadata: int, tensors: int, alignment: int):
    """The package's own reader agrees on what was written."""
    reader = GGUFReader(path)
    fields = [name for name in reader.fields if not name.startswith("GGUF.")]
    assert (len(fields), len(reader.tensors), reader.alignment) == (metadata, tensors, alignment), path


def all_types():
    path = DATA / "all-types-v3.gguf"
    w = GGUFWriter(path, "golden")
    w.add_string("golden.writer", WRITER)
    w.add_custom_alignment(64)
    w.add_uint8("type.u8", 200)
    w.add_int8("type.i8", -100)
    w.add_uint16("type.u16", 60000)
    w.add_int16("type.i16", -30000)
    w.add_uint32("type.u32", 4000000000)
    w.add_int32("type.i32", -2000000000)
    w.add_float32("type.f32", 0.1)
    w.add_bool("type.true", True)
    w.add_bool("type.false", False)
    w.add_string("type.string", "brook, ручей, 小川")
    w.add_uint64("type.u64", 2**64 - 1)
    w.add_int64("type.i64", -(2**63))
    w.add_float64("type.f64", 0.1)
    w.add_key_value("type.empty_string", "", Type.STRING)
    w.add_key_value("type.not_utf8", b"\xff\x00\xfe", Type.STRING)
    w.add_key_value("", 7, Type.UINT8)
    for kind, values in {
        Type.UINT8: [0, 255],
        Type.INT8: [-128, 127],
        Type.UINT16: [0, 65535],
        Type.INT16: [-32768, 32767],
        Type.UINT32: [0, 2**32 - 1],
        Type.INT32: [-(2**31), 2**31 - 1],
        Type.FLOAT32: [-0.0, 1.5, float("inf")],
        Type.BOOL: [True, False, True],
        Type.UINT64: [0, 2**64 - 1],
        Type.INT64: [-(2**63), 2**63 - 1],
        Type.FLOAT64: [-0.0, 1e300],
        Type.STRING: ["a", "", "bcd"],
    }.items():
        w.add_key_value(f"array.{kind.name.lower()}", values, Type.ARRAY, sub_type=kind)
    w.add_array("array.nested", [[[1, 2], [3]], [[4]]])
    w.add_array("array.nested_strings", [["x", "yz"], [""]])

    ramp = np.arange(64, dtype=np.float32).reshape(2, 32) - 20
    for kind in [Quant.F32, Quant.F16, Quant.BF16, Quant.Q4_0, Quant.Q4_1, Quant.Q5_0, Quant.Q5_1, Quant.Q8_0]:
        w.add_tensor(f"ramp.{kind.name.lower()}", quantize(ramp, kind), raw_dtype=kind)
    w.add_tensor("rank.1", np.array([1, 2, 3], dtype=np.float32))
    w.add_tensor("rank.3", np.arange(24, dtype=np.float32).reshape(4, 3, 2))
    w.add_tensor("rank.4", np.arange(24, dtype=np.float32).reshape(2, 1, 4, 3))
    w.add_tensor("other.i8", np.array([[1, -2, 3]], dtype=np.int8))
    w.add_tensor("blk.10.w", np.array([10], dtype=np.float32))
    w.add_tensor("blk.1.w", np.array([1], dtype=np.float32))
    finish(w)
    read_back(path, metadata=33, tensors=14, alignment=64)


def plain():
    path = DATA / "plain-v2.gguf"
    # Versions 2 and 3 differ only in that 3 may be big-endian; the package writes the version of this constant.
    gguf_writer.GGUF_VERSION = 2
    w = GGUFWriter(path, "golden")
    w.add_string("golden.writer", WRITER)
    w.add_uint32("golden.block_count", 3)
    w.add_tensor("w", np.array([[1, 2], [3, 4]], dtype=np.float32))
    finish(w)
    gguf_writer.GGUF_VERSION = gguf.GGUF_VERSION
    read_back(path, metadata=3, tensors=1, alignment=32)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    all_types()
    plain()
