"""common/labels.py and common/images.py: which line labels which picture, and what the error says where none does."""
import os

import pytest
from conftest import REPOSITORY

from common import images, labels
from common.command import Failure


def read(folder, text):
    path = folder / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return labels.read(str(path))[0]


def refused(function, *arguments):
    with pytest.raises(Failure) as caught:
        function(*arguments)
    return str(caught.value)


def test_labels_of_powershell_are_read(tmp_path):
    (tmp_path / "labels").write_bytes("a.jpg 3\r\n\u00e9.jpg 5\r\n".encode("utf-16"))
    assert labels.read(str(tmp_path / "labels"))[0] == {"a": 3, "\u00e9": 5}


def test_every_kind_of_line_end_bom_tabs_and_blank_lines_give_the_same_labels(tmp_path):
    for text in ("a.jpg 5\nb.jpg 12\n", "a.jpg 5\r\nb.jpg 12", "\ufeffa.jpg\t5\r\rb.jpg  12\r", "\n\n a.jpg\t 5 \n\nb.jpg 12\n"):
        assert read(tmp_path, text) == {"a": 5, "b": 12}


def test_one_odd_line_among_plain_ones_is_read_and_so_is_a_last_one_without_an_end(tmp_path):
    for odd, name in (("my cat.jpg", "my cat"), ("val/c.jpg", "c"), ("c", "c"), ("c.JPG", "c"), ("c.tar.png", "c_tar"),
                      ("\u00e9.png", "\u00e9")):
        assert read(tmp_path, "a.jpg 5\n%s 3\nb.jpg 12\n" % odd) == {"a": 5, name: 3, "b": 12}
    assert read(tmp_path, "a.jpg 5\nb.jpg 12") == {"a": 5, "b": 12}


def test_equal_labels_have_one_hash_however_they_are_written(tmp_path):
    hashes = []
    for text in ("a.jpg 5\nb.jpg 12\n", "b.jpg 12\r\na.jpg\t5", "val/a.jpg 5\nval\\b.JPEG 12\n", "a.jpg 5\nb.jpg 13\n"):
        read(tmp_path, text)
        hashes.append(labels.read(str(tmp_path / "labels.txt"))[1])
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


def test_labels_and_class_names_of_another_encoding_are_warned_of(tmp_path, capsys):
    for function, text in ((labels.read, "\u732b\u72d7.jpg 3\n"), (lambda path: labels.read_names(path, 1), "\u732b\u72d7\n")):
        for encoding in ("utf-8", "gbk"):
            (tmp_path / "list").write_bytes(text.encode(encoding))
            function(str(tmp_path / "list"))
            warned = capsys.readouterr().err
            assert warned == "" if encoding == "utf-8" else "is not UTF-8" in warned and "iconv -f GBK" in warned


@pytest.mark.parametrize("line, name, label", [
    ("val/n01440764/x.JPEG 0", "x", 0), ("ILSVRC2012_val_00000001 65", "ILSVRC2012_val_00000001", 65),
    ("Screenshot 2024-01-01 at 10.30.12 PM.png 5", "Screenshot 2024-01-01 at 10_30_12 PM", 5),
    ("Screenshot at 10.30.12\u202fPM.png 5", "Screenshot at 10_30_12 PM", 5), ("Dr. Smith 1.jpg 3", "Dr_ Smith 1", 3),
    ("12.5 inches/a b.jpg 3", "a b", 3), ("img 3 .png 7", "img 3", 7), ("a, b.jpg 3", "a, b", 3), ("x.JPEG.png 1", "x", 1),
    ("val\\x.JPEG 3", "x", 3)])
def test_a_file_may_have_folders_spaces_and_dots_and_no_extension(line, name, label, tmp_path):
    assert read(tmp_path, line) == {name: label}


def test_every_images_name_is_found_by_its_own_line(tmp_path):
    names = ["Dr. Smith 1.jpg", "Dr. Smith 2.jpg", " leading.png", "two\nlines.jpg", "e\u0301.jpg", "0.000116_a _ b_0.865662.jpg",
             "Screenshot 10.30.12\u202fPM.png", "x .jpg", "tab\tin.it.webp", ".JPEG.jpg"[1:]]
    for name in names:
        (tmp_path / name).touch()
    found, left_aside = images.find_images(str(tmp_path))
    table = read(tmp_path, "".join("%s %d\n" % (" ".join(name.split()), number) for number, name in enumerate(names)))
    assert len(found) == len(names) == len(table) and not left_aside
    for name, path in found.items():
        assert table[labels.key(name)] == names.index(os.path.basename(path))
    assert labels.missing(table, found) == [] and labels.missing(table, ["none", "x"]) == ["none"]


@pytest.mark.parametrize("line", ["a.jpg 3 5", "a.jpg cat", "a.jpg -1", "a.jpg 1.5", "5", "a.jpg \u0665", "a.jpg 1234567890"])
def test_what_is_no_line_of_a_file_and_a_class_is_shown(line, tmp_path):
    assert "line 2 is not \"FILE CLASS\"" in refused(read, tmp_path, "b.jpg 1\n" + line)


def test_two_lines_that_become_one_name_are_an_error(tmp_path):
    assert "line 3 is not" in refused(read, tmp_path, "a.jpg 1\r\nb.jpg 2\r\nc.jpg\r\n")
    for text in ("a.jpg 1\na.jpg 1\n", "a.jpg 1\na.png 1\n"):  # each line a plain one
        assert "line 2 labels a a second time" in refused(read, tmp_path, text)
    for text in ("a.jpg 1\nfolder/a.png 1\n", "\u00e9.jpg 1\ne\u0301.jpg 2\n", "a b.jpg 1\na  b.jpg 1\n"):
        assert "line 2 labels" in refused(read, tmp_path, text)
    assert "make_val_label.py" in refused(read, tmp_path, "cup/1.jpg 0\nbike/1.jpg 1\n")
    assert "holds no labels" in refused(read, tmp_path, "\n\r\n")


