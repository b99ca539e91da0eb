"""common/prepared.py: what a model is fed is exactly the images that were prepared for it, or the command ends."""
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xxhash
from conftest import FLOAT_RECIPE, REPOSITORY, fails, succeeds

sys.path.insert(0, str(REPOSITORY))
from common import files, prepared, recipe
from common.command import Failure

SHAPE, BYTES = (3, 224, 224), 602112
FIRST, SECOND = "ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002"


@pytest.fixture
def prep(small, tmp_path):
    """A prepared folder of 12 images that was copied: its stats vouch for nothing, its hashes do."""
    shutil.copytree(str(small / "prep_dataset"), str(tmp_path / "prep"))
    return tmp_path / "prep"


@pytest.fixture
def by_hand(tmp_path):
    """A folder of three .bin files of one float each, without a manifest."""
    (tmp_path / "hand").mkdir()
    for number in (1, 2, 10):
        np.float32(number).tofile(str(tmp_path / "hand" / ("img%d.bin" % number)))
    return tmp_path / "hand"


def find(folder, dtype="float32", shape=SHAPE, **options):
    return prepared.find_inputs(str(folder), dtype, shape, **options)


def refused(folder, **options):
    with pytest.raises(Failure) as ended:
        find(folder, **options)
    return str(ended.value)


def read(source):
    batch = np.zeros((1, source.bytes), np.uint8)
    prepared.read_batch([source], batch)
    return batch.tobytes()


