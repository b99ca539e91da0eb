"""How an engine's results come to their place: all at once, by one writer, and going on after a kill.

Everything is made in OUTPUT/.DIRNAME.partial. Publishing renames that folder to OUTPUT/DIRNAME, then the summary in it to
OUTPUT/DIRNAME_summary.json; killed in between, the next run (or reader) finds the summary in the folder.
"""
import contextlib
import json
import os
import shutil
import tempfile

from common import command, files, results
from common.command import fail

LOCK, PROGRESS, PENDING, OLD = ".lock", ".progress", ".summary.json", ".old"
PURE = "pure_infer_data"  # what ais_bench calls the one result of a run without input; nobody's own file has that name
ADVICE = "; move it away or choose another --output_dirname"


@contextlib.contextmanager
def output_of(args):
    """The Output that a command line asks for; without --output one in a folder that goes away."""
    with contextlib.ExitStack() as stack:
        folder = args.output
        if not folder:
            with files.naming(os.environ.get("TMPDIR", "/tmp")):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="infer-"))
        yield Output(folder, args.output_dirname)


class Output:
    """OUTPUT/DIRNAME and its summary."""

    def __init__(self, output, dirname):
        self.folder = os.path.join(output, dirname)
        self.summary_path = results.summary_path_of(self.folder)
        self.partial = os.path.join(os.path.dirname(self.folder), ".%s.partial" % os.path.basename(self.folder))
        self.lines = []

    def earlier(self):
        """The summary of an earlier run of ours, or None; exits where what is there is not ours to replace."""
        if os.path.islink(self.folder) or os.path.lexists(self.folder) and not os.path.isdir(self.folder):
            fail("%s: is a link or a file, not a folder%s" % (self.folder, ADVICE))
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        path, summary, listed = results.find_summary(self.folder), None, {}
        if path:
            summary = files.read_json(path, 1 << 29)
            if not results.is_ours(summary):
                fail("%s: was not written by this suite%s" % (path, ADVICE))
            with files.as_written(path):
                listed = results.outfiles(summary)
        others = sorted(name for name in set(names) - set(listed) - {PENDING, LOCK, PROGRESS, OLD}
                        if not name.startswith(PURE))
        if others:
            fail("%s: holds files that no summary of ours lists, first %s, and would be replaced%s"
                 % (self.folder, others[0], ADVICE))
        return summary if path and summary["schema"] == results.SCHEMA else None

    def is_whole(self, summary):
        """Whether every result that a summary lists is there as it was written."""
        return all(files.is_same(os.path.join(self.folder, name), content, status)
                   for name, (content, status, _) in results.outfiles(summary).items())

    def settle(self):
        """Finish a publication that was killed between its two renames, or undo one killed before."""
        old, pending = os.path.join(self.partial, OLD), os.path.join(self.folder, PENDING)
        if os.path.isdir(old) and not os.path.lexists(self.folder):
            os.rename(old, self.folder)
        if os.path.lexists(pending):
            os.replace(pending, self.summary_path)
        for name in (OLD, PROGRESS, LOCK):
            remove(os.path.join(self.folder, name))

    def take(self):
        """Be the one writer; made for good by publish, given back by discard. Returns whether another was that until now, and may
        have published."""
        was_taken = False
        while True:
            os.makedirs(self.partial, 0o750, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.held = files.lock(self.partial, LOCK)
                if os.path.samestat(os.fstat(self.held), os.stat(os.path.join(self.partial, LOCK))):
                    break
            was_taken = True
        os.chmod(self.partial, 0o750)  # newer ais_bench writes only where others cannot read
        self.settle()
        return was_taken

    def resume(self, made_from, afresh=False):
        """Take up the journal of an earlier run that was made from the same, or begin one. self.lines: its batches, whose
        {file name: [XXH3-128, stat_of]} stands under "files"."""
        head, *lines = [None] if afresh else self._read_journal()
        if head not in (None, made_from):
            print("%s: an unfinished run of another model, input or options stands there; starting afresh" % self.partial)
            lines = []
        kept = {name for line in lines for name in line["files"]}
        for name in set(os.listdir(self.partial)) - kept - {LOCK, PROGRESS}:
            remove(os.path.join(self.partial, name))
        self.lines, path = lines, os.path.join(self.partial, PROGRESS)
        files.write(path, b"".join(map(files.as_json, [made_from] + lines)))
        self.progress = open(path, "ab", 0)

    def journal(self, line):
        self.lines.append(line)
        with files.naming(self.progress.name):
            files.write_bytes(self.progress, files.as_json(line))

    def _read_journal(self):
        """[what the run was made from, or None; its lines, up to the first whose files are not as they were written]."""
        path, lines = os.path.join(self.partial, PROGRESS), []
        for text in (files.read(path) if os.path.exists(path) else b"").split(b"\n")[:-1]:  # what a kill tore has no newline
            try:
                line = json.loads(text.decode())
                written = line["files"] if lines else {}
                if not all(files.is_same(os.path.join(self.partial, name), *state) for name, state in written.items()):
                    break
            except (ValueError, LookupError, TypeError, AttributeError):
                break
            lines.append(line)
        return lines or [None]

    def write_result(self, name, data):
        """Write a result into the partial folder; returns [XXH3-128, stat_of]."""
        return [files.xxh(data), files.write_quickly(os.path.join(self.partial, name), data)]

    def publish(self, summary, names):
        """The results called names and the summary under their final names, in place of an earlier run's."""
        for name in set(os.listdir(self.partial)) - set(names) - {LOCK, PROGRESS}:
            remove(os.path.join(self.partial, name))
        files.write(os.path.join(self.partial, PENDING), files.as_json(summary))
        self.earlier()  # again: somebody's files may have come meanwhile
        with command.stops_held():
            if os.path.isdir(self.folder):
                os.rename(self.folder, os.path.join(self.partial, OLD))
            os.rename(self.partial, self.folder)
            self.settle()

    def discard(self):
        shutil.rmtree(self.partial, ignore_errors=True)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
