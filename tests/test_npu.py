"""run_infer.sh on an NPU: ais_bench in all its spellings, on one device and several, and each way in which it can fail."""
import json
import os
import shutil
import stat
import sys

import numpy as np
import onnx
import pytest
from conftest import fails, script, succeeds
from onnx import numpy_helper
from test_atc import ONE_910B4, STANDINS, TWO_310P3, dressed, undressed

GENERATIONS = ["0.0.2", "2024", "2025", "2026"]


def npu(tmp_path, table=TWO_310P3, **more):
    return dict(dressed(tmp_path, table, **more), PYTHONPATH=str(STANDINS / "site"),
                ASCEND_TOOLKIT_HOME=str(STANDINS / "toolkit"))


def data_options(demo, output):
    tiny = demo[0] / "tiny-imagenet"
    return ["--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels", tiny / "val_label.txt", "--output", output,
            "--loop", "2", "--limit", "9"]


def rows_of(folder):
    return json.loads((folder / "report.json").read_text())["rows"]


@pytest.fixture(scope="module")
def place(demo, tmp_path_factory):
    """A folder in which .bin, ONNX and .om are finished: (folder, the options, the row that ONNX Runtime gave)."""
    tmp_path = tmp_path_factory.mktemp("npu")
    options = data_options(demo, tmp_path / "o") + ["--batch-sizes", "2", "--engine"]
    succeeds("run_infer.sh", *(options + ["onnxruntime"]))
    of_onnxruntime = rows_of(tmp_path / "o")[0]
    succeeds("run_infer.sh", *(options + ["ais_bench"]), env=npu(tmp_path))
    return tmp_path / "o", options + ["ais_bench"], of_onnxruntime


def infer_anew(folder):
    for stamp in folder.glob(".stages/*_bs*"):
        stamp.unlink()


def test_the_demo_on_ais_bench_ends_with_onnx_runtimes_accuracy(demo, tmp_path):
    before, here = str(demo[0]), str(tmp_path / "o")
    shutil.copytree(before + "/tiny-imagenet", here + "/tiny-imagenet")  # with its stamp, since to make it takes long
    (tmp_path / "o" / ".stages").mkdir()
    stamp = (demo[0] / ".stages" / "demo").read_text().replace('"%s/tiny-imagenet"' % before, here + "/tiny-imagenet")
    (tmp_path / "o" / ".stages" / "demo").write_text(stamp.replace(before, here))
    (tmp_path / "o").chmod(0o750)
    process = succeeds("run_infer.sh", "--demo", "--engine", "ais_bench", "--output", tmp_path / "o", "--batch-sizes", "8",
                       "--loop", "2", env=npu(tmp_path))
    assert "== demo: skipped" in process.stdout
    for of_npu, of_cpu in zip(rows_of(tmp_path / "o"), rows_of(demo[0])[2:]):
        assert [of_npu[key] for key in ("batch_size", "top1", "top5", "judged")] == \
            [of_cpu[key] for key in ("batch_size", "top1", "top5", "judged")]
        assert of_npu["engine"] == "ais_bench 0.0.2" and of_npu["device"].startswith("Ascend310P3 ")
    assert (tmp_path / "o" / "report.md").read_text().split("\n\n")[1] in process.stdout


@pytest.mark.parametrize("generation, device", [("2026", "0")] + [(one, "0,1") for one in GENERATIONS])
def test_every_generation_on_one_device_and_two_gives_the_same_accuracy(generation, device, place, tmp_path):
    folder, options, expected = place
    infer_anew(folder)
    process = succeeds("run_infer.sh", *(options + ["--device", device]), env=npu(tmp_path, STANDIN_GENERATION=generation))
    assert "== compile" in process.stdout and "resnet34_bs2.om: kept" in process.stdout
    row = rows_of(folder)[0]
    assert [row[key] for key in ("top1", "top5", "judged")] == [expected[key] for key in ("top1", "top5", "judged")]
    if device == "0":
        throughput = json.loads((folder / "perf_bs2_summary.json").read_text())["throughput"]
    else:
        summaries = list((folder / "perf_bs2").glob("device*_summary.json"))
        assert len(summaries) == 2 and "2 x Ascend310P3" in row["device"]
        throughput = sum(json.loads(path.read_text())["throughput"] for path in summaries)
    assert row["images_per_second"] == pytest.approx(throughput)


