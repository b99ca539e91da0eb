#!/usr/bin/env python3
"""Make labels, lines of "FILE CLASS", from what people have (the guide's stage "prepare the data set").

    python3 tools/make_val_label.py ImageNet/val ImageNet/val_label.txt             # folders n01440764 ..., any number of them
    python3 tools/make_val_label.py LOC_val_solution.csv ImageNet/val_label.txt     # Kaggle's, or its .zip
    python3 tools/make_val_label.py ILSVRC2012_devkit_t12.tar.gz ImageNet/val_label.txt
    python3 tools/make_val_label.py pictures pictures.txt                           # folders of your own classes

SOURCE may be
- a folder of class folders: named by WordNet ids, by ImageNet's numbers 0 to 999 (ImageNet-V2), or classes of your own;
- a folder of images whose names end in their WordNet id (..._n01440764.JPEG, as in Hugging Face's archive);
- a text: NAME,ID or NAME ID with or without a header (Kaggle's, with its boxes), FILE CLASS (Caffe's, MLPerf's), MXNet's .lst, or
  50 000 WordNet ids, of which line N is that of ILSVRC2012_val_N;
- the official development kit, packed or unpacked (needs SciPy).
A WordNet id is the class of its place among ImageNet's sorted 1000, as torchvision has them. Own classes are numbered in the
order of their sorted names, which go to class_names.txt beside LABELS; with --own-classes WordNet ids are, too. Where pictures
lack classes that the training had, --classes gives the training's.
Exit code 0: LABELS is there; 1: not written, the reason is named; 2: wrong usage; 130, 143: stopped.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import gzip
import io
import re
import tarfile
import zipfile

from common import files, images, labels
from common.command import fail, warn

CLASSES, IMAGES = 1000, 50000  # of ImageNet's validation set
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"  # of the kit
WORDNET_ID = re.compile("n[0-9]{8}")
LARGEST = 64 << 20  # bytes of a text, and of the kit unpacked, which has 4 MB
IMAGE = re.compile("ILSVRC2012_val_[0-9]|(%s)\\b" % "|".join(map(re.escape, images.EXTENSIONS)), re.I)  # in no header
OF_IMAGENET = "of ImageNet's 1000 classes, by "


# ---- texts ----

def parse_line(line):
    """(file, class as written) of a line of a text, file "" where the line is but an id or a number; None of any other line."""
    if re.fullmatch("n[0-9]{8}|[0-9]{1,9}", line):
        return "", line
    fields = [field.strip().strip('"') for field in re.split("[\t,;]", line)]
    file = next((field for field in fields if field.lower().endswith(images.EXTENSIONS)), fields[0])
    ids = list(re.finditer(r"(?:^|[\s,;\"])(n[0-9]{8})(?=$|[\s,;\"])", line))
    if ids:  # Kaggle's have one before each box
        file = file if len(fields) > 1 else line[:ids[0].start(1)].strip()
        words = sorted({found.group(1) for found in ids})
        return (file, " and ".join(words)) if file and file.split()[0] not in words else None
    mxnet = re.fullmatch(r"[0-9]+\t([0-9]+)(?:\.0*)?\t([^\t]+)", line)
    if mxnet:
        return mxnet.group(2), mxnet.group(1)
    row = labels.split_line(line)
    if row:
        return row[0], str(row[1])
    after = fields[fields.index(file) + 1:]
    return (file, after[0]) if len(after) == 1 and re.fullmatch("[0-9]{1,9}", after[0]) else None


def read_text(data, source):
    """{(folder, file): class as written} of a text's lines."""
    lines = [(number, line, parse_line(line)) for number, line in labels.numbered(data)]
    if len(lines) > 1 and not lines[0][2] and not IMAGE.search(lines[0][1]) and (
            lines[1][2] or not re.search("[0-9]", lines[0][1])):
        del lines[0]  # a header
    bare, rows = bool(lines) and lines[0][2] is not None and not lines[0][2][0], {}
    if bare and len(lines) != IMAGES:
        fail("%s: has %d lines without file names, not %d: which image each is of is not known" % (source, len(lines), IMAGES))
    for number, line, row in lines:
        if row is None or bool(row[0]) == bare:
            fail("%s: line %d is no file and class (as the others), but %r" % (source, number, line[:80]))
        file = row[0].replace("\\", "/") or "ILSVRC2012_val_%08d.JPEG" % (len(rows) + 1)
        pair = os.path.basename(os.path.dirname(file)), os.path.basename(file)
        classes = {row[1], rows.setdefault(pair, row[1])}
        if len(classes) > 1 or " " in row[1]:
            fail("%s: line %d: %s has more than one class: %s" % (source, number, file, " and ".join(sorted(classes))))
    if not rows:
        fail("%s: is empty" % source)
    return rows


