"""run_atc.sh: the guide's atc command for each batch size, the chip from npu-smi, and what it says when either fails."""
import os
import sys

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY, fails, script, succeeds
from onnx import TensorProto, helper, numpy_helper

STANDINS = REPOSITORY / "tests" / "standins"
SCRIPT = "run_atc.sh"

TWO_310P3 = """\
+-------------------+-----------------+------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===================+=================+======================================================+
| 0       310P3     | OK              | 15.8         42                0    / 0              |
| 0       0         | 0000:82:00.0    | 0            1074 / 21534                            |
+===================+=================+======================================================+
| 1       310P3     | OK              | 15.4         43                0    / 0              |
| 0       1         | 0000:89:00.0    | 0            1070 / 21534                            |
+===================+=================+======================================================+
"""
ONE_910B4 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.2                   Version: 25.5.2                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 5     910B4               | OK            | 89.9        39                0    / 0             |
| 0                         | 0000:41:00.0  | 0           0    / 0          2922 / 32768         |
+===========================+===============+====================================================+
"""
PROCESSES = """\
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 4711          | python3                  | 1055                    |
| 7       910A              | OK            | a process with an odd name                         |
+===========================+===============+====================================================+
"""
BANNER = ("+-------------------------------------------------------+\n"
          "| npu-smi 22.0.3                   Version: 22.0.3       |\n")


def dressed(tmp_path, table=TWO_310P3, **more):
    """The environment of a machine with CANN and a driver, made of the stand-ins."""
    if table != "fail":
        (tmp_path / "table.txt").write_text(table)
        table = str(tmp_path / "table.txt")
    places = [str(STANDINS / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]
    return dict(os.environ, PATH=os.pathsep.join(places), PYTHON=sys.executable, STANDIN_NPU_SMI=table,
                HOME=str(tmp_path), **more)


def undressed(tmp_path, **more):
    return dict(os.environ, PYTHON=sys.executable, HOME=str(tmp_path), **more)


def write_onnx(path, input_name="image", opset=11):
    """A graph with ResNet34's input and output and next to no weights."""
    weight = np.random.RandomState(0).standard_normal((3, 1000)).astype(np.float32)
    nodes = [helper.make_node("GlobalAveragePool", [input_name], ["pooled"]),
             helper.make_node("Flatten", ["pooled"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["class"])]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, ["batch", 1000])], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 6
    onnx.save(model, str(path))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    write_onnx(tmp_path / "work" / "resnet34.onnx")
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


def chip(tmp_path, table, *options):
    return succeeds(SCRIPT, "--show-soc-version", *options, env=dressed(tmp_path, table)).stdout.strip()


@pytest.mark.parametrize("table, options, expected", [
    (TWO_310P3, [], "Ascend310P3"), (TWO_310P3, ["--device", "1"], "Ascend310P3"),
    (ONE_910B4, [], "Ascend910B4"), (ONE_910B4, ["--device=5"], "Ascend910B4")])
@pytest.mark.parametrize("vary", [
    lambda table: table, lambda table: BANNER + table, lambda table: table + PROCESSES,
    lambda table: BANNER + table + PROCESSES, lambda table: table.replace(" |", "        |").replace("-+", "---------+"),
    lambda table: "\n".join(line + " 1 | 2 |" if line.startswith("|") else line for line in table.splitlines()),
    lambda table: table.replace("\n", "\r\n"), lambda table: "warning: the log folder is full\n\n" + table,
    lambda table: table.replace("| Chip ", "| Slot    Rank      | Serial          |                  |\n| Chip "),
], ids=["as it is", "banner", "processes", "banner and processes", "wider", "more columns", "CRLF", "a line before",
        "more headers"])
def test_the_chip_is_read_from_every_layout(vary, table, options, expected, tmp_path):
    assert chip(tmp_path, vary(table), *options) == expected


def test_a_name_of_digits_is_a_name(tmp_path):
    assert chip(tmp_path, TWO_310P3.replace("310P3", "310  ")) == "Ascend310"


def test_the_chosen_device_decides_on_a_machine_of_several_chips(tmp_path):
    mixed = TWO_310P3.replace("| 1       310P3", "| 1       910B4")
    sentence = fails(1, SCRIPT, "--show-soc-version", env=dressed(tmp_path, mixed))
    assert "different chips" in sentence and "--soc-version" in sentence and "--device" in sentence
    assert chip(tmp_path, mixed, "--device", "0") == "Ascend310P3"
    assert chip(tmp_path, mixed, "--device", "1") == "Ascend910B4"


