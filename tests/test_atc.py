"""run_atc.sh: the guide's atc command for each batch size, the record beside each .om, AIPP, and what it says when atc fails."""
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import (FLOAT_RECIPE, IMAGENET_MEAN, IMAGENET_STD, REPOSITORY, command, fails, script, small_onnx, some_python,
                      succeeds, wait_until)
from test_npu_info import MIXED, STANDINS, cann, dressed, python3

SCRIPT = "run_atc.sh"
AIPP = """\
aipp_op {
    aipp_mode: static
    input_format: RGB888_U8
    src_image_size_w: 224
    src_image_size_h: 224
    min_chn_0: 123.675
    min_chn_1: 116.28
    min_chn_2: 103.53
    var_reci_chn_0: 0.0171247538316637
    var_reci_chn_1: 0.0175070028011204
    var_reci_chn_2: 0.0174291938997821
}
"""


def undressed(tmp_path, **more):
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    return dict(os.environ, PATH=path, PYTHON=some_python(), HOME=str(tmp_path), **more)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    small_onnx(tmp_path / "work" / "resnet34.onnx")
    return tmp_path / "work"


def test_without_options_it_is_the_guides_step_for_every_batch_size(folder, tmp_path):
    process = succeeds(SCRIPT, cwd=str(folder), env=dressed(tmp_path))
    for size in (1, 4, 8, 16, 32, 64):
        assert ("atc --framework=5 --model=./resnet34.onnx --output=resnet34_bs%d --input_format=NCHW "
                "--input_shape=\"image:%d,3,224,224\" --log=error --soc_version=Ascend310P3" % (size, size)) in \
            process.stdout.splitlines()
        om = folder / ("resnet34_bs%d.om" % size)
        model = onnx.load_model_from_string(om.read_bytes()[4:])
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == size
        assert om.stat().st_mode & 0o777 == 0o600
    assert process.stdout.count("ATC run success") == 6


def test_the_chip_is_npu_smis_and_a_machine_of_several_asks_which(folder, tmp_path):
    environment = dressed(tmp_path, MIXED)
    sentence = fails(1, SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment)
    assert "different chips" in sentence and "--soc-version" in sentence and sorted(os.listdir(str(folder))) == ["resnet34.onnx"]
    process = succeeds(SCRIPT, "--batch-sizes", "1", "--device", "1", cwd=str(folder), env=environment)
    assert "--soc_version=Ascend910B4" in process.stdout


def test_without_npu_smi_the_soc_version_must_be_passed(folder, tmp_path):
    environment = dressed(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "atc").symlink_to(STANDINS / "bin" / "atc")
    environment["PATH"] = environment["PATH"].replace(str(STANDINS / "bin"), str(tmp_path / "bin"))
    assert "npu-smi: not found" in fails(1, SCRIPT, cwd=str(folder), env=environment)
    succeeds(SCRIPT, "--soc-version", "Ascend310P3", "--batch-sizes", "1", cwd=str(folder), env=environment)


@pytest.mark.parametrize("name", ["ascend-toolkit", "cann"])
def test_cann_is_sourced_where_atc_is_not_on_the_path(name, folder, tmp_path):
    home = tmp_path / "Ascend" / name
    home.mkdir(parents=True)
    (home / "set_env.sh").write_text(". '%s'\n" % (STANDINS / "set_env.sh"))
    environment = undressed(tmp_path)
    environment.pop("PYTHONPATH", None)
    succeeds(SCRIPT, "--soc-version=Ascend310P3", "--batch-sizes=1", cwd=str(folder), env=environment)
    assert (folder / "resnet34_bs1.om").exists()


def test_ascend_set_env_names_another_place(folder, tmp_path):
    environment = undressed(tmp_path, ASCEND_SET_ENV=str(STANDINS / "set_env.sh"))
    succeeds(SCRIPT, "--soc-version=Ascend310P3", "--batch-sizes=1", cwd=str(folder), env=environment)


def test_without_cann_the_places_that_were_tried_are_named(folder, tmp_path):
    sentence = fails(1, SCRIPT, cwd=str(folder), env=undressed(tmp_path))
    for place in ("/usr/local/Ascend/ascend-toolkit/set_env.sh", "%s/Ascend/ascend-toolkit/set_env.sh" % tmp_path,
                  "/usr/local/Ascend/cann/set_env.sh", "%s/Ascend/cann/set_env.sh" % tmp_path, "ASCEND_SET_ENV"):
        assert place in sentence


