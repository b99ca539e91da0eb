#!/usr/bin/env python3
"""Compare inference results with labels for Top-1 ... Top-5 (the guide's stage "accuracy").

    python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json

RESULT holds NAME_0.txt (one line of scores), NAME_0.bin (float32) or NAME_0.npy an image, in itself, in device*/ folders or
in shardK_of_N/ folders, as ais_bench, npu_infer.py and onnx_infer.py write them; where a summary lies in or beside them, they
must be exactly what it lists. LABELS has a line "FILE CLASS" an image, classes counted from 0.
Exit codes: 0 every result was judged; 1 something is wrong with a file, which is named; 2 wrong usage; 3 the accuracy is below
--min-top1 or --min-top5 (the JSON is written); 130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import signal
import sys

if __name__ == "__main__":  # before numpy, during whose import a Ctrl-C would be a traceback
    def stopped(number, frame):
        """Ctrl-C, or the SIGTERM of a scheduler."""
        signal.signal(number, signal.SIG_IGN)
        try:
            os.write(2, b"stopped; nothing was written, run the same line again\n")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
        except OSError:
            pass
        sys.exit(128 + number)

    for fd in range(3):  # closed ones: no data file may become standard output
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) is not signal.SIG_IGN:  # nohup and `&` in scripts ignore Ctrl-C on purpose
            signal.signal(one, stopped)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8

import argparse
import ast
import collections
import csv
import fcntl
import glob
import hashlib
import importlib.util
import io
import json
import math
import mmap
import multiprocessing
import re
import stat
import warnings
from multiprocessing import connection

import numpy as np
from tqdm import tqdm

TOP = 5
TITLE = "Overall statistical evaluation"  # of the ModelZoo's JSON, which other tools read
NORMAL_975 = 1.959964  # 97.5 % quantile of the normal distribution, for two-sided 95 % intervals
MLPERF = 0.99  # part of the float model's Top-1 that MLPerf Inference asks of a quantised one
WORST, MISTAKES = 10, 12  # worst classes and wrongly judged images in the JSON
FEW_CLASSES = 50  # below that a Top-5 says little: its chance level is told
HUGE = 1e15  # no network scores so high; float64 read as pairs of float32 does
NO_FLOAT32 = ", as float64 values do where they are read as float32; have the inference write float32"
LARGEST_RESULT, LARGEST_TEXT = 2 ** 26, 2 ** 29  # bytes: a row of scores; labels and summaries
NOT_YET, BAR_EVERY = -1, 0.2  # rank of an image that is not judged yet; seconds between two looks at how many are
STOPS = {signal.SIGINT, signal.SIGTERM}
SHARD = re.compile(r"shard([1-9][0-9]{0,5})_of_([1-9][0-9]{0,5})")
# What is taken from a summary, and its type in JSON.
KINDS = {"engine": str, "device": str, "precision": str, "batch_size": int, "probabilities": bool, "model": dict, "input": dict,
         "outputs": list, "packages": dict, "filesinfo": dict}
# A folder opened once: results are read through fd, so that none of another folder put in its place is judged.
# results: [(image name, file name)]; shard: [K, N] or None; facts: of its summary, see read_facts.
Part = collections.namedtuple("Part", "path fd identity results shard facts summary_path summary_sha256")
# files: {image name: (Part, file name)}; dtype: None unless a summary says it; shift: 1 before a background class
Results = collections.namedtuple("Results", "folder parts files facts dtype classes shift probabilities")


class Wrong(Exception):
    """What ends the evaluation; its text is the sentence for the user."""


def fail(message):
    raise Wrong(message)


def read_file(path, dir_fd=None, shown=None, most=LARGEST_TEXT):
    """The bytes of a regular file. A FIFO would hang, and open() takes twice as long as this (benchmarks/README.md)."""
    shown = shown or path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_size > most:
                fail("%s: is no regular file of at most %d bytes" % (shown, most))
            return b"".join(iter(lambda: os.read(fd, state.st_size + 1), b""))  # network file systems may give less at a time
        finally:
            os.close(fd)
    except OSError as error:
        fail("%s: %s" % (shown, error.strerror))


def sha256_of(data):
    return hashlib.sha256(data).hexdigest()


def lines_of(data):
    """The lines of a text without the spaces around them."""
    return [line.strip() for line in data.decode("utf-8-sig", "surrogateescape").split("\n")]


def image_name(path):
    """The part of a file's name before its first dot: what ais_bench names a result by."""
    return path.rpartition("/")[2].partition(".")[0]


