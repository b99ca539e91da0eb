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


def find_summaries(folder):
    """[(summary, SHA-256)] of a folder and its device and shard folders, and {image name: path} of its first outputs.

    A folder with a summary must hold exactly what that lists."""
    names = sorted(os.listdir(folder))
    beside = (os.path.abspath(folder) if os.path.basename(folder) in ("", ".", "..") else folder) + "_summary.json"
    path = next((path for path in (os.path.join(folder, ".summary.json"), beside, os.path.join(folder, "sumary.json"))
                 if os.path.lexists(path)), None)
    files = {name for name in names if name[0] != "." and name.rpartition(".")[2] in ("txt", "bin", "npy")}
    found, results = [], {}
    if path:
        data = read_file(path)
        if path != beside and path.endswith(".summary.json") and os.path.exists(beside) and read_file(beside) != data:
            fail("%s and %s: are of different runs; run the inference again" % (path, beside))
        found = [(parse_summary(data, path), hashlib.sha256(data).hexdigest())]
        listed = found[0][0].pop("files")
        if listed is not None and listed != files:
            odd = sorted(listed ^ files)[0]
            fail("%s: %s %s; run the inference again" % (os.path.join(folder, odd), "is missing, it is listed in" if odd in listed
                                                         else "is of another run, it is not listed in", path))
    for name in sorted(files):
        image, _, output = name.rpartition(".")[0].rpartition("_")
        if not image or not output.isdigit():
            fail("%s: is not named like a result, NAME_0.%s" % (os.path.join(folder, name), name.rpartition(".")[2]))
        if output == "0" and image in results:
            fail("%s and %s: are results of the same image" % (results[image], os.path.join(folder, name)))
        if output == "0":
            results[image] = os.path.join(folder, name)
    for name in names:
        if INNER.fullmatch(name) and os.path.isdir(os.path.join(folder, name)):
            more, inner = find_summaries(os.path.join(folder, name))
            for image in inner:
                if image in results:
                    fail("%s and %s: are results of the same image" % (results[image], inner[image]))
            found, results = found + more, dict(results, **inner)
    return found, results


def parse_summary(data, path):
    """What is used of a summary: engine, precision, the input's recipe, dtype and number of scores, and the files listed."""
    def refuse(constant):
        raise ValueError("%s is no number" % constant)

    try:
        summary = json.loads(data.decode(), parse_constant=refuse)
        facts = {key: summary.get(key) for key in ("engine", "precision")}
        facts["engine"] = facts["engine"] or "ais_bench (version not recorded)"
        facts["recipe"] = (summary.get("input") or {}).get("recipe")
        output = summary["outputs"][0] if "schema" in summary else {"dtype": None, "shape": None}
        facts["dtype"], facts["shape"] = output["dtype"], output["shape"]
        listed = summary.get("filesinfo")
        facts["files"] = listed if listed is None else {os.path.basename(file) for info in listed.values()
                                                        for file in info["outfiles"]}
        if not all(isinstance(facts[key], (str, type(None))) for key in ("engine", "precision", "dtype")):
            raise TypeError("engine, precision or dtype is no text")
        if facts["recipe"] is not None and not isinstance(facts["recipe"], dict):
            raise TypeError("the recipe is no object")
        return facts
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        fail("%s: is no summary of an inference (%s); run the inference again" % (path, error))


def describe(folder):
    """(facts of the run, results) of a folder, of one run's making."""
    found, results = find_summaries(os.path.normpath(folder))
    if not results:
        fail("%s: holds no results (looked for NAME_0.txt, .bin and .npy)" % folder)
    if any(facts != found[0][0] for facts, _ in found):
        fail("%s: its parts are of different engines, precisions, recipes or outputs; compare one run at a time" % folder)
    facts = dict(found[0][0]) if found else dict.fromkeys(("precision", "recipe", "dtype", "shape"), None)
    hashes = [sha256 for _, sha256 in found]
    facts.setdefault("engine", "not recorded")
    return dict(facts, sha256=hashes if len(hashes) > 1 else hashes[0] if hashes else None), results


def read_scores(path, facts):
    """One image's scores, 1-d float64, finite, as many and of the dtype that the summary says."""
    data = read_file(path)
    try:
        if path.endswith(".npy"):
            file = io.BytesIO(data)
            header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[np.lib.format.read_magic(file)[0]](file)
            scores = np.frombuffer(data, dtype, offset=file.tell())
            if dtype.kind != "f" or not shape or not scores.size == shape[-1] or any(length != 1 for length in shape[:-1]):
                raise ValueError("%s %s is not one row of scores" % (dtype, shape))
            if facts["dtype"] and dtype.name != facts["dtype"]:
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
    (facts, results), (other, references) = describe(args.result), describe(args.reference)
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
    temporary = os.path.join(os.path.dirname(path), ".%s.%s.tmp" % (os.path.basename(path), os.urandom(4).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            try:
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
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (math.isfinite(value) and value > 0):
            raise argparse.ArgumentTypeError("%r is not a positive number" % text[:40])
        return value

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
    except MemoryError:
        fail("not enough memory")
    except OSError as problem:
        if problem.filename is not None:
            fail("%s: %s" % (problem.filename, problem.strerror))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("standard output: %s" % problem.strerror)
