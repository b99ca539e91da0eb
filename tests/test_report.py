"""report.py: the guide's table and what shows whether its numbers deserve trust, from the JSON files that a run left."""
import ast
import copy
import hashlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, command, fails, script, succeeds, wait_until
from PIL import Image

sys.path.insert(0, str(REPOSITORY))
from common import files, labels, prepared, recipe, rows  # noqa: E402

SCRIPT = "report.py"
NAMES = ("report.json", "report.md", "report.png", "report.html")
# The published figures of the guide's table.
GUIDE = {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
CALIBRATION = {"tool": "onnxruntime", "method": "MinMax", "images": 500, "seed": 0, "shared": False, "source_sha256": "a" * 64,
               "names_sha256": "c" * 64, "weight_bits": 7}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def summary(size=1, precision="fp32", pure=True, speed=30.0, runs=200, spread=0.01, **more):
    """A summary as onnx_infer.py and npu_infer.py write it."""
    mean = 1000.0 * size / speed
    times = {"min": 0.9 * mean, "max": 1.3 * mean, "mean": mean, "median": 0.98 * mean, "count": runs,
             "percentile(99%)": 1.25 * mean}
    idle = dict.fromkeys(("min", "max", "mean", "median", "percentile(99%)"), 0.0)
    model = {"path": "resnet34.onnx", "bytes": 87000000, "sha256": "a" * 64, "onnx_sha256": "a" * 64, "weights": "resnet34.pth",
             "weights_sha256": "b" * 64, "recipe": None, "calibration": None,
             "input": {"dtype": "float32", "shape": [3, 224, 224]}}
    if precision == "int8":
        model.update(path="resnet34_int8.onnx", bytes=22000000, sha256="d" * 64, onnx_sha256="d" * 64, calibration=CALIBRATION)
    content = {
        "filesinfo": {}, "NPU_compute_time": times, "H2D_latency": idle, "D2H_latency": idle, "throughput": speed,
        "npu_compute_time_list": [], "args": ["onnx_infer.py"], "pid": 1, "schema": 2, "date": "2026-11-24T10:00:00Z",
        "made_from": {"loop": 1, "cpus": 2, "version": 2}, "engine": "onnxruntime 1.32.0 CPUExecutionProvider",
        "device": "AMD EPYC, 2 threads", "devices": [], "precision": precision, "batch_size": size, "outfmt": "TXT",
        "model": model,
        "input": None if pure else {"path": "prep_dataset", "images": 64, "recipe": None, "limit": None, "source": None,
                                    "set_hash": None, "shard": None},
        "outputs": [{"name": "class", "dtype": "float32", "shape": [1000]}], "probabilities": False,
        "packages": {"python": "3.11.7", "numpy": "2.4.6", "onnxruntime": "1.32.0"},
        "machine": "AMD EPYC, x86_64, 2 CPUs", "vnni": True, "h2d_ms": None, "d2h_ms": None, "npu": None,
        "performance": {"runs": runs, "batch_size": size, "mean_ms": mean, "median_ms": 0.98 * mean,
                        "p90_ms": 1.1 * mean if runs >= 10 else None, "p99_ms": 1.25 * mean if runs >= 100 else None,
                        "min_ms": 0.9 * mean, "max_ms": 1.3 * mean, "images_per_second": speed,
                        "interval95": [speed * (1 - spread), speed * (1 + spread)] if runs >= 20 else None},
        "wall": None if pure else {"seconds": 2.5, "images_per_second": 25.6, "reading": 0.1, "computing": 2.3, "writing": 0.1,
                                   "resumed": False}}
    return dict(content, **more)


def plain(size, speed, *options, **more):
    """A summary as ais_bench writes it: none of our keys."""
    times = {"min": 0.1, "max": 9.0, "mean": 1000.0 * size / speed, "median": 1.5, "percentile(99%)": 8.5, "count": 20}
    content = {"filesinfo": {"0": {"infiles": ["pure_infer_data"], "outfiles": []}}, "NPU_compute_time": times,
               "H2D_latency": dict(times, mean=0.25), "D2H_latency": dict(times, mean=0.125), "throughput": speed,
               "npu_compute_time_list": [1.0], "args": ["ais_bench", "--model=resnet34.om", "--loop=20", *options], "pid": 1}
    return dict(content, **more)


def result(of=None, top1=67.1875, top5=93.75, **more):
    """A result.json as imagenet_acc_eval.py writes it; of: the summary of the results."""
    told = {key: (of or {}).get(key) for key in ("engine", "device", "precision", "batch_size", "model", "input", "outputs",
                                                 "packages", "probabilities")}
    told["engine"] = told["engine"] or "not recorded"
    values = [("Number of images", "64"), ("Top1 accuracy", "%.2f%%" % top1), ("Top5 accuracy", "%.2f%%" % top5)]
    content = {
        "title": "Overall statistical evaluation", "value": [{"key": key, "value": value} for key, value in values], "schema": 1,
        "made_from": {}, "accuracy": {"top1": top1, "top5": top5},
        "images": {"judged": 64, "labelled": 64, "excluded": 0, "results": 64},
        "interval95": {"top1": [top1 - 11.5, top1 + 11.5], "top5": [top5 - 8.5, min(100.0, top5 + 4)]}, "classes": 1000,
        "chance_top5": 0.5, "summary_sha256": None, "shards": None, "labels": "val_label.txt", "labels_sha256": "f" * 64,
        "labels_doubt": None, "published": None, "real": None, "exclude_sha256": None, "calibration_shared": None,
        "data_set": None,
        "per_class_worst": [{"class": 5, "name": "upright stripes, red", "images": 4, "top1": 25.0, "top5": 75.0}],
        "mistakes": [{"image": "image%d" % number, "label": 5, "label_name": "upright stripes, red", "guesses": [
            {"class": 7, "name": "cock", "probability": 0.75}, {"class": 8, "name": None, "probability": 0.125}]}
            for number in range(12)], "paired": None, "gates": []}
    return dict(content, **dict(told, **more))


def paired(lost=1.5625, passes=True):
    one = {"accuracy": 65.625, "baseline": 65.625 + lost, "lost": lost, "right_to_wrong": 3, "wrong_to_right": 2,
           "mcnemar_p": 1.0, "difference_interval95": [lost - 6, lost + 6]}
    return {"baseline": "elsewhere/result_bs1", "baseline_engine": "onnxruntime 1.32.0 CPUExecutionProvider",
            "baseline_precision": "fp32", "baseline_summary_sha256": None, "images": 64, "top1": one,
            "top5": dict(one, lost=0.0, accuracy=93.75, baseline=93.75, difference_interval95=[-3.0, 3.0]),
            "mlperf": {"ratio": 0.977, "limit": 0.99, "passes": passes}}


def fidelity(agrees=True, name="result_bs1", **more):
    content = {"schema": 1, "result": "./output/" + name, "reference": "./output/reference", "precision": "fp32",
               "engine": "onnxruntime 1.32.0 CPUExecutionProvider", "reference_engine": "onnxruntime 1.10.0 CPUExecutionProvider",
               "compared": 16, "top1_agreement": 100.0, "top5_set_agreement": 93.75, "cosine_mean": 0.99999,
               "cosine_worst": 0.9999,
               "absolute_difference": 0.01, "relative_difference": 0.001 if agrees else 0.5, "relative_limit": 0.02,
               "agrees": agrees, "most_different": [{"image": "image3", "relative_difference": 0.001, "cosine": 0.9999, "top1": 5,
                                                     "reference_top1": 7}]}
    return dict(content, **more)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(folder, size=1, precision="fp32", speed=30.0, runs=200, spread=0.01, of_result=None, of_summary=None):
    """One row's files in a folder, as run_infer.sh leaves them."""
    folder.mkdir(exist_ok=True)
    name = "%sbs%d" % ("int8_" if precision == "int8" else "", size)
    inference = summary(size, precision, pure=False, **(of_summary or {}))
    path = write(folder / ("result_%s_summary.json" % name), inference)
    told = result(inference, **dict({"summary_sha256": sha256(path)}, **(of_result or {})))
    write(folder / ("result_%s.json" % name), told)
    write(folder / ("perf_%s_summary.json" % name), summary(size, precision, speed=speed, runs=runs, spread=spread,
                                                            **dict(of_summary or {}, input=None)))
    return folder


def two_precisions(path):
    """Both precisions at two batch sizes, and a comparison."""
    for size in (1, 8):
        put(path, size, speed=30.0 + size)
        put(path, size, "int8", speed=100.0 + size, of_result={"top1": 65.625, "paired": paired(), "calibration_shared": False})
    write(path / "fidelity_bs1.json", fidelity())
    write(path / "commands.sh", "bash run_infer.sh --demo\n\npython3 `x` ```\n")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with its report, only to be read or copied: (the folder, the process)."""
    path = two_precisions(tmp_path_factory.mktemp("finished") / "out put")
    return path, succeeds(SCRIPT, path, "--dataset", "./ImageNet/val")


@pytest.fixture
def folder(tmp_path):
    return two_precisions(tmp_path / "out put")


@pytest.fixture
def reported(finished, tmp_path):
    """A copy of a folder with its report."""
    shutil.copytree(str(finished[0]), str(tmp_path / "reported"))
    return tmp_path / "reported"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A report of rows that each have something odd, only to be read: (the folder, the process, the row at each batch size)."""
    path = tmp_path_factory.mktemp("odd") / "odd"
    put(path, 1, runs=9)
    put(path, 1, "int8", of_result={"calibration_shared": True},
        of_summary={"vnni": False, "model": dict(summary(1, "int8")["model"],
                                                 calibration=dict(CALIBRATION, source_sha256="9" * 64))})
    put(path, 2, of_result={"classes": 10, "chance_top5": 50.0, "labels_doubt": "the labels seem to count from 1"})
    put(path, 4, of_summary={"engine": "onnxruntime 1.32.0 OpenVINOExecutionProvider",
                             "packages": {"python": "3.11.7", "numpy": "1.19.2", "onnxruntime": "1.32.0"}})
    put(path, 16)  # its performance may be an earlier run's: it is said to have failed
    told = {"seconds": 4.0, "images_per_second": 16.0, "reading": 1.0, "computing": 2.0, "writing": 0.5, "resumed": True}
    inference = write(path / "result_bs1_summary.json", summary(pure=False, wall=told))
    write(path / "result_bs1.json", result(summary(pure=False), summary_sha256=sha256(inference), images={
        "judged": 32, "labelled": 64, "excluded": 0, "results": 32}))
    put(path, 64, of_summary={"made_from": {"loop": 3, "cpus": 2}})
    write(path / "train_summary.json", {"loss": [1, 2]})  # somebody's own
    process = succeeds(SCRIPT, path, "--failed", "fp32:8=atc | failed", "int8:2=no calibration", "fp32:16=killed")
    return path, process, {(row["Precision"], row["Batch size"]): row for row in table_of(path, "Accuracy")}


@pytest.fixture
def one(tmp_path):
    return put(tmp_path / "one")


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def table_of(folder, heading):
    """The rows of a table of report.md as dictionaries."""
    text = (folder / "report.md").read_text()
    text = text[text.index("\n## %s" % heading):]
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
             for line in re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group().splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


# ---- the rows ----

def test_it_opens_with_a_sentence_to_quote_then_what_all_rows_share_then_an_aligned_table(finished):
    path, process = finished
    lines = process.stdout.splitlines()
    assert lines[0] == (
        "Top-1 67.19% and Top-5 93.75% on 64 images, at best 38.00 images/s, at batch size 8, with onnxruntime 1.32.0 "
        "CPUExecutionProvider on AMD EPYC, 2 threads; INT8: Top-1 65.62% and Top-5 93.75% on 64 images, at best 108.00 images/s, "
        "at batch size 8.")
    assert lines[2:10] == ["Engine: onnxruntime 1.32.0 CPUExecutionProvider", "Device: AMD EPYC, 2 threads",
                           "Model: resnet34.pth", "Data set: ./ImageNet/val", "Preprocessing: not recorded",
                           "Images: 64 of 64 labelled", "Runs: 200", "Date: 2026-11-24T10:00:00Z"]
    table = lines[11:16]
    assert table[0].split("  ")[0] == "Precision" and [line.split()[0] for line in table[1:]] == ["fp32", "fp32", "int8", "int8"]
    assert table[1].split()[1:] == ["1", "67.19%", "93.75%", "31.00", "32.26", "31.61", "35.48", "40.32"]
    assert len({len(line) for line in table}) == 1  # numbers stand to the right, under each other
    text, page = (path / "report.md").read_text(), (path / "report.html").read_text()
    assert text.splitlines()[2] == "**%s**" % lines[0] and "on 64 images" in page[:page.index("<table")]


def test_the_sentence_says_how_far_torchvisions_weights_are_from_what_is_published(one):
    figures = {"by": "torchvision", "top1": 73.314, "top5": 91.42, "top1_difference": -0.014, "top5_difference": 0.0}
    put(one, of_result={"published": {"figures": [figures], "fp16_points": 0.05, "within_fp16": True},
                        "images": {"judged": 50000, "labelled": 50000, "excluded": 0, "results": 50000}})
    said = succeeds(SCRIPT, one).stdout
    assert "on 50000 images, -0.01 points from the published Top-1 of 73.31%, at best 30.00 images/s" in said


def test_rows_of_different_engines_say_so_in_each_row(odd):
    _, process, rows = odd
    assert "Engine:" not in process.stdout and re.search(r"^Engine +", process.stdout, re.MULTILINE)
    assert [rows["fp32", size]["Engine"] for size in ("1", "4")] == ["onnxruntime 1.32.0 %sExecutionProvider" % name
                                                                   for name in ("CPU", "OpenVINO")]


def test_report_json_holds_raw_numbers_and_the_text(finished):
    report = report_of(finished[0])
    assert (report["schema"], report["date"], report["runs"], report["failed"]) == (4, "2026-11-24T10:00:00Z", 200, {})
    keys = [(row["precision"], row["batch_size"]) for row in report["rows"]]
    assert keys == [("fp32", 1), ("fp32", 8), ("int8", 1), ("int8", 8)]
    row = report["rows"][0]
    assert row["top1"] == 67.1875 and row["top1_interval95"] == [55.6875, 78.6875] and row["images_per_second"] == 31.0
    assert row["latency_ms"]["p99"] == pytest.approx(1250 / 31.0) and row["wall"]["resumed"] is False
    assert row["judged"] == row["labelled"] == 64 and row["worst_classes"] and len(row["mistakes"]) == 12
    assert row["fidelity"]["agrees"] is True and row["paired"] is None and row["guide_images_per_second"] is None
    assert report["rows"][2]["paired"]["top1"]["right_to_wrong"] == 3 and report["commands"][0] == "bash run_infer.sh --demo"
    assert finished[1].stdout.startswith(report["text"]) and report["verdict"] == report["text"].splitlines()[0]


def test_what_the_guides_commands_by_hand_leave_gives_rows(tmp_path):
    info = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}}
    path = write(tmp_path / "result_summary.json", dict(plain(1, 1700.0), filesinfo=info))
    write(tmp_path / "result.json", result(summary_sha256=sha256(path)))
    write(tmp_path / "perf_bs1_summary.json", plain(1, 1775.0))
    times = dict(plain(8, 5140.0)["NPU_compute_time"], count=100)
    write(tmp_path / "perf_bs8_summary.json", dict(plain(8, 5140.0), NPU_compute_time=times))
    process = succeeds(SCRIPT, tmp_path)
    unknown = "Engine: ais_bench (version not recorded)\n" + "".join(
        "%s: not recorded\n" % what for what in ("Device", "Model", "Data set", "Preprocessing"))
    assert unknown + "Images: 64 of 64 labelled" in process.stdout and process.stderr == ""
    rows = table_of(tmp_path, "Accuracy")
    shown = ("Precision", "Batch size", "Top-1", "images/s", "P90 ms", "P99 ms")
    assert [tuple(row[heading] for heading in shown) for row in rows] == [
        ("not recorded", "1", "67.19%", "1775.00", "-", "-"),  # 20 runs have no P99
        ("not recorded", "8", "-", "5140.00", "-", "8.50")]
    assert {path.name for path in tmp_path.glob("report.*")} == set(NAMES)
    assert table_of(tmp_path, "End to end")[0]["H2D ms"] == "0.250"


