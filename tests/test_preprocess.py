"""imagenet_torch_preprocess.py: the same bits as torchvision, whole files only, nothing skipped in silence."""
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY, contents, fails, script, succeeds
from PIL import Image

SCRIPT = "imagenet_torch_preprocess.py"
random = np.random.RandomState(0)


def noise(width, height, channels=3):
    return random.randint(0, 256, (height, width, channels)).astype(np.uint8).squeeze()


def save_every_kind(folder):
    """One file of every mode and shape that people's folders hold."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(500, 375)).save(str(folder / "rgb.JPEG"))
    Image.fromarray(noise(375, 500)).save(str(folder / "portrait.JPEG"))
    Image.fromarray(noise(500, 333, 1)).save(str(folder / "grey.JPEG"))
    Image.fromarray(noise(300, 280, 4), "CMYK").save(str(folder / "cmyk.JPEG"))
    Image.fromarray(noise(301, 257, 2), "LA").save(str(folder / "la.png"))
    Image.fromarray(noise(257, 391)).convert("P").save(str(folder / "palette.png"))
    Image.fromarray(noise(257, 301)).convert("P").save(str(folder / "transparent_palette.png"), transparency=3)
    Image.fromarray(noise(400, 300, 4), "RGBA").save(str(folder / "rgba.png"))
    Image.fromarray(random.randint(0, 65536, (270, 310)).astype(np.uint16)).save(str(folder / "sixteen_bit.png"))
    Image.fromarray(noise(300, 300, 1)).convert("1").save(str(folder / "one_bit.png"))
    Image.fromarray(noise(320, 280)).save(str(folder / "png_inside.JPEG"), format="PNG")
    Image.fromarray(noise(57, 43)).save(str(folder / "small.JPEG"))
    Image.fromarray(noise(1, 1)).save(str(folder / "one_pixel.png"))
    Image.fromarray(noise(2000, 31)).save(str(folder / "wide.JPEG"))
    Image.fromarray(noise(23, 900)).save(str(folder / "tall.JPEG"))
    Image.fromarray(noise(256, 256)).save(str(folder / "exact.png"))
    Image.fromarray(noise(256, 511)).save(str(folder / "odd_height.png"))
    Image.fromarray(noise(343, 342)).save(str(folder / "near.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(500, 375)).save(str(folder / "turned.JPEG"), exif=exif.tobytes())


def torchvision_tensor(path, model_type):
    from torchvision import transforms
    resize, crop = (256, 224) if model_type == "resnet" else (342, 299)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if model_type != "inceptionv4" else ([0.5] * 3, [0.5] * 3)
    recipe = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop), transforms.ToTensor(),
                                 transforms.Normalize(mean, std)])
    with open(str(path), "rb") as file:
        return recipe(Image.open(file).convert("RGB")).numpy().astype("<f4")


def assert_same_bits(images, prepared, model_type):
    assert len(images) == len(list(prepared.glob("*.bin"))) > 0
    for image in images:
        expected = torchvision_tensor(image, model_type)
        assert (prepared / (image.name.split(".")[0] + ".bin")).read_bytes() == expected.tobytes(), image


@pytest.mark.parametrize("model_type", ["resnet", "inceptionv3", "inceptionv4"])
def test_every_mode_and_size_gives_the_bits_of_torchvision(model_type, tmp_path):
    save_every_kind(tmp_path / "val")
    succeeds(SCRIPT, model_type, tmp_path / "val", tmp_path / "prep")
    assert_same_bits(sorted((tmp_path / "val").iterdir()), tmp_path / "prep", model_type)


@pytest.mark.skipif("IMAGENET_VAL" not in os.environ, reason="IMAGENET_VAL names no folder of real images")
def test_real_images_give_the_bits_of_torchvision(tmp_path):
    from pathlib import Path
    succeeds(SCRIPT, "resnet", os.environ["IMAGENET_VAL"], tmp_path / "prep", "--limit", "100")
    images = sorted(Path(os.environ["IMAGENET_VAL"]).glob("*.JPEG"))[:100]
    assert_same_bits(images, tmp_path / "prep", "resnet")


@pytest.fixture
def val(tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    for number in range(1, 31):
        Image.fromarray(noise(64, 48)).save(str(folder / ("ILSVRC2012_val_%08d.JPEG" % number)))
    return folder


def test_a_resnet_file_has_602112_bytes_and_the_folder_one_file_an_image(val, tmp_path):
    process = succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    visible = [name for name in os.listdir(str(tmp_path / "prep")) if not name.startswith(".")]
    assert sorted(visible) == ["ILSVRC2012_val_%08d.bin" % number for number in range(1, 31)]
    assert {(tmp_path / "prep" / name).stat().st_size for name in visible} == {602112}
    assert "30 of 30" in process.stdout


def test_class_folders_give_the_same_files_as_a_flat_folder(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "flat")
    for number, image in enumerate(sorted(val.iterdir())):
        (val / ("n%08d" % (number % 7))).mkdir(exist_ok=True)
        image.rename(val / ("n%08d" % (number % 7)) / image.name)
    succeeds(SCRIPT, "resnet", val, tmp_path / "folders")
    assert contents(tmp_path / "flat") == contents(tmp_path / "folders")


def test_limit_takes_the_first_names_from_class_folders_too(val, tmp_path):
    (val / "n1").mkdir()
    (val / "ILSVRC2012_val_00000002.JPEG").rename(val / "n1" / "ILSVRC2012_val_00000002.JPEG")
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep", "--limit", "3")
    assert sorted(path.name[-7:] for path in (tmp_path / "prep").glob("*.bin")) == ["001.bin", "002.bin", "003.bin"]


def test_one_worker_and_many_give_the_same_files(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "one", "--workers", "1")
    succeeds(SCRIPT, "resnet", val, tmp_path / "many", "-j", "40")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_two_images_of_one_name_are_refused_before_any_work(val, tmp_path):
    Image.fromarray(noise(64, 48)).save(str(val / "ILSVRC2012_val_00000007.png"))
    sentence = fails(1, SCRIPT, "resnet", val, tmp_path / "prep")
    assert "ILSVRC2012_val_00000007.JPEG" in sentence and "ILSVRC2012_val_00000007.png" in sentence
    assert not (tmp_path / "prep").exists()


def test_files_that_are_no_images_are_left_aside_and_counted(val, tmp_path):
    for name in ("val_label.txt", ".DS_Store", "._ILSVRC2012_val_00000001.JPEG"):
        (val / name).write_text("x")
    assert "3 other files left aside" in succeeds(SCRIPT, "resnet", val, tmp_path / "prep").stdout


def test_each_unreadable_image_is_named_and_the_rest_are_done(val, tmp_path):
    (val / "ILSVRC2012_val_00000003.JPEG").write_bytes(b"not an image")
    whole = (val / "ILSVRC2012_val_00000005.JPEG").read_bytes()
    (val / "ILSVRC2012_val_00000005.JPEG").write_bytes(whole[:len(whole) // 2])
    (val / "ILSVRC2012_val_00000009.JPEG").write_bytes(b"")
    process = script(SCRIPT, "resnet", val, tmp_path / "prep")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    for number in (3, 5, 9):
        assert "ILSVRC2012_val_%08d.JPEG: cannot be read as an image" % number in process.stderr
    assert "3 of 30" in process.stderr.splitlines()[-1]
    assert len(list((tmp_path / "prep").glob("*.bin"))) == 27


def test_a_second_run_keeps_finished_files_and_overwrite_makes_them_again(val, tmp_path):
    prep = tmp_path / "prep"
    succeeds(SCRIPT, "resnet", val, prep)
    made = {path: path.stat().st_mtime_ns for path in prep.glob("*.bin")}
    assert "30 kept" in succeeds(SCRIPT, "resnet", val, prep).stdout
    assert made == {path: path.stat().st_mtime_ns for path in prep.glob("*.bin")}
    succeeds(SCRIPT, "resnet", val, prep, "--overwrite")
    assert all(path.stat().st_mtime_ns > before for path, before in made.items())


def test_a_shortened_file_and_one_older_than_its_image_are_made_again(val, tmp_path):
    prep = tmp_path / "prep"
    succeeds(SCRIPT, "resnet", val, prep)
    undisturbed = contents(prep)
    (prep / "ILSVRC2012_val_00000004.bin").write_bytes(b"half")
    new = noise(80, 80)
    Image.fromarray(new).save(str(val / "ILSVRC2012_val_00000008.JPEG"))
    later = time.time() + 5
    os.utime(str(val / "ILSVRC2012_val_00000008.JPEG"), (later, later))
    assert "2 made now, 28 kept" in succeeds(SCRIPT, "resnet", val, prep).stdout
    changed = {name for name, data in contents(prep).items() if data != undisturbed[name]}
    assert changed == {"ILSVRC2012_val_00000008.bin"}


def test_a_killed_run_leaves_whole_files_alone_and_the_next_one_completes_them(tmp_path):
    val, prep = tmp_path / "val", tmp_path / "prep"
    val.mkdir()
    for number in range(60):
        Image.fromarray(noise(900, 700)).save(str(val / ("%03d.JPEG" % number)))
    for moment in (1, 20):  # killed after the first file, and later
        process = subprocess.Popen([sys.executable, str(REPOSITORY / SCRIPT), "resnet", str(val), str(prep)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(list(prep.glob("*.bin"))) < moment:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert {path.stat().st_size for path in prep.glob("*.bin")} <= {602112}
    succeeds(SCRIPT, "resnet", val, prep)
    succeeds(SCRIPT, "resnet", val, tmp_path / "undisturbed")
    assert contents(prep) == contents(tmp_path / "undisturbed")


@pytest.fixture
def running(tmp_path):
    """A run over 100 larger images that has just finished its first files: (the process, its DST)."""
    val, prep = tmp_path / "val", tmp_path / "prep"
    val.mkdir()
    for number in range(100):
        Image.fromarray(noise(900, 700)).save(str(val / ("%03d.JPEG" % number)))
    process = subprocess.Popen([sys.executable, str(REPOSITORY / SCRIPT), "resnet", str(val), str(prep)], start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    while not list(prep.glob("*.bin")):
        time.sleep(0.002)
    return process, prep


def test_workers_end_when_their_parent_is_killed(running):
    process, prep = running
    process.kill()
    process.communicate(timeout=20)  # returns when the workers, which hold the same stderr, have ended
    assert len(list(prep.glob("*.bin"))) < 100


def test_a_worker_that_dies_is_an_error_and_not_a_hang(running):
    process, prep = running
    with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as children:
        os.kill(int(children.read().split()[0]), signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "worker process died (exit code -9" in errors and "Traceback" not in errors


def test_ctrl_c_ends_with_a_sentence_and_keeps_what_is_finished(running):
    process, prep = running
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same line again" in errors and "Traceback" not in errors
    assert {path.stat().st_size for path in prep.glob("*.bin")} == {602112}


def test_another_model_type_in_the_same_folder_is_refused(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    before = contents(tmp_path / "prep")
    sentence = fails(1, SCRIPT, "inceptionv3", val, tmp_path / "prep")
    assert "resnet" in sentence and "inceptionv3" in sentence
    assert contents(tmp_path / "prep") == before


def test_files_of_other_images_in_the_folder_are_refused(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    sentence = fails(1, SCRIPT, "resnet", val, tmp_path / "prep", "--limit", "29")
    assert "ILSVRC2012_val_00000030.bin" in sentence


def test_finished_files_of_unknown_origin_are_refused(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    (tmp_path / "prep" / ".model_type").unlink()
    assert "--overwrite" in fails(1, SCRIPT, "resnet", val, tmp_path / "prep")
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep", "--overwrite")


def test_strange_characters_in_paths_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "it's \"val\"\nof $HOME * --x"
    folder.mkdir()
    Image.fromarray(noise(64, 48)).save(str(folder / "-a b\n'c'.JPEG"))
    succeeds(SCRIPT, "resnet", folder, tmp_path / "prep dir")
    assert (tmp_path / "prep dir" / "-a b\n'c'.bin").stat().st_size == 602112


def test_bad_sources_and_destinations_are_named(val, tmp_path):
    assert "nowhere" in fails(1, SCRIPT, "resnet", tmp_path / "nowhere", tmp_path / "prep")
    (tmp_path / "empty").mkdir()
    sentence = fails(1, SCRIPT, "resnet", tmp_path / "empty", tmp_path / "prep")
    assert "no images found" in sentence and ".jpeg" in sentence
    (tmp_path / "file").write_text("x")
    assert "file" in fails(1, SCRIPT, "resnet", val, tmp_path / "file")


@pytest.mark.parametrize("arguments", [["resnet"], ["vgg", "a", "b"], ["resnet", "a", "b", "--workers", "0"],
                                       ["resnet", "a", "b", "--limit", "-1"], ["resnet", "a", "b", "c"]])
def test_wrong_usage_exits_with_2(arguments):
    fails(2, SCRIPT, *arguments)


@pytest.mark.parametrize("module", ["imagenet_torch_preprocess", "imagenet_acc_eval", "onnx_infer"])
def test_the_stages_that_need_no_torch_do_not_import_it(module):
    code = "import sys, %s; sys.exit(any(name in sys.modules for name in ('torch', 'torchvision')))" % module
    assert subprocess.run([sys.executable, "-c", code], cwd=str(REPOSITORY)).returncode == 0
