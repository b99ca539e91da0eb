#!/usr/bin/env python3
"""Quantise an ONNX model to INT8 and compare it with its source before it is kept.

    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset
    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset --tool amct

onnxruntime: static quantisation for CPUs (QDQ, activations uint8, weights int8 per channel). amct: CANN's, for atc and the NPU.
The calibration images are chosen by --seed and written to INT8_ONNX.calibration.txt, one name a line: judge without them
(imagenet_acc_eval.py --exclude). On other images the two models are compared; below the floor nothing is written.
Exit code 0: written; 1: failed; 2: wrong usage; 3: the quantised model is below the floor; 130, 143: stopped.
"""
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

import argparse  # noqa: E402 - whatever takes long to import comes after the signals
import contextlib  # noqa: E402
import fcntl  # noqa: E402
import glob  # noqa: E402
import hashlib  # noqa: E402
import importlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import shlex  # noqa: E402
import shutil  # noqa: E402
import stat  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402

OLDEST_ONNXRUNTIME = "1.13"  # quant_pre_process came with it
MIN_OPSET = 13  # DequantizeLinear takes an axis, which weights per channel need, from here on
IMAGES = {"onnxruntime": 500, "amct": 32}  # calibration lists of MLPerf have 500; AMCT's manual advises 16 to 32
AMCT_BATCH = 16
COMPARED = 64  # images the two models are compared on, where there are so many
MIN_COMPARED = 16  # fewer than these make an agreement no figure: half of the images then stay to compare on
MIN_SHARED = 4  # below, all images calibrate and compare
# The floor: (key, words, least value, images from which on it counts). Measured on ResNet34 with the demo's and random weights:
# good ones agree in 91 to 100 % of the images, calibrated on noise of a hundredth of the scale in 3 and 22 %; but of 4 images a
# good one can miss 3. The plain cosine knows a dead model alone (0.98 and 0.996 for that noise: most of the scores is common to
# all images), so the mean of the source's scores is taken away first: good ones keep 0.87 on 4 images and 0.98 on 16, that noise
# 0.04 and 0.02. Scales along the wrong axis keep 0.80 with random weights, but 0.97 (69 % agree) with the demo's, whose channels
# are alike: the floor stops the broken; how bad the rest is, the printed figures and the accuracy say.
CENTRED = "cosine without what is common to all images"
FLOOR = (("cosine_mean", "mean cosine", 0.9, 1), ("cosine_centred", CENTRED, 0.5, 4), ("cosine_centred", CENTRED, 0.9, 16),
         ("top1_agreement", "Top-1 agreement", 0.5, 16))
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
    found = {}
    for entry in os.scandir(folder):
        if entry.name.endswith(".bin") and not entry.name.startswith("."):
            status = entry.stat()
            found[entry.name[:-len(".bin")]] = (entry.path, (status.st_size, status.st_mtime_ns))
    if not found:
        fail("%s: no .bin files in it; make them with imagenet_torch_preprocess.py" % folder)
    recipe_path, manifest_path = os.path.join(folder, ".recipe.json"), os.path.join(folder, ".manifest")
    if os.path.lexists(recipe_path) or os.path.lexists(manifest_path):
        again = ("%s: is not as imagenet_torch_preprocess.py left it (%%s); run that again (copies keep the times with cp -p, "
                 "scp -p, rsync -a)" % folder)
        if not os.path.lexists(recipe_path) or not os.path.lexists(manifest_path):
            fail(again % "its .recipe.json or .manifest is missing")
        record = parse_json(read_file(recipe_path).decode("utf-8", "replace"), recipe_path)
        recipe = checked_recipe(record.get("recipe") if isinstance(record, dict) else None, recipe_path)
        vouched = {}
        for line in read_file(manifest_path).decode("utf-8", "replace").splitlines(True):
            if line.endswith("\n"):  # a killed run can leave a torn last line
                row = parse_json(line, manifest_path)
                if not isinstance(row, list) or len(row) != 6 or not isinstance(row[0], str):
                    fail("%s: a line of it is not [name, source, size, mtime, size, mtime]" % manifest_path)
                vouched[row[0]] = (row[4], row[5])
        for name in sorted(set(found) ^ set(vouched)):
            fail(again % ("%s.bin is %s" % (name, "missing" if name in vouched else "not in its manifest")))
        for name in sorted(found):
            if found[name][1] != vouched[name]:
                fail(again % ("%s.bin has another size or time" % name))
        for key in RECIPE_KEYS if model.recipe else ():
            if recipe[key] != model.recipe[key]:
                fail("%s: its images have %s %s, %s wants %s; give the folder that was made for this model"
                     % (folder, key, recipe[key], model.path, model.recipe[key]))
        if recipe["dtype"] != model.dtype:
            fail("%s: its images are %s, %s takes %s" % (folder, recipe["dtype"], model.path, model.dtype))
    size = int(np.prod(model.shape[1:])) * np.dtype(model.dtype).itemsize
    for name in sorted(found):
        if found[name][1][0] != size:
            fail("%s: holds %d bytes; one image of %s is %d" % (found[name][0], found[name][1][0], model.path, size))
    return found


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
    except ImportError as error:
        if getattr(error, "name", None) in (None, "") or str(error.name).startswith("onnxruntime"):
            fail("onnxruntime %s cannot quantise as this needs it; install onnxruntime %s or newer (and the onnx of its time)"
                 % (onnxruntime.__version__, OLDEST_ONNXRUNTIME))
        fail("onnxruntime's quantisation lacks a package: %s; install it with pip" % error)
    return quantize, quant_pre_process


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
    """(deploy model's bytes, fake_quant model's bytes or None), by AMCT; its files stay in work when it fails."""
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
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    deploy, fake_quant = prefix + "_deploy_model.onnx", prefix + "_fake_quant_model.onnx"
    if code or not os.path.isfile(deploy):
        return None, "amct_onnx %s; its files are kept in %s, where the line above can be tried by hand" % (
            "ended with exit code %d" % code if code else "left no %s" % os.path.basename(deploy), work)
    return read_file(deploy), read_file(fake_quant) if os.path.isfile(fake_quant) else None


