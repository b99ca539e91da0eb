"""Stand-in for ais_bench's front end, in the spelling, the layout and the strictness of the generation STANDIN_GENERATION."""
import argparse
import json
import os
import re
import signal
import stat
import sys
from multiprocessing import get_context

import aclruntime
import numpy as np

GENERATION = os.environ.get("STANDIN_GENERATION", "0.0.2")
NEWER = GENERATION != "0.0.2"
FAIL = os.environ.get("STANDIN_FAIL", "").split()


def boolean(text):
    if text.lower() not in ("1", "true", "0", "false"):
        raise argparse.ArgumentTypeError("neither true nor false: %s" % text)
    return text.lower() in ("1", "true")


def devices_of(text):
    return [int(number) for number in text.split(",")]


def legal(text, forbidden):
    """The newer front ends' checks of a path: its characters, links, owner and mode."""
    full = os.path.abspath(text)
    if re.search(r"[^_A-Za-z0-9/.-]", full):
        raise argparse.ArgumentTypeError("path contains illegal char, legal chars include A-Z a-z 0-9 _ - / . : %r" % text)
    if os.path.islink(full):
        raise argparse.ArgumentTypeError("%s is a soft link" % text)
    if os.path.exists(full):
        there = os.stat(full)
        if there.st_uid != os.geteuid() and there.st_gid not in os.getgroups():
            raise argparse.ArgumentTypeError("%s: neither owner nor group owner" % text)
        if there.st_mode & forbidden:
            raise argparse.ArgumentTypeError("%s: mode %o is too open" % (text, there.st_mode & 0o777))
    return text


def input_path(text):
    for path in text.split(",") if NEWER else ():
        if not os.path.exists(path):
            raise argparse.ArgumentTypeError("%s does not exist" % path)
        legal(path, stat.S_IWGRP | stat.S_IWOTH)
    return text


def output_path(text):
    return legal(text, stat.S_IWGRP | stat.S_IRWXO) if NEWER else text


def parse_args():
    parser = argparse.ArgumentParser(prog="python3 -m ais_bench")
    separator = "-" if GENERATION == "2026" else "_"
    switch = {"action": "store_true"} if GENERATION in ("2025", "2026") else {"type": boolean, "default": False}

    def add(name, *short, **options):
        parser.add_argument("--" + name.replace("_", separator), *short, dest=name, **options)
    add("model", "-m", required=True, type=input_path)
    add("input", "-i", type=input_path)
    add("output", "-o", type=output_path)
    add("output_dirname")
    add("outfmt", default="BIN", choices=["NPY", "BIN", "TXT"])
    add("loop", "-l", type=int, default=1)
    add("debug", **switch)
    add("device", "-d", type=devices_of, default=[0])
    add("batchsize", type=int)
    add("pure_data_type", default="zero", choices=["zero", "random"])
    add("display_all_summary", **switch)
    add("warmup_count", type=int, default=1)
    if NEWER:
        add("divide_input", **switch)
    args = parser.parse_args()
    if args.output is None and args.output_dirname is not None:
        raise RuntimeError("error bad parameters --output_dirname")
    return args


def natural_order(paths):
    paths = sorted(paths)
    return sorted(paths, key=lambda path: [int(part) if part.isdigit() else part.lower() for part in re.split("([0-9]+)", path)])


def files_of(text):
    if not os.path.isdir(text):
        files = text.split(",")
        if not all(os.path.isfile(path) for path in files):
            raise RuntimeError("input %r is no file or folder" % text)
        return files
    files = [os.path.join(text, name) for name in os.listdir(text) if name.lower().endswith((".bin", ".npy"))]
    if not files:
        raise RuntimeError("no .bin or .npy in %s" % text)
    return natural_order(files)


def save(path, row):
    if path.endswith(".npy"):
        np.save(path, row)
    elif path.endswith(".bin"):
        row.tofile(path)
    else:
        with open(path, "w") as file:
            for values in row.reshape(-1, row.shape[-1]):
                file.write("".join("%f " % value for value in values) + "\n")


