#!/usr/bin/env python3
"""Compare one engine's scores with another's for the same images: how far apart they are, and whether that is too far.

    python3 compare_scores.py ./result ./reference --json fidelity.json

Both folders hold results as onnx_infer.py, npu_infer.py and ais_bench write them (NAME_0.txt, .bin, .npy; device*/ and
shardK_of_N/ folders). Every image of REFERENCE must be in RESULT; RESULT may hold more. No labels are needed.
Exit codes: 0 they agree; 1 something is wrong with a file, which is named; 2 wrong usage; 3 they disagree (the JSON is written);
130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import signal
import sys

if __name__ == "__main__":  # before numpy is imported
    def stopped(number, frame):
        """Ctrl-C, or the SIGTERM of a scheduler."""
        signal.signal(number, signal.SIG_IGN)
        try:
            os.write(2, b"stopped; nothing was written\n")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
        except OSError:
            pass
        sys.exit(128 + number)

    for signum in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, stopped)
    for descriptor in (0, 1, 2):  # closed ones: no data file may become standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w", closefd=False), sys.stderr or open(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")

import argparse
import collections
import fcntl
import hashlib
import io
import json
import math
import re
import stat

import numpy as np
from tqdm import tqdm

TOP = 5
SHOWN = 10  # most different images in the JSON
# Scores agree when no image's are off by more than this part of the reference's largest. An honest fp16 copy stays an order of
# magnitude below it, swapped channels as far above (tests/test_compare.py).
RELATIVE_LIMIT = 0.02
INNER = re.compile(r"device.*|shard[1-9][0-9]*_of_[1-9][0-9]*")
LARGEST = 2 ** 29  # bytes of any file that is read here
NOTHING = {"engine": "not recorded", "precision": None, "recipe": None, "dtype": None, "shape": None}  # of a lacking summary
# identity: before the folder was listed; facts, path, sha256: of its summary, None where there is none
Part = collections.namedtuple("Part", "folder identity facts path sha256")


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def read_file(path):
    """The bytes of a regular file; a FIFO would hang."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
        fail("%s: is no regular file of at most %d bytes" % (path, LARGEST))
    with open(descriptor, "rb") as file:
        return file.read()


def identity(folder):
    """What changes when a folder is replaced, or a file in it made, replaced or removed."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino, state.st_mtime_ns


def find_results(folder, parts, results):
    """Appends a Part to parts for a folder and each device and shard folder in it, and puts their {image name: path of the
    first output} into results. A folder with a summary must hold exactly what that lists."""
    opened, names = identity(folder), sorted(os.listdir(folder))
    beside = (os.path.abspath(folder) if os.path.basename(folder) in ("", ".", "..") else folder) + "_summary.json"
    inner = os.path.join(folder, ".summary.json")
    path = next(filter(os.path.lexists, (inner, beside, os.path.join(folder, "sumary.json"))), None)
    files = listed = {name for name in names if name[0] != "." and name.rpartition(".")[2] in ("txt", "bin", "npy")}
    if path:
        data = read_file(path)
        if path == inner and os.path.exists(beside) and read_file(beside) != data:
            fail("%s and %s: are of different runs; run the inference again" % (path, beside))
        facts = parse_summary(data, path)
        listed = facts.pop("files", files)
        parts.append(Part(folder, opened, facts, path, hashlib.sha256(data).hexdigest()))
    else:
        parts.append(Part(folder, opened, None, None, None))
    for odd in sorted(files ^ listed)[:1]:
        what = "is missing, it is listed" if odd in listed else "is of another run, it is not listed"
        fail("%s: %s in %s; run the inference again" % (os.path.join(folder, odd), what, path))
    for name in names:
        full = os.path.join(folder, name)
        image, _, output = name.rpartition(".")[0].rpartition("_")
        if name in files and not (image and output.isdigit()):
            fail("%s: is not named like a result, NAME_0.%s" % (full, name.rpartition(".")[2]))
        if name in files and output == "0" and results.setdefault(image, full) != full:
            fail("%s and %s: are results of the same image" % (results[image], full))
        if INNER.fullmatch(name) and os.path.isdir(full):
            find_results(full, parts, results)


def parse_summary(data, path):
    """What is used of a summary: engine, precision, recipe, dtype and shape of an image's scores; where it lists files, those."""
    def refuse(constant):
        raise ValueError("%s is no number" % constant)

    try:
        summary = json.loads(data.decode(), parse_constant=refuse)
        output = summary["outputs"][0] if "schema" in summary else {"dtype": None, "shape": None}
        facts = {"engine": summary.get("engine") or "ais_bench (version not recorded)", "precision": summary.get("precision"),
                 "recipe": (summary.get("input") or {}).get("recipe"), "dtype": output["dtype"], "shape": output["shape"]}
        for key, kind in (("engine", str), ("precision", str), ("dtype", str), ("recipe", dict), ("shape", list)):
            if not isinstance(facts[key], (kind, type(None))):
                raise TypeError("%s is no %s" % (key, kind.__name__))
        if summary.get("filesinfo") is not None:
            facts["files"] = {os.path.basename(file) for info in summary["filesinfo"].values() for file in info["outfiles"]}
        return facts
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        return fail("%s: is no summary of an inference (%s); run the inference again" % (path, error))