def test_accuracy_and_performance_of_two_engines_never_share_a_row(one, tmp_path):
    write(one / "perf_bs1_summary.json", plain(1, 1775.0))
    succeeds(SCRIPT, one)
    assert {(row["Engine"][:5], row["Top-1"], row["images/s"]) for row in table_of(one, "Accuracy")} == {
        ("onnxr", "67.19%", "-"), ("ais_b", "-", "1775.00")}
    npu = put(tmp_path / "npu", 1, "fp16", of_summary={"engine": "ais_bench 0.0.2", "device": "Ascend310P3"})
    (npu / "perf_bs1_summary.json").unlink()
    write(npu / "perf_cpu_bs1_summary.json", summary())
    process = succeeds(SCRIPT, npu)
    assert {(row["Engine"][:5], row["Top-1"], row["images/s"]) for row in table_of(npu, "Accuracy")} == {
        ("ais_b", "67.19%", "-"), ("onnxr", "-", "30.00")}
    assert process.stdout.startswith("Top-1 67.19% and Top-5 93.75% on 64 images, with ais_bench 0.0.2 on Ascend310P3.")


def test_performance_of_another_om_by_hand_is_not_put_beside_an_accuracy(tmp_path):
    info = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}}
    path = write(tmp_path / "result_bs1_summary.json", dict(plain(1, 1700.0), filesinfo=info))
    write(tmp_path / "result_bs1.json", result(summary_sha256=sha256(path)))
    write(tmp_path / "perf_bs1_summary.json", plain(1, 1775.0, args=["ais_bench", "--model=other.om", "--loop=20"]))
    assert "is of the model resnet34.om, but the performance" in fails(1, SCRIPT, tmp_path)


