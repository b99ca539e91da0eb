#!/usr/bin/env python3
"""Compare inference results with labels for Top-1 ... Top-5 (the guide's stage "accuracy").

    python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json

RESULT holds NAME_0.txt (one line of scores), NAME_0.bin or NAME_0.npy an image, in itself, in device*/ or in shardK_of_N/
folders, as ais_bench, npu_infer.py and onnx_infer.py write them; where a summary lies beside them, they must be what it lists.
LABELS has a line "FILE CLASS" an image, classes counted from 0. Run again with the same results and labels, it says `kept`.
Exit codes: 0 every result was judged; 1 something is wrong with a file, which is named; 2 wrong usage; 3 the accuracy is below
--min-top1 or --min-top5 (the JSON is written); 130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import functools
import gc
import json

import numpy as np

from common import accuracies, files, imagenet, labels, results, scores, statistics, workers
from common.command import fail, warn

VERSION = 2  # raised when other figures come of the same inputs
TOP = 5
WORST, MISTAKES = 10, 12  # worst classes and wrongly judged images in the JSON
FLAT = 0.001  # part of the images whose rank TXT's six decimals may leave open
FEW = 9  # classes, of which a net may give all the same score, in fp16
# What is found of an image. best: the class of the highest score; real: the rank of the best of --real's labels, or -1; flat:
# whether TXT's six decimals leave the rank open; confidence: the largest probability, of wrong images only
VERDICT = [("done", "?"), ("rank", "i4"), ("best", "i4"), ("real", "i4"), ("flat", "?"), ("confidence", "f8")]


def open_results(folder, args, truth):
    """The Results in a folder; exits where a label of {name: class} is none of their classes, also of an image without one."""
    opened, last = results.Results(folder), max(truth, key=truth.get)
    opened.find_format(truth[last] + 1, args.dtype)
    classes = opened.classes - opened.background
    if truth[last] >= classes:
        fail("%s: labels %s as class %d, but %s has classes 0 to %d: %s" % (
            args.labels, last, truth[last], folder, classes - 1, imagenet.why_beyond(truth[last], classes)))
    if opened.probabilities and opened.outfmt == "TXT":
        fail("%s: holds probabilities; %%f flattens probabilities into ties, so ranks are wrong; use --outfmt BIN" % folder)
    return opened


# ---- judging ----

def rank_of(label, row):
    """(how many classes rank before the label: of higher score, or equal and of lower index; whether %f made them equal)."""
    equal, higher = row == row[label], np.count_nonzero(row > row[label])
    if np.count_nonzero(equal) == 1:
        return higher, False
    flat = row.dtype.kind == "i" and row.max() - row.min() <= 1000000  # millionths: a sigmoid's scores are within 0 to 1
    return higher + np.count_nonzero(equal[:label]), flat


def judge_image(opened, name, label, real):
    """The VERDICT on an image but for "done". label: the right class; real: those that --real takes for right."""
    row, shift = opened.scores(name), opened.background
    if row[0] == row[-1] and len(row) > FEW and row.min() == row.max():  # the ends first, which cost nothing
        fail("%s: all its scores are equal, %g: the model computed nothing, or only zeros were written; compare with "
             "onnx_infer.py" % (opened.files[name].path, scores.as_floats(row)[0]))
    rank, flat = rank_of(label + shift, row)
    best_real = min([rank_of(each + shift, row)[0] for each in real], default=-1)
    if not rank:
        return rank, label, best_real, flat, 0
    best, floats = row.argmax(), scores.as_floats(row)
    confidence = floats[best] if opened.probabilities else 1 / np.exp(floats - floats[best]).sum()
    return rank, best - shift, best_real, flat, confidence


def judge_all(opened, jobs):
    """The VERDICTs on jobs, [(image name, class, classes of --real)], as an array; exits at the first bad file."""
    verdicts = workers.run_jobs(functools.partial(judge_image, opened), jobs, VERDICT, "evaluate")
    flat = np.count_nonzero(verdicts["flat"])
    if flat > FLAT * len(jobs):
        fail("%s: %%f flattens the scores of %d of %d images into ties, so their ranks are open; use --outfmt BIN"
             % (opened.folder, flat, len(jobs)))
    return verdicts


# ---- what the verdicts say ----

def per_class(truth, ranks, names):
    """[{class, name, images, top1, top5}] of the classes that have judged images, in order; shares in percent."""
    images, top1, top5 = np.bincount(truth), np.bincount(truth, ranks < 1), np.bincount(truth, ranks < TOP)
    return [{"class": label, "name": names[label], "images": int(images[label]),
             "top1": 100.0 * float(top1[label] / images[label]), "top5": 100.0 * float(top5[label] / images[label])}
            for label in np.flatnonzero(images).tolist()]


def find_mistakes(opened, jobs, verdicts, class_names):
    """The wrongly judged images of the largest confidence, [{image, label, label_name, guesses}]; the guesses are the classes of
    the five highest scores, the lower class first among equals: [{class, name, probability}]."""
    shift, mistakes, wrong = opened.background, [], np.flatnonzero(verdicts["rank"])
    order = np.argsort(-np.round(verdicts["confidence"][wrong], 4), kind="stable")
    for index in wrong[order[:MISTAKES]]:
        name, label, _ = jobs[index]
        row = scores.as_floats(opened.scores(name))
        powers = np.exp(row - row.max())
        shares = row if opened.probabilities else powers / powers.sum()  # no softmax of a softmax
        guesses = [{"class": guess, "name": class_names[guess], "probability": round(min(1.0, float(shares[guess + shift])), 4)}
                   for guess in np.argsort(-row[shift:], kind="stable")[:TOP].tolist()]
        mistakes.append({"image": name, "label": label, "label_name": class_names[label], "guesses": guesses})
    return mistakes


def pair(opened, baseline, jobs, ranks):
    """The baseline's results for the same images, judged and compared image by image."""
    baseline.spell_as(opened)
    differing = sorted(set(opened.files) ^ set(baseline.files))
    if differing:
        first, second = (opened, baseline) if differing[0] in opened.files else (baseline, opened)
        fail("%s: has no result for %s, as %s has; a baseline must be of the same images" % (
            second.folder, differing[0], first.folder))
    results.require_same_images(opened, baseline, opened.files)
    if baseline.run["precision"] == "int8":
        fail("%s: is of an INT8 model, and a baseline of a float model" % baseline.folder)
    if None not in (opened.weights, baseline.weights) and opened.weights != baseline.weights:
        fail("%s and %s: their models are of different weights (another checkpoint)" % (opened.folder, baseline.folder))
    before = judge_all(baseline, jobs)["rank"]
    top1, top5 = (statistics.compare_pairs(ranks < top, before < top) for top in (1, TOP))
    return {"baseline": baseline.folder, "baseline_engine": baseline.run["engine"],
            "baseline_precision": baseline.run["precision"], "baseline_summary_sha256": baseline.sha256,
            "baseline_input": baseline.input_of(job[0] for job in jobs), "images": len(jobs), "top1": top1, "top5": top5,
            "mlperf": statistics.mlperf(top1["accuracy"], top1["baseline"])}