def describe(folder):
    """(parts, facts of the run, results) of a folder, of one run's making."""
    parts, results = [], {}
    find_results(os.path.normpath(folder), parts, results)
    if not results:
        fail("%s: holds no results (looked for NAME_0.txt, .bin and .npy)" % folder)
    recorded = [part for part in parts if part.path]
    facts = recorded[0].facts if recorded else NOTHING
    if any(part.facts != facts for part in recorded):
        fail("%s: its parts are of different engines, precisions, recipes or outputs; compare one run at a time" % folder)
    hashes = [part.sha256 for part in recorded] or [None]
    return parts, dict(facts, sha256=hashes if len(hashes) > 1 else hashes[0]), results


def require_unchanged(parts):
    """Fails where a folder or its summary is not as it was when it was opened."""
    for part in parts:
        try:
            same = identity(part.folder) == part.identity and (
                not part.path or hashlib.sha256(read_file(part.path)).hexdigest() == part.sha256)
        except OSError:
            same = False
        if not same:
            fail("%s: was changed while it was compared; run this again when its inference has ended" % part.folder)


def read_scores(path, facts):
    """One image's scores, 1-d float64, finite, as many and of the dtype that the summary says."""
    data = read_file(path)
    try:
        if path.endswith(".npy"):
            file = io.BytesIO(data)
            header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[np.lib.format.read_magic(file)[0]](file)
            scores = np.frombuffer(data, dtype, offset=file.tell())
            if dtype.kind != "f" or shape[-1:] != (scores.size,) or set(shape[:-1]) - {1}:
                raise ValueError("%s of shape %s is not one row of scores" % (dtype, shape))
            if facts["dtype"] not in (None, dtype.name):
                raise ValueError("it holds %s, its summary says %s" % (dtype, facts["dtype"]))
        elif path.endswith(".bin"):
            scores = np.frombuffer(data, np.dtype(facts["dtype"] or "float32").newbyteorder("<"))
        else:
            if b"\n" in data.strip():
                raise ValueError("more than one line")
            scores = np.array([float(number) for number in data.split()])
    except Exception as error:  # numpy's headers let ast's and tokenize's through
        fail("%s: cannot be read as scores%s: %s" % (path, "" if data else ", it is empty", error))
    if scores.size < 2 or not np.isfinite(scores).all():
        fail("%s: %s" % (path, "is empty or one number" if scores.size < 2 else "holds NaN or infinite scores"))
    if facts["shape"] and list(facts["shape"]) != [scores.size]:
        fail("%s: holds %d scores, its summary says %s" % (path, scores.size, facts["shape"]))
    return scores.astype(np.float64)


def compare_one(scores, reference):
    """How one image's scores (1-d, float64) differ from the reference's; see compare for the keys."""
    difference, largest = float(np.abs(scores - reference).max()), float(np.abs(reference).max())
    norms = float(np.linalg.norm(scores) * np.linalg.norm(reference))
    first, second = np.argsort(-scores, kind="stable")[:TOP], np.argsort(-reference, kind="stable")[:TOP]
    shift = 1 if scores.size == 1001 else 0  # such models count a background class first
    return {"top1": int(first[0]) - shift, "reference_top1": int(second[0]) - shift, "same_top5": set(first) == set(second),
            "cosine": max(-1.0, min(1.0, float(scores @ reference) / norms)) if norms else float(difference == 0),
            "absolute_difference": difference, "relative_difference": difference / largest if largest else float(difference > 0)}


