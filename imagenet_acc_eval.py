#!/usr/bin/env python3
"""Compare inference results with labels for Top-1 ... Top-5 (the guide's stage "accuracy").

    python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json

RESULT holds NAME_0.txt (one line of scores), NAME_0.bin (float32) or NAME_0.npy an image, in itself or in device*/
folders, as ais_bench and onnx_infer.py write them. LABELS has a line "FILE CLASS" an image, classes counted from 0.
With --reference it also compares the scores with another engine's on the same inputs.
Exit code 0: every result was judged; 1: something is wrong with a file, which is named, or the results are not those of
the reference (the JSON is written then and says so); 2: wrong usage.
"""
import argparse
import ast
import csv
import glob
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing import connection

import numpy as np
from tqdm import tqdm

TOP = 5
TITLE = "Overall statistical evaluation"  # of the ModelZoo's JSON, which other tools read
REPORT_EVERY = 200  # files between two messages of a worker
NORMAL_975 = 1.959964  # 97.5 % quantile of the normal distribution, for two-sided 95 % intervals
SHOWN = 10  # worst classes and most different images in the JSON
MISTAKES = 12  # wrongly judged images in the JSON, those of the largest confidence
# An image's scores agree with the reference's when no score is off by more than this part of the reference's largest.
# An honest fp16 copy stays an order of magnitude below it, swapped channels as far above (tests/test_fidelity.py).
RELATIVE_LIMIT = 0.02


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
        files = [(place, name) for place in folders for name in sorted(os.listdir(place))]
    except OSError as error:
        fail("%s: %s" % (error.filename or folder, error.strerror))
    results = {}
    for place, file in files:
        stem, _, extension = file.rpartition(".")
        if not stem or extension not in ("txt", "bin", "npy"):
            continue
        path = os.path.join(place, file)
        name, _, output = stem.rpartition("_")
        if not name or not output.isdigit() or (output[0] == "0" and output != "0"):
            fail("%s: is not named like a result, NAME_0.%s" % (path, extension))
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
            with open(path, "rb", buffering=0) as file:  # np.fromfile takes twice as long (benchmarks/README.md)
                data = file.read()
            if not data or len(data) % 4:
                raise BadFile("%s: is not a row of float32 values (%d bytes)" % (path, len(data)))
            scores = np.frombuffer(data, "<f4")
        elif path.endswith(".npy"):
            scores = np.load(path, allow_pickle=False)
            if scores.dtype.kind != "f" or scores.size != scores.shape[-1]:
                raise BadFile("%s: holds %s %s, not one row of scores" % (path, scores.dtype, scores.shape))
            scores = scores.reshape(-1)
        else:
            with open(path, "rb", buffering=0) as file:
                scores = parse_text(file.read(), path)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise BadFile("%s: cannot be read: %s" % (path, error)) from None
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise BadFile("%s: holds NaN or infinite scores" % path)
    return scores


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
    return np.array([float(number) for number in data.split()])


def rank_of(label, scores):
    """How many classes are ranked before the label: higher scores, and equal scores of lower index."""
    score = scores[label]
    return np.count_nonzero(scores > score) + np.count_nonzero(scores[:label] == score)


def as_floats(scores):
    """Scores as read_scores gives them, in float64 and in the file's own unit."""
    return scores / 1e6 if scores.dtype.kind == "i" else scores.astype(np.float64)


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def confidence_of(scores):
    """The largest probability of the softmax, of scores as read_scores gives them."""
    below = scores - scores.max()
    return 1 / float(np.exp(below * 1e-6 if scores.dtype.kind == "i" else below).sum())


def work(jobs, classes, report):
    """A worker process: (rank, confidence) of each of [(path, index of the label)], sent in order; a text is an error.

    The confidence is the largest probability (softmax of the scores), worked out for wrongly judged images alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # numpy's about text it cannot parse: parse_text counts what it got
    try:
        for first in range(0, len(jobs), REPORT_EVERY):
            judged = []
            for path, index in jobs[first:first + REPORT_EVERY]:
                scores = read_scores(path)
                if scores.size != classes:
                    raise BadFile("%s: holds %d scores, the first result holds %d" % (path, scores.size, classes))
                rank = rank_of(index, scores)
                judged.append((rank, confidence_of(scores) if rank else 0.0))
            report.send(judged)
    except BadFile as error:
        report.send(str(error))
    except OSError:
        pass  # the parent is gone


def judge(jobs, classes):
    """Ranks and confidences of all jobs, in order, by as many processes as there are CPUs; exits at the first bad file."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = -(-len(jobs) // cpus)
    shares = [jobs[first:first + share] for first in range(0, len(jobs), share)]
    waiting, judged = {}, [[] for _ in shares]
    for part, into in zip(shares, judged):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=work, args=(part, classes, sender), daemon=True)
        process.start()
        sender.close()
        waiting[receiver] = process, len(part), into
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
                if isinstance(message, str):
                    fail(message)
                into += message
                bar.update(len(message))
    ranks, confidences = zip(*itertools.chain(*judged))
    return np.array(ranks), np.array(confidences)


