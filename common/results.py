"""A folder of results: what lies in it, what its summary says, and which images two of them share.

NAME_0.txt (.bin, .npy) an image, as ais_bench names them, in the folder, in device*/ or in shardK_of_N/ folders; beside each of
these DIRNAME_summary.json, ais_bench's keys and ours. publishing.py writes all that; this reads it.
"""
import collections
import os
import re

from common import files, recipe, scores
from common.command import fail, one_line
from common.images import key as image_key

SCHEMA = 2  # of a summary
TITLE = "Overall statistical evaluation"  # of the ModelZoo's JSON of an accuracy, which other tools read
NOT_RECORDED = "not recorded"
OF_AIS_BENCH = "ais_bench (version not recorded)"  # of what ais_bench alone wrote
MOST_BYTES = 1 << 26  # of one image's scores
RESULT = re.compile(r"(.+)_(0|[1-9][0-9]*)\.(txt|bin|npy)", re.S)
SHARD = re.compile(r"shard([1-9][0-9]{0,5})_of_([1-9][0-9]{0,5})")
AGAIN = "; run the inference again"
# The summary's keys that say what a run was, and go into result.json, with their types; None where ais_bench alone wrote it.
RUN_KEYS = {"engine": str, "device": str, "precision": str, "batch_size": int, "model": dict, "input": dict, "outputs": list,
            "packages": dict, "probabilities": bool}

# A folder with results. shard: [K, N] or None; summary: the object or None; sha256: of the summary
Part = collections.namedtuple("Part", "path shard summary summary_path sha256")
# The first output of an image. hash: XXH3-128, stat: files.stat_of, image: as prepared.Input; each None where not recorded
Result = collections.namedtuple("Result", "name path outfmt hash stat image")


# ---- summaries ----

def summary_path_of(folder):
    folder = os.path.abspath(folder) if os.path.basename(folder) in ("", ".", "..") else folder
    return folder + "_summary.json"


def read_summary(path):
    """(the object in a summary, its SHA-256), ours or ais_bench's own; ours has the key "schema"."""
    data = files.read(path, 1 << 29)
    summary = files.parse_json(data, path)
    with files.as_written(path):
        if summary.get("schema", SCHEMA) != SCHEMA:
            fail("%s: was written by another version of the suite%s" % (path, AGAIN))
        if "schema" in summary:
            for key, kind in dict(RUN_KEYS, made_from=dict, performance=dict, filesinfo=dict).items():
                if not isinstance(summary[key], (kind, type(None))):
                    raise TypeError("%s is no %s" % (key, kind.__name__))
    return summary, files.sha256(data)


def option_of(summary, *names):
    """The value of an option in the command line that a summary tells, or None: --batchsize 8, --batch-size=8."""
    words = summary.get("args") or []
    words = words if isinstance(words, list) else words.split()
    for word, following in zip(words, words[1:] + [None]):
        name, equals, value = word.partition("=")
        if name.startswith("-") and re.sub("[-_]", "", name) in names:
            return value if equals else following
    return None


def is_ours(summary):
    return bool(summary) and "schema" in summary


def outfiles(summary):
    """{file name: (XXH3-128, stat_of, image)} of a summary's results; (None, None, None) where ais_bench alone wrote it."""
    listed = {}
    for info in (summary.get("filesinfo") or {}).values():
        hashes = info.get("hashes") or [[None, None]] * len(info["outfiles"])
        for path, (content, status) in zip(info["outfiles"], hashes):
            listed[os.path.basename(path)] = content, status, info.get("image")
    return listed


def find_summary(folder):
    """Path of a folder's summary, or None: as a kill amid publishing leaves it, beside the folder, as old ais_bench's."""
    paths = os.path.join(folder, ".summary.json"), summary_path_of(folder), os.path.join(folder, "sumary.json")
    return next(filter(os.path.lexists, paths), None)


# ---- the folder ----

