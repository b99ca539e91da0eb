#!/usr/bin/env python3
"""Export a ResNet34 checkpoint to ONNX and prove the export (the guide's stage "model conversion").

    python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34.onnx
    python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34_uint8.onnx --input uint8

The graph is torchvision's resnet34 in eval mode, opset 11 (what ATC of CANN 6.0.RC1 takes): input "image" float32
(batch, 3, 224, 224), normalised, or with --input uint8 the pixels as they are, (batch, 224, 224, 3), RGB, the
normalisation standing in front of the same graph; output "class" float32 (batch, classes). Its metadata_props say which
recipe its images need and of which weights it is. It is written only after onnx.checker accepts it and ONNX Runtime
agrees with PyTorch; the same checkpoint and packages give the same bytes. Checkpoints that hold code are refused.
Exit code 0: written; 1: not written; 2: wrong usage; 130, 143: stopped by Ctrl-C, SIGTERM.
"""
# ruff: noqa: E402 - the imports follow the handlers: Ctrl-C while they load gets a sentence, too
import os
import signal
import sys

stop_code = []  # the exit code, once a signal has come


def stopped(number, frame):
    """Ctrl-C, or a scheduler's SIGTERM: a sentence; SystemExit removes the temporary on its way out."""
    signal.signal(number, signal.SIG_IGN)
    stop_code.append(128 + number)
    try:
        os.write(2, b"stopped; what is finished is kept, the same line goes on\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:
        pass
    sys.exit(128 + number)


for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and `&` in scripts, ignore Ctrl-C on purpose
        signal.signal(number, stopped)

import argparse
import collections
import contextlib
import fcntl
import hashlib
import inspect
import io
import json
import math
import pickle
import re
import resource
import stat
import types
import warnings
import zipfile

INPUT_NAME, OUTPUT_NAME = "image", "class"  # the guide's atc command names the input in --input_shape="image:..."
WEIGHTS_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"  # torchvision's, as the guide downloads them
# ImageNet's recipe, as torchvision's reference training has it: the net is told what its images went through.
RESIZE, CROP, IMAGENET_MEAN, IMAGENET_STD = 256, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MAX_CROP = 1024  # the proof runs three images at once: 2 GB at this side
MAX_BYTES = 1 << 30  # of a checkpoint: ResNet34 is 87 MB in float32, in float64 with Adam's two moments 0.5 GB
MAX_CLASSES = 100000  # ImageNet-21k has 21 841; a head of so many is 205 MB
PROOF_LIMIT = 1e-3  # of the largest score; seen are 1e-6 to 1e-5
SHOWN_KEYS = 5


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))  # .split() folds line breaks
    sys.exit(code)