@pytest.mark.parametrize("by_hand", ["result", "perf"])
def test_float_and_int8_are_two_rows_also_where_only_one_half_is_recorded(by_hand, tmp_path):
    """The guide's line for one .om beside ours for the other: issue 23's kind, INT8's accuracy in the float row."""
    model = dict(summary()["model"], path="net_bs4.om")
    info = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}} if by_hand == "result" else {}
    other = dict(plain(4, 99.0, args=["ais_bench", "--model=net_int8_bs4.om", "--batchsize=4"]), filesinfo=info)
    ours = summary(4, "fp16", pure=by_hand == "result", engine="ais_bench 0.0.2", model=model)
    paths = {by_hand: write(tmp_path / (by_hand + "_summary.json"), other)}
    name = {"result": "perf", "perf": "result"}[by_hand]
    paths[name] = write(tmp_path / (name + "_summary.json"), ours)
    judged = ours if by_hand == "perf" else None
    write(tmp_path / "result.json", result(judged, batch_size=4, summary_sha256=sha256(paths["result"])))
    process = script(SCRIPT, tmp_path)
    shown = {(row["Precision"], row["Top-1"] != "-", row["images/s"] != "-") for row in table_of(tmp_path, "Accuracy")}
    assert process.returncode == 0 and shown == ({("fp16", True, False), ("not recorded", False, True)} if by_hand == "perf"
                                                 else {("fp16", False, True), ("not recorded", True, False)})


def test_an_evaluation_of_one_folder_is_no_other_runs_because_a_folder_of_its_name_lies_there(one):
    (one / "result_bs1_summary.json").rename(one / "result_cpu_summary.json")
    write(one / "result_bs1_summary.json", summary(pure=False, pid=2))
    write(one / "result_bs1.json", dict(json.loads((one / "result_bs1.json").read_text()), result="./result_cpu/"))
    assert "67.19%" in succeeds(SCRIPT, one).stdout


def test_a_copy_of_an_earlier_runs_summary_does_not_vouch_for_the_folder_that_was_judged(one):
    shutil.copy(str(one / "result_bs1_summary.json"), str(one / "result_bs1_old_summary.json"))
    write(one / "result_bs1_summary.json", summary(pure=False, pid=2))
    process = script(SCRIPT, one)
    assert process.returncode == 3 and "67.19%" not in process.stdout


def test_a_hash_of_the_label_file_as_earlier_evaluations_have_it_is_no_difference(one, tmp_path):
    old = put(tmp_path / "old", of_result={"labels_sha256": "sorted:" + "e" * 64})
    assert succeeds(SCRIPT, one, "--reference", old).stderr == ""


def test_folders_and_dangling_links_called_json_are_let_be(one):
    (one / "backup.json").mkdir()
    (one / "gone.json").symlink_to("nowhere")
    (one / "x_summary.json").mkdir()
    succeeds(SCRIPT, one)


def test_a_throughput_of_nothing_is_refused(one):
    write(one / "perf_bs8_summary.json", plain(8, 5140.0, throughput=0.0))
    assert "perf_bs8_summary.json: is not as the stage that makes it writes it" in fails(1, SCRIPT, one)


@pytest.mark.skipif(not labels.imagenet_names(), reason="this torchvision has no list of ImageNet's classes")
@pytest.mark.parametrize("weights, shown", [("b627a593" + "0" * 56, "99 (goose)"), ("c" * 64, "99")])
def test_classes_have_imagenets_names_where_the_weights_are_torchvisions_and_not_by_the_images_names(weights, shown, tmp_path):
    mistakes = [dict(result()["mistakes"][0], image="ILSVRC2012_val_00000001")]
    one = put(tmp_path / "one", of_summary={"model": dict(summary()["model"], weights_sha256=weights)},
              of_result={"mistakes": mistakes})
    most = dict(fidelity()["most_different"][0], top1=99)
    write(one / "fidelity_bs1.json", fidelity(most_different=[most]))
    succeeds(SCRIPT, one)
    assert table_of(one, "Images that differ most")[0]["Top-1 here"] == shown


def test_a_failed_int8_row_leaves_a_row_of_unknown_precision_as_it_is(one):
    info = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}}
    path = write(one / "result_bs1_summary.json", dict(plain(1, 30.0), filesinfo=info))
    (one / "perf_bs1_summary.json").unlink()
    write(one / "result_bs1.json", result(summary_sha256=sha256(path)))
    succeeds(SCRIPT, one, "--failed", "int8:1=no AMCT")
    assert [(row["Precision"], row["Top-1"]) for row in table_of(one, "Accuracy")] == [("not recorded", "67.19%"), ("int8", "-")]


def test_the_report_without_its_template_names_the_template(one, tmp_path):
    house = tmp_path / "house"
    shutil.copytree(str(REPOSITORY / "common"), str(house / "common"))
    for name in ("report.py", "report.zh.json"):
        shutil.copy(str(REPOSITORY / name), str(house))
    process = subprocess.run([sys.executable, str(house / "report.py"), str(one)], stderr=subprocess.PIPE, encoding="utf-8")
    assert process.returncode == 1 and ".jinja: No such file" in process.stderr and "remove" not in process.stderr


def test_a_warning_is_of_rows_that_the_report_shows(one):
    put(one, 4, of_result={"labels_sha256": "e" * 64}, of_summary={"packages": {"python": "3.7.5"}, "device": "another"})
    assert "equal labels" in succeeds(SCRIPT, one).stderr
    for size in ("1", "4"):
        assert succeeds(SCRIPT, one, "--batch-sizes", size).stderr == ""
        assert len(report_of(one)["environment"]["python"]) == 1
    assert len(table_of(one, "Accuracy")) == 1 and "equal labels" in succeeds(SCRIPT, one, "--batch-sizes", "1,4").stderr


def test_an_accuracy_of_few_of_the_labels_classes_is_warned_of(tmp_path):
    for judged, warned in ((60, False), (2, True)):
        said = succeeds(SCRIPT, put(tmp_path / "run", of_result={"judged_classes": judged, "labelled_classes": 1000})).stderr
        assert ("the judged images are of 2 of the 1000 classes" in said) == warned


def test_a_reference_is_another_run_than_this_ones_own_report(one):
    succeeds(SCRIPT, one)
    for reference in (one, one / "report.json"):
        assert "keep a copy of the report.json" in fails(1, SCRIPT, one, "--reference", reference)
    shutil.copy(str(one / "report.json"), str(one / "before.json"))
    succeeds(SCRIPT, one, "--reference", one / "before.json")


def test_a_data_set_in_a_folder_called_pure_infer_is_no_pure_inference(one):
    info = {"0": {"infiles": ["pure_infer_data_try/a.bin"], "outfiles": ["a_0.txt"]}}
    write(one / "result_x_summary.json", dict(plain(1, 9999.0), filesinfo=info))
    assert "9999" not in succeeds(SCRIPT, one).stdout


def test_a_row_whose_inference_failed_shows_no_accuracy_of_an_earlier_run(one):
    assert rows.FAILED_PURE in (REPOSITORY / "run_infer.sh").read_text()  # whose word it is
    for reason, top1 in (("its inference failed", "-"), (rows.FAILED_PURE, "67.19%")):
        process = script(SCRIPT, one, "--failed", "fp32:1=" + reason)
        assert table_of(one, "Accuracy")[0]["Top-1"] == top1 and ("67.19%" in process.stdout) == (top1 != "-")


def test_a_batch_size_of_the_reference_that_is_missing_here_is_said(one, tmp_path):
    reference = put(put(tmp_path / "reference"), 8)
    process = succeeds(SCRIPT, one, "--reference", reference, "--max-slowdown", "50")
    assert "has a row for fp32 at batch size 8, and this run has none" in process.stderr


def test_a_folder_without_results_says_what_is_missing(tmp_path):
    assert "holds no result.json" in fails(1, SCRIPT, tmp_path)
    assert "is no folder" in fails(1, SCRIPT, tmp_path / "gone")


