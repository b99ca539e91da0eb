"""README.md and README.zh-CN.md: the same commands in the same order, and those that can run here do run."""
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY


def commands(name):
    """The lines of the ```bash blocks."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", (REPOSITORY / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_both_languages_have_the_same_commands_and_tables():
    assert commands("README.md") == commands("README.zh-CN.md") != []
    english, chinese = [re.findall(r"\d+\.\d+", (REPOSITORY / name).read_text(encoding="utf-8"))
                        for name in ("README.md", "README.zh-CN.md")]
    assert english == chinese


def test_the_guides_commands_are_there():
    for command in ["python3 imagenet_torch_preprocess.py resnet ./ImageNet/val ./prep_dataset",
                    "python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34.onnx",
                    "python3 -m ais_bench --model resnet34_bs1.om --input prep_dataset "
                    "--output ./ --output_dirname result --outfmt TXT",
                    "python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json",
                    "python3 -m ais_bench --model=resnet34_bs1.om --loop=20 --batchsize=1"]:
        assert command in commands("README.md")


@pytest.fixture(scope="module")
def workplace(tiny, tmp_path_factory):
    """A folder as the guide has it: the scripts, ImageNet/ and the weights (the tiny ones, under their own name)."""
    folder = tmp_path_factory.mktemp("work")
    for path in list(REPOSITORY.glob("*.py")) + list(REPOSITORY.glob("*.sh")):
        shutil.copy(str(path), str(folder))
    shutil.copytree(str(tiny), str(folder / "ImageNet"))
    shutil.copy(str(tiny / "resnet34-tiny.pth"), str(folder))
    return folder


def can_run_here(command):
    return (command.startswith("python3 ") and " -m " not in command) or command.startswith("bash run_infer.sh --pth")


@pytest.mark.parametrize("command", [command for command in commands("README.md") if can_run_here(command)])
def test_the_commands_run_in_their_order(command, workplace):
    command = command.replace("resnet34-b627a593.pth", "resnet34-tiny.pth").replace("1 4 8 16 32 64", "8")
    environment = dict(os.environ, PYTHON=sys.executable)
    process = subprocess.run(["bash", "-c", 'python3() { "$PYTHON" "$@"; }\n' + command], cwd=str(workplace), env=environment,
                             capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stdout + process.stderr


def test_after_the_commands_the_guides_files_are_there(workplace):
    for name in ("prep_dataset/ILSVRC2012_val_00000001.bin", "resnet34.onnx", "result/ILSVRC2012_val_00000001_0.txt",
                 "result_summary.json", "result.json", "output/report.md"):
        assert (workplace / name).exists(), name
