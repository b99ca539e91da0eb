#!/usr/bin/env python3
"""Quantise an ONNX model to INT8 and compare it with its source before it is kept.

    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset
    python3 resnet34_quantize.py resnet34.onnx resnet34_int8.onnx --calibration prep_dataset --tool amct

onnxruntime: static quantisation for CPUs (QDQ, activations uint8, weights int8 per channel). amct: CANN's, for atc and the NPU.
The calibration images are chosen by --seed and written to INT8_ONNX.calibration.txt, one name a line: judge without them
(imagenet_acc_eval.py --exclude). A model that is broken or poor is not written (exit code 3); the price is always told.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import collections
import contextlib
import importlib
import io
import logging
import shlex
import shutil
import subprocess
import tempfile
import time

from common import files, graph, int8, machine, prepared
from common.command import fail, first_line

VERSION = 2  # of what is written; raised when that changes
OLDEST_ONNXRUNTIME = "1.13"  # quant_pre_process came with it
MIN_OPSET = 13  # DequantizeLinear takes an axis, which weights per channel need, from here on
IMAGES = {"onnxruntime": 500, "amct": 32}  # calibration lists of MLPerf have 500; AMCT's manual advises 16 to 32
AMCT_BATCH = 16
COMPARED = 64  # images the two models are compared on, where there are so many
MIN_COMPARED = 16  # fewer than these make an agreement no figure: half of the images then stay to compare on
MIN_SHARED = 4  # below, all images calibrate and compare
WHERE = {8: "for processors with VNNI or its like", 7: "for processors without VNNI"}  # by the bits of the weights


# A quantised model before the verdict: data would be written, judged is looked at (under a name, where it is another), in
# session; record goes into the calibration's record; source is the float graph with its weights, None where that is not known;
# other = (bits, session) is what weights of other bits would give.
Quantised = collections.namedtuple("Quantised", "data judged session record source name other")


# ---- the images ----

def split_inputs(inputs, seed, images):
    """(inputs to calibrate on, inputs to compare on, whether these are the same); the same in every Python: ordered by a hash."""
    def by_hash(each):
        return files.sha256(("%d %s" % (seed, each.name)).encode("utf-8", "surrogateescape"))
    order = sorted(inputs, key=by_hash)
    if len(order) < MIN_SHARED:
        return order, order, True
    count = images if len(order) - images >= MIN_COMPARED else min(images, len(order) // 2)
    return order[:count], order[count:count + COMPARED], False


class Reader:
    """Calibration images for ONNX Runtime, which asks with get_next until it is given None: the end of a chunk."""

    def __init__(self, inputs, model, bar):
        self.inputs, self.model, self.bar, self.left = list(inputs), model, bar, 0

    def get_next(self):
        if not self.left or not self.inputs:
            return None
        size = self.model.batch_size or 1
        group, self.inputs, self.left = self.inputs[:size], self.inputs[size:], self.left - 1
        self.bar.update(len(group))
        return {self.model.input["name"]: int8.load_batch(group, self.model, size)}


# ---- ONNX Runtime ----

def chunked(create_calibrator):
    """create_calibrator whose calibrator, always the same one, merges what it collected every CHUNK images.

    ONNX Runtime's own keeps what it collected of all images until the end (Entropy: all tensors), and its option
    CalibMaxIntermediateOutputs drops what came before without merging it (seen in 1.32).
    """
    made = []

    def create(*arguments, **options):
        if made:  # for weights of other bits, with the ranges it has
            return made[0]
        calibrator = create_calibrator(*arguments, **options)
        collect = calibrator.collect_data

        def collect_data(reader):
            while reader.inputs:
                reader.left = max(1, int8.CHUNK // (reader.model.batch_size or 1))
                collect(reader)
        calibrator.collect_data = collect_data
        made.append(calibrator)
        return calibrator
    return create


def import_quantization():
    """onnxruntime.quantization's parts, or a sentence with the oldest release that has them."""
    import onnxruntime
    try:
        quantize = importlib.import_module("onnxruntime.quantization.quantize")  # its package shadows the name by a function
        from onnxruntime.quantization.shape_inference import quant_pre_process
        return quantize, quant_pre_process
    except ImportError as error:
        return fail("onnxruntime %s cannot quantise (%s); install onnxruntime %s or newer, and the onnx of its time"
             % (onnxruntime.__version__, first_line(error), OLDEST_ONNXRUNTIME))


def front(graph):
    """Names of the nodes before the first convolution or matrix product: the normalisation, which stays float."""
    names = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul", "AveragePool", "MaxPool", "GlobalAveragePool"):
            break
        names.append(node.name)
    return names


