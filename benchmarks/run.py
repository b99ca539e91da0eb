#!/usr/bin/env python3
"""Measure each stage against what its work must cost, side by side in one run, and print a table of ratios.

    python3 benchmarks/run.py [--images DIR] [--json FILE]

Draws its own images unless a folder is given. A ratio above 1 means that the project's script is faster than what it is
compared with. Each pair runs in turns; the table has the median of the turns' ratios and their smallest and largest.
Exit code 0: all was measured, whatever the figures; 1: something did not run; 2: wrong usage.
"""
import argparse
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, ROOT)
CPUS = len(os.sched_getaffinity(0))
SCRIPTS = ("imagenet_torch_preprocess.py", "imagenet_acc_eval.py", "onnx_infer.py", "resnet34_pth2onnx.py", "report.py",
           "resnet34_quantize.py", "tools/make_val_label.py", "tools/make_tiny_imagenet.py")
# images, images for memory, batch sizes, files of inference each, results to evaluate, turns, turns of a start
FULL = 600, 10000, (1, 8, 32), 96, 50000, 5, 9
SMALL = 32, 48, (4,), 8, 200, 1, 1
IN_MEMORY = "/dev/shm"  # where there is room: writing to a disk is as fast as its writing back of earlier files lets it be


def script(name, *arguments):
    """Run a script to its end; returns the seconds it took and the largest memory (MB) of any one and of all its processes."""
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, name)] + [str(argument) for argument in arguments],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peaks, start = {}, time.perf_counter()
    watcher = threading.Thread(target=watch, args=(process, peaks), daemon=True)
    watcher.start()
    errors = process.communicate()[1]
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        sys.exit("error: %s failed: %s" % (name, errors.decode("utf-8", "replace").strip()))
    children = [peak for number, peak in peaks.items() if number != process.pid]
    return seconds, max(children or peaks.values() or [0]), sum(peaks.values())


def watch(process, peaks):
    """The largest resident memory in MB of a process and its children, by process number, looked up again and again."""
    while process.poll() is None:
        for number in [process.pid] + children_of(process.pid):
            try:
                with open("/proc/%d/status" % number) as file:
                    peak = next(int(line.split()[1]) / 1024 for line in file if "VmHWM" in line)
                peaks[number] = max(peaks.get(number, 0), peak)
            except (OSError, StopIteration):
                continue
        time.sleep(0.02)


def children_of(number):
    try:
        with open("/proc/%d/task/%d/children" % (number, number)) as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def apart(function, *arguments):
    """Run a function of this file in a process of its own; returns the seconds that it says it took, or all it took."""
    code = "import sys; sys.path.insert(0, %r); import run; print(run.%s(*sys.argv[1:]))" % (HERE, function)
    start = time.perf_counter()
    process = subprocess.run([sys.executable, "-c", code] + [str(argument) for argument in arguments], capture_output=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit("error: %s failed: %s" % (function, process.stderr.decode("utf-8", "replace").strip()))
    said = process.stdout.decode().split()[-1]
    return seconds if said == "None" else float(said)


def in_turns(turns, *functions):
    """Seconds of each function in each turn: [[seconds of the first function, of the second, ...], ...]."""
    return [[function() for function in functions] for _ in range(turns)]


class Table:
    """The rows as they are measured; each is printed at once."""

    def __init__(self):
        self.rows = []
        print("| what | against | reach | median | spread |\n|---|---|---|---|---|")

    def add(self, what, against, reach, values, unit=" x"):
        values = sorted(values)
        middle = len(values) // 2
        median = values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
        self.rows.append({"what": what, "against": against, "reach": reach, "values": values, "median": median})
        print("| %s | %s | %s | %.2f%s | %.2f to %.2f |" % (what, against, reach, median, unit, values[0], values[-1]))
        sys.stdout.flush()


# What each stage is compared with. Those called apart take texts and return the seconds of their loop, or None for all.

def preprocessing(source, destination, workers, dtype="float32"):
    """The project's, without the start of Python and its imports, which measure_start has."""
    import imagenet_torch_preprocess as stage
    from common import images, prepared, recipe
    jobs = list(images.find_images(source, destination)[0].items())
    prepared.write_manifest(destination, {})
    arguments = argparse.Namespace(recipe=recipe.DEFAULT.with_dtype(dtype), workers=int(workers))
    start = time.perf_counter()
    if stage.make_all(jobs, destination, arguments):
        sys.exit("some images could not be read")
    return time.perf_counter() - start


def bound(source, destination, workers, copy, size=602112):
    """Pillow's decoding, resizing and cropping, and writing as many ready bytes as a .bin has: what the work must cost.

    With the copy of the decoded image that convert("RGB") makes, as torchvision's loader has it, or without.
    """
    import multiprocessing

    from PIL import Image  # noqa: F401 (imported before the start, as the project's does)
    paths = sorted(entry.path for entry in os.scandir(source))
    processes = [multiprocessing.Process(target=bound_work, args=(paths[number::int(workers)], destination, copy, int(size)))
                 for number in range(int(workers))]
    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a process failed")
    return time.perf_counter() - start


def bound_work(paths, destination, copy, size):
    from PIL import Image
    ready = b"\1" * size
    for path in paths:
        image = Image.open(path)
        image.load()
        if copy == "copy" or image.mode != "RGB":
            image = image.convert("RGB")
        width, height = image.size
        if width <= height:
            width, height = 256, int(256 * height / width)
        else:
            width, height = int(256 * width / height), 256
        left, top = (width - 224) // 2, (height - 224) // 2
        image.resize((width, height), Image.BILINEAR).crop((left, top, left + 224, top + 224)).tobytes()
        with open(os.path.join(destination, os.path.basename(path) + ".bin"), "wb") as file:
            file.write(ready)


def torchvision_recipe():
    from torchvision import transforms
    return transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                               transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


class Images:
    """A data set for DataLoader: the tensors of a folder's images."""

    def __init__(self, source):
        from torchvision.datasets.folder import default_loader
        self.load, self.recipe = default_loader, torchvision_recipe()
        self.paths = sorted(entry.path for entry in os.scandir(source))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, place):
        return self.recipe(self.load(self.paths[place]))


