"""resnet34_pth2onnx.py: the graph, what it says of itself, its proof, and when it is made, kept or refused."""
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import (
    FLOAT_RECIPE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    REPOSITORY,
    UINT8_RECIPE,
    command,
    fails,
    script,
    some_python,
    succeeds,
    wait_until,
)

from common import files

torch = pytest.importorskip("torch")
SCRIPT = "resnet34_pth2onnx.py"
SMALL = ("--resize", "40", "--crop", "32")  # where the images' size does not matter
IMAGES = np.random.RandomState(1).standard_normal((2, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    """A ResNet34 of 10 classes with random weights."""
    from torchvision.models import resnet34
    torch.manual_seed(0)
    return resnet34(num_classes=10).state_dict()


@pytest.fixture(scope="module")
def pth(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "random.pth"
    torch.save(weights, str(path))
    return path


def export(*arguments):
    return script(SCRIPT, *arguments)


@pytest.fixture(scope="module")
def exported(pth):
    """({"float32": its ONNX, "uint8": its ONNX}, what the exports printed); the first is made from nothing, as users make it."""
    paths = {dtype: pth.parent / (dtype + ".onnx") for dtype in ("float32", "uint8")}
    return paths, [succeeds(SCRIPT, pth, paths["float32"], cold=True).stdout,
                   succeeds(SCRIPT, pth, paths["uint8"], "--input", "uint8").stdout]


@pytest.fixture
def no_torch(tmp_path):
    """An environment in which importing torch is an accident: what is done in it is done without torch."""
    (tmp_path / "site" / "torch").mkdir(parents=True)
    (tmp_path / "site" / "torch" / "__init__.py").write_text("raise ImportError('torch was imported')\n")
    return dict(os.environ, PYTHONPATH=str(tmp_path / "site"))


def session(path):
    import onnxruntime
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def scores(path, images):
    return session(path).run(["class"], {"image": images})[0]


def expected_of(weights, images):
    """The scores that PyTorch gives."""
    from torchvision.models import resnet34
    model = resnet34(num_classes=10)
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images)).numpy()


def properties(path):
    import onnx
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype, kind, shape", [("float32", 1, ["batch", 3, 224, 224]), ("uint8", 2, ["batch", 224, 224, 3])])
def test_the_graph_has_the_names_types_and_opset_the_guide_needs(dtype, kind, shape, exported):
    import onnx
    model = onnx.load(str(exported[0][dtype]))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 11)]

    def described(value):
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [side.dim_value or side.dim_param for side in tensor.shape.dim]
    initializers = {initializer.name for initializer in model.graph.initializer}
    assert [described(value) for value in model.graph.input if value.name not in initializers] == [("image", kind, shape)]
    assert [described(value) for value in model.graph.output] == [("class", onnx.TensorProto.FLOAT, ["batch", 10])]


def test_the_graph_computes_what_torchvisions_resnet34_computes(exported, weights):
    expected = expected_of(weights, IMAGES)
    assert np.abs(scores(exported[0]["float32"], IMAGES) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_uint8_graph_normalises_in_front_and_gives_the_same_bytes(exported):
    import onnx
    graph = onnx.load(str(exported[0]["uint8"])).graph
    computing = [node.op_type for node in graph.node if node.op_type not in ("Constant", "Identity")]
    assert computing[:5] == ["Transpose", "Cast", "Div", "Sub", "Div"]
    pixels = np.random.RandomState(2).randint(0, 256, (4, 224, 224, 3)).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div(255)  # as ToTensor and Normalize do
    images = images.sub(torch.tensor(IMAGENET_MEAN).view(3, 1, 1)).div(torch.tensor(IMAGENET_STD).view(3, 1, 1)).numpy()
    of_float, of_uint8 = session(exported[0]["float32"]), session(exported[0]["uint8"])
    for batch in (1, 4):
        for first in range(0, 4, batch):
            results = [graph.run(["class"], {"image": source[first:first + batch]})[0]
                       for graph, source in ((of_float, images), (of_uint8, pixels))]
            assert results[0].tobytes() == results[1].tobytes()


def test_the_metadata_says_recipe_precision_weights_and_exporter(exported, pth):
    for dtype, recipe in (("float32", FLOAT_RECIPE), ("uint8", UINT8_RECIPE)):
        says = properties(exported[0][dtype])
        assert json.loads(says["recipe"]) == recipe and says["precision"] == "fp32"
        assert (says["weights"], says["weights_sha256"]) == ("random.pth", sha256(pth))
        assert sorted(says) == ["exporter", "precision", "recipe", "weights", "weights_sha256"]
        version = torch.__version__.split("+")[0]
        assert says["exporter"].startswith("torch " + version) and says["exporter"].endswith("opset 11")


def test_the_weights_and_the_proof_are_one_line_each(exported):
    for printed in exported[1]:
        weights, proof, written = printed.splitlines()
        assert weights == "weights: the whole file" and "written, opset 11" in written
        assert "against PyTorch" in proof and "batch 1 and 3: largest difference" in proof


def test_the_record_beside_it_says_all_that_it_was_made_from(exported, pth):
    record = json.loads((pth.parent / "float32.onnx.json").read_text())
    assert record["sha256"] == sha256(exported[0]["float32"])
    made_from = record["made_from"]
    assert made_from.pop("packages")[0].startswith("torch " + torch.__version__.split("+")[0])
    assert made_from == {"version": 3, "weights_sha256": sha256(pth), "weights": None, "opset": 11,
                         "recipe": {"dtype": "float32", "layout": "CHW"}}


def test_a_net_trained_otherwise_keeps_its_recipe_and_size(pth, tmp_path):
    options = ("--resize", "72", "--crop", "64", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.5", "--input", "uint8",
               "--interpolation", "bicubic")
    assert "uint8 64 x 64, 10 classes" in export(pth, tmp_path / "m.onnx", *options).stdout
    assert json.loads(properties(tmp_path / "m.onnx")["recipe"]) == {
        "resize": 72, "crop": 64, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5], "dtype": "uint8", "layout": "HWC",
        "interpolation": "bicubic"}
    assert scores(tmp_path / "m.onnx", np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 10)


