#!/usr/bin/env python3
"""Run an ONNX model with ONNX Runtime, with ais_bench's options and result files (the guide's stage "inference").

    python3 onnx_infer.py --model resnet34.onnx --input prep_dataset --output ./ --output_dirname result --outfmt TXT
    python3 onnx_infer.py --model=resnet34.onnx --loop=20 --batchsize=8

With --input: every .bin/.npy of the folder, one image each, in natural order of the names; the first output for NAME.bin goes
to OUTPUT/DIRNAME/NAME_0.txt (.bin, .npy). Without: pure inference on zeros, --loop runs or --seconds long. The record, with
times in milliseconds, is OUTPUT/DIRNAME_summary.json. Results appear together when all are computed; a run that was killed
leaves OUTPUT/.DIRNAME.partial, and the same line goes on there.
Exit codes: 0 done; 1 failed, nothing was published; 2 wrong usage; 130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import signal
import sys


def stopped(number, frame):
    """Ctrl-C, or the SIGTERM of a scheduler: a sentence; what is finished is kept."""
    signal.signal(number, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; what is finished of an --input is kept, the same line goes on\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:
        pass
    sys.exit(128 + number)


for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and `&` in scripts ignore Ctrl-C on purpose
        signal.signal(number, stopped)
for number in range(3):  # a closed stdin, stdout or stderr: or the next file opened would become it
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
sys.stdout, sys.stderr = sys.stdout or open(1, "w", closefd=False), sys.stderr or open(2, "w", closefd=False)
sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8

import argparse  # noqa: E402 (Ctrl-C must find its handler while numpy is imported)
import collections  # noqa: E402
import contextlib  # noqa: E402
import fcntl  # noqa: E402
import hashlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import stat  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

DTYPES = {"tensor(float)": "<f4", "tensor(float16)": "<f2", "tensor(double)": "<f8", "tensor(uint8)": "u1", "tensor(int8)": "i1"}
RECIPE_KEYS = {"resize", "crop", "mean", "std", "dtype", "layout"}
T_975_9 = 2.262157  # Student's t for a 95 % interval from ten batch means
LARGEST = 2 ** 31  # bytes of an ONNX model, by protobuf, and of a record
THREADS_LIMIT = 1024  # ONNX Runtime starts what it is told to, and 99999 spinning threads take the machine down
OWN = (".lock", ".progress", ".next", ".summary.json", ".link", ".old")  # what a run leaves in its folder beside the results
RESULT_NAME = re.compile(r".+_\d+\.(txt|bin|npy)$", re.S)
ADVICE = "; move it away or choose another --output_dirname"
# `%f ` in three words of four bytes, for values below 1000: sign and whole part (padded with NULs), three decimals, three more.
WHOLE = np.frombuffer("".join(sign + ("%d" % n).rjust(3, "\0") for sign in "\0-" for n in range(1000)).encode(), "<u4")
MILLI = np.frombuffer("".join(".%03d" % n for n in range(1000)).encode(), "<u4")
MICRO = np.frombuffer("".join("%03d " % n for n in range(1000)).encode(), "<u4")

Model = collections.namedtuple("Model", "path session input outputs dtype shape engine device facts")
File = collections.namedtuple("File", "path size mtime_ns offset")  # offset: where the values begin in it


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def opened(path):
    """A file to read from; a FIFO does not hang it."""
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)


def read_file(path):
    """The bytes of a regular file."""
    with opened(path) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            fail("%s: is no regular file" % path)
        if state.st_size > LARGEST:
            fail("%s: holds %d bytes, more than any such file can" % (path, state.st_size))
        return file.read()


@contextlib.contextmanager
def naming(path):
    """An OSError of a read or a write says not which file it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def write_file(path, data):
    """Returns the new file's size and mtime in ns."""
    with naming(path), open(path, "xb", 0) as file:
        while data:
            data = data[file.write(data):]
        state = os.fstat(file.fileno())
    return [state.st_size, state.st_mtime_ns]


def proc(name, pattern):
    """What a file of /proc says by a pattern's group, or None; aarch64 kernels, for one, give no name of the CPU."""
    found = re.search(pattern, read_file("/proc/" + name).decode("utf-8", "replace"), re.M)
    return found and found.group(1).strip()


