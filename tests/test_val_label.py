"""make_val_label.py: labels in sorted WordNet-id order from devkit-shaped files and from class folders."""
import tarfile

import numpy as np
import pytest
from conftest import fails, interrupted, succeeds
from scipy.io import savemat

SCRIPT = "make_val_label.py"
random = np.random.RandomState(5)
IDS = ["n%08d" % number for number in sorted(random.choice(10 ** 8, 1000, replace=False))]  # in the order that is wanted
KIT_ORDER = random.permutation(1000)  # the kit's number k + 1 is the class KIT_ORDER[k]
TRUTH = random.permutation(np.arange(50000) % 1000) + 1  # the kit's numbers, a line each
INNER = 60  # the kit numbers inner nodes of WordNet's tree from 1001 on


def write_kit(folder, ids=None, truth=TRUTH):
    """A devkit as the official one is laid out: a struct array of synsets, and a number a line."""
    ids = [IDS[number] for number in KIT_ORDER] if ids is None else ids
    ids = ids + ["n9%07d" % number for number in range(INNER)]
    synsets = np.zeros((len(ids), 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")])
    for number, wordnet_id in enumerate(ids):
        synsets[number, 0] = (float(number + 1), wordnet_id, "a name, another", float(number >= 1000))
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(str(data / "meta.mat"), {"synsets": synsets}, do_compression=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join("%d\n" % number for number in truth))
    return data.parent


def pack(kit):
    path = kit.parent / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(str(path), "w:gz") as archive:
        archive.add(str(kit), arcname=kit.name)
    return path


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return write_kit(tmp_path_factory.mktemp("kit"))


@pytest.mark.parametrize("packed", [True, False], ids=["tar.gz", "folder"])
def test_the_devkits_numbers_become_sorted_wordnet_order(packed, kit, tmp_path):
    succeeds(SCRIPT, pack(kit) if packed else kit, tmp_path / "val_label.txt")
    lines = [line.split() for line in (tmp_path / "val_label.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == ["ILSVRC2012_val_%08d.JPEG" % number for number in range(1, 50001)]
    assert [int(label) for _, label in lines] == [KIT_ORDER[number - 1] for number in TRUTH]


def test_class_folders_give_the_same_labels(kit, tmp_path):
    succeeds(SCRIPT, kit, tmp_path / "of_kit.txt")
    for wordnet_id in IDS:
        (tmp_path / "val" / wordnet_id).mkdir(parents=True)
    for line in (tmp_path / "of_kit.txt").read_text().splitlines():
        name, label = line.split()
        (tmp_path / "val" / IDS[int(label)] / name).touch()
    (tmp_path / "val" / "README").touch()
    (tmp_path / "val" / IDS[0] / ".hidden.JPEG").touch()
    succeeds(SCRIPT, tmp_path / "val", tmp_path / "of_folders.txt")
    assert (tmp_path / "of_folders.txt").read_bytes() == (tmp_path / "of_kit.txt").read_bytes()
    (tmp_path / "val" / IDS[7] / "one_more.JPEG").touch()
    assert "50001 images" in fails(1, SCRIPT, tmp_path / "val", tmp_path / "l")
    (tmp_path / "val" / IDS[8] / "one_more.JPEG").touch()
    assert "in two class folders" in fails(1, SCRIPT, tmp_path / "val", tmp_path / "l")


@pytest.mark.parametrize("change, said", [
    (dict(truth=TRUTH[:-1]), "49999 images"), (dict(truth=np.append(TRUTH, 1)), "50001 images"),
    (dict(truth=np.append(TRUTH[:-1], 0)), "line 50000"), (dict(truth=np.append(TRUTH[:-1], 1001)), "line 50000"),
    (dict(truth=np.where(TRUTH == 7, 8, TRUTH)), "1 of the 1000 classes"),
    (dict(ids=IDS[:-1] + IDS[:1]), "does not map"), (dict(ids=IDS[:-1] + ["dog"]), "'dog'"),
], ids=["one short", "one too many", "number 0", "an inner node", "a class without images", "an id twice", "no WordNet id"])
def test_counts_and_ids_that_do_not_fit_are_errors(change, said, tmp_path):
    assert said in fails(1, SCRIPT, write_kit(tmp_path, **change), tmp_path / "val_label.txt")
    assert not (tmp_path / "val_label.txt").exists()


def test_what_is_neither_devkit_nor_class_folders_is_named(kit, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "few" / IDS[0]).mkdir(parents=True)
    for source, said in (("empty", "holds no ILSVRC2012_validation"), ("text", "tar archive"), ("few", "1 class folders"),
                         ("none", "none")):
        assert said in fails(1, SCRIPT, tmp_path / source, tmp_path / "l")
    broken = write_kit(tmp_path / "broken")
    (broken / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "meta.mat" in fails(1, SCRIPT, broken, tmp_path / "l")
    assert "No such file" in fails(1, SCRIPT, kit, tmp_path / "no" / "folder")
    fails(2, SCRIPT, kit)


def test_ctrl_c_leaves_no_labels(tmp_path):
    assert "nothing was written" in interrupted(tmp_path / "kit.tar.gz", SCRIPT, tmp_path / "kit.tar.gz", tmp_path / "l")
    assert not (tmp_path / "l").exists()