def rewrite(path, change):
    """Change a JSON file by a function of its content."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_the_images_come_with_their_recipe_and_bytes(prep):
    inputs = find(prep, model_recipe=recipe.DEFAULT)
    assert [each.name[-2:] for each in inputs.files] == ["%02d" % number for number in range(1, 13)]
    assert inputs.recipe == recipe.DEFAULT and inputs.summary()["recipe"] == FLOAT_RECIPE and inputs.summary()["images"] == 12
    for each in inputs.files:
        assert read(each) == (prep / (each.name + ".bin")).read_bytes()
    assert len(find(prep, limit=5).files) == 5


def test_files_made_by_hand_come_in_the_order_of_ais_bench(by_hand):
    inputs = find(by_hand, shape=(1,))
    assert [each.name for each in inputs.files] == ["img1", "img2", "img10"] and inputs.recipe is None
    assert [np.frombuffer(read(each), np.float32)[0] for each in inputs.files] == [1, 2, 10]
    listed = find("%s,%s" % (by_hand / "img10.bin", by_hand / "img2.bin"), shape=(1,))
    assert [each.name for each in listed.files] == ["img2", "img10"]


def test_an_npy_gives_its_values_and_runs_nothing(by_hand, tmp_path):
    np.save(str(by_hand / "a.NPY.npy"), np.array([[7]], np.float32))
    [source] = [each for each in find(by_hand, shape=(1,)).files if each.name == "a"]
    assert np.frombuffer(read(source), np.float32) == [7] and source.offset > 0

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)
    for content in (pickle.dumps(Bomb()), b"", b"\x93NUMPY\x01\0\xff\xff{"):
        (by_hand / "a.NPY.npy").write_bytes(content)
        assert "a.NPY.npy: is no .npy" in refused(by_hand, shape=(1,))
    np.save(str(by_hand / "a.NPY.npy"), np.array([Bomb()], object), allow_pickle=True)
    assert "a.NPY.npy" in refused(by_hand, shape=(1,)) and not (tmp_path / "ran").exists()
    np.save(str(by_hand / "a.NPY.npy"), np.array([7], np.float64))
    assert "holds float64" in refused(by_hand, shape=(1,))


def test_two_files_of_one_result_and_files_of_another_size_are_refused(by_hand):
    (by_hand / "img2.x.bin").write_bytes(b"1234")
    assert "would both give the result img2_0" in refused(by_hand, shape=(1,))
    (by_hand / "img2.x.bin").unlink()
    (by_hand / "img10.bin").write_bytes(b"12345")
    assert "img10.bin: holds 5 bytes" in refused(by_hand, shape=(1,))
    for path in by_hand.iterdir():
        path.unlink()
    assert "no .bin or .npy" in refused(by_hand, shape=(1,))


def test_another_models_images_are_refused(prep, small):
    assert "prepared otherwise" in refused(prep, dtype="uint8", shape=(224, 224, 3))
    assert "crop" in refused(prep, model_recipe=recipe.DEFAULT._replace(crop=192))
    assert "files of several folders" in refused("%s,%s" % (prep / (FIRST + ".bin"),
                                                 small / "prep_dataset_uint8" / (SECOND + ".bin")))


def test_a_folder_that_is_not_as_the_manifest_says_is_refused(prep):
    (prep / "stranger.bin").write_bytes(b"0" * BYTES)
    assert "first stranger.bin" in refused(prep)
    (prep / "stranger.bin").unlink()
    (prep / (FIRST + ".bin")).unlink()
    assert "1 files of its manifest are missing, first %s" % FIRST in refused(prep)
    assert len(find(prep / (SECOND + ".bin")).files) == 1  # what is asked for by name is there


def test_a_copy_without_its_manifest_gets_one_advice_from_the_engine_and_the_preprocessing(prep, small):
    (prep / ".manifest").unlink()
    sentences = refused(prep), fails(1, "imagenet_torch_preprocess.py", "resnet", small / "val", prep)
    assert all("a copy may lack hidden files" in sentence and "another folder" in sentence for sentence in sentences)


def test_a_folder_of_shards_alone_names_them(prep, tmp_path):
    (tmp_path / "all").mkdir()
    prep.rename(tmp_path / "all" / "shard2_of_2")
    assert "give one of its folders, shard2_of_2" in refused(tmp_path / "all")


@pytest.mark.parametrize("change", [lambda record: dict(record, complete=False), lambda record: dict(record, version=1),
                                    lambda record: {"recipe": record["recipe"], "model_type": "resnet"}])
def test_an_unfinished_folder_and_one_of_another_version_are_refused(prep, change):
    rewrite(prep / ".recipe.json", change)
    sentence = refused(prep)
    assert "another version of the suite, or is not whole" in sentence and "prepare the images again" in sentence


def test_a_folder_without_its_record_and_one_with_pending_images_are_refused(prep):
    with open(str(prep / ".manifest"), "a") as lines:
        lines.write(json.dumps(prepared.Image(SECOND, "x", "", [], "", [])) + "\n")
    assert "first %s.bin" % SECOND in refused(prep)
    (prep / ".recipe.json").unlink()
    assert "is not whole" in refused(prep)


@pytest.mark.parametrize("text", ["[", "[]", '{"version": 2, "complete": true}', '{"version": 2, "complete": true, "recipe": 3}'])
def test_a_damaged_record_is_one_sentence(prep, text):
    (prep / ".recipe.json").write_text(text)
    assert ".recipe.json: " in refused(prep)


def test_lines_that_are_none_of_a_manifest_vouch_for_nothing(prep):
    rows = [json.loads(line) for line in (prep / ".manifest").read_text().splitlines()]
    (prep / ".manifest").write_text("\n".join(["[1, 2]", "{}", "[]", '["../x", "y"]', '["torn', "[" * 99999, "nan"]
                                              + [json.dumps(row) for row in rows]))
    assert sorted(prepared.read_manifest(str(prep))) == [row[0] for row in rows] and len(find(prep).files) == 12


def test_a_file_that_was_damaged_or_exchanged_under_its_size_is_found_wherever_it_is_read(prep):
    inputs = find(prep).files
    prepared.require_content(inputs)  # copied: by its bytes
    path = prep / (SECOND + ".bin")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for look in (lambda: prepared.require_content(inputs), lambda: [read(each) for each in inputs],
                 lambda: [read(each) for each in find(prep).files]):
        with pytest.raises(Failure, match=SECOND):
            look()
    os.truncate(str(path), 100)
    assert "%s.bin: holds 100 bytes" % SECOND in refused(prep)
    with pytest.raises(Failure, match=SECOND):
        read(inputs[1])


def test_a_file_made_by_hand_that_changes_after_the_look_is_found(by_hand):
    inputs = find(by_hand, shape=(1,)).files
    np.float32(3).tofile(str(by_hand / "img2.bin"))
    with pytest.raises(Failure, match="img2.bin"):
        [read(each) for each in inputs]


def test_the_same_pictures_are_known_as_such_in_copies_and_in_the_other_dtype(prep, small, tmp_path):
    here, uint8 = find(small / "prep_dataset"), find(small / "prep_dataset_uint8", "uint8", (224, 224, 3))
    assert find(prep).content_hash() == here.content_hash() != uint8.content_hash()
    assert [each.image for each in here.files] == [each.image for each in uint8.files]
    source = (small / "val" / (FIRST + ".JPEG")).read_bytes()
    assert here.files[0].image == xxhash.xxh3_128_hexdigest(source)
    (tmp_path / "bare").mkdir()
    shutil.copy(str(prep / (FIRST + ".bin")), str(tmp_path / "bare"))
    [bare] = find(tmp_path / "bare").files
    assert bare.image == "bin:" + bare.hash and bare.hash == here.files[0].hash


@pytest.mark.parametrize("carry", ["tar -C {0} -cf - . | tar -C {1} -xf -", "scp -qpr {0}/. {1}"])
def test_a_carried_folder_is_taken_by_its_content(small, tmp_path, carry):
    if not shutil.which(carry.split()[0]):
        pytest.skip("no %s here" % carry.split()[0])
    subprocess.run(["bash", "-c", carry.format(small / "prep_dataset", tmp_path)], check=True)
    inputs = find(tmp_path).files
    assert all(files.stat_of(os.stat(each.path)) != each.stat for each in inputs)
    prepared.require_content(inputs)
    assert [read(each) for each in inputs] == [read(each) for each in find(small / "prep_dataset").files]


def test_the_engine_takes_a_carried_folder_and_refuses_a_damaged_one(small, prep, tmp_path):
    line = ["--model", small / "small.onnx", "--input", prep, "--output", tmp_path, "--output_dirname"]
    succeeds("onnx_infer.py", *line, "result", "--outfmt", "BIN")
    path = prep / (SECOND + ".bin")
    path.write_bytes(bytes(reversed(path.read_bytes())))
    assert SECOND in fails(1, "onnx_infer.py", *line, "again", "--outfmt", "BIN")
    assert not (tmp_path / "again").exists()
