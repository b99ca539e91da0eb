#!/usr/bin/env python3
"""Put the results of a run together as a report (the guide's last stage: its table of accuracy and performance).

    python3 report.py ./output

Measures and probes nothing. In DIR it reads every *_summary.json (the inference), every JSON with the ModelZoo's title (the
evaluation), fidelity*.json (compare_scores.py) and commands.sh; prints the table and writes DIR/report.md, report.json,
report.png and report.html. Exit code 0: done; 1: failed; 2: wrong usage; 3: all is written, but a gate or a fidelity says no.
"""
import argparse
import base64
import contextlib
import errno
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
P99_FROM = 100  # runs; of fewer the P99 is no more than the largest
NAMES = ("report.json", "report.md", "report.html", "report.png")
PICTURE, FORMATS = 320, ("JPEG", "PNG", "BMP", "WEBP")  # longer side in the page; never EPS, which goes to Ghostscript
LARGEST_JSON, LARGEST_PICTURE, MOST_PIXELS = 256 << 20, 64 << 20, 50 * 1000 * 1000
UNKNOWN = "not recorded"


def shape(*parts):
    """{key: kind} of such, and of "kind key key ..."; a "?" after a key says: missing or null, which is read as None."""
    whole = {}
    for part in parts:
        if isinstance(part, str):
            kind, *keys = part.split()
            part = dict.fromkeys(keys, kind)
        whole.update(part)
    return whole


# What a value may be: its Python type and its bounds. Then what the stages' files hold of what the report reads.
KINDS = {"text": (str, None, None), "flag": (bool, None, None), "count": (int, 0, 10**15), "size": (int, 1, 10**15),
         "percent": (float, 0, 100), "share": (float, 0, 1), "amount": (float, 0, 1e15), "positive": (float, 1e-9, 1e15),
         "signed": (float, -1e15, 1e15), "one": (int, 1, 1)}
MODEL = shape("text path? sha256? onnx_sha256? weights? weights_sha256?", "size bytes?", {
    "calibration?": shape("text tool? method? source_sha256?", "count images? seed?", "flag shared?")})
INPUT = shape("text path? source? manifest_sha256? set_sha256?")
STAGE = shape("text engine? device? precision?", "size batch_size?")
SUMMARY = shape(
    STAGE, "one schema", "text date machine?", "positive throughput", "amount h2d_ms? d2h_ms?", "flag vnni?", "texts packages", {
        "model": MODEL, "input?": INPUT, "devices?": ["count"],
        "performance": shape("size runs batch_size", "pair interval95?",
                             "positive mean_ms median_ms p90_ms? p99_ms? min_ms? max_ms? images_per_second"),
        "wall?": shape("positive seconds images_per_second", "amount reading? computing writing?", "flag resumed"),
        "npu?": shape({"devices?": [shape("text chip? health? soc_version?")]},
                      "text driver? firmware? cann? ais_bench? aclruntime?")})
PLAIN = shape("positive throughput", "text engine?", {
    "NPU_compute_time": shape("positive mean median min? max? percentile(99%)? P99?", "size count"),
    "H2D_latency?": shape("amount mean"), "D2H_latency?": shape("amount mean")})
COUNTS = shape("percent accuracy baseline", "signed lost", "count right_to_wrong wrong_to_right", "share mcnemar_p",
               "pair difference_interval95")
RESULT = shape(STAGE, "one schema", "hashes summary_sha256?", "size classes", "amount chance_top5?", "flag calibration_shared?", {
    "accuracy": shape("percent top1 top5"), "interval95": shape("pair top1 top5"), "model?": MODEL, "input?": INPUT,
    "images": shape("size judged labelled", "count excluded?"),
    "per_class_worst": [shape("count class", "text name?", "size images", "percent top1 top5")],
    "mistakes": [shape("text image label_name?", "count label", {
        "guesses": [shape("count class", "text name?", "share probability")]})],
    "paired?": shape("text baseline baseline_engine?", "size images", {
        "top1": COUNTS, "top5": COUNTS, "mlperf": shape("amount ratio", "share limit", "flag passes")}),
    "gates?": [shape("text name", "percent measured limit", "flag passes")]})
FIDELITY = shape("text result engine? reference_engine? precision?", "hashes summary_sha256?", "size compared", "flag agrees",
                 "percent top1_agreement top5_set_agreement", "signed cosine_mean cosine_worst",
                 "amount absolute_difference relative_difference relative_limit", {"most_different": [
                     shape("text image", "amount relative_difference", "signed cosine", "count top1 reference_top1")]})
REFERENCE = shape("text date?", {"rows": [shape(
    STAGE, "percent top1? top5?", "size runs? judged?", "positive images_per_second?", "pair images_per_second_interval95?",
    {"model?": shape("text weights_sha256?"), "input?": shape("text set_sha256?"),
     "latency_ms?": shape("positive mean median p90? p99? min? max?")})]})
ROW = ("batch_size precision engine device dataset judged labelled excluded classes chance_top5 top1 top5 top1_interval95 "
       "top5_interval95 images_per_second images_per_second_interval95 latency_ms h2d_ms d2h_ms runs wall "
       "guide_images_per_second model input gates calibration_shared fidelity paired worst_classes mistakes failed").split()
FLAWS = []  # sentences for the reader about what does not fit together; printed, and shown in the report


def stopped(signum, frame):
    """Ctrl-C, or the SIGTERM of a scheduler: the report is written whole at the end, so an earlier one stands."""
    signal.signal(signum, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.write(2, b"stopped; an earlier report stands as it was, run it again\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    sys.exit(128 + signum)


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % clean(message, 2000))
    sys.exit(code)


def clean(text, most=300):
    """One line that a terminal only shows: no line breaks, no control characters, no half surrogates, not endless."""
    text = " ".join(str(text).split())
    text = "".join(letter if letter.isprintable() else "\\x%02x" % ord(letter) for letter in text)
    return text if len(text) <= most else text[:most - 3] + "..."


def at(record, path):
    """The value at "key.key" in nested dictionaries; None where one of them is None or has no such key."""
    for key in path.split("."):
        record = None if record is None else record.get(key)
    return record


# ---- reading ----

def files_in(folder, pattern):
    return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))


