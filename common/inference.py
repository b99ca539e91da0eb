"""What both engines share: ais_bench's options, statistics of times, the summary, and when a run is not to be made again."""
import math
import os
import platform
import sys
import time

import numpy as np

from common import files, machine, prepared, results, scores
from common.command import fail, number, whole
from common.publishing import PURE
from common.recipe import from_json

VERSION = 2  # of what an engine leaves; raised when results or the meaning of a summary change
T_975_9 = 2.262157  # Student's t for a 95 % interval from ten batch means
P90_FROM, P99_FROM, INTERVAL_FROM = 10, 100, 20  # runs; of fewer a percentile is no more than the largest
MOST_FLATTENED = 1000  # at most one in so many images may have scores that %f makes equal: TXT is refused beyond


# ---- options ----

def add_engine_options(parser, model, model_help):
    """ais_bench's options that both engines take, and the suite's own."""
    add = parser.add_argument
    add("-m", "--model", metavar=model, required=True, help=model_help)
    add("-i", "--input", metavar="PATH", help="folder of .bin/.npy files, or files separated by commas; none: pure inference")
    add("-o", "--output", metavar="DIR", help="folder for the results; none: times only")
    add("--output_dirname", "--output-dirname", metavar="NAME", help="folder in DIR (default: date and time)")
    add("--outfmt", choices=scores.FORMATS, default="BIN", help="format of the results (default: %(default)s)")
    add("-l", "--loop", metavar="N", type=whole(), help="runs of each batch (default: 1)")
    add("--seconds", metavar="S", type=number(0.001, 10 ** 6), help="pure inference for about so long, in place of --loop")
    add("--batchsize", metavar="N", type=whole(1, 4096), help="batch size; an .om's, or an ONNX file's fixed one, must be this")
    add("--warmup_count", "--warmup-count", metavar="N", type=whole(0), default=1,
        help="runs before the timed ones (default: %(default)s)")
    add("--pure_data_type", "--pure-data-type", choices=["zero", "random"], default="zero", help="what pure inference feeds")
    add("--display_all_summary", "--display-all-summary", metavar="1", type=str.lower, nargs="?", const="1", default="0",
        choices=("1", "true", "yes", "y", "t", "0", "false", "no", "n", "f"), help="print the times of the copies, too")
    add("--limit", metavar="N", type=whole(), help="only the first N files")
    add("--overwrite", action="store_true", help="run again what is finished")
    add("--check", action="store_true", help="do nothing; exit code 0 where the results are there and of just this run, else 1")


def check_options(parser, args):
    if args.seconds and (args.loop or args.input):
        parser.error("--seconds is for pure inference, without --loop and --input")
    if "" in (args.input, args.output):
        parser.error("--input and --output are names of folders, not empty (a variable that is not set?)")
    if args.output is None and (args.output_dirname is not None or args.check):
        parser.error("--output_dirname and --check go with --output")
    if args.limit and not args.input:
        parser.error("--limit is of the files of --input; for runs of pure inference: --loop")
    name = time.strftime("%Y_%m_%d-%H_%M_%S") if args.output_dirname is None else args.output_dirname
    if os.path.isabs(name) or ".." in name.split(os.sep) or os.path.normpath(name) == ".":
        parser.error("--output_dirname %r names no folder inside --output" % name)
    args.output_dirname, args.loop = os.path.normpath(name), args.loop or 1


# ---- when there is nothing to do ----

def made_from(args, model_sha256, inputs, engine, device):
    """All that decides the scores of a run over files, or the times of a pure one, for which the device and this machine count.

    engine, device: {what: value}.
    """
    decisive = dict(engine, version=VERSION, model=model_sha256, batchsize=args.batchsize, outfmt=args.outfmt, loop=args.loop,
                    images=inputs and inputs.content_hash(), recipe=inputs and inputs.recipe and inputs.recipe.without_defaults())
    if inputs:
        return decisive
    return dict(device, **decisive, machine=machine.description(), cpus=machine.cpus(), seconds=args.seconds,
                warmup_count=args.warmup_count, pure_data_type=args.pure_data_type)