def dataloader(source, workers):
    import torch
    loader = torch.utils.data.DataLoader(Images(source), batch_size=8, num_workers=int(workers))
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def eager(weights, batch, runs):
    """Seconds of PyTorch's eager mode over the same number of batches, in the better of the two memory layouts."""
    import torch
    from torchvision.models import resnet34
    torch.set_num_threads(CPUS)
    model, images, seconds = resnet34().eval(), torch.zeros(int(batch), 3, 224, 224), []
    model.load_state_dict(torch.load(weights, map_location="cpu"))
    for layout in (torch.contiguous_format, torch.channels_last):
        model, images = model.to(memory_format=layout), images.to(memory_format=layout)
        with torch.no_grad():
            model(images)
            start = time.perf_counter()
            for _ in range(int(runs)):
                model(images)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def plain_text(folder):
    """Evaluation as it is mostly written: every token through numpy, one process."""
    import numpy as np
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name)) as file:
            line = file.readline()
        np.argsort(-np.array([np.float32(token) for token in line.strip().split(" ")]))


def plain_bin(folder):
    import numpy as np
    for name in sorted(os.listdir(folder)):
        np.argsort(-np.fromfile(os.path.join(folder, name), "<f4"))


def plain_pipeline(source, model):
    """timm's way: transforms in a DataLoader with two workers, ONNX Runtime in the loop, batch size 8, nothing on disk."""
    import onnxruntime
    import torch
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    hits = 0
    for batch in torch.utils.data.DataLoader(Images(source), batch_size=8, num_workers=2):
        hits += int((session.run(None, {"image": batch.numpy()})[0].argmax(axis=1) == 0).sum())


def ready_array(model, batch, runs):
    """Seconds of a session on a ready array, so many times."""
    import numpy as np
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CPUS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    array = np.ones([int(batch)] + given.shape[1:], np.uint8 if "uint8" in given.type else np.float32)
    session.run(None, {given.name: array})
    start = time.perf_counter()
    for _ in range(int(runs)):
        session.run(None, {given.name: array})
    return time.perf_counter() - start


# The measurements, in the guide's order.