def read_file(path, most):
    """The bytes of a regular file; a FIFO would hang, a huge file would fill the memory: OSError, as of one that is not there."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file; move it away", path)
        if status.st_size > most:
            raise OSError(errno.EFBIG, "is larger than %d MB; move it away" % (most >> 20), path)
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


def fitted(value, kind, path, name="content"):
    """value, checked: kind is a word of KINDS, "pair", "texts" or "hashes", [kind] for a list of such, or a shape {key: kind}.

    Of an object only the keys of the shape are returned, of an amount a float. What does not fit ends the script with a sentence.
    """
    if isinstance(kind, dict) and isinstance(value, dict):
        parts = [(key, key.rstrip("?")) for key in kind]
        return {part: None if key != part and value.get(part) is None else fitted(value.get(part), kind[key], path, part)
                for key, part in parts}
    if isinstance(kind, list) and isinstance(value, list):
        return [fitted(item, kind[0], path, name) for item in value]
    if kind == "pair" and isinstance(value, list) and len(value) == 2:
        pair = fitted(value, ["signed"], path, name)
        if pair[0] <= pair[1]:
            return pair
    if kind == "texts" and isinstance(value, dict):
        return fitted(value, dict.fromkeys(value, "text"), path, name)
    if kind == "hashes":  # one, or a list of the shards'
        return fitted(value, ["text"] if isinstance(value, list) else "text", path, name)
    if isinstance(kind, str) and kind in KINDS:
        made_as, least, most = KINDS[kind]
        if type(value) in (made_as, int if made_as is float else made_as) and (least is None or least <= value <= most):
            return made_as(value)
    shown = "missing" if value is None else clean(json.dumps(value), 60)
    fail("%s: its %r is %s, which it cannot be; run the stage that writes it again" % (path, name, shown))


def nothing(shape):
    return dict.fromkeys(key.rstrip("?") for key in shape)


def inside(value, pair, path, name):
    """A value must lie in its own interval (and a hair beside it, where both were rounded)."""
    if value is not None and pair is not None and not pair[0] - 0.01 <= value <= pair[1] + 0.01:
        fail("%s: its %s %g is not within its own interval %g to %g; run the stage that writes it again"
             % (path, name, value, pair[0], pair[1]))


def of_name(path):
    """Precision and batch size as a file's name tells them: perf_int8_bs8_summary.json -> ("int8", 8)."""
    words = re.split(r"[_.]", os.path.basename(path))
    sizes = [int(word[2:]) for word in words if re.match(r"bs[1-9]\d{0,8}$", word)]
    return next((word for word in words if word in ("fp32", "fp16", "int8")), None), sizes[0] if sizes else None


def read_plain(path, content):
    """A summary as ais_bench writes it, without our keys, in the form of ours; what it does not tell is None."""
    plain = fitted(content, PLAIN, path)
    times, (precision, batch_size) = plain["NPU_compute_time"], of_name(path)
    words = content.get("args")
    words = " ".join(map(str, words)) if isinstance(words, list) else str(words)
    asked = re.search(r"--batch[_-]?size[= ]([1-9]\d{0,8})\b", words)
    told = plain["throughput"] * times["mean"] / 1000  # throughput = 1000 * batch size / mean, says ais_bench
    told = round(told) if 0.5 < told < 1e6 and abs(told - round(told)) < 0.01 else None
    batch_size = int(asked.group(1)) if asked else batch_size or told
    files = content.get("filesinfo")
    pure = "pure_infer" in json.dumps(files) if files else os.path.basename(path).startswith("perf")
    performance = {"runs": times["count"], "batch_size": batch_size, "mean_ms": times["mean"], "median_ms": times["median"],
                   "p90_ms": None, "p99_ms": times["percentile(99%)"] or times["P99"], "min_ms": times["min"],
                   "max_ms": times["max"], "images_per_second": plain["throughput"], "interval95": None}
    return dict(nothing(SUMMARY), engine=plain["engine"], precision=precision, batch_size=batch_size, performance=performance,
                packages={}, h2d_ms=at(plain, "H2D_latency.mean"), d2h_ms=at(plain, "D2H_latency.mean"),
                input=None if pure else nothing(INPUT))


def read_summary(path):
    """What an inference left, with its performance under the keys of a row; pure: without input, for its speed alone."""
    content, sha256 = read_json(path)
    if {"schema", "performance", "model", "input"} & set(content):
        summary = fitted(content, SUMMARY, path)
        if "input" not in content:  # null is pure inference
            fitted(None, INPUT, path, "input")
    else:
        summary = read_plain(path, content)
    times, pure, throughput = summary["performance"], summary["input"] is None, content["throughput"]
    speed = times["images_per_second"]
    if abs(throughput / speed - 1) > 0.01:
        fail("%s: its throughput %g and its performance, %g images/s, contradict each other; measure again"
             % (path, throughput, speed))
    if times["runs"] < P99_FROM:
        times["p99_ms"] = None
    inside(speed, times["interval95"], path, "throughput")
    if times["min_ms"] and times["max_ms"]:
        inside(times["mean_ms"], [times["min_ms"], times["max_ms"]], path, "mean time")
    return dict(summary, path=path, stem=re.sub(r"_summary\.json$", "", path), sha256=sha256, pure=pure, runs=times["runs"],
                batch_size=times["batch_size"] if pure else summary["batch_size"], images_per_second=speed,
                images_per_second_interval95=times["interval95"],
                latency_ms={key: times[key + "_ms"] for key in ("mean", "median", "p90", "p99", "min", "max")})


def read_result(path, content):
    """What imagenet_acc_eval.py left, under the keys of a row."""
    result = fitted(content, RESULT, path)
    accuracy, interval95 = result["accuracy"], result["interval95"]
    for top in ("top1", "top5"):
        inside(accuracy[top], interval95[top], path, top)
        paired = at(result, "paired." + top)
        if paired and abs(paired["baseline"] - paired["accuracy"] - paired["lost"]) > 0.01:
            fail("%s: the points lost are not what its two accuracies differ by; judge the results again" % path)
    if result["images"]["judged"] > result["images"]["labelled"]:
        fail("%s: more images judged than labelled; judge the results again" % path)
    for gate in result["gates"] or []:
        if gate["passes"] != (gate["measured"] >= gate["limit"]):
            fail("%s: its gate %s contradicts its own figures; judge the results again" % (path, gate["name"]))
    return dict(result, path=path, stem=re.sub(r"\.json$", "", path), gates=result["gates"] or [],
                engine=None if result["engine"] == UNKNOWN else result["engine"], model=result["model"] or nothing(MODEL),
                input=result["input"] or nothing(INPUT), worst_classes=result["per_class_worst"],
                top1_interval95=interval95["top1"], top5_interval95=interval95["top5"], **dict(result["images"], **accuracy))


