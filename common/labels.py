"""Labels: a text file of lines "FILE CLASS", which the preprocessing, the evaluation and run_infer.sh read by this alone.

FILE may have folders before it, spaces and dots in it, or no extension; CLASS is the last word, a whole number from 0. UTF-8 with
or without BOM, any line ends, tabs and blank lines. tools/make_val_label.py turns what else people have into such a file;
the error says with which command. Image names are looked up by key(name).
"""
import ast
import importlib.util
import os
import re
import shlex

from common import files
from common.command import fail, warn
from common.images import EXTENSIONS, key, name_of

MOST_BYTES = 1 << 28
NAMES = "class_names.txt"  # beside labels of own classes
TOOL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools", "make_val_label.py")
# Lines as make_val_label.py writes them, which are taken at one look: ImageNet's 50 000 in a third of the time.
PLAIN = re.compile(rb"^([A-Za-z0-9_-]+)\.(?:JPEG|jpe?g|png) ([0-9]{1,9})\n", re.M)
LINE = re.compile(r"""(
    (.*\s (?![-+.0-9]+\s))?         # "a.jpg 3 5" has two classes
    (?!n[0-9]{8}\s) \S*[^\s,;]      # n01440764 is no file, and "a.jpg, 3" is CSV
    )\s+ ([0-9]{1,9})""", re.S | re.X)


def read(path):
    """({key(image name): class}, "sorted:" and the SHA-256 of these, however written); exits at the first line that is not
    "FILE CLASS"."""
    if os.path.isdir(path):
        fail("%s: is a folder, not a label file; make one of it: %s" % (path, command(path)))
    data = files.read(path, MOST_BYTES)
    labels = {name.decode(): int(label) for name, label in PLAIN.findall(data)}
    if len(labels) < data.count(b"\n") or not data.endswith(b"\n"):  # another line is among them, or a name twice
        labels = read_lines(path, data)
    text = "".join("%s %d\n" % pair for pair in sorted(labels.items()))
    return labels, "sorted:" + files.sha256(text.encode("utf-8", "surrogateescape"))


def read_lines(path, data):
    """{key(image name): class} of lines of any kind."""
    labels = {}
    for number, line in numbered(data):
        row = split_line(line)
        if row is None:
            advice = "; this makes such a file of WordNet ids, CSV, MXNet's .lst or the development kit's: " + command(path)
            fail("%s: line %d is not \"FILE CLASS\", CLASS a number counted from 0, but %r%s"
                 % (path, number, line[:80], "" if labels else advice))
        name = key(name_of(row[0]))
        if name in labels:
            more = "; if class folders hold equal names, tools/make_val_label.py makes labels of them" if "/" in row[0] else ""
            fail("%s: line %d labels %s a second time%s" % (path, number, name, more))
        labels[name] = row[1]
    if not labels:
        fail("%s: holds no labels" % path)
    warn_unless_utf8(path, labels)
    return labels


def warn_unless_utf8(path, texts):
    if re.search("[\udc80-\udcff]", " ".join(texts)):
        warn("%s: is not UTF-8, so its names may not be found or read; if it is GBK: iconv -f GBK -t UTF-8 %s > NEW"
             % (path, shlex.quote(path)))


def split_line(line):
    """(FILE, CLASS) of a line "FILE CLASS", or None."""
    match = LINE.fullmatch(line)
    return match and (match.group(1), int(match.group(3)))


def numbered(data):
    """[(number from 1, line)] of the lines of a text that are not blank."""
    return [(number, line) for number, line in enumerate(files.lines_of(data), 1) if line]


def command(source):
    """The very command that makes labels of a source."""
    path = source.rstrip("/") if os.path.isdir(source) else os.path.splitext(source)[0]
    words = ["python3", os.path.relpath(TOOL), source, path + "_label.txt"]
    return " ".join(map(shlex.quote, words))


def missing(labels, names):
    """The image names, in their order, that have no label."""
    return [name for name in names if key(name) not in labels]


def read_exclude(path):
    """({key(image name)} of a list of files or names, one a line, or of "FILE CLASS", SHA-256 of the list)."""
    data = files.read(path, MOST_BYTES)
    rows = [(line, split_line(line)) for _, line in numbered(data)]
    names = {key(name_of(row[0] if row and row[0].lower().endswith(EXTENSIONS) else line)) for line, row in rows}
    if not names:
        fail("%s: holds no image names" % path)
    return names, files.sha256(data)


def read_names(path, classes):
    """The names of so many classes, one a line; blank lines at the end do no harm."""
    names = [" ".join(line.split()) for line in files.lines_of(files.read(path, MOST_BYTES).rstrip())]
    if len(names) != classes or "" in names:
        fail("%s: has %d lines, %d of them empty, the model has %d classes; it needs one name a line"
             % (path, len(names), names.count(""), classes))
    warn_unless_utf8(path, names)
    return names


def warn_of_names(path, labels, classes):
    """Warn where the class names beside a label file are those of its classes, and the model has not so many."""
    path = os.path.join(os.path.dirname(path), NAMES)
    count = len(files.lines_of(files.read(path).rstrip())) if os.path.isfile(path) else 0
    if max(labels.values()) < count != classes:  # else they are of other labels
        warn("%s: names the %d classes of the labels, but the model has %d, so they are not numbered as in its training; make "
             "them with tools/make_val_label.py --classes FILE, the training's classes" % (path, count, classes))


def imagenet_names():
    """The names of ImageNet's 1000 classes as torchvision has them, or []; read, not imported, as that would load torch."""
    try:
        path = os.path.join(os.path.dirname(importlib.util.find_spec("torchvision").origin), "models", "_meta.py")
        return next(ast.literal_eval(node.value) for node in ast.parse(files.read(path)).body if isinstance(node, ast.Assign)
                    and node.targets[0].id == "_IMAGENET_CATEGORIES")
    except Exception:  # a torchvision without the list, or none
        return []