def quantise(model, inputs, method, bits, work):
    """({bits: the quantised model's bytes}, the float graph they were made from), by ONNX Runtime, calibrated once."""
    import onnx
    from onnx import version_converter
    ort, quant_pre_process = import_quantization()
    logging.disable(logging.WARNING)  # of pre-processing that was done, and of names it made up
    proto, prepared, result = model.proto, os.path.join(work, "prepared.onnx"), os.path.join(work, "int8.onnx")
    original, quantised = ort.create_calibrator, {}
    try:
        opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
        if opset < MIN_OPSET:
            proto = version_converter.convert_version(proto, MIN_OPSET)
        for index, node in enumerate(proto.graph.node):  # exclusion goes by name
            node.name = node.name or "%s_%d" % (node.op_type, index)
        lifted = os.path.join(work, "lifted.onnx")
        onnx.save(proto, lifted)
        quant_pre_process(lifted, prepared, skip_symbolic_shape=True)  # symbolic shapes need sympy; the plain ones suffice here
        source = onnx.load(prepared)
        with command.progress(len(inputs), "image", "calibrate") as bar, contextlib.redirect_stdout(io.StringIO()):
            reader, ort.create_calibrator = Reader(inputs, model, bar), chunked(original)
            for width in bits:
                ort.quantize_static(
                    prepared, result, reader, quant_format=ort.QuantFormat.QDQ, per_channel=True,
                    activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8, reduce_range=width == 7,
                    calibrate_method=getattr(ort.CalibrationMethod, method),
                    nodes_to_exclude=front(source.graph) if model.input["dtype"] == "uint8" else [])
                quantised[width] = files.read(result)
    except OSError:
        raise
    except Exception as error:  # onnx, protobuf and onnxruntime raise what they like
        import onnxruntime
        fail("%s: ONNX Runtime %s cannot quantise it with --method %s: %s"
             % (model.path, onnxruntime.__version__, method, first_line(error)))
    finally:
        ort.create_calibrator = original
        logging.disable(logging.NOTSET)
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(quantised[bits[0]]).graph.node):
        fail("%s: holds nothing that ONNX Runtime can quantise" % model.path)
    return quantised, source


def by_onnxruntime(args, model, calibrated, work):
    saturating = int8.saturates()
    reduce_range = saturating if args.reduce_range == "auto" else args.reduce_range == "yes"
    bits, other = (7, 8) if reduce_range else (8, 7)
    print("onnxruntime: %s on %d images, weights of %d bits" % (args.method, len(calibrated), bits), flush=True)
    if saturating:
        print("INT8 runs here without VNNI or its like: its speed is not that of a server that has it", flush=True)
    quantised, source = quantise(model, calibrated, args.method, (bits, other), work)
    record = {"tool": "onnxruntime", "method": args.method, "reduce_range": reduce_range, "weight_bits": bits}
    of_other = int8.open_session(quantised[other], args.int8_onnx, as_written=saturating and other == 8)
    session = int8.open_session(quantised[bits], args.int8_onnx)
    return Quantised(quantised[bits], quantised[bits], session, record, source, None, (other, of_other))


# ---- AMCT ----