def read_results(folder):
    """The evaluations in a folder; a JSON of another's making is let be, a broken one that may be ours is not."""
    results = []
    for path in files_in(folder, "*.json"):
        name = os.path.basename(path)
        if re.search(r"_summary\.json$|\.om\.json$|^fidelity|^report\.json$", name):
            continue
        if name.startswith("result") or os.path.isfile(path) and TITLE.encode() in read_file(path, LARGEST_JSON):
            content, _ = read_json(path)
            if content.get("title") != TITLE:
                fail("%s: has not the title %r of an evaluation; judge the results again" % (path, TITLE))
            results.append(read_result(path, content))
    return results


# ---- the rows ----

def join_summary(result, summaries):
    """Add to an evaluation what the summary of the results that were judged tells and the evaluation did not write down."""
    beside = [summary for summary in summaries if summary["stem"] == result["stem"] and not summary["pure"]]
    known = result["summary_sha256"] if isinstance(result["summary_sha256"], str) else None
    same = [summary for summary in summaries if summary["sha256"] == known]
    if beside and known and not same:
        fail("%s: was judged of other results than %s tells of; judge the results again" % (result["path"], beside[0]["path"]))
    summary = (same or beside or [{}])[0]
    told = dict(zip(("precision", "batch_size"), of_name(result["path"])))
    for key in STAGE:
        key = key.rstrip("?")
        result[key] = result[key] or summary.get(key) or told.get(key)
    return dict(result, wall=summary.get("wall"))


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


def join(results, others, loose=False):
    """{key of the row: other}: what is not recorded fits any; loosely fp32 fits fp16, which an NPU makes of it."""
    joined = {}
    for key, other in others.items():
        fits = [row for row in results if row[1] == key[1] and row not in joined and (
            None in (row[0], key[0]) or loose and (row[0] == "int8") == (key[0] == "int8"))]
        joined[fits[0] if key not in results and len(fits) == 1 else key] = other
    return joined


def is_of(fidelity, result):
    """Whether a comparison is of the results that were judged: by their summary, or their folder's name where that is unknown."""
    one, other = fidelity["summary_sha256"], result["summary_sha256"]
    if one and other:
        return one == other
    if os.path.basename(os.path.normpath(fidelity["result"])) != os.path.basename(result["stem"]):
        return False
    if fidelity["engine"] and result["engine"] and fidelity["engine"] != result["engine"]:
        fail("%s: compares results of %s, but %s judged those of %s; compare again"
             % (fidelity["path"], fidelity["engine"], result["path"], result["engine"]))
    return True


def make_row(key, result, timed, dataset, failed):
    """One row of the report, in raw numbers, of an evaluation and a pure inference (or None). See README.md for the keys."""
    row = dict(dict.fromkeys(ROW), dataset=dataset, worst_classes=[], mistakes=[], gates=[], failed=failed)
    for what in ("engine", "precision", "model.sha256") if result and timed else ():
        one, other = at(result, what), at(timed, what)
        if one and other and one != other and UNKNOWN not in one:
            fail("%s: the accuracy at batch size %s is of the %s %s, but the performance in %s is of %s; make both with one"
                 % (result["path"], key[1], what.split(".")[0], one, timed["path"], other))
    if result:
        row.update({what: result[what] for what in ROW if what in result},
                   dataset=dataset or result["input"]["source"] or result["input"]["path"])
    if timed and not failed:  # of a batch size that failed the performance may be an earlier run's
        row.update({what: timed[what] for what in (
            "engine", "device", "model", "h2d_ms", "d2h_ms", "runs", "images_per_second", "images_per_second_interval95",
            "latency_ms") if timed[what]})
    row.update(precision=key[0] or at(timed or result, "precision"), batch_size=key[1])
    if row["images_per_second"] and row["device"] == GUIDE_CHIP and len(timed["devices"] or [0]) == 1 \
            and row["precision"] == "fp16":
        row["guide_images_per_second"] = GUIDE.get(row["batch_size"])
    return row


def gather(folder, dataset=None, failed=None):
    """Everything that a folder holds: its rows, and what its environment section needs."""
    if not os.path.isdir(folder):
        fail("%s: is no folder; give the one with the results" % folder)
    summaries = [read_summary(path) for path in files_in(folder, "*_summary.json")]
    fidelities = [dict(fitted(read_json(path)[0], FIDELITY, path), path=path) for path in files_in(folder, "fidelity*.json")]
    for one in fidelities:
        if one["agrees"] != (one["relative_difference"] <= one["relative_limit"]):
            fail("%s: its verdict contradicts its own figures; compare again" % one["path"])
    results = by_key(join_summary(result, summaries) for result in read_results(folder))
    timed = join(results, by_key(summary for summary in summaries if summary["pure"]))
    failed = join(set(results) | set(timed), failed or {}, loose=True)
    keys = sorted(set(results) | set(timed) | set(failed), key=lambda key: (key[0] == "int8", key[0] or "", key[1] or 0))
    rows = [make_row(key, results.get(key), timed.get(key), dataset, failed.get(key)) for key in keys]
    placed = [(row, one) for key, row in zip(keys, rows) for one in fidelities if key in results and is_of(one, results[key])]
    for row, one in placed:
        row["fidelity"] = row["fidelity"] or one
    return {"rows": rows, "summaries": summaries, "results": list(results.values()),
            "date": max([summary["date"] for summary in summaries if summary["date"]], default=None),
            "fidelities": placed, "stale": [one["path"] for one in fidelities if one not in [used for _, used in placed]]}


def is_int8(row):
    return row["precision"] == "int8"


