"""When an INT8 model is broken, and when it is poor: two judgements, on any processor.

broken - it is not what it stands for: its weights are not the source's, or its INT8 kernels do not compute what the model says;
poor   - it costs more than it may, on images it was not calibrated on.
"""
import numpy as np

from common import prepared
from common.command import fail, first_line

# Broken: a weight rounded to a scale is off by half a step at most, on any processor and after any calibration. What float32 adds
# (its quotient and its product are rounded to 24 bits each) is under 2**-22 of the weight, and weight_error leaves it out.
WEIGHT_LIMIT = 0.5  # steps
# Broken: kernel and float sum the same integers, so a value differs by one step at most, and only where its sum lies on the
# border of two. Rounding alone is off by up to half a step, evenly spread: sqrt(1 / 12) of a step in root mean square. A kernel
# that adds more is worse than the rounding it does, as where 8-bit products saturate (x86 without VNNI, weights of 8 bits).
KERNEL_LIMIT = 12 ** -0.5
# Poor: an error e leaves 1 - e**2 of what tells images apart. Scores that do not depend on the image have e = 1; here half is
# left. A layer rounded to 2**n steps over a range of k standard deviations adds (k / 2**n)**2 / 12 of noise: with k = 16 and 8
# bits for activations, k = 8 and 7 bits for weights, ResNet34's 36 layers come to e = sqrt(36 * 2 * 3.3e-4) = 0.15, a fifth of
# this.
MAX_ERROR = 0.5 ** 0.5
MIN_AGREEMENT = 50.0  # percent; below, most images are given another class than by the source
MIN_AGREEMENT_IMAGES, MIN_SPREAD_IMAGES = 16, 3  # on fewer these two are no figures
CHUNK = 8  # images in memory at once
METHODS = ("MinMax", "Entropy", "Percentile")  # ONNX Runtime's, of calibration


# ---- running a model ----

def open_session(data, path=None, as_written=False):
    """A session on the CPU; as_written: without fusions, so that Q and DQ nodes round floats and all between them is float.

    What cannot be loaded is None, or where a path is given a sentence.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's share no base class but this
        if path:
            fail("%s: ONNX Runtime cannot load it: %s" % (path, first_line(error)))


def load_batch(inputs, graph, batch_size):
    """One array of images of prepared.Inputs' files; a short group is padded with its first."""
    batch = np.empty([batch_size] + graph.input["shape"], np.dtype(graph.input["dtype"]).newbyteorder("<"))
    prepared.read_batch(inputs, batch)
    return batch


def scores_of(session, graph, inputs, bar):
    """float64 (images, classes)."""
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    fixed, rows = shape[0] if isinstance(shape[0], int) else 0, []
    for first in range(0, len(inputs), fixed or CHUNK):
        group = inputs[first:first + (fixed or CHUNK)]
        output = session.run(None, {name: load_batch(group, graph, fixed or len(group))})[0]
        if output.ndim != 2 or len(output) < len(group) or output.shape[1] < 2:
            fail("%s: its output has shape %s, not (batch, classes)" % (graph.path, list(output.shape)))
        rows.append(output[:len(group)].astype(np.float64))
        bar.update(len(group))
    return np.concatenate(rows)


def saturates():
    """Whether 8-bit products saturate in 16-bit sums here, as on x86 without VNNI or its like: asked of the kernel itself."""
    from onnx import TensorProto, helper
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (
        ("a", TensorProto.UINT8, [1, 64]), ("b", TensorProto.INT8, [64, 1]), ("sum", TensorProto.INT32, [1, 1]))]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["sum"])], "probe", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    feeds = {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 1), 127, np.int8)}
    return int(open_session(model.SerializeToString(), "MatMulInteger").run(None, feeds)[0][0, 0]) != 64 * 255 * 127


# ---- poor ----

