#!/usr/bin/env python3
"""Run an .om model on NPUs with ais_bench, and leave what onnx_infer.py leaves (the guide's stage "inference").

    python3 npu_infer.py --model resnet34_bs1.om --input prep_dataset --output ./ --output_dirname result --outfmt TXT
    python3 npu_infer.py --model=resnet34_bs8.om --loop=20 --batchsize=8 --device 0,1

Prints the line of `python3 -m ais_bench` that it runs, spelled as the installed front end wants it. ais_bench writes into a
folder aside; when every image has its result, all appear together as OUTPUT/DIRNAME/NAME_0.txt (.bin, .npy) and one
OUTPUT/DIRNAME_summary.json for all devices. The images must be what the model takes: by NAME.om.json, which run_atc.sh writes
beside the .om, and without it by what aclruntime says of the .om.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import collections
import json
import math
import shlex
import shutil
import time

import numpy as np

from common import ais_bench, ascend, files, graph, inference, npu_smi, prepared, publishing, recipe, results, scores
from common.command import fail, warn

command.stop_sentence = "stopped; ais_bench leaves nothing to go on from, the same line begins this run again"
DTYPES = {1: "uint8", 2: "float16", 4: "float32", 8: "int64"}  # by the bytes of a value, of an .om without a record
WARM_RUNS, FEWEST_RUNS = 20, 10  # of --seconds

# input: {dtype, shape of an image}; outputs: [{name, dtype, shape}]; properties: as graph.described gives them
Model = collections.namedtuple("Model", "path sha256 onnx_sha256 input outputs batch_size properties soc_version")
Part = collections.namedtuple("Part", "summary times paths")  # what a device left


# ---- the model and the inputs ----

def read_om(path):
    """What run_atc.sh recorded beside the .om, held against its bytes."""
    if not path.endswith(".om"):
        fail("%s: is no .om; run_atc.sh makes it from the .onnx, and onnx_infer.py runs that" % path)
    if not os.path.lexists(path):
        fail("%s: no such .om file; run_atc.sh makes it" % path)
    record, said, sha256 = files.record_of(path), path + ".json", files.sha256_of(path)
    if record is None:
        if os.path.lexists(said):
            fail("%s: is not as run_atc.sh writes it; compile again, or remove it if the .om is from elsewhere" % said)
        return Model(path, sha256, None, None, None, None, graph.described({}, path), None)
    with files.as_written(said):
        if sha256 != record["sha256"]:
            fail("%s: is not the .om that run_atc.sh recorded in %s; compile again, or remove that if the .om is from elsewhere"
                 % (path, os.path.basename(said)))
        properties = {key: record[key] for key in ("precision", "weights", "weights_sha256", "calibration")}
        properties["recipe"] = record["recipe"] and recipe.from_json(record["recipe"], said)
        model = Model(path, sha256, record["onnx_sha256"], record["input"], record["outputs"], int(record["batch_size"]),
                      properties, record["soc_version"])
        inference.check_outputs(path, model.outputs)
        if properties["recipe"]:
            recipe.check_fits(properties["recipe"], said, model.input["dtype"], model.input["shape"])
    return model


def ask_aclruntime(model, device, folder):
    """The Model of an .om without a record. ais_bench puts as many files into a batch as fill it: those of another size must
    never get there, and scores of two bytes must not be read as half as many of four."""
    answer, problem = ais_bench.ask_om(model.path, device, folder)
    if problem:
        fail("%s: %s" % (model.path, problem))
    try:
        (model_input,), outputs = [[{"name": name, "dtype": DTYPES[size / int(np.prod(shape))], "shape": shape}
                              for name, shape, size in values] for values in answer]
        (batch_size,) = {value["shape"].pop(0) for value in [model_input] + outputs}
    except (ValueError, LookupError, ZeroDivisionError):
        fail("%s: has no record (%s.json), and aclruntime does not tell what one image of its input and its scores are; "
             "compile it with run_atc.sh, or copy its record too" % (model.path, os.path.basename(model.path)))
    inference.check_outputs(model.path, outputs)
    return model._replace(input=model_input, outputs=outputs, batch_size=batch_size)


def takes_any_layout(model):
    """The layout that AIPP takes is not its graph's, and only a recipe tells of it."""
    return model.input["dtype"] == "uint8" and not model.properties["recipe"]


# ---- the runs ----