def read_checkpoint(path):
    """The file's bytes, read once: what is hashed is what is loaded, whatever becomes of the path meanwhile."""
    try:
        # Without O_NONBLOCK a FIFO would hang here, before it can be told from a file.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                fail("%s: is no regular file; save the checkpoint to one" % path)
            if before.st_size > MAX_BYTES:
                fail("%s: has %d MB, more than any ResNet34 (at most %d MB are read); save only the weights: "
                     "torch.save(model.state_dict(), ...)" % (path, before.st_size >> 20, MAX_BYTES >> 20))
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        fail("%s: no such weight file; get it with: wget %s" % (path, WEIGHTS_URL))
    except IsADirectoryError:
        fail("%s: is a folder; name the checkpoint file in it" % path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    if (len(data), after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        fail("%s: changed while it was read; run again when it is whole" % path)
    return data


def check_hash(path, digest):
    """Compare the SHA-256 with its start in the file's name (torch.hub's NAME-HEX.pth), where the name carries one.

    Eight digits at least, as torch.hub writes them: shorter ones are words more often than hashes.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", os.path.basename(path))
    if named and not digest.startswith(named.group(1)):
        fail("%s: its SHA-256 starts with %s, its name says %s: the file is damaged or another one; download it again "
             "(or rename it, if that part of the name is no hash)" % (path, digest[:len(named.group(1))], named.group(1)))


def check_archive(path, data):
    """Refuse, before torch sees them, archives that hold code: torch before 1.13 would load TorchScript and run it.

    Refuse also those that unpack to more than they are: torch.save stores its records side by side, uncompressed.
    """
    if data[257:262] == b"ustar":  # PyTorch's format of before 0.1.10
        fail("%s: is a tar archive, not a checkpoint of torch.save; load it where it was made and save only the weights: "
             "torch.save(model.state_dict(), ...)" % path)
    if data[:2] != b"PK":
        return
    try:
        records = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises a handful of kinds on damaged archives
        fail("%s: is no PyTorch checkpoint, or is truncated or damaged: %s" % (path, first_sentence(error)))
    code = [record.filename for record in records if re.search(r"(^|/)code/|\.py$|\.so$|(^|/)constants\.pkl$", record.filename)]
    # torch takes an archive with a record of this name as TorchScript. Names are never compressed, so it is looked for in
    # the bytes as well: torch's reader of zip files is not Python's, and one can be made to see what the other does not.
    if code or b"constants.pkl" in data:
        fail("%s: refused: it is a TorchScript archive or another one that holds code (%s); save only the weights: "
             "torch.save(model.state_dict(), ...)" % (path, (code + ["constants.pkl"])[0]))
    unpacked = sum(record.file_size for record in records)
    if unpacked > len(data):
        fail("%s: refused: its %.0f MB unpack to %.0f MB, and torch.save never compresses; if the file is your own, load "
             "it and torch.save it again" % (path, len(data) / 1e6, unpacked / 1e6))


def import_packages():
    """torch, torchvision, onnx, onnxruntime, or a sentence that says what to install; seconds, so not before they are needed."""
    try:
        import onnx
        import onnxruntime
        import torch
    except ImportError as error:
        fail("the export cannot be made and proved: %s; install it with: pip install -r requirements.txt" % error)
    try:
        import torchvision
    except Exception as error:  # one built for another torch fails with ImportError, RuntimeError, OSError or AttributeError
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            fail("torchvision is not installed; install the release that belongs to torch %s" % torch.__version__)
        fail("torchvision does not fit the installed torch %s (%s); install both anew from one place, "
             "for example: pip install --force-reinstall torch torchvision" % (torch.__version__, str(error).split("\n")[0]))
    return torch, torchvision, onnx, onnxruntime


class TensorsOnly(pickle.Unpickler):
    """For torch before 1.13, which has no weights_only: unpickles tensors and containers, refuses every other name."""

    def find_class(self, module, name):
        if (module, name) in {("collections", "OrderedDict"), ("torch", "Size"), ("torch._utils", "_rebuild_tensor"),
                              ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
                              ("torch.nn.parameter", "Parameter")} or (
                                  module == "torch" and re.match(r"[A-Z][A-Za-z0-9]*Storage\Z", name)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError("it wants to import %s.%s" % (module, name))


@contextlib.contextmanager
def bounded_memory(more):
    """Let the process grow by so many bytes at most: a pickle can claim storages that the file does not hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limits = [limit for limit in (now + more, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load_checkpoint(torch, path, data):
    """Whatever the bytes hold, loaded on the CPU without running code from them."""
    if "weights_only" in inspect.signature(torch.load).parameters:
        safely = {"weights_only": True}
    else:
        safely = {"pickle_module": types.SimpleNamespace(
            __name__="pickle", Unpickler=TensorsOnly, load=lambda file, **options: TensorsOnly(file, **options).load())}
    allowed = 2 * len(data) + (512 << 20)  # the records as read, and as tensors, and room for torch itself
    try:
        with warnings.catch_warnings(), bounded_memory(allowed):
            warnings.simplefilter("ignore")  # torch's about pickle protocols; what matters is raised
            return torch.load(io.BytesIO(data), map_location="cpu", **safely)
    except Exception as error:  # torch's readers raise a dozen kinds on truncated or foreign files
        if isinstance(error, MemoryError) or re.search("allocate memory|not enough memory|bad_alloc", str(error)):
            fail("%s: refused: loading it takes more than %.0f MB, far more than the file has; no ResNet34 does"
                 % (path, allowed / 1e6))
        wanted = re.search(r"(?:GLOBAL|global|import|class) ([A-Za-z_]\w*(?:\.\w+)+)", str(error))
        if wanted and isinstance(error, pickle.UnpicklingError):
            fail("%s: refused: it is not tensors alone but would import and run %s; save only the weights: "
                 "torch.save(model.state_dict(), ...)" % (path, wanted.group(1)))
        fail("%s: is no PyTorch checkpoint, or is truncated or damaged: %s" % (path, first_sentence(error)))


def first_sentence(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]


def state_dict_of(torch, checkpoint, path):
    """The {key: tensor} in a checkpoint: plain, under "state_dict" or "model", with or without "module."."""
    for wrapper in ("state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(wrapper), dict):
            checkpoint = checkpoint[wrapper]
    if not isinstance(checkpoint, dict) or not checkpoint:
        fail("%s: holds a %s, not a state_dict" % (path, type(checkpoint).__name__))
    state_dict = collections.OrderedDict()
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            fail("%s: is no state_dict: %.60r is a %s, not a tensor" % (path, key, type(value).__name__))
        name = key[len("module."):] if key.startswith("module.") else key
        if name in state_dict:
            fail("%s: holds %s twice, with and without \"module.\"; save one of them" % (path, name))
        state_dict[name] = value
    return state_dict


def build_model(torch, torchvision, state_dict, path):
    """torchvision's resnet34 in eval mode with these weights, as many classes as fc.weight has rows."""
    head = state_dict.get("fc.weight")
    classes = head.shape[0] if head is not None and head.dim() == 2 else 1000
    if not 2 <= classes <= MAX_CLASSES:
        fail("%s: fc.weight is of %d classes; 2 to %d are possible" % (path, classes, MAX_CLASSES))
    model = torchvision.models.resnet34(num_classes=classes)
    expected = model.state_dict()
    # num_batches_tracked came with PyTorch 0.4.1; older checkpoints lack it and inference never reads it.
    missing = [key for key in expected if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in expected]
    misshapen = ["%s %s instead of %s" % (key, tuple(state_dict[key].shape), tuple(expected[key].shape))
                 for key in expected if key in state_dict and state_dict[key].shape != expected[key].shape]
    problems = ["%d %s (%s%s)" % (len(keys), kind, ", ".join(key[:120] for key in keys[:SHOWN_KEYS]),
                                  ", ..." if len(keys) > SHOWN_KEYS else "")
                for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)) if keys]
    if problems:
        fail("%s: does not fit torchvision's resnet34: %s" % (path, "; ".join(problems)))
    for key, value in state_dict.items():  # only now, with shapes that are known, is anything copied
        if key.endswith("num_batches_tracked"):
            state_dict[key] = expected[key]
            continue
        if value.layout != torch.strided or value.device.type != "cpu" or not value.is_floating_point():
            fail("%s: %s holds %s values (%s, %s), not plain floating-point ones; save the weights before they are quantised "
                 "or pruned" % (path, key, value.dtype, value.layout, value.device))
        state_dict[key] = value.detach().float()
        if not bool(torch.isfinite(state_dict[key]).all()):
            fail("%s: %s holds NaN or infinite values" % (path, key))
    model.load_state_dict(state_dict, strict=False)  # strict but for num_batches_tracked, see above
    return model.eval()


def export(torch, model, opset, crop):
    """The model as ONNX bytes, taking normalised float32 images."""
    # The TorchScript exporter: the only one in torch 1.6, and the one that still writes opset 11 in today's.
    exporter = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about this exporter's age
            torch.onnx.export(model, torch.zeros(1, 3, crop, crop), buffer, opset_version=opset,
                              input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
                              dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}, **exporter)
    except Exception as error:  # an opset this torch does not know raises ValueError, RuntimeError or SymbolicError
        fail("torch %s cannot export opset %d: %s" % (torch.__version__, opset, first_sentence(error)))
    return buffer.getvalue()


def prepend_normalisation(onnx, graph, recipe):
    """Let the graph take uint8 (batch, height, width, 3) pixels: ToTensor and Normalize in front, in their order, in float32."""
    import numpy as np
    from onnx import numpy_helper
    steps = [("Transpose", [], {"perm": [0, 3, 1, 2]}), ("Cast", [], {"to": onnx.TensorProto.FLOAT}),
             ("Div", np.full((1, 1, 1, 1), 255), {}), ("Sub", np.reshape(recipe["mean"], (1, 3, 1, 1)), {}),
             ("Div", np.reshape(recipe["std"], (1, 3, 1, 1)), {})]
    nodes, constants, value = [], [], INPUT_NAME
    for index, (operator, operand, attributes) in enumerate(steps):
        names = ["recipe.%d.value" % index] if len(operand) else []
        constants += [numpy_helper.from_array(operand.astype(np.float32), name) for name in names]
        nodes.append(onnx.helper.make_node(operator, [value] + names, ["recipe.%d" % index], **attributes))
        value = "recipe.%d" % index
    network = list(graph.node)
    for node in network:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = value
    del graph.node[:]
    graph.node.extend(nodes + network)
    graph.initializer.extend(constants)
    [image] = [entry for entry in graph.input if entry.name == INPUT_NAME]
    image.CopyFrom(onnx.helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8,
                                                      ["batch", recipe["crop"], recipe["crop"], 3]))


def finish(onnx, onnx_bytes, recipe, properties):
    """The exported bytes with the normalisation in front, where asked for, and with what later stages insist on."""
    model = onnx.load_model_from_string(onnx_bytes)
    if recipe["dtype"] == "uint8":
        prepend_normalisation(onnx, model.graph, recipe)
    onnx.helper.set_model_props(model, dict(properties, recipe=json.dumps(recipe)))
    return model.SerializeToString()


def prove(torch, onnx, onnxruntime, model, onnx_bytes, recipe):
    """How far ONNX Runtime is from PyTorch on random images, batch 1 and 3, in a line; exits when the two disagree."""
    import numpy as np
    try:
        onnx.checker.check_model(onnx.load_model_from_string(onnx_bytes))
        session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    except Exception as error:
        fail("the exported graph is refused: %s" % first_sentence(error))
    random = np.random.RandomState(0)
    crop, difference, largest = recipe["crop"], 0.0, 0.0
    for batch in (1, 3):
        if recipe["dtype"] == "uint8":
            images = random.randint(0, 256, (batch, crop, crop, 3)).astype(np.uint8)
            normalised = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
            normalised = (normalised - torch.tensor(recipe["mean"]).view(3, 1, 1)) / torch.tensor(recipe["std"]).view(3, 1, 1)
        else:
            images = random.standard_normal((batch, 3, crop, crop)).astype(np.float32)
            normalised = torch.from_numpy(images)
        with torch.no_grad():
            expected = model(normalised).numpy().astype(np.float64)
        if not np.isfinite(expected).all():
            fail("these weights give NaN or infinite scores in PyTorch itself, on random images; nothing was written")
        actual = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0].astype(np.float64)
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            fail("the exported graph disagrees with PyTorch at batch %d; nothing was written" % batch)
        difference = max(difference, np.abs(actual - expected).max())
        largest = max(largest, np.abs(expected).max())
    if difference > PROOF_LIMIT * largest:
        fail("the exported graph disagrees with PyTorch (difference %.3g, largest score %.3g); nothing was written"
             % (difference, largest))
    return ("proof: ONNX Runtime %s against PyTorch %s on random %s images, batch 1 and 3: largest difference %.3g, largest "
            "score %.3g" % (onnxruntime.__version__, torch.__version__, recipe["dtype"], difference, largest))


