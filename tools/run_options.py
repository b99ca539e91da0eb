#!/usr/bin/env python3
"""The options of run_infer.sh, checked before its first long stage, and told to it.

    python3 tools/run_options.py --pth FILE --images DIR ... 3>FILE    # NAME and VALUE in turn, each ended by a NUL
    python3 tools/run_options.py --need MODULE ...              # are these installed?
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # PYTHONSAFEPATH=1 leaves it out
from common import command

import argparse
import glob
import importlib.util
import re

from common import files, int8, labels, prepared, recipe, scores
from common.command import fail

STAGES = ["export", "compile", "preprocess", "infer", "evaluate", "perf", "report"]
SHARDED = {"preprocess", "infer"}
WEIGHTS_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"
DESCRIPTION = """From checkpoint and images to the guide's table, on an NPU or with ONNX Runtime.
    bash run_infer.sh --demo
    bash run_infer.sh --pth resnet34-b627a593.pth --images ImageNet/val
"""
PATHS = ("--pth", "--images", "--labels", "--classes", "--output", "--om", "--reference")
# What run_infer.sh passes on to a script as it is.
PASSED_ON = {"recipe": list(recipe.FIELDS), "gate": ["min_top1", "min_top5"], "report": ["reference", "max_slowdown", "lang"],
             "quantize": ["method", "max_error", "min_agreement"]}
DEMO = {"pth": "resnet34-tiny.pth", "images": "val", "labels": "val_label.txt", "classes": "class_names.txt"}
DATA = {"pth": "resnet34-b627a593.pth", "images": "ImageNet/val", "labels": "ImageNet/val_label.txt", "classes": ""}


# ---- argument types ----

def batch_sizes(text):
    """A type for argparse: "1 4 8", each once."""
    words = text.replace(",", " ").split()
    if not words or not all(re.match("[1-9][0-9]{0,8}$", word) for word in words):
        raise argparse.ArgumentTypeError('%r is not as "1 4 8"' % text)
    return " ".join(dict.fromkeys(words))


def stages(text):
    unknown = set(text.split(",")) - set(STAGES)
    if unknown:
        raise argparse.ArgumentTypeError("%r is not among %s" % (unknown.pop(), ",".join(STAGES)))
    return text


def soc_version(text):
    if not re.fullmatch("[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError("%r is not as Ascend310P3" % text)
    return text


def path(text):
    """A type for argparse: a path that no script takes for an option."""
    if not text:
        raise argparse.ArgumentTypeError("a path is wanted")
    return "./" + text if text.startswith("-") else text


def glued(words):
    """--pth -w.pth as --pth=-w.pth: argparse takes a leading dash for an option's."""
    result = []
    for word in words:
        if result and result[-1] in PATHS and not word.startswith("--"):
            word = "%s=%s" % (result.pop(), word)
        result.append(word)
    return result