def chosen(args, rows):
    """The rows that --batch-sizes and --precisions ask for, by default all; each that is asked for must be there."""
    sizes, precisions = args.batch_sizes, args.precisions
    rows = [row for row in rows if (not sizes or row["batch_size"] in sizes) and (not precisions or is_int8(row) in precisions)]
    if not rows:
        fail("%s: holds no result.json and no *_summary.json of pure inference%s; imagenet_acc_eval.py writes the one, an "
             "inference with --output ./ --output_dirname perf_bs1 the other"
             % (args.folder, " that is asked for" if sizes or precisions else ""))
    there = {(is_int8(row), row["batch_size"]) for row in rows}
    for size in sizes:
        for int8 in precisions or {is_int8(row) for row in rows}:
            if (int8, size) not in there:
                fail("%s: holds no %s results at batch size %d; make them, or leave that batch size out"
                     % (args.folder, "INT8" if int8 else "float", size))
    return rows


def environment(found):
    """The machine, the packages, the models and the preprocessing, as the stages wrote them down."""
    summaries, facts, packages, models = found["summaries"], {}, {}, {}
    for key in ("machine", "vnni"):
        told = sorted({str(summary[key]) for summary in summaries if summary[key] is not None})
        if told:
            facts[key] = " and ".join(told)
    for summary in summaries:
        npu = summary["npu"] or {}
        facts.update({name: text for name, text in npu.items() if isinstance(text, str)})
        for device in npu.get("devices") or []:
            facts["chip"] = "%s, health %s" % (device["soc_version"] or device["chip"] or UNKNOWN, device["health"] or UNKNOWN)
        for name, version in summary["packages"].items():
            packages.setdefault(name, {}).setdefault(version, []).append(os.path.basename(summary["path"]))
    differing = sorted(name for name, versions in packages.items() if len(versions) > 1)
    for name, versions in packages.items():
        facts[name] = next(iter(versions))
        if name in differing:
            facts[name] = " / ".join("%s (%s)" % (version, ", ".join(files)) for version, files in versions.items())
            FLAWS.append("the stages did not run with one %s: %s; make them again with one" % (name, facts[name]))
    if not packages:
        facts["packages"] = UNKNOWN
    for model in [record["model"] or {} for record in summaries + found["results"]]:
        if model.get("path") and model["sha256"]:
            models[os.path.basename(model["path"])] = {
                key: model[key] for key in ("sha256", "bytes", "weights", "weights_sha256")}
    return {"facts": facts, "models": models, "differing": differing}


def int8_pairs(rows):
    """[(INT8 row, float row of the same batch size or None)]"""
    floats = {row["batch_size"]: row for row in rows if not is_int8(row)}
    return [(row, floats.get(row["batch_size"])) for row in rows if is_int8(row)]


def check_rows(rows, stale, reference):
    """Notes what does not fit together: fidelities of other results, images, models, and the reference's."""
    for path in stale:
        FLAWS.append("%s: compares results that no evaluation here is of (of an earlier run, or not judged); it is left out, "
                     "compare again" % path)
    for name in sorted({row["dataset"] for row in rows if row["dataset"]}):
        some = [row for row in rows if row["dataset"] == name and row["input"]]
        sets = {row["input"]["set_sha256"] for row in some}
        manifests = {row["input"]["manifest_sha256"] for row in some if not is_int8(row)}
        if len(sets - {None}) > 1 or len(manifests - {None}) > 1:
            FLAWS.append("the rows of the data set %s are not all of the same images, prepared once; infer them all on the same "
                         "files" % name)
    met = [row for row, _ in beside(rows, reference)] if reference else rows
    FLAWS.extend("%s: has no row for %s at batch size %s, which is not compared" % (
        reference["path"], row["precision"] or UNKNOWN, figure(row["batch_size"])) for row in rows if row not in met)
    for what, key in (("models (weights)", "model.weights_sha256"), ("images", "input.set_sha256"),
                      ("numbers of images", "judged"), ("engines", "engine"), ("devices", "device")):
        pairs = [(at(row, key), at(other, key)) for row, other in (beside(rows, reference) if reference else ())]
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            FLAWS.append("%s: that run and this one are of different %s" % (reference["path"], what))
    for row, other in int8_pairs(rows):
        source, known = at(row, "model.calibration.source_sha256"), at(other, "model.sha256")
        if source and known and source not in (known, other["model"]["onnx_sha256"]):
            FLAWS.append("at batch size %s the INT8 model was not made from the float model beside it; quantise again"
                         % row["batch_size"])


# ---- verdicts ----

def read_reference(path):
    """The rows of another run: of a folder's files, or of a lone report.json."""
    if os.path.isdir(path):
        found = gather(path)
        if found["rows"]:
            return {"path": path, "date": found["date"], "rows": found["rows"]}
        if not os.path.exists(os.path.join(path, NAMES[0])):
            fail("%s: holds neither results nor a report.json; give the folder or the report.json of another run" % path)
        path = os.path.join(path, NAMES[0])
    content, _ = read_json(path)
    if content.get("schema") != SCHEMA:
        fail("%s: is no report.json of schema %d; make it again with this report.py" % (path, SCHEMA))
    reference = fitted(content, REFERENCE, path)
    for row in reference["rows"]:
        inside(row["images_per_second"], row["images_per_second_interval95"], path, "throughput")
    return dict(reference, path=path)


def beside(rows, reference):
    """[(row, its counterpart)]: the same batch size, INT8 with INT8 and float with float, of whichever engine."""
    there = {(is_int8(row), row["batch_size"]): row for row in reference["rows"]}
    found = [(row, there.get((is_int8(row), row["batch_size"]))) for row in rows]
    return [(row, other) for row, other in found if other]


def spread(row):
    """(lowest, highest, how it is known): between which throughputs a row's true one lies."""
    pair, times, measured = row["images_per_second_interval95"], row["latency_ms"], row["images_per_second"]
    if pair:
        return pair[0], pair[1], "95 % interval"
    if (row["runs"] or 0) > 1 and at(times, "min") and times["max"]:  # too few runs for more than the two ends
        slowest, fastest = times["mean"] / times["max"], times["mean"] / times["min"]
        return measured * slowest, measured * fastest, "range of %d runs" % row["runs"]
    return measured, measured, "no spread recorded"


