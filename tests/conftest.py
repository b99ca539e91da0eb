"""Shared by all tests: how a script is run, a small model and small images, and the demo, made once by the project's scripts."""
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import warm

# A shell starts what it puts into the background with Ctrl-C ignored, and the scripts under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a process has freed stays its own: giving large blocks back and faulting them in again is a tenth of what torch and ONNX
# Runtime cost here (glibc's malloc; others do not know the names).
os.environ.update(MALLOC_MMAP_THRESHOLD_="4000000000", MALLOC_TRIM_THRESHOLD_="8000000000")

# One cache of fonts for all, whatever HOME a test gives a script: matplotlib looks through the machine's fonts for each new one.
os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), "matplotlib-%d" % os.getuid()))

# Each of pytest-xdist's workers has a CPU to itself, and so have the scripts it starts: ONNX Runtime's threads wait by spinning,
# and those of two processes on the same CPUs take each other's time.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    CPUS = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {CPUS[int(os.environ["PYTEST_XDIST_WORKER"][2:]) % len(CPUS)]})

# In memory where there is room, of which a run of all takes 2 GB: half of what test_eval.py costs on a disk is making files.
MEMORY = "/dev/shm"
if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 8 << 30 and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

FIRST = ["test_run_infer.py", "test_npu.py", "test_readme.py", "test_export.py", "test_run_infer_npu.py", "test_slurm.py",
         "test_report.py", "test_atc.py", "test_eval.py", "test_preprocess.py", "test_infer.py", "test_quantize.py"]

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FLOAT_RECIPE = {"resize": 256, "crop": 224, "interpolation": "bilinear", "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
                "dtype": "float32", "layout": "CHW"}
DEMO = ["--demo", "--engine", "onnxruntime", "--loop", "3", "--batch-sizes", "1 8"]  # the one whole chain
SMALL_RECIPE = ["--resize", "72", "--crop", "64"]  # of chains that are looked at for what they do; the demo for how well
UINT8_RECIPE = dict(FLOAT_RECIPE, dtype="uint8", layout="HWC")

# Under tests/run_emulated.sh this Python runs on an emulated processor, and what it starts must, too.
sys.executable = os.environ.get("EMULATED_PYTHON", sys.executable)


def pytest_configure(config):
    config.addinivalue_line("markers", "processor: hangs on the processor; tests/run_emulated.sh runs it on another")
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist would start with the files of the most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The longest files first, so that the workers end together; while one makes the demo, the other has two that do without."""
    items.sort(key=lambda item: (FIRST + [item.path.name]).index(item.path.name))


def command(name, *arguments):
    """The words that run one of the scripts, as subprocess takes them."""
    program = ["bash"] if name.endswith(".sh") else [sys.executable]
    return program + [str(REPOSITORY / name)] + [os.fspath(argument) for argument in arguments]


def some_python():
    """What shell scripts may take for python3 where nothing but the scripts' own work is looked at."""
    if "EMULATED_PYTHON" in os.environ:  # QEMU does not survive the fork of a process with threads
        return sys.executable
    return warm.python()


def script(name, *arguments, cold=False, **options):
    """Run one of the scripts as a user does; returns the finished process with its text output.

    cold: from nothing, as Python scripts in an environment of their own are always; others are forks, see warm.py.
    """
    options.setdefault("timeout", 600)
    if name.endswith(".py") and not cold and "EMULATED_PYTHON" not in os.environ and set(options) <= {"cwd", "timeout"}:
        return warm.run(command(name, *arguments)[1:], options.get("cwd", os.getcwd()), options["timeout"])
    options.setdefault("env", dict(os.environ, PYTHON=sys.executable if cold else some_python()))
    return subprocess.run(command(name, *arguments), capture_output=True, stdin=subprocess.DEVNULL,
                          encoding="utf-8", errors="replace", **options)


def succeeds(name, *arguments, **options):
    process = script(name, *arguments, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def fails(code, name, *arguments, **options):
    """The one sentence a failing script writes to stderr."""
    process = script(name, *arguments, **options)
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    sentences = [line for line in process.stderr.splitlines() if "error: " in line]
    assert sentences, process.stderr
    return sentences[-1]


def can_quantize():
    """Does this Python's ONNX Runtime have what resnet34_quantize.py needs? The guide's 1.10 has not."""
    import onnxruntime
    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 13)


