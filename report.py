#!/usr/bin/env python3
"""Put the results of a run together as a report (the guide's last stage: its table of accuracy and performance).

    python3 report.py ./output

Measures and probes nothing. In DIR it reads every *_summary.json (the inference), every JSON with the ModelZoo's title (the
evaluation), fidelity*.json (compare_scores.py) and commands.sh; prints the table and writes DIR/report.md, report.json,
report.png and report.html. Exit code 0: done; 1: failed; 2: wrong usage; 3: all is written, but a gate or a fidelity says no.
"""
import argparse
import base64
import fcntl
import glob
import hashlib
import io
import json
import os
import re
import signal
import stat
import sys
import warnings

SCHEMA = 3  # of report.json; README.md describes it
TITLE = "Overall statistical evaluation"  # the ModelZoo's, of every result.json
# images/s on one 310P3 in fp16 by batch size, as the guide's table has them.
GUIDE_CHIP, GUIDE = "Ascend310P3", {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
P90_FROM, P99_FROM = 10, 100  # runs; of fewer these are no more than the largest
NAMES = ("report.json", "report.md", "report.html", "report.png")
PICTURE, FORMATS = 320, ("JPEG", "PNG", "BMP", "WEBP")  # longer side in the page; never EPS, which goes to Ghostscript
LARGEST_JSON, LARGEST_PICTURE, MOST_PIXELS = 256 << 20, 64 << 20, 50 * 1000 * 1000
UNKNOWN = "not recorded"

# What a value may be: its Python types and its bounds. In a shape a "?" after a key says: missing or null, which is read as None.
KINDS = {"text": (str, None, None), "flag": (bool, None, None), "count": (int, 0, 10**15), "size": (int, 1, 10**15),
         "percent": ((int, float), 0, 100), "share": ((int, float), 0, 1), "amount": ((int, float), 0, 1e15),
         "positive": ((int, float), 1e-9, 1e15), "signed": ((int, float), -1e15, 1e15), "one": (int, 1, 1)}
MODEL = {"path?": "text", "bytes?": "size", "sha256?": "text", "onnx_sha256?": "text", "weights?": "text",
         "weights_sha256?": "text",
         "calibration?": {"tool?": "text", "method?": "text", "images?": "count", "seed?": "count", "shared?": "flag",
                          "source_sha256?": "text"}}
INPUT = {"path?": "text", "manifest_sha256?": "text"}
PERFORMANCE = {"runs": "size", "batch_size": "size", "mean_ms": "positive", "median_ms": "positive", "p90_ms?": "positive",
               "p99_ms?": "positive", "min_ms?": "positive", "max_ms?": "positive", "images_per_second": "positive",
               "interval95?": "pair"}
STAGE = {"engine?": "text", "device?": "text", "devices?": ["count"], "precision?": "text", "batch_size?": "size"}
SUMMARY = dict(STAGE, **{
    "schema": "one", "date": "text", "throughput": "positive", "model": MODEL, "input?": INPUT, "performance": PERFORMANCE,
    "h2d_ms?": "amount", "d2h_ms?": "amount", "packages": "texts", "machine?": "text", "vnni?": "flag",
    "wall?": {"seconds": "positive", "images_per_second": "positive", "reading?": "amount", "computing": "amount",
              "writing?": "amount", "resumed": "flag"},
    "npu?": {"devices?": [{"chip?": "text", "health?": "text", "soc_version?": "text"}], "driver?": "text", "firmware?": "text",
             "cann?": "text", "ais_bench?": "text", "aclruntime?": "text"}})
TIMES = {"mean": "positive", "median": "positive", "min?": "positive", "max?": "positive", "count": "size",
         "percentile(99%)?": "positive", "P99?": "positive"}
PLAIN = {"NPU_compute_time": TIMES, "H2D_latency?": {"mean": "amount"}, "D2H_latency?": {"mean": "amount"},
         "throughput": "positive", "engine?": "text"}
COUNTS = {"accuracy": "percent", "baseline": "percent", "lost": "signed", "right_to_wrong": "count", "wrong_to_right": "count",
          "mcnemar_p": "share", "difference_interval95": "pair"}
GUESS = {"class": "count", "name?": "text", "probability": "share"}
RESULT = dict(STAGE, **{
    "schema": "one", "accuracy": {"top1": "percent", "top5": "percent"}, "interval95": {"top1": "pair", "top5": "pair"},
    "images": {"judged": "size", "labelled": "size", "excluded?": "count"}, "classes": "size", "chance_top5?": "amount",
    "model?": MODEL, "input?": INPUT, "calibration_shared?": "flag", "shards?": "size",
    "per_class_worst": [{"class": "count", "name?": "text", "images": "size", "top1": "percent", "top5": "percent"}],
    "mistakes": [{"image": "text", "label": "count", "label_name?": "text", "guesses": [GUESS]}],
    "paired?": {"baseline": "text", "baseline_engine?": "text", "images": "size", "top1": COUNTS, "top5": COUNTS,
                "mlperf": {"ratio": "amount", "limit": "share", "passes": "flag"}},
    "gates?": [{"name": "text", "measured": "percent", "limit": "percent", "passes": "flag"}]})
FIDELITY = {"result": "text", "engine?": "text", "reference_engine?": "text", "precision?": "text", "compared": "size",
            "top1_agreement": "percent", "top5_set_agreement": "percent", "cosine_mean": "signed", "cosine_worst": "signed",
            "absolute_difference": "amount", "relative_difference": "amount", "relative_limit": "amount", "agrees": "flag",
            "most_different": [{"image": "text", "relative_difference": "amount", "cosine": "signed", "top1": "count",
                                "reference_top1": "count"}]}
LATENCY = {"mean": "positive", "median": "positive", "p90?": "positive", "p99?": "positive", "min?": "positive",
           "max?": "positive"}
ROW = {"batch_size?": "size", "precision?": "text", "engine?": "text", "device?": "text", "top1?": "percent", "top5?": "percent",
       "runs?": "size", "images_per_second?": "positive", "images_per_second_interval95?": "pair", "latency_ms?": LATENCY}
FLAWS = []  # sentences for the reader about what does not fit together; printed, and shown in the report


def stopped(signum, frame):
    """Ctrl-C, or the SIGTERM of a scheduler: the report is written whole at the end, so an earlier one stands."""
    signal.signal(signum, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; an earlier report stands as it was, run it again\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:
        pass
    sys.exit(128 + signum)


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % clean(message, 2000))
    sys.exit(code)


def clean(text, most=300):
    """One line that a terminal only shows: no line breaks, no control characters, no half surrogates, not endless."""
    text = " ".join(str(text).split())
    text = "".join(letter if letter.isprintable() else "\\x%02x" % ord(letter) for letter in text)
    return text if len(text) <= most else text[:most - 3] + "..."


def read_file(path, most):
    """The bytes of a regular file; a FIFO would hang, a huge file would fill the memory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            fail("%s: is no regular file; move it away" % path)
        if status.st_size > most:
            fail("%s: is larger than %d MB; move it away" % (path, most >> 20))
        return file.read()


def read_json(path):
    """The object in a JSON file, and the SHA-256 of its bytes."""
    def refuse(word):
        raise ValueError("%s is no number of JSON" % word)

    data = read_file(path, LARGEST_JSON)
    try:
        content = json.loads(data.decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        fail("%s: is not JSON (%s); run the stage that writes it again" % (path, error))
    if not isinstance(content, dict):
        fail("%s: holds no JSON object; run the stage that writes it again" % path)
    return content, hashlib.sha256(data).hexdigest()


def need(record, key, kind, path):
    """record[key], checked: kind is a word of KINDS, "pair" or "texts", [kind] for a list of such, or a shape {key: kind}.

    Of an object only the keys of the shape are returned. Whatever does not fit ends the script with a sentence.
    """
    name = key.rstrip("?")
    value = record.get(name)
    if value is None and key.endswith("?"):
        return None
    if isinstance(kind, dict) and isinstance(value, dict):
        return {part.rstrip("?"): need(value, part, kind[part], path) for part in kind}
    if isinstance(kind, list) and isinstance(value, list):
        return [need({name: item}, name, kind[0], path) for item in value]
    if kind == "pair" and isinstance(value, list) and len(value) == 2:
        pair = [need({name: item}, name, "signed", path) for item in value]
        if pair[0] <= pair[1]:
            return pair
    if kind == "texts" and isinstance(value, dict):
        return {part: need(value, part, "text", path) for part in value}
    if isinstance(kind, str) and kind in KINDS:
        types, least, most = KINDS[kind]
        fits = isinstance(value, types) and (types is bool or not isinstance(value, bool))
        if fits and (least is None or least <= value <= most):
            return value
    shown = "missing" if name not in record else clean(json.dumps(value), 60)
    fail("%s: its %r is %s, which it cannot be; run the stage that writes it again" % (path, name, shown))


def inside(value, pair, path, name):
    """A value must lie in its own interval (and a hair beside it, where both were rounded)."""
    if pair is not None and not pair[0] - 0.01 <= value <= pair[1] + 0.01:
        fail("%s: its %s %g is not within its own interval %g to %g; run the stage that writes it again"
             % (path, name, value, pair[0], pair[1]))


def of_name(path):
    """Precision and batch size as a file's name tells them: perf_int8_bs8_summary.json -> ("int8", 8)."""
    words = re.split(r"[_.]", os.path.basename(path))
    sizes = [int(word[2:]) for word in words if re.match(r"bs[1-9]\d{0,8}$", word)]
    return next((word for word in words if word in ("fp32", "fp16", "int8")), None), sizes[0] if sizes else None


def plain_summary(path, content):
    """A summary as ais_bench writes it, without our keys, in the form of ours; what it does not tell is None."""
    plain = need({"file": content}, "file", PLAIN, path)
    times, (precision, batch_size) = plain["NPU_compute_time"], of_name(path)
    words = content.get("args")
    words = " ".join(map(str, words)) if isinstance(words, list) else str(words)
    asked = re.search(r"--batch[_-]?size[= ]([1-9]\d{0,8})\b", words)
    told = plain["throughput"] * times["mean"] / 1000  # throughput = 1000 * batch size / mean, says ais_bench
    told = round(told) if 0.5 < told < 1e6 and abs(told - round(told)) < 0.01 else None
    batch_size = int(asked.group(1)) if asked else batch_size or told
    p99 = times["percentile(99%)"] or times["P99"]
    performance = {"runs": times["count"], "batch_size": batch_size, "mean_ms": times["mean"], "median_ms": times["median"],
                   "p90_ms": None, "p99_ms": p99 if times["count"] >= P99_FROM else None, "min_ms": times["min"],
                   "max_ms": times["max"], "images_per_second": plain["throughput"], "interval95": None}
    summary = dict.fromkeys(key.rstrip("?") for key in SUMMARY)
    summary.update(engine=plain["engine"], precision=precision, batch_size=batch_size, performance=performance, packages={},
                   h2d_ms=plain["H2D_latency"] and plain["H2D_latency"]["mean"] or None,
                   d2h_ms=plain["D2H_latency"] and plain["D2H_latency"]["mean"] or None)
    files = content.get("filesinfo")
    pure = "pure_infer" in json.dumps(files) if files else os.path.basename(path).startswith("perf")
    return summary, pure


def read_summary(path):
    """What an inference left: our keys, whether it was pure inference, and where it stands."""
    content, sha256 = read_json(path)
    if {"schema", "performance", "model", "input"} & set(content):
        summary = need({"file": content}, "file", SUMMARY, path)
        if "input" not in content:
            need(content, "input", INPUT, path)
        pure, performance = summary["input"] is None, summary["performance"]
        if abs(summary["throughput"] / performance["images_per_second"] - 1) > 0.01:
            fail("%s: its throughput %g and its performance, %g images/s, contradict each other; measure again"
                 % (path, summary["throughput"], performance["images_per_second"]))
        if performance["p99_ms"] is not None and performance["runs"] < P99_FROM:
            performance["p99_ms"] = None
    else:
        summary, pure = plain_summary(path, content)
    performance = summary["performance"]
    inside(performance["images_per_second"], performance["interval95"], path, "throughput")
    if performance["min_ms"] and performance["max_ms"]:
        inside(performance["mean_ms"], [performance["min_ms"], performance["max_ms"]], path, "mean time")
    return dict(summary, path=path, stem=re.sub(r"_summary\.json$", "", path), sha256=sha256, pure=pure)


def read_result(path, content):
    """What imagenet_acc_eval.py left."""
    result = need({"file": content}, "file", RESULT, path)
    for top in ("top1", "top5"):
        inside(result["accuracy"][top], result["interval95"][top], path, top)
    for one in (result["paired"]["top1"], result["paired"]["top5"]) if result["paired"] else ():
        if abs(one["baseline"] - one["accuracy"] - one["lost"]) > 0.01:
            fail("%s: the points lost are not what its two accuracies differ by; judge the results again" % path)
    if result["images"]["judged"] > result["images"]["labelled"]:
        fail("%s: more images judged than labelled; judge the results again" % path)
    if result["engine"] == UNKNOWN:
        result["engine"] = None
    result["summary_sha256"] = content.get("summary_sha256")
    return dict(result, path=path, stem=re.sub(r"\.json$", "", path), model=result["model"] or dict.fromkeys(
        key.rstrip("?") for key in MODEL), input=result["input"] or {"path": None, "manifest_sha256": None})


def read_results(folder):
    """The evaluations in a folder; a JSON of another's making is let be, a broken one that may be ours is not."""
    results = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.json"))):
        name = os.path.basename(path)
        if re.search(r"_summary\.json$|\.om\.json$|^fidelity|^report\.json$", name):
            continue
        ours = name.startswith("result")
        if ours or os.path.isfile(path) and TITLE.encode() in read_file(path, LARGEST_JSON):
            content, _ = read_json(path)
            if content.get("title") != TITLE:
                fail("%s: has not the title %r of an evaluation; judge the results again" % (path, TITLE))
            results.append(read_result(path, content))
    return results


def read_fidelities(folder):
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "fidelity*.json"))):
        fidelity = need({"file": read_json(path)[0]}, "file", FIDELITY, path)
        if fidelity["agrees"] != (fidelity["relative_difference"] <= fidelity["relative_limit"]):
            fail("%s: its verdict contradicts its own figures; compare again" % path)
        found.append(dict(fidelity, path=path))
    return found