def are_results_kept(args, output, model_sha256, engine, device):
    """Whether the results are there, whole, and of just this run: then it is said. The model itself is not opened for it."""
    summary = output.earlier()
    if args.overwrite or not summary or summary["made_from"].get("model") != model_sha256:
        return False
    with files.as_written(output.summary_path):
        inputs, model = None, summary["model"]
        if bool(args.input) != bool(summary["input"]):
            return False
        if args.input:  # what the summary says of a model with these very bytes is true of this one
            own = from_json(model["recipe"], output.summary_path) if model["recipe"] else None
            inputs = prepared.find_inputs(args.input, model["input"]["dtype"], model["input"]["shape"], own, args.limit,
                                          model.get("any_layout", False))
            prepared.require_content(inputs.files)
        kept = made_from(args, model_sha256, inputs, engine, device) == summary["made_from"] and output.is_whole(summary)
        if kept:
            output.settle()
            print("kept: %s, %s on %s, of just this model and input" % (output.folder, summary["engine"], summary["device"]))
        return kept


def require_no_loss(args, output, inputs):
    """Exit where this run, pure inference or over a part of the images, would replace results that it does not make again.

    A folder of inputs that is fewer now than it was (a picture was removed) is no part.
    """
    earlier = {} if args.overwrite else output.earlier() or {}
    if earlier.get("input"):
        with files.as_written(output.summary_path):
            names = {prepared.image_name(info["infiles"][0]) for info in earlier["filesinfo"].values()}
            again = {each.name for each in inputs.files} if inputs else set()
            other = not args.input or os.path.realpath(args.input) != os.path.realpath(earlier["input"]["path"])
            if again < names and (args.limit or other):
                fail("%s: holds the results of %d images, of which this run makes %d; name another --output_dirname, or give "
                     "--overwrite to replace them all" % (output.folder, len(names), len(again)))


# ---- figures ----

def statistics(milliseconds):
    """Keys as ais_bench 0.0.2 writes them; zeros for an empty list, as there."""
    numbers = milliseconds or [0.0]
    return {"min": min(numbers), "max": max(numbers), "mean": float(np.mean(numbers)), "median": float(np.median(numbers)),
            "percentile(99%)": float(np.percentile(numbers, 99)), "count": len(milliseconds)}


def performance(milliseconds, batch_size):
    """What of the times of the runs can be defended: no percentile of too few; the interval of images/s from ten batch means."""
    mean, runs, interval = float(np.mean(milliseconds)), len(milliseconds), None
    if runs >= INTERVAL_FROM:
        means = np.array(milliseconds[runs % 10:], np.float64).reshape(10, -1).mean(axis=1)
        half = T_975_9 * float(means.std(ddof=1)) / math.sqrt(10)
        if half < mean:  # around the mean of all runs, which the ten parts may lack a few of
            interval = [1000 * batch_size / (mean + half), 1000 * batch_size / (mean - half)]
    return {"runs": runs, "batch_size": batch_size, "mean_ms": mean, "median_ms": float(np.median(milliseconds)),
            "p90_ms": float(np.percentile(milliseconds, 90)) if runs >= P90_FROM else None,
            "p99_ms": float(np.percentile(milliseconds, 99)) if runs >= P99_FROM else None,
            "min_ms": float(min(milliseconds)), "max_ms": float(max(milliseconds)),
            "images_per_second": 1000 * batch_size / mean, "interval95": interval}


# ---- the summary ----

def result_name(name, index, outfmt):
    """The file of an image's index-th output."""
    return "%s_%d.%s" % (name, index, outfmt.lower())


def files_info(output, inputs, outputs, outfmt, hashes):
    """ais_bench's filesinfo, with the picture (image) and what vouches for each result (hashes: {name: [XXH3-128, stat_of]})."""
    sources = [(each.name, each.path, each.image) for each in inputs.files] if inputs else [(PURE, PURE, None)]
    info = {}
    for index, (name, path, image) in enumerate(sources):
        names = [result_name(name, number, outfmt) for number in range(outputs)]
        info[str(index)] = {"infiles": [path], "outfiles": [os.path.join(output.folder, each) for each in names],
                            "image": image, "hashes": [hashes[each] for each in names]}
    return info