def read_labels(path):
    """({image name: class}, SHA-256) of lines "FILE CLASS"; FILE may have folders before it and spaces in it."""
    if os.path.isdir(path):
        fail("%s: is a folder; LABELS is a text file of lines \"FILE CLASS\", which tools/make_val_label.py makes" % path)
    labels, data = {}, read_file(path)
    for number, line in enumerate(lines_of(data), 1):
        if not line:
            continue
        file, label = ([""] + line.rsplit(None, 1))[-2:]
        words, extension = file.split(), file.rpartition("/")[2].partition(".")[2]
        more = len(extension.split()) > 1 or (len(words) > 1 and re.fullmatch("[-+.0-9]+", words[-1]))  # two classes?
        if not file or more or not re.fullmatch("[0-9]{1,9}", label):
            fail("%s: line %d is not \"FILE CLASS\" but %r; CLASS is a number counted from 0 (tools/make_val_label.py makes such "
                 "a file of class folders)" % (path, number, line[:80]))
        if image_name(file) in labels:
            fail("%s: line %d labels %s a second time" % (path, number, image_name(file)))
        labels[image_name(file)] = int(label)
    if not labels:
        fail("%s: holds no labels" % path)
    return labels, sha256_of(data)


def read_exclude(path):
    """The names that --exclude leaves out, and the SHA-256 of the file and of its names: a calibration may give either."""
    data = read_file(path)
    names = [image_name(line) for line in lines_of(data) if line]
    if not names:
        fail("%s: holds no image names" % path)
    return set(names), [sha256_of(data), sha256_of("\n".join(names).encode("utf-8", "surrogateescape"))]


def read_names(path, classes):
    """Names of the classes: a file's, one a line; without a file torchvision's where they are as many, else the numbers."""
    if path:
        names = [" ".join(line.split()) for line in lines_of(read_file(path).rstrip())]
        if len(names) != classes or "" in names:
            fail("%s: has %d lines, %d of them empty, the results have %d classes; it needs one name a line"
                 % (path, len(names), names.count(""), classes))
        return names
    try:  # read, not imported: torchvision would import torch
        found = importlib.util.find_spec("torchvision")
        tree = ast.parse(read_file(os.path.join(os.path.dirname(found.origin), "models", "_meta.py")))
        names = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                     and node.targets[0].id == "_IMAGENET_CATEGORIES")
    except Exception:  # a torchvision without the list, or without the file, or none
        names = []
    return names if len(names) == classes else [str(number) for number in range(classes)]


