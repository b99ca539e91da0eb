"""onnx_infer.py: ais_bench's options, grouping, files and summary, on ONNX Runtime."""
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import xxhash
from conftest import FLOAT_RECIPE, REPOSITORY, command, contents, fails, small_onnx, succeeds, wait_until
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(REPOSITORY))
from common import files

SCRIPT = "onnx_infer.py"
CLASSES, SIDE = 7, 8
SAMPLE = 3 * SIDE * SIDE * 4  # bytes
random = np.random.RandomState(0)
WEIGHT = random.standard_normal((3 * SIDE * SIDE, CLASSES)).astype(np.float32)


def write_model(path, batch="batch", element=TensorProto.FLOAT):
    """A real ONNX model small enough to run in no time: flatten, then multiply by WEIGHT."""
    nodes = [helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
             helper.make_node("Flatten", ["floats"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["class"])]
    graph = helper.make_graph(nodes, "linear", [helper.make_tensor_value_info("image", element, [batch, 3, SIDE, SIDE])],
                              [helper.make_tensor_value_info("class", TensorProto.FLOAT, [batch, CLASSES])],
                              [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    onnx.save(model, str(path))
    return path


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "m.onnx")


def write_inputs(parent):
    """Ten inputs, always the same, whose names sort otherwise as text than as numbers; returns {name: its scores}."""
    folder, scores, fixed = parent / "in", {}, np.random.RandomState(1)
    folder.mkdir()
    for number in range(1, 11):
        sample = fixed.standard_normal((1, 3, SIDE, SIDE)).astype("<f4")
        (folder / ("img%d.bin" % number)).write_bytes(sample.tobytes())
        scores["img%d" % number] = sample.reshape(1, -1) @ WEIGHT
    return scores


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one undisturbed run over the inputs, with out/ and out_summary.json; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_model(folder / "m.onnx")
    write_inputs(folder)
    run(folder, "--threads", "1")
    return folder


def copied(finished, tmp_path):
    shutil.copytree(str(finished / "out"), str(tmp_path / "out"))
    shutil.copy(str(finished / "out_summary.json"), str(tmp_path))


def run(tmp_path, *options, **keywords):
    output = keywords.pop("output", "out")
    return succeeds(SCRIPT, "--model", tmp_path / "m.onnx", "--input", tmp_path / "in", "--output", tmp_path,
                    "--output_dirname", output, *options)


ONE_AFTER_ANOTHER = """
import contextlib, io, json, sys
import onnx_infer
for sys.argv[1:] in json.loads(sys.argv[1]):
    said, code = io.TextIOWrapper(io.BytesIO(), write_through=True), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            onnx_infer.command.run(onnx_infer.main)
        except SystemExit as error:
            code = error.code
    print(json.dumps([code, said.buffer.getvalue().decode()]))
"""


def one_after_another(*lines):
    """[(exit code, what was said)] of several command lines in one process: most of a run's time is ONNX Runtime's start."""
    words = json.dumps([[str(word) for word in line] for line in lines])
    process = subprocess.run([sys.executable, "-c", ONE_AFTER_ANOTHER, words], cwd=str(REPOSITORY), capture_output=True,
                             encoding="utf-8")
    assert process.returncode == 0 and "Traceback" not in process.stdout, process.stdout + process.stderr
    return [tuple(json.loads(line)) for line in process.stdout.splitlines()]


def over(tmp_path, *options, **names):
    """A command line over tmp_path/in with tmp_path/m.onnx into tmp_path/out, or what else is named."""
    return ["--model", tmp_path / names.get("model", "m.onnx"), "--input", tmp_path / str(names.get("inputs", "in")),
            "--output", tmp_path, "--output_dirname", names.get("output", "out")] + list(options)


def errors_of(tmp_path, *lines):
    """The sentences with which several command lines fail; nothing may be published or left."""
    answers = one_after_another(*lines)
    assert [code for code, _ in answers] == [1] * len(lines), answers
    assert not (tmp_path / "out").exists() and not (tmp_path / "out_summary.json").exists()
    assert not (tmp_path / ".out.partial").exists()
    return [said for _, said in answers]


def results_in(folder):
    return sorted(os.listdir(str(folder)))


def summary_of(tmp_path, output="out"):
    return json.loads((tmp_path / (output + "_summary.json")).read_text())


@pytest.mark.processor
def test_every_batch_size_gives_every_input_its_own_row(model, inputs, tmp_path):
    sizes = (1, 3, 4, 10, 16)
    answers = one_after_another(*(over(tmp_path, "--batchsize", size, "--outfmt", "NPY", output=size) for size in sizes))
    assert [code for code, _ in answers] == [0] * 5
    for size in sizes:
        assert results_in(tmp_path / str(size)) == sorted("%s_0.npy" % name for name in inputs)
        for name, expected in inputs.items():
            row = np.load(str(tmp_path / str(size) / (name + "_0.npy")))
            assert row.shape == (1, CLASSES) and np.allclose(row, expected, atol=1e-4)


@pytest.mark.processor
def test_the_three_formats_hold_the_same_row(model, inputs, tmp_path):
    one_after_another(*(over(tmp_path, "--outfmt", outfmt, output=outfmt) for outfmt in ("TXT", "BIN", "NPY")))
    for name in inputs:
        row = np.load(str(tmp_path / "NPY" / (name + "_0.npy")))
        assert (tmp_path / "BIN" / (name + "_0.bin")).read_bytes() == row.astype("<f4").tobytes()
        text = (tmp_path / "TXT" / (name + "_0.txt")).read_text()
        assert text == "".join("%f " % value for value in row[0]) + "\n"


def test_bin_is_the_default_and_the_short_options_are_ais_benchs(model, inputs, tmp_path):
    succeeds(SCRIPT, "-m", model, "-i", tmp_path / "in", "-o", tmp_path, "--output-dirname", "out", "-l", "2")
    assert (tmp_path / "out" / "img1_0.bin").stat().st_size == 4 * CLASSES
    assert summary_of(tmp_path)["NPU_compute_time"]["count"] == 20


def test_without_a_dirname_the_folder_is_named_by_date_and_time(model, inputs, tmp_path):
    succeeds(SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path / "o")
    folder, summary = sorted(os.listdir(str(tmp_path / "o")))
    assert time.strftime("%Y_%m_") in folder and summary == folder + "_summary.json"


def halved(model):
    """The weights in half precision, cast back where they are used, as converters that keep the input and output do it."""
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "half"))
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT))


