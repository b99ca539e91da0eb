"""The same work on many files, in processes, for scripts that need numpy alone."""
import mmap
import multiprocessing
import os
import signal
import sys
from multiprocessing import connection

import numpy as np

from common import command, machine

CHUNK = 8  # jobs a worker takes at a time: few enough that all finish together, many enough to keep traffic small


def run_jobs(function, jobs, dtype, what, unit="file", count=None):
    """What function(*job) gives for each job, as an array of a structured dtype, whose field "done" is set by this.

    The processes (count, or as many as there are CPUs) are forks, so function and jobs may be anything; the first Failure or
    OSError in one ends it all.
    """
    found = np.frombuffer(mmap.mmap(-1, np.dtype(dtype).itemsize * len(jobs)), dtype)  # the workers' memory, too
    fork = multiprocessing.get_context("fork")
    received, problems = fork.Pipe(duplex=False)
    arguments = function, jobs, found, fork.Value("q", 0), problems, os.getpid()
    workers = [fork.Process(target=_work, args=arguments, daemon=True)
               for _ in range(min(count or machine.cpus(), -(-len(jobs) // CHUNK)))]
    try:
        try:
            with command.stops_held():  # one inside start() would leave a worker that nobody knows
                for worker in workers:
                    worker.start()
        except OSError as error:
            command.fail("worker processes cannot be started: %s" % error.strerror)
        running = workers
        with command.progress(len(jobs), unit, what) as bar:
            while running:
                connection.wait([worker.sentinel for worker in running], 0.2)
                running = [worker for worker in running if worker.is_alive()]
                codes = [worker.exitcode for worker in workers if worker.exitcode]
                if codes:
                    command.fail(received.recv() if received.poll() else "a worker process died (exit code %s, -9 mostly means "
                                 "out of memory); run the same line again, or with fewer processes" % codes[0])
                bar.update(int(np.count_nonzero(found["done"])) - bar.n)
    finally:  # nobody is at work any more when the caller tidies up
        for worker in workers:
            if worker.pid:
                worker.terminate()
                worker.join()
    return found


def _work(function, jobs, found, next_job, problems, parent):
    """A worker process: takes jobs until none is left, puts what it finds into found; what ends all goes into problems."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if command.held:  # a stop that came before these two lines
        return
    try:
        while True:
            with next_job.get_lock():
                first = next_job.value
                next_job.value += CHUNK
            if first >= len(jobs):
                return
            for index in range(first, min(first + CHUNK, len(jobs))):
                if os.getppid() != parent:  # it was killed: nobody is left to work for
                    return
                found[index] = (True,) + function(*jobs[index])
    except (command.Failure, OSError, MemoryError) as error:
        problems.send("%s: %s" % (error.filename, error.strerror) if isinstance(error, OSError) else
                      str(error) or "not enough memory")
        sys.exit(1)