def open_session(data):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


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
    """How far the sessions' scores are apart on these images."""
    import numpy as np
    with progress(2 * len(paths), "compare") as bar:
        expected, actual = scores(source, model, paths, bar), scores(quantised, model, paths, bar)
    if not np.isfinite(expected).all():
        fail("%s: gives scores that are NaN or infinite on the calibration folder's images" % model.path)
    if expected.shape != actual.shape:
        fail("%s: has %d classes, the quantised model %d" % (model.path, expected.shape[1], actual.shape[1]))
    actual = np.nan_to_num(actual, nan=0.0, posinf=0.0, neginf=0.0)  # so a broken one has a cosine near 0

    def cosine(one, other):  # of each row
        norms = np.sqrt((one ** 2).sum(-1) * (other ** 2).sum(-1))
        return (one * other).sum(-1) / np.where(norms > 0, norms, 1)
    common = expected.mean(0)
    alike = np.abs(expected - common).max() <= 1e-6 * np.abs(expected).max()  # equal images, or one: nothing is left to compare
    largest = np.maximum(np.abs(expected).max(1), np.finfo(np.float64).tiny)
    return {"images": len(paths), "top1_agreement": float((expected.argmax(1) == actual.argmax(1)).mean()),
            "cosine_mean": float(cosine(expected, actual).mean()),
            "cosine_centred": None if alike else float(cosine((expected - common).ravel(), (actual - common).ravel())),
            "relative_difference": float((np.abs(actual - expected).max(1) / largest).max())}


def verdict(comparison):
    """What is below the floor, or None."""
    below = ["%s %.4g (floor %g)" % (words, comparison[key], least) for key, words, least, images in FLOOR
             if comparison["images"] >= images and comparison[key] is not None and comparison[key] < least]
    return " and ".join(below) or None


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


def by_onnxruntime(args, model, calibrated, compared, work):
    """(bytes, comparison, what the calibration's record says of the tool)"""
    reduce_range = needs_reduce_range() if args.reduce_range == "auto" else args.reduce_range == "yes"
    bits = 7 if reduce_range else 8
    print("onnxruntime: %s on %d images, weights of %d bits" % (args.method, len(calibrated), bits), flush=True)
    data = quantise(model, calibrated, args.method, reduce_range, work)
    comparison = compare(load_session(model.path, model.data), load_session(args.int8_onnx, data), model, compared)
    return data, comparison, {"tool": "onnxruntime", "method": args.method, "reduce_range": reduce_range}


def by_amct(args, model, calibrated, compared, work):
    """The same by AMCT. Where its deploy model holds the NPU's own operators, its fake_quant model is compared instead."""
    data, fake_quant = run_amct(model, calibrated, work)
    if data is None:
        fail(fake_quant)
    record = {"tool": "amct", "method": "amct_onnx calibration", "reduce_range": False}
    for which, candidate in (("deploy_model", data), ("fake_quant_model", fake_quant)):
        try:
            session = open_session(candidate)
        except Exception:  # onnxruntime's exceptions share no base class but this; an empty candidate is refused as well
            continue
        return data, dict(compare(load_session(model.path, model.data), session, model, compared), model=which), record
    return data, None, record


def load_session(path, data):
    try:
        return open_session(data)
    except Exception as error:
        fail("%s: ONNX Runtime cannot load it: %s" % (path, first_line(error)))


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
        data, comparison, calibration = (by_amct if args.tool == "amct" else by_onnxruntime)(
            args, model, [found[name] for name in calibrated], [found[name] for name in compared], work)
    except SystemExit as error:
        kept = args.tool == "amct" and error.code == 1  # for trying amct_onnx by hand
        raise
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)
    if comparison is None:
        print("warning: ONNX Runtime loads neither AMCT's deploy nor its fake_quant model: not compared with the source")
    else:
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