def test_the_commands_are_the_guides(place, tmp_path):
    folder, options, _ = place
    infer_anew(folder)
    process = succeeds("run_infer.sh", *options, env=npu(tmp_path))
    for command in ("-m ais_bench --model {0}/resnet34_bs2.om --input {0}/prep_dataset --output {0} "
                    "--output_dirname result_bs2 --outfmt TXT",
                    "-m ais_bench --model={0}/resnet34_bs2.om --loop=2 --batchsize=2"):
        assert command.format(folder) in process.stdout


def test_everything_has_the_modes_that_newer_ais_bench_insists_on(place):
    for path in [place[0]] + list(place[0].rglob("*")):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO), path


def test_the_report_names_chip_cann_driver_and_ais_bench(place, tmp_path):
    folder, options, _ = place
    infer_anew(folder)
    succeeds("run_infer.sh", *(options + ["--soc-version", "Ascend310P3"]), env=npu(tmp_path, ONE_910B4))
    run = json.loads((folder / "report.json").read_text())["run"]
    assert [run[key] for key in ("chip", "cann", "driver", "ais_bench")] == ["Ascend310P3", "6.0.RC1", "25.5.2", "0.0.2"]
    assert "Ascend310P3 (CANN 6.0.RC1, driver 25.5.2)" in (folder / "report.md").read_text()


def failing(place, tmp_path, fail, *options):
    folder, usual, _ = place
    infer_anew(folder)
    process = script("run_infer.sh", *(usual + list(options)), env=npu(tmp_path, STANDIN_FAIL=fail))
    assert process.returncode == 1, process.stdout + process.stderr
    return folder, process


@pytest.mark.parametrize("fail, options, said", [
    ("infer:4", [], "inference with ais_bench failed"), ("hang:4", [], "inference with ais_bench failed"),
    ("missing:4", [], "missing"), ("missing:4", ["--device", "0,1"], "the part of device 0 is missing"),
], ids=["exit 1", "killed half-way", "exit 0 with results missing", "exit 0 with results of two devices missing"])
def test_a_batch_size_that_fails_shows_dashes_and_the_others_still_run(fail, options, said, place, tmp_path):
    folder, process = failing(place, tmp_path, fail, "--batch-sizes", "4 2", *options)
    assert said in process.stderr and "batch size 4" in process.stderr.splitlines()[-1]
    bad, good = rows_of(folder)
    assert bad["top1"] is None and bad["images_per_second"] is None and good["top1"] == place[2]["top1"]
    line = (folder / "report.md").read_text().splitlines()[4]
    assert "| 4 |" in line and "| - | - | - | - | - | - |" in line
    assert not (folder / "result_bs4.json").exists()


def test_after_the_cause_is_gone_the_same_line_completes_the_report(place, tmp_path):
    folder, options, expected = place
    failing(place, tmp_path, "missing:4", "--batch-sizes", "4 2")
    process = succeeds("run_infer.sh", *(options + ["--batch-sizes", "4 2"]), env=npu(tmp_path))
    assert "== infer_bs2: skipped" in process.stdout
    assert [row["top1"] for row in rows_of(folder)] == [expected["top1"]] * 2


def test_failing_pure_inference_keeps_the_whole_accuracy(place, tmp_path):
    folder, process = failing(place, tmp_path, "perf:2")
    row = rows_of(folder)[0]
    assert row["top1"] == place[2]["top1"] and row["images_per_second"] is None
    assert "%s%% | - | - | - | - |" % row["top5"] in (folder / "report.md").read_text().splitlines()[4]


@pytest.mark.parametrize("fail, generation", [("device0:1", "0.0.2"), ("device0:1", "2025"), ("device:1", "2025")],
                         ids=["exit 0, old", "exit 0, new", "exit 1"])
