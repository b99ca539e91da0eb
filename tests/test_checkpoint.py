"""common/checkpoint.py: the checkpoints people have, what is taken of them, what is refused, and that nothing of them runs."""
import importlib
import argparse
import collections
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import REPOSITORY

from common import checkpoint
from common.command import Failure

torch = pytest.importorskip("torch")
FORMATS = {"zip": {}, "the format before 1.6": {"_use_new_zipfile_serialization": False}}


@pytest.fixture(scope="module")
def weights():
    """A ResNet34 of 10 classes; each of its tensors is one number over and over, which makes the checkpoints small."""
    from torchvision.models import resnet34
    shapes = {key: value.shape for key, value in resnet34(num_classes=10).state_dict().items()}
    return collections.OrderedDict((key, torch.tensor(float(index) if shape else index).expand(shape))
                                   for index, (key, shape) in enumerate(shapes.items()))


def averaged(weights):
    """Other weights, as an average of them would be."""
    return collections.OrderedDict((key, (value.reshape(-1)[0] + 1).expand(value.shape)) for key, value in weights.items())


def under(prefix, weights):
    return collections.OrderedDict((prefix + key, value) for key, value in weights.items())


def saved(content, **options):
    """The bytes of torch.save."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def archive(pickled, **more):
    """The bytes of an archive as torch.save makes it, with this data.pkl."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as records:
        for name, data in dict({"data.pkl": pickled}, **more).items():
            records.writestr("archive/" + name, data)
    return file.getvalue()


def take(content, name=None, **options):
    """(arrays, classes, source) of a checkpoint, given as bytes or as what is to be saved."""
    return checkpoint.find("w.pth", content if isinstance(content, bytes) else saved(content, **options), name)[:3]


def refused(content, name=None):
    """The sentence of a refusal."""
    with pytest.raises(Failure) as caught:
        take(content, name)
    assert str(caught.value).startswith("w.pth: ") and caught.value.code == 1
    return str(caught.value)


def are(arrays, weights):
    """Whether arrays hold just these weights."""
    wanted = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    return set(arrays) == set(wanted) and all(np.array_equal(arrays[key], wanted[key].float().numpy()) for key in wanted)