def run_ais_bench(args, front, model, inputs, output, loop):
    """One call of ais_bench; returns ([Part], seconds) when all of it is there."""
    work, source = os.path.abspath(os.path.join(output.partial, "run")), args.input
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work, 0o750)

    def spelled(name):
        return "--" + name.replace("_", front.separator)

    if inputs and (args.limit is not None or not os.path.isdir(source)):
        source = ais_bench.linked(inputs, os.path.join(output.partial, "input"), front.strict)
    options = ["--outfmt", args.outfmt] if inputs or args.outfmt != "BIN" else []
    if inputs and loop > 1:
        options += ["--loop", str(loop)]
    if not inputs and args.pure_data_type != "zero":
        options += [spelled("pure_data_type"), args.pure_data_type]
    if args.devices != [0]:
        options += ["--device", ",".join(map(str, args.devices))]
    if inputs and len(args.devices) > 1:
        options += front.divide  # 0.0.2 has no such option and always divides
    if args.warmup_count != 1:
        options += [spelled("warmup_count"), str(args.warmup_count)]

    def line(om, source, target, dirname):
        words = ["--model", om, "--input", source] if inputs else ["--model=" + om, "--loop=%d" % loop,
                                                                   "--batchsize=%d" % model.batch_size]
        return words + (["--output", target, spelled("output_dirname"), dirname] if target else []) + options

    shown = ["python3", "-m", "ais_bench"] + line(args.model, source, args.output, args.output_dirname)
    print(" ".join(shlex.quote(word) for word in shown), flush=True)
    # The same line, into the folder of its own, whose path must not depend on the current folder.
    words, begin = line(os.path.abspath(args.model), os.path.abspath(source or "."), work, "result"), time.time()
    code, text = ais_bench.run_python(["-m", "ais_bench"] + words, output.partial, output)
    seconds = time.time() - begin
    if code:
        fail("%s: ais_bench %s" % (args.model, ais_bench.reason(code, text)))
    return [read_part(args, os.path.join(work, "result"), index) for index in range(len(args.devices))], seconds


def read_part(args, base, index):
    """What one device left, by its summary; exits where anything is missing."""
    device, several = args.devices[index], len(args.devices) > 1
    if several:
        base = os.path.join(base, "device%d" % device)
        if not os.path.exists(base + "_summary.json"):  # newer ones count the devices too
            base += "_%d" % index
    path = base + "_summary.json"
    if not os.path.isfile(path) or not os.path.isdir(base):
        fail("%s: ais_bench ended with exit code 0, but %s"
             % (args.model, "the part of device %d is missing" % device if several else "left no summary"))
    with files.as_written(path):
        summary = files.read_json(path, 1 << 29)
        times = [float(time) for time in summary["npu_compute_time_list"]]
    return Part(summary, times, [os.path.join(base, name) for name in sorted(os.listdir(base))])


def find_results(args, model, parts, inputs):
    """{file name: path}: exits unless each image has each of its results once."""
    names = [each.name for each in inputs.files] if inputs else [inference.PURE]
    wanted = [inference.result_name(name, index, args.outfmt) for name in names for index in range(len(model.outputs))]
    found = {}
    for part in parts:
        # ais_bench computes the throughput with the batch size that it was told, or else reads from the .om.
        batch_size = int(round(part.summary["throughput"] * float(np.mean(part.times)) / 1000))
        if batch_size != model.batch_size:
            fail("%s: ais_bench ran it with batch size %d, not %d" % (model.path, batch_size, model.batch_size))
        for path in part.paths:
            name = os.path.basename(path)
            if inputs and name in found:
                fail("%s: two devices had the same input; this ais_bench did not divide them" % path)
            found.setdefault(name, path)  # of pure inference the first device's
    missing = [name for name in wanted if name not in found]
    if missing:
        fail("%s: ais_bench ended with exit code 0, but left %d of %d results (first missing: %s)"
             % (model.path, len(wanted) - len(missing), len(wanted), missing[0]))
    return {name: found[name] for name in wanted}


def check_scores(args, model, found, inputs):
    """Whether the scores are probabilities; exits unless each image's are whole and finite."""
    probabilities, flattened, output = True, 0, model.outputs[0]
    for seen, image in enumerate(inputs.files):
        path = found[inference.result_name(image.name, 0, args.outfmt)]
        try:
            values = scores.as_floats(scores.decode(files.read(path, results.MOST_BYTES), args.outfmt, output["dtype"]))
        except ValueError as error:
            fail("%s: %s" % (path, error))
        if [values.size] != output["shape"]:
            fail("%s: holds %d scores, not %d: torn, or not of one image" % (path, values.size, output["shape"][0]))
        probabilities = probabilities and scores.are_probabilities(values)
        if args.outfmt == "TXT":
            flattened = inference.require_text_holds(model.path, values[None], seen, flattened, scores.flattened_text)
    return probabilities


# ---- the summary ----

def copy_ms(summary, key):
    figures = summary.get(key) or {}
    return float(figures["mean"]) if figures.get("count") else None


