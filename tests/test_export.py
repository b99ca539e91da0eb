"""resnet34_pth2onnx.py: the checkpoints people have, what is refused, and the proof of the export."""
import argparse
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, fails, succeeds

torch = pytest.importorskip("torch")
SCRIPT = "resnet34_pth2onnx.py"


@pytest.fixture(scope="module")
def weights(tiny):
    return torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu")


def logits(onnx_path, images):
    import onnxruntime
    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    return session.run(["class"], {"image": images})[0]


IMAGES = np.random.RandomState(1).standard_normal((2, 3, 224, 224)).astype(np.float32)


def test_the_graph_has_the_names_types_and_opset_the_guide_needs(resnet34_onnx):
    import onnx
    model = onnx.load(str(resnet34_onnx))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 11)]

    def described(value):
        kind = value.type.tensor_type
        return value.name, kind.elem_type, [side.dim_value or side.dim_param for side in kind.shape.dim]
    initializers = {initializer.name for initializer in model.graph.initializer}
    assert [described(value) for value in model.graph.input if value.name not in initializers] == \
        [("image", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])]
    assert [described(value) for value in model.graph.output] == [("class", onnx.TensorProto.FLOAT, ["batch", 1000])]


def test_the_graph_computes_what_torchvisions_resnet34_computes(resnet34_onnx, weights):
    from torchvision.models import resnet34
    model = resnet34()
    model.load_state_dict(weights)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(IMAGES)).numpy()
    assert np.abs(logits(resnet34_onnx, IMAGES) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_proof_is_printed_for_batch_1_and_3(demo):
    for batch in (1, 3):
        line = [line for line in demo[1].stdout.splitlines() if "batch %d:" % batch in line][0]
        assert "largest absolute difference" in line and "cosine similarity 1.0000" in line


@pytest.mark.parametrize("wrap", [
    lambda weights: {"epoch": 3, "state_dict": {"module." + key: value for key, value in weights.items()}},
    lambda weights: {"model": {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}},
], ids=["state_dict of DataParallel", "model of before num_batches_tracked"])
def test_wrapped_checkpoints_give_the_same_logits(wrap, weights, resnet34_onnx, tmp_path):
    torch.save(wrap(weights), str(tmp_path / "w.pth"))
    succeeds(SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx")
    assert np.array_equal(logits(tmp_path / "m.onnx", IMAGES), logits(resnet34_onnx, IMAGES))


def test_a_half_precision_checkpoint_in_the_old_file_format_is_read(weights, resnet34_onnx, tmp_path):
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    torch.save(half, str(tmp_path / "w.pth"), _use_new_zipfile_serialization=False)
    succeeds(SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx")
    expected = logits(resnet34_onnx, IMAGES)
    assert np.abs(logits(tmp_path / "m.onnx", IMAGES) - expected).max() < 0.02 * np.abs(expected).max()


def test_the_number_of_classes_is_read_from_the_checkpoint(weights, tmp_path):
    ten = dict(weights, **{"fc.weight": weights["fc.weight"][:10].clone(), "fc.bias": weights["fc.bias"][:10].clone()})
    torch.save(ten, str(tmp_path / "w.pth"))
    assert "10 classes" in succeeds(SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx").stdout
    assert logits(tmp_path / "m.onnx", IMAGES).shape == (2, 10)


def refused(tmp_path, name="w.pth"):
    sentence = fails(1, SCRIPT, tmp_path / name, tmp_path / "m.onnx")
    assert name in sentence
    assert sorted(path.name for path in tmp_path.iterdir() if "onnx" in path.name) == []
    return sentence


def test_another_architecture_is_refused_with_the_keys_that_do_not_fit(tmp_path):
    from torchvision import models
    torch.save(models.resnet18().state_dict(), str(tmp_path / "w.pth"))
    sentence = refused(tmp_path)
    assert "missing (layer1.2.conv1.weight" in sentence
    torch.save(models.resnet50().state_dict(), str(tmp_path / "w.pth"))
    sentence = refused(tmp_path)
    assert "unexpected (layer1.0.conv3.weight" in sentence and "misshapen (layer1.0.conv1.weight (64, 64, 1, 1)" in sentence


def test_a_checkpoint_with_nan_is_refused_by_its_key(weights, tmp_path):
    torch.save(dict(weights, **{"bn1.bias": weights["bn1.bias"] * float("nan")}), str(tmp_path / "w.pth"))
    assert "bn1.bias holds NaN" in refused(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:1000000], lambda data: b"", lambda data: b"<html>404</html>\n"],
                         ids=["truncated", "empty", "a web page"])
def test_damaged_files_are_refused(damage, tiny, tmp_path):
    (tmp_path / "w.pth").write_bytes(damage((tiny / "resnet34-tiny.pth").read_bytes()))
    assert "truncated or damaged" in refused(tmp_path)


class RunsCode:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip format", "old format"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_none(zipped, tmp_path):
    torch.save({"x": RunsCode(str(tmp_path / "hacked"))}, str(tmp_path / "w.pth"), _use_new_zipfile_serialization=zipped)
    assert "posix.mkdir" in refused(tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_a_checkpoint_with_other_objects_is_refused_with_the_remedy(weights, tmp_path):
    torch.save({"state_dict": weights, "args": argparse.Namespace(lr=0.1)}, str(tmp_path / "w.pth"))
    sentence = refused(tmp_path)
    assert "argparse.Namespace" in sentence and "torch.save(model.state_dict()" in sentence


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path):
    torch.save([1, 2], str(tmp_path / "w.pth"))
    assert "not a state_dict" in refused(tmp_path)


def test_a_hash_in_the_file_name_is_checked(tiny, tmp_path):
    data = (tiny / "resnet34-tiny.pth").read_bytes()
    (tmp_path / "resnet34-b627a593.pth").write_bytes(data)
    assert "b627a593" in refused(tmp_path, "resnet34-b627a593.pth")
    right = "resnet34-%s.pth" % hashlib.sha256(data).hexdigest()[:8]
    (tmp_path / right).write_bytes(data)
    succeeds(SCRIPT, tmp_path / right, tmp_path / "m.onnx")


def test_an_existing_onnx_survives_a_failed_export(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"earlier")
    (tmp_path / "w.pth").write_bytes(b"")
    fails(1, SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"earlier"


def test_an_export_that_disagrees_with_pytorch_is_not_written(tiny, tmp_path):
    code = ("import sys, resnet34_pth2onnx as script\n"
            "build = script.build_model\n"
            "exported = script.export\n"
            "def export(torch, model, opset):\n"
            "    data = exported(torch, model, opset)\n"
            "    with torch.no_grad():\n"
            "        model.fc.weight.copy_(model.fc.weight.flip(0))\n"
            "    return data\n"
            "script.export = export\n"
            "script.main()\n")
    process = subprocess.run([sys.executable, "-c", code, str(tiny / "resnet34-tiny.pth"), str(tmp_path / "m.onnx")],
                             cwd=str(REPOSITORY), capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and "disagrees with PyTorch" in process.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_other_opsets_are_exported_or_refused_with_a_sentence(tiny, tmp_path):
    import onnx
    succeeds(SCRIPT, tiny / "resnet34-tiny.pth", tmp_path / "m.onnx", "--opset", "12")
    assert onnx.load(str(tmp_path / "m.onnx")).opset_import[0].version == 12
    assert "opset 99" in fails(1, SCRIPT, tiny / "resnet34-tiny.pth", tmp_path / "n.onnx", "--opset", "99")


def test_a_torchvision_that_does_not_fit_torch_gives_the_remedy(tiny, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    sentence = fails(1, SCRIPT, tiny / "resnet34-tiny.pth", tmp_path / "m.onnx",
                     env=dict(os.environ, PYTHONPATH=str(tmp_path / "site")))
    assert "torchvision::nms does not exist" in sentence and torch.__version__ in sentence and "pip install" in sentence


def test_wrong_usage_exits_with_2(tiny, tmp_path):
    fails(2, SCRIPT, "only-one.pth")
    fails(2, SCRIPT, "a.pth", "b.onnx", "--opset", "x")
    assert "overwrite the checkpoint" in fails(2, SCRIPT, tiny / "resnet34-tiny.pth", tiny / "resnet34-tiny.pth")
    sentence = fails(1, SCRIPT, tmp_path / "nowhere.pth", tmp_path / "m.onnx")
    assert "nowhere.pth: no such weight file" in sentence
    assert "wget https://download.pytorch.org/models/resnet34-b627a593.pth" in sentence
    assert "does not exist" in fails(1, SCRIPT, tiny / "resnet34-tiny.pth", tmp_path / "no" / "m.onnx")
