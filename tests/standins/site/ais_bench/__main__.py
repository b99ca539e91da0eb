"""Stand-in for ais_bench's front ends: spelling, order of errors, layout and strictness of the generation STANDIN_GENERATION."""
import argparse
import json
import os
import re
import shutil
import signal
import stat
import sys
import time

import aclruntime

GENERATION = os.environ.get("STANDIN_GENERATION", "0.0.2")
NEWER, CLICK = GENERATION != "0.0.2", GENERATION in ("2025", "2026")
FAIL = os.environ.get("STANDIN_FAIL", "").split()
MOST_LOOPS = 100000
HELP = {"output_dirname": "Actual output directory name. Used with parameter output, cannot be used alone. such as "
                          "--output_dirname 'tmp', the final inference results are output to the folder of  {$output}/tmp"}


def boolean(text):
    if text.lower() not in ("1", "true", "0", "false"):
        raise argparse.ArgumentTypeError("neither true nor false: %s" % text)
    return text.lower() in ("1", "true")


def devices_of(text):
    return [int(number) for number in text.split(",")]


def loops(text):
    if int(text) < 1 or (NEWER and int(text) > MOST_LOOPS):
        raise argparse.ArgumentTypeError("%s is an invalid loop size value" % text)
    return int(text)


def legal(text, forbidden):
    """The newer front ends' checks of a path: its characters, links, owner and mode."""
    full = os.path.abspath(text)
    if re.search(r"[^_A-Za-z0-9/.-]", full):
        raise argparse.ArgumentTypeError("path contains illegal char, legal chars include A-Z a-z 0-9 _ - / . : %r" % text)
    if os.path.islink(full):
        raise argparse.ArgumentTypeError("%s is a soft link" % text)
    if os.path.exists(full):
        there = os.stat(full)
        if there.st_uid != os.geteuid() and there.st_gid not in os.getgroups():
            raise argparse.ArgumentTypeError("%s: neither owner nor group owner" % text)
        if there.st_mode & forbidden:
            raise argparse.ArgumentTypeError("%s: mode %o is too open" % (text, there.st_mode & 0o777))
    return text


def readable(text):
    for path in text.split(",") if NEWER else ():
        if not os.path.exists(path):
            raise argparse.ArgumentTypeError("%s does not exist" % path)
        legal(path, stat.S_IWGRP | stat.S_IWOTH)
    return text


def writable(text):
    return legal(text, stat.S_IWGRP | stat.S_IRWXO) if NEWER else text


# name: (letter, how its value is read, or the values it may have; None for a boolean; default)
OPTIONS = {"model": ("m", readable, None), "input": ("i", readable, None), "output": ("o", writable, None),
           "output_dirname": (None, writable, None), "outfmt": (None, ["NPY", "BIN", "TXT"], "BIN"), "loop": ("l", loops, 1),
           "debug": (None, None, False), "device": ("d", devices_of, [0]), "batchsize": (None, int, None),
           "pure_data_type": (None, ["zero", "random"], "zero"), "display_all_summary": (None, None, False),
           "warmup_count": (None, int, 1)}
if NEWER:
    OPTIONS["divide_input"] = (None, None, False)


def by_argparse():
    parser = argparse.ArgumentParser(prog="__main__.py")
    for name, (letter, kind, default) in OPTIONS.items():
        letters = ["-" + letter] if letter else []
        kinds = {"choices": kind} if isinstance(kind, list) else {"type": kind or boolean}
        parser.add_argument("--" + name, *letters, required=name == "model", default=default, help=HELP.get(name), **kinds)
    return parser.parse_args()


def wrong_usage(message):
    """As Click says it, in a frame of 80 columns."""
    width = int(os.environ.get("COLUMNS", "80"))
    lines = [message[first:first + width - 4] for first in range(0, len(message), width - 4)]
    sys.stderr.write("Usage: python -m ais_bench [OPTIONS]\nTry 'python -m ais_bench --help' for help.\n")
    sys.stderr.write("\u256d\u2500 Error " + "\u2500" * (width - 10) + "\u256e\n" + "".join(
        "\u2502 %s \u2502\n" % line.ljust(width - 4) for line in lines) + "\u2570" + "\u2500" * (width - 2) + "\u256f\n")
    sys.exit(2)