def test_the_names_and_shapes_are_torchvisions(weights):
    expected = {key: tuple(value.shape) for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    assert checkpoint.shapes(10) == expected


# ---- what is taken ----

def trained(weights):
    """What torchvision's reference training saves beside its model."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {"model": weights, "optimizer": optimizer.state_dict(), "epoch": 3,
            "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")), "lr_scheduler":
            torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict()}


WAYS = {  # {what makes it: (a function of the weights, what is said of it)}
    "torch.save(model.state_dict())": (lambda weights: weights, "the whole file"),
    "torchvision's references/classification": (trained, "model"),
    "DataParallel": (lambda weights: {"epoch": 90, "state_dict": under("module.", weights), "best_acc1": torch.tensor(73.3)},
                     'state_dict, prefix "module."'),
    "a numpy scalar beside": (lambda weights: {"model": weights, "acc1": np.float64(73.3), "history": np.arange(3)}, "model"),
    "timm's train.py": (lambda weights: {"arch": "resnet34", "state_dict": weights, "args": argparse.Namespace(), "metric": 70.1,
                                         "state_dict_ema": averaged(weights)},
                        "state_dict; also there, for --weights: state_dict_ema"),
    "Lightning": (lambda weights: {"state_dict": dict(under("net.", weights), **{"criterion.weight": torch.ones(10)}),
                                   "hyper_parameters": {"lr": 0.1}, "callbacks": {}, "loops": {"fit_loop": {"state_dict": {}}}},
                  'state_dict, prefix "net."; passed over: 1 (criterion.weight)'),
    "torch.compile": (lambda weights: under("_orig_mod.", weights), 'the whole file, prefix "_orig_mod."'),
    "torch.compile in DataParallel": (lambda weights: under("module._orig_mod.", weights),
                                      'the whole file, prefix "module._orig_mod."'),
    "mmpretrain": (lambda weights: {"meta": {"epoch": 1}, "state_dict": {
        ("head." if key.startswith("fc.") else "backbone.") + key: value for key, value in weights.items()}},
        'state_dict, prefix "backbone." and "head."'),
    "AveragedModel": (lambda weights: dict(under("module.", weights), n_averaged=torch.tensor(7)),
                      'the whole file, prefix "module."; passed over: 1 (n_averaged)'),
    "a loss beside the net": (lambda weights: dict(weights, **{"loss.weight": torch.ones(10)}),
                              "the whole file; passed over: 1 (loss.weight)"),
    "a net under two names": (lambda weights: dict(under("model.", weights), **under("net.", weights)),
                              'the whole file, prefix "model."; passed over: 182 (net.conv1.weight, net.bn1.weight, '
                              "net.bn1.bias, net.bn1.running_mean, net.bn1.running_var, ...)"),
    "PyTorch before 0.4.1": (lambda weights: {key: value for key, value in weights.items() if "num_batches" not in key},
                             "the whole file"),
    "dropout before the last layer": (lambda weights: {key.replace("fc.", "fc.1."): value for key, value in weights.items()},
                                      "the whole file"),
    "parameters": (lambda weights: {key: torch.nn.Parameter(value, False) for key, value in weights.items()}, "the whole file"),
    "a pretrained net beside": (lambda weights: {"weights": weights, "teacher": {"conv1.weight": torch.ones(2)}}, "weights"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMATS)
def test_the_resnet34_is_found_in_what_people_have(way, form, weights):
    make, source = WAYS[way]
    arrays, classes, line = take(make(weights), **FORMATS[form])
    assert are(arrays, weights) and (classes, line) == (10, source)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", FORMATS)
def test_every_protocol_of_pickle_is_read(protocol, form, weights):
    content = {"state_dict": weights, "args": argparse.Namespace(lr=0.1)}
    assert are(take(content, pickle_protocol=protocol, **FORMATS[form])[0], weights)


def converted(weights, convert):
    """The floating-point tensors through a function, still one number each."""
    return {key: convert(value.reshape(-1)[0]).expand(value.shape) if value.dim() else value for key, value in weights.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_every_floating_type_is_read(form, weights):
    for convert in (torch.Tensor.double, torch.Tensor.half, torch.Tensor.bfloat16):
        there = converted(weights, lambda value, convert=convert: convert(value + 0.1))
        assert are(take(there, **FORMATS[form])[0], there)


@pytest.mark.parametrize("form", FORMATS)
def test_every_layout_in_memory_is_read(form, weights):
    there, whole = dict(weights), torch.arange(20000.0)
    for start, (key, value) in enumerate(weights.items()):
        if 0 < value.numel() < 10000:  # views of one storage
            there[key] = whole[start:start + value.numel()].view(value.shape)
    first = torch.randn(64, 3, 7, 7)
    there["conv1.weight"] = first.contiguous(memory_format=torch.channels_last)
    there["fc.weight"] = torch.randn(512, 10).t()
    assert are(take(there, **FORMATS[form])[0], there)


def test_old_pickles_of_parameters_and_ordered_dictionaries_are_read(weights):
    # Python 2 pickled an OrderedDict as a call with its pairs, PyTorch 0.1 a tensor and a Parameter as an empty one with a state.
    tensors = [("conv1.weight", (2, 3), (3, 1), 1)]
    lines = [b"ccollections\nOrderedDict\n((l"]
    for key, shape, strides, offset in tensors:
        lines.append(b"(lS'%s'\nactorch.nn.parameter\nParameter\n(tR(ctorch\nFloatTensor\n(tR((" % key.encode()
                     + b"S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI7\ntQ"
                     + b"I%d\n(I%d\nI%d\nt(I%d\nI%d\nttbNI00\nI01\nNtba" % ((offset,) + shape + strides))
    content = checkpoint.load("w.pth", archive(b"".join(lines) + b"atR.", **{"data/0": np.arange(7, dtype="<f4").tobytes()}))
    assert content["conv1.weight"].numbers().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_safetensors_file_is_read(weights, tmp_path):
    save_arrays = pytest.importorskip("safetensors.numpy").save_file
    cases = [weights]
    if hasattr(torch, "inference_mode"):  # safetensors.torch, which alone writes bfloat16, wants a torch of 1.10 or newer
        cases.append(under("model.", converted(weights, torch.Tensor.bfloat16)))
    for there in cases:
        path = str(tmp_path / "w.safetensors")
        if there is weights:
            save_arrays({key: np.array(value.numpy(), order="C") for key, value in there.items()}, path)
        else:
            tensors = {key: value.contiguous() for key, value in there.items()}
            importlib.import_module("safetensors.torch").save_file(tensors, path)
        arrays, classes, line = take((tmp_path / "w.safetensors").read_bytes())
        assert are(arrays, {key.replace("model.", ""): value for key, value in there.items()}) and classes == 10
    assert line == 'the whole file' + ', prefix "model."' * (len(cases) - 1)
    assert "truncated or damaged" in refused((tmp_path / "w.safetensors").read_bytes()[:-5])


def test_without_the_package_a_safetensors_file_says_what_to_install(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "w.bin").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    code = ("import sys; sys.modules['safetensors'] = None; from common import checkpoint, command\n"
            "command.run(lambda: checkpoint.find('w', open(sys.argv[1], 'rb').read()))")
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.bin")], cwd=str(REPOSITORY), capture_output=True,
                             encoding="utf-8")
    assert process.returncode == 1 and "pip install safetensors" in process.stderr and process.stderr.count("\n") == 1


# ---- several ----

def test_weights_come_before_their_average_which_can_be_named(weights):
    average = averaged(weights)
    content = {"model_ema": dict(under("module.", average), n_averaged=torch.tensor(7)), "model": weights}
    arrays, _, line = take(content)
    assert are(arrays, weights) and line == "model; also there, for --weights: model_ema.module"
    for name in ("model_ema", "model_ema.module"):
        arrays, _, line = take(content, name)
        assert are(arrays, average) and line.startswith('model_ema, prefix "module."; passed over: 1 (n_averaged)')
    assert are(take({"ema": average})[0], average)
    assert "no ResNet34 of the name other: model_ema.module, model" in refused(content, "other")


def test_two_of_equal_standing_are_an_error_that_lists_them(weights):
    teacher = averaged(weights)
    content = {"state_dict": dict(under("student.", weights), **under("teacher.", teacher))}
    assert "several ResNet34s: state_dict.student, state_dict.teacher; choose one with --weights NAME" in refused(content)
    assert "several" in refused(content, "state_dict")
    assert are(take(content, "teacher")[0], teacher) and are(take(content, "state_dict.student")[0], weights)
    from torchvision.models import resnet18
    small = {"student." + key: value for key, value in weights.items()}
    small.update({"teacher." + key: value for key, value in resnet18(num_classes=10).state_dict().items()})
    assert are(take(small)[0], weights)


# ---- what is refused ----

def keys_of(blocks, convolutions, width=(64, 64, 3, 3)):
    """The convolutions of a ResNet's stages."""
    names = ["layer%d.%d.conv%d.weight" % (stage, block, convolution) for stage, count in enumerate(blocks, 1)
             for block in range(count) for convolution in range(1, convolutions + 1)]
    return {name: torch.zeros(()).expand(width) for name in names}


def test_other_networks_are_refused_by_their_names(weights):
    from torchvision.models import resnet18
    wide = {key: torch.zeros(()).expand([2 * side if side >= 64 else side for side in value.shape])
            for key, value in weights.items()}
    for name, content, words in (
            ("ResNet18", {"model": resnet18().state_dict()}, "missing (layer1.2.conv1.weight"),
            ("ResNet50", keys_of((3, 4, 6, 3), 3), "unexpected (layer1.0.conv3.weight"),
            ("ResNet101", {"state_dict": under("module.", keys_of((3, 4, 23, 3), 3))}, "(module.layer1.0.conv3.weight"),
            ("Wide-ResNet50", keys_of((3, 4, 6, 3), 3, (128, 128, 3, 3)), "(128, 128, 3, 3) instead of (64, 64, 3, 3)"),
            ("grouped ResNet50", keys_of((3, 4, 6, 3), 3, (128, 4, 3, 3)), "(128, 4, 3, 3) instead of (64, 64, 3, 3)"),
            ("ResNet with blocks (1, 1, 1, 1)", keys_of((1, 1, 1, 1), 2), "missing"),
            ("Wide-ResNet34", wide, "conv1.weight (128, 3, 7, 7) instead of (64, 3, 7, 7)"),
            ("ResNet34-D", {"conv1.0.weight" if key == "conv1.weight" else key: value for key, value in weights.items()},
             "missing (conv1.weight)"),
            ("SE-ResNet34", dict(weights, **{"layer1.0.se.fc1.weight": torch.ones(4, 64, 1, 1)}), "(layer1.0.se.fc1.weight)"),
            ("ResNet34 of another shape", dict(weights, **{"conv1.weight": torch.ones(64, 3, 3, 3)}), "(64, 3, 3, 3)")):
        sentence = refused(content)
        assert "w.pth: holds %s, not torchvision's ResNet34: " % name in sentence and words in sentence
    assert "no state_dict of a ResNet (0.weight)" in refused({"0.weight": weights["bn1.bias"]})
    assert "no state_dict of a ResNet (no tensors)" in refused([1, 2])


@pytest.mark.parametrize("more", [
    ("", "layer1.3.conv1.weight", (64, 64, 3, 3)), ("", "fc2.weight", (5, 512)), ("", "pool.p", (1,)),
    ("model.", "model.layer4.2.bn2.scale", (1,)), ("model.", "auxiliary.weight", (7, 512)),
    ("model.", "model.conv1.bias", (64,)), ("net.", "input_bn.running_mean", (3,)), ("net.", "out.weight", (5, 10))])
def test_a_tensor_that_makes_it_another_network_is_refused(more, weights):
    prefix, key, shape = more
    assert "1 unexpected (%s)" % key in refused(dict(under(prefix, weights), **{key: torch.ones(shape)}))


@pytest.mark.parametrize("mean, said", [([0.485, 0.456, 0.406], ""), ([123.675, 116.28, 103.53], ""),
                                        ([0.5, 0.5, 0.5], "--mean 0.5,0.5,0.5")])
def test_a_net_that_normalises_its_images_itself_is_taken_only_where_the_recipe_does_the_same(mean, said, weights):
    from common import recipe
    content = dict(under("1.", weights), **{"0.mean": torch.tensor(mean).view(1, 3, 1, 1)})
    path, data = "w.pth", saved(content)
    if said:
        with pytest.raises(Failure, match="w.pth: normalises its images itself, by 0.mean, .*" + said):
            checkpoint.find(path, data, None, recipe.DEFAULT)
    else:
        assert are(checkpoint.find(path, data, None, recipe.DEFAULT)[0], weights)


def test_counters_and_whole_numbers_that_are_called_mean_are_passed_over(weights):
    content = dict(under("1.", weights), **{"0.mean": torch.tensor([123, 117, 104]), "metric.std": torch.tensor([True] * 3)})
    from common import recipe
    assert are(checkpoint.find("w.pth", saved(content), None, recipe.DEFAULT)[0], weights)


def test_a_part_between_trunk_and_head_is_refused(weights):
    parts = {("head." if key.startswith("fc.") else "backbone.") + key: value for key, value in weights.items()}
    assert "1 unexpected (neck.p)" in refused(dict(parts, **{"neck.p": torch.ones(1)}))
    assert "missing (backbone.fc.weight" in refused(dict(parts, **{"b.fc.weight": torch.ones(4, 512)}))  # which?


def test_values_that_are_no_plain_finite_numbers_are_refused_with_their_key(weights):
    bias, head = weights["bn1.bias"], weights["fc.weight"]
    for content, words in (
            ({"bn1.bias": bias.double() + 1e300}, "bn1.bias holds NaN or infinite"),
            ({"bn1.bias": bias.long()}, "bn1.bias holds Long values"),
            ({"bn1.bias": torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8)}, "bn1.bias holds QInt8 values"),
            ({"bn1.bias": bias.to_sparse()}, "bn1.bias holds no plain values"),
            ({"fc.weight": head[:1], "fc.bias": head[:1, 0]}, "1 classes, not 2 to 100000")):
        assert words in refused(dict(weights, **content))
    assert "unexpected (module.bn1.bias)" in refused(dict(weights, **{"module.bn1.bias": bias}))


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_pickled_model_says_how_to_save_the_weights(form):
    from torchvision.models import resnet34
    for content in (resnet34(), {"model": resnet34(), "epoch": 3}):
        sentence = refused(saved(content, **FORMATS[form]))
        assert "whole pickled model (ResNet)" in sentence and "torch.save(model.state_dict(), ...)" in sentence