def compare(expected, actual, path):
    """How far the quantised model's scores are from its source's, (images, classes) each: the price, of which poor() judges.

    Medians over the images, not means: those brighter than all calibration images are clipped, and would outweigh the rest.
    """
    def error(off, wanted):
        middle = np.median(np.linalg.norm(wanted, axis=1))
        return float(np.median(np.linalg.norm(off, axis=1)) / max(middle, np.finfo(np.float64).tiny))

    if not np.isfinite(expected).all():
        fail("%s: gives scores that are NaN or infinite on the calibration folder's images" % path)
    if expected.shape != actual.shape:
        fail("%s: has %d classes, the quantised model %d" % (path, expected.shape[1], actual.shape[1]))
    actual = np.nan_to_num(actual, nan=0.0, posinf=0.0, neginf=0.0)  # as bad as scores that say nothing
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    spread, largest = expected - np.median(expected, 0), np.maximum(np.abs(expected).max(1), np.finfo(np.float64).tiny)
    alike = np.abs(spread).max() <= 1e-6 * largest.max()  # equal images, or one: nothing is left to compare
    return {"images": len(expected), "top1_agreement": float((expected.argmax(1) == actual.argmax(1)).mean()),
            "cosine_mean": float(((expected * actual).sum(1) / np.where(norms > 0, norms, 1)).mean()),
            "score_error": error(actual - expected, expected),
            "spread_error": None if alike else error(actual - np.median(actual, 0) - spread, spread),
            "relative_difference": float((np.abs(actual - expected).max(1) / largest).max())}


def poor(comparison, max_error, min_agreement):
    """What a comparison has beyond the limits, in words, or "". A plain cosine or error does not see a model that says the same
    of all images, 0.98 on noise, for most of the scores is common to them: so the spread's error counts where there is one."""
    beyond, images = [], comparison["images"]
    if comparison["score_error"] > max_error:
        beyond.append("error of the scores %.4g, not <= %g" % (comparison["score_error"], max_error))
    if images >= MIN_SPREAD_IMAGES and comparison["spread_error"] is not None and comparison["spread_error"] > max_error:
        beyond.append("error without what is common to all images %.4g, not <= %g" % (comparison["spread_error"], max_error))
    if images >= MIN_AGREEMENT_IMAGES and 100 * comparison["top1_agreement"] < min_agreement:
        beyond.append("Top-1 agreement %.2f%%, not >= %g%%" % (100 * comparison["top1_agreement"], min_agreement))
    return " and ".join(beyond)


def price(comparison):
    error = comparison["score_error" if comparison["spread_error"] is None else "spread_error"]
    return "Top-1 agreement %.2f%%, error %.4f" % (100 * comparison["top1_agreement"], error)


# ---- broken ----

def weight_error(source, quantised):
    """(the largest distance of a stored weight, dequantised as its node says, from the float one, in steps; that weight's name).

    (None, None) where no stored weight has the name of a float one.
    """
    from onnx import numpy_helper
    floats = {weight.name: weight for weight in source.graph.initializer}
    stored = {weight.name: weight for weight in quantised.graph.initializer}
    found = []
    for node in quantised.graph.node:
        name = node.input[0][:-len("_quantized")] if node.input and node.input[0].endswith("_quantized") else None
        if node.op_type != "DequantizeLinear" or name not in floats or node.input[0] not in stored:
            continue
        parts = [numpy_helper.to_array(stored[part]).astype(np.float64) for part in node.input if part]
        wanted = numpy_helper.to_array(floats[name]).astype(np.float64)
        axis = {attribute.name: attribute.i for attribute in node.attribute}.get("axis", 1)
        if parts[0].shape != wanted.shape:
            return np.inf, name
        along = [-1 if side == axis % wanted.ndim else 1 for side in range(wanted.ndim)]
        scale, zero = (part.reshape(along if part.size > 1 else [1] * wanted.ndim) for part in (parts[1:] + [np.zeros(1)])[:2])
        off = np.abs((parts[0] - zero) * scale - wanted) - 2.0 ** -22 * np.abs(wanted)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append((float(np.nan_to_num(np.where(off > 0, off / scale, 0), nan=np.inf).max()), name))
    return max(found) if found else (None, None)


