"""A randomised walk through the suite's own commands, with the mistakes of a tired engineer, held against an independent truth.

    python tests/walk.py --seconds 110 --first-seed 1

Each step is one of the commands on tiny data, or a mistake: other pictures under the same names and times, another model, other
labels, a copied folder, a result from another run, a run that is killed. The truth is computed here, by Pillow and numpy alone.
Every command must give the true number or refuse; what it says of an earlier state is a failure. Prints the seeds and the counts.
"""
import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from conftest import command, script
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

CLASSES, SIDE, COUNT = 10, 16, 8
NAMES = ["img %d" % number for number in range(COUNT)]
FOLDERS, MODELS, SETS, LABELS = ("r1", "r2"), ("m1", "m2"), ("A", "B"), ("l1", "l2")
counts = collections.Counter()


# ---- the data and the truth ----

def pixels(which):
    random = np.random.RandomState(SETS.index(which))
    return random.randint(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)


def weights(model):
    return np.random.RandomState(10 + MODELS.index(model)).standard_normal((3 * SIDE * SIDE, CLASSES)).astype(np.float32)


def classes_of(labels):
    return np.random.RandomState(20 + LABELS.index(labels)).randint(0, CLASSES, COUNT)


def true_scores(model, which):
    images = pixels(which).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return (images.reshape(COUNT, -1) - np.float32(0.5)) / np.float32(0.5) @ weights(model)


def true_hits(model, which, labels):
    return int((true_scores(model, which).argmax(1) == classes_of(labels)).sum())


def write_model(path, model):
    from onnx import TensorProto, helper, numpy_helper, save
    recipe = {"resize": SIDE, "crop": SIDE, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3, "dtype": "float32",
              "layout": "CHW"}
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["class"])], model,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weights(model), "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    proto.ir_version = 6
    helper.set_model_props(proto, {"recipe": json.dumps(recipe), "weights_sha256": "%064x" % MODELS.index(model),
                                   "precision": "fp32"})
    save(proto, str(path))


