"""tools/npu_info.py: every layout of npu-smi's table, what it cannot tell, and the versions in CANN's files."""
import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY, fails, succeeds

STANDINS = REPOSITORY / "tests" / "standins"
SCRIPT = "tools/npu_info.py"

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
MIXED = TWO_310P3.replace("| 1       310P3", "| 1       910B4")


def dressed(tmp_path, table=TWO_310P3, **more):
    """The environment of a machine with CANN and a driver, made of the stand-ins."""
    if table != "fail":
        (tmp_path / "table.txt").write_text(table)
        table = str(tmp_path / "table.txt")
    path = os.pathsep.join([str(STANDINS / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    return dict(os.environ, PATH=path, PYTHON=sys.executable, STANDIN_NPU_SMI=table, HOME=str(tmp_path),
                PYTHONPATH=str(STANDINS / "site"), ASCEND_TOOLKIT_HOME=str(STANDINS / "toolkit"), **more)


def word(tmp_path, table, *options):
    return succeeds(SCRIPT, "--soc-version", *options, env=dressed(tmp_path, table)).stdout.strip()


VARIED = {
    "as it is": lambda table: table, "banner": lambda table: BANNER + table, "processes": lambda table: table + PROCESSES,
    "both": lambda table: BANNER + table + PROCESSES, "CRLF": lambda table: table.replace("\n", "\r\n"),
    "wider": lambda table: table.replace(" |", "        |").replace("-+", "---------+"),
    "more columns": lambda table: "\n".join(line + " 1 | 2 |" if line.startswith("|") else line for line in table.splitlines()),
    "a line before": lambda table: "warning: the log folder is full\n\n" + table,
    "more headers": lambda table: table.replace("| Chip ", "| Slot    Rank      | Serial          |                  |\n| Chip ")}


@pytest.mark.parametrize("vary", sorted(VARIED))
def test_the_chip_is_read_from_every_layout(vary, tmp_path):
    assert word(tmp_path, VARIED[vary](TWO_310P3), "--device", "1") == "Ascend310P3"
    assert word(tmp_path, VARIED[vary](ONE_910B4), "--device=5") == "Ascend910B4"


def test_without_a_device_the_first_is_meant_and_a_name_of_digits_is_a_name(tmp_path):
    assert word(tmp_path, ONE_910B4) == "Ascend910B4"
    assert word(tmp_path, TWO_310P3.replace("310P3", "310  ")) == "Ascend310"


def test_the_chosen_device_decides_on_a_machine_of_several_chips(tmp_path):
    sentence = fails(1, SCRIPT, "--soc-version", env=dressed(tmp_path, MIXED))
    assert "different chips" in sentence and "--soc-version" in sentence and "--device" in sentence
    assert word(tmp_path, MIXED, "--device", "0") == "Ascend310P3" and word(tmp_path, MIXED, "--device", "1") == "Ascend910B4"
    assert "different chips" in fails(1, SCRIPT, "--soc-version", "--device", "0,1", env=dressed(tmp_path, MIXED))
    assert word(tmp_path, TWO_310P3, "--device", "0,1") == "Ascend310P3"


@pytest.mark.parametrize("table, options, named", [
    (TWO_310P3.replace("310P3", "Ascend910"), [], "Ascend910"), (TWO_310P3.replace("310P3", "???"), [], "???"),
    (TWO_310P3, ["--device", "2"], "device 2"), (ONE_910B4, ["--device", "1"], "device 1"),
    (TWO_310P3.replace("OK   ", "Alarm"), [], "Alarm"), ("no devices\n", [], "no device"), ("fail", [], "exit code 1"),
], ids=["family name", "odd name", "not there", "not there, no Device column", "not healthy", "empty table", "npu-smi fails"])
def test_what_npu_smi_cannot_tell_is_one_sentence_with_what_to_pass(table, options, named, tmp_path):
    sentence = fails(1, SCRIPT, "--soc-version", *options, env=dressed(tmp_path, table))
    assert named in sentence and "--soc-version" in sentence


def test_a_device_that_is_not_healthy_does_not_stop_the_others(tmp_path):
    table = TWO_310P3.replace("| 0       310P3     | OK   ", "| 0       310P3     | Alarm")
    assert word(tmp_path, table, "--device", "1") == "Ascend310P3"


def test_without_npu_smi_the_sentence_says_so_and_the_json_has_no_device(tmp_path):
    environment = dict(dressed(tmp_path), PATH=str(tmp_path))
    assert "npu-smi: not found" in fails(1, SCRIPT, "--soc-version", env=environment)
    assert json.loads(succeeds(SCRIPT, env=environment).stdout)["devices"] == []


def test_the_json_has_devices_and_versions(tmp_path):
    told = json.loads(succeeds(SCRIPT, "--device", "1", env=dressed(tmp_path)).stdout)
    assert told["devices"] == [{"device": 1, "npu": 1, "chip": "310P3", "health": "OK", "soc_version": "Ascend310P3"}]
    assert (told["cann"], told["driver"], told["firmware"]) == ("6.0.RC1", "unknown", "unknown")
    assert (told["ais_bench"], told["aclruntime"]) == ("0.0.2", "0.0.2")
    assert json.loads(succeeds(SCRIPT, env=dressed(tmp_path, ONE_910B4)).stdout)["driver"] == "25.5.2"
    assert len(json.loads(succeeds(SCRIPT, env=dressed(tmp_path)).stdout)["devices"]) == 2
    family = json.loads(succeeds(SCRIPT, env=dressed(tmp_path, TWO_310P3.replace("310P3", "Ascend910"))).stdout)
    assert [device["soc_version"] for device in family["devices"]] == [None, None]


def test_can_infer_says_in_one_plain_sentence_what_is_missing(tmp_path):
    environment = dressed(tmp_path)
    assert succeeds(SCRIPT, "--can-infer", env=environment).stdout == ""
    (tmp_path / "site" / "ais_bench").mkdir(parents=True)
    (tmp_path / "site" / "ais_bench" / "__init__.py").write_text("")
    environment["PYTHONPATH"] = str(tmp_path / "site")
    sentence = fails(1, SCRIPT, "--can-infer", env=environment)
    assert "aclruntime is not installed" in sentence and "Error" not in sentence
    (tmp_path / "site" / "aclruntime.py").write_text("raise ImportError('libascendcl.so: cannot open shared object file')")
    assert "aclruntime is installed but does not load" in fails(1, SCRIPT, "--can-infer", env=environment)


def test_a_re_py_in_the_current_folder_is_not_run(tmp_path):
    (tmp_path / "re.py").write_text("open('ran', 'w')")
    environment = dressed(tmp_path)
    script = [sys.executable, str(REPOSITORY / SCRIPT), "--can-infer"]
    assert subprocess.run(script, cwd=str(tmp_path), env=environment).returncode == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments", [["--device", "x"], ["--device", "-1"], ["--soc-version", "--can-infer"], ["--unknown"]])
def test_wrong_usage_exits_with_2(arguments):
    fails(2, SCRIPT, *arguments)