def check_against_ids(rows, positions, source):
    """Exit where the class that a list gives an image is not that of the WordNet id in the image's path."""
    for (folder, file), written in rows.items():
        found = WORDNET_ID.search(os.path.join(folder, file))
        number = positions[written] if written in positions else int(written)
        if found and positions.get(found.group(), number) != number:
            fail("%s: %s has class %s there, but its id is ImageNet's class %d; make labels of the folders, or --own-classes"
                 % (source, os.path.join(folder, file), written, positions[found.group()]))


# ---- folders ----

def read_folder(source):
    """{(folder, file): class as written} of a folder's images, by their class folders or by the ids that end their names."""
    classes = images.class_folders(source)
    found = [(folder, file) for folder in classes or [""] for _, file, is_image in images.list_files(folder, source) if is_image]
    if classes:
        return {pair: pair[0] for pair in found}
    ends = {pair: re.search("_(n[0-9]{8})$", images.name_of(pair[1])) for pair in found}
    without = [file for (_, file), end in ends.items() if not end]
    if not found or without:
        fail("%s: holds neither class folders nor images whose names end in a WordNet id (%s); the development kit, Kaggle's "
             "LOC_val_solution.csv or another list says of which classes ImageNet's images are"
             % (source, "first %s" % without[0] if without else "no images at all"))
    return {pair: end.group(1) for pair, end in ends.items()}


def check_folders(source, own):
    """Exit for a folder that is no class, and for one that, as the training had it, would shift the numbers of all after it."""
    classes = images.class_folders(source)
    for name in classes:
        if not any(is_image for _, _, is_image in images.list_files(name, source)):
            advice = images.advice_below(source) or (
                "; without it, those after it would be numbered otherwise than in a training that had it: give the training's "
                "classes (LC_ALL=C ls TRAIN > FILE, then --classes FILE)")
            fail("%s: its folder %s holds no image, and each folder is a class%s" % (source, name, advice))
    if len(classes) == 1 and not own:
        fail("%s: has but one class folder; did you mean %s? (--own-classes: no)" % (source, os.path.join(source, classes[0])))


def warn_of_unlabelled(source, rows):
    labelled, others = {os.path.join(source, *pair) for pair in rows}, []
    for folder, below, names in os.walk(source):
        below[:] = images.class_folders(folder)
        others += [os.path.join(folder, name) for name in sorted(names) if images.is_image(folder, name)]
    others = [path for path in others if path not in labelled]
    if others:
        warn("%d images are not directly in a class folder and get no label (first: %s)" % (len(others), others[0]))


# ---- the development kit ----

def read_kit(path):
    """{TRUTH and META: bytes} of the development kit, packed or unpacked, or None; nothing is unpacked to disk."""
    if os.path.isdir(path):
        paths = [os.path.join(path, *below) for below in (("",), ("data",), ("ILSVRC2012_devkit_t12", "data"))]
        found = [os.path.join(folder, name) for folder in paths for name in (TRUTH, META)]
        return {os.path.basename(file): files.read(file, LARGEST) for file in found if os.path.exists(file)} or None
    data = read_packed(path)
    if data[257:262] != b"ustar":
        return None
    with files.bounded(path, data, "tar archive"), tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        members = {os.path.basename(member.name): member for member in archive if member.isfile()}
        return {name: archive.extractfile(members[name]).read() for name in (TRUTH, META) if name in members}


def read_packed(path):
    """The bytes of a file, of a .gz or .zip those in it: unpacked within bounds, where tarfile reads headers of any size."""
    data = files.read(path, LARGEST)
    if not data.startswith((b"\x1f\x8b", b"PK\3\4")):
        return data
    with files.bounded(path, data, "archive"):
        if data[:2] == b"\x1f\x8b":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST + 1)
        else:  # as Kaggle packs each file, or a Mac, which adds a folder of its own
            archive = zipfile.ZipFile(io.BytesIO(data))
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/") and not name.endswith("/")]
            if len(names) != 1:
                fail("%s: holds %d files; unpack it, and give the one that has the labels" % (path, len(names)))
            data = archive.open(names[0]).read(LARGEST + 1)
    if len(data) > LARGEST:
        fail("%s: unpacks to more than %d MB; it is neither labels nor the development kit" % (path, LARGEST >> 20))
    return data