def compare(args):
    """The JSON: agreement of Top-1 and of Top-5 sets in percent, cosine similarity, the largest absolute difference, and the
    largest relative one: an image's largest difference by the reference's largest absolute score."""
    (parts, facts, results), (more, other, references) = describe(args.result), describe(args.reference)
    one, two = facts["recipe"], other["recipe"]  # dtype and layout may differ: uint8 pixels with AIPP against float32
    differing = [key for key in ("resize", "crop", "mean", "std") if one and two and one.get(key) != two.get(key)]
    if differing:
        fail("%s and %s: their images were prepared differently (%s: %s, %s); compare the same inputs" % (
            args.result, args.reference, differing[0], one.get(differing[0]), two.get(differing[0])))
    images = []
    for name, path in tqdm(references.items(), unit="image", desc="compare", disable=None):
        if name not in results:
            fail("%s: has no counterpart in %s; both must be of the same images" % (path, args.result))
        scores, reference = read_scores(results[name], facts), read_scores(path, other)
        if scores.size != reference.size:
            fail("%s: holds %d scores, %s holds %d" % (results[name], scores.size, path, reference.size))
        images.append(dict(compare_one(scores, reference), image=name))
    require_unchanged(parts + more)
    images.sort(key=lambda image: (-image["relative_difference"], image["image"]))
    cosines, worst = [image["cosine"] for image in images], images[0]["relative_difference"]
    return {"schema": 1, "result": args.result, "reference": args.reference, "engine": facts["engine"],
            "reference_engine": other["engine"], "precision": facts["precision"], "reference_precision": other["precision"],
            "summary_sha256": facts["sha256"], "reference_summary_sha256": other["sha256"], "results": len(results),
            "compared": len(images), "cosine_mean": float(np.mean(cosines)), "cosine_worst": min(cosines),
            "top1_agreement": 100.0 * float(np.mean([image["top1"] == image["reference_top1"] for image in images])),
            "top5_set_agreement": 100.0 * float(np.mean([image["same_top5"] for image in images])),
            "absolute_difference": max(image["absolute_difference"] for image in images), "relative_difference": worst,
            "relative_limit": args.limit, "agrees": worst <= args.limit, "most_different": images[:SHOWN]}


def write_whole(path, text):
    """The file whole or not at all; temporaries of killed runs are removed, but none that a living run holds."""
    folder, name = os.path.split(os.path.abspath(path))
    temporaries = re.compile(r"\.%s\.[0-9a-f]{8}\.tmp" % re.escape(name))
    try:
        for stray in filter(temporaries.fullmatch, os.listdir(folder)):
            try:
                with open(os.open(os.path.join(folder, stray), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(os.path.join(folder, stray))
            except OSError:
                pass  # held
        temporary = os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex()))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            with open(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text.encode())
                file.flush()
                os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def parse_args():
    def limit(text):
        if not (math.isfinite(float(text)) and float(text) > 0):
            raise ValueError
        return float(text)

    parser = argparse.ArgumentParser(description="Compare one engine's scores with another's for the same images.")
    parser.add_argument("result", metavar="RESULT", help="folder of the results to be judged")
    parser.add_argument("reference", metavar="REFERENCE", help="folder of the results to compare with")
    parser.add_argument("--limit", metavar="X", type=limit, default=RELATIVE_LIMIT,
                        help="largest difference allowed, in parts of the reference's largest score (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="file for the figures")
    return parser.parse_args()


def require_free(path):
    """Refuses to write over what may be read here, and over devices and pipes."""
    name = os.path.basename(path)
    if os.path.exists(path) and (not os.path.isfile(path) or name.rpartition(".")[2] in ("txt", "bin", "npy")
                                 or name.endswith(("summary.json", "sumary.json"))):
        fail("%s: is no file of this script's that could be replaced; choose another name" % path)


def main():
    args = parse_args()
    if args.json:
        require_free(args.json)
    fidelity = compare(args)
    if args.json:
        write_whole(args.json, json.dumps(fidelity, allow_nan=False))
    print("fidelity of %(engine)s to %(reference_engine)s, %(compared)d of %(results)d images: "
          "Top-1 agreement %(top1_agreement).2f%%, equal Top-5 sets %(top5_set_agreement).2f%%, "
          "cosine similarity mean %(cosine_mean).6f worst %(cosine_worst).6f, "
          "largest difference %(absolute_difference).4g (relative %(relative_difference).4g)" % fidelity)
    if not fidelity["agrees"]:
        sys.stdout.flush()
        fail("%s: is not what %s has for the same images: %s is off by %.3g of its largest score (limit %g); suspect swapped "
             "channels or missing normalisation (AIPP), another checkpoint, an overflow in fp16, or results of other images"
             % (args.result, args.reference, fidelity["most_different"][0]["image"], fidelity["relative_difference"],
                args.limit), 3)


if __name__ == "__main__":
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except (MemoryError, OSError) as problem:
        where, what = getattr(problem, "filename", None), getattr(problem, "strerror", None) or "not enough memory"
        if where is None and isinstance(problem, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains again when it ends
            where = "standard output"
        fail("%s: %s" % (where, what) if where else what)
