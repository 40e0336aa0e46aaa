"""ONNX files: as onnxruntime computes them, converted, and refused when damaged."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from spikecore.errors import ConversionError
from spikecore.nn import trace_net
from spikecore_ann2snn import Ann2SNN

from .nets import Everything, TransformerBlock, mean_output, settled

OPSET = [helper.make_opsetid("", 18)]


def exported(net, x, path, **options):
    torch.onnx.export(net, (x,), str(path), dynamo=False, **options)
    return path


def by_onnxruntime(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(out)


def read(path):
    converter = Ann2SNN()
    return converter.from_content(converter.content(path))


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_what_torch_exports_is_read_as_onnxruntime_reads_it(tmp_path, is_dynamic):
    net, x = settled(Everything()), torch.rand(3, 1, 8, 8)
    options = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}} if is_dynamic else {}
    path = exported(net, x, tmp_path / "net.onnx", input_names=["x"], output_names=["y"], **options)
    read_net = read(path)
    with torch.no_grad():
        torch.testing.assert_close(read_net(x), by_onnxruntime(path, x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read_net(x.repeat(2, 1, 1, 1)), net(x.repeat(2, 1, 1, 1)), atol=1e-5, rtol=1e-5)
    made, report = Ann2SNN(recipe="max", per="layer", T=(16,)).convert(read_net, x, [torch.rand(32, 1, 8, 8), x])
    with torch.no_grad():
        right = net(x)
    assert (mean_output(made, x, 256) - right).abs().max() < 0.1
    assert [layer.name for layer in report.layers] == [node.name for node in trace_net(read_net).layers]
    assert sum(layer.threshold is not None for layer in report.layers) == 5


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_a_transformer_of_primitive_operators_is_exact(tmp_path, is_dynamic):
    torch.manual_seed(0)
    net, x = TransformerBlock(norm=nn.LayerNorm).eval(), torch.randn(2, 8, 16)
    options = {"dynamic_axes": {"x": {0: "batch"}}} if is_dynamic else {}
    path = exported(net, x, tmp_path / "block.onnx", input_names=["x"], opset_version=17, **options)
    read_net = read(path)
    right = by_onnxruntime(path, x)
    with torch.no_grad():
        torch.testing.assert_close(read_net(x), right, atol=1e-5, rtol=1e-5)
    made, _ = Ann2SNN(recipe="temporal_difference", T=(4,)).convert(read_net, x)
    torch.testing.assert_close(mean_output(made, x, 6), right, atol=1e-4, rtol=0)


def model_of(nodes, weights, shape=("batch", 2, 6, 6), rank=4):
    graph = helper.make_graph(
        nodes,
        "made by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=9)


def saved(model, path):
    onnx.save(model, str(path))
    return path


RANDOM = np.random.default_rng(0)


def weight(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


MODELS = {
    "grouped strided convolution": (
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], group=2, strides=[2, 1], pads=[1, 0, 1, 0])],
        {"w": weight(4, 1, 3, 3), "b": weight(4)},
    ),
    "transposed convolution": (
        [
            helper.make_node(
                "ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1]
            )
        ],
        {"w": weight(2, 3, 3, 3)},
    ),
    "gemm with factors": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0),
        ],
        {"w": weight(72, 5), "b": weight(5)},
    ),
    "norm, clip, pool": (
        [
            helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["n"], epsilon=0.01),
            helper.make_node("Clip", ["n", "low", "high"], ["c"]),
            helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
            helper.make_node("AveragePool", ["p"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {
            "g": weight(2),
            "b": weight(2),
            "m": weight(2),
            "v": np.abs(weight(2)) + 0.1,
            "low": np.float32(0),
            "high": np.float32(6),
        },
    ),
    "pad, resize, concat, slice": (
        [
            helper.make_node("Pad", ["x", "pads"], ["p"]),
            helper.make_node(
                "Resize",
                ["p", "", "scales"],
                ["r"],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            ),
            helper.make_node("Concat", ["r", "r"], ["c"], axis=1),
            helper.make_node("Slice", ["c", "start", "end", "axis"], ["y"]),
        ],
        {
            "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "start": np.array([1]),
            "end": np.array([3]),
            "axis": np.array([1]),
        },
    ),
    "sizes from shapes": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            helper.make_node("Unsqueeze", ["n", "first"], ["u"]),
            helper.make_node("Concat", ["u", "rest"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["r"]),
            helper.make_node("ReduceMean", ["r", "last"], ["q"], keepdims=0),
            helper.make_node("Mul", ["q", "factor"], ["y"]),
        ],
        {
            "zero": np.array(0),
            "first": np.array([0]),
            "rest": np.array([6, -1]),
            "last": np.array([2]),
            "factor": weight(6),
        },
    ),
    "global pooling": (
        [helper.make_node("GlobalAveragePool", ["x"], ["g"]), helper.make_node("Relu", ["g"], ["y"])],
        {},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_operators_compute_what_onnxruntime_computes(tmp_path, name):
    nodes, weights = MODELS[name]
    rank = 2 if name in ("gemm with factors", "sizes from shapes") else 4
    path = saved(model_of(nodes, weights, rank=rank), tmp_path / "model.onnx")
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(read(path)(x), by_onnxruntime(path, x), atol=1e-5, rtol=1e-5)


RESIZES = [
    (mode, transformation, nearest, scale)
    for scale in (2, 3)
    for mode, transformation, nearest in (
        *(("nearest", t, n) for t in ("asymmetric", "half_pixel") for n in ("floor", "ceil", "round_prefer_floor")),
        *(("linear", t, "floor") for t in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")),
    )
]
REFUSED_RESIZES = 9


def test_upsampling_is_that_of_onnxruntime_or_refused(tmp_path):
    """The kinds that torch has; the neighbours and coordinates of the others differ from torch's."""
    x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    refused = []
    for mode, transformation, nearest, scale in RESIZES:
        options = {"mode": mode, "coordinate_transformation_mode": transformation, "nearest_mode": nearest}
        nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], **options)]
        scales = {"scales": np.array([1, 1, scale, scale], np.float32)}
        path = saved(model_of(nodes, scales), tmp_path / "resize.onnx")
        try:
            net = read(path)
        except ConversionError as error:
            refused.append(str(error))
            continue
        with torch.no_grad():
            torch.testing.assert_close(net(x), by_onnxruntime(path, x), atol=1e-5, rtol=1e-5)
    assert len(refused) == REFUSED_RESIZES
    assert all("coordinate_transformation_mode=" in text for text in refused)