def test_a_device_whose_part_is_missing_is_an_error(fail, generation, place, tmp_path):
    folder, options, _ = place
    infer_anew(folder)
    process = script("run_infer.sh", *(options + ["--device", "0,1"]),
                     env=npu(tmp_path, STANDIN_FAIL=fail, STANDIN_GENERATION=generation))
    assert process.returncode == 1
    if fail == "device0:1":
        assert "the part of device 1 is missing" in process.stderr
    assert rows_of(folder)[0]["top1"] is None


def test_a_batch_size_that_atc_cannot_compile_shows_dashes(place, tmp_path):
    folder, process = failing(place, tmp_path, "atc:1", "--batch-sizes", "1 2")
    assert "E40001" in process.stderr and "atc failed" in process.stderr
    assert [row["top1"] for row in rows_of(folder)] == [None, place[2]["top1"]]
    assert not (folder / "resnet34_bs1.om").exists()


def engine_line(process):
    return [line for line in process.stdout.splitlines() if line.startswith("engine: ")][0]


def test_auto_takes_ais_bench_where_atc_can_compile(place, tmp_path):
    folder, options, _ = place
    process = succeeds("run_infer.sh", *(options[:-1] + ["auto"]), env=npu(tmp_path))
    assert engine_line(process) == "engine: ais_bench (ais_bench imports and atc can compile for Ascend310P3)"


