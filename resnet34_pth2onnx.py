#!/usr/bin/env python3
"""Export a ResNet34 checkpoint to ONNX and prove the export (the guide's stage "model conversion").

    python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34.onnx

The graph is torchvision's resnet34 in eval mode: input "image" float32 (batch, 3, 224, 224), output "class" float32
(batch, classes), batch dynamic, opset 11 (what ATC of CANN 6.0.RC1 takes). It is written only after onnx.checker
accepts it and ONNX Runtime agrees with PyTorch. Exit code 0: written; 1: not written; 2: wrong usage.
"""
import argparse
import collections
import hashlib
import inspect
import io
import os
import pickle
import re
import sys
import types
import warnings

INPUT_NAME, OUTPUT_NAME = "image", "class"  # the guide's atc command names the input in --input_shape="image:..."
MIN_COSINE = 0.99999
WEIGHTS_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"  # torchvision's, as the guide downloads them
SHOWN_KEYS = 5


def fail(message):
    sys.exit("error: " + " ".join(message.splitlines()))


def check_hash(path):
    """Compare the file with the start of its SHA-256 in its name (torch.hub's NAME-HEX.pth), where it carries one.

    Eight digits at least, as torch.hub writes them: shorter ones are words more often than hashes.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", os.path.basename(path))
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if named and not digest.hexdigest().startswith(named.group(1)):
        fail("%s: its SHA-256 starts with %s, its name says %s: the file is damaged or another one; download it again "
             "(or rename it, if that part of the name is no hash)"
             % (path, digest.hexdigest()[:len(named.group(1))], named.group(1)))


def import_torch():
    """torch, or a sentence that says what to install."""
    try:
        import torch
    except ImportError as error:
        fail("torch cannot be imported (%s); install it with: pip install -r requirements.txt" % error)
    return torch


def import_resnet34(torch):
    """torchvision.models.resnet34, or a sentence that says what to install; takes as long as torch itself."""
    try:
        from torchvision.models import resnet34
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            fail("torchvision is not installed; install the release that belongs to torch %s" % torch.__version__)
        mismatch(torch, error)
    except Exception as error:  # a torchvision built for another torch fails with RuntimeError, OSError or AttributeError
        mismatch(torch, error)
    return resnet34


def mismatch(torch, error):
    fail("torchvision does not fit the installed torch %s (%s); install both anew from one place, "
         "for example: pip install --force-reinstall torch torchvision" % (torch.__version__, str(error).split("\n")[0]))


class TensorsOnly(pickle.Unpickler):
    """For torch before 1.13, which has no weights_only: unpickles tensors and containers, refuses every other name."""

    def find_class(self, module, name):
        if (module, name) in {("collections", "OrderedDict"), ("torch", "Size"), ("torch._utils", "_rebuild_tensor"),
                              ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
                              ("torch.nn.parameter", "Parameter")} or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError("it wants to import %s.%s" % (module, name))


def load_checkpoint(torch, path):
    """Whatever the file holds, loaded on the CPU without running code from it."""
    if "weights_only" in inspect.signature(torch.load).parameters:
        safely = {"weights_only": True}
    else:
        safely = {"pickle_module": types.SimpleNamespace(
            __name__="pickle", Unpickler=TensorsOnly, load=lambda file, **options: TensorsOnly(file, **options).load())}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", **safely)
    except Exception as error:  # torch's readers raise a dozen kinds on truncated or foreign files
        wanted = re.search(r"(?:GLOBAL|global|import|class) ([A-Za-z_]\w*(?:\.\w+)+)", str(error))
        if wanted and isinstance(error, pickle.UnpicklingError):
            fail("%s: refused: it is not tensors alone but would import and run %s; save only the weights: "
                 "torch.save(model.state_dict(), ...)" % (path, wanted.group(1)))
        fail("%s: is no PyTorch checkpoint, or is truncated or damaged: %s" % (path, first_sentence(error)))


def first_sentence(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]


def state_dict_of(torch, checkpoint, path):
    """The {key: float32 tensor} in a checkpoint: plain, under "state_dict" or "model", with or without "module."."""
    for wrapper in ("state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(wrapper), dict):
            checkpoint = checkpoint[wrapper]
    if not isinstance(checkpoint, dict) or not checkpoint:
        fail("%s: holds a %s, not a state_dict" % (path, type(checkpoint).__name__))
    state_dict = collections.OrderedDict()
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            fail("%s: is no state_dict: %r is a %s, not a tensor" % (path, key, type(value).__name__))
        state_dict[key[len("module."):] if key.startswith("module.") else key] = (
            value.float() if value.is_floating_point() else value)
    return state_dict


def build_model(torch, resnet34, state_dict, path):
    """torchvision's resnet34 in eval mode with these weights, as many classes as fc.weight has rows."""
    head = state_dict.get("fc.weight")
    classes = head.shape[0] if head is not None and head.dim() == 2 and head.shape[0] else 1000
    model = resnet34(num_classes=classes)
    expected = model.state_dict()
    # num_batches_tracked came with PyTorch 0.4.1; older checkpoints lack it and inference never reads it.
    missing = [key for key in expected if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in expected]
    misshapen = ["%s %s instead of %s" % (key, tuple(state_dict[key].shape), tuple(expected[key].shape))
                 for key in expected if key in state_dict and state_dict[key].shape != expected[key].shape]
    problems = ["%d %s (%s%s)" % (len(keys), kind, ", ".join(keys[:SHOWN_KEYS]), ", ..." if len(keys) > SHOWN_KEYS else "")
                for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)) if keys]
    if problems:
        fail("%s: does not fit torchvision's resnet34: %s" % (path, "; ".join(problems)))
    for key, value in state_dict.items():
        if not bool(torch.isfinite(value).all()):
            fail("%s: %s holds NaN or infinite values" % (path, key))
    model.load_state_dict(state_dict, strict=False)  # strict but for num_batches_tracked, see above
    return model.eval()


