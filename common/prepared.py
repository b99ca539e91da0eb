"""A prepared folder: one .bin file an image, .recipe.json (how they were made), .manifest (of which images), perhaps in shards.

imagenet_torch_preprocess.py writes it; the engines and the calibration read it through find_inputs, which takes folders made by
hand, too.
"""
import collections
import errno
import json
import os
import re

import numpy as np

from common import command, files, recipe
from common.command import fail

RECIPE, MANIFEST = ".recipe.json", ".manifest"
VERSION = 2  # of what the preprocessing writes; raised when the values of a .bin or these two files change
TAKEN = (".bin", ".BIN", ".npy", ".NPY")  # what ais_bench takes out of a folder, too
REMEDY = "; prepare the images again with imagenet_torch_preprocess.py"
CHANGED = "%s: is not what it was when it was looked at (damaged, or replaced)" + REMEDY

# A line of the manifest, a JSON list. source: path of the image. The hashes are XXH3-128, the stats files.stat_of; a bin_hash of
# "" vouches for nothing: the .bin is still to be made.
Image = collections.namedtuple("Image", "name source source_hash source_stat bin_hash bin_stat")
# A file for a model. offset: where the values begin in it; image: what tells the picture from another of its name, the source's
# hash, or where no manifest tells that, "bin:" and its own.
Input = collections.namedtuple("Input", "name path bytes offset hash stat image")


def image_name(path):
    """The part of a file's name before its first dot: what ais_bench names a result by."""
    return os.path.basename(path).split(".")[0]


def natural(text):
    """Sort key: runs of digits count as numbers, letters without case, as ais_bench sorts."""
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(re.split("([0-9]+)", text))]


# ---- the two files ----

def read_record(folder):
    """What .recipe.json says, or None where there is none: version, model_type, recipe, pillow, source, set_hash (of the names
    before shards), shard, complete (False while a run is at work there, or where one was killed)."""
    path = os.path.join(folder, RECIPE)
    return files.read_json(path) if os.path.lexists(path) else None


def require_recipe(folder, record, wanted):
    """Exit where what is there was made by another Recipe than is wanted, of which no run shall make a mixture."""
    was = recipe.from_json(record.get("recipe"), os.path.join(folder, RECIPE)) if record else None
    difference = recipe.difference(was, wanted, list(recipe.FIELDS) + ["dtype"])
    if difference:
        fail("%s: was made with %s; use another folder, or --overwrite to make it again" % (folder, difference))


def write_record(folder, record):
    files.write(os.path.join(folder, RECIPE), files.as_json(record, 1))


def read_manifest(folder):
    """{name: Image}, the last line of a name counting. Lines torn by a kill are passed over, an older version's say nothing."""
    images = {}
    try:
        lines = files.read(os.path.join(folder, MANIFEST)).decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            if os.path.basename(row[0]) != row[0]:  # no name of ours, and nothing shall be removed by it
                continue
            images[row[0]] = Image(*row) if len(row) == len(Image._fields) else pending(row[0], row[1])
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return images


def pending(name, source):
    return Image(name, source, "", [], "", [])


def append_line(descriptor, image):
    """Add an Image to a manifest that is open for appending; one write, so that lines of several processes do not mix."""
    line = files.as_json(image)
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), MANIFEST)


def write_manifest(folder, images):
    """Write {name: Image} in order of the names."""
    files.write(os.path.join(folder, MANIFEST), b"".join(files.as_json(images[name]) for name in sorted(images)))


# ---- what a model is fed ----

class Inputs(collections.namedtuple("Inputs", "path files recipe record")):
    """The files of --input in natural order of their names, each exactly one image for the model."""

    def content_hash(self):
        """The identity of all of it: the names and the bytes."""
        return files.set_hash((each.name, each.hash) for each in self.files)

    def summary(self):
        """What a summary says of the input."""
        return {"path": self.path, "images": len(self.files), "recipe": self.recipe and self.recipe.as_json(),
                **{key: self.record.get(key) for key in ("source", "set_hash")}}


