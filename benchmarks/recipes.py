#!/usr/bin/env python3
"""What a wrong recipe costs: on how many images the Top-1 changes against torchvision's recipe, with the same weights.

    python3 benchmarks/recipes.py --pth resnet34-b627a593.pth --images ImageNet/val
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from common import command, results, scores

RECIPES = {
    "torchvision's": [],
    "bicubic (timm's gluon_in1k, bt_in1k)": ["--interpolation", "bicubic"],
    "235, bicubic (timm's a1_in1k, a2_in1k)": ["--resize", "235", "--interpolation", "bicubic"],
    "248, bicubic, mean and std 0.5 (timm's ra4)": ["--resize", "248", "--interpolation", "bicubic", "--mean", "0.5,0.5,0.5",
                                                    "--std", "0.5,0.5,0.5"],
    "mean and std 0.5 alone": ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"],
    "no normalisation (ToTensor alone)": ["--mean", "0,0,0", "--std", "1,1,1"],
    "the whole picture (resize 224)": ["--resize", "224"],
    "one that was cut more (resize 288)": ["--resize", "288"],
}


def run(script, *words):
    line = [sys.executable, os.path.join(ROOT, script)] + list(words)
    if subprocess.run(line, stdout=subprocess.DEVNULL).returncode:
        command.fail("%s: did not end well, for the reason above" % script)


def best_classes(args, recipe, folder):
    """{image name: class of the highest score} with this recipe."""
    onnx, prepared = os.path.join(folder, "net.onnx"), os.path.join(folder, "prepared")
    run("resnet34_pth2onnx.py", args.pth, onnx, *recipe)
    run("imagenet_torch_preprocess.py", "resnet", args.images, prepared, *(recipe + args.limit))
    run("onnx_infer.py", "--model", onnx, "--input", prepared, "--output", folder, "--output_dirname", "result")
    opened = results.Results(os.path.join(folder, "result"))
    return {name: int(scores.as_floats(opened.scores(name)).argmax()) for name in opened.files}


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--pth", required=True, help="the checkpoint, trained by torchvision's recipe")
    parser.add_argument("--images", required=True, help="a folder of images")
    parser.add_argument("--limit", metavar="N", type=command.whole(), help="only the first N images in order of their names")
    args = parser.parse_args()
    args.limit = ["--limit", str(args.limit)] if args.limit else []
    expected = None
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = best_classes(args, recipe, folder)
        expected = expected or found
        changed = sum(found[image] != expected[image] for image in expected)
        print("%-45s Top-1 of %d of %d images changes" % (name, changed, len(expected)), flush=True)


if __name__ == "__main__":
    command.run(main)
