"""The READMEs and docs/: both languages have the same commands, those that can run here do run, and no link is dead."""
import os
import re
import shutil
import subprocess

import pytest
from conftest import REPOSITORY, SMALL_RECIPE, can_quantize
from test_npu_info import STANDINS, TWO_310P3, dressed

PAGES = ["README.md", "docs/data.md", "docs/uint8-int8.md", "docs/report.md", "docs/ci.md", "docs/slurm.md"]
FOUR_310P3 = TWO_310P3 + "".join(
    "| %d       310P3     | OK              |\n| 0       %d         | 0000:C%d:00.0    |\n" % (number, number, number)
    for number in (2, 3))


def commands(name):
    """The lines of the ```bash blocks."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", (REPOSITORY / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


def can_run_here(command):
    """All but what needs the internet, sets a machine up, is done already, or has its own tests (the devkit's, Slurm's)."""
    return not command.startswith(("wget ", "pip3 ", "python3 -m venv ", "bash run_slurm.sh",
                                   "python3 tools/make_val_label.py ILSVRC2012",
                                   "python3 tools/npu_info.py --check"))  # exit code 1 on a machine without a card


def furnish(folder, tiny):
    """A folder as the guide has it: the scripts, ImageNet/ and the weights (the tiny ones, under their own name)."""
    folder.mkdir()
    for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("*.sh"), *REPOSITORY.glob("*.jinja")]:
        shutil.copy(str(path), str(folder))
    for name in ("tools", "common"):
        shutil.copytree(str(REPOSITORY / name), str(folder / name))
    shutil.copy(str(REPOSITORY / "report.zh.json"), str(folder))
    # The demo's data is a copy of what this very script made for the session: it takes 25 seconds of one CPU.
    (folder / "tools" / "make_tiny_imagenet.py").write_text(
        "import os, shutil, sys\nos.path.exists(sys.argv[1]) or shutil.copytree(%r, sys.argv[1])\n" % str(tiny))
    for name in ("bike", "cup"):  # somebody's own pictures, with equal names, and weights of two classes
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(1, 5):
            drawn = tiny / "val" / ("ILSVRC2012_val_%08d.JPEG" % (number + 8 * len(name)))
            shutil.copy(str(drawn), str(folder / "pictures" / name / ("IMG_%d.jpg" % number)))
    import torch
    weights = torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu")
    for key in ("fc.weight", "fc.bias"):
        weights[key] = weights[key][[5, 67]].clone()
    torch.save(weights, str(folder / "mine.pth"))
    shutil.copytree(str(tiny), str(folder / "ImageNet"))
    for path in sorted((folder / "ImageNet" / "val").iterdir())[12:]:
        path.unlink()
    shutil.copy(str(tiny / "resnet34-tiny.pth"), str(folder))
    return folder


def made_short(command):
    """The command with the tiny weights in the published ones' place, CANN's stand-ins, and fewer batch sizes and images."""
    if "run_infer.sh" in command and "--demo" not in command:
        command = command.replace(" --limit 100", "") + " --limit 4 --loop 2 --batch-sizes 2 " + " ".join(SMALL_RECIPE)
        if "--pth" not in command:
            command += " --pth resnet34-tiny.pth"
    if "--demo" in command:  # the default's time is the first command's, which CI runs
        command = command.replace(" --seconds 2", "") + " --loop 2 --batch-sizes 8"
    return (command.replace("resnet34-b627a593.pth", "resnet34-tiny.pth").replace("1 4 8 16 32 64", "1 8")
            .replace(" 500", " 4").replace(" 32", " 4").replace("--loop=20", "--loop=3")
            .replace("/usr/local/Ascend/ascend-toolkit/set_env.sh", "%s; command -v atc" % (STANDINS / "set_env.sh")))


# Before the short ones: pytest-xdist gives a worker that has two tests left the next file, which would then wait behind this one.
def test_the_commands_run_in_their_order_and_the_guides_files_are_there(tiny, tmp_path):
    workplace, env = furnish(tmp_path / "work", tiny), dressed(tmp_path, FOUR_310P3, STANDIN_DEVICES="4")
    lines = [line for page in PAGES for line in commands(page)]
    for command in map(made_short, filter(can_run_here, lines)):
        if "int8" not in command or can_quantize():
            process = subprocess.run(["bash", "-c", 'umask 027; python3() { "$PYTHON" "$@"; }\n' + command], cwd=str(workplace),
                                     env=env, capture_output=True, encoding="utf-8")
            assert process.returncode == 0, command + "\n" + process.stdout + process.stderr
    for name in ("prep_dataset/ILSVRC2012_val_00000001.bin", "resnet34.onnx", "result/ILSVRC2012_val_00000001_0.txt",
                 "result_summary.json", "result.json", "resnet34_bs1.om", "resnet34_bs8.om", "fidelity.json", "report.md",
                 "perf_bs1_summary.json", "aipp/resnet34_bs1.aipp.cfg", "output/resnet34_bs2.om", "output/report.md",
                 "output/report.html", "output-mine/report.md", "output-parts/report.md"):
        assert (workplace / name).exists(), name


def test_both_languages_have_the_same_commands_and_tables():
    assert commands("README.md") == commands("README.zh-CN.md") != []
    english, chinese = [re.findall(r"\d+\.\d+", (REPOSITORY / name).read_text(encoding="utf-8"))
                        for name in ("README.md", "README.zh-CN.md")]
    assert english == chinese


@pytest.mark.parametrize("page", ["install.md", "data.md", "troubleshooting.md"])
def test_the_pages_that_are_in_both_languages_have_the_same_commands(page):
    assert commands("docs/" + page) == commands("docs/zh/" + page)


def test_no_link_is_dead_and_the_readme_is_short():
    pages = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md", REPOSITORY / "benchmarks" / "README.md",
             *sorted((REPOSITORY / "docs").rglob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or os.path.exists(str(page.parent / target)), "%s: %s" % (page, target)
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 220


def test_the_guides_commands_are_there():
    for command in ["python3 imagenet_torch_preprocess.py resnet ./ImageNet/val ./prep_dataset",
                    "python3 resnet34_pth2onnx.py ./resnet34-b627a593.pth resnet34.onnx",
                    "python3 -m ais_bench --model resnet34_bs1.om --input prep_dataset "
                    "--output ./ --output_dirname result --outfmt TXT",
                    "python3 imagenet_acc_eval.py ./result ./ImageNet/val_label.txt ./ result.json",
                    "atc --framework=5 --model=./resnet34.onnx --output=resnet34_bs1 --input_format=NCHW "
                    "--input_shape=\"image:1,3,224,224\" --log=error --soc_version=Ascend310P3",
                    "python3 -m ais_bench --model=resnet34_bs1.om --loop=20 --batchsize=1"]:
        assert command in commands("README.md")