def test_the_guides_figure_stands_beside_a_resnet34_on_one_chip_of_its_kind_alone(tmp_path):
    model = summary()["model"]
    unknown, smaller = dict(model, weights_sha256=None), dict(model, input={"dtype": "float32", "shape": [3, 112, 112]})
    known = dict(unknown, recipe=dict(recipe.DEFAULT.as_json()))
    cases = ((1, [0], "Ascend310P3", "fp16", unknown, None), (4, [0], "Ascend910B4", "fp16", model, None),
             (8, [0], "Ascend310P3", "fp16", model, GUIDE[8]), (8, [0], "Ascend310P3", "int8", model, None),
             (16, [0, 1], "2 x Ascend310P3", "fp16", model, None), (32, [0], "Ascend310P3", "fp16", smaller, None),
             (64, [0], "Ascend310P3", "fp16", known, GUIDE[64]))
    for size, devices, device, precision, model, _ in cases:
        chips = [{"device": 0, "npu": 0, "chip": "310P3", "health": "Warning", "soc_version": "Ascend310P3"}]
        put(tmp_path / "npu", size, precision, speed=5000.0, of_summary={
            "engine": "ais_bench 0.0.2", "device": device, "devices": devices, "h2d_ms": 0.5, "d2h_ms": 0.25, "model": model,
            "npu": {"devices": chips, "driver": "25.5.2", "firmware": "7.8", "cann": "8.0", "ais_bench": "0.0.2",
                    "aclruntime": "0.0.2"}})
    succeeds(SCRIPT, tmp_path / "npu")
    found = {(row["batch_size"], row["precision"]): row["guide_images_per_second"] for row in report_of(tmp_path / "npu")["rows"]}
    assert found == {(size, precision): expected for size, _, _, precision, _, expected in cases}
    ratios = [row["ratio"] for row in table_of(tmp_path / "npu", "Accuracy")]
    assert ratios == ["-", "-", "%.2f" % (5000 / GUIDE[8]), "-", "-", "%.2f" % (5000 / GUIDE[64]), "-"]
    facts = {row["What"]: row["Value"] for row in table_of(tmp_path / "npu", "Environment")}
    assert facts["driver"] == "25.5.2" and facts["cann"] == "8.0" and facts["chip"] == "Ascend310P3, health Warning"


def test_int8_rows_show_their_price_and_their_gain(finished):
    folder, process = finished
    price = table_of(folder, "What INT8 costs")
    assert [(row["Batch size"], row["Accuracy"], row["points lost"], row["95 % interval"]) for row in price[:2]] == [
        ("1", "Top-1", "1.56", "-4.44 to 7.56"), ("1", "Top-5", "0.00", "-3.00 to 3.00")]
    assert (price[0]["right to wrong"], price[0]["wrong to right"], price[0]["McNemar's p"]) == ("3", "2", "1")
    assert price[0]["MLPerf (99 %)"] == "passes with 97.70%" and price[0]["images"] == "64"
    gain = table_of(folder, "What INT8 gains")[1]
    assert (gain["float images/s"], gain["INT8 images/s"], gain["times as fast"]) == ("38.00", "108.00", "2.84")
    assert (gain["float MB"], gain["INT8 MB"], gain["calibrated by"]) == ("87.00", "22.00", "onnxruntime MinMax, 500 images")
    assert gain["shares images with the accuracy"] == "no" and gain["bits of the weights"] == "7"
    assert "What INT8 costs" in process.stdout and "2.84" in process.stdout and "VNNI" not in process.stderr


def test_odd_int8_models_are_warned_of(odd):
    assert table_of(odd[0], "What INT8 gains")[0]["shares images with the accuracy"].startswith("YES")
    assert table_of(odd[0], "What INT8 costs")[0]["Accuracy"] == "not compared image by image"
    assert "at batch size 1 the INT8 model was not made from the float model" in odd[1].stderr
    assert "INT8 ran on a CPU without VNNI, with weights of 7 bits: its speed is not that of a server" in odd[1].stderr


def test_end_to_end_stands_beside_the_pure_figure_and_a_resumed_run_is_said(odd):
    row = table_of(odd[0], "End to end")[0]
    assert [row[key] for key in ("pure images/s", "end to end images/s", "reading", "computing", "writing")] == [
        "30.00", "16.00", "1.00", "2.00", "0.50"]
    assert row["resumed"].startswith("yes")


def test_end_to_end_of_several_runs_of_each_batch_has_no_images_a_second(odd):
    row = {row["Batch size"]: row for row in table_of(odd[0], "End to end")}["64"]
    assert (row["end to end images/s"], row["seconds"], row["runs of each batch"]) == ("-", "2.50", "3")


def test_few_runs_have_no_p90_no_p99_and_no_interval(odd):
    row = odd[2]["fp32", "1"]
    assert row["P90 ms"] == row["P99 ms"] == "-" and table_of(odd[0], "95 % intervals")[0]["images/s"] == "-"


def test_what_a_reader_must_know_of_an_accuracy_is_said(odd):
    assert odd[2]["fp32", "2"]["Top-5 by chance"] == "50.00%" and "the labels seem to count from 1" in odd[1].stderr
    assert "at batch size 1 only 32 of 64 labelled images have a result" in odd[1].stderr
    page = (odd[0] / "report.html").read_text()
    assert page.index("the labels seem to count from 1") < page.index("<table")


def test_a_failed_row_has_dashes_and_its_reason(odd):
    path, _, rows = odd
    assert [rows[key]["images/s"] for key in (("fp32", "1"), ("fp32", "8"), ("int8", "2"), ("fp32", "16"))] == [
        "30.00", "-", "-", "-"]
    assert report_of(path)["failed"] == {"fp32:8": "atc | failed", "int8:2": "no calibration", "fp32:16": "killed"}
    assert "| fp32 at batch size 8 failed | atc \\| failed |" in (path / "report.md").read_text()
    assert "atc | failed" in (path / "report.html").read_text()


def test_only_the_rows_that_are_asked_for_are_shown_and_must_be_there(folder):
    succeeds(SCRIPT, folder, "--batch-sizes", "8", "--precisions", "fp32")
    assert [(row["precision"], row["batch_size"]) for row in report_of(folder)["rows"]] == [("fp32", 8)]
    assert "no float results at batch size 4" in fails(1, SCRIPT, folder, "--batch-sizes", "8 4", "--precisions", "fp32")


# ---- what ais_bench alone wrote ----

def scores(folder, stem, count):
    (folder / stem).mkdir()
    (folder / stem / "pure_infer_data_0.bin").write_bytes(np.zeros((count, 1000), np.float32).tobytes())


def test_a_batch_size_that_the_result_the_name_or_the_record_contradicts_is_refused(tmp_path):
    other = tmp_path / "other.om"
    cases = {8: (["--batchsize=8", "--model=resnet34.om"], "pure_infer_data_0.bin is of batch size 1"),
             16: (["--batchsize", "16", "--model", "resnet34_bs1.om"], "resnet34_bs1.om is of batch size 1"),
             32: (["--batchsize=32", "--model", str(other)], "other.om.json is of batch size 4"),
             4: (["--batchsize=4", "--model", str(other)], None)}
    scores(tmp_path, "perf_bs8", 1)
    write(tmp_path / "other.om.json", {"record": 1, "sha256": None, "made_from": {}, "batch_size": 4})
    for size, (options, _) in cases.items():
        write(tmp_path / ("perf_bs%d_summary.json" % size), plain(size, 100.0 * size, args=["ais_bench", *options]))
    process = script(SCRIPT, tmp_path)
    assert process.returncode == 3
    rows = {row["Batch size"]: row["images/s"] for row in table_of(tmp_path, "Accuracy")}
    assert rows == {"4": "400.00", "8": "-", "16": "-", "32": "-"}
    for size, (_, sentence) in cases.items():
        assert sentence is None or "FAIL: perf_bs%d_summary.json: says batch size %d" % (size, size) in process.stdout
        assert sentence is None or sentence in process.stdout and sentence in (tmp_path / "report.html").read_text()
    assert "perf_bs4" not in process.stdout


def test_a_batch_size_that_nothing_vouches_for_is_shown_as_not_verified(tmp_path):
    write(tmp_path / "perf_bs8_summary.json", plain(8, 800.0, "--batchsize=8"))
    process = succeeds(SCRIPT, tmp_path)
    assert table_of(tmp_path, "Accuracy")[0]["Batch size"] == "8 (not verified)" and "8 (not verified)" in process.stdout
    assert "batch size 8 (not recorded) is not verified" in process.stderr
    scores(tmp_path, "perf_bs8", 8)
    assert "not verified" not in succeeds(SCRIPT, tmp_path).stdout  # the result holds eight rows


