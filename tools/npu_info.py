#!/usr/bin/env python3
"""What this host has of Ascend: chips and their health from npu-smi, versions from CANN's files; and what of it is wrong.

    python3 tools/npu_info.py --check                      # the doctor: a line a thing, and the command that mends it
    python3 tools/npu_info.py                              # JSON; "unknown" where nothing tells
    python3 tools/npu_info.py --device 0,1 --soc-version   # the one word that atc wants; every device must be healthy
    python3 tools/npu_info.py --can-infer                  # do ais_bench and aclruntime import in this Python?
    python3 tools/npu_info.py --set-env                    # the path of CANN's set_env.sh
    python3 tools/npu_info.py --explain FILE               # what the messages of atc or ais_bench in it mean, where that is known

--device counts within ASCEND_RT_VISIBLE_DEVICES where that is set, as CANN does. --check --quick prints only what is wrong with
inference, or with --compile with atc: as a warning where it may still work, as an error where it cannot.
Exit code 0: told, or all is well; 1: it cannot be told or is wrong, and a sentence says what to do; 2: wrong usage.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # PYTHONSAFEPATH=1 leaves it out
from common import command

import glob
import json
import re
import shutil

from common import ascend, machine
from common.command import fail, one_line
from common.npu_smi import (JOIN_GROUP, ask_npu_smi, denied_files, find_devices, processes_on, read_table, run_program,
                            soc_version_of, wrong_with)

PREPARED_GB, FREE_MEMORY_MB = 30.1, 1024  # of 50000 images in float32; below it, a model of batch size 64 may find no room
KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
PASS_SOC = "pass --soc-version, for example --soc-version Ascend310P3"
GET_AIS_BENCH = "pip install msit, then msit install benchmark, with this Python"
# [Python's version, numpy's, protobuf's, the modules that are not there], in the Python that CANN takes.
PROBE = """import importlib.util, json, sys
def lacks(name):
    try: return importlib.util.find_spec(name) is None
    except ImportError: return True
def version(name):
    try: return __import__(name, fromlist=["x"]).__version__
    except Exception: return None
modules = [name for name in sys.argv[1:] if lacks(name)]
print(json.dumps([list(sys.version_info[:2]), version("numpy"), version("google.protobuf"), modules]))
"""


def run_source(program, source, *words):
    """run_program() of a line of Python, which imports nothing from the current folder, whose json.py may be anybody's."""
    return run_program(program, "-c", "import sys; sys.path[:] = filter(None, sys.path)\n" + source, *words)


def the_soc_version(wanted):
    table, problem = ask_npu_smi()
    chips, devices = read_table(table), {}
    if not problem:
        devices, problem = find_devices(chips, wanted) if chips else ({}, "npu-smi info shows no device")
    first = min(devices, default=None)
    if not problem:  # without --device it is the first that is used
        problem = next((text for number, text in wrong_with(devices) if wanted or number == first), "")
    if problem:
        fail("%s, or %s" % (problem, PASS_SOC))
    chip = devices[first]["chip"]
    if soc_version_of(chip) is None:
        fail("npu-smi calls the chip %s, which does not tell its soc version; %s" % (chip, PASS_SOC.replace("310P3", "910B4")))
    print(soc_version_of(chip))


def everything_known(wanted):
    table, _ = ask_npu_smi()
    devices, _ = find_devices(read_table(table), wanted)
    devices = [{"device": number, "npu": chip["npu"], "chip": chip["chip"], "health": chip["health"],
                "soc_version": soc_version_of(chip["chip"])} for number, chip in devices.items()]
    return {"devices": devices, "cann": ascend.cann_version(), "driver": driver_version(table),
            "firmware": ascend.version_in(["/usr/local/Ascend/firmware/version.info"]),
            "ais_bench": machine.version("ais_bench") or "unknown", "aclruntime": machine.version("aclruntime") or "unknown"}


def driver_version(table):
    banner = re.search(r"npu-smi.*Version:\s*([^\s|]+)", table)
    return banner.group(1) if banner else ascend.version_in(["/usr/local/Ascend/driver/version.info"])


