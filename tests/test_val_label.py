"""tools/make_val_label.py: labels in ImageNet's class order from what people have of it, and from class folders of their own."""
import gzip
import os
import shutil
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import REPOSITORY, fails, succeeds
from scipy.io import savemat

from common import images, labels

SCRIPT = "tools/make_val_label.py"
IDS = (REPOSITORY / "tools" / "imagenet_wnids.txt").read_text().split()
random = np.random.RandomState(5)
KIT_ORDER = random.permutation(1000)  # the kit's number k + 1 is the class KIT_ORDER[k]
TRUTH = random.permutation(np.arange(50000) % 1000) + 1  # the kit's numbers, a line each
INNER = 60  # the kit numbers inner nodes of WordNet's tree from 1001 on
TENCH, SHARK, BURRITO = "n01440764", "n01484850", "n07880968"  # classes 0, 2, 965


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


def folders(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def text(folder, content, name="list.txt"):
    (folder / name).write_bytes(content.encode("utf-8"))
    return folder / name


def made(folder, source, *options):
    """(the labels as lists of words, the last line that was printed)."""
    process = succeeds(SCRIPT, source, folder / "labels", *options)
    lines = (folder / "labels").read_text(encoding="utf-8").splitlines()
    return [[line.rsplit(" ", 1)[0], int(line.rsplit(" ", 1)[1])] for line in lines], process.stdout.splitlines()[-1]


# ---- the development kit ----

@pytest.mark.parametrize("packed", [True, False], ids=["tar.gz", "folder"])
def test_the_kits_numbers_become_sorted_wordnet_order(packed, kit, tmp_path):
    lines, said = made(tmp_path, pack(kit) if packed else kit.parent)
    assert [name for name, _ in lines] == ["ILSVRC2012_val_%08d.JPEG" % number for number in range(1, 50001)]
    assert [label for _, label in lines] == [KIT_ORDER[number - 1] for number in TRUTH]
    assert "50000 images, 1000 of ImageNet's 1000 classes" in said


def test_the_ground_truth_alone_needs_the_kit_and_gives_the_same(kit, tmp_path):
    truth = kit / "data" / "ILSVRC2012_validation_ground_truth.txt"
    assert "--devkit ILSVRC2012_devkit_t12.tar.gz" in fails(1, SCRIPT, truth, tmp_path / "labels")
    assert made(tmp_path, truth, "--devkit", kit)[0] == made(tmp_path, kit)[0]


def test_a_list_of_ids_gives_the_same_labels_and_so_do_class_folders(kit, tmp_path):
    lines, _ = made(tmp_path, kit)
    source = text(tmp_path, "".join("%s\r\n" % IDS[label] for _, label in lines))
    assert succeeds(SCRIPT, source, tmp_path / "labels").stdout.startswith("kept: ")
    source.write_text("\n".join(IDS[label] for _, label in lines[:-1]))
    assert "49999 lines without file names" in fails(1, SCRIPT, source, tmp_path / "labels")
    source = folders(tmp_path / "val", *("%s/%s" % (IDS[label], name) for name, label in lines[:300]))
    folders(source, "README", TENCH + "/.hidden.JPEG", "lost+found/x", "@eaDir/x.JPEG", "__MACOSX/x.JPEG")
    assert made(tmp_path, source, "--overwrite")[0] == lines[:300]


@pytest.mark.parametrize("change, said", [
    (dict(truth=TRUTH[:-1]), "49999 lines"), (dict(truth=np.append(TRUTH, 1)), "50001 lines"),
    (dict(truth=np.append(TRUTH[:-1], 0)), "here is 0"), (dict(truth=np.append(TRUTH[:-1], 1001)), "here is 1001"),
    (dict(ids=IDS[:-1] + IDS[:1]), "does not map"), (dict(ids=IDS[:-1] + ["dog"]), "does not map"),
], ids=["one short", "one too many", "number 0", "an inner node", "an id twice", "no WordNet id"])
def test_a_kit_whose_counts_or_ids_do_not_fit_is_an_error(change, said, tmp_path):
    assert said in fails(1, SCRIPT, write_kit(tmp_path, **change), tmp_path / "val_label.txt")
    assert not (tmp_path / "val_label.txt").exists()


def test_pipes_and_swollen_or_broken_kits_are_refused_at_once(tmp_path):
    import zlib
    os.mkfifo(str(tmp_path / "pipe"))
    assert "no regular file" in fails(1, SCRIPT, tmp_path / "pipe", tmp_path / "l", timeout=20)
    kit = write_kit(tmp_path / "kit")
    numbers = (14, (3 << 28) + 56, 6, 8, 6, 0, 5, 8, 3 << 25, 1, 1, 8, int.from_bytes(b"syns", "little"), 0, 9, 3 << 28)
    packed = zlib.compress(struct.pack("<16I", *numbers) + bytes(3 << 28))  # a matrix of 0.8 GB
    (kit / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + (15).to_bytes(4, "little")
                                            + len(packed).to_bytes(4, "little") + packed)
    assert "takes more than" in fails(1, SCRIPT, kit, tmp_path / "l")
    (kit / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "meta.mat" in fails(1, SCRIPT, kit, tmp_path / "l")
    (kit / "data" / "meta.mat").unlink()
    assert "holds no meta.mat" in fails(1, SCRIPT, kit, tmp_path / "l")
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30  # tarfile alone would read this header of 1 GB into memory
    with gzip.open(str(tmp_path / "swollen.tar.gz"), "wb", 1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 27))
    assert "unpacks to more than 64 MB" in fails(1, SCRIPT, tmp_path / "swollen.tar.gz", tmp_path / "l")


# ---- folders of ImageNet's classes ----

def test_any_number_of_wordnet_folders_get_their_places_among_the_1000(tmp_path):
    source = folders(tmp_path / "imagenette2", BURRITO + "/a.JPEG", TENCH + "/ILSVRC2012_val_00009111.JPEG", SHARK + "/empty.txt")
    lines, said = made(tmp_path, source)
    assert lines == [["ILSVRC2012_val_00009111.JPEG", 0], ["a.JPEG", 965]] and "2 images, 2 of ImageNet's 1000 classes" in said
    folders(source, SHARK + "/b.JPEG")
    lines, said = made(tmp_path, source, "--own-classes", "--overwrite")
    assert [label for _, label in lines] == [0, 2, 1] and "3 images, 3 classes, named in class_names.txt" in said
    assert (tmp_path / "class_names.txt").read_text().split() == [TENCH, SHARK, BURRITO]


def test_the_names_of_imagenet_r_and_a_and_their_labels_meet(tmp_path):
    source = folders(tmp_path / "r", TENCH + "/art_0.jpg", BURRITO + "/art_0.jpg",  # of -A, two with equal first parts
                     TENCH + "/0.000116_digital clock _ digital clock_0.865662.jpg", TENCH + "/0.000348_cup _ box_0.55540705.jpg")
    lines, said = made(tmp_path, source)
    assert lines[:2] == [["0.000116_digital clock _ digital clock_0.865662.jpg", 0], ["0.000348_cup _ box_0.55540705.jpg", 0]]
    assert lines[2:] == [[TENCH + "__art_0.jpg", 0], [BURRITO + "__art_0.jpg", 965]]
    assert not labels.missing(labels.read(str(tmp_path / "labels"))[0], images.find_images(str(source))[0])


def test_folders_beside_wordnet_folders_are_said_and_unknown_ids_refused(tmp_path):
    source = folders(tmp_path / "val", TENCH + "/a.jpg", "other/b.jpg", "c.jpg", TENCH + "/deep/d.jpg")
    process = succeeds(SCRIPT, source, tmp_path / "labels")
    assert "warning: 3 images are not directly in a class folder and get no label" in process.stderr
    folders(source, "n00000001/e.jpg")
    assert "n00000001 is none of ImageNet's 1000" in fails(1, SCRIPT, source, tmp_path / "l")


def test_hugging_faces_flat_folder_is_labelled_by_the_ids_in_the_names(tmp_path):
    names = ["ILSVRC2012_val_00000001_n01751748.JPEG", "ILSVRC2012_val_00000002_n09193705.JPEG", "n01440764_10026_n01440764.JPEG"]
    lines, said = made(tmp_path, folders(tmp_path / "val", *names))
    assert lines == [[names[0], IDS.index("n01751748")], [names[1], IDS.index("n09193705")], [names[2], 0]]
    assert "3 images, 3 of ImageNet's 1000 classes, by WordNet id" in said
    folders(tmp_path / "val", "ILSVRC2012_val_00000003.JPEG")
    assert "first ILSVRC2012_val_00000003.JPEG" in fails(1, SCRIPT, tmp_path / "val", tmp_path / "l")


def test_imagenet_v2s_folders_are_their_numbers(tmp_path):
    source = folders(tmp_path / "imagenetv2", *("%d/%040x.jpeg" % (n, 7919 * n) for n in range(1000)))
    lines, said = made(tmp_path, source)
    assert lines == [["%040x.jpeg" % (7919 * number), number] for number in range(1000)]
    assert "1000 images, 1000 of ImageNet's 1000 classes, by number" in said


def test_folders_1_to_1000_are_refused_without_the_kit_and_right_with_it(kit, tmp_path):
    source = folders(tmp_path / "val", *("%d/%d.jpeg" % (number, number) for number in range(1, 1001)))
    assert "--devkit" in fails(1, SCRIPT, source, tmp_path / "l") and not (tmp_path / "l").exists()
    lines, _ = made(tmp_path, source, "--devkit", kit)
    assert all(label == KIT_ORDER[int(name[:-5]) - 1] for name, label in lines) and len(lines) == 1000
    fails(2, SCRIPT, source, tmp_path / "l", "--devkit", kit, "--own-classes")
    assert "here is 0" in fails(1, SCRIPT, folders(source, "0/x.jpg"), tmp_path / "l", "--devkit", kit)


# ---- lists ----

@pytest.mark.parametrize("content", [
    "ImageId,PredictionString\nval_1,n01440764 85 1 499 272 \nval_2,n07880968 1 2 3 4 n07880968 5 6 7 8 \n",
    "val_1.JPEG,n01440764\r\nval_2.JPEG,n07880968\r\n", "\ufeffimage\twnid\nval_1.JPEG\tn01440764\nval_2.JPEG\tn07880968",
    "val/val_1.JPEG n01440764\nval/val_2.JPEG n07880968\n",
    "0\t0.000000\tn01440764/val_1.JPEG\n7\t965.000000\tn07880968/val_2.JPEG\n",
    "val_1.JPEG 0\nval_2.JPEG 965\n", "n01440764/val_1.JPEG\t0\n\nn07880968/val_2.JPEG\t965\n",
    "filename,label\nval_1,0\nval_2,965\n",
    '"file","id","words"\n"val_1.JPEG","n01440764","tench, Tinca"\n"val_2.JPEG","n07880968","burrito"\n',
    ",file,class\n0,val_1.JPEG,0\n1,val_2.JPEG,965\n", "id;file\nn01440764;val_1.png\nn07880968;val_2.png\n",
    "n01440764\\val_1.JPEG 0\nn07880968\\val_2.JPEG 965\n",
], ids=["Kaggle", "CSV", "BOM, tabs and header", "folders before ids", "MXNet", "MLPerf", "Caffe", "numbers", "quoted", "pandas",
        "id first", "Windows"])
def test_every_list_that_names_files_gives_the_same_labels(content, tmp_path):
    lines, said = made(tmp_path, text(tmp_path, content))
    assert [[name.split(".")[0], label] for name, label in lines] == [["val_1", 0], ["val_2", 965]] and ": 2 images, 2 " in said


@pytest.mark.parametrize("content, said", [
    ("a,n01440764 1 2 3 4 n07880968 1 2 3 4\n", "more than one class"),
    ("a.jpg n01440764\na.jpg n07880968\n", "more than one class"),
    ("a.jpg 1\na.png 2\n", "would both be called a"), ("a.jpg 1\nb.jpg\n", "line 2"), ("a.jpg 1\nn01440764\n", "line 2"),
    ("a.jpg 1 2\n", "line 1"), ("0\t1.0\t2.0\ta.jpg\n", "line 1"), ("a.jpg,5,3\n", "line 1"),
    ("n01440764 tench\nn01443537 goldfish\n", "line 1"), ("", "is empty"), ("file,class\n", "line 1"),
    ("file,class\na.jpg,5,3\n", "line 2"), ("a.jpg 1 x\nb.jpg 2\n", "line 1"), ("val_1.JPEG,\nval_2.JPEG,5\n", "line 1"),
    ("0\t0.0\tn01440764/a.jpg\n1\t1.0\tn07880968/b.jpg\n", "its id is ImageNet's class 965"),
    ("a.jpg n00000001\n", "none of ImageNet's 1000"), ("".join("%d.jpg %d\n" % (n, n) for n in range(1, 1001)), "--devkit"),
])
def test_a_list_with_another_line_or_two_classes_for_an_image_is_an_error(content, said, tmp_path):
    assert said in fails(1, SCRIPT, text(tmp_path, content), tmp_path / "l") and not (tmp_path / "l").exists()


def test_a_packed_list_is_read_and_another_archive_is_not_the_kit(tmp_path):
    with gzip.open(str(tmp_path / "val.txt.gz"), "wb") as file:
        file.write(b"val_1.JPEG 0\nval_2.JPEG 965\n")
    assert made(tmp_path, tmp_path / "val.txt.gz")[0] == [["val_1.JPEG", 0], ["val_2.JPEG", 965]]
    archive = pack(folders(tmp_path / "mine", "cat/1.jpg"))
    assert "so it is not the development kit; unpack any other archive" in fails(1, SCRIPT, archive, tmp_path / "l")


def test_kaggles_list_is_read_as_it_is_downloaded_and_a_zip_of_more_is_refused(tmp_path):
    def zipped(**contents):
        with zipfile.ZipFile(str(tmp_path / "LOC_val_solution.csv.zip"), "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return tmp_path / "LOC_val_solution.csv.zip"
    csv = "ImageId,PredictionString\nval_1,n01440764 85 1 499 272 \n"
    assert made(tmp_path, zipped(csv=csv))[0] == [["val_1", 0]]
    of_a_mac = zipped(**{"labels/": "", "labels/a.csv": csv, "__MACOSX/labels/._a.csv": "x"})
    assert made(tmp_path, of_a_mac, "--overwrite")[0] == [["val_1", 0]]
    assert "holds 2 files; unpack it" in fails(1, SCRIPT, zipped(csv=csv, more=csv), tmp_path / "l")
    whole = zipped(csv=csv).read_bytes()
    (tmp_path / "LOC_val_solution.csv.zip").write_bytes(whole[:60])
    assert "truncated or damaged" in fails(1, SCRIPT, tmp_path / "LOC_val_solution.csv.zip", tmp_path / "l")


def test_numbers_among_themselves_beside_ids_are_taken_when_asked_for(tmp_path):
    source = text(tmp_path, "0\t0.0\tn01440764/a.jpg\n1\t1.0\tn07880968/b.jpg\n")
    assert made(tmp_path, source, "--own-classes")[0] == [["a.jpg", 0], ["b.jpg", 1]]


# ---- own classes ----

def test_own_class_folders_become_classes_in_the_order_of_their_names(tmp_path):
    source = folders(tmp_path / "pictures", "cup/b.jpg", "cup/notes.txt", "bike/a.png", "bike/.hidden.jpg", "\u00e9clair/c.webp")
    lines, said = made(tmp_path, source)
    assert lines == [["a.png", 0], ["b.jpg", 1], ["c.webp", 2]] and "3 images, 3 classes, named in class_names.txt" in said
    assert (tmp_path / "class_names.txt").read_text(encoding="utf-8") == "bike\ncup\n\u00e9clair\n"
    folders(source, "zero/x.txt")
    sentence = fails(1, SCRIPT, source, tmp_path / "l")
    assert "its folder zero holds no image" in sentence and "--classes FILE" in sentence and "remove" not in sentence


def test_the_trainings_list_of_classes_numbers_folders_of_which_some_are_empty_or_missing(tmp_path):
    source = folders(tmp_path / "pictures", "cup/b.jpg", "zero/x.txt", "e\u0301clair/c.webp")
    (tmp_path / "train").write_bytes("bike\r\ncup\r\nzero\r\n\u00e9clair\r\n".encode())
    lines, said = made(tmp_path, source, "--classes", tmp_path / "train")
    assert lines == [["b.jpg", 1], ["c.webp", 3]] and "2 images, 2 of the 4 classes" in said
    assert (tmp_path / "class_names.txt").read_text(encoding="utf-8") == "bike\ncup\nzero\n\u00e9clair\n"
    (tmp_path / "list").mkdir()
    own = tmp_path / "list" / "class_names.txt"  # beside LABELS, by the very name that is written there, and as Windows writes it
    shutil.copy(str(tmp_path / "train"), str(own))
    succeeds(SCRIPT, source, tmp_path / "list" / "l", "--classes", own)
    assert own.read_bytes() == (tmp_path / "train").read_bytes()
    folders(source, "dog/d.jpg")
    assert "train: has no class dog" in fails(1, SCRIPT, source, tmp_path / "l", "--classes", tmp_path / "train")
    for classes in ("dog\ncup\ndog\n\u00e9clair\n", "dog\n\ncup\n\u00e9clair\n"):
        (tmp_path / "train").write_text(classes, encoding="utf-8")
        assert "twice, or has an empty line" in fails(1, SCRIPT, source, tmp_path / "l", "--classes", tmp_path / "train")
    fails(2, SCRIPT, source, tmp_path / "l", "--classes", tmp_path / "train", "--devkit", tmp_path)


def test_some_of_imagenets_numbered_folders_keep_their_numbers(tmp_path):
    source = folders(tmp_path / "v2", "83/a.jpg", "264/b.jpg", "327/c.jpg")
    sentence = fails(1, SCRIPT, source, tmp_path / "labels")
    assert "if they are ImageNet's, seq 0 999 > FILE and --classes FILE keeps them" in sentence
    (tmp_path / "numbers").write_text("".join("%d\n" % number for number in range(1000)))
    assert made(tmp_path, source, "--classes", tmp_path / "numbers")[0] == [["a.jpg", 83], ["b.jpg", 264], ["c.jpg", 327]]


def test_own_folders_that_are_numbers_are_refused_until_the_order_is_said(tmp_path):
    source = folders(tmp_path / "pictures", "1/a.jpg", "2/b.jpg", "10/c.jpg")
    sentence = fails(1, SCRIPT, source, tmp_path / "labels")
    assert "--order name" in sentence and "(1 10 2 ...)" in sentence and "--order number" in sentence
    assert made(tmp_path, source, "--order", "name")[0] == [["a.jpg", 0], ["b.jpg", 2], ["c.jpg", 1]]
    assert made(tmp_path, source, "--order", "number", "--overwrite")[0] == [["a.jpg", 0], ["b.jpg", 1], ["c.jpg", 2]]
    source = folders(tmp_path / "p", "01/a.jpg", "02/b.jpg")  # in one order only
    assert made(tmp_path, source, "--overwrite")[0] == [["a.jpg", 0], ["b.jpg", 1]]
    fails(2, SCRIPT, folders(tmp_path / "q", "1/a.jpg", "x/b.jpg"), tmp_path / "l", "--order", "number")


def test_folders_that_may_be_some_of_imagenets_classes_are_not_numbered_among_themselves_unasked(tmp_path):
    some = folders(tmp_path / "v2", "3/a.jpg", "7/b.jpg")
    assert "if they are ImageNet's, seq 0 999" in fails(1, SCRIPT, some, tmp_path / "labels")
    dogs = folders(tmp_path / "dogs", "n02085620-Chihuahua/a.jpg", "n02085782-Japanese_spaniel/b.jpg")
    assert "begin with WordNet ids" in fails(1, SCRIPT, dogs, tmp_path / "labels")
    for source, more in ((some, ("--order", "number")), (dogs, ("--own-classes", "--overwrite"))):
        assert [line[1] for line in made(tmp_path, source, *more)[0]] == [0, 1]


def test_labels_are_not_called_as_their_class_names_are(tmp_path):
    source = folders(tmp_path / "p", "bike/a.jpg", "cup/b.jpg")
    assert "choose another name" in fails(2, SCRIPT, source, tmp_path / "class_names.txt")
    assert not (tmp_path / "class_names.txt").exists()


def test_equal_names_in_different_folders_are_told_apart_as_the_preprocessing_names_them(tmp_path):
    source = folders(tmp_path / "pictures", "bike/IMG_1.jpg", "bike/x.png", "cup/IMG_1.jpg", "cup/Dr. Smith 1.jpg", "a.b/x.jpg",
                     "cup/Dr. Smith 2.jpg", "cup/ lead.jpg")
    lines, _ = made(tmp_path, source)
    assert sorted(lines) == [["Dr. Smith 1.jpg", 2], ["Dr. Smith 2.jpg", 2], ["a_b__x.jpg", 0], ["bike__IMG_1.jpg", 1],
                             ["bike__x.png", 1], ["cup__IMG_1.jpg", 2], ["lead.jpg", 2]]
    found, _ = images.find_images(str(source))
    assert len(found) == 7 and not labels.missing(labels.read(str(tmp_path / "labels"))[0], found)


def test_a_folder_one_level_too_high_is_answered_with_the_one_that_is_meant(tmp_path):
    folders(tmp_path / "imagenette2", "train/%s/a.jpg" % TENCH, "val/%s/b.jpg" % TENCH)
    assert "did you mean %s/imagenette2/val?" % tmp_path in fails(1, SCRIPT, tmp_path / "imagenette2", tmp_path / "l")
    folders(tmp_path / "ImageNet", "val/a.jpg")
    assert "did you mean %s/ImageNet/val?" % tmp_path in fails(1, SCRIPT, tmp_path / "ImageNet", tmp_path / "l")
    assert made(tmp_path, tmp_path / "ImageNet", "--own-classes")[0] == [["a.jpg", 0]]
    (tmp_path / "empty").mkdir()
    assert "no images at all" in fails(1, SCRIPT, tmp_path / "empty", tmp_path / "l")


# ---- what is there already ----

def test_equal_labels_are_kept_and_others_replaced_only_when_asked_to(tmp_path):
    source = folders(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    made(tmp_path, source)
    before = (tmp_path / "labels").stat().st_mtime_ns
    assert made(tmp_path, source)[1].startswith("kept: ") and (tmp_path / "labels").stat().st_mtime_ns == before
    (tmp_path / "labels").write_text("1.jpg 1\n2.jpg 1\n")  # corrected by hand
    sentence = fails(1, SCRIPT, source, tmp_path / "labels")
    assert "differs from what would be written now; name another file, or --overwrite" in sentence
    assert (tmp_path / "labels").read_text() == "1.jpg 1\n2.jpg 1\n"
    assert made(tmp_path, source, "--overwrite")[0] == [["1.jpg", 0], ["2.jpg", 1]]
    (tmp_path / "class_names.txt").write_text("mine\n")
    for more in ((), ("--overwrite",)):  # they are those of the labels that are there, which nobody asked to replace
        said = fails(1, SCRIPT, source, tmp_path / "l", *more)
        assert "class_names.txt: holds the class names of other labels" in said and not (tmp_path / "l").exists()
    assert (tmp_path / "class_names.txt").read_text() == "mine\n"


def test_labels_never_have_the_sources_name_and_their_folder_is_there(kit, tmp_path):
    source = text(tmp_path, "a.jpg 1\n")
    assert "would be overwritten" in fails(1, SCRIPT, source, source, "--overwrite") and source.read_text() == "a.jpg 1\n"
    assert "its folder does not exist" in fails(1, SCRIPT, kit, tmp_path / "no" / "folder")
    assert "No such file" in fails(1, SCRIPT, tmp_path / "none", tmp_path / "l")
    fails(2, SCRIPT, kit)


def test_the_ids_are_imagenets_1000_in_sorted_order():
    assert len(IDS) == len(set(IDS)) == 1000 and sorted(IDS) == IDS
    assert (IDS[0], IDS[65], IDS[-1]) == (TENCH, "n01751748", "n15075141")