def test_an_om_that_is_there_needs_neither_atc_nor_weights_and_0_0_2_takes_paths_with_spaces(place, demo, tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir(mode=0o750)
    shutil.copy2(str(place[0] / "resnet34_bs2.om"), str(folder))
    environment = dict(undressed(tmp_path), PYTHONPATH=str(STANDINS / "site"))
    options = data_options(demo, folder)[2:] + ["--batch-sizes", "2"]
    process = succeeds("run_infer.sh", *options, env=environment)
    assert "every .om is in" in engine_line(process) and "== export" not in process.stdout
    assert rows_of(folder)[0]["top1"] == place[2]["top1"]


def test_fidelity_tells_a_stale_om_from_a_right_one(place, demo, tmp_path):
    """An .om of another checkpoint infers, is judged, and has a plausible speed; only the comparison shows it."""
    folder, options, _ = place
    infer_anew(folder)
    options = options + ["--fidelity", "3"]
    succeeds("run_infer.sh", *options, env=npu(tmp_path))
    fidelity = rows_of(folder)[0]["fidelity"]
    assert fidelity["agrees"] and fidelity["compared"] == 3 and "onnxruntime" in fidelity["engine"]
    stale = tmp_path / "o"
    stale.mkdir(mode=0o750)
    shutil.copy2(str(folder / "resnet34_bs2.om"), str(stale))
    model = onnx.load(str(folder / "resnet34.onnx"))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    onnx.save(model, str(stale / "resnet34.onnx"))
    options = data_options(demo, stale)[2:] + ["--batch-sizes", "2", "--fidelity", "3"]
    process = script("run_infer.sh", *options, env=dict(undressed(tmp_path), PYTHONPATH=str(STANDINS / "site")))
    assert process.returncode == 1 and "are not those of the reference" in process.stderr.splitlines()[-1], process.stderr
    row = rows_of(stale)[0]
    assert not row["fidelity"]["agrees"] and row["top1"] is not None and row["images_per_second"] is not None
    assert "DOES NOT AGREE" in (stale / "report.md").read_text()


def test_fidelity_without_the_onnx_model_is_refused_first(place, demo, tmp_path):
    folder = tmp_path / "o"
    folder.mkdir(mode=0o750)
    shutil.copy2(str(place[0] / "resnet34_bs2.om"), str(folder))
    options = data_options(demo, folder)[2:] + ["--batch-sizes", "2", "--fidelity", "3"]
    sentence = fails(1, "run_infer.sh", *options, env=dict(undressed(tmp_path), PYTHONPATH=str(STANDINS / "site")))
    assert "no %s" % (folder / "resnet34.onnx") in sentence and not (folder / "prep_dataset").exists()


def without(tmp_path, *missing):
    """A dressed machine on which some of aclruntime, ais_bench, atc and npu-smi are missing."""
    environment = npu(tmp_path)
    for kind, source in (("bin", STANDINS / "bin"), ("site", STANDINS / "site")):
        shutil.copytree(str(source), str(tmp_path / kind))
    for path in (tmp_path / "bin" / "atc", tmp_path / "bin" / "npu-smi", tmp_path / "site" / "aclruntime.py"):
        if path.stem in missing:
            path.unlink()
    environment["PATH"] = environment["PATH"].replace(str(STANDINS / "bin"), str(tmp_path / "bin"))
    return dict(environment, PYTHONPATH=str(tmp_path / "site"))


@pytest.mark.parametrize("missing, said", [("aclruntime", "aclruntime"), ("atc", "no atc and no"),
                                           ("npu-smi", "npu-smi: not found")])
def test_auto_says_why_it_takes_onnx_runtime_and_an_explicit_engine_never_falls_back(missing, said, place, tmp_path):
    environment = without(tmp_path, missing)
    options = place[1][:-2] + ["--batch-sizes", "3"]  # a batch size of which there is no .om
    line = engine_line(succeeds("run_infer.sh", *options, env=environment))
    assert line.startswith("engine: onnxruntime (") and said in line
    sentence = fails(1, "run_infer.sh", *(options + ["--engine", "ais_bench"]), env=environment)
    assert "--engine ais_bench" in sentence and said in sentence


def test_cann_is_sourced_where_ais_bench_does_not_import_yet(place, tmp_path):
    folder, options, _ = place
    (tmp_path / "table.txt").write_text(TWO_310P3)
    environment = undressed(tmp_path, ASCEND_SET_ENV=str(STANDINS / "set_env.sh"), STANDIN_NPU_SMI=str(tmp_path / "table.txt"))
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment["PATH"]
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        environment.pop(name, None)
    assert "engine: ais_bench" in succeeds("run_infer.sh", *options, env=environment).stdout


def test_devices_of_different_chips_are_refused(place, tmp_path):
    mixed = TWO_310P3.replace("| 1       310P3", "| 1       910B4")
    sentence = fails(1, "run_infer.sh", *(place[1] + ["--device", "0,1"]), env=npu(tmp_path, mixed))
    assert "different chips" in sentence


def test_paths_that_newer_ais_bench_refuses_are_refused_first_with_the_reason(demo, tmp_path):
    spaced = tmp_path / "a b"
    sentence = fails(1, "run_infer.sh", *(data_options(demo, spaced) + ["--engine", "ais_bench"]),
                     env=npu(tmp_path, STANDIN_GENERATION="2025"))
    assert "a b" in sentence and "A-Z a-z 0-9" in sentence and not spaced.exists()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    sentence = fails(1, "run_infer.sh", *(data_options(demo, shared) + ["--engine", "ais_bench"]),
                     env=npu(tmp_path, STANDIN_GENERATION="2025"))
    assert "chmod 750" in sentence and os.listdir(str(shared)) == []
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    sentence = fails(1, "run_infer.sh", *(data_options(demo, link) + ["--engine", "ais_bench"]),
                     env=npu(tmp_path, STANDIN_GENERATION="2025"))
    assert "is a link" in sentence


def test_inputs_that_others_may_write_are_refused_with_the_remedy(place, tmp_path):
    folder, options, _ = place
    one = folder / "prep_dataset" / "ILSVRC2012_val_00000001.bin"
    one.chmod(0o664)
    try:
        sentence = fails(1, "run_infer.sh", *options, env=npu(tmp_path, STANDIN_GENERATION="2024"))
        assert "ILSVRC2012_val_00000001.bin" in sentence and "chmod -R go-w" in sentence
    finally:
        one.chmod(0o640)


@pytest.mark.parametrize("arguments", [["--device", "x"], ["--device", "0,0"], ["--device", "0,"], ["--soc-version", "a b"]])
def test_wrong_usage_exits_with_2(arguments, tmp_path):
    fails(2, "run_infer.sh", *arguments, cwd=str(tmp_path))
