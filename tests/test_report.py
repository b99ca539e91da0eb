"""report.py: the guide's table and what shows whether its numbers deserve trust, from the JSON files that a run left."""
import copy
import hashlib
import html
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, command, fails, script, succeeds, wait_until
from PIL import Image

SCRIPT = "report.py"
# The published figures of the guide's table.
GUIDE = {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
CALIBRATION = {"tool": "onnxruntime", "method": "MinMax", "images": 500, "seed": 0, "shared": False, "source_sha256": "a" * 64,
               "names_sha256": "c" * 64}


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
             "weights_sha256": "b" * 64, "recipe": None, "calibration": None}
    if precision == "int8":
        model.update(path="resnet34_int8.onnx", bytes=22000000, sha256="d" * 64, onnx_sha256="d" * 64, calibration=CALIBRATION)
    content = {
        "filesinfo": {}, "NPU_compute_time": times, "H2D_latency": idle, "D2H_latency": idle, "throughput": speed,
        "npu_compute_time_list": [], "args": ["onnx_infer.py"], "pid": 1, "schema": 1, "date": "2026-11-24T10:00:00Z",
        "engine": "onnxruntime 1.32.0 CPUExecutionProvider", "device": "AMD EPYC, 2 threads", "devices": [],
        "precision": precision,
        "batch_size": size, "outfmt": "TXT", "model": model,
        "input": None if pure else {"path": "prep_dataset", "images": 64, "recipe": None, "manifest_sha256": None, "shard": None},
        "outputs": [{"name": "class", "dtype": "float32", "shape": [1000]}], "probabilities": False,
        "packages": {"python": "3.11.7", "numpy": "2.4.6", "onnxruntime": "1.32.0"}, "script_sha256": "e" * 64,
        "machine": "AMD EPYC, x86_64, 2 CPUs", "vnni": True, "h2d_ms": None, "d2h_ms": None, "npu": None, "parts": None,
        "performance": {"runs": runs, "batch_size": size, "mean_ms": mean, "median_ms": 0.98 * mean,
                        "p90_ms": 1.1 * mean if runs >= 10 else None, "p99_ms": 1.25 * mean if runs >= 100 else None,
                        "min_ms": 0.9 * mean, "max_ms": 1.3 * mean, "images_per_second": speed,
                        "interval95": [speed * (1 - spread), speed * (1 + spread)] if runs >= 20 else None},
        "wall": None if pure else {"seconds": 2.5, "images_per_second": 25.6, "reading": 0.1, "computing": 2.3, "writing": 0.1,
                                   "resumed": False}}
    return dict(content, **more)


def plain(size, speed):
    """A summary as ais_bench writes it: none of our keys."""
    times = {"min": 0.1, "max": 9.0, "mean": 1000.0 * size / speed, "median": 1.5, "percentile(99%)": 8.5, "count": 20}
    return {"filesinfo": {"0": {"infiles": ["pure_infer_data"], "outfiles": []}}, "NPU_compute_time": times,
            "H2D_latency": dict(times, mean=0.25), "D2H_latency": dict(times, mean=0.125), "throughput": speed,
            "npu_compute_time_list": [1.0], "args": ["ais_bench", "--model=resnet34.om", "--loop=20"], "pid": 1}


def result(of=None, top1=67.1875, top5=93.75, **more):
    """A result.json as imagenet_acc_eval.py writes it; of: the summary of the results."""
    told = {key: (of or {}).get(key) for key in ("engine", "device", "precision", "batch_size", "model", "input")}
    told["engine"] = told["engine"] or "not recorded"
    values = [("Number of images", "64"), ("Top1 accuracy", "%.2f%%" % top1), ("Top5 accuracy", "%.2f%%" % top5)]
    content = {
        "title": "Overall statistical evaluation", "value": [{"key": key, "value": value} for key, value in values], "schema": 1,
        "accuracy": {"top1": top1, "top5": top5}, "images": {"judged": 64, "labelled": 64, "excluded": 0, "results": 64},
        "interval95": {"top1": [top1 - 11.5, top1 + 11.5], "top5": [top5 - 8.5, min(100.0, top5 + 4)]}, "classes": 1000,
        "chance_top5": 0.5, "summary_sha256": None, "shards": None, "labels": "val_label.txt", "labels_sha256": "f" * 64,
        "exclude_sha256": None, "calibration_shared": None, "data_set": None,
        "per_class_worst": [{"class": 5, "name": "upright stripes, red", "images": 4, "top1": 25.0, "top5": 75.0}],
        "mistakes": [{"image": "image%d" % number, "label": 5, "label_name": "upright stripes, red", "guesses": [
            {"class": 7, "name": "cock", "probability": 0.75}, {"class": 8, "name": None, "probability": 0.125}]}
            for number in range(12)], "paired": None, "gates": []}
    return dict(content, **dict(told, **more))


