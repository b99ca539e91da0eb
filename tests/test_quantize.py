"""resnet34_quantize.py: an INT8 model that says how it was made, is near its source, or is not written."""
import hashlib
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from conftest import (
    FLOAT_RECIPE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    REPOSITORY,
    UINT8_RECIPE,
    command,
    contents,
    fails,
    succeeds,
    wait_until,
)
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(REPOSITORY))
import resnet34_quantize
from common import command as commands
from common import files, graph, int8, prepared

SIDE, CLASSES = 32, 20
MEAN, STD = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
CAN_QUANTISE = importlib.util.find_spec("onnxruntime.quantization.shape_inference") is not None
on_any_processor = pytest.mark.processor
needs_quantisation = pytest.mark.skipif(not CAN_QUANTISE, reason="this onnxruntime is older than 1.13 and cannot quantise")


def recipe(dtype):
    return dict(UINT8_RECIPE if dtype == "uint8" else FLOAT_RECIPE, resize=SIDE, crop=SIDE)


def pixels(index):
    """A picture of 4 x 4 fields around one colour, uint8 (SIDE, SIDE, 3)."""
    random = np.random.RandomState(index)
    fields = np.clip(random.randint(0, 256, 3) + random.randint(-60, 61, (4, 4, 3)), 0, 255).astype(np.uint8)
    return fields.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)


def normalised(index):
    return (pixels(index).transpose(2, 0, 1).astype(np.float32) / np.float32(255) - MEAN[0]) / STD[0]


