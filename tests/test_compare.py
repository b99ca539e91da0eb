"""compare_scores.py: scores beside another engine's; faults of a model or its input are told from fp16."""
import json
import os
import shutil
import unicodedata

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import FLOAT_RECIPE, UINT8_RECIPE, fails, script, succeeds
from made_results import record, write_result
from onnx import numpy_helper

from common import files

SCRIPT = "compare_scores.py"
MEAN, STD = (np.array(values, np.float32).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
IMAGES = 3


def to_fp16(model):
    """The model as a compiler for fp16 would have it: weights, input, output and all between in half precision."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in list(model.graph.input) + list(model.graph.output) + list(model.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del model.metadata_props[:]  # its recipe is of float32
    return model


def other_weights(model):
    """A checkpoint of nearby training: every convolution's weights off by a tenth."""
    random = np.random.RandomState(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            values = values * (1 + 0.1 * random.standard_normal(values.shape))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model


@pytest.fixture(scope="module")
def place(tiny, resnet34_onnx, tmp_path_factory):
    """(a folder with reference/, the right results of a few of the demo's images, and their prep_dataset; the session)."""
    folder = tmp_path_factory.mktemp("fidelity")
    succeeds("imagenet_torch_preprocess.py", "resnet", tiny / "val", folder / "prep_dataset", "--limit", str(IMAGES))
    succeeds("onnx_infer.py", "--model", resnet34_onnx, "--input", folder / "prep_dataset", "--output", folder,
             "--output_dirname", "reference")
    return folder, onnxruntime.InferenceSession(str(resnet34_onnx), providers=["CPUExecutionProvider"])


def infer(folder, session, dirname, change=None):
    """Results of the inputs, changed by a function of one image (float32, 3 x 224 x 224), as DIRNAME."""
    (folder / dirname).mkdir()
    for path in (folder / "prep_dataset").glob("*.bin"):
        image = np.fromfile(str(path), "<f4").reshape(3, 224, 224)
        scores = session.run(None, {"image": (change(image) if change else image)[None]})[0]
        (folder / dirname / (path.stem + "_0.bin")).write_bytes(scores.astype("<f4").tobytes())


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def judge(folder, dirname, *options):
    process = script(SCRIPT, folder / dirname, folder / "reference", "--json", folder / (dirname + ".json"), *options)
    assert "Traceback" not in process.stderr, process.stderr
    return process, json.loads((folder / (dirname + ".json")).read_text())


def accused(folder, dirname):
    process, fidelity = judge(folder, dirname)
    assert process.returncode == 3 and not fidelity["agrees"], process.stdout + process.stderr
    sentence = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentence) == 1 and fidelity["most_different"][0]["image"] in sentence[0]
    return fidelity


def test_the_same_results_agree_wholly(place):
    place = place[0]
    for name in ("", "_summary.json"):
        (shutil.copy if name else shutil.copytree)(str(place / ("reference" + name)), str(place / ("copy" + name)))
    with (place / "copy_summary.json").open("a") as summary:
        summary.write("\n")  # of another run
    process, fidelity = judge(place, "copy")
    assert process.returncode == 0 and fidelity["agrees"] and fidelity["compared"] == IMAGES
    assert (fidelity["top1_agreement"], fidelity["top5_set_agreement"], fidelity["absolute_difference"]) == (100, 100, 0)
    assert fidelity["cosine_worst"] == pytest.approx(1) and "onnxruntime" in fidelity["engine"]


def test_an_honest_fp16_copy_is_not_accused_by_an_order_of_magnitude(resnet34_onnx, place):
    place = place[0]
    infer(place, session_of(to_fp16(onnx.load(str(resnet34_onnx)))), "fp16", lambda image: image.astype("<f2"))
    process, fidelity = judge(place, "fp16")
    assert process.returncode == 0 and fidelity["agrees"], process.stderr
    assert 0 < fidelity["relative_difference"] < fidelity["relative_limit"] / 10 and fidelity["top1_agreement"] == 100


@pytest.mark.parametrize("fault, change", [
    ("bgr", lambda image: ((image * STD + MEAN)[::-1] - MEAN) / STD),
    ("unnormalised", lambda image: image * STD + MEAN),
    ("levels", lambda image: (image * STD + MEAN) * 255),
], ids=["BGR input", "0 to 1 without normalisation", "0 to 255 without normalisation"])
def test_a_fault_of_the_input_is_caught(fault, change, place):
    place, session = place
    infer(place, session, fault, lambda image: np.ascontiguousarray(change(image), "<f4"))
    assert accused(place, fault)["relative_difference"] > 0.2


def test_a_stale_model_is_caught(resnet34_onnx, place):
    place = place[0]
    infer(place, session_of(other_weights(onnx.load(str(resnet34_onnx)))), "stale")
    assert accused(place, "stale")["relative_difference"] > 0.05  # though these images' Top-1 may well be the same


def test_results_shifted_by_one_image_are_caught(place):
    place = place[0]
    names = sorted(path.name for path in (place / "reference").glob("*.bin"))
    (place / "shifted").mkdir()
    for name, following in zip(names, names[1:] + names[:1]):
        shutil.copy(str(place / "reference" / name), str(place / "shifted" / following))
    assert accused(place, "shifted")["relative_difference"] > 0.2


def test_one_spoilt_image_among_right_ones_is_caught_and_named(place):
    place = place[0]
    shutil.copytree(str(place / "reference"), str(place / "spoilt"))
    path = sorted((place / "spoilt").glob("*.bin"))[2]
    scores = np.fromfile(str(path), "<f4")
    scores[np.argmax(scores)] *= 0.9
    path.write_bytes(scores.tobytes())
    fidelity = accused(place, "spoilt")
    assert fidelity["most_different"][0]["image"] + "_0.bin" == path.name


def write(folder, scores, outfmt="bin", **summary):
    """A folder with a result for each of {image: scores}, and a summary where its keys are given."""
    for name, row in scores.items():
        write_result(folder, name, np.asarray(row, "<f4"), outfmt)
    if summary:
        record(folder, **summary)
    return folder


SCORES = {name: np.random.RandomState(number).standard_normal(20).astype("<f4") for number, name in enumerate("abcd")}
NEARLY = {name: row + np.float32(0.001) for name, row in SCORES.items()}


def test_the_figures_are_those_of_numpy(tmp_path):
    mine, theirs = write(tmp_path / "mine", {"a": SCORES["a"], "b": SCORES["b"]}), write(
        tmp_path / "theirs", {"a": SCORES["c"], "b": SCORES["d"]})
    assert "is off by" in fails(3, SCRIPT, mine, theirs, "--json", tmp_path / "r.json")
    fidelity = json.loads((tmp_path / "r.json").read_text())
    pairs = [(SCORES["a"].astype(np.float64), SCORES["c"].astype(np.float64)),
             (SCORES["b"].astype(np.float64), SCORES["d"].astype(np.float64))]
    cosines = [one @ other / np.sqrt((one ** 2).sum() * (other ** 2).sum()) for one, other in pairs]
    assert fidelity["cosine_mean"] == pytest.approx(np.mean(cosines)) and fidelity["cosine_worst"] == pytest.approx(min(cosines))
    differences = [abs(one - other).max() for one, other in pairs]
    assert fidelity["absolute_difference"] == pytest.approx(max(differences))
    assert fidelity["relative_difference"] == pytest.approx(max(
        difference / abs(other).max() for difference, (_, other) in zip(differences, pairs)))
    assert fidelity["top1_agreement"] == 100 * np.mean([one.argmax() == other.argmax() for one, other in pairs])
    assert fidelity["engine"] == fidelity["reference_engine"] == "not recorded"


def test_scores_that_are_nearly_the_same_of_all_images_do_not_agree_where_no_class_does(tmp_path):
    folders = [write(tmp_path / name, {"i%d" % number: 100 + 0.25 * np.random.RandomState(seed + number).standard_normal(50)
                                       for number in range(20)}, "npy") for name, seed in (("mine", 0), ("theirs", 100))]
    assert "Top-1 agrees on 0.00%" in fails(3, SCRIPT, *folders)


def test_results_are_not_compared_with_themselves(tmp_path):
    mine = write(tmp_path / "mine", SCORES)
    (tmp_path / "link").symlink_to(mine)
    for other in (mine, tmp_path / "link", str(mine) + "/"):
        assert "with itself" in fails(1, SCRIPT, mine, other)


def test_results_are_not_compared_with_their_copy(tmp_path):
    record(write(tmp_path / "mine", SCORES))
    shutil.copytree(str(tmp_path / "mine"), str(tmp_path / "copy"))
    shutil.copy(str(tmp_path / "mine_summary.json"), str(tmp_path / "copy_summary.json"))
    assert "are of one run (a copy)" in fails(1, SCRIPT, tmp_path / "mine", tmp_path / "copy")


@pytest.mark.parametrize("outfmt", ["txt", "npy"])
def test_formats_may_differ(outfmt, tmp_path):
    process = succeeds(SCRIPT, write(tmp_path / "mine", NEARLY, outfmt), write(tmp_path / "theirs", SCORES))
    assert "4 of 4 images" in process.stdout and process.stderr == ""


def test_the_limit_is_the_callers(tmp_path):
    mine, theirs = write(tmp_path / "mine", NEARLY), write(tmp_path / "theirs", SCORES)
    succeeds(SCRIPT, mine, theirs)
    fails(3, SCRIPT, mine, theirs, "--limit", "0.0001")
    for limit in ("0", "-1", "nan", "x", "500"):
        assert "is not a number of images" in fails(2, SCRIPT, mine, theirs, "--limit", limit)


def test_a_reference_of_some_of_the_images_is_compared_and_counted(tmp_path):
    mine, theirs = write(tmp_path / "mine", NEARLY), write(tmp_path / "theirs", {"b": SCORES["b"]})
    process = succeeds(SCRIPT, mine, theirs, "--json", tmp_path / "r.json")
    fidelity = json.loads((tmp_path / "r.json").read_text())
    assert "1 of 4 images" in process.stdout and (fidelity["compared"], fidelity["results"]) == (1, 4)


def test_the_same_image_is_compared_where_one_machine_spells_its_name_as_a_mac_does(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "K\u00e4se 1") for form in ("NFC", "NFD"))
    mine = write(tmp_path / "mine", {composed: NEARLY["a"], "b": NEARLY["b"]})
    theirs = write(tmp_path / "theirs", {decomposed: SCORES["a"]})
    assert "1 of 2 images" in succeeds(SCRIPT, mine, theirs).stdout
    assert "1 of 1 images" in succeeds(SCRIPT, write(tmp_path / "less", {composed: NEARLY["a"]}), theirs).stdout


