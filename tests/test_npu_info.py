"""tools/npu_info.py: every layout of npu-smi's table, what it cannot tell, the versions in CANN's files, and the doctor."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import REPOSITORY, fails, script, some_python, succeeds

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
    environment = dict(os.environ, PATH=path, PYTHON=some_python(), STANDIN_NPU_SMI=table, HOME=str(tmp_path),
                       PYTHONPATH=str(STANDINS / "site"), ASCEND_TOOLKIT_HOME=str(STANDINS / "toolkit"))
    return dict(environment, **more)


def cann(tmp_path, version):
    """A CANN's folder of this version."""
    home = tmp_path / ("cann-" + version)
    home.mkdir()
    (home / "ascend_toolkit_install.info").write_text("package_name=Ascend-cann-toolkit\nversion=%s\n" % version)
    return str(home)


def python3(tmp_path, answer):
    """A folder for PATH with a python3 that tells the doctor this of itself."""
    (tmp_path / "python").mkdir(exist_ok=True)
    (tmp_path / "python" / "python3").write_text("#!/bin/sh\necho '%s'\n" % answer)
    (tmp_path / "python" / "python3").chmod(0o755)
    return str(tmp_path / "python")


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
    assert (told["cann"], told["driver"], told["firmware"]) == ("9.1.0", "unknown", "unknown")
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


FINE = '[[3, 9], "1.24.4", "3.20.3", []]'  # what a python3 for CANN tells of itself


def healthy(tmp_path, table=TWO_310P3, answer=FINE, **more):
    """The environment of a machine on which all is well."""
    environment = dressed(tmp_path, table, **more)
    return dict(environment, PATH=python3(tmp_path, answer) + os.pathsep + environment["PATH"])


def findings(*options, **more):
    """{thing: what is wrong} by the doctor's lines, of what is not ok."""
    process = script(SCRIPT, "--check", *options, **more)
    lines = [line.split(": ", 1) for line in process.stdout.splitlines()]
    wrong = {thing: text for thing, text in lines if not text.startswith("ok, ")}
    assert process.returncode == bool(wrong) and not process.stderr, process.stderr
    return wrong


def test_the_doctor_has_a_line_for_each_thing_and_exits_with_0_only_when_all_is_well(tmp_path):
    process = script(SCRIPT, "--check", env=healthy(tmp_path), cwd=str(tmp_path))
    lines = process.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "driver: ok", "device 0: ok", "device 1: ok", "ais_bench: ok", "aclruntime: ok", "CANN: ok", "CANN's Python: ok",
        "numpy: ok", "protobuf: ok", "modules: ok", lines[-1].split(",")[0]]  # the disk may be full
    assert lines[1] == "device 0: ok, 310P3, healthy, 1074 of 21534 MB in use" and lines[5] == "CANN: ok, 9.1.0"