def check_exclude(args, opened, excluded, not_found):
    """Speak of images of --exclude that have no result. An INT8 model's list may have such: it was calibrated on those, and of
    these a part is judged, or none."""
    is_int8, is_any_found = opened.run["precision"] == "int8", len(not_found) < len(excluded)
    if not_found and not (is_int8 and is_any_found):
        say = warn if is_int8 or is_any_found else fail
        say("%s: %d of its %d images have no result here, first %s" % (
            args.exclude, len(not_found), len(excluded), min(not_found)))


def is_calibration_shared(opened, exclude_sha256, not_found):
    """Whether images that the INT8 model was calibrated on were judged: True, False, or None where nothing tells."""
    calibration = (opened.run["model"] or {}).get("calibration") or {}
    is_excluded = exclude_sha256 and calibration.get("names_sha256") == exclude_sha256
    if is_excluded and not not_found:  # a name that is not found may be spelt otherwise here
        return False
    return calibration.get("shared") or None


def evaluate(args, opened, baseline, jobs, class_names, truth):
    """The figures of the JSON, and the bytes of --per-class."""
    verdicts, right = judge_all(opened, jobs), np.array([label for _, label, _ in jobs])
    ranks, classes, count = verdicts["rank"], len(class_names), len(opened.files)
    accuracy = statistics.accuracy_of(ranks, range(1, TOP + 1))
    values = [("Number of images", "%d" % len(jobs)), ("Number of classes", "%d" % classes)]  # the ModelZoo's
    values += [("T" + key[1:] + " accuracy", "%.2f%%" % share) for key, share in accuracy.items()]
    of_classes, with_real = per_class(right, ranks, class_names), verdicts["real"][verdicts["real"] >= 0]
    figures = {
        "value": [{"key": key, "value": value} for key, value in values], "accuracy": accuracy,
        "interval95": {"top%d" % top: statistics.interval(np.count_nonzero(ranks < top), len(jobs)) for top in (1, TOP)},
        "classes": classes, "labelled_classes": len(set(truth.values())), "judged_classes": len(of_classes),
        "background_class": bool(opened.background),
        "images": {"judged": len(jobs), "labelled": len(truth), "excluded": count - len(jobs), "results": count},
        "chance_top5": 100.0 * min(TOP, classes) / classes, "input": opened.input_of(job[0] for job in jobs),
        "labels_doubt": statistics.doubt(right, verdicts["best"], classes),
        "published": imagenet.compare_with_published(opened.weights, len(jobs), accuracy),
        "real": dict(statistics.accuracy_of(with_real, (1, TOP)), images=len(with_real)) if len(with_real) else None,
        "per_class_worst": sorted(of_classes, key=lambda row: (row["top1"], row["top5"], row["class"]))[:WORST],
        "mistakes": find_mistakes(opened, jobs, verdicts, class_names),
        "paired": pair(opened, baseline, jobs, ranks) if baseline else None,
        "gates": [{"name": name, "measured": accuracy[key], "limit": limit, "passes": accuracy[key] >= limit}
                  for name, key, limit in (("Top-1", "top1", args.min_top1), ("Top-5", "top5", args.min_top5))
                  if limit is not None]}
    return figures, accuracies.csv_of(of_classes)