def quantised(model):
    model.graph.node.insert(2, helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["steps"]))
    model.graph.node.insert(3, helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["rounded"]))
    model.graph.node[4].input[0] = "rounded"
    steps = [numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.uint8(9), "zero")]
    model.graph.initializer.extend(steps)


@pytest.mark.parametrize("change, precision", [(lambda model: None, "fp32"), (halved, "fp16"), (quantised, "int8")])
def test_the_precision_is_what_the_graph_computes_in_also_where_another_tool_left_the_metadata(
        change, precision, model, inputs, tmp_path):
    proto = onnx.load(str(model))
    helper.set_model_props(proto, {"precision": "fp32"})
    change(proto)
    onnx.save(proto, str(model))
    succeeds(SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert summary_of(tmp_path)["precision"] == precision


def test_files_are_taken_in_natural_order(finished):
    files = summary_of(finished)["filesinfo"]
    assert [os.path.basename(files[str(place)]["infiles"][0]) for place in range(10)] == \
        ["img%d.bin" % number for number in range(1, 11)]
    assert files["9"]["outfiles"] == [str(finished / "out" / "img10_0.bin")]


def test_the_summary_has_ais_benchs_keys_and_names_the_engine(finished):
    import onnxruntime
    summary = summary_of(finished)
    for key in ("NPU_compute_time", "H2D_latency", "D2H_latency"):
        assert set(summary[key]) == {"min", "max", "mean", "median", "percentile(99%)", "count"}
    assert summary["NPU_compute_time"]["count"] == len(summary["npu_compute_time_list"]) == 10
    assert summary["throughput"] == pytest.approx(1000 / np.mean(summary["npu_compute_time_list"]))
    assert summary["engine"] == "onnxruntime %s CPUExecutionProvider" % onnxruntime.__version__
    assert summary["device"].endswith(", 1 threads") and summary["pid"] and "--threads" in summary["args"]


def test_pure_inference_loops_on_zeros_and_leaves_its_output_and_summary(model, tmp_path):
    zeros, noise = one_after_another(
        ["--model=%s" % model, "--loop=20", "--batchsize=4", "--output", tmp_path, "--output_dirname", "p", "--outfmt", "NPY",
         "--warmup_count", "0", "--display_all_summary", "1"],
        ["--model=%s" % model, "--loop=3", "--pure_data_type", "random", "--display_all_summary"])
    assert "throughput" in zeros[1] and "H2D_latency" in zeros[1] and noise[0] == 0 and "throughput" in noise[1]
    assert results_in(tmp_path / "p") == ["pure_infer_data_0.npy"]
    assert np.array_equal(np.load(str(tmp_path / "p" / "pure_infer_data_0.npy")), np.zeros((4, CLASSES)))
    assert summary_of(tmp_path, "p")["NPU_compute_time"]["count"] == 20
    assert sorted(os.listdir(str(tmp_path))) == ["m.onnx", "p", "p_summary.json"]


def test_a_models_own_batch_size_wins_and_a_contradiction_is_an_error(inputs, tmp_path):
    write_model(tmp_path / "m.onnx", batch=4)
    taken, named, other = one_after_another(*(over(tmp_path, *more) for more in ([], ["--batchsize", "4"], ["--batchsize", "2"])))
    assert summary_of(tmp_path)["NPU_compute_time"]["count"] == 3 and (taken[0], named[0], other[0]) == (0, 0, 1)
    assert "batch size 4" in other[1] and "2" in other[1]


def test_limit_takes_the_first_files_in_natural_order_and_single_files_and_lists_are_taken(model, inputs, tmp_path):
    chosen = "%s,%s" % (tmp_path / "in" / "img3.bin", tmp_path / "in" / "img5.bin")
    one_after_another(over(tmp_path, "--limit", "3", "--batchsize", "2"), over(tmp_path, inputs="in/img7.bin", output="single"),
                      over(tmp_path, "--input", chosen, output="list"))
    assert results_in(tmp_path / "out") == ["img1_0.bin", "img2_0.bin", "img3_0.bin"]
    assert len(summary_of(tmp_path)["filesinfo"]) == 3 and results_in(tmp_path / "single") == ["img7_0.bin"]
    assert results_in(tmp_path / "list") == ["img3_0.bin", "img5_0.bin"]


@pytest.mark.processor
def test_uint8_models_are_fed_bytes(tmp_path):
    write_model(tmp_path / "m.onnx", element=TensorProto.UINT8)
    pixels = random.randint(0, 256, (1, 3, SIDE, SIDE)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(pixels.tobytes())
    run(tmp_path, "--outfmt", "NPY")
    assert np.allclose(np.load(str(tmp_path / "out" / "a_0.npy")), pixels.reshape(1, -1).astype(np.float32) @ WEIGHT, atol=1e-2)


def test_inputs_that_are_not_one_image_each_stop_it_before_anything_is_computed(model, inputs, tmp_path):
    """Sizes; doubles, objects and torn ones under .npy; names whose results would collide."""
    sizes, lines = (0, 5, SAMPLE - 4, SAMPLE + 4, SAMPLE * 2), []
    for size in sizes:
        shutil.copytree(str(tmp_path / "in"), str(tmp_path / str(size)))
        (tmp_path / str(size) / "img7.bin").write_bytes(b"\0" * size)
        lines.append(over(tmp_path, inputs=size))
    for kind in ("double", "object", "torn", "collide"):
        shutil.copytree(str(tmp_path / "in"), str(tmp_path / kind))
        lines.append(over(tmp_path, inputs=kind))
    np.save(str(tmp_path / "double" / "a.npy"), np.zeros((1, 3, SIDE, SIDE)))
    np.save(str(tmp_path / "object" / "a.npy"), np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "torn" / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "collide" / "img1.b.bin").write_bytes((tmp_path / "in" / "img1.bin").read_bytes())
    answers = errors_of(tmp_path, *lines)
    assert all("img7.bin" in said for said in answers[:5]), answers
    assert "double/a.npy: holds float64" in answers[5] and "object/a.npy" in answers[6] and "torn/a.npy" in answers[7]
    assert "img1.b.bin" in answers[8] and "img1.bin" in answers[8]


def test_missing_and_empty_inputs_and_models_are_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.onnx").write_bytes(b"not onnx")
    (tmp_path / "resnet34_bs1.om").write_bytes(b"IMOD")
    said = errors_of(tmp_path, over(tmp_path), over(tmp_path, inputs="empty"), over(tmp_path, model="y.onnx"),
                     over(tmp_path, model="x.onnx"), over(tmp_path, model="resnet34_bs1.om"))
    for sentence, part in zip(said, ("in: No such file", "no .bin or .npy files", "y.onnx: No such", "x.onnx", "npu_infer.py")):
        assert part in sentence


def test_a_folder_with_other_files_is_not_replaced(model, inputs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    sentence = fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert "thesis.doc" in sentence and (tmp_path / "out" / "thesis.doc").exists()
    fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "in")
    assert len(os.listdir(str(tmp_path / "in"))) == 10


def test_memory_does_not_grow_with_the_number_of_files(model, tmp_path):
    code = "import json, onnx_infer, resource, sys\nfor sys.argv in json.loads(sys.argv[1]):\n    onnx_infer.main()\n" \
           "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    lines = []
    for count in (100, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / ("%d.bin" % number)).write_bytes(bytes(SAMPLE))
        lines.append([SCRIPT, "--model", str(model), "--input", str(folder), "--output", str(tmp_path)])
    process = subprocess.run([sys.executable, "-c", code, json.dumps([line + ["--output_dirname", "out"] for line in lines])],
                             cwd=str(REPOSITORY), stdout=subprocess.PIPE, encoding="utf-8", check=True)
    peaks = [int(line.split()[1]) for line in process.stdout.splitlines() if line.startswith("peak")]
    assert peaks[1] < peaks[0] + 900 * 4  # kB: names and times; a ResNet34's input is 588 kB


def error_of(tmp_path, *options, **keywords):
    """The sentence with which a run over tmp_path/in into tmp_path/out fails; nothing may be published or left."""
    sentence = fails(1, SCRIPT, "--model", tmp_path / "m.onnx", "--input", tmp_path / "in", "--output", tmp_path,
                     "--output_dirname", "out", *options, **keywords)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out_summary.json").exists()
    return sentence


def write_graph(path, nodes, shape, output=("batch", CLASSES), weights=None, element=TensorProto.FLOAT, more=(), opset=11):
    """An ONNX model of a few nodes from `image` to `class`; unchecked, as models that misbehave are."""
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", element, shape)],
                              [helper.make_tensor_value_info("class", TensorProto.FLOAT, output)] + list(more),
                              [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 6
    onnx.save(model, str(path))


def test_the_summary_says_what_the_run_was(small, tmp_path):
    succeeds(SCRIPT, "--model", small / "small.onnx", "--input", small / "prep_dataset", "--output", tmp_path,
             "--output_dirname", "r", "--batchsize", "4")
    summary = summary_of(tmp_path, "r")
    data = (small / "small.onnx").read_bytes()
    assert summary["schema"] == 2 and summary["precision"] == "fp32" and summary["batch_size"] == 4
    assert summary["model"]["sha256"] == hashlib.sha256(data).hexdigest() and summary["model"]["bytes"] == len(data)
    assert summary["model"]["recipe"] == summary["input"]["recipe"] == FLOAT_RECIPE
    record = json.loads((small / "prep_dataset" / ".recipe.json").read_text())
    assert summary["input"]["images"] == 12 and summary["input"]["source"] == str(small / "val")
    assert summary["input"]["set_hash"] == record["set_hash"]
    manifest = [json.loads(line) for line in (small / "prep_dataset" / ".manifest").read_text().splitlines()]
    first = summary["filesinfo"]["0"]
    assert first["image"] == manifest[0][2] == xxhash.xxh3_128_hexdigest(Path(manifest[0][1]).read_bytes())
    [[content, status]] = first["hashes"]
    path = tmp_path / "r" / os.path.basename(first["outfiles"][0])
    assert content == xxhash.xxh3_128_hexdigest(path.read_bytes()) and status[0] == path.stat().st_size
    assert summary["outputs"] == [{"name": "class", "dtype": "float32", "shape": [1000]}]
    assert summary["probabilities"] is False and summary["devices"] == []
    assert set(summary["wall"]) == {"seconds", "images_per_second", "reading", "computing", "writing", "resumed"}
    assert not summary["wall"]["resumed"]
    assert summary["wall"]["images_per_second"] == pytest.approx(12 / summary["wall"]["seconds"])
    assert summary["performance"]["runs"] == 3 and summary["performance"]["p90_ms"] is None


def test_inputs_made_by_another_recipe_are_refused_whatever_the_bytes(small, tmp_path):
    small_onnx(tmp_path / "m.onnx", recipe=dict(FLOAT_RECIPE, mean=[0.5, 0.5, 0.5]))
    pairs = [(small / "small.onnx", "prep_dataset_uint8"), (small / "small_uint8.onnx", "prep_dataset"),
             (tmp_path / "m.onnx", "prep_dataset")]
    answers = one_after_another(*(["--model", model, "--input", small / inputs, "--output", tmp_path, "--batchsize", "4"]
                                  for model, inputs in pairs))
    for (_, inputs), (code, said), words in zip(pairs, answers, (["uint8", "float32"], ["uint8", "float32"], ["mean"])):
        assert code == 1 and inputs in said and all(word in said for word in words), said
    assert os.listdir(str(tmp_path)) == ["m.onnx"]


def test_a_prepared_folder_that_was_changed_is_refused(small, tmp_path):
    changes = ("changed", "removed", "added", "no manifest", "broken manifest")
    for change in changes:
        folder = tmp_path / change
        shutil.copytree(str(small / "prep_dataset"), str(folder))
        path = sorted(folder.glob("*.bin"))[3]
        if change == "changed":
            path.write_bytes(path.read_bytes()[::-1])
        elif change == "removed":
            path.unlink()
        elif change == "added":
            shutil.copy(str(path), str(folder / "more.bin"))
        else:
            (folder / ".manifest").unlink()
            if change == "broken manifest":
                (folder / ".manifest").write_text('["a"]\n[')
    chosen = sorted((tmp_path / "changed").glob("*.bin"))[3]
    answers = one_after_another(*(["--model", small / "small.onnx", "--input", tmp_path / name] for name in changes + (chosen,)))
    for change, (code, sentence) in zip(changes + (chosen,), answers):
        assert code == 1 and str(tmp_path / change) in sentence and "imagenet_torch_preprocess.py" in sentence, sentence


def test_one_file_is_one_image_whatever_its_bytes_would_make(tmp_path):
    """Case 5 of issue 12: a float32 file is exactly four uint8 images, or two of fp16."""
    for folder, size in (("in", SAMPLE), ("two", 2 * SAMPLE)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.bin").write_bytes(bytes(size))
    write_model(tmp_path / "m.onnx")
    write_model(tmp_path / "uint8.onnx", element=TensorProto.UINT8)
    write_model(tmp_path / "fp16.onnx", element=TensorProto.FLOAT16)
    lines = [over(tmp_path, "--batchsize", "4", model="uint8.onnx"), over(tmp_path, "--batchsize", "2", model="fp16.onnx"),
             over(tmp_path, "--batchsize", "2", inputs="two")]
    arrays = (np.zeros((SIDE, SIDE, 3), "<f4"), np.zeros((2, 3, SIDE, SIDE), "<f4"), np.zeros((3, SIDE, SIDE), ">f4"),
              np.asfortranarray(random.standard_normal((3, SIDE, SIDE)).astype("<f4")))
    for number, array in enumerate(arrays):
        np.save(str(tmp_path / ("%d.npy" % number)), array)
        lines.append(over(tmp_path, "--batchsize", "2", inputs="%d.npy" % number))
    said = errors_of(tmp_path, *lines)
    assert "a.bin: holds 768 bytes" in said[0] and "a.bin: holds 768 bytes" in said[1] and "a.bin: holds 1536 bytes" in said[2]
    assert all("%d.npy: holds" % number in sentence for number, sentence in enumerate(said[3:]))


def test_npy_inputs_of_one_image_are_taken_with_and_without_the_batch(model, tmp_path):
    samples = random.standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    (tmp_path / "in").mkdir()
    np.save(str(tmp_path / "in" / "a.npy"), samples[0])
    np.save(str(tmp_path / "in" / "b.npy"), samples[1:])
    run(tmp_path, "--batchsize", "2", "--outfmt", "NPY")
    rows = [np.load(str(tmp_path / "out" / ("%s_0.npy" % name))) for name in "ab"]
    assert np.allclose(np.concatenate(rows), samples.reshape(2, -1) @ WEIGHT, atol=1e-4)


def test_npy_files_that_are_none_are_named(model, tmp_path):
    with open(str(tmp_path / "npz.npy"), "wb") as file:
        np.savez(file, np.zeros(3))
    with open(str(tmp_path / "huge.npy"), "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10 ** 12,)})
    (tmp_path / "deep.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)
    for said in errors_of(tmp_path, *(over(tmp_path, inputs=name) for name in ("npz.npy", "huge.npy", "deep.npy"))):
        assert ".npy: is no .npy" in said


@pytest.mark.parametrize("limit, outfmt", [(0, "BIN"), (10, "BIN"), (10, "TXT"), (100, "NPY")])
def test_a_result_that_cannot_be_written_whole_is_an_error_that_names_it(limit, outfmt, finished, model, inputs, tmp_path):
    """Case 6 of issue 12, by a file-size limit: bytes of a file that may be written."""
    code = "import resource, subprocess, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d)); " \
           "sys.exit(subprocess.call(sys.argv[1:]))" % (limit, limit)
    copied(finished, tmp_path)
    before = contents(tmp_path / "out")
    process = subprocess.run([sys.executable, "-c", code] + command(
        SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out", "--overwrite",
        "--outfmt", outfmt), stderr=subprocess.PIPE, encoding="utf-8")
    assert process.returncode == 1 and re.search(r"^error: .*/\S+: File too large$", process.stderr), process.stderr
    assert contents(tmp_path / "out") == before


def test_a_full_disk_is_an_error_that_names_the_file(model, inputs, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("no right to mount a small disk here")
    try:
        lines = [over(tmp_path, "--outfmt", outfmt, "--output", disk, output=outfmt) for outfmt in ("TXT", "BIN", "NPY")]
        for code, said in one_after_another(*lines):
            assert code == 1 and "No space left" in said and str(disk) in said
        assert not [name for name in os.listdir(str(disk)) if not name.startswith(".")]
    finally:
        subprocess.check_call(["umount", str(disk)])


def test_outputs_that_are_not_a_row_of_scores_an_image_are_refused(inputs, tmp_path):
    """Case 9 of issue 12: a scalar, (1, N), a transposed one, three dimensions, one class, integers."""
    image = ["batch", 3, SIDE, SIDE]
    flat = helper.make_node("Flatten", ["image"], ["flat"], axis=1)
    product = helper.make_node("MatMul", ["flat", "w"], ["y"])
    graphs = [([helper.make_node("ReduceMean", ["image"], ["class"], keepdims=0)], [], {}),
              ([helper.make_node("ReduceMean", ["image"], ["class"], axes=[0, 2, 3], keepdims=0)], [None], {}),
              ([flat, product, helper.make_node("ReduceMean", ["y"], ["class"], axes=[0])], [None, CLASSES], {"w": WEIGHT}),
              ([flat, product, helper.make_node("Transpose", ["y"], ["class"], perm=[1, 0])], [CLASSES, "batch"], {"w": WEIGHT}),
              ([helper.make_node("ReduceMean", ["image"], ["class"], axes=[3], keepdims=0)], ["batch", 3, SIDE], {}),
              ([flat, helper.make_node("MatMul", ["flat", "w"], ["class"])], ["batch", 1], {"w": WEIGHT[:, :1].copy()})]
    for number, (nodes, output, weights) in enumerate(graphs):
        write_graph(tmp_path / ("%d.onnx" % number), nodes, image, output, weights)
    for sentence in errors_of(tmp_path, *(over(tmp_path, "--batchsize", "4", model="%d.onnx" % n) for n in range(6))):
        assert ".onnx: its" in sentence and "classes)" in sentence, sentence


def test_a_further_output_gets_files_of_its_own(model, inputs, tmp_path):
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["class"]),
             helper.make_node("ArgMax", ["class"], ["best"], axis=1, keepdims=0)]
    write_graph(tmp_path / "m.onnx", nodes, ["batch", 3, SIDE, SIDE], weights={"w": WEIGHT},
                more=[helper.make_tensor_value_info("best", TensorProto.INT64, ["batch"])])
    run(tmp_path, "--batchsize", "3", "--outfmt", "NPY")
    assert len(results_in(tmp_path / "out")) == 20
    assert summary_of(tmp_path)["outputs"][1] == {"name": "best", "dtype": "int64", "shape": []}
    for name, scores in inputs.items():
        assert np.load(str(tmp_path / "out" / (name + "_1.npy"))) == scores.argmax()


def test_two_outputs_that_both_look_like_scores_are_refused_by_name(model, inputs, tmp_path):
    nodes = [helper.make_node("MatMul", ["class", "w"], ["logits"]), helper.make_node("Flatten", ["image"], ["class"], axis=1)]
    write_graph(tmp_path / "m.onnx", nodes[::-1], ["batch", 3, SIDE, SIDE], ["batch", 3 * SIDE * SIDE], {"w": WEIGHT},
                more=[helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])])
    for sentence in errors_of(tmp_path, over(tmp_path), ["--model", tmp_path / "m.onnx", "--loop", "2"]):
        assert "its outputs class and logits" in sentence


def test_weights_in_another_file_are_refused_also_in_a_subgraph(model, inputs, tmp_path, monkeypatch):
    """ONNX Runtime would look for the file in the current folder, where another model's may lie."""
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    inner = helper.make_graph([helper.make_node("Constant", [], ["class"], value=numpy_helper.from_array(WEIGHT))], "inner", [],
                              [helper.make_tensor_value_info("class", TensorProto.FLOAT, None)])
    chosen = helper.make_node("If", ["yes"], ["class"], then_branch=inner, else_branch=inner)
    write_graph(tmp_path / "if.onnx", [chosen], ["batch", 3, SIDE, SIDE], weights={"yes": np.array(True)})
    monkeypatch.chdir(tmp_path)
    for name in ("m.onnx", "if.onnx"):
        proto = onnx.load(name)
        weight = proto.graph.initializer[0] if name == "m.onnx" else proto.graph.node[0].attribute[0].g.node[0].attribute[0].t
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="w.bin")
        (tmp_path / name).write_bytes(proto.SerializeToString())  # onnx.save would look for the values
        assert "in another file (external data)" in fails(1, SCRIPT, *over(tmp_path, model=name))
    assert not (tmp_path / "out").exists()


def test_scores_that_are_not_finite_are_refused_with_the_files_name(model, inputs, tmp_path):
    for value in (np.nan, np.inf):
        shutil.copytree(str(tmp_path / "in"), str(tmp_path / str(value)))
        (tmp_path / str(value) / "img7.bin").write_bytes(np.full(3 * SIDE * SIDE, value, "<f4").tobytes())
    for sentence in errors_of(tmp_path, *(over(tmp_path, "--batchsize", "4", inputs=name) for name in ("nan", "inf"))):
        assert "img7.bin" in sentence


def test_probabilities_are_refused_as_text_and_kept_as_bytes(small, tmp_path):
    """Case 4 of issue 12."""
    small_onnx(tmp_path / "m.onnx", softmax=True)
    line = over(tmp_path, inputs=small / "prep_dataset")
    text, binary = one_after_another(line + ["--outfmt", "TXT"], line + ["--outfmt", "BIN"])
    assert text[0] == 1 and "--outfmt BIN" in text[1] and binary[0] == 0
    assert summary_of(tmp_path)["probabilities"] is True


def test_scores_that_text_would_flatten_are_refused_as_text_and_ties_in_float_are_not(model, inputs, tmp_path):
    """Sigmoids of very negative logits: each has seven digits, of which %f leaves none; Top-1 fell to half."""
    nodes, lines = [helper.make_node("Flatten", ["image"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["y"]),
                    helper.make_node("Sub", ["y", "n16"], ["low"])], []
    for kind in ("Sigmoid", "Sign"):
        write_graph(tmp_path / (kind + ".onnx"), nodes + [helper.make_node(kind, ["low"], ["class"])],
                    ["batch", 3, SIDE, SIDE], weights={"w": WEIGHT / 50, "n16": np.array(16, np.float32)})
        lines += [over(tmp_path, "--outfmt", outfmt, model=kind + ".onnx", output=kind) for outfmt in ("TXT", "BIN")]
    answers = one_after_another(*lines)
    assert [code for code, _ in answers] == [1, 0, 0, 0], answers
    assert "flattens into ties; use --outfmt BIN" in answers[0][1] and not summary_of(tmp_path, "Sigmoid")["probabilities"]


def test_models_that_fail_or_cannot_be_fed_get_a_sentence(inputs, tmp_path):
    flat = helper.make_node("Flatten", ["image"], ["flat"], axis=1)
    bad = helper.make_node("Reshape", ["flat", "s"], ["class"])  # fails when it runs: the sizes do not fit
    write_graph(tmp_path / "m.onnx", [flat, bad], ["batch", 3, SIDE, SIDE], weights={"s": np.array([5, CLASSES])})
    product, lines = helper.make_node("MatMul", ["flat", "w"], ["class"]), [over(tmp_path)]
    shapes = ([], ["batch", 0, SIDE, SIDE], ["batch", "c", SIDE, SIDE])
    for number, shape in enumerate(shapes):
        write_graph(tmp_path / ("%d.onnx" % number), [flat, product], shape, ["batch", None], {"w": WEIGHT})
        lines.append(over(tmp_path, model="%d.onnx" % number))
    said = errors_of(tmp_path, *lines)
    assert "m.onnx: ONNX Runtime cannot run it" in said[0]
    assert all("%d.onnx: " % number in sentence for number, sentence in enumerate(said[1:]))


def test_what_is_no_regular_file_does_not_hang_it(model, inputs, tmp_path):
    (tmp_path / "in" / "img3.bin").unlink()
    os.mkfifo(str(tmp_path / "in" / "img3.bin"))
    assert "img3.bin: is no regular file" in error_of(tmp_path, timeout=30)
    model.unlink()
    os.mkfifo(str(model))
    assert "m.onnx: is no regular file" in error_of(tmp_path, timeout=30)


def test_a_second_run_replaces_what_its_record_lists_and_nothing_else(finished, model, inputs, tmp_path):
    copied(finished, tmp_path)
    (tmp_path / "in" / "img1.bin").unlink()
    run(tmp_path, "--outfmt", "TXT", "--overwrite")
    assert results_in(tmp_path / "out") == sorted("img%d_0.txt" % number for number in range(2, 11))
    assert sorted(os.listdir(str(tmp_path))) == ["in", "m.onnx", "out", "out_summary.json"]
    (tmp_path / "out" / "mine_0.bin").write_bytes(b"a result by its name only")
    sentence = fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert "mine_0.bin" in sentence and (tmp_path / "out" / "mine_0.bin").exists()


def test_inputs_and_summaries_of_the_users_own_are_not_replaced(model, inputs, tmp_path):
    """"Lost today" of issue 12: inputs named like results, in the folder the results would go to."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("ILSVRC2012_val_00000001.bin", "ILSVRC2012_val_00000002.bin"):
        shutil.copy(str(tmp_path / "in" / "img1.bin"), str(own / name))
    before = contents(own)
    for chosen in (str(own), ",".join(str(path) for path in sorted(own.glob("*")))):
        fails(1, SCRIPT, "--model", model, "--input", chosen, "--output", tmp_path, "--output_dirname", "own")
        assert contents(own) == before
    (tmp_path / "out_summary.json").write_text("{}")
    sentence = fails(1, SCRIPT, "--model", model, "--input", own, "--output", tmp_path, "--output_dirname", "out")
    assert "out_summary.json" in sentence and (tmp_path / "out_summary.json").read_text() == "{}"


def test_a_result_folder_that_is_a_link_is_refused_before_anything_is_computed(model, inputs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")
    model.write_bytes(b"not even looked at")
    sentence = fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert "out: is a link" in sentence
    assert not list((tmp_path / "elsewhere").iterdir())


def test_results_of_a_shard_go_to_a_folder_in_a_folder(model, inputs, tmp_path):
    line = over(tmp_path, output="result_bs1/shard1_of_4")
    assert [code for code, _ in one_after_another(line, line)] == [0, 0]
    assert sorted(os.listdir(str(tmp_path / "result_bs1"))) == ["shard1_of_4", "shard1_of_4_summary.json"]
    assert str(tmp_path / "result_bs1" / "shard1_of_4" / "img1_0.bin") in \
        summary_of(tmp_path, "result_bs1/shard1_of_4")["filesinfo"]["0"]["outfiles"]


SLOW = ["--loop", "1500"]  # some ten milliseconds a batch of the tiny model


def begun(tmp_path, *options):
    """A run over tmp_path/in into tmp_path/out, returned when at least two of its ten batches are in the journal."""
    process = subprocess.Popen(command(SCRIPT, "--model", tmp_path / "m.onnx", "--input", tmp_path / "in", "--output", tmp_path,
                                       "--output_dirname", "out", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    progress = tmp_path / ".out.partial" / ".progress"
    assert wait_until(lambda: progress.exists() and progress.read_bytes().count(b"\n") >= 3, process), process.communicate()
    return process


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_and_ends_like_an_undisturbed_one(number, code, finished, model, inputs, tmp_path):
    process = begun(tmp_path, *SLOW)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code and b"Traceback" not in errors
    assert code < 0 or errors == b"stopped; what was finished is kept, the same line goes on\n"
    assert not (tmp_path / "out").exists() and not (tmp_path / "out_summary.json").exists()
    (tmp_path / ".out.partial" / "img9_0.bin").write_bytes(b"torn")  # written by halves, not in the journal
    with open(str(tmp_path / ".out.partial" / ".progress"), "ab") as file:
        file.write(b'{"times": [1')  # a line cut in two by the kill
    assert "going on after batch" in run(tmp_path, *SLOW).stdout
    assert contents(tmp_path / "out") == contents(finished / "out")
    summary = summary_of(tmp_path)
    assert summary["wall"]["resumed"] is True and len(summary["npu_compute_time_list"]) == 15000
    assert summary["wall"]["computing"] == pytest.approx(sum(summary["npu_compute_time_list"]) / 1000)
    for info, other in zip(summary["filesinfo"].values(), summary_of(finished)["filesinfo"].values()):
        assert [os.path.basename(path) for path in info["infiles"]] == [os.path.basename(path) for path in other["infiles"]]
    assert not list(tmp_path.glob(".*"))


def test_a_finished_result_that_was_changed_since_is_made_again(finished, model, inputs, tmp_path):
    process = begun(tmp_path, *SLOW)
    process.kill()
    process.communicate()
    second = tmp_path / ".out.partial" / "img2_0.bin"
    second.write_bytes(bytes(second.stat().st_size))  # as a crash of the machine can leave a file: of the same size
    assert "going on after batch 1 of 10" in run(tmp_path, *SLOW).stdout
    assert (tmp_path / "out" / "img2_0.bin").read_bytes() == (finished / "out" / "img2_0.bin").read_bytes()


@pytest.mark.parametrize("other", ["model", "inputs", "options"])
def test_a_stopped_run_of_something_else_starts_afresh_and_says_so(other, model, inputs, tmp_path):
    process = begun(tmp_path, *SLOW)
    process.kill()
    process.communicate()
    options = SLOW[:1] + ["1"]
    expected = ["img%d_0.bin" % number for number in range(1, 11)]
    if other == "model":
        options = SLOW
        model.write_bytes(model.read_bytes().replace(b"linear", b"LINEAR"))
    if other == "inputs":
        (tmp_path / "in" / "img5.bin").write_bytes((tmp_path / "in" / "img6.bin").read_bytes())
    process = run(tmp_path, *options)
    assert "starting afresh" in process.stdout and summary_of(tmp_path)["wall"]["resumed"] is False
    assert results_in(tmp_path / "out") == sorted(expected) and not list(tmp_path.glob(".*"))
    for name in inputs:
        row = np.fromfile(str(tmp_path / "out" / (name + "_0.bin")), "<f4")
        assert np.allclose(row, inputs["img6" if (other, name) == ("inputs", "img5") else name], atol=1e-4)


def test_two_at_once_do_not_mix(model, inputs, tmp_path):
    process = begun(tmp_path, *SLOW)
    process.send_signal(signal.SIGSTOP)
    try:
        assert "another run is at work in this folder" in error_of(tmp_path)
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert len(results_in(tmp_path / "out")) == 10


def test_a_run_killed_between_the_renames_of_publishing_loses_neither_results(finished, model, inputs, tmp_path):
    copied(finished, tmp_path)
    first = contents(tmp_path / "out")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / ".lock").touch()
    (tmp_path / "out").rename(tmp_path / ".out.partial" / ".old")
    (tmp_path / "in" / "img10.bin").write_bytes(np.full(3 * SIDE * SIDE, np.nan, "<f4").tobytes())
    fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert contents(tmp_path / "out") == first and not list(tmp_path.glob(".*"))


def test_an_input_replaced_while_it_runs_is_noticed(model, inputs, tmp_path):
    process = begun(tmp_path, *SLOW)
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "in" / "img10.bin").write_bytes(bytes(SAMPLE))
    process.send_signal(signal.SIGCONT)
    errors = process.communicate()[1].decode()
    assert process.returncode == 1 and "img10.bin: is not what it was when it was looked at" in errors
    assert not (tmp_path / "out").exists()


def test_seconds_give_as_many_runs_as_fill_them_and_figures_that_can_be_defended(model, tmp_path):
    line, cases = ["--model", model, "--output", tmp_path], ((9, False, False), (10, True, False), (20, True, True))
    one_after_another(line + ["--seconds", "0.05", "--batchsize", "2", "--output_dirname", "p"],
                      *(line + ["--loop", runs, "--output_dirname", runs] for runs, _, _ in cases))
    summary = summary_of(tmp_path, "p")
    times, told = np.array(summary["npu_compute_time_list"]), summary["performance"]
    assert told["runs"] == len(times) >= 10 and summary["wall"] is None and summary["input"] is None
    assert told["median_ms"] == pytest.approx(np.median(times)) and told["p90_ms"] == pytest.approx(np.percentile(times, 90))
    assert (told["p99_ms"] is None) == (len(times) < 100)
    if told["interval95"]:
        assert told["interval95"][0] < told["images_per_second"] * 1.5 and told["interval95"][0] < told["interval95"][1]
    for runs, p90, interval in cases:
        told = summary_of(tmp_path, str(runs))["performance"]
        assert (told["p90_ms"] is not None, told["p99_ms"]) == (p90, None) and (interval or told["interval95"] is None)


def test_a_provider_that_is_not_to_be_had_is_an_error_with_the_list(model):
    none, options, cpu = one_after_another(*(["--model", model, "--provider", text] for text in (
        "TensorRT,device_id=0", "CPU,foo=1", "cpu")))
    assert none[0] == 1 and "--provider TensorRT" in none[1] and "has CPU;" in none[1]
    assert options[0] == 2 and "no options" in options[1] and cpu[0] == 0 and "throughput" in cpu[1]


@pytest.mark.processor
def test_text_is_what_percent_f_writes(tmp_path):
    sys.path.insert(0, str(REPOSITORY))
    from common import scores
    values = [0, -0.0, 5e-7, -5e-7, 1.5e-6, 0.5, 999.99994, -999.99994, 1e-45, 2 ** -21, 3 * 2 ** -21, 1000, -1e9, 3e38]
    for row in (np.array(values, "<f4"), np.array(values[:-3], "<f4"), (random.standard_normal(99999) * 100).astype("<f4")):
        assert scores.as_text(row) == ("".join("%f " % value for value in row) + "\n").encode()


@pytest.mark.parametrize("shell", ["%s > /dev/full", "%s | true"])
def test_an_output_that_is_closed_or_full_gives_no_traceback_and_whole_results(shell, model, inputs, tmp_path):
    words = command(SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    process = subprocess.run(["bash", "-c", shell % " ".join(shlex.quote(word) for word in words)], capture_output=True,
                             encoding="utf-8")
    assert "Traceback" not in process.stderr and "Exception" not in process.stderr
    assert process.returncode == (1 if "full" in shell else 0), process.stderr
    assert len(results_in(tmp_path / "out")) == 10 and len((tmp_path / "out" / "img1_0.bin").read_bytes()) == 4 * CLASSES


def test_ctrl_c_at_the_very_start_gives_no_traceback(model):
    process = subprocess.Popen(command(SCRIPT, "--model", model, "--loop", "100000000"), stderr=subprocess.PIPE)
    caught = "/proc/%d/status" % process.pid

    def handler_stands():
        with open(caught) as file:
            mask = int(next(line for line in file if line.startswith("SigCgt")).split()[1], 16)
        return mask >> (signal.SIGTERM - 1) & 1
    wait_until(handler_stands, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and errors == b"stopped; what was finished is kept, the same line goes on\n"


WRONG = [
    [], ["--model", "m", "--outfmt", "CSV"], ["--model", "m", "--batchsize", "0"], ["--model", "m", "--loop", "x"],
    ["--model", "m", "--output_dirname", "a"], ["--model", "m", "--output", "o", "--output_dirname", ".."],
    ["--model", "m", "--output", "o", "--output_dirname", "a/../../b"], ["--model", "m", "--unknown"],
    ["--model", "m", "--warmup_count", "-1"], ["--model", "m", "--seconds", "0"], ["--model", "m", "--seconds", "nan"],
    ["--model", "m", "--seconds", "1", "--loop", "2"], ["--model", "m", "--provider", ","],
    ["--model", "m", "--batchsize", "4097"], ["--model", "m", "--input", "", "--output", "o"], ["--model", "m", "--output", ""],
    ["--model", "m", "--limit", "3"], ["--model", "m", "--threads", "99999"]]


def test_wrong_usage_exits_with_2():
    assert [code for code, _ in one_after_another(*WRONG)] == [2] * len(WRONG)
    fails(2, SCRIPT, *WRONG[-1])


def test_the_same_line_again_keeps_the_results_within_a_second_and_does_not_load_the_engine(finished, tmp_path):
    folder = tmp_path / "f"
    shutil.copytree(str(finished), str(folder))
    before = contents(folder)
    process = subprocess.run([sys.executable, "-X", "importtime"] + command(SCRIPT, *over(folder))[1:], capture_output=True,
                             encoding="utf-8")
    assert process.returncode == 0 and process.stdout.startswith("kept: %s, " % (folder / "out")), process.stderr
    assert len(process.stdout.splitlines()) == 1 and "onnxruntime" not in process.stderr and contents(folder) == before


def test_check_tells_by_its_exit_code_and_changes_nothing(finished, tmp_path):
    folder = tmp_path / "f"
    shutil.copytree(str(finished), str(folder))  # another inode, another time: the same bytes
    before = contents(folder)
    line = ["--model", folder / "m.onnx", "--input", folder / "in", "--output", folder, "--output_dirname", "out", "--check"]
    same, other, missing = line + ["--threads", "2"], line + ["--outfmt", "TXT"], line + ["--output_dirname", "none"]
    assert [code for code, _ in one_after_another(same, other, missing)] == [0, 1, 1]
    assert contents(folder) == before


@pytest.mark.parametrize("change", ["model", "input", "result", "options", "results removed", "summary removed"])
def test_whatever_decides_a_result_makes_it_again(change, finished, tmp_path):
    shutil.copytree(str(finished), str(tmp_path / "f"))
    folder, options = tmp_path / "f", ["--threads", "1"]
    if change == "model":
        (folder / "m.onnx").write_bytes((folder / "m.onnx").read_bytes().replace(b"linear", b"LINEAR"))
    if change == "input":
        shutil.copy(str(folder / "in" / "img6.bin"), str(folder / "in" / "img5.bin"))
    if change == "result":
        shutil.copy(str(folder / "out" / "img6_0.bin"), str(folder / "out" / "img5_0.bin"))
    if change == "options":
        options = ["--overwrite"]
    if change == "results removed":
        shutil.rmtree(str(folder / "out"))
    if change == "summary removed":
        (folder / "out_summary.json").unlink()
        assert "no summary of ours lists" in fails(1, SCRIPT, *over(folder, *options))
        return
    assert "throughput" in succeeds(SCRIPT, *over(folder, *options)).stdout
    assert (folder / "out" / "img6_0.bin").read_bytes() == (finished / "out" / "img6_0.bin").read_bytes()
    assert ((folder / "out" / "img5_0.bin").read_bytes() == (finished / "out" / "img5_0.bin").read_bytes()) == (change != "input")


@pytest.mark.parametrize("given_back", [False, True])
def test_a_run_that_waited_for_another_keeps_what_that_one_published_or_makes_what_it_gave_back(given_back, finished, tmp_path):
    partial = tmp_path / ".out.partial"
    shutil.copytree(str(finished / "out"), str(partial))
    held = files.lock(str(partial), ".lock")
    line = ["--model", finished / "m.onnx", "--input", finished / "in", "--output", tmp_path, "--output_dirname", "out"]
    process = subprocess.Popen(command(SCRIPT, *line, "--threads", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    opened = Path("/proc/%d/fd" % process.pid)
    wait_until(lambda: str(partial / ".lock") in [os.path.realpath(str(link)) for link in opened.iterdir()], process)
    if given_back:
        shutil.rmtree(str(partial))
    else:
        (partial / ".lock").unlink()
        partial.rename(tmp_path / "out")
        shutil.copy(str(finished / "out_summary.json"), str(tmp_path))
    os.close(held)
    said, errors = process.communicate()
    assert process.returncode == 0 and said.startswith(b"kept: ") != given_back, errors
    assert contents(tmp_path / "out") == contents(finished / "out") and not partial.exists()


@pytest.mark.parametrize("options, count", [([], 0), (["--input", "in", "--limit", "4"], 4), (["--input", "some"], 3)])
def test_results_are_not_replaced_by_pure_inference_or_by_those_of_a_part_of_the_images_without_a_word(
        options, count, finished, tmp_path):
    folder = tmp_path / "f"
    shutil.copytree(str(finished), str(folder))
    (folder / "some").mkdir()
    for number in (1, 2, 3):
        shutil.copy(str(folder / "in" / ("img%d.bin" % number)), str(folder / "some"))
    line = ["--model", "m.onnx", "--output", ".", "--output_dirname", "out"] + options
    before = contents(folder / "out")
    sentence = fails(1, SCRIPT, *line, cwd=str(folder))
    assert "the results of 10 images, of which this run makes %d; name another --output_dirname" % count in sentence
    assert contents(folder / "out") == before and not (folder / ".out.partial").exists()
    succeeds(SCRIPT, *line, "--overwrite", cwd=str(folder))
    assert len(contents(folder / "out")) == max(count, 1)


def test_the_results_of_a_folder_that_lost_a_picture_are_replaced(finished, tmp_path):
    folder = tmp_path / "f"
    shutil.copytree(str(finished), str(folder))
    summary = json.loads((folder / "out_summary.json").read_text())
    summary["input"]["path"] = str(folder / "in")
    (folder / "out_summary.json").write_text(json.dumps(summary))
    (folder / "in" / "img7.bin").unlink()
    run(folder)
    assert len(contents(folder / "out")) == 9


def test_pure_inference_is_measured_again_with_other_threads_and_on_demand(model, tmp_path):
    line = ["--model", model, "--loop", "3", "--output", tmp_path, "--output_dirname", "p", "--threads"]
    answers = one_after_another(line + ["1"], line + ["1"], line + ["2"], line + ["2", "--overwrite"])
    assert [said.startswith("kept") for _, said in answers] == [False, True, False, False]


def test_a_publication_killed_before_its_last_step_is_finished_by_the_next_run(finished, tmp_path):
    shutil.copytree(str(finished), str(tmp_path / "f"))
    folder = tmp_path / "f"
    before = contents(folder)
    (folder / "out_summary.json").rename(folder / "out" / ".summary.json")
    assert succeeds(SCRIPT, *over(folder, "--threads", "1")).stdout.startswith("kept")
    assert contents(folder) == before


def test_every_batch_is_looked_at_for_scores_that_text_would_flatten(tmp_path):
    """A sigmoid head whose first images are not saturated (issue 23): 66.67 % with TXT, 91.67 % with BIN."""
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["y"]),
             helper.make_node("Sigmoid", ["y"], ["class"])]
    write_graph(tmp_path / "m.onnx", nodes, ["batch", 3, SIDE, SIDE], weights={"w": np.abs(WEIGHT)})
    (tmp_path / "in").mkdir()
    for number, scale in enumerate((0, 1e-3, 1e-3, 0.125)):
        image = scale * np.abs(random.standard_normal((3, SIDE, SIDE)))
        (tmp_path / "in" / ("%d.bin" % number)).write_bytes(image.astype("<f4").tobytes())
    text, binary = one_after_another(over(tmp_path, "--outfmt", "TXT"), over(tmp_path, "--outfmt", "BIN"))
    assert text[0] == 1 and "flattens into ties" in text[1] and binary[0] == 0


@pytest.mark.parametrize("spelling", ["in/", "../{}/in"])
def test_a_folder_of_inputs_that_lost_one_is_the_same_folder_however_it_is_spelt(spelling, model, inputs, tmp_path):
    succeeds(SCRIPT, *over(tmp_path))
    (tmp_path / "in" / "img3.bin").unlink()
    folder = str(tmp_path) + "/" + spelling.format(tmp_path.name)
    succeeds(SCRIPT, *over(tmp_path, "--input", folder))
    assert len(summary_of(tmp_path)["filesinfo"]) == 9
