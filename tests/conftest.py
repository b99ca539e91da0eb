"""Shared by all tests: how a script is run, and the tiny data set, made once, by the project's own scripts."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A shell starts what it puts into the background with Ctrl-C ignored, and the scripts under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


def script(name, *arguments, **options):
    """Run one of the scripts as a user does; returns the finished process with its text output."""
    program = ["bash"] if name.endswith(".sh") else [sys.executable]
    options.setdefault("env", dict(os.environ, PYTHON=sys.executable))
    return subprocess.run(program + [str(REPOSITORY / name)] + [os.fspath(argument) for argument in arguments],
                          capture_output=True, stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", **options)


def succeeds(name, *arguments, **options):
    process = script(name, *arguments, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def fails(code, name, *arguments, **options):
    """The one sentence a failing script writes to stderr."""
    process = script(name, *arguments, **options)
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    sentences = [line for line in process.stderr.splitlines() if "error: " in line]
    assert sentences, process.stderr
    return sentences[-1]


def interrupted(pipe, name, *arguments):
    """What a script writes to stderr when Ctrl-C comes while it reads a file, here a pipe that never ends."""
    os.mkfifo(str(pipe))
    process = subprocess.Popen([sys.executable, str(REPOSITORY / name)] + [os.fspath(argument) for argument in arguments],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    writer = None
    while writer is None and process.poll() is None:
        try:
            writer = os.open(str(pipe), os.O_WRONLY | os.O_NONBLOCK)  # refused until the script has opened it
        except OSError:
            time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in errors, errors
    os.close(writer)
    return errors


def contents(folder):
    """{relative path: bytes} of all files under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A finished `run_infer.sh --demo`, the smoke test that all others build on: (its folder, its process)."""
    folder = tmp_path_factory.mktemp("demo") / "out put"
    return folder, succeeds("run_infer.sh", "--demo", "--engine", "onnxruntime", "--output", folder, "--loop", "3")


@pytest.fixture(scope="session")
def tiny(demo):
    return demo[0] / "tiny-imagenet"


@pytest.fixture(scope="session")
def resnet34_onnx(demo):
    return demo[0] / "resnet34.onnx"


@pytest.fixture(scope="session")
def pytorchs_hits(tiny):
    """Top-1 and Top-5 hits by torchvision's model, transforms and loader: nothing of this project."""
    import numpy as np
    import torch
    from torchvision import transforms
    from torchvision.datasets.folder import default_loader
    from torchvision.models import resnet34
    model = resnet34()
    model.load_state_dict(torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu"))
    recipe = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                 transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    hits = []
    for line in (tiny / "val_label.txt").read_text().splitlines():
        name, label = line.split()
        with torch.no_grad():
            scores = model.eval()(recipe(default_loader(str(tiny / "val" / name)))[None])[0]
        hits.append(scores.topk(5).indices == int(label))
    return np.array([[bool(hit) for hit in row] for row in hits])
