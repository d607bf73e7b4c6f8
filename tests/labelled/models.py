"""Image classifiers in ONNX format with random weights: what they say means nothing, what they cost does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class _Network:
    """A graph in the making: each method adds a layer and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._chance = np.random.default_rng(7)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        spread = (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        values = (self._chance.standard_normal(shape, dtype=np.float32) * spread).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolve(self, source: str, inputs: int, outputs: int, size: int, stride: int = 1) -> str:
        # Batch norm is folded into the weights, as exporters do it.
        return self.add(
            "Conv",
            source,
            self.weight(outputs, inputs, size, size),
            self.weight(outputs),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
        )

    def block(self, source: str, inputs: int, outputs: int, stride: int) -> str:
        """A basic block of a ResNet."""
        inner = self.add("Relu", self.convolve(source, inputs, outputs, 3, stride))
        inner = self.convolve(inner, outputs, outputs, 3)
        around = source if inputs == outputs else self.convolve(source, inputs, outputs, 1, stride)
        return self.add("Relu", self.add("Add", inner, around))


def write_resnet18(path: Path, labels: int = 5, side: int = 224) -> None:
    """ResNet-18: 11 million weights, 1.8 billion multiplications a picture, as of many classifiers in use."""
    net = _Network()
    last = net.add("Relu", net.convolve("pixels", 3, 64, 7, 2))
    last = net.add("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for outputs in (64, 128, 256, 512):
        last = net.block(last, inputs, outputs, 1 if outputs == 64 else 2)
        last = net.block(last, outputs, outputs, 1)
        inputs = outputs
    last = net.add("Flatten", net.add("GlobalAveragePool", last))
    net.add("Gemm", last, net.weight(labels, 512), net.weight(labels), transB=1)
    _write(path, net, [1, 3, side, side], labels)


def write_color_reader(
    path: Path, *, layout: str = "nchw", side: int | str = 8, half: bool = False, labels: int = 3
) -> None:
    """Its outputs are the means of red, green and blue as they arrive, and zeros: what was done to the pixels shows."""
    net = _Network()
    axes = [2, 3] if layout == "nchw" else [1, 2]
    source = net.add("Cast", "pixels", to=TensorProto.FLOAT) if half else "pixels"
    last = net.add("ReduceMean", source, axes=axes, keepdims=0)
    name = "wide"
    net.weights.append(numpy_helper.from_array(np.eye(3, labels, dtype=np.float32), name))
    net.add("MatMul", last, name)
    shape = [1, 3, side, side] if layout == "nchw" else [1, side, side, 3]
    _write(path, net, shape, labels, TensorProto.FLOAT16 if half else TensorProto.FLOAT)


def _write(path: Path, net: _Network, shape: list[Any], labels: int, kind: int = TensorProto.FLOAT) -> None:
    graph = helper.make_graph(
        net.nodes,
        "classifier",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info(net.nodes[-1].output[0], TensorProto.FLOAT, [1, labels])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