def by_click():
    """Click's order: what is no option, then --help, then the values in the order given, a missing option, what is too much."""
    separator = "-" if GENERATION == "2026" else "_"
    spelled = {"--" + name.replace("_", separator): name for name in OPTIONS}
    letters = {"-" + letter: name for name, (letter, _, _) in OPTIONS.items() if letter}
    given, extra, words, asked = [], [], sys.argv[1:], False
    while words:
        word, equals, value = words.pop(0).partition("=")
        name = spelled.get(word) or letters.get(word)
        negated = spelled.get(word.replace("--no-", "--", 1))
        if word == "--help":
            asked = True
        elif name and OPTIONS[name][1] is None or negated and OPTIONS[negated][1] is None:
            if equals:
                wrong_usage("Option '%s' does not take a value." % word)
            given.append((name or negated, bool(name)))
        elif name:
            if not equals and not words:
                wrong_usage("Option '%s' requires an argument." % word)
            given.append((name, value if equals else words.pop(0)))
        elif word.startswith("-"):
            near = [option for option in spelled if option[:6] == word[:6]]
            wrong_usage("No such option: %s" % word + (" (Possible options: %s)" % ", ".join(near) if near else ""))
        else:
            extra.append(word)
    if asked:
        boxed_help(spelled)
    args = argparse.Namespace(**{name: default for name, (_, _, default) in OPTIONS.items()})
    for name, value in given:
        kind = OPTIONS[name][1]
        if isinstance(kind, list) and value not in kind:
            wrong_usage("Invalid value for '--%s': %r is not one of %s." % (name, value, kind))
        setattr(args, name, kind(value) if callable(kind) else value)
    if args.model is None:
        wrong_usage("Missing option '--model' / '-m'.")
    if extra:
        wrong_usage("Got unexpected extra argument%s (%s)" % ("s" * (len(extra) > 1), " ".join(extra)))
    return args