def join_summary(result, summaries):
    """The summary of the results that were judged, and with it what the evaluation did not write down itself."""
    beside = [summary for summary in summaries if summary["stem"] == result["stem"] and not summary["pure"]]
    known = result["summary_sha256"] if isinstance(result["summary_sha256"], str) else None
    same = [summary for summary in summaries if summary["sha256"] == known]
    if beside and known and not same:
        fail("%s: was judged of other results than %s tells of; judge the results again" % (result["path"], beside[0]["path"]))
    summary = (same or beside or [None])[0]
    precision, batch_size = of_name(result["path"])
    for key, told in (("engine", None), ("device", None), ("precision", precision), ("batch_size", batch_size)):
        result[key] = result[key] or (summary and summary[key]) or told
    result["summary"] = summary
    return result


def same(left, right, size):
    """The accuracy and the performance of one row must be of one engine, one precision and one model, where they are known."""
    for what, one, other in (("engine", left["engine"], right["engine"]), ("precision", left["precision"], right["precision"]),
                             ("model", left["model"]["sha256"], (right["model"] or {}).get("sha256"))):
        if one and other and one != other and UNKNOWN not in one:
            fail("%s: the accuracy at batch size %s is of the %s %s, but the performance in %s is of %s; make both with one"
                 % (left["path"], size, what, one, right["path"], other))


