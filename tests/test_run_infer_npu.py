"""run_infer.sh on an NPU, over the stand-ins: which engine it takes and why, several devices, AIPP, INT8, and what fails."""
import json
import os
import shutil
import stat
import sys

import pytest
from conftest import SMALL_RECIPE, back_to, fails, head_of, make_light, script, succeeds
from test_npu_info import TWO_310P3, dressed

LINE = ["--loop", "2", "--limit", "6", "--batch-sizes", "2"] + SMALL_RECIPE


def data_options(tiny, output, *more):
    return ["--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels", tiny / "val_label.txt", "--output",
            output] + LINE + list(more)


def rows_of(folder):
    return json.loads((folder / "report.json").read_text())["rows"]


def engine_line(said):
    return [line for line in said.splitlines() if line.startswith("engine: ")][0]


@pytest.fixture(scope="module")
def kept(light, tiny, tmp_path_factory):
    """Snapshots of one output folder: with all compiled and preprocessed, and of a finished run on one NPU.

    The folder o is put back at its path by back_to. Also the row that ONNX Runtime gives, and what both runs said.
    """
    place = tmp_path_factory.mktemp("npu")
    place.chmod(0o755)
    shutil.copytree(str(light), str(place / "o"))
    succeeds("run_infer.sh", *data_options(tiny, place / "o", "--engine", "onnxruntime"))
    expected = rows_of(place / "o")[0]
    options, env = data_options(tiny, place / "o", "--fidelity", "3"), dressed(place)
    compiling = succeeds("run_infer.sh", *(options + ["--stages", "export,compile,preprocess"]), env=env)
    shutil.copytree(str(place / "o"), str(place / "compiled"))
    process = succeeds("run_infer.sh", *options, env=env)
    shutil.copytree(str(place / "o"), str(place / "finished"))
    return place, expected, compiling.stdout + process.stdout


@pytest.fixture
def compiled(kept, tiny):
    """(An output folder in which all is compiled and preprocessed, the options of its line.)"""
    folder = back_to(kept[0], "compiled")
    return folder, data_options(tiny, folder)


@pytest.fixture
def finished(kept):
    return kept[0] / "finished"


def test_where_atc_and_ais_bench_are_there_they_are_taken_and_give_onnx_runtimes_accuracy(kept, finished):
    _, expected, said = kept
    assert engine_line(said) == "engine: ais_bench (ais_bench is there and atc can compile for Ascend310P3)"
    row = rows_of(finished)[0]
    assert [row[key] for key in ("top1", "top5", "judged")] == [expected[key] for key in ("top1", "top5", "judged")]
    assert row["engine"] == "ais_bench 0.0.2" and row["device"].startswith("Ascend310P3") and row["precision"] == "fp16"
    assert row["fidelity"]["agrees"] and row["fidelity"]["compared"] == 3
    assert "python3 -m ais_bench --model" in said and "--input_shape=\"image:2,3,64,64\"" in said


def test_everything_has_the_modes_that_newer_ais_bench_insists_on(finished):
    for path in [finished] + [path for path in finished.rglob("*")]:
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path


@pytest.mark.parametrize("generation", ["0.0.2", "2026"])  # each on one device and two: test_npu.py
def test_two_devices_give_the_same_accuracy_in_the_oldest_generation_and_the_newest(generation, kept, compiled, tmp_path):
    (folder, options), expected = compiled, kept[1]
    succeeds("run_infer.sh", *(options + ["--device", "0,1"]), env=dressed(tmp_path, STANDIN_GENERATION=generation))
    row = rows_of(folder)[0]
    assert [row[key] for key in ("top1", "top5", "judged")] == [expected[key] for key in ("top1", "top5", "judged")]
    assert row["device"].startswith("2 x ")


def test_uint8_with_aipp_and_int8_with_amct_run_the_whole_line_on_the_npu(compiled, tmp_path):
    (folder, options), env = compiled, dressed(tmp_path)
    options += ["--engine", "ais_bench", "--limit", "24", "--fidelity", "4", "--dtype", "uint8"]
    succeeds("run_infer.sh", *(options + ["--stages", "export"]), env=env)
    make_light(folder / "resnet34_uint8.onnx", head_of(folder / "resnet34.onnx"))
    succeeds("run_infer.sh", *(options + ["--int8", "--calibration-images", "16"]), env=env)
    rows = rows_of(folder)
    assert [row["precision"] for row in rows] == ["fp16", "int8"] and rows[0]["fidelity"]["agrees"]
    assert (folder / "resnet34_bs2.aipp.cfg").exists() and rows[1]["paired"]["top1"]["lost"] is not None


