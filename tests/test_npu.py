"""npu_infer.py: ais_bench in all its spellings, on one device and several, and each way in which it can fail."""
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY, command, contents, fails, script, small_onnx, succeeds, wait_until
from test_npu_info import ONE_910B4, dressed

sys.path.insert(0, str(REPOSITORY))
from common import scores  # noqa: E402

SCRIPT = "npu_infer.py"
USUAL = ["--model", "small_bs4.om", "--input", "prep_dataset", "--output_dirname", "result"]
GENERATIONS = ["0.0.2", "2024", "2025", "2026"]


@pytest.fixture(scope="module")
def house(small, tmp_path_factory):
    """A folder with the .om files of the small model (batch sizes 1 and 4, AIPP, softmax), inputs, and ONNX Runtime's results."""
    folder = tmp_path_factory.mktemp("npu")
    folder.chmod(0o755)
    for name in ("prep_dataset", "prep_dataset_uint8"):
        shutil.copytree(str(small / name), str(folder / name))
        for path in [folder / name] + list((folder / name).iterdir()):
            path.chmod(path.stat().st_mode & ~0o022)
    shutil.copy(str(small / "small.onnx"), str(folder))
    shutil.copy(str(small / "small_uint8.onnx"), str(folder))
    small_onnx(folder / "softmax.onnx", softmax=True)
    options = {"env": dressed(folder), "cwd": str(folder)}
    for onnx, output, more in (("small", ".", ["1 4"]), ("small", "aipp", ["4", "--aipp"]), ("softmax", ".", ["4"]),
                               ("small_uint8", ".", ["4"])):
        succeeds("run_atc.sh", "--onnx", onnx + ".onnx", "--output", output, "--batch-sizes", *more, **options)
    succeeds("onnx_infer.py", "--model", folder / "small.onnx", "--input", folder / "prep_dataset", "--output", folder,
             "--output_dirname", "cpu_BIN")
    return folder


