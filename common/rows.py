"""What lies in a run's folder, joined to rows: one for each precision and batch size; and what of it does not fit together."""
import glob
import os
import re

from common import files, inference, prepared, recipe, results
from common.command import fail
from common.words import say

UNKNOWN = results.NOT_RECORDED
# images/s on one 310P3 in fp16 by batch size, as the guide's table has them.
GUIDE_CHIP, GUIDE = "Ascend310P3", {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}
# The keys of report.json's rows: first what any summary says of its run, then of pure inference, then of an evaluation.
OF_RUN = ("engine", "device", "model", "vnni")
ROW = OF_RUN + (
    "images_per_second", "images_per_second_interval95", "latency_ms", "h2d_ms", "d2h_ms", "runs", "batch_size_vouched",
    "labels", "labels_sha256", "input", "judged", "labelled", "excluded", "results", "classes", "labelled_classes",
    "judged_classes", "chance_top5", "top1", "top5", "top1_interval95", "top5_interval95", "published", "real", "labels_doubt",
    "gates", "calibration_shared", "paired", "worst_classes", "mistakes", "wall", "loop", "precision", "batch_size", "dataset",
    "guide_images_per_second", "fidelity", "failed", "refused")
VERSION = 4  # of what a report is made into; raised when the report of the same files changes
OTHER_IMAGES = {"Contents of the images", "Preprocessing"}  # of the headings of differences(), those of other values
TIMES = ("mean", "median", "p90", "p99", "min", "max")  # of latency_ms
FAILED_PURE = "its pure inference failed"  # as run_infer.sh says it; of any other failure the accuracy may be an earlier run's
SUMMARY = r"(_summary|/\.summary|/sumary)\.json$"


def at(record, path):
    """The value at "key.key" in nested dictionaries; None where one of them is None or has no such key."""
    for key in path.split("."):
        record = None if record is None else record.get(key)
    return record


def differ(first, second, path):
    """Whether two records are known to differ in what lies at a path."""
    values = [at(record, path) for record in (first, second)]
    return None not in values and values[0] != values[1]


def differ_in_engine(first, second):
    """Whether two rows are known to be of different engines; of a version that is not recorded its name tells."""
    engines = [each["engine"] for each in (first, second)]
    if None in engines:
        return False
    if UNKNOWN in "".join(engines):
        engines = [engine.partition(" ")[0] for engine in engines]
    return engines[0] != engines[1]


def differ_in_model(first, second):
    """Whether two rows are known to be of different models: by the hashes, or where one has none by the names of the .om."""
    hashes = [at(each, "model.sha256") for each in (first, second)]
    return differ(first, second, "om" if None in hashes else "model.sha256")


def differences(first, second):
    """The headings of what two rows are known to differ in."""
    labels = [each["labels_sha256"] or "" for each in (first, second)]
    contents = ["input.set_hash"] + ["input.images_hash"] * (first["judged"] == second["judged"])
    found = {"Model": differ(first, second, "model.weights_sha256"), "Images": differ(first, second, "judged"),
             "Engine": differ_in_engine(first, second), "Device": differ(first, second, "device"),
             "Contents of the images": any(differ(first, second, path) for path in contents),
             # Evaluations of before have a hash of another length, the file's.
             "Labels": labels[0] != labels[1] and len(labels[0]) == len(labels[1]),
             "Preprocessing": recipe.difference(recipe_of(first), recipe_of(second))}
    return [heading for heading, differs in found.items() if differs]


def recipe_of(row, path=""):
    """The Recipe of a row's images, or None; exits where it is none, naming the file it was read from (where it is checked)."""
    made_with = at(row, "input.recipe")
    return made_with and recipe.from_json(made_with, path)


def om_of(row):
    """The name of a row's .om, where its model is recorded and is one."""
    path = at(row, "model.path") or ""
    return os.path.basename(path) if path.endswith(".om") else None


def name_of_model(row):
    return row["om"] or "%s (%s)" % (os.path.basename(at(row, "model.path") or UNKNOWN), (at(row, "model.sha256") or "")[:8])