# ---- the doctor: generators of (level, thing, text); "ok", "warning" where it may still work, "error" where it cannot ----

def check_card(wanted):
    table, problem = ask_npu_smi()
    chips = read_table(table)
    if problem or not chips:
        yield "warning", "driver", problem or "npu-smi info shows no device; see its driver"
        return
    yield "ok", "driver", "version %s, %d devices" % (driver_version(table), len(chips))
    if denied_files():
        yield "error", "device files", "%s: %s" % (denied_files()[0], JOIN_GROUP)
    devices, problem = find_devices(chips, wanted)
    if problem:
        yield "error", "devices", problem
    wrong = wrong_with(devices)
    for number, text in wrong:
        may_work = not wanted or devices[number]["health"] in ("OK", "Warning") and "not healthy" in text
        yield "warning" if may_work else "error", "devices", text
    for number, chip in sorted(devices.items()):
        used, total = chip["memory"] or (0, FREE_MEMORY_MB)
        if total - used < FREE_MEMORY_MB:
            yield "warning", "memory", "%d of device %d's %d MB are in use (%s); end that, or pass another --device" % (
                used, number, total, ", ".join(processes_on(table, chip["npu"])) or "npu-smi info shows by whom")
        elif number not in dict(wrong):
            yield "ok", "device %d" % number, "%s, healthy, %d of %d MB in use" % (chip["chip"], used, total)


def check_cann(chips):
    """CANN, and what of its Python does not go with it. chips: names, as npu-smi shows them."""
    version = ascend.cann_version()
    try:
        found = shutil.which("atc") or ascend.set_env()
        yield ("ok", "CANN", version) if shutil.which("atc") else ("error", "CANN", "atc is not on PATH; source " + found)
    except command.Failure as error:
        yield "error", "CANN", "atc is not on PATH, and there is %s" % error
    # Since 8.5 the operators are a package of their own, one a chip (Huawei's instg_0054; their folder: instg_0034 of CANN 7.0).
    kernels = os.path.join(([home for home in ascend.cann_homes() if os.path.isdir(home)] or [""])[0], KERNELS)
    for name in {re.match(r"\d+[A-Z]?", chip).group().lower() for chip in chips if soc_version_of(chip)}:
        if (ascend.release(version) or (0,)) >= (8, 5) and not glob.glob("%s/ascend%s*" % (glob.escape(kernels), name)):
            yield "warning", "operators", "%s: none for ascend%s; install Ascend-cann-%s-ops of CANN %s" % (
                kernels, name, name, version)
    yield from check_python(version)


def check_python(version):
    program = shutil.which("python3") or sys.executable
    code, answer, said = run_source(program, PROBE, *ascend.MODULES)
    if code:
        yield "error", "CANN's Python", "%s does not run: %s" % (program, one_line(said, 200))
        return
    python, numpy, protobuf, lacking = json.loads(answer)
    newest, numpy_below, protobuf_like = ascend.together(version)
    install = "%s -m pip install -r requirements-ascend.txt" % program
    name = "%d.%d (%s)" % (python[0], python[1], program)
    if newest and not (3, 7) <= tuple(python) <= newest:
        yield "warning", "CANN's Python", "is %s, CANN %s takes 3.7 to %d.%d; put such a python3 first on PATH" % (
            name, version, newest[0], newest[1])
    else:
        yield "ok", "CANN's Python", name
    if numpy and numpy_below and int(numpy.split(".")[0]) >= numpy_below and tuple(python) < (3, 13):
        yield "error", "numpy", "%s: CANN %s cannot compile with it; %s" % (numpy, version, install)
    elif numpy:
        yield "ok", "numpy", numpy
    if protobuf and protobuf_like and not protobuf.startswith(protobuf_like + "."):
        yield "warning", "protobuf", "is %s, CANN %s wants %s; %s" % (protobuf, version, protobuf_like, install)
    elif protobuf:
        yield "ok", "protobuf", protobuf
    lacking = ", ".join([ascend.MODULES[module] for module in lacking] + ([] if numpy else ["numpy"]))
    if lacking:
        yield "warning", "modules", "CANN's compiler imports what is not installed: %s; %s" % (lacking, install)
    else:
        yield "ok", "modules", "all that CANN's compiler imports"


