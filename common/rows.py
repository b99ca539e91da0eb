"""What lies in a run's folder, joined to rows: one for each precision and batch size; and what of it does not fit together."""
import glob
import json
import os
import re

from common import files, inference, prepared, results
from common.command import fail
from common.words import say

TITLE = "Overall statistical evaluation"  # the ModelZoo's, of every result.json
UNKNOWN = results.NOT_RECORDED
# images/s on one 310P3 in fp16 by batch size, as the guide's table has them.
GUIDE_CHIP, GUIDE = "Ascend310P3", {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
LATENCIES = ("mean", "median", "p90", "p99", "min", "max")
RUN = ("engine", "device", "precision", "batch_size", "model", "input")
ROW = RUN + ("dataset", "labels", "labels_sha256", "judged", "labelled", "excluded", "results", "classes", "chance_top5", "top1",
             "top5", "top1_interval95", "top5_interval95", "published", "real", "labels_doubt", "images_per_second",
             "images_per_second_interval95", "latency_ms", "h2d_ms", "d2h_ms", "runs", "wall", "loop", "batch_size_vouched", "vnni",
             "guide_images_per_second", "gates", "calibration_shared", "fidelity", "paired", "worst_classes", "mistakes", "failed",
             "refused")


def at(record, path):
    """The value at "key.key" in nested dictionaries; None where one of them is None or has no such key."""
    for key in path.split("."):
        record = None if record is None else record.get(key)
    return record


def positive(value):
    """A figure that a rate or a time can be, as a float; ValueError for others."""
    if type(value) not in (int, float) or not 0 < value < 1e15:
        raise ValueError("%r is no such figure" % (value,))
    return float(value)


def is_int8(row):
    return row["precision"] == "int8"


def precision_of(row):
    return row["precision"] or say(UNKNOWN)


def of_name(path):
    """Precision and batch size as a file's name tells them: perf_int8_bs8_summary.json -> ("int8", 8)."""
    words = re.split(r"[_.]", os.path.basename(path))
    sizes = [int(word[2:]) for word in words if re.match(r"bs[1-9]\d{0,8}$", word)]
    return next((word for word in words if word in ("fp32", "fp16", "int8")), None), sizes[0] if sizes else None


def option_of(words, *names):
    """The value of an option in a command line's words, or None: --batchsize 8, --batch-size=8."""
    for word, following in zip(words, words[1:] + [None]):
        name, equals, value = word.partition("=")
        if name.startswith("-") and re.sub("[-_]", "", name) in names:
            return value if equals else following
    return None


# ---- what lies there ----

def json_files(folder):
    """The JSON files that may be a run's, of the folder and, where a folder in it has no summary beside it, of its parts."""
    found = [path for path in glob.glob(os.path.join(glob.escape(folder), "*.json")) if os.path.basename(path) != "report.json"]
    for entry in os.scandir(folder):
        if entry.is_dir() and entry.name[0] != "." and not os.path.lexists(entry.path + "_summary.json"):
            found += [os.path.join(entry.path, name) for name in os.listdir(entry.path)
                      if name in (".summary.json", "sumary.json") or re.match(r"(device|shard).*_summary\.json$", name)]
    return sorted(found)


def hash_of(path):
    """The SHA-256 of a file, None where there is none to read."""
    try:
        return files.sha256(files.read(path))
    except OSError:
        return None


class Run:
    """A run's folder. rows: dictionaries with the keys of ROW; summaries and evaluations: of each such file likewise; read: the
    paths of all that was read; warnings: sentences about what does not fit together."""

    def __init__(self, folder, perf=(), dataset=None, failed=None):
        if not os.path.isdir(folder):
            fail("%s: is no folder; give the one with the results" % folder)
        self.folder, self.dataset, self.warnings, self.read, self.summaries = folder, dataset, [], set(), []
        self.evaluations, fidelities = [], []
        paths = json_files(folder)
        for path in paths:
            if self._is_one(path, r"fidelity.*\.json$", b""):
                fidelities.append(self._fidelity(path))
            elif self._is_one(path, r"result(_.*)?\.json$", TITLE.encode()) and not path.endswith("_summary.json"):
                self.evaluations.append(self._evaluation(path))
        for path in paths + [self._named(path) for path in perf]:
            if re.search(r"(_summary|\.summary|sumary)\.json$", path) and (
                    path not in paths or self._is_one(path, r"(result|perf)(_.*)?_summary\.json$", b'"NPU_compute_time"')):
                self.summaries.append(self._summary(path))
        self._join(fidelities, failed or {})
        self._check_packages()
        self._check_images()

    def warn(self, text, *values):
        self.warnings.append(say(text) % values)

    def _is_one(self, path, pattern, mark):
        """Whether a JSON is of a stage's making: by its name, or by what every such file has in it. Others' are let be."""
        return bool(re.match(pattern, os.path.basename(path)) or mark and os.path.isfile(path) and mark in files.read(path))

    def _named(self, path):
        """The summary that --perf names, by itself or by its folder."""
        if os.path.isdir(path):
            return results.find_summary(path, os.listdir(path)) or fail("%s: has no summary in it or beside it" % path)
        return path

    def _record(self, path):
        self.read.add(path)
        content = files.read_json(path, 1 << 29)
        return content

    def _fidelity(self, path):
        content = self._record(path)
        with files.as_written(path):
            for key in ("top1_agreement", "top5_set_agreement", "cosine_mean", "cosine_worst", "absolute_difference",
                        "relative_difference", "relative_limit"):
                content[key] = float(content[key])
            return dict({key: content.get(key) for key in ("engine", "reference_engine", "precision", "summary_sha256",
                                                           "reference_summary_sha256")},
                        path=path, **{key: content[key] for key in (
                            "result", "reference", "compared", "top1_agreement", "top5_set_agreement", "cosine_mean",
                            "cosine_worst", "absolute_difference", "relative_difference", "relative_limit", "agrees",
                            "most_different")})

    def _evaluation(self, path):
        content = self._record(path)
        with files.as_written(path):
            if content["title"] != TITLE:
                raise ValueError("title %s" % content["title"])
            row = {key: content[key] for key in RUN + ("labels", "labels_sha256", "summary_sha256", "classes", "chance_top5",
                                                       "calibration_shared", "mistakes", "paired", "gates")}
            row.update({key: content.get(key) for key in ("published", "real", "labels_doubt")}, path=path,
                       worst_classes=content["per_class_worst"], stem=path[:-len(".json")], **content["images"])
            for top in ("top1", "top5"):
                row[top] = float(content["accuracy"][top])
                row[top + "_interval95"] = [float(end) for end in content["interval95"][top]]
            row["engine"] = None if row["engine"] == UNKNOWN else row["engine"]
            return row

    def _summary(self, path):
        content, sha256 = results.read_summary(path)
        self.read.add(path)
        with files.as_written(path):
            summary = self._of_ours(content) if results.is_ours(content) else self._of_ais_bench(path, content)
            summary["images"] = {name: image for info in (content.get("filesinfo") or {}).values() if info.get("image")
                                 for name in map(prepared.image_name, info["infiles"]) for image in [info["image"]]}
            summary["images_per_second"] = positive(content["throughput"])
            summary["latency_ms"] = {key: value and positive(value) for key, value in summary["latency_ms"].items()}
        return dict(summary, path=path, sha256=sha256, name=os.path.relpath(path, self.folder),
                    stem=re.sub(r"_summary\.json$|/\.summary\.json$|/sumary\.json$", "", path))

    def _of_ours(self, content):
        times, made_from = content["performance"], content["made_from"]
        summary = {key: content[key] for key in RUN + ("devices", "machine", "vnni", "npu", "date", "h2d_ms", "d2h_ms", "outputs")}
        return dict(summary, pure=content["input"] is None, packages=dict(content["packages"]), refused=None,
                    batch_size_vouched=True, loop=made_from.get("loop") or 1, cpus=made_from.get("cpus"),
                    runs=int(times["runs"]), images_per_second_interval95=times["interval95"],
                    latency_ms={key: times[key + "_ms"] for key in LATENCIES}, wall=content["wall"] and dict(content["wall"]))

    def _of_ais_bench(self, path, content):
        """A summary as ais_bench alone writes it, under the same keys; what it does not tell is None."""
        times, info, words = content["NPU_compute_time"], content.get("filesinfo"), content.get("args") or []
        words = words if isinstance(words, list) else words.split()
        pure = "pure_infer" in json.dumps(info) if info else option_of(words, "input", "i") is None
        size, vouched, refused = self._batch_size(path, words, positive(content["throughput"]) * positive(times["mean"]) / 1000)
        latency = {key: times.get(key) for key in LATENCIES}
        latency["p99"] = times.get("percentile(99%)", times.get("P99")) if times["count"] >= inference.P99_FROM else None
        copies = {key.lower() + "_ms": at(content, key + "_latency.mean") for key in ("H2D", "D2H")}
        return dict(dict.fromkeys(ROW + ("machine", "npu", "date", "outputs", "cpus")), packages={}, devices=[], pure=pure,
                    engine=content.get("engine"), precision=of_name(path)[0], batch_size=size, batch_size_vouched=vouched,
                    refused=refused, runs=int(times["count"]), latency_ms=latency, loop=1, input=None if pure else {}, **copies)

    def _batch_size(self, path, words, by_throughput):
        """(batch size, whether something vouches for it, why it is refused or None) of ais_bench's pure inference.

        --batchsize only scales the throughput there; without it ais_bench asks the model. What else tells: the .om's record, its
        name, and how many rows of scores (float32, or half the bytes in fp16) the one result holds.
        """
        asked, model = option_of(words, "batchsize"), option_of(words, "model", "m") or ""
        near = round(by_throughput) if abs(by_throughput - round(by_throughput)) < 0.01 else 0
        size = int(asked) if asked and asked.isdigit() else near or of_name(path)[1]
        said = {}
        for om in filter(None, (model, os.path.join(self.folder, os.path.basename(model)))):
            record = files.record_of(om) or {}
            if record:
                self.read.add(om + ".json")
                said[os.path.basename(om) + ".json"] = record.get("batch_size")
        said[os.path.basename(model)] = of_name(model)[1]
        scores = os.path.join(re.sub(r"_summary\.json$", "", path), inference.PURE + "_0.bin")
        values = os.path.getsize(scores) / 4 if os.path.isfile(scores) else 0
        classes = next((row["classes"] for row in self.evaluations), 1000)
        if values:
            self.read.add(scores)
        if values and values % classes == 0 and (values * 2 != size * classes or of_name(model)[1] not in (None, size)):
            said[say("the result %s") % os.path.basename(scores)] = int(values // classes)
        for source, other in said.items():
            if other and size and other != size:
                return size, False, say("%s: says batch size %d, and so a throughput %g times too high or low, but %s is of batch "
                                        "size %d; measure it again") % (os.path.basename(path), size, size / other, source, other)
        return size, not asked and bool(words) or size in said.values(), None

    # ---- the rows ----

    def _join(self, fidelities, failed):
        judged = by_key(self._judged(row) for row in self.evaluations)
        timed = join(judged, by_key(dict(summary) for summary in self.summaries if summary["pure"]))
        failed = join(set(judged) | set(timed), failed, loose=True)
        keys = sorted(set(judged) | set(timed) | set(failed), key=lambda key: (key[0] == "int8", key[0] or "", key[1] or 0))
        self.rows = [self._row(key, judged.get(key), timed.get(key), failed.get(key)) for key in keys]
        for fidelity in fidelities:
            rows = [row for key, row in zip(keys, self.rows) if key in judged and self._is_of(fidelity, judged[key])]
            for row in rows:
                row["fidelity"] = row["fidelity"] or fidelity
            if not rows:
                self.warn("%s: compares results that no evaluation here is of (of an earlier run, or not judged); it is left out, "
                          "compare again", os.path.basename(fidelity["path"]))

    def _are_here(self, hashes, stem):
        """Whether results of these summaries (SHA-256, a list of the parts') still lie in the folder, and under stem no others."""
        hashes = hashes if isinstance(hashes, list) else [hashes] if hashes else []
        beside = [summary["sha256"] for summary in self.summaries if summary["stem"] == stem]
        return not set(hashes) - {summary["sha256"] for summary in self.summaries} and not set(beside) - set(hashes)

    def _judged(self, row):
        """An evaluation, with what the summary of the results tells; without its figures where those results are gone."""
        name, own = os.path.basename(row["path"]), row["summary_sha256"]
        some = [summary for summary in self.summaries if summary["sha256"] == (own[0] if isinstance(own, list) else own)]
        beside = [summary for summary in self.summaries if summary["stem"] == row["stem"] and not summary["pure"]]
        summary = (some + beside + [{}])[0]
        row = dict(row, stale=not self._are_here(own, row["stem"]), vnni=summary.get("vnni"), loop=summary.get("loop"),
                   wall=summary.get("wall") if isinstance(own, str) else None)
        told = dict(zip(("precision", "batch_size"), of_name(row["path"])))
        for key in ("engine", "device", "precision", "batch_size"):
            row[key] = row[key] or summary.get(key) or told.get(key)
        if row["stale"]:
            row["refused"] = say("%s: judged results that are not here any more, so it is not shown as this run's; judge those that "
                                 "are here, or move it away") % name
        if row["wall"] and row["loop"] > 1:  # each image once, and every run's time
            row["wall"] = dict(row["wall"], images_per_second=None)
        before = row["paired"] and row["paired"].get("baseline_summary_sha256")
        if before and not self._are_here(before, os.path.join(self.folder, os.path.basename(row["paired"]["baseline"]))):
            row["paired"] = None
            self.warn("%s: was paired with float results that are not here any more; that is left out, judge again", name)
        return row

    def _is_of(self, fidelity, row):
        """Whether a comparison is of the results that were judged: by their summaries, or their folder's name where unknown."""
        reference = fidelity["reference_summary_sha256"]
        if row["stale"] or reference and {each["sha256"] for each in self.summaries if each["stem"] == os.path.join(
                self.folder, os.path.basename(fidelity["reference"]))} - set(reference if isinstance(reference, list) else [reference]):
            return False
        if fidelity["summary_sha256"] and row["summary_sha256"]:
            return fidelity["summary_sha256"] == row["summary_sha256"]
        return os.path.basename(os.path.normpath(fidelity["result"])) == os.path.basename(row["stem"]) and (
            None in (fidelity["engine"], row["engine"]) or fidelity["engine"] == row["engine"])

    def _row(self, key, judged, timed, failed):
        """One row, in raw numbers, of an evaluation and a pure inference (or None)."""
        row = dict(dict.fromkeys(ROW), worst_classes=[], mistakes=[], gates=[], failed=failed)
        row["refused"] = [each["refused"] for each in (judged, timed) if each and each.get("refused")]
        if judged and not judged["stale"]:
            row.update({what: judged[what] for what in ROW if what in judged and what != "refused"})
            row["dataset"] = self.dataset or at(row, "input.source") or at(row, "input.path")
            self._require_same(key, judged, timed)
        if timed and not failed and not timed["refused"]:  # of a batch size that failed the performance may be an earlier run's
            row.update({what: timed[what] for what in (
                "engine", "device", "model", "h2d_ms", "d2h_ms", "runs", "images_per_second", "images_per_second_interval95",
                "latency_ms", "batch_size_vouched", "vnni") if timed[what] is not None})
        row.update(precision=key[0] or (timed or judged or {}).get("precision"), batch_size=key[1])
        if row["images_per_second"] and row["precision"] == "fp16" and is_guides(timed):
            row["guide_images_per_second"] = GUIDE.get(row["batch_size"])
        return row

    def _require_same(self, key, judged, timed):
        """Exit where accuracy and performance are of two models or engines; warn of two devices."""
        for what in ("engine", "precision", "model.sha256", "device") if timed else ():
            first, second = at(judged, what), at(timed, what)
            if None in (first, second) or first == second or UNKNOWN in first:
                continue
            if what != "device":
                fail("%s: the accuracy at batch size %s is of the %s %s, but the performance in %s is of %s; make both with one"
                     % (judged["path"], key[1], what.split(".")[0], first, timed["path"], second))
            self.warn("%s: was measured on %s, the accuracy on %s", timed["name"], second, first)

    # ---- what does not fit together ----

    def _check_packages(self):
        """The machine, the CPUs and the packages of all summaries: {what: {value: [file]}} and a warning where there are two."""
        self.environment = {}
        for summary in self.summaries:
            told = dict(summary["packages"], machine=summary["machine"], cpus=summary["cpus"])
            for what, value in [("machine", told.pop("machine")), ("cpus", told.pop("cpus"))] + list(told.items()):
                if value is not None:
                    self.environment.setdefault(what, {}).setdefault(str(value), []).append(summary["name"])
        for what, values in self.environment.items():
            if len(values) > 1:
                self.warn("the stages did not run with one %s: %s; make them again with one", say(what), with_files(values))

    def _check_images(self):
        judged = [row for row in self.rows if row["top1"] is not None]
        if len({row["labels_sha256"] for row in judged} - {None}) > 1:
            self.warn("the rows were not judged by equal labels, so their accuracies cannot be compared; judge them all again")
        if any(differ_in_images(judged[0], row) for row in judged[1:]):
            self.warn("the rows are not all of the same images, so their accuracies cannot be compared; infer them all on the same "
                      "files")


def with_files(values):
    return " / ".join("%s (%s)" % (value, ", ".join(names)) for value, names in values.items())


def differ_in_images(first, second):
    """Whether two rows are known to have been judged on different images: the set prepared, or of as many the contents."""
    pairs = [(at(first, "input.set_hash"), at(second, "input.set_hash"))]
    if first["judged"] == second["judged"]:
        pairs.append((at(first, "input.images_hash"), at(second, "input.images_hash")))
    return first["judged"] is not None and any(None not in pair and pair[0] != pair[1] for pair in pairs)


def is_guides(summary):
    """Whether a summary is of what the guide's table has: a ResNet34 for 3 x 224 x 224 on one 310P3."""
    model = summary["model"] or {}
    known = model.get("weights_sha256") or at(model, "recipe.crop") == 224
    return bool(summary["device"] == GUIDE_CHIP and len(summary["devices"] or [0]) == 1 and known
                and sorted(at(model, "input.shape") or []) == [3, 224, 224])


def by_key(records):
    """{(precision, batch size): record}; two of one key cannot be told apart, so they are refused."""
    found = {}
    for record in records:
        key = record["precision"], record["batch_size"]
        if key in found:
            fail("%s: is of the same precision and batch size as %s; move one of them away" % (record["path"], found[key]["path"]))
        found[key] = record
    return found


def join(keys, others, loose=False):
    """{key of the row: other}: what is not recorded fits any; loosely fp32 fits fp16, which an NPU makes of it."""
    joined = {}
    for key, other in others.items():
        fits = [row for row in keys if row[1] == key[1] and row not in joined and (
            None in (row[0], key[0]) or loose and (row[0] == "int8") == (key[0] == "int8"))]
        joined[fits[0] if key not in keys and len(fits) == 1 else key] = other
    return joined


def spread(row):
    """(lowest, highest, how it is known): between which throughputs a row's true one lies."""
    interval, times, measured = row["images_per_second_interval95"], row["latency_ms"], row["images_per_second"]
    if interval:
        return interval[0], interval[1], "95 % interval"
    if (row["runs"] or 0) > 1 and times["min"] and times["max"]:  # too few runs for more than the two ends
        return measured * times["mean"] / times["max"], measured * times["mean"] / times["min"], "range of %d runs" % row["runs"]
    return measured, measured, "no spread recorded"
