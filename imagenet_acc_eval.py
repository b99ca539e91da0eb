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
import itertools
import json
import math
import multiprocessing
import re
import stat
import warnings
from multiprocessing import connection

import numpy as np
from tqdm import tqdm

TOP = 5
TITLE = "Overall statistical evaluation"  # of the ModelZoo's JSON, which other tools read
REPORT_EVERY = 200  # files between two messages of a worker
NORMAL_975 = 1.959964  # 97.5 % quantile of the normal distribution, for two-sided 95 % intervals
MLPERF = 0.99  # part of the float model's Top-1 that MLPerf Inference asks of a quantised one
WORST, MISTAKES = 10, 12  # worst classes and wrongly judged images in the JSON
FEW_CLASSES = 50  # below that a Top-5 says little: its chance level is told
HUGE = 1e15  # no network scores so high; float64 read as pairs of float32 does
LARGEST_RESULT, LARGEST_TEXT = 2 ** 26, 2 ** 29  # bytes: a row of scores; labels and summaries
STOPS = {signal.SIGINT, signal.SIGTERM}
SHARD = re.compile(r"shard([1-9][0-9]{0,8})_of_([1-9][0-9]{0,8})$")
# What is taken from a summary, and its type in JSON.
KINDS = {"schema": int, "engine": str, "device": str, "precision": str, "batch_size": int, "probabilities": bool, "model": dict,
         "input": dict, "outputs": list, "packages": dict, "filesinfo": dict}
# A folder opened once: results are read through fd, so that none of another folder put in its place is judged.
Part = collections.namedtuple("Part", "path fd identity files summary summary_path summary_sha256")
# files: {image name: (index in parts, file name)}; known: a summary says dtype and classes; shift: 1 before a background class
Results = collections.namedtuple("Results", "folder parts files known dtype classes shift probabilities facts")


class BadFile(Exception):
    """A file that cannot be judged; its text is the sentence for the user."""


class OddSize(BadFile):
    """A result of another number of classes than the others."""


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def read_file(path, dir_fd=None, shown=None, most=LARGEST_TEXT):
    """The bytes of a regular file. A FIFO would hang, and open() takes twice as long as this (benchmarks/README.md)."""
    shown = shown or path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise BadFile("%s: is %s" % (shown, "a folder, not a file" if stat.S_ISDIR(state.st_mode) else "no regular file"))
            if state.st_size > most:
                raise BadFile("%s: holds %d bytes, more than such a file can" % (shown, state.st_size))
            data = os.read(fd, state.st_size + 1)
            while len(data) < state.st_size:  # network file systems may give less at a time
                more = os.read(fd, state.st_size + 1 - len(data))
                if not more:
                    raise BadFile("%s: became shorter while it was read; run again" % shown)
                data += more
            return data
        finally:
            os.close(fd)
    except OSError as error:
        raise BadFile("%s: %s" % (shown, error.strerror)) from None


def read_lines(path):
    """The lines of a text file, and the SHA-256 of its bytes."""
    data = read_file(path)
    return data.decode("utf-8-sig", "surrogateescape").split("\n"), hashlib.sha256(data).hexdigest()


def image_name(path):
    """The part of a file's name before its first dot: what ais_bench names a result by."""
    return path.rpartition("/")[2].partition(".")[0]


def read_labels(path):
    """({image name: class}, SHA-256) of lines "FILE CLASS"; folders before FILE and the Windows ends of lines are allowed."""
    if os.path.isdir(path):
        fail("%s: is a folder; LABELS is a text file of lines \"FILE CLASS\", which tools/make_val_label.py makes" % path)
    labels, (lines, sha256) = {}, read_lines(path)
    for number, line in enumerate(lines, 1):
        fields, where = line.rsplit(None, 1), "%s: line %d" % (path, number)
        if not fields:
            continue
        if len(fields) < 2:
            fail("%s is not \"FILE CLASS\" but %r" % (where, line.strip()[:80]))
        file, label = fields[0].strip(), fields[1]
        if not (label.isascii() and label.isdigit()):
            fail("%s: %r is not the number of a class; classes are numbers counted from 0 (tools/make_val_label.py makes such a "
                 "file of class folders)" % (where, label[:80]))
        if len(label) > 9:
            fail("%s: class %s... of %d digits is no class of any model" % (where, label[:9], len(label)))
        words = file.split()
        if len(words) > 1 and (is_number(words[-1]) or len(file.rpartition("/")[2].partition(".")[2].split()) > 1):
            fail("%s is not \"FILE CLASS\": it has more after the file (%r)" % (where, line.strip()[:80]))
        name = image_name(file)
        if name in labels:
            fail("%s labels %s a second time" % (where, name))
        labels[name] = int(label)
    if not labels:
        fail("%s: holds no labels" % path)
    return labels, sha256


