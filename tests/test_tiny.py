"""tools/make_tiny_imagenet.py: drawn images of ImageNet's kinds, and weights whose accuracy is earned."""
import fcntl
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


def test_a_finished_folder_is_kept(tiny):
    before = contents(tiny)
    assert "kept" in succeeds(SCRIPT, tiny).stdout
    assert contents(tiny) == before


@pytest.mark.parametrize("harm, words", [
    (lambda folder: replace(folder / "val" / "ILSVRC2012_val_00000007.JPEG", b"another"), "00000007.JPEG: is not as this script"),
    (lambda folder: (folder / "val" / "mine.JPEG").write_bytes(b"mine"), "mine.JPEG: is not as this script made it"),
    (lambda folder: (folder / "val_label.txt").unlink(), "val_label.txt: is gone"),
    (lambda folder: shutil.rmtree(str(folder / "val")), "val: is gone"),
    (lambda folder: replace(folder / "resnet34-tiny.pth", b""), "resnet34-tiny.pth: is not as this script made it"),
    (lambda folder: (replace(folder / "val_label.txt", b""), (folder / "val_label.txt").unlink(),
                     os.mkfifo(str(folder / "val_label.txt"))), "val_label.txt: is no regular file"),
    (lambda folder: replace(folder / ".tiny.json", b"[1, 2]"), ".tiny.json: is damaged"),
    (lambda folder: replace(folder / ".tiny.json", b"[" * 100000), ".tiny.json: is damaged"),
    (lambda folder: replace(folder / ".tiny.json", json.dumps({"script_sha256": "0", "files": {}}).encode()), "another version"),
    (lambda folder: (folder / ".tiny.json").unlink(), "another version"),
], ids=["image", "image more", "no labels", "no images", "weights", "FIFO", "record", "deep record", "other script", "no record"])
def test_a_folder_that_is_not_as_it_was_made_is_refused_with_the_remedy(harm, words, copy):
    harm(copy)
    before = sorted(os.listdir(str(copy)))
    sentence = fails(1, SCRIPT, copy, timeout=20)
    assert words in sentence and "remove the folder" in sentence
    assert sorted(os.listdir(str(copy))) == before


def test_a_killed_run_leaves_what_the_next_removes_and_a_stopped_one_nothing(tmp_path):
    theirs, held, dead = (tmp_path / name for name in (".tiny.notes.tmp", ".tiny.89abcdef.tmp", ".tiny.0123abcd.tmp"))
    for folder in (theirs, held, dead):
        folder.mkdir()
        (folder / "val").write_bytes(b"")
    lock = os.open(str(held), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as a run that is at work does
    process = subprocess.Popen(command(SCRIPT, tmp_path / "tiny"), stderr=subprocess.PIPE)

    def at_work():  # its own folder has images, of which it writes 64
        own = [name for name in os.listdir(str(tmp_path)) if name not in (theirs.name, held.name, dead.name)]
        return own and os.path.isdir(str(tmp_path / own[0] / "val")) and len(os.listdir(str(tmp_path / own[0] / "val"))) > 2
    assert wait_until(at_work, process)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate()
    os.close(lock)
    assert process.returncode == 143 and printed.startswith(b"stopped; ") and printed.count(b"\n") == 1
    assert sorted(os.listdir(str(tmp_path))) == [held.name, theirs.name]


def test_full_and_closed_outputs_are_no_traceback(tiny):
    for redirection, code in ((">/dev/full", 1), (">&- 2>&-", 0), ("| true", 0)):
        line = ["bash", "-c", '"$@" ' + redirection, "bash"] + command(SCRIPT, tiny)
        process = subprocess.run(line, capture_output=True, encoding="utf-8")
        assert process.returncode == code and "Traceback" not in process.stderr and "Exception" not in process.stderr
    assert "no such" in script(SCRIPT, "/proc/none/tiny").stderr.lower()


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