def test_two_names_that_differ_in_blanks_alone_are_each_compared_with_their_own(tmp_path):
    mine = write(tmp_path / "mine", {"x y": SCORES["a"], "x  y": SCORES["b"]})
    for name, scores in (("x y", SCORES["a"]), ("x  y", SCORES["b"])):
        theirs = write(tmp_path / ("theirs" + name), {name: scores})
        assert "1 of 2 images" in succeeds(SCRIPT, mine, theirs).stdout


def test_a_reference_of_other_images_or_another_width_is_refused(tmp_path):
    mine = write(tmp_path / "mine", {"a": SCORES["a"]})
    write(tmp_path / "other", {"b": SCORES["b"]})
    write(tmp_path / "wide", {"a": np.arange(21)})
    (tmp_path / "empty").mkdir()
    for reference, said in (
            ("other", "no counterpart"), ("wide", "have 20 and 21 scores"), ("none", "none"), ("empty", "holds no results")):
        assert said in fails(1, SCRIPT, mine, tmp_path / reference, "--json", tmp_path / "r.json")
        assert not (tmp_path / "r.json").exists()


OF_UINT8 = {"model": {"input": {"dtype": "uint8", "shape": [224, 224, 3]}}, "input": {"recipe": UINT8_RECIPE}}


def test_uint8_and_float_inputs_are_compared_but_not_inputs_prepared_differently(tmp_path):
    theirs = write(tmp_path / "theirs", SCORES, engine="onnxruntime 1", input={"recipe": FLOAT_RECIPE})
    mine = write(tmp_path / "mine", NEARLY, engine="ais_bench 0.0.2", precision="fp16", **OF_UINT8)
    succeeds(SCRIPT, mine, theirs, "--json", tmp_path / "r.json")
    fidelity = json.loads((tmp_path / "r.json").read_text())
    assert (fidelity["engine"], fidelity["precision"]) == ("ais_bench 0.0.2", "fp16")
    assert (fidelity["reference_engine"], fidelity["reference_precision"]) == ("onnxruntime 1", "fp32")
    assert fidelity["summary_sha256"] == files.sha256_of(str(tmp_path / "mine_summary.json"))
    assert fidelity["reference_summary_sha256"] == files.sha256_of(str(tmp_path / "theirs_summary.json"))
    for field, value, said in (("resize", 232, "resize 232, not 256"), ("interpolation", "bicubic", "interpolation bicubic")):
        other = write(tmp_path / field, NEARLY, input={"recipe": dict(FLOAT_RECIPE, **{field: value})})
        assert "prepared differently (%s" % said in fails(1, SCRIPT, other, theirs)