def is_int8(row):
    return row["precision"] == "int8"


def join(results, others, loose=False):
    """{key of the row: other}: what is not recorded fits any; loosely fp32 fits fp16, which an NPU makes of it."""
    joined = {}
    for key, other in others.items():
        fits = [row for row in results if row[1] == key[1] and row not in joined and (
            None in (row[0], key[0]) or loose and (row[0] == "int8") == (key[0] == "int8"))]
        joined[fits[0] if key not in results and len(fits) == 1 else key] = other
    return joined


def by_key(records):
    """{(precision, batch size): record}; two of one key cannot be told apart, so they are refused."""
    found = {}
    for record in records:
        key = record["precision"], record["batch_size"]
        if key in found:
            fail("%s: is of the same precision and batch size as %s; move one of them away"
                 % (record["path"], found[key]["path"]))
        found[key] = record
    return found


def row_of(key, result, performance, fidelity, dataset, failed):
    """One row of the report, in raw numbers. See README.md for the keys."""
    row = {"batch_size": key[1], "precision": key[0], "engine": None, "device": None, "dataset": dataset, "judged": None,
           "labelled": None, "excluded": None, "classes": None, "chance_top5": None, "top1": None, "top5": None,
           "top1_interval95": None, "top5_interval95": None, "images_per_second": None, "images_per_second_interval95": None,
           "latency_ms": None, "h2d_ms": None, "d2h_ms": None, "runs": None, "wall": None, "guide_images_per_second": None,
           "model": None, "calibration_shared": None, "fidelity": fidelity, "paired": None, "worst_classes": [], "mistakes": [],
           "failed": failed}
    if result:
        row.update({what: result["images"][what] for what in ("judged", "labelled", "excluded")})
        row.update({what: result[what] for what in ("engine", "device", "classes", "chance_top5", "paired", "model", "mistakes",
                                                    "calibration_shared")})
        row.update(result["accuracy"], worst_classes=result["per_class_worst"], top1_interval95=result["interval95"]["top1"],
                   top5_interval95=result["interval95"]["top5"], dataset=dataset or result["input"]["path"])
        row["wall"] = result["summary"] and result["summary"]["wall"]
    if performance and not failed:  # of a batch size that failed the performance may be an earlier run's
        times = performance["performance"]
        row.update({what: performance[what] or row[what] for what in ("engine", "device", "model", "h2d_ms", "d2h_ms")})
        row.update(runs=times["runs"], images_per_second=times["images_per_second"],
                   images_per_second_interval95=times["interval95"], latency_ms={
                       what: times[what + "_ms"] for what in ("mean", "median", "p90", "p99", "min", "max")})
        if row["device"] == GUIDE_CHIP and len(performance["devices"] or [0]) == 1 and row["precision"] == "fp16":
            row["guide_images_per_second"] = GUIDE.get(row["batch_size"])
    return row


def fidelity_of(result, fidelities):
    """The comparison of the results that were judged, by the name of their folder; it must be of the same engine."""
    for one in fidelities:
        if os.path.basename(os.path.normpath(one["result"])) == os.path.basename(result["stem"]):
            if one["engine"] and result["engine"] and one["engine"] != result["engine"]:
                fail("%s: compares results of %s, but %s judged those of %s; compare again"
                     % (one["path"], one["engine"], result["path"], result["engine"]))
            return one
    return None