def wait_until(condition, process=None, seconds=60, pause=0.002):
    """Wait for a condition (a function), at most so long, or until the process ends; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value or (process is not None and process.poll() is not None):
            return value
        time.sleep(pause)
    raise AssertionError("waited %d seconds in vain" % seconds)


def contents(folder):
    """{relative path: bytes} of all files under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def back_to(place, snapshot):
    """The output folder as it was then, at the path where it was: what is in it is the same by all that identity looks at."""
    shutil.rmtree(str(place / "o"))
    shutil.copytree(str(place / snapshot), str(place / "o"))
    return place / "o"


def draw_images(folder, count, first=1, size=(60, 48), seed=0):
    """count small JPEG images of noise, named like ImageNet's; returns their paths."""
    import numpy as np
    from PIL import Image
    folder = Path(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.RandomState(seed), []
    for number in range(first, first + count):
        small = Image.fromarray(random.randint(0, 256, (6, 8, 3)).astype(np.uint8))
        paths.append(folder / ("ILSVRC2012_val_%08d.JPEG" % number))
        small.resize(size, Image.BICUBIC).save(str(paths[-1]), quality=90)
    return paths


def small_onnx(path, classes=1000, batch="batch", shape=(3, 224, 224), dtype="float32", recipe=FLOAT_RECIPE, softmax=False,
               seed=0, opset=11, extra=None, outputs=("class",), head=None):
    """Write an ONNX model that takes a ResNet34's input and gives its output but costs nothing; returns the path.

    Channel means of the image's four quarters, and one linear layer, random or head (weights, biases). dtype uint8 takes
    (batch, 224, 224, 3) pixels.
    """
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save
    random = np.random.RandomState(seed)
    side = shape[1] // 2
    nodes, weights, source = [], {}, "image"
    if dtype == "uint8":
        shape = (shape[1], shape[2], shape[0])
        weights = {"n255": np.float32(255), "mean": np.array(IMAGENET_MEAN, np.float32).reshape(1, 3, 1, 1),
                   "std": np.array(IMAGENET_STD, np.float32).reshape(1, 3, 1, 1)}
        nodes = [helper.make_node("Transpose", ["image"], ["n0"], perm=[0, 3, 1, 2]),
                 helper.make_node("Cast", ["n0"], ["n1"], to=TensorProto.FLOAT), helper.make_node("Div", ["n1", "n255"], ["n2"]),
                 helper.make_node("Sub", ["n2", "mean"], ["n3"]), helper.make_node("Div", ["n3", "std"], ["n4"])]
        source = "n4"
    weights["w"], weights["b"] = head or ((random.standard_normal((12, classes)) * 3).astype(np.float32),
                                          random.standard_normal(classes).astype(np.float32))
    nodes += [helper.make_node("AveragePool", [source], ["pooled"], kernel_shape=[side, side], strides=[side, side]),
              helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
              helper.make_node("Gemm", ["flat", "w", "b"], ["scores" if softmax else "class"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["class"], axis=1))
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    graph = helper.make_graph(nodes, "small", [helper.make_tensor_value_info("image", kind, [batch] + list(shape))],
                              [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes]) for name in outputs],
                              [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()])
    model = helper.make_model(graph, producer_name="tests", opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 6
    properties = dict({"precision": "fp32", "weights": "small.pth", "weights_sha256": "%064x" % seed}, **(extra or {}))
    if recipe is not None:
        properties["recipe"] = json.dumps(UINT8_RECIPE if dtype == "uint8" and recipe is FLOAT_RECIPE else recipe)
    helper.set_model_props(model, properties)
    checker.check_model(model)
    save(model, str(path))
    return path


def make_light(path, head):
    """Put a small_onnx in the place of an exported ResNet34 of 87 MB, with its metadata_props and record: the export keeps it."""
    import onnx
    metadata = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    recipe = json.loads(metadata["recipe"])
    small_onnx(path, shape=(3, recipe["crop"], recipe["crop"]), dtype=recipe["dtype"], extra=metadata, recipe=recipe, head=head)
    record = Path(str(path) + ".json")
    record.write_text(json.dumps(dict(json.loads(record.read_text()), sha256=hashlib.sha256(path.read_bytes()).hexdigest())))


def head_of(path):
    """The weights and biases of a small_onnx's linear layer."""
    import onnx
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in onnx.load(str(path)).graph.initializer}
    return weights["w"], weights["b"]


