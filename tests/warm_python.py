"""python3 as far as the tests' shell scripts can tell: has one of warm.py's servers run the script, in a process of its own.

    warm_python.py FOLDER SCRIPT ARGUMENTS...

Folder, environment, open files, umask and ignored signals are the caller's; signals are handed on; the exit code is the script's.
What no server can run alike (-m, -c, variables such as PYTHONSAFEPATH) is run by Python itself. It imports little, to start fast.
"""
import array
import json
import os
import signal
import socket
import sys

HANDED_ON = (signal.SIGINT, signal.SIGTERM)
ALIKE = {"PYTHON", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}  # set or not, a server runs the script alike


def start(path, words, folder, environment, files, seconds):
    """Asks the server at path for a run: returns the connection on which process id and exit code come, a line each.

    files: {number: descriptor}, what the script shall find open. seconds: after which it is ended.
    """
    ignored = [number for number in HANDED_ON if signal.getsignal(number) == signal.SIG_IGN]
    umask = os.umask(0o022)
    os.umask(umask)
    request = json.dumps([words, folder, environment, list(files), umask, ignored, seconds]).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendmsg([b"%8d" % len(request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files.values()))])
    connection.sendall(request)
    return connection.makefile()


def main(folder, words):
    environment = dict(os.environ)
    paths = [os.path.join(folder, name) for name in (os.path.basename(words[0]), "other")]
    paths = [path for path in paths if os.path.exists(path)]
    special = {name for name in environment if name.startswith("PYTHON")} - ALIKE
    if not words[0].endswith(".py") or special or not paths:
        os.execv(sys.executable, [sys.executable] + words)
    files = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            os.fstat(number)
            files[number] = number
        except OSError:
            pass  # the listing's own
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    answers = start(paths[0], words, os.getcwd(), environment, files, 600)
    process = int(answers.readline())
    for number in HANDED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os.kill(process, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    code = int(answers.readline())
    if code < 0:  # it ended by a signal, and so does this
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