def test_the_input_name_is_the_graphs(folder, tmp_path):
    model = onnx.load(str(folder / "resnet34.onnx"))
    model.graph.input[0].name = model.graph.node[0].input[0] = "actual_input_1"
    onnx.save(model, str(folder / "resnet34.onnx"))
    process = succeeds(SCRIPT, "--batch-sizes", "2", cwd=str(folder), env=dressed(tmp_path))
    assert '--input_shape="actual_input_1:2,3,224,224"' in process.stdout


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.om")}


def record(folder, size=1):
    return json.loads((folder / ("resnet34_bs%d.om.json" % size)).read_text())


def test_a_finished_om_is_kept_until_its_onnx_or_its_options_change(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1 4", **options)
    first = modified(folder)
    assert succeeds(SCRIPT, "--batch-sizes", "1 4", **options).stdout.count("kept: ") == 2
    assert modified(folder) == first
    succeeds(SCRIPT, "--batch-sizes", "1", "--", "--precision_mode=force_fp32", **options)
    second = modified(folder)
    assert second["resnet34_bs1.om"] > first["resnet34_bs1.om"] and second["resnet34_bs4.om"] == first["resnet34_bs4.om"]
    assert (record(folder)["precision"], record(folder, 4)["precision"]) == ("fp32", "fp16")
    for option in ("--overwrite", "--force"):
        before = modified(folder)
        succeeds(SCRIPT, "--batch-sizes", "4", option, **options)
        assert modified(folder)["resnet34_bs4.om"] > before["resnet34_bs4.om"]


def test_check_does_nothing_and_tells_by_its_exit_code(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    assert script(SCRIPT, "--batch-sizes", "1", "--check", "--output", "models", **options).returncode == 1
    assert sorted(os.listdir(str(folder))) == ["resnet34.onnx"]
    succeeds(SCRIPT, "--batch-sizes", "1", **options)
    process = succeeds(SCRIPT, "--batch-sizes", "1", "--check", **options)
    assert process.stdout == process.stderr == ""
    assert script(SCRIPT, "--batch-sizes", "1 4", "--check", **options).returncode == 1


def test_a_folder_that_was_carried_keeps_its_om(folder, tmp_path):
    options = {"env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), **options)
    shutil.copytree(str(folder), str(tmp_path / "elsewhere"))
    os.utime(str(tmp_path / "elsewhere" / "resnet34_bs1.om"), (10 ** 9, 10 ** 9))
    assert "kept: " in succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(tmp_path / "elsewhere"), **options).stdout


def test_an_onnx_replaced_by_an_older_one_is_compiled_again(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1", **options)
    before = (folder / "resnet34_bs1.om").read_bytes()
    small_onnx(folder / "resnet34.onnx", seed=1)
    os.utime(str(folder / "resnet34.onnx"), (10 ** 9, 10 ** 9))
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "1", **options).stdout
    assert (folder / "resnet34_bs1.om").read_bytes() != before
    os.utime(str(folder / "resnet34.onnx"))  # touched, not changed
    assert "kept: " in succeeds(SCRIPT, "--batch-sizes", "1", **options).stdout


def test_another_cann_compiles_again(folder, tmp_path):
    environment = dressed(tmp_path)
    succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment)
    environment["ASCEND_TOOLKIT_HOME"] = cann(tmp_path, "9.0.0")
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment).stdout
    assert record(folder)["cann"] == "9.0.0"


def test_the_record_says_what_the_om_was_made_from(folder, tmp_path):
    succeeds(SCRIPT, "--batch-sizes", "4", cwd=str(folder), env=dressed(tmp_path))
    made = record(folder, 4)
    for key, name in (("onnx_sha256", "resnet34.onnx"), ("sha256", "resnet34_bs4.om")):
        assert made[key] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert made["command"].startswith("atc ") and '--input_shape="image:4,3,224,224"' in made["command"]
    assert made["recipe"] == FLOAT_RECIPE and made["input"] == {"name": "image", "dtype": "float32", "shape": [3, 224, 224]}
    assert made["outputs"] == [{"name": "class", "dtype": "float32", "shape": [1000]}]
    assert [made[key] for key in ("soc_version", "cann", "precision", "batch_size", "weights", "aipp", "calibration")] == \
        ["Ascend310P3", "9.1.0", "fp16", 4, "small.pth", None, None]
    assert made["made_from"] == {"version": 1, "onnx": made["onnx_sha256"], "batch_size": 4, "aipp": None, "options": [],
                                 "soc_version": "Ascend310P3", "cann": "9.1.0"}


