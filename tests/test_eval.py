"""imagenet_acc_eval.py: true accuracies from every kind of result, and an error for whatever cannot be judged."""
import csv
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import unicodedata

import numpy as np
import pytest
from conftest import FLOAT_RECIPE, UINT8_RECIPE, command, fails, script, succeeds, wait_until
from made_results import in_shards, record, summary_of, write_result

from common import imagenet
from common import labels as label_files

SCRIPT = "imagenet_acc_eval.py"
HAS_NAMES = bool(label_files.imagenet_names())  # torchvision has had them since 0.11
IMAGES, CLASSES = 250, 20
random = np.random.RandomState(0)
SCORES = random.standard_normal((IMAGES, CLASSES)).astype("<f4")
LABELS = random.randint(0, CLASSES, IMAGES)
NAMES = ["ILSVRC2012_val_%08d" % number for number in range(1, IMAGES + 1)]


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "val_label.txt"
    path.write_text("".join("%s.JPEG %d\n" % pair for pair in zip(NAMES, LABELS)))
    return path


@pytest.fixture
def result(tmp_path):
    for name, scores in zip(NAMES, SCORES):
        write_result(tmp_path / "result", name, scores)
    return tmp_path / "result"


def evaluate(tmp_path, *options):
    process = succeeds(SCRIPT, tmp_path / "result", tmp_path / "val_label.txt", tmp_path, "result.json", *options)
    content = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").unlink()
    return process, content


def refused(tmp_path, *options):
    sentence = fails(1, SCRIPT, tmp_path / "result", tmp_path / "val_label.txt", tmp_path, "result.json", *options)
    assert not (tmp_path / "result.json").exists()
    return sentence


def accuracies(content):
    return [item["value"] for item in content["value"] if item["key"].startswith("Top")]


def plainly(scores, labels):
    """The same five figures, the plain way: a stable sort puts the lower of equal classes first."""
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    return ["%.2f%%" % (100 * (order[:, :top] == labels[:, None]).any(1).mean()) for top in range(1, 6)]


def test_the_json_is_the_modelzoos(labels, result, tmp_path):
    process, content = evaluate(tmp_path)
    assert content["title"] == "Overall statistical evaluation"
    expected = plainly(SCORES, LABELS)
    assert content["value"] == [{"key": "Number of images", "value": "250"}, {"key": "Number of classes", "value": "20"}] + \
        [{"key": "Top%d accuracy" % (place + 1), "value": value} for place, value in enumerate(expected)]
    assert "Top-1 %s" % expected[0] in process.stdout and "Top-5 %s" % expected[4] in process.stdout
    assert process.stderr == ""


@pytest.mark.parametrize("outfmt", ["bin", "npy"])
def test_bin_and_npy_give_what_txt_gives(outfmt, labels, result, tmp_path):
    _, from_text = evaluate(tmp_path)
    for path in result.iterdir():
        path.unlink()
    for name, scores in zip(NAMES, SCORES):
        write_result(result, name, scores, outfmt)
    assert evaluate(tmp_path)[1] == from_text


def test_results_of_several_devices_are_judged_together_with_their_summaries(labels, result, tmp_path):
    _, together = evaluate(tmp_path)
    for number, path in enumerate(sorted(result.iterdir())):
        device = result / ("device%d_%d" % (number % 3, number % 3))
        device.mkdir(exist_ok=True)
        path.rename(device / path.name)
    _, apart = evaluate(tmp_path)
    assert apart["value"] == together["value"] and apart["engine"] == "not recorded"
    for device in sorted(result.glob("device*")):  # as ais_bench writes them by hand
        (result / (device.name + "_summary.json")).write_text(json.dumps({"filesinfo": summary_of(device)["filesinfo"]}))
    _, recorded = evaluate(tmp_path)
    assert recorded["value"] == together["value"] and recorded["engine"] == "ais_bench (version not recorded)"
    (result / "device1_1_summary.json").unlink()
    sentence = refused(tmp_path)
    assert "device0_0 and " in sentence and "device1_1: are of different engines (ais_bench (version" in sentence
    (result / "device3_3_summary.json").write_text('{"filesinfo": {}}')
    assert "device3_3_summary.json: its results are missing" in refused(tmp_path)


@pytest.mark.parametrize("outfmt", ["txt", "bin"])
def test_of_equal_scores_the_lower_class_ranks_first(outfmt, tmp_path):
    write_result(tmp_path / "result", "a", np.array([0, 5, 5, 5, 5, 5, 5], "<f4"), outfmt)
    for label, expected in ((1, "100.00%"), (2, "0.00%"), (6, "0.00%")):
        (tmp_path / "val_label.txt").write_text("a.JPEG %d\n" % label)
        assert accuracies(evaluate(tmp_path)[1])[0] == expected
    assert accuracies(evaluate(tmp_path)[1])[4] == "0.00%"  # class 6 is the sixth of the equals
    (tmp_path / "val_label.txt").write_text("a.JPEG 5\n")
    assert accuracies(evaluate(tmp_path)[1])[3:] == ["0.00%", "100.00%"]


def test_a_background_class_shifts_the_label_by_one_and_is_said(tmp_path):
    scores = np.zeros(1001, "<f4")
    scores[66] = 7
    write_result(tmp_path / "result", "a", scores)
    (tmp_path / "val_label.txt").write_text("a.JPEG 65\n")
    assert accuracies(evaluate(tmp_path)[1])[0] == "100.00%"
    assert "class 0 of 1001 is taken for a background class" in evaluate(tmp_path)[0].stdout
    (tmp_path / "val_label.txt").write_text("a.JPEG 1001\n")
    assert "classes 0 to 1000" in refused(tmp_path)


@pytest.mark.parametrize("recorded, label", [(True, 66), (False, 66)])
def test_own_1001_classes_are_not_shifted_where_something_says_that_they_are_own(recorded, label, tmp_path):
    scores = np.zeros(1001, "<f4")
    scores[label] = 7
    write_result(tmp_path / "result", "a", scores)
    more = "" if recorded else "b.JPEG 1000\n"  # a background class would leave 0 to 999
    (tmp_path / "val_label.txt").write_text("a.JPEG %d\n" % label + more)
    if recorded:
        record(tmp_path / "result", classes=1001, model={"weights_sha256": "c0ffee"})
    process, content = evaluate(tmp_path)
    assert accuracies(content)[0] == "100.00%" and not content["background_class"] and "background" not in process.stdout
    assert content["classes"] == 1001


@pytest.mark.parametrize("text", ["1.5 2.25 -3 7 ", "1e3 2 3 4e3", "1.000000 2.000000 3.5 4.000000 \n",
                                  "12345678901234567890.000000 1.000000 1.000000 22345678901234567890.000000 \n",
                                  "-0.000000 0.000000 -1.000000 2.000000\n", "1.000000\t2.000000 0.000000  9.000000 \r\n"])
def test_numbers_in_any_notation_are_read_as_the_numbers_they_are(text, tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "a_0.txt").write_text(text)
    (tmp_path / "val_label.txt").write_text("a.JPEG 3\n")
    assert accuracies(evaluate(tmp_path)[1])[0] == "100.00%"
    (tmp_path / "val_label.txt").write_text("a.JPEG 2\n")
    assert accuracies(evaluate(tmp_path)[1])[0] == "0.00%"


@pytest.mark.parametrize("text", ["", "\n", "1.000000 nan 2.000000 \n", "1.000000 inf 2.000000 \n", "1.0 two 3.0 \n",
                                  "1.000000 2.000000 \n3.000000 4.000000 \n", "1.000000-2.000000 3.000000 \n",
                                  "1.000000 2.0000003.000000 4.000000 \n", "\x00\x01 \n"])
