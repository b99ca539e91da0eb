#!/usr/bin/env python3
"""What this host has of Ascend: chips and their health from npu-smi, versions from CANN's files; and what of it is wrong.

    python3 tools/npu_info.py --check                      # the doctor: a line a thing, and the command that mends it
    python3 tools/npu_info.py                              # JSON; "unknown" where nothing tells
    python3 tools/npu_info.py --device 0,1 --soc-version   # the one word that atc wants; every device must be healthy
    python3 tools/npu_info.py --can-infer                  # do ais_bench and aclruntime import in this Python?
    python3 tools/npu_info.py --set-env                    # the path of CANN's set_env.sh

--device counts within ASCEND_RT_VISIBLE_DEVICES where that is set, as CANN does. --check --quick prints only what is wrong with an
inference, --compile with atc: as a warning where it may still work.
Exit code 0: told, or all is well; 1: it cannot be told or is wrong, and a sentence says what to do; 2: wrong usage.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # PYTHONSAFEPATH=1 leaves it out
from common import command

import argparse
import glob
import json
import re
import shutil
import subprocess

from common import ascend, machine
from common.command import fail, one_line

DEVICE_FILES = "/dev/davinci*"
PREPARED_BYTES, FREE_MEMORY_MB = 50000 * 602112, 1024
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
PASS_SOC = "pass --soc-version, for example --soc-version Ascend310P3"
# vllm-ascend's installation guide starts its containers so.
MOUNT = ("start the container with --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm --device /dev/hisi_hdc "
         "-v /usr/local/dcmi:/usr/local/dcmi -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi "
         "-v /usr/local/Ascend/driver:/usr/local/Ascend/driver")
PROBE = """import importlib.util, json, sys
def there(name):
    try: return importlib.util.find_spec(name) is not None
    except ImportError: return False
def version(name):
    try: return __import__(name, fromlist=["x"]).__version__
    except Exception: return None
print(json.dumps([list(sys.version_info[:3]), version("numpy"), version("google.protobuf"), [n for n in sys.argv[1:] if not there(n)]]))
"""


# ---- npu-smi ----

def ask_npu_smi():
    """(the table, "") or ("", what is wrong and what to do)."""
    try:
        process = subprocess.run(["npu-smi", "info"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=60)
    except FileNotFoundError:
        return "", "npu-smi: not found; " + (MOUNT if in_container() else "install the driver")
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", "npu-smi info does not answer (%s)" % error
    said = process.stdout[:1 << 20].decode("utf-8", "replace")
    if process.returncode:
        denied = [path for path in glob.glob(DEVICE_FILES) if not os.access(path, os.R_OK | os.W_OK)]
        remedy = denied and "%s: no permission; usermod -a -G HwHiAiUser USER, then log in again" % denied[0]
        remedy = remedy or in_container() and "another container may hold the device, or it is not in this one; " + MOUNT
        return "", "npu-smi info failed (exit code %d): %s; %s" % (
            process.returncode, one_line(said, 200), remedy or "see the driver: reload it, or install it again")
    return said, ""


def in_container():
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv") or "KUBERNETES_SERVICE_HOST" in os.environ


def read_table(table):
    """[{device, npu, chip, health, memory}] in the order of the table; device is None in layouts without a Device column.

    Two rows a device, "NPU Name | Health" and "Chip Device | Bus-Id"; headers, widths and further columns differ. memory: (used, all) MB.
    """
    chips, npu = [], None
    for line in table.split("Process id")[0].splitlines():  # behind it the table of processes, whose rows begin with a number too
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.strip().startswith("|") or len(cells) < 2:
            continue
        if npu is None:
            first = re.match(r"(\d+)\s+(\S+)$", cells[0])
            npu = {"npu": int(first.group(1)), "chip": first.group(2), "health": cells[1]} if first else None
        else:
            second, memory = re.match(r"\d+(?:\s+(\d+))?$", cells[0]), re.findall(r"(\d+)\s*/\s*(\d+)", cells[-1])
            if second:
                chips.append(dict(npu, device=int(second.group(1)) if second.group(1) else None,
                                  memory=[int(number) for number in memory[-1]] if memory else None))
            npu = None
    return chips


def processes_on(table, npu):
    """["python3 (4711, 1055 MB)"] of the processes that hold memory of an NPU."""
    rows = re.findall(r"(?m)^\|\s*(\d+)\s+\d+\s*\|\s*(\d+)\s*\|\s*(.+?)\s*\|\s*(\d+)\s*\|", table.partition("Process id")[2])
    return ["%s (%s, %s MB)" % (name, process, memory) for number, process, name, memory in rows if int(number) == npu]


def soc_version_of(chip):
    """Ascend and the name, or None where the name is a family's or none at all."""
    return "Ascend" + chip if re.match(r"\d[A-Za-z0-9_-]*$", chip) and chip != "910" else None


