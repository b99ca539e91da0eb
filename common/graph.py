"""An ONNX file: what it takes and gives, and what it says of itself in its metadata_props."""
import json
import os
import re

from common import files, recipe
from common.command import fail, first_line

# metadata_props that the export writes and every later stage carries on. recipe and calibration hold JSON.
CARRIED = ("recipe", "weights", "weights_sha256", "exporter")
# onnx.TensorProto's numbers.
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}


def read_graph(path):
    """The bytes of an ONNX file that is one whole file: ONNX Runtime would take whatever lies under a weight's file name here."""
    data = files.read(path)
    if b"\n\x08location" in data:  # the first key of a tensor's external_data, as protobuf writes it
        fail("%s: keeps its weights in another file (external data), which is not read; export it as one file" % path)
    return data


class Graph:
    """A graph as read: data (bytes), sha256, proto, metadata {key: text}, input and outputs ({name, dtype, shape of one image}),
    batch_size (of the input; None where it is open), recipe (a Recipe or None), precision, calibration."""

    def __init__(self, path):
        self.path, self.data = path, read_graph(path)
        self.sha256, self.proto = files.sha256(self.data), parse(self.data, path)
        weights = {weight.name for weight in self.proto.graph.initializer}
        inputs = [value for value in self.proto.graph.input if value.name not in weights]
        if len(inputs) != 1:
            fail("%s: has %d inputs (%s), not one" % (path, len(inputs), ", ".join(value.name for value in inputs)))
        self.input, self.outputs = self._value(inputs[0]), [self._value(value) for value in self.proto.graph.output]
        self.batch_size = inputs[0].type.tensor_type.shape.dim[0].dim_value or None
        self.metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        said = described(self.metadata, path)
        self.recipe, self.calibration, self.precision = said["recipe"], said["calibration"], precision_in(self.proto, said)
        self.weights, self.weights_sha256 = said["weights"], said["weights_sha256"]

    def _value(self, value):
        tensor = value.type.tensor_type
        shape = [side.dim_value for side in tensor.shape.dim][1:]
        if 0 in shape or not shape or tensor.elem_type not in DTYPES:
            fail("%s: its %s has an open shape behind the batch, or is no tensor of numbers" % (self.path, value.name))
        return {"name": value.name, "dtype": DTYPES[tensor.elem_type], "shape": shape}


def parse(data, path):
    """The onnx.ModelProto of an ONNX file's bytes."""
    import onnx  # takes long to import
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no common base
        return fail("%s: is no ONNX model: %s" % (path, first_line(error)))


def described(metadata, path):
    """What metadata_props {key: text} say: precision, weights, weights_sha256, recipe (a Recipe), calibration; or None."""
    made_with = metadata.get("recipe")
    return {"precision": metadata.get("precision"), "weights": metadata.get("weights"),
            "weights_sha256": metadata.get("weights_sha256"),
            "recipe": recipe.from_json(made_with, path) if made_with else None,
            "calibration": files.parse_json(metadata.get("calibration", "null"), path)}


def precision_in(proto, said):
    """The precision that a graph computes in: other tools quantise or halve a graph and leave its metadata as it was."""
    if any(re.search("Quant|^QLinear|Integer$", node.op_type) for node in proto.graph.node):
        return "int8"
    halves = [weight.name for weight in proto.graph.initializer if DTYPES.get(weight.data_type) == "float16" and weight.dims]
    return "fp16" if halves else said["precision"]


def with_properties(proto, properties):
    """The bytes of a graph whose metadata_props are just these: texts, and what else is to be JSON."""
    import onnx
    del proto.metadata_props[:]
    texts = {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in properties.items()}
    onnx.helper.set_model_props(proto, dict(sorted(texts.items())))
    return proto.SerializeToString()


def model_summary(path, sha256, onnx_sha256, said, model_input):
    """What a summary says of a model. said: as described() gives it; model_input: its input, {dtype, shape of one image}."""
    return {"path": path, "bytes": os.path.getsize(path), "sha256": sha256, "onnx_sha256": onnx_sha256,
            "weights": said["weights"], "weights_sha256": said["weights_sha256"], "calibration": said["calibration"],
            "recipe": said["recipe"] and said["recipe"].as_json(),
            "input": {"dtype": model_input["dtype"], "shape": list(model_input["shape"])}}
