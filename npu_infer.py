#!/usr/bin/env python3
"""Run an .om model on NPUs with ais_bench, and leave what onnx_infer.py leaves (the guide's stage "inference").

    python3 npu_infer.py --model resnet34_bs1.om --input prep_dataset --output ./ --output_dirname result --outfmt TXT
    python3 npu_infer.py --model=resnet34_bs8.om --loop=20 --batchsize=8 --device 0,1

Prints the line of `python3 -m ais_bench` that it runs, spelled as the installed front end wants it. It writes into a folder
aside; when every image has its result, of the right size, all appear together as OUTPUT/DIRNAME/NAME_0.txt (.bin, .npy) and
OUTPUT/DIRNAME_summary.json, the parts of several devices in one. --device counts within ASCEND_RT_VISIBLE_DEVICES where that is
set, as on Slurm. The images must be what the model takes: by NAME.om.json, which run_atc.sh writes beside the .om, and without
it by what aclruntime tells of the .om.
Exit codes: 0 done; 1 failed, nothing was published; 2 wrong usage; 130, 143 stopped by Ctrl-C, SIGTERM.
"""
import os
import signal
import sys


def stopped(number, frame):
    """Ctrl-C, or the SIGTERM of a scheduler; main's finally ends ais_bench too."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; nothing was published, the same line starts again\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    finally:  # also where there is no standard error
        sys.exit(128 + number)


for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and `&` in scripts ignore Ctrl-C on purpose
        signal.signal(number, stopped)
for number in range(3):  # or the next file opened would become stdin, stdout or stderr
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
sys.stdout, sys.stderr = sys.stdout or open(1, "w", closefd=False), sys.stderr or open(2, "w", closefd=False)
sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8

import argparse  # noqa: E402 (Ctrl-C must find its handler while the rest is imported)
import collections  # noqa: E402
import fcntl  # noqa: E402
import glob  # noqa: E402
import hashlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import shlex  # noqa: E402
import shutil  # noqa: E402
import stat  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
RECIPE_KEYS = {"resize", "crop", "mean", "std", "dtype", "layout"}
DTYPES = {1: "uint8", 2: "float16", 4: "float32", 8: "int64"}  # by the bytes of a value, of an .om without a record
# In a process of its own, since loading the compiled package or the model can end it: sees what the .om takes and gives.
ASK = """import sys; sys.path[:] = [entry for entry in sys.path if entry]
import aclruntime, json
session = aclruntime.InferenceSession(sys.argv[1], int(sys.argv[2]), aclruntime.session_options())
with open(sys.argv[3], "w") as file:
    json.dump([[[one.name, list(one.shape), one.realsize] for one in told]
               for told in (session.get_inputs(), getattr(session, "get_outputs", list)())], file)
"""
MOST_LOOPS, MOST_FILES, LARGEST_OM = 100000, 100000, 10 << 30  # of newer front ends
WARM_RUNS, FEWEST_RUNS = 20, 10  # of --seconds
T_975_9 = 2.262157  # Student's t for a 95 % interval from ten batch means
STRANGE = re.compile(r"[^A-Za-z0-9_./-]")  # what newer front ends refuse in paths

FrontEnd = collections.namedtuple("FrontEnd", "separator divide strict")  # of the installed ais_bench
Model = collections.namedtuple("Model", "facts identity dtype shape outputs batch_size precision recipe chip")
Part = collections.namedtuple("Part", "device images summary times files")  # what one device left


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def read_file(path, most=1 << 31):
    """The bytes of a regular file; a FIFO would hang for ever."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            fail("%s: is no regular file" % path)
        if state.st_size > most:
            fail("%s: holds %d bytes, which no such file has" % (path, state.st_size))
        return file.read()


def read_json(path, kinds):
    """The object of a JSON file; each key of kinds is there and of its type."""
    def refuse(word):
        raise ValueError("%s is no number" % word)

    try:
        content = json.loads(read_file(path).decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        fail("%s: is not the JSON that was written there: %s" % (path, error))
    for key, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind) or isinstance(content[key], bool):
            fail("%s: its %r is missing or of another kind than what was written there" % (path, key))
    return content


def paths_of(summary, key, path):
    """The infiles or outfiles of a summary's filesinfo."""
    try:
        return [str(one) for info in summary["filesinfo"].values() for one in info[key]]
    except (KeyError, TypeError):
        fail("%s: its filesinfo is not as ais_bench and this script write it" % path)


def checked_recipe(recipe, path):
    if recipe is not None and (set(recipe) != RECIPE_KEYS or recipe["dtype"] not in ("float32", "uint8") or recipe["layout"]
                               not in ("CHW", "HWC") or type(recipe["crop"]) is not int or not 0 < recipe["crop"] < 10 ** 5):
        fail("%s: its recipe is none: %s" % (path, json.dumps(recipe)[:200]))
    return recipe


def sides_of(recipe):
    return [3, recipe["crop"], recipe["crop"]] if recipe["layout"] == "CHW" else [recipe["crop"], recipe["crop"], 3]


# --- the installed ais_bench

def environment():
    """For ais_bench: no entry of PYTHONPATH may mean the current folder, whose re.py would then be Python's."""
    entries = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(entries), PYTHONSAFEPATH="1")