@pytest.mark.parametrize("text", [
    "ImageId,PredictionString\nILSVRC2012_val_00048981,n03995372 85 1 499 272 \n", "n01440764\nn01443537\n",
    "ILSVRC2012_val_00000001.JPEG n01751748\n", "file\twnid\nx.jpg\tn01751748\n", "0\t65.000000\tn01/x.JPEG\n",
    "name,label\nx.jpg,5\n", "x.jpg, 5\n", b"\x1f\x8b\x08\0\0\0\0\0", "490\n361\n"])
def test_for_the_first_line_of_what_make_val_label_takes_the_error_names_the_command(text, tmp_path):
    tool = os.path.relpath(str(REPOSITORY / "tools" / "make_val_label.py"))
    assert "python3 %s %s/labels.txt %s/labels_label.txt" % (tool, tmp_path, tmp_path) in refused(read, tmp_path, text)


def test_a_folder_given_as_labels_is_told_the_command(tmp_path):
    (tmp_path / "my val").mkdir()
    sentence = refused(labels.read, str(tmp_path / "my val"))
    assert sentence.endswith("make_val_label.py '%s/my val' '%s/my val_label.txt'" % (tmp_path, tmp_path))


def test_a_list_of_exclusions_may_hold_files_or_names(tmp_path):
    (tmp_path / "list").write_text("val/a.jpg\r\nimg 3 .png\n\nILSVRC2012_val_00000007\n")
    names, _ = labels.read_exclude(str(tmp_path / "list"))
    assert names == {"a", "img 3", "ILSVRC2012_val_00000007"}
    (tmp_path / "list").write_text("val/a.jpg 65\nDr Smith 1\nb\n")  # labels, and a name that ends in a number
    assert labels.read_exclude(str(tmp_path / "list"))[0] == {"a", "Dr Smith 1", "b"}
    (tmp_path / "list").write_text("\n")
    assert "holds no image names" in refused(labels.read_exclude, str(tmp_path / "list"))


def test_names_of_classes_are_one_a_line_and_a_blank_last_line_is_none(tmp_path):
    (tmp_path / "names").write_bytes("\ufefftench\r\ngreat  white shark\r\n\r\n".encode())
    assert labels.read_names(str(tmp_path / "names"), 2) == ["tench", "great white shark"]
    assert "has 2 lines" in refused(labels.read_names, str(tmp_path / "names"), 3)
    (tmp_path / "names").write_text("a\n\nb\n")
    assert "1 of them empty" in refused(labels.read_names, str(tmp_path / "names"), 3)


# ---- which files are pictures ----

def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return str(folder)


def test_equal_names_in_class_folders_get_their_folders_before_them(tmp_path):
    source = touch(tmp_path, "cup/1.jpg", "v1.0/1.png", "v1.0/2.jpg", "3.JPEG", "notes.txt")
    found, left_aside = images.find_images(source)
    assert {name: os.path.relpath(path, source) for name, path in found.items()} == {
        "2": "v1.0/2.jpg", "3": "3.JPEG", "cup__1": "cup/1.jpg", "v1_0__1": "v1.0/1.png"}
    assert left_aside == ["notes.txt"]


def test_what_servers_and_unpackers_add_is_no_class_and_no_picture(tmp_path):
    source = touch(tmp_path, "cup/1.jpg", "cup/._1.jpg", "cup/Thumbs.db", "@eaDir/1.jpg", "__MACOSX/1.jpg", ".hidden/1.jpg",
                   "lost+found/1.jpg")
    assert list(images.find_images(source)[0]) == ["1"] and images.class_folders(source) == ["cup"]


def test_the_report_of_a_run_in_the_folder_is_no_picture_but_anybody_elses_is(tmp_path):
    source = touch(tmp_path, "a.jpg", "report.png")
    assert set(images.find_images(source)[0]) == {"a", "report"}
    touch(tmp_path, "report.json")
    found, left_aside = images.find_images(source)
    assert set(found) == {"a"} and left_aside == ["report.json", "report.png"]


def test_the_folder_that_is_written_may_lie_in_the_source(tmp_path):
    source = touch(tmp_path, "a.jpg", "prep/a.bin", "prep/a.png")
    found, left_aside = images.find_images(source, os.path.join(source, "prep"))
    assert set(found) == {"a"} and left_aside == []
    source = touch(tmp_path / "2", "a.jpg", "a.bin")
    assert images.find_images(source, source)[1] == []


def test_names_that_would_become_one_and_names_that_are_too_long_are_refused(tmp_path):
    assert "would both be called a" in refused(images.find_images, touch(tmp_path / "1", "a.jpg", "a.png"))
    assert "would both be called" in refused(images.find_images, touch(tmp_path / "2", "\u00e9.jpg", "e\u0301.jpg"))
    assert "would both be called a__1" in refused(images.find_images, touch(tmp_path / "3", "a/1.jpg", "b/1.jpg", "b/a__1.jpg"))
    assert len(images.find_images(touch(tmp_path / "4", "x" * 249 + ".jpg"))[0]) == 1
    assert "rename it" in refused(images.find_images, touch(tmp_path / "5", "x" * 250 + ".jpg"))
    assert "rename it" in refused(images.find_images, touch(tmp_path / "6", "\u00e9" * 125 + ".jpg"))
    assert "no images found" in refused(images.find_images, touch(tmp_path / "7", "a.txt"))