@pytest.mark.parametrize("table, options, named", [
    (TWO_310P3.replace("310P3", "Ascend910"), [], "Ascend910"), (TWO_310P3.replace("310P3", "???"), [], "???"),
    (TWO_310P3, ["--device", "2"], "device 2"), (ONE_910B4, ["--device", "1"], "device 1"),
    (TWO_310P3.replace("OK   ", "Alarm"), [], "Alarm"), ("no devices\n", [], "no device"), ("fail", [], "exit code 1"),
], ids=["family name", "odd name", "not there", "not there, no Device column", "not healthy", "empty table", "npu-smi fails"])
def test_what_npu_smi_cannot_tell_is_one_sentence_with_what_to_pass(table, options, named, folder, tmp_path):
    sentence = fails(1, SCRIPT, *options, cwd=str(folder), env=dressed(tmp_path, table))
    assert named in sentence and "--soc-version" in sentence
    assert sorted(os.listdir(str(folder))) == ["resnet34.onnx"]
    options = ["--soc-version", "Ascend310P3", "--batch-sizes", "1"] + options
    succeeds(SCRIPT, *options, cwd=str(folder), env=dressed(tmp_path, table))


def test_a_device_that_is_not_healthy_does_not_stop_the_others(tmp_path):
    table = TWO_310P3.replace("| 0       310P3     | OK   ", "| 0       310P3     | Alarm")
    assert chip(tmp_path, table, "--device", "1") == "Ascend310P3"


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
    write_onnx(folder / "resnet34.onnx", "actual_input_1")
    process = succeeds(SCRIPT, "--batch-sizes", "2", cwd=str(folder), env=dressed(tmp_path))
    assert '--input_shape="actual_input_1:2,3,224,224"' in process.stdout


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.om")}


def test_a_finished_om_is_kept_until_its_onnx_or_its_options_change(folder, tmp_path):
    options = {"cwd": str(folder), "env": dressed(tmp_path)}
    succeeds(SCRIPT, "--batch-sizes", "1 4", **options)
    first = modified(folder)
    assert succeeds(SCRIPT, "--batch-sizes", "1 4", **options).stdout.count(": kept") == 2
    assert modified(folder) == first
    succeeds(SCRIPT, "--batch-sizes", "1", "--", "--precision_mode=force_fp32", **options)
    second = modified(folder)
    assert second["resnet34_bs1.om"] > first["resnet34_bs1.om"] and second["resnet34_bs4.om"] == first["resnet34_bs4.om"]
    succeeds(SCRIPT, "--batch-sizes", "4", "--force", **options)
    assert modified(folder)["resnet34_bs4.om"] > second["resnet34_bs4.om"]
    write_onnx(folder / "resnet34.onnx")
    assert "kept" not in succeeds(SCRIPT, "--batch-sizes", "4", **options).stdout


def test_an_om_that_no_finished_atc_made_is_made_again(folder, tmp_path):
    (folder / "resnet34_bs1.om").write_bytes(b"IMOD torso of a killed atc")
    process = succeeds(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path))
    assert "kept" not in process.stdout and (folder / "resnet34_bs1.om").stat().st_size > 1000


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
    write_onnx(folder / "resnet34.onnx", opset=13)
    process = script(SCRIPT, "--batch-sizes", "1", cwd=str(folder), env=dressed(tmp_path, STANDIN_OPSET="11"))
    assert process.returncode == 1 and "opset 13" in process.stderr


def test_output_and_strange_paths(tmp_path):
    place = tmp_path / "it's a \"place\""
    place.mkdir()
    write_onnx(place / "-net.onnx")
    succeeds(SCRIPT, "--onnx", "-net.onnx", "--output", "-models", "--batch-sizes", "2", cwd=str(place), env=dressed(tmp_path))
    assert (place / "-models" / "-net_bs2.om").exists()


def test_missing_and_broken_onnx_files_are_named(tmp_path):
    assert "resnet34_pth2onnx.py" in fails(1, SCRIPT, cwd=str(tmp_path), env=dressed(tmp_path))
    (tmp_path / "resnet34.onnx").write_bytes(b"not onnx")
    assert "resnet34.onnx" in fails(1, SCRIPT, cwd=str(tmp_path), env=dressed(tmp_path))


@pytest.mark.parametrize("arguments", [["--batch-sizes", "1 0"], ["--batch-sizes", "-4"], ["--batch-sizes", "x"],
                                       ["--batch-sizes", " "], ["--device", "a"], ["--soc-version", "a b"],
                                       ["--unknown", "x"], ["--onnx"]])
def test_wrong_usage_exits_with_2_before_anything_else(arguments, tmp_path):
    fails(2, SCRIPT, *arguments, cwd=str(tmp_path), env=undressed(tmp_path))
