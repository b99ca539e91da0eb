"""imagenet_acc_eval.py --reference: scores beside another engine's; faults of a model or its input are told from fp16."""
import json
import shutil

import numpy as np
import onnx
import pytest
from conftest import fails, script, succeeds
from onnx import numpy_helper

MEAN, STD = (np.array(values, np.float32).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
IMAGES = 4


def to_fp16(model):
    """The model as a compiler for fp16 would have it: weights, input, output and all between in half precision."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in list(model.graph.input) + list(model.graph.output) + list(model.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
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
def place(demo, tmp_path_factory):
    """A folder with reference/, the right results of a few of the demo's images."""
    folder = tmp_path_factory.mktemp("fidelity")
    (folder / "inputs").mkdir()
    for path in sorted((demo[0] / "prep_dataset").glob("*.bin"))[:IMAGES]:
        shutil.copy(str(path), str(folder / "inputs"))
    infer(folder, demo[0] / "resnet34.onnx", "reference")
    return folder


def infer(folder, model, dirname, change=None):
    """Results of the inputs, changed by a function of one image (float32, 3 x 224 x 224), as DIRNAME."""
    inputs = folder / ("inputs_" + dirname)
    inputs.mkdir()
    for path in (folder / "inputs").iterdir():
        image = np.fromfile(str(path), "<f4").reshape(3, 224, 224)
        (inputs / path.name).write_bytes((change(image) if change else image).tobytes())
    succeeds("onnx_infer.py", "--model", model, "--input", inputs, "--output", folder, "--output_dirname", dirname)


def judge(demo, folder, dirname):
    process = script("imagenet_acc_eval.py", folder / dirname, demo[0] / "tiny-imagenet" / "val_label.txt", folder,
                     dirname + ".json", "--reference", folder / "reference")
    assert "Traceback" not in process.stderr, process.stderr
    return process, json.loads((folder / (dirname + ".json")).read_text())["fidelity"]


def accused(demo, folder, dirname):
    process, fidelity = judge(demo, folder, dirname)
    assert process.returncode == 1 and not fidelity["agrees"], process.stdout
    sentence = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentence) == 1 and fidelity["most_different"][0]["image"] in sentence[0]
    return fidelity


def test_the_same_results_agree_wholly(demo, place):
    process, fidelity = judge(demo, place, "reference")
    assert process.returncode == 0 and fidelity["agrees"] and fidelity["compared"] == IMAGES
    assert (fidelity["top1_agreement"], fidelity["top5_set_agreement"], fidelity["absolute_difference"]) == (100, 100, 0)
    assert fidelity["cosine_worst"] == pytest.approx(1) and "onnxruntime" in fidelity["engine"]


def test_an_honest_fp16_copy_is_not_accused_by_an_order_of_magnitude(demo, place):
    onnx.save(to_fp16(onnx.load(str(demo[0] / "resnet34.onnx"))), str(place / "fp16.onnx"))
    infer(place, place / "fp16.onnx", "fp16", lambda image: image.astype("<f2"))
    process, fidelity = judge(demo, place, "fp16")
    assert process.returncode == 0 and fidelity["agrees"], process.stderr
    assert 0 < fidelity["relative_difference"] < fidelity["relative_limit"] / 10 and fidelity["top1_agreement"] == 100


@pytest.mark.parametrize("fault, change", [
    ("bgr", lambda image: ((image * STD + MEAN)[::-1] - MEAN) / STD),
    ("unnormalised", lambda image: image * STD + MEAN),
    ("levels", lambda image: (image * STD + MEAN) * 255),
], ids=["BGR input", "0 to 1 without normalisation", "0 to 255 without normalisation"])
def test_a_fault_of_the_input_is_caught(fault, change, demo, place):
    infer(place, demo[0] / "resnet34.onnx", fault, lambda image: np.ascontiguousarray(change(image), "<f4"))
    assert accused(demo, place, fault)["relative_difference"] > 0.2


def test_a_stale_model_is_caught(demo, place):
    onnx.save(other_weights(onnx.load(str(demo[0] / "resnet34.onnx"))), str(place / "stale.onnx"))
    infer(place, place / "stale.onnx", "stale")
    assert accused(demo, place, "stale")["relative_difference"] > 0.05  # though these images' Top-1 may well be the same


def test_results_shifted_by_one_image_are_caught(demo, place):
    names = sorted(path.name for path in (place / "reference").iterdir())
    (place / "shifted").mkdir()
    for name, following in zip(names, names[1:] + names[:1]):
        shutil.copy(str(place / "reference" / name), str(place / "shifted" / following))
    assert accused(demo, place, "shifted")["relative_difference"] > 0.2


def test_one_spoilt_image_among_right_ones_is_caught_and_named(demo, place):
    shutil.copytree(str(place / "reference"), str(place / "spoilt"))
    path = sorted((place / "spoilt").iterdir())[2]
    scores = np.fromfile(str(path), "<f4")
    scores[np.argmax(scores)] *= 0.9
    path.write_bytes(scores.tobytes())
    fidelity = accused(demo, place, "spoilt")
    assert fidelity["most_different"][0]["image"] + "_0.bin" == path.name


def test_the_figures_are_those_of_numpy(tmp_path):
    random = np.random.RandomState(1)
    scores = {name: random.standard_normal((2, 20)).astype("<f4") for name in "ab"}
    for folder, row in (("mine", 0), ("theirs", 1)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / (name + "_0.bin")).write_bytes(scores[name][row].tobytes())
    (tmp_path / "labels").write_text("a 1\nb 2\n")
    assert "is off by" in fails(1, "imagenet_acc_eval.py", tmp_path / "mine", tmp_path / "labels", tmp_path, "r.json",
                                "--reference", tmp_path / "theirs")
    fidelity = json.loads((tmp_path / "r.json").read_text())["fidelity"]
    pairs = [scores[name].astype(np.float64) for name in "ab"]
    cosines = [mine @ theirs / np.sqrt((mine ** 2).sum() * (theirs ** 2).sum()) for mine, theirs in pairs]
    assert fidelity["cosine_mean"] == pytest.approx(np.mean(cosines)) and fidelity["cosine_worst"] == pytest.approx(min(cosines))
    differences = [abs(mine - theirs).max() for mine, theirs in pairs]
    assert fidelity["absolute_difference"] == pytest.approx(max(differences))
    assert fidelity["relative_difference"] == pytest.approx(max(
        difference / abs(theirs).max() for difference, (_, theirs) in zip(differences, pairs)))
    assert fidelity["top1_agreement"] == 100 * np.mean([mine.argmax() == theirs.argmax() for mine, theirs in pairs])


def test_a_reference_of_other_images_or_another_width_is_refused(tmp_path):
    for folder, name, width in (("mine", "a", 20), ("other", "b", 20), ("wide", "a", 21)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / (name + "_0.bin")).write_bytes(np.arange(width, dtype="<f4").tobytes())
    (tmp_path / "labels").write_text("a 1\n")
    for reference, said in (("other", "no counterpart"), ("wide", "holds 21"), ("none", "none")):
        assert said in fails(1, "imagenet_acc_eval.py", tmp_path / "mine", tmp_path / "labels", tmp_path, "r.json",
                             "--reference", tmp_path / reference)
        assert not (tmp_path / "r.json").exists()
