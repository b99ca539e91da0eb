#!/usr/bin/env python3
"""Turn images into model inputs: one float32 .bin file an image (the guide's stage "prepare the data set").

    python3 imagenet_torch_preprocess.py resnet ./ImageNet/val ./prep_dataset

SRC is a flat folder of images or a folder of class folders. Each image becomes DST/NAME.bin, NAME being the
part of its file name before the first dot: 3 x 224 x 224 little-endian float32 values (602 112 bytes; 299 x 299
for inception), the same bits as torchvision's Resize -> CenterCrop -> ToTensor -> Normalize gives. Finished
files are kept on a second run. Exit code 0: every image was made; 1: at least one was not; 2: wrong usage.
"""
import argparse
import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing import connection

import numpy as np
from PIL import Image
from tqdm import tqdm

# ImageNet's channel mean and standard deviation (RGB, of values in 0..1), as torchvision's reference training has them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The ModelZoo's table: short side after resizing, side of the centre crop, mean, standard deviation.
MODELS = {
    "resnet": (256, 224, IMAGENET_MEAN, IMAGENET_STD),
    "inceptionv3": (342, 299, IMAGENET_MEAN, IMAGENET_STD),
    "inceptionv4": (342, 299, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
EXTENSIONS = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's IMG_EXTENSIONS
MARKER = ".model_type"  # the file in DST that remembers MODEL_TYPE; hidden, so that DST holds as many files as images
CHUNK = 8  # images a worker takes at a time: few enough that all finish together, many enough to keep traffic small


def fail(message):
    sys.exit("error: " + " ".join(message.splitlines()))


def find_images(folder):
    """Images of a flat folder, or of class folders one level down: ({NAME: path} in order of NAME, others left aside).

    Exits with a sentence when there are none, or when two images would give the same NAME.bin.
    """
    images, left_aside = {}, 0
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in list(entries):
            if entry.is_dir() and not entry.name.startswith("."):
                entries.remove(entry)
                entries += sorted(os.scandir(entry.path), key=lambda entry: entry.name)
    except OSError as error:
        fail("%s: cannot be listed: %s" % (folder, error.strerror))
    for entry in entries:
        if entry.name.startswith(".") or not entry.name.lower().endswith(EXTENSIONS):
            left_aside += 1
            continue
        # ais_bench names a result by the part before the first dot; cutting there keeps results apart as well.
        name = entry.name.split(".")[0]
        if name in images:
            fail("%s and %s would both become %s.bin; rename or remove one" % (images[name], entry.path, name))
        images[name] = entry.path
    if not images:
        fail("%s: no images found (looked for %s there and in its folders)" % (folder, " ".join(EXTENSIONS)))
    return dict(sorted(images.items())), left_aside


def plan(images, destination, model_type, overwrite):
    """Prepare DST and return the [(source, target)] still to be made; refuses files it cannot vouch for."""
    side = MODELS[model_type][1]
    size = 3 * side * side * 4
    marker = os.path.join(destination, MARKER)
    os.makedirs(destination, exist_ok=True)
    present = set(os.listdir(destination))
    strangers = sorted(name for name in present if name.lower().endswith((".bin", ".npy"))
                       and not (name.endswith(".bin") and name[:-4] in images))
    if strangers:
        fail("%s: holds %d files that are not from these images (first: %s), and inference would take them too; "
             "use another folder or remove them" % (destination, len(strangers), strangers[0]))
    made_by = None
    if MARKER in present:
        with open(marker, encoding="utf-8") as file:
            made_by = file.read().strip()
    if made_by not in (None, model_type) and not overwrite:
        fail("%s: was made for %s, not %s; use another folder, or --overwrite to make it again"
             % (destination, made_by, model_type))

    jobs, finished = [], []
    for name, source in images.items():
        target = os.path.join(destination, name + ".bin")
        if name + ".bin" in present and not overwrite:
            there = os.stat(target)
            newest = os.stat(source).st_mtime if os.path.exists(source) else 0
            if there.st_size == size and there.st_mtime >= newest:
                finished.append(target)
                continue
        jobs.append((source, target))
    if finished and made_by is None:
        fail("%s: %s is there but nothing says which MODEL_TYPE made it; use another folder, or --overwrite"
             % (destination, os.path.basename(finished[0])))
    for name in present:
        # What is to be made again goes first: a killed run must not leave old files that pass for new ones.
        # Temporary files are what a killed run left behind.
        if (overwrite and name.endswith(".bin")) or name.endswith(".bin.tmp"):
            os.unlink(os.path.join(destination, name))
    if made_by != model_type:
        write_whole(marker, (model_type + "\n").encode())
    return jobs


def write_whole(path, data):
    temporary = "%s.%d.bin.tmp" % (path, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def lookup_table(model_type):
    """float32 (3, 256): the normalised value of each uint8 level of each channel.

    /255, minus mean, over std, each rounded to float32 in that order, as ToTensor and Normalize do it.
    """
    mean, std = (np.array(values, np.float32).reshape(3, 1) for values in MODELS[model_type][2:])
    return (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std


def preprocess(path, model_type, table, planes):
    """Fill planes, float32 (3, crop, crop), from one image file; raises whatever Pillow raises for a file it cannot read."""
    resize, crop = MODELS[model_type][:2]
    with open(path, "rb") as file:
        image = Image.open(file)
        image.load()
    if image.mode != "RGB":  # convert would copy an RGB image once more, which costs a fifth of the whole (benchmarks/README.md)
        image = image.convert("RGB")
    width, height = image.size
    if width <= height:
        width, height = resize, int(resize * height / width)
    else:
        width, height = int(resize * width / height), resize
    left, top = int(round((width - crop) / 2.0)), int(round((height - crop) / 2.0))
    image = image.resize((width, height), Image.BILINEAR).crop((left, top, left + crop, top + crop))
    pixels = np.asarray(image)
    for channel in range(3):
        np.take(table[channel], pixels[:, :, channel], out=planes[channel], mode="clip")


def work(jobs, model_type, next_job, report, parent):
    """A worker process: take jobs until none is left, send (how many were handled, [(source, reason)], fatal) of each chunk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    warnings.simplefilter("ignore")  # Pillow's about broken EXIF, which nothing here reads
    table, side = lookup_table(model_type), MODELS[model_type][1]
    planes = np.empty((3, side, side), np.dtype("<f4"))  # one for all images: fresh memory for each costs 0.3 ms of page faults
    while True:
        with next_job.get_lock():
            first = next_job.value
            next_job.value += CHUNK
        chunk, unreadable = jobs[first:first + CHUNK], []
        if not chunk:
            return
        for source, target in chunk:
            if os.getppid() != parent:  # the parent was killed: nobody is left to report to
                return
            try:
                preprocess(source, model_type, table, planes)
            except Exception as error:  # Pillow's decoders raise a dozen kinds on broken files
                unreadable.append((source, str(error) or type(error).__name__))
                continue
            try:
                write_whole(target, planes)
            except OSError as error:
                report.send((0, [], "%s: cannot be written: %s" % (target, error.strerror)))
                return
        report.send((len(chunk), unreadable, None))


def run(jobs, model_type, workers):
    """Make all jobs in worker processes; returns the sources that could not be read, each reported on stderr."""
    processes, unreadable = {}, []
    next_job = multiprocessing.Value("q", 0)
    for _ in range(min(workers, len(jobs))):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=work, args=(jobs, model_type, next_job, sender, os.getpid()), daemon=True)
        process.start()
        sender.close()  # the worker's is now the only one: its end is the pipe's end
        processes[receiver] = process
    try:
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
                                   % (" ".join(source.splitlines()), " ".join(reason.splitlines())), file=sys.stderr)
                        unreadable.append(source)
                    bar.update(done)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()
    return unreadable


def parse_args():
    def positive(text):
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError("%r is not a positive whole number" % text)
        return int(text)

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description="Turn images into model inputs, one float32 .bin file an image.")
    parser.add_argument("model_type", metavar="MODEL_TYPE", choices=sorted(MODELS), help=" | ".join(sorted(MODELS)))
    parser.add_argument("source", metavar="SRC", help="folder of images, or of class folders with images")
    parser.add_argument("destination", metavar="DST", help="folder for the .bin files, made where missing")
    parser.add_argument("-j", "--workers", metavar="N", type=positive, default=cpus,
                        help="worker processes (default: the CPUs this process may use, here %(default)s)")
    parser.add_argument("--limit", metavar="N", type=positive, help="only the first N images in order of their names")
    parser.add_argument("--overwrite", action="store_true", help="make finished files again")
    return parser.parse_args()


def main():
    args = parse_args()
    images, left_aside = find_images(args.source)
    if args.limit:
        images = dict(list(images.items())[:args.limit])
    try:
        jobs = plan(images, args.destination, args.model_type, args.overwrite)
    except OSError as error:
        fail("%s: %s" % (error.filename or args.destination, error.strerror))
    try:
        unreadable = run(jobs, args.model_type, args.workers)
    except KeyboardInterrupt:
        print("interrupted; the finished files are kept, run the same line again to go on", file=sys.stderr)
        sys.exit(130)
    print("%s: %d of %d images ready for %s (%d made now, %d kept), %d other files left aside" % (
        args.destination, len(images) - len(unreadable), len(images), args.model_type,
        len(jobs) - len(unreadable), len(images) - len(jobs), left_aside))
    if unreadable:
        fail("%d of %d images could not be read and have no .bin file (each is named above)" % (len(unreadable), len(images)))


if __name__ == "__main__":
    main()
