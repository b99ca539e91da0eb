"""Shared by all tests: how a script is run, and the tiny data set, made once, by the project's own scripts."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def contents(folder):
    """{relative path: bytes} of all files under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A finished `run_infer.sh --demo`, the smoke test that all others build on: (its folder, its process)."""
    folder = tmp_path_factory.mktemp("demo") / "out put"
    return folder, succeeds("run_infer.sh", "--demo", "--engine", "onnxruntime", "--output", folder)


@pytest.fixture(scope="session")
def tiny(demo):
    return demo[0] / "tiny-imagenet"


@pytest.fixture(scope="session")
def resnet34_onnx(demo):
    return demo[0] / "resnet34.onnx"
