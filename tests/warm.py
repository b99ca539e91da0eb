"""A script's run at a tenth of its cost: in a fork of a Python that has already imported what the script will.

Each run is a process of its own that executes the whole file as python3 does, in its folder and with its own open files.
Starting Python and importing numpy, ONNX Runtime, matplotlib or torch is most of what a short run costs.
"""
import array
import atexit
import fcntl
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import warm_python

# What a server imports beforehand for a script.
MODULES = {"resnet34_pth2onnx.py": "torch torchvision onnx onnxruntime", "onnx_infer.py": "numpy tqdm onnx onnxruntime",
           "resnet34_quantize.py": "numpy tqdm onnx onnxruntime", "other": "numpy tqdm",
           "report.py": "numpy jinja2 matplotlib.font_manager matplotlib.figure matplotlib.backends.backend_agg"}
servers = {}  # {modules: process}
folder = None  # of the servers' sockets, named after the scripts


def serve(modules, paths):
    """Answers what warm_python.start() asks for at these paths, until stdin ends."""
    for module in modules:
        importlib.import_module(module)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(paths[0] + ".new")
    listening.listen(64)
    for path in paths[1:]:
        os.symlink(paths[0], path)
    os.rename(paths[0] + ".new", paths[0])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the keepers
    while True:
        if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
            return
        connection = listening.accept()[0]
        if not os.fork():
            listening.close()
            keep(connection)
        connection.close()


def keep(connection):
    """Runs the script of one request in a process, and answers its number and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    received = array.array("i")
    header, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(64 * received.itemsize))
    received.frombytes(ancillary[0][2])
    request = b""
    while len(request) < int(header):
        request += connection.recv(int(header) - len(request))
    process = os.fork()
    if not process:
        connection.close()
        run_here(received, *json.loads(request.decode()))
    connection.sendall(b"%d\n" % process)
    status = os.waitpid(process, 0)[1]
    connection.sendall(b"%d\n" % (-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)))
    os._exit(0)


def run_here(received, words, directory, environment, numbers, umask, ignored, seconds):
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in received]
    os.closerange(0, 200)
    for fd, number in zip(high, numbers):
        os.dup2(fd, number)
        os.close(fd)
    # The server's own streams hold what they found out of its files, such as whether one can seek in them.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(directory)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.alarm(seconds)  # ends what hangs
    sys.argv, code = words, 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the libraries do at the end waits for threads that a fork has not got


def start_server(name):
    """Starts the server for a script's name, unless it is there; it is ready when its socket is."""
    global folder
    if folder is None:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder)
    modules = MODULES[name]
    if modules not in servers:
        paths = [os.path.join(folder, other) for other in MODULES if MODULES[other] == modules]
        servers[modules] = subprocess.Popen([sys.executable, os.path.abspath(__file__)] + modules.split() + ["--"] + paths,
                                            stdin=subprocess.PIPE)
        atexit.register(servers[modules].communicate)  # it ends with its stdin


def python():
    """The path of a program that stands for python3 in a shell script's run."""
    for name in MODULES:
        start_server(name)
    path = os.path.join(folder, "python3")
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write("#!/bin/sh\nexec %s -IS %s %s \"$@\"\n" % tuple(
                shlex.quote(word) for word in (sys.executable, os.path.abspath(warm_python.__file__), folder)))
        os.chmod(path, 0o755)
    return path


def run(words, directory, timeout):
    """Run a Python script (its path, then its arguments); returns the finished process with its text output."""
    name = os.path.basename(words[0])
    name = name if name in MODULES else "other"
    start_server(name)
    path = os.path.join(folder, name)
    while not os.path.exists(path):
        assert servers[MODULES[name]].poll() is None
        time.sleep(0.01)
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, open(os.devnull) as stdin:
        files = {number: file.fileno() for number, file in enumerate((stdin, stdout, stderr))}
        answers = warm_python.start(path, words, os.fspath(directory), dict(os.environ), files, timeout)
        answers.readline()
        code = int(answers.readline())
        output = []
        for file in (stdout, stderr):
            file.seek(0)
            output.append(file.read().decode("utf-8", "replace"))
        return subprocess.CompletedProcess(words, code, *output)


if __name__ == "__main__":
    end = sys.argv.index("--")
    serve(sys.argv[1:end], sys.argv[end + 1:])
