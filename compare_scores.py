#!/usr/bin/env python3
"""Compare one engine's scores with another's for the same images: how far apart they are, and whether that is too far.

    python3 compare_scores.py ./result ./reference --json fidelity.json

Both folders hold results as onnx_infer.py, npu_infer.py and ais_bench write them (NAME_0.txt, .bin, .npy; device*/ and
shardK_of_N/ folders). Every image of REFERENCE must be in RESULT; RESULT may hold more. No labels are needed. Run again on the
same results, it says `kept`.
Exit codes: 0 they agree; 1 something is wrong with a file, which is named; 2 wrong usage; 3 they disagree (the JSON is written);
130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import json

import numpy as np

from common import files, results, scores
from common.command import fail

VERSION = 1  # raised when other figures come of the same results
TOP = 5
SHOWN = 10  # most different images in the JSON
# Scores agree when no image's are off by more than this part of the reference's largest. An honest fp16 copy stays an order of
# magnitude below it, swapped channels as far above (tests/test_compare.py).
RELATIVE_LIMIT = 0.02
MANY, LEAST_AGREEMENT = 16, 50.0  # images, and percent: scores that are nearly the same of all images agree within any limit


def compare_image(ours, reference, background):
    """How one image's scores (1-d, float64) differ from the reference's; see compare_results for the keys."""
    difference, largest = float(np.abs(ours - reference).max()), float(np.abs(reference).max())
    norms = float(np.linalg.norm(ours) * np.linalg.norm(reference))
    first, second = np.argsort(-ours, kind="stable")[:TOP], np.argsort(-reference, kind="stable")[:TOP]
    return {"top1": int(first[0]) - background, "reference_top1": int(second[0]) - background,
            "same_top5": set(first) == set(second),
            "cosine": max(-1.0, min(1.0, float(ours @ reference) / norms)) if norms else float(difference == 0),
            "absolute_difference": difference,
            "relative_difference": difference / largest if largest else float(difference > 0)}


def compare_results(opened, reference, limit):
    """The JSON's figures: agreement of Top-1 and of Top-5 sets in percent, cosine similarity, the largest absolute difference,
    and the largest relative one: an image's largest difference by the reference's largest absolute score."""
    missing = sorted(set(reference.files) - set(opened.files))
    if missing:
        fail("%s: has no counterpart in %s; both must be of the same images"
             % (reference.files[missing[0]].path, opened.folder))
    results.require_same_images(opened, reference, reference.files)
    if opened.classes != reference.classes:
        fail("%s and %s: have %d and %d scores an image" % (opened.folder, reference.folder, opened.classes, reference.classes))
    images = []
    with command.progress(len(reference.files), "image", "compare") as bar:
        for name in reference.files:
            pair = [scores.as_floats(each.scores(name)) for each in (opened, reference)]
            images.append(dict(compare_image(*pair, background=reference.background), image=name))
            bar.update(1)
    images.sort(key=lambda image: (-image["relative_difference"], image["image"]))
    cosines, worst = [image["cosine"] for image in images], images[0]["relative_difference"]
    top1_agreement = 100.0 * float(np.mean([image["top1"] == image["reference_top1"] for image in images]))
    return {"result": opened.folder, "reference": reference.folder, "engine": opened.run["engine"],
            "reference_engine": reference.run["engine"], "precision": opened.run["precision"],
            "reference_precision": reference.run["precision"], "summary_sha256": opened.sha256,
            "reference_summary_sha256": reference.sha256, "results": len(opened.files), "compared": len(images),
            "cosine_mean": float(np.mean(cosines)), "cosine_worst": min(cosines),
            "top1_agreement": top1_agreement,
            "top5_set_agreement": 100.0 * float(np.mean([image["same_top5"] for image in images])),
            "absolute_difference": max(image["absolute_difference"] for image in images), "relative_difference": worst,
            "relative_limit": limit, "most_different": images[:SHOWN],
            "agrees": worst <= limit and (len(images) < MANY or top1_agreement >= LEAST_AGREEMENT)}


def require_agreement(args, fidelity):
    if not fidelity["agrees"]:
        fail("%s: is not what %s has for the same images: %s is off by %.3g of its largest score (limit %g), Top-1 agrees "
             "on %.2f%%; suspect swapped channels or missing normalisation (AIPP), another checkpoint, an overflow in fp16, or "
             "results of other images"
             % (args.result, args.reference, fidelity["most_different"][0]["image"], fidelity["relative_difference"], args.limit,
                fidelity["top1_agreement"]), 3)


def parse_args():
    parser = command.parser(__doc__, allow_abbrev=False)
    parser.add_argument("result", metavar="RESULT", help="folder of the results to be judged")
    parser.add_argument("reference", metavar="REFERENCE", help="folder of the results to compare with")
    parser.add_argument("--limit", metavar="X", default=RELATIVE_LIMIT,
                        type=command.number(1e-9, 1, what="part of the largest score (it is not a number of images)"),
                        help="largest difference allowed, in parts of the reference's largest score (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="file for the figures")
    parser.add_argument("--dtype", choices=scores.DTYPES, help="of .bin results of which no summary says it")
    parser.add_argument("--overwrite", action="store_true", help="compare again; replace a file that is not this command's")
    parser.add_argument("--check", action="store_true", help="do nothing; exit code 0 where FILE is of these results, else 1")
    return parser.parse_args()


def main():
    args = parse_args()
    reference, opened = results.Results(args.reference), results.Results(args.result)
    opened.spell_as(reference)
    reference.find_format(dtype=args.dtype)
    opened.find_format(reference.classes, args.dtype)
    made_from = dict(version=VERSION, summary=opened.sha256, reference=reference.sha256, limit=args.limit, dtype=args.dtype)
    kept = args.json and not args.overwrite and results.is_json_kept(args.json, made_from, (opened, reference))
    if args.check:
        return 0 if kept else 1
    if kept:
        fidelity = files.read_json(args.json)
        with files.as_written(args.json):
            print("kept: %s, largest relative difference %.4g" % (args.json, fidelity["relative_difference"]))
            return require_agreement(args, fidelity)
    if args.json:
        results.check_target(args.json, (opened, reference), (),
                             lambda path: "reference_engine" in files.peek_json(path), args.overwrite)
    fidelity = dict(compare_results(opened, reference, args.limit), schema=1, made_from=made_from)
    if args.json:
        files.write(args.json, json.dumps(fidelity, allow_nan=False).encode())
    print("fidelity of %(engine)s to %(reference_engine)s, %(compared)d of %(results)d images: "
          "Top-1 agreement %(top1_agreement).2f%%, equal Top-5 sets %(top5_set_agreement).2f%%, "
          "cosine similarity mean %(cosine_mean).6f worst %(cosine_worst).6f, "
          "largest difference %(absolute_difference).4g (relative %(relative_difference).4g)" % fidelity)
    return require_agreement(args, fidelity)


if __name__ == "__main__":
    command.run(main)