def is_int8(row):
    return row["precision"] == "int8"


def precision_of(row):
    return row["precision"] or say(UNKNOWN)


def of_name(path):
    """Precision and batch size as a file's name tells them: perf_int8_bs8_summary.json -> ("int8", 8)."""
    words = re.split(r"[_.]", os.path.basename(path))
    sizes = [int(word[2:]) for word in words if re.match(r"bs[1-9]\d{0,8}$", word)]
    return next((word for word in words if word in ("fp32", "fp16", "int8")), None), sizes[-1] if sizes else None


def json_files(folder):
    """The JSON files that may be a run's, of the folder and, where a folder in it has no summary beside it, of its parts."""
    found = [path for path in glob.glob(os.path.join(glob.escape(folder), "*.json")) if os.path.basename(path) != "report.json"]
    for entry in os.scandir(folder):
        if entry.is_dir() and entry.name[0] != "." and not os.path.lexists(entry.path + "_summary.json"):
            found += [os.path.join(entry.path, name) for name in os.listdir(entry.path)
                      if re.match(r"(\.summary|sumary|(device|shard).*_summary)\.json$", name)]
    return sorted(found)


def is_one(path, pattern, mark):
    """Whether a JSON is of a stage's making: by its name, or by what every such file has in it. Somebody's own is let be."""
    return bool(re.match(pattern, os.path.basename(path))) or os.path.isfile(path) and mark in files.read(path)


def hash_of(path):
    """The SHA-256 of a file, None where there is none to read."""
    try:
        return files.sha256(files.read(path))
    except OSError:
        return None


