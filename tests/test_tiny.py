"""make_tiny_imagenet.py: drawn images of ImageNet's kinds, and weights whose accuracy is earned."""
import os
import struct

from conftest import contents, fails, succeeds
from PIL import Image

SCRIPT = "make_tiny_imagenet.py"


def kind_of(path):
    with Image.open(str(path)) as image:
        return image.format, image.mode, image.size, 0x0112 in image.getexif()


def test_64_images_with_imagenets_oddities_and_a_label_each(tiny):
    kinds = [kind_of(tiny / "val" / ("ILSVRC2012_val_%08d.JPEG" % number)) for number in range(1, 65)]
    assert len(os.listdir(str(tiny / "val"))) == 64
    assert {"RGB", "L", "CMYK"} == {mode for _, mode, _, _ in kinds}
    assert sum(form == "PNG" for form, _, _, _ in kinds) == 1 and any(turned for _, _, _, turned in kinds)
    assert len({size for _, _, size, _ in kinds}) > 8 and min(min(size) for _, _, size, _ in kinds) < 224
    lines = (tiny / "val_label.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["ILSVRC2012_val_%08d.JPEG" % number for number in range(1, 65)]
    labels = [int(line.split()[1]) for line in lines]
    assert sorted(labels) == sorted(labels[:0] + [label for label in set(labels) for _ in range(4)]) and max(labels) < 1000


def test_the_weights_are_a_whole_resnet34_of_1000_classes(tiny):
    import torch
    from torchvision.models import resnet34
    weights = torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu")
    resnet34().load_state_dict(weights)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_accuracy_is_above_three_times_chance_and_below_100_percent(pytorchs_hits):
    hits = pytorchs_hits
    assert 3 / 16 < hits[:, 0].mean() < 1
    assert hits[:, 0].mean() < hits.any(axis=1).mean() < 1


def test_a_finished_folder_is_kept(tiny):
    before = contents(tiny)
    assert "kept" in succeeds(SCRIPT, tiny).stdout
    assert contents(tiny) == before


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "ImageNet" / "val").mkdir(parents=True)
    (tmp_path / "ImageNet" / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"the real one")
    before = contents(tmp_path)
    assert "not empty" in fails(1, SCRIPT, tmp_path / "ImageNet")
    assert contents(tmp_path) == before
    fails(2, SCRIPT)


def test_orientation_is_the_only_exif_and_means_turned(tiny):
    data = (tiny / "val" / "ILSVRC2012_val_00000014.JPEG").read_bytes()
    assert b"Exif\0\0" in data[:64] and struct.pack(">H", 0xFFD8) == data[:2]