def test_on_a_machine_without_anything_every_line_says_what_to_do(tmp_path):
    environment = dict(os.environ, PATH=python3(tmp_path, FINE), HOME=str(tmp_path), KUBERNETES_SERVICE_HOST="here")
    for key in ("PYTHONPATH", "ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "ASCEND_SET_ENV"):
        environment.pop(key, None)
    wrong = findings(env=environment)
    assert "npu-smi: not found" in wrong["driver"] and "--device /dev/davinci0" in wrong["driver"]  # in a container: mount it
    assert "%s/Ascend/cann/set_env.sh" % tmp_path in wrong["CANN"] and "ASCEND_SET_ENV" in wrong["CANN"]
    assert "msit install benchmark" in wrong["ais_bench"] and "msit install benchmark" in wrong["aclruntime"]


@pytest.mark.parametrize("version, answer, thing, named", [
    ("8.1.RC1", '[[3, 10], "2.0.1", "3.20.3", []]', "numpy", "CANN 8.1.RC1 cannot compile with it"),
    ("8.3.RC2", '[[3, 11], "2.0.1", "3.20.3", []]', "numpy", "requirements-ascend.txt"),
    ("8.1.RC1", '[[3, 11], "1.26.4", "3.20.3", []]', "CANN's Python", "CANN 8.1.RC1 takes 3.7 to 3.10"),
    ("8.0.0", '[[3, 10], "1.24.4", "5.29.3", []]', "protobuf", "CANN 8.0.0 wants 3.20"),
    ("9.1.0", '[[3, 10], "2.1.0", "6.0", ["decorator", "absl"]]', "modules", "not installed: decorator, absl-py; "),
    ("9.1.0", '[[3, 10], null, "6.0", []]', "modules", "not installed: numpy; "),
])
def test_what_does_not_go_with_this_cann_is_named(version, answer, thing, named, tmp_path):
    home = cann(tmp_path, version)
    os.makedirs(os.path.join(home, "opp/built-in/op_impl/ai_core/tbe/kernel/ascend310p"))
    wrong = findings(env=healthy(tmp_path, answer=answer, ASCEND_TOOLKIT_HOME=home))
    assert named in wrong.pop(thing) and not set(wrong) - {"disk"}


@pytest.mark.parametrize("version", ["7.7.0.5.238", "mine"])
def test_nothing_is_claimed_of_a_cann_that_is_not_known(version, tmp_path):
    wrong = findings(env=healthy(tmp_path, answer='[[3, 13], "2.3.0", "6.0", []]', ASCEND_TOOLKIT_HOME=cann(tmp_path, version)))
    assert not set(wrong) - {"disk"}


def test_the_operators_of_the_chip_are_looked_for_since_8_5(tmp_path):
    for version, expected in (("8.3.RC1", False), ("8.5.0", True)):
        home = cann(tmp_path, version)
        os.makedirs(os.path.join(home, "opp/built-in/op_impl/ai_core/tbe/kernel/ascend910b"))
        wrong = findings(env=healthy(tmp_path, ASCEND_TOOLKIT_HOME=home))
        assert ("install Ascend-cann-310p-ops of CANN " + version in wrong.get("operators", "")) == expected


FULL = TWO_310P3.replace("1070 / 21534", "21000 / 21534")
HOLDERS = PROCESSES.replace("| 0       0    ", "| 1       0    ")


@pytest.mark.parametrize("table, thing, named", [
    ("fail", "driver", "ret is -8020"), ("no table\n", "driver", "no device"),
    (TWO_310P3.replace("OK   ", "Alarm"), "devices", "Alarm"), (FULL, "memory", "21000 of device 1's 21534 MB"),
    (FULL + HOLDERS, "memory", "python3 (4711, 1055 MB)")],
    ids=["fails", "empty", "health", "memory", "who holds it"])
def test_a_card_that_is_not_well_is_named_with_npu_smis_words(table, thing, named, tmp_path):
    assert named in findings(env=healthy(tmp_path, table))[thing]


def test_cann_that_was_not_sourced_is_found(tmp_path):
    home = tmp_path / "Ascend" / "cann"
    home.mkdir(parents=True)
    (home / "set_env.sh").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npu-smi").symlink_to(STANDINS / "bin" / "npu-smi")
    environment = healthy(tmp_path)
    environment["PATH"] = environment["PATH"].replace(str(STANDINS / "bin"), str(tmp_path / "bin"))
    assert findings(env=environment)["CANN"] == "atc is not on PATH; source %s/set_env.sh" % home


def test_an_aclruntime_of_another_python_or_another_release_is_told(tmp_path):
    environment = healthy(tmp_path)
    environment["PYTHONPATH"] = str(tmp_path / "site")
    shutil.copytree(str(STANDINS / "site"), str(tmp_path / "site"))
    (tmp_path / "site" / "aclruntime-0.0.2.dist-info").rename(tmp_path / "site" / "aclruntime-0.1.0.dist-info")
    assert findings(env=environment)["ais_bench"].startswith("is 0.0.2 and aclruntime 0.1.0")
    (tmp_path / "site" / "aclruntime.py").unlink()
    (tmp_path / "site" / "aclruntime.cpython-36m-aarch64-linux-gnu.so").write_text("")
    wrong = findings(env=environment)["aclruntime"]
    assert "is built for Python 3.6" in wrong and sys.executable in wrong
    (tmp_path / "site" / "aclruntime.py").write_text("raise ImportError('undefined symbol: aclrtSetDeviceSatMode')")
    (tmp_path / "site" / "aclruntime.cpython-36m-aarch64-linux-gnu.so").unlink()
    assert "built for another CANN" in findings(env=environment)["aclruntime"]


def test_a_device_file_without_permission_is_named(tmp_path):
    """As another user in a process of its own, since root may read anything."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    path = os.path.join(folder, "davinci0")
    open(path, "w").close()
    os.chmod(path, 0o600)
    source = "import os, sys; sys.path.insert(0, %r); from common import npu_smi; npu_smi.DEVICE_FILES = %r; " % (
        str(REPOSITORY), os.path.join(folder, "davinci*"))
    change = "os.getuid() or os.setuid(65534); " if os.getuid() == 0 else "os.chmod(%r, 0); " % path
    process = subprocess.run([sys.executable, "-c", source + change + "print(npu_smi.denied_files())"], capture_output=True)
    shutil.rmtree(folder)
    assert process.stdout.decode().strip() == str([path]), process.stderr


def quick(code, *options, **more):
    process = script(SCRIPT, "--check", "--quick", *options, **more)
    assert process.returncode == code and not process.stdout, process.stdout + process.stderr
    return process.stderr


def test_quick_prints_only_what_is_wrong_as_a_warning_where_it_may_still_work(tmp_path):
    assert quick(0, env=healthy(tmp_path)) == "" == quick(0, "--compile", env=healthy(tmp_path))
    old = dict(answer='[[3, 12], "1.26.4", "3.20.3", []]', ASCEND_TOOLKIT_HOME=cann(tmp_path, "8.0.0"))
    assert quick(0, "--compile", env=healthy(tmp_path, **old)).startswith("warning: CANN's Python: is 3.12")
    new = dict(old, answer='[[3, 10], "2.0.0", "3.20.3", []]')
    assert quick(1, "--compile", env=healthy(tmp_path, **new)).startswith("error: numpy: 2.0.0")
    assert quick(0, env=healthy(tmp_path, **new)) == ""  # no matter for inference
    assert quick(0, "--device", "0", env=healthy(tmp_path, "fail")).startswith("warning: driver: npu-smi info failed")
    assert quick(0, "--device", "0", env=healthy(tmp_path, FULL)) == ""
    assert quick(0, "--device", "0,1", env=healthy(tmp_path, FULL)).startswith("warning: memory")
    assert quick(1, "--device", "0,1", env=healthy(tmp_path, MIXED)).startswith("error: devices: these are different chips")
    assert quick(1, "--device", "0,7", env=healthy(tmp_path)).startswith("error: devices: device 7 is not in npu-smi's table")
    assert quick(1, env=dict(healthy(tmp_path), PYTHONPATH="")).startswith("error: ais_bench: is not installed")


def test_every_device_must_be_there_healthy_and_of_one_chip(tmp_path):
    assert "device 7 is not in" in fails(1, SCRIPT, "--soc-version", "--device", "0,7", env=dressed(tmp_path))
    table = TWO_310P3.replace("| 1       310P3     | OK   ", "| 1       310P3     | Alarm")
    assert "device 1 (310P3) is not healthy" in fails(1, SCRIPT, "--soc-version", "--device", "0,1", env=dressed(tmp_path, table))


def test_devices_count_within_ascend_rt_visible_devices_which_is_named_where_it_decides(tmp_path):
    environment = dressed(tmp_path, MIXED, ASCEND_RT_VISIBLE_DEVICES="1")
    assert succeeds(SCRIPT, "--soc-version", env=environment).stdout.strip() == "Ascend910B4"
    assert succeeds(SCRIPT, "--soc-version", "--device", "0", env=environment).stdout.strip() == "Ascend910B4"
    (device,) = json.loads(succeeds(SCRIPT, env=environment).stdout)["devices"]
    assert (device["device"], device["npu"], device["chip"]) == (0, 1, "910B4")
    assert "ASCEND_RT_VISIBLE_DEVICES=1 leaves 1" in fails(1, SCRIPT, "--soc-version", "--device", "1", env=environment)
    environment["ASCEND_RT_VISIBLE_DEVICES"] = "3"
    sentence = fails(1, SCRIPT, "--soc-version", env=environment)
    assert "device 3 is not in" in sentence and "ASCEND_RT_VISIBLE_DEVICES names it" in sentence
    assert "another --device" not in sentence


def test_set_env_prints_where_cann_lies_or_the_places_it_looked_at(tmp_path):
    environment = dict(os.environ, HOME=str(tmp_path))
    environment.pop("ASCEND_SET_ENV", None)
    sentence = fails(1, SCRIPT, "--set-env", env=environment)
    for name in ("ascend-toolkit", "cann"):
        assert "/usr/local/Ascend/%s/set_env.sh" % name in sentence and "%s/Ascend/%s/set_env.sh" % (tmp_path, name) in sentence
    assert "/none/set_env.sh" in fails(1, SCRIPT, "--set-env", env=dict(environment, ASCEND_SET_ENV="/none/set_env.sh"))
    environment["ASCEND_SET_ENV"] = str(STANDINS / "set_env.sh")
    assert succeeds(SCRIPT, "--set-env", env=environment).stdout.strip() == str(STANDINS / "set_env.sh")


def test_explain_says_what_a_log_means(tmp_path):
    (tmp_path / "log").write_text("[ERROR] acl set device 0 failed, errorCode = 507033\n")
    assert "the device did not start" in succeeds(SCRIPT, "--explain", tmp_path / "log").stdout
    assert "missing" in fails(1, SCRIPT, "--explain", tmp_path / "missing")


def test_a_re_py_in_the_current_folder_is_not_run(tmp_path):
    (tmp_path / "re.py").write_text("open('ran', 'w')")
    environment = dressed(tmp_path)
    succeeds(SCRIPT, "--can-infer", cwd=str(tmp_path), env=environment)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments", [["--device", "x"], ["--device", "-1"], ["--soc-version", "--can-infer"], ["--unknown"]])
def test_wrong_usage_exits_with_2(arguments):
    fails(2, SCRIPT, *arguments)