def parse_args(words):
    parser = command.parser(DESCRIPTION, prog="run_infer.sh", usage="bash run_infer.sh [--demo] [options]    (--help shows them)",
                            allow_abbrev=False, add_help=False)
    # One line an option on a terminal of 80 columns: a help text has 52 letters.
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26)
    add = parser.add_argument_group("what to run on").add_argument
    add("--demo", action="store_true", help="a tiny data set and weights, made first")
    add("--pth", metavar="FILE", type=path, help="checkpoint (default: %s)" % DATA["pth"])
    add("--weights", metavar="NAME", help="which weights, where the checkpoint holds several")
    add("--images", metavar="DIR", type=path, help="images (default: %s)" % DATA["images"])
    add("--labels", metavar="FILE", type=path, help='"FILE CLASS" lines (default: %s)' % DATA["labels"])
    add("--classes", metavar="FILE", type=path, help="names of the classes, one a line")
    add("--limit", metavar="N", type=command.whole(), help="only the first N images")
    add("--output", metavar="DIR", type=path, default="./output", help="folder for everything it makes (default: %(default)s)")
    add = parser.add_argument_group("how").add_argument
    add("--batch-sizes", metavar='"1 4"', type=batch_sizes, help='default: "1 4 8 16 32 64"; with --demo "1 4 8"')
    add("--engine", metavar="NAME", choices=["auto", "onnxruntime", "ais_bench"], default="auto",
        help="auto, onnxruntime or ais_bench (default: auto)")
    add("--dtype", metavar="NAME", choices=sorted(recipe.LAYOUTS), default="float32",
        help="float32; uint8: equal results, a quarter of the disk")
    add("--int8", action="store_true", help="INT8 beside the float model, with what it costs")
    add("--calibration-images", metavar="N", type=command.whole(), help="for INT8 (default: 500; with --demo 16)")
    add("--method", metavar="NAME", choices=int8.METHODS, help="MinMax (default), Entropy, Percentile; not AMCT's")
    add("--max-error", metavar="E", type=command.number(0, 100), help="refuse INT8 that is further off the float model")
    add("--min-agreement", metavar="P", type=command.number(0, 100), help="refuse INT8 that shares Top-1 on less than P percent")
    add("--fidelity", metavar="N", type=command.whole(),
        help="compare the first N images' scores with ONNX Runtime")
    add("--outfmt", metavar="NAME", choices=scores.FORMATS, default="TXT", help="of the results: TXT (default), BIN or NPY")
    add("--loop", metavar="N", type=command.whole(), help="runs of pure inference (default: 20)")
    add("--seconds", metavar="S", type=command.number(0.001, 10 ** 6), help="pure inference for so long, in place of --loop")
    add("--provider", metavar="NAME", help="ONNX Runtime's provider: NAME or NAME,KEY=VALUE")
    add("--device", metavar="0,1", type=command.devices, default="0", help="NPUs that share the images (default: 0)")
    add("--soc-version", metavar="NAME", type=soc_version, help="the NPU (default: npu-smi's)")
    add("--om", metavar="DIR", type=path, help="take the resnet34_bs1.om ... there; compile nothing")
    group = parser.add_argument_group("for a net that was trained by another recipe than torchvision's")
    recipe.add_options(group, "torchvision's")
    add = parser.add_argument_group("verdicts (exit code 3) and report").add_argument
    add("--min-top1", metavar="P", type=command.number(0, 100), help="Top-1 must be at least P percent")
    add("--min-top5", metavar="P", type=command.number(0, 100), help="Top-5 likewise")
    add("--reference", metavar="REPORT", type=path, help="another run, to put beside this one")
    add("--max-slowdown", metavar="P", type=command.number(0, 99.99),
        help="at most P percent fewer images/s than the reference")
    add("--lang", metavar="NAME", choices=["en", "zh"], help="en, or zh, which begins with the guide's table")
    add = parser.add_argument_group("what to do").add_argument
    add("--force", "--overwrite", action="store_true", help="make all again, not only what is not finished")
    add("--force-perf", action="store_true", help="measure pure inference again")
    add("--stages", metavar="LIST", type=stages, default=",".join(STAGES), help=",".join(STAGES))
    add("--shard", metavar="K/N", type=command.share, help="preprocess and infer only block K of N of the images")
    add("--check", action="store_true", help="do nothing; exit code 0 when there is nothing to do")
    add("--quiet", action="store_true", help="only the table, warnings and errors")
    add("-h", "--help", action="help", help="show this")
    args = parser.parse_args(glued(words))
    own = [name for name in DATA if getattr(args, name)]
    if args.demo and own:
        parser.error("--demo makes its own data: leave out --%s" % own[0])
    if args.loop and args.seconds:
        parser.error("--loop and --seconds exclude each other")
    if args.max_slowdown is not None and not args.reference:
        parser.error("--max-slowdown needs --reference")
    own = os.path.join(args.output, "report.json")
    if args.reference and os.path.realpath(args.reference) in map(os.path.realpath, (args.output, own)):
        parser.error("--reference %s: is this run's own report, which it replaces; copy it first: cp %s reference.json"
                     % (args.reference, own))
    if args.shard and set(args.stages.split(",")) - SHARDED:
        parser.error("--shard goes with --stages preprocess,infer")
    args.shard = args.shard and "%d/%d" % tuple(args.shard)
    args.device = ",".join(map(str, args.device))
    args.runs = "--seconds=%g" % args.seconds if args.seconds else "--loop=%d" % (args.loop or 20)
    args.prepared = os.path.join(args.output, "prep_dataset" + ("" if args.dtype == "float32" else "_" + args.dtype))
    return args, recipe.from_options(parser, args, dtype=args.dtype)


