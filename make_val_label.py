#!/usr/bin/env python3
"""Make val_label.txt from what people have of ImageNet (the guide's stage "prepare the data set").

    python3 make_val_label.py ILSVRC2012_devkit_t12.tar.gz ImageNet/val_label.txt
    python3 make_val_label.py ImageNet/val ImageNet/val_label.txt

SOURCE is the official development kit, packed or unpacked (meta.mat and ILSVRC2012_validation_ground_truth.txt in it are
read, with SciPy), or a folder of 1000 class folders named by WordNet id. Each line is "FILE CLASS"; CLASS counts from 0 in the
order of the sorted WordNet ids, where the kit has numbers of its own.
Exit code 0: written; 1: not written, the reason is named; 2: wrong usage.
"""
import argparse
import io
import os
import re
import sys
import tarfile

CLASSES, IMAGES = 1000, 50000  # of the challenge's classification task and of its validation set
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WORDNET_ID = re.compile(r"n\d{8}$")
EXTENSIONS = (".jpeg", ".jpg", ".png")


def fail(message):
    sys.exit("error: " + " ".join(str(message).splitlines()))


def read_packed(path):
    """{file name: bytes} of the two files in the packed kit; nothing is unpacked to disk."""
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in (GROUND_TRUTH, META) and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except (OSError, tarfile.TarError, EOFError) as error:
        fail("%s: cannot be read as a tar archive: %s" % (path, error))
    return found


def read_unpacked(folder):
    """{file name: bytes} of the two files anywhere under the kit's folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name in (GROUND_TRUTH, META):
                with open(os.path.join(place, name), "rb") as file:
                    found[name] = file.read()
    return found


def wordnet_ids(data, source):
    """{the kit's ILSVRC2012_ID: WordNet id} of the classes, 1 to 1000; the kit's larger numbers are inner nodes."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        fail("SciPy is needed to read %s (%s); pip install scipy" % (META, error))
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
            if not text.strip().isdigit() or int(text) not in ids:
                fail("%s: line %d of its %s is %r, not a number from 1 to %d"
                     % (source, line, GROUND_TRUTH, text.strip(), CLASSES))
            labels.append(("ILSVRC2012_val_%08d.JPEG" % (len(labels) + 1), class_of[ids[int(text)]]))
    return labels


def labels_of_folders(folder, wordnet_folders):
    """[(file name, class)] of the images in class folders, in order of their names."""
    if len(wordnet_folders) != CLASSES:
        fail("%s: has %d class folders (named as n01440764), not %d; with some missing, the classes cannot be numbered"
             % (folder, len(wordnet_folders), CLASSES))
    labels = {}
    for number, wordnet_id in enumerate(sorted(wordnet_folders)):
        for name in os.listdir(os.path.join(folder, wordnet_id)):
            if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
                continue
            if re.search(r"\s$|[\r\n]", name):
                fail("%r in %s: such a name does not fit into a line" % (name, os.path.join(folder, wordnet_id)))
            if name in labels:
                fail("%s: %s is there in two class folders" % (folder, name))
            labels[name] = number
    return sorted(labels.items())


def make_labels(source):
    if not os.path.isdir(source):
        return labels_of_devkit(read_packed(source), source)
    wordnet_folders = [entry.name for entry in os.scandir(source) if entry.is_dir() and WORDNET_ID.match(entry.name)]
    if wordnet_folders:
        return labels_of_folders(source, wordnet_folders)
    return labels_of_devkit(read_unpacked(source), source)


def write_labels(labels, path):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines("%s %d\n" % label for label in labels)
    os.replace(temporary, path)


def parse_args():
    parser = argparse.ArgumentParser(description="Make val_label.txt from ImageNet's devkit or from class folders.")
    parser.add_argument("source", metavar="SOURCE", help="the devkit's .tar.gz or folder, or a folder of 1000 class folders")
    parser.add_argument("labels", metavar="LABELS", help="the file to write, for example ImageNet/val_label.txt")
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        labels = make_labels(args.source)
        if len(labels) != IMAGES:
            fail("%s: has labels of %d images, ImageNet's validation set has %d" % (args.source, len(labels), IMAGES))
        missing = CLASSES - len({number for _, number in labels})
        if missing:
            fail("%s: %d of the %d classes have no image" % (args.source, missing, CLASSES))
        write_labels(labels, args.labels)
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))
    print("%s: %d images of %d classes" % (args.labels, len(labels), CLASSES))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