def write_whole(path, data):
    """Write a file that is there whole or not at all; a link of its name is replaced, not followed."""
    folder, base = os.path.dirname(path) or ".", os.path.basename(path)
    temporary = os.path.join(folder, ".%s.%s.tmp" % (base, os.urandom(4).hex()))
    try:
        remove_strays(folder, base)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            fail("%s: cannot be written: %s" % (path, error.strerror))
        raise


def remove_strays(folder, base):
    """Remove the temporaries of killed runs, which nobody locks; what is locked, no regular file, or gone is left alone."""
    for name in os.listdir(folder):
        if re.match(r"\.%s\.[0-9a-f]{8}\.tmp\Z" % re.escape(base), name):
            with contextlib.suppress(OSError):
                with os.fdopen(os.open(os.path.join(folder, name), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW), "wb") as stray:
                    fcntl.flock(stray, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(os.path.join(folder, name))


def three_numbers(text):
    """"0.485,0.456,0.406", one for each of red, green and blue."""
    numbers = [float(word) for word in text.split(",")]
    if len(numbers) != 3 or not all(math.isfinite(number) and 0 <= number <= 1 for number in numbers):
        raise argparse.ArgumentTypeError("%r: three numbers of 0..1 are wanted, for red, green, blue, such as 0.485,0.456,0.406"
                                         % text)
    return numbers


def parse_args():
    parser = argparse.ArgumentParser(description="Export a ResNet34 checkpoint to ONNX and prove the export.")
    parser.add_argument("pth", metavar="PTH", help="checkpoint, for example resnet34-b627a593.pth")
    parser.add_argument("onnx", metavar="ONNX", help="file to write, for example resnet34.onnx")
    parser.add_argument("--opset", metavar="N", type=int, default=11, help="ONNX opset version (default: %(default)s)")
    parser.add_argument("--input", dest="dtype", choices=("float32", "uint8"), default="float32",
                        help="what the graph takes: normalised float32, or uint8 pixels (default: %(default)s)")
    group = parser.add_argument_group("for a net that was trained otherwise")
    group.add_argument("--resize", metavar="N", type=int, default=RESIZE,
                       help="short side before the crop (default: %(default)s)")
    group.add_argument("--crop", metavar="N", type=int, default=CROP, help="side of its square images (default: %(default)s)")
    group.add_argument("--mean", metavar="R,G,B", type=three_numbers, default=IMAGENET_MEAN, help="default: ImageNet's")
    group.add_argument("--std", metavar="R,G,B", type=three_numbers, default=IMAGENET_STD, help="default: ImageNet's")
    args = parser.parse_args()
    if args.opset < 7:
        parser.error("--opset %d: ResNet34 needs opset 7 or newer" % args.opset)
    if not 1 <= args.crop <= MAX_CROP:
        parser.error("--crop %d: 1 to %d are possible" % (args.crop, MAX_CROP))
    if not args.crop <= args.resize <= 65500:  # JPEG's largest side
        parser.error("--resize %d: at least --crop %d, and at most 65500" % (args.resize, args.crop))
    if min(args.std) == 0:
        parser.error("--std: 0 cannot be divided by")
    if os.path.realpath(args.pth) == os.path.realpath(args.onnx):
        parser.error("PTH and ONNX are the same file; the export would overwrite the checkpoint")
    return args


def main():
    args = parse_args()
    recipe = {"resize": args.resize, "crop": args.crop, "mean": args.mean, "std": args.std, "dtype": args.dtype,
              "layout": "HWC" if args.dtype == "uint8" else "CHW"}
    if not os.path.isdir(os.path.dirname(args.onnx) or "."):
        fail("%s: its folder does not exist" % args.onnx)
    if os.path.lexists(args.onnx) and not (os.path.islink(args.onnx) or os.path.isfile(args.onnx)):
        fail("%s: is a folder or a device, not a file to write" % args.onnx)
    data = read_checkpoint(args.pth)
    digest = hashlib.sha256(data).hexdigest()
    check_hash(args.pth, digest)
    check_archive(args.pth, data)
    torch, torchvision, onnx, onnxruntime = import_packages()
    state_dict = state_dict_of(torch, load_checkpoint(torch, args.pth, data), args.pth)
    model = build_model(torch, torchvision, state_dict, args.pth)
    with open(os.path.abspath(__file__), "rb") as file:
        script = hashlib.sha256(file.read()).hexdigest()
    properties = collections.OrderedDict([
        ("precision", "fp32"), ("weights", os.fsencode(os.path.basename(args.pth)).decode("utf-8", "replace")),
        ("weights_sha256", digest), ("exporter", "torch %s, torchvision %s, onnx %s, opset %d" % (
            torch.__version__, torchvision.__version__, onnx.__version__, args.opset)), ("exporter_sha256", script)])
    onnx_bytes = finish(onnx, export(torch, model, args.opset, args.crop), recipe, properties)
    proof = prove(torch, onnx, onnxruntime, model, onnx_bytes, recipe)
    write_whole(args.onnx, onnx_bytes)
    print(proof)
    print("%s: written, opset %d, %s %d x %d, %d classes" % (args.onnx, args.opset, args.dtype, args.crop, args.crop,
                                                             model.fc.out_features))


def guarded():
    """main(), with a sentence for whatever the outside world does: full disks, closed pipes, no memory."""
    for descriptor in range(3):  # closed by `>&-`: no data file may come to be number 1 or 2
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal's encoding does not
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # the standard output's; Python's own flush at the end shall be silent
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("not enough memory to export this checkpoint")
    except Exception:
        if stop_code:  # a C++ module that was being loaded makes a RuntimeError of the stop
            sys.exit(stop_code[0])
        raise


if __name__ == "__main__":
    guarded()