def gather(folder, dataset=None, failed=None):
    """Everything that a folder holds: its rows, and what its environment section needs."""
    if not os.path.isdir(folder):
        fail("%s: is no folder; give the one with the results" % folder)
    summaries = [read_summary(path) for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*_summary.json")))]
    results = by_key(join_summary(result, summaries) for result in read_results(folder))
    for summary in summaries:
        if summary["pure"]:
            summary["batch_size"] = summary["performance"]["batch_size"]
    timed = join(results, by_key(summary for summary in summaries if summary["pure"]))
    failed = join(set(results) | set(timed), failed or {}, loose=True)
    fidelities, rows = read_fidelities(folder), []
    for key in sorted(set(results) | set(timed) | set(failed), key=lambda key: (key[0] == "int8", key[0] or "", key[1] or 0)):
        result, performance, fidelity = results.get(key), timed.get(key), None
        if result and performance:
            same(result, performance, key[1])
        if result:
            fidelity = fidelity_of(result, fidelities)
        precision = key[0] or (performance or result or {"precision": None})["precision"]
        rows.append(row_of((precision, key[1]), result, performance, fidelity, dataset, failed.get(key)))
    placed = [id(row["fidelity"]) for row in rows]
    return {"rows": rows, "summaries": summaries, "results": list(results.values()),
            "date": max([summary["date"] for summary in summaries if summary["date"]], default=None),
            "stray_fidelities": [one for one in fidelities if id(one) not in placed]}


def environment(found):
    """The machine, the packages, the models and the preprocessing, as the stages wrote them down."""
    summaries, facts, packages = found["summaries"], {}, {}
    for key in ("machine", "vnni"):
        told = sorted({str(summary[key]) for summary in summaries if summary[key] is not None})
        if told:
            facts[key] = " and ".join(told)
    for summary in summaries:
        for name, text in (summary["npu"] or {}).items():
            if isinstance(text, str):
                facts[name] = text
        for device in (summary["npu"] or {}).get("devices") or []:
            facts["chip"] = "%s, health %s" % (device["soc_version"] or device["chip"] or UNKNOWN, device["health"] or UNKNOWN)
        for name, version in summary["packages"].items():
            packages.setdefault(name, {}).setdefault(version, []).append(os.path.basename(summary["path"]))
    for name, versions in packages.items():
        facts[name] = " / ".join("%s (%s)" % (version, ", ".join(files)) for version, files in versions.items()) \
            if len(versions) > 1 else next(iter(versions))
        if len(versions) > 1:
            FLAWS.append("the stages did not run with one %s: %s; make them again with one" % (name, facts[name]))
    if not packages:
        facts["packages"] = UNKNOWN
    models = {}
    for record in summaries + found["results"]:
        model = record["model"] or {}
        if model.get("path") and model.get("sha256"):
            models[os.path.basename(model["path"])] = {what: model[what] for what in (
                "sha256", "bytes", "weights", "weights_sha256")}
    return {"facts": facts, "models": models, "differing": sorted(name for name in packages if len(packages[name]) > 1)}


def int8_pairs(rows):
    """[(INT8 row, float row of the same batch size or None)]"""
    floats = {row["batch_size"]: row for row in rows if not is_int8(row)}
    return [(row, floats.get(row["batch_size"])) for row in rows if is_int8(row)]


def check_int8(rows):
    for row, other in int8_pairs(rows):
        source = ((row["model"] or {}).get("calibration") or {}).get("source_sha256")
        model = (other or {}).get("model") or {}
        if source and model.get("sha256") and source not in (model["sha256"], model.get("onnx_sha256")):
            FLAWS.append("at batch size %s the INT8 model was not made from the float model beside it; quantise again"
                         % row["batch_size"])


def read_reference(path):
    """The rows of another run: of a folder's files, or of a lone report.json."""
    if os.path.isdir(path):
        found = gather(path)
        if found["rows"]:
            return {"path": path, "date": found["date"], "rows": found["rows"]}
        path = os.path.join(path, "report.json")
        if not os.path.exists(path):
            fail("%s: holds neither results nor a report.json; give the folder or the report.json of another run"
                 % os.path.dirname(path))
    content, _ = read_json(path)
    if content.get("schema") != SCHEMA:
        fail("%s: is no report.json of schema %d; make it again with this report.py" % (path, SCHEMA))
    read = need({"file": content}, "file", {"date?": "text", "rows": [ROW]}, path)
    for row in read["rows"]:
        if row["images_per_second"]:
            inside(row["images_per_second"], row["images_per_second_interval95"], path, "throughput")
    return dict(read, path=path)


def beside(rows, reference):
    """[(row, its counterpart)]: the same batch size, INT8 with INT8 and float with float, of whichever engine."""
    there = {(is_int8(row), row["batch_size"]): row for row in (reference or {"rows": []})["rows"]}
    found = [(row, there.get((is_int8(row), row["batch_size"]))) for row in rows]
    return [(row, other) for row, other in found if other]


def spread(row):
    """Between which throughputs a row's true one lies, and how that is known."""
    pair, times, measured = row["images_per_second_interval95"], row["latency_ms"] or {}, row["images_per_second"]
    if pair:
        return pair + ["95 % interval"]
    if row["runs"] and row["runs"] > 1 and times.get("min") and times.get("max"):  # too few runs for more than the two ends
        ends = [measured * times["mean"] / times[end] for end in ("max", "min")]
        return ends + ["range of %d runs" % row["runs"]]
    return [measured, measured, "no spread recorded"]


def speed_gates(rows, reference, slowdown):
    """A row fails only if even the upper end here is below the lower end there less the slowdown that is allowed."""
    gates = []
    for row, other in beside(rows, reference):
        name = "images/s of %s at batch size %s" % (row["precision"] or "the model", row["batch_size"])
        if not other["images_per_second"]:
            continue
        low, _, _ = spread(other)
        limit = (1 - slowdown / 100) * low
        gate = {"name": name, "measured": row["images_per_second"], "reference": other["images_per_second"], "limit": limit}
        if not row["images_per_second"]:
            gate.update(passes=False, interval95=None, text="%s: there is none to compare with %.2f" % (
                name, other["images_per_second"]))
        else:
            least, most, how = spread(row)
            text = "%s: %.2f (%.2f to %.2f, %s) %s %.2f, the reference's %.2f (from %.2f on) less %g %%" % (
                name, row["images_per_second"], least, most, how, "reaches" if most >= limit else "stays below", limit,
                other["images_per_second"], low, slowdown)
            gate.update(passes=most >= limit, interval95=[least, most], text=text)
        gates.append(gate)
    if not gates:
        fail("%s: has no throughput at any of these batch sizes; give a run of the same ones" % reference["path"])
    return gates


def verdicts(found, rows, reference, slowdown):
    """Every gate that there is, those of the evaluation too, and the fidelities: [{name, passes, text, ...}]"""
    gates = []
    for result in found["results"]:
        for gate in result["gates"] or []:
            if gate["passes"] != (gate["measured"] >= gate["limit"]):
                fail("%s: its gate %s contradicts its own figures; judge the results again" % (result["path"], gate["name"]))
            gates.append(dict(gate, text="%s %.6g%% is %s %g%% (%s, batch size %s)" % (
                gate["name"], gate["measured"], "at least" if gate["passes"] else "below", gate["limit"],
                result["precision"] or "precision " + UNKNOWN, result["batch_size"] or UNKNOWN)))
    if slowdown is not None:
        gates += speed_gates(rows, reference, slowdown)
    for one in [row["fidelity"] for row in rows if row["fidelity"]] + found["stray_fidelities"]:
        text = "agrees with its reference: relative difference %.3g, limit %g" if one["agrees"] else (
            "does NOT agree with its reference: relative difference %.3g, limit %g; do not trust it before the cause is known")
        gates.append({"name": "fidelity", "measured": one["relative_difference"], "limit": one["relative_limit"],
                      "passes": one["agrees"], "text": one["result"] + " " + text % (
                          one["relative_difference"], one["relative_limit"])})
    return gates


# ---- one function a table: {"title", "header", "rows"}, all texts; None where there is nothing to show ----

def figure(value, form="%.2f"):
    return "-" if value is None else form % value


def span(pair, form="%.2f"):
    return "-" if pair is None else form % pair[0] + " to " + form % pair[1]


def label_of(row):
    return [row["precision"] or UNKNOWN, figure(row["batch_size"], "%d")]


def make_table(title, header, rows):
    return {"title": clean(title), "header": header, "rows": [[clean(cell) for cell in row] for row in rows]} if rows else None


def common(rows, found):
    """What is the same in all rows and stands above the table, and what is not: ([text], [(heading, a function of a row)])."""
    def images(row):
        left_out = ", %d left out" % row["excluded"] if row["excluded"] else ""
        return row["judged"] and "%d of %d labelled%s" % (row["judged"], row["labelled"], left_out)

    above, own = [], []
    runs = sorted({row["runs"] for row in rows if row["runs"]})
    for heading, value in (("Engine", lambda row: row["engine"]), ("Device", lambda row: row["device"]),
                           ("Data set", lambda row: row["dataset"]), ("Images", images)):
        values = {value(row) for row in rows if not row["failed"]} - {None}
        if len(values) > 1:
            own.append((heading, value))
        else:
            above.append("%s: %s" % (heading, clean(next(iter(values), None) or UNKNOWN)))
    shown = " to ".join("%d" % number for number in sorted({runs[0], runs[-1]})) if runs else UNKNOWN
    return above + ["Runs: " + shown, "Date: %s" % clean(found["date"] or UNKNOWN)], own


def result_table(rows, own):
    """The guide's table, with latency beside it and, where the chip is the guide's, its published figure."""
    guided, chances = any(row["guide_images_per_second"] for row in rows), any((row["chance_top5"] or 0) > 10 for row in rows)
    header = [heading for heading, _ in own] + ["Precision", "Batch size", "Top-1", "Top-5"] + ["Top-5 by chance"] * chances
    header += ["images/s", "mean ms", "median ms", "P90 ms", "P99 ms"] + ["guide's images/s", "ratio"] * guided
    cells = []
    for row in rows:
        times, guide, measured = row["latency_ms"] or {}, row["guide_images_per_second"], row["images_per_second"]
        cells.append([value(row) or "-" for _, value in own] + label_of(row)
                     + [figure(row[top], "%.2f%%") for top in ("top1", "top5")]
                     + [figure(row["chance_top5"], "%.2f%%")] * chances + [figure(measured)]
                     + [figure(times.get(key)) for key in ("mean", "median", "p90", "p99")]
                     + [figure(guide), figure(measured / guide if guide and measured else None)] * guided)
    return make_table("Accuracy and performance", header, cells)


def interval_table(rows):
    return make_table("95 % intervals", ["Precision", "Batch size", "Top-1 %", "Top-5 %", "images/s", "runs"], [
        label_of(row) + [span(row["top1_interval95"]), span(row["top5_interval95"]), span(row["images_per_second_interval95"]),
                         figure(row["runs"], "%d")] for row in rows if row["top1"] is not None or row["runs"]])


def wall_table(rows):
    """From files to results beside the pure figure; the seconds are those the computation waited for the disk, and computed."""
    header = ["Precision", "Batch size", "pure images/s", "end to end images/s", "seconds", "reading", "computing", "writing"]
    header += ["resumed"]
    header += ["H2D ms", "D2H ms"] if any(row["h2d_ms"] is not None for row in rows) else []
    cells = []
    for row in rows:
        wall = row["wall"] or {}
        cells.append(label_of(row) + [figure(row["images_per_second"])] + [figure(wall.get(key)) for key in (
            "images_per_second", "seconds", "reading", "computing", "writing")] + [
                ("yes: times of a resumed run" if wall["resumed"] else "no") if wall else "-"]
            + [figure(row[key], "%.3f") for key in ("h2d_ms", "d2h_ms")][:len(header) - 9])
    told = len(header) > 9 or any(row["wall"] for row in rows)
    return make_table("End to end: from files to results", header, cells if told else [])


def price_table(rows):
    """What INT8 costs, image by image against the float results."""
    cells = []
    for row, _ in int8_pairs(rows):
        paired = row["paired"]
        for name, key in (("Top-1", "top1"), ("Top-5", "top5")) if paired else ():
            one = paired[key]
            verdict = "%s with %.2f%%" % ("passes" if paired["mlperf"]["passes"] else "FAILS", 100 * paired["mlperf"]["ratio"])
            cells.append([figure(row["batch_size"], "%d"), name, "%d" % paired["images"], "%.2f%%" % one["baseline"],
                          "%.2f%%" % one["accuracy"], "%.2f" % one["lost"], span(one["difference_interval95"]),
                          "%d" % one["right_to_wrong"], "%d" % one["wrong_to_right"], "%.3g" % one["mcnemar_p"],
                          verdict if key == "top1" else "-"])
        if not paired:
            cells.append([figure(row["batch_size"], "%d"), "not compared image by image"] + ["-"] * 9)
    return make_table("What INT8 costs", [
        "Batch size", "Accuracy", "images", "float", "INT8", "points lost", "95 % interval", "right to wrong", "wrong to right",
        "McNemar's p", "MLPerf (99 %)"], cells)


def gain_table(rows):
    """What INT8 gains, and what it was calibrated on."""
    cells = []
    for row, other in int8_pairs(rows):
        sizes = [one and (one["model"] or {}).get("bytes") for one in (other, row)]
        speeds = [one and one["images_per_second"] for one in (other, row)]
        calibration = (row["model"] or {}).get("calibration") or {}
        shared = calibration.get("shared") if row["calibration_shared"] is None else row["calibration_shared"]
        cells.append([figure(row["batch_size"], "%d")] + [figure(speed) for speed in speeds]
                     + [figure(speeds[1] / speeds[0] if all(speeds) else None)] + [figure(size and size / 1e6) for size in sizes]
                     + ["%s, %s images" % (" ".join(filter(None, (calibration.get("tool"), calibration.get("method")))),
                                           calibration.get("images")) if calibration else UNKNOWN, {
                                               True: "YES: the accuracy flatters", False: "no", None: UNKNOWN}[shared]])
    return make_table("What INT8 gains", ["Batch size", "float images/s", "INT8 images/s", "times as fast", "float MB", "INT8 MB",
                                          "calibrated by", "shares images with the accuracy"], cells)


def reference_table(rows, reference):
    cells = []
    for row, other in beside(rows, reference):
        speeds = row["images_per_second"], other["images_per_second"]
        cells.append(label_of(row) + [figure(one[key], "%.2f%%") for key in ("top1", "top5") for one in (row, other)]
                     + [figure(speed) for speed in speeds] + [figure(speeds[0] / speeds[1] if all(speeds) else None)])
    one = reference["rows"][0] if reference and reference["rows"] else {}
    return make_table("Beside %s (%s on %s, %s)" % (reference["path"], one.get("engine") or UNKNOWN, one.get("device") or UNKNOWN,
                                                   reference["date"] or UNKNOWN), [
        "Precision", "Batch size", "Top-1", "Top-1 there", "Top-5", "Top-5 there", "images/s", "images/s there", "ratio"],
        cells) if cells else None


def gate_table(gates):
    return make_table("Verdicts", ["Verdict", "What"], [["PASS" if gate["passes"] else "FAIL", gate["text"]] for gate in gates])


def fidelity_table(fidelities):
    return make_table("Fidelity to another engine on the same inputs", [
        "Results", "Reference", "images", "Top-1 agreement", "equal Top-5 sets", "cosine, mean", "cosine, worst",
        "largest difference", "relative", "limit", "verdict"], [
            [one["result"], one["reference_engine"] or UNKNOWN, "%d" % one["compared"]] + [form % one[key] for form, key in (
                ("%.2f%%", "top1_agreement"), ("%.2f%%", "top5_set_agreement"), ("%.6f", "cosine_mean"), ("%.6f", "cosine_worst"),
                ("%.4g", "absolute_difference"), ("%.4g", "relative_difference"), ("%g", "relative_limit"))]
            + ["agrees" if one["agrees"] else "DOES NOT AGREE"] for one in fidelities])


def different_table(fidelities, names):
    return make_table("Images that differ most", [
        "Image", "relative difference", "cosine", "Top-1 here", "Top-1 of the reference"], [
        [image["image"], "%.4g" % image["relative_difference"], "%.6f" % image["cosine"], class_name(names, image["top1"]),
         class_name(names, image["reference_top1"])] for image in (fidelities[0]["most_different"] if fidelities else [])])


def class_table(row, names):
    return make_table("Worst classes, at batch size %s" % label_of(row)[1], ["Class", "images", "Top-1", "Top-5"], [
        [class_name(names, one["class"], one["name"]), "%d" % one["images"], "%.2f%%" % one["top1"], "%.2f%%" % one["top5"]]
        for one in row["worst_classes"]]) if row else None


def environment_table(facts, rows):
    cells = [[name, text] for name, text in facts["facts"].items()]
    for name, model in facts["models"].items():
        cells += [["%s: %s" % (name, what.replace("sha256", "SHA-256").replace("_", ", ")), str(text)]
                  for what, text in model.items() if text]
    cells += [["%s at batch size %s failed" % tuple(label_of(row)), row["failed"]] for row in rows if row["failed"]]
    return make_table("Environment", ["What", "Value"], cells + [["does not fit", flaw] for flaw in FLAWS])


def class_name(names, number, name=None):
    name = names.get(number, name)
    return "%d (%s)" % (number, clean(name, 80)) if name and name != str(number) else "%d" % number


def class_names(path, rows):
    """{class: name}: of --classes, else as the evaluation wrote them."""
    names = {}
    for row in rows:
        for mistake in row["mistakes"]:
            names[mistake["label"]] = mistake["label_name"]
            names.update((guess["class"], guess["name"]) for guess in mistake["guesses"])
        names.update((one["class"], one["name"]) for one in row["worst_classes"])
    if path:
        lines = read_file(path, LARGEST_PICTURE).decode("utf-8-sig", "replace").splitlines()
        wrong = [row["classes"] for row in rows if row["classes"] not in (None, len(lines))]
        if wrong:
            fail("%s: has %d lines, the results have %d classes; it needs one name a line" % (path, len(lines), wrong[0]))
        names.update(enumerate(lines))
    return names


# ---- the four files ----

def numeric(table, column):
    return all(re.match(r"[-+\d.%e]+$|not recorded$", row[column]) for row in table["rows"])


def aligned(table):
    """A table for the terminal: columns padded, numbers to the right."""
    lines = [table["header"]] + table["rows"]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table["header"]))]
    return "".join("  ".join(cell.rjust(width) if numeric(table, column) else cell.ljust(width) for column, (cell, width)
                             in enumerate(zip(line, widths))).rstrip() + "\n" for line in lines)