class Walk(RuleBasedStateMachine):
    """What is where: self.pictures and self.prepared say what truly went into them, self.files[folder] of what each result is,
    {file name: (model, set)}, and self.claims[folder] of what its summary says they are, or None."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="walk."))
        (self.place / "val").mkdir()
        self.pictures, self.prepared, self.damaged = None, None, set()
        self.files, self.claims = {folder: {} for folder in FOLDERS}, dict.fromkeys(FOLDERS)
        for model in MODELS:
            write_model(self.place / (model + ".onnx"), model)
        for labels in LABELS:
            lines = ["%s.png %d\n" % pair for pair in zip(NAMES, classes_of(labels))]
            (self.place / (labels + ".txt")).write_text("".join(lines))
        self.draw("A", True)
        self.preprocess(False)
        self.infer("m1", "r1", 3, "TXT")
        self.infer("m2", "r2", 3, "TXT")

    def teardown(self):
        shutil.rmtree(str(self.place))

    def run(self, name, *words):
        process = script(name, *[str(word) for word in words])
        counts[name] += 1
        counts["%s refused" % name] += process.returncode != 0
        assert process.returncode in (0, 1, 3), (process.returncode, process.stderr)
        assert "Traceback" not in process.stderr, process.stderr
        assert process.returncode == 0 or "error: " in process.stderr or process.returncode == 3, process.stderr
        return process

    # ---- mistakes ----

    @rule(which=st.sampled_from(SETS), keep_times=st.booleans())
    def draw(self, which, keep_times):
        """Other pictures under the same names; PNG of noise without compression, so that sizes are equal, too."""
        for name, image in zip(NAMES, pixels(which)):
            path = self.place / "val" / (name + ".png")
            before = os.stat(str(path)) if path.exists() else None
            Image.fromarray(image).save(str(path), compress_level=0)
            if before and keep_times:
                os.utime(str(path), ns=(before.st_atime_ns, before.st_mtime_ns))
        self.pictures = which
        counts["pictures exchanged"] += 1

    @rule(what=st.sampled_from(["val", "prep"]), times=st.booleans())
    def carry(self, what, times):
        """A folder carried away and back, with or without its times."""
        if (self.place / what).exists():
            copy = shutil.copy2 if times else shutil.copy
            shutil.copytree(str(self.place / what), str(self.place / "carried"), copy_function=copy)
            shutil.rmtree(str(self.place / what))
            (self.place / "carried").rename(self.place / what)
            counts["carried"] += 1

    @rule(source=st.sampled_from(FOLDERS), count=st.integers(1, COUNT))
    def mix(self, source, count):
        """cp r2/* r1/: some or all results of another run, hidden files and the summary stay behind."""
        target = [folder for folder in FOLDERS if folder != source][0]
        if not ((self.place / source).is_dir() and (self.place / target).is_dir()):
            return
        for path in sorted((self.place / source).glob("*"))[:count]:
            shutil.copy2(str(path), str(self.place / target / path.name))
            self.files[target][path.name] = self.files[source][path.name]
        counts["mixed"] += 1

    @rule(folder=st.sampled_from(FOLDERS), summary=st.booleans())
    def remove(self, folder, summary):
        """rm -r r1, or its summary alone."""
        if summary and (self.place / (folder + "_summary.json")).exists():
            (self.place / (folder + "_summary.json")).unlink()
            self.claims[folder] = None  # judged as strictly as the bytes allow, which is not at all
        elif not summary and (self.place / folder).exists():  # not where a killed run has it put aside: then it comes back
            shutil.rmtree(str(self.place / folder))
            self.files[folder] = {}

    def truth(self, folder):
        """(model, set) of results that are what their summary says; None where they are mixed; "unrecorded" without a summary."""
        if self.claims[folder] is None:
            return "unrecorded"
        claimed, names = self.claims[folder]
        right = set(self.files[folder]) == names and set(self.files[folder].values()) == {claimed}
        return claimed if right else None

    def has_made(self, folder, model, outfmt):
        names = {"%s_0.%s" % (name, outfmt.lower()) for name in NAMES}
        self.files[folder] = dict.fromkeys(names, (model, self.prepared))
        self.claims[folder] = (model, self.prepared), names

    @rule(number=st.integers(0, COUNT - 1))
    def damage(self, number):
        """A .bin that is not what it was, of the same size; done twice, it is what it was."""
        for path in sorted((self.place / "prep").glob("*.bin"))[number:number + 1]:
            data = bytearray(path.read_bytes())
            data[5] ^= 255
            path.write_bytes(bytes(data))
            self.damaged ^= {number}
            counts["damaged"] += 1

    # ---- commands ----

    @rule(overwrite=st.booleans())
    def preprocess(self, overwrite):
        process = self.run("imagenet_torch_preprocess.py", "resnet", self.place / "val", self.place / "prep", "--resize", SIDE,
                           "--crop", SIDE, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "-j", "1",
                           *["--overwrite"] * overwrite)
        assert process.returncode == 0, process.stderr
        self.prepared, self.damaged = self.pictures, set()
        expected = (pixels(self.pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)
        for name, image in zip(NAMES, expected):
            assert (self.place / "prep" / (name + ".bin")).read_bytes() == image.astype("<f4").tobytes(), name

    @rule(model=st.sampled_from(MODELS), folder=st.sampled_from(FOLDERS), size=st.sampled_from([1, 3]),
          outfmt=st.sampled_from(["TXT", "BIN"]))
    def infer(self, model, folder, size, outfmt):
        process = self.run("onnx_infer.py", *self.infer_words(model, folder, size, outfmt))
        if process.returncode == 0:
            assert not self.damaged, "inference over damaged images %s: %s" % (self.damaged, process.stdout)
            self.has_made(folder, model, outfmt)

    def infer_words(self, model, folder, size, outfmt):
        return ["--model", self.place / (model + ".onnx"), "--input", self.place / "prep", "--output", self.place,
                "--output_dirname", folder, "--batchsize", size, "--outfmt", outfmt, "--threads", "1"]

    @rule(model=st.sampled_from(MODELS), folder=st.sampled_from(FOLDERS), after=st.floats(0, 0.6))
    def kill(self, model, folder, after):
        """kill -9 at any moment: what was there is whole, old or new."""
        if not (self.place / "prep").is_dir():
            return
        process = subprocess.Popen(command("onnx_infer.py", *map(str, self.infer_words(model, folder, 1, "TXT"))),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(after)
        process.kill()
        process.wait()
        counts["killed"] += 1
        pending = self.place / folder / ".summary.json"
        path = pending if pending.exists() else self.place / (folder + "_summary.json")
        if (self.place / folder).is_dir() and path.exists() and json.loads(path.read_text())["pid"] == process.pid:
            self.has_made(folder, model, "TXT")
        elif not (self.place / folder).is_dir():  # between the renames: the old one comes back with the next run
            counts["killed between the renames"] += 1

    @rule(folder=st.sampled_from(FOLDERS), labels=st.sampled_from(LABELS))
    def evaluate(self, folder, labels):
        if not (self.place / folder).is_dir():
            return
        process = self.run("imagenet_acc_eval.py", self.place / folder, self.place / (labels + ".txt"), self.place,
                           folder + ".json")
        truth = self.truth(folder)
        if process.returncode:
            assert not isinstance(truth, tuple), process.stderr
            return
        counts["judged"] += 1
        if truth == "unrecorded":
            return
        assert truth, "mixed results were judged: %s" % process.stdout
        hits = true_hits(*truth + (labels,))
        content = json.loads((self.place / (folder + ".json")).read_text())
        assert round(content["accuracy"]["top1"] * COUNT / 100, 6) == hits, (content["accuracy"], hits)
        assert "%.2f" % (100.0 * hits / COUNT) in process.stdout

    @rule(limit=st.sampled_from([1e-6, 1]))
    def compare(self, limit):
        if not all((self.place / folder).is_dir() for folder in FOLDERS):
            return
        process = self.run("compare_scores.py", self.place / "r1", self.place / "r2", "--limit", limit)
        first, second = self.truth("r1"), self.truth("r2")
        if process.returncode == 1 or "unrecorded" in (first, second):
            return
        assert first and second, "mixed results were compared: %s" % process.stdout
        assert first[1] == second[1], "results of different pictures were compared: %s" % process.stdout
        agree = process.returncode == 0
        assert agree if first == second else limit == 1 or not agree, process.stdout + process.stderr


def main():
    parser = argparse.ArgumentParser(description="A randomised walk through the suite's commands.")
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    end, number = time.monotonic() + args.seconds, args.first_seed
    while time.monotonic() < end:
        machine = seed(number)(Walk)
        # Without shrinking, which would take the two minutes: the seed gives the walk again.
        run_state_machine_as_test(machine, settings=settings(
            max_examples=5, stateful_step_count=args.steps, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck)))
        number += 1
    print("seeds %d to %d: %s" % (args.first_seed, number - 1, ", ".join("%s %d" % pair for pair in sorted(counts.items()))))


if __name__ == "__main__":
    main()