def paired(lost=1.5625, passes=True):
    one = {"accuracy": 65.625, "baseline": 65.625 + lost, "lost": lost, "right_to_wrong": 3, "wrong_to_right": 2,
           "mcnemar_p": 1.0, "difference_interval95": [lost - 6, lost + 6]}
    return {"baseline": "result_bs1", "baseline_engine": "onnxruntime 1.32.0 CPUExecutionProvider", "baseline_precision": "fp32",
            "images": 64, "top1": one,
            "top5": dict(one, lost=0.0, accuracy=93.75, baseline=93.75, difference_interval95=[-3.0, 3.0]),
            "mlperf": {"ratio": 0.977, "limit": 0.99, "passes": passes}}


def fidelity(agrees=True, name="result_bs1"):
    return {"schema": 1, "result": "./output/" + name, "reference": "./output/reference", "precision": "fp32",
            "engine": "onnxruntime 1.32.0 CPUExecutionProvider", "reference_engine": "onnxruntime 1.10.0 CPUExecutionProvider",
            "compared": 16, "top1_agreement": 100.0, "top5_set_agreement": 93.75, "cosine_mean": 0.99999, "cosine_worst": 0.9999,
            "absolute_difference": 0.01, "relative_difference": 0.001 if agrees else 0.5, "relative_limit": 0.02,
            "agrees": agrees, "most_different": [{"image": "image3", "relative_difference": 0.001, "cosine": 0.9999, "top1": 5,
                                                  "reference_top1": 7}]}