def test_an_int8_onnx_keeps_its_precision_calibration_and_name(folder, tmp_path):
    calibration = json.dumps({"tool": "amct", "images": 32})
    small_onnx(folder / "resnet34_int8.onnx", extra={"precision": "int8", "calibration": calibration})
    succeeds(SCRIPT, "--onnx", "resnet34_int8.onnx", "--batch-sizes", "8", cwd=str(folder), env=dressed(tmp_path))
    made = json.loads((folder / "resnet34_int8_bs8.om.json").read_text())
    assert made["precision"] == "int8" and made["calibration"]["tool"] == "amct"


def test_a_foreign_onnx_has_no_recipe_in_its_record_and_no_aipp(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", recipe=None)
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1", **options)
    assert record(folder)["recipe"] is None
    assert "carries no recipe" in fails(1, SCRIPT, "--batch-sizes", "1", "--aipp", **options)


def test_an_om_of_somebody_elses_is_not_replaced_without_overwrite_and_the_others_are_made(folder, tmp_path):
    (folder / "resnet34_bs1.om").write_bytes(b"IMOD by hand")
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    sentence = fails(1, SCRIPT, "--batch-sizes", "1 4", **options)
    assert "resnet34_bs1.om" in sentence and "--overwrite" in sentence and "--record" in sentence
    assert (folder / "resnet34_bs1.om").read_bytes() == b"IMOD by hand" and (folder / "resnet34_bs4.om").exists()
    succeeds(SCRIPT, "--batch-sizes", "1", "--overwrite", **options)
    (folder / "resnet34_bs1.om").write_bytes(b"IMOD by hand again")
    fails(1, SCRIPT, "--batch-sizes", "1", **options)


def compiled_by_hand(folder, tmp_path, size=1, more=()):
    words = ["atc", "--framework=5", "--model=./resnet34.onnx", "--output=resnet34_bs%d" % size, "--input_format=NCHW",
             "--input_shape=image:%d,3,224,224" % size, "--log=error", "--soc_version=Ascend310P3"] + list(more)
    subprocess.run(words, cwd=str(folder), env=dressed(tmp_path), check=True, stdout=subprocess.DEVNULL)


def test_an_om_compiled_by_hand_is_recorded_after_a_comparison_and_then_kept(folder, tmp_path):
    compiled_by_hand(folder, tmp_path, 4)
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    process = succeeds(SCRIPT, "--record", "resnet34_bs4.om", "--onnx", "resnet34.onnx", **options)
    assert "batch size 4" in process.stdout and "input, outputs and batch size" in process.stdout
    made = record(folder, 4)
    assert (made["soc_version"], made["cann"], made["precision"], made["recipe"]) == (None, None, "fp16", FLOAT_RECIPE)
    assert "kept: resnet34_bs4.om" in succeeds(SCRIPT, "--batch-sizes", "4", **options).stdout
    small_onnx(folder / "resnet34.onnx", seed=1)
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "4", **options).stdout


def test_a_record_is_not_replaced_by_a_false_origin(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "4", **options)
    small_onnx(folder / "other.onnx", seed=1)
    line = [SCRIPT, "--record", "resnet34_bs4.om", "--onnx", "other.onnx"]
    assert "was compiled from another file than ./other.onnx" in fails(1, *line, **options)
    (folder / "resnet34_bs4.om.json").write_text('{"mine": 1}')
    assert "resnet34_bs4.om.json: is there and not of this command's making" in fails(1, *line, **options)


def test_without_aclruntime_the_name_tells_the_batch_size_and_the_line_says_so(folder, tmp_path):
    compiled_by_hand(folder, tmp_path, 4)
    environment = undressed(tmp_path)
    process = succeeds(SCRIPT, "--record", "resnet34_bs4.om", "--soc-version", "Ascend310P3", cwd=str(folder), env=environment)
    assert "nothing but its name" in process.stdout and record(folder, 4)["soc_version"] == "Ascend310P3"
    (folder / "resnet34_bs4.om").rename(folder / "mine.om")
    options = {"cwd": str(folder), "env": environment}
    assert "--batch-sizes" in fails(1, SCRIPT, "--record", "mine.om", **options)
    assert "batch size 8" in succeeds(SCRIPT, "--record", "mine.om", "--batch-sizes", "8", **options).stdout


