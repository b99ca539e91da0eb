"""imagenet_torch_preprocess.py: the same bits as torchvision, whole files only, nothing skipped in silence."""
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
import xxhash
from conftest import FLOAT_RECIPE, REPOSITORY, UINT8_RECIPE, command, contents, draw_images, fails, script, succeeds, wait_until
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


def torchvision_pixels(image, interpolation, resize=256, crop=224):
    """The pixels that torchvision's Resize and CenterCrop give of a PIL image; 0.7 knew Pillow's numbers alone."""
    from torchvision import transforms
    modes = getattr(transforms, "InterpolationMode", None)
    mode = modes(interpolation) if modes else getattr(Image, interpolation.upper())
    return transforms.CenterCrop(crop)(transforms.Resize(resize, interpolation=mode)(image))


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


RATIOS = sorted({(320, 320 * ratio) for ratio in range(1, 13)} | {(320 * ratio, 320) for ratio in range(1, 13)}
                | {(90, 90 * ratio // 2) for ratio in range(2, 25)} | {(300, 600 + more) for more in range(-3, 4)}
                | {(600 + more, 300) for more in range(-3, 4)} | {(256, 700), (700, 256), (320, 685), (257, 3084), (513, 1026)})


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_of_all_ratios_from_1_12_to_12_1_give_the_bits_of_torchvision(interpolation, tmp_path):
    from torchvision import transforms
    (tmp_path / "val").mkdir()
    for width, height in RATIOS:
        Image.fromarray(noise(width, height)).save(str(tmp_path / "val" / ("%dx%d.ppm" % (width, height))))
    for dtype in ("float32", "uint8"):
        succeeds(SCRIPT, "resnet", tmp_path / "val", tmp_path / dtype, "--dtype", dtype, "--interpolation", interpolation)
    normalised = transforms.Compose([transforms.ToTensor(), transforms.Normalize(FLOAT_RECIPE["mean"], FLOAT_RECIPE["std"])])
    for width, height in RATIOS:
        name = "%dx%d" % (width, height)
        pixels = torchvision_pixels(Image.open(str(tmp_path / "val" / (name + ".ppm"))), interpolation)
        assert (tmp_path / "uint8" / (name + ".bin")).read_bytes() == pixels.tobytes(), name
        assert (tmp_path / "float32" / (name + ".bin")).read_bytes() == normalised(pixels).numpy().tobytes(), name


@pytest.mark.skipif("IMAGENET_VAL" not in os.environ, reason="IMAGENET_VAL names no folder of real images")
def test_real_images_give_the_bits_of_torchvision(tmp_path):
    succeeds(SCRIPT, "resnet", os.environ["IMAGENET_VAL"], tmp_path / "prep", "--limit", "100")
    images = sorted(Path(os.environ["IMAGENET_VAL"]).glob("*.JPEG"))[:100]
    assert_same_bits(images, tmp_path / "prep", "resnet")


def bins(folder):
    return {name: data for name, data in contents(folder).items() if name.endswith(".bin")}


def unlocked(folder):
    """All but the lock, in which each run leaves its number."""
    return {name: data for name, data in contents(folder).items() if name != ".lock"}


def manifest(folder):
    return [json.loads(line) for line in (folder / ".manifest").read_text().splitlines()]


def stat_of(path):
    status = os.stat(str(path))
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def record(folder):
    return json.loads((folder / ".recipe.json").read_text())


def assert_whole(folder, images):
    """The folder is as a reader insists: the manifest lists exactly the .bin files, in order, with hashes and stats."""
    rows = manifest(folder)
    assert [row[0] for row in rows] == sorted(image.name.split(".")[0] for image in images)
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [row[0] + ".bin" for row in rows]
    for name, source, *recorded in rows:
        path = folder / (name + ".bin")
        hashes = [xxhash.xxh3_128_hexdigest(file.read_bytes()) for file in (Path(source), path)]
        assert recorded == [hashes[0], stat_of(source), hashes[1], stat_of(path)]
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [".lock", ".manifest", ".recipe.json"]
    assert record(folder)["complete"] is True


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with 12 images in val and the prep_dataset that was made of them in prep, for others to copy."""
    folder = tmp_path_factory.mktemp("finished")
    draw_images(folder / "val", 12)
    succeeds(SCRIPT, "resnet", folder / "val", folder / "prep")
    return folder


@pytest.fixture
def val(finished, tmp_path):
    shutil.copytree(str(finished / "val"), str(tmp_path / "val"))
    return tmp_path / "val"


@pytest.fixture
def prep(finished, val, tmp_path):
    """A prep_dataset of val as the script made it here."""
    shutil.copytree(str(finished / "prep"), str(tmp_path / "prep"))
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    return tmp_path / "prep"


# What is made.

def test_a_resnet_file_has_602112_bytes_and_the_folder_one_file_an_image(val, prep):
    assert {path.stat().st_size for path in prep.glob("*.bin")} == {602112}
    assert_whole(prep, list(val.iterdir()))


def test_the_recipe_says_how_the_files_were_made(prep, val):
    found = record(prep)
    assert len(found.pop("set_hash")) == 32
    assert found == {"version": 2, "model_type": "resnet", "recipe": FLOAT_RECIPE, "pillow": PIL.__version__, "shard": None,
                     "source": str(val), "complete": True}


def test_uint8_files_are_the_pixels_whose_normalisation_is_the_float_file(val, prep, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "uint8", "--dtype", "uint8")
    assert record(tmp_path / "uint8")["recipe"] == UINT8_RECIPE
    mean, std = (np.array(FLOAT_RECIPE[key], np.float32) for key in ("mean", "std"))
    for name, data in bins(tmp_path / "uint8").items():
        assert len(data) == 150528
        pixels = np.frombuffer(data, np.uint8).reshape(224, 224, 3)
        assert ((pixels.astype("<f4") / np.float32(255) - mean) / std).transpose(2, 0, 1).tobytes() == bins(prep)[name]
    assert_whole(tmp_path / "uint8", list(val.iterdir()))


def test_a_net_trained_otherwise_has_its_own_resize_crop_mean_and_std(val, tmp_path):
    from torchvision import transforms
    options = "--resize 100 --crop 96 --mean 0.1,0.2,0.3 --std 1,0.5,0.4".split()
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep", *options)
    assert record(tmp_path / "prep")["recipe"] == dict(FLOAT_RECIPE, resize=100, crop=96, mean=[0.1, 0.2, 0.3], std=[1, 0.5, 0.4])
    theirs = transforms.Compose([transforms.Resize(100), transforms.CenterCrop(96), transforms.ToTensor(),
                                 transforms.Normalize([0.1, 0.2, 0.3], [1, 0.5, 0.4])])
    image = sorted(val.iterdir())[0]
    expected = theirs(Image.open(str(image)).convert("RGB")).numpy().astype("<f4").tobytes()
    assert (tmp_path / "prep" / (image.stem + ".bin")).read_bytes() == expected


def test_class_folders_give_the_same_files_as_a_flat_folder(val, prep, tmp_path):
    for number, image in enumerate(sorted(val.iterdir())):
        (val / ("n%08d" % (number % 7))).mkdir(exist_ok=True)
        image.rename(val / ("n%08d" % (number % 7)) / image.name)
    succeeds(SCRIPT, "resnet", val, tmp_path / "folders")
    assert bins(tmp_path / "folders") == bins(prep)


def test_equal_names_in_class_folders_take_the_folders_name_before_theirs(val, tmp_path):
    images = sorted(val.iterdir())
    for number, name in enumerate(("bike/IMG_1.jpg", "cup/IMG_1.jpg", "v1.0/IMG_1.jpg", "cup/only.jpg")):
        (val / name).parent.mkdir(exist_ok=True)
        images[number].rename(val / name)
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep")
    names = {row[0] for row in manifest(tmp_path / "prep")}
    assert {"bike__IMG_1", "cup__IMG_1", "v1_0__IMG_1", "only"} < names and "cup__only" not in names


@pytest.mark.parametrize("other", ["ILSVRC2012_val_00000007.png", "a/b__x.jpg"])
def test_two_images_of_one_name_are_refused_before_any_work(val, tmp_path, other):
    if "/" in other:  # a/x and b/x and, flat, a__x
        for name in ("a/x.jpg", "b/x.jpg", "a__x.jpg"):
            (val / name).parent.mkdir(exist_ok=True)
            shutil.copy(str(val / "ILSVRC2012_val_00000001.JPEG"), str(val / name))
    else:
        shutil.copy(str(val / "ILSVRC2012_val_00000007.JPEG"), str(val / other))
    assert "would both be called" in fails(1, SCRIPT, "resnet", val, tmp_path / "prep")
    assert not (tmp_path / "prep").exists()


def test_one_worker_and_many_give_the_same_files(val, prep, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "many", "-j", "40")
    assert bins(tmp_path / "many") == bins(prep)


def test_limit_takes_the_first_names_from_class_folders_too(val, tmp_path):
    (val / "n1").mkdir()
    (val / "ILSVRC2012_val_00000002.JPEG").rename(val / "n1" / "ILSVRC2012_val_00000002.JPEG")
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep", "--limit", "3")
    assert sorted(name[-7:] for name in bins(tmp_path / "prep")) == ["001.bin", "002.bin", "003.bin"]


def test_a_limit_that_takes_images_of_few_class_folders_is_warned_of(tmp_path):
    for number, name in enumerate(("bike", "cup", "dog", "egg")):
        for path in draw_images(tmp_path / "val" / name, 3, 3 * number):
            path.rename(path.parent / ("%s_%s" % (name, path.name)))
    for limit, warned in (("3", True), ("12", False)):
        process = succeeds(SCRIPT, "resnet", tmp_path / "val", tmp_path / limit, "--limit", limit)
        assert ("warning: --limit 3: the first names are of 1 of 4 class folders; --sample 3" in process.stderr) == warned
    assert succeeds(SCRIPT, "resnet", tmp_path / "val" / "cup", tmp_path / "flat", "--limit", "2").stderr == ""


def test_a_sample_is_always_the_same_and_of_the_whole_set(val, tmp_path):
    for folder in ("a", "b"):
        succeeds(SCRIPT, "resnet", val, tmp_path / folder, "--sample", "4")
    names = [row[0] for row in manifest(tmp_path / "a")]
    assert len(names) == 4 and names == [row[0] for row in manifest(tmp_path / "b")] and names[-1][-2:] > "04"


def test_shards_are_blocks_of_the_names_and_together_the_whole(val, prep, tmp_path):
    lines = [command(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "%d/5" % shard) for shard in range(1, 6)]
    processes = [subprocess.Popen(line) for line in lines]  # all at once
    assert [process.wait(60) for process in processes] == [0] * 5
    folders = [tmp_path / "parts" / ("shard%d_of_5" % shard) for shard in range(1, 6)]
    assert [row[0] for folder in folders for row in manifest(folder)] == [row[0] for row in manifest(prep)]
    assert {name: data for folder in folders for name, data in bins(folder).items()} == bins(prep)
    assert record(folders[1])["shard"] == [2, 5]
    assert {record(folder)["set_hash"] for folder in folders} == {record(prep)["set_hash"]}
    assert "too few for 13 shards" in fails(1, SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/13")


def test_images_without_a_label_are_refused_before_work(val, tmp_path):
    labels = tmp_path / "val_label.txt"
    lines = ["%s %d\n" % (image.name, 3) for image in sorted(val.iterdir())]
    labels.write_text("".join(lines))
    succeeds(SCRIPT, "resnet", val, tmp_path / "prep", "--labels", labels, "--limit", "2")
    labels.write_text("".join(lines[:-2]))
    sentence = fails(1, SCRIPT, "resnet", val, tmp_path / "new", "--labels", labels)
    assert "2 of the 12 images" in sentence and "00000011.JPEG" in sentence and not (tmp_path / "new").exists()
    for wrong in (lines[0].replace(" 3", " 5 253"), "x.JPEG tench\n", "x.JPEG\n"):
        labels.write_text(wrong)
        assert "line 1 " in fails(1, SCRIPT, "resnet", val, tmp_path / "new", "--labels", labels)
    assert "is a folder, not a label file" in fails(1, SCRIPT, "resnet", val, tmp_path / "new", "--labels", val)


def test_files_left_aside_are_counted_and_the_first_named(val, tmp_path):
    for name in ("val_label.txt", ".DS_Store", "._x.JPEG", "a.heic", "b.HEIC", "c.heic"):
        (val / name).write_text("x")
    output = succeeds(SCRIPT, "resnet", val, tmp_path / "prep").stdout
    assert "6 other files left aside: " in output and "a.heic" in output


def test_pictures_that_are_no_data_are_left_aside(val, prep, tmp_path):
    """The report's own picture in the same folder, and what a Synology and a Mac add."""
    for name in ("report.png", "@eaDir/thumb.jpg", "__MACOSX/._x.jpg", ".hidden/x.jpg"):
        (val / name).parent.mkdir(exist_ok=True)
        shutil.copy(str(val / "ILSVRC2012_val_00000001.JPEG"), str(val / name))
    (val / "report.json").write_text("{}")
    succeeds(SCRIPT, "resnet", val, tmp_path / "new")
    assert bins(tmp_path / "new") == bins(prep)


def test_labels_in_a_macs_spelling_are_those_of_the_images(tmp_path):
    [image] = draw_images(tmp_path / "val", 1)
    image.rename(tmp_path / "val" / "caf\u00e9.jpg")
    (tmp_path / "val_label.txt").write_text("cafe\u0301.jpg 3\n", encoding="utf-8")
    succeeds(SCRIPT, "resnet", tmp_path / "val", tmp_path / "prep", "--labels", tmp_path / "val_label.txt")


# What is refused.

def test_each_unreadable_image_is_named_and_the_rest_are_done(val, tmp_path):
    (val / "ILSVRC2012_val_00000003.JPEG").write_bytes(b"not an image")
    whole = (val / "ILSVRC2012_val_00000005.JPEG").read_bytes()
    (val / "ILSVRC2012_val_00000005.JPEG").write_bytes(whole[:len(whole) // 2])
    (val / "ILSVRC2012_val_00000007.JPEG").write_bytes(b"")
    process = script(SCRIPT, "resnet", val, tmp_path / "prep")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    for number in (3, 5, 7):
        assert "ILSVRC2012_val_%08d.JPEG: cannot be read as an image" % number in process.stderr
    assert "3 of 12" in process.stderr.splitlines()[-1]
    assert_whole(tmp_path / "prep", [image for image in val.iterdir() if image.name[-6] not in "357"])


def test_an_image_that_has_become_unreadable_does_not_keep_its_old_file(val, prep):
    (val / "ILSVRC2012_val_00000003.JPEG").write_bytes(b"not an image")
    fails(1, SCRIPT, "resnet", val, prep)
    assert_whole(prep, [image for image in val.iterdir() if image.name[-6] != "3"])


def test_a_fifo_an_eps_a_bomb_and_an_endless_strip_are_refused_with_a_sentence(val, tmp_path):
    os.mkfifo(str(val / "fifo.JPEG"))
    Image.fromarray(noise(64, 48)).save(str(val / "postscript.JPEG"), format="EPS")
    Image.new("1", (20000, 9000)).save(str(val / "bomb.png"))
    Image.fromarray(noise(20000, 1)).save(str(val / "strip.png"))
    Image.fromarray(noise(4000, 8)).save(str(val / "panorama.png"))
    process = script(SCRIPT, "resnet", val, tmp_path / "prep", timeout=60)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    reasons = {"fifo.JPEG": "is no regular file", "postscript.JPEG": "is none of JPEG PNG", "bomb.png": "bomb",
               "strip.png": "after resizing"}
    for name, reason in reasons.items():
        assert [line for line in process.stderr.splitlines() if name in line and reason in line], (name, process.stderr)
    assert "4 of 17" in process.stderr and (tmp_path / "prep" / "panorama.bin").exists()


def test_another_recipe_in_the_same_folder_is_refused(val, prep):
    before = unlocked(prep)
    for model_type, option, difference in (("inceptionv3", "", "resize 256, not 342"),
                                           ("resnet", "--crop 192", "crop 224, not 192"), ("resnet", "--mean 0,0,0", "mean"),
                                           ("resnet", "--interpolation bicubic", "interpolation bilinear, not bicubic"),
                                           ("resnet", "--dtype uint8", "dtype float32, not uint8")):
        assert difference in fails(1, SCRIPT, model_type, val, prep, *option.split())
    assert unlocked(prep) == before
    succeeds(SCRIPT, "resnet", val, prep, "--dtype", "uint8", "--overwrite")
    assert {len(data) for data in bins(prep).values()} == {150528}
    assert_whole(prep, list(val.iterdir()))


@pytest.mark.parametrize("name, recorded", [("ILSVRC2012_val_00000003.bin", False), ("stranger.bin", True), ("mine.NPY", True)])
def test_files_of_the_users_own_are_refused_and_stay(val, prep, tmp_path, name, recorded):
    if not recorded:
        shutil.rmtree(str(prep))
    (tmp_path / "prep").mkdir(exist_ok=True)
    (tmp_path / "prep" / name).write_text("mine")
    before = bins(tmp_path / "prep")
    for arguments in ([], ["--overwrite"]):
        assert name in fails(1, SCRIPT, "resnet", val, tmp_path / "prep", *arguments)
    assert bins(tmp_path / "prep") == before and (tmp_path / "prep" / name).read_text() == "mine"


def test_a_smaller_limit_says_how_many_images_of_this_set_are_too_many(val, prep):
    before = unlocked(prep)
    sentence = fails(1, SCRIPT, "resnet", val, prep, "--limit", "8")
    assert "holds 4 images that are not asked for (first: ILSVRC2012_val_00000009.bin)" in sentence
    assert unlocked(prep) == before


def test_the_users_files_in_src_survive_when_dst_is_src_or_lies_in_it(val, tmp_path):
    before = contents(val)
    for destination, says in ((val / "prep", "0 other files"), (val / "prep", "kept: "), (val, "12 made now"), (val, "kept: ")):
        assert says in succeeds(SCRIPT, "resnet", val, destination).stdout
    after = contents(val)
    assert {name: after[name] for name in before} == before
    assert bins(val / "prep") == {path.name: path.read_bytes() for path in val.glob("*.bin")} and len(bins(val / "prep")) == 12


def test_damaged_records_are_named(val, prep):
    for text in ('{"version": 2, "recipe": {"resize": "x"}}', '{"version": 2, "recipe": 3}', "[]", "[1"):
        (prep / ".recipe.json").write_text(text)
        assert ".recipe.json" in fails(1, SCRIPT, "resnet", val, prep)
    succeeds(SCRIPT, "resnet", val, prep, "--overwrite")
    assert_whole(prep, list(val.iterdir()))
    succeeds(SCRIPT, "resnet", val, val.parent / "new")
    (val.parent / "new" / ".manifest").write_bytes(b"\xff\0[[[{")
    assert "00000001.bin" in fails(1, SCRIPT, "resnet", val, val.parent / "new")


def test_bad_sources_and_destinations_are_named(val, tmp_path):
    assert "nowhere" in fails(1, SCRIPT, "resnet", tmp_path / "nowhere", tmp_path / "prep")
    (tmp_path / "empty").mkdir()
    sentence = fails(1, SCRIPT, "resnet", tmp_path / "empty", tmp_path / "prep")
    assert "no images found" in sentence and ".jpeg" in sentence
    (tmp_path / "file").write_text("x")
    assert "file" in fails(1, SCRIPT, "resnet", val, tmp_path / "file")
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / ("n" * 251 + ".jpg")).write_text("x")  # 255 bytes: its result, _0.txt, would have a longer name
    assert "leaves no room" in fails(1, SCRIPT, "resnet", tmp_path / "long", tmp_path / "prep")


@pytest.mark.parametrize("arguments", ["", "vgg a b", "resnet a b c"] + ["resnet a b --" + option for option in (
    "workers 0", "limit -1", "crop 300", "resize 5000", "mean 123.675,116.28,103.53", "mean nan,0,0", "std 0,1,1", "std 1,1",
    "shard 3/2", "shard 0/2", "shard 1", "dtype float16", "interpolation nearest")])
def test_wrong_usage_exits_with_2(arguments):
    fails(2, SCRIPT, *arguments.split())


# What is kept and what is made again.

def times(prep):
    return {path.name: path.stat().st_mtime_ns for path in prep.iterdir() if path.name != ".lock"}


def test_a_second_run_says_kept_in_one_line_and_touches_nothing_and_overwrite_makes_all_again(val, prep):
    made = times(prep)
    assert succeeds(SCRIPT, "resnet", val, prep).stdout == "kept: %s, 12 images for resnet, just these\n" % prep
    assert times(prep) == made
    assert "12 made now" in succeeds(SCRIPT, "resnet", val, prep, "--overwrite").stdout
    assert all(times(prep)[path.name] > made[path.name] for path in prep.glob("*.bin"))


def test_check_says_by_its_exit_code_whether_there_is_anything_to_do_and_changes_nothing(val, prep, tmp_path):
    def check(*options):
        return script(SCRIPT, "resnet", val, *options, "--check").returncode
    before, made = unlocked(prep), times(prep)
    assert check(prep) == 0 and check(tmp_path / "new") == check(prep, "--overwrite") == check(prep, "--dtype", "uint8") == 1
    for image in val.iterdir():
        os.utime(str(image), (2e9, 2e9))
    assert check(prep) == 0  # the same pictures
    Image.fromarray(noise(80, 80)).save(str(val / "ILSVRC2012_val_00000012.JPEG"))
    assert check(prep) == 1 and check(prep, "--limit", "11") == 1
    assert unlocked(prep) == before and times(prep) == made and not (tmp_path / "new").exists()
    unlink = val / "ILSVRC2012_val_00000012.JPEG"
    unlink.unlink()
    assert check(prep) == 1
    succeeds(SCRIPT, "resnet", val, prep)
    assert check(prep) == 0


def test_what_is_not_as_the_manifest_says_is_made_again(val, prep):
    undisturbed, images = bins(prep), sorted(val.iterdir())
    (prep / (images[0].stem + ".bin")).write_bytes(b"half")
    path = prep / (images[1].stem + ".bin")
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(str(path), (2e9, 2e9))  # newer than all else
    (prep / (images[2].stem + ".bin")).unlink()
    Image.fromarray(noise(80, 80)).save(str(images[3]))
    os.utime(str(images[3]), (1.3e9, 1.3e9))  # another image, dated 2011
    assert "4 made now, 8 kept" in succeeds(SCRIPT, "resnet", val, prep).stdout
    assert {name for name, data in bins(prep).items() if data != undisturbed[name]} == {images[3].stem + ".bin"}
    assert_whole(prep, images)


def test_pictures_exchanged_under_equal_size_and_time_are_found(val, prep, tmp_path):
    first, second = [val / ("ILSVRC2012_val_0000000%d.JPEG" % number) for number in (1, 2)]
    for path in (first, second):  # one size, one time, as a reproducible archive has them
        path.write_bytes(path.read_bytes().ljust(9000, b"\0"))
        os.utime(str(path), (1.3e9, 1.3e9))
    succeeds(SCRIPT, "resnet", val, prep)
    before = bins(prep)
    first.rename(val / "x"), second.rename(first), (val / "x").rename(second)
    assert first.stat().st_size == second.stat().st_size and first.stat().st_mtime_ns == second.stat().st_mtime_ns
    assert "2 made now, 10 kept" in succeeds(SCRIPT, "resnet", val, prep).stdout
    after = bins(prep)
    assert [after[path.stem + ".bin"] for path in (first, second)] == [before[path.stem + ".bin"] for path in (second, first)]
    assert_whole(prep, list(val.iterdir()))


@pytest.mark.parametrize("carry", ["tar -C {0} -cf - . | tar -C {1} -xf -", "scp -qpr {0}/. {1}", "cp -r {0}/. {1}"])
def test_a_folder_that_was_carried_elsewhere_is_kept(val, prep, tmp_path, carry):
    if not shutil.which(carry.split()[0]):
        pytest.skip("no %s here" % carry.split()[0])
    for folder in (val, prep):
        (tmp_path / "there" / folder.name).mkdir(parents=True)
        line = carry.format(folder, tmp_path / "there" / folder.name)
        subprocess.run(["bash", "-c", "set -o pipefail; " + line], check=True)
    shutil.rmtree(str(val))
    there = tmp_path / "there" / "prep"
    made = {path.name: path.stat().st_mtime_ns for path in there.glob("*.bin")}
    assert succeeds(SCRIPT, "resnet", tmp_path / "there" / "val", there).stdout.startswith("kept: ")
    assert {path.name: path.stat().st_mtime_ns for path in there.glob("*.bin")} == made
    assert_whole(there, list((tmp_path / "there" / "val").iterdir()))
    assert record(there)["source"] == str(tmp_path / "there" / "val")


def test_another_set_of_images_has_another_hash_and_what_it_shares_with_the_old_one_is_kept(val, prep, tmp_path):
    def set_hash(folder, *options):
        succeeds(SCRIPT, "resnet", val, folder, *options)
        return record(folder)["set_hash"]

    whole, part = record(prep)["set_hash"], tmp_path / "parts" / "shard1_of_2"
    (val / "ILSVRC2012_val_00000012.JPEG").touch()  # repaired: the set is what it was
    assert set_hash(prep) == whole != set_hash(tmp_path / "five", "--limit", "5")
    succeeds(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/2")
    assert record(part)["set_hash"] == whole
    os.unlink(str(val / "ILSVRC2012_val_00000012.JPEG"))  # none of the first half's, which loses its last to the second
    output = succeeds(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/2").stdout
    assert "0 made now, 5 kept" in output and record(part)["set_hash"] != whole


def test_pictures_replaced_between_two_shards_have_other_hashes_in_their_manifests(val, tmp_path):
    succeeds(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/2")
    before = manifest(tmp_path / "parts" / "shard1_of_2")
    draw_images(val, 12, seed=1)
    assert script(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/2", "--check").returncode == 1
    succeeds(SCRIPT, "resnet", val, tmp_path / "parts", "--shard", "1/2")
    after = manifest(tmp_path / "parts" / "shard1_of_2")
    assert [row[:2] for row in after] == [row[:2] for row in before] and all(new[2] != old[2] for new, old in zip(after, before))


def test_a_folder_of_another_data_set_is_not_emptied_unasked(val, prep, tmp_path):
    draw_images(tmp_path / "few", 2, first=20)
    assert "holds 12 images that are not asked for" in fails(1, SCRIPT, "resnet", tmp_path / "few", prep)
    assert len(list(prep.glob("*.bin"))) == 12
    assert "2 made now" in succeeds(SCRIPT, "resnet", tmp_path / "few", prep, "--overwrite").stdout
    assert len(list(prep.glob("*.bin"))) == 2


def test_another_data_set_with_equal_names_is_made_and_the_rest_of_the_old_one_removed(val, prep, tmp_path):
    images = draw_images(tmp_path / "real", 8, first=5, seed=1)
    for image in images:
        os.utime(str(image), (1.35e9, 1.35e9))  # ImageNet's are of 2012
    output = succeeds(SCRIPT, "resnet", tmp_path / "real", prep).stdout
    assert "8 made now, 0 kept" in output and "4 files of images that are no longer wanted removed" in output
    succeeds(SCRIPT, "resnet", tmp_path / "real", tmp_path / "fresh")
    assert bins(prep) == bins(tmp_path / "fresh")
    assert_whole(prep, images)


@pytest.mark.parametrize("key, value", [("pillow", "1.0"), ("version", 1)])
def test_another_pillow_or_version_of_the_suite_makes_all_again(val, prep, key, value):
    made = record(prep)
    (prep / ".recipe.json").write_text(json.dumps(dict(made, **{key: value})))
    output = succeeds(SCRIPT, "resnet", val, prep).stdout
    assert "made with another %s" % key in output and "12 made now" in output and record(prep) == made
    assert_whole(prep, list(val.iterdir()))


def test_a_folder_of_the_version_before_is_made_again(val, prep):
    rows = [[name, source, source_stat[0], source_stat[1], bin_stat[0], bin_stat[1]]
            for name, source, _, source_stat, _, bin_stat in manifest(prep)]
    (prep / ".manifest").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without = {key: value for key, value in FLOAT_RECIPE.items() if key != "interpolation"}
    (prep / ".recipe.json").write_text(json.dumps({"model_type": "resnet", "recipe": without, "pillow": PIL.__version__,
                                                   "numpy": np.__version__, "script_sha256": "0" * 64, "shard": None,
                                                   "source": str(val), "set_sha256": "0" * 64}))
    assert "crop 224, not 192" in fails(1, SCRIPT, "resnet", val, prep, "--crop", "192")
    assert "12 made now" in succeeds(SCRIPT, "resnet", val, prep).stdout
    assert_whole(prep, list(val.iterdir()))


# Kills, full disks, two at once.

@pytest.fixture
def running(tmp_path):
    """A run that has finished its first files and is not at its end, and is stopped there: (the process, SRC, DST)."""
    images = draw_images(tmp_path / "val", 40, size=(64, 48))
    for image in images[10:]:  # slow ones
        image.unlink()
        Image.fromarray(np.zeros((1500, 2000, 3), np.uint8)).save(str(image))
    process = subprocess.Popen(command(SCRIPT, "resnet", tmp_path / "val", tmp_path / "prep", "-j", "2"), start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    wait_until(lambda: len(list((tmp_path / "prep").glob("*.bin"))) > 3, process)
    os.killpg(process.pid, signal.SIGSTOP)
    assert len(list((tmp_path / "prep").glob("*.bin"))) < 40
    yield process, tmp_path / "val", tmp_path / "prep"
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def assert_goes_on(val, prep):
    """The same line finishes the work, keeps what was finished, and leaves nothing else."""
    finished = len(list(prep.glob("*.bin")))
    assert record(prep)["complete"] is False and script(SCRIPT, "resnet", val, prep, "--check").returncode == 1
    output = succeeds(SCRIPT, "resnet", val, prep).stdout
    assert finished - 2 <= int(output.split(" kept")[0].split()[-1]) <= finished  # a worker may die between the file and its line
    assert_whole(prep, list(val.iterdir()))
    succeeds(SCRIPT, "resnet", val, prep.parent / "undisturbed")
    assert bins(prep) == bins(prep.parent / "undisturbed")


@pytest.mark.parametrize("number, code, everybody",
                         [(signal.SIGTERM, 143, False), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, True)])
def test_ctrl_c_and_sigterm_end_with_a_sentence_and_keep_what_is_finished(running, number, code, everybody):
    process, val, prep = running
    (os.killpg if everybody else os.kill)(process.pid, number)
    os.killpg(process.pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code and "the same line goes on" in errors and "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    assert not list(prep.glob(".*.tmp")) and {path.stat().st_size for path in prep.glob("*.bin")} == {602112}
    assert_goes_on(val, prep)


def test_a_killed_run_leaves_whole_files_alone_and_the_next_one_completes_them(running):
    process, val, prep = running
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert {path.stat().st_size for path in prep.glob("*.bin")} == {602112}
    (prep / (".resnet34.%s.tmp" % ("0" * 16))).write_text("what a worker was writing")
    with open(str(prep / ".manifest"), "a") as lines:
        lines.write('["torn')
    assert_goes_on(val, prep)


def test_workers_end_when_their_parent_is_killed(running):
    process, val, prep = running
    process.kill()
    os.killpg(process.pid, signal.SIGCONT)
    process.communicate(timeout=20)  # returns when the workers, which hold the same stderr, have ended
    assert len(list(prep.glob("*.bin"))) < 40


def test_a_worker_that_dies_is_an_error_and_not_a_hang(running):
    process, val, prep = running
    with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as children:
        os.kill(int(children.read().split()[0]), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "worker process died (exit code -9" in errors and "Traceback" not in errors


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_is_at_work(running):
    process, val, prep = running
    assert "another run is at work" in fails(1, SCRIPT, "resnet", val, prep)
    os.killpg(process.pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "40 of 40" in output
    assert_whole(prep, list(val.iterdir()))


def test_a_lock_that_nobody_holds_any_more_is_waited_for(val, prep):
    with open(str(prep / ".lock")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = subprocess.Popen(command(SCRIPT, "resnet", val, prep))
        held = Path("/proc/%d/fd" % process.pid)
        wait_until(lambda: str(prep / ".lock") in [os.path.realpath(str(path)) for path in held.iterdir()])
    assert process.wait(30) == 0


def test_a_full_disk_is_one_sentence_with_the_files_name_and_nothing_half_written(val, tmp_path):
    process = script(SCRIPT, "resnet", val, tmp_path / "prep",
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000)))
    assert process.returncode == 1 and len(process.stderr.splitlines()) == 1
    assert ".bin: File too large" in process.stderr
    assert not list((tmp_path / "prep").glob("*.bin")) and not list((tmp_path / "prep").glob(".*.tmp"))
    assert "12 made now" in succeeds(SCRIPT, "resnet", val, tmp_path / "prep").stdout


@pytest.mark.parametrize("line", ["%s >/dev/full", "%s | true; exit ${PIPESTATUS[0]}"])
def test_a_full_or_closed_output_costs_no_file_and_gives_no_traceback(val, tmp_path, line):
    words = " ".join("'%s'" % word for word in command(SCRIPT, "resnet", val, tmp_path / "prep"))
    process = subprocess.run(["bash", "-c", line % words], capture_output=True, encoding="utf-8")
    assert process.returncode in (0, 1) and "Traceback" not in process.stderr and "Exception" not in process.stderr
    assert "standard output: No space left" in process.stderr or "full" not in line
    assert_whole(tmp_path / "prep", list(val.iterdir()))


def test_strange_characters_in_paths_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "it's \"val\"\nof $HOME * --x"
    folder.mkdir()
    Image.fromarray(noise(64, 48)).save(str(folder / "-a b\n'c'.JPEG"))
    shutil.copy(str(folder / "-a b\n'c'.JPEG"), os.fsencode(str(folder)) + b"/\xff\xe9.JPEG")
    shutil.copy(str(folder / "-a b\n'c'.JPEG"), str(folder / ("n" * 249 + ".jpg")))
    (folder / "\xe4.txt").write_text("x")
    for says in ("3 made now", "kept: "):
        assert says in succeeds(SCRIPT, "resnet", folder, tmp_path / "prep dir", env=dict(os.environ, LC_ALL="C")).stdout
    assert (tmp_path / "prep dir" / "-a b\n'c'.bin").stat().st_size == 602112


@pytest.mark.parametrize("module", ["imagenet_torch_preprocess", "imagenet_acc_eval", "onnx_infer"])
def test_the_stages_that_need_no_torch_do_not_import_it(module):
    code = "import sys, %s; sys.exit(any(name in sys.modules for name in ('torch', 'torchvision')))" % module
    assert subprocess.run([sys.executable, "-c", code], cwd=str(REPOSITORY)).returncode == 0