def summarise(args, times, inputs, output, hashes, **run):
    """ais_bench's keys, then what this run was. times: milliseconds of all runs (of the slowest device); hashes: as files_info
    takes them; run: the other keys, of which those that follow from the times have defaults."""
    figures = run.get("performance") or performance(times, run["batch_size"])
    summary = {"filesinfo": files_info(output, inputs, len(run["outputs"]), args.outfmt, hashes),
               "input": inputs and inputs.summary(), "NPU_compute_time": statistics(times), "H2D_latency": statistics([]),
               "D2H_latency": statistics([]), "throughput": figures["images_per_second"], "npu_compute_time_list": times,
               "args": sys.argv, "pid": os.getpid(), "schema": results.SCHEMA,
               "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
               "devices": [], "outfmt": args.outfmt, "machine": machine.description(), "vnni": machine.has_vnni(),
               "performance": figures, "h2d_ms": None, "d2h_ms": None, "wall": None, "npu": None}
    packages = dict({"python": platform.python_version(), "numpy": np.__version__}, **run.pop("packages"))
    return dict(summary, packages=packages, **run)


def show(args, summary, output):
    """The lines for the terminal."""
    figures, wall = summary["performance"], summary["wall"]
    print("engine: %s on %s" % (summary["engine"], summary["device"]))
    print("compute time (ms): " + ", ".join("%s %.3f" % (key[:-3], figures[key]) for key in (
        "min_ms", "max_ms", "mean_ms", "median_ms", "p90_ms", "p99_ms") if figures[key] is not None))
    if args.display_all_summary[0] in "1ty":
        for key in ("H2D_latency", "D2H_latency"):
            copies = summary[key] or {}
            print("%s (ms): %s" % (key, ", ".join("%s %.3f" % (name, copies[name]) for name in copies if name != "count")))
    print("throughput: %.2f images/s (batch size %d, %d runs)" % (summary["throughput"], summary["batch_size"], figures["runs"]))
    if wall:
        parts = ["%s %.1f" % (key, wall[key]) for key in ("reading", "computing", "writing") if wall[key] is not None]
        print("end to end: %.2f images/s (%.1f s: %s)" % (wall["images_per_second"], wall["seconds"], ", ".join(parts)))
    if args.output:
        print("results: %s" % output.folder)


# ---- what outputs must be ----

def check_outputs(path, outputs):
    """Exit unless the first of a model's outputs [{name, dtype, shape of one image}] is scores, and no other looks like them."""
    first = outputs[0]
    if first["dtype"] not in ("float16", "float32", "float64") or len(first["shape"]) != 1 or first["shape"][0] < 2:
        fail("%s: its first output %s is a %s of shape %s an image; scores are floats of shape (classes), at least 2"
             % (path, first["name"], first["dtype"], first["shape"]))
    alike = [output["name"] for output in outputs
             if output["dtype"].startswith("float") and len(output["shape"]) == 1 and output["shape"][0] > 1]
    if len(alike) > 1:
        fail("%s: its outputs %s all look like scores (classes); export it with the scores alone" % (path, " and ".join(alike)))


def require_text_holds(path, rows, seen=0, flattened=0, count=scores.flattened):
    """Exit where TXT's %f makes ties of the scores (images, classes) of a batch; called for every batch, with what came before.
    count: of the flattened among them, scores.flattened_text where they are read from TXT.

    Returns how many images it flattened so far: scores of a good net do that once in some 100 000 images.
    """
    flattened += count(rows)
    probabilities = len(rows) > 0 and scores.are_probabilities(rows)
    if probabilities or flattened > (seen + len(rows)) // MOST_FLATTENED:
        fail("%s: its scores are %s, which TXT's %%f flattens into ties; use --outfmt BIN"
             % (path, "probabilities" if probabilities else "within less than 0.000001 of each other"))
    return flattened
