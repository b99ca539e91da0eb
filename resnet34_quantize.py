#!/usr/bin/env python3
"""Quantise an ONNX model to INT8 and compare it with its source before it is kept.

    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset
    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset --tool amct

onnxruntime: static quantisation for CPUs (QDQ, activations uint8, weights int8 per channel). amct: CANN's, for atc and the NPU.
The calibration images are chosen by --seed and written to INT8_ONNX.calibration.txt, one name a line: judge without them
(imagenet_acc_eval.py --exclude). On other images the two models are compared; below the floor nothing is written.
Exit code 0: written; 1: failed; 2: wrong usage; 3: the quantised model is below the floor; 130, 143: stopped.
"""
# ruff: noqa: E402 - the imports follow the handlers: Ctrl-C while they load gets a sentence, too
import os
import signal
import sys


def stopped(number, frame):
    """Ctrl-C, or the SIGTERM of a scheduler."""
    signal.signal(number, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; nothing was written\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:  # a closed terminal
        pass
    sys.exit(128 + number)


for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and `&` in scripts ignore Ctrl-C on purpose
        signal.signal(number, stopped)
for number in (0, 1, 2):  # a closed stdout must not give its number to a file of data
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")

import argparse
import contextlib
import fcntl
import glob
import hashlib
import importlib
import io
import json
import logging
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time

OLDEST_ONNXRUNTIME = "1.13"  # quant_pre_process came with it
MIN_OPSET = 13  # DequantizeLinear takes an axis, which weights per channel need, from here on
IMAGES = {"onnxruntime": 500, "amct": 32}  # calibration lists of MLPerf have 500; AMCT's manual advises 16 to 32
AMCT_BATCH = 16
COMPARED = 64  # images the two models are compared on, where there are so many
MIN_COMPARED = 16  # fewer than these make an agreement no figure: half of the images then stay to compare on
MIN_SHARED = 4  # below, all images calibrate and compare
# The floor, measured on 2026-11-24 with onnxruntime 1.32 on ResNet34s, calibrated and compared on halves of the demo's 64 images
# and of 100 real ones. "Error": how far the scores' differences from their mean over the images are off, as a share of their
# size (a plain cosine does not see a dead model: 0.98 on noise, because most of the scores is common to all images). "Wrong
# axis": square convolutions' weights with a scale for each input channel; "noise": calibrated on values of 0..0.01.
#                                       good: 8 bits    7 bits   Entropy   wrong axis     noise
#   demo, float and uint8     error     0.03 to 0.05    0.06     0.05      0.21 to 0.32   1.00
#                             Top-1     0.91 to 0.97    0.97     1.00      0.74 to 0.78   0.00
#   random weights            error     0.07 to 0.08    0.09     0.08      0.32 to 0.50   -
#   random, 10 classes        error     0.05 to 0.08    0.11     0.14      0.22 to 0.45   1.00
# On 16 images good ones have up to 0.11, on 3 up to 0.07 and can miss the Top-1 of one; on 8 a wrong axis has 0.16 and passes.
SPREAD = "error without what is common to all images"
# (key, words, relation, limit, images from which on it counts)
FLOOR = (("cosine_mean", "mean cosine", ">=", 0.9, 1), ("spread_error", SPREAD, "<=", 0.5, 3),
         ("spread_error", SPREAD, "<=", 0.17, 16), ("top1_agreement", "Top-1 agreement", ">=", 0.5, 16))
CHUNK = 8  # images in memory at once
DTYPES = {1: "float32", 2: "uint8"}  # onnx.TensorProto's numbers; what a calibration folder can hold
RECIPE_KEYS = ("resize", "crop", "mean", "std", "dtype", "layout")
CARRIED_KEYS = ("recipe", "weights", "weights_sha256", "exporter", "exporter_sha256")


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_file(path, expected=None):
    """The bytes of a regular file (a FIFO would hang); expected is the (size, mtime in ns) it must have."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            fail("%s: is no regular file" % path)
        if expected and expected != (status.st_size, status.st_mtime_ns):
            fail("%s: changed while it was read; run again when nothing writes there" % path)
        return file.read()


def write_whole(path, data):
    """Whole or not at all; what killed runs left behind under this name goes first."""
    folder, name = os.path.split(path)
    for stray in glob.glob(os.path.join(glob.escape(folder), ".%s.????????.tmp" % glob.escape(name))):
        with contextlib.suppress(OSError), open(os.open(stray, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(stray)
    temporary = os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None
        raise


def parse_json(text, path):
    def refuse(word):
        raise ValueError("%s is no number" % word)
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        fail("%s: is no JSON: %s" % (path, first_line(error)))


def checked_recipe(recipe, path):
    """A recipe of the six known keys, or a sentence."""
    if not isinstance(recipe, dict) or any(key not in recipe for key in RECIPE_KEYS):
        fail("%s: its recipe lacks one of %s; make it again" % (path, " ".join(RECIPE_KEYS)))
    return {key: recipe[key] for key in RECIPE_KEYS}


def external(message):
    """Does a tensor anywhere in an ONNX message (graph, subgraph, attribute) keep its values in another file?"""
    if getattr(message, "data_location", 0) == 1:  # onnx.TensorProto.EXTERNAL
        return True
    parts = [value if hasattr(value, "__len__") else [value] for field, value in message.ListFields() if field.message_type]
    return any(external(part) for values in parts for part in values)


class Model:
    """An ONNX model as read: bytes, graph, metadata, and what one image must be."""

    def __init__(self, path):
        import onnx
        self.path, self.data = path, read_file(path)
        try:
            self.proto = onnx.load_model_from_string(self.data)
            weights = {weight.name for weight in self.proto.graph.initializer}
            (graph_input,) = [value for value in self.proto.graph.input if value.name not in weights]
        except Exception as error:  # protobuf's DecodeError has no base class of its own
            fail("%s: is no ONNX model with one input: %s" % (path, first_line(error)))
        if external(self.proto):
            fail("%s: keeps its weights in another file (external data), which is not read; export it as one file" % path)
        self.metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        self.input, kind = graph_input.name, graph_input.type.tensor_type
        self.shape = [side.dim_value for side in kind.shape.dim]
        self.dtype = DTYPES.get(kind.elem_type)
        if self.dtype is None or len(self.shape) < 2 or 0 in self.shape[1:]:
            fail("%s: its input %s is no float32 or uint8 image of a known size" % (path, self.input))
        if self.metadata.get("precision") == "int8" or any(node.op_type == "QuantizeLinear" for node in self.proto.graph.node):
            fail("%s: is quantised already; give the float model" % path)
        self.recipe = None
        if self.metadata.get("recipe"):
            self.recipe = checked_recipe(parse_json(self.metadata["recipe"], path + ": recipe"), path)


def find_images(folder, model):
    """{name: (path, (size, mtime))} of the folder's .bin files, which must be as the preprocessing left them, and the model's."""
    import numpy as np
    paths, found = {}, {}
    for entry in os.scandir(folder):
        if entry.name.endswith(".bin") and not entry.name.startswith("."):
            status = entry.stat()
            paths[entry.name[:-len(".bin")]] = entry.path
            found[entry.name[:-len(".bin")]] = status.st_size, status.st_mtime_ns
    if not found:
        fail("%s: no .bin files in it; make them with imagenet_torch_preprocess.py" % folder)
    recipe_path, manifest_path = os.path.join(folder, ".recipe.json"), os.path.join(folder, ".manifest")
    if os.path.lexists(recipe_path) or os.path.lexists(manifest_path):  # neither: made by hand
        record = parse_json(read_file(recipe_path).decode("utf-8", "replace"), recipe_path)
        recipe = checked_recipe(record.get("recipe") if isinstance(record, dict) else None, recipe_path)
        vouched = {}
        for line in read_file(manifest_path).decode("utf-8", "replace").splitlines(True):
            if line.endswith("\n"):  # a killed run can leave a torn last line
                row = parse_json(line, manifest_path)
                if not isinstance(row, list) or len(row) != 6 or not isinstance(row[0], str):
                    fail("%s: a line of it is not [name, source, size, mtime, size, mtime]" % manifest_path)
                vouched[row[0]] = row[4], row[5]
        for name in sorted(set(found) | set(vouched)):
            if found.get(name) != vouched.get(name):
                fail("%s: is not as imagenet_torch_preprocess.py left it (%s.bin: missing, not in its manifest, or of another "
                     "size or time); run that again (copies keep the times with cp -p, scp -p, rsync -a)" % (folder, name))
        for key in RECIPE_KEYS:
            if recipe[key] != (model.recipe or dict(recipe, dtype=model.dtype))[key]:
                fail("%s: its images have %s %s, %s wants another; give the folder that was made for this model"
                     % (folder, key, recipe[key], model.path))
        sides = [3, recipe["crop"], recipe["crop"]] if recipe["layout"] == "CHW" else [recipe["crop"], recipe["crop"], 3]
        if list(model.shape[1:]) != sides:
            fail("%s: its images are of shape %s, %s takes %s; give the folder that was made for this model"
                 % (folder, sides, model.path, list(model.shape[1:])))
    size = int(np.prod(model.shape[1:])) * np.dtype(model.dtype).itemsize
    for name in sorted(found):
        if found[name][0] != size:
            fail("%s: holds %d bytes; one image of %s is %d" % (paths[name], found[name][0], model.path, size))
    return {name: (paths[name], found[name]) for name in found}


def choose(names, seed, images):
    """(calibration names, names to compare on, whether these are the same); the same in every Python: ordered by a hash."""
    order = sorted(names, key=lambda name: sha256(("%d %s" % (seed, name)).encode("utf-8", "surrogateescape")))
    if len(order) < MIN_SHARED:
        return order, order, True
    count = images if len(order) - images >= MIN_COMPARED else min(images, len(order) // 2)
    return order[:count], order[count:count + COMPARED], False


def load_batch(paths, model, batch_size):
    """One array of images; a short group is padded with its first image."""
    import numpy as np
    batch = np.empty([batch_size] + model.shape[1:], np.dtype(model.dtype).newbyteorder("<"))
    for index in range(batch_size):
        batch[index] = np.frombuffer(read_file(*paths[index if index < len(paths) else 0]), batch.dtype).reshape(model.shape[1:])
    return batch


def progress(total, what):
    from tqdm import tqdm
    return tqdm(total=total, unit="image", desc=what, disable=None)


class Reader:
    """Calibration images for ONNX Runtime, which asks with get_next until it is given None: the end of a chunk."""

    def __init__(self, paths, model, bar):
        self.paths, self.model, self.bar, self.left = list(paths), model, bar, 0

    def get_next(self):
        if not self.left or not self.paths:
            return None
        size = self.model.shape[0] or 1
        group, self.paths, self.left = self.paths[:size], self.paths[size:], self.left - 1
        self.bar.update(len(group))
        return {self.model.input: load_batch(group, self.model, size)}


def chunked(create_calibrator):
    """create_calibrator whose calibrator merges what it collected every CHUNK images.

    ONNX Runtime's own keeps what it collected of all images until the end (Entropy: all tensors), and its option
    CalibMaxIntermediateOutputs drops what came before without merging it (seen in 1.32).
    """
    def create(*arguments, **options):
        calibrator = create_calibrator(*arguments, **options)
        collect = calibrator.collect_data

        def collect_data(reader):
            while reader.paths:
                reader.left = max(1, CHUNK // max(1, reader.model.shape[0]))
                collect(reader)
        calibrator.collect_data = collect_data
        return calibrator
    return create


def needs_reduce_range():
    """Whether weights keep to 7 bits: 8-bit products saturate in 16-bit sums on x86 without VNNI. ARM's do not."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return False
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return not re.search(r"^flags\s*:.*\b(avx512_vnni|avx_vnni)\b", file.read(), re.MULTILINE)
    return True


def import_quantization():
    """onnxruntime.quantization's parts, or a sentence with the oldest release that has them."""
    import onnxruntime
    try:
        quantize = importlib.import_module("onnxruntime.quantization.quantize")  # its package shadows the name by a function
        from onnxruntime.quantization.shape_inference import quant_pre_process
        return quantize, quant_pre_process
    except ImportError as error:
        fail("onnxruntime %s cannot quantise (%s); install onnxruntime %s or newer, and the onnx of its time"
             % (onnxruntime.__version__, first_line(error), OLDEST_ONNXRUNTIME))


def front(graph):
    """Names of the nodes before the first convolution or matrix product: the normalisation, which stays float."""
    names = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul", "AveragePool", "MaxPool", "GlobalAveragePool"):
            break
        names.append(node.name)
    return names


def quantise(model, paths, method, reduce_range, work):
    """The quantised model's bytes, by ONNX Runtime."""
    import onnx
    from onnx import version_converter
    ort, quant_pre_process = import_quantization()
    logging.disable(logging.WARNING)  # of pre-processing that was done, and of names it made up
    proto, prepared, result = model.proto, os.path.join(work, "prepared.onnx"), os.path.join(work, "int8.onnx")
    original = ort.create_calibrator
    try:
        opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
        if opset < MIN_OPSET:
            proto = version_converter.convert_version(proto, MIN_OPSET)
        for index, node in enumerate(proto.graph.node):  # exclusion goes by name
            node.name = node.name or "%s_%d" % (node.op_type, index)
        lifted = os.path.join(work, "lifted.onnx")
        onnx.save(proto, lifted)
        quant_pre_process(lifted, prepared, skip_symbolic_shape=True)  # symbolic shapes need sympy; the plain ones suffice here
        with progress(len(paths), "calibrate") as bar, contextlib.redirect_stdout(io.StringIO()):
            ort.create_calibrator = chunked(original)
            ort.quantize_static(
                prepared, result, Reader(paths, model, bar), quant_format=ort.QuantFormat.QDQ, per_channel=True,
                activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8, reduce_range=reduce_range,
                calibrate_method=getattr(ort.CalibrationMethod, method),
                nodes_to_exclude=front(onnx.load(prepared).graph) if model.dtype == "uint8" else [])
    except OSError:
        raise
    except Exception as error:  # onnx, protobuf and onnxruntime raise what they like
        import onnxruntime
        fail("%s: ONNX Runtime %s cannot quantise it with --method %s: %s"
             % (model.path, onnxruntime.__version__, method, first_line(error)))
    finally:
        ort.create_calibrator = original
        logging.disable(logging.NOTSET)
    data = read_file(result)
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(data).graph.node):
        fail("%s: holds nothing that ONNX Runtime can quantise" % model.path)
    return data