def check_ais_bench():
    """In processes of their own: a compiled package that does not fit can end its process."""
    this = "this Python (%s)" % sys.executable
    for package in ("ais_bench", "aclruntime"):
        code, _, said = run_source(sys.executable, "import " + package)
        paths = [path for folder in sys.path for path in glob.glob(os.path.join(glob.escape(folder), package + ".cpython-*.so"))]
        built = re.findall(r"\.cpython-3(\d+)m?-", " ".join(map(os.path.basename, paths)))
        if not code:
            yield "ok", package, machine.version(package) or "of unknown version"
        elif built and str(sys.version_info[1]) not in built:
            yield "error", package, "is built for Python 3.%s, not for %s; %s" % (built[0], this, GET_AIS_BENCH)
        elif "No module named '%s'" % package in said:
            yield "error", package, "is not installed in %s; %s" % (this, GET_AIS_BENCH)
        else:
            yield "error", package, "is installed but does not load in %s: %s; %s" % (
                this, one_line((said.splitlines() or ["exit code %d" % code])[-1], 200),
                ascend.explain(said) or "CANN's set_env.sh may not have been sourced")
    versions = [machine.version("ais_bench"), machine.version("aclruntime")]
    if None not in versions and versions[0] != versions[1]:
        yield "warning", "ais_bench", "is %s and aclruntime %s; %s" % (versions[0], versions[1], GET_AIS_BENCH)


def check_disk():
    free = shutil.disk_usage(".").free / 1e9
    yield ("ok", "disk", "%.0f GB are free here" % free) if free > PREPARED_GB else (
        "warning", "disk", "%.0f GB are free here, prep_dataset of 50000 images takes %.0f; free some, or preprocess with "
        "--dtype uint8, which takes a quarter" % (free, PREPARED_GB))


def check(wanted, quick, for_atc):
    """Print the findings; returns the exit code."""
    findings = []
    if not (quick and for_atc):
        findings += list(check_card(wanted)) + list(check_ais_bench())
    if not quick or for_atc:
        findings += check_cann([chip["chip"] for chip in read_table(ask_npu_smi()[0])])
    if not quick:
        findings += check_disk()
    for level, thing, text in findings:
        if not quick:
            print("%s: %s%s" % (thing, "ok, " if level == "ok" else "", one_line(text)))
        elif level != "ok":
            sys.stderr.write("%s: %s: %s\n" % (level, thing, one_line(text)))
    return int(any(level == "error" or level == "warning" and not quick for level, _, _ in findings))


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--device", metavar="N", type=command.devices, help="only these devices, as in 0,1 (default: all)")
    parser.add_argument("--quick", action="store_true", help="with --check: only what is wrong with inference")
    parser.add_argument("--compile", action="store_true", help="with --check --quick: only what is wrong with atc")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="the doctor: exit code 0 only when all is well")
    what.add_argument("--soc-version", action="store_true", help="print the devices' soc version (default: the first's) alone")
    what.add_argument("--can-infer", action="store_true", help="print nothing; exit code 0 if ais_bench and aclruntime import")
    what.add_argument("--set-env", action="store_true", help="print the path of CANN's set_env.sh")
    what.add_argument("--explain", metavar="FILE", help="print what the messages of atc or ais_bench in it mean")
    args = parser.parse_args()
    if args.check:
        return check(args.device, args.quick, args.compile)
    if args.can_infer:
        problems = ["%s %s" % (thing, text) for level, thing, text in check_ais_bench() if level == "error"]
        return fail("; ".join(problems)) if problems else 0
    if args.explain:
        with open(args.explain, encoding="utf-8", errors="replace") as file:
            print(ascend.explain(file.read()))
    elif args.soc_version:
        the_soc_version(args.device)
    else:
        print(ascend.set_env() if args.set_env else json.dumps(everything_known(args.device), indent=2))
    return 0


if __name__ == "__main__":
    command.run(main)