def ask_front_end(folder, several):
    """What the installed front end takes, by its exit codes: its help is prose, and cut to the terminal's width.

    Before --help argparse passes over an unknown option, and stops with 2 at a known one without its value or with a wrong one.
    Click stops with 2 at an unknown one, and an option that wants a value takes --help for it.
    """
    said = os.path.join(folder, "said")

    def code(*words):
        with open(said, "wb") as file:
            return run_python(("-m", "ais_bench") + words + ("--help",), folder, stdout=subprocess.DEVNULL, stderr=file)

    known = code("--no_option_of_ais_bench")
    if known not in (0, 2):
        fail("python3 -m ais_bench does not start: %s; source CANN's set_env.sh, and install ais_bench and aclruntime for %s"
             % (last_words(said), sys.executable))
    divide = []
    if known == 2:  # on Click, all of which look at paths
        separator = "_" if code("--output_dirname", "1") == 0 else "-"
        name = "--divide%sinput" % separator
        if several:
            divide = [name] if code(name) == 0 else [name, "1"] if code(name, "1") == 0 else []
        return FrontEnd(separator, divide, True)
    separator = "_" if code("--output_dirname") == 2 else "-"
    name = "--divide%sinput" % separator
    if several:
        divide = [name, "1"] if code(name) == 2 else [name] if code(name + "=:") == 2 else []
    return FrontEnd(separator, divide, code("--output=:") == 2)


RUNNING = []  # processes that must end with this one
LOCKS = []  # the descriptor that holds the partial folder; ais_bench inherits it, so that none takes over while one still writes


def run_python(words, folder, **streams):
    """The exit code of Python in a folder of its own: before 3.11 it imports from the current one first."""
    process = subprocess.Popen([sys.executable] + list(words), cwd=folder, stdin=subprocess.DEVNULL,
                               env=environment(), start_new_session=True, **streams)
    RUNNING.append(process)
    process.wait()
    return RUNNING.pop().returncode


def end_children():
    """The process groups, since ais_bench starts a process a device."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in RUNNING:
            try:
                os.killpg(process.pid, number)
                process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                pass


def last_words(path):
    """The line of stderr that says why: the exception's, without its traceback and without a frame drawn around it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 20000))
            lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return "its own lines are above"
    lines = [re.sub("[\u2500-\u257f]", " ", line).strip() for line in lines]
    telling = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or [line for line in lines if line]
    return telling[-1][:300] if telling else "its own lines are above"


def version_of(package):
    """By the folders that installers leave on sys.path: importlib.metadata came with Python 3.8."""
    paths = [path for folder in sys.path for path in glob.glob(os.path.join(glob.escape(folder or "."), "*-info"))]
    found = [re.search(r"(?i)/%s-([^-/]+)[^/]*\.(?:dist|egg)-info$" % package, path) for path in paths]
    return next((match.group(1) for match in found if match), "of unknown version")


# --- the model and the inputs

def read_model(args, folder):
    """What run_atc.sh recorded beside the .om, held against its bytes; without a record what aclruntime tells of its input."""
    path = args.model
    if not path.endswith(".om"):
        fail("%s: is no .om; run_atc.sh makes it from the .onnx, and onnx_infer.py runs that" % path)
    if not os.path.isfile(path):
        fail("%s: no such .om file; run_atc.sh makes it" % path)
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        identity = identity_of(os.fstat(file.fileno()))
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    facts = {"path": path, "bytes": identity[1], "sha256": digest.hexdigest(), "onnx_sha256": None, "weights": None,
             "weights_sha256": None, "recipe": None, "calibration": None}
    record = path + ".json"
    if not os.path.lexists(record):
        dtype, shape, batch_size, outputs = ask_aclruntime(args, folder) if args.input else (None, None, None, None)
        return Model(facts, identity, dtype, shape, outputs, batch_size, None, None, None)
    optional = (str, type(None))
    told = read_json(record, {
        "om_sha256": optional, "batch_size": int, "precision": optional, "soc_version": str, "onnx_sha256": str,
        "weights": optional, "weights_sha256": optional, "recipe": (dict, type(None)), "calibration": (dict, type(None)),
        "input": dict, "outputs": list})
    if told["om_sha256"] != facts["sha256"]:
        fail("%s: the .om is not the one run_atc.sh recorded in %s; compile again, or remove that if the .om is from elsewhere"
             % (path, os.path.basename(record)))
    facts.update((key, told[key]) for key in ("onnx_sha256", "weights", "weights_sha256", "recipe", "calibration"))
    recipe = checked_recipe(told["recipe"], record)
    try:
        dtype, shape = np.dtype(told["input"]["dtype"]).name, [int(side) for side in told["input"]["shape"]]
        outputs = [{"name": str(one["name"]), "dtype": np.dtype(one["dtype"]).name, "shape": [int(side) for side in one["shape"]]}
                   for one in told["outputs"]]
        scores = outputs[0]["shape"]
    except (KeyError, TypeError, ValueError, IndexError):
        fail("%s: its input or outputs are not as run_atc.sh writes them" % record)
    if outputs[0]["dtype"] not in ("float32", "float16") or len(scores) != 1 or scores[0] < 2:
        fail("%s: its first output is a %s of shape %s an image; scores are floats of shape (classes), at least 2 of them"
             % (path, outputs[0]["dtype"], scores))
    only_one_has_scores(path, outputs)
    if recipe and (recipe["dtype"], sides_of(recipe)) != (dtype, shape):
        fail("%s: its recipe and its input contradict each other" % record)
    if told["batch_size"] < 1 or args.batchsize not in (None, told["batch_size"]):
        fail("%s: is made for batch size %d, not %s" % (path, told["batch_size"], args.batchsize or "for any there is"))
    return Model(facts, identity, dtype, shape, outputs, told["batch_size"], told["precision"], recipe, told["soc_version"])