def test_texts_that_are_no_row_of_finite_numbers_are_named(text, labels, result, tmp_path):
    (result / (NAMES[17] + "_0.txt")).write_text(text)
    assert NAMES[17] + "_0.txt" in refused(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("outfmt", ["bin", "npy"])
def test_nan_and_infinite_scores_are_named(value, outfmt, labels, tmp_path):
    for name, scores in zip(NAMES[:8], SCORES):
        path = write_result(tmp_path / "result", name, scores, outfmt)
    path = write_result(tmp_path / "result", NAMES[3], np.where(np.arange(CLASSES) == 5, np.float32(value), SCORES[3]), outfmt)
    assert "%s: holds NaN or infinite" % path in refused(tmp_path)


def test_rows_of_differing_length_are_named(labels, result, tmp_path):
    path = write_result(result, NAMES[200], SCORES[200][:-1])
    assert "%s: holds 19 scores, not 20 as others" % path in refused(tmp_path)
    path.rename(tmp_path / "kept")
    path = write_result(result, NAMES[0], SCORES[0][:3])  # the first of all: neither the labels nor the others are blamed
    write_result(result, NAMES[200], SCORES[200])
    assert "%s: holds 3 scores, not 20 as others" % path in refused(tmp_path)


def test_broken_bin_and_npy_files_are_named(labels, tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / (NAMES[3] + "_0.bin")).write_bytes(b"123")
    assert NAMES[3] + "_0.bin: holds no row of float32 scores: buffer size" in refused(tmp_path)
    (tmp_path / "result" / (NAMES[3] + "_0.bin")).unlink()
    for array in (np.array([{"code": "runs"}]), np.zeros((2, 20), "<f4"), np.arange(20), np.float32(1), np.zeros((1, 0), "<f4")):
        np.save(str(tmp_path / "result" / (NAMES[3] + "_0.npy")), array, allow_pickle=True)
        assert NAMES[3] + "_0.npy: holds" in refused(tmp_path)


def test_a_result_without_a_label_is_named(labels, result, tmp_path):
    write_result(result, "ILSVRC2012_val_00000999", SCORES[0])
    assert "ILSVRC2012_val_00000999" in refused(tmp_path)


def test_a_label_outside_the_classes_is_named_even_where_no_result_needs_it(labels, result, tmp_path):
    with labels.open("a") as file:
        file.write("ILSVRC2012_val_00000999.JPEG 20\n")
    sentence = refused(tmp_path)
    assert "ILSVRC2012_val_00000999" in sentence and "classes 0 to 19" in sentence and "labels are of another" in sentence


@pytest.mark.parametrize("classes, label, said", [
    (1000, 1000, "the development kit's own numbers, which are in another order and which tools/make_val_label.py with --devkit"),
    (10, 217, "or ImageNet's numbers and the net's classes its own: tools/make_val_label.py with --own-classes"),
    (10, 10, "of another data set or count from 1"), (10, 1200, "of another data set or count from 1")])
def test_labels_beyond_the_classes_are_told_the_likely_reason(classes, label, said, tmp_path):
    write_result(tmp_path / "result", "a", np.arange(classes))
    (tmp_path / "val_label.txt").write_text("a.JPEG %d\n" % label)
    assert said in refused(tmp_path)


@pytest.mark.parametrize("outfmt", ["txt", "bin"])
def test_scores_that_are_all_equal_are_no_result(outfmt, labels, result, tmp_path):
    shutil.rmtree(str(result))
    for name in NAMES:
        write_result(result, name, np.zeros(CLASSES, "<f4"), outfmt)
    assert "_0.%s: all its scores are equal, 0: the model computed nothing" % outfmt in refused(tmp_path, "--dtype", "float32")


def test_class_names_beside_the_labels_that_the_model_has_not_are_warned_of(labels, result, tmp_path):
    for names, warned in ((20, False), (21, True), (10, False)):  # ten are those of other labels than these, of 20
        (tmp_path / "class_names.txt").write_text("".join("class %d\n" % number for number in range(names)))
        process, _ = evaluate(tmp_path)
        assert ("warning: %s/class_names.txt: names the 21 classes of the labels, but the model has 20" % tmp_path
                in process.stderr) == warned


def test_the_same_image_twice_is_refused_with_both_files(labels, result, tmp_path):
    write_result(result, NAMES[0], SCORES[0], "bin")
    sentence = refused(tmp_path)
    assert NAMES[0] + "_0.txt" in sentence and NAMES[0] + "_0.bin" in sentence
    (result / (NAMES[0] + "_0.bin")).unlink()
    write_result(result / "device0", NAMES[5], SCORES[5])
    assert "device0" in refused(tmp_path)


def test_two_devices_that_both_made_all_images_are_told_of_divide_input(labels, result, tmp_path):
    result.rename(tmp_path / "once")
    for device in ("device0_0", "device1_1"):
        shutil.copytree(str(tmp_path / "once"), str(result / device))
    assert "each device made all images, as ais_bench divides them only with --divide-input" in refused(tmp_path)


def test_empty_and_missing_folders_and_files_are_named(labels, tmp_path):
    assert "result" in refused(tmp_path)
    (tmp_path / "result").mkdir()
    assert "holds no results" in refused(tmp_path)
    write_result(tmp_path / "result", NAMES[0], SCORES[0])
    labels.write_text("\n")
    assert "holds no labels" in refused(tmp_path)
    labels.unlink()
    assert "val_label.txt" in refused(tmp_path)


def test_further_outputs_of_a_model_are_left_aside(labels, result, tmp_path):
    _, expected = evaluate(tmp_path)
    (result / (NAMES[0] + "_1.txt")).write_text("no matter what")
    assert evaluate(tmp_path)[1] == expected


def test_a_subset_is_counted_on_stdout_stderr_and_in_the_json(labels, result, tmp_path):
    for name in NAMES[100:]:
        (result / (name + "_0.txt")).unlink()
    process, content = evaluate(tmp_path)
    assert "100 of 250" in process.stdout and "100 of 250" in process.stderr
    assert content["images"] == {"judged": 100, "labelled": 250, "excluded": 0, "results": 100}
    assert accuracies(content) == plainly(SCORES[:100], LABELS[:100])


def test_expect_makes_any_other_number_of_results_an_error(labels, result, tmp_path):
    evaluate(tmp_path, "--expect", "250")
    sentence = refused(tmp_path, "--expect", "251")
    assert "250" in sentence and "251" in sentence
    refused(tmp_path, "--expect", "249")


def test_what_the_summary_says_of_the_run_is_taken_over(labels, result, tmp_path):
    assert evaluate(tmp_path)[1]["engine"] == "not recorded"
    beside = tmp_path / "result_summary.json"
    beside.write_text('{"throughput": 1}')
    assert evaluate(tmp_path)[1]["engine"] == "ais_bench (version not recorded)"
    record(result)
    process, content = evaluate(tmp_path)
    assert content["engine"] == "onnxruntime 1.0 CPUExecutionProvider" and content["engine"] in process.stdout
    assert (content["precision"], content["batch_size"], content["model"]["sha256"]) == ("fp32", 8, "ab")
    assert content["input"]["path"] == "prep_dataset" and content["device"] == "a CPU, 2 threads" and content["shards"] is None
    assert content["summary_sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    assert content["labels_sha256"] == label_files.read(str(labels))[1]


def test_the_json_folder_is_made(labels, result, tmp_path):
    succeeds(SCRIPT, result, labels, tmp_path / "a" / "b", "r.json")
    assert (tmp_path / "a" / "b" / "r.json").exists()


def test_wrong_usage_exits_with_2(tmp_path):
    fails(2, SCRIPT, "only", "three", "words")
    fails(2, SCRIPT, "a", "b", "c", "d", "--expect", "none")
    assert script(SCRIPT, "--help").returncode == 0


def test_the_intervals_are_wilsons(labels, result, tmp_path):
    _, content = evaluate(tmp_path)
    for key, place in (("top1", 0), ("top5", 4)):
        share = float(accuracies(content)[place].rstrip("%")) / 100
        for bound in content["interval95"][key]:  # both solve (share - bound)^2 = z^2 bound (1 - bound) / n
            bound /= 100
            assert (share - bound) ** 2 == pytest.approx(1.959964 ** 2 * bound * (1 - bound) / IMAGES, rel=0.01)
    assert content["interval95"]["top1"][0] < 100 * np.mean(np.argmax(SCORES, 1) == LABELS) < content["interval95"]["top1"][1]


def test_per_class_writes_every_class_that_was_judged(labels, result, tmp_path):
    (tmp_path / "names").write_text("".join("name, %d\n" % number for number in range(CLASSES)))
    _, content = evaluate(tmp_path, "--per-class", tmp_path / "c.csv", "--classes", tmp_path / "names")
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ranks = (np.argsort(-SCORES, axis=1) == LABELS[:, None]).argmax(1)
    assert [row["name"] for row in rows] == ["name, %d" % number for number in range(CLASSES)]
    for row in rows:
        of_class = ranks[LABELS == int(row["class"])]
        assert (int(row["images"]), float(row["top1"]), float(row["top5"])) == \
            (len(of_class), round(100 * np.mean(of_class == 0), 2), round(100 * np.mean(of_class < 5), 2))
    shares = [row["top1"] for row in content["per_class_worst"]]
    assert len(shares) == 10 and shares == sorted(shares) and shares[-1] <= sorted(float(row["top1"]) for row in rows)[10]


def test_class_names_of_another_number_are_refused(labels, result, tmp_path):
    (tmp_path / "names").write_text("one\ntwo\n")
    assert "has 2 lines" in refused(tmp_path, "--per-class", tmp_path / "c.csv", "--classes", tmp_path / "names")
    assert not (tmp_path / "c.csv").exists()
    for broken in ("", "a\n\nb\n"):
        (tmp_path / "names").write_text(broken)
        assert "names: " in refused(tmp_path, "--classes", tmp_path / "names")
    assert "names" in refused(tmp_path, "--classes", tmp_path)  # a folder


def test_the_mistakes_are_the_wrong_images_of_the_largest_confidence(labels, result, tmp_path):
    _, content = evaluate(tmp_path)
    powers = np.exp(SCORES.astype(np.float64))
    probabilities = powers / powers.sum(1, keepdims=True)
    wrong = np.flatnonzero(SCORES.argmax(1) != LABELS)
    expected = sorted(wrong, key=lambda place: -probabilities[place].max())[:12]
    assert [mistake["image"] for mistake in content["mistakes"]] == [NAMES[place] for place in expected]
    for mistake, place in zip(content["mistakes"], expected):
        assert mistake["label"] == LABELS[place] != mistake["guesses"][0]["class"]
        assert [guess["class"] for guess in mistake["guesses"]] == list(np.argsort(-SCORES[place])[:5])
        assert mistake["label_name"] == str(LABELS[place])
        assert [guess["name"] for guess in mistake["guesses"]] == [str(guess["class"]) for guess in mistake["guesses"]]
        assert [guess["probability"] for guess in mistake["guesses"]] == \
            pytest.approx(sorted(probabilities[place])[:-6:-1], abs=1e-4)


@pytest.mark.parametrize("change", ["", "[]", "{", '{"schema": 2, "engine": 5}', '{"schema": 2}', '{"schema": 1}',
                                    '{"schema": []}', '{"filesinfo": {"0": 5}}', '{"throughput": NaN}', "[" * 100000])
@pytest.mark.parametrize("place", ["result_summary.json", "result/.summary.json"])
def test_a_broken_summary_is_named(place, change, labels, result, tmp_path):
    (tmp_path / place).write_text(change)
    assert "summary.json: " in refused(tmp_path)


@pytest.mark.parametrize("key, value", [("engine", 5), ("batch_size", "8"), ("model", [1]), ("input", "x"), ("outputs", {}),
                                        ("outputs", []), ("outputs", [{"dtype": "int8", "shape": [20]}]),
                                        ("input", {"recipe": [1]})])
def test_a_summary_of_wrong_types_is_named(key, value, labels, result, tmp_path):
    path = record(result)
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **{key: value})))
    assert "result_summary.json: " in refused(tmp_path, "--baseline", result)