@pytest.mark.parametrize("change, named", [
    (lambda folder: (folder / "resnet34_bs4.om").rename(folder / "resnet34_bs8.om"), "8 by its name but 4 by aclruntime"),
    (lambda folder: small_onnx(folder / "resnet34.onnx", shape=(3, 128, 128)), "image has shape [4, 3, 224, 224]"),
    (lambda folder: small_onnx(folder / "resnet34.onnx", dtype="uint8"), "image has shape [4, 3, 224, 224]"),
    (lambda folder: small_onnx(folder / "resnet34.onnx", classes=10), "class has shape [4, 1000]"),
], ids=["batch size", "shape", "dtype", "classes"])
def test_an_om_that_is_not_of_the_onnx_gets_no_record(change, named, folder, tmp_path):
    compiled_by_hand(folder, tmp_path, 4)
    change(folder)
    (om,) = folder.glob("*.om")
    assert named in fails(1, SCRIPT, "--record", om.name, cwd=str(folder), env=dressed(tmp_path))
    assert not list(folder.glob("*.json"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_atc_leaves_nothing_that_a_later_run_takes_for_finished(number, folder, tmp_path):
    environment = dressed(tmp_path, STANDIN_FAIL="atc_hang:1")
    words = command(SCRIPT, "--batch-sizes", "1")
    process = subprocess.Popen(words, cwd=str(folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, start_new_session=True)
    om = folder / "resnet34_bs1.om"
    wait_until(lambda: om.exists() and om.stat().st_size, process)
    if number == signal.SIGTERM:
        process.terminate()
        assert process.wait(20) == 143 and b"stopped" in process.stderr.read()
        assert not om.exists() and not (folder / "resnet34_bs1.om.json").exists()
    else:
        os.killpg(process.pid, number)
        process.wait(20)
        assert om.read_bytes() == b"torso"
    process.stderr.close()
    succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path))
    assert om.stat().st_size > 1000


def test_an_atc_that_outlived_its_killed_run_is_not_disturbed(folder, tmp_path):
    words = command(SCRIPT, "--batch-sizes", "1")
    environment = dressed(tmp_path, STANDIN_FAIL="atc_hang:1")
    process = subprocess.Popen(words, cwd=str(folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, start_new_session=True)
    om = folder / "resnet34_bs1.om"
    wait_until(lambda: om.exists() and om.stat().st_size, process)
    process.kill()  # the shell alone
    process.wait(20)
    assert "at work there" in fails(1, SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path))
    os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: script(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path)).returncode == 0)
    assert om.stat().st_size > 1000


def test_aipp_is_written_from_the_recipe_and_compiled_in(folder, tmp_path):
    process = succeeds(SCRIPT, "--batch-sizes", "4", "--aipp", cwd=str(folder), env=dressed(tmp_path))
    assert (folder / "resnet34_bs4.aipp.cfg").read_text() == AIPP
    assert "--insert_op_conf=resnet34_bs4.aipp.cfg" in process.stdout and '--input_shape="image:4,3,224,224"' in process.stdout
    made = record(folder, 4)
    assert made["aipp"] == "resnet34_bs4.aipp.cfg" and made["recipe"] == dict(FLOAT_RECIPE, dtype="uint8", layout="HWC")
    assert made["input"] == {"name": "image", "dtype": "uint8", "shape": [224, 224, 3]} and made["made_from"]["aipp"] == AIPP
    assert "kept: " in succeeds(SCRIPT, "--batch-sizes", "4", "--aipp", cwd=str(folder), env=dressed(tmp_path)).stdout
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "4", cwd=str(folder), env=dressed(tmp_path)).stdout


