"""run_infer.sh on ONNX Runtime: the whole guide in one line, its skips, stops, kills and refusals."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, contents, fails, script, succeeds

ENV = dict(os.environ, PYTHON=sys.executable)


def rows_of(folder):
    """The report's rows without what differs from run to run."""
    report = json.loads((folder / "report.json").read_text())
    return [{key: row[key] for key in ("batch_size", "top1", "top5", "judged", "labelled", "engine")} for row in report["rows"]]


def test_the_demo_ends_with_the_accuracy_that_pytorch_finds_at_every_batch_size(demo, pytorchs_hits):
    folder, process = demo
    hits = pytorchs_hits
    top1, top5 = round(100 * hits[:, 0].mean(), 2), round(100 * hits.any(axis=1).mean(), 2)
    assert [(row["batch_size"], row["top1"], row["top5"], row["judged"]) for row in rows_of(folder)] == \
        [(1, top1, top5, 64), (4, top1, top5, 64), (8, top1, top5, 64)]
    table = (folder / "report.md").read_text().split("\n\n")[1]
    assert table.count("\n") == 4 and table + "\nreport: " in process.stdout


def test_the_logits_equal_pytorchs_within_a_ten_thousandth(demo):
    import numpy as np
    import torch
    from torchvision.models import resnet34
    folder = demo[0]
    model = resnet34()
    model.load_state_dict(torch.load(str(folder / "tiny-imagenet" / "resnet34-tiny.pth"), map_location="cpu"))
    for number in (1, 5, 11, 23, 64):
        name = "ILSVRC2012_val_%08d" % number
        image = np.fromfile(str(folder / "prep_dataset" / (name + ".bin")), "<f4").reshape(1, 3, 224, 224)
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(image)).numpy()[0]
        for size in (1, 4, 8):
            scores = np.array((folder / ("result_bs%d" % size) / (name + "_0.txt")).read_text().split(), float)
            assert np.abs(scores - expected).max() <= 1e-4 * np.abs(expected).max()


def test_every_file_of_the_guide_is_there(demo):
    folder = demo[0]
    names = {"prep_dataset", "resnet34.onnx", "report.md", "report.json", "report.png", "report.html"}
    for size in (1, 4, 8):
        names |= {"result_bs%d" % size, "result_bs%d_summary.json" % size, "result_bs%d.json" % size,
                  "perf_bs%d_summary.json" % size}
        assert len(os.listdir(str(folder / ("result_bs%d" % size)))) == 64
    assert names <= set(os.listdir(str(folder)))
    perf = json.loads((folder / "perf_bs4_summary.json").read_text())
    assert perf["NPU_compute_time"]["count"] == 3 and perf["batchsize"] == 4
    row = json.loads((folder / "report.json").read_text())["rows"][1]
    assert row["images_per_second"] == perf["throughput"] and "onnxruntime" in row["engine"]


def test_each_stage_prints_the_command_it_runs(demo):
    for script_name in ("make_tiny_imagenet.py", "imagenet_torch_preprocess.py", "resnet34_pth2onnx.py", "onnx_infer.py",
                        "imagenet_acc_eval.py"):
        assert re.search(r"^\S*python\S* \S*%s " % re.escape(script_name), demo[1].stdout, re.MULTILINE)


def test_a_second_run_skips_what_is_complete_and_ends_with_the_same_report(demo):
    folder, _ = demo
    report = (folder / "report.md").read_bytes()
    again = succeeds("run_infer.sh", "--demo", "--engine", "onnxruntime", "--output", folder, "--loop", "3")
    assert again.stdout.count("skipped") == 11 and "0 made now, 64 kept" in again.stdout
    assert (folder / "report.md").read_bytes() == report


def data_options(demo, output):
    tiny = demo[0] / "tiny-imagenet"
    return ["--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels", tiny / "val_label.txt", "--output", output,
            "--engine", "onnxruntime", "--loop", "2"]


@pytest.fixture(scope="module")
def short_run(demo, tmp_path_factory):
    """A finished run over 12 images at batch size 4; tests take copies of it by running into their own folder."""
    folder = tmp_path_factory.mktemp("short") / "o"
    succeeds("run_infer.sh", *data_options(demo, folder), "--limit", "12", "--batch-sizes", "4")
    return folder


def test_limit_judges_the_first_images_and_says_so(short_run):
    row = rows_of(short_run)[0]
    assert (row["judged"], row["labelled"]) == (12, 64)
    assert "12 of 64 labelled images" in (short_run / "report.md").read_text()