def test_a_dash_for_the_throughput_names_the_line_that_fills_it(tmp_path):
    info = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}}
    path = write(tmp_path / "result_summary.json", dict(plain(1, 17.0), filesinfo=info))
    write(tmp_path / "result.json", result(summary_sha256=sha256(path)))
    line = "npu_infer.py --model=resnet34_bs1.om --loop=20 --batchsize=1 --output %s --output_dirname perf_bs1" % tmp_path
    assert line in succeeds(SCRIPT, tmp_path).stdout
    put(tmp_path / "cpu", 4)
    (tmp_path / "cpu" / "perf_bs4_summary.json").unlink()
    assert "onnx_infer.py --model=resnet34.onnx --loop=20 --batchsize=4" in succeeds(SCRIPT, tmp_path / "cpu").stdout


def test_a_summary_that_ais_bench_left_elsewhere_can_be_named(one, tmp_path):
    (one / "perf_bs1_summary.json").unlink()
    (tmp_path / "2026_11_25-10_00_00").mkdir()
    path = write(tmp_path / "2026_11_25-10_00_00_summary.json", plain(1, 1775.0))
    for named in (path, tmp_path / "2026_11_25-10_00_00"):
        succeeds(SCRIPT, one, "--perf", named)
        assert table_of(one, "Accuracy")[0]["images/s"] == "1775.00"
    (tmp_path / "empty").mkdir()
    assert "has no summary" in fails(1, SCRIPT, one, "--perf", tmp_path / "empty")


# ---- numbers that are wrong must not be green ----

def test_the_accuracy_of_one_engine_and_the_speed_of_another_are_refused(one):
    another = dict(summary()["model"], sha256="9" * 64)
    for key, value in (("engine", "ais_bench 0.0.2"), ("precision", "int8"), ("model", another)):
        path = write(one / "perf_bs1_summary.json", summary(**{key: value}))
        if key == "precision":  # another precision is another row
            succeeds(SCRIPT, one)
            assert [row["images_per_second"] for row in report_of(one)["rows"]] == [None, 30.0]
        else:
            assert "the performance in %s" % path in fails(1, SCRIPT, one)


def test_other_packages_among_the_stages_are_named(odd):
    assert "did not run with one numpy: 2.4.6 (perf_bs16_summary.json" in odd[1].stderr
    assert "did not run with one numpy" in (odd[0] / "report.md").read_text()
    assert set(report_of(odd[0])["environment"]["numpy"]) == {"2.4.6", "1.19.2"}


def test_pure_inference_of_another_machine_or_other_cpus_is_shown_as_such(one):
    write(one / "perf_bs1_summary.json", summary(device="Xeon, 64 threads", machine="Xeon, x86_64, 64 CPUs",
                                                 made_from={"loop": 20, "cpus": 64}))
    said = succeeds(SCRIPT, one).stderr
    assert "perf_bs1_summary.json: was measured on Xeon, 64 threads, the accuracy on AMD EPYC, 2 threads" in said
    assert "did not run with one machine: " in said and "did not run with one cpus: 64 (perf_bs1_summary.json)" in said
    assert table_of(one, "Accuracy")[0]["images/s"] == "30.00" and "Device: Xeon, 64 threads" in report_of(one)["text"]


def test_an_evaluation_whose_results_are_gone_or_others_by_now_is_not_shown_as_this_runs(one):
    write(one / "result_bs1_summary.json", summary(pure=False, model=dict(summary()["model"], sha256="9" * 64)))
    gates = {"gates": [{"name": "Top-1", "measured": 67.1875, "limit": 60, "passes": True}]}
    put(one, 4, of_result=gates)
    (one / "result_bs4_summary.json").unlink()
    process = script(SCRIPT, one)
    assert process.returncode == 3 and "PASS" not in process.stdout
    for size in (1, 4):
        assert "FAIL: result_bs%d.json: judged results whose summary is not here any more" % size in process.stdout
    assert [(row["Top-1"], row["images/s"]) for row in table_of(one, "Accuracy")] == [("-", "30.00")] * 2
    assert "67.19" not in (one / "report.md").read_text()


def test_results_without_a_summary_of_which_one_came_later_are_not_this_evaluations(one):
    write(one / "result_bs1.json", result(precision="fp32", batch_size=1))
    assert "judged results whose summary is not here any more" in script(SCRIPT, one).stdout
    (one / "result_bs1_summary.json").unlink()
    assert "67.19%" in succeeds(SCRIPT, one).stdout


def test_the_summaries_of_shards_are_those_that_were_judged(tmp_path):
    one = put(tmp_path / "one")
    (one / "result_bs1_summary.json").unlink()
    (one / "result_bs1").mkdir()
    parts = [write(one / "result_bs1" / ("shard%d_of_2_summary.json" % number), summary(pure=False, pid=number))
             for number in (1, 2)]
    write(one / "result_bs1.json", result(summary(pure=False), summary_sha256=[sha256(part) for part in parts], shards=2))
    assert "67.19%" in succeeds(SCRIPT, one).stdout
    write(parts[1], summary(pure=False, pid=3))
    assert "judged results whose summary is not here any more" in script(SCRIPT, one).stdout


def test_a_fidelity_of_an_earlier_run_or_of_no_row_is_left_out_with_a_warning(one):
    told = json.loads((one / "result_bs1.json").read_text())["summary_sha256"]
    write(one / "reference_summary.json", summary(pure=False))
    write(one / "fidelity_bs1.json", fidelity(summary_sha256="0" * 64))  # of the earlier model
    write(one / "fidelity_bs4.json", fidelity(agrees=False, name="result_bs4"))  # its row is not there
    write(one / "fidelity_old.json", fidelity(reference_summary_sha256="1" * 64))  # of another reference
    write(one / "any_name.json", fidelity(name="moved", summary_sha256=told,
                                                  reference_summary_sha256=sha256(one / "reference_summary.json")))
    process = succeeds(SCRIPT, one)
    for name in ("fidelity_bs1.json", "fidelity_bs4.json", "fidelity_old.json"):
        assert "%s: compares results that no evaluation here is of" % name in process.stderr
        assert "%s: compares" % name in re.sub("<wbr>", "", (one / "report.html").read_text())
    assert "PASS: ./output/moved agrees" in process.stdout and len(table_of(one, "Fidelity")) == 1
    assert [gate["passes"] for gate in report_of(one)["gates"]] == [True]


def test_a_baseline_that_was_inferred_again_is_left_out_with_a_warning(tmp_path):
    one = put(tmp_path / "one")
    old = sha256(one / "result_bs1_summary.json")
    pair = dict(paired(), baseline=str(one / "result_bs1"), baseline_summary_sha256=old)
    put(one, 1, "int8", of_result={"paired": pair})
    assert succeeds(SCRIPT, one).stderr == "" and table_of(one, "What INT8 costs")[0]["points lost"] == "1.56"
    put(one, of_summary={"pid": 7})
    said = succeeds(SCRIPT, one).stderr
    assert "result_int8_bs1.json: was paired with float results that are not there any more" in said
    assert table_of(one, "What INT8 costs")[0]["Accuracy"] == "not compared image by image"


def test_verdicts_are_those_of_the_shown_rows_alone(one):
    gates = [{"name": "Top-1", "measured": 67.1875, "limit": 70, "passes": False}]
    put(one, 4, of_result={"gates": gates})
    put(one, 8, of_result={"gates": [dict(gates[0], limit=60, passes=True)]})
    write(one / "fidelity_bs4.json", fidelity(agrees=False, name="result_bs4"))
    process = succeeds(SCRIPT, one, "--batch-sizes", "1 8")
    assert "PASS: Top-1" in process.stdout and "FAIL" not in process.stdout and process.stderr == ""
    assert len(report_of(one)["gates"]) == 1 and "## Fidelity" not in (one / "report.md").read_text()
    assert script(SCRIPT, one, "--batch-sizes", "4").stdout.count("FAIL: ") == 2


def test_rows_of_different_models_labels_and_images_are_told_apart(one):
    model, images = summary()["model"], {"path": "prep_dataset", "source": "./ImageNet/val", "set_hash": "1" * 32, "recipe": None,
                                         "images_hash": "3" * 32}
    put(one, 1, of_result={"input": images})
    put(one, 2, of_result={"input": dict(images, source=None)})
    put(one, 4, of_summary={"model": dict(model, weights_sha256="c" * 64)}, of_result={"input": images})
    put(one, 8, of_summary={"model": dict(model, weights="other.pth")}, of_result={"input": images})
    process = succeeds(SCRIPT, one)
    rows = [(row["Model"], row["Data set"]) for row in table_of(one, "Accuracy")]
    assert rows == [("resnet34.pth (bbbbbbbb)", "./ImageNet/val"), ("resnet34.pth (bbbbbbbb)", "prep_dataset"),
                    ("resnet34.pth (cccccccc)", "./ImageNet/val"), ("other.pth", "./ImageNet/val")]
    assert "Model:" not in process.stdout and process.stderr == ""
    assert "Data set: mine\n" in succeeds(SCRIPT, one, "--dataset", "mine").stdout
    put(one, 2, of_result={"input": dict(images, images_hash="2" * 32)})
    assert "the rows are not all of the same images" in succeeds(SCRIPT, one).stderr
    assert [row["Contents of the images"] for row in table_of(one, "Accuracy")][:2] == ["3" * 12, "2" * 12]
    put(one, 2, of_result={"input": images, "labels_sha256": "9" * 64})
    assert "the rows were not judged by equal labels" in succeeds(SCRIPT, one).stderr
    assert [row["Labels"] for row in table_of(one, "Accuracy")][:2] == ["val_label.txt (ffffffff)", "val_label.txt (99999999)"]