def export(torch, model, opset):
    """The model as ONNX bytes."""
    # The TorchScript exporter: the only one in torch 1.6, and the one that still writes opset 11 in today's.
    exporter = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about this exporter's age
            torch.onnx.export(model, torch.zeros(1, 3, 224, 224), buffer, opset_version=opset,
                              input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
                              dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}, **exporter)
    except Exception as error:  # an opset this torch does not know raises ValueError, RuntimeError or SymbolicError
        fail("torch %s cannot export opset %d: %s" % (torch.__version__, opset, first_sentence(error)))
    return buffer.getvalue()


def prove(torch, model, onnx_bytes):
    """Print how far ONNX Runtime is from PyTorch on random input, batch 1 and 3; exit when the two disagree."""
    import numpy as np
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        fail("the export cannot be proved: %s; install it with: pip install -r requirements.txt" % error)
    try:
        onnx.checker.check_model(onnx.load_model_from_string(onnx_bytes))
        session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    except Exception as error:
        fail("the exported graph is refused: %s" % first_sentence(error))
    random = np.random.RandomState(0)
    for batch in (1, 3):
        images = random.standard_normal((batch, 3, 224, 224)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy().astype(np.float64)
        actual = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0].astype(np.float64)
        difference = np.abs(actual - expected).max()
        cosine = (actual * expected).sum() / np.sqrt((actual ** 2).sum() * (expected ** 2).sum())
        print("ONNX Runtime against PyTorch, batch %d: largest absolute difference %.3g (largest logit %.3g), cosine "
              "similarity %.8f" % (batch, difference, np.abs(expected).max(), cosine))
        if not cosine >= MIN_COSINE:  # so put, NaN fails too
            fail("the exported graph disagrees with PyTorch (cosine similarity %.8f < %g); nothing was written"
                 % (cosine, MIN_COSINE))


def parse_args():
    parser = argparse.ArgumentParser(description="Export a ResNet34 checkpoint to ONNX and prove the export.")
    parser.add_argument("pth", metavar="PTH", help="checkpoint, for example resnet34-b627a593.pth")
    parser.add_argument("onnx", metavar="ONNX", help="file to write, for example resnet34.onnx")
    parser.add_argument("--opset", metavar="N", type=int, default=11, help="ONNX opset version (default: %(default)s)")
    args = parser.parse_args()
    if args.opset < 7:
        parser.error("--opset %d: ResNet34 needs opset 7 or newer" % args.opset)
    if os.path.realpath(args.pth) == os.path.realpath(args.onnx):
        parser.error("PTH and ONNX are the same file; the export would overwrite the checkpoint")
    return args


def main():
    args = parse_args()
    if not os.path.isdir(os.path.dirname(args.onnx) or "."):
        fail("%s: its folder does not exist" % args.onnx)
    if os.path.isdir(args.onnx):
        fail("%s: is a folder, not a file to write" % args.onnx)
    try:
        check_hash(args.pth)
    except FileNotFoundError:
        fail("%s: no such weight file; get it with: wget %s" % (args.pth, WEIGHTS_URL))
    except OSError as error:
        fail("%s: %s" % (args.pth, error.strerror))
    torch = import_torch()
    state_dict = state_dict_of(torch, load_checkpoint(torch, args.pth), args.pth)
    model = build_model(torch, import_resnet34(torch), state_dict, args.pth)
    onnx_bytes = export(torch, model, args.opset)
    prove(torch, model, onnx_bytes)
    temporary = "%s.%d.tmp" % (args.onnx, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(onnx_bytes)
        os.replace(temporary, args.onnx)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        fail("%s: cannot be written: %s" % (args.onnx, error.strerror))
    print("%s: written, opset %d, %d classes" % (args.onnx, args.opset, model.fc.out_features))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
