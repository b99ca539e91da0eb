"""tools/make_tiny_imagenet.py: drawn images of ImageNet's kinds, and weights whose accuracy is earned."""
import json
import os
import shutil
import signal
import struct
import subprocess

import numpy as np
import pytest
from conftest import IMAGENET_MEAN, IMAGENET_STD, command, contents, fails, script, succeeds, wait_until
from PIL import Image

SCRIPT = "tools/make_tiny_imagenet.py"


@pytest.fixture
def copy(tiny, tmp_path):
    """A finished folder of one's own, of links: what is changed in it must be replaced, not written into."""
    shutil.copytree(str(tiny), str(tmp_path / "tiny"), copy_function=os.link)
    return tmp_path / "tiny"


def replace(path, data):
    path.unlink()
    path.write_bytes(data)


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


def test_the_guesses_are_worth_looking_at_and_the_temperature_moves_no_rank(tiny):
    import torch
    from torchvision import transforms
    from torchvision.models import resnet34
    weights = torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu")
    # Classes never drawn have the prior e^-40, e^-40.01, ...: the factor shows in them. A power of two makes no rounding.
    factor = float(weights["fc.bias"][0]) / -40
    assert factor < 1 and np.log2(factor) == round(np.log2(factor))
    model = resnet34()
    model.load_state_dict(weights)
    recipe = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                 transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    images = [recipe(Image.open(str(path)).convert("RGB")) for path in sorted((tiny / "val").iterdir())[:24]]
    with torch.no_grad():
        guesses = torch.softmax(model.eval()(torch.stack(images)), 1).topk(2).values.numpy()
    assert 0.5 < guesses[:, 0].mean() < 0.9
    shown = ["%.2f%%" % (100 * guess) for guess in guesses.ravel()]
    assert shown.count("100.00%") < 3 and shown.count("0.00%") < 6


def test_a_finished_folder_is_kept_without_torch(tiny, tmp_path):
    for module in ("torch", "numpy", "PIL"):
        (tmp_path / (module + ".py")).write_text("raise SystemExit('imported')")
    before, env = contents(tiny), dict(os.environ, PYTHONPATH=str(tmp_path))
    assert succeeds(SCRIPT, tiny, env=env).stdout.startswith("kept: %s: 64 images" % tiny)
    assert succeeds(SCRIPT, tiny, "--check", env=env).stdout == ""
    assert contents(tiny) == before


@pytest.mark.parametrize("harm, words", [
    (lambda folder: replace(folder / "val" / "ILSVRC2012_val_00000007.JPEG", b"another"), "07.JPEG: is not as it was"),
    (lambda folder: (folder / "val_label.txt").unlink(), "val_label.txt: is not as it was made; --overwrite"),
    (lambda folder: shutil.rmtree(str(folder / "val")), "00000001.JPEG: is not as it was made; --overwrite"),
    (lambda folder: replace(folder / "resnet34-tiny.pth", b""), "resnet34-tiny.pth: is not as it was made; --overwrite"),
    (lambda folder: replace(folder / ".tiny.json", b"[1, 2]"), ".tiny.json: "),
    (lambda folder: replace(folder / ".tiny.json", b"[" * 100000), ".tiny.json: "),
    (lambda folder: replace(folder / ".tiny.json", b'{"version": 1, "files": 3}'), ".tiny.json: "),
    (lambda folder: (folder / ".tiny.json").unlink(), "not of this script's making; name a new folder"),
], ids=["image", "no labels", "no images", "weights", "record", "deep record", "odd record", "no record"])
def test_a_folder_that_is_not_as_it_was_made_is_refused_with_the_remedy(harm, words, copy):
    harm(copy)
    before = sorted(os.listdir(str(copy)))
    assert words in fails(1, SCRIPT, copy, timeout=20)
    assert sorted(os.listdir(str(copy))) == before


def stop_when(condition, folder):
    """Start a run, stop it when it has come so far, and see that the next one knows its folder."""
    process = subprocess.Popen(command(SCRIPT, folder), stderr=subprocess.PIPE)
    assert wait_until(condition, process)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate()
    assert process.returncode == 143 and printed.startswith(b"stopped; ") and printed.count(b"\n") == 1
    check = script(SCRIPT, folder, "--check")
    assert check.returncode == 1 and "was not finished" in check.stdout


def test_what_a_stopped_run_left_is_made_again_to_the_same_bytes(tiny, tmp_path):
    new, name = tmp_path / "new", "ILSVRC2012_val_00000002.JPEG"
    stop_when(lambda: (new / "val" / name).exists(), new)
    assert (new / "val" / name).read_bytes() == (tiny / "val" / name).read_bytes()
    (new / "val" / name).write_bytes(b"torn")
    stop_when(lambda: (new / "val" / name).read_bytes() == (tiny / "val" / name).read_bytes(), new)


def test_what_another_version_made_is_to_be_made_again(copy):
    record = json.loads((copy / ".tiny.json").read_text())
    replace(copy / ".tiny.json", json.dumps(dict(record, version=0)).encode())
    assert "is to be made again" in script(SCRIPT, copy, "--check").stdout


def test_a_full_output_and_a_folder_that_cannot_be_are_sentences(tiny):
    line = ["bash", "-c", '"$@" >/dev/full', "bash"] + command(SCRIPT, tiny)
    process = subprocess.run(line, capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and process.stderr.startswith("error: standard output")
    assert "no such" in fails(1, SCRIPT, "/proc/none/tiny").lower()


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "ImageNet" / "val").mkdir(parents=True)
    (tmp_path / "ImageNet" / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"the real one")
    before = contents(tmp_path)
    for options in ([], ["--overwrite"]):
        assert "not of this script's making" in fails(1, SCRIPT, tmp_path / "ImageNet", *options)
    assert contents(tmp_path) == before
    fails(2, SCRIPT)


def test_orientation_is_the_only_exif_and_means_turned(tiny):
    data = (tiny / "val" / "ILSVRC2012_val_00000014.JPEG").read_bytes()
    assert b"Exif\0\0" in data[:64] and struct.pack(">H", 0xFFD8) == data[:2]