def statistics(times):
    figures = {"min": min(times), "max": max(times), "mean": float(np.mean(times)), "median": float(np.median(times)),
               "count": len(times)}
    figures["P99" if NEWER else "percentile(99%)"] = float(np.percentile(times, 99))
    return figures


def infer(args, device, files, prefix):
    """One device's run: its results under prefix, its summary beside it."""
    if args.input and not files:  # the 0.0.2 divides 9 files among 4 devices as 3, 3, 3 and none, and the last fails
        raise RuntimeError("no input for device %d" % device)
    options = aclruntime.session_options()
    options.loop = args.loop
    session = aclruntime.InferenceSession(args.model, device, options)
    session.set_staticbatch()
    (described,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    size = described.shape[0]
    if prefix and not os.path.exists(prefix):
        os.makedirs(prefix, 0o750 if NEWER else 0o755)
    if ("infer:%d" % size in FAIL and files) or ("perf:%d" % size in FAIL and not files):
        raise RuntimeError("[-1][ACL: execute failed]")
    batches = [["pure_infer_data"]]
    if files:
        count, rest = divmod(described.realsize, os.path.getsize(files[0]))
        if rest:
            raise RuntimeError("size of %s does not divide %d" % (files[0], described.realsize))
        batches = [files[first:first + count] for first in range(0, len(files), count)]
    infos, sample = {}, 0
    for number, batch in enumerate(batches):
        if number == len(batches) // 2 and files:
            if "hang:%d" % size in FAIL:
                os.kill(os.getpid(), signal.SIGKILL)
            if "missing:%d" % size in FAIL:
                sys.exit(0)
        if files:
            padded = batch + batch[:1] * (count - len(batch))
            data = np.concatenate([np.fromfile(path, np.int8) for path in padded])
        else:
            data = np.zeros(described.realsize, np.int8)
        tensor = aclruntime.BaseTensor(data.__array_interface__["data"][0], data.nbytes)
        (output,) = session.run(names, [tensor])
        output.to_host()
        rows = np.array_split(np.array(output), count if files else 1)
        for path, row in zip(batch, rows):
            if prefix:
                target = os.path.join(prefix, "%s_0.%s" % (os.path.basename(path).split(".")[0], args.outfmt.lower()))
                save(target, row)
                infos[sample] = {"infiles": [path], "outfiles": [target]}
            sample += 1
    times = session.sumary().exec_time_list
    summary = {"filesinfo": infos, "NPU_compute_time": statistics(times), "H2D_latency": statistics([0.1]),
               "D2H_latency": statistics([0.1]), "throughput": 1000 * (args.batchsize or size) / np.mean(times),
               "npu_compute_time_list": times, "args": sys.argv, "pid": os.getpid()}
    print("[INFO] throughput 1000*batchsize/NPU_compute_time.mean: %f" % summary["throughput"])
    if prefix:
        with open(prefix + "_summary.json", "w") as file:
            json.dump(summary, file)


def main():
    args = parse_args()
    files = files_of(args.input) if args.input else []
    prefix = os.path.join(args.output, args.output_dirname) if args.output else None
    if len(args.device) == 1:
        infer(args, args.device[0], files, prefix)
        return 0
    processes, parts = [], [files] * len(args.device)
    if files and (not NEWER or args.divide_input):
        share = -(-len(files) // len(args.device))
        parts = [files[place * share:(place + 1) * share] for place in range(len(args.device))]
    for place, device in enumerate(args.device):
        name = "device%d_%d" % (device, place) if NEWER else "device%d" % device
        context = get_context("fork")
        process = context.Process(target=infer, args=(args, device, parts[place], os.path.join(prefix, name) if prefix else None))
        process.start()
        processes.append(process)
    for process in processes:
        process.join()
    swallowed = any("device0:%d" % device in FAIL for device in args.device)
    return 0 if swallowed else max(abs(process.exitcode) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