def ask_aclruntime(args, folder):
    """(dtype, shape of one image, batch size, outputs) of an .om without a record; exits where the input cannot be told.

    ais_bench puts as many files into a batch as fill it: files of another size must never get there. The outputs are as in a
    record; None where they cannot be told, and for NPY, which tells of itself.
    """
    told, said = os.path.join(folder, "told"), os.path.join(folder, "said")
    with open(said, "wb") as file:
        run_python(("-c", ASK, os.path.abspath(args.model), str(args.devices[0]), os.path.abspath(told)), folder,
                   stdout=subprocess.DEVNULL, stderr=file)

    def one_image(name, shape, size):
        return {"name": str(name), "dtype": DTYPES[size / int(np.prod(shape))], "shape": shape[1:]}

    try:
        ((_, shape, size),), outputs = json.loads(read_file(told).decode())
        image, batch_size = one_image("", shape, size), shape[0]
    except (OSError, ValueError, TypeError, KeyError, IndexError, ZeroDivisionError):
        fail("%s: has no record (%s.json), and aclruntime does not tell what one image of its input is (%s); compile it with "
             "run_atc.sh, or copy its record too" % (args.model, os.path.basename(args.model), last_words(said)))
    try:
        outputs = [one_image(*one) for one in outputs] if {one[1][0] for one in outputs} == {batch_size} else None
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError):
        outputs = None
    return image["dtype"], image["shape"], batch_size, None if args.outfmt == "NPY" else outputs


def identity_of(state):
    return state.st_ino, state.st_size, state.st_mtime_ns