def find_inputs(text, dtype, shape, model_recipe=None, limit=None, any_layout=False):
    """The Inputs of a folder, or of files in one, separated by commas; exits at the first that is not one image for the model.

    dtype: name; shape: of one image; model_recipe: the model's own Recipe or None. A folder with a manifest must be as that says.
    """
    whole = os.path.isdir(text)
    paths = [text] if os.path.exists(text) else text.split(",")
    if whole:
        paths = [os.path.join(text, name) for name in os.listdir(text) if name.endswith(TAKEN)]
        if not paths:
            shards = sorted(name for name in os.listdir(text) if re.fullmatch("shard[0-9]+_of_[0-9]+", name))
            fail("%s: no .bin or .npy files in it; %s" % (text, "give one of its folders, %s" % ", ".join(shards) if shards else
                                                          "imagenet_torch_preprocess.py makes them"))
    paths.sort(key=lambda path: natural(os.path.basename(path)))
    folders = {os.path.dirname(path) or "." for path in paths}
    if len(folders) > 1:
        fail("%s: are files of several folders; put them into one" % text)
    [folder], made_with = folders, None
    record, manifest = read_prepared(folder, paths, whole)
    if record:
        made_with = recipe.from_json(record.get("recipe"), os.path.join(folder, RECIPE))
        recipe.check_fits(made_with, folder, dtype, shape, model_recipe, any_layout)
    found, paths = {}, paths[:limit]
    with command.progress(len(paths), "file", "look") as bar:
        for path in paths:
            name = image_name(path)
            if name in found:
                fail("%s and %s would both give the result %s_0; rename one" % (found[name].path, path, name))
            found[name] = check_input(path, name, manifest.get(name), dtype, tuple(shape))
            bar.update(1)
    return Inputs(text, list(found.values()), made_with, record if whole and record else {})


def read_prepared(folder, paths, whole):
    """(record, {name: Image}) of a folder of the preprocessing, (None, {}) of another; exits unless all paths are in it."""
    record = read_record(folder)
    if record is None and not os.path.lexists(os.path.join(folder, MANIFEST)):
        return None, {}
    if record is None or record.get("version") != VERSION or not record.get("complete"):
        fail("%s: was prepared by another version of the suite, or is not whole%s" % (folder, REMEDY))
    manifest = read_manifest(folder)
    names = {os.path.basename(path)[:-4] for path in paths}
    vouched = {name for name, image in manifest.items() if image.bin_hash}
    strange, missing = sorted(names - vouched), sorted(set(manifest) - names) if whole else []
    if strange:
        fail("%s: its files are not those of its manifest, first %s.bin (a copy may lack hidden files)%s, into another folder"
             % (folder, strange[0], REMEDY))
    if missing:
        fail("%s: %d files of its manifest are missing, first %s.bin%s" % (folder, len(missing), missing[0], REMEDY))
    return record, manifest


def check_input(path, name, image, dtype, shape):
    """The Input of a file, when that is exactly one image of dtype and shape."""
    size, offset = int(np.prod(shape)) * np.dtype(dtype).itemsize, 0
    if image is None:  # made by hand: its hash now stands for what it was made from
        data, status = files.read_with_stat(path)
        found, content = len(data), files.xxh(data)
        picture = "bin:" + content
    else:  # read_batch and require_content hold the bytes against what is recorded
        found, status, content, picture = os.stat(path).st_size, image.bin_stat, image.bin_hash, image.source_hash
    if path.lower().endswith(".npy"):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            offset = array.offset
        except Exception as error:  # numpy reads the header as Python; whatever that raises, it is none
            fail("%s: is no .npy of an array: %s" % (path, error))
        if array.dtype != dtype or array.shape not in (shape, (1,) + shape) or not array.flags.c_contiguous:
            fail("%s: holds %s of shape %s, the model takes %s of %s in C order" % (path, array.dtype, array.shape, dtype, shape))
    if found != offset + size:
        fail("%s: holds %d bytes; one image of the model's input, %s %s, has %d: made for another model, or truncated"
             % (path, found - offset, dtype, list(shape), size))
    return Input(name, path, size, offset, content, status, picture)


def read_batch(inputs, batch):
    """Fill an array (batch size, ...) with Inputs' values; a short group is padded with its first, as ais_bench pads. Exits where
    a file is not what was recorded of it."""
    rows = batch.reshape(len(batch), -1).view(np.uint8)
    for row, source in zip(rows, inputs):
        data, status = files.read_with_stat(source.path)
        if status != source.stat and files.xxh(data) != source.hash:
            fail(CHANGED % source.path)
        row[:] = np.frombuffer(data, np.uint8, source.bytes, source.offset)
    rows[len(inputs):] = rows[0]


def require_content(inputs):
    """Exit unless each Input's bytes are what was recorded: for engines that read the files themselves."""
    with command.progress(len(inputs), "file", "verify") as bar:
        for each in inputs:
            if not files.is_same(each.path, each.hash, each.stat):
                fail(CHANGED % each.path)
            bar.update(1)