def test_a_reference_of_other_pictures_under_equal_names_is_refused(tmp_path):
    theirs, new = write(tmp_path / "theirs", SCORES, engine="e"), {"c": "the new picture"}
    for changes in ({}, OF_UINT8):
        mine = write(tmp_path / "mine", NEARLY, images=new, **changes)
        assert "are of different images (first: c)" in fails(1, SCRIPT, mine, theirs, "--json", tmp_path / "r.json")
        assert not (tmp_path / "r.json").exists()
    succeeds(SCRIPT, write(tmp_path / "mine", NEARLY, **OF_UINT8), theirs)


def test_results_of_another_run_put_among_those_of_this_one_are_refused(tmp_path):
    theirs, mine = write(tmp_path / "theirs", SCORES, engine="e"), write(tmp_path / "mine", NEARLY, engine="e")
    shutil.copy(str(theirs / "b_0.bin"), str(mine / "b_0.bin"))
    assert "b_0.bin: is not what the inference wrote there" in fails(1, SCRIPT, mine, theirs)


def test_fp16_bin_without_a_recorded_type_is_compared_as_what_it_is(tmp_path):
    theirs = write(tmp_path / "theirs", SCORES, engine="e")
    for name, row in SCORES.items():
        write_result(tmp_path / "mine", name, row.astype("<f2"), "bin")
    assert "Top-1 agreement 100.00%" in succeeds(SCRIPT, tmp_path / "mine", theirs).stdout