def summarise_devices(args, model, parts, seconds, inputs, output, hashes, **run):
    """The summary of all devices: the images a second of all together, the times of the slowest."""
    figures = [inference.performance(part.times, model.batch_size) for part in parts]
    slowest = max(range(len(parts)), key=lambda index: figures[index]["mean_ms"])
    speeds, intervals = ([performance[key] for performance in figures] for key in ("images_per_second", "interval95"))
    interval = [sum(ends) for ends in zip(*intervals)] if all(intervals) else None
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools", "npu_info.py")
    code, text, _ = npu_smi.run_program(sys.executable, script, "--device", ",".join(map(str, args.devices)))
    npu = None if code else json.loads(text)
    chip = " and ".join(sorted({found["soc_version"] for found in (npu or {"devices": []})["devices"] if found["soc_version"]}))
    if model.soc_version and chip not in ("", model.soc_version):
        warn("%s: was compiled for %s, npu-smi shows %s" % (model.path, model.soc_version, chip))
    chip = chip or model.soc_version or "NPU"
    about = graph.model_summary(model.path, model.sha256, model.onnx_sha256, model.properties, model.input)
    left, times = parts[slowest].summary, parts[slowest].times
    return inference.summarise(
        args, times, inputs, output, hashes, engine="ais_bench %s" % (ais_bench.versions()["ais_bench"] or "of unknown version"),
        device=chip if len(parts) == 1 else "%d x %s" % (len(parts), chip), devices=args.devices,
        batch_size=model.batch_size, performance=dict(figures[slowest], images_per_second=sum(speeds), interval95=interval),
        NPU_compute_time=left["NPU_compute_time"], H2D_latency=left.get("H2D_latency"), D2H_latency=left.get("D2H_latency"),
        h2d_ms=copy_ms(left, "H2D_latency"), d2h_ms=copy_ms(left, "D2H_latency"), npu=npu,
        precision=model.properties["precision"], model=dict(about, any_layout=True) if takes_any_layout(model) else about,
        outputs=model.outputs, vnni=None, packages=ais_bench.versions(),
        # How long ais_bench waits for files and for the disk it does not tell; the seconds include loading the model.
        wall=inputs and {"seconds": seconds, "images_per_second": len(inputs.files) / seconds, "reading": None,
                         "computing": sum(times) / 1000, "writing": None, "resumed": False}, **run)


# ---- the command line ----

def parse_args():
    parser = command.parser(__doc__, allow_abbrev=False)
    inference.add_engine_options(parser, "OM", "the .om that run_atc.sh made")
    parser.add_argument("-d", "--device", dest="devices", metavar="0,1", type=command.devices, default="0",
                        help="devices that share the images (default: 0), counted within %s where that is set" % npu_smi.VISIBLE)
    args = parser.parse_args()
    inference.check_options(parser, args)
    return args


def run_om(args, model, device, output):
    folder = output.partial
    if model.input is None:
        model = ask_aclruntime(model, args.devices[0], folder)
    if args.batchsize not in (None, model.batch_size):
        fail("%s: is made for batch size %d, not %d" % (model.path, model.batch_size, args.batchsize))
    inputs = None
    if args.input:
        inputs = prepared.find_inputs(args.input, model.input["dtype"], model.input["shape"], model.properties["recipe"],
                                      args.limit, takes_any_layout(model))
        prepared.require_content(inputs.files)
    made_from = inference.made_from(args, model.sha256, inputs, ais_bench.versions(), device)
    inference.require_no_loss(args, output, inputs)
    front = ais_bench.ask_front_end(folder, inputs and len(args.devices) > 1)
    if front.strict:
        ais_bench.check_paths(model.path, folder, inputs)
        if args.loop > ais_bench.MOST_LOOPS:
            fail("--loop %d: this ais_bench takes at most %d" % (args.loop, ais_bench.MOST_LOOPS), 2)
    if args.seconds:
        parts, _ = run_ais_bench(args, front, model, inputs, output, WARM_RUNS)
        median = max(float(np.median(part.times)) for part in parts)
        args.loop = min(ais_bench.MOST_LOOPS, max(FEWEST_RUNS, math.ceil(args.seconds * 1000 / max(median, 1e-3))))
        print("%d runs of %.3f ms for %g seconds (at most %d)" % (args.loop, median, args.seconds, ais_bench.MOST_LOOPS))
    parts, seconds = run_ais_bench(args, front, model, inputs, output, args.loop)
    if inputs:
        prepared.require_content(inputs.files)
    found = find_results(args, model, parts, inputs)
    probabilities, hashes = bool(inputs) and check_scores(args, model, found, inputs), {}
    for name, path in found.items():
        os.replace(path, os.path.join(folder, name))
        data, status = files.read_with_stat(os.path.join(folder, name))
        hashes[name] = [files.xxh(data), status]
    summary = summarise_devices(args, model, parts, seconds, inputs, output, hashes, made_from=made_from,
                                probabilities=probabilities)
    output.publish(summary, hashes)
    inference.show(args, summary, output)


def main():
    args = parse_args()
    os.umask(0o027)  # newer front ends, and whoever reads these results with them, want 0640 and 0750
    model = read_om(args.model)
    device = {"devices": args.devices, "visible": os.environ.get(npu_smi.VISIBLE), "soc_version": model.soc_version,
              "cann": ascend.cann_version()}
    with publishing.output_of(args) as output:
        if inference.are_results_kept(args, output, model.sha256, ais_bench.versions(), device):
            return 0
        if args.check:
            return 1
        if output.take() and inference.are_results_kept(args, output, model.sha256, ais_bench.versions(), device):
            return output.discard()
        try:
            run_om(args, model, device, output)
        except BaseException:  # also when it is stopped
            output.discard()
            raise


if __name__ == "__main__":
    command.run(main)