def put(folder, size=1, precision="fp32", speed=30.0, runs=200, spread=0.01, of_result=None, of_summary=None):
    """One row's files in a folder, as run_infer.sh leaves them."""
    folder.mkdir(exist_ok=True)
    name = "%sbs%d" % ("int8_" if precision == "int8" else "", size)
    inference = summary(size, precision, pure=False, **(of_summary or {}))
    path = write(folder / ("result_%s_summary.json" % name), inference)
    told = result(inference, **dict({"summary_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}, **(of_result or {})))
    write(folder / ("result_%s.json" % name), told)
    write(folder / ("perf_%s_summary.json" % name), summary(size, precision, speed=speed, runs=runs, spread=spread,
                                                            **(of_summary or {})))
    return folder


def two_precisions(path):
    """Both precisions at two batch sizes, and a comparison."""
    for size in (1, 8):
        put(path, size, speed=30.0 + size)
        put(path, size, "int8", speed=100.0 + size, of_result={"top1": 65.625, "paired": paired(), "calibration_shared": False})
    write(path / "fidelity_bs1.json", fidelity())
    write(path / "commands.sh", "bash run_infer.sh --demo\n\npython3 `x` ```\n")
    return path


@pytest.fixture
def folder(tmp_path):
    return two_precisions(tmp_path / "out put")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with its report, only to be read or copied: (the folder, the process)."""
    path = two_precisions(tmp_path_factory.mktemp("finished") / "out put")
    return path, succeeds(SCRIPT, path, "--dataset", "./ImageNet/val")


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
        of_summary={"model": dict(summary(1, "int8")["model"], calibration=dict(CALIBRATION, source_sha256="9" * 64))})
    put(path, 2, of_result={"classes": 10, "chance_top5": 50.0})
    put(path, 4, of_summary={"engine": "onnxruntime 1.32.0 OpenVINOExecutionProvider",
                             "packages": {"python": "3.11.7", "numpy": "1.19.2", "onnxruntime": "1.32.0"}})
    put(path, 16)  # its performance may be an earlier run's: it is said to have failed
    told = {"seconds": 4.0, "images_per_second": 16.0, "reading": 1.0, "computing": 2.0, "writing": 0.5, "resumed": True}
    write(path / "result_bs1_summary.json", summary(pure=False, wall=told))
    write(path / "result_bs1.json", result(summary(pure=False)))
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


def test_what_all_rows_share_stands_once_above_an_aligned_table(finished):
    _, process = finished
    lines = process.stdout.splitlines()
    assert lines[:7] == ["Engine: onnxruntime 1.32.0 CPUExecutionProvider", "Device: AMD EPYC, 2 threads", "Model: resnet34.pth",
                         "Data set: ./ImageNet/val", "Images: 64 of 64 labelled", "Runs: 200", "Date: 2026-11-24T10:00:00Z"]
    assert process.stdout.count("onnxruntime 1.32.0") == 1
    table = lines[8:13]
    assert table[0].split("  ")[0] == "Precision" and [line.split()[0] for line in table[1:]] == ["fp32", "fp32", "int8", "int8"]
    assert table[1].split()[1:] == ["1", "67.19%", "93.75%", "31.00", "32.26", "31.61", "35.48", "40.32"]
    assert len({len(line) for line in table}) == 1  # numbers stand to the right, under each other


def test_rows_of_different_engines_say_so_in_each_row(odd):
    _, process, rows = odd
    assert "Engine:" not in process.stdout and re.search(r"^Engine +Precision", process.stdout, re.MULTILINE)
    assert [rows["fp32", size]["Engine"] for size in ("1", "4")] == ["onnxruntime 1.32.0 %sExecutionProvider" % name
                                                                   for name in ("CPU", "OpenVINO")]


def test_report_json_holds_raw_numbers(finished):
    report = report_of(finished[0])
    assert (report["schema"], report["date"], report["runs"], report["failed"]) == (3, "2026-11-24T10:00:00Z", 200, {})
    keys = [(row["precision"], row["batch_size"]) for row in report["rows"]]
    assert keys == [("fp32", 1), ("fp32", 8), ("int8", 1), ("int8", 8)]
    row = report["rows"][0]
    assert row["top1"] == 67.1875 and row["top1_interval95"] == [55.6875, 78.6875] and row["images_per_second"] == 31.0
    assert row["latency_ms"]["p99"] == pytest.approx(1250 / 31.0) and row["wall"]["resumed"] is False
    assert row["judged"] == row["labelled"] == 64 and row["worst_classes"] and len(row["mistakes"]) == 12
    assert row["fidelity"]["agrees"] is True and row["paired"] is None and row["guide_images_per_second"] is None
    assert report["rows"][2]["paired"]["top1"]["right_to_wrong"] == 3 and report["commands"][0] == "bash run_infer.sh --demo"


def test_what_the_guides_commands_by_hand_leave_gives_rows(tmp_path):
    files = {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.txt"]}}
    write(tmp_path / "result_summary.json", dict(plain(1, 1700.0), filesinfo=files))
    write(tmp_path / "result.json", result())
    write(tmp_path / "perf_bs1_summary.json", plain(1, 1775.0))
    times = dict(plain(8, 5140.0)["NPU_compute_time"], count=100)
    write(tmp_path / "perf_bs8_summary.json", dict(plain(8, 5140.0), NPU_compute_time=times))
    process = succeeds(SCRIPT, tmp_path)
    unknown = "".join("%s: not recorded\n" % what for what in ("Engine", "Device", "Model", "Data set"))
    assert unknown + "Images: 64 of 64 labelled" in process.stdout
    rows = table_of(tmp_path, "Accuracy")
    shown = ("Precision", "Batch size", "Top-1", "images/s", "P90 ms", "P99 ms")
    assert [tuple(row[heading] for heading in shown) for row in rows] == [
        ("not recorded", "1", "67.19%", "1775.00", "-", "-"),  # 20 runs have no P99
        ("not recorded", "8", "-", "5140.00", "-", "8.50")]
    assert {path.name for path in tmp_path.glob("report.*")} == {"report.md", "report.json", "report.png", "report.html"}
    assert table_of(tmp_path, "End to end")[0]["H2D ms"] == "0.250"


def test_a_folder_without_results_says_what_is_missing(tmp_path):
    assert "holds no result.json" in fails(1, SCRIPT, tmp_path)
    assert "is no folder" in fails(1, SCRIPT, tmp_path / "gone")


def test_the_guides_figure_stands_beside_one_chip_of_its_kind_alone(tmp_path):
    cases = ((4, [0], "Ascend910B4", "fp16", None), (8, [0], "Ascend310P3", "fp16", GUIDE[8]),
             (8, [0], "Ascend310P3", "int8", None), (16, [0, 1], "2 x Ascend310P3", "fp16", None))
    for size, devices, device, precision, _ in cases:
        chips = [{"device": 0, "npu": 0, "chip": "310P3", "health": "Warning", "soc_version": "Ascend310P3"}]
        put(tmp_path / "npu", size, precision, speed=5000.0, of_summary={
            "engine": "ais_bench 0.0.2", "device": device, "devices": devices, "h2d_ms": 0.5, "d2h_ms": 0.25,
            "npu": {"devices": chips, "driver": "25.5.2", "firmware": "7.8", "cann": "8.0", "ais_bench": "0.0.2",
                    "aclruntime": "0.0.2"}})
    succeeds(SCRIPT, tmp_path / "npu")
    found = {(row["batch_size"], row["precision"]): row["guide_images_per_second"] for row in report_of(tmp_path / "npu")["rows"]}
    assert found == {(size, precision): expected for size, _, _, precision, expected in cases}
    assert [row["ratio"] for row in table_of(tmp_path / "npu", "Accuracy")] == ["-", "%.2f" % (5000 / GUIDE[8]), "-", "-"]
    facts = {row["What"]: row["Value"] for row in table_of(tmp_path / "npu", "Environment")}
    assert facts["driver"] == "25.5.2" and facts["cann"] == "8.0" and facts["chip"] == "Ascend310P3, health Warning"


def test_int8_rows_show_their_price_and_their_gain(finished):
    folder, process = finished
    price = table_of(folder, "What INT8 costs")
    assert [(row["Batch size"], row["Accuracy"], row["points lost"], row["95 % interval"]) for row in price[:2]] == [
        ("1", "Top-1", "1.56", "-4.44 to 7.56"), ("1", "Top-5", "0.00", "-3.00 to 3.00")]
    assert (price[0]["right to wrong"], price[0]["wrong to right"], price[0]["McNemar's p"]) == ("3", "2", "1")
    assert price[0]["MLPerf (99 %)"] == "passes with 97.70%"
    gain = table_of(folder, "What INT8 gains")[1]
    assert (gain["float images/s"], gain["INT8 images/s"], gain["times as fast"]) == ("38.00", "108.00", "2.84")
    assert (gain["float MB"], gain["INT8 MB"], gain["calibrated by"]) == ("87.00", "22.00", "onnxruntime MinMax, 500 images")
    assert gain["shares images with the accuracy"] == "no" and "What INT8 costs" in process.stdout and "2.84" in process.stdout


def test_an_int8_accuracy_that_shares_images_with_its_calibration_says_so(odd):
    assert table_of(odd[0], "What INT8 gains")[0]["shares images with the accuracy"].startswith("YES")
    assert table_of(odd[0], "What INT8 costs")[0]["Accuracy"] == "not compared image by image"


def test_an_int8_model_of_another_float_model_is_warned_of(odd):
    assert "at batch size 1 the INT8 model was not made from the float model" in odd[1].stderr


def test_end_to_end_stands_beside_the_pure_figure_and_a_resumed_run_is_said(odd):
    row = table_of(odd[0], "End to end")[0]
    assert [row[key] for key in ("pure images/s", "end to end images/s", "reading", "computing", "writing")] == [
        "30.00", "16.00", "1.00", "2.00", "0.50"]
    assert row["resumed"].startswith("yes")


def test_few_runs_have_no_p90_no_p99_and_no_interval(odd):
    row = odd[2]["fp32", "1"]
    assert row["P90 ms"] == row["P99 ms"] == "-" and table_of(odd[0], "95 % intervals")[0]["images/s"] == "-"


def test_a_top5_of_few_classes_has_its_chance_level_beside_it(odd):
    assert odd[2]["fp32", "2"]["Top-5 by chance"] == "50.00%"


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


# ---- numbers that are wrong must not be green ----

def test_the_accuracy_of_one_engine_and_the_speed_of_another_are_refused(one):
    another = dict(summary()["model"], sha256="9" * 64)
    for key, value in (("engine", "ais_bench 0.0.2"), ("precision", "int8"), ("model", another)):
        told = summary(**{key: value})
        path = write(one / "perf_bs1_summary.json", told)
        if key == "precision":  # another precision is another row
            succeeds(SCRIPT, one)
            assert [row["images_per_second"] for row in report_of(one)["rows"]] == [None, 30.0]
        else:
            assert "the performance in %s" % path in fails(1, SCRIPT, one)


def test_other_packages_among_the_stages_are_named(odd):
    assert "did not run with one numpy: 2.4.6 (perf_bs16_summary.json" in odd[1].stderr
    assert "did not run with one numpy" in (odd[0] / "report.md").read_text()
    assert report_of(odd[0])["environment"]["differing"] == ["numpy"]


def test_an_evaluation_of_other_results_than_the_summary_tells_of_is_refused(one):
    write(one / "result_bs1_summary.json", summary(pure=False, speed=31.0))
    assert "was judged of other results" in fails(1, SCRIPT, one)


def test_a_fidelity_of_an_earlier_run_or_of_no_row_is_left_out_with_a_warning(one):
    told = json.loads((one / "result_bs1.json").read_text())["summary_sha256"]
    write(one / "fidelity_bs1.json", dict(fidelity(), summary_sha256="0" * 64))  # of the earlier model
    write(one / "fidelity_bs4.json", fidelity(agrees=False, name="result_bs4"))  # its row is not there
    write(one / "fidelity_of_copy.json", dict(fidelity(name="moved"), summary_sha256=told))
    process = succeeds(SCRIPT, one)
    for name in ("fidelity_bs1.json", "fidelity_bs4.json"):
        assert "%s: compares results that no evaluation here is of" % name in process.stderr
        assert "%s: compares" % name in (one / "report.html").read_text()
    assert "PASS: ./output/moved agrees" in process.stdout and len(table_of(one, "Fidelity")) == 1
    assert [gate["passes"] for gate in report_of(one)["gates"]] == [True]


def test_verdicts_are_those_of_the_shown_rows_alone(one):
    gates = [{"name": "Top-1", "measured": 67.1875, "limit": 70, "passes": False}]
    put(one, 4, of_result={"gates": gates})
    put(one, 8, of_result={"gates": [dict(gates[0], limit=60, passes=True)]})
    write(one / "fidelity_bs4.json", fidelity(agrees=False, name="result_bs4"))
    process = succeeds(SCRIPT, one, "--batch-sizes", "1 8")
    assert "PASS: Top-1" in process.stdout and "FAIL" not in process.stdout and process.stderr == ""
    assert len(report_of(one)["gates"]) == 1 and "## Fidelity" not in (one / "report.md").read_text()
    assert script(SCRIPT, one, "--batch-sizes", "4").stdout.count("FAIL: ") == 2


def test_rows_of_different_models_and_images_say_so_in_each_row(one):
    model, images = summary()["model"], {"path": "prep_dataset", "source": "./ImageNet/val", "manifest_sha256": "1" * 64}
    put(one, 1, of_result={"input": images})
    put(one, 2, of_result={"input": dict(images, source=None)})
    put(one, 4, of_summary={"model": dict(model, weights_sha256="c" * 64)}, of_result={"input": images})
    put(one, 8, of_summary={"model": dict(model, weights="other.pth")}, of_result={"input": images})
    process = succeeds(SCRIPT, one)
    rows = [(row["Model"], row["Data set"]) for row in table_of(one, "Accuracy")]
    assert rows == [("resnet34.pth (bbbbbbbb)", "./ImageNet/val"), ("resnet34.pth (bbbbbbbb)", "prep_dataset"),
                    ("resnet34.pth (cccccccc)", "./ImageNet/val"), ("other.pth", "./ImageNet/val")]
    assert "Model:" not in process.stdout and process.stderr == ""
    put(one, 2, of_result={"input": dict(images, manifest_sha256="2" * 64)})
    process = succeeds(SCRIPT, one)
    assert "the rows of the data set ./ImageNet/val are not all of the same images" in process.stderr
    assert "Data set: ./ImageNet/val\n" in process.stdout
    process = succeeds(SCRIPT, one, "--dataset", "mine", "--batch-sizes", "1 4")
    assert "Data set: mine\n" in process.stdout and process.stderr == ""
    for size in (1, 2):
        put(one, size, of_result={"input": dict(images, set_sha256="4" * 64)})
    assert succeeds(SCRIPT, one, "--batch-sizes", "1 2").stderr == ""
    put(one, 2, of_result={"input": dict(images, set_sha256="5" * 64)})
    assert "not all of the same images" in succeeds(SCRIPT, one, "--batch-sizes", "1 2").stderr


def test_two_results_of_one_row_are_refused(one):
    write(one / "result_copy.json", result(summary()))
    assert "same precision and batch size" in fails(1, SCRIPT, one)


@pytest.mark.parametrize("value", ["NaN", "-5", "Infinity", "1e999", "0", "null", "true", '"31"', "[31]"])
def test_a_throughput_that_is_none_is_refused(value, one):
    path = one / "perf_bs1_summary.json"
    path.write_text(re.sub(r'"throughput": [\d.]+', '"throughput": ' + value, path.read_text()))
    assert str(path) in fails(1, SCRIPT, one)
    path = write(one / "perf_bs1_summary.json", plain(1, 30.0))
    path.write_text(re.sub(r'"throughput": [\d.]+', '"throughput": ' + value, path.read_text()))
    assert str(path) in fails(1, SCRIPT, one)


def test_figures_that_contradict_each_other_are_refused(one):
    for path, content, said in (
            ("perf_bs1_summary.json", dict(summary(), throughput=60.0), "contradict each other"),
            ("perf_bs1_summary.json", dict(summary(), performance=dict(summary()["performance"], interval95=[1, 2])), "interval"),
            ("result_bs1.json", result(summary(pure=False), interval95={"top1": [0, 1], "top5": [90, 99]}), "interval"),
            ("result_bs1.json", result(summary(pure=False), gates=[
                {"name": "Top-1", "measured": 9.8, "limit": 70, "passes": True}]), "contradicts its own figures"),
            ("result_bs1.json", result(summary(pure=False), images={"judged": 65, "labelled": 64}), "more images judged"),
            ("result_bs1.json", result(summary(pure=False), paired=dict(paired(), top1=dict(paired()["top1"], lost=0))), "lost"),
            ("fidelity_bs1.json", dict(fidelity(), agrees=False), "contradicts its own figures")):
        before = (one / path).read_text() if (one / path).exists() else None
        write(one / path, content)
        sentence = fails(1, SCRIPT, one)
        assert said in sentence and path in sentence
        (one / path).unlink()
        if before:
            (one / path).write_text(before)


def mutations(content, at=()):
    """Every JSON that differs from content in one key: replaced by what is no value of it, or removed."""
    inner = content
    for step in at:
        inner = inner[step]
    steps = list(inner) if isinstance(inner, dict) else range(min(len(inner), 1)) if isinstance(inner, list) else []
    for step in steps:
        for value in (None, [], {}, "\ud800<b>", -1, float("nan"), 10 ** 400, "removed"):
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


def test_no_broken_json_gives_a_traceback(one, capfd):
    """Each key of each JSON, replaced and removed (some 3000, so in this process): each is a sentence or a whole table."""
    module = runpy.run_path(str(REPOSITORY / SCRIPT))
    folder = put(one, 1, "int8", of_result={"top1": 65.625, "paired": paired(), "calibration_shared": False})
    write(folder / "fidelity_bs1.json", fidelity())
    refused = written = 0
    for name in ("result_int8_bs1.json", "result_int8_bs1_summary.json", "perf_bs1_summary.json", "fidelity_bs1.json"):
        path, content = folder / name, json.loads((folder / name).read_text())
        before = path.read_text()
        content["most_different" if name.startswith("fid") else "gates"] = content.get("most_different") or [
            {"name": "Top-1", "measured": 80.0, "limit": 70.0, "passes": True}]
        for where, changed in mutations(content):
            path.write_text(json.dumps(changed))
            try:
                found = module["gather"](str(folder))
                tables = module["present"](found, found["rows"], dict(found, path="reference"), 10.0, None)["tables"].values()
                for table in filter(None, tables):
                    (module["aligned"](table) + module["markdown"](table)).encode()
                written += 1
            except SystemExit as error:
                assert error.code == 1, where
                refused += 1
            finally:
                del module["FLAWS"][:]
        for cut in (0, 1, len(before) // 2, len(before) - 1):
            path.write_text(before[:cut])
            with pytest.raises(SystemExit):
                module["gather"](str(folder))
        for text in ("[]", "null", "3", "[" * 100000, '{"title": "Overall statistical evaluation"}', "\xff", "{}"):
            path.write_text(text, encoding="latin-1")
            with pytest.raises(SystemExit):
                module["gather"](str(folder))
        path.write_text(before)
        capfd.readouterr()
    assert refused > 500 and written > 100


def test_broken_files_are_named_by_the_script_itself(folder):
    for name in ("result_bs1.json", "perf_bs1_summary.json", "fidelity_bs1.json"):
        before = (folder / name).read_text()
        for text in (before[:len(before) // 2], "[]", "[" * 100000):
            (folder / name).write_text(text)
            assert name in fails(1, SCRIPT, folder)
        (folder / name).unlink()
        os.mkfifo(str(folder / name))  # would hang for ever
        assert "no regular file" in fails(1, SCRIPT, folder)
        (folder / name).unlink()
        (folder / name).write_text(before)


def test_a_lone_report_json_that_is_broken_is_a_sentence(finished, tmp_path, capfd):
    module, reference = runpy.run_path(str(REPOSITORY / SCRIPT)), tmp_path / "reference.json"
    report = report_of(finished[0])
    for row in report["rows"]:
        del row["mistakes"][1:]
    for _, changed in mutations({"schema": report["schema"], "date": report["date"], "rows": report["rows"][:1]}):
        reference.write_text(json.dumps(changed))
        try:
            module["reference_table"](report["rows"], module["read_reference"](str(reference)))
        except SystemExit as error:
            assert error.code == 1


def test_html_links_and_control_characters_do_not_pass(one):
    evil = "<script>x</script> [a](javascript:alert(1)) | `b` ![c](http://d) <javascript:e> \\ *f*\n# g \x1b[31m www.h.i ]("
    told = result(summary(pure=False), summary_sha256=None)
    told["per_class_worst"][0]["name"] = told["mistakes"][0]["label_name"] = told["mistakes"][0]["image"] = evil
    (one / "result_bs1_summary.json").unlink()
    write(one / "result_bs1.json", told)
    process = succeeds(SCRIPT, one, "--dataset", evil, "--failed", "fp32:4=" + evil)
    text, page = (one / "report.md").read_text(), (one / "report.html").read_text()
    assert "<" not in text and "\x1b" not in text + page + process.stdout
    assert "://" not in text and not re.search(r"(?<!\\)\]\(", text)
    assert "<script" not in page and "href" not in page and "javascript:" in page
    assert all(len(re.split(r"(?<!\\)\|", line)) == 6 for line in text.splitlines() if line.startswith("| 5 ("))
    assert not re.search(r"(?<!\\)`", re.sub(r"```", "", text))


def test_the_commands_fence_cannot_be_closed_by_a_command(finished):
    assert "````bash\nbash run_infer.sh --demo\npython3 `x` ```\n````\n" in (finished[0] / "report.md").read_text()


# ---- verdicts ----

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


def test_a_reference_of_another_model_or_other_images_is_warned_of(one, tmp_path):
    put(tmp_path / "other", of_summary={"model": dict(summary()["model"], weights_sha256="c" * 64)},
        of_result={"images": {"judged": 32, "labelled": 64, "excluded": 0, "results": 32}})
    assert succeeds(SCRIPT, tmp_path / "other").stderr == ""
    for reference in (tmp_path / "other", write(tmp_path / "alone.json", report_of(tmp_path / "other"))):
        process = succeeds(SCRIPT, one, "--reference", reference)
        assert "are of different models (weights)" in process.stderr and "are of different numbers of images" in process.stderr
        assert "of different models" in (one / "report.md").read_text()
    assert succeeds(SCRIPT, one, "--reference", one / "report.json").stderr == ""


def test_a_gate_with_nothing_to_compare_does_not_hold(one, tmp_path):
    reference = put(tmp_path / "reference", 16)
    assert "no throughput at any of these batch sizes" in fails(1, SCRIPT, one, "--reference", reference, "--max-slowdown", "5")
    (one / "perf_bs1_summary.json").unlink()
    shutil.copytree(str(put(tmp_path / "r2")), str(tmp_path / "r3"))
    process = script(SCRIPT, one, "--reference", tmp_path / "r3", "--max-slowdown", "5")
    assert process.returncode == 3 and "FAIL: images/s of fp32 at batch size 1: there is none" in process.stdout
    write(tmp_path / "old.json", {"schema": 2, "rows": []})
    assert "no report.json of schema 3" in fails(1, SCRIPT, one, "--reference", tmp_path / "old.json")


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


# ---- the page and the chart ----

@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """The report of a folder with everything in it, the pictures of its mistakes behind the manifest of the judged files.

    One of the pictures is an EPS, one a FIFO. Only to be read or copied.
    """
    one = put(tmp_path_factory.mktemp("pictured") / "one")
    prepared = one / "prep_dataset"
    prepared.mkdir()
    lines = []
    for number in range(12):
        path = one / ("image%d.JPEG" % number)
        Image.fromarray(np.full((90, 120, 3), 20 * number, np.uint8)).save(str(path), "EPS" if number == 1 else "JPEG")
        lines.append(json.dumps(["image%d" % number, str(path), 1, 1, 1, 1]))
    (one / "image2.JPEG").unlink()
    os.mkfifo(str(one / "image2.JPEG"))
    (prepared / ".manifest").write_text("\n".join(lines) + "\n")
    sha256 = hashlib.sha256((prepared / ".manifest").read_bytes()).hexdigest()
    told = {"path": "somewhere/prep_dataset", "images": 12, "manifest_sha256": sha256}
    put(one, of_summary={"input": told})
    write(one / "perf_bs1_summary.json", summary())
    put(one, 1, "int8", of_result={"paired": paired()})
    write(one / "fidelity_bs1.json", fidelity())
    succeeds(SCRIPT, one, "--reference", one, "--max-slowdown", "10")
    return one


def pictures_in(folder):
    return (folder / "report.html").read_text().count('src="data:image/jpeg;base64,')


def test_the_gallery_takes_its_pictures_from_the_manifest_that_was_judged(pictured, tmp_path):
    assert pictures_in(pictured) == 10 and "no picture of it at hand" in (pictured / "report.html").read_text()
    one = tmp_path / "one"
    shutil.copytree(str(pictured), str(one), ignore=shutil.ignore_patterns("image*"))
    manifest = one / "prep_dataset" / ".manifest"
    manifest.write_text(manifest.read_text() + "\n")  # another one by now: these pictures may be others
    succeeds(SCRIPT, one)
    assert pictures_in(one) == 0


def test_the_gallery_takes_its_pictures_from_a_folder_and_its_class_names_from_a_file(one, finished, tmp_path):
    page = (finished[0] / "report.html").read_text()
    assert "5 (upright stripes, red)" in page and "7 (cock)" in page  # without a file they are the evaluation's
    images = tmp_path / "images"
    for name in ("image0.JPEG", "n01/image1.png", "bike/image2.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(str(images / name))
    write(one / "names", "".join("<b>%d\n" % number for number in range(1000)))
    succeeds(SCRIPT, one, "--images", images, "--classes", one / "names")
    assert pictures_in(one) == 3 and "5 (&lt;b&gt;5)" in (one / "report.html").read_text()
    assert "gone" in fails(1, SCRIPT, one, "--images", tmp_path / "gone")
    write(one / "names", "one\n")
    assert "has 1 lines" in fails(1, SCRIPT, one, "--classes", one / "names")


def test_the_page_holds_everything_loads_nothing_and_folds_the_gallery(pictured):
    text = (pictured / "report.html").read_text()
    assert "<script" not in text and not re.search(r'(src|href)="(?!data:)', text) and "://" not in text
    assert text.count('src="data:image/png;base64,') == 1
    assert text.index("95 % intervals") < text.index("Environment") < text.index("<details>") < text.index("Wrongly") + 500


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_overflows_and_every_picture_shows(width, pictured, tmp_path):
    """In a real Chromium, where there is one: the page in a frame of the given width, measured by a script outside of it."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    inner = (pictured / "report.html").read_text().replace("<details>", "<details open>")
    wrapper = """<iframe id="page" style="border:0; width:%dpx; height:900px" srcdoc="%s"></iframe><script>
        page.onload = () => { const frame = page.contentDocument; const wide = [...frame.querySelectorAll("body *")].filter(
          element => element.getBoundingClientRect().right > %d + 1);
          document.title = [frame.documentElement.scrollWidth, wide.length, frame.images.length,
            [...frame.images].filter(image => image.naturalWidth).length].join(" "); }</script>"""
    write(tmp_path / "w.html", wrapper % (width, html.escape(inner), width))
    shown = subprocess.run([chromium, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--disable-quic",
                            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                            "--user-data-dir=%s" % (tmp_path / "profile"), "--virtual-time-budget=5000", "--dump-dom",
                            "file://%s" % (tmp_path / "w.html")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    title = re.search(r"<title>(.*?)</title>", shown.stdout.decode("utf-8", "replace"))
    assert title and title.group(1) == "%d 0 11 11" % width


def test_the_chart_is_a_picture_without_colour(finished):
    with Image.open(str(finished[0] / "report.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[0] > 500 and pixels.min() < 50
    assert np.abs(pixels - pixels.mean(axis=2, keepdims=True)).max() < 2


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_a_package_a_sentence_and_no_half_report(missing, one, tmp_path):
    (tmp_path / "site").mkdir()
    write(tmp_path / "site" / (missing + ".py"), "raise ImportError('No module named %s')\n" % missing)
    sentence = fails(1, SCRIPT, one, env=dict(os.environ, PYTHONPATH=str(tmp_path / "site")))
    assert missing in sentence and "pip install" in sentence and not list(one.glob("report.*"))


# ---- files and outputs ----

def test_files_of_somebodys_own_are_not_overwritten(one):
    write(one / "report.md", "mine")
    assert "move it away" in fails(1, SCRIPT, one)
    assert (one / "report.md").read_text() == "mine" and not (one / "report.json").exists()
    (one / "report.md").unlink()
    write(one / "report.json", {"mine": 1})
    assert "move it away" in fails(1, SCRIPT, one)


def test_a_planted_link_is_replaced_and_a_killed_runs_stray_removed(reported, tmp_path):
    one, victim = reported, write(tmp_path / "victim", "precious")
    (one / "report.md").unlink()
    (one / "report.md").symlink_to(victim)
    write(one / ".report.md.0123abcd.tmp", "stray")
    succeeds(SCRIPT, one)
    assert victim.read_text() == "precious" and not (one / "report.md").is_symlink()
    assert not list(one.glob(".report*"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_an_output_that_is_full_or_closed_is_a_sentence_and_the_report_stands(one):
    shell = " ".join("'%s'" % word for word in command(SCRIPT, one))
    for line, code in ((" > /dev/full", 1), (" >&-", 0), (" 2>&-", 0), (" <&- >&- 2>&-", 0)):
        process = subprocess.run(["bash", "-c", shell + line], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.returncode == code and b"Traceback" not in process.stderr and b"Exception" not in process.stderr
        assert (b"error: standard output: No space left" in process.stderr) == (code == 1)
        for name in ("report.json", "report.md", "report.png", "report.html"):
            assert (one / name).stat().st_size
            (one / name).unlink()


def test_a_full_disk_names_the_file_and_leaves_the_earlier_report(reported):
    one = reported
    before = {name: (one / name).read_bytes() for name in ("report.json", "report.md", "report.png", "report.html")}
    put(one, speed=31.0)
    line = "ulimit -f 8; trap '' XFSZ; exec " + " ".join("'%s'" % word for word in command(SCRIPT, one))
    process = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8")
    assert process.returncode == 1 and re.search(r"error: .*report\.\w+: File too large", process.stderr)
    assert {name: (one / name).read_bytes() for name in before} == before and not list(one.glob(".report*"))


def test_a_signal_leaves_the_earlier_report(reported):
    one = reported
    before = (one / "report.md").read_bytes()
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        site = one / "site"
        (site / "matplotlib").mkdir(parents=True, exist_ok=True)
        write(site / "matplotlib" / "__init__.py",
              # Not one long sleep: a signal just before it would be seen only at its end.
              "import time\nopen(%r, 'w').close()\nfor _ in range(6000):\n    time.sleep(0.01)\n" % str(one / "reached"))
        process = subprocess.Popen(command(SCRIPT, one), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   env=dict(os.environ, PYTHONPATH=str(site)))
        wait_until(lambda: (one / "reached").exists(), process)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code and b"stopped" in said and b"Traceback" not in said
        (one / "reached").unlink()
    assert (one / "report.md").read_bytes() == before and not list(one.glob(".report*"))


def test_wrong_usage_exits_with_2(one):
    for arguments in ([], [one, "--max-slowdown", "10"], [one, "--reference", one, "--max-slowdown", "100"],
                      [one, "--reference", one, "--max-slowdown", "nan"], [one, "--batch-sizes", "0"],
                      [one, "--failed", "x"], [one, "--precisions", "fp8"]):
        process = script(SCRIPT, *arguments)
        assert process.returncode == 2 and "Traceback" not in process.stderr


def test_the_page_is_made_by_the_template_beside_the_script(one, tmp_path):
    shutil.copy(str(REPOSITORY / SCRIPT), str(tmp_path))
    process = subprocess.run([sys.executable, str(tmp_path / SCRIPT), str(one)], capture_output=True)
    assert process.returncode == 1 and b"report.html.jinja: No such file" in process.stderr


def test_class_names_are_those_of_the_row_that_is_shown_whatever_others_call_that_number(one):
    worst = [{"class": 5, "name": "fish", "images": 6, "top1": 50.0, "top5": 90.0}]
    put(one, 8, of_result={"classes": 10, "per_class_worst": worst, "mistakes": []})
    succeeds(SCRIPT, one)
    assert [row["Class"] for row in table_of(one, "Worst classes, fp32 at batch size 1")] == ["5 (upright stripes, red)"]


def test_rows_that_the_reference_lacks_and_another_device_there_are_said(one, tmp_path):
    succeeds(SCRIPT, one)
    reference = report_of(one)
    reference["rows"][0]["device"] = "Huge CPU, 64 threads"
    write(tmp_path / "lone.json", reference)
    said = succeeds(SCRIPT, put(one, 8), "--reference", tmp_path / "lone.json", "--max-slowdown", "10").stderr
    assert "has no row for fp32 at batch size 8, which is not compared" in said and "of different devices" in said