def run_amct(model, paths, work):
    """(deploy model's bytes, fake_quant model's bytes or None), by AMCT."""
    batch_size = model.shape[0] or min(AMCT_BATCH, len(paths))
    source, data_dir, prefix = (os.path.join(work, name) for name in ("source.onnx", "data", "amct/resnet34"))
    os.mkdir(data_dir)
    os.mkdir(os.path.dirname(prefix))
    write_whole(source, model.data)
    for first in range(0, len(paths), batch_size):
        write_whole(os.path.join(data_dir, "batch_%05d.bin" % (first // batch_size)),
                    load_batch(paths[first:first + batch_size], model, batch_size).tobytes())
    line = ["amct_onnx", "calibration", "--model", source, "--save_path", prefix,
            "--input_shape", "%s:%s" % (model.input, ",".join(map(str, [batch_size] + model.shape[1:]))),
            "--data_dir", data_dir, "--data_types", "float32"]
    print(" ".join(map(shlex.quote, line)), flush=True)
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # one between the start and `try` would leave AMCT running
    process = subprocess.Popen(line, cwd=work, stdin=subprocess.DEVNULL,  # it leaves an amct_log folder where it runs
                               preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, stops))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        while process.poll() is None:  # no wait(): it would not notice a signal that comes just before its system call
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    deploy, fake_quant = prefix + "_deploy_model.onnx", prefix + "_fake_quant_model.onnx"
    if process.returncode or not os.path.isfile(deploy):
        what = "ended with exit code %d" % process.returncode if process.returncode else "left no %s" % os.path.basename(deploy)
        fail("amct_onnx %s; its files are kept in %s, where the line above can be tried by hand" % (what, work))
    return read_file(deploy), read_file(fake_quant) if os.path.isfile(fake_quant) else None


def open_session(data, path=None):
    """A session on the CPU; what cannot be loaded is None, or where a path is given a sentence."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's share no base class but this
        if path:
            fail("%s: ONNX Runtime cannot load it: %s" % (path, first_line(error)))


def scores(session, model, paths, bar):
    """float64 (images, classes)."""
    import numpy as np
    shape, rows = session.get_inputs()[0].shape, []
    fixed = shape[0] if shape and isinstance(shape[0], int) else 0
    for first in range(0, len(paths), fixed or CHUNK):
        group = paths[first:first + (fixed or CHUNK)]
        batch = load_batch(group, model, fixed or len(group))
        output = session.run(None, {session.get_inputs()[0].name: batch})[0]
        if output.ndim != 2 or len(output) != len(batch) or output.shape[1] < 2:
            fail("%s: its output has shape %s, not (batch, classes)" % (model.path, list(output.shape)))
        rows.append(output[:len(group)].astype(np.float64))
        bar.update(len(group))
    return np.concatenate(rows)


def compare(source, quantised, model, paths):
    """How far the sessions' scores are apart on these images: the figures of FLOOR, and the largest relative difference."""
    import numpy as np
    with progress(2 * len(paths), "compare") as bar:
        expected, actual = scores(source, model, paths, bar), scores(quantised, model, paths, bar)
    if not np.isfinite(expected).all():
        fail("%s: gives scores that are NaN or infinite on the calibration folder's images" % model.path)
    if expected.shape != actual.shape:
        fail("%s: has %d classes, the quantised model %d" % (model.path, expected.shape[1], actual.shape[1]))
    actual = np.nan_to_num(actual, nan=0.0, posinf=0.0, neginf=0.0)  # so a broken one has a cosine near 0
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    spread, largest = expected - expected.mean(0), np.maximum(np.abs(expected).max(1), np.finfo(np.float64).tiny)
    alike = np.abs(spread).max() <= 1e-6 * largest.max()  # equal images, or one: nothing is left to compare
    return {"images": len(paths), "top1_agreement": float((expected.argmax(1) == actual.argmax(1)).mean()),
            "cosine_mean": float(((expected * actual).sum(1) / np.where(norms > 0, norms, 1)).mean()),
            "spread_error": None if alike else float(np.linalg.norm(actual - actual.mean(0) - spread) / np.linalg.norm(spread)),
            "relative_difference": float((np.abs(actual - expected).max(1) / largest).max())}


def verdict(comparison):
    """What is beyond the floor, in words, or ""."""
    beyond = []
    for key, words, relation, limit, images in FLOOR:
        value = comparison[key]
        if comparison["images"] >= images and value is not None and (value < limit if relation == ">=" else not value <= limit):
            beyond.append("%s %.4g, not %s %g" % (words, value, relation, limit))
    return " and ".join(beyond)


def with_metadata(data, model, calibration, path):
    """The quantised model's bytes with what the source says of itself, and how it was calibrated."""
    import onnx
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        fail("%s: the quantised model is no ONNX: %s" % (path, first_line(error)))
    properties = {key: model.metadata[key] for key in CARRIED_KEYS if key in model.metadata}
    properties.update(precision="int8", calibration=json.dumps(calibration, sort_keys=True))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(sorted(properties.items())))
    return proto.SerializeToString()