def numbered(chips):
    """The chips with their device numbers: without a Device column they count in the order of the table."""
    return [dict(chip, device=index if chip["device"] is None else chip["device"]) for index, chip in enumerate(chips)]


def find_devices(chips, wanted):
    """({device as --device counts: its chip}, what is wrong) of the wanted numbers; None: all that may be seen."""
    visible = re.match(r"[0-9,]*", os.environ.get(VISIBLE, "")).group()  # CANN, too, reads it up to what is no number
    visible = [int(number) for number in visible.split(",") if number]
    by_number = {chip["device"]: chip for chip in reversed(numbered(chips))}
    for chip in chips:  # a container's table may show its NPU's own number alone
        if chip["device"] is None:
            by_number.setdefault(chip["npu"], chip)
    listed = ", ".join("%d %s" % (chip["device"], chip["chip"]) for chip in numbered(chips))
    if wanted is None:
        wanted = range(len(visible)) if visible else [chip["device"] for chip in numbered(chips)]
    found = {}
    for number in wanted:
        if visible and number >= len(visible):
            return found, "device %d: %s=%s leaves %d; pass another --device, or change that" % (
                number, VISIBLE, os.environ[VISIBLE], len(visible))
        own = visible[number] if visible else number
        if own not in by_number:
            return found, "device %d is not in npu-smi's table (it has %s); %s" % (
                own, listed, "%s names it, change that" % VISIBLE if visible else "pass another --device, or --soc-version")
        found[number] = by_number[own]
    return found, ""


def health_problem(number, chip):
    return "" if chip["health"] == "OK" else "device %d (%s) is not healthy, npu-smi says %s; pass another --device" % (
        number, chip["chip"], chip["health"] or "nothing")


def the_soc_version(wanted):
    table, problem = ask_npu_smi()
    chips = read_table(table)
    if not problem and not chips:
        problem = "npu-smi info shows no device"
    if problem:
        fail("%s; or %s" % (problem, PASS_SOC))
    devices, problem = find_devices(chips, wanted)
    names = sorted({chip["chip"] for chip in devices.values()})
    if not problem and len(names) > 1:
        problem = "%s different chips (%s); pass --device, of one kind, or --soc-version" % (
            "these devices are" if wanted else "this machine has", ", ".join("%d %s" % (n, devices[n]["chip"]) for n in devices))
    devices = devices if wanted else {number: devices[number] for number in sorted(devices)[:1]}
    problem = problem or next(filter(None, (health_problem(*pair) for pair in sorted(devices.items()))), "")
    if problem:
        fail(problem if PASS_SOC[5:] in problem or "--soc-version" in problem else "%s, or %s" % (problem, PASS_SOC[5:]))
    if soc_version_of(names[0]) is None:
        fail("npu-smi calls the chip %s, which does not tell its soc version; %s" % (names[0], PASS_SOC.replace("310P3", "910B4")))
    print(soc_version_of(names[0]))


def everything_known(wanted):
    table, _ = ask_npu_smi()
    devices, _ = find_devices(read_table(table), wanted)
    devices = [dict({key: chip[key] for key in ("npu", "chip", "health")}, device=number, soc_version=soc_version_of(chip["chip"]))
               for number, chip in devices.items()]
    return {"devices": devices, "cann": ascend.cann_version(), "driver": driver_version(table),
            "firmware": ascend.version_in(["/usr/local/Ascend/firmware/version.info"]),
            "ais_bench": machine.version("ais_bench") or "unknown", "aclruntime": machine.version("aclruntime") or "unknown"}


def driver_version(table):
    banner = re.search(r"npu-smi.*Version:\s*([^\s|]+)", table)
    return banner.group(1) if banner else ascend.version_in(["/usr/local/Ascend/driver/version.info"])


# ---- the doctor: generators of (thing, level, text); level: "ok", "warning" where it may still work, "error" where it cannot ----

