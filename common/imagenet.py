"""What is known of ImageNet's validation set and of torchvision's ResNet34 on it: names, published figures, reassessed labels."""
import re

from common import files
from common.command import fail
from common.labels import imagenet_names

IMAGES, CLASSES = 50000, 1000
NAME = re.compile("ILSVRC2012_val_([0-9]{8})")
# torchvision's weights by their SHA-256, and what is published of them: by torchvision, and by the guide for its NPU.
PUBLISHED_WEIGHTS = ("b627a593", "333f7ec4")
PUBLISHED = (("torchvision", 73.314, 91.420), ("the guide's NPU", 73.31, 91.44))
# Points by which fp16 may change an accuracy of 50 000 images. It is off by some 0.002 of an image's largest score, a tenth of
# what compare_scores.py allows, which should change the verdict on at most 0.3 % of the images: 150. Each is won or lost like the
# toss of a coin, so that in 95 % of cases the sum is at most 1.96 * sqrt(150) = 24 images, 0.048 %.
FP16_POINTS = 0.05


def is_published(weights_sha256):
    """Whether these are torchvision's own weights; None: not known."""
    return (weights_sha256 or "").startswith(PUBLISHED_WEIGHTS)


def class_names(classes, weights_sha256, names):
    """The names of so many classes, of a model of these weights, judged on images of these names: torchvision's where they are
    known to be ImageNet's, else their numbers."""
    numbers = [str(label) for label in range(classes)]
    if classes == CLASSES and (is_published(weights_sha256) or all(map(NAME.fullmatch, names))):
        return imagenet_names() or numbers  # an old torchvision has none
    return numbers


def why_beyond(label, classes):
    """Why the largest label may be none of a model's classes."""
    if label == classes == CLASSES:
        return ("the labels count from 1, or are the development kit's own numbers, which are in another order and which "
                "tools/make_val_label.py with --devkit puts right")
    if classes < label < CLASSES:
        return ("the labels are of another data set, or ImageNet's numbers and the net's classes its own: "
                "tools/make_val_label.py with --own-classes numbers these among themselves")
    return "the labels are of another data set or count from 1, or the results are of another model or type"


def compare_with_published(weights_sha256, images, accuracy):
    """How far {"top1", "top5"} in percent are from what is published, of torchvision's weights on all images; None of others."""
    if images != IMAGES or not is_published(weights_sha256):
        return None
    figures = [{"by": by, "top1": top1, "top5": top5, "top1_difference": accuracy["top1"] - top1,
                "top5_difference": accuracy["top5"] - top5} for by, top1, top5 in PUBLISHED]
    largest = max(abs(row[key]) for row in figures for key in ("top1_difference", "top5_difference"))
    return {"figures": figures, "fp16_points": FP16_POINTS, "within_fp16": largest <= FP16_POINTS}


def read_real(path, names, classes):
    """({image name: [class, ...], any of which is right}, SHA-256) of "reassessed labels", a list for each image of the set."""
    data = files.read(path, 1 << 28)
    rows = files.parse_json(data, path)
    if not isinstance(rows, list) or len(rows) != IMAGES or not all(
            type(row) is list and all(type(label) is int and 0 <= label < classes for label in row) for row in rows):
        fail("%s: is no list of %d lists of classes below %d, as real.json of google-research/reassessed-imagenet is"
             % (path, IMAGES, classes))
    labels = {}
    for name in names:
        found = NAME.fullmatch(name)
        if not found or not 1 <= int(found.group(1)) <= IMAGES:
            fail("%s: is of the images ILSVRC2012_val_00000001 to %08d, and %s is none of these" % (path, IMAGES, name))
        labels[name] = rows[int(found.group(1)) - 1]
    return labels, files.sha256(data)