class Run:
    """A run's folder. rows: dictionaries with the keys of ROW; summaries: of each such file; shown: those that the rows are of;
    read: the paths of what was read besides json_files; warnings: sentences about what does not fit together; environment:
    {what: {value: [summary's name]}}; different: the headings of differences() among the rows that were judged."""

    def __init__(self, folder, perf=(), dataset=None, failed=None, is_wanted=lambda key: True):
        """failed: {(precision, batch size): reason}; is_wanted: whether such a key is to have a row."""
        self.folder, self.dataset, self.warnings, self.read, self.environment = folder, dataset, [], set(), {}
        summaries, fidelities, evaluations = {}, [], {}  # {real path: path}; the contents; {path: content}
        for path in json_files(folder):
            if re.search(SUMMARY, path):
                if is_one(path, r"(result|perf)(_.*)?_summary\.json$", b'"NPU_compute_time"'):
                    summaries[os.path.realpath(path)] = path
            elif is_one(path, r"fidelity(_bs\d+)?\.json$", b'"reference_engine"'):
                fidelities.append(dict(files.read_json(path), path=path))
            elif is_one(path, r"result(_.*)?\.json$", results.TITLE.encode()):
                evaluations[path] = files.read_json(path)
        for path in perf:  # a summary that lies elsewhere, or the folder it is of
            summary = results.find_summary(path) if os.path.isdir(path) else path
            summary = summary or fail("%s: has no summary in it or beside it" % path)
            summaries.setdefault(os.path.realpath(summary), summary)
            self.read.add(summary)
        self.classes = next((content.get("classes") for content in evaluations.values()), 1000)
        self.summaries = [self._summary(path) for path in summaries.values()]
        judged = by_key(self._evaluation(path, content) for path, content in evaluations.items())
        timed = join(judged, by_key(summary for summary in self.summaries if summary["pure"]))
        self._join(judged, timed, fidelities, failed or {}, is_wanted)
        self._check()

    def note(self, text, *values):
        if say(text) % values not in self.warnings:
            self.warnings.append(say(text) % values)

    # ---- what the files say ----

    def _summary(self, path):
        """A summary, its performance under the keys of a row."""
        content, sha256 = results.read_summary(path)
        with files.as_written(path):
            if not results.is_ours(content):
                content = dict(content, **self._as_ours(path, content))
            times, speed = content["performance"], float(content["throughput"])
            if not speed > 0:
                raise ValueError("throughput %s" % speed)
            summary = dict(dict.fromkeys(ROW + ("machine", "npu", "date")), pure=content["input"] is None, om=om_of(content),
                           batch_size_vouched=True, problem=None)
            summary.update(
                content, path=path, sha256=sha256, name=os.path.relpath(path, self.folder), stem=re.sub(SUMMARY, "", path),
                cpus=content["made_from"].get("cpus"), runs=int(times["runs"]), images_per_second=speed,
                images_per_second_interval95=times["interval95"],
                latency_ms={key: times[key + "_ms"] and float(times[key + "_ms"]) for key in TIMES},
                pictures={prepared.image_name(info["infiles"][0]): info["image"]
                          for info in (content.get("filesinfo") or {}).values() if info.get("image")})
            return summary

    def _as_ours(self, path, content):
        """What a summary as ais_bench alone writes it says, under the keys of ours; what it does not tell is None."""
        times, info = content["NPU_compute_time"], content.get("filesinfo")
        size, vouched, problem = self._batch_size(path, content)
        p99 = times.get("percentile(99%)", times.get("P99")) if times["count"] >= inference.P99_FROM else None
        performance = dict({key + "_ms": times.get(key) for key in TIMES}, p99_ms=p99, runs=times["count"], interval95=None)
        return dict(packages={}, devices=[], made_from={}, input=None, performance=performance, om=results.om_of(content),
                    engine=content.get("engine") or results.OF_AIS_BENCH, precision=of_name(path)[0], batch_size=size,
                    batch_size_vouched=vouched, problem=problem, h2d_ms=at(content, "H2D_latency.mean"),
                    d2h_ms=at(content, "D2H_latency.mean"),
                    pure=any(inference.PURE in os.path.basename(str(path)) for each in info.values() for path in each["infiles"])
                    if info else results.option_of(content, "input", "i") is None)

    def _batch_size(self, path, content):
        """(batch size, whether something vouches for it, why it is refused or None) of ais_bench's pure inference.

        --batchsize only scales the throughput there; without it ais_bench asks the model. What else tells: the .om's record, its
        name, and how many rows of scores (float32, or half the bytes in fp16) the one result holds.
        """
        asked, model = results.option_of(content, "batchsize"), results.om_of(content) or ""
        by_throughput = content["throughput"] * content["NPU_compute_time"]["mean"] / 1000
        near = round(by_throughput) if abs(by_throughput - round(by_throughput)) < 0.01 else 0
        size = int(asked) if asked else near or of_name(path)[1]
        record, scores = os.path.join(self.folder, model), os.path.join(re.sub(SUMMARY, "", path), inference.PURE + "_0.bin")
        said = {model: of_name(model)[1], model + ".json": (files.record_of(record) or {}).get("batch_size")}
        rows = os.path.getsize(scores) / (4 * self.classes) if os.path.isfile(scores) else 0
        if rows == int(rows) and (2 * rows != size or of_name(model)[1] not in (None, size)):
            said[os.path.basename(scores)] = int(rows)
        self.read |= {record + ".json", scores}
        for source, other in said.items():
            if other and size and other != size:
                return size, False, say("%s: says batch size %d, and so a throughput %g times the true one, but %s is of batch "
                                        "size %d; measure it again") % (os.path.basename(path), size, size / other, source, other)
        return size, not asked and bool(content.get("args")) or size in said.values(), None

    def _evaluation(self, path, content):
        """An evaluation, with what the summary of the results tells, and whether those results are still here (stale)."""
        with files.as_written(path):
            recipe_of(content, path)
            known, stem = content["summary_sha256"], path[:-len(".json")]
            known = {sha256 for sha256 in (known if isinstance(known, list) else [known]) if sha256}
            here = {summary["sha256"]: summary for summary in self.summaries}
            summary = next((here[sha256] for sha256 in here if sha256 in known), {})
            # Another summary where these results lay tells of another run, also where a copy of theirs is kept elsewhere.
            judged = os.path.basename(os.path.normpath(content.get("result") or stem))
            newer = any(os.path.basename(each["stem"]) == judged and each["sha256"] not in known for each in self.summaries)
            row = dict(dict.fromkeys(ROW), **content)
            row.update(content["images"], path=path, stem=stem, known=known, stale=newer or not known <= set(here),
                       worst_classes=content["per_class_worst"], om=summary.get("om") or om_of(row),
                       loop=(at(summary, "made_from.loop") or 1) if summary else None,
                       wall=summary.get("wall") if len(known) == 1 else None)
            for top in ("top1", "top5"):
                row.update({top: float(content["accuracy"][top]), top + "_interval95": content["interval95"][top]})
            by_name = dict(zip(("precision", "batch_size"), of_name(path)))
            for key in OF_RUN + ("precision", "batch_size"):
                said = (each.get(key) for each in (content, summary, by_name))
                row[key] = next((value for value in said if value not in (None, UNKNOWN)), None)
            if row["wall"] and row["loop"] > 1:  # each image once, and every run's time
                row["wall"] = dict(row["wall"], images_per_second=None)
            return row

    # ---- the rows ----

    def _join(self, judged, timed, fidelities, failed, is_wanted):
        keys, failures = set(judged) | set(timed), {}
        for failure, reason in failed.items():  # tells int8 from float alone; what is not recorded is float
            alike = [key for key in keys if key[1] == failure[1] and (
                failure[0] is None or (failure[0] == "int8") == (key[0] == "int8"))]
            is_known = failure in keys or len(alike) != 1 or alike[0] in failures
            failures[failure if is_known else alike[0]] = reason
        keys = sorted(filter(is_wanted, keys | set(failures)), key=lambda key: (key[0] == "int8", key[0] or "", key[1] or 0))
        rows = {key: self._row(key, judged.get(key), timed.get(key), failures.get(key)) for key in keys}
        for fidelity in fidelities:
            of_keys = [key for key in judged if self._is_of(fidelity, judged[key])]
            for key in of_keys:
                if key in rows:
                    rows[key]["fidelity"] = rows[key]["fidelity"] or fidelity
            if not of_keys:
                self.note("%s: compares results that no evaluation here is of (of an earlier run, or not judged); it is left "
                          "out, compare again", os.path.basename(fidelity["path"]))
        known = {timed[key]["sha256"] for key in keys if key in timed}
        known = known.union(*[judged[key]["known"] for key in keys if key in judged])
        self.shown = [summary for summary in self.summaries if summary["sha256"] in known]
        self.rows = list(rows.values())

    def _is_another_now(self, folder, known):
        """Whether there is another summary now where those of a comparison (SHA-256, or a list of the parts') were."""
        for path in map(results.summary_path_of, (folder, os.path.join(self.folder, os.path.basename(folder)))):
            if known and os.path.isfile(path):
                self.read.add(path)
                return hash_of(path) not in known
        return False

    def _is_of(self, fidelity, row):
        """Whether a comparison is of the results that were judged: by their summaries, or their folder's name where unknown."""
        known = fidelity.get("summary_sha256"), row["summary_sha256"]
        same_name = os.path.basename(os.path.normpath(fidelity["result"])) == os.path.basename(row["stem"])
        return not row["stale"] and (known[0] == known[1] if all(known) else same_name) and not self._is_another_now(
            fidelity["reference"], fidelity.get("reference_summary_sha256"))

    def _row(self, key, judged, timed, failed):
        """One row, in raw numbers, of an evaluation and a pure inference (or None)."""
        row = dict(dict.fromkeys(ROW), worst_classes=[], mistakes=[], gates=[], failed=failed, refused=[])
        if judged and judged["stale"]:
            row["refused"].append(say("%s: judged results whose summary is not here any more, so it is not shown as this run's; "
                                      "judge those that are here, copy that summary here, or move this file away")
                                  % os.path.basename(judged["path"]))
        elif judged and failed in (None, FAILED_PURE):
            row.update({key: judged[key] for key in ROW}, failed=failed, refused=[])
            row["dataset"] = self.dataset or at(row, "input.source") or at(row, "input.path")
            pair = row["paired"]
            if pair and self._is_another_now(pair["baseline"], pair.get("baseline_summary_sha256")):
                row["paired"] = None
                self.note("%s: was paired with float results that are not there any more; that is left out, judge again",
                          os.path.basename(judged["path"]))
            if timed:
                self._require_same(judged, timed)
        if timed and timed["problem"]:
            row["refused"].append(timed["problem"])
        elif timed and not failed:  # of a batch size that failed the performance may be an earlier run's
            row.update({key: timed[key] for key in ROW if timed[key] is not None})
        row.update(precision=key[0] or (timed or judged or {}).get("precision"), batch_size=key[1])
        if row["images_per_second"] and row["precision"] == "fp16" and is_guides(timed):
            row["guide_images_per_second"] = GUIDE.get(row["batch_size"])
        return row

    def _require_same(self, judged, timed):
        """Exit where accuracy and performance are of two models or engines; warn of two devices."""
        text = "%s: the accuracy at batch size %s is of the %s %s, but the performance in %s is of %s; make both with one"
        if differ_in_engine(judged, timed):
            fail(text % (judged["path"], judged["batch_size"], "engine", judged["engine"], timed["path"], timed["engine"]))
        if differ_in_model(judged, timed):
            models = [name_of_model(each) for each in (judged, timed)]
            fail(text % (judged["path"], judged["batch_size"], "model", models[0], timed["path"], models[1]))
        if judged["engine"] is None:
            self.note("%s: no summary says of which model and engine its results are, so the performance beside it may be of "
                      "another", os.path.basename(judged["path"]))
        if differ(judged, timed, "device"):
            self.note("%s: was measured on %s, the accuracy on %s", timed["name"], timed["device"], judged["device"])

    def _check(self):
        """Find what differs between files that should be of one run, and say it."""
        for summary in self.shown:
            versions = dict({"machine": summary["machine"], "cpus": summary["cpus"]}, **summary["packages"])
            for what, value in versions.items():
                if value is not None:
                    self.environment.setdefault(what, {}).setdefault(str(value), []).append(summary["name"])
        for what, values in self.environment.items():
            if len(values) > 1:
                self.note("the stages did not run with one %s: %s; make them again with one", say(what), with_files(values))
        judged = [row for row in self.rows if row["top1"] is not None]
        self.different = {heading for row in judged for heading in differences(row, judged[0])}
        if "Labels" in self.different:
            self.note("the rows were not judged by equal labels, so their accuracies cannot be compared; judge them all again")
        if self.different & OTHER_IMAGES:
            self.note("the rows are not all of the same images prepared alike, so their accuracies cannot be compared; infer "
                      "them all on the same files")