def conv_onnx(path, dtype="float32", batch="batch", spread=1):
    """A net of two convolutions, pooling and a linear layer; its last bias takes away what is common to all pictures."""
    import onnxruntime
    session = onnxruntime.InferenceSession(conv_net("float32", "batch", np.zeros(CLASSES), spread).SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    scores = session.run(None, {"image": np.stack([normalised(index) for index in range(40)])})[0]
    onnx.save(conv_net(dtype, batch, -scores.mean(0), spread), str(path))
    return path


def conv_net(dtype, batch, bias, spread):
    random = np.random.RandomState(0)
    weights = {"w1": random.standard_normal((16, 3, 3, 3)) / 5, "b1": random.standard_normal(16) / 5,
               "w2": random.standard_normal((16, 16, 3, 3)) / 12, "b2": random.standard_normal(16) / 5,
               "w3": random.standard_normal((CLASSES, 16)) * 30, "b3": bias}
    # Channels differ, as trained ones do, so that it matters which scale belongs to which.
    spread, before = np.logspace(-spread, spread, 16), np.logspace(0.5, -0.5, 16)
    weights["w1"] *= before.reshape(-1, 1, 1, 1)
    weights["b1"] *= before
    weights["w2"] /= before.reshape(1, -1, 1, 1)
    weights["w2"] *= spread.reshape(-1, 1, 1, 1)
    weights["b2"] *= spread
    weights["w3"] /= spread
    nodes, source, shape, kind = [], "image", [3, SIDE, SIDE], TensorProto.FLOAT
    if dtype == "uint8":
        shape, kind, source = [SIDE, SIDE, 3], TensorProto.UINT8, "n4"
        weights.update(n255=np.array(255), mean=MEAN, std=STD)
        nodes = [helper.make_node("Transpose", ["image"], ["n0"], perm=[0, 3, 1, 2]),
                 helper.make_node("Cast", ["n0"], ["n1"], to=TensorProto.FLOAT), helper.make_node("Div", ["n1", "n255"], ["n2"]),
                 helper.make_node("Sub", ["n2", "mean"], ["n3"]), helper.make_node("Div", ["n3", "std"], ["n4"])]
    nodes += [helper.make_node("Conv", [source, "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
              helper.make_node("Relu", ["c1"], ["r1"]),
              helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c2"], ["r2"]),
              helper.make_node("GlobalAveragePool", ["r2"], ["p"]), helper.make_node("Flatten", ["p"], ["f"], axis=1),
              helper.make_node("Gemm", ["f", "w3", "b3"], ["class"], transB=1)]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("image", kind, [batch] + shape)],
                              [helper.make_tensor_value_info("class", TensorProto.FLOAT, [batch, CLASSES])],
                              [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    helper.set_model_props(model, {"recipe": json.dumps(recipe(dtype)), "precision": "fp32", "weights": "net.pth",
                                   "weights_sha256": "ab" * 32, "exporter": "torch 1.6.0"})
    return model


def images_folder(folder, count, dtype="float32", record=True):
    """A prep_dataset of count images, as imagenet_torch_preprocess.py leaves it; float ones are the uint8 ones normalised."""
    folder.mkdir()
    rows = []
    for index in range(count):
        path = folder / ("ILSVRC2012_val_%08d.bin" % (index + 1))
        path.write_bytes((pixels if dtype == "uint8" else normalised)(index).tobytes())
        rows.append(prepared.Image(path.name[:-4], "/val/%s.JPEG" % path.name[:-4], "%032x" % index, [],
                                   files.xxh(path.read_bytes()), files.stat_of(path.stat())))
    if record:
        (folder / ".recipe.json").write_text(json.dumps({"version": prepared.VERSION, "recipe": recipe(dtype), "shard": None,
                                                         "complete": True}))
        prepared.write_manifest(str(folder), {row.name: row for row in rows})
    return folder


def quantise(folder, *arguments, **options):
    return succeeds("resnet34_quantize.py", folder / "net.onnx", folder / "int8.onnx", "--calibration", folder / "prep_dataset",
                    *arguments, **options)


def refused(code, folder, *arguments, **options):
    sentence = fails(code, "resnet34_quantize.py", folder / "net.onnx", folder / "int8.onnx",
                     "--calibration", folder / "prep_dataset", *arguments, **options)
    assert not (folder / "int8.onnx").exists() and not (folder / "int8.onnx.calibration.txt").exists()
    return sentence


def properties(path):
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def with_amct(folder, failing=""):
    """An environment with the stand-in amct_onnx on PATH, and a temporary folder of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    python = folder / "bin"
    if not python.exists():
        python.mkdir()
        (python / "python3").symlink_to(sys.executable)
    path = os.pathsep.join([str(REPOSITORY / "tests" / "standins" / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    return dict(os.environ, PATH=path, STANDIN_FAIL=failing, TMPDIR=str(folder / "tmp"))


def amct_line(folder):
    return command("resnet34_quantize.py", folder / "net.onnx", folder / "int8.onnx", "--calibration", folder / "prep_dataset",
                   "--tool", "amct")


@pytest.fixture
def net(tmp_path):
    """A folder with net.onnx and a prep_dataset of 40 images."""
    conv_onnx(tmp_path / "net.onnx")
    images_folder(tmp_path / "prep_dataset", 40)
    return tmp_path


@on_any_processor
@needs_quantisation
def test_the_int8_model_says_what_it_was_made_from_and_how_near_it_is(net):
    process = quantise(net, "--images", "20")
    written, source = properties(net / "int8.onnx"), properties(net / "net.onnx")
    assert [key for key in source if written[key] != source[key]] == ["precision"]
    assert written["precision"] == "int8"
    calibration = json.loads(written["calibration"])
    names = (net / "int8.onnx.calibration.txt").read_bytes()
    assert calibration["names_sha256"] == hashlib.sha256(names).hexdigest()
    assert calibration["source_sha256"] == hashlib.sha256((net / "net.onnx").read_bytes()).hexdigest()
    assert (calibration["tool"], calibration["method"], calibration["seed"]) == ("onnxruntime", "MinMax", 0)
    assert calibration["images"] == len(names.splitlines()) == 20 and calibration["shared"] is False
    assert calibration["comparison"]["images"] == 20 and calibration["comparison"]["top1_agreement"] >= 0.5
    assert calibration["weight_bits"] == (7 if calibration["reduce_range"] else 8)
    other = calibration["comparison"]["other_bits"]
    assert other["weight_bits"] == 15 - calibration["weight_bits"] and other["top1_agreement"] >= 0.5
    assert "weights of 7 bits" in process.stdout and "weights of 8 bits" in process.stdout
    assert ("without VNNI or its like:" in process.stdout) == calibration["reduce_range"]
    assert "Top-1 agreement" in process.stdout and "20 images not calibrated on" in process.stdout
    opsets = {entry.domain: entry.version for entry in onnx.load(str(net / "int8.onnx")).opset_import}
    assert opsets[""] == 13


@needs_quantisation
def test_the_same_line_gives_the_same_bytes_in_another_folder_and_another_hash_seed(net, tmp_path_factory):
    first = {}
    for seed in ("1", "2"):
        env = dict(os.environ, PYTHONHASHSEED=seed, TMPDIR=str(tmp_path_factory.mktemp("elsewhere")))
        quantise(net, "--overwrite", env=env)
        now = {name: (net / name).read_bytes() for name in ("int8.onnx", "int8.onnx.calibration.txt")}
        assert [name for name in os.listdir(env["TMPDIR"]) if name != ".ses"] == []  # onnxruntime leaves that one
        assert not first or now == first
        first = now


@on_any_processor
@needs_quantisation
def test_a_uint8_graph_keeps_its_normalisation_in_float_and_gives_the_float_graphs_scores(net):
    import onnxruntime
    conv_onnx(net / "net8.onnx", "uint8")
    images_folder(net / "prep8", 40, "uint8")
    quantise(net)
    succeeds("resnet34_quantize.py", net / "net8.onnx", net / "int8_8.onnx", "--calibration", net / "prep8")
    nodes = onnx.load(str(net / "int8_8.onnx")).graph.node
    kinds = [node.op_type for node in nodes]
    before = kinds[:kinds.index("Conv")]
    assert before.count("Sub") == 1 and kinds.index("QuantizeLinear") > kinds.index("Sub")
    scores = []
    for model, folder, dtype, shape in (("int8.onnx", "prep_dataset", "<f4", (1, 3, SIDE, SIDE)),
                                        ("int8_8.onnx", "prep8", "u1", (1, SIDE, SIDE, 3))):
        image = np.frombuffer((net / folder / "ILSVRC2012_val_00000007.bin").read_bytes(), dtype).reshape(shape)
        session = onnxruntime.InferenceSession(str(net / model), providers=["CPUExecutionProvider"])
        scores.append(session.run(None, {"image": image})[0])
    assert scores[0].tobytes() == scores[1].tobytes()


@on_any_processor
@needs_quantisation
@pytest.mark.parametrize("largest", [0, 0.01])
def test_calibration_on_zeros_and_on_noise_of_another_scale_is_refused_as_poor(tmp_path, largest):
    """Noise of the images' own scale calibrates well: only the ranges count. So it is of 0..0.01, where images have -2..3."""
    conv_onnx(tmp_path / "net.onnx")
    images_folder(tmp_path / "prep_dataset", 40)
    prep = tmp_path / "prep_dataset"
    manifest = prepared.read_manifest(str(prep))
    for image in resnet34_quantize.split_inputs(list(manifest.values()), 0, 500)[0]:
        path = prep / (image.name + ".bin")
        path.write_bytes((np.random.RandomState(0).uniform(0, largest, (3, SIDE, SIDE))).astype("<f4").tobytes())
        manifest[image.name] = image._replace(bin_hash=files.xxh(path.read_bytes()), bin_stat=files.stat_of(path.stat()))
    prepared.write_manifest(str(prep), manifest)
    sentence = refused(3, tmp_path)
    assert "is poor: error" in sentence and "Top-1 agreement" in sentence and "broken" not in sentence


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A net's folder with its int8.onnx, for what only looks at it."""
    folder = tmp_path_factory.mktemp("quantised")
    conv_onnx(folder / "net.onnx")
    images_folder(folder / "prep_dataset", 40)
    quantise(folder)
    return folder


@needs_quantisation
def test_the_limits_of_poor_can_be_moved_and_the_price_is_told_in_any_case(net):
    assert "not <= 0.001" in refused(3, net, "--max-error", "0.001")
    conv_onnx(net / "net.onnx", spread=1.5)
    process = quantise(net, "--reduce-range", "yes", "--max-error", "100", "--min-agreement", "0")
    agreement = json.loads(properties(net / "int8.onnx")["calibration"])["comparison"]["top1_agreement"]
    assert "Top-1 agreement %.2f%%" % (100 * agreement) in process.stdout
    for name in ("int8.onnx", "int8.onnx.calibration.txt"):
        os.unlink(str(net / name))
    if agreement < 1:
        assert "not >= 100%" in refused(3, net, "--reduce-range", "yes", "--max-error", "100", "--min-agreement", "100")
    for wrong in (["--max-error", "-1"], ["--max-error", "nan"], ["--min-agreement", "101"], ["--min-agreement", "x"]):
        refused(2, net, *wrong)


def inputs_of(net):
    """(the float model as the script reads it, the images of its prep_dataset)"""
    model = graph.Graph(str(net / "net.onnx"))
    found = prepared.find_inputs(str(net / "prep_dataset"), model.input["dtype"], model.input["shape"], model.recipe)
    return model, found.files


def judged(net, proto):
    """What the two judgements, broken and poor, say of a quantised model."""
    (model, found), data = inputs_of(net), proto.SerializeToString()
    images = resnet34_quantize.split_inputs(found, 0, 20)[1]
    with commands.progress(40, "image", "compare") as bar:
        expected, actual = (int8.scores_of(int8.open_session(each, "it"), model, images, bar) for each in (model.data, data))
    return (int8.broken(model.proto, data, model, images),
            int8.poor(int8.compare(expected, actual, model.path), int8.MAX_ERROR, int8.MIN_AGREEMENT))


def second_weights(proto):
    """The quantised 16 x 16 x 3 x 3 weights of the net and their scales, as tensors of the graph."""
    stored = {weight.name: weight for weight in proto.graph.initializer}
    (node,) = [node for node in proto.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
               and list(stored[node.input[0]].dims[:2]) == [16, 16]]
    return stored[node.input[0]], stored[node.input[1]]


@on_any_processor
@needs_quantisation
def test_scales_along_the_wrong_channel_axis_are_refused_as_broken(quantised):
    proto = onnx.load(str(quantised / "int8.onnx"))
    assert judged(quantised, proto) == ("", "")
    weight, scale = second_weights(proto)
    values = numpy_helper.to_array(weight) * numpy_helper.to_array(scale).reshape(-1, 1, 1, 1)
    wrong = (np.abs(values).max((0, 2, 3)) / 127).astype(np.float32)  # one scale for each input channel, not each output channel
    values = np.round(values / wrong.reshape(1, -1, 1, 1)).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    scale.CopyFrom(numpy_helper.from_array(wrong, scale.name))
    assert "the weight w2 is off by" in judged(quantised, proto)[0]


@on_any_processor
@needs_quantisation
@pytest.mark.parametrize("part, value", [("weights", 0), ("scale", 0), ("scale", 1e-6), ("weights", 1)])
def test_one_dead_channel_is_refused_as_broken_though_the_scores_hardly_change(quantised, part, value):
    proto = onnx.load(str(quantised / "int8.onnx"))
    tensor = second_weights(proto)[part == "scale"]
    values = numpy_helper.to_array(tensor).copy()
    values[0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert "the weight w2 is off by" in judged(quantised, proto)[0]


@on_any_processor
@needs_quantisation
def test_a_signed_qoperator_model_whose_zero_points_are_lost_is_refused(net):
    """S8S8 QOperator as the known trap has it (onnxruntime 1.32 itself computes it right): a kernel takes the signed activations
    for unsigned ones, and all zero points are off by 128."""
    import importlib
    quantize = importlib.import_module("onnxruntime.quantization.quantize")
    model, found = inputs_of(net)
    with commands.progress(20, "image", "calibrate") as bar:
        reader = resnet34_quantize.Reader(resnet34_quantize.split_inputs(found, 0, 20)[0], model, bar)
        reader.left = 20
        quantize.quantize_static(str(net / "net.onnx"), str(net / "s8s8.onnx"), reader,
                                 quant_format=quantize.QuantFormat.QOperator,
                                 activation_type=quantize.QuantType.QInt8, weight_type=quantize.QuantType.QInt8)
    proto = onnx.load(str(net / "s8s8.onnx"))
    assert any(node.op_type == "QLinearConv" for node in proto.graph.node)
    for weight in proto.graph.initializer:
        if weight.data_type == TensorProto.INT8 and not weight.dims:
            value = int(numpy_helper.to_array(weight))
            if value:
                weight.CopyFrom(numpy_helper.from_array(np.array((value + 256) % 256 - 128, np.int8), weight.name))
    of_broken, of_poor = judged(net, proto)
    assert "no counterpart" in of_broken and "error" in of_poor


@on_any_processor
@needs_quantisation
@pytest.mark.parametrize("bits", ["7", "8"])
def test_weights_of_7_bits_are_right_everywhere_and_of_8_where_products_do_not_saturate(net, bits):
    """Large weights of one sign under bright pixels: with 8 bits two such products do not go into 16 bits."""
    saturates = int8.saturates()
    if "EMULATED_PYTHON" in os.environ and platform.machine() == "x86_64":
        assert saturates  # else tests/run_emulated.sh would test the kind of processor that the machine is
    proto = onnx.load(str(net / "net.onnx"))
    for weight in proto.graph.initializer:
        if weight.name == "w2":
            weight.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(weight)), weight.name))
    onnx.save(proto, str(net / "net.onnx"))
    line = ["--reduce-range", "yes" if bits == "7" else "no", "--max-error", "100", "--min-agreement", "0"]
    if bits == "8" and saturates:
        sentence = refused(3, net, *line)
        assert "is broken: the INT8 kernels give" in sentence and "--reduce-range yes" in sentence
    else:
        quantise(net, *line)


@on_any_processor
@needs_quantisation
@pytest.mark.parametrize("calibrated", [4, 64])
def test_four_calibration_images_are_as_sound_as_sixty_four(tmp_path, calibrated):
    conv_onnx(tmp_path / "net.onnx")
    images_folder(tmp_path / "prep_dataset", calibrated + 20)
    quantise(tmp_path, "--images", str(calibrated))


@needs_quantisation
@pytest.mark.parametrize("images, chosen, compared, shared", [(3, 3, 3, True), (10, 5, 5, False), (40, 20, 20, False)])
def test_with_few_images_half_of_them_or_all_are_calibrated_on_and_it_says_so(tmp_path, images, chosen, compared, shared):
    conv_onnx(tmp_path / "net.onnx")
    images_folder(tmp_path / "prep_dataset", images)
    process = quantise(tmp_path)
    calibration = json.loads(properties(tmp_path / "int8.onnx")["calibration"])
    assert (calibration["images"], calibration["comparison"]["images"], calibration["shared"]) == (chosen, compared, shared)
    assert ("share" in process.stdout) == shared
    assert shared or "calibrates on %d of these %d images, not on 500" % (chosen, images) in process.stdout


@needs_quantisation
@pytest.mark.parametrize("method", ["Entropy", "Percentile"])
def test_other_methods_hold_a_chunk_of_images_at_once_and_need_no_more(net, method):
    conv_onnx(net / "net.onnx", spread=0.5)  # 7 bits are too few for channels that differ more
    process = quantise(net, "--method", method, "--reduce-range", "yes")
    calibration = json.loads(properties(net / "int8.onnx")["calibration"])
    assert calibration["method"] == method and calibration["reduce_range"] is True and "7 bits" in process.stdout


@needs_quantisation
def test_ranges_of_all_chunks_count_and_not_only_of_the_last(net):
    """An option of onnxruntime 1.32 (CalibMaxIntermediateOutputs) forgets all images but the last few."""
    quantise(net, "--images", "20")
    one_by_one = [weight for weight in onnx.load(str(net / "int8.onnx")).graph.initializer if weight.name == "image_scale"]
    names = (net / "int8.onnx.calibration.txt").read_text().split()
    values = [np.fromfile(str(net / "prep_dataset" / (name + ".bin")), "<f4") for name in names]
    wanted = (max(value.max() for value in values) - min(value.min() for value in values)) / 255
    np.testing.assert_allclose(numpy_helper.to_array(one_by_one[0]), wanted, rtol=1e-5)


@needs_quantisation
def test_a_graph_of_fixed_batch_size_is_calibrated_with_padded_batches(tmp_path):
    conv_onnx(tmp_path / "net.onnx", batch=8)
    images_folder(tmp_path / "prep_dataset", 30)
    quantise(tmp_path)


@pytest.mark.skipif(CAN_QUANTISE, reason="this onnxruntime can quantise; the guide's 1.10 cannot")
def test_an_onnxruntime_that_cannot_is_told_the_oldest_that_can(net):
    assert "1.13" in refused(1, net)


def test_amct_gets_whole_batches_and_its_deploy_model_the_metadata(net):
    process = quantise(net, "--tool", "amct", "--images", "20", env=with_amct(net))
    calibration = json.loads(properties(net / "int8.onnx")["calibration"])
    assert (calibration["tool"], calibration["images"]) == ("amct", 16)
    assert "calibrates on 16 of these 40 images, not on 20" in process.stdout and "AMCT takes batches of 16" in process.stdout
    assert calibration["comparison"]["model"] == "deploy_model" and calibration["comparison"]["images"] == 20
    assert properties(net / "int8.onnx")["precision"] == "int8" and json.loads(properties(net / "int8.onnx")["recipe"])
    assert "amct_onnx calibration --model" in process.stdout and "--data_types float32" in process.stdout
    assert list((net / "tmp").glob("resnet34*")) == []


@pytest.mark.parametrize("failing, compared", [("amct:npu", "fake_quant_model"), ("amct:npu-only", None)])
def test_a_deploy_model_that_only_the_npu_runs_is_compared_by_its_fake_quant_model_or_recorded_as_not(net, failing, compared):
    process = quantise(net, "--tool", "amct", env=with_amct(net, failing))
    comparison = json.loads(properties(net / "int8.onnx")["calibration"])["comparison"]
    assert (comparison and comparison["model"]) == compared
    assert ("not compared" in process.stderr) == (compared is None)


def test_an_amct_model_that_is_no_use_is_refused_and_one_that_fails_leaves_its_files_to_try(net):
    assert "is poor" in refused(3, net, "--tool", "amct", env=with_amct(net, "amct:broken"))
    assert list((net / "tmp").glob("resnet34*")) == []
    for failing, words in (("amct", "exit code 1"), ("amct:missing", "left no resnet34_deploy_model.onnx")):
        sentence = refused(1, net, "--tool", "amct", env=with_amct(net, failing))
        assert words in sentence and str(net / "tmp") in sentence


def test_amct_refuses_a_uint8_graph_and_names_aipp(tmp_path):
    conv_onnx(tmp_path / "net.onnx", "uint8")
    images_folder(tmp_path / "prep_dataset", 20, "uint8")
    assert "--aipp" in refused(1, tmp_path, "--tool", "amct", env=with_amct(tmp_path))


def test_without_amct_on_path_it_says_what_to_install(net):
    assert "PATH" in refused(1, net, "--tool", "amct", env=dict(os.environ, PATH="/usr/bin:/bin"))


@pytest.mark.parametrize("option", ["--data_type", "--batch_num"])
def test_the_stand_in_refuses_the_option_the_modelzoo_prints(net, option):
    process = subprocess.run([sys.executable, str(REPOSITORY / "tests/standins/bin/amct_onnx"), "calibration", option, "float32"],
                             stderr=subprocess.PIPE, cwd=str(net))
    assert process.returncode == 2 and option.encode() in process.stderr


def test_a_folder_that_is_not_as_it_was_left_or_of_another_recipe_is_refused(net):
    options = {"env": with_amct(net)}
    prep, first = net / "prep_dataset", net / "prep_dataset" / "ILSVRC2012_val_00000001.bin"
    kept = first.read_bytes()
    first.write_bytes(kept[::-1])
    assert "ILSVRC2012_val_00000001.bin: is not what it was" in refused(1, net, "--tool", "amct", "--images", "30", **options)
    first.write_bytes(kept)  # another time, the same bytes
    (prep / "stranger.bin").write_bytes(kept)
    assert "first stranger.bin" in refused(1, net, "--tool", "amct", **options)
    (prep / "stranger.bin").unlink()
    record = json.loads((prep / ".recipe.json").read_text())
    record["recipe"]["mean"] = [0.5, 0.5, 0.5]
    (prep / ".recipe.json").write_text(json.dumps(record))
    assert "mean" in refused(1, net, "--tool", "amct", **options)
    for text in ("[]", "{\"recipe\": NaN}", "{", "[" * 100000):
        (prep / ".recipe.json").write_text(text)
        assert "prep_dataset" in refused(1, net, "--tool", "amct", **options)


def test_a_folder_made_by_hand_must_hold_one_image_a_file(tmp_path):
    conv_onnx(tmp_path / "net.onnx")
    prep = images_folder(tmp_path / "prep_dataset", 20, record=False)
    quantise(tmp_path, "--tool", "amct", env=with_amct(tmp_path))
    os.unlink(str(tmp_path / "int8.onnx"))
    os.unlink(str(tmp_path / "int8.onnx.calibration.txt"))
    (prep / "ILSVRC2012_val_00000001.bin").write_bytes(b"\0" * (2 * 3 * SIDE * SIDE * 4))
    assert "one image" in refused(1, tmp_path, "--tool", "amct", env=with_amct(tmp_path))


def test_wrong_usage_and_unreadable_models_get_a_sentence(net):
    env = with_amct(net)
    assert "is read here" in fails(1, "resnet34_quantize.py", net / "net.onnx", net / "net.onnx", "--calibration", net, env=env)
    (net / "w.pth").write_bytes(b"weights")
    fails(2, "resnet34_quantize.py", net / "net.onnx", net / "w.pth", "--calibration", net, env=env)
    (net / "mine.onnx").write_bytes(b"my own")
    fails(1, "resnet34_quantize.py", net / "net.onnx", net / "mine.onnx", "--calibration", net / "prep_dataset", env=env)
    assert (net / "w.pth").read_bytes() == b"weights" and (net / "mine.onnx").read_bytes() == b"my own"
    refused(2, net, "--images", "0")
    refused(2, net, "--tool", "amct", "--method", "Entropy")
    proto = onnx.load(str(net / "net.onnx"))
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="w.bin")
    (net / "net.onnx").write_bytes(proto.SerializeToString())
    assert "(external data)" in refused(1, net, "--tool", "amct", env=env)
    (net / "net.onnx").write_bytes(b"\x08\x06 no model")
    assert "no ONNX model" in refused(1, net, "--tool", "amct", env=env)
    os.unlink(str(net / "net.onnx"))
    assert "No such file" in refused(1, net, "--tool", "amct", env=env)
    os.mkfifo(str(net / "net.onnx"))
    assert "no regular file" in refused(1, net, "--tool", "amct", env=env)


