"""Ascend's software: where CANN lies, which it is, which versions go together, what its messages mean; each with its source."""
import glob
import os
import re

from common.command import fail

# Where CANN's installers put their environment: as root and as a user, up to 8.3 and since 8.5
# (hiascend.com, CANN 8.0 and 9.1, softwareinst/instg/instg_0054 and instg_0053).
SET_ENV = [root + "/Ascend/" + name + "/set_env.sh" for name in ("ascend-toolkit", "cann") for root in ("/usr/local", "~")]
VERSION_FILES = ["ascend_toolkit_install.info", "*-linux/ascend_toolkit_install.info", "version.cfg", "version.info",
                 "compiler/version.info", "runtime/version.info"]


def set_env():
    """The path of CANN's set_env.sh; exits with the places tried where there is none. ASCEND_SET_ENV names another."""
    own = os.environ.get("ASCEND_SET_ENV")
    paths = [own] if own else [os.path.expanduser(path) for path in SET_ENV]
    for path in paths:
        if os.path.isfile(path):
            return path
    return fail("no set_env.sh of CANN at any of: %s; source yours first, or set ASCEND_SET_ENV to its path" % " ".join(paths))


def cann_homes():
    """Folders that CANN may be installed in, the one of this shell's environment first."""
    homes = [os.environ[key] for key in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if os.environ.get(key)]
    paths = [os.path.dirname(os.path.expanduser(path)) for path in SET_ENV]
    return homes + [os.path.join(path, "latest") if path.endswith("toolkit") else path for path in paths]


def version_in(paths):
    """The first version=... in the files of these names, of which most hosts have one; "[internal:8.1.RC1]" is 8.1.RC1."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(r"(?im)^\s*\w*version\s*[=:]\s*(?:\[[^:\]\n]*:)?\[?([^\s\],:]+)", file.read(1 << 20))
        except OSError:
            continue
        if found:
            return found.group(1)
    return "unknown"


def cann_version():
    """As CANN's own files say it, or "unknown". Since 8.5 its folder is cann-8.5.0, and cann a link to it."""
    homes = cann_homes()
    version = version_in(path for home in homes for name in VERSION_FILES
                         for path in sorted(glob.glob(os.path.join(glob.escape(home), name))))
    names = [re.match(r"cann-(\d.+)", os.path.basename(os.path.realpath(home))) for home in homes if os.path.isdir(home)]
    return next((name.group(1) for name in names if name), version)


def release(version):
    """(8, 1) of "8.1.RC1"; None of what is no release's name, such as the parts' own 7.7.0.5.238, of which nothing is claimed."""
    found = re.match(r"(\d+)\.(\d+)(\.(RC)?\d+){0,2}([.-](alpha|beta).*)?$", version)
    return found and (int(found.group(1)), int(found.group(2)))


# {CANN from here on: (newest Python, numpy below, protobuf)}; all take Python 3.7 and numpy 1.19.2 upwards. Huawei's lists of
# dependencies: 6.0 pies_00007 of the ModelZoo, 6.2 instg_000025, later ones instg_0045. Up to 8.3 they say numpy to 1.24;
# vllm-ascend runs there on 1.26, not on 2 (its issues 1875 and 2210). On 8.1 a user of a 910B3 saw Python 3.11 fail.
TOGETHER = {(6, 0): ((3, 9), 2, None), (6, 2): ((3, 10), 2, None), (8, 0): ((3, 11), 2, "3.20"), (8, 1): ((3, 10), 2, "3.20"),
            (8, 2): ((3, 11), 2, "3.20"), (8, 5): ((3, 13), 2, "3.20"), (9, 0): ((3, 13), None, "3.20"),
            (9, 1): ((3, 14), None, None)}
# What CANN's compiler imports, and the package that has it: the same lists, and cloudpickle, which its TVM wants.
MODULES = {"decorator": "decorator", "attr": "attrs", "psutil": "psutil", "absl": "absl-py", "cloudpickle": "cloudpickle",
           "scipy": "scipy", "sympy": "sympy", "google.protobuf": "protobuf", "cffi": "cffi", "yaml": "pyyaml",
           "requests": "requests"}


def together(version):
    """(newest Python, numpy below, protobuf) of a CANN; None each where nothing is known."""
    rows = [row for row in sorted(TOGETHER) if release(version) and row <= release(version)]
    return TOGETHER[rows[-1]] if rows else (None, None, None)


INSTALL = "python3 -m pip install -r requirements-ascend.txt, into the python3 that CANN uses"
DOCTOR = "python3 tools/npu_info.py --check tells more"
LOG = "CANN's log, ~/ascend/log by default, is what Huawei's support asks for"


def acl(codes):
    """ACL's numbers, in a line that speaks of an error: "acl ret 507033", "runtime result = 507033", "error code is 507033"."""
    return r"(?:acl|ret|code|result|err|fail)[^\n]*\b(?:%s)\b" % codes