def ids_of_kit(path):
    """{the kit's own number of a class, "1" to "1000": WordNet id}; its larger numbers are inner nodes of WordNet's tree."""
    data = (read_kit(path) or {}).get(META) or fail("%s: holds no %s; it is not the development kit of ILSVRC2012" % (path, META))
    try:
        from scipy.io import loadmat
    except ImportError as error:
        fail("SciPy is needed to read %s (%s); pip install scipy" % (META, error))
    with files.bounded("%s: its %s" % (path, META), data, "list of ImageNet's synsets"):
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        ids = {str(int(number)): str(wordnet_id) for number, wordnet_id in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])
               if int(number) <= CLASSES}
    if set(ids) != set(map(str, range(1, CLASSES + 1))) or sorted(ids.values()) != wordnet_ids():
        fail("%s: its %s does not map the numbers 1 to %d to ImageNet's %d WordNet ids" % (path, META, CLASSES, CLASSES))
    return ids


def wordnet_ids():
    """ImageNet's 1000 WordNet ids, sorted: the place of each is its class."""
    return files.lines_of(files.read(os.path.join(HERE, "imagenet_wnids.txt")))[:CLASSES]


# ---- from what is written to numbers ----

def number_classes(rows, args):
    """({class as written: number}, what they are in words, names of the classes or None for ImageNet's)."""
    positions = {wordnet_id: position for position, wordnet_id in enumerate(wordnet_ids())}
    written = set(rows.values())
    numbers = {int(each) for each in written} if all(re.fullmatch("[0-9]+", each) for each in written) else set()
    if args.devkit:
        ids = ids_of_kit(args.devkit)
        if not written <= set(ids):
            fail("%s: the kit's classes are 1 to %d, but here is %s" % (args.source, CLASSES, min(written - set(ids))))
        return {each: positions[ids[each]] for each in written}, OF_IMAGENET + "the kit's numbers", None
    if args.own_classes:
        return number_own(written, numbers, args)
    if any(WORDNET_ID.fullmatch(each) for each in written):
        strange = sorted(written - set(positions))
        if strange:
            fail("%s: %s is none of ImageNet's %d classes; --own-classes numbers all among themselves"
                 % (args.source, strange[0], CLASSES))
        if not os.path.isdir(args.source):
            check_against_ids(rows, positions, args.source)
        return {each: positions[each] for each in written}, OF_IMAGENET + "WordNet id", None
    if all(WORDNET_ID.match(each) for each in written):
        fail("%s: its classes begin with WordNet ids (%s); rename the folders to the ids, or number them among themselves with "
             "--own-classes" % (args.source, min(written)))
    if numbers == set(range(1, CLASSES + 1)):
        fail("%s: its classes are 1 to 1000: the development kit's own numbers, which are in another order (then name the kit: "
             "--devkit ILSVRC2012_devkit_t12.tar.gz), or classes of your own (--own-classes)" % args.source)
    if numbers and not os.path.isdir(args.source):
        check_against_ids(rows, positions, args.source)
        return {each: int(each) for each in written}, "classes, numbered as there", None
    if numbers == set(range(CLASSES)):
        return {each: int(each) for each in written}, OF_IMAGENET + "number", None
    return number_own(written, numbers, args)


def number_own(written, numbers, args):
    """number_classes of classes that are numbered among themselves, or by --classes."""
    if args.classes:
        order = [" ".join(line.split()) for line in files.lines_of(files.read(args.classes, LARGEST).rstrip())]
        by_key = {labels.key(name): number for number, name in enumerate(order)}
        strange = sorted(name for name in written if labels.key(name) not in by_key)
        if len(by_key) < len(order) or "" in by_key:
            fail("%s: names a class twice, or has an empty line" % args.classes)
        if strange:
            fail("%s: has no class %s, as %s has" % (args.classes, strange[0], args.source))
        return {name: by_key[labels.key(name)] for name in written}, "of the %d classes in %s" % (len(order), args.classes), order
    order = sorted(written)
    by_number = sorted(written, key=lambda name: (int(name), name)) if numbers else None
    if args.order == "number" and not numbers:
        fail("%s: --order number, but not all of its classes are numbers" % args.source, code=2)
    from_0_or_1 = set(range(len(numbers))), set(range(1, len(numbers) + 1))
    if numbers and not args.order and (order != by_number or numbers not in from_0_or_1 and not args.own_classes):
        fail("%s: its classes are numbers: --order name counts own ones from 0 as torchvision's ImageFolder does (%s ...), "
             "--order number as %s ...; if they are ImageNet's, seq 0 999 > FILE and --classes FILE keeps them"
             % (args.source, " ".join(order[:3]), " ".join(by_number[:3])))
    order = by_number if args.order == "number" else order
    return {name: number for number, name in enumerate(order)}, "classes, named in " + labels.NAMES, order