@pytest.fixture(scope="module")
def finished(house, tmp_path_factory):
    """The folder in which one run left result/ and result_summary.json; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    succeeds(SCRIPT, *USUAL, "--output", folder, cwd=str(house), env=dressed(house))
    return folder


def copied(finished, tmp_path):
    shutil.copytree(str(finished / "result"), str(tmp_path / "result"))
    shutil.copy(str(finished / "result_summary.json"), str(tmp_path))


@pytest.fixture
def infer(house, tmp_path):
    """Run npu_infer.py over the house's images; keywords are options (None drops one) or the stand-ins' variables."""
    def run(code=0, *arguments, **more):
        options = {"model": "small_bs4.om", "input": "prep_dataset", "output": str(tmp_path), "output_dirname": "result"}
        variables = {name: more.pop(name) for name in list(more) if name.startswith("STANDIN_")}
        options.update(more)
        words = [word for name, value in options.items() if value is not None for word in ("--" + name, value)] + ["--overwrite"]
        run.options = {"cwd": str(house), "env": dressed(house, **variables)}
        if code:
            sentence = fails(code, SCRIPT, *(words + list(arguments)), **run.options)
            assert not (tmp_path / "result").exists() and not (tmp_path / "result_summary.json").exists()
            assert not (tmp_path / ".result.partial").exists()
            return sentence
        return succeeds(SCRIPT, *(words + list(arguments)), **run.options)
    return run


def results(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith(".")}


def summary_of(tmp_path):
    return json.loads((tmp_path / "result_summary.json").read_text())


def line_of(process):
    return [line for line in process.stdout.splitlines() if line.startswith("python3 -m ais_bench")][-1]


@pytest.mark.parametrize("device", ["0", "0,1"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_on_one_device_and_two_leaves_onnx_runtimes_files(generation, device, infer, house, tmp_path):
    tmp_path.chmod(0o777)  # an output folder that others may read is no hindrance
    outfmt = {"0.0.2": "TXT", "2024": "NPY", "2025": "BIN", "2026": "TXT"}[generation]
    process = infer(device=device, outfmt=outfmt, STANDIN_GENERATION=generation)
    theirs = {name[:-3] + outfmt.lower(): np.frombuffer(data, "<f4") for name, data in results(house / "cpu_BIN").items()}
    assert list(results(tmp_path / "result")) == list(theirs)
    for name, data in results(tmp_path / "result").items():
        if outfmt == "TXT":
            assert np.abs(np.array(data.split(), float) - theirs[name]).max() < 2e-6
        else:
            values = np.load(str(tmp_path / "result" / name)) if outfmt == "NPY" else np.frombuffer(data, "<f4")[None]
            assert values.dtype == "<f4" and np.array_equal(values, theirs[name][None])
    for path in [tmp_path / "result", tmp_path / "result_summary.json"] + list((tmp_path / "result").iterdir()):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO), path
    dirname = "--output-dirname" if generation == "2026" else "--output_dirname"
    divide = {"0.0.2": "", "2024": " --divide_input 1", "2025": " --divide_input", "2026": " --divide-input"}[generation]
    line = "python3 -m ais_bench --model small_bs4.om --input prep_dataset --output %s %s result --outfmt %s"
    assert line_of(process) == line % (tmp_path, dirname, outfmt) + (" --device 0,1" + divide if device == "0,1" else "")


def test_the_summary_has_onnx_infers_keys_and_lists_each_result(finished, house):
    tmp_path = finished
    ours, theirs = summary_of(tmp_path), json.loads((house / "cpu_BIN_summary.json").read_text())
    assert set(ours) == set(theirs)
    assert set(ours["model"]) == set(theirs["model"]) and set(ours["input"]) == set(theirs["input"])
    assert set(ours["performance"]) == set(theirs["performance"]) and set(ours["wall"]) == set(theirs["wall"])
    theirs["input"]["path"] = "prep_dataset"
    for key in ("outputs", "probabilities", "input", "outfmt"):
        assert ours[key] == theirs[key]
    assert ours["model"]["onnx_sha256"] == theirs["model"]["sha256"] and ours["model"]["recipe"] == theirs["model"]["recipe"]
    assert [ours[key] for key in ("engine", "device", "devices", "precision", "batch_size")] == \
        ["ais_bench 0.0.2", "Ascend310P3", [0], "fp16", 4]
    assert ours["npu"]["devices"][0]["health"] == "OK" and ours["h2d_ms"] >= 0
    listed = [path for info in ours["filesinfo"].values() for path in info["outfiles"]]
    assert sorted(os.path.basename(path) for path in listed) == sorted(results(tmp_path / "result"))
    assert all(os.path.dirname(path) == str(tmp_path / "result") for path in listed)
    assert [info["image"] for info in ours["filesinfo"].values()] == [info["image"] for info in theirs["filesinfo"].values()]
    assert sorted(os.listdir(str(tmp_path))) == ["result", "result_summary.json"]


def test_a_finished_run_is_kept_and_one_of_anything_else_is_made_again(finished, house, tmp_path):
    copied(finished, tmp_path)
    options, before = {"cwd": str(house), "env": dressed(house)}, contents(tmp_path)
    line = USUAL + ["--output", tmp_path]
    begin = time.monotonic()
    process = succeeds(SCRIPT, *line, **options)
    assert time.monotonic() - begin < 2 and process.stdout.startswith("kept: ") and len(process.stdout.splitlines()) == 1
    assert script(SCRIPT, *(line + ["--check"]), **options).returncode == 0
    assert contents(tmp_path) == before
    for changed in (["--outfmt", "TXT"], ["--limit", "3"], ["--model", "aipp/small_bs4.om"]):
        assert script(SCRIPT, *(line + ["--check"] + changed), **options).returncode == 1
    assert contents(tmp_path) == before
    (tmp_path / "result" / "ILSVRC2012_val_00000003_0.bin").write_bytes(b"torn")
    assert script(SCRIPT, *(line + ["--check"]), **options).returncode == 1
    assert "python3 -m ais_bench" in succeeds(SCRIPT, *line, **options).stdout
    assert contents(tmp_path / "result") == contents(finished / "result")
    assert "python3 -m ais_bench" in succeeds(SCRIPT, *(line + ["--overwrite"]), **options).stdout


def test_pure_inference_is_kept_for_the_same_devices_only(house, tmp_path):
    options = {"cwd": str(house), "env": dressed(house)}
    line = ["--model", "small_bs4.om", "--loop", "3", "--output", tmp_path, "--output_dirname", "perf"]
    assert "python3 -m ais_bench" in succeeds(SCRIPT, *line, **options).stdout
    assert "kept: " in succeeds(SCRIPT, *line, **options).stdout
    assert "python3 -m ais_bench" in succeeds(SCRIPT, *(line + ["--device", "1"]), **options).stdout


def test_the_device_is_the_chip_that_npu_smi_shows_and_not_what_atc_was_told(house, tmp_path):
    for table, chip, warnings in ((ONE_910B4, "Ascend910B4", 1), ("fail", "Ascend310P3", 0)):
        process = succeeds(SCRIPT, *USUAL, "--output", tmp_path, "--device", "5", "--overwrite", cwd=str(house),
                           env=dressed(tmp_path, table, STANDIN_DEVICES="6"))
        assert summary_of(tmp_path)["device"] == chip
        assert process.stderr.count("was compiled for Ascend310P3, npu-smi shows Ascend910B4") == warnings


def test_two_devices_are_one_summary_of_both_together(infer, tmp_path):
    infer(input=None, device="0,1", loop="30", batchsize="4", STANDIN_GENERATION="2026")
    told = summary_of(tmp_path)
    assert told["device"] == "2 x Ascend310P3" and told["devices"] == [0, 1]
    slowest = 4000 / told["performance"]["mean_ms"]  # images a second at batch size 4
    assert told["throughput"] == told["performance"]["images_per_second"] >= 2 * slowest * (1 - 1e-9)
    low, high = told["performance"]["interval95"]
    assert low < told["throughput"] < high and told["performance"]["p99_ms"] is None and told["wall"] is None
    assert sorted(contents(tmp_path / "result")) == ["pure_infer_data_0.bin"]


def test_pure_inference_is_the_guides_line_and_seconds_find_the_loops(infer, tmp_path):
    process = infer(input=None, output=None, output_dirname=None, loop="20", batchsize="4")
    assert line_of(process) == "python3 -m ais_bench --model=small_bs4.om --loop=20 --batchsize=4"
    assert os.listdir(str(tmp_path)) == []
    infer(input=None, seconds="0.5")
    told = summary_of(tmp_path)
    performance, times = told["performance"], told["npu_compute_time_list"]
    assert performance["runs"] == len(times) >= 10 and performance["batch_size"] == 4
    assert performance["p99_ms"] == (pytest.approx(np.percentile(times, 99)) if len(times) >= 100 else None)


def test_single_files_and_npy_files_are_taken(infer, house, tmp_path):
    names = ["ILSVRC2012_val_%08d" % number for number in (1, 2, 3)]
    infer(input=",".join("prep_dataset/%s.bin" % name for name in names), STANDIN_GENERATION="2026")
    expected = {name: data for name, data in results(house / "cpu_BIN").items() if name[:23] in names}
    assert results(tmp_path / "result") == expected
    (tmp_path / "npy").mkdir()
    for name in names:
        values = np.fromfile(str(house / "prep_dataset" / (name + ".bin")), "<f4").reshape(3, 224, 224)
        np.save(str(tmp_path / "npy" / (name + ".npy")), values)
    infer(input=tmp_path / "npy")
    assert results(tmp_path / "result") == expected
    shutil.rmtree(str(tmp_path / "result"))
    (tmp_path / "result_summary.json").unlink()
    np.save(str(tmp_path / "npy" / (names[0] + ".npy")), np.zeros((224, 224, 3), np.float32))
    assert "shape (224, 224, 3)" in infer(1, input=tmp_path / "npy")


@pytest.mark.parametrize("trouble, device, said", [
    ("infer:4", "0", "failed with exit code 1: RuntimeError: [-1][ACL: execute failed]"),
    ("hang:4", "0", "was ended by signal 9; the memory may have run out"),
    ("missing:4", "0", "left 4 of 12 results (first missing: ILSVRC2012_val_00000005_0.bin)"),
    ("missing:4", "0,1", "of 12 results"),
    ("torn:4", "0", "ILSVRC2012_val_"), ("device:1", "0,1", "failed with exit code 1"),
    ("device0:1", "0,1", "the part of device 1 is missing")])
def test_what_fails_is_a_sentence_and_nothing_has_its_final_name(trouble, device, said, infer):
    assert said in infer(1, device=device, STANDIN_FAIL=trouble)


@pytest.mark.parametrize("generation", ["0.0.2", "2026"])
def test_the_reason_is_what_cann_said_and_not_the_empty_exception(generation, infer, house, tmp_path):
    foreign = tmp_path / "foreign.om"
    shutil.copy(str(house / "small_bs4.om"), str(foreign))
    for model in ("small_bs4.om", foreign):  # of the one without a record nothing is said of records
        sentence = infer(1, model=model, STANDIN_FAIL="busy:0", STANDIN_GENERATION=generation)
        for part in ("EE9999", "rtModelLoad failed", "507033", "npu-smi info shows its health"):
            assert part in sentence
        assert "record" not in sentence and "RuntimeError" not in sentence and "it/s" not in sentence


def test_an_exception_without_words_is_told_with_its_function(infer):
    assert "RuntimeError in open_device()" in infer(1, STANDIN_FAIL="wordless:0")


def test_the_variable_that_renumbers_devices_is_named_where_one_fails(infer, house, tmp_path, monkeypatch):
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5")
    sentence = infer(1, device="2")
    assert "there is no such device" in sentence and "--device counts within ASCEND_RT_VISIBLE_DEVICES=4,5" in sentence


def test_a_missing_part_of_newer_ones_is_named_too(infer):
    assert "the part of device 1 is missing" in infer(1, device="0,1", STANDIN_FAIL="device0:1", STANDIN_GENERATION="2026")


@pytest.mark.parametrize("outfmt", ["TXT", "NPY"])
def test_torn_results_are_found_in_every_format(outfmt, infer):
    assert "ILSVRC2012_val_" in infer(1, outfmt=outfmt, STANDIN_FAIL="torn:4")


def test_pure_inference_and_a_part_of_the_images_do_not_replace_results_without_a_word(finished, house, tmp_path):
    copied(finished, tmp_path)
    before = contents(tmp_path)
    for options in (USUAL + ["--limit", "4"], USUAL[:2] + USUAL[4:]):
        sentence = fails(1, SCRIPT, *options, "--output", tmp_path, cwd=str(house), env=dressed(house))
        assert "the results of 12 images, of which this run makes" in sentence and contents(tmp_path) == before


def test_a_failure_keeps_the_good_results_of_before(finished, house, tmp_path):
    copied(finished, tmp_path)
    before = contents(tmp_path)
    process = script(SCRIPT, *USUAL, "--output", tmp_path, "--overwrite", cwd=str(house),
                     env=dressed(house, STANDIN_FAIL="missing:4"))
    assert process.returncode == 1 and contents(tmp_path) == before


def test_inputs_of_another_recipe_are_refused(infer, house, tmp_path):
    assert "(dtype uint8, not float32); prepare the images for this model" in infer(1, input="prep_dataset_uint8")
    assert "(dtype float32, not uint8)" in infer(1, model="aipp/small_bs4.om")
    folder = tmp_path / "prep"
    shutil.copytree(str(house / "prep_dataset"), str(folder))
    record = json.loads((folder / ".recipe.json").read_text())
    record["recipe"]["mean"] = [0.5, 0.5, 0.5]
    (folder / ".recipe.json").write_text(json.dumps(record))
    assert "(mean [0.5, 0.5, 0.5], not [0.485, 0.456, 0.406])" in infer(1, input=folder)


def test_inputs_that_are_not_as_their_manifest_says_are_refused(infer, house, tmp_path):
    folder = tmp_path / "prep"
    shutil.copytree(str(house / "prep_dataset"), str(folder))
    one = folder / "ILSVRC2012_val_00000003.bin"
    one.write_bytes(one.read_bytes())  # another file of the same content, as a copy is
    infer(input=folder)
    shutil.rmtree(str(tmp_path / "result"))
    (tmp_path / "result_summary.json").unlink()
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    assert "ILSVRC2012_val_00000003.bin: is not what it was" in infer(1, input=folder)
    one.unlink()
    assert "1 files of its manifest are missing" in infer(1, input=folder)


def test_a_uint8_model_does_not_take_one_float_file_for_four_images(infer, house, tmp_path):
    """602 112 bytes are exactly four uint8 images; ais_bench takes them without a word, with a record and without."""
    folder = tmp_path / "by-hand"
    folder.mkdir()
    for path in sorted((house / "prep_dataset").glob("*.bin"))[:4]:
        shutil.copy(str(path), str(folder))
    assert "602112 bytes" in infer(1, model="small_uint8_bs4.om", input=folder)
    foreign = tmp_path / "foreign.om"
    shutil.copy(str(house / "small_uint8_bs4.om"), str(foreign))
    for generation in ("0.0.2", "2026"):
        sentence = infer(1, model=foreign, input=folder, STANDIN_GENERATION=generation)
        assert "holds 602112 bytes; one image of the model's input, uint8 [224, 224, 3], has 150528" in sentence
    assert "(dtype float32, not uint8)" in infer(1, model=foreign)  # of a folder with a record, too
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    assert "has 150528" in infer(1, model=foreign, input=folder)


def test_aipp_takes_uint8_files_and_is_near_the_uint8_graph(infer, house, tmp_path):
    infer(model="aipp/small_bs4.om", input="prep_dataset_uint8")
    ours = {name: np.frombuffer(data, "<f4") for name, data in results(tmp_path / "result").items()}
    for name, data in results(house / "cpu_BIN").items():
        expected = np.frombuffer(data, "<f4")
        assert np.abs(ours[name] - expected).max() < 0.02 * np.abs(expected).max()
    assert summary_of(tmp_path)["model"]["recipe"]["layout"] == "HWC"


def test_an_om_without_a_record_is_run_and_says_nothing_of_what_it_does_not_know(infer, house, tmp_path):
    foreign = tmp_path / "foreign.om"
    shutil.copy(str(house / "small_bs4.om"), str(foreign))
    infer(model=foreign)
    told = summary_of(tmp_path)
    assert told["precision"] is None and told["model"]["recipe"] is None and told["batch_size"] == 4
    assert told["input"]["set_hash"] and told["device"] == "Ascend310P3"
    assert results(tmp_path / "result") == results(house / "cpu_BIN")
    shutil.rmtree(str(tmp_path / "result"))
    (tmp_path / "result_summary.json").unlink()
    assert "batch size 4, not 8" in infer(1, model=foreign, input=None, loop="2", batchsize="8")


def test_an_om_that_is_not_the_recorded_one_is_refused(infer, house, tmp_path):
    for name in ("small_bs4.om", "small_bs4.om.json"):
        shutil.copy(str(house / name), str(tmp_path))
    shutil.copy(str(house / "small_bs1.om"), str(tmp_path / "small_bs4.om"))
    assert "is not the .om that run_atc.sh recorded" in infer(1, model=tmp_path / "small_bs4.om")
    (tmp_path / "small_bs4.om.json").write_text('{"sha256": NaN}')
    assert "small_bs4.om.json" in infer(1, model=tmp_path / "small_bs4.om")
    (tmp_path / "small_bs4.om.json").write_text("[" * 100000)
    assert "small_bs4.om.json" in infer(1, model=tmp_path / "small_bs4.om")
    assert "batch size 4, not 8" in infer(1, batchsize="8")


def test_probabilities_are_refused_as_txt_and_told_in_the_summary(infer, tmp_path):
    assert "--outfmt BIN" in infer(1, model="softmax_bs4.om", outfmt="TXT")
    infer(model="softmax_bs4.om")
    assert summary_of(tmp_path)["probabilities"] is True


def compiled(folder, name, change=lambda model: None, **options):
    """NAME_bs4.om of a small model with these options, changed so, and without a record of its recipe."""
    import onnx
    model = onnx.load(str(small_onnx(folder / (name + ".onnx"), recipe=None, **options)))
    change(model)
    onnx.save(model, str(folder / (name + ".onnx")))
    succeeds("run_atc.sh", "--onnx", name + ".onnx", "--batch-sizes", "4", env=dressed(folder), cwd=str(folder))
    return folder / (name + "_bs4.om")


def forget(om):
    (om.parent / (om.name + ".json")).unlink()


def cast_scores(to):
    def change(model):
        from onnx import helper
        model.graph.node[-1].output[0] = "wide"
        model.graph.node.append(helper.make_node("Cast", ["wide"], ["class"], to=to))
        model.graph.output[0].type.tensor_type.elem_type = to
    return change


def test_two_outputs_that_both_look_like_scores_are_refused_with_a_record_and_without(infer, tmp_path):
    om = compiled(tmp_path, "two", softmax=True, outputs=("class", "scores"))
    assert "its outputs class and scores all look like scores" in infer(1, model=om)
    forget(om)
    assert "its outputs class and scores all look like scores" in infer(1, model=om)


def test_images_of_another_dtype_or_layout_with_as_many_bytes_are_refused_though_the_model_has_no_recipe(infer, small, tmp_path):
    """448 x 448 x 3 uint8 are as many bytes as 3 x 224 x 224 float32."""
    succeeds("imagenet_torch_preprocess.py", "resnet", small / "val", tmp_path / "large", "--dtype", "uint8", "--resize", "448",
             "--crop", "448")
    (tmp_path / "large").chmod(0o750)
    om = compiled(tmp_path, "plain")
    for _ in range(2):
        assert "(dtype uint8, not float32)" in infer(1, model=om, input=tmp_path / "large")
        if (tmp_path / "plain_bs4.om.json").exists():
            forget(om)
    infer(model=om)


def test_scores_in_half_precision_without_a_record_are_read_as_such(infer, house, tmp_path):
    from onnx import TensorProto
    om = compiled(tmp_path, "half", cast_scores(TensorProto.FLOAT16))
    forget(om)
    infer(model=om)
    assert summary_of(tmp_path)["outputs"] == [{"name": "class", "dtype": "float16", "shape": [1000]}]
    for name, data in results(tmp_path / "result").items():
        assert np.frombuffer(data, "<f2").argmax() == np.frombuffer((house / "cpu_BIN" / name).read_bytes(), "<f4").argmax()
    assert "--outfmt BIN" not in infer(model=om, outfmt="TXT").stderr


def test_scores_that_text_would_flatten_are_refused_as_text(infer, tmp_path):
    def change(model):
        from onnx import numpy_helper
        for one in model.graph.initializer:
            if one.name in ("w", "b"):
                one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one) * np.float32(1e-9), one.name))
    om = compiled(tmp_path, "tiny", change)
    assert "flattens into ties; use --outfmt BIN" in infer(1, model=om, outfmt="TXT")
    infer(model=om)


def test_a_sigmoid_whose_last_image_alone_is_saturated_is_refused_as_text(infer, tmp_path):
    def change(model):
        from onnx import helper
        model.graph.node[-1].output[0] = "logits"
        model.graph.node.append(helper.make_node("Sigmoid", ["logits"], ["class"]))
    om = compiled(tmp_path, "sigmoid", change)
    (tmp_path / "hand").mkdir()
    for number, value in enumerate([0, 0.1, 0, 0.1, 0, 50]):
        np.full((3, 224, 224), value, "<f4").tofile(str(tmp_path / "hand" / ("%d.bin" % number)))
    assert "flattens into ties; use --outfmt BIN" in infer(1, model=om, input=tmp_path / "hand", outfmt="TXT")
    infer(model=om, input=tmp_path / "hand", limit="5", outfmt="TXT")


def test_ties_that_a_net_in_half_precision_has_itself_are_no_reason_to_refuse_text():
    random = np.random.RandomState(0)
    rows = (random.standard_normal((200, 1000)) * 0.5 + 8).astype(np.float16).astype(np.float64)
    rows = np.array([[float("%f" % value) for value in row] for row in rows])
    assert sum(len(set(np.sort(row)[-6:])) < 6 for row in rows) > 50 and scores.flattened_text(rows) == 0
    close = 0.5 + random.standard_normal((200, 1000)) * 1e-6
    assert scores.flattened_text(np.round(close, 6)) > 190


def test_images_made_by_hand_that_change_while_ais_bench_runs_are_noticed(house, tmp_path):
    (tmp_path / "hand").mkdir()
    for path in (house / "prep_dataset").glob("*.bin"):
        shutil.copy(str(path), str(tmp_path / "hand"))
    words = ["--model", "small_bs4.om", "--input", tmp_path / "hand", "--output", tmp_path, "--output_dirname", "result"]
    process = subprocess.Popen(command(SCRIPT, *(words + ["--loop", "1000"])), cwd=str(house), env=dressed(house),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    wait_until(lambda: list(tmp_path.glob(".result.partial/run/result/*.bin")), process)
    one, *_, last = sorted((tmp_path / "hand").glob("*.bin"))
    shutil.copy(str(one), str(last))
    _, errors = process.communicate()
    assert process.returncode == 1 and "is not what it was when it was looked at" in errors and not (tmp_path / "result").exists()


@pytest.mark.parametrize("generation", ["2024", "2026"])
def test_what_newer_ones_refuse_is_refused_first_with_the_reason(generation, infer, house, tmp_path):
    newer = {"STANDIN_GENERATION": generation}
    (tmp_path / "a b").mkdir()
    assert "A-Z a-z 0-9" in infer(1, output=tmp_path / "a b", **newer)
    folder = tmp_path / "prep"
    shutil.copytree(str(house / "prep_dataset"), str(folder))
    one = folder / "ILSVRC2012_val_00000001.bin"
    one.chmod(0o664)
    assert "chmod -R go-w" in infer(1, input=folder, **newer)
    one.chmod(0o640)
    content = one.stat()
    shutil.move(str(one), str(tmp_path / "one.bin"))
    one.symlink_to(tmp_path / "one.bin")
    os.utime(str(one), ns=(content.st_mtime_ns, content.st_mtime_ns))
    assert "is a link" in infer(1, input=folder, **newer)
    if generation == "2024":
        infer(input=folder)  # 0.0.2 takes them


def test_0_0_2_takes_paths_with_spaces(infer, tmp_path):
    infer(output=tmp_path / "a b", output_dirname="c d/shard1_of_4")
    assert len(results(tmp_path / "a b" / "c d" / "shard1_of_4")) == 12
    assert (tmp_path / "a b" / "c d" / "shard1_of_4_summary.json").exists()


def test_files_of_the_users_own_are_not_replaced(finished, infer, house, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "thesis_0.txt").write_text("mine")
    for dirname in ("own", "link"):
        if dirname == "link":
            (tmp_path / "link").symlink_to(finished / "result")
        assert "choose another --output_dirname" in infer(1, output_dirname=dirname)
    (tmp_path / "free_summary.json").write_text('{"own": 1}')
    assert "was not written by this suite" in infer(1, output_dirname="free")
    assert (folder / "thesis_0.txt").read_text() == "mine" and (tmp_path / "free_summary.json").read_text() == '{"own": 1}'
    shutil.copytree(str(house / "prep_dataset"), str(tmp_path / "in"))
    assert "choose another --output_dirname" in infer(1, input=tmp_path / "in", output_dirname="in")


def test_results_of_a_run_before_are_replaced_also_by_a_run_after_a_kill_while_it_published(finished, infer, tmp_path):
    copied(finished, tmp_path)
    (tmp_path / ".result.partial").mkdir()
    (tmp_path / ".result.partial" / ".lock").touch()
    (tmp_path / "result").rename(tmp_path / ".result.partial" / ".old")
    infer(outfmt="TXT", limit="3")
    assert sorted(os.path.splitext(name)[1] for name in results(tmp_path / "result")) == [".txt"] * 3
    assert sorted(os.listdir(str(tmp_path))) == ["result", "result_summary.json"]


def started(house, tmp_path, **variables):
    words = command(SCRIPT, *(USUAL + ["--output", tmp_path]))
    return subprocess.Popen(words, cwd=str(house), env=dressed(house, **variables), stdin=subprocess.DEVNULL, encoding="utf-8",
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def alive(tmp_path):
    """Processes whose command line names the folder."""
    found = subprocess.run(["ps", "-ewwo", "args"], stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")
    return [line for line in found.splitlines() if str(tmp_path) in line and "ais_bench" in line]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_ais_bench_too_and_leaves_nothing(number, code, house, tmp_path):
    process = started(house, tmp_path, STANDIN_FAIL="stall:4")
    wait_until(lambda: list(tmp_path.glob(".result.partial/run/result/*.bin")), process)
    assert alive(tmp_path)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == code and said.count("\n") == 1
    assert said.startswith("stopped; ais_bench leaves nothing to go on from, the same line begins")
    assert os.listdir(str(tmp_path)) == [] and not alive(tmp_path)


def test_a_second_run_into_the_same_folder_is_refused_while_ais_bench_lives(infer, house, tmp_path):
    process = started(house, tmp_path, STANDIN_FAIL="stall:4")
    wait_until(lambda: list(tmp_path.glob(".result.partial/run/result/*.bin")), process)
    locked = "another run is at work in this folder (process "
    (child,) = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], stdout=subprocess.PIPE).stdout.split()
    try:
        options = {"cwd": str(house), "env": dressed(house)}
        sentence = fails(1, SCRIPT, *(USUAL + ["--output", tmp_path]), **options)
        assert "%s%d and %d)" % (locked, process.pid, int(child)) in sentence
        process.kill()  # ais_bench lives on, and still holds the folder
        process.communicate()
        assert "%s%d)" % (locked, int(child)) in fails(1, SCRIPT, *(USUAL + ["--output", tmp_path]), **options)
    finally:
        process.kill()
        os.kill(int(child), signal.SIGKILL)
    wait_until(lambda: not alive(tmp_path))
    infer()
    assert sorted(os.listdir(str(tmp_path))) == ["result", "result_summary.json"]


def test_a_re_py_in_the_current_folder_is_not_run_by_ais_bench(house, tmp_path):
    for name in ("re.py", "numpy.py", "json.py"):
        (tmp_path / name).write_text("open(%r, 'w')" % str(tmp_path / "ran"))
    succeeds(SCRIPT, "--model", house / "small_bs4.om", "--loop", "2", cwd=str(tmp_path), env=dressed(house))
    assert not (tmp_path / "ran").exists()


def test_without_ais_bench_the_sentence_says_what_to_install(infer, house):
    environment = dressed(house)
    environment["PYTHONPATH"] = str(house)
    sentence = fails(1, SCRIPT, "--model", "small_bs4.om", "--loop", "2", cwd=str(house), env=environment)
    assert "No module named" in sentence and "set_env.sh" in sentence


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_the_stand_ins_answer_in_clicks_order(generation, house):
    def ask(*words, **more):
        process = subprocess.run([sys.executable, "-m", "ais_bench"] + list(words), capture_output=True, encoding="utf-8",
                                 env=dressed(house, STANDIN_GENERATION=generation, PYTHONIOENCODING="utf-8", **more))
        return process.returncode, process.stdout + process.stderr

    name, other = ("--output-dirname", "--output_dirname")[::1 if generation == "2026" else -1]
    assert ask(other, "x", "--help")[0] == 2 and "No such option: " + other in ask(other, "x", "--help")[1]
    code, box = ask("--help")
    assert code == 0 and name not in box.replace("--output_dirname 'tmp'", "") and "\u2026" in box
    assert max(map(len, box.splitlines())) <= 80 and name in ask("--help", COLUMNS="200")[1]
    divide = name.replace("output", "divide").replace("dirname", "input")
    model = str(house / "small_bs4.om")
    assert "Got unexpected extra argument (1)" in ask("--model", model, divide, "1")[1]
    assert ask(divide, "--help")[0] == 0 and ask(name, "--help")[0] == 2


WRONG = [
    ["--device", "x"], ["--device", "0,0"], ["--device", "0,"], ["--loop", "0"], ["--seconds", "nan"],
    ["--seconds", "1", "--loop", "2"], ["--seconds", "1", "--input", "prep_dataset"], ["--outfmt", "CSV"],
    ["--output_dirname", "x"], ["--check"],
    ["--output", ".", "--output_dirname", ".."], ["--output", ".", "--output_dirname", "/x"], ["--limit", "-1"], ["--limit", "3"]]


def test_wrong_usage_exits_with_2(house):
    fails(2, SCRIPT, "--model", "small_bs4.om", *WRONG[0], cwd=str(house))
    code = "import json, sys, npu_infer\nfor sys.argv[1:] in json.loads(sys.argv[1]):\n" \
           "    try:\n        npu_infer.parse_args()\n" \
           "    except SystemExit as error:\n        print(error.code)\n    else:\n        print(sys.argv)"
    lines = json.dumps([["--model", "small_bs4.om"] + arguments for arguments in WRONG])
    process = subprocess.run([sys.executable, "-c", code, lines], cwd=str(REPOSITORY), stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout.split() == ["2"] * len(WRONG)


@pytest.mark.parametrize("model", ["small.onnx", "missing.om", "prep_dataset"])
def test_what_is_no_om_is_a_sentence(model, house):
    assert model in fails(1, SCRIPT, "--model", model, cwd=str(house), env=dressed(house))


def test_a_fifo_does_not_hang(infer, tmp_path):
    os.mkfifo(str(tmp_path / "a.bin"))
    assert "no regular file" in infer(1, input=tmp_path / "a.bin")


def test_a_full_output_is_a_sentence(house, tmp_path):
    words = command(SCRIPT, "--model", house / "small_bs4.om", "--loop", "2", "--output", tmp_path, "--output_dirname", "result")
    with open("/dev/full", "w") as full:
        process = subprocess.run(words, env=dressed(house), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 1 and b"Traceback" not in process.stderr and b"standard output" in process.stderr
