#!/usr/bin/env python3
"""Put the results of a run together as the guide's table (the guide's stage "performance and accuracy").

    python3 report.py ./output

Reads DIR/result_bs*.json, DIR/perf_bs*_summary.json (of several devices DIR/perf_bs*/device*_summary.json) and what
run_infer.sh recorded of the run in DIR/run.json; runs nothing, prints the table as Markdown and writes it to DIR/report.md
and, the same for machines, DIR/report.json. Exit code 0: written; 1: not written; 2: wrong usage.
"""
import argparse
import glob
import json
import os
import re
import subprocess
import sys

SCHEMA = 1  # of report.json


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


def ascend_versions():
    """What is installed here: {"ais_bench", "cann", "driver"}, each "unknown" where nothing tells."""
    try:
        try:
            from importlib.metadata import version
        except ImportError:  # Python 3.7
            from pkg_resources import get_distribution
            ais_bench = get_distribution("ais_bench").version
        else:
            ais_bench = version("ais_bench")
    except Exception:  # not installed by pip: each of the two has its own error for that
        ais_bench = "of unknown version"
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
    return {"ais_bench": ais_bench, "cann": cann, "driver": driver}


def record_run(args):
    """Write DIR/run.json: the facts of this run that its results do not hold."""
    run = {"engine": args.engine, "dataset": args.dataset, "batch_sizes": [int(size) for size in args.batch_sizes.split()],
           "failed": dict(item.split("=", 1) for item in args.failed)}
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
    path = os.path.join(folder, "result_bs%d.json" % size)
    result = read_json(path)
    try:
        values = {item["key"]: item["value"] for item in result["value"]}
        return {"engine": result["engine"], "judged": result["images"]["judged"], "labelled": result["images"]["labelled"],
                "top1": float(values["Top1 accuracy"].rstrip("%")), "top5": float(values["Top5 accuracy"].rstrip("%"))}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail("%s: is not as imagenet_acc_eval.py writes it (%r)" % (path, error))


def read_performance(folder, size):
    """Throughput of one batch size in images/s; of several devices their sum."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "perf_bs%d" % size, "device*_summary.json")))
    paths = paths or [os.path.join(folder, "perf_bs%d_summary.json" % size)]
    summaries = [read_json(path) for path in paths]
    try:
        device = {"%s, %d threads" % (summary["cpu"], summary["threads"]) for summary in summaries if "cpu" in summary}
        return {"engine": summaries[0].get("engine", "ais_bench"), "device": " ".join(device) or "NPU",
                "images_per_second": float(sum(summary["throughput"] for summary in summaries)), "summaries": len(paths)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail("%s: is not as the inference writes it (%r)" % (paths[0], error))


def read_row(folder, size, run):
    """One row of the table; of a batch size that failed only what is whole."""
    row = {"batch_size": size, "engine": run.get("engine"), "device": None, "dataset": run["dataset"], "judged": None,
           "labelled": None, "top1": None, "top5": None, "images_per_second": None}
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
    return row


def markdown(rows):
    lines = ["| Engine | Device | Batch size | Data set | Top-1 | Top-5 | images/s |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row["engine"], row["device"] or "-", "%d" % row["batch_size"], row["dataset"], "-", "-", "-"]
        if row["top1"] is not None:
            cells[3] += ", %d of %d labelled images" % (row["judged"], row["labelled"])
            cells[4:6] = "%.2f%%" % row["top1"], "%.2f%%" % row["top5"]
        if row["images_per_second"] is not None:
            cells[6] = "%.2f" % row["images_per_second"]
        lines.append("| " + " | ".join(" ".join(cell.split("\n")).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write_whole(path, text):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    os.replace(temporary, path)


def parse_args():
    parser = argparse.ArgumentParser(description="Put the results of a run together as the guide's table.")
    parser.add_argument("folder", metavar="DIR", help="folder of the results, as run_infer.sh leaves it")
    recorded = parser.add_argument_group("facts to record in DIR/run.json", "given by run_infer.sh; by hand they are not needed")
    recorded.add_argument("--engine", choices=["onnxruntime", "ais_bench"])
    recorded.add_argument("--chip", metavar="NAME", help="soc version of the NPU")
    recorded.add_argument("--device", metavar="LIST", help="numbers of the NPUs, for example 0,1")
    recorded.add_argument("--dataset", metavar="NAME", help="name of the data set")
    recorded.add_argument("--batch-sizes", metavar="LIST", help="the rows of the table, for example \"1 4 8\"")
    recorded.add_argument("--failed", metavar="SIZE=REASON", nargs="*", help="batch sizes that have no whole row")
    args = parser.parse_args()
    facts = (args.chip, args.device, args.dataset, args.batch_sizes, args.failed)
    if (args.engine is None) != (facts == (None,) * 5) or (args.engine and None in facts):
        parser.error("the facts to record go together: --engine --chip --device --dataset --batch-sizes --failed")
    if args.engine and not (re.match(r"\d+(,\d+)*$", args.device) and re.match(r"\s*\d+(\s+\d+)*\s*$", args.batch_sizes)
                            and all("=" in item for item in args.failed)):
        parser.error("--device is as 0,1, --batch-sizes as \"1 4 8\" and --failed as \"8=reason\"")
    return args


def main():
    args = parse_args()
    try:
        if args.engine:
            record_run(args)
        run = read_run(args.folder)
        try:
            rows = [read_row(args.folder, size, run) for size in run["batch_sizes"]]
        except (KeyError, TypeError, AttributeError) as error:
            fail("%s: is not as run_infer.sh writes it (%r)" % (os.path.join(args.folder, "run.json"), error))
        table = markdown(rows)
        write_whole(os.path.join(args.folder, "report.md"), table)
        report = {"schema": SCHEMA, "run": run, "rows": rows}
        write_whole(os.path.join(args.folder, "report.json"), json.dumps(report, indent=2) + "\n")
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))
    sys.stdout.write(table.encode("utf-8", "backslashreplace").decode("utf-8"))


if __name__ == "__main__":
    main()
