#!/usr/bin/env python3
"""Export a ResNet34 checkpoint to ONNX and prove the export (the guide's stage "model conversion").

    python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34.onnx
    python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34_uint8.onnx --input uint8

The graph is torchvision's resnet34 in eval mode, opset 11 (what ATC of CANN 6.0.RC1 takes): input "image" float32
(batch, 3, 224, 224), normalised, or with --input uint8 the pixels as they are, (batch, 224, 224, 3), RGB, the
normalisation standing in front of the same graph; output "class" float32 (batch, classes). Its metadata_props say which
recipe its images need and of which weights it is; ONNX.json beside it says all that it was made from. It is written only
after onnx.checker accepts it and ONNX Runtime agrees with PyTorch. Nothing of a checkpoint is run.
Exit code 0: written, or kept as it was; 1: not written; 2: wrong usage; 130, 143: stopped by Ctrl-C, SIGTERM.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import inspect
import io
import warnings

from common import checkpoint, files, graph, machine, recipe
from common.command import fail, first_line

VERSION = 3  # raised when the same weights and packages give another graph, or other metadata_props
INPUT_NAME, OUTPUT_NAME = "image", "class"  # the guide's atc command names the input in --input_shape="image:..."
LEAST_OPSET = 7
PROOF_LIMIT = 1e-3  # of the largest score; seen are 1e-6 to 1e-5


def import_packages():
    """torch, torchvision, onnx, onnxruntime, or a sentence that says what to install; seconds, so not before they are needed."""
    import onnx
    import onnxruntime
    import torch
    try:
        import torchvision
    except Exception as error:  # one built for another torch fails with ImportError, RuntimeError, OSError or AttributeError
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            fail("torchvision is not installed; install the release that belongs to torch %s" % torch.__version__)
        fail("torchvision does not fit the installed torch %s (%s); install both anew from one place, "
             "for example: pip install --force-reinstall torch torchvision" % (torch.__version__, first_line(error)))
    return torch, torchvision, onnx, onnxruntime


def export(torch, model, opset, made_with):
    """The model as ONNX bytes, taking what a recipe makes of images."""
    # The TorchScript exporter: the only one in torch 1.6, and the one that still writes opset 11 in today's.
    exporter = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer, kind = io.BytesIO(), getattr(torch, made_with.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about this exporter's age
            torch.onnx.export(model, torch.zeros([1] + made_with.shape, dtype=kind), buffer, opset_version=opset,
                              input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
                              dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}, **exporter)
    except Exception as error:  # an opset this torch does not know raises ValueError, RuntimeError or SymbolicError
        fail("torch %s cannot export opset %d: %s" % (torch.__version__, opset, first_line(error)))
    return buffer.getvalue()


def normalise_pixels(torch, model, made_with):
    """Let a model take uint8 (batch, height, width, 3) pixels: ToTensor and Normalize in front, in their order, in float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (made_with.mean, made_with.std))
    model.register_forward_pre_hook(lambda _, inputs: inputs[0].permute(0, 3, 1, 2).float().div(255).sub(mean).div(std))


def prove(torch, onnx, onnxruntime, model, onnx_bytes, made_with):
    """How far ONNX Runtime is from PyTorch on random images, batch 1 and 3, in a line; exits when the two disagree."""
    import numpy as np
    try:
        onnx.checker.check_model(onnx.load_model_from_string(onnx_bytes))
        session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    except Exception as error:
        fail("the exported graph is refused: %s" % first_line(error))
    random, difference, largest = np.random.RandomState(0), 0.0, 0.0
    for batch_size in (1, 3):
        shape = [batch_size] + made_with.shape
        if made_with.dtype == "uint8":
            images = random.randint(0, 256, shape).astype(np.uint8)
        else:
            images = random.standard_normal(shape).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy().astype(np.float64)
        if not np.isfinite(expected).all():
            fail("these weights give NaN or infinite scores in PyTorch itself, on random images; nothing was written")
        actual = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0].astype(np.float64)
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            fail("the exported graph disagrees with PyTorch at batch %d; nothing was written" % batch_size)
        difference = max(difference, np.abs(actual - expected).max())
        largest = max(largest, np.abs(expected).max())
    if difference > PROOF_LIMIT * largest:
        fail("the exported graph disagrees with PyTorch (difference %.3g, largest score %.3g); nothing was written"
             % (difference, largest))
    return ("proof: ONNX Runtime %s against PyTorch %s on random %s images, batch 1 and 3: largest difference %.3g, largest "
            "score %.3g" % (onnxruntime.__version__, torch.__version__, made_with.dtype, difference, largest))


