"""common/results.py: what a folder of results is, by its files and its summary, and when two are of the same images."""
import json
import os
import shutil

import numpy as np
import pytest
from conftest import FLOAT_RECIPE, UINT8_RECIPE, succeeds
from made_results import in_shards, record, summary_of, write_result

from common import files, results
from common.command import Failure

NAMES = ("a", "b b", "c_1", "d")
SCORES = {name: np.random.RandomState(seed).standard_normal(20).astype("<f4") for seed, name in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path):
    for name, scores in SCORES.items():
        write_result(tmp_path / "result", name, scores, "bin")
    return tmp_path / "result"


def opened(folder):
    found = results.Results(str(folder))
    found.find_format()
    return found


def refused(folder):
    with pytest.raises(Failure) as caught:
        found = opened(folder)
        for name in found.files:
            found.scores(name)
    return str(caught.value)


def test_results_without_a_summary_are_what_their_files_are(folder):
    write_result(folder, "a", SCORES["d"], "bin").rename(folder / "a_1.bin")  # a second output
    write_result(folder, "a", SCORES["a"], "bin")
    found = opened(folder)
    assert list(found.files) == sorted(SCORES) and (found.dtype, found.classes, found.background) == ("float32", 20, 0)
    assert all((found.scores(name) == scores).all() for name, scores in SCORES.items())
    assert found.run["engine"] == "not recorded" and found.sha256 is None and found.recipe is None and found.weights is None
    assert found.input_of(SCORES) is None and not found.are_as_written()


def test_the_summary_says_what_the_run_was(folder):
    path = record(folder, input={"recipe": FLOAT_RECIPE}, model={"weights_sha256": "w"})
    found = opened(folder)
    assert (found.run["precision"], found.run["batch_size"], found.weights, found.recipe.crop) == ("fp32", 8, "w", 224)
    assert found.sha256 == files.sha256_of(str(path)) and found.are_as_written() and not found.probabilities
    assert found.input_of(["a"])["images_hash"] == files.set_hash([("a", "source of a")])
    assert results.Results(str(folder) + os.sep).sha256 == found.sha256


def test_a_folder_is_found_from_within(folder, monkeypatch):
    record(folder)
    monkeypatch.chdir(str(folder))
    assert opened(".").are_as_written()


@pytest.mark.parametrize("place", ["result/.summary.json", "result/sumary.json"])
def test_a_summary_may_lie_in_the_folder(place, folder, tmp_path):
    """Where the publication was killed before its last step, and from very old ais_bench."""
    path = record(folder)
    os.rename(str(path), str(tmp_path / place))
    assert opened(folder).are_as_written()
    if place.endswith("/.summary.json"):  # it is the newer of two
        record(folder, engine="older")
        assert opened(folder).run["engine"].startswith("onnxruntime")


def test_ais_benchs_own_summary_lists_the_files_but_says_nothing_of_the_run(folder, tmp_path):
    listed = {"filesinfo": {str(index): {"infiles": ["x"], "outfiles": ["elsewhere/%s_0.bin" % name]}
                            for index, name in enumerate(SCORES)}, "engine": "what a stranger wrote", "model": 5}
    (tmp_path / "result_summary.json").write_text(json.dumps(listed))
    found = opened(folder)
    assert found.run["engine"] == "ais_bench (version not recorded)" and found.run["model"] is None and found.sha256
    assert not found.are_as_written()
    (folder / "a_0.bin").unlink()
    assert "a_0.bin: is missing, it is listed in" in refused(folder)


def test_what_is_touched_is_as_written_and_what_is_changed_is_not(folder):
    record(folder)
    for path in folder.iterdir():
        os.utime(str(path), (1, 1))
    assert opened(folder).are_as_written()
    write_result(folder, "d", SCORES["a"], "bin")
    assert not results.Results(str(folder)).are_as_written()
    assert "d_0.bin: is not what the inference wrote there" in refused(folder)