def test_aipp_is_refused_for_a_graph_that_takes_uint8(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", dtype="uint8")
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    assert "already takes uint8" in fails(1, SCRIPT, "--batch-sizes", "1", "--aipp", **options)
    assert [name for name in os.listdir(str(folder)) if name[0] != "."] == ["resnet34.onnx"]


def aipp_scores(folder, tmp_path, text, pixels):
    """The scores of the stand-in's .om, compiled with an AIPP file of this text."""
    import onnxruntime
    (folder / "a.cfg").write_text(text)
    words = ["atc", "--framework=5", "--model=resnet34.onnx", "--output=a", "--input_format=NCHW",
             "--input_shape=image:1,3,224,224", "--soc_version=Ascend310P3", "--insert_op_conf=a.cfg"]
    process = subprocess.run(words, cwd=str(folder), env=dressed(tmp_path), stdout=subprocess.PIPE)
    if process.returncode:
        return process.stdout.decode()
    session = onnxruntime.InferenceSession((folder / "a.om").read_bytes()[4:], providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def test_the_stand_ins_aipp_is_near_the_uint8_graph_and_accuses_wrong_files(folder, tmp_path):
    import onnxruntime
    pixels = np.random.RandomState(0).randint(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    pixels[..., 0] //= 2
    small_onnx(folder / "uint8.onnx", dtype="uint8")
    session = onnxruntime.InferenceSession(str(folder / "uint8.onnx"), providers=["CPUExecutionProvider"])
    right = session.run(None, {"image": pixels})[0]

    def difference(text):
        return np.abs(aipp_scores(folder, tmp_path, text, pixels) - right).max() / np.abs(right).max()

    assert 0 < difference(AIPP) < 0.005
    assert difference(AIPP.replace("}", "    rbuv_swap_switch: true\n}")) > 0.05
    assert difference(AIPP.replace("123.675", "0.485").replace("116.28", "0.456").replace("103.53", "0.406")) > 0.05
    for text, code in ((AIPP.replace("RGB888_U8", "RGB"), "E10042"), (AIPP.replace("w: 224", "w: 256"), "E10044"),
                       (AIPP.replace("min_chn_0: 123.675", "mean_chn_0: 123.675"), "E10042"), ("aipp_op {", "E10041"),
                       (AIPP.replace("static", "dynamic"), "E10042"), (AIPP.replace("min_chn_0", "min_chn_3"), "E10042")):
        assert code in aipp_scores(folder, tmp_path, text, pixels)


def test_the_constants_are_those_of_the_recipe():
    lines = dict(line.strip().split(": ") for line in AIPP.splitlines()[1:-1])
    for channel in range(3):
        assert float(lines["min_chn_%d" % channel]) == pytest.approx(255 * IMAGENET_MEAN[channel], rel=1e-12)
        assert float(lines["var_reci_chn_%d" % channel]) == pytest.approx(1 / (255 * IMAGENET_STD[channel]), rel=1e-12)


def test_a_re_py_in_the_current_folder_is_not_run(folder, tmp_path):
    for name in ("re.py", "json.py", "hashlib.py"):
        (folder / name).write_text("open('ran', 'w')")
    environment = dressed(tmp_path)
    environment["PYTHONPATH"] += os.pathsep  # as CANN's set_env.sh leaves it
    succeeds(SCRIPT, "--batch-sizes", "1", "--aipp", cwd=str(folder), env=environment)
    assert not (folder / "ran").exists()


def test_a_batch_size_that_fails_leaves_no_om_and_the_others_are_made(folder, tmp_path):
    process = script(SCRIPT, "--batch-sizes", "1,4,8", cwd=str(folder), env=dressed(tmp_path, STANDIN_FAIL="atc:4"))
    assert process.returncode == 1
    assert "E40021: Failed to compile Op" in process.stderr and "batch size 4 " in process.stderr.splitlines()[-1]
    assert sorted(modified(folder)) == ["resnet34_bs1.om", "resnet34_bs8.om"]
    again = succeeds(SCRIPT, "--batch-sizes", "1 4 8", cwd=str(folder), env=dressed(tmp_path))
    assert again.stdout.count("kept: ") == 2


@pytest.mark.parametrize("options, code", [(["--soc-version", "Ascend999"], "E10001"), (["--", "--unknown=1"], "E10003")])
def test_atcs_own_error_lines_are_shown(options, code, folder, tmp_path):
    process = script(SCRIPT, "--batch-sizes", "1", *options, cwd=str(folder), env=dressed(tmp_path))
    assert process.returncode == 1 and code in process.stderr and not modified(folder) and not list(folder.glob("*.json"))


def test_an_opset_atc_does_not_know_fails_with_atcs_line(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", opset=13)
    process = script(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path, STANDIN_OPSET="11"))
    assert process.returncode == 1 and "ai.onnx::13::" in process.stderr and "export with an older one" in process.stderr


@pytest.mark.parametrize("line, remedy", [
    ("EC0010: Failed to import Python module [AttributeError: `np.float_` was removed in the NumPy 2.0 release.].", "numpy 2"),
    ("TypeError: cannot pickle 'FrameLocalsProxy' object", "too new"),
    ("E40001: Failed to import the Python module: [ModuleNotFoundError: No module named 'decorator']", "requirements-ascend.txt"),
    ("E10001: Value [linux] for parameter [--host_env_os] is invalid. Reason: os not supported", "Ascend-cann-CHIP-ops"),
])
def test_atcs_own_lines_come_first_then_what_they_mean(line, remedy, folder, tmp_path):
    process = script(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path, STANDIN_SAYS=line))
    assert process.returncode == 1 and line in process.stderr
    (sentence,) = [text for text in process.stderr.splitlines() if text.startswith("error: resnet34_bs1.om: atc failed")]
    assert remedy in sentence and process.stderr.index(line) < process.stderr.index(sentence)


def test_a_numpy_that_this_cann_cannot_compile_with_stops_it_before_atc(folder, tmp_path):
    environment = dressed(tmp_path, ASCEND_TOOLKIT_HOME=cann(tmp_path, "8.1.RC1"))
    environment["PATH"] = python3(tmp_path, '[[3, 10], "2.1.0", "3.20.3", []]') + os.pathsep + environment["PATH"]
    sentence = fails(1, SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment)
    assert "numpy: 2.1.0: CANN 8.1.RC1 cannot compile with it" in sentence and not modified(folder)


def test_nothing_is_taken_from_exported_variables_of_its_names(folder, tmp_path):
    text = "".join((REPOSITORY / name).read_text() for name in (SCRIPT, "common/cann.sh", "common/shell.sh"))
    names = set(re.findall(r"(?:\$\{?#?|\b)([a-z_]+)(?=\b|=|\[)", text)) - {"here"}
    smuggled = {name: "smuggled" for name in names}
    process = succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dict(dressed(tmp_path), **smuggled))
    assert "smuggled" not in process.stdout + process.stderr and "smuggled" not in json.dumps(record(folder))
    assert record(folder)["soc_version"] == "Ascend310P3"
    fails(1, SCRIPT, "--batch-sizes", "4", cwd=str(folder), env=dict(dressed(tmp_path, "fail"), **smuggled))


def test_it_compiles_for_the_chip_that_ascend_rt_visible_devices_leaves(folder, tmp_path):
    environment = dressed(tmp_path, MIXED, ASCEND_RT_VISIBLE_DEVICES="1")
    assert "--soc_version=Ascend910B4" in succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment).stdout
    assert "ASCEND_RT_VISIBLE_DEVICES" in fails(1, SCRIPT, "--device", "1", cwd=str(folder), env=environment)