def test_the_accuracy_of_a_run_in_which_results_were_exchanged_is_not_given(labels, result, tmp_path):
    record(result)
    for name, scores in zip(NAMES[:9], SCORES[100:]):  # restored from an older run, or `cp r2/* r1/`: names and sizes are equal
        write_result(result, name, scores)
    assert NAMES[0] + "_0.txt: is not what the inference wrote there" in refused(tmp_path)


@pytest.mark.parametrize("dtype, classes", [("<f8", CLASSES), ("<f4", 2 * CLASSES), ("<f2", CLASSES)])
def test_values_of_another_type_than_the_summary_says_are_refused(dtype, classes, tmp_path):
    path = write_result(tmp_path / "result", "a", np.arange(classes).astype(dtype), "bin")
    (tmp_path / "val_label.txt").write_text("a.JPEG 3\n")
    record(tmp_path / "result")
    assert path.name in refused(tmp_path)


@pytest.mark.parametrize("scores", [SCORES[0].astype("<f8"), np.eye(20)[5], random.standard_normal(20)])
def test_float64_values_are_not_taken_for_twice_as_many_classes(scores, tmp_path):
    write_result(tmp_path / "result", "a", scores.astype("<f8"), "bin")
    (tmp_path / "val_label.txt").write_text("a.JPEG %d\n" % scores.argmax())
    _, content = evaluate(tmp_path)
    assert content["classes"] == 20 and accuracies(content)[0] == "100.00%"


@pytest.mark.parametrize("dtype, make", [
    ("<f2", lambda scores: scores), ("<f2", lambda scores: softmaxed(8 * scores)), ("<f4", lambda scores: softmaxed(8 * scores)),
    ("<f4", lambda scores: scores), ("<f8", lambda scores: scores)])
@pytest.mark.parametrize("classes", [20, 600, 1000])
def test_bin_without_a_recorded_type_is_read_as_what_it_is_or_the_type_is_asked_for(dtype, make, classes, tmp_path):
    scores = make(3 * np.random.RandomState(classes).standard_normal((30, classes))).astype(dtype)
    for number, row in enumerate(scores):  # labels of few of the classes do not tell how many there are
        write_result(tmp_path / "result", "n%d" % number, row, "bin")
    best = scores.argmax(1) % 7
    for row, label in zip(scores, best):
        row[label] = row.max() * np.asarray(1.5, dtype)
    for number, row in enumerate(scores):
        write_result(tmp_path / "result", "n%d" % number, row, "bin")
    (tmp_path / "val_label.txt").write_text("".join("n%d.JPEG %d\n" % pair for pair in enumerate(best)))
    for options in ((), ("--dtype", np.dtype(dtype).name)):
        _, content = evaluate(tmp_path, *options)
        assert content["classes"] == classes and accuracies(content)[0] == "100.00%"


