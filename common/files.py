"""Files: what is the same one, one that is there whole or not at all, one writer at a time, and never over somebody else's.

Two files are the same when their bytes are. A `stat` (size, mtime, ctime, inode, as git keeps them) is only the shortcut: where
all four are as recorded, the recorded hash is believed; where one differs, the bytes are hashed. Images, .bin files and results
go by XXH3-128 (fast, and nobody forges them here); weights, graphs, labels and summaries by SHA-256, which people compare by eye.
"""
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import resource
import stat
import time

import xxhash

from common.command import Failure, fail, first_line, one_line

LARGEST = 1 << 31  # bytes of any file that is read whole: protobuf's limit for a graph
AGAIN = "; if these scripts made it, remove it and run that stage again"
TEMPORARY = re.compile(r"\.resnet34\.[0-9a-f]{16}\.tmp")  # not of the file's own name, which may be as long as a name may be
LOCK_SECONDS = 2  # the workers of a killed run need a moment to see that it is gone


# ---- identity ----

def stat_of(status):
    """What vouches for a recorded hash, of an os.stat_result: [size, mtime in ns, ctime in ns, inode]."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def xxh(data):
    """The XXH3-128 of bytes, in hex."""
    return xxhash.xxh3_128_hexdigest(data)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sha256_of(path):
    return sha256(read(path))


def set_hash(pairs):
    """The identity of a set of (name, hash), in whatever order, in hex; that of a whole is the sum of its parts'."""
    total = sum(xxhash.xxh3_128_intdigest(("%s\0%s" % pair).encode("utf-8", "surrogateescape")) for pair in pairs)
    return "%032x" % (total % (1 << 128))


def is_same(path, recorded_hash, recorded_stat):
    """Whether a file is still what was recorded (XXH3-128 and stat_of); False where it is gone."""
    try:
        return stat_of(os.stat(path)) == recorded_stat or xxh(read(path)) == recorded_hash
    except OSError:
        return False


# ---- reading ----

@contextlib.contextmanager
def naming(path):
    """An OSError within names this file: a read or write itself knows only a descriptor's number."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def read(path, most=LARGEST):
    """The bytes of a regular file; an OSError names it. A FIFO does not hang, a device does not fill the memory."""
    return read_with_stat(path, most)[0]


def read_with_stat(path, most=LARGEST):
    """(bytes, stat_of) of a regular file."""
    try:  # not `with naming`: thousands are read, and it costs an eighth
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise OSError(errno.EISDIR, "is a folder, not a file")
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is no regular file")
            if status.st_size > most:
                raise OSError(errno.EFBIG, "is larger than %d MB, as no such file is" % (most >> 20))
            data = os.read(descriptor, status.st_size + 1)  # not open(), which takes twice as long
            if len(data) < status.st_size:  # network file systems may give less at a time
                data += b"".join(iter(lambda: os.read(descriptor, status.st_size + 1), b""))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    return data, stat_of(status)


def parse_json(text, path):
    """What a JSON text (or bytes) of a file holds; NaN and Infinity are no JSON."""
    def refuse(word):
        raise ValueError("%s is no number" % word)
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        fail("%s: is not the JSON that was written there (%s)%s" % (path, first_line(error), AGAIN))


def read_json(path, most=1 << 28):
    """The object in a JSON file."""
    content = parse_json(read(path, most), path)
    if not isinstance(content, dict):
        fail("%s: holds no JSON object%s" % (path, AGAIN))
    return content


def peek_json(path):
    """The object in a JSON file, or {} where there is none: for what may be there, and may be ours."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(read(path, 1 << 28).decode())
        if isinstance(content, dict):
            return content
    return {}