@pytest.mark.parametrize("change, said", [
    (lambda folder: shutil.rmtree(str(folder)) or folder.mkdir(), "is missing, it is listed in"),
    (lambda folder: write_result(folder, "e", SCORES["a"], "bin"), "e_0.bin: is of another run, it is not listed in"),
    (lambda folder: (folder / "a_0.bin").rename(folder / "z_0.bin"), "a_0.bin: is missing")])
def test_a_folder_holds_just_what_its_summary_lists(change, said, folder):
    record(folder)
    change(folder)
    assert said in refused(folder)


@pytest.mark.parametrize("name", ["a.bin", "_0.bin", "a_00.bin", "a_x.txt"])
def test_a_file_that_is_not_named_like_a_result_is_named(name, folder):
    (folder / name).write_bytes(b"1.0 2.0 ")
    assert name + ": is not named like a result" in refused(folder)


def test_a_summary_of_another_version_asks_for_the_inference(folder):
    path = record(folder)
    path.write_text(json.dumps(dict(json.loads(path.read_text()), schema=1)))
    assert refused(folder).endswith("was written by another version of the suite; run the inference again")


def test_pure_inference_has_nothing_to_judge(folder):
    record(folder, input=None)
    assert "is of pure inference" in refused(folder)


def test_more_or_fewer_scores_than_the_summary_says_are_named(folder):
    write_result(folder, "d", SCORES["d"][:-1], "bin")
    record(folder)
    assert "d_0.bin: holds 19 scores, not 20 as its summary says" in refused(folder)


def test_a_sentence_about_a_huge_row_is_cut(folder):
    (folder / "a_0.bin").unlink()
    (folder / "b b_0.bin").unlink()
    write_result(folder, "a", SCORES["a"]).write_text("x" * 5000)
    for name in ("c_1", "d"):
        (folder / (name + "_0.bin")).unlink()
    sentence = refused(folder)
    assert "a_0.txt: holds no row of float32 scores" in sentence and "run the inference again" in sentence and len(sentence) < 600


def test_shards_are_one(folder):
    whole = opened(folder)
    in_shards(folder, 2, images={"a": "picture"})
    found = opened(folder)
    assert list(found.files) == list(whole.files) and found.shards == 2 and len(found.sha256) == 2
    assert found.run["input"]["images"] == 4 and found.run["input"]["path"] == "prep" and found.are_as_written()


@pytest.mark.parametrize("change, said", [
    (lambda folder: shutil.rmtree(str(folder / "shard2_of_2")), "shard2_of_2_summary.json: its results are missing"),
    (lambda folder: shutil.rmtree(str(folder / "shard2_of_2")) or (folder / "shard2_of_2_summary.json").unlink(),
     "shard 2 of 2 is missing"),
    (lambda folder: write_result(folder / "shard1_of_3", "a", SCORES["a"], "bin"), "maybe shards of another number"),
    (lambda folder: write_result(folder, "e", SCORES["a"], "bin"), "holds shards and other results beside them"),
    (lambda folder: record(folder / "shard2_of_2", input={"shard": [2, 2], "set_hash": "other"}), "different sets of images"),
    (lambda folder: record(folder / "shard2_of_2", input={"shard": [2, 2]}, model={"sha256": "cd"}), "are of different models"),
    (lambda folder: (folder / "shard2_of_2_summary.json").unlink(), "are of different engines")])
def test_shards_that_are_not_the_parts_of_one_run_are_refused(change, said, folder):
    in_shards(folder, 2)
    change(folder)
    assert said in refused(folder)


# ---- the same images ----

def pair_of(tmp_path, first, second):
    """Two folders of results with these changes to their summaries, opened."""
    pair = []
    for name, changes in (("first", first), ("second", second)):
        for image, scores in SCORES.items():
            write_result(tmp_path / name, image, scores, "bin")
        record(tmp_path / name, **changes)
        pair.append(opened(tmp_path / name))
    return pair


UINT8 = {"model": {"input": {"dtype": "uint8", "shape": [224, 224, 3]}}, "input": {"recipe": UINT8_RECIPE}}
FLOAT = {"input": {"recipe": FLOAT_RECIPE}}
OLD, NEW, BY_HAND, OTHER_BY_HAND = ({name: prefix + name for name in SCORES} for prefix in ("old ", "new ", "bin:1", "bin:2"))