def parse_args():
    """The options, and the Recipe in them."""
    parser = command.parser(__doc__)
    parser.add_argument("pth", metavar="PTH", help="checkpoint, for example resnet34-b627a593.pth, or a .safetensors file")
    parser.add_argument("onnx", metavar="ONNX", help="file to write, for example resnet34.onnx")
    parser.add_argument("--opset", metavar="N", type=command.whole(LEAST_OPSET), default=11,
                        help="ONNX opset version (default: %(default)s)")
    parser.add_argument("--input", dest="dtype", choices=("float32", "uint8"), default="float32",
                        help="what the graph takes: normalised float32, or uint8 pixels (default: %(default)s)")
    parser.add_argument("--weights", metavar="NAME", help="which of several ResNet34s in the checkpoint, for example model_ema")
    parser.add_argument("--overwrite", action="store_true", help="make the ONNX again, or over a file of another kind")
    parser.add_argument("--check", action="store_true",
                        help="do nothing; exit code 0 where the ONNX is there and of just this, else 1")
    recipe.add_options(parser.add_argument_group("for a net that was trained otherwise"), default="ImageNet's")
    args = parser.parse_args()
    if args.onnx.endswith((".pth", ".pt", ".ckpt", ".tar", ".safetensors")):
        parser.error("%s is the name of a checkpoint; one is exported at a time, to the file named second, such as resnet34.onnx"
                     % args.onnx)
    return args, recipe.from_options(parser, args, dtype=args.dtype)


def main():
    args, made_with = parse_args()
    files.check_output(args.onnx, inputs=[args.pth], ours=files.is_recorded, overwrite=args.overwrite)
    data, sha256 = checkpoint.read(args.pth)
    packages = ["%s %s" % (package, machine.version(package)) for package in ("torch", "torchvision", "onnx")]
    made_from = {"version": VERSION, "weights_sha256": sha256, "weights": args.weights, "recipe": made_with.without_defaults(),
                 "opset": args.opset, "packages": packages}
    summary = "opset %d, %s %d x %d" % (args.opset, args.dtype, made_with.crop, made_with.crop)
    if not args.overwrite and files.is_kept(args.onnx, made_from):
        if not args.check:
            print("kept: %s, %s, of just these weights" % (args.onnx, summary))
        return 0
    if args.check:
        return 1
    tensors, classes, source, other_name = checkpoint.find(args.pth, data, args.weights, made_with)
    torch, torchvision, onnx, onnxruntime = import_packages()
    model = torchvision.models.resnet34(num_classes=classes).eval()
    # They lack num_batches_tracked, which inference never reads, and nothing else.
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=False)
    if made_with.dtype == "uint8":
        normalise_pixels(torch, model, made_with)
    proto = onnx.load_model_from_string(export(torch, model, args.opset, made_with))
    name = os.fsencode(os.path.basename(args.pth)).decode("utf-8", "replace")
    if other_name:  # so that it is not taken for the net that the same file gives without --weights
        name += " " + other_name.encode("utf-8", "replace").decode()
        sha256 = files.sha256(("%s %s" % (sha256, other_name)).encode("utf-8", "replace"))
    onnx_bytes = graph.with_properties(proto, {
        "precision": "fp32", "weights": name, "weights_sha256": sha256, "recipe": made_with.as_json(),
        "exporter": "%s, opset %d" % (", ".join(packages), args.opset)})
    proof = prove(torch, onnx, onnxruntime, model, onnx_bytes, made_with)
    files.write_recorded(args.onnx, onnx_bytes, made_from)
    print("weights: %s" % source)
    print(proof)
    print("%s: written, %s, %d classes" % (args.onnx, summary, classes))
    return 0


if __name__ == "__main__":
    command.run(main)