def run_amct(model, inputs, work):
    """(deploy model's bytes, fake_quant model's bytes or None), by AMCT."""
    batch_size = model.batch_size or min(AMCT_BATCH, len(inputs))
    source, data_dir, prefix = (os.path.join(work, name) for name in ("source.onnx", "data", "amct/resnet34"))
    os.mkdir(data_dir)
    os.mkdir(os.path.dirname(prefix))
    files.write(source, model.data)
    for first in range(0, len(inputs), batch_size):
        files.write(os.path.join(data_dir, "batch_%05d.bin" % (first // batch_size)),
                    int8.load_batch(inputs[first:first + batch_size], model, batch_size).tobytes())
    line = ["amct_onnx", "calibration", "--model", source, "--save_path", prefix,
            "--input_shape", "%s:%s" % (model.input["name"], ",".join(map(str, [batch_size] + model.input["shape"]))),
            "--data_dir", data_dir, "--data_types", "float32"]
    print(" ".join(map(shlex.quote, line)), flush=True)
    process = None
    try:
        with command.stops_held():  # one inside Popen would leave AMCT running
            process = subprocess.Popen(line, cwd=work, stdin=subprocess.DEVNULL)  # it leaves an amct_log folder where it runs
        while process.poll() is None:  # no wait(): it would not notice a signal that comes just before its system call
            time.sleep(0.05)
    finally:
        if process and process.poll() is None:
            process.terminate()
            process.wait()
    deploy, fake_quant = prefix + "_deploy_model.onnx", prefix + "_fake_quant_model.onnx"
    if process.returncode or not os.path.isfile(deploy):
        what = "ended with exit code %d" % process.returncode if process.returncode else "left no %s" % os.path.basename(deploy)
        fail("amct_onnx %s; its files are kept in %s, where the line above can be tried by hand" % (what, work))
    return files.read(deploy), files.read(fake_quant) if os.path.isfile(fake_quant) else None


def by_amct(args, model, calibrated, work):
    """The same by AMCT. Where its deploy model holds the NPU's own operators, its fake_quant model is compared instead."""
    data, fake_quant = run_amct(model, calibrated, work)
    record = {"tool": "amct", "method": "amct_onnx calibration", "reduce_range": False, "weight_bits": 8}
    for name, judged in (("deploy_model", data), ("fake_quant_model", fake_quant)):
        session = int8.open_session(judged) if judged else None
        if session:
            return Quantised(data, judged, session, record, None, name, None)
    return Quantised(data, None, None, record, None, None, None)


# ---- the verdict, and the file ----

def judge(candidate, model, inputs, args, calibrated_on):
    """The comparison for the calibration's record; prints the price, and refuses what is broken or poor."""
    reason = int8.broken(candidate.source, candidate.judged, model, inputs)
    if reason:
        fail("%s: the quantised model is broken: %s; nothing was written" % (args.int8_onnx, reason), 3)
    sessions = [int8.open_session(model.data, model.path), candidate.session] + ([candidate.other[1]] if candidate.other else [])
    with command.progress(len(sessions) * len(inputs), "image", "compare") as bar:
        expected, actual, *others = [int8.scores_of(session, model, inputs, bar) for session in sessions]
    comparison = int8.compare(expected, actual, model.path)
    print("compared with %s on %d images%s: %s, mean cosine %.6f, largest relative difference %.4g" % (
        model.path, len(inputs), calibrated_on, int8.price(comparison), comparison["cosine_mean"],
        comparison["relative_difference"]))
    if others:
        of_other = int8.compare(expected, others[0], model.path)
        print("weights of %d bits, %s, give: %s" % (candidate.other[0], WHERE[candidate.other[0]], int8.price(of_other)))
        comparison["other_bits"] = {"weight_bits": candidate.other[0], "top1_agreement": of_other["top1_agreement"],
                                    "spread_error": of_other["spread_error"]}
    if candidate.name:
        comparison["model"] = candidate.name
    reason = int8.poor(comparison, args.max_error, args.min_agreement)
    if reason:
        fail("%s: the quantised model is poor: %s; nothing was written; calibrate on images like those it will see, more of "
             "them, or with another --method; --max-error and --min-agreement move the limits" % (args.int8_onnx, reason), 3)
    return comparison


def write_model(args, model, data, calibration, names, made_from):
    """The INT8 model with what its source says of itself and how it was calibrated, and the list of the images beside it."""
    import onnx
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no common base
        fail("%s: the quantised model is no ONNX: %s" % (args.int8_onnx, first_line(error)))
    properties = {key: model.metadata[key] for key in graph.CARRIED if key in model.metadata}
    data = graph.with_properties(proto, dict(properties, precision="int8", calibration=calibration))
    files.write_recorded(args.int8_onnx, data, made_from, {args.list: names}, list_sha256=files.sha256(names))
    print("%s: written, %.1f MB (source %.1f MB), calibrated on %d images, see %s" % (
        args.int8_onnx, len(data) / 1e6, len(model.data) / 1e6, calibration["images"], args.list))


def is_model_kept(args, made_from):
    """Whether the model and the list beside it are there as they were made, of just this."""
    record = files.record_of(args.int8_onnx) or {}
    try:
        listed = files.sha256(files.read(args.list)) == record.get("list_sha256")
    except OSError:
        listed = False
    return listed and files.is_kept(args.int8_onnx, made_from)


def parse_args():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("onnx", metavar="ONNX", help="float model, for example resnet34.onnx")
    add("int8_onnx", metavar="INT8_ONNX", help="file to write, for example resnet34_int8.onnx")
    add("--calibration", metavar="DIR", required=True, help="folder that imagenet_torch_preprocess.py made")
    add("--images", metavar="N", type=command.whole(), help="images to calibrate on (default: 500, amct: 32)")
    add("--tool", choices=sorted(IMAGES), default="onnxruntime", help="default: %(default)s; amct is for NPUs")
    add("--seed", metavar="N", type=command.whole(0), default=0, help="chooses the images (default: %(default)s)")
    add("--method", choices=int8.METHODS, help="onnxruntime's (default: MinMax)")
    add("--reduce-range", choices=("auto", "yes", "no"), default="auto",
        help="weights of 7 bits, for x86 without VNNI (default: as this CPU wants it)")
    add("--max-error", metavar="E", type=command.number(0, 100), default=int8.MAX_ERROR,
        help="refuse as poor what is further off; 0: like the source, 1: says nothing (default: %(default).3g)")
    add("--min-agreement", metavar="PERCENT", type=command.number(0, 100), default=int8.MIN_AGREEMENT,
        help="refuse as poor what gives fewer images the source's Top-1 (default: %(default)g)")
    add("--overwrite", action="store_true", help="make it again")
    add("--check", action="store_true", help="do nothing; exit code 0 where it is there and made from just this, else 1")
    args = parser.parse_args()
    if args.tool == "amct" and (args.method or args.reduce_range != "auto"):
        parser.error("--method and --reduce-range are onnxruntime's; amct has its own")
    if args.int8_onnx.endswith((".pth", ".pt", ".om", ".safetensors")):
        parser.error("INT8_ONNX %s: is the name of another kind of file; give one that ends in .onnx" % args.int8_onnx)
    args.method, args.images = args.method or "MinMax", args.images or IMAGES[args.tool]
    args.list = args.int8_onnx + ".calibration.txt"
    return args


def quantise_and_judge(args, model, calibrated, compared, shared):
    """(the INT8 model's bytes, the calibration's record)."""
    if args.tool == "amct" and not shutil.which("amct_onnx"):
        fail("amct_onnx: not found on PATH; install AMCT (ONNX) of your CANN release and activate its environment")
    work, kept = tempfile.mkdtemp(prefix="resnet34_quantize."), False
    try:
        candidate = (by_amct if args.tool == "amct" else by_onnxruntime)(args, model, calibrated, work)
    except command.Failure:
        kept = args.tool == "amct"  # for trying amct_onnx by hand
        raise
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)
    comparison = None
    if candidate.session is None:
        command.warn("ONNX Runtime loads neither AMCT's deploy nor its fake_quant model: not compared with the source")
    else:
        comparison = judge(candidate, model, compared, args, "" if shared else " not calibrated on")
    packages = {name: machine.version(name) for name in ("numpy", "onnx", "onnxruntime")}
    return candidate.data, dict(candidate.record, images=len(calibrated), seed=args.seed, source_sha256=model.sha256,
                                shared=shared, comparison=comparison, packages=packages)


def main():
    args = parse_args()
    files.check_output(args.int8_onnx, [args.onnx], files.is_recorded, args.overwrite)
    files.check_output(args.list, [args.onnx], lambda _: files.record_of(args.int8_onnx), args.overwrite)
    model = graph.Graph(args.onnx)
    if model.precision == "int8":
        fail("%s: is quantised already; give the float model" % args.onnx)
    if model.input["dtype"] not in ("float32", "uint8"):
        fail("%s: its input %s is no float32 or uint8 image" % (args.onnx, model.input["name"]))
    if args.tool == "amct" and model.input["dtype"] == "uint8":
        fail("%s: takes uint8 pixels, AMCT calibrates float32 inputs; quantise the float graph (and its float prep_dataset): "
             "run_atc.sh --aipp gives that one uint8 pixels" % args.onnx)
    inputs = prepared.find_inputs(args.calibration, model.input["dtype"], model.input["shape"], model.recipe)
    made_from = dict({key: getattr(args, key) for key in ("images", "tool", "seed", "method", "reduce_range", "max_error",
                                                          "min_agreement")},
                     version=VERSION, source=model.sha256, calibration=inputs.content_hash(), vnni=machine.has_vnni(),
                     packages={name: machine.version(name) for name in ("onnx", "onnxruntime", "amct_onnx")})
    if not args.overwrite and is_model_kept(args, made_from):
        print("kept: %s, made of just this model and calibration" % args.int8_onnx)
        return 0
    if args.check:
        return 1
    calibrated, compared, shared = split_inputs(inputs.files, args.seed, args.images)
    if args.tool == "amct" and len(calibrated) > AMCT_BATCH:
        calibrated = calibrated[:len(calibrated) // AMCT_BATCH * AMCT_BATCH]  # AMCT takes whole batches
    names = sorted(each.name for each in calibrated)
    if shared:
        print("%s: only %d images: calibration, comparison and accuracy share them" % (args.calibration, len(names)))
    elif len(names) < args.images:
        print("%s: calibrates on %d of these %d images, not on %d: the others are to compare on%s" % (
            args.calibration, len(names), len(inputs.files), args.images,
            ", and AMCT takes batches of %d" % AMCT_BATCH if args.tool == "amct" else ""))
    data, calibration = quantise_and_judge(args, model, calibrated, compared, shared)
    listed = "".join("%s\n" % name for name in names).encode("utf-8", "surrogateescape")
    write_model(args, model, data, dict(calibration, names_sha256=files.sha256(listed)), listed, made_from)
    return 0


if __name__ == "__main__":
    command.run(main)
