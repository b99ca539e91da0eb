#!/usr/bin/env python3
"""What this host has of Ascend: chips and their health from npu-smi, versions from CANN's files and the installed packages.

    python3 tools/npu_info.py                            # JSON; "unknown" where nothing tells
    python3 tools/npu_info.py --device 0,1
    python3 tools/npu_info.py --device 0 --soc-version   # the one word that atc wants
    python3 tools/npu_info.py --can-infer                # do ais_bench and aclruntime import in this Python?

Exit code 0: told; 1: it cannot be told, a sentence says why and what to do; 2: wrong usage.
"""
import os
import sys

sys.path[:] = [entry for entry in sys.path if entry]  # of a PYTHONPATH with an empty entry: not the current folder's re.py

import argparse  # noqa: E402
import glob  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402

REMEDY = "pass --soc-version, for example --soc-version Ascend310P3"
CANN_HOMES = ["/usr/local/Ascend/ascend-toolkit/latest", "~/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann"]
CANN_FILES = ["ascend_toolkit_install.info", "*-linux/ascend_toolkit_install.info", "version.cfg", "version.info",
              "compiler/version.info", "runtime/version.info"]
MOST = 1 << 20  # bytes of a version file or a table


def fail(message):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(1)


def ask_npu_smi():
    """(the table, None) or (None, what is wrong)."""
    try:
        process = subprocess.run(["npu-smi", "info"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=60)
    except FileNotFoundError:
        return None, "npu-smi: not found; install the driver"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, "npu-smi info does not answer (%s)" % error
    said = process.stdout[:MOST].decode("utf-8", "replace")
    if process.returncode:
        return None, "npu-smi info failed (exit code %d): %s" % (process.returncode, said[:200])
    return said, None


def read_table(table):
    """[{device, npu, chip, health}] in the order of the table; device is None in layouts without a Device column.

    Two rows a device, "NPU Name | Health" and "Chip Device | Bus-Id"; headers, widths and further columns differ.
    """
    chips, npu = [], None
    for line in table.splitlines():
        if "Process" in line:
            break  # the table of processes, whose rows begin with a number too
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.strip().startswith("|") or len(cells) < 2:
            continue
        if npu is None:
            first = re.match(r"(\d+)\s+(\S+)$", cells[0])
            npu = {"npu": int(first.group(1)), "chip": first.group(2), "health": cells[1]} if first else None
        else:
            second = re.match(r"\d+(?:\s+(\d+))?$", cells[0])
            if second:
                chips.append(dict(npu, device=int(second.group(1)) if second.group(1) else None))
            npu = None
    return chips


def soc_version_of(chip):
    """Ascend and the name, or None where the name is a family's or none at all."""
    return "Ascend" + chip if re.match(r"\d[A-Za-z0-9_-]*$", chip) and chip != "910" else None


def find_devices(chips, wanted):
    """The chips of the wanted device numbers, all for None; numbers that are not there are left out.

    Without a Device column the devices count in the order of the table; a container's may show its NPU's own number alone.
    """
    numbered = [dict(chip, device=place if chip["device"] is None else chip["device"]) for place, chip in enumerate(chips)]
    if wanted is None:
        return numbered
    found = []
    for number in wanted:
        found += [chip for chip in numbered if chip["device"] == number] or \
            [dict(chip, device=number) for chip in chips if chip["device"] is None and chip["npu"] == number]
    return found


def the_soc_version(wanted):
    table, wrong = ask_npu_smi()
    if wrong:
        fail("%s; or %s" % (wrong, REMEDY))
    chips = read_table(table)
    if not chips:
        fail("npu-smi info shows no device; " + REMEDY)
    everything = find_devices(chips, None)
    listed = ", ".join("%d %s" % (chip["device"], chip["chip"]) for chip in everything)
    if wanted is None and len({chip["chip"] for chip in chips}) > 1:
        fail("this machine has different chips (%s); pass --device or --soc-version" % listed)
    wanted = wanted or [0]
    for number in wanted:
        found = find_devices(chips, [number])
        if not found:
            fail("device %d is not in npu-smi's table (it has %s); pass another --device, or --soc-version" % (number, listed))
        if found[0]["health"] != "OK":
            fail("device %d (%s) is not healthy, npu-smi says %s; pass another --device, or %s"
                 % (number, found[0]["chip"], found[0]["health"] or "nothing", REMEDY[5:]))
        if soc_version_of(found[0]["chip"]) is None:
            fail("npu-smi calls the chip %s, which does not tell its soc version; %s" % (
                found[0]["chip"], REMEDY.replace("310P3", "910B4")))
    words = {soc_version_of(chip["chip"]) for chip in find_devices(chips, wanted)}
    if len(words) > 1:
        fail("the devices %s are different chips (%s)" % (",".join(map(str, wanted)), " ".join(sorted(words))))
    print(words.pop())


def version_in(paths):
    """The first version=… (or Version: …) in the files of these names, of which most hosts have one."""
    for path in paths:
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8", errors="replace") as file:
                found = re.search(r"(?im)^\s*(?:\w*version)\s*[=:]\s*\[?([^\s\],:]+)", file.read(MOST))
        except OSError:
            continue
        if found:
            return found.group(1)
    return "unknown"


def package_version(package):
    """By the folders that installers leave on sys.path: importlib.metadata came with Python 3.8."""
    for folder in sys.path:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), package + "-*-info"))):
            return os.path.basename(path).split("-")[1].replace(".dist", "").replace(".egg", "")
    return "unknown"