def speed_gates(rows, reference, slowdown):
    """A row fails only if even the upper end here is below the lower end there less the slowdown that is allowed."""
    gates = []
    for row, other in beside(rows, reference):
        measured, there = row["images_per_second"], other["images_per_second"]
        if not there:
            continue
        low, _, _ = spread(other)
        limit = (1 - slowdown / 100) * low
        name = "images/s of %s at batch size %s" % (row["precision"] or "the model", row["batch_size"])
        gate = {"name": name, "measured": measured, "reference": there, "limit": limit, "passes": False, "interval95": None,
                "text": "%s: there is none to compare with %.2f" % (name, there)}
        if measured:
            least, most, how = spread(row)
            verdict = "reaches" if measured >= limit else "reaches, within its spread," if most >= limit else "stays below"
            text = "%s: %.2f (%.2f to %.2f, %s) %s %.2f, the reference's %.2f (from %.2f on) less %g %%"
            gate.update(passes=most >= limit, interval95=row["images_per_second_interval95"], text=text % (
                name, measured, least, most, how, verdict, limit, there, low, slowdown))
        gates.append(gate)
    if not gates:
        fail("%s: has no throughput at any of these batch sizes; give a run of the same ones" % reference["path"])
    return gates


def verdicts(rows, fidelities, reference, slowdown):
    """Every gate of the rows, those of the evaluation too, and the fidelities: [{name, passes, text, ...}]"""
    gates = []
    for row in rows:
        for gate in row["gates"]:
            # Two digits, or more where those two would contradict the verdict.
            digits = "%.2f" if (round(gate["measured"], 2) >= gate["limit"]) == gate["passes"] else "%.15g"
            gates.append(dict(gate, text="%s %s%% is %s %.15g%% (%s, batch size %s)" % (
                gate["name"], digits % gate["measured"], "at least" if gate["passes"] else "below", gate["limit"],
                row["precision"] or "precision " + UNKNOWN, row["batch_size"] or UNKNOWN)))
    if slowdown is not None:
        gates += speed_gates(rows, reference, slowdown)
    for one in fidelities:
        text = "%s %s with its reference: relative difference %.3g, limit %g%s" % (
            one["result"], "agrees" if one["agrees"] else "does NOT agree", one["relative_difference"], one["relative_limit"],
            "" if one["agrees"] else "; do not trust it before the cause is known")
        gates.append({"name": "fidelity", "measured": one["relative_difference"], "limit": one["relative_limit"],
                      "passes": one["agrees"], "text": text})
    return gates


# ---- one function a table: {"title", "header", "rows", "numeric"}, all texts; None where there is nothing to show ----

def figure(value, form="%.2f"):
    """A cell: a dash for None, "from to" for an interval, the form for a float; a text or a count is shown as it is."""
    if isinstance(value, list):
        return " to ".join(form % end for end in value)
    return form % value if isinstance(value, float) else "-" if value is None else str(value)


def ratio(one, other):
    return one / other if one and other else None


def make_table(title, records, *columns):
    """A table of records; a column is (heading, a key for at() or a function of a record, a form for figure())."""
    if not records:
        return None
    rows = [[clean(figure(value(record) if callable(value) else at(record, value), *form)) for _, value, *form in columns]
            for record in records]
    numeric = [all(re.match(r"[-+\d.%e]+$|not recorded$", cell) for cell in cells) for cells in zip(*rows)]
    return {"title": clean(title), "header": [column[0] for column in columns], "rows": rows, "numeric": numeric}


PRECISION, SIZE = ("Precision", lambda row: row["precision"] or UNKNOWN), ("Batch size", "batch_size")


def common(rows, found):
    """What is the same in all rows and stands above the table, and what is not: ([text], [column])."""
    def images(row):
        left_out = ", %d left out" % row["excluded"] if row["excluded"] else ""
        return row["judged"] and "%d of %d labelled%s" % (row["judged"], row["labelled"], left_out)

    def model(row):
        name, sha256 = at(row, "model.weights"), at(row, "model.weights_sha256")
        alike = {at(other, "model.weights_sha256") for other in rows if at(other, "model.weights") == name}
        return "%s (%s)" % (name, sha256[:8]) if name and sha256 and len(alike - {None}) > 1 else name

    above, own = [], []
    for heading, value in (("Engine", lambda row: row["engine"]), ("Device", lambda row: row["device"]),
                           ("Model", model), ("Data set", lambda row: row["dataset"]), ("Images", images)):
        values = {value(row) for row in rows if not row["failed"]} - {None}
        if len(values) > 1:
            own.append((heading, value))
        else:
            above.append("%s: %s" % (heading, clean(next(iter(values), UNKNOWN))))
    runs = {row["runs"] for row in rows if row["runs"]}
    shown = " to ".join("%d" % number for number in sorted({min(runs), max(runs)})) if runs else UNKNOWN
    return above + ["Runs: " + shown, "Date: %s" % clean(found["date"] or UNKNOWN)], own


def result_table(rows, own):
    """The guide's table, with latency beside it and, where the chip is the guide's, its published figure."""
    columns = own + [PRECISION, SIZE, ("Top-1", "top1", "%.2f%%"), ("Top-5", "top5", "%.2f%%")]
    if any((row["chance_top5"] or 0) > 10 for row in rows):
        columns.append(("Top-5 by chance", "chance_top5", "%.2f%%"))
    columns += [("images/s", "images_per_second"), ("mean ms", "latency_ms.mean"), ("median ms", "latency_ms.median"),
                ("P90 ms", "latency_ms.p90"), ("P99 ms", "latency_ms.p99")]
    if any(row["guide_images_per_second"] for row in rows):
        columns += [("guide's images/s", "guide_images_per_second"),
                    ("ratio", lambda row: ratio(row["images_per_second"], row["guide_images_per_second"]))]
    return make_table("Accuracy and performance", rows, *columns)


def interval_table(rows):
    return make_table("95 % intervals", [row for row in rows if row["top1"] is not None or row["runs"]], PRECISION, SIZE,
                      ("Top-1 %", "top1_interval95"), ("Top-5 %", "top5_interval95"),
                      ("images/s", "images_per_second_interval95"), ("runs", "runs"))