def check_card(wanted):
    table, problem = ask_npu_smi()
    chips = read_table(table)
    if problem or not chips:
        yield "driver", "warning", problem or "npu-smi info shows no device; see its driver, or " + MOUNT
    else:
        yield "driver", "ok", "%s, %d devices" % (driver_version(table), len(chips))
    denied = [path for path in sorted(glob.glob(DEVICE_FILES)) if not os.access(path, os.R_OK | os.W_OK)]
    if denied:
        yield "device files", "error", "%s: no permission; usermod -a -G HwHiAiUser USER, then log in again" % denied[0]
    devices, problem = find_devices(chips, wanted) if chips else ({}, "")
    if problem:
        yield "devices", "error", problem
    if len({chip["chip"] for chip in devices.values()}) > 1 and wanted:
        yield "devices", "error", "are different chips; pass --device of one kind"
    for number, chip in sorted(devices.items()):
        thing, problem = "device %d" % number, health_problem(number, chip)
        if problem:
            yield thing, "warning" if chip["health"] == "Warning" or not wanted else "error", problem
        elif chip["memory"] and chip["memory"][1] - chip["memory"][0] < FREE_MEMORY_MB:
            held = ", ".join(processes_on(table, chip["npu"])) or "npu-smi info shows by whom"
            yield thing, "warning", "%d of %d MB are in use (%s); end that, or pass another --device" % (*chip["memory"], held)
        else:
            yield thing, "ok", "%s, healthy%s" % (chip["chip"], ", %d of %d MB in use" % tuple(chip["memory"]) if chip["memory"] else "")


def check_cann(chips):
    """CANN, and what of its Python does not go with it. chips: names, as npu-smi shows them."""
    version = ascend.cann_version()
    if shutil.which("atc"):
        yield "CANN", "ok", version
    else:
        try:
            yield "CANN", "error", "atc is not on PATH; source %s" % ascend.set_env()
        except command.Failure as error:
            yield "CANN", "error", "atc is not on PATH, and %s" % error
    if ascend.release(version) and ascend.release(version) >= (8, 5):  # from there on the operators are a package of their own
        kernels = [os.path.join(home, "opp/built-in/op_impl/ai_core/tbe/kernel") for home in ascend.cann_homes()]
        homes = [path for path in kernels if os.path.isdir(path)][:1]
        for name in sorted({re.match(r"\d+[A-Z]?", chip).group().lower() for chip in chips if soc_version_of(chip)}):
            if homes and not glob.glob(os.path.join(glob.escape(homes[0]), "ascend%s*" % name)):
                yield "operators", "warning", "%s has none for ascend%s; install Ascend-cann-%s-ops of CANN %s" % (
                    homes[0], name, name, version)
    yield from check_python(version)


