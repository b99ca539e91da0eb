#!/usr/bin/env python3
"""What an .om was made from, in NAME.om.json beside it: run_atc.sh's helper.

    plan    prints the input's name, the sides of one image, the batch sizes to compile, then what is kept, each in a line;
            begins the records and writes the AIPP files of those to compile. --check: only the exit code, 1 where there are any
    finish  completes the record when atc has ended
    record  writes the record of one that was compiled by hand, after comparing what can be compared
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # PYTHONSAFEPATH=1 leaves it out
from common import command

import argparse
import re
import tempfile

import numpy as np

from common import ais_bench, ascend, files, graph
from common.command import fail

VERSION = 1  # of the command that run_atc.sh gives atc; raised when that changes what an .om computes
EXACT = {"--precision_mode=force_fp32", "--precision_mode=must_keep_origin_dtype", "--precision_mode_v2=origin"}


class Om:
    """An .om of a batch size: its path, all that it is made from, and what later stages want to know of it."""

    def __init__(self, args, model, path, batch_size, cann):
        self.path, self.cfg, self.aipp = path, path[:-len(".om")] + ".aipp.cfg", None
        recipe, self.input = model.recipe, model.input
        if args.aipp:
            self.aipp, recipe = recipe.aipp(), recipe.with_dtype("uint8")
            self.input = dict(self.input, dtype="uint8", shape=recipe.shape)
        halved = {"dtype": "float16"} if "--output_type=FP16" in args.options else {}
        self.outputs = [dict(output, **halved) for output in model.outputs]
        self.made_from = {"version": VERSION, "onnx": model.sha256, "batch_size": batch_size, "aipp": self.aipp,
                          "options": args.options, "soc_version": args.soc_version, "cann": cann}
        precision = "int8" if model.precision == "int8" else "fp32" if EXACT & set(args.options) else "fp16"
        self.more = {"onnx": model.path, "onnx_sha256": model.sha256, "soc_version": args.soc_version, "cann": cann,
                     "command": args.command, "precision": precision, "batch_size": batch_size,
                     "recipe": recipe and recipe.as_json(), "weights": model.weights, "weights_sha256": model.weights_sha256,
                     "calibration": model.calibration, "aipp": self.aipp and os.path.basename(self.cfg),
                     "input": self.input, "outputs": self.outputs}

    def is_compiled(self):
        """So is one that was compiled by hand, of which CANN, and maybe the chip, are not known."""
        known = (files.record_of(self.path) or {}).get("made_from", {})
        unknown = {key: None for key in ("soc_version", "cann") if known.get(key, "") is None}
        return files.is_kept(self.path, dict(self.made_from, **unknown))


def plan(args, oms, model):
    kept = [om for om in oms if not args.overwrite and om.is_compiled()]
    foreign = [om for om in oms if not args.overwrite and not files.is_recorded(om.path)]
    to_make = [om for om in oms if om not in kept + foreign]
    if args.check:
        return int(bool(to_make or foreign))
    print("%s\n%s\n%s" % (model.input["name"], ",".join(map(str, model.input["shape"])),
                          " ".join(str(om.made_from["batch_size"]) for om in to_make)))
    for om in kept:
        print("kept: %s, compiled from just this %s by the same command" % (om.path, args.onnx))
    for om in to_make:
        files.begin_recorded(om.path, om.made_from)
        if om.aipp:
            files.write(om.cfg, om.aipp.encode())
    if foreign:
        fail("%s: is there and not as run_atc.sh made it; replace it with --overwrite, choose another --output, or vouch for it: "
             "bash run_atc.sh --record %s --onnx %s" % (foreign[0].path, foreign[0].path, args.onnx))
    return 0


def finish(args, oms):
    for om in oms:
        if (files.record_of(om.path) or {}).get("made_from") != om.made_from:
            fail("%s: was replaced while atc compiled it; run it again" % args.onnx)
        files.finish_recorded(om.path, om.made_from, **om.more)


def record(args, model):
    """The record of an .om compiled by hand, when its name, the options and aclruntime, where that opens it, agree."""
    files.check_output(args.om + ".json", [args.onnx, args.om], lambda _: files.record_of(args.om), args.overwrite)
    earlier = files.record_of(args.om) or {}
    if not args.overwrite and earlier.get("sha256") == files.sha256_of(args.om) and earlier.get("onnx_sha256") != model.sha256:
        fail("%s: was compiled from another file than %s, says its record; replace that with --overwrite" % (args.om, args.onnx))
    named, wanted = re.search(r"bs(\d+)", os.path.basename(args.om)), args.batch_sizes.strip()  # several: run_atc.sh's default
    with tempfile.TemporaryDirectory() as folder:
        values, problem = ais_bench.ask_om(args.om, args.device or "0", folder)
    sizes = {"its name": named and int(named.group(1)), "--batch-sizes": wanted.isdigit() and int(wanted),
             "aclruntime": values and values[0][0][1][0]}
    if len(set(filter(None, sizes.values()))) != 1:
        known = " but ".join("%d by %s" % (size, source) for source, size in sizes.items() if size)
        fail("%s: its batch size is %s; pass the right one with --batch-sizes, or another .om" % (args.om, known or "not known"))
    om = Om(args, model, args.om, next(filter(None, sizes.values())), None)  # today's CANN need not be the one that compiled it
    if values and [len(part) for part in values] != [1, len(om.outputs)]:
        fail("%s: has %d inputs and %d outputs, %s not" % (args.om, len(values[0]), len(values[1]), args.onnx))
    for (_, shape, size), value in zip(sum(values or [], []), [om.input] + om.outputs):
        if shape != [om.more["batch_size"]] + value["shape"] or size != np.prod(shape) * np.dtype(value["dtype"]).itemsize:
            fail("%s: its %s has shape %s and %d bytes, %s has %s %s an image; it was not compiled from that in this way" % (
                args.om, value["name"], shape, size, args.onnx, value["dtype"], value["shape"]))
    files.finish_recorded(args.om, om.made_from, **om.more)
    compared = "input, outputs and batch size" if values else "nothing but its name, since " + problem
    print("recorded: %s.json, batch size %d; compared with %s: %s" % (args.om, om.more["batch_size"], args.onnx, compared))


def main():
    parser = argparse.ArgumentParser(description="run_atc.sh's helper: what an .om was made from.")
    parser.add_argument("verb", choices=["plan", "finish", "record"])
    for name in "onnx om om-prefix batch-sizes soc-version device command".split():
        parser.add_argument("--" + name)
    for name in "aipp overwrite check".split():
        parser.add_argument("--" + name, action="store_true")
    end = (sys.argv + ["--"]).index("--")  # behind it stand atc's own options
    args = parser.parse_args(sys.argv[1:end])
    args.options, args.soc_version = sys.argv[end + 1:], args.soc_version or None
    model = graph.Graph(args.onnx)
    if args.aipp and (model.recipe is None or model.recipe.dtype != "float32" or model.recipe.shape != model.input["shape"]):
        problem = "carries no recipe of it" if model.input["dtype"] == "float32" else "already takes " + model.input["dtype"]
        fail("%s: %s; --aipp is for a float input with its recipe, as resnet34_pth2onnx.py writes it" % (args.onnx, problem))
    if args.verb == "record":
        return record(args, model)
    cann = ascend.cann_version()
    oms = [Om(args, model, "%s_bs%s.om" % (args.om_prefix, size), int(size), cann) for size in args.batch_sizes.split()]
    return plan(args, oms, model) if args.verb == "plan" else finish(args, oms)


if __name__ == "__main__":
    command.run(main)
