#!/usr/bin/env python3
"""Make val_label.txt from what people have of ImageNet, or from class folders (the guide's stage "prepare the data set").

    python3 tools/make_val_label.py ILSVRC2012_devkit_t12.tar.gz ImageNet/val_label.txt
    python3 tools/make_val_label.py ImageNet/val ImageNet/val_label.txt
    python3 tools/make_val_label.py pictures pictures.txt

SOURCE is the official development kit, packed or unpacked (meta.mat and ILSVRC2012_validation_ground_truth.txt in it are
read, with SciPy), or a folder of class folders. Each line of LABELS is "FILE CLASS". The kit, and folders named by WordNet id,
are ImageNet's validation set and must be whole (folders of other names beside them are left aside); CLASS counts from 0 in the
order of the sorted WordNet ids, where the kit has numbers of its own. Other folders are classes in the order of their
sorted names, which go to class_names.txt beside LABELS.
Exit code 0: written; 1: not written, the reason is named; 2: wrong usage; 130, 143: stopped.
"""
import argparse
import collections
import gzip
import io
import os
import re
import signal
import stat
import sys
import tarfile
import zlib

CLASSES, IMAGES = 1000, 50000  # of the challenge's classification task and of its validation set
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WORDNET_ID = re.compile(r"n\d{8}$")
EXTENSIONS = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # the preprocessing's
LARGEST = 32 << 20  # bytes of either file of the kit; the real ones have 0.1 MB (meta.mat) and 0.2 MB
LARGEST_UNPACKED = 64 << 20  # of the whole kit, which has 4 MB, and of what meta.mat holds, packed


