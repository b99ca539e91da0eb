#!/usr/bin/env python3
"""Turn images into model inputs: one .bin file an image (the guide's stage "prepare the data set").

    python3 imagenet_torch_preprocess.py resnet ./ImageNet/val ./prep_dataset

SRC is a flat folder of images or a folder of class folders. Each image becomes DST/NAME.bin, NAME being the part of its file
name before the first dot (FOLDER__NAME where class folders hold equal names): 3 x 224 x 224 little-endian float32 values, the
same bits as torchvision's Resize -> CenterCrop -> ToTensor -> Normalize gives, or with --dtype uint8 the 224 x 224 x 3 RGB pixels
before ToTensor. DST/.recipe.json says how the files were made, DST/.manifest of which images; a second run keeps exactly what
these two vouch for (path, size and modification time of image and file; somebody who fakes them is not found).
Exit code 0: every image was made; 1: at least one was not; 2: wrong usage; 130, 143: stopped by Ctrl-C, SIGTERM.
"""
# ruff: noqa: E402 - the imports follow the handlers: Ctrl-C while they load gets a sentence, too
import os
import signal
import sys


def stopped(number, frame):
    """Ctrl-C, or the SIGTERM of a scheduler: a sentence; what is finished is kept."""
    signal.signal(number, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; the finished files are kept, run the same line again to go on\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:
        pass
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and `&` in scripts, ignore Ctrl-C on purpose
            signal.signal(number, stopped)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here multiplies matrices; its threads cost a start and a fork

import argparse
import contextlib
import errno
import fcntl
import hashlib
import io
import json
import multiprocessing
import random
import re
import stat
import time
import warnings
from collections import Counter, namedtuple
from multiprocessing import connection

import numpy as np
import PIL
from PIL import Image, ImageFile
from tqdm import tqdm

# ImageNet's channel mean and standard deviation (RGB, of values in 0..1), as torchvision's reference training has them.
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# The ModelZoo's table: short side after resizing, side of the centre crop, mean, standard deviation.
MODELS = {
    "resnet": dict(IMAGENET, resize=256, crop=224),
    "inceptionv3": dict(IMAGENET, resize=342, crop=299),
    "inceptionv4": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": 342, "crop": 299},
}
LAYOUTS = {"float32": "CHW", "uint8": "HWC"}
EXTENSIONS = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's IMG_EXTENSIONS
# What Pillow may take a file for, whatever its name: never EPS, which it hands to Ghostscript. JPEG opens MPO, too.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
MOST_BYTES = 1 << 30  # of a file: more than the largest picture that Pillow's own limit of 179 million pixels lets in
# 270 MB in Pillow: resized to 256, a strip 1024 times as long as wide.
MOST_PIXELS, MOST_RESIZE = 1 << 26, 4096
RECIPE, MANIFEST, LOCK = ".recipe.json", ".manifest", ".lock"
TEMPORARY = re.compile(r"\.preprocess\.[0-9a-f]{16}\.tmp")  # not of the image's name, which may be as long as a name may be
CHUNK = 8  # images a worker takes at a time: few enough that all finish together, many enough to keep traffic small

# A line of the manifest; zeros vouch for nothing.
Entry = namedtuple("Entry", "name source source_size source_mtime_ns bin_size bin_mtime_ns")


def fail(message):
    try:
        sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    finally:
        sys.exit(1)


def find_images(source, destination=None):
    """Images of a flat folder, or of class folders one level down: ({NAME: path} in order of NAME, file names left aside).

    DST may be SRC or lie in it. Exits with a sentence when there are no images, or when two would become one NAME.bin.
    """
    own = os.path.realpath(destination) if destination else None
    found, left_aside = [], []
    folders = [(source, "")]
    for folder, label in folders:  # grows by the class folders while SRC itself is read
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            hidden = entry.name.startswith(".")
            if folder is source and not hidden and entry.is_dir():
                if os.path.realpath(entry.path) != own:
                    folders.append((entry.path, entry.name.replace(".", "_") + "__"))
            elif not hidden and entry.name.lower().endswith(EXTENSIONS):
                # ais_bench names a result by the part before the first dot; cutting there keeps results apart as well.
                found.append((label, entry.name.split(".")[0], os.path.abspath(entry.path)))
            elif os.path.realpath(folder) != own:
                left_aside.append(entry.name)
    often, images = Counter(name for _, name, _ in found), {}
    for label, name, path in found:
        name = label + name if often[name] > 1 else name
        if name in images:
            fail("%s and %s would both become %s.bin; rename or remove one" % (images[name], path, name))
        images[name] = path
    if not images:
        fail("%s: no images found (looked for %s there and in its folders)" % (source, " ".join(EXTENSIONS)))
    return dict(sorted(images.items())), left_aside


def check_labels(path, images):
    """Refuse images that have no line "FILE CLASS" in the labels: before hours of work, not after."""
    if os.path.isdir(path):
        fail("%s: is a folder, not a label file; tools/make_val_label.py makes one of class folders" % path)
    labelled = set()
    for number, line in enumerate(read_file(path)[1].decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        fields = line.rsplit(None, 1)
        if fields and (len(fields) != 2 or not re.match("[0-9]+$", fields[1]) or re.search(r"\.\w+\s+[0-9]+$", fields[0])):
            fail("%s: line %d is not \"FILE CLASS\" but %r" % (path, number, line.strip()[:80]))
        labelled.update(os.path.basename(field).split(".")[0] for field in fields[:1])
    missing = [name for name in images if name not in labelled]
    if missing:
        fail("%s: labels none of %d of the %d images (first: %s); use the labels of these images, or remove those from SRC"
             % (path, len(missing), len(images), images[missing[0]]))


def read_file(path):
    """(what stat told when the file was opened, its bytes), of regular files only: a FIFO would hang, a device never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        if told.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "is larger than 1 GB")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return told, file.read()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def write_whole(folder, name, data, temporary=None):
    """Write a file that is there whole or not at all; returns its size and mtime in ns. An OSError names the file."""
    path, temporary = os.path.join(folder, name), temporary or new_temporary(folder)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            written = os.fstat(file.fileno())
        os.replace(temporary, path)  # after the close: a network file system tells of a full disk only there
        return written.st_size, written.st_mtime_ns
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None
        raise


def new_temporary(folder):
    return os.path.join(folder, ".preprocess.%s.tmp" % os.urandom(8).hex())


def remove_temporaries(folder):
    for name in os.listdir(folder):
        if TEMPORARY.match(name):
            os.unlink(os.path.join(folder, name))


def lock(folder):
    """One run at a time in DST. Nobody closes the descriptor: the lock lasts as long as this process and its workers."""
    path = os.path.join(folder, LOCK)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        fail("%s: is no regular file; remove it" % path)
    for _ in range(40):  # two seconds: the workers of a killed run need a moment to see that it is gone
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    fail("%s: another run is at work in this folder; wait for it, or use another folder" % folder)


def read_recipe(folder):
    """What .recipe.json says, or None where there is none."""
    path = os.path.join(folder, RECIPE)
    try:
        record = json.loads(read_file(path)[1].decode())
        if set(record["recipe"]) != {"resize", "crop", "mean", "std", "dtype", "layout"} or "model_type" not in record:
            raise ValueError("keys are missing")
        return record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        fail("%s: is damaged; remove %s, or use another folder" % (path, folder))


def read_manifest(folder):
    """{NAME: Entry}, the last line of a NAME counting; lines torn by a kill or a full disk vouch for nothing."""
    try:
        lines = read_file(os.path.join(folder, MANIFEST))[1].decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        lines = []
    entries = {}
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if type(row) is list and list(map(type, row)) == [str, str, int, int, int, int]:
                entries[row[0]] = Entry(*row)
    return entries


def write_manifest(folder, entries):
    """Write {NAME: Entry} in order of NAME, where that is not what stands there."""
    data = "".join(json.dumps(entry) + "\n" for _, entry in sorted(entries.items())).encode()
    path = os.path.join(folder, MANIFEST)
    if not os.path.exists(path) or read_file(path)[1] != data:
        write_whole(folder, MANIFEST, data)


def plan(folder, images, wanted, record, facts, overwrite):
    """Prepare DST, which is locked: ({NAME: source} still to be made, why all are made again or "", how many files were removed).

    What is refused is refused before anything is removed, and only what the manifest lists is removed. The facts are written
    down beside the record, but decide nothing.
    """
    told, manifest = read_recipe(folder), read_manifest(folder)
    before = told and {key: told[key] for key in told if key not in facts}
    present = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(folder)}
    strangers = sorted(name for name in present if name.lower().endswith((".bin", ".npy"))
                       and not (name.endswith(".bin") and name[:-4] in manifest))
    if strangers:
        fail("%s: holds %d files that its %s does not list (first: %s), and inference would take them too; use another folder or "
             "remove them" % (folder, len(strangers), MANIFEST, strangers[0]))
    why = ""
    if before is not None and before != record:
        made, asked = (dict(one["recipe"], model_type=one["model_type"], shard=one.get("shard")) for one in (before, record))
        other = ["%s %s, not %s" % (key, made[key], asked[key]) for key in sorted(asked) if made[key] != asked[key]]
        if other and not overwrite:
            fail("%s: was made for %s; use another folder, or --overwrite to make it again" % (folder, "; ".join(other)))
        changed = [key for key in ("script_sha256", "pillow", "numpy") if before.get(key) != record[key]]
        why = "another recipe" if other else "another %s" % " and ".join(changed)
    surplus = [name for name in manifest if name not in wanted]
    same_set = [name for name in surplus if images.get(name) == manifest[name].source and name + ".bin" in present]
    if len(wanted) < len(images) and record["shard"] is None and same_set:
        fail("%s: holds %d more images of this set than --limit wants (first: %s.bin); use another folder, or remove this one"
             % (folder, len(same_set), same_set[0]))

    kept, jobs, recipe = {}, {}, record["recipe"]
    size = 3 * recipe["crop"] ** 2 * np.dtype(recipe["dtype"]).itemsize
    for name, source in wanted.items():
        entry, there = manifest.get(name), present.get(name + ".bin")
        if before == record and not overwrite and entry and there and entry.source == source and stat.S_ISREG(there.st_mode) \
                and entry[4:] == (size, there.st_mtime_ns) and there.st_size == size and entry[2:4] == identity(source):
            kept[name] = entry
        else:
            jobs[name] = source
    # First what is to come is written down, vouching for nothing: whenever this run is killed, the next one knows its files.
    pending = {name: Entry(name, jobs.get(name) or manifest[name].source, 0, 0, 0, 0) for name in list(jobs) + surplus}
    write_manifest(folder, dict(pending, **kept))
    old = [name for name in pending if name + ".bin" in present]
    for name in old:  # before new ones come, lest a killed run leave a mixture
        os.unlink(os.path.join(folder, name + ".bin"))
    remove_temporaries(folder)
    if told != dict(record, **facts):
        write_whole(folder, RECIPE, (json.dumps(dict(record, **facts), indent=1) + "\n").encode())
    return jobs, why, sum(name not in wanted for name in old)


def identity(path):
    """(size, mtime in ns), or None for what cannot be had: then opening it will tell the reason."""
    try:
        told = os.stat(path)
        return told.st_size, told.st_mtime_ns
    except OSError:
        return None


def cut(data, resize, crop):
    """An RGB image of crop x crop pixels from an image file's bytes; raises whatever Pillow raises for a file it cannot read."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    size = (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError("would be %d x %d pixels after resizing, which is more than %d" % (size + (MOST_PIXELS,)))
    image.load()
    if image.mode != "RGB":  # convert would copy an RGB image once more, which costs a fifth of the whole (benchmarks/README.md)
        image = image.convert("RGB")
    left, top = int(round((size[0] - crop) / 2.0)), int(round((size[1] - crop) / 2.0))
    # Pillow resizes the rows, rounds, then the columns: cropping in between gives the same bits, and columns to spare.
    image = image.resize((size[0], height), Image.BILINEAR).crop((left, 0, left + crop, height))
    return image.resize((crop, size[1]), Image.BILINEAR).crop((0, top, crop, top + crop))


def normalise(image, mean, std, planes):
    """Fill planes, float32 (3, crop, crop): /255, minus mean, over std, each rounded, as ToTensor and Normalize do it.

    A table of the 256 levels would give the same bits, but numpy widens its indices to 64 bit first: 1.3 to 2.5 times as slow.
    """
    for plane, band, mean_of_band, std_of_band in zip(planes, image.split(), mean, std):
        plane[...] = np.frombuffer(band.tobytes(), np.uint8).reshape(plane.shape)
        plane /= np.float32(255)
        plane -= mean_of_band
        plane /= std_of_band


def work(jobs, folder, recipe, manifest, next_job, report, parent):
    """A worker process: take jobs until none is left, send (how many were handled, [(source, reason)], fatal) of each chunk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    warnings.simplefilter("ignore")  # Pillow's about broken EXIF, which nothing here reads
    crop, temporary = recipe["crop"], new_temporary(folder)
    mean, std = (np.array(recipe[key], np.float32) for key in ("mean", "std"))
    planes = np.empty((3, crop, crop), np.dtype("<f4"))  # one for all images: fresh memory for each costs 0.3 ms of page faults
    while True:
        with next_job.get_lock():
            first = next_job.value
            next_job.value += CHUNK
        chunk, unreadable = jobs[first:first + CHUNK], []
        if not chunk:
            return
        for name, source in chunk:
            if os.getppid() != parent:  # which was killed: nobody is left to report to
                return
            try:
                told, data = read_file(source)
                image = cut(data, recipe["resize"], crop)
                if recipe["dtype"] == "uint8":
                    data = image.tobytes()
                else:
                    normalise(image, mean, std, planes)
                    data = planes.reshape(-1).view(np.uint8)
            except Exception as error:  # Pillow's decoders raise a dozen kinds on broken files
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                unreadable.append((source, reason or type(error).__name__))
                continue
            try:
                entry = Entry(name, source, told.st_size, told.st_mtime_ns, *write_whole(folder, name + ".bin", data, temporary))
                line = (json.dumps(entry) + "\n").encode()
                if os.write(manifest, line) != len(line):  # one write: lines of several workers do not mix
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                report.send((0, [], "%s: cannot be written: %s" % (error.filename or MANIFEST, error.strerror)))
                return
        report.send((len(chunk), unreadable, None))


def keep_freed_memory():
    """Let malloc keep what is freed with each image: giving it back and faulting it in again cost 6 % of the whole.

    glibc's mallopt with M_MMAP_THRESHOLD (its largest value) and M_TRIM_THRESHOLD; another C library stays as it is.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import ctypes  # not before there is work; a Python may have been built without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 25)
        mallopt(-1, 1 << 27)


def start(processes, jobs, folder, recipe, workers):
    """Fill processes: {the end of a pipe that each worker process reports to: the process}."""
    keep_freed_memory()
    Image.preinit()  # the plugins: once, not in each worker
    # Bytes a decoder is given, and tobytes allocates, at once: 65 536 cut a file in two, 4 MB cost tobytes 0.1 ms of page faults.
    ImageFile.MAXBLOCK = 1 << 19
    fork = multiprocessing.get_context("fork")  # workers inherit the lock and the manifest
    manifest = os.open(os.path.join(folder, MANIFEST), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # until a worker has handlers of its own
    try:
        next_job = fork.Value("q", 0)
        for _ in range(min(workers, -(-len(jobs) // CHUNK))):
            receiver, sender = fork.Pipe(duplex=False)
            arguments = list(jobs.items()), folder, recipe, manifest, next_job, sender, os.getpid()
            process = fork.Process(target=work, args=arguments, daemon=True)
            process.start()
            processes[receiver] = process
            sender.close()  # the worker's is now the only one: its end is the pipe's end
    except OSError as error:
        raise OSError(error.errno, error.strerror, "worker process %d" % (len(processes) + 1)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(manifest)


def run(jobs, folder, recipe, workers):
    """Make all jobs in worker processes; returns the sources that could not be read, each reported on stderr."""
    unreadable, processes = [], {}
    try:
        start(processes, jobs, folder, recipe, workers)
        with tqdm(total=len(jobs), unit="image", desc="preprocess", disable=None) as bar:
            while processes:
                for receiver in connection.wait(list(processes)):
                    try:
                        done, failures, fatal = receiver.recv()
                    except EOFError:
                        process = processes.pop(receiver)
                        process.join()
                        if process.exitcode:
                            fail("a worker process died (exit code %d, -9 mostly means out of memory); the finished files "
                                 "are kept, run the same line again, perhaps with fewer --workers" % process.exitcode)
                        continue
                    if fatal:
                        fail(fatal)
                    for source, reason in failures:
                        tqdm.write("error: %s: cannot be read as an image: %s"
                                   % (" ".join(source.split()), " ".join(reason.split())), file=sys.stderr)
                        unreadable.append(source)
                    bar.update(done)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()
        remove_temporaries(folder)  # of workers that were stopped while they wrote
    return unreadable


def parse_args():
    def positive(text):
        if not re.match("[0-9]{1,9}$", text) or int(text) < 1:
            raise argparse.ArgumentTypeError("%r is not a positive whole number" % text)
        return int(text)

    def shard(text):
        if not re.match("[0-9]{1,9}/[0-9]{1,9}$", text) or not 1 <= int(text.split("/")[0]) <= int(text.split("/")[1]):
            raise argparse.ArgumentTypeError("%r is not K/N with K from 1 to N" % text)
        return [int(part) for part in text.split("/")]

    def three(text):
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(0 <= one <= 1 for one in numbers):
            raise argparse.ArgumentTypeError("%r is not R,G,B, each from 0 to 1 (of values in 0..1)" % text)
        return numbers

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description="Turn images into model inputs, one .bin file an image.")
    parser.add_argument("model_type", metavar="MODEL_TYPE", choices=sorted(MODELS), help=" | ".join(sorted(MODELS)))
    parser.add_argument("source", metavar="SRC", help="folder of images, or of class folders with images")
    parser.add_argument("destination", metavar="DST", help="folder for the .bin files, made where missing")
    parser.add_argument("-j", "--workers", metavar="N", type=positive, default=cpus,
                        help="worker processes (default: the CPUs this process may use, here %(default)s)")
    parser.add_argument("--limit", metavar="N", type=positive, help="only the first N images in order of their names")
    parser.add_argument("--sample", metavar="N", type=positive, help="only N images, drawn among these, always the same ones")
    parser.add_argument("--overwrite", action="store_true", help="make finished files again")
    parser.add_argument("--dtype", choices=sorted(LAYOUTS), default="float32",
                        help="float32: normalised, the guide's (default); uint8: pixels, a quarter of the bytes")
    parser.add_argument("--resize", metavar="N", type=positive, help="short side after resizing (default: MODEL_TYPE's)")
    parser.add_argument("--crop", metavar="N", type=positive, help="side of the centre crop (default: MODEL_TYPE's)")
    parser.add_argument("--mean", metavar="R,G,B", type=three, help="channel means (default: MODEL_TYPE's)")
    parser.add_argument("--std", metavar="R,G,B", type=three, help="channel deviations (default: MODEL_TYPE's)")
    parser.add_argument("--labels", metavar="FILE", help="val_label.txt: images without a label in it are refused before work")
    parser.add_argument("--shard", metavar="K/N", type=shard, help="only the K-th of N blocks of the names, into DST/shardK_of_N")
    args = parser.parse_args()
    recipe = {key: getattr(args, key) or MODELS[args.model_type][key] for key in ("resize", "crop", "mean", "std")}
    args.recipe = dict(recipe, dtype=args.dtype, layout=LAYOUTS[args.dtype])
    if min(recipe["std"]) < 0.001:
        parser.error("--std %g: at least 0.001" % min(recipe["std"]))
    if not recipe["crop"] <= recipe["resize"] <= MOST_RESIZE:
        parser.error("--crop %(crop)d must be at most --resize %(resize)d, and that at most " % recipe + str(MOST_RESIZE))
    return args


def main():
    args = parse_args()
    images, left_aside = find_images(args.source, args.destination)
    wanted, folder = list(images)[:args.limit], args.destination
    if args.sample and args.sample < len(wanted):
        wanted = sorted(random.Random(0).sample(wanted, args.sample))
    # Before the cut into shards: whoever puts their results together sees whether they are shards of one set. Of the names, as
    # an image that was repaired must not part its shard from the others; what the images are, each shard's manifest says.
    whole = json.dumps(list(wanted))
    facts = {"source": args.source, "set_sha256": hashlib.sha256(whole.encode()).hexdigest()}
    if args.shard:
        shard, shards = args.shard
        folder = os.path.join(folder, "shard%d_of_%d" % (shard, shards))
        if shards > len(wanted):
            fail("%s: %d images are too few for %d shards" % (args.source, len(wanted), shards))
        wanted = wanted[(shard - 1) * len(wanted) // shards:shard * len(wanted) // shards]
    wanted = {name: images[name] for name in wanted}
    if args.labels:
        check_labels(args.labels, wanted)
    record = {"model_type": args.model_type, "recipe": args.recipe, "pillow": PIL.__version__, "numpy": np.__version__,
              "script_sha256": hashlib.sha256(read_file(os.path.abspath(__file__))[1]).hexdigest(), "shard": args.shard}

    os.makedirs(folder, exist_ok=True)
    lock(folder)
    jobs, why, removed = plan(folder, images, wanted, record, facts, args.overwrite)
    if why:
        print("%s: made by %s; all is made again" % (folder, why))
    unreadable = run(jobs, folder, args.recipe, args.workers) if jobs else []
    manifest = read_manifest(folder)
    write_manifest(folder, {name: manifest[name] for name in wanted if name in manifest and manifest[name].bin_size})
    print("%s: %d of %d images ready for %s (%d made now, %d kept), %d other files left aside%s" % (
        folder, len(wanted) - len(unreadable), len(wanted), args.model_type, len(jobs) - len(unreadable), len(wanted) - len(jobs),
        len(left_aside), ": " + describe(left_aside) if left_aside else ""))
    if removed:
        print("%s: %d files of images that are no longer wanted removed" % (folder, removed))
    if unreadable:
        fail("%d of %d images could not be read and have no .bin file (each is named above)" % (len(unreadable), len(wanted)))


def describe(names):
    """The first five files, and how many there are of each extension."""
    kinds = Counter(os.path.splitext(name.lstrip("."))[1].lower() or "without extension" for name in names)
    return "%s%s (%s)" % (", ".join(" ".join(name.split()) for name in names[:5]), ", ..." if len(names) > 5 else "",
                          ", ".join("%d %s" % (count, kind) for kind, count in kinds.most_common()))


def guarded():
    """main(), and a sentence for whatever goes wrong with files, memory or the output."""
    for number in range(3):  # closed by `>&-`: the next file opened would get its number, and messages
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w", closefd=False), sys.stderr or open(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # only the standard output has none
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own flush at the end fails once more
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("not enough memory; run the same line again with fewer --workers")


if __name__ == "__main__":
    guarded()