def check_python(version):
    program = shutil.which("python3") or sys.executable
    process = subprocess.run([program, "-c", PROBE] + list(ascend.MODULES), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    if process.returncode:
        yield "CANN's Python", "error", "%s does not run: %s" % (program, one_line(process.stderr.decode("utf-8", "replace"), 200))
        return
    python, numpy, protobuf, lacking = json.loads(process.stdout.decode())
    newest, numpy_below, protobuf_like = ascend.together(version)
    name = "Python %d.%d.%d (%s)" % (*python, program)
    install = "%s -m pip install -r requirements-ascend.txt" % program
    if newest and not (3, 7) <= tuple(python[:2]) <= newest:
        yield "CANN's Python", "warning", "%s: CANN %s takes 3.7 to %d.%d; put one of these first on PATH" % (name, version, *newest)
    else:
        yield "CANN's Python", "ok", name
    if numpy and numpy_below and int(numpy.split(".")[0]) >= numpy_below and tuple(python[:2]) < (3, 13):
        yield "numpy", "error", "%s: CANN %s compiles with a numpy below %d; %s" % (numpy, version, numpy_below, install)
    elif numpy:
        yield "numpy", "ok", numpy
    if protobuf and protobuf_like and not protobuf.startswith(protobuf_like + "."):
        yield "protobuf", "warning", "%s: CANN %s names %s; %s" % (protobuf, version, protobuf_like, install)
    elif protobuf:
        yield "protobuf", "ok", protobuf
    lacking = [ascend.MODULES[module] for module in lacking] + ([] if numpy else ["numpy"])
    yield ("modules", "warning", "CANN's compiler imports %s, not installed; %s" % (", ".join(lacking), install)) if lacking else \
        ("modules", "ok", "all that CANN's compiler imports")


def check_ais_bench():
    """In processes of their own: a compiled package that does not fit can end its process."""
    versions = {package: machine.version(package) for package in ("ais_bench", "aclruntime")}
    for package, version in versions.items():
        process = subprocess.run([sys.executable, "-c", "import " + package], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        said = process.stderr.decode("utf-8", "replace")
        built = [re.search(r"cpython-3(\d+)", name) for folder in sys.path for name in glob.glob(
            os.path.join(glob.escape(folder), package + ".cpython-*.so"))]
        built = sorted({int(found.group(1)) for found in built if found})
        if not process.returncode:
            yield package, "ok", version or "of unknown version"
        elif built and sys.version_info[1] not in built:
            yield package, "error", "is built for Python 3.%d, this one (%s) is 3.%d; install its wheel for this Python" % (
                built[0], sys.executable, sys.version_info[1])
        elif "No module named '%s'" % package in said:
            yield package, "error", "is not installed in this Python (%s); pip install msit, then msit install benchmark" % sys.executable
        else:
            last = (said.strip().splitlines() or ["exit code %d" % process.returncode])[-1]
            yield package, "error", "is installed but does not load in this Python (%s): %s; %s" % (
                sys.executable, one_line(last, 200), ascend.explain(said) or "CANN's set_env.sh may not have been sourced")
    if None not in versions.values() and len(set(versions.values())) > 1:
        yield "ais_bench", "warning", "is %(ais_bench)s and aclruntime %(aclruntime)s; install both of one release" % versions


def check_disk():
    free = shutil.disk_usage(".").free
    if free < PREPARED_BYTES:
        yield "disk", "warning", ("%.0f GB are free here, prep_dataset of 50000 images takes 30; free some, "
                                  "or --dtype uint8, which takes 7.5" % (free / 1e9))
    else:
        yield "disk", "ok", "%.0f GB are free here" % (free / 1e9)


def check(wanted, quick, for_atc):
    """Print the findings; returns the exit code."""
    findings = [] if quick and for_atc else list(check_card(wanted)) + list(check_ais_bench())
    if not quick or for_atc:
        chips = numbered(read_table(ask_npu_smi()[0]))
        findings += check_cann([chip["chip"] for chip in chips])
    if not quick:
        for thing, level, text in findings + list(check_disk()):
            print("%s: %s" % (thing, one_line("%s%s" % ("ok, " if level == "ok" else "", text))))
        return int(any(level != "ok" for _, level, _ in findings))
    for thing, level, text in findings:
        if level != "ok":
            sys.stderr.write("%s: %s: %s\n" % (level, thing, one_line(text)))
    return int(any(level == "error" for _, level, _ in findings))


def main():
    def numbers(text):
        if not re.match(r"[0-9]{1,3}(,[0-9]{1,3})*$", text):
            raise argparse.ArgumentTypeError("%r is no number of a device" % text)
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description="What this host has of Ascend, as JSON, and what of it is wrong.")
    parser.add_argument("--device", metavar="N", type=numbers, help="only these devices, separated by commas (default: all)")
    parser.add_argument("--quick", action="store_true", help="with --check: only what is wrong with an inference")
    parser.add_argument("--compile", action="store_true", help="with --check --quick: only what is wrong with atc")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="the doctor: exit code 0 only when all is well")
    what.add_argument("--soc-version", action="store_true", help="print the soc version of the devices (default: 0) alone")
    what.add_argument("--can-infer", action="store_true", help="print nothing; exit code 0 if ais_bench and aclruntime import")
    what.add_argument("--set-env", action="store_true", help="print the path of CANN's set_env.sh")
    args = parser.parse_args()
    if args.check:
        return check(args.device, args.quick, args.compile)
    if args.can_infer:
        problems = ["%s %s" % (thing, text) for thing, level, text in check_ais_bench() if level == "error"]
        return fail("; ".join(problems)) if problems else 0
    if args.soc_version:
        the_soc_version(args.device)
    else:
        print(ascend.set_env() if args.set_env else json.dumps(everything_known(args.device), indent=2))
    return 0


if __name__ == "__main__":
    command.run(main)