def with_files(values):
    return " / ".join("%s (%s)" % (value, ", ".join(names)) for value, names in values.items())


def is_guides(summary):
    """Whether a summary is of what the guide's table has: a ResNet34 for 3 x 224 x 224 on one 310P3."""
    known = at(summary, "model.weights_sha256") or at(summary, "model.recipe.crop") == 224
    return bool(summary["device"] == GUIDE_CHIP and len(summary["devices"] or [0]) == 1 and known
                and sorted(at(summary, "model.input.shape") or []) == [3, 224, 224])


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


def join(judged, timed):
    """{key: what was timed}, under the key of the accuracy that it is beside: a precision that is not recorded fits any, unless
    engine or model are known to differ."""
    joined = {}
    for key, summary in timed.items():
        found = [other for other, row in judged.items() if other[1] == key[1] and None in (other[0], key[0])
                 and other not in joined and not differ_in_engine(row, summary) and not differ_in_model(row, summary)]
        joined[found[0] if key not in judged and len(found) == 1 else key] = summary
    return joined


def spread(row):
    """(lowest, highest, how it is known): between which throughputs a row's true one lies."""
    interval, times, measured = row["images_per_second_interval95"], row["latency_ms"] or {}, row["images_per_second"]
    if interval:
        return interval[0], interval[1], "95 % interval"
    if (row["runs"] or 0) > 1 and times.get("min") and times.get("max"):  # too few runs for more than the two ends
        return measured * times["mean"] / times["max"], measured * times["mean"] / times["min"], "range of the runs"
    return measured, measured, "no spread recorded"
