"""A script's run at a tenth of its cost: in a fork of a Python that has already imported what the script will.

Each run is a process of its own that executes the whole file as python3 does, in its folder and with files for its output.
Starting Python and importing numpy, ONNX Runtime, matplotlib or torch is most of what a short run costs.
"""
import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback

# What a server imports beforehand for a script; numpy and tqdm for others.
MODULES = {"resnet34_pth2onnx.py": "torch torchvision onnx onnxruntime", "onnx_infer.py": "numpy tqdm onnx onnxruntime",
           "resnet34_quantize.py": "numpy tqdm onnx onnxruntime",
           "report.py": "numpy jinja2 matplotlib.font_manager matplotlib.figure matplotlib.backends.backend_agg"}
servers = {}  # {modules: process}


def serve(modules):
    """Runs what lines of JSON on stdin ask for: [words, folder, file for stdout, for stderr, seconds]; answers exit codes."""
    for module in modules:
        importlib.import_module(module)
    for line in iter(sys.stdin.readline, ""):
        words, folder, stdout, stderr, seconds = json.loads(line)
        child = os.fork()
        if not child:
            for fd, path in enumerate((os.devnull, stdout, stderr)):
                os.dup2(os.open(path, os.O_RDWR), fd)
            os.chdir(folder)
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
        status = os.waitpid(child, 0)[1]
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def run(words, folder, timeout):
    """Run a Python script (its path, then its arguments); returns the finished process with its text output."""
    modules = MODULES.get(os.path.basename(words[0]), "numpy tqdm")
    if modules not in servers:
        servers[modules] = subprocess.Popen([sys.executable, os.path.abspath(__file__)] + modules.split(), encoding="utf-8",
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(servers[modules].communicate)  # it ends with its stdin
    server = servers[modules]
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        server.stdin.write(json.dumps([words, os.fspath(folder), stdout.name, stderr.name, timeout]) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, *(file.read().decode("utf-8", "replace") for file in (stdout, stderr)))


if __name__ == "__main__":
    serve(sys.argv[1:])