def natural(path):
    """Runs of digits count as numbers, as ais_bench sorts."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split("([0-9]+)", os.path.basename(path))]


def find_inputs(args, model):
    """({name: path} in natural order, what the record says of them); exits unless each is exactly one image for the model."""
    text, whole = args.input, os.path.isdir(args.input)
    paths = [text] if os.path.exists(text) else text.split(",")
    if whole:
        paths = sorted(os.path.join(text, name) for name in os.listdir(text) if name.endswith((".bin", ".BIN", ".npy", ".NPY")))
        if not paths:
            fail("%s: no .bin or .npy files in it" % text)
    paths.sort(key=natural)
    facts = {"path": text, "images": 0, "recipe": None, "manifest_sha256": None, "shard": None, "limit": args.limit,
             "source": None, "set_sha256": None}
    for folder in sorted({os.path.dirname(path) or "." for path in paths}):
        inside = [path for path in paths if (os.path.dirname(path) or ".") == folder]
        made = read_prepared(folder, inside, whole)
        if made:
            recipe, wanted = made["recipe"], dict(model.recipe or {}, dtype=model.dtype, shape=model.shape)
            given = dict(recipe, shape=sides_of(recipe))
            if model.dtype == "uint8" and not model.recipe:  # AIPP may be in it, whose layout is not the graph's
                given["shape"], wanted["shape"] = sorted(given["shape"]), sorted(wanted["shape"])
            differ = sorted(key for key in wanted if wanted[key] != given[key])
            if differ:
                fail("%s: was prepared with another %s than %s takes (%s, not %s); prepare the images for this model" % (
                    folder, " and ".join(differ), args.model, given[differ[0]], wanted[differ[0]]))
            if facts["recipe"] not in (None, recipe):
                fail("%s: was prepared otherwise than the rest of the inputs" % folder)
            facts.update(made if whole else {"recipe": recipe})
    inputs, kinds = collections.OrderedDict(), set()
    for path in paths[:args.limit]:
        check_input(path, model.dtype, model.shape)
        kinds.add(path[-4:].lower())
        name = os.path.basename(path).split(".")[0]
        if name in inputs:
            fail("%s and %s would both give the result %s_0; rename one" % (inputs[name], path, name))
        inputs[name] = path
    if len(kinds) > 1:
        fail("%s: its files are of several kinds (%s), which ais_bench cannot put into one batch" % (
            text, " and ".join(sorted(kinds))))
    return inputs, dict(facts, images=len(inputs))


def read_prepared(folder, paths, whole):
    """What the records of a folder that imagenet_torch_preprocess.py made and left so say, for the summary, or None."""
    record, manifest = os.path.join(folder, ".recipe.json"), os.path.join(folder, ".manifest")
    if not os.path.lexists(record) and not os.path.lexists(manifest):
        return None
    remedy = "is not as imagenet_torch_preprocess.py left it; run that again (copies keep the times with cp -p, scp -p, rsync -a)"
    for path in (record, manifest):
        if not os.path.isfile(path):
            fail("%s: is missing; the folder %s" % (path, remedy))
    told = read_json(record, {"recipe": dict})
    data = read_file(manifest)
    try:
        rows = json.loads("[%s]" % ",".join(data.decode("utf-8", "surrogateescape").splitlines()))
        states = {row[0] + ".bin": (row[4], row[5]) for row in rows}
    except (ValueError, TypeError, LookupError, RecursionError):
        fail("%s: %s" % (manifest, remedy))
    for path in paths:
        state = os.stat(path)
        if states.pop(os.path.basename(path), None) != (state.st_size, state.st_mtime_ns):
            fail("%s: %s" % (path, remedy))
    if whole and states:
        fail("%s: %d files of its manifest are missing, first %s; it %s" % (folder, len(states), sorted(states)[0], remedy))
    return {"recipe": checked_recipe(told["recipe"], record), "manifest_sha256": hashlib.sha256(data).hexdigest(),
            "shard": told.get("shard"), "source": told.get("source"), "set_sha256": told.get("set_sha256")}


def check_input(path, dtype, sides):
    """Exit unless a file holds exactly one image of this dtype and these sides."""
    state, array = os.stat(path), None
    if not stat.S_ISREG(state.st_mode):
        fail("%s: is no regular file" % path)
    held = "%d bytes" % state.st_size
    if path[-4:].lower() == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            held = "%s values of shape %s, in %s order" % (array.dtype, list(array.shape), "CF"[not array.flags.c_contiguous])
        except Exception as error:  # numpy reads the header as Python; whatever that raises, it is none
            fail("%s: is no .npy of an array: %s" % (path, error))
    size = int(np.prod(sides)) * np.dtype(dtype).itemsize
    if array is None:
        fits = state.st_size == size
    else:
        fits = array.dtype == dtype and list(array.shape) in (sides, [1] + sides) and array.flags.c_contiguous
    if not fits:
        fail("%s: holds %s; one image is %s %s (%d bytes): made for another model, or truncated" % (
            path, held, dtype, sides, size))


def check_paths(args, partial, inputs):
    """What newer front ends refuse in what they read and write, said before they do."""
    paths = [args.model, partial] + list(inputs.values())
    if args.input and os.path.isdir(args.input):
        paths += [args.input] + sorted(os.path.join(args.input, name) for name in os.listdir(args.input))
    if os.path.getsize(args.model) > LARGEST_OM or len(paths) > MOST_FILES:
        fail("%s, %s: this ais_bench takes an .om of 10 GB and a folder of %d files at most" % (
            args.model, args.input, MOST_FILES))
    for path in paths:
        state = os.lstat(path)
        for refused, why in (
                (STRANGE.search(os.path.abspath(path)), "takes only A-Z a-z 0-9 _ - / . in paths; name another place"),
                (stat.S_ISLNK(state.st_mode), "refuses it, since it is a link; name or copy what it points to"),
                (state.st_uid != os.geteuid() and state.st_gid not in os.getgroups(), "refuses another's files; make it yours"),
                (state.st_mode & (stat.S_IWGRP | stat.S_IWOTH), "refuses what others may write; chmod -R go-w it"),
                (not state.st_mode & stat.S_IRUSR, "cannot read it; chmod u+r it")):
            if refused:
                fail("%s: this ais_bench %s" % (os.path.abspath(path), why))


# --- the runs

def run_ais_bench(args, front, model, inputs, partial, loop, batchsize):
    """One call of ais_bench; returns ([Part], seconds) when all of it is there."""
    work, dirname = os.path.abspath(os.path.join(partial, "run")), os.path.basename(args.output_dirname)
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work, 0o750)
    devices = usable_devices(args.devices, len(inputs)) if inputs else args.devices
    source, on = args.input, []

    def spelled(name):
        return "--" + name[2:].replace("_", front.separator)

    if inputs:
        if not os.path.isdir(source) or args.limit is not None:
            source = linked(inputs, os.path.join(partial, "input"))
        on += ["--outfmt", args.outfmt] + (["--loop", str(loop)] if loop > 1 else [])
    else:
        on += ["--outfmt", args.outfmt] if args.outfmt != "BIN" else []
        on += [spelled("--pure_data_type"), args.pure_data_type] if args.pure_data_type != "zero" else []
    if devices != [0]:
        on += ["--device", ",".join(map(str, devices))]
    if len(devices) > 1 and inputs:
        on += front.divide  # 0.0.2 has no such option and always divides
    if args.warmup_count != 1:
        on += [spelled("--warmup_count"), str(args.warmup_count)]

    def line(model, source, output, dirname):
        words = ["--model=" + model, "--loop=%d" % loop] + (["--batchsize=%d" % batchsize] if batchsize else [])
        words = ["--model", model, "--input", source] if inputs else words
        return words + (["--output", output, spelled("--output_dirname"), dirname] if output else []) + on

    shown = ["python3", "-m", "ais_bench"] + line(args.model, source, args.output, args.output_dirname)
    print(" ".join(shlex.quote(word) for word in shown), flush=True)
    # The same line, into the folder of its own, whose path must not depend on the current folder.
    words = line(os.path.abspath(args.model), os.path.abspath(source or "."), work, dirname)
    said, begin = os.path.join(partial, "said"), time.time()
    with open(said, "wb") as file:
        code = run_python(["-m", "ais_bench"] + words, work, stderr=file, pass_fds=LOCKS)
    seconds = time.time() - begin
    if code:
        end = "was ended by signal %d" % -code if code < 0 else "failed with exit code %d" % code
        fail("%s: ais_bench %s: %s" % (args.model, end, last_words(said)))
    return [read_part(args, work, dirname, devices, place, inputs) for place in range(len(devices))], seconds


def usable_devices(devices, images):
    """0.0.2 gives each device as many files as divide evenly, rounded up, and fails where the last gets none: take fewer then."""
    count = len(devices)
    while count > 1 and (count - 1) * math.ceil(images / count) >= images:
        count -= 1
    if count < len(devices):
        print("%d images are not divided among %d devices by ais_bench; %d do the work" % (images, len(devices), count))
    return devices[:count]


def linked(inputs, folder):
    """A folder with just these files: ais_bench takes a whole folder, or no more names than fit a command line."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o750)
    for path in inputs.values():
        target = os.path.join(folder, os.path.basename(path))
        try:
            os.link(os.path.realpath(path), target)
        except OSError:  # another file system, or another's file
            shutil.copyfile(path, target)
    return folder