def read_facts(data, path):
    """What a summary (bytes; None: there is none) says under KINDS, each of its type or None, and "listed": the names of its
    result files, "dtype", "classes", and "run": what is the same in all parts of one run's results."""
    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError("%s is no finite number" % text[:20])
        return float(text)

    try:
        summary = {} if data is None else json.loads(data.decode("utf-8"), parse_constant=finite, parse_float=finite)
        facts = dict({key: summary.get(key) for key in KINDS}, listed=None, dtype=None, classes=None)
        wrong = [key for key, kind in KINDS.items() if not isinstance(facts[key], (kind, type(None)))]
        model, given = facts["model"] or {}, facts["input"] or {}
        if wrong or not isinstance(given.get("recipe") or {}, dict):
            raise ValueError(", ".join(wrong) or "recipe")
        if "schema" in summary:  # not by ais_bench alone
            facts["dtype"], [facts["classes"]] = facts["outputs"][0]["dtype"], facts["outputs"][0]["shape"]
            if summary["schema"] != 1 or not facts["engine"] or facts["filesinfo"] is None or (
                    type(facts["classes"]) is not int or facts["classes"] < 2
                    or facts["dtype"] not in ("float16", "float32", "float64")):
                raise ValueError("schema, engine, filesinfo or outputs")
        if facts["filesinfo"] is not None:
            facts["listed"] = {file.rpartition("/")[2] for info in facts["filesinfo"].values() for file in info["outfiles"]}
            for info in facts["filesinfo"].values():
                if not info["outfiles"]:
                    raise ValueError("it has no result for %s" % info["infiles"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        fail("%s: is no summary of an inference (%s); run the inference again" % (path, error))
    facts["engine"] = facts["engine"] or ("not recorded" if data is None else "ais_bench (version not recorded)")
    facts["run"] = {key: facts[key] for key in ("engine", "precision", "batch_size", "probabilities", "packages", "outputs")}
    facts["run"].update({"model's sha256": model.get("sha256"), "model's onnx_sha256": model.get("onnx_sha256"),
                         "input's recipe": given.get("recipe"), "image sets (set_sha256)": given.get("set_sha256"),
                         "folders of images": given.get("source")})
    return facts


def find_summary(path, names, fd):
    """(bytes, path) of the summary in a folder or beside it, or (None, None)."""
    beside = (os.path.abspath(path) if os.path.basename(path) in ("", ".", "..") else path) + "_summary.json"
    for name in (".summary.json", "sumary.json"):  # the second is of very old ais_bench
        inner = os.path.join(path, name)
        if name in names:
            data = read_file(name, fd, inner)
            if os.path.lexists(beside) and read_file(beside) != data:
                fail("%s and %s are of different runs, the results of either; run the inference again" % (inner, beside))
            return data, inner
    return (read_file(beside), beside) if os.path.lexists(beside) else (None, None)


def identity(state):
    return state.st_dev, state.st_ino, state.st_mtime_ns


def open_parts(path, shard=None):
    """A folder and, within it, its device*/ and shardK_of_N/ folders, as Parts; each holds exactly what its summary lists."""
    path = os.path.normpath(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened, names = identity(os.fstat(fd)), sorted(os.listdir(fd))
    except OSError as error:
        fail("%s: %s" % (path, error.strerror))
    data, summary_path = find_summary(path, names, fd)
    facts = read_facts(data, summary_path)
    files = [name for name in names if name[0] != "." and name.rpartition(".")[2] in ("txt", "bin", "npy")]
    listed = set(files) if facts["listed"] is None else facts["listed"]
    for name in sorted(listed ^ set(files))[:1]:
        fail("%s: %s %s; run the inference again" % (os.path.join(path, name), "is missing, it is listed in" if name in listed
                                                     else "is of another run, it is not listed in", summary_path))
    results = []
    for file in files:
        name, _, output = file.rpartition(".")[0].rpartition("_")
        if not name or not re.fullmatch("0|[1-9][0-9]*", output):
            fail("%s: is not named like a result, NAME_0.%s" % (os.path.join(path, file), file.rpartition(".")[2]))
        if output == "0":  # the others are of a model's further outputs
            results.append((name, file))
    parts = [Part(path, fd, opened, results, shard, facts, summary_path, data and sha256_of(data))]
    for name in names:
        match = SHARD.fullmatch(name)
        if (match or name.startswith("device")) and os.path.isdir(os.path.join(path, name)):
            parts += open_parts(os.path.join(path, name), [int(text) for text in match.groups()] if match else shard)
        elif re.fullmatch("device.*_summary.json", name) and name[:-len("_summary.json")] not in names:
            fail("%s: its results are missing; run the inference again" % os.path.join(path, name))
    return parts


def find_results(folder):
    """The Results in a folder, in its device*/ folders or in its shards, all of one run's making."""
    parts = open_parts(folder)
    used = [part for part in parts if part.results or part.summary_path]
    require_whole_shards(folder, [part.shard for part in used])
    files, first = {}, None
    for part in used:
        for key, value in used[0].facts["run"].items():
            if part.facts["run"][key] != value:
                fail("%s and %s: are of different %s (%s, %s); judge results of one run only, each ended"
                     % (used[0].path, part.path, key, str(value)[:90], str(part.facts["run"][key])[:90]))
        said = (part.facts["input"] or {}).get("shard")
        if part.shard and said not in (None, part.shard):
            fail("%s: is of shard %s by its summary" % (part.path, said))
        for name, file in part.results:
            first = first or file
            if name in files:
                fail("%s/%s and %s/%s are results of the same image; remove the stale one"
                     % (files[name][0].path, files[name][1], part.path, file))
            if file[-3:] != first[-3:]:
                fail("%s/%s: is no .%s as %s, so of another run; remove the stale ones" % (part.path, file, first[-3:], first))
            files[name] = part, file
    if not files:
        fail("%s: holds no results (looked for NAME_0.txt, .bin and .npy there, in device*/ and shardK_of_N/)" % folder)
    return describe(folder, parts, used, files)


def require_whole_shards(folder, shards):
    """Fails unless the shards [K, N] of the parts with results are all K of one N, or all None."""
    totals = sorted({shard[1] for shard in shards if shard})
    if totals and None in shards:
        fail("%s: holds shards and other results beside them; remove the stale ones" % folder)
    if len(totals) > 1:
        fail("%s: holds shards of %d and of %d; remove those of the other run" % (folder, totals[0], totals[1]))
    for total in totals:
        for number in sorted(set(range(1, total + 1)) ^ {shard[0] for shard in shards})[:1]:
            fail("%s: shard %d of %d is %s" % (folder, number, total, "missing; run it, then this again" if number <= total
                                               else "one too many; remove it"))


def describe(folder, parts, used, files):
    """Results with what their summaries say of them."""
    of_run, inputs = used[0].facts, [part.facts["input"] for part in used]
    facts = {key: of_run[key] for key in ("engine", "device", "precision", "batch_size", "model", "input")}
    hashes = [part.summary_sha256 for part in used]
    facts.update(shards=used[0].shard and used[0].shard[1], summary_sha256=hashes if len(hashes) > 1 and hashes[0] else hashes[0])
    if of_run["dtype"] is None:
        return Results(folder, parts, files, facts, None, None, 0, None)
    if not all(inputs):
        fail("%s: is of pure inference, on zeros; there is nothing to judge" % folder)
    if len(used) > 1:
        paths = {os.path.dirname(str(one.get("path"))) for one in inputs}
        facts["device"] = "; ".join(sorted({part.facts["device"] or "not recorded" for part in used}))
        facts["input"] = dict(inputs[0], path=paths.pop() if len(paths) == 1 else None, images=len(files), shard=None,
                              manifest_sha256=None, manifests_sha256=[one.get("manifest_sha256") for one in inputs])
    dtype = np.dtype(of_run["dtype"]).newbyteorder("<").str
    return Results(folder, parts, files, facts, dtype, of_run["classes"], 0, bool(of_run["probabilities"]))


def path_of(results, name):
    part, file = results.files[name]
    return part.path + "/" + file


def scores_of(results, name):
    part, file = results.files[name]
    return read_scores(file, part.fd, part.path + "/" + file, results.dtype)


def read_scores(file, dir_fd=None, path=None, dtype=None):
    """The scores of one result as a 1-d array; of a .txt of %f values as int64 millionths, which rank alike.

    dtype: what a summary says of a .bin or .npy; without it a .bin is taken for float32 and its values are doubted."""
    path = path or file
    data = read_file(file, dir_fd, path, LARGEST_RESULT)
    if not data:
        fail("%s: is empty: its writing did not end, or the disk was full; run the inference again" % path)
    doubted = file.endswith(".bin") and not dtype
    try:
        if file.endswith(".txt"):
            scores = parse_text(data)
        else:
            scores = parse_npy(data, dtype) if file.endswith(".npy") else np.frombuffer(data, dtype or "<f4")
        if not scores.size:
            raise ValueError("nothing that is a number")
    except Exception as error:  # numpy's reader of headers lets ast's and tokenize's through
        fail("%s: holds no row of %s scores: %s" % (path, np.dtype(dtype or "<f4").name, error))
    largest = HUGE if doubted else np.inf
    if scores.dtype.kind == "f" and not (scores.min() > -largest and scores.max() < largest):  # NaN compares false, too
        fail("%s: holds NaN or infinite scores%s" % (path, ", or huge ones" + NO_FLOAT32 if doubted else ""))
    return scores


def parse_npy(data, dtype):
    """The row of an .npy file; its header may claim anything, and is believed as far as there are bytes."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = reader(file)
    bytes_left = len(data) - file.tell()
    if kind.kind != "f" or not shape or set(shape[:-1]) - {1} or shape[-1] * kind.itemsize != bytes_left:
        raise ValueError("%s of shape %s by its header, with %d bytes after it" % (kind, shape, bytes_left))
    if dtype and kind.newbyteorder("<").str != dtype:
        raise ValueError("%s by its header, %s by its summary" % (kind, np.dtype(dtype)))
    return np.frombuffer(data, kind, offset=file.tell())


def parse_text(data):
    """One line of numbers. All in %f, as ais_bench writes them: without its dots the line is of whole millionths,
    which is read three times as fast as floats (benchmarks/README.md)."""
    if b"\n" in data.strip():
        raise ValueError("more than one line")
    characters = np.frombuffer(data, np.uint8)
    dots = np.flatnonzero(characters == ord("."))
    if dots.size and dots[-1] + 7 < characters.size:
        six_decimals = (characters[dots + 7] <= ord(" ")).all()
        fits_int64 = dots.size == 1 or np.diff(dots).max() <= 18
        if six_decimals and fits_int64 and dots[0] <= 11 and not data.translate(None, b"0123456789-. \r\n"):
            scores = np.fromstring(data.replace(b".", b""), np.int64, sep=" ")
            if scores.size == dots.size == data.count(b" ", 0, len(data.rstrip())) + 1:
                return scores
    return np.array([float(number) for number in data.split()])


def rank_of(label, scores):
    """How many classes are ranked before the label: higher scores, and equal scores of lower index."""
    score = scores[label]
    return np.count_nonzero(scores > score) + np.count_nonzero(scores[:label] == score)


def as_floats(scores):
    """Scores as read_scores gives them, in float64 and in the file's own unit."""
    return scores / 1e6 if scores.dtype.kind == "i" else scores.astype(np.float64)


def are_probabilities(scores):
    """The end of a softmax: within 0 to 1, and together 1 but for rounding."""
    scores = as_floats(scores)
    return bool(scores.min() >= 0 and scores.max() <= 1 and abs(scores.sum() - 1) <= 1e-3)


def confidence_of(scores):
    """The largest probability of the softmax, of scores as read_scores gives them."""
    below = scores - scores.max()
    return 1 / float(np.exp(below * 1e-6 if scores.dtype.kind == "i" else below).sum())


def prepare(results, labels, labels_path):
    """Results whose number of classes is settled: the summary's, or what most of some results spread over all of them have."""
    names = list(results.files)
    some = [scores_of(results, name) for name in names[::max(1, len(names) // 8)]]
    path, largest = path_of(results, names[0]), max(labels, key=labels.get)  # of all labels, also of images without a result
    classes = results.classes or collections.Counter(scores.size for scores in some).most_common(1)[0][0]
    shift = 1 if classes == 1001 else 0  # such models count a background class first, as the ModelZoo's script knows
    if path.endswith(".bin") and not results.dtype and classes % 2 == 0 and labels[largest] < classes // 2:
        words = some[0].view("<u4")
        if words.any() and not words[::2].any():  # the lower halves of float64 values that have few digits
            fail("%s: every second score is 0%s" % (path, NO_FLOAT32))
    if classes < 2 or labels[largest] >= classes - shift:
        fail("%s: labels %s as class %d, but the results have classes 0 to %d: the labels are of another data set or count from "
             "1, or the results are of another model or type" % (labels_path, largest, labels[largest], classes - shift - 1))
    probabilities = results.probabilities
    if probabilities is None:
        probabilities = all(are_probabilities(scores) for scores in some)
    if probabilities and path.endswith(".txt"):
        fail("%s: holds probabilities; %%f flattens probabilities into ties, so ranks are wrong; use --outfmt BIN" % path)
    return results._replace(classes=classes, shift=shift, probabilities=probabilities)


def work(results, jobs, judged, problems, parent):
    """A worker process: puts the rank and, where that is not 0, the confidence (the largest probability) of each of jobs,
    [(image name, index of the label)], into judged (float64, images x 2); what is wrong with a file goes into problems."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    confidence = np.max if results.probabilities else confidence_of
    try:
        for row, (name, index) in enumerate(jobs):
            if os.getppid() != parent:  # it was killed
                break
            scores = scores_of(results, name)
            if scores.size != results.classes:
                fail("%s: holds %d scores, not %d as %s: it is of another run, or damaged; run the inference again" % (
                    path_of(results, name), scores.size, results.classes, "its summary says" if results.dtype else "others"))
            rank = rank_of(index, scores)
            judged[row] = rank, confidence(scores) if rank else 0
        return
    except Wrong as error:
        problems.send(str(error))
    except MemoryError:
        problems.send("not enough memory to judge the results")
    sys.exit(1)


def judge(results, labels, names):
    """Ranks and confidences of these images, in order, by as many processes as there are CPUs; fails at the first bad file."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs, share, waiting = [(name, labels[name] + results.shift) for name in names], -(-len(names) // cpus), {}
    judged = np.frombuffer(mmap.mmap(-1, 16 * len(jobs))).reshape(-1, 2)  # the workers' memory, too
    judged[:] = NOT_YET
    fork = multiprocessing.get_context("fork")  # the workers read through the folders that are open here
    received, problems = fork.Pipe(duplex=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until a worker has its own handlers
    try:
        for first in range(0, len(jobs), share):
            rows = slice(first, first + share)
            process = fork.Process(target=work, args=(results, jobs[rows], judged[rows], problems, os.getpid()), daemon=True)
            process.start()
            waiting[process.sentinel] = process
    except OSError as error:
        fail("worker processes cannot be started: %s" % error.strerror)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    with tqdm(total=len(jobs), unit="file", desc="evaluate", disable=None) as bar:
        while waiting:
            for sentinel in connection.wait(list(waiting), BAR_EVERY):
                process = waiting.pop(sentinel)
                process.join()
                if process.exitcode:
                    fail(received.recv() if received.poll() else
                         "a worker process died (exit code %s, -9 mostly means out of memory)" % process.exitcode)
            bar.update(int(np.count_nonzero(judged[:, 0] != NOT_YET)) - bar.n)
    return judged[:, 0].astype(np.int64), judged[:, 1]


def require_unchanged(results):
    """Fails where a folder was replaced, added to or its summary rewritten since it was opened."""
    for part in results.parts:
        try:
            same = identity(os.stat(part.path)) == part.identity and (
                part.summary_path is None or sha256_of(read_file(part.summary_path)) == part.summary_sha256)
        except (OSError, Wrong):
            same = False
        if not same:
            fail("%s: was changed while it was judged; run this again when its inference has ended" % part.path)


def interval(hits, total):
    """Wilson's 95 % interval of a share, in percent: (z^2/2n + p +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    share, square = hits / total, NORMAL_975 ** 2 / total
    half = NORMAL_975 * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return [min(100.0, max(0.0, 100 * (share + square / 2 + sign * half) / (1 + square))) for sign in (-1, 1)]


def mcnemar(one, other):
    """McNemar's exact two-sided p: twice the binomial tail of the smaller count, in whole numbers."""
    term, tail, total = 1, 0, one + other
    for number in range(min(one, other) + 1):
        tail += term
        term = term * (total - number) // (number + 1)
    return min(1.0, 2 * tail / 2 ** total)


def compare_pairs(hits, before):
    """How many images went from right to wrong and back, and what that says of the points lost.

    The interval is Agresti and Min's adjusted Wald (Statistics in Medicine 24, 2005, 729-740): 1/2 added to each cell."""
    images, lost, won = len(hits), int(np.count_nonzero(before & ~hits)), int(np.count_nonzero(hits & ~before))
    more_lost, more_won, total = lost + 0.5, won + 0.5, images + 2
    middle = (more_lost - more_won) / total
    half = NORMAL_975 * math.sqrt(more_lost + more_won - (more_lost - more_won) ** 2 / total) / total
    return {"accuracy": 100.0 * int(np.count_nonzero(hits)) / images, "baseline": 100.0 * int(np.count_nonzero(before)) / images,
            "lost": 100.0 * (lost - won) / images, "right_to_wrong": lost, "wrong_to_right": won, "mcnemar_p": mcnemar(lost, won),
            "difference_interval95": [100 * (middle - half), 100 * (middle + half)]}


def pair(baseline, results, ranks, names, labels):
    """The baseline's results for the same images, judged and compared image by image."""
    lacking = [name for name in names if name not in baseline.files]
    other = [name for name in baseline.files if name not in results.files]
    if lacking or other:
        fail("%s: has %s; a baseline must be of the same images" % (baseline.folder, "no result for " + lacking[0] if lacking else
                                                                    "a result for %s, %s has not" % (other[0], results.folder)))

    def differ(records, *keys):
        """Whether the two records both know one of the keys, and have different values for it."""
        known = [[record[key] for record in records if record.get(key) is not None] for key in keys]
        return any(len(values) == 2 and values[0] != values[1] for values in known)

    inputs, models = ([which.facts[key] or {} for which in (results, baseline)] for key in ("input", "model"))
    recipes = [one.get("recipe") or {} for one in inputs]
    same_type = recipes[0].get("dtype") == recipes[1].get("dtype")  # else their files, which the manifests list, differ anyway
    for wrong, what in (
            (baseline.facts["precision"] == "int8", "the second is of an INT8 model, and a baseline of a float model"),
            (differ(recipes, "resize", "crop", "mean", "std"), "their images were prepared differently"),
            (differ(inputs, "set_sha256") or same_type and differ(inputs, "manifest_sha256"), "they are of different images"),
            (differ(models, "weights_sha256"), "their models are of different weights (another checkpoint)")):
        if wrong:
            fail("%s and %s: %s, so they cannot be paired" % (results.folder, baseline.folder, what))
    before, facts = judge(baseline, labels, names)[0], baseline.facts
    top1, top5 = (compare_pairs(ranks < top, before < top) for top in (1, TOP))
    ratio = top1["accuracy"] / top1["baseline"] if top1["baseline"] else 1.0  # nothing to lose
    passes = top1["accuracy"] >= MLPERF * top1["baseline"]
    return {"baseline": baseline.folder, "baseline_engine": facts["engine"], "baseline_precision": facts["precision"],
            "images": len(names), "top1": top1, "top5": top5, "mlperf": {"ratio": ratio, "limit": MLPERF, "passes": passes}}


def per_class(labels, ranks, names):
    """[{class, name, images, top1, top5}] of the classes that have judged images, in order; shares in percent."""
    return [{"class": int(number), "name": names[number], "images": int(np.count_nonzero(labels == number)),
             "top1": 100.0 * float(np.mean(ranks[labels == number] < 1)),
             "top5": 100.0 * float(np.mean(ranks[labels == number] < TOP))} for number in np.unique(labels)]


def find_mistakes(results, judged, labels, ranks, confidences, class_names):
    """The wrongly judged images of the largest confidence, [{image, label, label_name, guesses}]; the guesses are the classes of
    the five highest scores, the lower class first among equals: [{class, name, probability}]."""
    wrong, mistakes = np.argsort(-np.round(np.where(ranks, confidences, -1), 4), kind="stable")[:MISTAKES], []
    for name in (judged[index] for index in wrong if ranks[index]):
        scores = as_floats(scores_of(results, name))
        powers = np.exp(scores - scores.max())
        shares = scores if results.probabilities else powers / powers.sum()  # no softmax of a softmax
        best = [int(index) for index in np.argsort(-scores, kind="stable")[:TOP + 1] if index >= results.shift][:TOP]
        guesses = [{"class": index - results.shift, "name": class_names[index - results.shift],
                    "probability": round(min(1.0, float(shares[index])), 4)} for index in best]
        mistakes.append({"image": name, "label": labels[name], "label_name": class_names[labels[name]], "guesses": guesses})
    return mistakes


def csv_of(rows):
    """The text of --per-class."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["class", "name", "images", "top1", "top5"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(row, top1="%.2f" % row["top1"], top5="%.2f" % row["top5"]) for row in rows)
    return text.getvalue()


def write_whole(path, text):
    """The file whole or not at all; what killed runs left of their temporaries is removed, but no living run's."""
    folder, name = os.path.split(path)
    for stray in glob.glob(os.path.join(glob.escape(folder), ".%s.????????.tmp" % glob.escape(name))):
        try:
            with open(os.open(stray, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(stray)
        except OSError:
            continue
    temporary = os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def require_free(target, args, all_results):
    """Refuses to write over what is read."""
    inputs = [args.labels, args.classes, args.exclude] + [part.summary_path for results in all_results for part in results.parts]
    folders = {os.path.realpath(part.path) for results in all_results for part in results.parts}
    folder, file = os.path.split(os.path.realpath(target))
    if os.path.realpath(target) in [os.path.realpath(path) for path in inputs if path] or (
            folder in folders and file.rpartition(".")[2] in ("txt", "bin", "npy")):
        fail("%s: is read by this evaluation and would be overwritten; choose another name" % target)
    if os.path.exists(target) and not os.path.isfile(target):  # /dev/null would become a file
        fail("%s: is no regular file; choose another name" % target)


def tell(content):
    """The lines for the terminal."""
    accuracy, images, intervals, paired = (content[key] for key in ("accuracy", "images", "interval95", "paired"))
    print("Top-1 %.2f%%  Top-5 %.2f%%  of %d of %d labelled images, %d classes, engine: %s" % (
        accuracy["top1"], accuracy["top5"], images["judged"], images["labelled"], content["classes"], content["engine"]))
    print("95%% intervals: Top-1 %.2f%% to %.2f%%, Top-5 %.2f%% to %.2f%%" % tuple(intervals["top1"] + intervals["top5"]))
    if images["excluded"]:
        print("left out: %d images that --exclude names" % images["excluded"])
    if content["classes"] < FEW_CLASSES:
        print("Top-5 of %d classes is %.2f%% by chance alone" % (content["classes"], content["chance_top5"]))
    if paired:
        print("paired with %s (%s), %d images:" % (paired["baseline"], paired["baseline_engine"], paired["images"]))
        for name, key in (("Top-1", "top1"), ("Top-5", "top5")):
            print(name + ": %(lost).2f points lost of %(baseline).2f%%, %(right_to_wrong)d right became wrong, "
                  "%(wrong_to_right)d wrong became right, McNemar's exact p = %(mcnemar_p).3g" % paired[key]
                  + ", 95%% interval %.2f to %.2f points" % tuple(paired[key]["difference_interval95"]))
        verdict = "passes" if paired["mlperf"]["passes"] else "does not pass"
        print("MLPerf asks for 99%% of the baseline's Top-1: %.2f%%, %s" % (100 * paired["mlperf"]["ratio"], verdict))
    if images["results"] < images["labelled"]:
        sys.stderr.write("warning: only %d of %d labelled images have a result; the accuracy is of those alone\n"
                         % (images["results"], images["labelled"]))
    if content["calibration_shared"] is not False and (content["model"] or {}).get("calibration"):
        sys.stderr.write("warning: images that the INT8 model was calibrated on may be among those judged; see --exclude\n")
    for gate in content["gates"]:
        digits = "%.2f" if "%.2f" % gate["measured"] != "%.2f" % gate["limit"] or gate["passes"] else "%.15g"
        print("%s: %s %s%% is %s %.15g%%" % ("PASS" if gate["passes"] else "FAIL", gate["name"], digits % gate["measured"],
                                            "at least" if gate["passes"] else "below", gate["limit"]))


def parse_args():
    def percentage(text):
        if not 0 <= float(text) <= 100:
            raise ValueError
        return float(text)

    parser = argparse.ArgumentParser(description="Compare inference results with labels for Top-1 ... Top-5.")
    add = parser.add_argument
    add("result", metavar="RESULT", help="folder of the inference results")
    add("labels", metavar="LABELS", help="val_label.txt")
    add("out_dir", metavar="OUT_DIR", help="folder for the JSON, made where missing")
    add("json_name", metavar="JSON_NAME", help="name of the JSON, for example result.json")
    add("--expect", metavar="N", type=int, help="an error unless there are exactly N results")
    add("--per-class", metavar="CSV", help="file for the accuracy of each class")
    add("--classes", metavar="FILE", help="names of the classes, one a line (default: torchvision's)")
    add("--exclude", metavar="FILE", help="image names to leave out, one a line: those an INT8 model was calibrated on")
    add("--baseline", metavar="DIR", help="float results of the same images, to compare with image by image")
    add("--min-top1", metavar="P", type=percentage, help="exit with 3 where Top-1 is below P percent")
    add("--min-top5", metavar="P", type=percentage, help="exit with 3 where Top-5 is below P percent")
    args = parser.parse_args()
    args.json = os.path.join(args.out_dir, args.json_name)
    if not os.path.basename(args.json):
        parser.error("JSON_NAME %r names no file" % args.json_name)
    if args.per_class is not None and os.path.realpath(args.per_class) == os.path.realpath(args.json):
        parser.error("--per-class and JSON_NAME are the same file")
    return args


def evaluate(args):
    """(the JSON's content, the rows of --per-class)."""
    labels, labels_sha256 = read_labels(args.labels)
    excluded, hashes = read_exclude(args.exclude) if args.exclude else ((), ())
    both = [prepare(find_results(folder), labels, args.labels) for folder in (args.result, args.baseline) if folder]
    results, names = both[0], list(both[0].files)
    for target in filter(None, (args.json, args.per_class)):
        require_free(target, args, both)
    if args.expect not in (None, len(names)):
        fail("%s: holds results of %d images, expected %d" % (args.result, len(names), args.expect))
    for name in names:
        if name not in labels:
            fail("%s: its image %s has no label in %s" % (path_of(results, name), name, args.labels))
    judged = [name for name in names if name not in excluded]
    if not judged:
        fail("%s: leaves none of the results to judge" % args.exclude)
    classes = results.classes - results.shift
    class_names = read_names(args.classes, classes)

    ranks, confidences = judge(results, labels, judged)
    of_classes = per_class(np.array([labels[name] for name in judged]), ranks, class_names)
    hits = {"top%d" % top: int(np.count_nonzero(ranks < top)) for top in range(1, TOP + 1)}
    accuracy = {key: 100.0 * hit / len(ranks) for key, hit in hits.items()}
    calibration = (results.facts["model"] or {}).get("calibration")
    shared = type(calibration) is dict and calibration.get("shared") is True or None  # None: nothing tells
    if type(calibration) is dict and calibration.get("names_sha256") in hashes:
        shared = False
    values = [("Number of images", "%d" % len(ranks)), ("Number of classes", "%d" % classes)]
    values += [("T" + key[1:] + " accuracy", "%.2f%%" % share) for key, share in accuracy.items()]
    content = dict(
        results.facts, title=TITLE, value=[{"key": key, "value": value} for key, value in values], schema=1, accuracy=accuracy,
        interval95={key: interval(hits[key], len(ranks)) for key in ("top1", "top5")}, classes=classes,
        images={"judged": len(judged), "labelled": len(labels), "excluded": len(names) - len(judged), "results": len(names)},
        chance_top5=100.0 * min(TOP, classes) / classes, labels=args.labels, labels_sha256=labels_sha256, data_set=None,
        exclude_sha256=hashes[0] if hashes else None, calibration_shared=shared,
        per_class_worst=sorted(of_classes, key=lambda row: (row["top1"], row["top5"], row["class"]))[:WORST],
        mistakes=find_mistakes(results, judged, labels, ranks, confidences, class_names),
        paired=pair(both[1], results, ranks, judged, labels) if args.baseline else None,
        gates=[{"name": name, "measured": accuracy[key], "limit": limit, "passes": accuracy[key] >= limit}
               for name, key, limit in (("Top-1", "top1", args.min_top1), ("Top-5", "top5", args.min_top5)) if limit is not None])
    for which in both:
        require_unchanged(which)
    return content, of_classes


def main():
    args = parse_args()
    warnings.simplefilter("ignore")  # numpy's about text it cannot parse: parse_text counts what it got
    content, of_classes = evaluate(args)
    os.makedirs(args.out_dir, exist_ok=True)
    if args.per_class:
        write_whole(args.per_class, csv_of(of_classes))
    write_whole(args.json, json.dumps(content, allow_nan=False))
    tell(content)
    if not all(gate["passes"] for gate in content["gates"]):
        sys.exit(3)


def guarded():
    """main, whose every expected failure is a sentence, also that of a full or closed output."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except (Wrong, MemoryError, OSError) as error:
        message = str(error) or "not enough memory"
        if isinstance(error, OSError):
            message = "%s: %s" % (error.filename or "standard output", error.strerror)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains again when it ends
        sys.stderr.write("error: %s\n" % " ".join(message.split()))
        sys.exit(1)


if __name__ == "__main__":
    guarded()