def by_onnxruntime(args, model, calibrated, work):
    """(the INT8 model's bytes, the session to compare, its name, what the calibration's record says of the tool)"""
    reduce_range = needs_reduce_range() if args.reduce_range == "auto" else args.reduce_range == "yes"
    bits = 7 if reduce_range else 8
    print("onnxruntime: %s on %d images, weights of %d bits" % (args.method, len(calibrated), bits), flush=True)
    data = quantise(model, calibrated, args.method, reduce_range, work)
    record = {"tool": "onnxruntime", "method": args.method, "reduce_range": reduce_range}
    return data, open_session(data, args.int8_onnx), None, record


def by_amct(args, model, calibrated, work):
    """The same by AMCT. Where its deploy model holds the NPU's own operators, its fake_quant model is compared instead."""
    data, fake_quant = run_amct(model, calibrated, work)
    record = {"tool": "amct", "method": "amct_onnx calibration", "reduce_range": False}
    session, name = open_session(data), "deploy_model"
    if session is None and fake_quant:
        session, name = open_session(fake_quant), "fake_quant_model"
    return data, session, name, record


def parse_args():
    def whole(least):
        def parse(text):
            if not re.match("[0-9]{1,9}$", text) or int(text) < least:
                raise argparse.ArgumentTypeError("%r is no whole number from %d on" % (text, least))
            return int(text)
        return parse

    parser = argparse.ArgumentParser(description="Quantise an ONNX model to INT8 and compare it with its source.")
    parser.add_argument("onnx", metavar="ONNX", help="float model, for example resnet34.onnx")
    parser.add_argument("int8_onnx", metavar="INT8_ONNX", help="file to write, for example resnet34_int8.onnx")
    parser.add_argument("--calibration", metavar="DIR", required=True, help="folder that imagenet_torch_preprocess.py made")
    parser.add_argument("--images", metavar="N", type=whole(1), help="images to calibrate on (default: 500, amct: 32)")
    parser.add_argument("--tool", choices=sorted(IMAGES), default="onnxruntime", help="default: %(default)s; amct is for NPUs")
    parser.add_argument("--seed", metavar="N", type=whole(0), default=0, help="chooses the images (default: %(default)s)")
    parser.add_argument("--method", choices=("MinMax", "Entropy", "Percentile"), help="onnxruntime's (default: MinMax)")
    parser.add_argument("--reduce-range", choices=("auto", "yes", "no"), default="auto",
                        help="weights of 7 bits, for x86 without VNNI (default: as this CPU wants it)")
    args = parser.parse_args()
    if args.tool == "amct" and (args.method or args.reduce_range != "auto"):
        parser.error("--method and --reduce-range are onnxruntime's; amct has its own")
    if os.path.realpath(args.onnx) == os.path.realpath(args.int8_onnx):
        parser.error("ONNX and INT8_ONNX are the same file")
    args.method, args.images = args.method or "MinMax", args.images or IMAGES[args.tool]
    return args