def test_bin_whose_type_nothing_tells_is_asked_for(tmp_path):
    write_result(tmp_path / "result", "a", np.tile([1, 1, 1, 1.0009765625], 4).astype("<f2"), "bin")
    (tmp_path / "val_label.txt").write_text("a.JPEG 0\n")
    assert "may be float32 or float16 or float64; say which: --dtype float32" in refused(tmp_path)
    assert evaluate(tmp_path, "--dtype", "float16")[1]["classes"] == 16


def test_an_empty_first_result_is_named_and_not_the_labels(labels, result, tmp_path):
    (result / (NAMES[0] + "_0.txt")).write_text("")
    assert NAMES[0] + "_0.txt: is empty" in refused(tmp_path)


def test_results_of_two_formats_are_of_two_runs(labels, result, tmp_path):
    (result / (NAMES[7] + "_0.txt")).unlink()
    path = write_result(result, NAMES[7], SCORES[7], "bin")
    assert "%s: is no .txt as %s" % (path, result / NAMES[0]) in refused(tmp_path)


def test_an_npy_header_that_claims_more_than_there_is_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }"
    (tmp_path / "result").mkdir()
    (tmp_path / "val_label.txt").write_text("a.JPEG 0\n")
    path = tmp_path / "result" / "a_0.npy"
    claims = b"\x93NUMPY\x01\x00" + bytes([117, 0]) + header.ljust(116) + b"\n" + b"\0" * 4000
    for junk in (claims, b"\x93NUMPY\x01\x00\x05\x00((((", b"PK\3\4", b"\x93NUMPY\x09\x00"):
        path.write_bytes(junk)
        assert "a_0.npy: holds no row of float32 scores" in refused(tmp_path)


@pytest.mark.parametrize("what", ["labels", "result", "classes", "summary", "exclude"])
def test_a_fifo_is_refused_and_not_waited_for(what, labels, result, tmp_path):
    path = {"labels": labels, "result": result / (NAMES[5] + "_0.txt"),
            "summary": result / ".summary.json"}.get(what, tmp_path / what)
    if path.exists():
        path.unlink()
    os.mkfifo(str(path))
    options = ["--" + what, path] if what in ("classes", "exclude") else []
    sentence = fails(1, SCRIPT, result, labels, tmp_path, "result.json", *options, timeout=20)
    assert "%s: is no regular file" % path in sentence


@pytest.mark.parametrize("text", ["NAME.JPEG 5 253\n", "a.JPEG %s\n" % ("9" * 5000), "a.JPEG cat\n"])
def test_lines_that_are_no_labels_are_named(text, labels, result, tmp_path):
    labels.write_text(text)
    assert 'line 1 is not "FILE CLASS", CLASS a number counted from 0' in refused(tmp_path)


def test_a_folder_of_labels_is_said_to_be_one(labels, result, tmp_path):
    assert "result: is a folder, not a label file" in fails(1, SCRIPT, result, result, tmp_path, "result.json")


def softmaxed(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype("<f4")


@pytest.mark.parametrize("recorded", [True, False])
def test_probabilities_in_text_are_refused_and_in_bin_kept_as_they_are(recorded, labels, tmp_path):
    probabilities = softmaxed(4 * SCORES)
    for outfmt in ("txt", "bin"):
        for path in (tmp_path / "result").glob("*"):
            path.unlink()
        for name, scores in zip(NAMES, probabilities):
            write_result(tmp_path / "result", name, scores, outfmt)
        if recorded:
            record(tmp_path / "result", probabilities=True)
        if outfmt == "txt":
            sentence = refused(tmp_path)
            assert "flattens probabilities into ties" in sentence and "--outfmt BIN" in sentence
            if recorded:
                (tmp_path / "result_summary.json").unlink()
    _, content = evaluate(tmp_path)
    assert accuracies(content) == plainly(4 * SCORES, LABELS)
    for mistake in content["mistakes"]:
        row = probabilities[NAMES.index(mistake["image"])]
        assert [guess["probability"] for guess in mistake["guesses"]] == pytest.approx(np.sort(row)[:-6:-1], abs=1e-4)


def calibrated_on(tmp_path, names):
    """Writes a calibration list as resnet34_quantize.py does; returns what its model says of the calibration."""
    (tmp_path / "calibration.txt").write_text("".join(name + "\n" for name in names))
    digest = hashlib.sha256((tmp_path / "calibration.txt").read_bytes()).hexdigest()
    return {"calibration": {"names_sha256": digest, "shared": False}}


def test_excluded_images_are_left_out_and_counted(labels, result, tmp_path):
    model = calibrated_on(tmp_path, NAMES[:50])
    record(result, precision="int8", model=model)
    process, content = evaluate(tmp_path)
    assert content["calibration_shared"] is None and "--exclude" in process.stderr
    process, content = evaluate(tmp_path, "--exclude", tmp_path / "calibration.txt")
    assert content["images"] == {"judged": 200, "labelled": 250, "excluded": 50, "results": 250}
    assert accuracies(content) == plainly(SCORES[50:], LABELS[50:])
    assert content["exclude_sha256"] == model["calibration"]["names_sha256"]
    assert content["calibration_shared"] is False and process.stderr == ""
    calibrated_on(tmp_path, NAMES)
    assert "leaves none" in refused(tmp_path, "--exclude", tmp_path / "calibration.txt")


def test_a_calibration_list_whose_names_are_not_found_does_not_vouch_for_anything(labels, result, tmp_path):
    for names in (["img"], NAMES[:50] + ["elsewhere"]):  # as of one class folder, judged in the whole set, where it is CLASS__img
        record(result, precision="int8", model=calibrated_on(tmp_path, names))
        process, content = evaluate(tmp_path, "--exclude", tmp_path / "calibration.txt")
        assert content["calibration_shared"] is None and "may be among those judged" in process.stderr


def test_names_to_leave_out_that_are_not_there_are_warned_of(labels, result, tmp_path):
    (tmp_path / "list").write_text(NAMES[0] + "\nnosuch\n")
    process, content = evaluate(tmp_path, "--exclude", tmp_path / "list")
    assert "1 of its 2 images have no result here, first nosuch" in process.stderr and content["images"]["excluded"] == 1


def test_a_list_to_leave_out_of_which_nothing_is_there_is_an_error_and_labels_may_be_the_list(labels, result, tmp_path):
    (tmp_path / "list").write_text("nosuch\n")
    assert "1 of its 1 images have no result here, first nosuch" in refused(tmp_path, "--exclude", tmp_path / "list")
    (tmp_path / "list").write_text("".join(labels.read_text().splitlines(True)[:50]))
    assert evaluate(tmp_path, "--exclude", tmp_path / "list")[1]["images"]["excluded"] == 50


def test_a_calibration_list_finds_names_with_spaces_before_the_dot(tmp_path):
    for name in ("img 3 ", "b", "c"):
        write_result(tmp_path / "result", name, np.arange(6))
    (tmp_path / "val_label.txt").write_text("img 3 .png 5\nb.png 5\nc.png 4\n")
    record(tmp_path / "result", classes=6, precision="int8", model=calibrated_on(tmp_path, ["img 3 "]))
    _, content = evaluate(tmp_path, "--exclude", tmp_path / "calibration.txt")
    assert content["images"]["excluded"] == 1 and content["calibration_shared"] is False and accuracies(content)[0] == "50.00%"


def test_a_baseline_is_compared_image_by_image(labels, result, tmp_path):
    noisy = SCORES + 0.8 * np.random.RandomState(1).standard_normal(SCORES.shape).astype("<f4")
    for name, label, scores in zip(NAMES, LABELS, noisy):
        scores[label] += 1.5
        write_result(tmp_path / "float", name, scores, "bin")
    process, content = evaluate(tmp_path, "--baseline", tmp_path / "float")
    ranks = [(np.argsort(-scores.astype(np.float64), 1, "stable") == LABELS[:, None]).argmax(1) for scores in (SCORES, noisy)]
    for key, top in (("top1", 1), ("top5", 5)):
        hits, before = ranks[0] < top, ranks[1] < top
        lost, won, one = int((before & ~hits).sum()), int((hits & ~before).sum()), content["paired"][key]
        assert (one["right_to_wrong"], one["wrong_to_right"]) == (lost, won) and lost + won > 10
        tail = sum(math.factorial(lost + won) // math.factorial(k) // math.factorial(lost + won - k)
                   for k in range(min(lost, won) + 1))
        assert one["mcnemar_p"] == pytest.approx(min(1, tail / 2 ** (lost + won - 1)), rel=1e-9)
        assert one["lost"] == pytest.approx(100 * (lost - won) / IMAGES)
        middle, spread = (lost - won) / (IMAGES + 2), lost + won + 1 - (lost - won) ** 2 / (IMAGES + 2)
        half = 1.959964 * math.sqrt(spread) / (IMAGES + 2)
        assert one["difference_interval95"] == pytest.approx([100 * (middle - half), 100 * (middle + half)])
    assert content["paired"]["images"] == IMAGES and not content["paired"]["mlperf"]["passes"]
    assert content["paired"]["mlperf"]["ratio"] == pytest.approx((ranks[0] < 1).sum() / (ranks[1] < 1).sum())
    assert "right became wrong" in process.stdout and "MLPerf" in process.stdout
    shutil.copytree(str(result), str(tmp_path / "copy"))
    same = evaluate(tmp_path, "--baseline", tmp_path / "copy")[1]["paired"]
    assert same["top1"]["mcnemar_p"] == 1 and same["mlperf"]["passes"] and same["top1"]["lost"] == 0


def test_a_baseline_of_other_images_is_refused(labels, result, tmp_path):
    for name, scores in zip(NAMES[1:], SCORES):
        write_result(tmp_path / "float", name, scores, "bin")
    assert "float: has no result for %s, as " % NAMES[0] in refused(tmp_path, "--baseline", tmp_path / "float")
    write_result(tmp_path / "float", NAMES[0], SCORES[0], "bin")
    (result / (NAMES[3] + "_0.txt")).unlink()
    assert "result: has no result for %s, as " % NAMES[3] in refused(tmp_path, "--baseline", tmp_path / "float")


def test_a_baseline_is_paired_where_one_machine_spells_a_name_as_a_mac_does(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "K\u00e4se") for form in ("NFC", "NFD"))
    (tmp_path / "val_label.txt").write_text("%s.jpg 3\n" % composed, encoding="utf-8")
    write_result(tmp_path / "result", composed, SCORES[0])
    write_result(tmp_path / "float", decomposed, SCORES[0])
    assert evaluate(tmp_path, "--baseline", tmp_path / "float")[1]["paired"]["images"] == 1