def interval(hits, total):
    """Wilson's 95 % interval of a share, in percent: (z^2/2n + p +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    share, square = hits / total, NORMAL_975 ** 2 / total
    half = NORMAL_975 * np.sqrt(share * (1 - share) / total + square / (4 * total))
    return [round(float(100 * (share + square / 2 + sign * half) / (1 + square)), 2) for sign in (-1, 1)]


def per_class(labels, ranks):
    """[{class, images, top1, top5}] of the classes that have judged images, in order; shares in percent."""
    rows = []
    for number in np.unique(labels):
        of_class = ranks[labels == number]
        rows.append({"class": int(number), "images": len(of_class), "top1": 100.0 * float(np.mean(of_class < 1)),
                     "top5": 100.0 * float(np.mean(of_class < TOP))})
    return rows


def best_guesses(scores, shift):
    """[{class, probability}] of the five highest scores, the lower class first among equals."""
    probabilities = softmax(as_floats(scores))
    order = np.argsort(-as_floats(scores), kind="stable")[:TOP]
    return [{"class": int(place) - shift, "probability": round(float(probabilities[place]), 4)} for place in order]


def find_mistakes(results, labels, ranks, confidences, shift):
    """The wrongly judged images of the largest confidence: [{image, label, guesses}]."""
    names = list(results)
    wrong = np.argsort(-np.round(np.where(ranks, confidences, -1), 4), kind="stable")[:MISTAKES]
    wrong = wrong[ranks[wrong] > 0]
    return [{"image": names[place], "label": labels[names[place]],
             "guesses": best_guesses(read_scores(results[names[place]]), shift)} for place in wrong]


def compare_one(scores, reference):
    """How one image's scores (1-d, float64) differ from the reference's; see compare for the keys."""
    difference = float(np.abs(scores - reference).max())
    largest = float(np.abs(reference).max())
    norms = float(np.linalg.norm(scores) * np.linalg.norm(reference))
    first, second = np.argsort(-scores, kind="stable")[:TOP], np.argsort(-reference, kind="stable")[:TOP]
    return {"top1": int(first[0]), "reference_top1": int(second[0]), "same_top5": set(first) == set(second),
            "cosine": min(1.0, float(scores @ reference) / norms) if norms else float(difference == 0),
            "absolute_difference": difference, "relative_difference": difference / largest if largest else float(difference > 0)}


def compare(results, folder, shift):
    """Fidelity: the scores of these results against those of another engine in folder, for every image that is there.

    Top-1 agreement and equality of the Top-5 sets in percent; cosine similarity of the scores; the largest absolute
    difference, and the largest relative one: an image's largest difference by the reference's largest absolute score.
    """
    references, images = find_results(folder), []
    for name, path in tqdm(references.items(), unit="image", desc="compare", disable=None):
        if name not in results:
            fail("%s: has no counterpart among the results; the reference must be of the same images" % path)
        try:
            scores, reference = as_floats(read_scores(results[name])), as_floats(read_scores(path))
        except BadFile as error:
            fail(error)
        if scores.size != reference.size:
            fail("%s: holds %d scores, %s holds %d" % (results[name], scores.size, path, reference.size))
        images.append(dict(compare_one(scores, reference), image=name))
    images.sort(key=lambda image: (-image["relative_difference"], image["image"]))
    for image in images:
        image["top1"], image["reference_top1"] = image["top1"] - shift, image["reference_top1"] - shift
    cosines = [image["cosine"] for image in images]
    return {"reference": folder, "engine": engine_of(folder), "compared": len(images),
            "top1_agreement": 100.0 * float(np.mean([image["top1"] == image["reference_top1"] for image in images])),
            "top5_set_agreement": 100.0 * float(np.mean([image["same_top5"] for image in images])),
            "cosine_mean": float(np.mean(cosines)), "cosine_worst": min(cosines),
            "absolute_difference": max(image["absolute_difference"] for image in images),
            "relative_difference": images[0]["relative_difference"], "relative_limit": RELATIVE_LIMIT,
            "agrees": images[0]["relative_difference"] <= RELATIVE_LIMIT, "most_different": images[:SHOWN]}


def class_names(path, classes):
    """Names of the classes: of a file with one a line, else of torchvision where it is installed, else their numbers."""
    if path:
        try:
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                names = file.read().splitlines()
        except OSError as error:
            fail("%s: %s" % (path, error.strerror))
        if len(names) != classes:
            fail("%s: has %d lines, the results have %d classes; it needs one name a line" % (path, len(names), classes))
        return names
    try:  # read, not imported: torchvision would import torch
        found = importlib.util.find_spec("torchvision")
        with open(os.path.join(os.path.dirname(found.origin), "models", "_meta.py"), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        names = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                     and node.targets[0].id == "_IMAGENET_CATEGORIES")
    except Exception:  # a torchvision without the list, or without the file, or none
        names = []
    return names if len(names) == classes else [str(number) for number in range(classes)]


def csv_of(rows, names):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "name", "images", "top1", "top5"])
    for row in rows:
        writer.writerow([row["class"], names[row["class"]], row["images"], "%.2f" % row["top1"], "%.2f" % row["top5"]])
    return text.getvalue()


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


def summarise(ranks, classes, of_classes, engine, labelled):
    """The ModelZoo's JSON, and under further keys what its readers need not know."""
    hits = [int(np.count_nonzero(ranks < top)) for top in range(1, TOP + 1)]
    values = [("Number of images", "%d" % len(ranks)), ("Number of classes", "%d" % classes)]
    values += [("Top%d accuracy" % top, "%.2f%%" % (100.0 * hit / len(ranks))) for top, hit in enumerate(hits, 1)]
    worst = sorted(of_classes, key=lambda row: (row["top1"], row["top5"], row["class"]))[:SHOWN]
    return {"title": TITLE, "value": [{"key": key, "value": value} for key, value in values],
            "images": {"judged": len(ranks), "labelled": labelled}, "engine": engine,
            "interval95": {"top1": interval(hits[0], len(ranks)), "top5": interval(hits[-1], len(ranks))}, "worst_classes": worst}