def test_what_is_compared_is_kept_until_the_results_or_the_limit_are_others(tmp_path):
    theirs, mine = write(tmp_path / "theirs", SCORES, engine="e"), write(tmp_path / "mine", NEARLY, engine="e")
    line = [SCRIPT, mine, theirs, "--json", tmp_path / "r.json"]
    assert script(*line, "--check").returncode == 1 and not (tmp_path / "r.json").exists()
    succeeds(*line)
    before = (tmp_path / "r.json").read_bytes()
    assert succeeds(*line).stdout.startswith("kept: %s, largest relative difference" % (tmp_path / "r.json"))
    process = script(*line, "--check")
    assert (process.returncode, process.stdout) == (0, "") and (tmp_path / "r.json").read_bytes() == before
    assert "fidelity of" in succeeds(*line, "--overwrite").stdout
    os.utime(str(mine / "a_0.bin"), (1, 1))
    assert "kept" in succeeds(*line).stdout  # another time, the same bytes
    fails(3, *line, "--limit", "0.00001")
    assert "kept" in script(*line, "--limit", "0.00001").stdout
    fails(3, *line, "--limit", "0.00001")
    write(tmp_path / "mine", SCORES, engine="e")
    assert script(*line, "--check").returncode == 1
    assert "fidelity of" in succeeds(*line).stdout