def escaped(text):
    """A text that Markdown shows as it is: no HTML, no link, no picture, no code, no new cell."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~!])", r"\\\1", text)
    return text.replace("://", ":\\//").replace("www.", "www\\.")


def markdown(table):
    lines = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in [table["header"]] + table["rows"]]
    rule = "".join("---:|" if numeric(table, column) else "---|" for column in range(len(table["header"])))
    return "\n".join(lines[:1] + ["|" + rule] + lines[1:]) + "\n"


def markdown_report(title, above, tables, commands):
    text = "# %s\n\n%s\n" % (escaped(title), "".join("- %s\n" % escaped(line) for line in above))
    for table in filter(None, tables.values()):
        text += "\n## %s\n\n%s" % (escaped(table["title"]), markdown(table))
    if commands:
        fence = "`" * max([3] + [len(run) + 1 for run in re.findall("`+", "".join(commands))])
        text += "\n## Commands\n\n%sbash\n%s\n%s\n" % (fence, "\n".join(commands), fence)
    return text


def chart(title, rows):
    """PNG bytes: throughput and latency over batch size, each with its spread; told apart by marker and line, not by colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    rows = [row for row in rows if row["images_per_second"] and row["batch_size"]]
    sizes = sorted({row["batch_size"] for row in rows})
    figure_ = Figure(figsize=(6, 8), dpi=120)  # one above the other: readable on a phone as well
    FigureCanvasAgg(figure_)
    throughput, latency = figure_.subplots(2, 1)
    precisions = sorted({row["precision"] or "" for row in rows}, key=lambda precision: (precision == "int8", precision))
    for order, precision in enumerate(precisions):
        some = [row for row in rows if (row["precision"] or "") == precision]
        at = [sizes.index(row["batch_size"]) + 0.08 * (order - (len(precisions) - 1) / 2) for row in some]
        marker, line = "os^"[order % 3], ("-", "--", "-.")[order % 3]
        name = clean(precision or "measured", 20).replace("$", r"\$")
        # Hollow and large beneath small and filled: both are seen where the curves coincide.
        hollow = dict(fmt=marker + line, markersize=9, color="0", markerfacecolor="none", capsize=8, linewidth=1)
        speeds, medians = [row["images_per_second"] for row in some], [row["latency_ms"]["median"] for row in some]
        ends = [spread(row) for row in some]
        throughput.errorbar(at, speeds, yerr=[[max(0, speed - end[0]) for speed, end in zip(speeds, ends)],
                                              [max(0, end[1] - speed) for speed, end in zip(speeds, ends)]],
                            label="%s, bar: %s" % (name, ends[0][2]), **hollow)
        guide = [row["guide_images_per_second"] or float("nan") for row in some]
        if any(row["guide_images_per_second"] for row in some):
            throughput.plot(at, guide, "x:", color="0.45", markersize=7, label="the guide's")
        times = [row["latency_ms"] for row in some]
        last = "p90" if all(one.get("p90") for one in times) else "max"
        latency.errorbar(at, medians, yerr=[[max(0, one["median"] - (one.get("min") or one["median"])) for one in times],
                                            [max(0, (one.get(last) or one["median"]) - one["median"]) for one in times]],
                         label="%s median, bar: fastest to %s" % (name, "P90" if last == "p90" else "slowest"), **hollow)
        latency.plot(at, [one["mean"] for one in times], marker, color="0.35", markersize=4, label=name + " mean")
        if any(one.get("p99") for one in times):
            latency.plot(at, [one.get("p99") or float("nan") for one in times], "+x*"[order % 3], color="0.35", markersize=8,
                         label=name + " P99")
    for axes, label in ((throughput, "throughput (images/s)"), (latency, "latency of a batch (ms)")):
        axes.set_xticks(list(range(len(sizes))))
        axes.set_xticklabels(["%d" % size for size in sizes])
        axes.set_xlim(-0.5, max(len(sizes), 1) - 0.5)
        axes.set_xlabel("batch size (images)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(True, color="0.85")
        if rows:
            axes.legend(fontsize=8)
    throughput.set_title(title.replace("$", r"\$"), fontsize=10)
    figure_.tight_layout()
    data = io.BytesIO()
    figure_.savefig(data, format="png")
    return data.getvalue()


def manifest_sources(folder, result):
    """{image: path of its source} from the manifest of the files that were judged; of other files than those it tells nothing."""
    path, sha256 = result["input"]["path"], result["input"]["manifest_sha256"]
    for place in (path, os.path.join(folder, os.path.basename(path))) if path else ():
        manifest = os.path.join(place, ".manifest")
        if os.path.isfile(manifest):
            data = read_file(manifest, LARGEST_JSON)
            if sha256 == hashlib.sha256(data).hexdigest():
                lines = [json.loads(line) for line in data.decode("utf-8", "replace").splitlines()]
                return {line[0]: line[1] for line in lines if isinstance(line, list) and len(line) > 1}
    return {}


def find_pictures(images, folder, results, wanted):
    """{image: path} of the wanted images: in --images DIR, flat or in class folders, else where the manifest says."""
    found = {}
    if images:
        for entry in sorted(os.scandir(images), key=lambda entry: entry.name):
            inner = sorted(os.listdir(entry.path)) if entry.is_dir() else []
            for name, path, stem in [(entry.name, entry.path, "")] + [
                    (name, os.path.join(entry.path, name), entry.name + "__") for name in inner]:
                for image in (name.split(".")[0], stem + name.split(".")[0]):
                    if image in wanted:
                        found.setdefault(image, path)
        return found
    for result in results:
        try:
            found.update((image, path) for image, path in manifest_sources(folder, result).items()
                         if image in wanted and isinstance(path, str))
        except (ValueError, RecursionError, TypeError):
            FLAWS.append("the manifest in %s cannot be read; preprocess again" % result["input"]["path"])
    return found


def picture(path):
    """A small JPEG of a picture as base64, or None where there is none to show."""
    from PIL import Image
    try:
        if os.stat(path).st_size > LARGEST_PICTURE or not os.path.isfile(path):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                shown = Image.open(file, formats=FORMATS)
                if shown.size[0] * shown.size[1] > MOST_PIXELS:
                    return None
                shown.draft("RGB", (2 * PICTURE, 2 * PICTURE))
                shown = shown.convert("RGB")
        shown.thumbnail((PICTURE, PICTURE))
        data = io.BytesIO()
        shown.save(data, "JPEG", quality=85)
        return base64.b64encode(data.getvalue()).decode()
    except Exception:  # no such file (None), or any of the dozen errors of Pillow's decoders
        return None


def gallery(mistakes, pictures, names):
    """The wrongly judged images as the template shows them."""
    return [{"image": clean(mistake["image"]), "picture": picture(pictures.get(mistake["image"])),
             "label": class_name(names, mistake["label"], mistake["label_name"]),
             "guesses": [(class_name(names, guess["class"], guess["name"]), "%.2f%%" % (100 * guess["probability"]))
                         for guess in mistake["guesses"]]} for mistake in mistakes]


def page(title, above, tables, png, mistakes, commands):
    """report.html, by its template."""
    import jinja2
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.html.jinja")
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.from_string(read_file(path, LARGEST_PICTURE).decode()).render(
        title=clean(title), above=above, tables=tables, chart=base64.b64encode(png).decode(), gallery=mistakes, commands=commands,
        numeric=numeric)


def write_all(folder, files):
    """Write all of {name: bytes} or none: first whole under temporary names, then renamed. Strays of killed runs go."""
    for stray in glob.glob(os.path.join(glob.escape(folder), ".report.*.????????.tmp")):
        try:
            descriptor = os.open(stray, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(stray)
            finally:
                os.close(descriptor)
        except OSError:
            pass  # somebody holds it: a report that is being written
    written, files_open = [], []
    try:
        for name, data in files.items():
            path = os.path.join(folder, name)
            written.append((os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex())), path))
            try:
                file = os.fdopen(os.open(written[-1][0], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb", 0)
                files_open.append(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                view = memoryview(data)
                while view:
                    view = view[file.write(view):]
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
        while written:
            os.replace(*written[0])
            del written[0]
    finally:
        for temporary, _ in written:
            if os.path.lexists(temporary):
                os.unlink(temporary)
        for file in files_open:
            file.close()


def require_own(folder):
    """Files named report.* that no report.py wrote are somebody's own, and not overwritten."""
    there = [name for name in NAMES if os.path.lexists(os.path.join(folder, name))]
    if NAMES[0] in there:
        content, _ = read_json(os.path.join(folder, NAMES[0]))
    if there and (NAMES[0] not in there or "schema" not in content or not isinstance(content.get("rows"), list)):
        fail("%s: is not of report.py's making, for no report.json beside it says so; move it away"
             % os.path.join(folder, there[-1]))


def chosen(args, rows):
    """The rows that --batch-sizes and --precisions ask for, by default all; each that is asked for must be there."""
    sizes, precisions = args.batch_sizes, args.precisions
    rows = [row for row in rows if (not sizes or row["batch_size"] in sizes) and (not precisions or is_int8(row) in precisions)]
    there = {(is_int8(row), row["batch_size"]) for row in rows}
    for size in sizes if rows else ():
        for int8 in precisions or {is_int8(row) for row in rows}:
            if (int8, size) not in there:
                fail("%s: holds no %s results at batch size %d; make them, or leave that batch size out"
                     % (args.folder, "INT8" if int8 else "float", size))
    if not rows:
        fail("%s: holds no result.json and no *_summary.json of pure inference%s; imagenet_acc_eval.py writes the one, an "
             "inference with --output ./ --output_dirname perf_bs1 the other"
             % (args.folder, " that is asked for" if sizes or precisions else ""))
    return rows


def write_report(args):
    """Write the four files; returns (lines above, tables, verdicts)."""
    require_own(args.folder)
    found = gather(args.folder, args.dataset, args.failed)
    rows = found["rows"] = chosen(args, found["rows"])
    reference = read_reference(args.reference) if args.reference else None
    check_int8(rows)
    facts, gates, names = environment(found), verdicts(found, rows, reference, args.max_slowdown), class_names(args.classes, rows)
    above, own = common(rows, found)
    judged = next((row for row in rows if row["top1"] is not None), None)
    fidelities = [row["fidelity"] for row in rows if row["fidelity"]] + found["stray_fidelities"]
    commands_path = os.path.join(args.folder, "commands.sh")
    commands = read_file(commands_path, 1 << 20).decode("utf-8", "replace") if os.path.exists(commands_path) else ""
    commands = [clean(line, 4000) for line in commands.splitlines() if line.strip()]
    tables = {"results": result_table(rows, own), "gates": gate_table(gates), "price": price_table(rows),
              "gain": gain_table(rows),
              "reference": reference and reference_table(rows, reference), "intervals": interval_table(rows),
              "wall": wall_table(rows),
              "fidelity": fidelity_table(fidelities), "different": different_table(fidelities, names),
              "environment": environment_table(facts, rows), "classes": class_table(judged, names)}
    mistakes = judged["mistakes"] if judged else []
    pictures = find_pictures(args.images, args.folder, found["results"], {mistake["image"] for mistake in mistakes})
    runs = {row["runs"] for row in rows if row["runs"]}
    content = {"schema": SCHEMA, "date": found["date"], "runs": runs.pop() if len(runs) == 1 else None, "rows": rows,
               "environment": facts, "commands": commands, "reference": reference, "gates": gates, "flaws": FLAWS,
               "failed": {":".join(map(str, filter(None, key))): reason for key, reason in args.failed.items()}}
    title = "ResNet34 inference with %s" % (rows[0]["engine"] or "an engine that is not recorded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # matplotlib's, of letters that its font lacks
            png = chart("%s\n%s" % tuple(clean(rows[0][key] or UNKNOWN, 70) for key in ("engine", "device")), rows)
            text = page(title, above, tables, png, gallery(mistakes, pictures, names), commands)
    except ImportError as error:
        fail("the report needs matplotlib, jinja2 and Pillow (%s); pip install -r requirements.txt" % error)
    except OSError as error:  # matplotlib's, of its fonts' cache, names no file
        raise OSError(error.errno, error.strerror, error.filename or os.path.join(args.folder, "report.png")) from None
    texts = (json.dumps(content, indent=2) + "\n", markdown_report(title, above, tables, commands), text)
    write_all(args.folder, dict(zip(NAMES, [part.encode("utf-8", "backslashreplace") for part in texts] + [png])))
    return above, tables, gates


def parse_args():
    def failure(text):
        match = re.match(r"(?:(fp32|fp16|int8):)?([1-9]\d{0,8})=(.+)$", text, re.DOTALL)
        if not match:
            raise argparse.ArgumentTypeError("%r is not as fp32:8=reason" % text)
        return (match.group(1), int(match.group(2))), match.group(3)

    def percent(text):
        if not re.match(r"\d+(\.\d+)?$", text) or float(text) >= 100:
            raise argparse.ArgumentTypeError("%r is not a percentage from 0 to below 100" % text)
        return float(text)

    def numbers(text):
        if not re.match(r"[1-9]\d{0,8}(\s+[1-9]\d{0,8})*$", text.strip()):
            raise argparse.ArgumentTypeError("%r is not as \"1 4 8\"" % text)
        return [int(word) for word in text.split()]

    def kinds(text):
        if not text.split() or set(text.split()) - {"fp32", "fp16", "int8"}:
            raise argparse.ArgumentTypeError("%r is not as \"fp32 int8\"" % text)
        return sorted({word == "int8" for word in text.split()})  # fp16 is what an NPU makes of fp32

    parser = argparse.ArgumentParser(description="Put the results of a run together as a report.")
    parser.add_argument("folder", metavar="DIR", help="folder of the results, as run_infer.sh or the guide's commands leave it")
    parser.add_argument("--reference", metavar="RUN", help="another run, a folder or its report.json, to put beside this one")
    parser.add_argument("--max-slowdown", metavar="P", type=percent,
                        help="fail (exit 3) where the throughput is more than P %% below the reference's, beyond their spread")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes, one a line (default: the evaluation's)")
    parser.add_argument("--images", metavar="DIR", help="folder of the images, for the page (default: the manifest's)")
    parser.add_argument("--dataset", metavar="NAME", help="name of the data set")
    parser.add_argument("--failed", metavar="PRECISION:SIZE=REASON", nargs="*", type=failure, default=[],
                        help="rows that came to nothing, and why")
    parser.add_argument("--batch-sizes", metavar="LIST", type=numbers, default=[], help='only these rows, for example "1 4 8"')
    parser.add_argument("--precisions", metavar="LIST", type=kinds, default=[], help='only these, for example "fp32 int8"')
    parser.add_argument("--quiet", action="store_true", help="print only the tables, verdicts and warnings")
    args = parser.parse_args()
    if args.max_slowdown is not None and not args.reference:
        parser.error("--max-slowdown needs --reference")
    args.failed = dict(args.failed)
    return args


def main():
    args = parse_args()
    above, tables, gates = write_report(args)
    text = "".join(line + "\n" for line in above) + "\n" + aligned(tables["results"])
    for name in ("price", "gain", "reference"):
        if tables[name]:
            text += "\n%s\n%s" % (tables[name]["title"], aligned(tables[name]))
    text += "".join("%s: %s\n" % ("PASS" if gate["passes"] else "FAIL", clean(gate["text"], 600)) for gate in gates)
    if not args.quiet:
        text += "report: %s and .json, .png, .html beside it\n" % clean(os.path.join(args.folder, "report.md"))
    sys.stdout.write(text)
    for flaw in FLAWS:
        sys.stderr.write("warning: %s\n" % clean(flaw, 1000))
    return 0 if all(gate["passes"] for gate in gates) else 3


def guarded():
    """main, with a sentence for what the operating system says no to."""
    for descriptor in range(3):  # closed ones would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # of standard output; Python would try once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("not enough memory")


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, stopped)
    sys.exit(guarded())