def read_source(args):
    """{(folder, file): class as written} of whatever SOURCE is; sets args.devkit where it is the kit itself."""
    kit = read_kit(args.source)
    if kit is not None:
        args.devkit = args.source
        if TRUTH not in kit:
            fail("%s: holds no %s, so it is not the development kit; unpack any other archive, and give the folder"
                 % (args.source, TRUTH))
        return read_text(kit[TRUTH], "%s: its %s" % (args.source, TRUTH))
    if not os.path.isdir(args.source):
        return read_text(read_packed(args.source), args.source)
    rows = read_folder(args.source)
    ids = {pair: name for pair, name in rows.items() if WORDNET_ID.fullmatch(name)}
    if (not ids or args.own_classes) and not args.classes:
        check_folders(args.source, args.own_classes)
    rows = rows if args.own_classes else ids or rows  # other folders beside ids are no classes
    warn_of_unlabelled(args.source, rows)
    return rows


def parse_args():
    parser = command.parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help="a folder of class folders or of images ..._n01440764.JPEG; a CSV, .lst "
                        "or text; the development kit (.tar.gz or folder)")
    parser.add_argument("labels", metavar="LABELS", help="the file to write, for example ImageNet/val_label.txt")
    parser.add_argument("--devkit", metavar="KIT", help="where SOURCE has the development kit's own numbers, 1 to 1000: the kit")
    parser.add_argument("--own-classes", action="store_true", help="number the classes among themselves, WordNet ids, too")
    parser.add_argument("--classes", metavar="FILE", help="the classes of the net's training, one a line: they number own "
                        "classes, and some may be missing here")
    parser.add_argument("--order", choices=("name", "number"), help="of own classes that are numbers: 1 10 2, or 1 2 10")
    parser.add_argument("--overwrite", action="store_true", help="replace LABELS that differ")
    args = parser.parse_args()
    args.own_classes = args.own_classes or bool(args.classes)
    return args


def main():
    args = parse_args()
    if args.devkit and args.own_classes:
        fail("--devkit, and --own-classes or --classes: either ImageNet's classes or your own", code=2)
    if os.path.basename(args.labels) == labels.NAMES:
        fail("%s: is what the names of the classes are called; choose another name for LABELS" % args.labels, code=2)
    files.check_output(args.labels, [args.source, args.devkit, args.classes])
    rows = read_source(args)
    numbers, what, names = number_classes(rows, args)
    lines = []
    for name, (folder, file) in images.name_all(list(rows)).items():
        labelled = file if name == images.name_of(file) else images.labelled_as(folder, file)
        lines.append("%s %d" % (labelled, numbers[rows[folder, file]]))
    contents, names_path = {args.labels: lines}, os.path.join(os.path.dirname(args.labels), labels.NAMES)
    if names is not None and os.path.realpath(args.classes or "") != os.path.realpath(names_path):
        contents[names_path] = names
    contents = {path: "".join(" ".join(line.split()) + "\n" for line in lines).encode("utf-8", "surrogateescape")
                for path, lines in contents.items()}
    different = [path for path, data in contents.items() if not os.path.exists(path) or files.read(path) != data]
    if names_path in different and os.path.exists(names_path) and not os.path.exists(args.labels):
        fail("%s: holds the class names of other labels; write LABELS into another folder" % names_path)
    for path in different:
        files.check_output(path, [args.source, args.classes])
        if os.path.exists(path) and not args.overwrite:
            fail("%s: is there, and differs from what would be written now; name another file, or --overwrite" % path)
    files.write_all({path: contents[path] for path in different})
    print("%s%s: %d images, %d %s" % ("" if different else "kept: ", args.labels, len(rows), len(set(rows.values())), what))


if __name__ == "__main__":
    command.run(main)