def wall_table(rows):
    """From files to results beside the pure figure; the seconds are those the computation waited for the disk, and computed."""
    def resumed(row):
        return row["wall"] and ("yes: times of a resumed run" if row["wall"]["resumed"] else "no")

    copies = any(row["h2d_ms"] is not None for row in rows)
    columns = [("H2D ms", "h2d_ms", "%.3f"), ("D2H ms", "d2h_ms", "%.3f")] if copies else []
    return make_table("End to end: from files to results", rows if copies or any(row["wall"] for row in rows) else [],
                      PRECISION, SIZE, ("pure images/s", "images_per_second"), ("end to end images/s", "wall.images_per_second"),
                      ("seconds", "wall.seconds"), ("reading", "wall.reading"), ("computing", "wall.computing"),
                      ("writing", "wall.writing"), ("resumed", resumed), *columns)


def price_table(rows):
    """What INT8 costs, image by image against the float results."""
    lines = []
    for row in filter(is_int8, rows):
        paired, line = row["paired"], {"batch_size": row["batch_size"], "what": "not compared image by image"}
        if paired:
            verdict = "%s with %.2f%%" % ("passes" if paired["mlperf"]["passes"] else "FAILS", 100 * paired["mlperf"]["ratio"])
            lines.append(dict(line, images=paired["images"], what="Top-1", verdict=verdict, **paired["top1"]))
            line.update(paired["top5"], images=paired["images"], what="Top-5")
        lines.append(line)
    return make_table("What INT8 costs", lines, SIZE, ("Accuracy", "what"), ("images", "images"),
                      ("float", "baseline", "%.2f%%"), ("INT8", "accuracy", "%.2f%%"), ("points lost", "lost"),
                      ("95 % interval", "difference_interval95"), ("right to wrong", "right_to_wrong"),
                      ("wrong to right", "wrong_to_right"), ("McNemar's p", "mcnemar_p", "%.3g"), ("MLPerf (99 %)", "verdict"))


def gain_table(rows):
    """What INT8 gains, and what it was calibrated on."""
    lines = []
    for row, other in int8_pairs(rows):
        told, shared = at(row, "model.calibration"), row["calibration_shared"]
        line = {"row": row, "float": other, "calibrated": UNKNOWN}
        if told:
            line["calibrated"] = "%s, %s images" % (" ".join(filter(None, (told["tool"], told["method"]))), told["images"])
            shared = told["shared"] if shared is None else shared
        line["shared"] = {True: "YES: the accuracy flatters", False: "no", None: UNKNOWN}[shared]
        line["ratio"] = ratio(row["images_per_second"], at(other, "images_per_second"))
        lines.append(line)
    return make_table("What INT8 gains", lines, ("Batch size", "row.batch_size"), ("float images/s", "float.images_per_second"),
                      ("INT8 images/s", "row.images_per_second"), ("times as fast", "ratio"),
                      ("float MB", lambda line: ratio(at(line, "float.model.bytes"), 1e6)),
                      ("INT8 MB", lambda line: ratio(at(line, "row.model.bytes"), 1e6)), ("calibrated by", "calibrated"),
                      ("shares images with the accuracy", "shared"))


def reference_table(rows, reference):
    lines = [dict(row, there=other) for row, other in beside(rows, reference)] if reference else []
    if not lines:
        return None
    first = reference["rows"][0]
    title = "Beside %s (%s on %s, %s)" % (reference["path"], first["engine"] or UNKNOWN, first["device"] or UNKNOWN,
                                          reference["date"] or UNKNOWN)
    return make_table(title, lines, PRECISION, SIZE, ("Top-1", "top1", "%.2f%%"), ("Top-1 there", "there.top1", "%.2f%%"),
                      ("Top-5", "top5", "%.2f%%"), ("Top-5 there", "there.top5", "%.2f%%"), ("images/s", "images_per_second"),
                      ("images/s there", "there.images_per_second"),
                      ("ratio", lambda row: ratio(row["images_per_second"], row["there"]["images_per_second"])))


def gate_table(gates):
    return make_table("Verdicts", gates, ("Verdict", lambda gate: "PASS" if gate["passes"] else "FAIL"), ("What", "text"))


def fidelity_table(fidelities):
    return make_table("Fidelity to another engine on the same inputs", fidelities, ("Results", "result"),
                      ("Reference", lambda one: one["reference_engine"] or UNKNOWN), ("images", "compared"),
                      ("Top-1 agreement", "top1_agreement", "%.2f%%"), ("equal Top-5 sets", "top5_set_agreement", "%.2f%%"),
                      ("cosine, mean", "cosine_mean", "%.6f"), ("cosine, worst", "cosine_worst", "%.6f"),
                      ("largest difference", "absolute_difference", "%.4g"), ("relative", "relative_difference", "%.4g"),
                      ("limit", "relative_limit", "%g"),
                      ("verdict", lambda one: "agrees" if one["agrees"] else "DOES NOT AGREE"))


def different_table(fidelities, names):
    return make_table("Images that differ most", fidelities[0]["most_different"] if fidelities else [], ("Image", "image"),
                      ("relative difference", "relative_difference", "%.4g"), ("cosine", "cosine", "%.6f"),
                      ("Top-1 here", lambda image: class_name(names, image["top1"])),
                      ("Top-1 of the reference", lambda image: class_name(names, image["reference_top1"])))


def class_table(row, names):
    title = "Worst classes, %s at batch size %s" % (at(row, "precision") or "precision " + UNKNOWN, figure(at(row, "batch_size")))
    return make_table(title, at(row, "worst_classes"),
                      ("Class", lambda one: class_name(names, one["class"], one["name"])), ("images", "images"),
                      ("Top-1", "top1", "%.2f%%"), ("Top-5", "top5", "%.2f%%"))


def environment_table(facts, rows):
    lines = list(facts["facts"].items())
    for name, model in facts["models"].items():
        lines += [("%s: %s" % (name, what.replace("sha256", "SHA-256").replace("_", ", ")), str(text))
                  for what, text in model.items() if text]
    lines += [("%s at batch size %s failed" % (row["precision"] or UNKNOWN, figure(row["batch_size"])), row["failed"])
              for row in rows if row["failed"]] + [("does not fit", flaw) for flaw in FLAWS]
    return make_table("Environment", lines, ("What", lambda line: line[0]), ("Value", lambda line: line[1]))


def class_name(names, number, name=None):
    name = names.get(number, name)
    return "%d (%s)" % (number, clean(name, 80)) if name and name != str(number) else "%d" % number