def test_damaged_files_are_refused(weights):
    zipped, old = saved(weights), saved(weights, **FORMATS["the format before 1.6"])
    flipped = bytearray(zipped)
    flipped[zipped.index(b"layer4.2.bn2")] ^= 1
    for data in (b"", b"<html>404</html>\n", zipped[:-1000], bytes(flipped), old[:1000], old[:-10], b"PK\3\4" + bytes(100),
                 pickle.dumps({"a": 1}), archive(b"\x80\x02}.").replace(b"data.pkl", b"pata.pkl"),
                 archive(b"\x80\x02}.", byteorder=b"big")):
        assert "truncated or damaged" in refused(data)


def test_a_hash_in_the_files_name_is_checked_where_it_can_be_one(tmp_path):
    digest = hashlib.sha256(b"x").hexdigest()
    for name, wrong in (("b627a593", True), (digest[:8], False), (digest, False), ("12345678", True), ("20240517", False),
                        ("1715939000", False), ("20240517123000", False), ("abcdef", False),
                        ("550e8400-e29b-41d4-a716-446655440000", False)):
        path = tmp_path / ("resnet34-%s.pth" % name)
        path.write_bytes(b"x")
        if wrong:
            with pytest.raises(Failure, match="its SHA-256 starts with %s, its name says %s" % (digest[:8], name)):
                checkpoint.read(str(path))
        else:
            assert checkpoint.read(str(path)) == (b"x", digest)


