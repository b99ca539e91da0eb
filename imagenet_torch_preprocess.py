#!/usr/bin/env python3
"""Turn images into model inputs: one .bin file an image (the guide's stage "prepare the data set").

    python3 imagenet_torch_preprocess.py resnet ./ImageNet/val ./prep_dataset

SRC is a flat folder of images or a folder of class folders; common/images.py says what each image is called. It becomes
DST/NAME.bin: 3 x 224 x 224 little-endian float32 values, the same bits as torchvision's Resize -> CenterCrop -> ToTensor ->
Normalize gives of a PIL image, or with --dtype uint8 the 224 x 224 x 3 RGB pixels before ToTensor. DST/.recipe.json says how the
files were made, DST/.manifest of which images; a second run makes only what these two do not vouch for.
Exit code 0: every image is made; 1: at least one is not; 2: wrong usage; 130, 143: stopped by Ctrl-C, SIGTERM.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import contextlib
import ctypes
import functools
import io
import json
import random
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here multiplies matrices; its threads cost a start and a fork
import numpy as np
import PIL
from PIL import Image, ImageFile

from common import files, images, labels, machine, prepared, recipe, workers
from common.command import fail, one_line, warn

# What Pillow may take a file for, whatever its name: never EPS, which it hands to Ghostscript. JPEG opens MPO, too.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
MOST_BYTES = 1 << 30  # of a file: more than the largest picture that Pillow's own limit of 179 million pixels lets in
MOST_PIXELS = 1 << 26  # after resizing, 270 MB in Pillow: resized to 256, a strip 1024 times as long as wide


# ---- from an image file to a model's input ----

def cropped(data, made_with):
    """The RGB image that a Recipe crops from an image file's bytes; raises whatever Pillow raises for a file it cannot read."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    (width, height), resize, crop = image.size, made_with.resize, made_with.crop
    size = (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError("would be %d x %d pixels after resizing, which is more than %d" % (size + (MOST_PIXELS,)))
    image.load()
    if image.mode != "RGB":  # convert would copy an RGB image once more
        image = image.convert("RGB")
    left, top = int(round((size[0] - crop) / 2.0)), int(round((size[1] - crop) / 2.0))
    resample = getattr(Image, made_with.interpolation.upper())
    if height > width:  # Pillow may resize the columns first: 12.2 the very tall, 13.0 those more than twice as tall as wide
        return image.resize(size, resample).crop((left, top, left + crop, top + crop))
    # Pillow resizes the rows, rounds, then the columns: cropping in between gives the same bits, and columns to spare.
    image = image.resize((size[0], height), resample).crop((left, 0, left + crop, height))
    return image.resize((crop, size[1]), resample).crop((0, top, crop, top + crop))


def normalise(image, made_with, planes):
    """Fill planes, float32 (3, crop, crop): /255, minus mean, over std, each rounded, as ToTensor and Normalize do it.

    A table of the 256 levels would give the same bits, but numpy widens its indices to 64 bit first and is slower.
    """
    for plane, band, mean, std in zip(planes, image.split(), made_with.mean, made_with.std):
        plane[...] = np.frombuffer(band.tobytes(), np.uint8).reshape(plane.shape)
        plane /= np.float32(255)
        plane -= np.float32(mean)
        plane /= np.float32(std)


def make_bin(folder, made_with, planes, manifest, name, source):
    """Make an image's .bin and write its line of the manifest; returns (why it cannot be read as an image, or nothing,)."""
    try:
        data, source_stat = files.read_with_stat(source, MOST_BYTES)
        source_hash, image = files.xxh(data), cropped(data, made_with)
    except PIL.UnidentifiedImageError:
        return ("is none of " + " ".join(FORMATS)).encode(),
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken files
        return (getattr(error, "strerror", None) or command.first_line(error)).encode("utf-8", "replace"),
    if made_with.dtype == "uint8":
        data = image.tobytes()
    else:
        normalise(image, made_with, planes)
        data = planes.reshape(-1).view(np.uint8)
    bin_stat = files.write_quickly(os.path.join(folder, name + ".bin"), data)
    prepared.append_line(manifest, prepared.Image(name, source, source_hash, source_stat, files.xxh(data), bin_stat))
    return b"",


def make_all(jobs, folder, args):
    """Do all jobs (name, source); returns the names of those that could not be made, having said why."""
    with contextlib.suppress(AttributeError, OSError):  # glibc's malloc shall keep what each image frees, not fault it in again
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, its largest value
        mallopt(-1, 1 << 27)  # M_TRIM_THRESHOLD
    Image.preinit()  # the plugins: once, not in each worker
    # Bytes a decoder is given, and tobytes allocates, at once: 65 536 cut a file in two, much more costs page faults.
    ImageFile.MAXBLOCK = 1 << 19
    warnings.simplefilter("ignore")  # Pillow's about broken EXIF, which nothing here reads
    planes = np.empty((3, args.recipe.crop, args.recipe.crop), "<f4")  # one a worker, not one an image
    manifest = os.open(os.path.join(folder, prepared.MANIFEST), os.O_WRONLY | os.O_APPEND)
    try:
        done = workers.run_jobs(functools.partial(make_bin, folder, args.recipe, planes, manifest), jobs,
                                [("done", "?"), ("reason", "S160")], "preprocess", "image", args.workers)
    finally:
        os.close(manifest)
        files.remove_temporaries(folder)  # of workers that were stopped while they wrote
    unreadable = {}
    for (name, source), reason in zip(jobs, done["reason"]):
        if reason:
            unreadable[name] = reason.decode("utf-8", "replace")
            sys.stderr.write("error: %s: cannot be read as an image: %s\n" % (one_line(source), one_line(unreadable[name])))
    return set(unreadable)


# ---- what there is to do ----

def check_folder(folder, wanted, found, earlier, manifest, args):
    """Exit where DST is another recipe's, holds files of somebody else's, or more of these images than are wanted."""
    prepared.require_recipe(folder, earlier, args.recipe)
    names = os.listdir(folder) if os.path.lexists(folder) else []
    strangers = sorted(name for name in names if name.endswith(prepared.TAKEN)
                       and not (name.endswith(".bin") and name[:-4] in manifest))
    if strangers:
        fail("%s: holds %d files that its %s does not list (first: %s; a copy may lack hidden files), and inference would take "
             "them too; use another folder, or remove them" % (folder, len(strangers), prepared.MANIFEST, strangers[0]))
    surplus = sorted(name for name in manifest if name not in wanted and name + ".bin" in names)
    strange = [name for name in surplus if name not in found]
    is_of_another_set, is_larger = 2 * len(strange) > len(manifest), len(strange) < len(surplus) and not args.shard
    if (is_of_another_set or is_larger) and not args.overwrite:
        fail("%s: holds %d images that are not asked for (first: %s.bin), of another data set or more of this one; use another "
             "folder, or --overwrite" % (folder, len(surplus), surplus[0]))


def sort_out(folder, wanted, known):
    """({name: Image} of what is there as known, [(name, source)] of what is to be made)."""
    kept, jobs = {}, []
    with command.progress(len(known), "image", "look") as bar:  # of a folder that was carried here, every byte is read
        for name, source in wanted.items():
            image, path = known.get(name), os.path.join(folder, name + ".bin")
            if image and image.bin_hash and files.is_same(source, image.source_hash, image.source_stat) \
                    and files.is_same(path, image.bin_hash, image.bin_stat):
                source_stat, bin_stat = files.stat_of(os.stat(source)), files.stat_of(os.stat(path))
                kept[name] = image._replace(source=source, source_stat=source_stat, bin_stat=bin_stat)
            else:
                jobs.append((name, source))
            bar.update(name in known)
    return kept, jobs


def remove_bins(folder, names):
    """Remove the .bin files of names; returns how many there were."""
    paths = [path for path in (os.path.join(folder, name + ".bin") for name in names) if os.path.lexists(path)]
    for path in paths:
        os.unlink(path)
    return len(paths)


def parse_args():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("model_type", metavar="MODEL_TYPE", choices=sorted(recipe.MODEL_TYPES), help=" | ".join(sorted(recipe.MODEL_TYPES)))
    add("source", metavar="SRC", help="folder of images, or of class folders with images")
    add("destination", metavar="DST", help="folder for the .bin files, made where missing")
    add("-j", "--workers", metavar="N", type=command.whole(), default=machine.cpus(),
        help="worker processes (default: the CPUs this process may use, here %(default)s)")
    add("--limit", metavar="N", type=command.whole(), help="only the first N images in order of their names")
    add("--sample", metavar="N", type=command.whole(), help="only N images, drawn among these, always the same")
    add("--overwrite", action="store_true", help="make finished files again")
    add("--check", action="store_true", help="do nothing; exit code 0: nothing is to be done, 1: something is")
    add("--dtype", choices=sorted(recipe.LAYOUTS), default="float32",
        help="float32: normalised, the guide's (default); uint8: pixels, a quarter of the bytes")
    recipe.add_options(parser)
    add("--labels", metavar="FILE", help="val_label.txt: images without a label in it are refused before work")
    add("--shard", metavar="K/N", type=command.share, help="only the K-th of N blocks of the names, into DST/shardK_of_N")
    args = parser.parse_args()
    args.recipe = recipe.from_options(parser, args, args.model_type, args.dtype)
    return args


def warn_of_few_classes(args, found):
    """Where names begin with their class, the first ones are of one or two classes, which say little of the whole."""
    first, all_folders = [{os.path.dirname(found[name]) for name in list(found)[:count]} for count in (args.limit, None)]
    if args.limit and 2 * len(first) < min(args.limit, len(all_folders)):
        warn("--limit %d: the first names are of %d of %d class folders; --sample %d of imagenet_torch_preprocess.py draws "
             "among all" % (args.limit, len(first), len(all_folders), args.limit))


def choose_names(args, found):
    """([names wanted of those found], the identity of that list before it is cut into shards). Of the names alone: an image that
    was repaired must not part its shard from the others; what the images are, each shard's manifest says."""
    names = list(found)[:args.limit]
    if args.sample and args.sample < len(names):
        names = sorted(random.Random(0).sample(names, args.sample))
    set_hash = files.xxh(json.dumps(names).encode())
    if args.shard:
        if args.shard[1] > len(names):
            fail("%s: %d images are too few for %d shards" % (args.source, len(names), args.shard[1]))
        names = command.block(names, args.shard)
    if args.labels:
        missing = labels.missing(labels.read(args.labels)[0], names)
        if missing:
            fail("%s: has no label for %d of the %d images (first: %s); give the labels of these images, or remove those from SRC"
                 % (args.labels, len(missing), len(names), found[missing[0]]))
    return names, set_hash


def main():
    args = parse_args()
    found, left_aside = images.find_images(args.source, args.destination)
    names, set_hash = choose_names(args, found)
    wanted, folder = {name: found[name] for name in names}, args.destination
    if args.shard:
        folder = os.path.join(folder, "shard%d_of_%d" % tuple(args.shard))
    record = {"version": prepared.VERSION, "recipe": args.recipe.as_json(), "pillow": PIL.__version__, "set_hash": set_hash,
              "shard": args.shard, "complete": True, "model_type": args.model_type, "source": args.source}
    if not args.check:
        warn_of_few_classes(args, found)
        os.makedirs(folder, exist_ok=True)
        files.lock(folder)  # for as long as this process and its workers live
    earlier, manifest = None if args.overwrite else prepared.read_record(folder), prepared.read_manifest(folder)
    check_folder(folder, wanted, found, earlier, manifest, args)
    changed = [key for key in ("version", "pillow") if earlier and earlier.get(key) != record[key]]
    usable = earlier and not changed
    kept, jobs = sort_out(folder, wanted, manifest if usable else {})
    surplus = [name for name in manifest if name not in wanted]
    if args.check:
        as_made = usable and not surplus and all(earlier.get(key) == record[key] for key in ("set_hash", "shard", "complete"))
        return 0 if as_made and not jobs else 1

    unreadable, removed = set(), 0
    if jobs or kept != manifest or earlier != record:
        if changed:
            print("%s: was made with another %s; all is made again" % (folder, " and ".join(changed)))
        removed = remove_bins(folder, surplus)
        # Before anything is made, the manifest knows its name: killed at any moment, the next run knows its files. And before the
        # record says how, no line vouches for what was made otherwise.
        prepared.write_manifest(folder, dict(kept, **{job[0]: prepared.pending(*job) for job in jobs}))
        if jobs:
            prepared.write_record(folder, dict(record, complete=False))
            unreadable = make_all(jobs, folder, args)
            remove_bins(folder, unreadable)
        now = prepared.read_manifest(folder)
        prepared.write_manifest(folder, {name: now[name] for name in names if name not in unreadable})
        prepared.write_record(folder, record)
    if not jobs and not removed:
        print("kept: %s, %d images for %s, just these" % (folder, len(names), args.model_type))
        return
    print("%s: %d of %d images ready for %s (%d made now, %d kept), %d other files left aside%s" % (
        folder, len(names) - len(unreadable), len(names), args.model_type, len(jobs) - len(unreadable), len(kept),
        len(left_aside), ": " + ", ".join(map(one_line, left_aside[:5])) if left_aside else ""))
    if removed:
        print("%s: %d files of images that are no longer wanted removed" % (folder, removed))
    if unreadable:
        fail("%d of %d images could not be read and have no .bin file (each is named above)" % (len(unreadable), len(names)))


if __name__ == "__main__":
    command.run(main)