def test_two_results_of_one_row_are_refused(one):
    write(one / "result_copy.json", result(summary()))
    assert "same precision and batch size" in fails(1, SCRIPT, one)


@pytest.mark.parametrize("value", ["NaN", "null", '"x"', "[31]"])
def test_a_throughput_that_is_none_is_refused(value, one):
    path = one / "perf_bs1_summary.json"
    for content in (summary(), plain(1, 30.0)):
        text = json.dumps(content).replace('"throughput": 30.0', '"throughput": ' + value)
        path.write_text(text)
        assert str(path) in fails(1, SCRIPT, one)


def mutations(content, at=()):
    """Every JSON that differs from content in one key: replaced by what is no value of it, or removed."""
    inner = content
    for step in at:
        inner = inner[step]
    steps = list(inner) if isinstance(inner, dict) else range(min(len(inner), 1)) if isinstance(inner, list) else []
    for step in steps:
        for value in (None, {}, "\ud800<b>", "removed"):
            changed = copy.deepcopy(content)
            target = changed
            for part in at:
                target = target[part]
            if value == "removed":
                del target[step]
            else:
                target[step] = value
            yield at + (step,), changed
        yield from mutations(content, at + (step,))


def test_no_broken_json_gives_a_traceback(one, monkeypatch):
    """Each key of each JSON, replaced and removed (some 3000, so in this process, without the chart): a sentence, or a report."""
    import report
    from common.command import Failure
    monkeypatch.setattr(report.chart, "draw", lambda *_: (b"", {}))
    folder = put(one, 1, "int8", of_result={"top1": 65.625, "paired": paired(), "calibration_shared": False})
    write(folder / "fidelity_bs1.json", fidelity(name="result_int8_bs1"))
    reference = shutil.copytree(str(folder), str(folder) + ".before")
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(folder), "--reference", reference, "--max-slowdown", "10", "--overwrite"])
    monkeypatch.setattr(report, "rendered", lambda *_, **__: b"")
    refused = written = 0
    for name in ("result_int8_bs1.json", "result_int8_bs1_summary.json", "perf_int8_bs1_summary.json", "fidelity_bs1.json"):
        path, content = folder / name, json.loads((folder / name).read_text())
        for where, changed in mutations(content):
            path.write_text(json.dumps(changed))
            try:
                report.main()
                written += 1
            except (Failure, OSError) as error:
                assert str(error), where
                refused += 1
        path.write_text(json.dumps(content))
    assert refused > 200 and written > 200