def read_part(args, work, dirname, devices, place, inputs):
    """What one device left, by its summary; exits where anything is missing."""
    device, base = devices[place], os.path.join(work, dirname)
    if len(devices) > 1:
        base = os.path.join(base, "device%d" % device)
        if not os.path.exists(base + "_summary.json"):  # newer ones count the devices too
            base += "_%d" % place
    if not os.path.isfile(base + "_summary.json") or not os.path.isdir(base):
        fail("%s: ais_bench ended with exit code 0, but %s" % (args.model, "the part of device %d is missing" % device
                                                               if len(devices) > 1 else "left no summary"))
    number = (int, float)
    summary = read_json(base + "_summary.json", {"filesinfo": dict, "NPU_compute_time": dict, "throughput": number,
                                                 "npu_compute_time_list": list})
    times, files = summary["npu_compute_time_list"], sorted(os.listdir(base))
    if not times or not all(type(one) in number and 0 <= one < 1e12 for one in times) or not 0 < np.mean(times) \
            or not 0 < summary["throughput"] < 1e12:
        fail("%s: the times that ais_bench left are none" % (base + "_summary.json"))
    images = [os.path.basename(path).split(".")[0] for path in paths_of(summary, "infiles", base + "_summary.json") if inputs]
    return Part(device, images, summary, times, [os.path.join(base, name) for name in files])


def batch_size_of(args, model, parts):
    """ais_bench computes the throughput with the batch size that it was told, or else reads from the .om."""
    found = {int(round(part.summary["throughput"] * float(np.mean(part.times)) / 1000)) for part in parts}
    expected = args.batchsize or model.batch_size
    if len(found) != 1 or min(found) < 1 or (expected and found != {expected}):
        fail("%s: is made for batch size %s, not %s" % (args.model, " and ".join(map(str, sorted(found))), expected or "one"))
    return found.pop()


def find_results(args, parts, inputs, batch_size):
    """{(name, number of the output): path}: exits unless each input has its results, once, and nothing else is there."""
    found = {}
    for part in parts:
        for path in part.files:
            split = re.match(r"(?s)(.*)_(\d+)\.%s$" % args.outfmt.lower(), os.path.basename(path))
            if not split or not os.path.isfile(path) or (inputs and split.group(1) not in inputs):
                fail("%s: ais_bench left this beside the results; it belongs to no input" % path)
            result = split.group(1), int(split.group(2))
            if inputs and result in found:
                fail("%s: two devices had the same input; this ais_bench did not divide them" % path)
            found.setdefault(result, path)
        # A file that is no image of this model counts as several images, or as a part of one: then there are more runs, or fewer.
        runs = math.ceil(len(part.images) / batch_size) * args.loop
        if inputs and len(part.times) != runs:
            fail("%s: device %d ran %d times for %d images at batch size %d, not %d times: the files are not its images" % (
                args.model, part.device, len(part.times), len(part.images), batch_size, runs))
    names = list(inputs) if inputs else ["pure_infer_data"]
    count = max([index for _, index in found], default=0) + 1
    missing = [name for name in names if any((name, index) not in found for index in range(count))]
    if missing:
        fail("%s: ais_bench ended with exit code 0, but left %d of %d results (first missing: %s)" % (
            args.model, len(names) - len(missing), len(names), missing[0]))
    return found, names, count


def check_results(args, model, parts, inputs):
    """(batch size, [{name, dtype, shape} an image], probabilities): exits unless each image has exactly its results."""
    batch_size = batch_size_of(args, model, parts)
    found, names, count = find_results(args, parts, inputs, batch_size)
    if model.outputs and count != len(model.outputs):
        fail("%s: left %d outputs an image, but has %d" % (args.model, count, len(model.outputs)))
    outputs, probabilities, tiny = [], bool(inputs), 0
    for index in range(count):
        told = model.outputs[index] if model.outputs else None
        for place, name in enumerate(names):
            judged = bool(inputs) and index == 0 and place < batch_size
            dtype, values = read_result(found[name, index], args.outfmt, told, 1 if inputs else batch_size, bool(inputs), judged)
            told = told or {"name": "output%d" % index, "dtype": dtype, "shape": list(values.shape[1:])}
            if judged:
                tiny += bool(np.abs(values).max() < 1e-3)
                probabilities &= bool(values.min() >= 0 and values.max() <= 1 and abs(float(values.sum()) - 1) < 1e-3)
        outputs.append(told)
    if len(outputs[0]["shape"]) != 1 or outputs[0]["shape"][0] < 2:
        fail("%s: its first output has shape %s an image; scores are (classes), at least 2" % (args.model, outputs[0]["shape"]))
    only_one_has_scores(args.model, outputs)
    if args.outfmt == "TXT" and 2 * tiny >= min(batch_size, len(names)) and inputs:
        fail("%s: its scores are all below 0.001, of which %%f leaves three digits at most; use --outfmt BIN" % args.model)
    if probabilities and args.outfmt == "TXT":
        fail("%s: gives probabilities, and %%f flattens probabilities into ties; use --outfmt BIN" % args.model)
    return batch_size, outputs, probabilities


def only_one_has_scores(path, outputs):
    """Exit where several outputs are a row of floats an image: which of them are the scores cannot be told."""
    alike = [told["name"] for told in outputs
             if told["dtype"].startswith("float") and len(told["shape"]) == 1 and told["shape"][0] > 1]
    if len(alike) > 1:
        fail("%s: its outputs %s all look like scores (classes); export it with the scores alone" % (path, " and ".join(alike)))


