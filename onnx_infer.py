#!/usr/bin/env python3
"""Run an ONNX model with ONNX Runtime, with ais_bench's options and result files (the guide's stage "inference").

    python3 onnx_infer.py --model resnet34.onnx --input prep_dataset --output ./ --output_dirname result --outfmt TXT
    python3 onnx_infer.py --model=resnet34.onnx --loop=20 --batchsize=8

With --input: every .bin/.npy of the folder, in natural order of the names, grouped into batches; the first output of
NAME.bin goes to OUTPUT/DIRNAME/NAME_0.txt (.bin, .npy). Without: pure inference on zeros. The summary, with times in
milliseconds, is OUTPUT/DIRNAME_summary.json. Results appear together when all are computed, or not at all.
Exit code 0: done; 1: nothing was written; 2: wrong usage.
"""
import argparse
import collections
import concurrent.futures
import fcntl
import itertools
import json
import os
import platform
import re
import shutil
import sys
import time

import numpy as np
from tqdm import tqdm

DTYPES = {"tensor(float)": "<f4", "tensor(float16)": "<f2", "tensor(double)": "<f8", "tensor(uint8)": "u1", "tensor(int8)": "i1"}
RESULT_NAME = re.compile(r".+_\d+\.(txt|bin|npy)$")
AHEAD = 2  # batches read ahead of the computation, and batches of results waiting to be written: bounds the memory


def fail(message):
    sys.exit("error: " + " ".join(str(message).splitlines()))