# ---- hostile ones ----

class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class HostileDictionary(collections.OrderedDict):
    """An OrderedDict that runs code as it is filled."""

    def __setitem__(self, key, value):
        os.mkdir(key)


def hostile(path):
    """{what is tried: a pickle that would make a folder of this path}."""
    path, quoted = os.fsencode(path), repr(path).encode()[1:]
    system, text = b"cposix\nsystem\n", b"(S'mkdir %s'\n" % path
    getattr_ = b"c__builtin__\ngetattr\n"
    imported = b"c__builtin__\n__import__\n(S'os'\ntR"
    named = b"\x80\x04\x8c%c%s\x8c%c%s\x93"
    return {
        "os.system": system + text + b"tR.",
        "INST": b"(S'mkdir %s'\niposix\nsystem\n." % path,
        "OBJ": b"(" + system + text[1:] + b"o.",
        "eval": b"c__builtin__\neval\n(S\"__import__('os').mkdir(%s)\"\ntR." % quoted,
        "exec": b"cbuiltins\nexec\n(S\"import os; os.mkdir(%s)\"\ntR." % quoted,
        "a chain of getattr": getattr_ + b"(" + imported + b"S'mkdir'\ntR(S'%s'\ntR." % path,
        "a name in torch": b"ctorch._utils\n_import_dotted_name\n(S'os.mkdir'\ntR(S'%s'\ntR." % path,
        "torch.load": b"ctorch\nload\n(S'%s'\ntR." % path,
        "a dotted name": named % (5, b"torch", 16, b"os.system.Tensor") + b"\x8c%cmkdir %s\x85R." % (6 + len(path), path),
        "a dotted name of an allowed one": named % (12, b"torch._utils", 33, b"_rebuild_tensor_v2.__globals__.get")
        + b"\x8c\x02os\x85R.",
        "a class of collections": b"ccollections\nnamedtuple\n(S'x'\nS'%s'\ntR." % path,
        "numpy's runstring": b"cnumpy.testing._private.utils\nrunstring\n(S\"import os; os.mkdir(%s)\"\n}tR." % quoted,
        "BUILD on a function": system + b"}S'__code__'\nNsb" + text + b"tR.",
        "BUILD on what is allowed": b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'__setstate__'\n" + system + b"stb" + text + b"tR.",
        "BUILD with a __setstate__": b"cargparse\nNamespace\n)\x81}S'__setstate__'\n" + system + b"sb" + text[1:] + b"b.",
        "a persistent id": b"(S'storage'\n" + system + b"S'0'\nS'cpu'\nI1\ntQ" + text + b"tR.",
        "an OrderedDict's subclass": b"ctest_checkpoint\nHostileDictionary\n)RS'%s'\nI1\ns." % path,
        "copyreg's registry": b"ccopyreg\nadd_extension\n(S'posix'\nS'system'\nI240\ntR0\x82\xf0" + text + b"tR.",
    }


