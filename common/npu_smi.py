"""npu-smi: its table of devices, which of them --device means, and what it says when there is no table."""
import glob
import os
import re
import subprocess

from common.command import one_line

DEVICE_FILES = "/dev/davinci*"
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
JOIN_GROUP = "no permission; usermod -a -G HwHiAiUser USER, then log in again"
# As vllm-ascend's installation guide starts its containers.
MOUNT = ("start the container with --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm "
         "--device /dev/hisi_hdc -v /usr/local/dcmi:/usr/local/dcmi -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi "
         "-v /usr/local/Ascend/driver:/usr/local/Ascend/driver")


def run_program(*words):
    """(exit code, standard output, standard error) of a program that answers within a minute."""
    try:
        process = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return 124, "", "it does not answer within a minute"
    return process.returncode, process.stdout.decode("utf-8", "replace"), process.stderr.decode("utf-8", "replace")


def ask_npu_smi():
    """(the table, "") or ("", what is wrong and what to do)."""
    try:
        code, table, said = run_program("npu-smi", "info")
    except OSError:
        return "", "npu-smi: not found; " + (MOUNT if in_container() else "install the driver")
    if not code:
        return table, ""
    remedy = "%s: %s" % (denied_files()[0], JOIN_GROUP) if denied_files() else "see its driver: reload it, or install it again"
    if in_container():
        remedy = "another container may hold the device, or this one lacks it; " + MOUNT
    return "", "npu-smi info failed (exit code %d): %s; %s" % (code, one_line(said + table, 200), remedy)


def denied_files():
    return [path for path in sorted(glob.glob(DEVICE_FILES)) if not os.access(path, os.R_OK | os.W_OK)]


def in_container():
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv") or "KUBERNETES_SERVICE_HOST" in os.environ


def read_table(table):
    """[{device, others, npu, chip, health, memory}] in the order of the table; memory: [MB in use, MB], or None.

    Two rows a device, "NPU Name | Health" and "Chip Device | Bus-Id"; headers, widths and further columns differ. Without a
    Device column the devices count in the order of the table; others: a container's may show its NPU's own number alone.
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
                own = second.group(1)
                chips.append(dict(npu, device=int(own or len(chips)), others=[] if own else [npu["npu"]],
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


def find_devices(chips, wanted):
    """({device as --device counts: its chip}, what is wrong) of the wanted numbers; None: all that may be seen."""
    visible = re.match(r"[0-9,]*", os.environ.get(VISIBLE, "")).group()  # CANN, too, reads it up to what is no number
    visible = [int(number) for number in visible.split(",") if number]
    by_number = {number: chip for chip in reversed(chips) for number in chip["others"]}
    by_number.update((chip["device"], chip) for chip in reversed(chips))
    if wanted is None:
        wanted = range(len(visible)) if visible else [chip["device"] for chip in chips]
    found = {}
    for number in wanted:
        if visible and number >= len(visible):
            return found, "device %d: %s=%s leaves %d; pass another --device, or change that" % (
                number, VISIBLE, os.environ[VISIBLE], len(visible))
        own = visible[number] if visible else number
        if own not in by_number:
            return found, "device %d is not in npu-smi's table (it has %s); %s" % (
                own, ", ".join("%(device)d %(chip)s" % chip for chip in chips),
                "%s names it, change that" % VISIBLE if visible else "pass another --device")
        found[number] = by_number[own]
    return found, ""


def wrong_with(devices):
    """[(number, what is wrong)] of the {number: chip} that are to be used together."""
    wrong = [(number, "device %d (%s) is not healthy, npu-smi says %s; pass another --device" % (
        number, chip["chip"], chip["health"] or "nothing")) for number, chip in sorted(devices.items()) if chip["health"] != "OK"]
    if len({chip["chip"] for chip in devices.values()}) > 1:
        listed = ", ".join("%d %s" % (number, chip["chip"]) for number, chip in sorted(devices.items()))
        wrong.insert(0, (min(devices), "these are different chips (%s); pass --device with those of one kind" % listed))
    return wrong