def open_model(path, batchsize, threads):
    """The session, its input (name, dtype, shape with the batch size filled in); exits for models it cannot feed."""
    import onnxruntime  # here, so that --help and a wrong option answer at once
    if not os.path.isfile(path):
        fail("%s: no such model file" % path)
    if path.endswith(".om"):
        fail("%s: an .om runs on an NPU alone, with python3 -m ais_bench; here give the .onnx it was made from" % path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        fail("%s: ONNX Runtime %s cannot load it: %s" % (path, onnxruntime.__version__, error))
    inputs = session.get_inputs()
    if len(inputs) != 1:
        fail("%s: has %d inputs; models with one input can be run" % (path, len(inputs)))
    name, shape = inputs[0].name, list(inputs[0].shape)
    if inputs[0].type not in DTYPES:
        fail("%s: its input %s is a %s; known are %s" % (path, name, inputs[0].type, " ".join(DTYPES)))
    if not shape or not all(isinstance(side, int) for side in shape[1:]):
        fail("%s: its input %s has shape %s; only the batch may be open" % (path, name, shape))
    if not isinstance(shape[0], int):
        shape[0] = batchsize or 1
    elif batchsize not in (None, shape[0]):
        fail("%s: is made for batch size %d, --batchsize says %d" % (path, shape[0], batchsize))
    return session, name, np.dtype(DTYPES[inputs[0].type]), tuple(shape)


def natural(name):
    """Sort key: runs of digits count as numbers, letters without case, as ais_bench sorts."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def find_inputs(text):
    """Files of --input: the .bin/.npy files of one folder, or one file, or several separated by commas."""
    if os.path.isdir(text):
        names = sorted(name for name in os.listdir(text) if name.lower().endswith((".bin", ".npy")))
        if not names:
            fail("%s: no .bin or .npy files in it" % text)
        return [os.path.join(text, name) for name in sorted(names, key=natural)]
    files = [text] if os.path.exists(text) else text.split(",")
    for path in files:
        if not os.path.isfile(path):
            fail("%s: no such input file or folder" % path)
    return files


def check_inputs(files, dtype, shape):
    """Number of files a batch; exits with the name of the first file that cannot be fed, or whose result would collide."""
    sample = int(np.prod(shape[1:])) * dtype.itemsize
    results, first = {}, None
    for path in files:
        try:
            if path.lower().endswith(".npy"):
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                if array.dtype != dtype:
                    fail("%s: holds %s values, the model takes %s" % (path, array.dtype, dtype))
                size = array.nbytes
            else:
                size = os.stat(path).st_size
        except (OSError, ValueError, EOFError) as error:
            fail("%s: cannot be read: %s" % (path, error))
        if size == 0 or size % sample or (sample * shape[0]) % size:
            fail("%s: holds %d bytes; one sample of the model's input %s is %d and a batch %d: made for another model, or "
                 "truncated" % (path, size, "x".join(map(str, shape[1:])), sample, sample * shape[0]))
        first = first or (size, path)
        if size != first[0]:
            fail("%s: holds %d bytes but %s holds %d; all inputs must be of one size" % (path, size, first[1], first[0]))
        name = os.path.basename(path).split(".")[0]
        if name in results:
            fail("%s and %s would both give the result %s_0; rename one" % (results[name], path, name))
        results[name] = path
    return sample * shape[0] // first[0]


def read_batch(group, files_a_batch, dtype, shape):
    """One batch as an array of the model's shape; a last short group is padded with its first file, as ais_bench pads."""
    batch = np.empty(shape, dtype)
    flat = batch.reshape(files_a_batch, -1)
    for row, path in zip(flat, group):
        if path.lower().endswith(".npy"):
            row[:] = np.load(path, allow_pickle=False).reshape(-1)
        else:
            with open(path, "rb") as file:
                if file.readinto(row.view(np.uint8)) != row.nbytes:
                    raise OSError("%s: became shorter while this ran" % path)
    flat[len(group):] = flat[0]
    return batch


def write_results(folder, group, outputs, files_a_batch, outfmt):
    """NAME_0.txt (.bin, .npy) for each file of the group, NAME_1 for a second output; returns the paths per file."""
    written = []
    for row, path in enumerate(group):
        name = os.path.basename(path).split(".")[0]
        written.append([])
        for number, output in enumerate(outputs):
            samples = len(output) // files_a_batch
            values = output[row * samples:(row + 1) * samples]
            target = os.path.join(folder, "%s_%d.%s" % (name, number, outfmt.lower()))
            if outfmt == "TXT":
                line = "%f " * values.shape[-1] + "\n"
                with open(target, "w", encoding="ascii") as file:
                    file.writelines(line % tuple(values_row) for values_row in values.reshape(-1, values.shape[-1]).tolist())
            elif outfmt == "NPY":
                np.save(target, values)
            else:
                values.tofile(target)
            written[-1].append(target)
    return written


def compute(session, feed, loop, times):
    """Outputs for one batch, floating ones as little-endian float32; the milliseconds of each of the loop runs go to times."""
    for _ in range(loop):
        start = time.perf_counter()
        outputs = session.run(None, feed)
        times.append((time.perf_counter() - start) * 1000)
    return [output.astype("<f4") if output.dtype.kind == "f" else output for output in outputs]


def infer(session, name, dtype, shape, groups, files_a_batch, args, folder):
    """All groups through the session, reading ahead and writing behind it; returns (times, {sample: in- and outfiles})."""
    times, files_info, waiting = [], {}, iter(groups)
    first = read_batch(groups[0], files_a_batch, dtype, shape)
    for _ in range(args.warmup_count):
        session.run(None, {name: first})
    with concurrent.futures.ThreadPoolExecutor(1) as reader, concurrent.futures.ThreadPoolExecutor(1) as writer, \
            tqdm(total=sum(map(len, groups)), unit="file", desc="infer", disable=None) as bar:
        reads, writes, index = collections.deque(), collections.deque(), 0
        for group in itertools.islice(waiting, AHEAD):
            reads.append((group, reader.submit(read_batch, group, files_a_batch, dtype, shape)))
        while reads or writes:
            if reads:
                group, batch = reads.popleft()
                batch = batch.result()
                for following in itertools.islice(waiting, 1):
                    reads.append((following, reader.submit(read_batch, following, files_a_batch, dtype, shape)))
                outputs = compute(session, {name: batch}, args.loop, times)
                if folder:
                    writes.append((group, writer.submit(write_results, folder, group, outputs, files_a_batch, args.outfmt)))
                bar.update(len(group))
            while len(writes) > AHEAD or (writes and not reads):
                group, written = writes.popleft()
                for place, (path, targets) in enumerate(zip(group, written.result())):
                    files_info[str(index + place)] = {"infiles": [path], "outfiles": targets}
                index += files_a_batch
    return times, files_info


def pure_inference(session, name, dtype, shape, args, folder):
    """--loop runs on zeros, or on random bytes as ais_bench's --pure_data_type random feeds; returns as infer does."""
    batch = np.zeros(shape, dtype)
    if args.pure_data_type == "random":
        # Random bytes are often NaN as floats, which are slow on some CPUs; random values in their place.
        batch = np.random.RandomState(0).randint(0, 256, shape).astype(dtype)
    for _ in range(args.warmup_count):
        session.run(None, {name: batch})
    times = []
    with tqdm(total=args.loop, unit="run", desc="pure inference", disable=None) as bar:
        for _ in range(args.loop):
            outputs = compute(session, {name: batch}, 1, times)
            bar.update(1)
    written = write_results(folder, ["pure_infer_data"], outputs, 1, args.outfmt) if folder else [[]]
    return times, {"0": {"infiles": ["pure_infer_data"], "outfiles": written[0]}}


def statistics(milliseconds):
    """Keys as ais_bench 0.0.2 writes them; zeros for an empty list, as there."""
    if not milliseconds:
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "median": 0.0, "percentile(99%)": 0.0, "count": 0}
    return {"min": min(milliseconds), "max": max(milliseconds), "mean": float(np.mean(milliseconds)),
            "median": float(np.median(milliseconds)), "percentile(99%)": float(np.percentile(milliseconds, 99)),
            "count": len(milliseconds)}