@pytest.mark.parametrize(("opset", "rank", "is_taken"), [(11, 2, True), (11, 4, False), (13, 4, True)])
def test_softmax_before_opset_13_ran_over_all_further_axes(tmp_path, opset, rank, is_taken):
    nodes = [helper.make_node("Flatten", ["x"], ["f"])] if rank == 2 else [helper.make_node("Relu", ["x"], ["f"])]
    nodes.append(helper.make_node("Softmax", ["f"], ["y"], axis=1))
    model = model_of(nodes, {}, rank=rank)
    model.opset_import[0].version = opset
    path, x = saved(model, tmp_path / "m.onnx"), torch.randn(2, 2, 6, 6)
    if not is_taken:
        with pytest.raises(ConversionError, match="opset 11, over several axes"):
            read(path)
        return
    with torch.no_grad():
        torch.testing.assert_close(read(path)(x), by_onnxruntime(path, x), atol=1e-5, rtol=1e-5)


def test_axes_may_be_counted_from_the_end(tmp_path):
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"]),
        helper.make_node("Squeeze", ["u", "last"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Concat", ["r", "x"], ["y"], axis=-3),
    ]
    path, x = saved(model_of(nodes, {"last": np.array([-1])}), tmp_path / "m.onnx"), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(read(path)(x), by_onnxruntime(path, x))
    joined = [helper.make_node("Concat", ["x", "x"], ["y"], axis=-4)]
    with pytest.raises(ConversionError, match="joins batches"):
        read(saved(model_of(joined, {}), tmp_path / "m.onnx"))


def test_a_model_for_one_batch_size_takes_any(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "to"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = saved(model_of(nodes, {"to": np.array([1, 72]), "w": weight(72, 3)}, (1, 2, 6, 6), 2), tmp_path / "m.onnx")
    net, x = read(path), torch.rand(4, 2, 6, 6)
    one_by_one = torch.cat([by_onnxruntime(path, part) for part in x.split(1)])
    with torch.no_grad():
        torch.testing.assert_close(net(x), one_by_one, atol=1e-5, rtol=1e-5)
    made, _ = Ann2SNN(recipe="temporal_difference").convert(net, x)
    torch.testing.assert_close(mean_output(made, x, 3), one_by_one, atol=1e-5, rtol=1e-5)


def test_unknown_operators_are_all_named(tmp_path):
    nodes = [
        helper.make_node("Sign", ["x"], ["a"], name="first"),
        helper.make_node("Hardmax", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    path = saved(model_of(nodes, {}), tmp_path / "m.onnx")
    with pytest.raises(ConversionError, match=r"2 of 3 operators[^\n]*\n  first \(Sign\)[^\n]*\n  second \(Hardmax\)"):
        read(path)


def test_damaged_files_are_refused(tmp_path):
    nodes, weights = MODELS["gemm with factors"]
    path = saved(model_of(nodes, weights, rank=2), tmp_path / "whole.onnx")
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 7):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        with pytest.raises(ConversionError, match=r"truncated|no graph"):
            read(tmp_path / "cut.onnx")
    with pytest.raises(ConversionError, match="no such file"):
        read(tmp_path / "nothing.onnx")


def test_missing_external_data_are_named(tmp_path):
    nodes, weights = MODELS["gemm with factors"]
    model = model_of(nodes, weights, rank=2)
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
    content = Ann2SNN().content(tmp_path / "m.onnx")
    x = torch.rand(2, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(
            Ann2SNN().from_content(content)(x), by_onnxruntime(tmp_path / "m.onnx", x), atol=1e-5, rtol=1e-5
        )
    (tmp_path / "m.data").unlink()
    with pytest.raises(ConversionError, match="external data"):
        read(tmp_path / "m.onnx")


def test_what_touches_the_batch_is_refused(tmp_path):
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]), helper.make_node("Relu", ["t"], ["y"])]
    with pytest.raises(ConversionError, match="batch is axis 1"):
        read(saved(model_of(nodes, {}), tmp_path / "m.onnx"))


def node_model(node, weights, shape=("batch", 4), opset=18, rank=2):
    graph = helper.make_graph(
        [node] if isinstance(node, onnx.NodeProto) else node,
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize(
    ("node", "weights", "shape", "opset"),
    [
        (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), {"w": weight(4, 5), "b": weight(1, 5)}, (4,), 18),
        (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), {"w": weight(4, 5), "b": np.float32(0.3)}, (4,), 18),
        (helper.make_node("Expand", ["x", "s"], ["y"]), {"s": np.array([1, 3, 1])}, (1, 4), 18),
        (helper.make_node("Split", ["x"], ["y"], axis=1, num_outputs=1), {}, (4,), 18),
        (helper.make_node("Sum", ["x", "w", "x"], ["y"]), {"w": weight(4)}, (4,), 18),
        (helper.make_node("Max", ["x", "w"], ["y"]), {"w": np.float32(0)}, (4,), 18),
        (helper.make_node("Min", ["w", "x"], ["y"]), {"w": np.float32([0.3])}, (4,), 18),
        (
            [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Max", ["x", "n"], ["y"])],
            {},
            (4,),
            18,
        ),
        (helper.make_node("LayerNormalization", ["x", "g"], ["y", "m", "v"]), {"g": weight(4)}, (4,), 18),
        (helper.make_node("PRelu", ["x", "s"], ["y"]), {"s": np.abs(weight(4, 1))}, (4, 3), 18),
        (
            [helper.make_node("Dropout", ["x"], ["d", "mask"]), helper.make_node("Relu", ["d"], ["y"])],
            {},
            (4,),
            18,
        ),
        (
            [helper.make_node("Gather", ["c", "i"], ["g"], axis=0), helper.make_node("Add", ["x", "g"], ["y"])],
            {"c": weight(5, 4), "i": np.array([0, 2])},
            (2, 4),
            18,
        ),
        (
            [
                helper.make_node("Shape", ["x"], ["all"]),
                helper.make_node("Slice", ["all", "one", "three"], ["s"]),
                helper.make_node("Mul", ["s", "k"], ["more"]),
                helper.make_node("Slice", ["all", "zero", "one"], ["first"]),
                helper.make_node("Concat", ["first", "more"], ["sizes"], axis=0),
                helper.make_node("Expand", ["x", "sizes"], ["y"]),
            ],
            {"zero": np.array([0]), "one": np.array([1]), "three": np.array([3]), "k": np.array([1, 4])},
            ("free", 1),
            18,
        ),
    ],
)
def test_less_usual_forms_are_those_of_onnxruntime(tmp_path, node, weights, shape, opset):
    path = saved(node_model(node, weights, ("batch", *shape), opset), tmp_path / "net.onnx")
    x = torch.randn(3, *(2 if size == "free" else size for size in shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(read(path)(x), by_onnxruntime(path, x), atol=1e-5, rtol=1e-5)


def test_the_maximum_of_a_value_and_zero_is_a_rectifier(tmp_path):
    """So torch's newer exporter writes `x.clamp(min=0)`."""
    nodes = [helper.make_node("Max", ["x", "w"], ["m"]), helper.make_node("Gemm", ["m", "v"], ["y"])]
    net = read(saved(node_model(nodes, {"w": np.float32(0), "v": weight(4, 3)}), tmp_path / "net.onnx"))
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    made, report = Ann2SNN(recipe="max", T=(8,)).convert(net, x[:1], [x])
    assert [layer.threshold is not None for layer in report.layers] == [True, False]
    with torch.no_grad():
        torch.testing.assert_close(mean_output(made, x, 256), net(x), atol=0.05, rtol=0)


def test_the_value_of_an_old_pad_is_its_attribute(tmp_path):
    node = helper.make_node("Pad", ["x"], ["y"], pads=[0, 1, 0, 2], value=0.7)
    out = read(saved(node_model(node, {}, opset=10), tmp_path / "net.onnx"))(torch.zeros(2, 4))
    assert out[0].tolist() == pytest.approx([0.7, 0, 0, 0, 0, 0.7, 0.7])


@pytest.mark.parametrize(
    ("node", "weights", "shape", "message"),
    [
        (helper.make_node("Selu", ["x"], ["y"], alpha=1.2), {}, (4,), "alpha or gamma"),
        (helper.make_node("PRelu", ["x", "s"], ["y"]), {"s": weight(4)}, (4, 4), "nor one per channel"),
        (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), {"w": weight(4, 5), "b": weight(3, 5)}, (4,), "each sample"),
        (helper.make_node("Clip", ["x", "a", "b"], ["y"]), {"a": np.float32(0), "b": np.float32(-1)}, (4,), "limits"),
        (helper.make_node("Concat", ["x", "c"], ["y"], axis=0), {"c": weight(2, 4)}, (4,), "joins batches"),
        (helper.make_node("Expand", ["x", "s"], ["y"]), {"s": np.array([2, 1, 1])}, (4,), "axes before the batch"),
        (
            helper.make_node("LayerNormalization", ["x", "g"], ["z", "m", "y"]),
            {"g": weight(4)},
            (4,),
            "further output 'y'",
        ),
        (
            helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", axes=[2, 3]),
            {"s": np.array([2, 2], np.float32)},
            (2, 3, 3),
            "axes",
        ),
        (
            helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", keep_aspect_ratio_policy="not_larger"),
            {"s": np.array([3, 2, 9, 8])},
            (2, 3, 4),
            "keep_aspect_ratio_policy",
        ),
    ],
)
def test_forms_that_have_no_counterpart_are_refused(tmp_path, node, weights, shape, message):
    batch = 3 if node.op_type in ("Gemm", "Resize") else "batch"
    path = saved(node_model(node, weights, (batch, *shape), rank=len(shape) + 1), tmp_path / "net.onnx")
    with pytest.raises(ConversionError, match=message):
        read(path)