def teacher_forced(proto):
    """Two copies of a QDQ graph, as bytes, and the names of what its QuantizeLinear nodes give.

    The first also gives all of these; the second takes them and gives them again, each from those before it: so that each
    layer is seen alone, and none inherits what another has wrong or rounded to the other side.
    """
    import onnx
    zeros = {weight.name: weight.data_type for weight in proto.graph.initializer}
    kinds = {node.output[0]: zeros.get(node.input[2], onnx.TensorProto.UINT8) if len(node.input) > 2 else onnx.TensorProto.UINT8
             for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    giving, taking = onnx.ModelProto(), onnx.ModelProto()
    for copy in (giving, taking):
        copy.CopyFrom(proto)
    for node in taking.graph.node:
        if node.op_type == "QuantizeLinear":
            node.output[0] += "_again"
    for name, kind in sorted(kinds.items()):
        giving.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        taking.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        taking.graph.output.append(onnx.helper.make_tensor_value_info(name + "_again", kind, None))
    return giving.SerializeToString(), taking.SerializeToString(), sorted(kinds)


def kernel_error(proto, batch):
    """(root mean square and largest distance, in steps, of what the worst layer's kernel gives from what the same layer gives in
    float on the same inputs; the layer's name). Scores that are not quantised count in steps of their range, in 8 bits."""
    giving, taking, names = teacher_forced(proto)
    graph_inputs = {weight.name for weight in proto.graph.initializer}
    (image,) = [value.name for value in proto.graph.input if value.name not in graph_inputs]
    run = open_session(giving, "the quantised model").run(None, {image: batch})
    again = open_session(taking, "the quantised model in float", as_written=True)
    feeds = dict(zip(names, run[len(run) - len(names):]), **{image: batch})
    computed = again.run(None, {value.name: feeds[value.name] for value in again.get_inputs()})
    found = []
    for name, actual, expected in zip([value.name for value in proto.graph.output] + names, run, computed):
        actual, expected = (np.asarray(values, np.float64) for values in (actual, expected))
        step = 1 if name in feeds else max(float(np.ptp(expected)) / 255, np.finfo(np.float64).tiny)
        off = np.nan_to_num(np.abs(actual - expected) / step, nan=np.inf, posinf=np.inf)
        found.append((float(np.sqrt((off ** 2).mean())), float(off.max()), name))
    return max(found)


def broken(source, data, graph, inputs):
    """How a quantised model differs from what it stands for, in words, or "". Neither the calibration nor its price count.

    source: the float graph whose weights it has, or None (AMCT's are not told); inputs: images to run its kernels on.
    """
    import onnx
    proto = onnx.load_model_from_string(data)
    kinds = {node.op_type for node in proto.graph.node}
    opaque = sorted(kind for kind in kinds if kind.startswith(("QLinear", "QGemm", "QAttention")) or kind.endswith("Integer"))
    if opaque:
        return "%s has no counterpart in float to be held against" % opaque[0]
    if source:
        off, name = weight_error(source, proto)
        if off is None:
            return "none of its weights has the name of its source's"
        if off > WEIGHT_LIMIT:
            return "the weight %s is off by %.4g steps of its scale, where rounding has %g" % (name, off, WEIGHT_LIMIT)
    if "QuantizeLinear" not in kinds:  # AMCT's own operators
        return ""
    few = inputs[:graph.batch_size or CHUNK]
    batch = load_batch(few, graph, graph.batch_size or len(few))
    off, largest, name = kernel_error(proto, batch)
    if off > KERNEL_LIMIT:
        return "the INT8 kernels give %s off by %.4g steps in root mean square and by %.4g at most, where rounding has %.4g%s" % (
            name, off, largest, KERNEL_LIMIT, " (8-bit products saturate here: --reduce-range yes)" if saturates() else "")
    return ""
