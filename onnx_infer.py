#!/usr/bin/env python3
"""Run an ONNX model with ONNX Runtime, with ais_bench's options and result files (the guide's stage "inference").

    python3 onnx_infer.py --model resnet34.onnx --input prep_dataset --output ./ --output_dirname result --outfmt TXT
    python3 onnx_infer.py --model=resnet34.onnx --loop=20 --batchsize=8

With --input: every .bin/.npy of the folder, one image each, in natural order of the names; the first output for NAME.bin goes
to OUTPUT/DIRNAME/NAME_0.txt (.bin, .npy). Without: pure inference on zeros, --loop runs or --seconds long. The summary, with
times in milliseconds, is OUTPUT/DIRNAME_summary.json. Results appear together when all are computed; a run that was killed
leaves OUTPUT/.DIRNAME.partial, and the same line goes on there.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import collections
import math
import re
import time

import numpy as np

from common import files, graph, inference, machine, prepared, publishing, recipe, scores
from common.command import fail

DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
          "tensor(int8)": "int8"}
FEWEST_RUNS, WARM_RUNS = 10, 3  # of --seconds
THREADS_LIMIT = 1024  # ONNX Runtime starts what it is told to, and 99999 spinning threads take the machine down

# shape: with the batch; properties: what the file says of itself, as graph.described gives it
Model = collections.namedtuple("Model", "path session input outputs dtype shape engine device properties")


# ---- the model ----

def find_provider(text, available):
    """(ONNX Runtime's name, options) of --provider NAME[,KEY=VALUE...]."""
    name, *options = text.split(",")
    available = [full for full in available if full != "AzureExecutionProvider"]  # says it runs the model, which the CPU does
    for full in available:
        if name.lower() in (full.lower(), full.lower().replace("executionprovider", "")):
            return full, dict(option.split("=", 1) for option in options)
    return fail("--provider %s: this onnxruntime has %s; install the onnxruntime package that brings it" % (
        name, " ".join(full.replace("ExecutionProvider", "") for full in available)))


def open_model(args, data):
    """The Model as ONNX Runtime runs it; exits for models that cannot be fed, or whose scores cannot be judged."""
    import onnxruntime  # takes long to import
    onnxruntime.set_default_logger_severity(4)  # errors come as exceptions
    provider, provider_options = find_provider(args.provider, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = args.threads, 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[(provider, provider_options)], enable_fallback=0)
        session.disable_fallback()
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        fail("%s: ONNX Runtime %s cannot load it with %s: %s" % (args.model, onnxruntime.__version__, provider, str(error)[:500]))
    if session.get_providers()[0] != provider:  # it falls back without a word
        fail("%s: ONNX Runtime fell back from %s to %s; its libraries or its device are missing" % (
            args.model, provider, session.get_providers()[0]))
    dtype, shape = session_input(args, session)
    properties = graph.described(session.get_modelmeta().custom_metadata_map, args.model)
    properties["precision"] = graph.precision_in(graph.parse(data, args.model), properties)
    if properties["recipe"]:
        recipe.check_fits(properties["recipe"], args.model, dtype, shape[1:])
    on_cpu = provider == "CPUExecutionProvider"
    device = "%s, %d threads" % (machine.cpu_name(), args.threads) if on_cpu else args.provider
    return Model(args.model, session, session.get_inputs()[0].name, session.get_outputs(), dtype, shape,
                 "onnxruntime %s %s" % (onnxruntime.__version__, provider), device, properties)


def session_input(args, session):
    """(dtype's name, shape with the batch) of what the session is fed; exits unless it is one input of images."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        fail("%s: has %d inputs; models with one input can be run" % (args.model, len(inputs)))
    name, kind, shape = inputs[0].name, inputs[0].type, list(inputs[0].shape)
    if kind not in DTYPES:
        fail("%s: its input %s is a %s; known are %s" % (args.model, name, kind, " ".join(DTYPES)))
    if len(shape) < 2 or not all(isinstance(side, int) and side > 0 for side in shape[1:]) or shape[0] == 0:
        fail("%s: its input %s has shape %s; only the batch may be open" % (args.model, name, shape))
    if not isinstance(shape[0], int) or shape[0] < 0:
        shape[0] = args.batchsize or 1
    elif args.batchsize not in (None, shape[0]):
        fail("%s: is made for batch size %d, --batchsize says %d" % (args.model, shape[0], args.batchsize))
    return DTYPES[kind], tuple(shape)


# ---- the runs: one thread reads, computes and writes, for ONNX Runtime's own threads need all the cores that there are ----

def read_ahead(group):
    """Let the kernel read the next files during the computation."""
    for source in group:
        descriptor = os.open(source.path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        os.close(descriptor)


def compute(model, batch, loop, times):
    """Outputs for one batch, floats as little-endian float32; the milliseconds of each of the loop's runs go to times."""
    for _ in range(loop):
        start = time.perf_counter()
        try:
            outputs = model.session.run(None, {model.input: batch})
        except Exception as error:  # as above
            fail("%s: ONNX Runtime cannot run it on a batch of %d: %s" % (model.path, len(batch), str(error)[:500]))
        times.append((time.perf_counter() - start) * 1000)
    for output in outputs:
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub" or output.shape[:1] != (len(batch),):
            fail("%s: its output of shape %s for a batch of %d has no row an image; scores are of shape (batch, classes)"
                 % (model.path, list(np.shape(output)), len(batch)))
    return [output.astype("<f4", copy=False) if output.dtype.kind == "f" else output for output in outputs]


def describe_outputs(model, outputs):
    """[{name, dtype, shape of one image}] of a batch's outputs; exits unless the first alone are scores."""
    described = [{"name": each.name, "dtype": output.dtype.name, "shape": list(output.shape[1:])}
                 for each, output in zip(model.outputs, outputs)]
    inference.check_outputs(model.path, described)
    return described


def write_batch(output, group, outputs, outfmt):
    """NAME_0.txt (.bin, .npy) for each file of the group, NAME_1 for a second output; {file name: [XXH3-128, stat]}."""
    written = {}
    for index, values in enumerate(outputs):
        for row, source in enumerate(group):
            if values.dtype.kind == "f" and not np.isfinite(values[row]).all():
                fail("%s: the model's output %d for it is not finite (NaN or infinite)" % (source.path, index))
            name = inference.result_name(source.name, index, outfmt)
            written[name] = output.write_result(name, scores.encode(values[row:row + 1], outfmt))
    return written


def infer(args, model, inputs, output):
    """All files through the session. Returns (times, outputs as described, probabilities, {file name: what vouches}, wall)."""
    size, batch = model.shape[0], np.empty(model.shape, np.dtype(model.dtype).newbyteorder("<"))
    groups = [inputs.files[first:first + size] for first in range(0, len(inputs.files), size)]
    lines = output.lines
    if lines:
        print("going on after batch %d of %d, where an earlier run was stopped" % (len(lines), len(groups)))
    if len(lines) < len(groups) and args.warmup_count:
        prepared.read_batch(groups[len(lines)], batch)
        compute(model, batch, args.warmup_count, [])
    wall = dict(lines[-1]["wall"]) if lines else dict.fromkeys(("seconds", "reading", "computing", "writing"), 0.0)
    flattened = lines[-1]["flattened"] if lines else 0
    begin, resumed = time.perf_counter() - wall["seconds"], bool(lines)
    with command.progress(len(inputs.files), "file", "infer", min(len(lines) * size, len(inputs.files))) as bar:
        for index in range(len(lines), len(groups)):
            start, times = time.perf_counter(), []
            prepared.read_batch(groups[index], batch)
            read_ahead(groups[index + 1] if index + 1 < len(groups) else [])
            wall["reading"] += time.perf_counter() - start
            outputs = compute(model, batch, args.loop, times)
            start = time.perf_counter()
            wall["computing"] += sum(times) / 1000
            line = {"times": times, "outputs": describe_outputs(model, outputs)}
            rows = outputs[0][:len(groups[index])]
            if args.outfmt == "TXT":
                flattened = inference.require_text_holds(model.path, rows, index * size, flattened)
            line["flattened"], line["probabilities"] = flattened, scores.are_probabilities(rows)
            line["files"] = write_batch(output, groups[index], outputs, args.outfmt)
            wall["writing"] += time.perf_counter() - start
            wall["seconds"] = time.perf_counter() - begin
            output.journal(dict(line, wall=dict(wall)))
            bar.update(len(groups[index]))
    hashes = {name: state for line in lines for name, state in line["files"].items()}
    wall.update(images_per_second=len(inputs.files) / max(wall["seconds"], 1e-9), resumed=resumed)
    return ([time for line in lines for time in line["times"]], lines[0]["outputs"],
            all(line["probabilities"] for line in lines), hashes, wall)


def pure_inference(args, model, output):
    """--loop or --seconds of runs on zeros, or on values as ais_bench's --pure_data_type random feeds. Returns as infer."""
    batch, warm, times, runs = np.zeros(model.shape, model.dtype), [], [], args.loop
    if args.pure_data_type == "random":
        # Random bytes are often NaN as floats, which are slow on some CPUs; random values in their place.
        batch = np.random.RandomState(0).randint(0, 256, model.shape).astype(model.dtype)
    if args.seconds or args.warmup_count:
        compute(model, batch, max(WARM_RUNS, args.warmup_count) if args.seconds else args.warmup_count, warm)
    if args.seconds:
        runs = max(FEWEST_RUNS, math.ceil(1000 * args.seconds / float(np.median(warm))))
    outputs = compute(model, batch, runs, times)
    described, hashes = describe_outputs(model, outputs), {}
    for index, values in enumerate(outputs):
        name = inference.result_name(inference.PURE, index, args.outfmt)
        hashes[name] = output.write_result(name, scores.encode(values, args.outfmt))
    return times, described, scores.are_probabilities(outputs[0]), hashes, None


# ---- the command line ----

def parse_args():
    parser = command.parser(__doc__, allow_abbrev=False)
    inference.add_engine_options(parser, "ONNX", "the ONNX model")
    parser.add_argument("--threads", metavar="N", type=command.whole(1, THREADS_LIMIT), default=machine.cpus(),
                        help="threads of ONNX Runtime (default: the CPUs this process may use, here %(default)s)")
    parser.add_argument("--provider", metavar="NAME[,KEY=VALUE...]", default="CPU",
                        help="what ONNX Runtime computes with, such as CUDA, OpenVINO, CANN (default: %(default)s)")
    args = parser.parse_args()
    if not re.match(r"\w+(,[^=,]+=[^,]*)*$", args.provider) or re.match("(?i)cpu.*,", args.provider):
        parser.error("--provider %s: is not NAME[,KEY=VALUE...]; the CPU has no options but --threads" % args.provider)
    inference.check_options(parser, args)
    return args


def run_onnx(args, data, sha256, engine, device, output):
    model = open_model(args, data)
    inputs = args.input and prepared.find_inputs(args.input, model.dtype, model.shape[1:], model.properties["recipe"], args.limit)
    made_from = inference.made_from(args, sha256, inputs, engine, device)
    inference.require_no_loss(args, output, inputs)
    if output.take() and inference.are_results_kept(args, output, sha256, engine, device):
        return output.discard()
    output.resume(made_from, afresh=not inputs)  # pure inference is measured in one go
    try:
        times, outputs, probabilities, hashes, wall = (infer(args, model, inputs, output) if inputs
                                                       else pure_inference(args, model, output))
    except command.Failure:
        output.discard()
        raise
    summary = inference.summarise(
        args, times, inputs, output, hashes, made_from=made_from, engine=model.engine, device=model.device,
        batch_size=model.shape[0], precision=model.properties["precision"],
        model=graph.model_summary(args.model, sha256, sha256, model.properties,
                                  {"dtype": model.dtype, "shape": model.shape[1:]}),
        outputs=outputs, probabilities=probabilities, wall=wall,
        packages={"onnxruntime": machine.version("onnxruntime")})
    output.publish(summary, hashes)
    inference.show(args, summary, output)


def main():
    args = parse_args()
    if args.model.endswith(".om"):
        fail("%s: an .om runs on an NPU alone, with npu_infer.py; here give the .onnx it was made from" % args.model)
    data = graph.read_graph(args.model)
    sha256 = files.sha256(data)
    engine, device = {"onnxruntime": machine.version("onnxruntime"), "provider": args.provider}, {"threads": args.threads}
    with publishing.output_of(args) as output:
        if inference.are_results_kept(args, output, sha256, engine, device):
            return 0
        if args.check:
            return 1
        run_onnx(args, data, sha256, engine, device, output)


if __name__ == "__main__":
    command.run(main)