def stopped(number, frame):
    signal.signal(number, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; nothing was written\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:  # stderr may be closed
        pass
    sys.exit(128 + number)


def fail(message):
    sys.exit("error: " + " ".join(str(message).split()))


def read_file(path):
    """The bytes of a regular file of bounded size."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a FIFO would be waited for
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            fail("%s: is no regular file" % path)
        if state.st_size > LARGEST:
            fail("%s: has %d bytes, far more than the kit's; it is another file" % (path, state.st_size))
        return file.read()


def read_packed(path):
    """{file name: bytes} of the two files in the packed kit; nothing is unpacked to disk."""
    if not os.path.isfile(path):
        fail("%s: %s" % (path, "is no regular file" if os.path.exists(path) else "no such file or folder"))
    found = {}
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        # Unpacked here, within bounds: tarfile itself reads headers of any size into memory.
        with (gzip.open if packed else open)(path, "rb") as file:
            data = file.read(LARGEST_UNPACKED + 1)
        if len(data) > LARGEST_UNPACKED:
            fail("%s: unpacks to more than %d MB; it is not the devkit" % (path, LARGEST_UNPACKED >> 20))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in (GROUND_TRUTH, META) and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except (OSError, tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        fail("%s: is neither a folder nor a tar archive (.tar.gz or .tar) that can be read: %s" % (path, error))
    return found


def read_unpacked(folder):
    """{file name: bytes} of the two files anywhere under the kit's folder."""
    return {name: read_file(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names
            if name in (GROUND_TRUTH, META)}


def check_matlab(data, source):
    """Exit for a meta.mat whose packed elements unpack to more than any such file can hold (MAT-file 5 format)."""
    position, room = 128, LARGEST_UNPACKED
    while position + 8 <= len(data):
        kind, size = (int.from_bytes(data[position + at:position + at + 4], "little") for at in (0, 4))
        if kind == 15:  # miCOMPRESSED
            unpacker = zlib.decompressobj()
            try:
                room -= len(unpacker.decompress(data[position + 8:position + 8 + size], max(room, 1)))
            except zlib.error as error:
                fail("%s: its %s is damaged: %s" % (source, META, error))
            if unpacker.unconsumed_tail or room < 0:
                fail("%s: its %s unpacks to more than %d MB; it is not the kit's" % (source, META, LARGEST_UNPACKED >> 20))
        position += 8 + size


def wordnet_ids(data, source):
    """{the kit's ILSVRC2012_ID: WordNet id} of the classes, 1 to 1000; the kit's larger numbers are inner nodes."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        fail("SciPy is needed to read %s (%s); pip install scipy" % (META, error))
    check_matlab(data, source)
    try:
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        ids = {int(number): str(wordnet_id) for number, wordnet_id in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])}
    except Exception as error:  # SciPy's reader raises a dozen kinds on broken files
        fail("%s: its %s has no synsets with ILSVRC2012_ID and WNID (%s)" % (source, META, error))
    ids = {number: wordnet_id for number, wordnet_id in ids.items() if number <= CLASSES}
    if sorted(ids) != list(range(1, CLASSES + 1)) or len(set(ids.values())) != CLASSES:
        fail("%s: its %s does not map each of the numbers 1 to %d to a WordNet id of its own" % (source, META, CLASSES))
    for wordnet_id in ids.values():
        if not WORDNET_ID.match(wordnet_id):
            fail("%s: its %s has %r where a WordNet id such as n01440764 should be" % (source, META, wordnet_id))
    return ids


def labels_of_devkit(files, source):
    """[(file name, class)]: line N of the ground truth is the kit's number for ILSVRC2012_val_N."""
    for name in (GROUND_TRUTH, META):
        if name not in files:
            fail("%s: holds no %s; it is neither the devkit of ILSVRC2012 nor a folder of class folders" % (source, name))
    ids = wordnet_ids(files[META], source)
    class_of = {wordnet_id: number for number, wordnet_id in enumerate(sorted(ids.values()))}
    labels = []
    for line, text in enumerate(files[GROUND_TRUTH].decode("ascii", "replace").split("\n"), 1):
        if text.strip():
            if not re.match("[0-9]{1,4}$", text.strip()) or int(text) not in ids:
                fail("%s: line %d of its %s is %r, not a number from 1 to %d"
                     % (source, line, GROUND_TRUTH, text.strip()[:20], CLASSES))
            labels.append(("ILSVRC2012_val_%08d.JPEG" % (len(labels) + 1), class_of[ids[int(text)]]))
    return labels


def labels_of_folders(folder, classes):
    """[(file name, class)] of the images in class folders, in order of their names.

    Where several folders have an image of one name, each of these is called FOLDER__FILE, as the preprocessing calls it.
    """
    found = []
    for number, name in enumerate(classes):
        for file in sorted(os.listdir(os.path.join(folder, name))):
            if file.startswith(".") or not file.lower().endswith(EXTENSIONS):
                continue
            if re.search(r"\s$|[\r\n]", file) or re.search(r"[\r\n]", name):
                fail("%r in %s: such a name does not fit into a line" % (file, os.path.join(folder, name)))
            found.append((name, file, number))
    often, labels, taken = collections.Counter(file.split(".")[0] for _, file, _ in found), [], set()
    for name, own, number in found:
        file = own
        if often[file.split(".")[0]] > 1:
            file = "%s__%s" % (name.replace(".", "_"), file)
        if file.split(".")[0] in taken:
            fail("%s: two images would be called %s, one of them %s; rename one"
                 % (folder, file.split(".")[0], os.path.join(name, own)))
        taken.add(file.split(".")[0])
        labels.append((file, number))
    return sorted(labels)


def make_labels(source):
    """([(file name, class)], number of classes, names of the classes or None for ImageNet's)."""
    if not os.path.isdir(source):
        return labels_of_devkit(read_packed(source), source), CLASSES, None
    folders = sorted(entry.name for entry in os.scandir(source) if entry.is_dir() and not entry.name.startswith("."))
    files = read_unpacked(source) if not any(WORDNET_ID.match(name) for name in folders) else {}
    if files:
        return labels_of_devkit(files, source), CLASSES, None
    if not folders:
        fail("%s: is neither the devkit of ILSVRC2012 nor a folder of class folders: it holds no folder" % source)
    wordnet_folders = [name for name in folders if WORDNET_ID.match(name)]
    if wordnet_folders:  # any, not all: a lost+found beside them would shift every number by one
        if len(wordnet_folders) != CLASSES:
            fail("%s: has %d class folders (named as n01440764), not %d; with some missing, the classes cannot be numbered"
                 % (source, len(wordnet_folders), CLASSES))
        return labels_of_folders(source, wordnet_folders), CLASSES, None
    return labels_of_folders(source, folders), len(folders), folders


def check_imagenet(source, labels):
    if len(labels) != IMAGES:
        fail("%s: has labels of %d images, ImageNet's validation set has %d" % (source, len(labels), IMAGES))
    missing = CLASSES - len({number for _, number in labels})
    if missing:
        fail("%s: %d of the %d classes have no image" % (source, missing, CLASSES))


def write_whole(path, text):
    """Under path, whole or not at all; a link there is replaced, not followed."""
    temporary = os.path.join(os.path.dirname(path), ".%s.%s.tmp" % (os.path.basename(path), os.urandom(4).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:  # also of a stop
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_names(names, labels_path):
    """class_names.txt beside the labels, one a line; another one that is there is not replaced."""
    path, text = os.path.join(os.path.dirname(labels_path), "class_names.txt"), "".join(name + "\n" for name in names)
    if os.path.lexists(path) and read_file(path) != text.encode("utf-8", "surrogateescape"):
        fail("%s: is there with other names; move it away, or write the labels into another folder" % path)
    write_whole(path, text)
    return path


def parse_args():
    parser = argparse.ArgumentParser(description="Make val_label.txt from ImageNet's devkit or from class folders.")
    parser.add_argument("source", metavar="SOURCE", help="the devkit's .tar.gz or folder, or a folder of class folders")
    parser.add_argument("labels", metavar="LABELS", help="the file to write, for example ImageNet/val_label.txt")
    return parser.parse_args()


def main():
    args = parse_args()
    if not os.path.isdir(os.path.dirname(args.labels) or "."):
        fail("%s: its folder does not exist; make it first" % args.labels)
    labels, classes, names = make_labels(args.source)
    if names is None:
        check_imagenet(args.source, labels)
    elif not labels:
        fail("%s: its folders hold no images (looked for %s)" % (args.source, " ".join(EXTENSIONS)))
    empty = sorted(set(range(classes)) - {number for _, number in labels})
    if empty and names is not None:
        fail("%s: its folder %s holds no image; each folder is a class and shifts the numbers of those after it (torchvision's "
             "ImageFolder refuses it too); remove it" % (args.source, names[empty[0]]))
    if names is not None:
        everywhere = [os.path.join(place, file) for place, _, files in os.walk(args.source) for file in sorted(files)
                      if file.lower().endswith(EXTENSIONS) and not file.startswith(".")]
        if len(everywhere) > len(labels):
            odd = next(path for path in everywhere if os.path.relpath(path, args.source).count(os.sep) != 1)
            sys.stderr.write("warning: %d images are not directly in a class folder and get no label (first: %s)\n"
                             % (len(everywhere) - len(labels), odd))
        if classes == 1:
            sys.stderr.write("warning: there is but one class folder; is %s one level too high?\n" % args.source)
    named = " (their names: %s)" % write_names(names, args.labels) if names is not None else ""
    write_whole(args.labels, "".join("%s %d\n" % label for label in labels))
    print("%s: %d images of %d classes%s" % (args.labels, len(labels), classes, named))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stopped)
    try:
        main()
        if sys.stdout is not None:  # closed with >&-
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("not enough memory for it")