def read_result(path, outfmt, told, rows, finite, judged):
    """(dtype, array of shape (rows, ...)) of one result; exits where it is torn, not finite, or not of so many images.

    Text that nobody judges is counted only, which takes a seventh of the time: the array then holds zeros.
    """
    data, dtype, shape = read_file(path), told["dtype"] if told else "float32", told["shape"] if told else None
    try:
        if outfmt == "NPY":
            values = np.load(io.BytesIO(data), allow_pickle=False)
            dtype, shape = values.dtype.name if not told else dtype, list(values.shape[1:]) if not told else shape
            sound = values.dtype == dtype and list(values.shape) == [rows] + shape
        else:
            text = outfmt == "TXT"
            values = np.zeros(data.count(b".")) if text else np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
            if text and (judged or (finite and data.translate(None, b"0123456789.- \n"))):
                values = np.array(data.split(), np.float64)
            shape = shape or [values.size // rows]
            sound = 0 < values.size == rows * int(np.prod(shape)) and (not text or data.endswith(b" \n"))
            sound = sound and (told or not text or data.count(b"\n") == rows)
    except Exception as error:  # as above
        fail("%s: is torn: %s" % (path, error))
    if not sound:
        fail("%s: holds %d bytes, %d rows of values, expected were %d x %s %s: torn, or not of one image an input" % (
            path, len(data), data.count(b"\n") if outfmt == "TXT" else len(values), rows, dtype, shape))
    if finite and values.dtype.kind == "f" and not np.isfinite(values).all():
        fail("%s: holds values that are not finite (NaN or infinite)" % path)
    return dtype, values.reshape([rows] + shape)


# --- the record

def performance_of(times, batch_size):
    runs, mean = len(times), float(np.mean(times))
    interval = None
    if runs >= 20:
        means = np.array(times[runs % 10:], np.float64).reshape(10, -1).mean(axis=1)
        half = T_975_9 * means.std(ddof=1) / math.sqrt(10)
        if half < mean:  # around the mean of all runs, which the ten parts may lack a few of
            interval = [float(1000 * batch_size / (mean + half)), float(1000 * batch_size / (mean - half))]
    return {"runs": runs, "batch_size": batch_size, "mean_ms": mean, "median_ms": float(np.median(times)),
            "p90_ms": float(np.percentile(times, 90)) if runs >= 10 else None,
            "p99_ms": float(np.percentile(times, 99)) if runs >= 100 else None, "min_ms": float(min(times)),
            "max_ms": float(max(times)), "images_per_second": 1000 * batch_size / mean, "interval95": interval}


def copy_ms(summary, way):
    told = summary.get(way) if isinstance(summary.get(way), dict) else {}
    mean = told.get("mean")
    return float(mean) if told.get("count") and type(mean) in (int, float) and 0 <= mean < 1e12 else None


def npu_facts(devices):
    """tools/npu_info.py's JSON for the devices, where it lies beside this script."""
    script, visible = os.path.join(HERE, "tools", "npu_info.py"), os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    numbers = [visible[device] if device < len(visible) and visible[device].isdigit() else str(device) for device in devices]
    try:
        answer = subprocess.run([sys.executable, script, "--device", ",".join(numbers)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(), timeout=120)
        return json.loads(answer.stdout.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def machine():
    found = re.search(r"(?m)^model name\s*: *(.+)$", read_file("/proc/cpuinfo").decode("utf-8", "replace"))
    name = found.group(1) if found else platform.processor() or "CPU"
    return "%s, %s, %d CPUs" % (name, platform.machine(), os.cpu_count() or 1)


def summarise(args, model, parts, checked, inputs, input_facts, seconds):
    batch_size, outputs, probabilities = checked
    each = [{"device": part.device, "performance": performance_of(part.times, batch_size), "images": len(part.images),
             "h2d_ms": copy_ms(part.summary, "H2D_latency"), "d2h_ms": copy_ms(part.summary, "D2H_latency")} for part in parts]
    slowest = max(range(len(parts)), key=lambda place: each[place]["performance"]["mean_ms"])
    performance, speeds = dict(each[slowest]["performance"]), [one["performance"]["images_per_second"] for one in each]
    performance["images_per_second"] = total = sum(speeds)
    intervals = [one["performance"]["interval95"] for one in each]
    performance["interval95"] = None
    if None not in intervals:  # the devices are independent: their half widths add as squares
        low, high = (math.sqrt(sum((speed - pair[side]) ** 2 for speed, pair in zip(speeds, intervals))) for side in (0, 1))
        performance["interval95"] = [total - low, total + high]
    devices, npu = [part.device for part in parts], npu_facts([part.device for part in parts])
    chip = " and ".join(sorted({one["soc_version"] for one in (npu or {"devices": []})["devices"] if one["soc_version"]}))
    if model.chip and chip not in ("", model.chip):
        sys.stderr.write("warning: %s: was compiled for %s, npu-smi shows %s\n" % (args.model, model.chip, chip))
    chip = chip or model.chip or "NPU"
    version = version_of("ais_bench")
    filesinfo = {}
    for place, (name, path) in enumerate((inputs or {"pure_infer_data": "pure_infer_data"}).items()):
        filesinfo[str(place)] = {"infiles": [path], "outfiles": [
            os.path.join(args.output or "", args.output_dirname, "%s_%d.%s" % (name, index, args.outfmt.lower()))
            for index in range(len(outputs))]}
    summary = parts[slowest].summary
    return {
        "filesinfo": filesinfo, "NPU_compute_time": summary["NPU_compute_time"], "H2D_latency": summary.get("H2D_latency"),
        "D2H_latency": summary.get("D2H_latency"), "throughput": total, "npu_compute_time_list": parts[slowest].times,
        "args": sys.argv, "pid": os.getpid(), "schema": 1, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "engine": "ais_bench " + version, "device": chip if len(parts) == 1 else "%d x %s" % (len(parts), chip),
        "devices": devices, "precision": model.precision, "batch_size": batch_size, "outfmt": args.outfmt,
        "model": model.facts, "input": input_facts, "outputs": outputs, "probabilities": probabilities,
        "packages": {"python": platform.python_version(), "numpy": np.__version__, "ais_bench": version,
                     "aclruntime": version_of("aclruntime")},
        "script_sha256": hashlib.sha256(read_file(os.path.abspath(__file__))).hexdigest(), "machine": machine(), "vnni": None,
        "performance": performance, "h2d_ms": each[slowest]["h2d_ms"], "d2h_ms": each[slowest]["d2h_ms"],
        # How long ais_bench waits for files and for the disk it does not tell; the seconds include loading the model.
        "wall": {"seconds": seconds, "images_per_second": len(inputs) / seconds, "reading": None,
                 "computing": sum(parts[slowest].times) / 1000, "writing": None, "resumed": False} if inputs else None,
        "npu": npu, "parts": each if len(parts) > 1 else None}


# --- the folder

def lock_partial(args):
    """OUTPUT/.DIRNAME.partial, empty and held by this process; a killed run's is taken over, a living one's is not."""
    if not args.output:
        return tempfile.mkdtemp(prefix="npu_infer-")
    final = os.path.join(args.output, args.output_dirname)
    partial = os.path.join(os.path.dirname(final), ".%s.partial" % os.path.basename(final))
    os.makedirs(os.path.dirname(final) or ".", exist_ok=True)
    check_replaceable(args, final)
    while not LOCKS:
        if os.path.islink(partial) or os.path.lexists(partial) and not os.path.isdir(partial):
            fail("%s: is in the way; move it" % partial)
        os.makedirs(partial, 0o750, exist_ok=True)
        path = os.path.join(partial, ".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                LOCKS.append(lock)
        except FileNotFoundError:
            pass  # its holder removed it in between
        except BlockingIOError:
            fail("%s: another inference is writing there; wait for it or choose another --output_dirname" % final)
    os.chmod(partial, 0o750)  # of a killed run, or of another umask: newer front ends want no more
    if os.path.isdir(os.path.join(partial, ".old")) and not os.path.lexists(final):  # killed between the renames of publish
        os.rename(os.path.join(partial, ".old"), final)
    empty(partial)
    return partial


def empty(partial):
    """The lock stays: without it, another run would take the folder over."""
    for name in os.listdir(partial):
        path = os.path.join(partial, name)
        if name != ".lock":
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def check_replaceable(args, final):
    """Exit unless what stands under the final names is a record's own results, or nothing."""
    record, beside, listed = os.path.join(final, ".summary.json"), final + "_summary.json", set()
    remedy = "choose another --output_dirname, or move it"
    if args.input and any(os.path.realpath(path) == os.path.realpath(final) for path in [args.input] + args.input.split(",")):
        fail("%s: is the folder of the inputs; %s" % (final, remedy))
    if os.path.islink(final) or os.path.lexists(final) and not os.path.isdir(final):
        fail("%s: is a link or a file; %s" % (final, remedy))
    if os.path.isfile(record) and not os.path.islink(record):
        listed = {os.path.basename(path) for path in paths_of(read_json(record, {"filesinfo": dict}), "outfiles", record)}
        listed |= {".summary.json", ".lock", ".link"}
    others = sorted(set(os.listdir(final)) - listed) if os.path.isdir(final) else []
    if others:
        fail("%s: holds what no inference's record lists (first: %s) and would be replaced; %s" % (final, others[0], remedy))
    if os.path.lexists(beside) and (os.path.islink(beside) or b'"schema": 1' not in read_file(beside)):
        fail("%s: was not written by this script; %s" % (beside, remedy))


def publish(args, partial, summary, parts):
    """All under their final names: the folder with its record in it, then the same record beside it."""
    final, whole = os.path.join(args.output, args.output_dirname), os.path.join(partial, "whole")
    os.mkdir(whole)
    for part in reversed(parts):  # of pure inference the first device's output is kept
        for path in part.files:
            os.replace(path, os.path.join(whole, os.path.basename(path)))
    record, link, beside = os.path.join(whole, ".summary.json"), os.path.join(partial, "link"), final + "_summary.json"
    with open(record, "x") as file:
        json.dump(summary, file)
    try:
        os.link(record, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(record, link)
    check_replaceable(args, final)  # again: it may have come while ais_bench ran
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # they come when this is done
    if os.path.lexists(beside):
        os.unlink(beside)
    if os.path.isdir(final):
        os.rename(final, os.path.join(partial, ".old"))
    os.rename(whole, final)
    os.replace(link, beside)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


# --- the command line

def parse_args():
    def number(kind, least, most=10 ** 9):
        def checked(text):
            try:
                value = kind(text)
            except ValueError:
                value = math.nan
            if not least <= value <= most:
                raise argparse.ArgumentTypeError("%r is no number from %s to %s" % (text, least, most))
            return value
        return checked

    parser = argparse.ArgumentParser(description="onnx_infer.py's options and files, with ais_bench on NPUs.", allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", metavar="OM", required=True, help="the .om that run_atc.sh made")
    add("-i", "--input", metavar="PATH", help="folder of .bin/.npy files, or files separated by commas; none: pure inference")
    add("-o", "--output", metavar="DIR", help="folder for the results; none: times only")
    add("--output_dirname", "--output-dirname", metavar="NAME", help="folder in DIR (default: date and time)")
    add("--outfmt", choices=["TXT", "BIN", "NPY"], default="BIN", help="format of the results (default: %(default)s)")
    add("-d", "--device", dest="devices", metavar="0,1", default="0",
        help="devices that share the images (default: 0); counted within ASCEND_RT_VISIBLE_DEVICES where that is set")
    add("-l", "--loop", metavar="N", type=number(int, 1), help="runs of each batch (default: 1)")
    add("--seconds", metavar="S", type=number(float, 0.001, 10 ** 6), help="pure inference for so long, in place of --loop")
    add("--batchsize", metavar="N", type=number(int, 1), help="batch size that the .om must have")
    add("--warmup_count", "--warmup-count", metavar="N", type=number(int, 0), default=1,
        help="runs before the timed ones (default: 1)")
    add("--pure_data_type", "--pure-data-type", choices=["zero", "random"], default="zero", help="what pure inference feeds")
    add("--display_all_summary", "--display-all-summary", metavar="1", nargs="?", const="1", default="0",
        choices=["0", "1", "true", "false", "True", "False"], help="print the times of the copies, too")
    add("--limit", metavar="N", type=number(int, 1), help="only the first N files")
    args = parser.parse_args()
    numbers = args.devices.split(",")
    if not all(re.match(r"[0-9]{1,3}$", one) for one in numbers) or len(set(map(int, numbers))) < len(numbers):
        parser.error("--device %r is no list of different devices, as in 0 or 0,1" % args.devices)
    args.devices = [int(one) for one in numbers]
    if args.output_dirname is not None and args.output is None:
        parser.error("--output_dirname goes with --output")
    if args.seconds and (args.loop or args.input):
        parser.error("--seconds goes with pure inference and without --loop")
    args.loop = args.loop or 1
    args.output_dirname = name = os.path.normpath(args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S"))
    if os.path.isabs(name) or name.split(os.sep)[0] == ".." or name in (".", ""):
        parser.error("--output_dirname %r names no folder inside --output" % name)
    return args


def run(args, partial):
    model = read_model(args, partial)
    inputs, input_facts = find_inputs(args, model) if args.input else ({}, None)
    if inputs and "," in os.path.abspath(args.input) and os.path.isdir(args.input):
        fail("%s: ais_bench takes a comma for the end of a path; rename the folder" % args.input)
    front = ask_front_end(partial, len(args.devices) > 1 and args.input)
    if front.strict:
        check_paths(args, partial, inputs)
        if args.loop > MOST_LOOPS:
            fail("--loop %d: this ais_bench takes at most %d" % (args.loop, MOST_LOOPS), 2)
    # Pure inference's throughput is what --batchsize makes of it: an .om without a record must tell its own.
    batchsize = (model.batch_size or None) if not args.input else None
    if args.seconds:
        parts, _ = run_ais_bench(args, front, model, inputs, partial, WARM_RUNS, batchsize)
        median = max(float(np.median(part.times)) for part in parts)
        args.loop = min(MOST_LOOPS, max(FEWEST_RUNS, math.ceil(args.seconds * 1000 / max(median, 1e-3))))
        print("%d runs of %.3f ms for %g seconds (at most %d)" % (args.loop, median, args.seconds, MOST_LOOPS))
    states = [identity_of(os.stat(path)) for path in inputs.values()]
    parts, seconds = run_ais_bench(args, front, model, inputs, partial, args.loop, batchsize)
    if identity_of(os.stat(args.model)) != model.identity:
        fail("%s: was replaced while ais_bench ran; run it again" % args.model)
    if args.input and (find_inputs(args, model) != (inputs, input_facts)
                       or [identity_of(os.stat(path)) for path in inputs.values()] != states):
        fail("%s: was changed while ais_bench ran; run it again" % args.input)
    checked = check_results(args, model, parts, inputs)
    summary = summarise(args, model, parts, checked, inputs, input_facts, seconds)
    if args.output:
        publish(args, partial, summary, parts)
    performance = summary["performance"]
    print("engine: %s on %s" % (summary["engine"], summary["device"]))
    print("compute time (ms): " + ", ".join("%s %.3f" % (key[:-3], performance[key]) for key in (
        "min_ms", "max_ms", "mean_ms", "median_ms", "p90_ms", "p99_ms") if performance[key] is not None))
    if args.display_all_summary.lower() in ("1", "true"):
        print("copies (ms): " + ", ".join("%s %s" % (key[:3], "%.3f" % summary[key] if summary[key] is not None else "not told")
                                          for key in ("h2d_ms", "d2h_ms")))
    print("throughput: %.2f images/s (batch size %d, %d runs)" % (summary["throughput"], checked[0], performance["runs"]))
    if args.output:
        print("results: %s" % os.path.join(args.output, args.output_dirname))


def main():
    args = parse_args()
    os.umask(0o027)  # newer front ends, and whoever reads these results with them, want 0640 and 0750
    partial = lock_partial(args)
    try:
        run(args, partial)
    finally:
        end_children()
        empty(partial)
        shutil.rmtree(partial, ignore_errors=True)
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        if error.filename is None:  # a closed or full standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("there is not enough memory")
