"""What this machine is: its CPUs, and the versions of the packages in this Python, none of which is imported for it."""
import functools
import os
import platform
import re
import sys


def cpus():
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


@functools.lru_cache(maxsize=None)
def cpuinfo(pattern):
    """What /proc/cpuinfo says by a pattern's group, or None; aarch64 kernels give no name of the CPU."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        found = re.search(pattern, file.read(), re.M)
    return found.group(1).strip() if found else None


def cpu_name():
    return cpuinfo(r"^(?:model name|Hardware)\s*: *(.+)$") or platform.processor() or platform.machine()


def description():
    """The machine in a line, as the summaries have it."""
    return "%s, %s, %d CPUs" % (cpu_name(), platform.machine(), os.cpu_count())


def has_vnni():
    """Whether 8-bit products are summed in 32 bits; None where that cannot be told (no x86)."""
    flags = (cpuinfo(r"^flags\s*:(.*)$") or "").split()
    return bool({"avx512_vnni", "avx_vnni"} & set(flags)) if flags else None


@functools.lru_cache(maxsize=None)
def packages():
    """{package: version} by the folders that installers leave on sys.path; importlib.metadata came with Python 3.8 only."""
    versions = {}
    for folder in filter(os.path.isdir, sys.path):
        for name in os.listdir(folder):
            found = re.match(r"(.+?)-([^-]+).*\.(?:dist|egg)-info$", name)
            if found:  # the first on sys.path is the one that is imported
                versions.setdefault(re.sub(r"[-_.]+", "_", found.group(1)).lower(), found.group(2))
    return versions


def version(package):
    """The version of an installed package, or None; of onnxruntime also by its other names (onnxruntime-gpu ...)."""
    known = packages()
    return known.get(package) or next((known[name] for name in sorted(known) if name.startswith(package + "_")), None)