def test_nothing_of_a_hostile_pickle_runs(weights, tmp_path):
    folder = str(tmp_path / "hacked")
    for what, pickled in hostile(folder).items():
        old = b"".join(pickle.dumps(part, 2) for part in (0x1950a86a20f9469cfc6c, 1001, {})) + pickled + pickle.dumps([], 2)
        for data in (archive(pickled), pickled, old, old.replace(pickle.dumps({}, 2), pickled)):
            with pytest.raises(Failure):
                take(data)
        assert not os.path.exists(folder) and "system" not in vars(torch), what


def test_hostile_things_beside_the_weights_are_passed_over_and_run_nothing(weights, tmp_path):
    folder = str(tmp_path / "hacked")
    for form in FORMATS.values():
        for call in (Call(os.mkdir, folder), Call(eval, "__import__('os').mkdir(%r)" % folder),
                     Call(HostileDictionary, [(folder, 1)]), Call(getattr, Call(__import__, "os"), "mkdir")):
            arrays, _, line = take({"state_dict": weights, "args": call}, **form)
            assert are(arrays, weights) and line == "state_dict" and not os.path.exists(folder)


def test_torchscript_and_other_archives_with_code_are_refused():
    data = saved_script()
    assert "TorchScript" in refused(data)
    for name in ("code/__torch__.py", "model.py", "constants.pkl"):
        assert "holds code (archive/%s)" % name in refused(archive(b"\x80\x02}.", **{name: b"import os"}))


