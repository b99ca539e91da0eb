"""The installed ais_bench and aclruntime: how they are started, what the front end spells and refuses, and why they failed."""
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

from common import ascend, command, files, machine
from common.command import fail, one_line
from common.npu_smi import VISIBLE

MOST_LOOPS = 100000  # of newer front ends
STRANGE = re.compile(r"[^A-Za-z0-9_./-]")  # what newer ones refuse in paths
# Lines that say why: of its log, of CANN (EE9999 ..., E10016), of Click's frame, and an exception with words.
TELLING = re.compile(r"\[ERROR\]|E[A-Z0-9]\d{4}\b|No such option|Got unexpected|Invalid value|[\w.]*(Error|Exception)\b\W*\w")
PROGRESS = re.compile(r"\d%\||\dit/s|s/it")
# In a process of its own, since loading the compiled package or the model can end it.
ASK_OM = """import sys; sys.path[:] = [entry for entry in sys.path if entry]
import aclruntime, json
session = aclruntime.InferenceSession(sys.argv[1], int(sys.argv[2]), aclruntime.session_options())
with open(sys.argv[3], "w") as file:
    json.dump([[[value.name, list(value.shape), value.realsize] for value in values]
               for values in (session.get_inputs(), session.get_outputs())], file)
"""

# separator: of the words of an option; divide: the words that divide the input among devices; strict: whether it looks at paths
FrontEnd = collections.namedtuple("FrontEnd", "separator divide strict")


def versions():
    return {name: machine.version(name) for name in ("ais_bench", "aclruntime")}


def run_python(words, folder, output=None):
    """(exit code, what it wrote) of Python in a folder of its own: before 3.11 it imports from the current one first.

    output: it holds this Output's lock as long as it lives, maybe longer than we, and its standard output appears as it comes.
    """
    # No entry of PYTHONPATH may mean the current folder, whose re.py would then be Python's; CANN's set_env.sh leaves one.
    entries = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entries), PYTHONSAFEPATH="1")
    out, err = (os.path.join(folder, name) for name in ("stdout", "stderr"))
    with open(out, "wb") as written, open(err, "wb") as errors, open(out, "rb") as reader:
        process = None
        try:
            with command.stops_held():  # one inside Popen would leave it running
                process = subprocess.Popen([sys.executable] + list(words), cwd=folder, env=environment, stdout=written,
                                           stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True,
                                           pass_fds=[output.held] if output else [])
            if output:
                os.write(output.held, b" %d" % process.pid)
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if output:
                    sys.stdout.write(reader.read().decode("utf-8", "replace"))
                    sys.stdout.flush()
        finally:
            if process:
                end(process)
    return process.returncode, "\n".join(files.read(path)[-20000:].decode("utf-8", "replace") for path in (out, err))


def end(process):
    """The process group, since ais_bench starts a process a device."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(5)


def reason(code, text):
    """How a Python ended, the last lines of what it wrote that say why, and what they mean."""
    lines = []
    for line in text.replace("\r", "\n").splitlines():
        in_frame, line = line.startswith("\u2502"), re.sub("[\u2500-\u257f]", " ", line).strip()
        # Newer ones draw a frame around Click's words, but also around the source code that an exception passed.
        if TELLING.match(line) or line and not in_frame and not PROGRESS.search(line):
            lines.append(line)
    telling = list(dict.fromkeys(line for line in lines if TELLING.match(line)))[-4:]
    if not telling and code > 0:  # an exception without words: at least where it was raised
        functions = re.findall(r"(?:line \d+,|:\d+) in (\w+)", text)
        telling = [line + (" in %s()" % functions[-1] if functions else "") for line in lines[-1:]]
    said = ["failed with exit code %d" % code if code >= 0 else "was ended by signal %d" % -code]
    said[0] += ": " + one_line(" | ".join(telling), 900) if telling else ""
    said += ["the memory may have run out"] if code == -signal.SIGKILL else []
    said += list(filter(None, [ascend.explain("\n".join(lines))]))
    said += ["--device counts within %s=%s" % (VISIBLE, os.environ[VISIBLE])] if os.environ.get(VISIBLE) else []
    return "; ".join(said)


def ask_front_end(folder, several):
    """What the installed front end takes, by its exit codes: its help is prose, and cut to the terminal's width.

    Before --help argparse passes over an unknown option, and stops with 2 at a known one without its value or with a wrong one.
    Click stops with 2 at an unknown one, and an option that wants a value takes --help for it.
    """
    def code(*words):
        return run_python(("-m", "ais_bench") + words + ("--help",), folder)[0]

    known, text = run_python(("-m", "ais_bench", "--no_option_of_ais_bench", "--help"), folder)
    if known not in (0, 2):
        fail("python3 -m ais_bench %s; source CANN's set_env.sh, and install ais_bench and aclruntime for %s"
             % (reason(known, text), sys.executable))
    divide = []
    if known == 2:  # on Click, all of which look at paths
        separator = "_" if code("--output_dirname", "1") == 0 else "-"
        name = "--divide%sinput" % separator
        if several:
            divide = [name] if code(name) == 0 else [name, "1"] if code(name, "1") == 0 else []
        return FrontEnd(separator, divide, True)
    separator = "_" if code("--output_dirname") == 2 else "-"
    name = "--divide%sinput" % separator
    if several:
        divide = [name, "1"] if code(name) == 2 else [name] if code(name + "=:") == 2 else []
    return FrontEnd(separator, divide, code("--output=:") == 2)


def ask_om(path, device, folder):
    """([[(name, shape, bytes) ...] of an .om's inputs and of its outputs] as aclruntime sees them on a device, "") or
    (None, why not)."""
    answer = os.path.abspath(os.path.join(folder, "answer"))
    code, text = run_python(("-c", ASK_OM, os.path.abspath(path), str(device), answer), folder)
    if code:
        return None, "aclruntime, which opens it on device %s, %s" % (device, reason(code, text))
    return json.loads(files.read(answer).decode()), ""


def check_paths(om, folder, inputs):
    """Exit where newer front ends refuse what they are to read or write, before they do."""
    paths = [om, folder] + [each.path for each in (inputs.files if inputs else [])]
    if inputs and os.path.isdir(inputs.path):
        paths += [inputs.path] + [os.path.join(inputs.path, name) for name in sorted(os.listdir(inputs.path))]
    for path in paths:
        state = os.lstat(path)
        for refused, problem in (
                (STRANGE.search(os.path.abspath(path)), "takes only A-Z a-z 0-9 _ - / . in paths; name another place"),
                (stat.S_ISLNK(state.st_mode), "refuses it, since it is a link; name or copy what it points to"),
                (state.st_uid != os.geteuid() and state.st_gid not in os.getgroups(), "refuses another's files; make it yours"),
                (state.st_mode & (stat.S_IWGRP | stat.S_IWOTH), "refuses what others may write; chmod -R go-w it"),
                (not state.st_mode & stat.S_IRUSR, "cannot read it; chmod u+r it")):
            if refused:
                fail("%s: this ais_bench %s" % (os.path.abspath(path), problem))


def linked(inputs, folder, strict):
    """A folder with just these files: ais_bench takes a whole folder, or no more names than fit a command line."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o750)
    for each in inputs.files:
        target = os.path.join(folder, each.name + each.path[-4:].lower())
        try:
            (os.link if strict else os.symlink)(os.path.realpath(each.path), target)  # newer ones refuse symbolic links
        except OSError:  # another file system, or another's file
            shutil.copyfile(each.path, target)
    return folder