def class_names(path, rows):
    """{class: name}: of --classes, else as the evaluation wrote them, of the first row that has one."""
    names = {}
    for row in reversed(rows):
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

def aligned(table):
    """A table for the terminal: columns padded, numbers to the right."""
    text, lines = "", [table["header"]] + table["rows"]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        cells = [cell.rjust(width) if numeric else cell.ljust(width)
                 for cell, width, numeric in zip(line, widths, table["numeric"])]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def escaped(text):
    """A text that Markdown shows as it is: no HTML, no link, no picture, no code, no new cell."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~!])", r"\\\1", text)
    return text.replace("://", ":\\//").replace("www.", "www\\.")


def markdown(table):
    lines = ["| " + " | ".join(map(escaped, row)) + " |\n" for row in [table["header"]] + table["rows"]]
    lines.insert(1, "|" + "".join("---:|" if numeric else "---|" for numeric in table["numeric"]) + "\n")
    return "".join(lines)


def markdown_report(title, shown, commands):
    text = "# %s\n\n%s\n" % (escaped(title), "".join("- %s\n" % escaped(line) for line in shown["above"]))
    for table in filter(None, shown["tables"].values()):
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
    both = Figure(figsize=(6, 8), dpi=120)  # one above the other: readable on a phone as well
    FigureCanvasAgg(both)
    throughput, latency = both.subplots(2, 1)
    precisions = sorted({row["precision"] or "" for row in rows}, key=lambda precision: (precision == "int8", precision))
    for order, precision in enumerate(precisions):
        some = [row for row in rows if (row["precision"] or "") == precision]
        places = [sizes.index(row["batch_size"]) + 0.08 * (order - (len(precisions) - 1) / 2) for row in some]
        marker, line = "os^"[order % 3], ("-", "--", "-.")[order % 3]
        name = clean(precision or "measured", 20).replace("$", r"\$")
        times = [row["latency_ms"] for row in some]
        last, called = ("p90", "P90") if all(one["p90"] for one in times) else ("max", "slowest")
        lows, highs, how = zip(*[spread(row) for row in some])
        for axes, least, values, most, label in (
                (throughput, lows, [row["images_per_second"] for row in some], highs,
                 "%s, bar: %s" % (name, " or ".join(sorted(set(how))))),
                (latency, [one["min"] or one["median"] for one in times], [one["median"] for one in times],
                 [one[last] or one["median"] for one in times], "%s median, bar: fastest to %s" % (name, called))):
            bars = [[max(0, value - low) for low, value in zip(least, values)],
                    [max(0, high - value) for value, high in zip(values, most)]]
            # Hollow and large beneath small and filled: both are seen where the curves coincide.
            axes.errorbar(places, values, yerr=bars, label=label, fmt=marker + line, markersize=9, color="0",
                          markerfacecolor="none", capsize=8, linewidth=1)
        if any(row["guide_images_per_second"] for row in some):
            throughput.plot(places, [row["guide_images_per_second"] or float("nan") for row in some], "x:", color="0.45",
                            markersize=7, label="the guide's")
        latency.plot(places, [one["mean"] for one in times], marker, color="0.35", markersize=4, label=name + " mean")
        if any(one["p99"] for one in times):
            latency.plot(places, [one["p99"] or float("nan") for one in times], "+x*"[order % 3], color="0.35", markersize=8,
                         label=name + " P99")
    for axes, label in ((throughput, "throughput (images/s)"), (latency, "latency of a batch (ms)")):
        axes.set(xticks=range(len(sizes)), xlim=(-0.5, max(len(sizes), 1) - 0.5), xlabel="batch size (images)", ylabel=label,
                 ylim=(0, 1.1 * axes.get_ylim()[1]))
        axes.set_xticklabels(["%d" % size for size in sizes])
        axes.grid(True, color="0.85")
        if rows:
            axes.legend(fontsize=8)
    throughput.set_title(title.replace("$", r"\$"), fontsize=10)
    both.tight_layout()
    data = io.BytesIO()
    both.savefig(data, format="png")
    return data.getvalue()


def find_pictures(images, folder, rows):
    """{image: path}: in --images DIR, flat or in class folders (there CLASS__NAME as well), else as the manifests say.

    A manifest tells of the files that were judged, or nothing: its SHA-256 is the one that the inference wrote down.
    """
    found = {}
    for entry in sorted(os.listdir(images)) if images else ():
        path = os.path.join(images, entry)
        found.setdefault(entry.split(".")[0], path)
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            for image in (name.split(".")[0], entry + "__" + name.split(".")[0]):
                found.setdefault(image, os.path.join(path, name))
    inputs = [] if images else [row["input"] for row in rows if at(row, "input.path")]
    for path, sha256 in sorted({(told["path"], told["manifest_sha256"]) for told in inputs if told["manifest_sha256"]}):
        for manifest in (os.path.join(path, ".manifest"), os.path.join(folder, os.path.basename(path), ".manifest")):
            data = read_file(manifest, LARGEST_JSON) if os.path.isfile(manifest) else b""
            if hashlib.sha256(data).hexdigest() == sha256:
                try:
                    found.update(json.loads(line)[:2] for line in data.decode("utf-8", "replace").splitlines())
                except (ValueError, RecursionError, TypeError, LookupError):
                    FLAWS.append("the manifest in %s cannot be read; preprocess again" % path)
                break
    return found


def picture(path):
    """A small JPEG of a picture as base64, or None where there is none to show."""
    from PIL import Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown = Image.open(io.BytesIO(read_file(path, LARGEST_PICTURE)), formats=FORMATS)
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


def page(title, shown, commands, png, pictures):
    """report.html, by its template."""
    import jinja2
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.html.jinja")
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    names, gallery = shown["names"], []
    for mistake in at(shown["judged"], "mistakes") or []:
        guesses = [(class_name(names, guess["class"], guess["name"]), "%.2f%%" % (100 * guess["probability"]))
                   for guess in mistake["guesses"]]
        gallery.append({"image": clean(mistake["image"]), "picture": picture(pictures.get(mistake["image"])), "guesses": guesses,
                        "label": class_name(names, mistake["label"], mistake["label_name"])})
    return pages.from_string(read_file(path, LARGEST_PICTURE).decode()).render(
        title=title, above=shown["above"], tables=shown["tables"], chart=base64.b64encode(png).decode(), gallery=gallery,
        commands=commands)


def write_all(folder, files):
    """Write all of {name: bytes} or none: first whole under temporary names, then renamed. Strays of killed runs go."""
    def remove(path):
        with contextlib.suppress(OSError):
            os.unlink(path)

    for stray in files_in(folder, ".report.*.????????.tmp"):
        with contextlib.suppress(OSError), open(os.open(stray, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of a report that is being written somebody holds it
            os.unlink(stray)
    with contextlib.ExitStack() as stack:
        ready = []
        for name, data in files.items():
            path, temporary = os.path.join(folder, name), os.path.join(folder, ".%s.%s.tmp" % (name, os.urandom(4).hex()))
            stack.callback(remove, temporary)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
                file = stack.enter_context(open(descriptor, "wb", 0))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                while data:
                    data = data[file.write(data):]
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            ready.append((temporary, path))
        for temporary, path in ready:
            os.replace(temporary, path)


def require_own(folder):
    """Files named report.* that no report.py wrote are somebody's own, and not overwritten."""
    paths = [os.path.join(folder, name) for name in NAMES]
    there = [path for path in paths if os.path.lexists(path)]
    content = read_json(paths[0])[0] if paths[0] in there else {}
    if there and ("schema" not in content or not isinstance(content.get("rows"), list)):
        fail("%s: is not of report.py's making, for no report.json beside it says so; move it away" % there[-1])


