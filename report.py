#!/usr/bin/env python3
"""Put the results of a run together as a report (the guide's last stage: its table of accuracy and performance).

    python3 report.py ./output

Reads DIR/result_bs*.json, DIR/perf_bs*_summary.json (of several devices DIR/perf_bs*/device*_summary.json) and what
run_infer.sh recorded of the run in DIR/run.json; runs nothing again. Prints the table and writes DIR/report.md, report.json,
report.png (throughput and latency over batch size) and report.html (one page with all of it and the worst mistakes).
Exit code 0: written; 1: not written, or the results contradict their reference (all is written then); 2: wrong usage.
"""
import argparse
import ast
import base64
import glob
import hashlib
import html
import importlib.util
import io
import json
import os
import platform
import re
import subprocess
import sys

SCHEMA = 2  # of report.json; README.md describes it
# images/s on one 310P3 by batch size, as the guide's table has them.
GUIDE_CHIP, GUIDE = "Ascend310P3", {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
PACKAGES = ("numpy", "Pillow", "torch", "torchvision", "onnx", "onnxruntime", "ais_bench")
PICTURE = 320  # longer side of a picture in the page, in pixels
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title><style>
body { font: 16px/1.5 system-ui, sans-serif; color: #111; max-width: 1200px; margin: 0 auto; padding: 1em }
body { overflow-wrap: anywhere } th { overflow-wrap: normal } h1 { font-size: 1.5em } .short { white-space: nowrap }
table { border-collapse: collapse; margin: 1em 0 } th, td { border: 1px solid #999; padding: .3em .6em; text-align: left }
th { background: #eee } img { max-width: 100%%; height: auto } pre { white-space: pre-wrap; background: #f4f4f4; padding: .6em }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1em }
.mistakes figure { margin: 0; border: 1px solid #999; padding: .6em } ol { padding-left: 1.5em; margin: .3em 0 }
@media (max-width: 800px) { table, tbody, tr, td { display: block } tr:first-child { display: none } tr { margin-bottom: 1em }
td { border-bottom: 0 } td:last-child { border-bottom: 1px solid #999 }
td::before { content: attr(data-label) ": "; font-weight: bold } }
</style></head><body>
%(body)s
</body></html>
"""


def fail(message):
    sys.exit("error: " + " ".join(str(message).splitlines()))


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        fail("%s: %s" % (path, error.strerror))
    except ValueError as error:
        fail("%s: is not JSON (%s); run the stage that writes it again" % (path, error))


def version_in(paths):
    """The first "version=..." in the first of these files that has one; CANN's packages and the driver spell it variously."""
    pattern = re.compile(r"^\s*(?:package_|\w+_running_)?version\s*=\s*\[?(?:[\d.]+:)?([^\s\]]+)", re.IGNORECASE | re.MULTILINE)
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = pattern.search(file.read())
        except OSError:
            continue
        if found:
            return found.group(1)
    return "unknown"


def package_version(name):
    """What pip knows of an installed package, else None."""
    try:
        try:
            from importlib.metadata import version
        except ImportError:  # Python 3.7
            from pkg_resources import get_distribution
            return get_distribution(name).version
        return version(name)
    except Exception:  # not installed by pip: each of the two has its own error for that
        return None


def ascend_versions():
    """What is installed here: {"ais_bench", "cann", "driver"}, each "unknown" where nothing tells."""
    homes = [os.environ[key] for key in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if os.environ.get(key)]
    homes += ["/usr/local/Ascend/ascend-toolkit/latest", os.path.expanduser("~/Ascend/ascend-toolkit/latest"),
              "/usr/local/Ascend/cann"]
    names = ("ascend_toolkit_install.info", "*-linux/ascend_toolkit_install.info", "version.cfg", "version.info",
             "compiler/version.info", "runtime/version.info")
    cann = version_in(path for home in homes for name in names
                      for path in sorted(glob.glob(os.path.join(glob.escape(home), name))))
    try:
        banner = re.search(r"npu-smi.*Version:\s*([^\s|]+)", subprocess.run(["npu-smi", "info"], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace"))
    except OSError:
        banner = None
    driver = banner.group(1) if banner else version_in(["/usr/local/Ascend/driver/version.info"])
    return {"ais_bench": package_version("ais_bench") or "of unknown version", "cann": cann, "driver": driver}


def cpu_name():
    """The CPU's name as the kernel gives it; aarch64 kernels give none, then the architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^(?:model name|hardware)\s*:\s*(.+)$", file.read(), re.IGNORECASE | re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def record_run(args):
    """Write DIR/run.json: the facts of this run that its results do not hold."""
    run = {"engine": args.engine, "dataset": args.dataset, "images": os.path.abspath(args.dataset),
           "classes": os.path.abspath(args.classes) if args.classes else None,
           "batch_sizes": [int(size) for size in args.batch_sizes.split()],
           "failed": dict(item.split("=", 1) for item in args.failed), "commands": args.commands,
           "machine": "%s, %s, %d CPUs" % (cpu_name(), platform.machine(), os.cpu_count() or 1),
           "python": platform.python_version(),
           "packages": {name: package_version(name) for name in PACKAGES if package_version(name)}}
    onnx = os.path.join(args.folder, "resnet34.onnx")
    run["sha256"] = {os.path.basename(path): sha256(path) for path in (onnx, args.pth) if path and os.path.isfile(path)}
    if args.engine == "ais_bench":
        run.update(ascend_versions(), chip=args.chip, devices=[int(number) for number in args.device.split(",")])
    write_whole(os.path.join(args.folder, "run.json"), json.dumps(run, indent=2) + "\n")


def read_run(folder):
    """The facts that run_infer.sh recorded; for results made by hand, what their file names tell."""
    if os.path.exists(os.path.join(folder, "run.json")):
        return read_json(os.path.join(folder, "run.json"))
    found = (re.match(r"result_bs(\d+)\.json$", os.path.basename(path))
             for path in glob.glob(os.path.join(glob.escape(folder), "result_bs*.json")))
    sizes = sorted(int(match.group(1)) for match in found if match)
    if not sizes:
        fail("%s: holds no run.json and no result_bs*.json; run_infer.sh or imagenet_acc_eval.py writes them" % folder)
    return {"dataset": "imagenet", "batch_sizes": sizes, "failed": {}}


def read_accuracy(folder, size):
    """The accuracy of one batch size, in percent, and what imagenet_acc_eval.py tells besides."""
    path = os.path.join(folder, "result_bs%d.json" % size)
    result = read_json(path)
    try:
        values = {item["key"]: item["value"] for item in result["value"]}
        return {"engine": result["engine"], "judged": result["images"]["judged"], "labelled": result["images"]["labelled"],
                "classes": 1000 if values["Number of classes"] == "1001" else int(values["Number of classes"]),
                "top1": float(values["Top1 accuracy"].rstrip("%")),
                "top5": float(values["Top5 accuracy"].rstrip("%")), "top1_interval95": result["interval95"]["top1"],
                "top5_interval95": result["interval95"]["top5"], "fidelity": result.get("fidelity"),
                "worst_classes": result["worst_classes"], "mistakes": result["mistakes"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail("%s: is not as imagenet_acc_eval.py writes it (%r); judge the results again" % (path, error))


def read_performance(folder, size):
    """Throughput of one batch size in images/s, of several devices their sum, and latency in ms, then of the slowest."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "perf_bs%d" % size, "device*_summary.json")))
    paths = paths or [os.path.join(folder, "perf_bs%d_summary.json" % size)]
    summaries = [read_json(path) for path in paths]
    try:
        device = {"%s, %d threads" % (summary["cpu"], summary["threads"]) for summary in summaries if "cpu" in summary}
        slowest = max((summary["NPU_compute_time"] for summary in summaries), key=lambda times: times["mean"])
        # ais_bench 0.0.2 writes percentile(99%), newer ones P99.
        p99 = slowest["percentile(99%)"] if "percentile(99%)" in slowest else slowest["P99"]
        return {"engine": summaries[0].get("engine", "ais_bench"), "device": " ".join(sorted(device)) or "NPU",
                "images_per_second": float(sum(summary["throughput"] for summary in summaries)), "summaries": len(paths),
                "latency_ms": {"mean": float(slowest["mean"]), "median": float(slowest["median"]), "p99": float(p99)}}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail("%s: is not as the inference writes it (%r)" % (paths[0], error))


def read_row(folder, size, run):
    """One row of the table; of a batch size that failed only what is whole."""
    row = {"batch_size": size, "engine": run.get("engine"), "device": None, "dataset": run["dataset"], "judged": None,
           "labelled": None, "top1": None, "top5": None, "images_per_second": None, "latency_ms": None,
           "guide_images_per_second": None, "fidelity": None}
    problem = run["failed"].get(str(size))
    if problem:
        row["failed"] = problem
    if not problem or os.path.exists(os.path.join(folder, "result_bs%d.json" % size)):
        row.update(read_accuracy(folder, size))
    if not problem:
        performance = read_performance(folder, size)
        if performance["engine"] != row["engine"]:
            fail("%s: the accuracy at batch size %d is from %s, the performance from %s; measure both with one engine"
                 % (folder, size, row["engine"], performance["engine"]))
        if len(run.get("devices", [0])) != performance.pop("summaries"):
            fail("%s: batch size %d has no performance of each of the devices %s" % (folder, size, run["devices"]))
        row.update(performance)
    if run.get("engine") == "ais_bench":
        row["engine"] = "ais_bench " + run["ais_bench"]
        row["device"] = "%s (CANN %s, driver %s)" % (run["chip"], run["cann"], run["driver"])
        if len(run["devices"]) > 1:
            row["device"] = "%d x %s" % (len(run["devices"]), row["device"])
        elif run["chip"] == GUIDE_CHIP:
            row["guide_images_per_second"] = GUIDE.get(size)
    return row


def read_rows(folder, run):
    try:
        return [read_row(folder, size, run) for size in run["batch_sizes"]]
    except (KeyError, TypeError, AttributeError) as error:
        fail("%s: is not as run_infer.sh writes it (%r)" % (os.path.join(folder, "run.json"), error))


def class_name(names, number):
    return "%d (%s)" % (number, names[number]) if 0 <= number < len(names) else "%d" % number


def class_names(path, classes):
    """Names of the classes: of a file with one a line, else of torchvision where it is installed, else none."""
    if path:
        try:
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                names = file.read().splitlines()
        except OSError as error:
            fail("%s: %s" % (path, error.strerror))
        if classes and len(names) != classes:
            fail("%s: has %d lines, the results have %d classes; it needs one name a line" % (path, len(names), classes))
        return names
    try:  # read, not imported: torchvision would import torch
        found = importlib.util.find_spec("torchvision")
        with open(os.path.join(os.path.dirname(found.origin), "models", "_meta.py"), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        names = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                     and node.targets[0].id == "_IMAGENET_CATEGORIES")
    except Exception:  # a torchvision without the list, or without the file, or none
        names = []
    return names if len(names) == classes else []


def number(value, form="%.2f"):
    return "-" if value is None else form % value


def result_table(rows):
    """The guide's table, with latency beside it and, where the chip is the guide's, its published figure."""
    header = ["Engine", "Device", "Batch size", "Data set", "Top-1", "Top-5", "images/s", "mean ms", "median ms", "P99 ms"]
    against_guide = any(row["guide_images_per_second"] for row in rows)
    header += ["guide's images/s", "ratio"] if against_guide else []
    table = [header]
    for row in rows:
        dataset, latency = row["dataset"], row["latency_ms"] or {}
        if row["top1"] is not None:
            dataset += ", %d of %d labelled images" % (row["judged"], row["labelled"])
        table.append([row["engine"], row["device"] or "-", "%d" % row["batch_size"], dataset, number(row["top1"], "%.2f%%"),
                      number(row["top5"], "%.2f%%"), number(row["images_per_second"])])
        table[-1] += [number(latency.get(key)) for key in ("mean", "median", "p99")]
        if against_guide:
            guide, measured = row["guide_images_per_second"], row["images_per_second"]
            table[-1] += [number(guide), number(measured / guide if guide and measured else None)]
    return table


def sections(run, rows, names, reference):
    """The rest of the report: [(title, table)]; a table is a list of rows of texts, the header first."""
    judged = [row for row in rows if row["top1"] is not None]
    parts = []
    if judged:
        table = [["Batch size", "Top-1", "Top-1 from", "Top-1 to", "Top-5", "Top-5 from", "Top-5 to"]]
        for row in judged:
            shares = [row["top1"]] + row["top1_interval95"] + [row["top5"]] + row["top5_interval95"]
            table.append(["%d" % row["batch_size"]] + ["%.2f%%" % share for share in shares])
        parts.append(("95 % intervals of the accuracy (Wilson)", table))
    compared = [(row["batch_size"], row["fidelity"]) for row in judged if row["fidelity"]]
    if compared:
        table = [["Batch size", "reference", "images", "Top-1 agreement", "equal Top-5 sets", "cosine, mean", "cosine, worst",
                  "largest difference", "relative", "limit", "verdict"]]
        for size, fidelity in compared:
            table.append(["%d" % size, fidelity["engine"], "%d" % fidelity["compared"]] + [
                form % fidelity[key] for form, key in (
                    ("%.2f%%", "top1_agreement"), ("%.2f%%", "top5_set_agreement"), ("%.6f", "cosine_mean"),
                    ("%.6f", "cosine_worst"), ("%.4g", "absolute_difference"), ("%.4g", "relative_difference"),
                    ("%g", "relative_limit"))] + ["agrees" if fidelity["agrees"] else "DOES NOT AGREE"])
        parts.append(("Fidelity to another engine on the same inputs", table))
        table = [["Image", "relative difference", "cosine", "Top-1 here", "Top-1 of the reference"]]
        for image in compared[0][1]["most_different"]:
            table.append([image["image"], "%.4g" % image["relative_difference"], "%.6f" % image["cosine"],
                          class_name(names, image["top1"]), class_name(names, image["reference_top1"])])
        parts.append(("Images that differ most, at batch size %d" % compared[0][0], table))
    if reference:
        table = [["Batch size", "Top-1", "Top-1 there", "Top-5", "Top-5 there", "images/s", "images/s there", "ratio"]]
        there = {row["batch_size"]: row for row in reference}
        for row in rows:
            if row["batch_size"] in there:
                other = there[row["batch_size"]]
                speeds = row["images_per_second"], other["images_per_second"]
                table.append(["%d" % row["batch_size"]] + [number(one[key], "%.2f%%") for key in ("top1", "top5")
                                                           for one in (row, other)]
                             + [number(speed) for speed in speeds] + [number(speeds[0] / speeds[1] if all(speeds) else None)])
        parts.append(("Beside %s on %s" % (reference[0]["engine"], reference[0]["device"] or "-"), table))
    if judged:
        parts.append(("Ten worst classes, at batch size %d" % judged[0]["batch_size"], [["Class", "images", "Top-1", "Top-5"]] + [
            [class_name(names, one["class"]), "%d" % one["images"], "%.2f%%" % one["top1"], "%.2f%%" % one["top5"]]
            for one in judged[0]["worst_classes"]]))
    facts = [[key, run[key]] for key in ("chip", "driver", "cann", "ais_bench", "machine", "python") if key in run]
    facts += [[key, version] for key, version in run.get("packages", {}).items() if key != "ais_bench"]
    facts += [["SHA-256 of " + name, digest] for name, digest in run.get("sha256", {}).items()]
    facts += [["batch size %s failed" % size, reason] for size, reason in run["failed"].items()]
    parts.append(("Environment", [["What", "Value"]] + facts))
    return parts if facts else parts[:-1]


def markdown(table):
    lines = ["| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join(lines[:1] + ["|" + "---|" * len(table[0])] + lines[1:]) + "\n"


def markdown_report(title, table, parts, commands):
    text = "# %s\n\n%s" % (title, markdown(table))
    for heading, part in parts:
        text += "\n## %s\n\n%s" % (heading, markdown(part))
    if commands:
        fence = "```"
        while fence in "".join(commands):
            fence += "`"
        text += "\n## Commands\n\n%sbash\n%s\n%s\n" % (fence, "\n".join(commands), fence)
    return text


def chart(rows):
    """PNG bytes: throughput and latency over batch size, told apart by marker and line, not by colour."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        fail("report.md and report.json are written, but report.png and report.html need matplotlib (%s); pip install matplotlib"
             % error)
    whole = [row for row in rows if row["images_per_second"] is not None]
    places, sizes = range(len(whole)), ["%d" % row["batch_size"] for row in whole]
    figure = Figure(figsize=(6, 7), dpi=120)  # one above the other: readable on a phone as well
    FigureCanvasAgg(figure)
    throughput, latency = figure.subplots(2, 1)
    throughput.plot(places, [row["images_per_second"] for row in whole], "o-", color="0", label="measured")
    guide = [row["guide_images_per_second"] or float("nan") for row in whole]
    if any(row["guide_images_per_second"] for row in whole):
        throughput.plot(places, guide, "s--", color="0.5", label="the guide's")
    for key, style, shade in (("mean", "o-", "0"), ("median", "^--", "0.4"), ("p99", "s:", "0.6")):
        latency.plot(places, [row["latency_ms"][key] for row in whole], style, color=shade, label=key.replace("p99", "P99"))
    for axes, label in ((throughput, "throughput (images/s)"), (latency, "latency of a batch (ms)")):
        axes.set_xticks(list(places))
        axes.set_xticklabels(sizes)
        axes.set_xlabel("batch size (images)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(True, color="0.85")
        axes.legend()
    if whole:
        throughput.set_title("%s\n%s" % (whole[0]["engine"], whole[0]["device"]), fontsize=10)
    figure.tight_layout()
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def find_picture(folder, image):
    """Path of an image by its name without extension, in a flat folder or in class folders; None where it is not."""
    name = glob.escape(image) + ".*"
    for pattern in (name, os.path.join("*", name)):
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            return path
    return None


def picture(folder, image):
    """An <img> of the picture, made small, or a text where there is none to show."""
    from PIL import Image
    try:
        with open(find_picture(folder, image), "rb") as file:
            shown = Image.open(file).convert("RGB")
        shown.thumbnail((PICTURE, PICTURE))
        data = io.BytesIO()
        shown.save(data, "JPEG", quality=85)
    except Exception:  # no such file (None), or any of the dozen errors of Pillow's decoders
        return "<p>(picture not found in %s)</p>" % html.escape(folder)
    return '<img alt="%s" src="data:image/jpeg;base64,%s">' % (html.escape(image), base64.b64encode(data.getvalue()).decode())


def page(title, table, parts, commands, png, mistakes, images, names):
    """The page of report.html: everything of report.md, the chart and the mistakes, with nothing loaded from elsewhere."""
    def markup(rows):
        head = "".join("<th>%s</th>" % html.escape(cell) for cell in rows[0])
        body = "".join("<tr>%s</tr>\n" % "".join('<td data-label="%s"%s>%s</td>' % (
            html.escape(label), ' class="short"' if len(cell) < 15 else "", html.escape(cell))
            for label, cell in zip(rows[0], row)) for row in rows[1:])
        return "<table><tr>%s</tr>\n%s</table>\n" % (head, body)

    body = "<h1>%s</h1>\n%s" % (html.escape(title), markup(table))
    body += '<img alt="throughput and latency over batch size" src="data:image/png;base64,%s">\n' % base64.b64encode(png).decode()
    if mistakes:
        body += "<h2>Wrongly judged images of the largest confidence</h2>\n<div class=\"mistakes\">\n"
        for mistake in mistakes:
            guesses = "".join("<li>%s: %.2f%%</li>" % (html.escape(class_name(names, guess["class"])), 100 * guess["probability"])
                              for guess in mistake["guesses"])
            body += "<figure>%s<figcaption>%s<br>label: <b>%s</b><ol>%s</ol></figcaption></figure>\n" % (
                picture(images, mistake["image"]), html.escape(mistake["image"]),
                html.escape(class_name(names, mistake["label"])), guesses)
        body += "</div>\n"
    for heading, part in parts:
        body += "<h2>%s</h2>\n%s" % (html.escape(heading), markup(part))
    if commands:
        body += "<h2>Commands</h2>\n<pre>%s</pre>\n" % html.escape("\n".join(commands))
    return PAGE % {"title": html.escape(title), "body": body}


def write_whole(path, content):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
    os.replace(temporary, path)


def parse_args():
    parser = argparse.ArgumentParser(description="Put the results of a run together as a report.")
    parser.add_argument("folder", metavar="DIR", help="folder of the results, as run_infer.sh leaves it")
    parser.add_argument("--reference", metavar="DIR", help="results of another run, to put its figures beside these")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes, one a line (default: torchvision's)")
    parser.add_argument("--images", metavar="DIR", help="folder of the images, for the page (default: as recorded)")
    recorded = parser.add_argument_group("facts to record in DIR/run.json", "given by run_infer.sh; by hand they are not needed")
    recorded.add_argument("--engine", choices=["onnxruntime", "ais_bench"])
    recorded.add_argument("--chip", metavar="NAME", help="soc version of the NPU")
    recorded.add_argument("--device", metavar="LIST", help="numbers of the NPUs, for example 0,1")
    recorded.add_argument("--dataset", metavar="NAME", help="name of the data set")
    recorded.add_argument("--batch-sizes", metavar="LIST", help="the rows of the table, for example \"1 4 8\"")
    recorded.add_argument("--failed", metavar="SIZE=REASON", nargs="*", help="batch sizes that have no whole row")
    recorded.add_argument("--pth", metavar="FILE", help="the checkpoint, for its SHA-256; empty: not read")
    recorded.add_argument("--commands", metavar="LINE", nargs="*", help="the command lines that made the results")
    args = parser.parse_args()
    facts = (args.chip, args.device, args.dataset, args.batch_sizes, args.failed, args.pth, args.commands)
    if (args.engine is None) != (facts == (None,) * len(facts)) or (args.engine and None in facts):
        parser.error("the facts to record go together: --engine --chip --device --dataset --batch-sizes --failed --pth "
                     "--commands")
    if args.engine and not (re.match(r"\d+(,\d+)*$", args.device) and re.match(r"\s*\d+(\s+\d+)*\s*$", args.batch_sizes)
                            and all("=" in item for item in args.failed)):
        parser.error("--device is as 0,1, --batch-sizes as \"1 4 8\" and --failed as \"8=reason\"")
    return args


def write_report(args):
    """Write the four files; returns the table and the rows."""
    if args.engine:
        record_run(args)
    run = read_run(args.folder)
    rows = read_rows(args.folder, run)
    reference = read_rows(args.reference, read_run(args.reference)) if args.reference else None
    judged = [row for row in rows if row["top1"] is not None]
    names = class_names(args.classes or run.get("classes"), judged[0]["classes"] if judged else 0)
    title = "ResNet34 inference with " + rows[0]["engine"]
    table, parts = result_table(rows), sections(run, rows, names, reference)
    commands = run.get("commands", [])
    write_whole(os.path.join(args.folder, "report.md"), markdown_report(title, table, parts, commands))
    content = {"schema": SCHEMA, "run": run, "rows": rows, "reference": reference}
    write_whole(os.path.join(args.folder, "report.json"), json.dumps(content, indent=2) + "\n")
    png = chart(rows)
    write_whole(os.path.join(args.folder, "report.png"), png)
    images = args.images or run.get("images") or "no folder of images (--images DIR)"
    mistakes = judged[0]["mistakes"] if judged else []
    write_whole(os.path.join(args.folder, "report.html"), page(title, table, parts, commands, png, mistakes, images, names))
    return table, rows


def main():
    args = parse_args()
    try:
        table, rows = write_report(args)
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))
    sys.stdout.write(markdown(table).encode("utf-8", "backslashreplace").decode("utf-8"))
    print("report: %s and .json, .png, .html beside it" % os.path.join(args.folder, "report.md"))
    suspects = ["%d" % row["batch_size"] for row in rows if row["fidelity"] and not row["fidelity"]["agrees"]]
    if suspects:
        fail("%s: the results at batch size %s are not those of the reference; the report says by how much, so do not trust "
             "its accuracy before the cause is known" % (args.folder, ", ".join(suspects)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; run it again, the results it reads are as they were", file=sys.stderr)
        sys.exit(130)