def is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_exclude(path):
    """The names that --exclude leaves out, and the SHA-256 of the file and of its names: a calibration may give either."""
    lines, sha256 = read_lines(path)
    names = [image_name(line.strip()) for line in lines if line.strip()]
    if not names:
        fail("%s: holds no image names" % path)
    return set(names), [sha256, hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()]


def read_names(path):
    """Names of the classes, one a line."""
    names = [" ".join(line.split()) for line in read_lines(path)[0]]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        what = "line %d is empty" % (names.index("") + 1) if names else "is empty"
        fail("%s: %s; it needs one class name a line" % (path, what))
    return names


def torchvision_names(classes):
    """torchvision's names where they are as many, else the numbers."""
    try:  # read, not imported: torchvision would import torch
        found = importlib.util.find_spec("torchvision")
        with open(os.path.join(os.path.dirname(found.origin), "models", "_meta.py"), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        names = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                     and node.targets[0].id == "_IMAGENET_CATEGORIES")
    except Exception:  # a torchvision without the list, or without the file, or none
        names = []
    return names if len(names) == classes else [str(number) for number in range(classes)]


def read_summary(data, path):
    """A summary, whose keys that are used here have the type they must have."""
    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError("%s is no finite number" % text[:20])
        return float(text)

    try:
        summary = json.loads(data.decode("utf-8"), parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise BadFile("%s: is no JSON that can be used: %s; run the inference again" % (path, error)) from None
    wrong = ["it is no object"] if type(summary) is not dict else [
        key for key, kind in KINDS.items() if summary.get(key) is not None and type(summary[key]) is not kind]
    if not wrong and "schema" in summary:
        outputs = summary.get("outputs")
        shape = outputs[0].get("shape") if outputs and type(outputs[0]) is dict else None
        if summary["schema"] != 1:
            raise BadFile("%s: is of schema %r; this script knows 1" % (path, summary["schema"]))
        if not (type(shape) is list and len(shape) == 1 and type(shape[0]) is int and shape[0] > 1
                and outputs[0].get("dtype") in ("float16", "float32", "float64")):
            wrong = ["outputs"]
        wrong += [] if summary.get("engine") and summary.get("filesinfo") is not None else ["engine, filesinfo"]
    if not wrong and type((summary.get("input") or {}).get("recipe") or {}) is not dict:
        wrong = ["recipe"]
    for info in () if wrong else (summary.get("filesinfo") or {}).values():
        if type(info) is not dict or not all(type(info.get(key)) is list and all(type(text) is str for text in info[key])
                                             for key in ("infiles", "outfiles")):
            wrong = ["filesinfo"]
    if wrong:
        raise BadFile("%s: is no summary of an inference (%s); run the inference again" % (path, ", ".join(wrong)))
    return summary


def listed(part):
    """The file names that a summary lists, or None."""
    files = part.summary.get("filesinfo") if part.summary else None
    if files is None:
        return None
    for info in files.values():
        if not info["outfiles"]:
            raise BadFile("%s: has no result for %s; run the inference again" % (part.summary_path, " ".join(info["infiles"])))
    return {path.rpartition("/")[2] for info in files.values() for path in info["outfiles"]}


def find_summary(path, files, fd):
    """(bytes, path) of the summary in a folder or beside it, or (None, None)."""
    beside = (os.path.abspath(path) if os.path.basename(path) in ("", ".", "..") else path) + "_summary.json"
    inner = os.path.join(path, ".summary.json")
    if ".summary.json" in files:
        data = read_file(".summary.json", fd, inner)
        if os.path.exists(beside) and read_file(beside) != data:
            raise BadFile("%s and %s are of different runs, the results of either; run the inference again" % (inner, beside))
        return data, inner
    if os.path.lexists(beside):
        return read_file(beside), beside
    if "sumary.json" in files:  # of very old ais_bench
        return read_file("sumary.json", fd, os.path.join(path, "sumary.json")), os.path.join(path, "sumary.json")
    return None, None


def identity(state):
    return state.st_dev, state.st_ino, state.st_mtime_ns


def open_parts(path):
    """A folder and its device*/ folders as Parts."""
    path = os.path.normpath(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        files = sorted(os.listdir(fd))
    except OSError as error:
        raise BadFile("%s: %s" % (path, error.strerror)) from None
    data, summary_path = find_summary(path, files, fd)
    summary, sha256 = (read_summary(data, summary_path), hashlib.sha256(data).hexdigest()) if data is not None else (None, None)
    parts = [Part(path, fd, identity(os.fstat(fd)), files, summary, summary_path, sha256)]
    for file in files:
        if file.startswith("device"):
            if os.path.isdir(os.path.join(path, file)):
                parts += open_parts(os.path.join(path, file))
            elif file.endswith("_summary.json") and file[:-len("_summary.json")] not in files:
                raise BadFile("%s: its results are missing; run the inference again" % os.path.join(path, file))
    return parts


def results_in(part, index, results, parts):
    """Adds a folder's results {image name: (index, file name)}; returns how many, after comparing with its summary."""
    files = [file for file in part.files if file[0] != "." and file.rpartition(".")[2] in ("txt", "bin", "npy")]
    expected = listed(part)
    if expected is not None and expected != set(files):
        missing, additional = sorted(expected - set(files)), sorted(set(files) - expected)
        if missing:
            raise BadFile("%s: is missing, %s lists it (%d are missing); run the inference again"
                          % (os.path.join(part.path, missing[0]), part.summary_path, len(missing)))
        raise BadFile("%s: is of another run, %s does not list it (%d are not listed); remove it or run the inference again"
                      % (os.path.join(part.path, additional[0]), part.summary_path, len(additional)))
    count = 0
    for file in files:
        name, _, output = file.rpartition(".")[0].rpartition("_")
        if not name or not output.isdigit() or (output[0] == "0" and output != "0"):
            raise BadFile("%s: is not named like a result, NAME_0.%s" % (os.path.join(part.path, file), file.rpartition(".")[2]))
        if output != "0":
            continue  # a model's further outputs
        if name in results:
            earlier, other = results[name]
            raise BadFile("%s and %s are results of the same image; remove the stale one"
                          % (os.path.join(parts[earlier].path, other), os.path.join(part.path, file)))
        results[name] = index, file
        count += 1
    return count


def find_shards(top):
    """The shardK_of_N folders of a folder: all K of one N, or none."""
    found = {file: SHARD.match(file) for file in top.files if SHARD.match(file) and os.path.isdir(os.path.join(top.path, file))}
    totals = sorted({int(match.group(2)) for match in found.values()})
    if len(totals) > 1:
        raise BadFile("%s: holds shards of %d and of %d; remove those of the other run" % (top.path, totals[0], totals[1]))
    numbers = {int(match.group(1)) for match in found.values()}
    missing = next((number for number in itertools.count(1) if number not in numbers), None)
    if found and (missing <= totals[0] or len(numbers) > totals[0]):
        raise BadFile("%s: shard %d of %d is missing; run it, then this again" % (top.path, missing, totals[0])
                      if missing <= totals[0] else "%s: holds more shards than %d" % (top.path, totals[0]))
    return sorted(found, key=lambda file: int(found[file].group(1)))


def find_results(folder):
    """The Results in a folder, in its device*/ folders or in its shards, all of one run's making."""
    parts = open_parts(folder)
    shards = find_shards(parts[0])
    if shards:
        if len(parts) > 1 or parts[0].summary or results_in(parts[0], 0, {}, parts):
            raise BadFile("%s: holds shards and other results beside them; remove the stale ones" % folder)
        parts = [part for shard in shards for part in open_parts(os.path.join(parts[0].path, shard))]
    results, used = {}, []
    for index, part in enumerate(parts):
        if results_in(part, index, results, parts) or part.summary:
            used.append(part)
        elif SHARD.match(os.path.basename(part.path)):
            raise BadFile("%s: holds no results; run this shard, then this again" % part.path)
    for part in used:
        require_same_run(used[0], part)
    if not results:
        raise BadFile("%s: holds no results (looked for NAME_0.txt, .bin and .npy there, in device*/ and shardK_of_N/)" % folder)
    kinds = collections.Counter(file.rpartition(".")[2] for _, file in results.values())
    rare = kinds.most_common()[-1][0]
    if len(kinds) > 1 and not used[0].summary:
        index, file = next(pair for pair in results.values() if pair[1].endswith(rare))
        raise BadFile("%s: %d of %d results are .%s, it and the others of different runs; remove the stale ones"
                      % (os.path.join(parts[index].path, file), kinds[rare], len(results), rare))
    return describe(folder, parts, used, results, len(shards))


def require_same_run(first, part):
    """Parts of one result are of the same engine, model, precision, packages and kind of input."""
    if (part.summary is None) != (first.summary is None):
        raise BadFile("%s: has no summary, other parts of these results have; its inference did not end, run it again"
                      % (part if part.summary is None else first).path)
    if part.summary is None:
        return
    for key, inner in (("engine", None), ("precision", None), ("batch_size", None), ("probabilities", None), ("packages", None),
                       ("outputs", None), ("model", "sha256"), ("model", "onnx_sha256"), ("input", "recipe")):
        one, other = ((summary.get(key) or {}).get(inner) if inner else summary.get(key)
                      for summary in (first.summary, part.summary))
        if one != other:
            raise BadFile("%s and %s: are of different %s (%s, %s); judge results of one run only" % (
                first.path, part.path, "%s's %s" % (key, inner) if inner else key, str(one)[:90], str(other)[:90]))
    match, said = SHARD.match(os.path.basename(part.path)), (part.summary.get("input") or {}).get("shard")
    if match and said is not None and said != [int(match.group(1)), int(match.group(2))]:
        raise BadFile("%s: is of shard %s by its summary" % (part.path, said))


def describe(folder, parts, used, files, shards):
    """Results with what their summaries say of them."""
    summary, hashes = used[0].summary, [part.summary_sha256 for part in used if part.summary]
    facts = {key: summary.get(key) if summary else None for key in ("device", "precision", "batch_size", "model", "input")}
    facts["engine"] = (summary.get("engine") or "ais_bench (version not recorded)") if summary else "not recorded"
    facts.update(shards=shards or None, summary_sha256=hashes if len(hashes) > 1 else hashes[0] if hashes else None)
    if summary is None or "schema" not in summary:
        return Results(folder, parts, files, False, "<f4", None, 0, None, facts)
    if not facts["input"]:
        raise BadFile("%s: is of pure inference, on zeros; there is nothing to judge" % folder)
    if len(used) > 1:
        inputs = [part.summary["input"] for part in used]
        paths = {os.path.dirname(str(one.get("path"))) for one in inputs}
        facts["device"] = "; ".join(sorted({part.summary.get("device") or "not recorded" for part in used}))
        facts["input"] = dict(inputs[0], path=paths.pop() if len(paths) == 1 else None, images=len(files), shard=None,
                              manifest_sha256=None, manifests_sha256=[one.get("manifest_sha256") for one in inputs])
    output, probabilities = summary["outputs"][0], bool(summary.get("probabilities"))
    dtype = np.dtype(output["dtype"]).newbyteorder("<").str
    return Results(folder, parts, files, True, dtype, output["shape"][0], 0, probabilities, facts)


def path_of(results, name):
    index, file = results.files[name]
    return results.parts[index].path + "/" + file


def scores_of(results, name):
    index, file = results.files[name]
    part = results.parts[index]
    return read_scores(file, part.fd, part.path + "/" + file, results.dtype, results.known)


def read_scores(file, dir_fd=None, path=None, dtype="<f4", known=False):
    """The scores of one result as a 1-d array; of a .txt of %f values as int64 millionths, which rank alike.

    known: a summary says the dtype, so a .bin need not be suspected of being of another."""
    path = path or file
    data = read_file(file, dir_fd, path, LARGEST_RESULT)
    if not data:
        raise BadFile("%s: is empty: its writing did not end, or the disk was full; run the inference again" % path)
    if file.endswith(".bin"):
        size = int(dtype[-1])
        if len(data) % size:
            raise BadFile("%s: holds %d bytes, no whole number of float%d values" % (path, len(data), 8 * size))
        scores = np.frombuffer(data, dtype)
    elif file.endswith(".npy"):
        scores = parse_npy(data, path, dtype if known else None)
    else:
        scores = parse_text(data, path)
    if scores.dtype.kind == "f" and not (scores.min() > -HUGE and scores.max() < HUGE):  # NaN compares false, too
        if file.endswith(".bin") and not known and len(data) % 8 == 0 and (np.abs(np.frombuffer(data, "<f8")) < HUGE).all():
            raise BadFile("%s: holds %d values of float32 or %d of float64, and these make sense as float64; have the inference "
                          "write float32" % (path, scores.size, scores.size // 2))
        if not np.isfinite(scores).all():
            raise BadFile("%s: holds NaN or infinite scores" % path)
    return scores


def parse_npy(data, path, dtype):
    """The row of an .npy file; its header may claim anything, and is believed as far as there are bytes."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = reader(file)
    except Exception as error:  # numpy lets ast's and tokenize's through
        raise BadFile("%s: is no .npy file: %s" % (path, error)) from None
    size = 1
    for length in shape:
        size *= length
    if kind.kind != "f" or not shape or size != shape[-1] or size < 1:
        raise BadFile("%s: holds %s %s, not one row of scores" % (path, kind, shape))
    if size * kind.itemsize != len(data) - file.tell():
        raise BadFile("%s: its header says %d values, its bytes are %d" % (path, size, len(data) - file.tell()))
    if dtype and kind.newbyteorder("<").str != dtype:
        raise BadFile("%s: holds values of %s, its summary says %s" % (path, kind, np.dtype(dtype)))
    return np.frombuffer(data, kind, offset=file.tell())


def parse_text(data, path):
    """One line of numbers. All in %f, as ais_bench writes them: without its dots the line is of whole millionths,
    which is read three times as fast as floats (benchmarks/README.md)."""
    if b"\n" in data.strip():
        raise BadFile("%s: holds more than one line of scores" % path)
    characters = np.frombuffer(data, np.uint8)
    dots = np.flatnonzero(characters == ord("."))
    if dots.size and dots[-1] + 7 < characters.size:
        six_decimals = (characters[dots + 7] <= ord(" ")).all()
        fits_int64 = dots.size == 1 or np.diff(dots).max() <= 18
        if six_decimals and fits_int64 and dots[0] <= 11 and not data.translate(None, b"0123456789-. \r\n"):
            scores = np.fromstring(data.replace(b".", b""), np.int64, sep=" ")
            if scores.size == dots.size == data.count(b" ", 0, len(data.rstrip())) + 1:
                return scores
    try:
        scores = np.array([float(number) for number in data.split()])
    except ValueError as error:
        raise BadFile("%s: cannot be read: %s" % (path, error)) from None
    if not scores.size:
        raise BadFile("%s: holds no scores" % path)
    return scores


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
    """Results whose number of classes is settled, after all that a few of them can say against themselves or the labels."""
    names = list(results.files)
    some = [scores_of(results, name) for name in names[::max(1, len(names) // 8)]]
    path, largest = path_of(results, names[0]), max(labels, key=labels.get)  # of all labels, also of images without a result
    classes = results.classes or some[0].size
    shift = 1 if classes == 1001 else 0  # such models count a background class first, as the ModelZoo's script knows
    words = some[0].view("<u4") if path.endswith(".bin") and not results.known else some[0][:0]
    doubled = words.size >= 16 and words.size % 2 == 0 and words.any() and not words[::2].any()
    if classes < 2 or labels[largest] >= classes - shift or (doubled and labels[largest] < classes // 2):
        odd = None if results.known else odd_one_out(results)  # before the labels are blamed
        doubt = "" if results.known else ", or not of float32 (as float64 %s would be %g classes)" % (path, classes / 2)
        fail(odd or "%s: labels %s as class %d, but the results have classes 0 to %d: the labels are of another data set or "
             "count from 1, or the results are of another model%s" % (
                 labels_path, largest, labels[largest], classes - shift - 1, doubt))
    probabilities = results.probabilities
    if probabilities is None:
        probabilities = all(are_probabilities(scores) for scores in some)
    if probabilities and path.endswith(".txt"):
        fail("%s: holds probabilities; %%f flattens probabilities into ties, so ranks are wrong; use --outfmt BIN" % path)
    return results._replace(classes=classes, shift=shift, probabilities=probabilities)


def odd_one_out(results):
    """The sentence about the results of an unusual number of classes, or None where all are alike."""
    sizes = collections.defaultdict(list)
    for name in results.files:
        sizes[scores_of(results, name).size].append(name)
    usual, rare = max(sizes, key=lambda size: len(sizes[size])), min(sizes, key=lambda size: len(sizes[size]))
    return None if len(sizes) < 2 else (
        "%s: holds %d scores (%d of %d results do), most hold %d: it is of another run, or damaged; run the inference again"
        % (path_of(results, sizes[rare][0]), rare, len(sizes[rare]), len(results.files), usual))


def work(results, jobs, report):
    """A worker process: (rank, confidence) of each of [(image name, index of the label)], sent in order; a text is an error.

    The confidence is the largest probability, worked out for wrongly judged images alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    confidence = (lambda scores: float(scores.max())) if results.probabilities else confidence_of
    try:
        for first in range(0, len(jobs), REPORT_EVERY):
            judged = []
            for name, index in jobs[first:first + REPORT_EVERY]:
                scores = scores_of(results, name)
                if scores.size != results.classes:
                    raise OddSize("%s: holds %d scores, not %d" % (path_of(results, name), scores.size, results.classes))
                rank = rank_of(index, scores)
                judged.append((rank, confidence(scores) if rank else 0.0))
            report.send(judged)
    except BadFile as error:
        report.send(error)
    except MemoryError:
        report.send(BadFile("not enough memory to judge the results"))
    except OSError:
        pass  # the parent is gone


def judge(results, labels, names):
    """Ranks and confidences of these images, in order, by as many processes as there are CPUs; fails at the first bad file."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs, share = [(name, labels[name] + results.shift) for name in names], -(-len(names) // cpus)
    waiting, judged = {}, []
    fork = multiprocessing.get_context("fork")  # the workers read through the folders that are open here
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until a worker has its own handlers
    try:
        for first in range(0, len(jobs), share):
            judged.append([])
            receiver, sender = fork.Pipe(duplex=False)
            part = jobs[first:first + share]
            process = fork.Process(target=work, args=(results, part, sender), daemon=True)
            process.start()
            sender.close()
            waiting[receiver] = process, len(part), judged[-1]
    except OSError as error:
        fail("worker processes cannot be started: %s" % error.strerror)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    with tqdm(total=len(jobs), unit="file", desc="evaluate", disable=None) as bar:
        while waiting:
            for receiver in connection.wait(list(waiting)):  # of whichever has something: a full pipe would stop its worker
                process, expected, into = waiting[receiver]
                try:
                    message = receiver.recv()
                except EOFError:
                    process.join()
                    if len(into) < expected:
                        fail("a worker process died (exit code %s, -9 mostly means out of memory)" % process.exitcode)
                    del waiting[receiver]
                    continue
                if isinstance(message, OddSize) and not results.known:
                    message = odd_one_out(results) or message
                if not isinstance(message, list):
                    fail(message)
                into += message
                bar.update(len(message))
    ranks, confidences = zip(*itertools.chain(*judged))
    return np.array(ranks), np.array(confidences)


def require_unchanged(results):
    """Fails where a folder was replaced, added to or its summary rewritten since it was opened."""
    for part in results.parts:
        try:
            same = identity(os.stat(part.path)) == part.identity and (
                part.summary is None or hashlib.sha256(read_file(part.summary_path)).hexdigest() == part.summary_sha256)
        except (OSError, BadFile):
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
    one, two = ((which.facts["input"] or {}).get("recipe") or {} for which in (results, baseline))
    if one and two and any(one.get(key) != two.get(key) for key in ("resize", "crop", "mean", "std")):
        fail("%s and %s: their images were prepared differently, so they cannot be paired" % (results.folder, baseline.folder))
    before, facts = judge(baseline, labels, names)[0], baseline.facts
    top1, top5 = (compare_pairs(ranks < top, before < top) for top in (1, TOP))
    ratio = top1["accuracy"] / top1["baseline"] if top1["baseline"] else 1.0  # nothing to lose
    passes = top1["accuracy"] >= MLPERF * top1["baseline"]
    return {"baseline": baseline.folder, "baseline_engine": facts["engine"], "baseline_precision": facts["precision"],
            "images": len(names), "top1": top1, "top5": top5, "mlperf": {"ratio": ratio, "limit": MLPERF, "passes": passes}}


def per_class(labels, ranks, names):
    """[{class, name, images, top1, top5}] of the classes that have judged images, in order; shares in percent."""
    rows = []
    for number in np.unique(labels):
        of_class = ranks[labels == number]
        rows.append({"class": int(number), "name": names[number], "images": len(of_class),
                     "top1": 100.0 * float(np.mean(of_class < 1)), "top5": 100.0 * float(np.mean(of_class < TOP))})
    return rows


def best_guesses(results, name, class_names):
    """[{class, name, probability}] of the five highest scores, the lower class first among equals."""
    scores = as_floats(scores_of(results, name))
    powers = scores if results.probabilities else np.exp(scores - scores.max())  # no softmax of a softmax
    shares = powers if results.probabilities else powers / powers.sum()
    classes = [int(index) - results.shift for index in np.argsort(-scores, kind="stable")[:TOP + 1]]
    return [{"class": one, "name": class_names[one], "probability": round(min(1.0, float(shares[one + results.shift])), 4)}
            for one in classes if one >= 0][:TOP]


def find_mistakes(results, judged, labels, ranks, confidences, class_names):
    """The wrongly judged images of the largest confidence: [{image, label, label_name, guesses}]."""
    wrong = np.argsort(-np.round(np.where(ranks, confidences, -1), 4), kind="stable")[:MISTAKES]
    return [{"image": name, "label": labels[name], "label_name": class_names[labels[name]],
             "guesses": best_guesses(results, name, class_names)} for name in (judged[index] for index in wrong if ranks[index])]


def summarise(ranks, classes):
    """The ModelZoo's JSON, and the same accuracies as numbers."""
    hits = [int(np.count_nonzero(ranks < top)) for top in range(1, TOP + 1)]
    shares = [100.0 * hit / len(ranks) for hit in hits]
    values = [("Number of images", "%d" % len(ranks)), ("Number of classes", "%d" % classes)]
    values += [("Top%d accuracy" % top, "%.2f%%" % share) for top, share in enumerate(shares, 1)]
    return {"title": TITLE, "value": [{"key": key, "value": value} for key, value in values], "schema": 1,
            "accuracy": {"top%d" % top: share for top, share in enumerate(shares, 1)}, "classes": classes,
            "interval95": {"top1": interval(hits[0], len(ranks)), "top5": interval(hits[-1], len(ranks))},
            "chance_top5": 100.0 * min(TOP, classes) / classes}


def calibration_shared(model, hashes):
    """Whether images that an INT8 model was calibrated on were judged; None where nothing tells."""
    calibration = (model or {}).get("calibration")
    if type(calibration) is not dict:
        return None
    if calibration.get("names_sha256") in hashes:
        return False
    return True if calibration.get("shared") is True else None


def csv_of(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "name", "images", "top1", "top5"])
    for row in rows:
        writer.writerow([row["class"], row["name"], row["images"], "%.2f" % row["top1"], "%.2f" % row["top5"]])
    return text.getvalue()


def write_whole(path, text):
    """The file whole or not at all; what killed runs left of their temporaries is removed."""
    folder, name = os.path.split(path)
    for stray in glob.glob(os.path.join(glob.escape(folder or "."), ".%s.????????.tmp" % glob.escape(name))):
        try:
            held = os.open(stray, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(stray)
            finally:
                os.close(held)
        except OSError:
            continue  # a living run's
    temporary = os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex()))
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            with open(fd, "wb") as file:
                fcntl.flock(fd, fcntl.LOCK_EX)
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
    def positive(text):
        if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) < 1:
            raise argparse.ArgumentTypeError("%r is not a positive whole number" % text[:40])
        return int(text)

    def percent(text):
        if not is_number(text) or not 0 <= float(text) <= 100:
            raise argparse.ArgumentTypeError("%r is not a percentage, 0 to 100" % text[:40])
        return float(text)

    parser = argparse.ArgumentParser(description="Compare inference results with labels for Top-1 ... Top-5.")
    add = parser.add_argument
    add("result", metavar="RESULT", help="folder of the inference results")
    add("labels", metavar="LABELS", help="val_label.txt")
    add("out_dir", metavar="OUT_DIR", help="folder for the JSON, made where missing")
    add("json_name", metavar="JSON_NAME", help="name of the JSON, for example result.json")
    add("--expect", metavar="N", type=positive, help="an error unless there are exactly N results")
    add("--per-class", metavar="CSV", help="file for the accuracy of each class")
    add("--classes", metavar="FILE", help="names of the classes, one a line (default: torchvision's)")
    add("--exclude", metavar="FILE", help="image names to leave out, one a line: those an INT8 model was calibrated on")
    add("--baseline", metavar="DIR", help="float results of the same images, to compare with image by image")
    add("--min-top1", metavar="P", type=percent, help="exit with 3 where Top-1 is below P percent")
    add("--min-top5", metavar="P", type=percent, help="exit with 3 where Top-5 is below P percent")
    args = parser.parse_args()
    args.json = os.path.join(args.out_dir, args.json_name)
    if not os.path.basename(args.json):
        parser.error("JSON_NAME %r names no file" % args.json_name)
    if args.per_class is not None and os.path.realpath(args.per_class) == os.path.realpath(args.json):
        parser.error("--per-class and JSON_NAME are the same file")
    return args


def main():
    args = parse_args()
    warnings.simplefilter("ignore")  # numpy's about text it cannot parse: parse_text counts what it got
    labels, labels_sha256 = read_labels(args.labels)
    class_names = read_names(args.classes) if args.classes else None
    excluded, hashes = read_exclude(args.exclude) if args.exclude else (set(), [None])
    both = [find_results(folder) for folder in (args.result, args.baseline) if folder]
    for target in filter(None, (args.json, args.per_class)):
        require_free(target, args, both)
    names = list(both[0].files)
    if args.expect not in (None, len(names)):
        fail("%s: holds results of %d images, expected %d" % (args.result, len(names), args.expect))
    for name in names:
        if name not in labels:
            fail("%s: its image %s has no label in %s" % (path_of(both[0], name), name, args.labels))
    judged = [name for name in names if name not in excluded]
    if not judged:
        fail("%s: leaves none of the results to judge" % args.exclude)
    both = [prepare(results, labels, args.labels) for results in both]
    results, classes = both[0], both[0].classes - both[0].shift
    if class_names and len(class_names) != classes:
        fail("%s: has %d lines, the results %d classes; it needs one name a line" % (args.classes, len(class_names), classes))
    class_names = class_names or torchvision_names(classes)

    ranks, confidences = judge(results, labels, judged)
    of_classes = per_class(np.array([labels[name] for name in judged]), ranks, class_names)
    content = dict(summarise(ranks, classes), **results.facts)
    content.update(
        images={"judged": len(judged), "labelled": len(labels), "excluded": len(names) - len(judged), "results": len(names)},
        labels=args.labels, labels_sha256=labels_sha256, data_set=None, exclude_sha256=hashes[0],
        calibration_shared=calibration_shared(results.facts["model"], hashes),
        per_class_worst=sorted(of_classes, key=lambda row: (row["top1"], row["top5"], row["class"]))[:WORST],
        mistakes=find_mistakes(results, judged, labels, ranks, confidences, class_names),
        paired=pair(both[1], results, ranks, judged, labels) if args.baseline else None,
        gates=[{"name": name, "measured": content["accuracy"][key], "limit": limit, "passes": content["accuracy"][key] >= limit}
               for name, key, limit in (("Top-1", "top1", args.min_top1), ("Top-5", "top5", args.min_top5)) if limit is not None])
    for which in both:
        require_unchanged(which)
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
    except BadFile as error:
        fail(error)
    except MemoryError:
        fail("not enough memory")
    except OSError as error:
        if error.filename is not None:
            fail("%s: %s" % (error.filename, error.strerror))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains again when it ends
        fail("standard output: %s" % error.strerror)


if __name__ == "__main__":
    guarded()