def cann_version():
    homes = [os.environ[key] for key in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if os.environ.get(key)]
    homes += [os.path.expanduser(home) for home in CANN_HOMES]
    return version_in(path for home in homes for name in CANN_FILES
                      for path in sorted(glob.glob(os.path.join(glob.escape(home), name))))


def everything_known(wanted):
    table, _ = ask_npu_smi()
    banner = re.search(r"npu-smi.*Version:\s*([^\s|]+)", table or "")
    devices = [dict(chip, soc_version=soc_version_of(chip["chip"])) for chip in find_devices(read_table(table or ""), wanted)]
    return {"devices": devices, "cann": cann_version(),
            "driver": banner.group(1) if banner else version_in(["/usr/local/Ascend/driver/version.info"]),
            "firmware": version_in(["/usr/local/Ascend/firmware/version.info"]),
            "ais_bench": package_version("ais_bench"), "aclruntime": package_version("aclruntime")}


def can_infer():
    """In a process of its own: a compiled package that does not fit can end its process."""
    source = "import sys; sys.path[:] = [entry for entry in sys.path if entry]\nimport %s"
    missing = []
    for package in ("ais_bench", "aclruntime"):
        process = subprocess.run([sys.executable, "-c", source % package], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        if process.returncode:
            absent = b"No module named '%s'" % package.encode() in process.stderr
            missing.append("%s is %s" % (package, "not installed" if absent else "installed but does not load"))
    if missing:
        fail("%s in this Python (%s); CANN's set_env.sh may not have been sourced" % (" and ".join(missing), sys.executable))


def main():
    def numbers(text):
        if not re.match(r"[0-9]{1,3}(,[0-9]{1,3})*$", text):
            raise argparse.ArgumentTypeError("%r is no number of a device" % text)
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description="What this host has of Ascend, as JSON.")
    parser.add_argument("--device", metavar="N", type=numbers, help="only these devices, separated by commas (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--soc-version", action="store_true", help="print the soc version of the device (default: 0) alone")
    what.add_argument("--can-infer", action="store_true", help="print nothing; exit code 0 if ais_bench and aclruntime import")
    args = parser.parse_args()
    if args.can_infer:
        can_infer()
    elif args.soc_version:
        the_soc_version(args.device)
    else:
        print(json.dumps(everything_known(args.device), indent=2))


if __name__ == "__main__":
    main()