def fitted_head(prepared, labels):
    """Weights and biases of small_onnx's linear layer under which most of these prepared images are judged right."""
    import numpy as np
    paths = sorted(prepared.glob("*.bin"))
    truth = dict(line.split() for line in labels.read_text().splitlines())
    classes = [int(truth[path.stem + ".JPEG"]) for path in paths]
    planes = np.stack([np.fromfile(str(path), "<f4").reshape(3, 2, 32, 2, 32).mean((2, 4)).ravel() for path in paths])
    features = np.c_[planes, np.ones(len(planes))]
    fit = np.linalg.lstsq(features, 10 * np.eye(1000)[classes], rcond=None)[0].astype(np.float32)
    return fit[:-1], fit[-1] - np.arange(1000, dtype=np.float32) / 1e4  # no ties


def made_once(factory, name, make):
    """A folder, or file, that make(path) made, once for all of pytest-xdist's workers; none of them changes what is in it."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(str(base / (name + ".lock")), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / (name + ".made")).exists():
            make(base / name)
            (base / (name + ".made")).touch()
    return base / name


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with val/ (12 small images), val_label.txt, small.onnx, small_uint8.onnx, prep_dataset and prep_dataset_uint8."""
    def make(folder):
        paths = draw_images(folder / "val", 12)
        labels = ["%s %d\n" % (path.name, number * 83 % 1000) for number, path in enumerate(paths)]
        (folder / "val_label.txt").write_text("".join(labels))
        small_onnx(folder / "small.onnx")
        small_onnx(folder / "small_uint8.onnx", dtype="uint8")
        succeeds("imagenet_torch_preprocess.py", "resnet", folder / "val", folder / "prep_dataset")
        succeeds("imagenet_torch_preprocess.py", "resnet", folder / "val", folder / "prep_dataset_uint8", "--dtype", "uint8")
    return made_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def begun_demo(tmp_path_factory):
    """The folder of `run_infer.sh --demo` when only the data is made and the model exported, which most tests have enough of."""
    def make(folder):
        process = succeeds("run_infer.sh", *DEMO, "--output", folder, "--stages", "export")
        (folder.parent / "demo.begun").write_text(process.stdout)
    return made_once(tmp_path_factory, "the demo", make)


@pytest.fixture(scope="session")
def tiny(begun_demo):
    """The demo's data set and weights."""
    return begun_demo / "tiny-imagenet"


@pytest.fixture(scope="session")
def resnet34_onnx(begun_demo):
    """The demo's weights, exported."""
    return begun_demo / "resnet34.onnx"


@pytest.fixture(scope="session")
def light(tiny, tmp_path_factory):
    """What --stages export of the tests' short lines leaves in the output folder, but with a graph that costs nothing."""
    def make(folder):
        folder.mkdir()
        prepared = folder.parent / "prepared for light"
        succeeds("imagenet_torch_preprocess.py", "resnet", tiny / "val", prepared, *SMALL_RECIPE)
        succeeds("resnet34_pth2onnx.py", tiny / "resnet34-tiny.pth", folder / "resnet34.onnx", *SMALL_RECIPE)
        make_light(folder / "resnet34.onnx", fitted_head(prepared, tiny / "val_label.txt"))
    return made_once(tmp_path_factory, "light", make)


@pytest.fixture(scope="session")
def demo(begun_demo, tmp_path_factory):
    """A finished `run_infer.sh --demo`, the one whole chain that several tests look at: (its folder, what it said)."""
    def make(said):
        rest = succeeds("run_infer.sh", *DEMO, "--output", begun_demo, cold=True).stdout
        said.write_text((begun_demo.parent / "demo.begun").read_text() + rest)
    return begun_demo, made_once(tmp_path_factory, "demo.said", make).read_text()


@pytest.fixture(scope="session")
def pytorchs_hits(tiny, tmp_path_factory):
    """Top-1 and Top-5 hits by torchvision's model, transforms and loader: nothing of this project."""
    import numpy as np
    return np.load(str(made_once(tmp_path_factory, "hits.npy", lambda path: np.save(str(path), judge_by_pytorch(tiny)))))


def judge_by_pytorch(tiny):
    """(images, 5): whether the label is the k-th guess."""
    import numpy as np
    import torch
    from torchvision import transforms
    from torchvision.datasets.folder import default_loader
    from torchvision.models import resnet34
    model = resnet34()
    model.load_state_dict(torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu"))
    recipe = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                 transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    names, labels = zip(*(line.split() for line in (tiny / "val_label.txt").read_text().splitlines()))
    with torch.no_grad():
        scores = model.eval()(torch.stack([recipe(default_loader(str(tiny / "val" / name))) for name in names]))
    return scores.topk(5).indices.numpy() == np.array(labels, int)[:, None]
