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
# Of any inference, of one without input, and of an evaluation; report.json's rows have just these keys.
OF_RUN = ("engine", "device", "model", "vnni")
OF_SPEED = OF_RUN + ("images_per_second", "images_per_second_interval95", "latency_ms", "h2d_ms", "d2h_ms", "runs",
                     "batch_size_vouched")
OF_ACCURACY = ("labels", "labels_sha256", "input", "judged", "labelled", "excluded", "results", "classes", "labelled_classes",
               "judged_classes", "chance_top5", "top1", "top5", "top1_interval95", "top5_interval95", "published", "real",
               "labels_doubt", "gates", "calibration_shared", "paired", "worst_classes", "mistakes", "wall", "loop")
ROW = OF_SPEED + OF_ACCURACY + ("precision", "batch_size", "dataset", "guide_images_per_second", "fidelity", "failed", "refused")
FAILED_PURE = "its pure inference failed"  # as run_infer.sh says it; of any other failure the accuracy may be an earlier run's
SUMMARY = r"(_summary|/\.summary|/sumary)\.json$"


def at(record, path):
    """The value at "key.key" in nested dictionaries; None where one of them is None or has no such key."""
    for key in path.split("."):
        record = None if record is None else record.get(key)
    return record


def differ(first, second):
    return None not in (first, second) and first != second


def differ_in_engine(first, second):
    """Whether two rows are known to be of different engines; of a version that is not recorded its name tells."""
    engines = [each["engine"] for each in (first, second)]
    if None in engines or UNKNOWN not in "".join(engines):
        return differ(*engines)
    return engines[0].split()[0] != engines[1].split()[0]


def differ_in_model(first, second):
    """Whether two rows are known to be of different models: by the hashes, or where one has none by the names of the .om."""
    hashes = [at(each, "model.sha256") for each in (first, second)]
    return differ(*hashes) if None not in hashes else differ(first["om"], second["om"])


