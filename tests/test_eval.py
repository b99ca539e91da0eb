"""imagenet_acc_eval.py: true accuracies from every kind of result, and an error for whatever cannot be judged."""
import csv
import json

import numpy as np
import pytest
from conftest import fails, script, succeeds

SCRIPT = "imagenet_acc_eval.py"
IMAGES, CLASSES = 250, 20
random = np.random.RandomState(0)
SCORES = random.standard_normal((IMAGES, CLASSES)).astype("<f4")
LABELS = random.randint(0, CLASSES, IMAGES)
NAMES = ["ILSVRC2012_val_%08d" % number for number in range(1, IMAGES + 1)]


def write_result(folder, name, scores, outfmt="txt"):
    folder.mkdir(exist_ok=True)
    path = folder / ("%s_0.%s" % (name, outfmt))
    if outfmt == "txt":
        path.write_text("".join("%f " % score for score in scores) + "\n")
    elif outfmt == "npy":
        np.save(str(path), scores.reshape(1, -1))
    else:
        path.write_bytes(scores.tobytes())
    return path


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
    return process, json.loads((tmp_path / "result.json").read_text())


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


def test_results_of_several_devices_are_judged_together_and_summaries_left_aside(labels, result, tmp_path):
    _, together = evaluate(tmp_path)
    for number, path in enumerate(sorted(result.iterdir())):
        device = result / ("device%d_%d" % (number % 3, number % 3))
        device.mkdir(exist_ok=True)
        path.rename(device / path.name)
    (result / "device0_0_summary.json").write_text("{}")
    (result / "sumary.json").write_text("{}")
    _, apart = evaluate(tmp_path)
    assert apart["value"] == together["value"]


@pytest.mark.parametrize("outfmt", ["txt", "bin"])
def test_of_equal_scores_the_lower_class_ranks_first(outfmt, tmp_path):
    write_result(tmp_path / "result", "a", np.array([0, 5, 5, 5, 5, 5, 5], "<f4"), outfmt)
    for label, expected in ((1, "100.00%"), (2, "0.00%"), (6, "0.00%")):
        (tmp_path / "val_label.txt").write_text("a.JPEG %d\n" % label)
        assert accuracies(evaluate(tmp_path)[1])[0] == expected
    assert accuracies(evaluate(tmp_path)[1])[4] == "0.00%"  # class 6 is the sixth of the equals
    (tmp_path / "val_label.txt").write_text("a.JPEG 5\n")
    assert accuracies(evaluate(tmp_path)[1])[3:] == ["0.00%", "100.00%"]


def test_1001_classes_shift_the_label_by_one(tmp_path):
    scores = np.zeros(1001, "<f4")
    scores[66] = 1
    write_result(tmp_path / "result", "a", scores)
    (tmp_path / "val_label.txt").write_text("a.JPEG 65\n")
    assert accuracies(evaluate(tmp_path)[1])[0] == "100.00%"
    (tmp_path / "val_label.txt").write_text("a.JPEG 1000\n")
    (tmp_path / "result.json").unlink()
    assert "classes 0 to 999" in refused(tmp_path)


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
def test_nan_and_infinite_scores_are_named(value, outfmt, labels, result, tmp_path):
    (result / (NAMES[3] + "_0.txt")).unlink()
    path = write_result(result, NAMES[3], np.where(np.arange(CLASSES) == 5, np.float32(value), SCORES[3]), outfmt)
    assert "%s: holds NaN or infinite" % path in refused(tmp_path)


def test_rows_of_differing_length_are_named(labels, result, tmp_path):
    path = write_result(result, NAMES[200], SCORES[200][:-1])
    assert "%s: holds 19 scores" % path in refused(tmp_path)


def test_broken_bin_and_npy_files_are_named(labels, result, tmp_path):
    (result / (NAMES[3] + "_0.txt")).unlink()
    (result / (NAMES[3] + "_0.bin")).write_bytes(b"123")
    assert NAMES[3] + "_0.bin" in refused(tmp_path)
    (result / (NAMES[3] + "_0.bin")).unlink()
    np.save(str(result / (NAMES[3] + "_0.npy")), np.array([{"code": "runs"}]), allow_pickle=True)
    assert NAMES[3] + "_0.npy" in refused(tmp_path)


def test_a_result_without_a_label_is_named(labels, result, tmp_path):
    write_result(result, "ILSVRC2012_val_00000999", SCORES[0])
    assert "ILSVRC2012_val_00000999" in refused(tmp_path)