class Results:
    """All results in a folder, of one run's making.

    files: {image name: Result} of the first outputs; parts: the Parts that hold them; run: the summary's RUN_KEYS; dtype (a name)
    and classes: None where nothing is recorded; sha256: of the summary, a list where there are several, None where there is none;
    shards: how many, or None; weights: SHA-256 of those that the model was exported of, recipe: the images' Recipe, each or None.
    """

    def __init__(self, folder):
        self.folder = os.path.normpath(folder)
        self.parts, self.files, found = [], {}, []
        self._open(self.folder, None, found)
        if not found:
            fail("%s: holds no results (looked for NAME_0.txt, .bin and .npy there, in device*/ and shardK_of_N/)" % folder)
        require_whole_shards(folder, [part.shard for part in self.parts])
        folders = {result.path.rpartition(os.sep)[0] for result in found}
        if self.folder in folders and len(folders) > 1:
            fail("%s: holds results and, beside them, %s; remove the stale ones" % (folder, min(folders - {self.folder})))
        self._require_equal_runs()
        for result in found:
            other = self.files.setdefault(result.name, result)
            if other is not result:
                folders = {os.path.basename(os.path.dirname(each.path)) for each in (other, result)}
                of_devices = len(folders) == 2 and all(name.startswith("device") for name in folders)
                fail("%s and %s: are results of the same image; %s" % (other.path, result.path, "each device made all images, as "
                     "ais_bench divides them only with --divide-input" + AGAIN if of_devices else "remove the stale one"))
            if result.outfmt != found[0].outfmt:
                fail("%s: is no .%s as %s, so of another run; remove the stale ones"
                     % (result.path, found[0].outfmt.lower(), found[0].path))
        first, hashes = self.parts[0].summary or {}, [part.sha256 for part in self.parts]
        self.sha256 = hashes if len(hashes) > 1 and hashes[0] else hashes[0]
        self.run, shard, self.outfmt = recorded(self.parts[0]), self.parts[0].shard, found[0].outfmt
        self.shards = shard and shard[1]
        self.weights = (self.run["model"] or {}).get("weights_sha256")
        made_with = (self.run["input"] or {}).get("recipe")
        self.recipe = recipe.from_json(made_with, self.parts[0].summary_path) if made_with else None
        self.dtype = self.classes = self.probabilities = self.background = None
        if is_ours(first):
            with files.as_written(self.parts[0].summary_path):
                output = first["outputs"][0]
                self.dtype, [self.classes] = scores.DTYPES[scores.DTYPES.index(output["dtype"])], output["shape"]
                self.probabilities = bool(first["probabilities"])
            if not all(part.summary["input"] for part in self.parts):
                fail("%s: is of pure inference, on zeros; there is nothing to judge" % folder)
        self._join_parts()

    def _open(self, path, shard, found):
        """Append a Part for a folder and for each device*/ and shardK_of_N/ in it, and their results to found."""
        names = sorted(os.listdir(path))
        summary_path, summary, sha256, listed = find_summary(path), None, None, None
        if summary_path:
            summary, sha256 = read_summary(summary_path)
            with files.as_written(summary_path):
                listed = outfiles(summary) if summary.get("filesinfo") is not None else None
        here = [name for name in names if name[0] != "." and name.rpartition(".")[2] in ("txt", "bin", "npy")]
        name = min(set(here) ^ set(here if listed is None else listed), default=None)
        if name is not None:
            fail("%s: %s %s%s" % (os.path.join(path, name), "is of another run, it is not listed in" if name in here
                                  else "is missing, it is listed in", summary_path, AGAIN))
        if here or summary is not None:
            self.parts.append(Part(path, shard, summary, summary_path, sha256))
        for name in here:
            match = RESULT.fullmatch(name)
            if not match:
                fail("%s: is not named like a result, NAME_0.%s" % (os.path.join(path, name), name.rpartition(".")[2]))
            if match.group(2) == "0":
                recorded = (listed or {}).get(name, (None, None, None))
                found.append(Result(match.group(1), path + os.sep + name, match.group(3).upper(), *recorded))
        for name in [name for name in names if name.startswith(("device", "shard"))]:
            match = SHARD.fullmatch(name)
            if (match or name.startswith("device")) and os.path.isdir(os.path.join(path, name)):
                self._open(os.path.join(path, name), [int(text) for text in match.groups()] if match else shard, found)
            elif re.fullmatch("(device|shard).*_summary.json", name) and name[:-len("_summary.json")] not in names:
                fail("%s: its results are missing%s" % (os.path.join(path, name), AGAIN))

    def _require_equal_runs(self):
        """The parts must be of one run: everything but the device, the times and the share of the images."""
        first = self.parts[0]
        for part in self.parts:
            theirs = run_of(part)
            for key, ours in run_of(first).items():
                if ours != theirs[key]:
                    fail("%s and %s: are of different %s (%s, %s); judge results of one run only, each ended"
                         % (first.path, part.path, key, str(ours)[:90], str(theirs[key])[:90]))

    def _join_parts(self):
        """What several parts say of the device and the input, as one."""
        inputs = [part.summary["input"] for part in self.parts if is_ours(part.summary)]
        if len(self.parts) > 1 and inputs:
            self.run["device"] = "; ".join(sorted({part.summary["device"] or NOT_RECORDED for part in self.parts}))
            self.run["input"] = dict(inputs[0], path=os.path.dirname(inputs[0]["path"]), images=len(self.files))

    def spell_as(self, other):
        """Call the images what another Results calls them, where a Mac's spelling of a name is all that differs."""
        theirs = {image_key(name): name for name in other.files if name not in self.files}
        self.files = {name if name in other.files else theirs.get(image_key(name), name): result
                      for name, result in self.files.items()}

    def input_of(self, names):
        """What the summary says of the input, and the identity of these images, by names and contents, where that is recorded."""
        pairs = [(name, self.files[name].image) for name in names]
        images_hash = None if any(image is None for _, image in pairs) else files.set_hash(pairs)
        return self.run["input"] and dict(self.run["input"], images_hash=images_hash)

    def scores(self, name):
        """The scores of an image as scores.decode gives them; exits where the file is not what the inference wrote."""
        result = self.files[name]
        data = files.read(result.path, MOST_BYTES)
        if result.hash and files.xxh(data) != result.hash:
            fail("%s: is not what the inference wrote there (another run's, or damaged)%s" % (result.path, AGAIN))
        try:
            values = scores.decode(data, result.outfmt, self.dtype)
        except ValueError as error:
            fail("%s: %s%s" % (result.path, one_line(error, 200), AGAIN))
        if self.classes not in (None, values.size):
            fail("%s: holds %d scores, not %d as %s: it is of another run, or damaged%s" % (
                result.path, values.size, self.classes, "its summary says" if result.hash else "others", AGAIN))
        return values

    def find_format(self, least=2, dtype=None):
        """Make sure of dtype, classes and probabilities where no summary of ours tells them, by results spread over all; and of
        background: 1 where class 0 is taken for a background class.

        least: how many classes there must be; dtype: what the user says of BIN results of which nothing is recorded.
        """
        names = list(self.files)
        some = names[::max(1, len(names) // 8)]
        if self.outfmt == "BIN" and self.dtype is None:
            rows = [files.read(self.files[name].path, MOST_BYTES) for name in some]
            possible = [dtype] if dtype else scores.possible_dtypes(rows, least)
            if len(possible) > 1:
                fail("%s: no summary says what it holds, and it may be %s; say which: --dtype %s"
                     % (self.folder, " or ".join(possible), possible[0]))
            self.dtype = possible[0]
        rows = [self.scores(name) for name in some]
        if self.classes is None:
            self.classes = collections.Counter(row.size for row in rows).most_common(1)[0][0]
        if self.probabilities is None:
            self.probabilities = all(scores.are_probabilities(scores.as_floats(row)) for row in rows)
        # The suite's own export adds no class to what a checkpoint has.
        self.background = int(self.classes == scores.BACKGROUND and not self.weights and least < scores.BACKGROUND)

    def are_as_written(self):
        """Whether every result is what the summary recorded of it; False where nothing is recorded."""
        return all(each.hash and files.is_same(each.path, each.hash, each.stat) for each in self.files.values())


def is_json_kept(path, made_from, opened):
    """Whether a JSON file was made from just this, and the opened Results are still what their summaries say."""
    return files.peek_json(path).get("made_from") == made_from and all(each.are_as_written() for each in opened)


def check_target(path, opened, inputs, ours, overwrite):
    """files.check_output for what is made of opened Results: nothing that would pass for a result is put among them."""
    parts = [part for each in opened for part in each.parts]
    folder = os.path.realpath(os.path.dirname(path) or ".")
    if path.rpartition(".")[2] in ("txt", "bin", "npy") and folder in {os.path.realpath(part.path) for part in parts}:
        fail("%s: would be taken for a result, or be written over one; choose another name" % path)
    files.check_output(path, list(inputs) + [part.summary_path for part in parts], ours, overwrite)


def om_of(summary):
    """The name of the .om in the command line that a summary of ais_bench alone tells, or None."""
    model = option_of(summary or {}, "model", "m")
    return model and os.path.basename(model)


def recorded(part):
    """The RUN_KEYS of a Part's summary, the engine in words; the others None where ais_bench alone wrote it, or nobody."""
    run = {key: part.summary[key] if is_ours(part.summary) else None for key in RUN_KEYS}
    return dict(run, engine=NOT_RECORDED if part.summary is None else run["engine"] or OF_AIS_BENCH)


def run_of(part):
    """What must be the same in all parts of one run, by what it is called."""
    summary = recorded(part)
    model, images = summary["model"] or {}, summary["input"] or {}
    return {"engines": summary["engine"], "precisions": summary["precision"], "batch sizes": summary["batch_size"],
            "models": model.get("sha256") or om_of(part.summary), "outputs": summary["outputs"], "packages": summary["packages"],
            "recipes": images.get("recipe") and recipe.from_json(images["recipe"], part.summary_path).without_defaults(),
            "sets of images": images.get("set_hash"),
            "folders of images": os.path.basename(os.path.realpath(images["source"])) if images.get("source") else None}


def require_whole_shards(folder, shards):
    """Exit unless the shards [K, N] of the parts are all K of one N, or all None."""
    counts = {shard and shard[1] for shard in shards}
    if len(counts) > 1:
        fail("%s: holds shards and other results beside them, maybe shards of another number; remove the stale ones" % folder)
    [count] = counts
    missing = sorted(set(range(1, count + 1)) - {shard[0] for shard in shards}) if count else []
    if missing:
        fail("%s: shard %d of %d is missing; run it, then this again" % (folder, missing[0], count))


def require_same_images(first, second, names):
    """Exit where two Results are known to be of different pictures, or of images prepared otherwise (dtype and layout aside)."""
    if os.path.realpath(first.folder) == os.path.realpath(second.folder):
        fail("%s: would be compared with itself" % first.folder)
    if first.sha256 and first.sha256 == second.sha256:
        fail("%s and %s: are of one run (a copy), which would be compared with itself" % (first.folder, second.folder))
    problem = recipe.difference(first.recipe, second.recipe)
    if problem:
        fail("%s and %s: their images were prepared differently (%s)" % (first.folder, second.folder, problem))
    inputs = [(each.run["model"] or {}).get("input") for each in (first, second)]
    same_input = inputs[0] == inputs[1]  # else the .bin files of the same pictures differ, too
    for name in names:
        images = [each.files[name].image for each in (first, second)]
        prepared_by_hand = [image is None or image.startswith("bin:") for image in images]
        comparable = same_input if all(prepared_by_hand) else not any(prepared_by_hand)
        if comparable and None not in images and images[0] != images[1]:
            fail("%s and %s: are of different images (first: %s)" % (first.folder, second.folder, name))