def test_what_no_summary_vouches_for_is_compared_again(tmp_path):
    theirs, mine = write(tmp_path / "theirs", SCORES, engine="e"), write(tmp_path / "mine", NEARLY)
    for _ in range(2):
        assert "fidelity of" in succeeds(SCRIPT, mine, theirs, "--json", tmp_path / "r.json").stdout
    assert script(SCRIPT, mine, theirs, "--json", tmp_path / "r.json", "--check").returncode == 1


def test_shard_and_device_folders_are_compared_with_a_whole_reference(tmp_path):
    theirs = write(tmp_path / "theirs", SCORES)
    for number, names in enumerate(("ab", "cd"), 1):
        write(tmp_path / "mine" / ("shard%d_of_2" % number), {name: NEARLY[name] for name in names},
              input={"path": "prep/x", "shard": [number, 2]})
    assert "4 of 4" in succeeds(SCRIPT, tmp_path / "mine", theirs).stdout
    for number, names in enumerate(("ab", "cd")):
        write(tmp_path / "devices" / ("device%d" % number), {name: NEARLY[name] for name in names}, engine="e")
    assert "4 of 4" in succeeds(SCRIPT, tmp_path / "devices", theirs).stdout
    write(tmp_path / "devices" / "device2", {"a": NEARLY["a"]}, engine="e")
    assert "results of the same image" in fails(1, SCRIPT, tmp_path / "devices", theirs)


def test_results_that_are_not_what_their_summary_lists_are_refused(tmp_path):
    theirs = write(tmp_path / "theirs", SCORES)
    mine = write(tmp_path / "mine", NEARLY, engine="e")
    (mine / "b_0.bin").rename(mine / "x_0.bin")
    assert "is missing, it is listed" in fails(1, SCRIPT, mine, theirs)
    (mine / "x_0.bin").rename(mine / "b_0.bin")
    (mine / "b_0.bin").write_bytes(np.arange(20, dtype="<f8").tobytes())
    record(mine)
    assert "b_0.bin: holds 40 scores, not 20 as its summary says" in fails(1, SCRIPT, mine, theirs)


@pytest.mark.parametrize("data, said", [(b"", "empty"), (b"123", "no row of float32 scores"), (b"\0\0\xc0\x7f" * 20, "NaN"),
                                        (None, "no regular file")])
def test_broken_results_are_named(data, said, tmp_path):
    theirs, mine = write(tmp_path / "theirs", SCORES), write(tmp_path / "mine", NEARLY)
    (mine / "c_0.bin").unlink()
    if data is None:
        os.mkfifo(str(mine / "c_0.bin"))
    else:
        (mine / "c_0.bin").write_bytes(data)
    sentence = fails(1, SCRIPT, mine, theirs, timeout=20)
    assert "c_0.bin: " in sentence and said in sentence


def test_what_is_read_and_what_is_no_file_is_not_written_over(tmp_path):
    theirs, mine = write(tmp_path / "theirs", SCORES), write(tmp_path / "mine", NEARLY, engine="e")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    for target, said in ((mine / "a_0.bin", "be taken for a result"), (tmp_path / "mine_summary.json", "would be overwritten"),
                         (mine, "is a folder")):
        before = target.is_file() and target.read_bytes()
        for options in ((), ("--overwrite",)):
            assert said in fails(1, SCRIPT, mine, theirs, "--json", target, *options)
        assert before == (target.is_file() and target.read_bytes())
    sentence = fails(1, SCRIPT, mine, theirs, "--json", tmp_path / "config.json")
    assert "config.json: is there and not of this command's making" in sentence
    succeeds(SCRIPT, mine, theirs, "--json", tmp_path / "config.json", "--overwrite")


def test_wrong_usage_exits_with_2(tmp_path):
    fails(2, SCRIPT, tmp_path)
    assert script(SCRIPT, "--help").returncode == 0