def test_what_was_damaged_or_changed_is_made_again_and_only_that(demo, tmp_path):
    folder = tmp_path / "o"
    options = data_options(demo, folder) + ["--limit", "4", "--batch-sizes", "4"]
    succeeds("run_infer.sh", *options)
    before = rows_of(folder)
    one_result = folder / "result_bs4" / "ILSVRC2012_val_00000003_0.txt"
    for damage, redone in [(lambda: one_result.write_text("0"), "infer_bs4 evaluate_bs4"),
                           ((folder / "prep_dataset" / "ILSVRC2012_val_00000003.bin").unlink, "infer_bs4 evaluate_bs4"),
                           (lambda: [(folder / name).unlink() for name in ("result_bs4.json", "perf_bs4_summary.json")],
                            "evaluate_bs4 perf_bs4"),
                           ((folder / "resnet34.onnx").unlink, "export infer_bs4 evaluate_bs4 perf_bs4")]:
        damage()
        process = succeeds("run_infer.sh", *options)
        done = re.findall(r"^== (\w+): (?!skipped)", process.stdout, re.MULTILINE)
        assert [name for name in done if name != "preprocess"] == redone.split()
        assert rows_of(folder) == before

    again = succeeds("run_infer.sh", *(options + ["--outfmt", "BIN"]))
    assert "== export: skipped" in again.stdout and "== infer_bs4: skipped" not in again.stdout
    import torch
    weights = torch.load(str(options[1]), map_location="cpu")
    weights["fc.weight"] = weights["fc.weight"].flip(0)
    torch.save(weights, str(tmp_path / "other.pth"))
    os.utime(str(tmp_path / "other.pth"), (1, 1))  # older than everything made from the first weights
    other = succeeds("run_infer.sh", *(["--pth", tmp_path / "other.pth"] + options[2:]))
    assert "skipped" not in other.stdout
    assert rows_of(folder)[0]["top1"] == 0