def differ_in_labels(first, second):
    """Whether two rows are known to be judged by different labels; evaluations of before have another hash, the file's."""
    hashes = [each["labels_sha256"] for each in (first, second)]
    return differ(*hashes) and len(set(map(len, hashes))) == 1


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
    """A run's folder. rows: dictionaries with the keys of ROW; summaries, evaluations: of each such file; shown: the summaries
    that the rows are of; read: the paths of what was read besides json_files; warnings: sentences about what does not fit
    together; environment: {what: {value: [summary's name]}}."""

    def __init__(self, folder, perf=(), dataset=None, failed=None, is_wanted=None):
        """is_wanted: whether a (precision, batch size) is to have a row; None: any."""
        self.folder, self.dataset, self.warnings, self.read = folder, dataset, [], set()
        summaries, fidelities, self.evaluations = {}, [], []  # summaries: {real path: path}
        for path in json_files(folder):
            if re.search(SUMMARY, path):
                if is_one(path, r"(result|perf)(_.*)?_summary\.json$", b'"NPU_compute_time"'):
                    summaries[os.path.realpath(path)] = path
            elif is_one(path, r"fidelity(_bs\d+)?\.json$", b'"reference_engine"'):
                fidelities.append(dict(files.read_json(path), path=path))
            elif is_one(path, r"result(_.*)?\.json$", results.TITLE.encode()):
                self.evaluations.append(self._evaluation(path))
        for path in perf:  # a summary that lies elsewhere, or the folder it is of
            summary = results.find_summary(path) if os.path.isdir(path) else path
            summary = summary or fail("%s: has no summary in it or beside it" % path)
            summaries.setdefault(os.path.realpath(summary), summary)
            self.read.add(summary)
        self.summaries = [self._summary(path) for path in summaries.values()]
        self._join(fidelities, failed or {}, is_wanted or (lambda key: True))

    def note(self, text, *values):
        if say(text) % values not in self.warnings:
            self.warnings.append(say(text) % values)

    def _evaluation(self, path):
        content = files.read_json(path)
        with files.as_written(path):
            recipe_of(content, path)
            row = dict(dict.fromkeys(ROW), **content)
            for top in ("top1", "top5"):
                row.update({top: float(content["accuracy"][top]), top + "_interval95": content["interval95"][top]})
            known = content["summary_sha256"]
            return dict(row, path=path, stem=path[:-len(".json")], result=content.get("result"),
                        worst_classes=content["per_class_worst"],
                        known=known if isinstance(known, list) else [known],
                        engine=None if row["engine"] == UNKNOWN else row["engine"], **content["images"])

    def _summary(self, path):
        content, sha256 = results.read_summary(path)
        with files.as_written(path):
            summary = of_ours(content) if results.is_ours(content) else self._of_ais_bench(path, content)
            summary["latency_ms"] = {key: value and float(value) for key, value in summary["latency_ms"].items()}
            summary["pictures"] = {prepared.image_name(info["infiles"][0]): info["image"]
                                   for info in (content.get("filesinfo") or {}).values() if info.get("image")}
            summary.update(path=path, sha256=sha256, name=os.path.relpath(path, self.folder), stem=re.sub(SUMMARY, "", path),
                           images_per_second=float(content["throughput"]))
            if not summary["images_per_second"] > 0:
                raise ValueError("throughput %s" % content["throughput"])
            return dict(dict.fromkeys(ROW + ("machine", "cpus", "npu", "date")), **summary)

    def _of_ais_bench(self, path, content):
        """A summary as ais_bench alone writes it, under the keys of ours; what it does not tell is None."""
        times, info = content["NPU_compute_time"], content.get("filesinfo")
        size, vouched, refused = self._batch_size(path, content)
        latency = {key: times.get(key) for key in ("mean", "median", "p90", "min", "max")}
        latency["p99"] = times.get("percentile(99%)", times.get("P99")) if times["count"] >= inference.P99_FROM else None
        return dict(packages={}, devices=[], loop=1, latency_ms=latency, engine=content.get("engine") or results.OF_AIS_BENCH,
                    om=results.om_of(content), precision=of_name(path)[0], batch_size=size, batch_size_vouched=vouched,
                    refused=refused, runs=int(times["count"]), h2d_ms=at(content, "H2D_latency.mean"),
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
        rows = os.path.getsize(scores) / (4 * next((row["classes"] for row in self.evaluations), 1000)) \
            if os.path.isfile(scores) else 0
        if rows == int(rows) and (2 * rows != size or of_name(model)[1] not in (None, size)):
            said[os.path.basename(scores)] = int(rows)
        self.read |= {record + ".json", scores}
        for source, other in said.items():
            if other and size and other != size:
                return size, False, say("%s: says batch size %d, and so a throughput %g times the true one, but %s is of batch "
                                        "size %d; measure it again") % (os.path.basename(path), size, size / other, source, other)
        return size, not asked and bool(content.get("args")) or size in said.values(), None

    # ---- the rows ----

    def _join(self, fidelities, failed, is_wanted):
        judged = by_key(self._judged(row) for row in self.evaluations)
        timed = join(judged, by_key(summary for summary in self.summaries if summary["pure"]))
        failed = join(set(judged) | set(timed), failed, loose=True)
        keys = sorted(filter(is_wanted, set(judged) | set(timed) | set(failed)),
                      key=lambda key: (key[0] == "int8", key[0] or "", key[1] or 0))
        self.rows = [self._row(key, judged.get(key), timed.get(key), failed.get(key)) for key in keys]
        for fidelity in fidelities:
            of_keys = [key for key in judged if self._is_of(fidelity, judged[key])]
            for row in [row for key, row in zip(keys, self.rows) if key in of_keys]:
                row["fidelity"] = row["fidelity"] or fidelity
            if not of_keys:
                self.note("%s: compares results that no evaluation here is of (of an earlier run, or not judged); it is left "
                          "out, compare again", os.path.basename(fidelity["path"]))
        known = {sha256 for key in keys if key in judged for sha256 in judged[key]["known"]}
        known |= {timed[key]["sha256"] for key in keys if key in timed}
        self.shown = [summary for summary in self.summaries if summary["sha256"] in known]
        self._check()

    def _judged(self, row):
        """An evaluation, with what the summary of the results tells, and whether those results are still here (stale)."""
        here = {summary["sha256"]: summary for summary in self.summaries}
        known, summary = set(row["known"]) - {None}, here.get(row["known"][0], {})
        # Another summary where these results lay tells of another run, also where a copy of theirs is kept elsewhere.
        judged = os.path.basename(os.path.normpath(row["result"] or row["stem"]))
        newer = any(os.path.basename(each["stem"]) == judged and each["sha256"] not in known for each in self.summaries)
        row = dict(row, stale=newer or bool(known - set(here)), wall=summary.get("wall") if len(known) == 1 else None,
                   loop=summary.get("loop"), om=summary.get("om") or om_of(row))
        by_name = dict(zip(("precision", "batch_size"), of_name(row["path"])))
        for key in OF_RUN + ("precision", "batch_size"):
            row[key] = next((each[key] for each in (row, summary, by_name) if each.get(key) is not None), None)
        if row["wall"] and row["loop"] > 1:  # each image once, and every run's time
            row["wall"] = dict(row["wall"], images_per_second=None)
        return row

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
            row.update({what: judged[what] for what in OF_RUN + OF_ACCURACY})
            row["dataset"] = self.dataset or at(row, "input.source") or at(row, "input.path")
            pair = row["paired"]
            if pair and self._is_another_now(pair["baseline"], pair.get("baseline_summary_sha256")):
                row["paired"] = None
                self.note("%s: was paired with float results that are not there any more; that is left out, judge again",
                          os.path.basename(judged["path"]))
            if timed:
                self._require_same(judged, timed)
        if timed and timed["refused"]:
            row["refused"].append(timed["refused"])
        elif timed and not failed:  # of a batch size that failed the performance may be an earlier run's
            row.update({what: timed[what] for what in OF_SPEED if timed[what] is not None})
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
        if differ(judged["device"], timed["device"]):
            self.note("%s: was measured on %s, the accuracy on %s", timed["name"], timed["device"], judged["device"])

    def _check(self):
        """Find what differs between files that should be of one run, and say it."""
        self.environment = {}
        for summary in self.shown:
            versions = dict({"machine": summary["machine"], "cpus": summary["cpus"]}, **summary["packages"])
            for what, value in versions.items():
                if value is not None:
                    self.environment.setdefault(what, {}).setdefault(str(value), []).append(summary["name"])
        for what, values in self.environment.items():
            if len(values) > 1:
                self.note("the stages did not run with one %s: %s; make them again with one", say(what), with_files(values))
        judged = [row for row in self.rows if row["top1"] is not None]
        if any(differ_in_labels(row, judged[0]) for row in judged):
            self.note("the rows were not judged by equal labels, so their accuracies cannot be compared; judge them all again")
        if any(differ_in_images(row, judged[0]) for row in judged):
            self.note("the rows are not all of the same images prepared alike, so their accuracies cannot be compared; infer "
                      "them all on the same files")


def of_ours(content):
    """A summary of an engine of the suite, with its performance under the keys of a row."""
    times, made_from = content["performance"], content["made_from"]
    return dict(content, pure=content["input"] is None, om=om_of(content), refused=None, batch_size_vouched=True,
                loop=made_from.get("loop") or 1, cpus=made_from.get("cpus"), runs=int(times["runs"]),
                images_per_second_interval95=times["interval95"],
                latency_ms={key: times[key + "_ms"] for key in ("mean", "median", "p90", "p99", "min", "max")})


def with_files(values):
    return " / ".join("%s (%s)" % (value, ", ".join(names)) for value, names in values.items())


def differ_in_images(first, second):
    """Whether two rows are known to have been judged on different images: the set prepared, or of as many the contents; or on
    images that were prepared otherwise."""
    keys = ["input.set_hash"] + ["input.images_hash"] * (first["judged"] == second["judged"])
    return any(differ(at(first, key), at(second, key)) for key in keys) or differ_in_recipe(first, second)


def recipe_of(row, path=""):
    """The Recipe of a row's images, or None; exits where it is none, naming the file it was read from (where it is checked)."""
    made_with = at(row, "input.recipe")
    return made_with and recipe.from_json(made_with, path)


def differ_in_recipe(first, second):
    """Whether the images of two rows are known to have been prepared otherwise, dtype and layout aside."""
    return bool(recipe.difference(recipe_of(first), recipe_of(second)))


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


def join(keys, others, loose=False):
    """{key of the row: other}: a precision that is not recorded fits any, unless engine or model are known to differ.

    loose: for failures, which tell int8 from float alone; what is not recorded is float there.
    """
    def fits(row, key, other):
        if loose:
            return key[0] is None or (row[0] == "int8") == (key[0] == "int8")
        return None in (row[0], key[0]) and not differ_in_engine(keys[row], other) and not differ_in_model(keys[row], other)

    joined = {}
    for key, other in others.items():
        found = [row for row in keys if row[1] == key[1] and row not in joined and fits(row, key, other)]
        joined[found[0] if key not in keys and len(found) == 1 else key] = other
    return joined


def spread(row):
    """(lowest, highest, how it is known): between which throughputs a row's true one lies."""
    interval, times, measured = row["images_per_second_interval95"], row["latency_ms"] or {}, row["images_per_second"]
    if interval:
        return interval[0], interval[1], "95 % interval"
    if (row["runs"] or 0) > 1 and times.get("min") and times.get("max"):  # too few runs for more than the two ends
        return measured * times["mean"] / times["max"], measured * times["mean"] / times["min"], "range of the runs"
    return measured, measured, "no spread recorded"