def tell_fidelity(folder, fidelity):
    """Print what compare found; exits with a sentence when these results are not those of the reference."""
    print("fidelity to %(engine)s, %(compared)d images: Top-1 agreement %(top1_agreement).2f%%, equal Top-5 sets "
          "%(top5_set_agreement).2f%%, cosine similarity mean %(cosine_mean).6f worst %(cosine_worst).6f, largest difference "
          "%(absolute_difference).4g (relative %(relative_difference).4g)" % fidelity)
    if not fidelity["agrees"]:
        fail("%s: is not what %s has for the same images: %s is off by %.3g of its largest score (limit %g); suspect swapped "
             "channels or missing normalisation (AIPP), another checkpoint, an overflow in fp16, or results of other images"
             % (folder, fidelity["reference"], fidelity["most_different"][0]["image"], fidelity["relative_difference"],
                RELATIVE_LIMIT))


def write_whole(path, text):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
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
    parser.add_argument("--reference", metavar="DIR", help="results of another engine on the same inputs, to compare with")
    parser.add_argument("--per-class", metavar="CSV", help="file for the accuracy of each class")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes for it, one a line (default: torchvision's)")
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
    names = class_names(args.classes, classes - shift) if args.per_class else None
    fidelity = compare(results, args.reference, shift) if args.reference else None
    ranks, confidences = judge([(path, labels[name] + shift) for name, path in results.items()], classes)

    engine, of_classes = engine_of(args.result), per_class(np.array([labels[name] for name in results]), ranks)
    content = summarise(ranks, classes, of_classes, engine, len(labels))
    content["mistakes"] = find_mistakes(results, labels, ranks, confidences, shift)
    if fidelity:
        content["fidelity"] = fidelity
    try:
        if args.per_class:
            write_whole(args.per_class, csv_of(of_classes, names))
        os.makedirs(args.out_dir, exist_ok=True)
        write_whole(os.path.join(args.out_dir, args.json_name), json.dumps(content))
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))

    accuracy = {item["key"]: item["value"] for item in content["value"]}
    print("Top-1 %s  Top-5 %s  of %d of %d labelled images, %d classes, engine: %s"
          % (accuracy["Top1 accuracy"], accuracy["Top%d accuracy" % TOP], len(ranks), len(labels), classes, engine))
    print("95% intervals: " + ", ".join("%s %.2f%% to %.2f%%" % (name, low, high)
                                        for name, (low, high) in zip(("Top-1", "Top-5"), content["interval95"].values())))
    if len(ranks) < len(labels):
        print("warning: only %d of %d labelled images have a result; the accuracy is of those alone"
              % (len(ranks), len(labels)), file=sys.stderr)
    if fidelity:
        tell_fidelity(args.result, fidelity)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