def test_output_and_strange_paths(tmp_path):
    place = tmp_path / "it's a \"place\""
    place.mkdir()
    small_onnx(place / "-net.onnx")
    succeeds(SCRIPT, "--onnx", "-net.onnx", "--output", "-models", "--batch-sizes", "2", cwd=str(place), env=dressed(tmp_path))
    assert (place / "-models" / "-net_bs2.om").exists()


def test_missing_and_broken_onnx_files_are_named(tmp_path):
    assert "resnet34_pth2onnx.py" in fails(1, SCRIPT, cwd=str(tmp_path), env=dressed(tmp_path))
    (tmp_path / "resnet34.onnx").write_bytes(b"not onnx")
    assert "resnet34.onnx" in fails(1, SCRIPT, cwd=str(tmp_path), env=dressed(tmp_path))


@pytest.mark.parametrize("arguments", [["--batch-sizes", "1 0"], ["--batch-sizes", "-4"], ["--batch-sizes", "x"],
                                       ["--batch-sizes", " "], ["--device", "a"], ["--soc-version", "a b"],
                                       ["--unknown", "x"], ["--onnx"],
                                       ["--", "--insert_op_conf=a.cfg"], ["--", "--output=x"]])
def test_wrong_usage_exits_with_2_before_anything_else(arguments, tmp_path):
    fails(2, SCRIPT, *arguments, cwd=str(tmp_path), env=undressed(tmp_path))
