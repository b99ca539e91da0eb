"""run_atc.sh: the guide's atc command for each batch size, the record beside each .om, AIPP, and what it says when atc fails."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import FLOAT_RECIPE, IMAGENET_MEAN, IMAGENET_STD, command, fails, script, small_onnx, succeeds, wait_until
from test_npu_info import MIXED, STANDINS, dressed

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
    return dict(os.environ, PYTHON=sys.executable, HOME=str(tmp_path), **more)


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


def test_cann_is_sourced_where_atc_is_not_on_the_path(folder, tmp_path):
    home = tmp_path / "Ascend" / "ascend-toolkit"
    home.mkdir(parents=True)
    (home / "set_env.sh").write_text(". '%s'\n" % (STANDINS / "set_env.sh"))
    environment = undressed(tmp_path)
    environment.pop("PYTHONPATH", None)
    process = succeeds(SCRIPT, "--soc-version=Ascend310P3", "--batch-sizes=1", cwd=str(folder), env=environment)
    assert str(home / "set_env.sh") in process.stdout and (folder / "resnet34_bs1.om").exists()


def test_ascend_set_env_names_another_place(folder, tmp_path):
    environment = undressed(tmp_path, ASCEND_SET_ENV=str(STANDINS / "set_env.sh"))
    succeeds(SCRIPT, "--soc-version=Ascend310P3", "--batch-sizes=1", cwd=str(folder), env=environment)


def test_without_cann_the_places_that_were_tried_are_named(folder, tmp_path):
    sentence = fails(1, SCRIPT, cwd=str(folder), env=undressed(tmp_path))
    for place in ("/usr/local/Ascend/ascend-toolkit/set_env.sh", str(tmp_path / "Ascend" / "ascend-toolkit" / "set_env.sh"),
                  "/usr/local/Ascend/cann/set_env.sh", "ASCEND_SET_ENV"):
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
    assert succeeds(SCRIPT, "--batch-sizes", "1 4", **options).stdout.count(": kept") == 2
    assert modified(folder) == first
    succeeds(SCRIPT, "--batch-sizes", "1", "--", "--precision_mode=force_fp32", **options)
    second = modified(folder)
    assert second["resnet34_bs1.om"] > first["resnet34_bs1.om"] and second["resnet34_bs4.om"] == first["resnet34_bs4.om"]
    assert (record(folder)["precision"], record(folder, 4)["precision"]) == ("fp32", "fp16")
    succeeds(SCRIPT, "--batch-sizes", "4", "--force", **options)
    assert modified(folder)["resnet34_bs4.om"] > second["resnet34_bs4.om"]


def test_an_onnx_replaced_by_an_older_one_is_compiled_again(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1", **options)
    before = (folder / "resnet34_bs1.om").read_bytes()
    small_onnx(folder / "resnet34.onnx", seed=1)
    os.utime(str(folder / "resnet34.onnx"), (10 ** 9, 10 ** 9))
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "1", **options).stdout
    assert (folder / "resnet34_bs1.om").read_bytes() != before
    os.utime(str(folder / "resnet34.onnx"))  # touched, not changed
    assert ": kept" in succeeds(SCRIPT, "--batch-sizes", "1", **options).stdout


def test_another_cann_compiles_again(folder, tmp_path):
    environment = dressed(tmp_path)
    succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment)
    (tmp_path / "toolkit").mkdir()
    (tmp_path / "toolkit" / "version.info").write_text("version=8.0.0\n")
    environment["ASCEND_TOOLKIT_HOME"] = str(tmp_path / "toolkit")
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=environment).stdout
    assert record(folder)["cann"] == "8.0.0"


def test_the_record_says_what_the_om_was_made_from(folder, tmp_path):
    import hashlib
    succeeds(SCRIPT, "--batch-sizes", "4", cwd=str(folder), env=dressed(tmp_path))
    told = record(folder, 4)
    for key, name in (("onnx_sha256", "resnet34.onnx"), ("om_sha256", "resnet34_bs4.om")):
        assert told[key] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert told["command"][0] == "atc" and "--input_shape=image:4,3,224,224" in told["command"]
    assert told["recipe"] == FLOAT_RECIPE and told["input"] == {"name": "image", "dtype": "float32", "shape": [3, 224, 224]}
    assert told["outputs"] == [{"name": "class", "dtype": "float32", "shape": [1000]}]
    assert [told[key] for key in ("soc_version", "cann", "precision", "batch_size", "weights", "aipp", "calibration")] == \
        ["Ascend310P3", "6.0.RC1", "fp16", 4, "small.pth", None, None]


def test_an_int8_onnx_keeps_its_precision_calibration_and_name(folder, tmp_path):
    calibration = json.dumps({"tool": "amct", "images": 32})
    small_onnx(folder / "resnet34_int8.onnx", extra={"precision": "int8", "calibration": calibration})
    succeeds(SCRIPT, "--onnx", "resnet34_int8.onnx", "--batch-sizes", "8", cwd=str(folder), env=dressed(tmp_path))
    told = json.loads((folder / "resnet34_int8_bs8.om.json").read_text())
    assert told["precision"] == "int8" and told["calibration"]["tool"] == "amct"


def test_a_foreign_onnx_has_no_recipe_in_its_record_and_no_aipp(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", recipe=None)
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1", **options)
    assert record(folder)["recipe"] is None
    assert "carries no recipe" in fails(1, SCRIPT, "--batch-sizes", "1", "--aipp", **options)


def test_an_om_of_somebody_elses_is_not_replaced_without_force(folder, tmp_path):
    (folder / "resnet34_bs1.om").write_bytes(b"IMOD by hand")
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    process = script(SCRIPT, "--batch-sizes", "1", **options)
    assert process.returncode == 1 and "--force" in process.stderr
    assert (folder / "resnet34_bs1.om").read_bytes() == b"IMOD by hand"
    succeeds(SCRIPT, "--batch-sizes", "1", "--force", **options)
    (folder / "resnet34_bs1.om").write_bytes(b"IMOD by hand again")
    assert script(SCRIPT, "--batch-sizes", "1", **options).returncode == 1


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


def test_aipp_is_written_from_the_recipe_and_compiled_in(folder, tmp_path):
    process = succeeds(SCRIPT, "--batch-sizes", "4", "--aipp", cwd=str(folder), env=dressed(tmp_path))
    assert (folder / "resnet34_bs4.aipp.cfg").read_text() == AIPP
    assert "--insert_op_conf=resnet34_bs4.aipp.cfg" in process.stdout and '--input_shape="image:4,3,224,224"' in process.stdout
    told = record(folder, 4)
    assert told["aipp"] == "resnet34_bs4.aipp.cfg" and told["recipe"] == dict(FLOAT_RECIPE, dtype="uint8", layout="HWC")
    assert told["input"] == {"name": "image", "dtype": "uint8", "shape": [224, 224, 3]}
    assert ": kept" in succeeds(SCRIPT, "--batch-sizes", "4", "--aipp", cwd=str(folder), env=dressed(tmp_path)).stdout
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "4", cwd=str(folder), env=dressed(tmp_path)).stdout


def test_aipp_is_refused_for_a_graph_that_takes_uint8(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", dtype="uint8")
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    assert "already takes uint8" in fails(1, SCRIPT, "--batch-sizes", "1", "--aipp", **options)
    assert sorted(os.listdir(str(folder))) == ["resnet34.onnx"]


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
    assert "E40001: the operator compiler gave up" in process.stderr and "batch size 4 " in process.stderr.splitlines()[-1]
    assert sorted(modified(folder)) == ["resnet34_bs1.om", "resnet34_bs8.om"]
    again = succeeds(SCRIPT, "--batch-sizes", "1 4 8", cwd=str(folder), env=dressed(tmp_path))
    assert again.stdout.count(": kept") == 2


@pytest.mark.parametrize("options, code", [(["--soc-version", "Ascend999"], "E10001"), (["--", "--unknown=1"], "E10003")])
def test_atcs_own_error_lines_are_shown(options, code, folder, tmp_path):
    process = script(SCRIPT, "--batch-sizes", "1", *options, cwd=str(folder), env=dressed(tmp_path))
    assert process.returncode == 1 and code in process.stderr and not modified(folder)


def test_an_opset_atc_does_not_know_fails_with_atcs_line(folder, tmp_path):
    small_onnx(folder / "resnet34.onnx", opset=13)
    process = script(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path, STANDIN_OPSET="11"))
    assert process.returncode == 1 and "opset 13" in process.stderr


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