def test_a_batch_size_that_fails_shows_dashes_and_the_others_still_run(kept, compiled, tmp_path):
    (folder, options), top1 = compiled, kept[1]["top1"]
    failing = {3: ("infer", "its inference failed"), 4: ("missing", "its inference failed"), 5: ("atc", "atc failed"),
               6: ("perf", "its pure inference failed")}
    env = dressed(tmp_path, STANDIN_FAIL=" ".join("%s:%d" % (what, size) for size, (what, _) in failing.items()))
    process = script("run_infer.sh", *(options + ["--batch-sizes", "6 5 4 3 2"]), env=env)
    assert process.returncode == 1
    rows = {row["batch_size"]: row for row in rows_of(folder)}
    for size, (what, said) in failing.items():
        assert "error: fp16, batch size %d: %s" % (size, said) in process.stderr
        assert rows[size]["images_per_second"] is None and rows[size]["top1"] == (top1 if what == "perf" else None)
    assert rows[2]["top1"] == top1 and rows[2]["images_per_second"]


def test_another_cann_compiles_and_infers_again(kept, tiny, tmp_path):
    folder, toolkit = back_to(kept[0], "finished"), tmp_path / "toolkit"
    toolkit.mkdir()
    (toolkit / "ascend_toolkit_install.info").write_text("version=9.0.0\n")
    env = dict(dressed(tmp_path), ASCEND_TOOLKIT_HOME=str(toolkit))
    said = succeeds("run_infer.sh", *data_options(tiny, folder, "--fidelity", "3"), env=env).stdout
    assert "ATC run success" in said


def test_fidelity_accuses_the_om_of_another_checkpoint(light, compiled, tiny, tmp_path):
    """It infers, is judged, and has a plausible speed; only the comparison shows it."""
    tmp_path.chmod(0o755)
    (folder, options), other, env = compiled, tmp_path / "other", dressed(tmp_path)
    shutil.copytree(str(light), str(other))
    weights, biases = head_of(folder / "resnet34.onnx")
    make_light(other / "resnet34.onnx", (1.1 * weights, biases))
    succeeds("run_infer.sh", *(data_options(tiny, other, "--stages", "export,compile")), env=env)
    process = script("run_infer.sh", *(options + ["--fidelity", "3", "--om", other]), env=env)
    assert process.returncode == 3, process.stdout + process.stderr
    assert not rows_of(folder)[0]["fidelity"]["agrees"] and rows_of(folder)[0]["top1"] is not None


@pytest.mark.parametrize("record", [True, False])
def test_om_files_from_elsewhere_are_taken_as_they_are_with_and_without_their_records(record, kept, compiled, tiny, tmp_path):
    (folder, _), elsewhere, env = compiled, tmp_path / "om", dressed(tmp_path)
    tmp_path.chmod(0o755)
    elsewhere.mkdir(mode=0o750)
    for name in ["resnet34_bs2.om"] + ["resnet34_bs2.om.json"] * record:
        shutil.copy(str(folder / name), str(elsewhere / name))
    line = data_options(tiny, tmp_path / "o", "--om", elsewhere, "--pth", tmp_path / "no.pth", "--engine", "ais_bench")
    process = succeeds("run_infer.sh", *line, env=env)
    assert "the .om files are those of" in engine_line(process.stdout) and "resnet34_pth2onnx.py" not in process.stdout
    assert rows_of(tmp_path / "o")[0]["top1"] == kept[1]["top1"]


def test_what_a_device_lacks_is_said_before_any_work(tiny, tmp_path):
    line = data_options(tiny, tmp_path / "o", "--engine", "ais_bench")
    sentence = fails(1, "run_infer.sh", *(line + ["--device", "0,7"]), env=dressed(tmp_path))
    assert "device 7" in sentence and not (tmp_path / "o" / "resnet34.onnx").exists()
    ill = TWO_310P3.replace("| 1       310P3     | OK ", "| 1       310P3     | Alarm ")
    assert "device 1" in fails(1, "run_infer.sh", *(line + ["--device", "0,1"]), env=dressed(tmp_path, ill))