def test_a_label_outside_the_classes_is_named_even_where_no_result_needs_it(labels, result, tmp_path):
    with labels.open("a") as file:
        file.write("ILSVRC2012_val_00000999.JPEG 20\n")
    sentence = refused(tmp_path)
    assert "ILSVRC2012_val_00000999" in sentence and "classes 0 to 19" in sentence


def test_the_same_image_twice_is_refused_with_both_files(labels, result, tmp_path):
    write_result(result, NAMES[0], SCORES[0], "bin")
    sentence = refused(tmp_path)
    assert NAMES[0] + "_0.txt" in sentence and NAMES[0] + "_0.bin" in sentence
    (result / (NAMES[0] + "_0.bin")).unlink()
    write_result(result / "device0", NAMES[5], SCORES[5])
    assert "device0" in refused(tmp_path)


def test_an_image_labelled_twice_is_refused(labels, result, tmp_path):
    with labels.open("a") as file:
        file.write(NAMES[0] + ".JPEG 3\n")
    assert "line 251" in refused(tmp_path)


@pytest.mark.parametrize("line", ["65", "a.JPEG x", "a.JPEG -1", "a.JPEG 1.0", "a.JPEG"])
def test_a_line_that_is_no_label_is_named(line, labels, result, tmp_path):
    with labels.open("a") as file:
        file.write(line + "\n")
    assert "line 251" in refused(tmp_path)


def test_empty_and_missing_folders_and_files_are_named(labels, tmp_path):
    assert "result" in refused(tmp_path)
    (tmp_path / "result").mkdir()
    assert "holds no results" in refused(tmp_path)
    write_result(tmp_path / "result", NAMES[0], SCORES[0])
    labels.write_text("\n")
    assert "holds no labels" in refused(tmp_path)
    labels.unlink()
    assert "val_label.txt" in refused(tmp_path)


def test_files_not_named_like_results_are_refused(labels, result, tmp_path):
    (result / "ILSVRC2012_val_00000001.txt").write_text("1.0 ")
    assert "not named like a result" in refused(tmp_path)


def test_further_outputs_of_a_model_are_left_aside(labels, result, tmp_path):
    _, expected = evaluate(tmp_path)
    (result / (NAMES[0] + "_1.txt")).write_text("no matter what")
    assert evaluate(tmp_path)[1] == expected


def test_a_subset_is_counted_on_stdout_stderr_and_in_the_json(labels, result, tmp_path):
    for name in NAMES[100:]:
        (result / (name + "_0.txt")).unlink()
    process, content = evaluate(tmp_path)
    assert "100 of 250" in process.stdout and "100 of 250" in process.stderr
    assert content["images"] == {"judged": 100, "labelled": 250}
    assert accuracies(content) == plainly(SCORES[:100], LABELS[:100])


def test_expect_makes_any_other_number_of_results_an_error(labels, result, tmp_path):
    evaluate(tmp_path, "--expect", "250")
    (tmp_path / "result.json").unlink()
    sentence = refused(tmp_path, "--expect", "251")
    assert "250" in sentence and "251" in sentence
    refused(tmp_path, "--expect", "249")


def test_windows_line_ends_a_bom_and_folders_before_the_name_are_allowed(labels, result, tmp_path):
    _, expected = evaluate(tmp_path)
    labels.write_bytes(b"\xef\xbb\xbf" + "".join("n0144/%s.JPEG\t%d\r\n" % pair for pair in zip(NAMES, LABELS)).encode())
    assert evaluate(tmp_path)[1] == expected


def test_the_engine_is_taken_from_the_summary_beside_the_results(labels, result, tmp_path):
    assert evaluate(tmp_path)[1]["engine"].startswith("unknown")
    (tmp_path / "result_summary.json").write_text('{"throughput": 1}')
    assert evaluate(tmp_path)[1]["engine"] == "ais_bench"
    (tmp_path / "result_summary.json").write_text('{"engine": "onnxruntime 1.0"}')
    process, content = evaluate(tmp_path)
    assert content["engine"] == "onnxruntime 1.0" and "onnxruntime 1.0" in process.stdout


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
    shares = [row["top1"] for row in content["worst_classes"]]
    assert len(shares) == 10 and shares == sorted(shares) and shares[-1] <= sorted(float(row["top1"]) for row in rows)[10]


def test_class_names_of_another_number_are_refused(labels, result, tmp_path):
    (tmp_path / "names").write_text("one\ntwo\n")
    assert "has 2 lines" in refused(tmp_path, "--per-class", tmp_path / "c.csv", "--classes", tmp_path / "names")
    assert not (tmp_path / "c.csv").exists()


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
        assert [guess["probability"] for guess in mistake["guesses"]] == \
            pytest.approx(sorted(probabilities[place])[:-6:-1], abs=1e-4)
