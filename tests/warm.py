"""conftest's script, succeeds and fails for scripts that need numpy alone, at a tenth of their cost.

Each run is a process of its own that executes the whole file as python3 does, with files for its output: a fork of a
process that has imported numpy and tqdm. Starting Python and importing those is most of what a short run costs.
"""
import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile

import conftest

server = None


def serve():
    """Runs what lines of JSON on stdin ask for: [words, file for stdout, file for stderr, seconds]; answers with exit codes."""
    import numpy  # noqa: F401
    import tqdm  # noqa: F401
    for line in iter(sys.stdin.readline, ""):
        words, stdout, stderr, seconds = json.loads(line)
        child = os.fork()
        if not child:
            for fd, path in enumerate((os.devnull, stdout, stderr)):
                os.dup2(os.open(path, os.O_RDWR), fd)
            signal.alarm(seconds)  # ends what hangs
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
            return
        status = os.waitpid(child, 0)[1]
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def script(name, *arguments, timeout=60):
    """Run one of the scripts; returns the finished process with its text output."""
    global server
    if server is None:
        server = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  encoding="utf-8")
        atexit.register(server.communicate)  # it ends with its stdin
    words = [os.path.join(str(conftest.REPOSITORY), name)] + [os.fspath(argument) for argument in arguments]
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        server.stdin.write(json.dumps([words, stdout.name, stderr.name, timeout]) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, *(file.read().decode("utf-8", "replace") for file in (stdout, stderr)))


succeeds = functools.partial(conftest.succeeds, run=script)
fails = functools.partial(conftest.fails, run=script)

if __name__ == "__main__":
    serve()
