"""The same work on many small files, in as many processes as there are CPUs, for scripts that need numpy alone."""
import mmap
import multiprocessing
import signal
import sys
from multiprocessing import connection

import numpy as np

from common import command, machine


def run(function, jobs, dtype, what):
    """What function(*job) gives for each job, as an array of a structured dtype, whose field "done" is set by this.

    The processes are forks, so function and jobs may be anything; the first Failure or OSError in one ends it all.
    """
    count = min(machine.cpus(), len(jobs))
    found = np.frombuffer(mmap.mmap(-1, np.dtype(dtype).itemsize * len(jobs)), dtype)  # the workers' memory, too
    fork = multiprocessing.get_context("fork")
    received, problems = fork.Pipe(duplex=False)
    workers = [fork.Process(target=_work, args=(function, jobs[first::count], found[first::count], problems), daemon=True)
               for first in range(count)]
    signal.pthread_sigmask(signal.SIG_BLOCK, command.STOPS)  # until a worker has its own handlers
    try:
        for worker in workers:
            worker.start()
    except OSError as error:
        command.fail("worker processes cannot be started: %s" % error.strerror)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, command.STOPS)
    running = workers
    with command.progress(len(jobs), "file", what) as bar:
        while running:
            connection.wait([worker.sentinel for worker in running], 0.2)
            running = [worker for worker in running if worker.is_alive()]
            codes = [worker.exitcode for worker in workers if worker.exitcode]
            if codes:
                command.fail(received.recv() if received.poll() else
                             "a worker process died (exit code %s, -9 mostly means out of memory)" % codes[0])
            bar.update(int(np.count_nonzero(found["done"])) - bar.n)
    return found


def _work(function, jobs, found, problems):
    """A worker process: puts what it finds into found; what is wrong with a file goes into problems."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, command.STOPS)
    try:
        for index, job in enumerate(jobs):
            found[index] = (True,) + function(*job)
    except (command.Failure, OSError, MemoryError) as error:
        problems.send("%s: %s" % (error.filename, error.strerror) if isinstance(error, OSError) else
                      str(error) or "not enough memory")
        sys.exit(1)