# What is printed, what it means and what to do; the first that is found counts. The sources: Huawei's pages on each E... code
# (atlaserrorcode_15_*, CANN 6.0 to 9.1) and on ACL's numbers (aclError, aclcppdevg_03_1345); others stand beside it.
MESSAGES = [
    (r"np\.float_|NumPy 2\.0",  # vllm-ascend issues 1875 and 2210
     "this CANN's compiler does not run with numpy 2: " + INSTALL),
    (r"FrameLocalsProxy",  # seen on a 910B3 with CANN 8.1.RC1
     "this Python is too new for this CANN's compiler: put one first on PATH that this CANN names; " + DOCTOR),
    (r"No module named '(?:ais_bench|aclruntime)\b",
     "ais_bench or aclruntime is not in this Python: pip install msit, then msit install benchmark, with this Python"),
    (r"No module named '(?:te|tbe|acl|topi)\b",  # mindspore.cn, FAQ on inference
     "CANN's own Python packages are not found: source its set_env.sh"),
    (r"E40001|E40020|EC0010", "CANN's compiler cannot import a Python module: " + INSTALL),
    (r"No module named '",
     "a Python module is missing: install it there; what CANN's compiler imports is in requirements-ascend.txt"),
    (r"undefined symbol: \w*(?:acl|ge)",  # hiascend.com forum, thread 0255146021135639004
     "aclruntime was built for another CANN: install the one of this CANN, or build it here"),
    (r"libascendcl\.so[.\w]*: cannot open shared object",  # mxmanufactureug_1128, toolboxug_0097
     "CANN's libraries are not found: source its set_env.sh"),
    (r"E10001.*host.env.os",  # forum, thread 0276135144600098026; atlasatcparam_16_0033; CANN 8.5, instg_0054
     "atc finds no operators for this system (opp/scene.info): install the operator package Ascend-cann-CHIP-ops of the "
     "same version, or the toolkit again, and source only that one's set_env.sh"),
    (r"E10001.*soc_version",
     "atc does not know this chip: pass --soc-version Ascend and the name that npu-smi info shows, or install a newer CANN"),
    (r"E10016",
     "--input_shape names no input of the graph: it must be the ONNX file's own name of it, which run_atc.sh takes"),
    (r"E19010.*ai\.onnx::",  # forum, threads 02108171386292261156 and 0254120972588088008
     "the graph's opset is newer than this CANN: export with an older one (resnet34_pth2onnx.py writes 11), or a newer CANN"),
    (r"E19010|E16002",
     "the graph has an operator that this CANN cannot read: export it with resnet34_pth2onnx.py, or install a newer CANN"),
    (r"EE1001.*VISIBLE_DEVICES|invalid device|" + acl("107001|207004"),  # gpustack issue 3352; envref_07_0028
     "there is no such device: --device counts from 0, and within ASCEND_RT_VISIBLE_DEVICES where that is set"),
    (r"no input for device|get list part failed",  # ais_bench 0.0.2's, and newer ones', own
     "there are fewer images than devices: name fewer with --device"),
    (r"EL0004|EL0019|EI0007|out of memory|" + acl("200000|207001|207018|24500[02]"),
     "the memory is used up: end what npu-smi info shows on the device, or take another --device or a smaller batch size"),
    (r"EE1015", "the driver is too old for this CANN: upgrade it"),
    (acl("207006"), "no permission for the device: usermod -a -G HwHiAiUser USER, then log in again"),
    (acl("507033"),  # vllm-ascend issue 4284, Ascend/samples issues 16 and 21
     "the device did not start: npu-smi info shows its health and who holds it; driver and CANN must go together; " + DOCTOR),
    (acl("507899"), "the driver failed: driver and CANN must go together; " + DOCTOR),
    (acl("507011"), "the model failed while it ran on the device: npu-smi info shows its health; " + LOG),
    (acl("10001[2356]|145006"),
     "the .om does not go with this CANN, or is damaged: compile it again on this host with run_atc.sh"),
    (acl("100024"),
     "the model has an operator that this host lacks: install the operator package of this chip and CANN, and compile again"),
    (r"E40021",
     "an operator could not be compiled; its Python lines say why, mostly versions that do not go together; " + DOCTOR),
    (acl("107002"), "no device is open: what was said before it is the reason; " + DOCTOR),
    (r"\bE[\dA-Z]9999\b|" + acl("500002"),  # atlaserrorcode_15_0314
     "an internal error of CANN: the lines around it say which; " + LOG),
]


def explain(text):
    """What the messages of atc, ACL, aclruntime or ais_bench mean and what to do, in a sentence; "" where that is not known."""
    return next((sentence for pattern, sentence in MESSAGES if re.search(pattern, text, re.I)), "")
