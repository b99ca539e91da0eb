#!/usr/bin/env python3
"""Print the versions of Python, CANN and the packages that can change a result, as one line.

    python3 tools/environment.py [--need MODULE ...]

run_infer.sh keeps the line with what each stage made: another Python behind the same name, or another package, makes it again.
Exit code 0: printed; 1: a module of --need is missing and is named; 2: wrong usage.
"""
import argparse
import importlib.util
import os
import platform
import re
import sys

import npu_info

PACKAGES = ("numpy", "pillow", "torch", "torchvision", "onnx", "onnxruntime", "ais_bench", "aclruntime", "amct_onnx")


def installed():
    """{package: version} by the folders that installers leave on sys.path; importlib.metadata came with Python 3.8 only."""
    versions = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            found = re.match(r"(.+?)-([^-]+).*\.(?:dist|egg)-info$", name)
            if found:  # the first on sys.path is the one that is imported
                versions.setdefault(re.sub(r"[-_.]+", "_", found.group(1)).lower(), found.group(2))
    return {name: version for name, version in sorted(versions.items())
            if name in PACKAGES or name.startswith("onnxruntime_")}


def main():
    parser = argparse.ArgumentParser(description="Print the versions of Python, CANN and the packages that can change a result.")
    parser.add_argument("--need", metavar="MODULE", nargs="*", default=[], help="modules that must be there")
    args = parser.parse_args()
    missing = [module for module in args.need if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit("error: %s has no %s; install with: %s -m pip install -r requirements.txt"
                 % (sys.executable, " ".join(missing), sys.executable))
    cann = npu_info.cann_version()
    versions = [("python", platform.python_version())] + list(installed().items()) + [("cann", cann)] * (cann != "unknown")
    print(", ".join("%s %s" % pair for pair in versions))


if __name__ == "__main__":
    main()
