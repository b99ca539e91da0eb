"""resnet34_pth2onnx.py: the checkpoints people have, what is refused, what the graph says of itself, and its proof."""
import argparse
import collections
import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import zipfile

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
    succeeds,
    wait_until,
)

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


# Imports the packages once, for torch's import takes seconds, then runs the script in a process of its own for each line.
PRELOADED = """
import json, os, sys, tempfile, traceback
import onnx, onnxruntime, torch, torchvision
import resnet34_pth2onnx as script
for line in sys.stdin:
    sys.argv = [script.__file__] + json.loads(line)
    printed = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    child = os.fork()
    if not child:
        for number, file in enumerate(printed, 1):
            os.dup2(file.fileno(), number)
        code = 0
        try:
            script.guarded()
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)
    code = os.waitpid(child, 0)[1]
    for file in printed:
        file.seek(0)
    print(json.dumps([code >> 8 or code] + [file.read().decode("utf-8", "replace") for file in printed]), flush=True)
"""
Finished = collections.namedtuple("Finished", "returncode stdout stderr")


@pytest.fixture(scope="module")
def export():
    """A function that runs the script with its arguments: (exit code, stdout, stderr)."""
    process = subprocess.Popen([sys.executable, "-c", PRELOADED], cwd=str(REPOSITORY), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, encoding="utf-8")

    def run(*arguments):
        process.stdin.write(json.dumps([os.fspath(argument) for argument in arguments]) + "\n")
        process.stdin.flush()
        return Finished(*json.loads(process.stdout.readline()))
    yield run
    process.communicate()


@pytest.fixture(scope="module")
def exported(pth, export):
    """({"float32": its ONNX, "uint8": its ONNX}, what the exports printed); the first is made as users make it."""
    paths = {dtype: pth.parent / (dtype + ".onnx") for dtype in ("float32", "uint8")}
    return paths, [succeeds(SCRIPT, pth, paths["float32"]).stdout, export(pth, paths["uint8"], "--input", "uint8").stdout]


@pytest.fixture
def no_torch(tmp_path):
    """An environment in which importing torch is an accident: what is refused in it is refused before torch sees it."""
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


def refused(pth, env=None, export=None):
    """The sentence of a refusal; nothing is left behind by it."""
    before = sorted(os.listdir(str(pth.parent)))
    if export is None:
        sentence = fails(1, SCRIPT, pth, pth.parent / "m.onnx", env=env or dict(os.environ))
    else:
        code, _, sentence = export(pth, pth.parent / "m.onnx")
        assert code == 1 and sentence.startswith("error: ") and sentence.count("\n") == 1, sentence
    assert pth.name in sentence and sorted(os.listdir(str(pth.parent))) == before
    return sentence