def say_kept(path):
    """The one line of a JSON that is kept, and its gates that fail; returns the exit code."""
    content = files.read_json(path)
    with files.as_written(path):
        print("kept: %s, Top-1 %.2f%% Top-5 %.2f%% of %d images" % (
            path, content["accuracy"]["top1"], content["accuracy"]["top5"], content["images"]["judged"]))
        accuracies.warn_of(content)
        return accuracies.show_gates([gate for gate in content["gates"] if not gate["passes"]])


# ---- the command line ----

def parse_args():
    parser = command.parser(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("result", metavar="RESULT", help="folder of the inference results")
    add("labels", metavar="LABELS", help="val_label.txt")
    add("out_dir", metavar="OUT_DIR", help="folder for the JSON, made where missing")
    add("json_name", metavar="JSON_NAME", help="name of the JSON, for example result.json")
    add("--expect", metavar="N", type=command.whole(), help="an error unless there are exactly N results")
    add("--per-class", metavar="CSV", help="file for the accuracy of each class")
    add("--classes", metavar="FILE", help="names of the classes, one a line (default: torchvision's, of ImageNet)")
    add("--exclude", metavar="FILE", help="image names to leave out, one a line: those an INT8 model was calibrated on")
    add("--baseline", metavar="DIR", help="float results of the same images, to compare with image by image")
    add("--real", metavar="FILE", help="real.json, ImageNet's reassessed labels, to judge by as well")
    add("--dtype", choices=scores.DTYPES, help="of .bin results of which no summary says it")
    add("--min-top1", metavar="P", type=command.number(0, 100), help="exit with 3 where Top-1 is below P percent")
    add("--min-top5", metavar="P", type=command.number(0, 100), help="exit with 3 where Top-5 is below P percent")
    add("--overwrite", action="store_true", help="judge again what is finished; replace files that are not this command's")
    add("--check", action="store_true", help="do nothing; exit code 0 where the JSON is there and of just these inputs, else 1")
    args = parser.parse_args()
    args.json = os.path.join(args.out_dir, args.json_name)
    return args


def main():
    args = parse_args()
    gc.disable()  # in lists of 50 000 there is no garbage, and Python would look through them again and again for some
    truth, labels_sha256 = labels.read(args.labels)
    excluded, exclude_sha256 = labels.read_exclude(args.exclude) if args.exclude else (set(), None)
    both = [open_results(folder, args, truth) for folder in (args.result, args.baseline) if folder]
    opened, baseline = (both + [None])[:2]
    classes = opened.classes - opened.background
    class_names = (labels.read_names(args.classes, classes) if args.classes else
                   imagenet.class_names(classes, opened.weights, opened.files))
    real, real_sha256 = imagenet.read_real(args.real, opened.files, classes) if args.real else ({}, None)
    made_from = {"version": VERSION, "summary": opened.sha256, "labels": labels_sha256, "exclude": exclude_sha256,
                 "real": real_sha256, "baseline": baseline and baseline.sha256,
                 "class_names": files.sha256("\n".join(class_names).encode("utf-8", "surrogateescape")),
                 "options": {key: getattr(args, key) for key in ("expect", "dtype", "min_top1", "min_top5")}}
    csv_sha256 = files.sha256_of(args.per_class) if args.per_class and os.path.isfile(args.per_class) else None
    has_csv = not args.per_class or csv_sha256 == files.peek_json(args.json).get("per_class_sha256", "none")
    kept = not args.overwrite and has_csv and results.is_json_kept(args.json, made_from, both)
    if args.check:
        return 0 if kept else 1
    if kept:
        return say_kept(args.json)

    os.makedirs(os.path.dirname(args.json) or ".", exist_ok=True)
    inputs = [args.labels, args.classes, args.exclude, args.real]
    results.check_target(args.json, both, inputs, lambda path: "per_class_worst" in files.peek_json(path), args.overwrite)
    if args.per_class:
        results.check_target(args.per_class, both, inputs + [args.json], accuracies.is_our_csv, args.overwrite)
    if args.expect not in (None, len(opened.files)):
        fail("%s: holds results of %d images, expected %d" % (args.result, len(opened.files), args.expect))
    keys = {name: labels.key(name) for name in opened.files}
    missing = [name for name in keys if keys[name] not in truth]
    if missing:
        fail("%s: its image %s has no label in %s" % (opened.files[missing[0]].path, missing[0], args.labels))
    jobs = [(name, truth[key], real.get(name, ())) for name, key in keys.items() if key not in excluded]
    if not jobs:
        fail("%s: leaves none of the results to judge" % args.exclude)
    for option, limit in (("--min-top1", args.min_top1), ("--min-top5", args.min_top5)):
        if limit is not None and 0 < limit < 1:
            warn("%s %g is %g percent; did you mean %g?" % (option, limit, limit, 100 * limit))
    labels.warn_of_names(args.labels, truth, classes)
    not_found = excluded.difference(keys.values())
    check_exclude(args, opened, excluded, not_found)
    figures, table = evaluate(args, opened, baseline, jobs, class_names, truth)
    content = dict(opened.run, title=results.TITLE, schema=1, made_from=made_from, shards=opened.shards,
                   result=args.result, summary_sha256=opened.sha256, labels=args.labels, labels_sha256=labels_sha256,
                   exclude_sha256=exclude_sha256,
                   calibration_shared=is_calibration_shared(opened, exclude_sha256, not_found),
                   per_class_sha256=files.sha256(table), **figures)
    written = {args.per_class: table} if args.per_class else {}
    files.write_all(dict(written, **{args.json: json.dumps(content, allow_nan=False).encode()}))
    accuracies.show(content)
    return accuracies.show_gates(content["gates"])


if __name__ == "__main__":
    command.run(main)
