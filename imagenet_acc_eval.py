#!/usr/bin/env python3
"""Compare inference results with labels for Top-1 ... Top-5 (the guide's stage "accuracy").

    python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json

RESULT holds NAME_0.txt (one line of scores), NAME_0.bin (float32) or NAME_0.npy an image, in itself or in device*/
folders, as ais_bench and onnx_infer.py write them. LABELS has a line "FILE CLASS" an image, classes counted from 0.
Exit code 0: every result was judged; 1: something is wrong with a file, which is named; 2: wrong usage.
"""
import argparse
import glob
import json
import multiprocessing
import os
import signal
import sys
import warnings

import numpy as np
from tqdm import tqdm

TOP = 5
TITLE = "Overall statistical evaluation"  # of the ModelZoo's JSON, which other tools read
REPORT_EVERY = 200  # files between two messages of a worker


class BadFile(Exception):
    """A file that cannot be judged; its text is the sentence for the user."""


def fail(message):
    sys.exit("error: " + " ".join(str(message).splitlines()))


def image_name(path):
    """The part of a file's name before its first dot: what ais_bench names a result by."""
    return os.path.basename(path).split(".")[0]


def read_labels(path):
    """{image name: class} of lines "FILE CLASS"; folders before FILE and the Windows ends of lines are allowed."""
    labels = {}
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                fields = line.rsplit(None, 1)
                if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
                    fail("%s: line %d is not \"FILE CLASS\" but %r" % (path, number, line.strip()[:80]))
                name = image_name(fields[0])
                if name in labels:
                    fail("%s: line %d labels %s a second time" % (path, number, name))
                labels[name] = int(fields[1])
    except OSError as error:
        fail("%s: %s" % (path, error.strerror))
    if not labels:
        fail("%s: holds no labels" % path)
    return labels


def find_results(folder):
    """{image name: path} of the first outputs (NAME_0.*) in a folder and in its device*/ folders."""
    try:
        folders = [folder] + sorted(entry.path for entry in os.scandir(folder)
                                    if entry.is_dir() and entry.name.startswith("device"))
        paths = [os.path.join(place, name) for place in folders for name in sorted(os.listdir(place))]
    except OSError as error:
        fail("%s: %s" % (error.filename or folder, error.strerror))
    results = {}
    for path in paths:
        stem, extension = os.path.splitext(os.path.basename(path))
        if extension not in (".txt", ".bin", ".npy"):
            continue
        name, _, output = stem.rpartition("_")
        if not name or not output.isdigit() or (output[0] == "0" and output != "0"):
            fail("%s: is not named like a result, NAME_0%s" % (path, extension))
        if output != "0":
            continue  # a model's further outputs
        if name in results:
            fail("%s and %s are results of the same image; remove the stale one" % (results[name], path))
        results[name] = path
    if not results:
        fail("%s: holds no results (looked for NAME_0.txt, .bin and .npy there and in device*/)" % folder)
    return results


def read_scores(path):
    """The scores of one result as a 1-d array; of a .txt of %f values as int64 millionths, which rank alike."""
    try:
        if path.endswith(".bin"):
            scores = np.fromfile(path, "<f4")
            if not scores.size or scores.nbytes != os.path.getsize(path):
                raise BadFile("%s: is not a row of float32 values (%d bytes)" % (path, os.path.getsize(path)))
        elif path.endswith(".npy"):
            scores = np.load(path, allow_pickle=False)
            if scores.dtype.kind != "f" or scores.size != scores.shape[-1]:
                raise BadFile("%s: holds %s %s, not one row of scores" % (path, scores.dtype, scores.shape))
            scores = scores.reshape(-1)
        else:
            with open(path, "rb") as file:
                scores = parse_text(file.read(), path)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise BadFile("%s: cannot be read: %s" % (path, error)) from None
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise BadFile("%s: holds NaN or infinite scores" % path)
    return scores


def parse_text(data, path):
    """One line of numbers. All in %f, as ais_bench writes them: without its dots the line is of whole millionths,
    which numpy reads six times as fast as floats (benchmarks/README.md)."""
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
    return np.array([float(number) for number in data.split()])


def rank_of(label, scores):
    """How many classes are ranked before the label: higher scores, and equal scores of lower index."""
    score = scores[label]
    return np.count_nonzero(scores > score) + np.count_nonzero(scores[:label] == score)