# ---- what can be known to be wrong before the first long stage ----

def check_files(args):
    """Exit where an input is missing, or the labels and the names of the classes do not belong together."""
    selected, commands = args.stages.split(","), os.path.join(args.output, "commands.sh")
    if os.path.exists(commands) and not args.force and not files.read(commands).startswith(b"# what run_infer.sh ran\n"):
        fail("%s: is there and not of run_infer.sh's making; move it away, or name another --output" % commands)
    if "export" in selected and not args.om and not os.path.isfile(args.pth):
        fail("%s: no such weight file; name it with --pth, or get it with: wget %s; without weights: --demo"
             % (args.pth, WEIGHTS_URL))
    if "preprocess" in selected and not os.path.isdir(args.images):
        fail("%s: no such folder of images; name it with --images" % args.images)
    by_name = labels.read(args.labels)[0] if {"preprocess", "infer", "evaluate"} & set(selected) else {}
    if args.classes and by_name:
        names = labels.numbered(files.read(args.classes))
        if len(names) <= max(by_name.values()):
            fail("%s: has %d lines, so classes 0 to %d, but %s has classes up to %d; it needs one name a line, or the labels "
                 "count from 1" % (args.classes, len(names), len(names) - 1, args.labels, max(by_name.values())))
    if args.reference and not os.path.isfile(args.reference) and not os.path.isfile(os.path.join(args.reference, "report.json")):
        fail("%s: is no report.json and no folder with one; name the report to compare with" % args.reference)


def check_recipe(prepared_folder, made_with):
    """Exit where the images were prepared by another recipe: before the export replaces the model that they are for."""
    for folder in [prepared_folder] + sorted(glob.glob(os.path.join(glob.escape(prepared_folder), "shard*_of_*"))):
        prepared.require_recipe(folder, prepared.read_record(folder), made_with)


def need(modules):
    """Exit where a module is not installed in this Python."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        fail("%s has no %s; install with: %s -m pip install -r requirements.txt"
             % (sys.executable, " ".join(missing), sys.executable))


def words_of(args):
    """[(name, value)] for run_infer.sh; of what it passes on, the name is PASSED_ON's and the value a whole word."""
    values, pairs = dict(vars(args)), []
    for kind, names in PASSED_ON.items():
        for name in names:
            value = values.pop(name)
            if value is not None:
                text = ",".join(map(str, value)) if isinstance(value, list) else value
                pairs.append((kind, "--%s=%s" % (name.replace("_", "-"), text)))
    return pairs + [(name, "yes" if value is True else value or "") for name, value in values.items()]


def main():
    if sys.argv[1:2] == ["--need"]:
        return need(sys.argv[2:])
    args, made_with = parse_args(sys.argv[1:])
    args.batch_sizes = args.batch_sizes or ("1 4 8" if args.demo else "1 4 8 16 32 64")
    args.calibration_images = args.calibration_images or (16 if args.demo else 500)
    tiny = os.path.join(args.output, "tiny-imagenet")
    for name, default in DATA.items():
        setattr(args, name, os.path.join(tiny, DEMO[name]) if args.demo else getattr(args, name) or default)
    if not args.demo:
        check_files(args)
    if not args.force:
        check_recipe(args.prepared, made_with)
    try:
        with open(3, "wb") as file:
            file.write(b"".join(os.fsencode("%s\0%s\0" % pair) for pair in words_of(args)))
    except OSError as error:
        fail("TMPDIR, where run_infer.sh keeps its options: %s" % error.strerror)


if __name__ == "__main__":
    command.run(main)