@pytest.mark.parametrize("said, changes, pairable", [
    ("different images (first: %s)" % NAMES[7], {"images": {NAMES[7]: "another"}}, {"images": {NAMES[7]: "bin:by hand"}}),
    ("different weights", {"model": {"weights_sha256": "x"}}, {"model": {"weights_sha256": None}}),
    ("prepared differently (crop 224, not 288)", {"input": {"recipe": dict(FLOAT_RECIPE, resize=256, crop=288)}},
     {"input": {"recipe": UINT8_RECIPE}}),
    ("prepared differently (interpolation bilinear, not bicubic)",
     {"input": {"recipe": dict(FLOAT_RECIPE, interpolation="bicubic")}}, {"input": {"recipe": None}}),
    ("INT8", {"precision": "int8"}, {"precision": None})])
def test_a_baseline_that_is_known_to_be_of_other_making_is_refused(said, changes, pairable, labels, result, tmp_path):
    record(result, input={"recipe": FLOAT_RECIPE}, model={"weights_sha256": "w"}, precision="int8")
    for name, scores in zip(NAMES, SCORES):
        write_result(tmp_path / "float", name, scores)
    same = {"input": {"recipe": FLOAT_RECIPE}, "model": {"weights_sha256": "w"}}
    record(tmp_path / "float", **dict(same, **changes))
    assert said in refused(tmp_path, "--baseline", tmp_path / "float")
    path = record(tmp_path / "float", **dict(same, **pairable))
    paired = evaluate(tmp_path, "--baseline", tmp_path / "float")[1]["paired"]
    assert paired["images"] == IMAGES and paired["baseline_input"]["path"] == "prep_dataset"
    assert paired["baseline_summary_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_baseline_on_old_pictures_is_refused_for_new_ones_also_as_another_type(labels, result, tmp_path):
    for name, scores in zip(NAMES, SCORES):
        write_result(tmp_path / "float", name, scores)
    record(tmp_path / "float", input={"recipe": FLOAT_RECIPE})
    of_uint8 = {"model": {"input": {"dtype": "uint8", "shape": [224, 224, 3]}}, "input": {"recipe": UINT8_RECIPE}}
    record(result, images={name: "new " + name for name in NAMES}, **of_uint8)
    assert "are of different images" in refused(tmp_path, "--baseline", tmp_path / "float")
    by_hand = {name: "bin:" + name for name in NAMES}  # their hashes differ for pictures that are the same
    record(result, images={name: "bin:u8 " + name for name in NAMES}, **of_uint8)
    record(tmp_path / "float", images=by_hand)
    evaluate(tmp_path, "--baseline", tmp_path / "float")
    record(result, images={name: "bin:new " + name for name in NAMES})
    assert "are of different images" in refused(tmp_path, "--baseline", tmp_path / "float")


def test_the_interval_of_lost_points_ends_at_what_there_is_to_lose(tmp_path):
    for number in range(8):
        write_result(tmp_path / "result", "n%d" % number, np.arange(6)[::-1])
        write_result(tmp_path / "float", "n%d" % number, np.arange(6))
    (tmp_path / "val_label.txt").write_text("".join("n%d.JPEG 5\n" % number for number in range(8)))
    process, content = evaluate(tmp_path, "--baseline", tmp_path / "float")
    assert content["paired"]["top1"]["lost"] == 100 and content["paired"]["top1"]["difference_interval95"][1] == 100
    assert "to 100.00 points" in process.stdout


def test_shards_are_judged_together(labels, result, tmp_path):
    _, whole = evaluate(tmp_path)
    in_shards(result, 3)
    _, content = evaluate(tmp_path)
    assert content["value"] == whole["value"] and content["shards"] == 3 and len(content["summary_sha256"]) == 3
    assert content["input"]["images"] == IMAGES and content["input"]["path"] == "prep"


def test_an_image_in_two_shards_is_refused(labels, result, tmp_path):
    in_shards(result, 2)
    write_result(result / "shard2_of_2", NAMES[0], SCORES[0])
    record(result / "shard2_of_2", input={"shard": [2, 2]})
    assert "results of the same image" in refused(tmp_path)


@pytest.mark.parametrize("what, changes", [
    ("engines", {"engine": "onnxruntime 2"}), ("precisions", {"precision": "int8"}), ("packages", {"packages": {"numpy": "2"}}),
    ("models", {"model": {"sha256": "cd"}}), ("recipes", {"input": {"shard": [2, 2], "recipe": FLOAT_RECIPE}}),
    ("sets of images", {"input": {"shard": [2, 2], "set_hash": "b"}}),
    ("folders of images", {"input": {"shard": [2, 2], "source": "/else/other"}})])
def test_shards_of_different_making_are_refused(what, changes, labels, result, tmp_path):
    in_shards(result, 2)
    record(result / "shard2_of_2", **dict({"input": {"shard": [2, 2]}}, **changes))
    sentence = refused(tmp_path)
    assert "shard1_of_2 and " in sentence and "different %s" % what in sentence


def test_shards_may_have_been_prepared_from_a_folder_spelt_otherwise_or_on_another_disk(labels, result, tmp_path):
    in_shards(result, 2)
    for shard, source in ((1, "/data/ImageNet/val"), (2, "../scratch/val")):
        record(result / ("shard%d_of_2" % shard), input={"shard": [shard, 2], "source": source})
    assert evaluate(tmp_path)[1]["images"]["judged"] == IMAGES


def test_results_beside_those_of_devices_are_refused(labels, result, tmp_path):
    (result / "device0").mkdir()
    for path in sorted(result.glob("*.txt"))[:3]:
        path.rename(result / "device0" / path.name)
    assert "holds results and, beside them" in refused(tmp_path)


def judging(result, labels, tmp_path):
    """An evaluation that has its workers: it has opened the folder, and has not ended."""
    process = subprocess.Popen(command(SCRIPT, result, labels, tmp_path, "result.json"), stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    children = "/proc/%d/task/%d/children" % (process.pid, process.pid)
    assert wait_until(lambda: open(children).read().split(), process)
    return process


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_evaluation_says_so_and_writes_nothing(number, code, labels, result, tmp_path):
    process = judging(result, labels, tmp_path)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code and b"stopped" in errors and b"Traceback" not in errors
    assert not list(tmp_path.glob("*result.json*"))


def test_gates_pass_and_fail_with_a_line_and_an_exit_code(labels, result, tmp_path):
    top1 = 100.0 * int((SCORES.argmax(1) == LABELS).sum()) / IMAGES
    process, content = evaluate(tmp_path, "--min-top1", repr(top1), "--min-top5", "1")
    assert "PASS: Top-1 %.2f%% is at least %g%%" % (top1, top1) in process.stdout
    assert content["gates"][0] == {"name": "Top-1", "measured": top1, "limit": top1, "passes": True}
    process = script(SCRIPT, result, labels, tmp_path, "gated.json", "--min-top1", "70", "--min-top5", "1")
    assert process.returncode == 3 and "FAIL: Top-1 %.2f%% is below 70%%" % top1 in process.stdout
    gates = json.loads((tmp_path / "gated.json").read_text())["gates"]
    assert [gate["passes"] for gate in gates] == [False, True]
    for wrong in ("nan", "101", "-1", "x"):
        fails(2, SCRIPT, result, labels, tmp_path, "r.json", "--min-top1", wrong)


def test_a_gate_that_may_be_meant_as_a_share_is_asked_about(labels, result, tmp_path):
    for option in ("--min-top1", "--min-top5"):
        process = script(SCRIPT, result, labels, tmp_path, "result.json", option, "0.7")
        assert "warning: %s 0.7 is 0.7 percent; did you mean 70?" % option in process.stderr
    assert evaluate(tmp_path, "--overwrite", "--min-top1", "0", "--min-top5", "1")[0].stderr == ""


def test_accuracies_stand_as_numbers_beside_the_strings(labels, result, tmp_path):
    _, content = evaluate(tmp_path)
    assert ["%.2f%%" % content["accuracy"]["top%d" % top] for top in range(1, 6)] == accuracies(content)
    assert content["schema"] == 1 and content["classes"] == CLASSES


def test_the_top5_of_few_classes_has_its_chance_level(labels, result, tmp_path):
    process, content = evaluate(tmp_path)
    assert content["chance_top5"] == 25 and "Top-5 of 20 classes is 25.00% by chance alone" in process.stdout


def test_class_names_stand_beside_the_numbers(labels, result, tmp_path):
    (tmp_path / "names").write_text("".join("name %d\r\n" % number for number in range(CLASSES)) + "\n")
    _, content = evaluate(tmp_path, "--classes", tmp_path / "names")
    for row in content["per_class_worst"] + content["mistakes"][0]["guesses"]:
        assert row["name"] == "name %d" % row["class"]
    assert content["mistakes"][0]["label_name"] == "name %d" % content["mistakes"][0]["label"]


def test_what_is_read_is_not_written_over(labels, result, tmp_path):
    before = labels.read_bytes()
    assert "would be overwritten" in fails(1, SCRIPT, result, labels, tmp_path, "val_label.txt")
    assert "would be taken for a result" in fails(1, SCRIPT, result, labels, result, NAMES[0] + "_0.txt", "--overwrite")
    path = record(result)
    assert "would be overwritten" in fails(1, SCRIPT, result, labels, tmp_path, "r.json", "--per-class", path, "--overwrite")
    assert "would be overwritten" in fails(1, SCRIPT, result, labels, tmp_path, "r.json", "--per-class", tmp_path / "r.json")
    assert labels.read_bytes() == before


def test_a_full_output_is_a_sentence(labels, result, tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.run(command(SCRIPT, result, labels, tmp_path, "r.json"), stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 1 and process.stderr == b"error: standard output: No space left on device\n"


def test_results_of_onnx_infer_are_judged_and_named(small, tmp_path):
    succeeds("onnx_infer.py", "--model", small / "small.onnx", "--input", small / "prep_dataset", "--output", tmp_path,
             "--output_dirname", "result")
    succeeds(SCRIPT, tmp_path / "result", small / "val_label.txt", tmp_path, "result.json", "--expect", "12", cold=True)
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["engine"].startswith("onnxruntime ") and content["classes"] == 1000 and content["precision"] == "fp32"
    assert content["input"]["recipe"]["crop"] == 224 and len(content["model"]["sha256"]) == 64


def test_a_second_run_keeps_what_is_of_the_same_results_and_labels(labels, result, tmp_path):
    record(result)
    line = [SCRIPT, result, labels, tmp_path, "kept.json", "--per-class", tmp_path / "kept.csv"]
    process = script(*line, "--check")
    assert process.returncode == 1 and not (tmp_path / "kept.json").exists() and not process.stdout
    succeeds(*line)
    before = {name: (tmp_path / name).read_bytes() for name in ("kept.json", "kept.csv")}
    top1, top5 = (plainly(SCORES, LABELS)[place] for place in (0, 4))
    assert succeeds(*line).stdout == "kept: %s, Top-1 %s Top-5 %s of 250 images\n" % (tmp_path / "kept.json", top1, top5)
    process = script(*line, "--check")
    assert process.returncode == 0 and not process.stdout + process.stderr
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    for path in result.iterdir():
        os.utime(str(path), (1, 1))  # as scp and rsync leave them: the bytes are the same
    assert "kept: " in succeeds(*line).stdout
    assert "kept: " not in succeeds(*line, "--overwrite").stdout
    with open(str(labels), "a") as file:
        file.write("more.JPEG 1\n")
    for _ in range(2):  # what is to be known of the figure is said again
        assert "only 250 of 251 labelled images" in succeeds(*line).stderr


@pytest.mark.parametrize("change", ["labels", "results", "summary", "json", "csv", "option", "classes", "exclude", "baseline"])
def test_what_is_not_of_the_same_inputs_is_judged_again(change, labels, result, tmp_path):
    for name, scores in zip(NAMES, SCORES):
        write_result(tmp_path / "float", name, scores)
    record(tmp_path / "float")
    record(result)
    (tmp_path / "names").write_text("".join("n%d\n" % number for number in range(CLASSES)))
    (tmp_path / "out").write_text(NAMES[0] + "\n")
    line, more = [SCRIPT, result, labels, tmp_path, "kept.json", "--per-class", tmp_path / "kept.csv"], []
    line += ["--classes", tmp_path / "names", "--exclude", tmp_path / "out", "--baseline", tmp_path / "float"]
    succeeds(*line)
    assert script(*line, "--check").returncode == 0
    if change == "labels":
        labels.write_text(labels.read_text().replace(" 3\n", " 4\n"))
    elif change == "results":
        write_result(result, NAMES[3], SCORES[4])
    elif change == "summary":
        record(result, device="another")
    elif change == "json":
        (tmp_path / "kept.json").unlink()
    elif change == "csv":
        (tmp_path / "kept.csv").write_text("class,name,images,top1,top5\n")
    elif change == "option":
        more = ["--min-top1", "0"]
    elif change == "classes":
        (tmp_path / "names").write_text("".join("m%d\n" % number for number in range(CLASSES)))
    elif change == "exclude":
        (tmp_path / "out").write_text(NAMES[1] + "\n")
    else:
        record(tmp_path / "float", device="another")
    assert script(*line, *more, "--check").returncode == 1
    if change == "results":
        assert "is not what the inference wrote there" in fails(1, *line)
    else:
        assert "kept: " not in succeeds(*line, *more).stdout and "kept: " in succeeds(*line, *more).stdout


def test_results_that_no_summary_vouches_for_are_judged_again(labels, result, tmp_path):
    for _ in range(2):
        assert "kept" not in succeeds(SCRIPT, result, labels, tmp_path, "kept.json").stdout
    assert script(SCRIPT, result, labels, tmp_path, "kept.json", "--check").returncode == 1


def test_a_kept_result_whose_gate_fails_fails_again(labels, result, tmp_path):
    record(result)
    line = [SCRIPT, result, labels, tmp_path, "kept.json", "--min-top1", "70", "--min-top5", "1"]
    for _ in range(2):
        process = script(*line)
        assert process.returncode == 3 and "FAIL: Top-1" in process.stdout
    assert process.stdout.startswith("kept: ") and "PASS" not in process.stdout
    assert script(*line, "--check").returncode == 0


@pytest.mark.parametrize("name, content", [
    ("config.json", '{"lr": 0.1}'), ("config.json", '{"title": "Overall statistical evaluation"}'), ("net.onnx", "\x08\x06"),
    ("own.csv", "image,top1\n")])
def test_a_file_that_is_not_ours_is_not_replaced(name, content, labels, result, tmp_path):
    (tmp_path / name).write_text(content)
    target = [tmp_path, name] if name.endswith("json") else [tmp_path, "r.json", "--per-class", tmp_path / name]
    assert name + ": is there and not of this command's making" in fails(1, SCRIPT, result, labels, *target)
    assert (tmp_path / name).read_text() == content and not (tmp_path / "r.json").exists()
    succeeds(SCRIPT, result, labels, *(target + ["--overwrite"]))
    assert (tmp_path / name).read_text() != content
    succeeds(SCRIPT, result, labels, *target)  # now it is ours


def test_made_from_has_the_hash_of_all_that_decides(labels, result, tmp_path):
    summary = record(result)
    made_from = evaluate(tmp_path, "--min-top5", "0")[1]["made_from"]
    assert made_from["summary"] == hashlib.sha256(summary.read_bytes()).hexdigest()
    assert made_from["labels"] == label_files.read(str(labels))[1]
    assert made_from["options"] == {"expect": None, "dtype": None, "min_top1": None, "min_top5": 0} and made_from["version"]


def test_the_identity_of_the_images_is_of_those_that_were_judged(labels, result, tmp_path):
    (tmp_path / "out").write_text(NAMES[0] + "\n")
    record(result)
    first, less = (evaluate(tmp_path, *options)[1]["input"]["images_hash"] for options in ((), ("--exclude", tmp_path / "out")))
    record(result, images={NAMES[0]: "another"})
    second, equal = (evaluate(tmp_path, *options)[1]["input"]["images_hash"] for options in ((), ("--exclude", tmp_path / "out")))
    assert less == equal and len({first, second, less}) == 3
    (tmp_path / "result_summary.json").unlink()
    in_shards(result, 2)
    assert evaluate(tmp_path)[1]["input"]["images_hash"] == first  # however they were computed


@pytest.mark.parametrize("order, said", [
    (lambda label: label + 1, "75.00% with -1 to each class: the labels count from 1, not from 0"),
    (lambda label: label - 1, "75.00% with +1 to each class: the labels are one too low, or the model counts a background"),
    (lambda label: label * 7 % 29, "75.00% if each class had another number: the labels are in another order")],
    ids=["from 1", "one too low", "another order"])
def test_labels_that_count_otherwise_are_suspected(order, said, tmp_path):
    scores, truth = SCORES[:, :1] + np.random.RandomState(2).standard_normal((280, 30))[:IMAGES], np.arange(IMAGES) % 28 + 1
    scores, truth = np.concatenate([scores, scores[:30]]), np.concatenate([truth, truth[:30]])  # the last class has no image
    names = ["n%03d" % number for number in range(280)]
    scores[np.arange(210), truth[:210]] += 20
    scores[np.arange(210, 280), 29] += 20
    for name, row in zip(names, scores):
        write_result(tmp_path / "result", name, row.astype("<f4"), "bin")
    for wrong in (order, lambda label: label):
        lines = ["%s.png %d\n" % (name, wrong(label)) for name, label in zip(names, truth)]
        (tmp_path / "val_label.txt").write_text("".join(lines))
        process, content = evaluate(tmp_path)
        if wrong is order:
            assert said in content["labels_doubt"] and "warning: Top-1 is at chance, but " in process.stderr
    assert accuracies(content)[0] == "75.00%" and content["labels_doubt"] is None


def test_a_poor_model_is_no_reason_to_suspect_the_labels(labels, result, tmp_path):
    assert evaluate(tmp_path)[1]["labels_doubt"] is None  # noise
    for name in NAMES:
        write_result(result, name, np.arange(CLASSES)[::-1])  # always the same class
    assert evaluate(tmp_path)[1]["labels_doubt"] is None


@pytest.mark.parametrize("classes, guess", [(1, lambda label: label + 1), (4, lambda label: label - 1 if label else 9),
                                            (4, lambda label: label + 100), (5, lambda label: 900)])
def test_labels_are_not_suspected_for_few_classes_or_one_guess(classes, guess, tmp_path):
    for number, row in enumerate(np.random.RandomState(2).standard_normal((40, 1000)).astype("<f4")):
        row[guess(number % classes)] += 20
        write_result(tmp_path / "result", "n%d" % number, row, "bin")
    (tmp_path / "val_label.txt").write_text("".join("n%d.png %d\n" % (each, each % classes) for each in range(40)))
    assert evaluate(tmp_path)[1]["labels_doubt"] is None


def test_a_part_of_the_classes_is_said_where_the_judged_images_have_no_more(labels, result, tmp_path):
    process, content = evaluate(tmp_path)
    assert content["judged_classes"] == content["labelled_classes"] == 20 and "judged images are of" not in process.stdout
    for name in NAMES[3:]:
        (result / (name + "_0.txt")).unlink()
    process, content = evaluate(tmp_path)
    count = len(set(LABELS[:3]))
    assert content["judged_classes"] == count
    assert "the judged images are of %d of the 20 classes that the labels have" % count in process.stdout


def test_a_sigmoids_scores_that_text_made_equal_are_refused(tmp_path):
    logits = 2 * np.random.RandomState(3).standard_normal((30, 20))
    logits[10:, :6] += 17  # the first images are not saturated
    scores = (1 / (1 + np.exp(-logits))).astype("<f8")
    (tmp_path / "val_label.txt").write_text("".join("n%02d.png %d\n" % pair for pair in enumerate(logits.argmax(1))))
    for number, row in enumerate(scores):
        write_result(tmp_path / "result", "n%02d" % number, row)
    assert "flattens the scores of 20 of 30 images into ties" in refused(tmp_path)
    for number, row in enumerate(scores):
        (tmp_path / "result" / ("n%02d_0.txt" % number)).unlink()
        write_result(tmp_path / "result", "n%02d" % number, row, "bin")
    assert accuracies(evaluate(tmp_path)[1])[0] == "100.00%"


def test_text_ties_of_ordinary_scores_are_judged(tmp_path):
    for number in range(4):  # as INT8 and fp16 models have them
        write_result(tmp_path / "result", "n%d" % number, np.round(4 * SCORES[number]) / 2)
    (tmp_path / "val_label.txt").write_text("".join("n%d.png %d\n" % pair for pair in enumerate(SCORES[:4].argmax(1))))
    evaluate(tmp_path)


def test_fewer_classes_in_the_labels_than_in_the_model_are_said(labels, result, tmp_path):
    assert "the labels are of" not in evaluate(tmp_path)[0].stdout
    labels.write_text("".join("%s.JPEG %d\n" % (name, label % 10) for name, label in zip(NAMES, LABELS)))
    process, content = evaluate(tmp_path)
    assert "the labels are of 10 of the model's 20 classes" in process.stdout and content["labelled_classes"] == 10


@pytest.mark.parametrize("name, weights, known", [("ILSVRC2012_val_00000001", None, True), ("cat", None, False),
                                                  ("cat", "333f7ec4" + 56 * "0", True), ("cat", "0" * 64, False)])
def test_only_classes_known_to_be_imagenets_get_its_names(name, weights, known, tmp_path):
    write_result(tmp_path / "result", name, np.arange(1000))
    (tmp_path / "val_label.txt").write_text(name + ".JPEG 0\n")
    if weights:
        record(tmp_path / "result", classes=1000, model={"weights_sha256": weights})
    assert evaluate(tmp_path)[1]["mistakes"][0]["label_name"] == ("tench" if known and HAS_NAMES else "0")


def test_all_of_imagenet_with_torchvisions_weights_is_held_against_what_is_published(tmp_path):
    folder, hits = tmp_path / "result", 36657
    right_one, wrong = (write_result(folder, name, row, "bin") for name, row in (
        ("ILSVRC2012_val_00000001", np.arange(4, dtype="<f4")), ("ILSVRC2012_val_50000", -np.arange(4, dtype="<f4"))))
    for number in range(2, 50001):
        os.link(str(right_one if number <= hits else wrong), str(folder / ("ILSVRC2012_val_%08d_0.bin" % number)))
    wrong.unlink()
    (tmp_path / "val_label.txt").write_text("".join("ILSVRC2012_val_%08d.JPEG 3\n" % number for number in range(1, 50001)))
    record(folder, classes=4, model={"weights_sha256": "b627a593" + 56 * "0"})
    process, content = evaluate(tmp_path)
    first, guide = content["published"]["figures"]
    assert (first["top1"], first["top5"], guide["top1"], guide["top5"]) == (73.314, 91.42, 73.31, 91.44)
    assert first["top1_difference"] == pytest.approx(0) and guide["top1_difference"] == pytest.approx(0.004)
    assert first["top5_difference"] == pytest.approx(8.58) and not content["published"]["within_fp16"]
    assert "torchvision: Top-1 73.314% (here +0.000), Top-5 91.42% (+8.580)" in process.stdout
    assert "the guide's NPU: Top-1 73.31% (here +0.004)" in process.stdout and "MORE than fp16 explains" in process.stdout


def test_published_figures_are_of_all_images_and_within_fp16_by_their_largest_difference():
    weights, figures = "b627a593aa", {"top1": 73.27, "top5": 91.40}
    assert imagenet.compare_with_published(weights, 50000, figures)["within_fp16"]
    assert not imagenet.compare_with_published(weights, 50000, dict(figures, top5=91.36))["within_fp16"]
    assert imagenet.compare_with_published(weights, 49999, figures) is None
    assert imagenet.compare_with_published(None, 50000, figures) is None
    assert imagenet.compare_with_published("0" * 64, 50000, figures) is None


def test_reassessed_labels_are_judged_by_as_timm_does(tmp_path):
    draw = np.random.RandomState(5)
    numbers, real = [1, 2, 3, 40, 50000], [[] for _ in range(50000)]
    for number, labels in zip(numbers, ([7], [1, 4], [], [2, 9, 19], [0])):
        real[number - 1] = labels
    (tmp_path / "real.json").write_text(json.dumps(real))
    scores = draw.standard_normal((5, CLASSES))
    scores[0, 7], scores[1, 4], scores[3, 19], scores[4, 0] = 9, 9, scores[3].max() - 0.01, -9
    for number, row in zip(numbers, scores):
        write_result(tmp_path / "result", "ILSVRC2012_val_%08d" % number, row)
    (tmp_path / "val_label.txt").write_text("".join("ILSVRC2012_val_%08d.JPEG 5\n" % number for number in numbers))
    process, content = evaluate(tmp_path, "--real", tmp_path / "real.json")
    judged = [(row, real[number - 1]) for number, row in zip(numbers, scores) if real[number - 1]]
    for top in (1, 5):  # timm's RealLabelsImagenet
        hits = [any(guess in labels for guess in np.argsort(-row)[:top]) for row, labels in judged]
        assert content["real"]["top%d" % top] == 100 * np.mean(hits)
    assert content["real"] == {"top1": 50, "top5": 75, "images": 4}
    assert "by reassessed labels: Top-1 50.00%  Top-5 75.00%  of 4 images" in process.stdout
    assert content["made_from"]["real"] == hashlib.sha256((tmp_path / "real.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("text", ["{}", "[[1]]", "[", json.dumps([[1]] * 49999 + [1]), json.dumps([[20]] * 50000)])
def test_what_is_no_list_of_reassessed_labels_is_refused(text, labels, result, tmp_path):
    (tmp_path / "real.json").write_text(text)
    assert "real.json: " in refused(tmp_path, "--real", tmp_path / "real.json")


def test_reassessed_labels_are_for_imagenets_images_alone(labels, result, tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[1]] * 50000))
    write_result(result, "cat", SCORES[0])
    with labels.open("a") as file:
        file.write("cat.JPEG 1\n")
    assert "cat is none of these" in refused(tmp_path, "--real", tmp_path / "real.json")


def test_a_folder_that_was_carried_by_tar_is_judged_and_kept(labels, result, tmp_path):
    record(result)
    expected = evaluate(tmp_path)[1]
    succeeds(SCRIPT, result, labels, tmp_path, "kept.json")
    subprocess.run("tar cf a.tar result result_summary.json kept.json val_label.txt && mkdir there && tar xf a.tar -C there",
                   shell=True, cwd=str(tmp_path), check=True)
    there = tmp_path / "there"
    assert "kept: " in succeeds(SCRIPT, there / "result", there / "val_label.txt", there, "kept.json").stdout
    succeeds(SCRIPT, there / "result", there / "val_label.txt", there, "kept.json", "--overwrite")
    again = json.loads((there / "kept.json").read_text())
    assert again == dict(expected, labels=str(there / "val_label.txt"), result=str(there / "result"))


def test_names_from_a_mac_find_their_labels(tmp_path):
    write_result(tmp_path / "result", "cafe\u0301", np.arange(6))
    (tmp_path / "val_label.txt").write_text("caf\u00e9.jpg 5\n", encoding="utf-8")
    assert accuracies(evaluate(tmp_path)[1])[0] == "100.00%"