def test_killed_in_every_stage_the_same_line_goes_on_to_the_same_report(short_run, demo, tmp_path):
    output = tmp_path / "o"
    options = ["--demo", "--engine", "onnxruntime", "--output", output, "--limit", "12", "--batch-sizes", "4", "--loop", "2"]
    for stage in ("demo", "preprocess", "export", "infer_bs4", "evaluate_bs4", "perf_bs4"):
        process = subprocess.Popen(["bash", str(REPOSITORY / "run_infer.sh")] + list(map(str, options)), env=ENV,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", start_new_session=True)
        for line in process.stdout:
            if line.startswith("== %s: " % stage):
                time.sleep(0.15)
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL, stage
        assert not (output / "report.md").exists()
    succeeds("run_infer.sh", *options)
    assert rows_of(output) == rows_of(short_run)
    assert contents(output / "result_bs4") == contents(short_run / "result_bs4")
    assert contents(output / "prep_dataset") == contents(short_run / "prep_dataset")
    # Made anew after the kill: the drawing and the fit give the same again.
    assert_same_demo(output / "tiny-imagenet", demo[0] / "tiny-imagenet")
    assert not list(output.glob(".*.partial*")) and not list(output.glob("**/*.tmp"))


def assert_same_demo(one, other):
    import torch
    assert contents(one / "val") == contents(other / "val")
    assert (one / "val_label.txt").read_bytes() == (other / "val_label.txt").read_bytes()
    # Value by value: torch 1.6 names the parts of its archive by memory addresses, so its bytes differ from run to run.
    weights = [torch.load(str(folder / "resnet34-tiny.pth"), map_location="cpu") for folder in (one, other)]
    assert list(weights[0]) == list(weights[1]) and all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_ctrl_c_says_how_to_go_on(demo, tmp_path):
    options = data_options(demo, tmp_path / "o") + ["--batch-sizes", "4"]
    process = subprocess.Popen(["bash", str(REPOSITORY / "run_infer.sh")] + list(map(str, options)), env=ENV,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True)
    for line in process.stdout:
        if line.startswith("== infer_bs4:"):
            time.sleep(0.8)
            os.killpg(process.pid, signal.SIGINT)
            break
    output, errors = process.communicate()
    assert process.returncode == 130 and "the same line goes on from here" in errors and "Traceback" not in errors


def test_a_second_run_in_one_folder_refuses(demo, tmp_path):
    options = data_options(demo, tmp_path / "o") + ["--limit", "1", "--batch-sizes", "1"]
    process = subprocess.Popen(["bash", str(REPOSITORY / "run_infer.sh")] + list(map(str, options)), env=ENV,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True)
    for line in process.stdout:
        if line.startswith("== preprocess:"):
            break
    assert "another run_infer.sh (process %d)" % process.pid in fails(1, "run_infer.sh", *options)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_failing_stage_stops_the_line_with_its_name_and_leaves_no_report(demo, tmp_path):
    images = tmp_path / "val"
    shutil.copytree(str(demo[0] / "tiny-imagenet" / "val"), str(images))
    (images / "ILSVRC2012_val_00000002.JPEG").write_bytes(b"broken")
    options = data_options(demo, tmp_path / "o")
    options[3] = images
    (tmp_path / "o").mkdir()
    for extension in ("md", "json", "png", "html"):
        (tmp_path / "o" / ("report." + extension)).write_text("of an earlier run")
    process = script("run_infer.sh", *(options + ["--batch-sizes", "1"]))
    assert process.returncode == 1 and "ILSVRC2012_val_00000002.JPEG" in process.stderr
    assert "stage preprocess failed" in process.stderr.splitlines()[-1]
    assert list((tmp_path / "o").glob("report.*")) == []


def test_strange_paths_and_any_working_directory_work(demo, short_run, tmp_path):
    place = tmp_path / "it's a \"place\" $HOME *"
    shutil.copytree(str(demo[0] / "tiny-imagenet"), str(place / "-data"))
    process = script("run_infer.sh", "--pth", "-data/resnet34-tiny.pth", "--images", "-data/val",
                     "--labels", "-data/val_label.txt", "--output", "-o", "--limit", "12", "--batch-sizes=4",
                     "--engine=onnxruntime", "--loop=2", cwd=str(place))
    assert process.returncode == 0, process.stdout + process.stderr
    assert rows_of(place / "-o") == rows_of(short_run)
    assert sorted(os.listdir(str(place))) == ["-data", "-o"]


def test_missing_weights_print_the_guides_download_command(tmp_path):
    sentence = fails(1, "run_infer.sh", cwd=str(tmp_path))
    assert "wget https://download.pytorch.org/models/resnet34-b627a593.pth" in sentence
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("damage, named", [
    (lambda tiny: shutil.rmtree(str(tiny / "val")), "val: no such folder"),
    (lambda tiny: (tiny / "val_label.txt").unlink(), "val_label.txt: no such label file"),
    (lambda tiny: (tiny / "val_label.txt").write_text("ILSVRC2012_val_00000001.JPEG 5\n"), "no label for 63 images"),
    (lambda tiny: (tiny / "val_label.txt").write_text("490\n361\n"), "line 1 is not"),
    (lambda tiny: (tiny / "resnet34-tiny.pth").rename(tiny / "resnet34-b627a593.pth"), "b627a593"),
], ids=["no images", "no labels", "labels of a subset", "devkit's ground truth", "damaged weights"])
def test_all_inputs_are_checked_before_the_first_stage(damage, named, demo, tmp_path):
    tiny = tmp_path / "tiny"
    shutil.copytree(str(demo[0] / "tiny-imagenet"), str(tiny))
    damage(tiny)
    weights = [path for path in tiny.iterdir() if path.suffix == ".pth"][0]
    assert named in fails(1, "run_infer.sh", "--pth", weights, "--images", tiny / "val", "--labels", tiny / "val_label.txt",
                          "--output", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_output_that_cannot_be_made_is_named(demo, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "cannot be made" in fails(1, "run_infer.sh", *data_options(demo, tmp_path / "file" / "o"))


def test_a_missing_package_is_named(demo, tmp_path):
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\nexec "%s" -S "$@"\n' % sys.executable)  # -S: no site-packages
    bare.chmod(0o755)
    environment = {key: value for key, value in ENV.items() if key != "PYTHONPATH"}
    process = script("run_infer.sh", *data_options(demo, tmp_path / "o"), env=dict(environment, PYTHON=str(bare)))
    assert process.returncode == 1 and "onnxruntime" in process.stderr and "requirements.txt" in process.stderr


@pytest.mark.parametrize("arguments", [["--batch-sizes", "1 0"], ["--batch-sizes", "four"], ["--loop", "-1"], ["--limit", "x"],
                                       ["--engine", "cuda"], ["--outfmt", "CSV"], ["--unknown", "x"], ["--pth"], ["word", "x"],
                                       ["--demo", "--pth", "x"]])
def test_wrong_usage_exits_with_2(arguments, tmp_path):
    fails(2, "run_infer.sh", *arguments, cwd=str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_help_names_every_option():
    text = succeeds("run_infer.sh", "--help").stdout
    for option in ("--pth", "--images", "--labels", "--batch-sizes", "--engine", "--output", "--loop", "--limit", "--outfmt",
                   "--fidelity", "--classes", "--demo"):
        assert option in text