@contextlib.contextmanager
def as_written(path):
    """Whatever a JSON of ours lacks, or has otherwise than it was written, ends in one sentence."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        what = "%s %s" % (type(error).__name__, first_line(error))
        fail("%s: is not as the stage that makes it writes it (%s)%s" % (path, one_line(what, 200), AGAIN))


@contextlib.contextmanager
def bounded(path, data, kind):
    """Whatever is wrong with a file's bytes ends in a sentence, and reading them takes little more memory than they have.

    kind: what the file should be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    allowed = 2 * len(data) + (512 << 20)
    limits = [limit for limit in (now + allowed, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    except Failure:
        raise
    except MemoryError:
        fail("%s: refused: loading it takes more than %.0f MB, far more than the file has" % (path, allowed / 1e6))
    except Exception as error:  # of pickle, zipfile, numpy, safetensors and SciPy: a dozen kinds
        fail("%s: is no %s, or is truncated or damaged: %s" % (path, kind, first_line(error)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def lines_of(data):
    """The lines of a text file's bytes without the spaces around them: UTF-8, or with a BOM UTF-16; any line ends."""
    is_wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16", "replace") if is_wide else data.decode("utf-8-sig", "surrogateescape")
    return [line.strip() for line in re.split("\r\n?|\n", text)]


# ---- writing ----

def as_json(content, indent=None):
    """The bytes of a JSON text, by default one line."""
    return (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode()


def temporary_beside(path):
    """A temporary name beside a file."""
    return os.path.join(os.path.dirname(path), ".resnet34.%s.tmp" % os.urandom(8).hex())


def remove_temporaries(folder):
    """Remove what killed runs left; what a living run writes it holds locked."""
    for name in os.listdir(folder or "."):
        if TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(file.name)


def write(path, data):
    """Write bytes to a file that is there whole or not at all. An OSError names the file."""
    write_all({path: data})


def write_all(contents):
    """Write all of {path: bytes} or, as long as the disk decides, none: first whole under other names, then renamed."""
    ready = []
    with contextlib.ExitStack() as stack:
        for path, data in contents.items():
            temporary = temporary_beside(path)
            with naming(path):
                remove_temporaries(os.path.dirname(path))
                stack.callback(_remove_if_there, temporary)
                file = stack.enter_context(open(temporary, "xb", 0))
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                write_bytes(file, data)
                os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
            ready.append((temporary, path))
        for temporary, path in ready:
            os.replace(temporary, path)


def write_quickly(path, data):
    """write() for workers that write thousands, in a folder that is locked; returns the file's stat_of."""
    temporary = temporary_beside(path)
    with naming(path):
        with open(temporary, "wb", 0) as file:
            write_bytes(file, data)
        os.replace(temporary, path)
        return stat_of(os.stat(path))


def write_bytes(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view):]


def _remove_if_there(path):
    with contextlib.suppress(OSError):  # what went wrong before is what is said
        os.unlink(path)


def lock(folder, name=".lock"):
    """One run at a time in a folder: returns the descriptor of its lock, which lasts as long as a process has it open.

    The file holds the numbers of those processes, for whoever finds it locked.
    """
    path = os.path.join(folder, name)
    with naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        for _ in range(LOCK_SECONDS * 20):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.truncate(descriptor, 0)
                os.write(descriptor, b"%d" % os.getpid())
                return descriptor
            except BlockingIOError:
                time.sleep(0.05)
    holders = [number for number in read(path).decode("ascii", "replace").split() if os.path.exists("/proc/" + number)]
    return fail("%s: another run is at work in this folder%s; wait for it, or use another folder"
                % (folder, holders and " (process %s)" % " and ".join(holders) or ""))


def check_output(path, inputs=(), ours=None, overwrite=False):
    """Exit unless a file may be written: its folder is there, it has no input's name, and what is there is of our making.

    ours: a function of the path, which says whether what is there is; None: whatever is there may be replaced.
    """
    if not os.path.isdir(os.path.dirname(path) or "."):
        fail("%s: its folder does not exist" % path)
    if os.path.isdir(path):
        fail("%s: is a folder, not a file to write" % path)
    for other in filter(None, inputs):
        if os.path.realpath(other) == os.path.realpath(path):
            fail("%s: is read here and would be overwritten; choose another name" % path)
    there = os.path.lexists(path) or ours is is_recorded and os.path.lexists(path + ".json")
    if there and ours and not overwrite and not ours(path):
        path = path if os.path.lexists(path) else path + ".json"
        fail("%s: is there and not of this command's making (or was changed since); choose another name, or --overwrite" % path)


# ---- an artefact and NAME.json beside it, which says what it was made from ----

def record_of(path):
    """What the JSON beside an artefact says, or None where there is none of ours: see write_recorded."""
    record = peek_json(path + ".json")
    return record if isinstance(record.get("made_from"), dict) and "sha256" in record else None


def is_recorded(path):
    """Whether an artefact is what its record says, or what the record's new one was to replace when a run was killed."""
    record = record_of(path)
    if record is None:
        return not os.path.lexists(path) and not os.path.lexists(path + ".json")
    return not os.path.exists(path) or record["sha256"] is None or sha256_of(path) in (record["sha256"], record.get("replaced"))


def is_kept(path, made_from):
    """Whether an artefact is there as it was made, and was made from just this: nothing is to be done."""
    record = record_of(path)
    return bool(record and record["made_from"] == made_from and os.path.isfile(path) and record["sha256"] == sha256_of(path))


def begin_recorded(path, made_from):
    """Write the record of an artefact that is to be made: from now on what is there is ours, but not kept."""
    write(path + ".json", as_json({"sha256": None, "made_from": made_from}, 1))


def finish_recorded(path, made_from, **more):
    """Write the record of an artefact that is there: its SHA-256, all that it was made from, and more that later stages want."""
    write(path + ".json", as_json(dict(more, sha256=sha256_of(path), made_from=made_from), 1))


def write_recorded(path, data, made_from, beside=None, **more):
    """Write an artefact's bytes, its record, and what else is of its making ({path: bytes}); on a full disk all stays as it was.

    The record comes first, and says what it replaces: killed between the two, the next run knows the old artefact for its own.
    """
    replaced = sha256_of(path) if os.path.isfile(path) else None
    record = as_json(dict(more, sha256=sha256(data), made_from=made_from, replaced=replaced), 1)
    write_all(dict({path + ".json": record}, **(beside or {}), **{path: data}))