def test_a_stop_while_amct_runs_leaves_nothing(net):
    """A stand-in that sleeps makes the moment certain."""
    env, hold = with_amct(net), net / "hold"
    hold.mkdir()
    (hold / "amct_onnx").write_text("#!/bin/sh\necho $$ > %s/started\nexec sleep 60\n" % net)
    (hold / "amct_onnx").chmod(0o755)
    env["PATH"] = "%s:%s" % (hold, env["PATH"])
    process = subprocess.Popen(amct_line(net), env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    wait_until(lambda: (net / "started").exists() and (net / "started").read_text().strip(), process)
    process.terminate()
    stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143 and "stopped" in stderr and "Traceback" not in stderr
    assert list((net / "tmp").glob("resnet34*")) == [] and not (net / "int8.onnx").exists()
    time.sleep(0.1)
    with pytest.raises(OSError):
        os.kill(int((net / "started").read_text()), 0)


def test_a_full_stdout_is_an_error_with_a_sentence(net):
    with open("/dev/full", "w") as full:
        process = subprocess.run(amct_line(net), env=with_amct(net), stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 1 and b"standard output" in process.stderr and b"Traceback" not in process.stderr


@needs_quantisation
def test_images_of_another_layout_with_as_many_bytes_are_refused(net):
    path = net / "prep_dataset" / ".recipe.json"
    path.write_text(path.read_text().replace('"CHW"', '"HWC"'))
    proto = onnx.load(str(net / "net.onnx"))
    del proto.metadata_props[:]
    onnx.save(proto, str(net / "net.onnx"))
    assert "its recipe is none" in refused(1, net)


@needs_quantisation
def test_a_full_disk_leaves_the_model_and_its_list_as_they_were_and_kept(net):
    quantise(net, "--images", "20")
    before = contents(net)
    limit = (5000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    code = ("import resnet34_quantize as script\n"
            "script.quantise_and_judge = lambda args, model, *rest: (model.data, {'images': 3})\n"
            "script.command.run(script.main)")
    line = command("resnet34_quantize.py", net / "net.onnx", net / "int8.onnx", "--calibration", net / "prep_dataset")[2:]
    process = subprocess.run([sys.executable, "-c", code] + line + ["--images", "19"], cwd=str(REPOSITORY), capture_output=True,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert process.returncode == 1 and b"int8.onnx: File too large" in process.stderr, process.stderr
    assert contents(net) == before and quantise(net, "--images", "20").stdout.startswith("kept: ")


@needs_quantisation
def test_the_same_line_again_keeps_the_model_and_any_change_makes_it_again(net):
    quantise(net, "--images", "20")
    before = (net / "int8.onnx").read_bytes()
    assert quantise(net, "--images", "20").stdout.startswith("kept: ") and (net / "int8.onnx").read_bytes() == before
    assert "written" in quantise(net, "--images", "19").stdout
    (net / "int8.onnx.calibration.txt").write_text("another list\n")
    assert "written" in quantise(net, "--images", "19").stdout
    line = command("resnet34_quantize.py", net / "net.onnx", net / "int8.onnx", "--calibration", net / "prep_dataset", "--check")
    assert [subprocess.call(line + ["--images", count]) for count in ("19", "20")] == [0, 1]
