#!/usr/bin/env python3
"""Put the results of a run together as the guide's table (the guide's stage "performance and accuracy").

    python3 report.py ./output

Reads DIR/result_bs*.json and DIR/perf_bs*_summary.json, runs nothing, prints the table as Markdown and writes it to
DIR/report.md and, the same for machines, DIR/report.json. Exit code 0: written; 1: not written; 2: wrong usage.
"""
import argparse
import glob
import json
import os
import re
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


def read_row(folder, size, dataset):
    """One row of the table from the accuracy's and the pure inference's JSON of one batch size."""
    result_path = os.path.join(folder, "result_bs%d.json" % size)
    perf_path = os.path.join(folder, "perf_bs%d_summary.json" % size)
    result, perf = read_json(result_path), read_json(perf_path)
    try:
        values = {item["key"]: item["value"] for item in result["value"]}
        row = {"engine": result["engine"], "batch_size": size, "dataset": dataset,
               "judged": result["images"]["judged"], "labelled": result["images"]["labelled"],
               "top1": float(values["Top1 accuracy"].rstrip("%")), "top5": float(values["Top5 accuracy"].rstrip("%")),
               "images_per_second": float(perf["throughput"])}
        perf_engine = perf.get("engine", "ais_bench")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail("%s, %s: not as imagenet_acc_eval.py and the inference write them (%r)" % (result_path, perf_path, error))
    if perf_engine != row["engine"]:
        fail("%s is from %s but %s from %s; measure both with one engine" % (result_path, row["engine"], perf_path, perf_engine))
    row["device"] = "%s, %d threads" % (perf["cpu"], perf["threads"]) if "cpu" in perf else "NPU"
    return row


def markdown(rows):
    lines = ["| Engine | Device | Batch size | Data set | Top-1 | Top-5 | images/s |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        dataset = row["dataset"].replace("|", "\\|").replace("\n", " ")
        lines.append("| %s | %s | %d | %s, %d of %d labelled images | %.2f%% | %.2f%% | %.2f |" % (
            row["engine"], row["device"], row["batch_size"], dataset, row["judged"], row["labelled"], row["top1"], row["top5"],
            row["images_per_second"]))
    return "\n".join(lines) + "\n"


def write_whole(path, text):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    os.replace(temporary, path)


def parse_args():
    parser = argparse.ArgumentParser(description="Put the results of a run together as the guide's table.")
    parser.add_argument("folder", metavar="DIR", help="folder of the results, as run_infer.sh leaves it")
    parser.add_argument("--batch-sizes", metavar="LIST", help="only these, for example \"1 4 8\" (default: all that are there)")
    parser.add_argument("--dataset", metavar="NAME", default="imagenet", help="name of the data set (default: %(default)s)")
    args = parser.parse_args()
    if args.batch_sizes is not None and not re.match(r"\s*\d+(\s+\d+)*\s*$", args.batch_sizes):
        parser.error("--batch-sizes %r: give whole numbers, for example \"1 4 8\"" % args.batch_sizes)
    return args


def main():
    args = parse_args()
    if args.batch_sizes:
        sizes = [int(size) for size in args.batch_sizes.split()]
    else:
        found = (re.match(r"result_bs(\d+)\.json$", os.path.basename(path))
                 for path in glob.glob(os.path.join(glob.escape(args.folder), "result_bs*.json")))
        sizes = sorted(int(match.group(1)) for match in found if match)
    if not sizes:
        fail("%s: holds no result_bs*.json; run_infer.sh or imagenet_acc_eval.py writes them" % args.folder)
    rows = [read_row(args.folder, size, args.dataset) for size in sizes]
    table = markdown(rows)
    try:
        write_whole(os.path.join(args.folder, "report.md"), table)
        write_whole(os.path.join(args.folder, "report.json"), json.dumps({"schema": SCHEMA, "rows": rows}, indent=2) + "\n")
    except OSError as error:
        fail("%s: %s" % (error.filename, error.strerror))
    sys.stdout.write(table.encode("utf-8", "backslashreplace").decode("utf-8"))


if __name__ == "__main__":
    main()
