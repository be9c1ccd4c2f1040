"""A BERT encoder written down by hand as a graph for ONNX Runtime, its matrices in 8 bits.

No tracer: the same bytes on every machine. Products are of integers, and what goes in is rounded as it comes: where
processors have such products they are faster, and a quarter of the bytes is read. Of a matrix's column, and of a row
that goes in, every `BLOCK` numbers have a scale of their own; or a column has one, and all that goes in has one, which
is coarser, and lets a text's numbers depend on the texts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
BLOCK = 32
"""Numbers that share a scale."""
_OWN = "com.microsoft"  # where the runtime keeps operators that are not in the standard
_INTEGERS = 4  # what its operator calls products of 8-bit integers
Tensors = Mapping[str, npt.NDArray[np.float32]]
"""Weights by the names that transformers' BertModel has for them."""


class Graph:
    """Nodes and weights by name; a call adds a node and gives the name of what it makes.

    Args:
        exact: do not round weights.
        named: give all weights of a model their names, so that they can be read again.
        whole: one scale for a column and one for all that goes in, with operators of the standard alone.
    """

    def __init__(self, exact: bool = False, *, named: bool = False, whole: bool = False) -> None:
        self.exact, self.named, self.whole = exact, named, whole
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node."""
        return self.several(1, kind, *inputs, **attributes)[0]

    def several(self, outputs: int, kind: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node that makes several things."""
        name = f"{kind}.{len(self.nodes)}"
        made = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        return made

    def weight(self, value: npt.NDArray[np.generic] | list[int] | float, name: str = "") -> str:
        """A constant."""
        if isinstance(value, float):
            array: npt.NDArray[np.generic] = np.array(value, np.float32)
        else:
            array = np.array(value, np.int64) if isinstance(value, list) else value
        name = name or f"constant.{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def given(self, tensors: Tensors, name: str) -> str:
        """A weight of a model as it is."""
        return self.weight(tensors[name], name if self.named else "")

    def rounded(self, value: npt.NDArray[np.float32], axis: int, name: str) -> tuple[str, str]:
        """8-bit integers and the scales of rows (axis 1: one for all columns of a row) or of columns (axis 0)."""
        if self.exact:
            ones = np.ones_like(value.max(axis=axis, keepdims=True))
            return self.weight(np.ascontiguousarray(value), f"{name}.float"), self.weight(ones, f"{name}.scale")
        integers, scales = eight_bits(value, axis)
        return self.weight(integers, f"{name}.int8"), self.weight(scales, f"{name}.scale")

    def linear(self, x: str, tensors: Tensors, name: str) -> str:
        """x Wᵀ + b, of weights in transformers' form."""
        matrix, bias = tensors[f"{name}.weight"], self.given(tensors, f"{name}.bias")
        if self.exact:
            return self("Add", self("MatMul", x, self.weight(np.ascontiguousarray(matrix.T), f"{name}.float")), bias)
        if self.whole:
            whole, scale = self.rounded(matrix.T, 0, name)
            given, size, zero = self.several(3, "DynamicQuantizeLinear", x)
            product = self("Cast", self("MatMulInteger", given, whole, zero), to=TensorProto.FLOAT)
            return self("Add", self("Mul", product, self("Mul", size, scale)), bias)
        outputs, inputs = matrix.shape
        blocks, scales = eight_bits(matrix.reshape(outputs, inputs // BLOCK, BLOCK), axis=2)
        around = (blocks.astype(np.int16) + 128).astype(np.uint8)  # 128 is what the operator takes for zero
        return self(
            "MatMulNBits", x, self.weight(around, f"{name}.uint8"), self.weight(scales.ravel(), f"{name}.scale"), "",
            "", bias, domain=_OWN, K=inputs, N=outputs, bits=8, block_size=BLOCK, accuracy_level=_INTEGERS,
        )  # fmt: skip

    def model(self, name: str, inputs: list[str], output: str, width: int) -> onnx.ModelProto:
        """The whole, from int64 inputs of shape (B, T) to a float32 output of shape (B, width)."""
        given = [helper.make_tensor_value_info(one, TensorProto.INT64, ["B", "T"]) for one in inputs]
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", width])
        graph = helper.make_graph(self.nodes, name, given, [made], self.weights)
        versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(_OWN, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        onnx.checker.check_model(model)
        return model


def eight_bits(value: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers from -127 to 127, and the scales, one for all along an axis, that make the values of them again."""
    scale = np.abs(value).max(axis=axis, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.clip(np.rint(value / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def encoder(
    g: Graph, tensors: Tensors, *, heads: int, layers: int, epsilon: float, longest: int, types: str = ""
) -> tuple[str, str]:
    """BERT from "ids" and "mask" to hidden states of shape (B, T, D), and to the sum of those that are there, (B, D).

    Args:
        types: the input of token types; "" where all tokens are of the first.
    """

    def normal(x: str, name: str) -> str:
        scale, shift = g.given(tensors, f"{name}.weight"), g.given(tensors, f"{name}.bias")
        return g("LayerNormalization", x, scale, shift, epsilon=epsilon, axis=-1)

    words, scales = g.rounded(tensors["embeddings.word_embeddings.weight"], 1, "words")
    word = g("Mul", g("Cast", g("Gather", words, "ids"), to=TensorProto.FLOAT), g("Gather", scales, "ids"))
    places, kinds = (
        tensors["embeddings.position_embeddings.weight"][:longest],
        tensors["embeddings.token_type_embeddings.weight"],
    )
    if types:
        word = g("Add", word, g("Gather", g.weight(kinds, "types.table" if g.named else ""), types))
    else:
        places = places + kinds[0]
    long = g("Shape", "ids", start=1, end=2)
    place = g("Slice", g.weight(places, "places.table" if g.named else ""), g.weight([0]), long, g.weight([0]))
    x = normal(g("Add", word, place), "embeddings.LayerNorm")
    width = places.shape[1]
    here = g("Cast", "mask", to=TensorProto.FLOAT)
    hidden = g("Unsqueeze", g("Mul", g("Sub", here, g.weight(1.0)), g.weight(1e9)), g.weight([1, 2]))
    split = g.weight([0, 0, heads, width // heads])
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            g("Reshape", g.linear(x, tensors, f"{layer}.attention.self.{part}"), split)
            for part in ("query", "key", "value")
        )
        q, k = g("Transpose", q, perm=[0, 2, 1, 3]), g("Transpose", k, perm=[0, 2, 3, 1])
        near = g("Mul", g("MatMul", q, k), g.weight((width // heads) ** -0.5))
        seen = g("MatMul", g("Softmax", g("Add", near, hidden), axis=-1), g("Transpose", v, perm=[0, 2, 1, 3]))
        seen = g("Reshape", g("Transpose", seen, perm=[0, 2, 1, 3]), g.weight([0, 0, width]))
        seen = g.linear(seen, tensors, f"{layer}.attention.output.dense")
        x = normal(g("Add", seen, x), f"{layer}.attention.output.LayerNorm")
        inner = g("Gelu", g.linear(x, tensors, f"{layer}.intermediate.dense"))
        x = normal(g("Add", g.linear(inner, tensors, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    there = g("Unsqueeze", here, g.weight([2]))
    return x, g("ReduceSum", g("Mul", x, there), g.weight([1]), keepdims=0)