def measure_preprocessing(table, work, images, many, turns):
    destination = os.path.join(work, "prep")

    def afresh(function, *arguments):
        shutil.rmtree(destination, ignore_errors=True)
        os.mkdir(destination)
        return apart(function, images, destination, *arguments)

    times = in_turns(turns, lambda: afresh("preprocessing", CPUS), lambda: afresh("bound", CPUS, "copy"),
                     lambda: afresh("bound", CPUS, "no copy"), lambda: apart("dataloader", images, CPUS))
    bound_is = "the bound: decode as torchvision's loader, resize, crop, write"
    table.add("preprocessing", bound_is, ">= 0.95", [turn[1] / turn[0] for turn in times])
    strict = "the same without the loader's copy of the image"
    table.add("preprocessing", strict, ">= 0.93", [turn[2] / turn[0] for turn in times])
    table.add("preprocessing", "torchvision in a DataLoader, nothing written", ">= 1.1", [turn[3] / turn[0] for turn in times])
    times = in_turns(turns, lambda: afresh("preprocessing", CPUS, "uint8"), lambda: afresh("bound", CPUS, "no copy", 150528),
                     lambda: afresh("preprocessing", CPUS), lambda: afresh("bound", CPUS, "no copy"))
    table.add("preprocessing, uint8", "its own bound, without a copy", ">= 0.97", [turn[1] / turn[0] for turn in times])
    table.add("preprocessing, uint8", "float32", ">= 1.1", [turn[2] / turn[0] for turn in times])
    table.add("the bound of uint8", "the bound of float32", "-", [turn[3] / turn[1] for turn in times])
    if CPUS > 1:
        times = in_turns(turns, lambda: afresh("preprocessing", 2), lambda: afresh("preprocessing", 1))
        table.add("preprocessing, two processes", "one process", ">= 1.8", [two / one for one, two in times])

    def memory(count):
        shutil.rmtree(destination, ignore_errors=True)
        return script("imagenet_torch_preprocess.py", "resnet", subset(images, work, count), destination)[1]

    table.add("memory of a worker, 100 images", "", "<= 150", [memory(100)], " MB")
    table.add("memory of a worker, %d images" % many, "", "<= 150", [memory(many)], " MB")
    shutil.rmtree(destination)


def subset(images, work, count):
    """A folder with so many images: links to those that are there, again and again."""
    folder = os.path.join(work, "images%d" % count)
    sources = sorted(entry.path for entry in os.scandir(images))
    os.mkdir(folder)
    for number in range(count):
        source = sources[number % len(sources)]
        os.symlink(source, os.path.join(folder, "%06d%s" % (number, os.path.splitext(source)[1])))
    return folder