def saved_script():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


def test_checkpoints_that_expand_are_refused_in_little_memory(weights, tmp_path):
    stretched = {"fc.weight": torch.zeros(1, 512).expand(2000000, 512), "fc.bias": torch.zeros(1).expand(2000000)}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as records:
        records.writestr("archive/data/0", bytes(100000000))
    claimed = (b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI9000000000\ntQ"
               b"I0\n(I90000\nI90000\nt(I0\nI0\nttR")
    contents = {"2000000 classes": saved(dict(weights, **stretched)), "unpack to 100 MB": zipped.getvalue(),
                "takes more than": archive(b"\x80\x02Nr\xff\xff\xff\x7f."),
                "no state_dict": archive(b"c__builtin__\nbytearray\n(I4000000000\ntR."),
                "misshapen (layer1": archive(b"}S'layer1.0.conv1.weight'\n" + claimed + b"s.")}
    code = ("import sys; from common import checkpoint, command\n"
            "try: checkpoint.find('w', open(sys.argv[1], 'rb').read())\n"
            "except command.Failure as error: print(error)\n"
            "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])")
    for words, data in contents.items():
        (tmp_path / "w.pth").write_bytes(data)
        process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.pth")], cwd=str(REPOSITORY), capture_output=True,
                                 encoding="utf-8")
        assert process.returncode == 0 and words in process.stdout, (words, process.stdout, process.stderr)
        assert int(process.stdout.splitlines()[-1]) < 500000, process.stdout  # KB


def test_torch_is_not_imported_to_read_a_checkpoint(weights, tmp_path):
    torch.save(weights, str(tmp_path / "w.pth"))
    code = ("import sys; from common import checkpoint\n"
            "print(checkpoint.find('w', open(sys.argv[1], 'rb').read())[1:], 'torch' in sys.modules)")
    printed = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "w.pth")], cwd=str(REPOSITORY),
                                      encoding="utf-8")
    assert printed == "(10, 'the whole file', '') False\n"