def test_when_atc_fails_for_every_batch_size_it_stops_before_the_images(light, tiny, tmp_path):
    shutil.copytree(str(light), str(tmp_path / "o"))
    line = data_options(tiny, tmp_path / "o", "--engine", "ais_bench")
    sentence = fails(1, "run_infer.sh", *line, env=dressed(tmp_path, STANDIN_FAIL="atc:2"))
    assert "every batch size" in sentence and not (tmp_path / "o" / "prep_dataset").exists()


def test_int8_without_amct_says_so_and_the_float_rows_run(compiled, tmp_path):
    folder, options = compiled
    process = script("run_infer.sh", *(options + ["--int8"]), env=without_amct(tmp_path))
    assert process.returncode == 1 and "amct_onnx is not found" in process.stderr
    rows = {row["precision"]: row for row in rows_of(folder)}
    assert rows["fp16"]["top1"] is not None and "amct_onnx is not found" in rows["int8"]["failed"]


def without_amct(tmp_path):
    """The environment without the stand-in amct_onnx."""
    env, bare = dressed(tmp_path), tmp_path / "bare"
    bare.mkdir()
    directory, *rest = env["PATH"].split(os.pathsep)
    for name in set(os.listdir(directory)) - {"amct_onnx"}:
        (bare / name).symlink_to(os.path.join(directory, name))
    return dict(env, PATH=os.pathsep.join([str(bare)] + rest))


@pytest.mark.parametrize("failing, said, code", [("amct", "amct_onnx ended with exit code 1", 1), ("amct:broken", "is poor", 3)])
def test_an_int8_model_that_amct_does_not_make_well_gives_up_its_rows_alone(failing, said, code, kept, compiled, tmp_path):
    (folder, options), env = compiled, dressed(tmp_path, STANDIN_FAIL=failing)
    process = script("run_infer.sh", *(options + ["--int8", "--calibration-images", "4"]), env=env)
    assert process.returncode == code and said in process.stderr, process.stdout + process.stderr
    first, given_up = rows_of(folder)
    assert (first["top1"], given_up["precision"], given_up["top1"]) == (kept[1]["top1"], "int8", None)
    assert script("run_infer.sh", *(options + ["--method", "Entropy", "--int8"]), env=dressed(tmp_path)).returncode == 2


def test_int8_om_files_that_were_carried_here_need_no_amct_but_the_list_of_their_calibration(compiled, tiny, tmp_path):
    (folder, options), elsewhere, env = compiled, tmp_path / "om", without_amct(tmp_path)
    tmp_path.chmod(0o755)
    options += ["--int8", "--calibration-images", "4", "--stages", "export,compile"]
    succeeds("run_infer.sh", *options, env=dressed(tmp_path))
    elsewhere.mkdir(mode=0o750)
    for path in folder.glob("resnet34*_bs2.om*"):
        shutil.copy(str(path), str(elsewhere))
    line = data_options(tiny, tmp_path / "o", "--om", elsewhere, "--int8", "--engine", "ais_bench")
    sentence = fails(1, "run_infer.sh", *line, env=env)
    assert "om/resnet34_int8.onnx.calibration.txt: no such file; copy it along" in sentence
    assert not (tmp_path / "o" / "prep_dataset").exists()
    shutil.copy(str(folder / "resnet34_int8.onnx.calibration.txt"), str(elsewhere))
    succeeds("run_infer.sh", *line, env=env)
    rows = rows_of(tmp_path / "o")
    assert [(row["precision"], row["judged"]) for row in rows] == [("fp16", 6), ("int8", 3)]


def test_without_an_npu_a_plain_sentence_says_why_and_an_explicit_engine_never_falls_back(tiny, tmp_path):
    env = dict(os.environ, PYTHON=sys.executable, ASCEND_SET_ENV="/nonexistent")
    options = data_options(tiny, tmp_path / "o", "--stages", "preprocess")
    line = engine_line(succeeds("run_infer.sh", *options, env=env).stdout)
    assert line.startswith("engine: onnxruntime (") and "Error" not in line and "ais_bench" in line
    assert "ais_bench" in fails(1, "run_infer.sh", *(options + ["--engine", "ais_bench"]), env=env)