def parse_json(data, path):
    def refuse(constant):
        raise ValueError("%s is no number" % constant)
    try:
        return json.loads(data if isinstance(data, str) else data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        fail("%s: is not the JSON that was written there: %s" % (path, error))


def agree(recipe, path, dtype, shape, own=None):
    """Exit unless the images that a recipe makes are what a model takes: by its input, and by its own recipe if it has one."""
    if not isinstance(recipe, dict) or set(recipe) != RECIPE_KEYS:
        fail("%s: its recipe is none: %s" % (path, json.dumps(recipe)[:200]))
    sides = [3, recipe["crop"], recipe["crop"]] if recipe["layout"] == "CHW" else [recipe["crop"], recipe["crop"], 3]
    made, taken = dict(recipe, shape=sides), dict(own or {}, dtype=dtype.name, shape=list(shape[1:]))
    differ = ["%s %s, not %s" % (key, made[key], taken[key]) for key in taken if made[key] != taken[key]]
    if differ:
        fail("%s: its images are prepared otherwise than the model takes them (%s); prepare the images for this model" % (
            path, ", ".join(differ)))


# --- the model

def find_provider(text, available):
    """(ONNX Runtime's name, options) of --provider NAME[,KEY=VALUE...]."""
    name, *options = text.split(",")
    available = [full for full in available if full != "AzureExecutionProvider"]  # says it runs the model, which the CPU does
    for full in available:
        if name.lower() in (full.lower(), full.lower().replace("executionprovider", "")):
            return full, dict(option.split("=", 1) for option in options)
    fail("--provider %s: this onnxruntime has %s; install the onnxruntime package that brings it" % (
        name, " ".join(full.replace("ExecutionProvider", "") for full in available)))


def external(message):
    """Does a tensor anywhere in an ONNX message, be it in an attribute or a subgraph, keep its values in another file?"""
    if getattr(message, "data_location", 0) == 1:  # onnx.TensorProto.EXTERNAL
        return True
    parts = [value if hasattr(value, "__len__") else [value] for field, value in message.ListFields() if field.message_type]
    return any(external(part) for values in parts for part in values)


def open_model(args):
    """The model as ONNX Runtime runs it; exits for models that cannot be fed, or whose scores cannot be judged."""
    path = args.model
    if path.endswith(".om"):
        fail("%s: an .om runs on an NPU alone, with npu_infer.py; here give the .onnx it was made from" % path)
    if os.path.isdir(path) or not os.path.lexists(path):
        fail("%s: no such model file" % path)
    data = read_file(path)
    if b"\n\x08location" in data:  # as external data begins; onnx takes long to import
        try:
            import onnx
            elsewhere = external(onnx.load_model_from_string(data))
        except Exception as error:  # protobuf's DecodeError has no base class but this
            fail("%s: whether it is one whole file cannot be told with the package onnx: %s" % (path, error))
        if elsewhere:  # ONNX Runtime would take whatever lies under that name in the current folder
            fail("%s: keeps its weights in another file (external data), which its SHA-256 says nothing of; export it as one file"
                 % path)
    import onnxruntime  # here, so that --help and a wrong option answer at once
    onnxruntime.set_default_logger_severity(4)  # errors come as exceptions; a second telling on stderr is noise
    provider, asked = find_provider(args.provider, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = args.threads, 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[(provider, asked)], enable_fallback=0)
        session.disable_fallback()
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        fail("%s: ONNX Runtime %s cannot load it with %s: %s" % (path, onnxruntime.__version__, provider, str(error)[:500]))
    if session.get_providers()[0] != provider:  # it falls back without a word
        fail("%s: ONNX Runtime fell back from %s to %s; its libraries or its device are missing" % (
            path, provider, session.get_providers()[0]))
    dtype, shape = input_of(args, session)
    metadata = session.get_modelmeta().custom_metadata_map
    recipe, calibration = (parse_json(metadata.get(key, "null"), "%s: metadata %s" % (path, key))
                           for key in ("recipe", "calibration"))
    if recipe is not None:
        agree(recipe, path, dtype, shape)
    sha256 = hashlib.sha256(data).hexdigest()
    facts = {"precision": metadata.get("precision"), "model": {
        "path": path, "bytes": len(data), "sha256": sha256, "onnx_sha256": sha256, "weights": metadata.get("weights"),
        "weights_sha256": metadata.get("weights_sha256"), "recipe": recipe, "calibration": calibration},
        "packages": {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": onnxruntime.__version__}}
    device = "%s, %d threads" % (args.cpu, args.threads)
    if provider != "CPUExecutionProvider":
        told = dict(session.get_provider_options().get(provider, {}), **asked)
        which = told.get("device_type") or told.get("device_id") or "default device"
        device = args.cpu if which == "CPU" else " ".join([provider.replace("ExecutionProvider", ""), which])
    return Model(path, session, session.get_inputs()[0].name, session.get_outputs(), dtype, shape,
                 "onnxruntime %s %s" % (onnxruntime.__version__, provider), device, facts)


def input_of(args, session):
    """(dtype, shape with the batch) of what the session is fed; exits unless it is one input of images, and scores come out."""
    path, inputs, scores = args.model, session.get_inputs(), session.get_outputs()[0]
    if len(inputs) != 1:
        fail("%s: has %d inputs; models with one input can be run" % (path, len(inputs)))
    name, kind, shape = inputs[0].name, inputs[0].type, list(inputs[0].shape)
    if kind not in DTYPES:
        fail("%s: its input %s is a %s; known are %s" % (path, name, kind, " ".join(DTYPES)))
    if len(shape) < 2 or not all(isinstance(side, int) and side > 0 for side in shape[1:]) or shape[0] == 0:
        fail("%s: its input %s has shape %s; only the batch may be open" % (path, name, shape))
    if scores.type not in ("tensor(float)", "tensor(float16)", "tensor(double)") or len(scores.shape) != 2 \
            or (isinstance(scores.shape[1], str) and scores.shape[1] == shape[0]):
        fail("%s: its first output %s is a %s of shape %s; scores are floats of shape (batch, classes)" % (
            path, scores.name, scores.type, scores.shape))
    if not isinstance(shape[0], int) or shape[0] < 0:
        shape[0] = args.batchsize or 1
    elif args.batchsize not in (None, shape[0]):
        fail("%s: is made for batch size %d, --batchsize says %d" % (path, shape[0], args.batchsize))
    dtype = np.dtype(DTYPES[kind])
    needed, available = dtype.itemsize, proc("meminfo", r"^MemAvailable: *(\d+)")
    for side in shape:
        needed *= side
    if available and needed > int(available) * 1024:
        fail("%s: batch size %d of shape %s needs %.1f GB for its inputs alone, more than there is; take a smaller --batchsize"
             % (path, shape[0], shape[1:], needed / 1e9))
    return dtype, tuple(shape)


# --- the inputs

def natural(path):
    """Sort key: runs of digits count as numbers, letters without case, as ais_bench sorts."""
    parts = re.split(r"([0-9]+)", os.path.basename(path))
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(parts)]


def find_inputs(args, model):
    """(files of --input, what the record says of them); exits with the first file that is not one image for the model."""
    text, whole = args.input, os.path.isdir(args.input)
    paths = [text] if os.path.exists(text) else text.split(",")
    if whole:
        names = sorted(name for name in os.listdir(text) if name.lower().endswith((".bin", ".npy")))
        paths = [os.path.join(text, name) for name in sorted(names, key=natural)]
        if not paths:
            fail("%s: no .bin or .npy files in it" % text)
    facts = {"path": text, "images": 0, "recipe": None, "manifest_sha256": None, "shard": None, "limit": args.limit,
             "source": None, "set_sha256": None}
    for folder in sorted({os.path.dirname(path) for path in paths}):
        if any(os.path.lexists(os.path.join(folder, name)) for name in (".recipe.json", ".manifest")):
            inside = [path for path in paths if os.path.dirname(path) == folder]
            told = read_prepared(folder or ".", inside, whole)
            agree(told["recipe"], folder, model.dtype, model.shape, model.facts["model"]["recipe"])
            if facts["recipe"] not in (None, told["recipe"]):
                fail("%s: was prepared otherwise than the rest of the inputs" % folder)
            facts.update(told if whole else {"recipe": told["recipe"]})
    files, results = [], {}
    for path in paths[:args.limit]:
        files.append(check_input(path, model.dtype, model.shape[1:]))
        name = result_name(path, 0, args.outfmt)
        if name in results:
            fail("%s and %s would both give the result %s; rename one" % (results[name], path, name))
        results[name] = path
    return files, dict(facts, images=len(files))


def read_prepared(folder, paths, whole):
    """What the folder's records say, for the summary; exits unless the files are as imagenet_torch_preprocess.py left them."""
    remedy = "is not as imagenet_torch_preprocess.py left it; run that again (copies keep times with cp -p, scp -p, rsync -a)"
    record, listing = os.path.join(folder, ".recipe.json"), os.path.join(folder, ".manifest")
    for path in (record, listing):
        if not os.path.isfile(path):
            fail("%s: is missing: the folder %s" % (path, remedy))
    told, data = parse_json(read_file(record), record), read_file(listing)
    try:
        facts = {"recipe": told["recipe"], "shard": told["shard"], "manifest_sha256": hashlib.sha256(data).hexdigest(),
                 "source": told.get("source"), "set_sha256": told.get("set_sha256")}
        rows = json.loads("[%s]" % ",".join(data.decode().splitlines()))
        manifest = {name + ".bin": (size, mtime_ns) for name, _, _, _, size, mtime_ns in rows}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        fail("%s: %s: the folder %s" % (listing, error, remedy))
    for path in paths:
        state = os.stat(path)
        if manifest.get(os.path.basename(path)) != (state.st_size, state.st_mtime_ns):
            fail("%s: %s" % (path, remedy))
    if whole and len(manifest) != len(paths):
        missing = sorted(set(manifest) - {os.path.basename(path) for path in paths})
        fail("%s: %d files are missing, first %s; it %s" % (folder, len(missing), missing[0], remedy))
    return facts


def check_input(path, dtype, sides):
    """The file, when it is exactly one image of the model's dtype and sides."""
    try:
        state, offset = os.stat(path), 0
    except FileNotFoundError:
        fail("%s: no such input file or folder" % path)
    if not stat.S_ISREG(state.st_mode):
        fail("%s: is no regular file" % path)
    wanted = "%s %s" % (dtype.name, "x".join(map(str, sides)))
    if path.lower().endswith(".npy"):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            offset, found = array.offset, "%s %s" % (array.dtype, "x".join(map(str, array.shape)))
        except Exception as error:  # numpy evaluates the header as Python; whatever that raises, it is none
            fail("%s: is no .npy of an array: %s" % (path, error))
        if array.dtype != dtype or array.shape not in (sides, (1,) + sides) or not array.flags.c_contiguous:
            fail("%s: holds %s, the model takes %s in C order" % (path, found, wanted))
    values = dtype.itemsize * int(np.prod(sides))
    if state.st_size != offset + values:
        fail("%s: holds %d bytes; one image of the model's input, %s, has %d: made for another model, or truncated" % (
            path, state.st_size - offset, wanted, values))
    return File(path, state.st_size, state.st_mtime_ns, offset)


# --- the runs: one thread reads, computes and writes, for ONNX Runtime's own threads need all the cores that there are

def read_batch(group, batch):
    """Fill an array of the model's shape; a last short group is padded with its first file, as ais_bench pads."""
    rows = batch.reshape(len(batch), -1).view(np.uint8)
    for row, file in zip(rows, group):
        with naming(file.path), opened(file.path) as source:
            state = os.fstat(source.fileno())
            if (state.st_size, state.st_mtime_ns) != (file.size, file.mtime_ns) \
                    or os.preadv(source.fileno(), [row], file.offset) != row.nbytes:
                fail("%s: was changed while this ran" % file.path)
    rows[len(group):] = rows[0]


def compute(model, batch, loop, times):
    """Outputs for one batch, floats as little-endian float32; the milliseconds of each of the loop's runs go to times."""
    for _ in range(loop):
        start = time.perf_counter()
        try:
            outputs = model.session.run(None, {model.input: batch})
        except Exception as error:  # as above
            fail("%s: ONNX Runtime cannot run it on a batch of %d: %s" % (model.path, len(batch), str(error)[:500]))
        times.append((time.perf_counter() - start) * 1000)
    for place, (told, output) in enumerate(zip(model.outputs, outputs)):
        sound = isinstance(output, np.ndarray) and output.dtype.kind in "fiub" and output.shape[:1] == (len(batch),)
        if not sound or (place == 0 and (output.ndim != 2 or output.shape[1] < 2)):
            fail("%s: its output %s is a %s of shape %s for a batch of %d; scores are of shape (batch, classes), 2 at least"
                 % (model.path, told.name, told.type, list(np.shape(output)), len(batch)))
    rows = [told.name for told, output in zip(model.outputs, outputs)
            if output.dtype.kind == "f" and output.ndim == 2 and output.shape[1] > 1]
    if len(rows) > 1:
        fail("%s: its outputs %s all look like scores (batch, classes); export it with the scores alone" % (
            model.path, " and ".join(rows)))
    return [output.astype("<f4", copy=False) if output.dtype.kind == "f" else output for output in outputs]


def as_text(values):
    """`%f ` for each value, a newline after each row, as ais_bench writes them, in a third of the time.

    A float32 times 10^6 is exact in a double, so that rounding it to a whole number gives the digits of %f.
    """
    values = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    if values.dtype != "<f4" or not np.all(np.abs(values) < 1000):
        return "".join("%f " * len(row) % tuple(row) + "\n" for row in values.tolist()).encode()
    micros = np.rint(np.abs(values.astype(np.float64)) * 1e6).astype(np.uint32)
    whole = micros // 1000000
    micros -= whole * 1000000
    millis = micros // 1000
    words = np.empty(values.shape + (3,), "<u4")
    words[..., 0] = WHOLE[whole + np.uint32(1000) * np.signbit(values)]
    words[..., 1] = MILLI[millis]
    words[..., 2] = MICRO[micros - millis * 1000]
    return b"".join(row.tobytes().translate(None, b"\0") + b"\n" for row in words)


def encoded(values, outfmt):
    if outfmt == "TXT":
        return as_text(values)
    if outfmt == "BIN":
        return values.tobytes()
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def result_name(path, place, outfmt):
    return "%s_%d.%s" % (os.path.basename(path).split(".")[0], place, outfmt.lower())


def write_batch(folder, group, outputs, outfmt):
    """NAME_0.txt (.bin, .npy) for each file of the group, NAME_1 for a second output; returns {name: [size, mtime in ns]}."""
    written = {}
    for place, output in enumerate(outputs):
        for row, file in enumerate(group):
            values = output[row:row + 1]
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                fail("%s: the model's output %d for it is not finite (NaN or infinite)" % (file.path, place))
            name, data = result_name(file.path, place, outfmt), encoded(values, outfmt)
            written[name] = write_file(os.path.join(folder, name), data)
    return written


def infer(model, files, args, partial):
    """All files through the session; returns (times, facts of the outputs, wall)."""
    size, batch = model.shape[0], np.empty(model.shape, model.dtype)
    groups = [files[first:first + size] for first in range(0, len(files), size)]
    lines = partial.lines if partial else []
    done, times = len(lines), [each for line in lines for each in line["times"]]
    facts = lines[0]["facts"] if lines else None
    wall = dict(lines[-1]["wall"]) if lines else dict.fromkeys(("seconds", "reading", "computing", "writing"), 0.0)
    if done:
        print("going on after batch %d of %d, where an earlier run was stopped" % (done, len(groups)))
    if done < len(groups) and args.warmup_count:
        read_batch(groups[done], batch)
        compute(model, batch, args.warmup_count, [])
    begin = time.perf_counter() - wall["seconds"]
    with tqdm(total=len(files), initial=min(done * size, len(files)), unit="file", desc="infer", disable=None) as bar:
        for index in range(done, len(groups)):
            start, mine = time.perf_counter(), []
            read_batch(groups[index], batch)
            for file in groups[index + 1] if index + 1 < len(groups) else []:  # the kernel reads them during the computation
                with naming(file.path), opened(file.path) as coming:
                    os.posix_fadvise(coming.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            wall["reading"] += time.perf_counter() - start
            outputs = compute(model, batch, args.loop, mine)
            start = time.perf_counter()
            wall["computing"] += sum(mine) / 1000
            line = {"times": mine}
            if facts is None:
                line["facts"] = facts = output_facts(model, outputs, len(groups[index]), args.outfmt)
            if partial:
                line["files"] = write_batch(partial.folder, groups[index], outputs, args.outfmt)
                partial.begun = True
                partial.journal(dict(line, wall=dict(wall, seconds=time.perf_counter() - begin)))
            wall["writing"] += time.perf_counter() - start
            times += mine
            bar.update(len(groups[index]))
    wall["seconds"] = time.perf_counter() - begin
    return times, facts, dict(wall, images_per_second=len(files) / wall["seconds"], resumed=done > 0)


def output_facts(model, outputs, rows, outfmt):
    """What the outputs of one image are; exits where %f would flatten them."""
    scores = outputs[0][:rows]
    probabilities = bool(((scores >= 0) & (scores <= 1)).all() and (np.abs(scores.sum(axis=1) - 1) < 1e-3).all())
    best = [np.unique(row.astype(np.float64))[-6:] for row in scores]  # ties in float stay ties, whatever the format
    flattened = sum(len(np.unique(np.round(values, 6))) < len(values) for values in best)
    if outfmt == "TXT" and (probabilities or 2 * flattened >= rows):
        fail("%s: its scores are %s, which TXT's %%f flattens into ties; use --outfmt BIN" % (
            model.path, "probabilities" if probabilities else "within less than 0.000001 of each other"))
    return {"probabilities": probabilities, "outputs": [
        {"name": told.name, "dtype": output.dtype.name, "shape": list(output.shape[1:])}
        for told, output in zip(model.outputs, outputs)]}


def pure_inference(model, args, partial):
    """--loop or --seconds of runs on zeros, or on random values as ais_bench's --pure_data_type random feeds."""
    batch = np.zeros(model.shape, model.dtype)
    if args.pure_data_type == "random":
        # Random bytes are often NaN as floats, which are slow on some CPUs; random values in their place.
        batch = np.random.RandomState(0).randint(0, 256, model.shape).astype(model.dtype)
    warm, times, runs = [], [], args.loop
    if args.seconds or args.warmup_count:
        compute(model, batch, max(3, args.warmup_count) if args.seconds else args.warmup_count, warm)
    if args.seconds:
        runs = max(10, math.ceil(1000 * args.seconds / float(np.median(warm))))
    outputs = compute(model, batch, runs, times)
    facts = output_facts(model, outputs, len(batch), args.outfmt if partial else "BIN")
    for place, output in enumerate(outputs if partial else []):
        name = result_name("pure_infer_data", place, args.outfmt)
        write_file(os.path.join(partial.folder, name), encoded(output, args.outfmt))
    return times, facts, None


# --- the folder of the results

class Partial:
    """OUTPUT/.DIRNAME.partial, held by this process alone; lines: what an earlier run with the same identity has finished."""

    def __init__(self, final, identity):
        self.final = final
        self.folder = os.path.join(os.path.dirname(final), ".%s.partial" % os.path.basename(final))
        os.makedirs(os.path.dirname(final) or ".", exist_ok=True)
        self.lock()
        path, old = os.path.join(self.folder, ".progress"), os.path.join(self.folder, ".old")
        if os.path.isdir(old) and not os.path.lexists(final):  # killed between the two renames of publish
            os.rename(old, final)
        head, self.lines = read_journal(path, self.folder) if os.path.lexists(path) else (None, [])
        if head not in (None, identity):
            if identity["input"]:
                print("%s: an unfinished run with other %s stands there; starting afresh" % (
                    self.folder, ", ".join(sorted(key for key in identity if identity[key] != head.get(key)))))
            self.lines = []
        kept = {name for line in self.lines for name in line["files"]} | {".lock", ".progress"}
        for name in sorted(set(os.listdir(self.folder)) - kept):
            if name not in OWN and (head is None or not RESULT_NAME.match(name)):
                fail("%s: holds %s, which no run left there; move it away" % (self.folder, name))
            remove(os.path.join(self.folder, name))
        self.begun, self.progress = bool(self.lines), open(os.path.join(self.folder, ".next"), "xb", 0)
        for line in [identity] + self.lines:
            self.journal(line)
        os.replace(self.progress.name, path)

    def journal(self, line):
        with naming(self.progress.name):
            self.progress.write((json.dumps(line) + "\n").encode())

    def lock(self):
        path = os.path.join(self.folder, ".lock")
        while True:
            if os.path.islink(self.folder) or os.path.lexists(self.folder) and not os.path.isdir(self.folder):
                fail("%s: is no folder of this script's; move it away" % self.folder)
            os.makedirs(self.folder, exist_ok=True)
            try:
                self.held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
                fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.held), os.stat(path)):  # else its holder published and removed it meanwhile
                    return
            except FileNotFoundError:
                continue
            except BlockingIOError:
                fail("%s: another onnx_infer.py is writing there; wait for it or choose another --output_dirname" % self.final)

    def publish(self, summary):
        """The whole results in their place, then the summary beside them: where that is, the results are whole and its own."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # they come when this is done
        inner, link = os.path.join(self.folder, ".summary.json"), os.path.join(self.folder, ".link")
        data, beside = json.dumps(summary, allow_nan=False).encode(), self.final + "_summary.json"
        write_file(inner, data)
        try:
            os.link(inner, link)
        except OSError:  # file systems without hard links
            write_file(link, data)
        check_output(self.final)
        if os.path.lexists(beside):
            os.unlink(beside)
        if os.path.lexists(self.final):
            os.rename(self.final, os.path.join(self.folder, ".old"))
        os.rename(self.folder, self.final)
        os.replace(os.path.join(self.final, ".link"), beside)
        for name in (".old", ".progress", ".lock"):
            remove(os.path.join(self.final, name))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def read_journal(path, folder):
    """(identity, lines of the batches before the first whose files are not as they were written)."""
    lines = []
    for text in read_file(path).split(b"\n")[:-1]:  # what a kill tore has no newline
        try:
            line = json.loads(text.decode())
            for name, state in line["files"].items() if lines else ():
                found = os.lstat(os.path.join(folder, name))
                if [found.st_size, found.st_mtime_ns] != state:
                    raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            break
        lines.append(line)
    return (lines[0], lines[1:]) if lines and isinstance(lines[0], dict) else (None, [])


def check_output(final):
    """Exit unless a result folder and a summary that are already there are, by their own record, ours to replace."""
    record, beside, summary, names = os.path.join(final, ".summary.json"), final + "_summary.json", None, set()
    if os.path.islink(final) or os.path.lexists(final) and not os.path.isdir(final):
        fail("%s: is a link or a file, not a folder%s" % (final, ADVICE))
    if os.path.lexists(record):
        summary = read_file(record)
        try:
            infos = json.loads(summary.decode())["filesinfo"].values()
            names = {os.path.basename(path) for info in infos for path in info["outfiles"]} | set(OWN)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            fail("%s: is not as it was written: %s%s" % (record, error, ADVICE))
    others = sorted(set(os.listdir(final)) - names) if os.path.isdir(final) else []
    if others:
        fail("%s: holds files that its record (.summary.json) does not list, first %s, and would be replaced%s"
             % (final, others[0], ADVICE))
    if os.path.lexists(beside) and (os.path.islink(beside) or summary is None or read_file(beside) != summary):
        fail("%s: is not the record of results in %s%s" % (beside, final, ADVICE))


# --- the record

def statistics(milliseconds):
    """Keys as ais_bench 0.0.2 writes them; zeros for an empty list, as there."""
    numbers = milliseconds or [0.0]
    return {"min": min(numbers), "max": max(numbers), "mean": float(np.mean(numbers)), "median": float(np.median(numbers)),
            "percentile(99%)": float(np.percentile(numbers, 99)), "count": len(milliseconds)}


def performance(times, batch_size):
    """What of the times can be defended: no percentile of too few runs; the interval of images/s from ten batch means."""
    mean, interval = float(np.mean(times)), None
    if len(times) >= 20:
        means = np.array(times[len(times) % 10:]).reshape(10, -1).mean(axis=1)
        half = T_975_9 * float(means.std(ddof=1)) / math.sqrt(10)
        if half < mean:  # around the mean of all runs, which the ten parts may lack a few of
            interval = [1000 * batch_size / (mean + half), 1000 * batch_size / (mean - half)]
    return {"runs": len(times), "batch_size": batch_size, "mean_ms": mean, "median_ms": float(np.median(times)),
            "p90_ms": float(np.percentile(times, 90)) if len(times) >= 10 else None,
            "p99_ms": float(np.percentile(times, 99)) if len(times) >= 100 else None, "min_ms": min(times), "max_ms": max(times),
            "images_per_second": 1000 * batch_size / mean, "interval95": interval}


def summarise(model, args, times, facts, wall, inputs, files_info):
    """ais_bench's keys, then what this run was."""
    told, flags = performance(times, model.shape[0]), proc("cpuinfo", r"^flags\s*:(.*)$")
    # The CPU computes where the data lies: there are no copies to a device and back, so their lists stay empty.
    summary = {"filesinfo": files_info, "NPU_compute_time": statistics(times), "H2D_latency": statistics([]),
               "D2H_latency": statistics([]), "throughput": told["images_per_second"],
               "npu_compute_time_list": times, "args": sys.argv, "pid": os.getpid(),
               "schema": 1, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "engine": model.engine,
               "device": model.device, "devices": [], "batch_size": model.shape[0], "outfmt": args.outfmt, "input": inputs,
               "script_sha256": args.script_sha256, "machine": args.machine,
               "vnni": bool({"avx512_vnni", "avx_vnni"} & set(flags.split())) if flags else None,
               "performance": told, "h2d_ms": None, "d2h_ms": None, "wall": wall, "npu": None, "parts": None}
    return dict(summary, **dict(model.facts, **facts))


# --- the command line

def parse_args():
    def number(kind, least, most):
        def checked(text):
            try:
                value = kind(text)
            except ValueError:
                value = math.nan
            if not least <= value <= most:
                raise argparse.ArgumentTypeError("%r is no number from %s to %s" % (text, least, most))
            return value
        return checked

    positive = number(int, 1, 10 ** 9)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description="ais_bench's options and result files, on ONNX Runtime.", allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", metavar="ONNX", required=True, help="the ONNX model")
    add("-i", "--input", metavar="PATH", help="folder of .bin/.npy files, or files separated by commas; none: pure inference")
    add("-o", "--output", metavar="DIR", help="folder for the results; none: times only")
    add("--output_dirname", "--output-dirname", metavar="NAME", help="folder in DIR (default: date and time)")
    add("--outfmt", choices=["TXT", "BIN", "NPY"], default="BIN", help="format of the results (default: %(default)s)")
    add("-l", "--loop", metavar="N", type=positive, help="runs of each batch (default: 1)")
    add("--seconds", metavar="S", type=number(float, 0.001, 86400), help="pure inference for about so long, in place of --loop")
    add("--batchsize", metavar="N", type=positive, help="batch size of a model whose batch is open (default: 1)")
    add("--warmup_count", "--warmup-count", metavar="N", type=number(int, 0, 10 ** 9), default=1,
        help="runs before the timed ones (default: %(default)s)")
    add("--pure_data_type", "--pure-data-type", choices=["zero", "random"], default="zero", help="what pure inference feeds")
    add("--display_all_summary", "--display-all-summary", metavar="1", type=str.lower, nargs="?", const="1", default="0",
        choices=["1", "true", "yes", "y", "t", "0", "false", "no", "n", "f"], help="print the copies' times too (zero on a CPU)")
    add("--threads", metavar="N", type=number(int, 1, THREADS_LIMIT), default=cpus,
        help="threads of ONNX Runtime (default: the CPUs this process may use, here %(default)s)")
    add("--provider", metavar="NAME[,KEY=VALUE...]", default="CPU",
        help="what ONNX Runtime computes with, such as CUDA, OpenVINO, CANN (default: %(default)s)")
    add("--limit", metavar="N", type=positive, help="only the first N files")
    args = parser.parse_args()
    if args.seconds and (args.loop or args.input):
        parser.error("--seconds is for pure inference, without --loop and --input")
    if not re.match(r"\w+(,[^=,]+=[^,]*)*$", args.provider) or re.match("(?i)cpu.*,", args.provider):
        parser.error("--provider %s: is not NAME[,KEY=VALUE...]; the CPU has no options but --threads" % args.provider)
    if args.output is None and args.output_dirname is not None:
        parser.error("--output_dirname goes with --output")
    name = time.strftime("%Y_%m_%d-%H_%M_%S") if args.output_dirname is None else args.output_dirname
    if os.path.isabs(name) or ".." in name.split(os.sep) or os.path.normpath(name) == ".":
        parser.error("--output_dirname %r names no folder inside --output" % name)
    args.output_dirname, args.loop = os.path.normpath(name), args.loop or 1
    args.cpu = proc("cpuinfo", r"^(?:model name|Hardware)\s*: *(.+)$") or platform.processor() or platform.machine()
    args.machine = "%s, %s, %d CPUs" % (args.cpu, platform.machine(), os.cpu_count() or 1)
    args.script_sha256 = hashlib.sha256(read_file(os.path.abspath(__file__))).hexdigest()
    return args


def main():
    args = parse_args()
    final = os.path.join(args.output, args.output_dirname) if args.output else None
    if final:
        check_output(final)
    model = open_model(args)
    files, inputs = find_inputs(args, model) if args.input else ([], None)
    if final and os.path.realpath(final) in {os.path.realpath(os.path.dirname(file.path)) for file in files}:
        fail("%s: is the folder of the inputs; choose another --output_dirname" % final)
    listed = hashlib.sha256(json.dumps([[os.path.abspath(file.path)] + list(file[1:]) for file in files]).encode()).hexdigest()
    # All that decides a result; a run that was killed goes on only where all of it is the same. Pure inference never does.
    identity = dict(model.facts["packages"], model=model.facts["model"]["sha256"], input=inputs and listed,
                    manifest=inputs and inputs["manifest_sha256"], batchsize=model.shape[0],
                    **{key: getattr(args, key) for key in ("outfmt", "loop", "warmup_count", "provider", "threads", "machine",
                                                           "script_sha256")})
    partial = Partial(final, identity) if final else None
    try:
        times, facts, wall = infer(model, files, args, partial) if args.input else pure_inference(model, args, partial)
    except BaseException as error:
        if partial and (getattr(error, "code", 0) == 1 or not partial.begun):  # else what is finished is kept
            shutil.rmtree(partial.folder)
        raise
    files_info = {}
    for index, path in enumerate([file.path for file in files] if args.input else ["pure_infer_data"]):
        results = [result_name(path, place, args.outfmt) for place in range(len(facts["outputs"]))] if final else []
        files_info[str(index)] = {"infiles": [path], "outfiles": [os.path.join(final, name) for name in results]}
    summary = summarise(model, args, times, facts, wall, inputs, files_info)
    if partial:
        partial.publish(summary)
    print("engine: %s on %s" % (summary["engine"], summary["device"]))
    copies = ["H2D_latency", "D2H_latency"] if args.display_all_summary in ("1", "true", "yes", "y", "t") else []
    for key, label in [("NPU_compute_time", "compute time")] + [(key, key) for key in copies]:
        print("%s (ms): " % label + ", ".join("%s %.3f" % pair for pair in summary[key].items() if pair[0] != "count"))
    print("throughput: %.2f images/s (batch size %d, %d runs)" % (summary["throughput"], model.shape[0], len(times)))
    if wall:
        print("end to end: {images_per_second:.2f} images/s ({seconds:.1f} s: reading {reading:.1f}, computing {computing:.1f}, "
              "writing {writing:.1f})".format(**wall))
    if final:
        print("results: %s" % final)


def guarded(main):
    """Whatever the file system or the reader of the output does ends in a sentence."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more at its end
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("not enough memory; take a smaller --batchsize")


if __name__ == "__main__":
    guarded(main)