def cpu_name():
    """The CPU's name as the kernel gives it; aarch64 kernels give none, then the architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith(("model name", "hardware")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def summarise(times, files_info, batch, threads):
    import onnxruntime
    compute_time = statistics(times)
    # The CPU computes where the data lies: there are no copies to a device and back, so their lists stay empty.
    return {"filesinfo": files_info, "NPU_compute_time": compute_time, "H2D_latency": statistics([]),
            "D2H_latency": statistics([]), "throughput": 1000 * batch / compute_time["mean"],
            "npu_compute_time_list": times, "args": sys.argv, "pid": os.getpid(),
            "engine": "onnxruntime %s CPUExecutionProvider" % onnxruntime.__version__,
            "cpu": cpu_name(), "threads": threads, "batchsize": batch}


def lock_partial(output, dirname):
    """An empty folder beside the final one, held by this process: a killed run's is taken over, a living one's is not."""
    partial = os.path.join(output, os.path.dirname(dirname), ".%s.partial" % os.path.basename(dirname))
    os.makedirs(partial, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail("%s: another onnx_infer.py is writing there; wait for it or choose another --output_dirname"
             % os.path.join(output, dirname))
    for name in os.listdir(partial):
        os.unlink(os.path.join(partial, name))
    return partial


def publish(partial, final, summary):
    """Put the whole results in their place, then the summary: where the summary is, the results are whole and its own."""
    summary_path = final + "_summary.json"
    if os.path.exists(summary_path):
        os.unlink(summary_path)
    old = partial + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.isdir(final):
        os.rename(final, old)
    os.rename(partial, final)
    shutil.rmtree(old, ignore_errors=True)
    temporary = "%s.%d.tmp" % (summary_path, os.getpid())
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(summary, file)
    os.replace(temporary, summary_path)


def parse_args():
    def positive(text):
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError("%r is not a positive whole number" % text)
        return int(text)

    def count(text):
        if not text.isdigit():
            raise argparse.ArgumentTypeError("%r is not a whole number" % text)
        return int(text)

    def boolean(text):
        if text.lower() not in ("1", "true", "yes", "y", "t", "0", "false", "no", "n", "f"):
            raise argparse.ArgumentTypeError("%r is neither true nor false" % text)
        return text.lower() in ("1", "true", "yes", "y", "t")

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description="ais_bench's options and result files, on ONNX Runtime.", allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", metavar="ONNX", required=True, help="the ONNX model")
    add("-i", "--input", metavar="PATH", help="folder of .bin/.npy files, or files separated by commas; none: pure inference")
    add("-o", "--output", metavar="DIR", help="folder for the results; none: times only")
    add("--output_dirname", "--output-dirname", metavar="NAME", help="folder in DIR (default: date and time)")
    add("--outfmt", choices=["TXT", "BIN", "NPY"], default="BIN", help="format of the results (default: %(default)s)")
    add("-l", "--loop", metavar="N", type=positive, default=1, help="runs of each batch (default: %(default)s)")
    add("--batchsize", metavar="N", type=positive, help="batch size of a model whose batch is open (default: 1)")
    add("--warmup_count", "--warmup-count", metavar="N", type=count, default=1,
        help="runs before the timed ones (default: %(default)s)")
    add("--pure_data_type", "--pure-data-type", choices=["zero", "random"], default="zero", help="what pure inference feeds")
    add("--display_all_summary", "--display-all-summary", metavar="1", type=boolean, nargs="?", const=True, default=False,
        help="print the copies' times too (zero on a CPU)")
    add("--threads", metavar="N", type=positive, default=cpus,
        help="threads of ONNX Runtime (default: the CPUs this process may use, here %(default)s)")
    add("--limit", metavar="N", type=positive, help="only the first N files")
    args = parser.parse_args()
    if args.output is None and args.output_dirname is not None:
        parser.error("--output_dirname goes with --output")
    dirname = os.path.normpath(args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S"))
    if args.output_dirname is not None and (not args.output_dirname or dirname.split(os.sep)[-1] in (".", "..", "")):
        parser.error("--output_dirname %r names no folder inside --output" % args.output_dirname)
    args.output_dirname = dirname
    return args


def check_output(args):
    """The folder of the results; refuses to replace a folder that holds anything else than results."""
    final = os.path.join(args.output, args.output_dirname)
    if os.path.isdir(final):
        others = [name for name in sorted(os.listdir(final)) if not RESULT_NAME.match(name)]
        if others:
            fail("%s: holds files that are no results (first: %s) and would be replaced; choose another --output_dirname"
                 % (final, others[0]))
        if args.input and os.path.realpath(args.input) == os.path.realpath(final):
            fail("%s: is the folder of the inputs; choose another --output_dirname" % final)
    elif os.path.lexists(final):
        fail("%s: is a file; choose another --output_dirname" % final)
    return final


def run(args):
    session, name, dtype, shape = open_model(args.model, args.batchsize, args.threads)
    final = check_output(args) if args.output else None
    if args.input:
        files = find_inputs(args.input)[:args.limit]
        files_a_batch = check_inputs(files, dtype, shape)
        groups = [files[first:first + files_a_batch] for first in range(0, len(files), files_a_batch)]
    partial = lock_partial(args.output, args.output_dirname) if args.output else None
    try:
        if args.input:
            times, files_info = infer(session, name, dtype, shape, groups, files_a_batch, args, partial)
        else:
            times, files_info = pure_inference(session, name, dtype, shape, args, partial)
        for info in files_info.values():
            info["outfiles"] = [os.path.join(final, os.path.basename(path)) for path in info["outfiles"]]
        summary = summarise(times, files_info, shape[0], args.threads)
        if args.output:
            publish(partial, final, summary)
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
    print("engine: %s on %s, %d threads" % (summary["engine"], summary["cpu"], summary["threads"]))
    shown = ["NPU_compute_time"] + (["H2D_latency", "D2H_latency"] if args.display_all_summary else [])
    for key in shown:
        label = "compute time" if key == "NPU_compute_time" else key
        print("%s (ms): " % label + ", ".join("%s %.3f" % pair for pair in summary[key].items() if pair[0] != "count"))
    print("throughput: %.2f images/s (batch size %d, %d runs)" % (summary["throughput"], shape[0], len(times)))
    if args.output:
        print("results: %s" % final)


def main():
    args = parse_args()
    try:
        run(args)
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror) if error.filename else error)
    except KeyboardInterrupt:
        print("interrupted; no results were written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