def test_broken_files_are_named_by_the_script_itself(folder):
    for name in ("result_bs1.json", "perf_bs1_summary.json", "fidelity_bs1.json"):
        before = (folder / name).read_text()
        for text in (before[:len(before) // 2], "", "[]", "[" * 100000):
            (folder / name).write_text(text)
            assert name in fails(1, SCRIPT, folder)
        (folder / name).write_text(before)


def test_html_links_and_control_characters_do_not_pass(one):
    evil = "<script>x</script> [a](javascript:alert(1)) | `b` ![c](http://d) <javascript:e> \\ *f*\n# g \x1b[31m www.h.i ]("
    told = result(summary(pure=False))
    told["per_class_worst"][0]["name"] = told["mistakes"][0]["label_name"] = told["mistakes"][0]["image"] = evil
    (one / "result_bs1_summary.json").unlink()
    write(one / "result_bs1.json", told)
    process = succeeds(SCRIPT, one, "--dataset", evil, "--failed", "fp32:4=" + evil)
    text, page = (one / "report.md").read_text(), (one / "report.html").read_text()
    assert "<" not in text and "\x1b" not in text + page + process.stdout
    assert "://" not in text and not re.search(r"(?<!\\)\]\((?!report\.png\))", text)
    assert "<script" not in page and "href" not in page and "javascript:" in page
    assert all(len(re.split(r"(?<!\\)\|", line)) == 6 for line in text.splitlines() if line.startswith("| 5 ("))
    assert not re.search(r"(?<!\\)`", re.sub(r"```", "", text))


# ---- verdicts, and another run ----

def test_the_gate_on_throughput_fails_only_beyond_the_spread_and_quiet_prints_it_all_the_same(tmp_path):
    cases = {1: (30.0, 200, 0.01, True), 2: (26.0, 200, 0.05, True), 4: (26.0, 5, 0.01, True),
             8: (26.0, 200, 0.01, False), 16: (20.0, 5, 0.01, False)}
    for size, (here, runs, spread, _) in cases.items():
        reference, folder = put(tmp_path / "reference", size), put(tmp_path / "here", size, speed=here, runs=runs, spread=spread)
    arguments = [SCRIPT, folder, "--reference", reference, "--max-slowdown", "10"]
    process = script(*arguments)
    assert process.returncode == 3 and "report: " in process.stdout, process.stdout + process.stderr
    verdict = [line for line in process.stdout.splitlines() if line.startswith(("PASS: ", "FAIL: "))]
    gates = report_of(folder)["gates"]
    assert len(verdict) == len(gates) == len(cases)
    for line, gate, (here, _, _, passes) in zip(verdict, gates, cases.values()):
        assert line.startswith("PASS" if passes else "FAIL") and "%.2f" % here in line
        assert gate["passes"] == passes and gate["limit"] == pytest.approx(0.9 * 29.7)
    process = script(*(arguments + ["--batch-sizes", "1 2 4", "--quiet"]))
    assert process.returncode == 0 and process.stdout.count("PASS: ") == 3 and "report: " not in process.stdout


def test_a_lone_report_json_is_a_reference_and_the_comparison_is_printed(one, finished, tmp_path):
    edited = report_of(finished[0])
    edited["rows"][0].update(images_per_second=60.0, images_per_second_interval95=[59.0, 61.0])
    write(tmp_path / "main.json", edited)
    process = succeeds(SCRIPT, one, "--reference", tmp_path / "main.json")  # shown, not judged
    assert "Beside %s (onnxruntime 1.32.0 CPUExecutionProvider on AMD EPYC" % (tmp_path / "main.json") in process.stdout
    row = table_of(one, "Beside")[0]
    assert row["Top-1"] == row["Top-1 there"] == "67.19%" and row["images/s there"] == "60.00" and row["ratio"] == "0.50"
    assert script(SCRIPT, one, "--reference", tmp_path / "main.json", "--max-slowdown", "10").returncode == 3


def test_a_reference_of_another_model_labels_or_images_is_warned_of_and_its_accuracy_not_put_beside(one, tmp_path):
    images = {"path": "prep_dataset", "source": None, "recipe": recipe.DEFAULT.as_json(), "images_hash": "3" * 32,
              "set_hash": "1" * 32}
    put(one, of_result={"input": images})
    put(tmp_path / "other", of_summary={"model": dict(summary()["model"], weights_sha256="c" * 64)},
        of_result={"images": {"judged": 32, "labelled": 64, "excluded": 0, "results": 64}, "input": images})
    assert succeeds(SCRIPT, tmp_path / "other").stderr == ""
    for reference in (tmp_path / "other", write(tmp_path / "alone.json", report_of(tmp_path / "other"))):
        process = succeeds(SCRIPT, one, "--reference", reference)
        assert "that run and this one differ in: Model, Images\n" in process.stderr
        assert "differ in: Model, Images" in (one / "report.md").read_text()
        assert table_of(one, "Beside")[0]["Top-1 there"] == "67.19%"
    for other, word in (({"labels_sha256": "9" * 64, "input": images}, "Labels"),
                        ({"input": dict(images, images_hash="4" * 32)}, "Contents of the images"),
                        ({"input": dict(images, recipe=dict(images["recipe"], resize=235))}, "Preprocessing")):
        process = succeeds(SCRIPT, one, "--reference", put(tmp_path / "other", of_result=other))
        row = table_of(one, "Beside")[0]
        assert "differ in: %s\n" % word in process.stderr and row["Top-1 there"] == "-" and row["images/s there"] == "30.00"
    pixels = put(tmp_path / "other", of_result={"input": dict(images, recipe=recipe.DEFAULT.with_dtype("uint8").as_json())})
    assert succeeds(SCRIPT, one, "--reference", pixels).stderr == ""
    shutil.copy(str(one / "report.json"), str(tmp_path / "same.json"))
    assert succeeds(SCRIPT, one, "--reference", tmp_path / "same.json").stderr == ""


def test_a_gate_with_nothing_to_compare_does_not_hold(one, tmp_path):
    reference = put(tmp_path / "reference", 16)
    assert "no throughput at any of these batch sizes" in fails(1, SCRIPT, one, "--reference", reference, "--max-slowdown", "5")
    (one / "perf_bs1_summary.json").unlink()
    shutil.copytree(str(put(tmp_path / "r2")), str(tmp_path / "r3"))
    process = script(SCRIPT, one, "--reference", tmp_path / "r3", "--max-slowdown", "5")
    assert process.returncode == 3 and "FAIL: images/s of fp32 at batch size 1: there is none" in process.stdout
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "gone", tmp_path / "empty"):
        assert "No such file" in fails(1, SCRIPT, one, "--reference", nothing)
    write(tmp_path / "old.json", {"schema": 2, "rows": []})
    assert "no report.json of schema 4" in fails(1, SCRIPT, one, "--reference", tmp_path / "old.json")


def test_rows_that_the_reference_lacks_and_another_device_there_are_said(one, tmp_path):
    succeeds(SCRIPT, one)
    reference = report_of(one)
    reference["rows"][0]["device"] = "Huge CPU, 64 threads"
    write(tmp_path / "lone.json", reference)
    said = succeeds(SCRIPT, put(one, 8), "--reference", tmp_path / "lone.json", "--max-slowdown", "10").stderr
    assert "has no row for fp32 at batch size 8, which is not compared" in said and "differ in: Device" in said
    reference["rows"].append(dict(reference["rows"][0], batch_size=8, images_per_second=None))
    write(tmp_path / "lone.json", reference)
    said = succeeds(SCRIPT, one, "--reference", tmp_path / "lone.json", "--max-slowdown", "10").stderr
    assert "has no throughput for fp32 at batch size 8, which is not compared" in said


def test_an_accuracy_gate_and_a_fidelity_that_say_no_exit_with_3(one):
    write(one / "fidelity_bs1.json", fidelity(agrees=False))
    process = script(SCRIPT, one)
    assert process.returncode == 3 and "FAIL: ./output/result_bs1 does NOT agree" in process.stdout
    assert table_of(one, "Fidelity")[0]["verdict"] == "DOES NOT AGREE" and "DOES NOT AGREE" in (one / "report.html").read_text()
    assert table_of(one, "Images that differ most")[0]["Top-1 of the reference"] == "7 (cock)"
    (one / "fidelity_bs1.json").unlink()
    put(one, of_result={"gates": [{"name": "Top-1", "measured": 67.1875, "limit": 70, "passes": False},
                                  {"name": "Top-5", "measured": 93.75, "limit": 90, "passes": True}]})
    process = script(SCRIPT, one)
    assert process.returncode == 3 and "FAIL: Top-1 67.19% is below 70% (fp32, batch size 1)\nPASS: Top-5" in process.stdout


# ---- in Chinese ----

def in_chinese(source):
    """The texts of a module that are translated: what say() and warn() are given, and the columns' headings."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("say", "note"):
            found |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant) and type(each.value) is str}
        if isinstance(node, ast.Tuple) and len(node.elts) in (2, 3) and isinstance(getattr(node.elts[0], "value", None), str):
            found.add(node.elts[0].value)
    return found


def test_each_text_of_the_report_has_its_chinese_with_the_same_places_for_values():
    chinese = json.loads((REPOSITORY / "report.zh.json").read_text())
    for english, text in chinese.items():
        assert re.findall(r"%[-+.\d]*[a-z%]", english) == re.findall(r"%[-+.\d]*[a-z%]", text), english
    found = set()
    for name in ("tables", "rows", "remarks", "chart"):
        source = (REPOSITORY / "common" / (name + ".py")).read_text()
        found |= {text for text in in_chinese(source) if re.search("[a-z]{2}", text) and not re.match(r"[a-z0-9_]+$", text)}
    for name in ("report.html.jinja", "report.md.jinja"):
        found |= set(re.findall(r'say\("(.*?)"\)', (REPOSITORY / name).read_text()))
    same = {"Top-1", "Top-5", "Batch Size", "Ascend310P3", "npu_infer.py", "onnx_infer.py", "Top-1 %", "Top-5 %"}
    assert sorted(found - set(chinese) - same) == []


def test_in_chinese_the_first_table_is_the_guides_cell_for_cell(tmp_path):
    for size, speed in GUIDE.items():
        put(tmp_path / "npu", size, "fp16", speed=speed, of_result={
            "accuracy": {"top1": 73.31, "top5": 91.44}, "images": dict(judged=50000, labelled=50000, results=50000, excluded=0),
            "input": {"path": "prep_dataset", "source": "./Imagenet/val", "recipe": None}},
            of_summary={"engine": "ais_bench 0.0.2", "device": "Ascend310P3", "devices": [0]})
    succeeds(SCRIPT, tmp_path / "npu", "--lang", "zh")
    text = (tmp_path / "npu" / "report.md").read_text()
    first = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][:8]
    assert first[0] == ["芯片型号", "Batch Size", "数据集", "精度", "性能"]
    assert first[2:] == [["310P3", str(size), "imagenet", "acc-Top1:73.31<br>acc-Top5:91.44", "%.2f" % speed]
                         for size, speed in GUIDE.items()]
    page = (tmp_path / "npu" / "report.html").read_text()
    assert '<html lang="zh-CN">' in page and "acc-Top1:73.31<br>acc-Top5:91.44" in page


def test_a_chinese_report_has_no_english_sentence_left(folder):
    succeeds(SCRIPT, folder, "--lang", "zh", "--failed", "fp32:4=killed")
    text = (folder / "report.md").read_text()
    text = text[:text.index("```")]
    allowed = "onnxruntime CPUExecutionProvider AMD EPYC threads Batch Size images s MinMax McNemar MLPerf out put CPUs".split()
    text = re.sub(r"resnet34\S*|image\d|python|numpy|vnni|[a-f]{64}", "", text)
    words = set(re.findall(r"(?<![\w./-])[A-Za-z]{4,}(?![\w.]*[/.\w])", text))
    assert words - set(allowed) <= {"stripes", "upright", "cock", "True", "fp32", "INT8", "Beside", "killed", "PASS", "output"}


# ---- when there is nothing to do ----

def test_run_again_it_says_the_same_with_the_same_exit_code_and_writes_nothing(folder):
    write(folder / "fidelity_bs8.json", fidelity(agrees=False, name="result_bs8"))
    first = script(SCRIPT, folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in NAMES}
    second = script(SCRIPT, folder)
    assert second.returncode == first.returncode == 3 and second.stderr == first.stderr
    assert second.stdout == first.stdout.replace("\nreport: ", "\nkept: ")
    assert {name: (folder / name).stat().st_mtime_ns for name in NAMES} == before
    assert script(SCRIPT, folder, "--check").returncode == 0
    assert script(SCRIPT, folder, "--check", "--dataset", "x").returncode == 1


def test_it_is_made_again_when_a_file_an_option_or_a_part_of_it_changed(folder):
    succeeds(SCRIPT, folder)
    changes = [lambda: put(folder, 8, speed=99.0), lambda: write(folder / "commands.sh", "other\n"), lambda: put(folder, 64),
               lambda: (folder / "fidelity_bs1.json").unlink(), lambda: (folder / "report.md").unlink()]
    for change in changes:
        change()
        assert script(SCRIPT, folder, "--check").returncode == 1
        assert "\nreport: " in succeeds(SCRIPT, folder).stdout
    assert "\nreport: " in succeeds(SCRIPT, folder, "--overwrite").stdout


def test_a_folder_that_was_moved_keeps_its_report(reported, tmp_path):
    reported.rename(tmp_path / "moved")
    assert "\nkept: " in succeeds(SCRIPT, tmp_path / "moved", "--dataset", "./ImageNet/val").stdout


# ---- the page and the chart ----

@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """The report of a folder with everything in it, the pictures of its mistakes behind the manifest of the judged files.

    One of the pictures is an EPS, one gone, one replaced by another. Only to be read or copied.
    """
    one = tmp_path_factory.mktemp("pictured") / "one"
    (one / "prep_dataset").mkdir(parents=True)
    images, info = {}, {}
    for number in range(12):
        path, name = one / ("image%d.JPEG" % number), "image%d" % number
        Image.fromarray(np.full((90, 120, 3), 20 * number, np.uint8)).save(str(path), "EPS" if number == 1 else "JPEG")
        images[name] = prepared.Image(name, str(path), files.xxh(path.read_bytes()), [], "", [])
        info[str(number)] = {"infiles": ["prep_dataset/%s.bin" % name], "outfiles": ["result_bs1/%s_0.txt" % name],
                             "image": images[name].source_hash, "hashes": [[None, None]]}
    prepared.write_manifest(str(one / "prep_dataset"), images)
    (one / "image2.JPEG").unlink()
    shutil.copy(str(one / "image4.JPEG"), str(one / "image3.JPEG"))
    put(one, of_summary={"input": {"path": "somewhere/prep_dataset", "source": "./val", "recipe": recipe.DEFAULT.as_json()},
                         "filesinfo": info})
    put(one, 1, "int8", of_result={"paired": paired()})
    write(one / "fidelity_bs1.json", fidelity())
    write(one / "commands.sh", "python3 onnx_infer.py --model resnet34.onnx %s\n" % ("--input prep_dataset " * 20))
    write(one / "perf_bs4_summary.json", plain(4, 31.0, "--batchsize=4", engine="onnxruntime 1.32.0 CPUExecutionProvider"))
    succeeds(SCRIPT, one, "--reference", shutil.copytree(str(one), str(one) + ".before"), "--max-slowdown", "10")
    return one


def pictures_in(folder):
    return (folder / "report.html").read_text().count('src="data:image/jpeg;base64,')


def test_the_gallery_takes_its_pictures_from_the_manifest_and_only_those_that_were_judged(pictured):
    assert pictures_in(pictured) == 9 and "no picture of it at hand" in (pictured / "report.html").read_text()


def test_the_gallery_takes_its_pictures_from_a_folder_and_its_class_names_from_a_file(one, finished, tmp_path):
    page = (finished[0] / "report.html").read_text()
    assert "5 (upright stripes, red)" in page and "7 (cock)" in page  # without a file they are the evaluation's
    images = tmp_path / "images"
    for name in ("v1.0/image0.JPEG", "n01/image1.png", "bike/image2.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(str(images / name))
    write(one / "names", "".join("<b>%d\n" % number for number in range(1000)) + "\n")
    succeeds(SCRIPT, one, "--images", images, "--classes", one / "names")
    assert pictures_in(one) == 3 and "5 (&lt;b&gt;5)" in (one / "report.html").read_text()
    assert "gone" in fails(1, SCRIPT, one, "--images", tmp_path / "gone")
    write(one / "names", "one\n")
    assert "has 1 lines" in fails(1, SCRIPT, one, "--classes", one / "names")


def test_the_page_holds_everything_loads_nothing_and_folds_the_gallery_and_the_hashes(pictured):
    text = (pictured / "report.html").read_text()
    assert "<script" not in text and not re.search(r'(src|href)="(?!data:)', text) and "://" not in text
    assert text.count('src="data:image/png;base64,') == 2 and "prefers-color-scheme: dark" in text
    assert text.index("95 % intervals") < text.index("Environment") < text.index("<details>") < text.index("a" * 64)


def test_the_page_can_be_read_without_eyes(pictured):
    text = (pictured / "report.html").read_text()
    assert text.count("<h1>") == 1 and text.count("<h2>") == text.count("<table") + 1
    assert "<th>" not in text and text.count('scope="col"') > 50
    assert 'alt="throughput: not recorded at batch size 4: 31.00, fp32 at' in text and not re.search('alt=""|<img (?!alt)', text)


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_overflows_and_every_picture_shows(width, pictured, tmp_path):
    """In a real Chromium, where there is one: the page in a frame of the given width, measured by a script outside of it."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    inner = (pictured / "report.html").read_text().replace("<details>", "<details open>")
    wrapper = """<iframe id="page" style="border:0; width:%dpx; height:900px" srcdoc="%s"></iframe><script>
        page.onload = () => { const frame = page.contentDocument; const wide = [...frame.querySelectorAll("body *")].filter(
          element => !element.closest("pre, .scroll, thead") && element.getBoundingClientRect().right > %d + 1);
          document.title = [frame.documentElement.scrollWidth, wide.length, frame.images.length,
            [...frame.images].filter(image => image.naturalWidth).length].join(" "); }</script>"""
    write(tmp_path / "w.html", wrapper % (width, html.escape(inner), width))
    shown = subprocess.run([chromium, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--disable-quic",
                            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                            "--user-data-dir=%s" % (tmp_path / "profile"), "--virtual-time-budget=5000", "--dump-dom",
                            "file://%s" % (tmp_path / "w.html")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    title = re.search(r"<title>(.*?)</title>", shown.stdout.decode("utf-8", "replace"))
    assert title and title.group(1) == "%d 0 11 11" % width


def test_the_chart_is_a_picture_without_colour_whatever_the_users_matplotlibrc_says(finished, reported, tmp_path):
    with Image.open(str(finished[0] / "report.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000 and pixels.min() < 50
    assert np.abs(pixels - pixels.mean(axis=2, keepdims=True)).max() < 2
    write(tmp_path / "matplotlibrc", "text.usetex: True\nlines.color: red\naxes.facecolor: blue\nfont.size: 40\n")
    succeeds(SCRIPT, reported, "--dataset", "./ImageNet/val", "--overwrite",
             env=dict(os.environ, MATPLOTLIBRC=str(tmp_path / "matplotlibrc")))
    assert (reported / "report.png").read_bytes() == (finished[0] / "report.png").read_bytes()


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_a_package_a_sentence_and_no_half_report(missing, one, tmp_path):
    (tmp_path / "site").mkdir()
    write(tmp_path / "site" / (missing + ".py"), "raise ImportError('No module named %s')\n" % missing)
    sentence = fails(1, SCRIPT, one, env=dict(os.environ, PYTHONPATH=str(tmp_path / "site")))
    assert missing in sentence and "pip install" in sentence and not list(one.glob("report.*"))


# ---- files and outputs ----

def test_files_of_somebodys_own_are_not_overwritten(one):
    write(one / "report.md", "mine")
    assert "--overwrite" in fails(1, SCRIPT, one)
    assert (one / "report.md").read_text() == "mine" and not (one / "report.json").exists()
    (one / "report.md").unlink()
    write(one / "report.json", {"mine": 1})
    assert "--overwrite" in fails(1, SCRIPT, one)
    succeeds(SCRIPT, one, "--overwrite")


def test_a_killed_runs_stray_is_removed(reported):
    stray = write(reported / (".resnet34.%s.tmp" % ("0" * 16)), "stray")
    succeeds(SCRIPT, reported)
    assert not stray.exists()


def test_a_full_disk_names_the_file_and_leaves_the_earlier_report(reported):
    before = {name: (reported / name).read_bytes() for name in NAMES}
    put(reported, speed=31.0)
    line = "ulimit -f 8; trap '' XFSZ; exec " + " ".join("'%s'" % word for word in command(SCRIPT, reported))
    process = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8")
    assert process.returncode == 1 and re.search(r"error: .*report\.\w+: File too large", process.stderr)
    assert {name: (reported / name).read_bytes() for name in before} == before and not list(reported.glob(".resnet34*"))


def test_a_signal_leaves_the_earlier_report(reported):
    before = (reported / "report.md").read_bytes()
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        site = reported / "site"
        (site / "matplotlib").mkdir(parents=True, exist_ok=True)
        write(site / "matplotlib" / "__init__.py",
              # Not one long sleep: a signal just before it would be seen only at its end.
              "import time\nopen(%r, 'w').close()\nfor _ in range(6000):\n    time.sleep(0.01)\n" % str(reported / "reached"))
        process = subprocess.Popen(command(SCRIPT, reported), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   env=dict(os.environ, PYTHONPATH=str(site)))
        wait_until(lambda: (reported / "reached").exists(), process)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code and b"stopped" in said and b"Traceback" not in said
        (reported / "reached").unlink()
    assert (reported / "report.md").read_bytes() == before and not list(reported.glob(".resnet34*"))


def test_wrong_usage_exits_with_2(one):
    for arguments in ([], [one, "--max-slowdown", "10"], [one, "--reference", one, "--max-slowdown", "100"],
                      [one, "--reference", one, "--max-slowdown", "nan"], [one, "--batch-sizes", "0"],
                      [one, "--failed", "x"], [one, "--precisions", "fp8"], [one, "--lang", "fr"]):
        process = script(SCRIPT, *arguments)
        assert process.returncode == 2 and "Traceback" not in process.stderr


def test_class_names_are_those_of_the_row_that_is_shown_whatever_others_call_that_number(one):
    worst = [{"class": 5, "name": "fish", "images": 6, "top1": 50.0, "top5": 90.0}]
    put(one, 8, of_result={"classes": 10, "per_class_worst": worst, "mistakes": []})
    succeeds(SCRIPT, one)
    assert [row["Class"] for row in table_of(one, "Worst classes, fp32 at batch size 1")] == ["5 (upright stripes, red)"]