@pytest.mark.parametrize("first, second, said", [
    (FLOAT, FLOAT, None), (FLOAT, UINT8, None), (FLOAT, dict(UINT8, images=NEW), "different images"),
    (dict(FLOAT, images=OLD), dict(FLOAT, images=NEW), "different images"),
    (dict(FLOAT, images=OLD), dict(UINT8, images=OLD), None),
    ({"images": BY_HAND}, {"images": OTHER_BY_HAND}, "different images"), ({"images": BY_HAND}, FLOAT, None),
    ({"images": BY_HAND}, {"images": OTHER_BY_HAND, "model": UINT8["model"]}, None),  # other bytes of perhaps the same pictures
    ({"images": dict(BY_HAND, a="old")}, {"images": dict(OTHER_BY_HAND, a="new"), "model": UINT8["model"]}, "images (first: a)"),
    ({"input": {"recipe": dict(FLOAT_RECIPE, interpolation="bicubic")}}, FLOAT, "prepared differently (interpolation bicubic"),
    ({"input": {"recipe": dict(FLOAT_RECIPE, std=[0.2, 0.2, 0.2])}}, UINT8, "prepared differently (std")])
def test_the_same_images_are_those_of_equal_sources_and_recipes(first, second, said, tmp_path):
    pair = pair_of(tmp_path, first, second)
    if not said:
        results.require_same_images(*pair, names=SCORES)
    else:
        with pytest.raises(Failure) as caught:
            results.require_same_images(*pair, names=SCORES)
        assert said in str(caught.value)


# ---- what is made of results ----

def test_an_output_is_put_neither_among_the_results_nor_over_what_is_read(folder, tmp_path):
    path, found = record(folder), opened(folder)

    def check(target, overwrite=False):
        results.check_target(str(target), [found], [str(tmp_path / "labels")], lambda path: False, overwrite)

    (tmp_path / "labels").write_text("a 1\n")
    (tmp_path / "alien").write_text("x")
    for target in (folder / "new_0.bin", folder / "a_0.bin", folder / "x.txt", path, tmp_path / "labels", folder):
        with pytest.raises(Failure):
            check(target, overwrite=True)
    with pytest.raises(Failure):
        check(tmp_path / "alien")
    check(tmp_path / "alien", overwrite=True)
    check(tmp_path / "new.txt")


def test_a_json_is_kept_for_the_same_inputs_while_the_results_are_as_written(folder, tmp_path):
    record(folder)
    found, path = opened(folder), str(tmp_path / "made.json")
    made_from = {"version": 1, "summary": found.sha256}
    assert not results.is_json_kept(path, made_from, [found])
    for text in ("[1]", "{", '{"made_from": 5}'):
        (tmp_path / "made.json").write_text(text)
        assert not results.is_json_kept(path, made_from, [found])
    (tmp_path / "made.json").write_text(json.dumps({"made_from": made_from}))
    assert results.is_json_kept(path, made_from, [found]) and not results.is_json_kept(path, dict(made_from, version=2), [found])
    write_result(folder, "a", SCORES["d"], "bin")
    assert not results.is_json_kept(path, made_from, [found])


def test_results_of_onnx_infer_are_read_with_all_that_it_recorded(small, tmp_path):
    succeeds("onnx_infer.py", "--model", small / "small.onnx", "--input", small / "prep_dataset", "--output", tmp_path,
             "--output_dirname", "result", "--outfmt", "TXT")
    found = opened(tmp_path / "result")
    assert found.are_as_written() and len(found.files) == 12 and (found.classes, found.weights) == (1000, "%064x" % 0)
    assert found.recipe.crop == 224 and found.input_of(found.files)["images_hash"]
    summary = json.loads((tmp_path / "result_summary.json").read_text())
    assert set(summary_of(tmp_path / "result")) <= set(summary)  # what the other tests have made by hand