def present(found, rows, reference, slowdown, classes):
    """What the report says: {"above", "tables", "gates", "names", "facts", "judged": the first row with an accuracy}"""
    check_rows(rows, found["stale"], reference)
    fidelities = [one for row, one in found["fidelities"] if row in rows]
    facts, names, (above, own) = environment(found), class_names(classes, rows), common(rows, found)
    gates = verdicts(rows, fidelities, reference, slowdown)
    judged = next((row for row in rows if row["top1"] is not None), None)
    tables = {"results": result_table(rows, own), "gates": gate_table(gates), "price": price_table(rows),
              "gain": gain_table(rows), "reference": reference_table(rows, reference), "intervals": interval_table(rows),
              "wall": wall_table(rows), "fidelity": fidelity_table(fidelities), "different": different_table(fidelities, names),
              "environment": environment_table(facts, rows), "classes": class_table(judged, names)}
    return {"above": above, "tables": tables, "gates": gates, "names": names, "facts": facts, "judged": judged}


def write_report(args):
    """Write the four files; returns what they say."""
    require_own(args.folder)
    found = gather(args.folder, args.dataset, args.failed)
    rows = chosen(args, found["rows"])
    reference = read_reference(args.reference) if args.reference else None
    pictures = find_pictures(args.images, args.folder, rows)
    shown = present(found, rows, reference, args.max_slowdown, args.classes)
    path = os.path.join(args.folder, "commands.sh")
    commands = read_file(path, 1 << 20).decode("utf-8", "replace").splitlines() if os.path.exists(path) else []
    commands = [clean(line, 4000) for line in commands if line.strip()]
    runs = {row["runs"] for row in rows if row["runs"]}
    content = {"schema": SCHEMA, "date": found["date"], "runs": runs.pop() if len(runs) == 1 else None, "rows": rows,
               "environment": shown["facts"], "commands": commands, "reference": reference, "gates": shown["gates"],
               "flaws": FLAWS, "failed": {":".join(map(str, filter(None, key))): why for key, why in args.failed.items()}}
    title = clean("ResNet34 inference with %s" % (rows[0]["engine"] or "an engine that is not recorded"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # matplotlib's, of letters that its font lacks
            png = chart("%s\n%s" % tuple(clean(rows[0][key] or UNKNOWN, 70) for key in ("engine", "device")), rows)
        html = page(title, shown, commands, png, pictures)
    except ImportError as error:
        fail("the report needs matplotlib, jinja2 and Pillow (%s); pip install -r requirements.txt" % error)
    except OSError as error:  # matplotlib's, of its fonts' cache, names no file
        raise OSError(error.errno, error.strerror, error.filename or os.path.join(args.folder, "report.png")) from None
    texts = (json.dumps(content, indent=2) + "\n", markdown_report(title, shown, commands), html)
    write_all(args.folder, dict(zip(NAMES, [text.encode("utf-8", "backslashreplace") for text in texts] + [png])))
    return shown


def parse_args():
    def pattern(form, example, make):
        """A type for argparse: what matches the form, made of the match's groups."""
        def convert(text):
            match = re.match(form + r"\Z", text.strip(), re.DOTALL)
            if not match:
                raise argparse.ArgumentTypeError("%r is not %s" % (text, example))
            return make(*match.groups())
        return convert

    failure = pattern(r"(?:(fp32|fp16|int8):)?([1-9]\d{0,8})=(.+)", "as fp32:8=reason",
                      lambda precision, size, reason: ((precision, int(size)), reason))
    percent = pattern(r"(\d{1,2}(?:\.\d+)?)", "a percentage from 0 to below 100", float)
    numbers = pattern(r"([1-9]\d{0,8}(?:\s+[1-9]\d{0,8})*)", 'as "1 4 8"', lambda text: [int(word) for word in text.split()])
    kinds = pattern(r"((?:fp32|fp16|int8)(?:\s+(?:fp32|fp16|int8))*)", 'as "fp32 int8"',  # fp16 is what an NPU makes of fp32
                    lambda text: sorted({word == "int8" for word in text.split()}))
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
    shown = write_report(args)
    tables, gates = shown["tables"], shown["gates"]
    text = "".join(line + "\n" for line in shown["above"]) + "\n" + aligned(tables["results"])
    for table in filter(None, (tables["price"], tables["gain"], tables["reference"])):
        text += "\n%s\n%s" % (table["title"], aligned(table))
    text += "".join("%s: %s\n" % ("PASS" if gate["passes"] else "FAIL", clean(gate["text"], 600)) for gate in gates)
    if not args.quiet:
        text += "report: %s and .json, .png, .html beside it\n" % clean(os.path.join(args.folder, "report.md"))
    sys.stdout.write(text)
    sys.stderr.write("".join("warning: %s\n" % clean(flaw, 1000) for flaw in FLAWS))
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