def boxed_help(spelled):
    """Columns drawn to the terminal's width, 80 where there is none: names cut, descriptions broken."""
    width = shutil.get_terminal_size((80, 24)).columns
    room = max(15, (width - 20) // 4)
    print("\n Usage: python -m ais_bench [OPTIONS]\n\n\u256d\u2500 Options " + "\u2500" * (width - 12) + "\u256e")
    for option, name in spelled.items():
        text = HELP.get(name, "The %s of the inference." % name)
        column = option if OPTIONS[name][1] else "%s    --no-%s" % (option, option[2:])
        column = column if len(column) <= room else column[:room - 1] + "\u2026"
        rest = width - room - 6
        for first in range(0, len(text), rest):
            print("\u2502 %s  %s \u2502" % ((column if first == 0 else "").ljust(room), text[first:first + rest].ljust(rest)))
    print("\u2570" + "\u2500" * (width - 2) + "\u256f\n")
    sys.exit(0)


def natural_order(paths):
    paths = sorted(paths)
    return sorted(paths, key=lambda path: [int(part) if part.isdigit() else part.lower() for part in re.split("([0-9]+)", path)])


def files_of(text):
    if not os.path.isdir(text):
        files = text.split(",")
        if not all(os.path.isfile(path) for path in files):
            raise RuntimeError("input %r is no file or folder" % text)
        return files
    files = [os.path.join(text, name) for name in os.listdir(text)]
    if NEWER:
        for path in files:
            readable(path)
    files = [path for path in files if path.endswith((".bin", ".BIN", ".npy", ".NPY"))]
    if not files:
        raise RuntimeError("no .bin or .npy in %s" % text)
    return natural_order(files)


def content_of(path):
    return np.load(path) if path.lower().endswith(".npy") else np.fromfile(path, np.int8)


def save(path, row):
    if path.endswith(".npy"):
        np.save(path, row)
    elif path.endswith(".bin"):
        row.tofile(path)
    else:
        with open(path, "w") as file:
            for values in row.reshape(-1, row.shape[-1]):
                file.write("".join("%f " % value for value in values) + "\n")
    if NEWER:
        os.chmod(path, 0o640)


def statistics(times):
    figures = {"min": min(times), "max": max(times), "mean": float(np.mean(times)), "median": float(np.median(times)),
               "count": len(times)}
    figures["P99" if NEWER else "percentile(99%)"] = float(np.percentile(times, 99))
    return figures


def infer(args, device, files, prefix):
    """One device's run: its results under prefix, its summary beside it."""
    if args.input and not files:  # of 9 files among 4 devices 0.0.2 gives 3, 3, 3 and none, and the last fails
        raise RuntimeError("no input for device %d" % device)
    options = aclruntime.session_options()
    session = aclruntime.InferenceSession(args.model, device, options)
    session.set_staticbatch()
    (described,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    size = described.shape[0]
    if prefix and not os.path.exists(prefix):
        os.makedirs(prefix, 0o750 if NEWER else 0o755)
    if ("infer:%d" % size in FAIL and files) or ("perf:%d" % size in FAIL and not files):
        raise RuntimeError("[-1][ACL: execute failed]")
    batches, count = [["pure_infer_data"]], 1
    if files:
        count, rest = divmod(described.realsize, content_of(files[0]).nbytes)
        if rest or not count:
            raise RuntimeError("size of %s does not divide %d" % (files[0], described.realsize))
        batches = [files[first:first + count] for first in range(0, len(files), count)]

    def run(batch):
        padded = batch + batch[:1] * (count - len(batch))
        data = np.concatenate([content_of(path) for path in padded]) if files else np.zeros(described.realsize, np.int8)
        if NEWER:
            return session.run(names, [aclruntime.Tensor(data, device)])
        return session.run(names, [aclruntime.BaseTensor(data.__array_interface__["data"][0], data.nbytes)])

    for _ in range(args.warmup_count):
        for output in run(batches[0]):
            output.to_host()
    session.reset_sumaryinfo()
    aclruntime.MemorySummary().reset()
    options.loop = args.loop
    infos, sample = {}, 0
    for number, batch in enumerate(batches):
        if number == len(batches) // 2 and files:
            if "hang:%d" % size in FAIL:
                os.kill(os.getpid(), signal.SIGKILL)
            if "missing:%d" % size in FAIL:
                break
            if "stall:%d" % size in FAIL:
                time.sleep(60)
        for index, output in enumerate(run(batch)):
            output.to_host()
            rows = np.array_split(np.array(output), count)
            for place, (path, row) in enumerate(zip(batch, rows)):
                if not prefix:
                    continue
                name = os.path.basename(path).split(".")[0]
                target = os.path.join(prefix, "%s_%d.%s" % (name, index, args.outfmt.lower()))
                save(target, row)
                if "torn:%d" % size in FAIL and number == len(batches) - 1:
                    os.truncate(target, os.path.getsize(target) // 2 - 3)
                infos.setdefault(sample + place, {"infiles": [path], "outfiles": []})["outfiles"].append(target)
        sample += count
    times, copies = session.sumary().exec_time_list, aclruntime.MemorySummary()
    summary = {"filesinfo": infos, "NPU_compute_time": statistics(times), "npu_compute_time_list": times, "args": sys.argv,
               "H2D_latency": statistics(copies.H2D_time_list or [0.0]), "D2H_latency": statistics(copies.D2H_time_list or [0.0]),
               "throughput": 1000 * (args.batchsize or size) / np.mean(times), "pid": os.getpid()}
    print("[INFO] throughput 1000*batchsize/NPU_compute_time.mean: %f" % summary["throughput"])
    if prefix:
        with open(prefix + "_summary.json", "w") as file:
            json.dump(summary, file)


def divided(files, count):
    """0.0.2 rounds the share up, so that the last may get none; newer ones share evenly, and fail where a device gets none."""
    if not NEWER:
        share = -(-len(files) // count)
        return [files[place * share:(place + 1) * share] for place in range(count)]
    if len(files) < count:
        raise OverflowError("get list part failed")
    share, left = divmod(len(files), count)
    return [files[place * share + min(place, left):(place + 1) * share + min(place + 1, left)] for place in range(count)]


def main():
    global np
    args = by_click() if CLICK else by_argparse()
    from multiprocessing import get_context

    import numpy as np  # both here, so that --help answers at once
    if args.output is None and args.output_dirname is not None:
        raise RuntimeError("error bad parameters --output_dirname")
    files = files_of(args.input) if args.input else []
    prefix = os.path.join(args.output, args.output_dirname) if args.output else None
    if len(args.device) == 1:
        infer(args, args.device[0], files, prefix)
        return 0
    processes, parts = [], [files] * len(args.device)
    if files and (not NEWER or args.divide_input):
        parts = divided(files, len(args.device))
    for place, device in enumerate(args.device):
        name = "device%d_%d" % (device, place) if NEWER else "device%d" % device
        context = get_context("fork")
        process = context.Process(target=infer, args=(args, device, parts[place], os.path.join(prefix, name) if prefix else None))
        process.start()
        processes.append(process)
    for process in processes:
        process.join()
    swallowed = any("device0:%d" % device in FAIL for device in args.device)
    return 0 if swallowed else max(abs(process.exitcode) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