def main():
    args = parse_args()
    list_path = args.int8_onnx + ".calibration.txt"
    if not os.path.isdir(os.path.dirname(args.int8_onnx) or "."):
        fail("%s: its folder does not exist" % args.int8_onnx)
    for path in (args.int8_onnx, list_path):
        if os.path.isdir(path):
            fail("%s: is a folder, not a file to write" % path)
    try:
        import numpy
        import onnx
        import onnxruntime
    except ImportError as error:
        fail("%s; install it with: pip install -r requirements.txt" % error)
    if args.tool == "onnxruntime":
        import_quantization()
    elif not shutil.which("amct_onnx"):
        fail("amct_onnx: not found on PATH; install AMCT (ONNX) of your CANN release and activate its environment")
    model = Model(args.onnx)
    if args.tool == "amct" and model.dtype == "uint8":
        fail("%s: takes uint8 pixels, AMCT calibrates float32 inputs; quantise the float graph (and its float prep_dataset): "
             "run_atc.sh --aipp gives that one uint8 pixels" % args.onnx)
    found = find_images(args.calibration, model)
    calibrated, compared, shared = choose(found, args.seed, args.images)
    if args.tool == "amct" and len(calibrated) > AMCT_BATCH:
        calibrated = calibrated[:len(calibrated) // AMCT_BATCH * AMCT_BATCH]  # AMCT takes whole batches
    for name in calibrated:
        if "\n" in name:
            fail("%s: the line break in the name of %r cannot stand in a list; rename it" % (args.calibration, name))
    if shared:
        print("%s: only %d images: calibration, comparison and accuracy share them" % (args.calibration, len(found)))
    names = "".join("%s\n" % name for name in sorted(calibrated)).encode("utf-8", "surrogateescape")
    work, kept = tempfile.mkdtemp(prefix="resnet34_quantize."), False
    try:
        data, session, compared_model, calibration = (by_amct if args.tool == "amct" else by_onnxruntime)(
            args, model, [found[name] for name in calibrated], work)
    except SystemExit as error:
        kept = args.tool == "amct" and error.code == 1  # for trying amct_onnx by hand
        raise
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)
    comparison = None
    if session is None:
        print("warning: ONNX Runtime loads neither AMCT's deploy nor its fake_quant model: not compared with the source")
    else:
        comparison = compare(open_session(model.data, model.path), session, model, [found[name] for name in compared])
        if compared_model:
            comparison["model"] = compared_model
        print("compared with %s on %d images%s: Top-1 agreement %.2f%%, mean cosine %.6f, largest relative difference %.4g" % (
            args.onnx, comparison["images"], "" if shared else " not calibrated on", 100 * comparison["top1_agreement"],
            comparison["cosine_mean"], comparison["relative_difference"]))
        if verdict(comparison):
            fail("%s: the quantised model is broken: %s; nothing was written; calibrate on images like those it will see, more "
                 "of them, or with another --method" % (args.int8_onnx, verdict(comparison)), 3)
    calibration.update(images=len(calibrated), seed=args.seed, names_sha256=sha256(names), source_sha256=sha256(model.data),
                       shared=shared, comparison=comparison, packages={
                           module.__name__: module.__version__ for module in (numpy, onnx, onnxruntime)})
    data = with_metadata(data, model, calibration, args.int8_onnx)
    write_whole(list_path, names)
    write_whole(args.int8_onnx, data)
    print("%s: written, %.1f MB (source %.1f MB), calibrated on %d images, see %s" % (
        args.int8_onnx, len(data) / 1e6, len(model.data) / 1e6, len(calibrated), list_path))


def guarded():
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # the pipe or the disk behind stdout; nothing else here lacks a name
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at exit
            fail("standard output: %s" % error.strerror)
        fail("%s: %s" % (error.filename, error.strerror))
    except MemoryError:
        fail("not enough memory")


if __name__ == "__main__":
    guarded()