def work(jobs, classes, report):
    """A worker process: the ranks of [(path, index of the label)], sent in order; a text in place of ranks is an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # numpy's about text it cannot parse: parse_text counts what it got
    try:
        for first in range(0, len(jobs), REPORT_EVERY):
            ranks = []
            for path, index in jobs[first:first + REPORT_EVERY]:
                scores = read_scores(path)
                if scores.size != classes:
                    raise BadFile("%s: holds %d scores, the first result holds %d" % (path, scores.size, classes))
                ranks.append(rank_of(index, scores))
            report.send(ranks)
    except BadFile as error:
        report.send(str(error))
    except OSError:
        pass  # the parent is gone


def judge(jobs, classes):
    """Ranks of all jobs, in order, by as many processes as this one may use CPUs; exits at the first bad file."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = -(-len(jobs) // cpus)
    shares = [jobs[first:first + share] for first in range(0, len(jobs), share)]
    processes, ranks = [], []
    for part in shares:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=work, args=(part, classes, sender), daemon=True)
        process.start()
        sender.close()
        processes.append((process, receiver, part))
    with tqdm(total=len(jobs), unit="file", desc="evaluate", disable=None) as bar:
        for process, receiver, part in processes:
            end = len(ranks) + len(part)
            while len(ranks) < end:
                try:
                    message = receiver.recv()
                except EOFError:
                    process.join()
                    fail("a worker process died (exit code %s, -9 mostly means out of memory)" % process.exitcode)
                if isinstance(message, str):
                    fail(message)
                ranks += message
                bar.update(len(message))
    return np.array(ranks)


def engine_of(folder):
    """Which engine wrote these results, by the summary beside or in the folder."""
    of_devices = sorted(glob.glob(os.path.join(glob.escape(folder), "device*_summary.json")))
    for path in [os.path.normpath(folder) + "_summary.json"] + of_devices + [os.path.join(folder, "sumary.json")]:
        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file).get("engine", "ais_bench")
        except (OSError, ValueError, AttributeError):
            continue
    return "unknown (no summary beside the results)"


def write_json(path, content):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(temporary, path)


def parse_args():
    def positive(text):
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError("%r is not a positive whole number" % text)
        return int(text)

    parser = argparse.ArgumentParser(description="Compare inference results with labels for Top-1 ... Top-5.")
    parser.add_argument("result", metavar="RESULT", help="folder of the inference results")
    parser.add_argument("labels", metavar="LABELS", help="val_label.txt")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="folder for the JSON, made where missing")
    parser.add_argument("json_name", metavar="JSON_NAME", help="name of the JSON, for example result.json")
    parser.add_argument("--expect", metavar="N", type=positive, help="an error unless there are exactly N results")
    return parser.parse_args()


def main():
    args = parse_args()
    labels = read_labels(args.labels)
    results = find_results(args.result)
    if args.expect not in (None, len(results)):
        fail("%s: holds results of %d images, expected %d" % (args.result, len(results), args.expect))
    for name, path in results.items():
        if name not in labels:
            fail("%s: its image %s has no label in %s" % (path, name, args.labels))
    try:
        classes = read_scores(next(iter(results.values()))).size
    except BadFile as error:
        fail(error)
    shift = 1 if classes == 1001 else 0  # such models count a background class first, as the ModelZoo's script knows
    for name, label in labels.items():  # all of them, not only those judged: one that counts from 1 shows itself here
        if label >= classes - shift:
            fail("%s: labels %s as class %d, but the results have classes 0 to %d"
                 % (args.labels, name, label, classes - shift - 1))
    ranks = judge([(path, labels[name] + shift) for name, path in results.items()], classes)

    accuracy = ["%.2f%%" % (100.0 * np.count_nonzero(ranks < top) / len(ranks)) for top in range(1, TOP + 1)]
    values = [("Number of images", str(len(ranks))), ("Number of classes", str(classes))]
    values += [("Top%d accuracy" % (place + 1), percent) for place, percent in enumerate(accuracy)]
    engine = engine_of(args.result)
    content = {"title": TITLE, "value": [{"key": key, "value": value} for key, value in values],
               "images": {"judged": len(ranks), "labelled": len(labels)}, "engine": engine}
    try:
        os.makedirs(args.out_dir, exist_ok=True)
        write_json(os.path.join(args.out_dir, args.json_name), content)
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))
    print("Top-1 %s  Top-5 %s  of %d of %d labelled images, %d classes, engine: %s"
          % (accuracy[0], accuracy[TOP - 1], len(ranks), len(labels), classes, engine))
    if len(ranks) < len(labels):
        print("warning: only %d of %d labelled images have a result; the accuracy is of those alone"
              % (len(ranks), len(labels)), file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