def refused_of(checkpoints, folder, export):
    """{name: sentence} of many checkpoints."""
    sentences = {}
    for name, checkpoint in checkpoints.items():
        torch.save(checkpoint, str(folder / "w.pth"))
        sentences[name] = refused(folder / "w.pth", export=export)
    return sentences


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
    assert [node.op_type for node in graph.node][:5] == ["Transpose", "Cast", "Div", "Sub", "Div"]
    pixels = np.random.RandomState(2).randint(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div(255)  # as ToTensor and Normalize do
    images = images.sub(torch.tensor(IMAGENET_MEAN).view(3, 1, 1)).div(torch.tensor(IMAGENET_STD).view(3, 1, 1)).numpy()
    of_float, of_uint8 = session(exported[0]["float32"]), session(exported[0]["uint8"])
    for batch in (1, 4, 8):
        for first in range(0, 8, batch):
            results = [graph.run(["class"], {"image": source[first:first + batch]})[0]
                       for graph, source in ((of_float, images), (of_uint8, pixels))]
            assert results[0].tobytes() == results[1].tobytes()


def test_the_metadata_says_recipe_precision_weights_and_exporter(exported, pth):
    for dtype, recipe in (("float32", FLOAT_RECIPE), ("uint8", UINT8_RECIPE)):
        says = properties(exported[0][dtype])
        assert json.loads(says["recipe"]) == recipe and says["precision"] == "fp32"
        assert (says["weights"], says["weights_sha256"]) == ("random.pth", sha256(pth))
        assert says["exporter_sha256"] == sha256(REPOSITORY / SCRIPT)
        assert says["exporter"].startswith("torch %s, torchvision " % torch.__version__) and "opset 11" in says["exporter"]


def test_the_proof_is_one_line(exported):
    for printed in exported[1]:
        [proof] = [line for line in printed.splitlines() if "against PyTorch" in line]
        assert "batch 1 and 3: largest difference" in proof and len(printed.splitlines()) == 2


def test_what_is_loaded_is_what_is_hashed_though_the_file_is_replaced_meanwhile(weights, pth, tmp_path):
    torch.save(dict(weights, **{"fc.bias": weights["fc.bias"] + 1}), str(tmp_path / "other.pth"))
    (tmp_path / "w.pth").write_bytes(pth.read_bytes())
    digest = sha256(tmp_path / "w.pth")
    process = subprocess.Popen(command(SCRIPT, tmp_path / "w.pth", tmp_path / "m.onnx", *SMALL), stdout=subprocess.DEVNULL)
    # torch's library is mapped: the hash was taken, and torch is not imported yet.
    wait_until(lambda: "libtorch" in open("/proc/%d/maps" % process.pid).read(), process)
    process.send_signal(signal.SIGSTOP)
    os.replace(str(tmp_path / "other.pth"), str(tmp_path / "w.pth"))
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    images = np.ascontiguousarray(IMAGES[:, :, :32, :32])
    assert np.allclose(scores(tmp_path / "m.onnx", images), expected_of(weights, images), atol=1e-3)
    assert properties(tmp_path / "m.onnx")["weights_sha256"] == digest


def test_a_net_trained_otherwise_keeps_its_recipe_and_size(pth, export, tmp_path):
    options = ("--resize", "72", "--crop", "64", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.5", "--input", "uint8")
    assert "uint8 64 x 64, 10 classes" in export(pth, tmp_path / "m.onnx", *options).stdout
    assert json.loads(properties(tmp_path / "m.onnx")["recipe"]) == {
        "resize": 72, "crop": 64, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5], "dtype": "uint8", "layout": "HWC"}
    assert scores(tmp_path / "m.onnx", np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 10)


def test_a_wrapped_checkpoint_gives_the_same_bytes_but_for_its_name_and_hash(weights, exported, export, tmp_path):
    import onnx
    torch.save({"epoch": 3, "state_dict": {"module." + key: value for key, value in weights.items()}}, str(tmp_path / "w.pth"))
    assert export(tmp_path / "w.pth", tmp_path / "m.onnx").returncode == 0
    models = [onnx.load(str(path)) for path in (exported[0]["float32"], tmp_path / "m.onnx")]
    for entry in models[1].metadata_props:
        if entry.key in ("weights", "weights_sha256"):
            entry.value = properties(exported[0]["float32"])[entry.key]
    assert models[1].SerializeToString() == exported[0]["float32"].read_bytes()


def test_an_old_half_precision_checkpoint_is_read(weights, export, tmp_path):
    half = {key: value.half() for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    torch.save({"model": half}, str(tmp_path / "w.pth"), _use_new_zipfile_serialization=False)
    assert export(tmp_path / "w.pth", tmp_path / "m.onnx", *SMALL).returncode == 0
    images = np.ascontiguousarray(IMAGES[:, :, :32, :32])
    expected = expected_of({key: value.float() for key, value in half.items()}, images)
    assert np.abs(scores(tmp_path / "m.onnx", images) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_weights_that_are_no_resnet34s_are_refused_with_their_keys(weights, export, tmp_path):
    from torchvision import models
    bias = weights["bn1.bias"]
    sentences = refused_of({
        "resnet18": models.resnet18().state_dict(),
        "resnet50": models.resnet50().state_dict(),
        "overflow": dict(weights, **{"bn1.bias": bias.double() + 1e300}),
        "integers": dict(weights, **{"bn1.bias": bias.long()}),
        "twice": dict(weights, **{"module.bn1.bias": bias}),
        "one class": dict(weights, **{"fc.weight": weights["fc.weight"][:1], "fc.bias": weights["fc.bias"][:1]}),
        "a list": [1, 2],
        "an object": {"state_dict": weights, "args": argparse.Namespace(lr=0.1)},
    }, tmp_path, export)
    assert "missing (layer1.2.conv1.weight" in sentences["resnet18"]
    assert "unexpected (layer1.0.conv3.weight" in sentences["resnet50"]
    assert "misshapen (layer1.0.conv1.weight (64, 64, 1, 1)" in sentences["resnet50"]
    assert "bn1.bias holds NaN or infinite" in sentences["overflow"]
    assert "bn1.bias holds torch.int64 values" in sentences["integers"]
    assert "holds bn1.bias twice" in sentences["twice"] and "1 classes" in sentences["one class"]
    assert "not a state_dict" in sentences["a list"]
    assert "argparse.Namespace" in sentences["an object"] and "torch.save(model.state_dict()" in sentences["an object"]


def test_damaged_files_are_refused(no_torch, pth, export, tmp_path):
    for data in (pth.read_bytes()[:1000000], b"PK\3\4" + bytes(100)):
        (tmp_path / "w.pth").write_bytes(data)
        assert "truncated or damaged" in refused(tmp_path / "w.pth", no_torch)
    (tmp_path / "w.pth").write_bytes(b"<html>404</html>\n")
    assert "truncated or damaged" in refused(tmp_path / "w.pth", export=export)


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_none(export, tmp_path):
    bad = {"x": Call(os.mkdir, str(tmp_path / "hacked"))}
    for zipped in (True, False):
        torch.save(bad, str(tmp_path / "w.pth"), _use_new_zipfile_serialization=zipped)
        assert "posix.mkdir" in refused(tmp_path / "w.pth", export=export)
    assert os.listdir(str(tmp_path)) == ["w.pth"]


class WritesAFile(torch.nn.Module):
    """As TorchScript it writes a file when it is loaded."""

    def __init__(self, path):
        super().__init__()
        self.path, self.training = path, False

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state):
        # type: (Tuple[str, bool]) -> None
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)

    def forward(self, x):
        return x


def test_torchscript_and_other_archives_with_code_are_refused_before_torch_sees_them(no_torch, tmp_path):
    torch.jit.save(torch.jit.script(WritesAFile(str(tmp_path / "hacked"))), str(tmp_path / "w.pth"))
    if (tmp_path / "hacked").exists():
        (tmp_path / "hacked").unlink()
    assert "TorchScript" in refused(tmp_path / "w.pth", no_torch)
    for name in ("archive/code/__torch__.py", "package/model.py", "archive/constants.pkl"):
        with zipfile.ZipFile(str(tmp_path / "w.pth"), "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
            archive.writestr(name, b"import os")
        assert "holds code (%s)" % name in refused(tmp_path / "w.pth", no_torch)
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(data[:data.rindex(b"PK\5\6")] + b"PK\5\6" + bytes(18))  # Python sees an empty archive
    assert "TorchScript" in refused(tmp_path / "w.pth", no_torch)
    with tarfile.open(str(tmp_path / "w.pth"), "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    assert "tar archive" in refused(tmp_path / "w.pth", no_torch)


def test_checkpoints_that_expand_are_refused_in_little_memory(weights, tmp_path):
    paths = {"classes.pth": "2000000 classes", "call.pth": "error: ", "zipped.pth": "unpack to 100 MB"}
    stretched = {"fc.weight": torch.zeros(1, 512).expand(2000000, 512), "fc.bias": torch.zeros(1).expand(2000000)}
    torch.save(dict(weights, **stretched), str(tmp_path / "classes.pth"))
    torch.save({"x": Call(torch.FloatStorage, 1000000000), "y": Call(bytearray, 4000000000)}, str(tmp_path / "call.pth"))
    with zipfile.ZipFile(str(tmp_path / "zipped.pth"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(100000000))
    measured = ("import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)")
    for name, words in paths.items():
        process = subprocess.run([sys.executable, "-c", measured] + command(SCRIPT, tmp_path / name, tmp_path / "m.onnx"),
                                 capture_output=True, encoding="utf-8")
        assert process.returncode == 1 and words in process.stderr and "Traceback" not in process.stderr
        assert int(process.stdout) < 1300000, (name, process.stdout)  # KB; torch itself takes up to 700 MB


def test_only_regular_files_are_read_and_each_failure_is_a_sentence(no_torch, tmp_path):
    os.mkfifo(str(tmp_path / "fifo.pth"))
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "device.pth").symlink_to("/dev/zero")
    (tmp_path / "unreadable.pth").symlink_to("/proc/self/mem")
    with open(str(tmp_path / "huge.pth"), "wb") as file:
        file.truncate(1 << 40)
    for name, words in (("fifo", "no regular file"), ("folder", "is a folder"), ("device", "no regular file"),
                        ("unreadable", "Input/output error"), ("huge", "more than any ResNet34"),
                        ("a\nb", "no such weight file")):
        process = script(SCRIPT, tmp_path / (name + ".pth"), tmp_path / "m.onnx", env=no_torch, timeout=20)
        assert process.returncode == 1 and words in process.stderr and len(process.stderr.splitlines()) == 1
    assert "wget https://download.pytorch.org/models/resnet34-b627a593.pth" in process.stderr


def test_a_hash_in_the_file_name_is_checked(no_torch, pth, tmp_path):
    (tmp_path / "resnet34-b627a593.pth").write_bytes(pth.read_bytes())
    assert "b627a593" in refused(tmp_path / "resnet34-b627a593.pth", no_torch)
    right = tmp_path / ("resnet34-%s.pth" % sha256(pth)[:8])
    os.rename(str(tmp_path / "resnet34-b627a593.pth"), str(right))
    assert "torch was imported" in fails(1, SCRIPT, right, tmp_path / "m.onnx", env=no_torch)


def test_an_earlier_onnx_survives_a_full_disk_and_no_stray_stays(pth, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"earlier")
    limit = (1000000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    sentence = fails(1, SCRIPT, pth, tmp_path / "m.onnx", *SMALL,
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert "m.onnx: cannot be written: File too large" in sentence
    assert os.listdir(str(tmp_path)) == ["m.onnx"] and (tmp_path / "m.onnx").read_bytes() == b"earlier"


def test_strays_of_killed_runs_go_and_a_link_is_replaced(pth, export, tmp_path):
    stray, held, own = (tmp_path / name for name in (".m.onnx.0123abcd.tmp", ".m.onnx.89abcdef.tmp", ".m.onnx.notes.tmp"))
    for path in (stray, held, own, tmp_path / "own"):
        path.write_bytes(b"x")
    (tmp_path / "m.onnx").symlink_to("own")
    with open(str(held), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as the run that writes it does
        assert export(pth, tmp_path / "m.onnx", *SMALL).returncode == 0
    assert not stray.exists() and held.exists() and own.exists()
    assert (tmp_path / "own").read_bytes() == b"x" and not (tmp_path / "m.onnx").is_symlink()


@pytest.mark.parametrize("redirection, words", [(">/dev/full", "standard output: No space left on device"), (">&- 2>&-", "")])
def test_a_full_or_closed_output_is_no_traceback_and_the_file_stays(redirection, words, pth, tmp_path):
    line = '"$@" ' + redirection
    process = subprocess.run(["bash", "-c", line, "bash"] + command(SCRIPT, pth, tmp_path / "m.onnx", *SMALL),
                             capture_output=True, encoding="utf-8")
    assert process.returncode == (1 if words else 0) and words in process.stderr and "Traceback" not in process.stderr
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
            "def export(torch, model, opset, crop):\n"
            "    data = exported(torch, model, opset, crop)\n"
            "    with torch.no_grad():\n"
            "        model.fc.weight.copy_(model.fc.weight * 1.01)\n"
            "    return data\n"
            "script.export = export\n"
            "script.main()\n")
    process = subprocess.run([sys.executable, "-c", code, str(pth), str(tmp_path / "m.onnx")] + list(SMALL),
                             cwd=str(REPOSITORY), capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and "disagrees with PyTorch" in process.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_other_opsets_are_exported_or_refused_with_a_sentence(pth, export, tmp_path):
    import onnx
    assert export(pth, tmp_path / "m.onnx", "--opset", "12", *SMALL).returncode == 0
    assert onnx.load(str(tmp_path / "m.onnx")).opset_import[0].version == 12
    code, _, sentence = export(pth, tmp_path / "n.onnx", "--opset", "99", *SMALL)
    assert code == 1 and "opset 99" in sentence and sentence.count("\n") == 1


def test_a_torchvision_that_does_not_fit_torch_gives_the_remedy(pth, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    sentence = fails(1, SCRIPT, pth, tmp_path / "m.onnx", env=dict(os.environ, PYTHONPATH=str(tmp_path / "site")))
    assert "torchvision::nms does not exist" in sentence and torch.__version__ in sentence and "pip install" in sentence


def test_wrong_usage_exits_with_2(pth, tmp_path, no_torch):
    fails(2, SCRIPT, "only-one.pth")
    for option, value in (("--opset", "x"), ("--opset", "6"), ("--crop", "0"), ("--crop", "300"), ("--resize", "100"),
                          ("--mean", "1,2"), ("--mean", "123.7,116.3,103.5"), ("--std", "1,nan,1"), ("--std", "0,1,1"),
                          ("--input", "int8")):
        assert option in fails(2, SCRIPT, "a.pth", "b.onnx", option, value)
    assert "overwrite the checkpoint" in fails(2, SCRIPT, pth, pth)
    assert "does not exist" in fails(1, SCRIPT, pth, tmp_path / "no" / "m.onnx")
    assert "not a file to write" in fails(1, SCRIPT, pth, "/dev/null", env=no_torch)


def test_scripts_of_the_current_folder_are_not_imported(no_torch, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')\n")
    assert "no such weight file" in fails(1, SCRIPT, "w.pth", "m.onnx", cwd=str(tmp_path), env=no_torch)