def test_a_wrapped_checkpoint_gives_the_same_bytes_but_for_its_name_and_hash(weights, exported, tmp_path):
    import onnx
    torch.save({"epoch": 3, "state_dict": {"module." + key: value for key, value in weights.items()}}, str(tmp_path / "w.pth"))
    printed = export(tmp_path / "w.pth", tmp_path / "m.onnx").stdout
    assert printed.splitlines()[0] == 'weights: state_dict, prefix "module."'
    models = [onnx.load(str(path)) for path in (exported[0]["float32"], tmp_path / "m.onnx")]
    for entry in models[1].metadata_props:
        if entry.key in ("weights", "weights_sha256"):
            entry.value = properties(exported[0]["float32"])[entry.key]
    assert models[1].SerializeToString() == exported[0]["float32"].read_bytes()


def test_an_old_half_precision_checkpoint_is_read(weights, tmp_path):
    half = {key: value.half() for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    torch.save({"model": half}, str(tmp_path / "w.pth"), _use_new_zipfile_serialization=False)
    assert export(tmp_path / "w.pth", tmp_path / "m.onnx", *SMALL).returncode == 0
    images = np.ascontiguousarray(IMAGES[:, :, :32, :32])
    expected = expected_of({key: value.float() for key, value in half.items()}, images)
    assert np.abs(scores(tmp_path / "m.onnx", images) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_average_of_the_weights_is_exported_by_its_name(weights, tmp_path):
    average = {key: value * 2 if key == "fc.bias" else value for key, value in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": average}, str(tmp_path / "w.pth"))
    images = np.ascontiguousarray(IMAGES[:, :, :32, :32])
    for options, taken, line in (([], weights, "weights: state_dict; also there, for --weights: state_dict_ema"),
                                 (["--weights", "state_dict_ema"], average, "weights: state_dict_ema; also there, ")):
        printed = export(tmp_path / "w.pth", tmp_path / "m.onnx", *options, *SMALL).stdout
        assert printed.startswith(line) and "kept" not in printed
        expected = expected_of(taken, images)
        assert np.abs(scores(tmp_path / "m.onnx", images) - expected).max() <= 1e-4 * np.abs(expected).max()
        said = properties(tmp_path / "m.onnx")
        assert said["weights"] == " ".join(["w.pth"] + options[1:])
        assert (said["weights_sha256"] == sha256(tmp_path / "w.pth")) == (not options)
    assert export(tmp_path / "w.pth", tmp_path / "m.onnx", "--weights", "model_ema", *SMALL).returncode == 1


def test_a_checkpoint_that_is_refused_leaves_nothing_and_imports_no_torch(weights, no_torch, tmp_path):
    torch.save({key: value for key, value in weights.items() if key != "conv1.weight"}, str(tmp_path / "w.pth"))
    sentence = fails(1, SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx", env=no_torch)
    assert "w.pth: holds ResNet34 of another shape, not torchvision's ResNet34: 1 missing (conv1.weight)" in sentence
    assert sorted(os.listdir(str(tmp_path))) == ["site", "w.pth"]


# ---- made, kept or refused ----

def test_what_is_there_of_just_these_weights_is_kept_without_torch(exported, pth, no_torch):
    path = exported[0]["float32"]
    before = os.stat(str(path))
    printed = succeeds(SCRIPT, pth, path, env=no_torch).stdout
    assert printed == "kept: %s, opset 11, float32 224 x 224, of just these weights\n" % path
    assert os.stat(str(path)) == before
    process = succeeds(SCRIPT, pth, path, "--check", env=no_torch)
    assert (process.stdout, process.stderr) == ("", "")


def test_check_says_what_is_to_be_made_and_makes_nothing(exported, pth, no_torch, tmp_path):
    there = exported[0]["float32"]
    for arguments in ([tmp_path / "m.onnx"], [there, "--opset", "12"], [there, "--interpolation", "bicubic"],
                      [there, "--weights", "."]):
        process = script(SCRIPT, pth, *arguments, "--check", env=no_torch)
        assert (process.returncode, process.stdout, process.stderr) == (1, "", "")
    assert os.listdir(str(tmp_path)) == ["site"]


def test_other_options_other_weights_and_overwrite_make_it_again(weights, pth, tmp_path):
    path, name = tmp_path / "m.onnx", tmp_path / "copy.pth"
    name.write_bytes(pth.read_bytes())
    for source, options, made in ((pth, [], True), (name, [], False), (pth, ["--overwrite"], True),
                                  (pth, ["--std", "0.3,0.3,0.3"], True)):
        process = export(source, path, *SMALL, *options)
        assert process.returncode == 0 and ("written" in process.stdout) == made and ("kept: " in process.stdout) != made
    torch.save(dict(weights, **{"fc.bias": weights["fc.bias"] + 1}), str(name))
    assert "written" in export(name, path, *SMALL).stdout and properties(path)["weights"] == "copy.pth"


def test_what_is_not_of_its_making_is_refused_without_overwrite(pth, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"somebody's")
    process = export(pth, path, *SMALL)
    assert process.returncode == 1 and "m.onnx: is there and not of this command's making" in process.stderr
    assert path.read_bytes() == b"somebody's" and export(pth, path, *SMALL, "--overwrite").returncode == 0
    path.write_bytes(path.read_bytes() + b"\0")  # changed since
    assert export(pth, path, *SMALL).returncode == 1


def test_what_a_killed_run_left_is_made_again(pth, tmp_path):
    path = tmp_path / "m.onnx"
    files.begin_recorded(str(path), {"version": 1})
    assert export(pth, path, *SMALL).returncode == 0
    files.begin_recorded(str(path), {"version": 1})  # killed before or after the ONNX came under its name
    assert "written" in export(pth, path, *SMALL).stdout and "kept" in export(pth, path, *SMALL).stdout


def test_several_checkpoints_on_the_command_line_destroy_none(pth, no_torch, tmp_path):
    for name in ("a.pth", "b.pth", "c.safetensors", "d.ckpt", "e.pth.tar", "f.pt"):
        (tmp_path / name).write_bytes(b"x")
        assert "is the name of a checkpoint" in fails(2, SCRIPT, pth, tmp_path / name, env=no_torch)
        assert (tmp_path / name).read_bytes() == b"x"
    fails(2, SCRIPT, pth, tmp_path / "a.pth", tmp_path / "b.pth")
    assert "would be overwritten" in fails(1, SCRIPT, tmp_path / "m.onnx", tmp_path / "m.onnx", env=no_torch)


def test_only_regular_files_are_read_and_each_failure_is_a_sentence(no_torch, tmp_path):
    os.mkfifo(str(tmp_path / "fifo.pth"))
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "device.pth").symlink_to("/dev/zero")
    (tmp_path / "unreadable.pth").symlink_to("/proc/self/mem")
    with open(str(tmp_path / "huge.pth"), "wb") as file:
        file.truncate(1 << 40)
    for name, words in (("fifo", "no regular file"), ("folder", "is a folder"), ("device", "no regular file"),
                        ("unreadable", "Input/output error"), ("huge", "larger than 1024 MB"),
                        ("a\nb", "no such weight file")):
        process = script(SCRIPT, tmp_path / (name + ".pth"), tmp_path / "m.onnx", env=no_torch, timeout=20)
        assert process.returncode == 1 and words in process.stderr and len(process.stderr.splitlines()) == 1
    assert "wget https://download.pytorch.org/models/resnet34-b627a593.pth" in process.stderr


def test_an_earlier_onnx_survives_a_full_disk_and_no_stray_stays(pth, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"earlier")
    limit = (1000000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    sentence = fails(1, SCRIPT, pth, tmp_path / "m.onnx", "--overwrite", *SMALL,
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert "m.onnx: File too large" in sentence
    assert os.listdir(str(tmp_path)) == ["m.onnx"] and (tmp_path / "m.onnx").read_bytes() == b"earlier"


def test_a_link_is_replaced_and_what_it_names_stays(pth, tmp_path):
    (tmp_path / "own").write_bytes(b"x")
    (tmp_path / "m.onnx").symlink_to("own")
    assert export(pth, tmp_path / "m.onnx", "--overwrite", *SMALL).returncode == 0
    assert (tmp_path / "own").read_bytes() == b"x" and not (tmp_path / "m.onnx").is_symlink()


def test_a_full_output_is_no_traceback_and_the_file_stays(pth, tmp_path):
    words = [some_python()] + command(SCRIPT, pth, tmp_path / "m.onnx", *SMALL)[1:]
    process = subprocess.run(["bash", "-c", '"$@" >/dev/full', "bash"] + words,
                             capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and process.stderr == "error: standard output: No space left on device\n"
    assert scores(tmp_path / "m.onnx", np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10)


def signals_caught(pid):
    with open("/proc/%d/status" % pid) as file:
        return int([line for line in file if line.startswith("SigCgt")][0].split()[1], 16)


@pytest.mark.parametrize("number, moment", [
    (signal.SIGINT, lambda process: signals_caught(process.pid) >> (signal.SIGTERM - 1) & 1),  # just after the start
    (signal.SIGTERM, lambda process: "libtorch" in open("/proc/%d/maps" % process.pid).read()),
], ids=["Ctrl-C at the start", "SIGTERM while torch loads"])
def test_a_stop_is_a_sentence(number, moment, pth, tmp_path):
    process = subprocess.Popen(command(SCRIPT, pth, tmp_path / "m.onnx"), stderr=subprocess.PIPE)
    wait_until(lambda: moment(process), process)
    process.send_signal(number)
    _, printed = process.communicate()
    assert process.returncode == 128 + number and printed.startswith(b"stopped; ") and printed.count(b"\n") == 1
    assert os.listdir(str(tmp_path)) == []


def test_an_export_that_disagrees_with_pytorch_is_not_written(pth, tmp_path):
    code = ("import sys, resnet34_pth2onnx as script\n"
            "exported = script.export\n"
            "def export(torch, model, *more):\n"
            "    data = exported(torch, model, *more)\n"
            "    with torch.no_grad():\n"
            "        model.fc.weight.copy_(model.fc.weight * 1.01)\n"
            "    return data\n"
            "script.export = export\n"
            "script.main()\n")
    process = subprocess.run([sys.executable, "-c", code, str(pth), str(tmp_path / "m.onnx")] + list(SMALL),
                             cwd=str(REPOSITORY), capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and "disagrees with PyTorch" in process.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_other_opsets_are_exported_or_refused_with_a_sentence(pth, tmp_path):
    import onnx
    assert export(pth, tmp_path / "m.onnx", "--opset", "12", *SMALL).returncode == 0
    assert onnx.load(str(tmp_path / "m.onnx")).opset_import[0].version == 12
    refused = export(pth, tmp_path / "n.onnx", "--opset", "99", *SMALL)
    assert refused.returncode == 1 and "opset 99" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_torchvision_that_does_not_fit_torch_gives_the_remedy(pth, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    sentence = fails(1, SCRIPT, pth, tmp_path / "m.onnx", env=dict(os.environ, PYTHONPATH=str(tmp_path / "site")))
    assert "torchvision::nms does not exist" in sentence and torch.__version__ in sentence and "pip install" in sentence


def test_wrong_usage_exits_with_2(pth, tmp_path, no_torch):
    fails(2, SCRIPT, "only-one.pth")
    for option, value in (("--opset", "x"), ("--opset", "6"), ("--crop", "0"), ("--crop", "300"), ("--resize", "100"),
                          ("--crop", "1025"), ("--interpolation", "nearest"),
                          ("--mean", "1,2"), ("--mean", "123.7,116.3,103.5"), ("--std", "1,nan,1"), ("--std", "0,1,1"),
                          ("--input", "int8")):
        assert option in fails(2, SCRIPT, "a.pth", "b.onnx", option, value)
    fails(2, SCRIPT, pth, pth)
    assert "does not exist" in fails(1, SCRIPT, pth, tmp_path / "no" / "m.onnx")
    assert "not a file to write" in fails(1, SCRIPT, pth, tmp_path, env=no_torch)


def test_scripts_of_the_current_folder_are_not_imported(no_torch, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')\n")
    assert "no such weight file" in fails(1, SCRIPT, "w.pth", "m.onnx", cwd=str(tmp_path), env=no_torch)
