"""onnx_infer.py: ais_bench's options, grouping, files and summary, on ONNX Runtime."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY, contents, fails, script, succeeds
from onnx import TensorProto, helper, numpy_helper

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


@pytest.fixture
def inputs(tmp_path):
    """Ten inputs whose names sort otherwise as text than as numbers; returns {name: its scores}."""
    folder, scores = tmp_path / "in", {}
    folder.mkdir()
    for number in range(1, 11):
        sample = random.standard_normal((1, 3, SIDE, SIDE)).astype("<f4")
        (folder / ("img%d.bin" % number)).write_bytes(sample.tobytes())
        scores["img%d" % number] = sample.reshape(1, -1) @ WEIGHT
    return scores


def run(tmp_path, *options, **keywords):
    output = keywords.pop("output", "out")
    return succeeds(SCRIPT, "--model", tmp_path / "m.onnx", "--input", tmp_path / "in", "--output", tmp_path,
                    "--output_dirname", output, *options)


def summary_of(tmp_path, output="out"):
    return json.loads((tmp_path / (output + "_summary.json")).read_text())


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
def test_every_batch_size_gives_every_input_its_own_row(batch, model, inputs, tmp_path):
    run(tmp_path, "--batchsize", str(batch), "--outfmt", "NPY")
    assert sorted(os.listdir(str(tmp_path / "out"))) == sorted("%s_0.npy" % name for name in inputs)
    for name, expected in inputs.items():
        row = np.load(str(tmp_path / "out" / (name + "_0.npy")))
        assert row.shape == (1, CLASSES) and np.allclose(row, expected, atol=1e-4)


def test_the_three_formats_hold_the_same_row(model, inputs, tmp_path):
    for outfmt in ("TXT", "BIN", "NPY"):
        run(tmp_path, "--outfmt", outfmt, output=outfmt)
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


def test_files_are_taken_in_natural_order(model, inputs, tmp_path):
    run(tmp_path, "--batchsize", "4")
    files = summary_of(tmp_path)["filesinfo"]
    assert [os.path.basename(files[str(place)]["infiles"][0]) for place in range(10)] == \
        ["img%d.bin" % number for number in range(1, 11)]
    assert files["9"]["outfiles"] == [str(tmp_path / "out" / "img10_0.bin")]


def test_the_summary_has_ais_benchs_keys_and_names_the_engine(model, inputs, tmp_path):
    import onnxruntime
    run(tmp_path, "--batchsize", "4", "--threads", "1")
    summary = summary_of(tmp_path)
    for key in ("NPU_compute_time", "H2D_latency", "D2H_latency"):
        assert set(summary[key]) == {"min", "max", "mean", "median", "percentile(99%)", "count"}
    assert summary["NPU_compute_time"]["count"] == len(summary["npu_compute_time_list"]) == 3
    assert summary["throughput"] == pytest.approx(4000 / np.mean(summary["npu_compute_time_list"]))
    assert summary["engine"] == "onnxruntime %s CPUExecutionProvider" % onnxruntime.__version__
    assert summary["threads"] == 1 and summary["cpu"] and summary["pid"] and "--threads" in summary["args"]


def test_pure_inference_loops_on_zeros_and_leaves_its_output_and_summary(model, tmp_path):
    process = succeeds(SCRIPT, "--model=%s" % model, "--loop=20", "--batchsize=4", "--output", tmp_path, "--output_dirname", "p",
                       "--outfmt", "NPY", "--warmup_count", "0", "--display_all_summary", "1")
    assert "throughput" in process.stdout and "H2D_latency" in process.stdout
    assert os.listdir(str(tmp_path / "p")) == ["pure_infer_data_0.npy"]
    assert np.array_equal(np.load(str(tmp_path / "p" / "pure_infer_data_0.npy")), np.zeros((4, CLASSES)))
    assert summary_of(tmp_path, "p")["NPU_compute_time"]["count"] == 20
    process = succeeds(SCRIPT, "--model=%s" % model, "--loop=3", "--pure_data_type", "random", "--display_all_summary")
    assert "throughput" in process.stdout
    assert sorted(os.listdir(str(tmp_path))) == ["m.onnx", "p", "p_summary.json"]


def test_a_models_own_batch_size_wins_and_a_contradiction_is_an_error(inputs, tmp_path):
    write_model(tmp_path / "m.onnx", batch=4)
    run(tmp_path)
    assert summary_of(tmp_path)["NPU_compute_time"]["count"] == 3
    run(tmp_path, "--batchsize", "4")
    sentence = fails(1, SCRIPT, "--model", tmp_path / "m.onnx", "--batchsize", "2")
    assert "batch size 4" in sentence and "2" in sentence


def test_npy_inputs_and_files_of_several_samples_are_grouped_by_size(model, tmp_path):
    samples = random.standard_normal((6, 3, SIDE, SIDE)).astype(np.float32)
    (tmp_path / "in").mkdir()
    for number in range(3):
        np.save(str(tmp_path / "in" / ("pair%d.npy" % number)), samples[2 * number:2 * number + 2])
    run(tmp_path, "--batchsize", "4", "--outfmt", "NPY")
    rows = [np.load(str(tmp_path / "out" / ("pair%d_0.npy" % number))) for number in range(3)]
    assert np.allclose(np.concatenate(rows), samples.reshape(6, -1) @ WEIGHT, atol=1e-4)


def test_limit_takes_the_first_files_in_natural_order(model, inputs, tmp_path):
    run(tmp_path, "--limit", "3", "--batchsize", "2")
    assert sorted(os.listdir(str(tmp_path / "out"))) == ["img1_0.bin", "img2_0.bin", "img3_0.bin"]
    assert len(summary_of(tmp_path)["filesinfo"]) == 3


def test_single_files_and_lists_of_files_are_taken(model, inputs, tmp_path):
    chosen = "%s,%s" % (tmp_path / "in" / "img3.bin", tmp_path / "in" / "img5.bin")
    succeeds(SCRIPT, "--model", model, "--input", chosen, "--output", tmp_path, "--output_dirname", "out")
    assert sorted(os.listdir(str(tmp_path / "out"))) == ["img3_0.bin", "img5_0.bin"]


def test_uint8_models_are_fed_bytes(tmp_path):
    write_model(tmp_path / "m.onnx", element=TensorProto.UINT8)
    pixels = random.randint(0, 256, (1, 3, SIDE, SIDE)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(pixels.tobytes())
    run(tmp_path, "--outfmt", "NPY")
    assert np.allclose(np.load(str(tmp_path / "out" / "a_0.npy")), pixels.reshape(1, -1).astype(np.float32) @ WEIGHT, atol=1e-2)


def refused(tmp_path, *options):
    sentence = fails(1, SCRIPT, "--model", tmp_path / "m.onnx", "--input", tmp_path / "in", "--output", tmp_path / "o",
                     "--output_dirname", "out", *options)
    assert not (tmp_path / "o").exists()
    return sentence


@pytest.mark.parametrize("size", [0, 5, SAMPLE - 4, SAMPLE + 4, SAMPLE * 2])
def test_an_input_of_the_wrong_size_stops_it_before_anything_is_computed(size, model, inputs, tmp_path):
    (tmp_path / "in" / "img7.bin").write_bytes(b"\0" * size)
    assert "img7.bin" in refused(tmp_path)


def test_bad_npy_files_stop_it(model, inputs, tmp_path):
    np.save(str(tmp_path / "in" / "double.npy"), np.zeros((1, 3, SIDE, SIDE)))
    assert "double.npy: holds float64" in refused(tmp_path)
    (tmp_path / "in" / "double.npy").unlink()
    np.save(str(tmp_path / "in" / "object.npy"), np.array([{"a": 1}]), allow_pickle=True)
    assert "object.npy" in refused(tmp_path)
    (tmp_path / "in" / "object.npy").write_bytes(b"\x93NUMPY\x01\x00")
    assert "object.npy" in refused(tmp_path)


def test_inputs_whose_results_would_collide_stop_it(model, inputs, tmp_path):
    (tmp_path / "in" / "img1.b.bin").write_bytes((tmp_path / "in" / "img1.bin").read_bytes())
    sentence = refused(tmp_path)
    assert "img1.b.bin" in sentence and "img1.bin" in sentence


def test_missing_and_empty_inputs_and_models_are_named(model, tmp_path):
    assert "in: no such input" in refused(tmp_path)
    (tmp_path / "in").mkdir()
    assert "no .bin or .npy files" in refused(tmp_path)
    assert "no such model" in fails(1, SCRIPT, "--model", tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(b"not onnx")
    assert "x.onnx" in fails(1, SCRIPT, "--model", tmp_path / "x.onnx")
    (tmp_path / "resnet34_bs1.om").write_bytes(b"IMOD")
    assert "ais_bench" in fails(1, SCRIPT, "--model", tmp_path / "resnet34_bs1.om")


def test_a_second_run_replaces_the_results_whole(model, inputs, tmp_path):
    run(tmp_path)
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "stale_0.bin").write_bytes(b"old")
    run(tmp_path)
    assert contents(tmp_path / "out") == first


def test_a_folder_with_other_files_is_not_replaced(model, inputs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    sentence = fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "out")
    assert "thesis.doc" in sentence and (tmp_path / "out" / "thesis.doc").exists()
    fails(1, SCRIPT, "--model", model, "--input", tmp_path / "in", "--output", tmp_path, "--output_dirname", "in")
    assert len(os.listdir(str(tmp_path / "in"))) == 10


def test_a_killed_run_leaves_nothing_and_the_next_one_gives_the_same_bytes(resnet34_onnx, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(24):
        (tmp_path / "in" / ("%d.bin" % number)).write_bytes(random.standard_normal(3 * 224 * 224).astype("<f4").tobytes())
    shutil.copy(str(resnet34_onnx), str(tmp_path / "m.onnx"))
    command = [sys.executable, str(REPOSITORY / SCRIPT), "--model", "m.onnx", "--input", "in", "--output", ".", "--outfmt", "TXT"]
    process = subprocess.Popen(command + ["--output_dirname", "out"], cwd=str(tmp_path), stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".out.partial/*")):
        time.sleep(0.002)
    refusal = script(SCRIPT, *(command[2:] + ["--output_dirname", "out"]), cwd=str(tmp_path))
    assert refusal.returncode == 1 and "another onnx_infer.py" in refusal.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists() and not (tmp_path / "out_summary.json").exists()
    run(tmp_path, "--outfmt", "TXT")
    run(tmp_path, "--outfmt", "TXT", output="undisturbed")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*partial*"))


def test_memory_does_not_grow_with_the_number_of_files(model, tmp_path):
    code = "import resource, sys; sys.argv = sys.argv[1:]; import onnx_infer; onnx_infer.main(); " \
           "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks = []
    for count in (100, 4000):
        folder = tmp_path / ("in%d" % count)
        folder.mkdir()
        for number in range(count):
            (folder / ("%d.bin" % number)).write_bytes(bytes(SAMPLE))
        process = subprocess.run([sys.executable, "-c", code, SCRIPT, "--model", str(model), "--input", str(folder), "--output",
                                  str(tmp_path), "--output_dirname", "out"], cwd=str(REPOSITORY), stdout=subprocess.PIPE,
                                 encoding="utf-8", check=True)
        peaks.append(int(process.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + 3900 * SAMPLE // 1024  # the inputs alone would take that much


@pytest.mark.parametrize("arguments", [[], ["--model", "m", "--outfmt", "CSV"], ["--model", "m", "--batchsize", "0"],
                                       ["--model", "m", "--loop", "x"], ["--model", "m", "--output_dirname", "a"],
                                       ["--model", "m", "--output", "o", "--output_dirname", ".."],
                                       ["--model", "m", "--unknown"], ["--model", "m", "--warmup_count", "-1"]])
def test_wrong_usage_exits_with_2(arguments):
    fails(2, SCRIPT, *arguments)
