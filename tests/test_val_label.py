"""tools/make_val_label.py: labels in sorted WordNet-id order from devkit-shaped files and from class folders."""
import gzip
import os
import tarfile

import numpy as np
import pytest
from conftest import fails, succeeds
from scipy.io import savemat

SCRIPT = "tools/make_val_label.py"
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
    (tmp_path / "val" / "lost+found").mkdir()  # sorts before every WordNet id, and is no class
    succeeds(SCRIPT, tmp_path / "val", tmp_path / "of_folders.txt")
    assert (tmp_path / "of_folders.txt").read_bytes() == (tmp_path / "of_kit.txt").read_bytes()
    (tmp_path / "val" / IDS[7] / "one_more.JPEG").touch()
    assert "50001 images" in fails(1, SCRIPT, tmp_path / "val", tmp_path / "l")


def folders(folder, **classes):
    for name, files in classes.items():
        (folder / name).mkdir(parents=True)
        for file in files.split():
            (folder / name / file).touch()
    return folder


def test_any_class_folders_become_classes_in_the_order_of_their_names(tmp_path):
    source = folders(tmp_path / "pictures", cup="b.jpg notes.txt", bike="a.png .hidden.jpg", **{"éclair": "c.webp"})
    said = succeeds(SCRIPT, source, tmp_path / "labels.txt").stdout
    assert (tmp_path / "labels.txt").read_text() == "a.png 0\nb.jpg 1\nc.webp 2\n" and "3 images of 3 classes" in said
    assert (tmp_path / "class_names.txt").read_text(encoding="utf-8") == "bike\ncup\néclair\n"
    succeeds(SCRIPT, source, tmp_path / "labels.txt")
    (source / "lost+found").mkdir()
    assert "lost+found holds no image" in fails(1, SCRIPT, source, tmp_path / "labels.txt")


def test_equal_names_in_different_folders_are_told_apart_as_the_preprocessing_names_them(tmp_path):
    from PIL import Image
    source = folders(tmp_path / "pictures", bike="IMG_1.jpg x.png", cup="IMG_1.jpg IMG_2.jpg", **{"a.b": "x.jpg"})
    for path in source.rglob("*.*g"):
        Image.new("RGB", (30, 20)).save(str(path))
    succeeds(SCRIPT, source, tmp_path / "labels.txt")
    assert (tmp_path / "labels.txt").read_text().split("\n")[:-1] == [
        "IMG_2.jpg 2", "a_b__x.jpg 0", "bike__IMG_1.jpg 1", "bike__x.png 1", "cup__IMG_1.jpg 2"]
    succeeds("imagenet_torch_preprocess.py", "resnet", source, tmp_path / "prep", "--labels", tmp_path / "labels.txt")
    assert sorted(path.stem for path in (tmp_path / "prep").glob("*.bin")) == [
        "IMG_2", "a_b__x", "bike__IMG_1", "bike__x", "cup__IMG_1"]


def test_class_names_of_somebody_else_are_not_replaced(tmp_path):
    (tmp_path / "class_names.txt").write_text("mine\n")
    assert "class_names.txt: is there" in fails(1, SCRIPT, folders(tmp_path / "p", a="1.jpg", b="2.jpg"), tmp_path / "l")
    assert (tmp_path / "class_names.txt").read_text() == "mine\n" and not (tmp_path / "l").exists()
    source = folders(tmp_path / "q", a="1.jpg", b="1.jpg a__1.png")
    assert "two images would be called a__1" in fails(1, SCRIPT, source, tmp_path / "l")


def test_pipes_and_swollen_kits_are_refused_at_once(tmp_path):
    import zlib
    os.mkfifo(str(tmp_path / "pipe"))
    assert "no regular file" in fails(1, SCRIPT, tmp_path / "pipe", tmp_path / "l", timeout=20)
    kit = write_kit(tmp_path / "kit")
    (kit / "data" / "meta.mat").unlink()
    os.mkfifo(str(kit / "data" / "meta.mat"))
    assert "no regular file" in fails(1, SCRIPT, kit, tmp_path / "l", timeout=20)
    (kit / "data" / "meta.mat").unlink()
    packed = zlib.compress(bytes(1 << 28))
    (kit / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + (15).to_bytes(4, "little")
                                            + len(packed).to_bytes(4, "little") + packed)
    assert "unpacks to more than" in fails(1, SCRIPT, kit, tmp_path / "l")
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30  # tarfile alone would read this header of 1 GB into memory
    with gzip.open(str(tmp_path / "swollen.tar.gz"), "wb", 1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 27))
    assert "unpacks to more than 64 MB" in fails(1, SCRIPT, tmp_path / "swollen.tar.gz", tmp_path / "l")


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
    for source, said in (("empty", "holds no folder"), ("text", "tar archive"), ("few", "1 class folders"),
                         ("none", "no such file")):
        assert said in fails(1, SCRIPT, tmp_path / source, tmp_path / "l")
    broken = write_kit(tmp_path / "broken")
    (broken / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "meta.mat" in fails(1, SCRIPT, broken, tmp_path / "l")
    assert "its folder does not exist" in fails(1, SCRIPT, kit, tmp_path / "no" / "folder")
    fails(2, SCRIPT, kit)


def test_images_outside_the_class_folders_and_a_lone_class_are_said(tmp_path):
    for path in ("a/x.jpg", "a/deep/y.jpg", "z.jpg"):
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).write_bytes(b"")
    process = succeeds(SCRIPT, tmp_path / "set", tmp_path / "labels.txt")
    assert "warning: 2 images are not directly in a class folder" in process.stderr and "one level too high" in process.stderr
    assert (tmp_path / "labels.txt").read_text() == "x.jpg 0\n"