def measure_inference(table, work, models, weights, batches, count, turns):
    """Files to results, against the same model on a ready array; models: {name: (model, its prep_dataset)}."""
    for batch in batches:
        prepared = min(sum(entry.name.endswith(".bin") for entry in os.scandir(prep)) for _, prep in models.values())
        files = min(count, prepared) // batch * batch
        over = [functools.partial(over_files, work, model, prep, batch, files) for model, prep in models.values()]
        ready = [functools.partial(apart, "ready_array", model, batch, files // batch) for model, _ in models.values()]
        times = in_turns(turns, *over, *ready, functools.partial(apart, "eager", weights, batch, files // batch))
        for index, name in enumerate(models):
            table.add("inference over files, %s, batch %d" % (name, batch), "the same model, a ready array",
                      ">= 0.95" if name == "INT8" else ">= 0.97", [turn[3 + index] / turn[index] for turn in times])
        table.add("inference over files, uint8, batch %d" % batch, "float32 files", ">= 1", [turn[0] / turn[1] for turn in times])
        what = "ONNX Runtime, batch %d" % batch
        table.add(what, "PyTorch eager, better layout", ">= 1.15", [turn[6] / turn[3] for turn in times])
        table.add(what + ", uint8", "float32", "about 1", [turn[3] / turn[4] for turn in times])
        table.add(what + ", INT8", "float32", ">= 3.0 with VNNI", [turn[3] / turn[5] for turn in times])


def over_files(work, model, prep, batch, files):
    """Seconds from files to results, by the project's own record of them."""
    script("onnx_infer.py", "--model", model, "--input", prep, "--output", work, "--output_dirname", "inferred",
           "--batchsize", batch, "--limit", files, "--overwrite")
    with open(os.path.join(work, "inferred_summary.json")) as file:
        return json.load(file)["wall"]["seconds"]


def data_options(work, weights, images):
    """run_infer.sh's options for these images, all of class 0."""
    labels = os.path.join(work, "all_labels.txt")
    with open(labels, "w") as file:
        file.writelines("%s 0\n" % name for name in sorted(os.listdir(images)))
    return ["--pth", weights, "--images", images, "--labels", labels]


def measure_again(table, work, data, turns):
    """run_infer.sh: a second run, all kept; and a kill in the middle of an inference."""
    import signal
    run = ["bash", os.path.join(ROOT, "run_infer.sh"), "--engine", "onnxruntime", "--batch-sizes", "1"] + data
    env = dict(os.environ, PYTHON=sys.executable)

    def seconds(*command):
        start = time.perf_counter()
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        return time.perf_counter() - start

    folder = os.path.join(work, "again")
    undisturbed = seconds(*(run + ["--output", folder]))
    second = run + ["--output", folder]
    times = in_turns(max(turns, 3), lambda: seconds(*second), lambda: seconds(sys.executable, "-c", "import numpy"))
    table.add("a second run of run_infer.sh, all kept", "import numpy", "-", [one / two for one, two in times])
    folder = os.path.join(work, "killed")
    start = time.perf_counter()
    process = subprocess.Popen(run + ["--output", folder], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    partial, half = os.path.join(folder, ".result_bs1.partial"), len(os.listdir(os.path.join(work, "again", "result_bs1"))) // 2
    while process.poll() is None and not (os.path.isdir(partial) and len(os.listdir(partial)) > half):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(run + ["--output", folder], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    total = time.perf_counter() - start
    table.add("killed at 50 % of the inference and run again", "undisturbed", "<= 1.1", [total / undisturbed])


def measure_evaluation(table, work, count, turns):
    for outfmt, plain, reach in (("TXT", "plain_text", ">= 8"), ("BIN", "plain_bin", ">= 2.2")):
        measure_format(table, work, count, outfmt, plain, reach, turns)


def measure_format(table, work, count, outfmt, plain, reach, turns):
    import numpy as np
    random, peaks = np.random.RandomState(0), []
    folder, labels = os.path.join(work, "result"), os.path.join(work, "val_label.txt")
    os.mkdir(folder)
    with open(labels, "w") as lines:
        for number in range(count):
            scores = random.standard_normal(1000).astype("<f4") * 3
            with open(os.path.join(folder, "%06d_0.%s" % (number, outfmt.lower())), "wb") as file:
                file.write(("%f " * 1000 % tuple(scores) + "\n").encode() if outfmt == "TXT" else scores.tobytes())
            lines.write("%06d.JPEG %d\n" % (number, scores.argmax() if number % 4 else 7))  # three of four right, as ResNet34 is

    def ours():
        seconds, _, together = script("imagenet_acc_eval.py", folder, labels, work, "result.json")
        peaks.append(together)
        return seconds

    times = in_turns(turns, ours, lambda: apart(plain, folder))
    table.add("evaluation of %d %s results" % (count, outfmt), "the plain way", reach, [two / one for one, two in times])
    table.add("memory of it, all processes", "", "< 300", peaks, " MB")
    shutil.rmtree(folder)


def measure_start(table, turns):
    for name in SCRIPTS:
        measure_script(table, name, "<= 2" if name in SCRIPTS[:2] else "-", turns)
    for name in SCRIPTS[:2]:
        told = subprocess.run([sys.executable, "-X", "importtime", os.path.join(ROOT, name), "--help"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE).stderr.decode()
        table.add("modules of torch that %s imports" % name, "", "0", [len(re.findall(r"\|\s+torch", told))], "")


def measure_script(table, name, reach, turns):
    def seconds(*arguments):
        start = time.perf_counter()
        subprocess.run([sys.executable] + list(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    path = os.path.join(ROOT, name)
    times = in_turns(turns, lambda: seconds("-c", "import numpy"), lambda: seconds(path, "--help"),
                     lambda: seconds(path, "--no-such-option"))
    table.add("time of %s --help" % name, "import numpy", reach, [two / one for one, two, _ in times])
    table.add("time of %s, wrong usage" % name, "import numpy", reach, [three / one for one, _, three in times])


def measure_pipeline(table, work, images, model, int8, turns):
    """From JPEG to Top-1, all processes and imports, against timm's way."""
    labels = data_options(work, None, images)[-1]

    def ours(model, dtype):
        prep = os.path.join(work, "prep_all")
        shutil.rmtree(prep, ignore_errors=True)
        return sum(script(*command)[0] for command in (
            ("imagenet_torch_preprocess.py", "resnet", images, prep, "--dtype", dtype),
            ("onnx_infer.py", "--model", model, "--input", prep, "--output", work, "--output_dirname", "all", "--batchsize", "8",
             "--overwrite"),
            ("imagenet_acc_eval.py", os.path.join(work, "all"), labels, work, "all.json")))

    times = in_turns(turns, lambda: ours(model, "float32"), lambda: ours(int8, "uint8"),
                     lambda: apart("plain_pipeline", images, model),
                     lambda: apart("ready_array", model, 8, len(os.listdir(images)) // 8))
    what = "%d images from JPEG to Top-1, batch 8, " % len(os.listdir(images))
    against = "timm's way, DataLoader with 2 workers, one process"
    table.add(what + "float32", against, ">= 1.6", [turn[2] / turn[0] for turn in times])
    table.add(what + "float32, if only computing took time", against, "-", [turn[2] / turn[3] for turn in times])
    table.add(what + "INT8 with uint8 files", against, ">= 3.5", [turn[2] / turn[1] for turn in times])


def draw_images(folder, count):
    """JPEG images of ImageNet's usual size, drawn; each once more under other names up to the count."""
    import numpy as np
    from PIL import Image

    from tools.make_tiny_imagenet import draw_image
    random, drawn = np.random.RandomState(1), min(count, 100)
    os.mkdir(folder)
    for number in range(count):
        path = os.path.join(folder, "ILSVRC2012_val_%08d.JPEG" % (number + 1))
        if number < drawn:
            Image.fromarray(draw_image(number % 16, random, (500, 375))).save(path, quality=90)
        else:
            shutil.copy(os.path.join(folder, "ILSVRC2012_val_%08d.JPEG" % (number % drawn + 1)), path)


def make_model(work):
    """A ResNet34 with random weights, exported by the project's script: (weights, ONNX)."""
    import torch
    from torchvision.models import resnet34
    torch.manual_seed(0)
    weights, model = os.path.join(work, "random.pth"), os.path.join(work, "resnet34.onnx")
    torch.save(resnet34().state_dict(), weights)
    script("resnet34_pth2onnx.py", weights, model)
    return weights, model


def parse_args():
    parser = argparse.ArgumentParser(description="Measure each stage against what its work must cost.")
    parser.add_argument("--images", metavar="DIR", help="images to take (default: drawn)")
    parser.add_argument("--json", metavar="FILE", help="file for the figures of every turn")
    parser.add_argument("--small", action="store_true", help="a minute's version, to see that everything runs")
    args = parser.parse_args()
    if args.images and not os.path.isdir(args.images):
        parser.error("%s: no such folder" % args.images)
    return args


def main():
    args = parse_args()
    count, many, batches, files, results, turns, starts = SMALL if args.small else FULL
    import numpy
    import onnxruntime
    import PIL
    import torch
    import torchvision
    versions = "Python %s, numpy %s, Pillow %s, torch %s, torchvision %s, onnxruntime %s, %d CPUs" % (
        platform.python_version(), numpy.__version__, PIL.__version__, torch.__version__, torchvision.__version__,
        onnxruntime.__version__, CPUS)
    print(versions + "\n")
    roomy = os.path.isdir(IN_MEMORY) and shutil.disk_usage(IN_MEMORY).free > 10e9
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=IN_MEMORY if roomy else None) as work:
        images = os.path.join(work, "images")
        if args.images:
            images = subset(args.images, work, count)
        else:
            draw_images(images, count)
        weights, model = make_model(work)
        table = Table()
        measure_start(table, starts)
        measure_preprocessing(table, work, images, many, turns)
        preps = {dtype: os.path.join(work, "prep_" + dtype) for dtype in ("float32", "uint8")}
        sizes = []
        for dtype, prep in preps.items():
            script("imagenet_torch_preprocess.py", "resnet", images, prep, "--dtype", dtype)
            sizes.append(sum(entry.stat().st_size for entry in os.scandir(prep) if entry.name.endswith(".bin")))
        table.add("bytes of the .bin files, uint8", "float32", "0.25", [sizes[1] / sizes[0]])
        uint8, int8 = os.path.join(work, "resnet34_uint8.onnx"), os.path.join(work, "resnet34_int8.onnx")
        script("resnet34_pth2onnx.py", weights, uint8, "--input", "uint8")
        script("resnet34_quantize.py", uint8, int8, "--calibration", preps["uint8"], "--images", "4" if args.small else "16")
        models = {"float32": (model, preps["float32"]), "uint8": (uint8, preps["uint8"]), "INT8": (int8, preps["uint8"])}
        measure_pipeline(table, work, subset(images, work, 8 if args.small else 200), model, int8, min(turns, 3))
        measure_inference(table, work, models, weights, batches, files, min(turns, 3))
        measure_evaluation(table, work, results, min(turns, 3))
        measure_again(table, work, data_options(work, weights, images) if args.small else ["--demo"], turns)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"versions": versions, "small": args.small, "rows": table.rows}, file, indent=1)


if __name__ == "__main__":
    main()
