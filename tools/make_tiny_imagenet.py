#!/usr/bin/env python3
"""Make a tiny stand-in for ImageNet's validation set and ResNet34's weights, for people who have neither.

    python3 tools/make_tiny_imagenet.py DIR

Writes DIR/val/ILSVRC2012_val_00000001.JPEG ... (64 drawn images of 16 classes), DIR/val_label.txt, DIR/class_names.txt and
DIR/resnet34-tiny.pth: a real 1000-class ResNet34 whose convolutions are random and whose batch-norm statistics and last
layer are fitted, in closed form, on other drawings of the same 16 classes. The accuracy on DIR/val is thus earned.
The same images and weights on every run of one machine. DIR/.tiny.json says what was made: a finished folder is kept, one that
was not finished is made again, and one that was changed since is refused without --overwrite.
Exit code 0: all there; 1: not made, the reason is named (--check: there is something to do); 2: wrong usage; 130, 143: stopped.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import io
import json

from common import files
from common.command import fail, first_line

# numpy, Pillow and torch are imported by what uses them: a finished folder is told in a tenth of a second.
VERSION = 1  # raised when what is made changes
SEED = 34
CLASSES = range(5, 5 + 16 * 62, 62)  # which of the 1000 class indices are drawn
IMAGES, FITTED_ON = 64, 128  # images of val/, and other images the weights are fitted on
# Of all scores: with so few drawings the covariance is too small, and each guess would be 100.00 %. Of the powers of two this is
# the one under which drawings that the head was not fitted on (four folds) are likeliest. Scores stay exact, and no rank moves.
INVERSE_TEMPERATURE = 2.0 ** -3
RECORD, LOCK, WEIGHTS, LABELS, NAMES = ".tiny.json", ".lock", "resnet34-tiny.pth", "val_label.txt", "class_names.txt"
PICTURES = ["val/ILSVRC2012_val_%08d.JPEG" % number for number in range(1, IMAGES + 1)]
# Width, height: most of ImageNet's images are around 500 x 375; a few are far smaller or larger, or very wide.
SIZES = [(500, 375), (500, 333), (375, 500), (500, 500), (640, 480), (333, 500), (500, 281), (400, 300),
         (500, 375), (160, 120), (500, 375), (1280, 960), (500, 334), (96, 128), (500, 375), (900, 180)]


def draw_image(kind, random, size):
    """One RGB image (uint8, height x width x 3) of drawing class 0..15: one of 4 stripe directions, one of 4 hues.

    Both wander from image to image, over a cluttered background with noise, so that neighbours are confused at times.
    """
    import numpy as np
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / float(min(size))
    angle = np.pi / 4 * (kind % 4) + random.normal(0, 0.24)
    pitch = random.uniform(14, 22)
    wave = np.sin(2 * np.pi * (pitch / 2 * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform()))
    hue = 2 * np.pi * (kind // 4 / 4.0) + random.normal(0, 0.42)
    colour = np.array([np.cos(hue), np.cos(hue - 2 * np.pi / 3), np.cos(hue + 2 * np.pi / 3)])
    picture = 128 + random.normal(0, 15) + 42 * wave[..., None] * random.uniform(0.7, 1.3) + 55 * colour
    for _ in range(6):  # clutter: discs of any colour
        disc = (x - random.uniform(0, x.max())) ** 2 + (y - random.uniform(0, y.max())) ** 2 < random.uniform(0.02, 0.13) ** 2
        picture[disc] = random.uniform(0, 255, 3)
    picture += random.normal(0, 22, picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def encode_image(number, kind, random):
    """The bytes of image number 1 to 64, a drawing of a class."""
    from PIL import Image
    image = Image.fromarray(draw_image(kind, random, SIZES[number % len(SIZES)]))
    # Without chroma subsampling: old and new Pillow then encode alike and decode within one level of each other.
    options = {"format": "JPEG", "quality": 95, "subsampling": 0}
    if number % 32 == 5:  # ImageNet's oddities: 2 % greyscale, a few CMYK, one PNG under a .JPEG name, EXIF
        image = image.convert("L")
    elif number == 11:
        image = image.convert("CMYK")
    elif number == 23:
        options = {"format": "PNG"}
    elif number % 32 == 14:  # tag 0x0112, orientation 6: "turn me by 90 degrees", which loaders here must ignore
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def make_images():
    """Yields (name, bytes) of the images, each class four times in an order that tells nothing, and of their labels."""
    import numpy as np
    random = np.random.RandomState(SEED)
    kinds = random.permutation(np.arange(IMAGES) % len(CLASSES))
    for number, kind in enumerate(kinds, 1):
        yield PICTURES[number - 1], encode_image(number, kind, random)
    lines = ["%s %d\n" % (os.path.basename(picture), CLASSES[kind]) for picture, kind in zip(PICTURES, kinds)]
    yield LABELS, "".join(lines).encode()


def names_text():
    """The bytes of class_names.txt: a line for each of the 1000 classes."""
    names = ["never drawn"] * 1000
    for kind, index in enumerate(CLASSES):
        names[index] = "%s stripes, %s" % (("upright", "rising", "level", "falling")[kind % 4],
                                            ("red", "yellow-green", "cyan", "violet")[kind // 4])
    return ("\n".join(names) + "\n").encode()


def random_resnet34():
    """torchvision's resnet34 with He-normal convolutions drawn by numpy, whose stream is the same in every release."""
    try:
        import numpy as np
        import torch
        from torchvision.models import resnet34
    except Exception as error:  # torchvision beside another torch than its own raises RuntimeError and others
        fail("torch and torchvision cannot be imported (%s); pip install -r requirements.txt" % first_line(error))
    random = np.random.RandomState(SEED + 1)
    model = resnet34()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4:
                fan_out = parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
                values = random.standard_normal(tuple(parameter.shape)) * np.sqrt(2.0 / fan_out)
                parameter.copy_(torch.from_numpy(values.astype(np.float32)))
            elif name.endswith("bn2.weight"):
                parameter.fill_(0.3)  # a weak residual branch keeps what the first layers see
    return torch, model


def discriminants(features, kinds):
    """Linear discriminant analysis: weight = S^-1 m_c, bias = -m_c S^-1 m_c / 2, about the means' centre.

    S is the pooled covariance, shrunk towards its diagonal's mean: there are more features than drawings.
    """
    import numpy as np
    means = np.stack([features[kinds == kind].mean(axis=0) for kind in range(len(CLASSES))])
    scatter = features - means[kinds]
    covariance = scatter.T @ scatter / (len(features) - len(CLASSES))
    shrunk = 0.2 * covariance + 0.8 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    centre = means.mean(axis=0)
    weight = np.linalg.solve(shrunk, (means - centre).T).T
    return weight, -((means - centre) * weight).sum(axis=1) / 2 - weight @ centre


def fit(torch, model):
    """Fit batch-norm statistics and fc on FITTED_ON drawings that are not in val/; returns the state_dict.

    Batch norm takes the mean and variance of one forward pass; fc is linear discriminant analysis on the 512 features,
    times the inverse temperature.
    """
    import numpy as np
    from PIL import Image
    from torchvision import transforms
    recipe = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                 transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    random = np.random.RandomState(SEED + 2)
    kinds = np.arange(FITTED_ON) % len(CLASSES)
    images = torch.stack([recipe(Image.fromarray(draw_image(kind, random, (384, 288)))) for kind in kinds])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # take the statistics of the pass as they are
        model.train()(images[:64])
        head, model.fc = model.fc, torch.nn.Identity()
        features = torch.cat([model.eval()(images[first:first + 32]) for first in range(0, FITTED_ON, 32)]).double().numpy()
        model.fc = head

        # A class that was never drawn has the prior e^-40, and each a little less than the one before: no ties. The
        # temperature takes them along, so that they stay where they were among the others.
        factor, priors = INVERSE_TEMPERATURE, -40 - np.arange(1000) / 100.0
        weight, bias = discriminants(features, kinds)
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy(factor * priors).float())
        head.weight[torch.tensor(CLASSES)] = torch.from_numpy(factor * weight).float()
        head.bias[torch.tensor(CLASSES)] = torch.from_numpy(factor * bias).float()
    return model.state_dict()


def make_weights():
    """The bytes of resnet34-tiny.pth."""
    torch, model = random_resnet34()
    buffer = io.BytesIO()  # a file would put its own name into the archive
    torch.save(fit(torch, model), buffer)
    return buffer.getvalue()


# ---- the folder ----

def write_hashes(folder, hashes):
    """hashes: {name: SHA-256} of what was made, or None as long as it is being made."""
    files.write(os.path.join(folder, RECORD), json.dumps({"version": VERSION, "files": hashes}, indent=1).encode())


def to_do(folder, overwrite):
    """Why the folder is to be made, or "" where it is there; exits where that would touch what is not of this script's making."""
    path = os.path.join(folder, RECORD)
    if not os.path.lexists(path):
        there = os.listdir(folder) if os.path.isdir(folder) else [folder] * os.path.lexists(folder)
        if any(name != LOCK and not files.TEMPORARY.fullmatch(name) for name in there):
            fail("%s: is there and not of this script's making; name a new folder" % folder)
        return "%s: is not there" % folder
    record = files.read_json(path, 1 << 20)
    with files.as_written(path):
        made, version = dict(record["files"] or {}), record.get("version")
    if not made:
        return "%s: was not finished" % folder
    for name in () if overwrite else sorted(made):
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or files.sha256_of(path) != made[name]:
            fail("%s: is not as it was made; --overwrite makes all of it again" % path)
    return "%s: is to be made again" % folder if overwrite or version != VERSION else ""


def make_files():
    """Yields (name, bytes) of all that is made."""
    yield from make_images()
    yield NAMES, names_text()
    yield WEIGHTS, make_weights()


def make_folder(folder):
    """Write it all; the record before them says that they are ours, and after them that they are whole."""
    os.makedirs(folder, exist_ok=True)
    lock = files.lock(folder, LOCK)
    write_hashes(folder, None)
    os.makedirs(os.path.join(folder, "val"), exist_ok=True)
    hashes = {}
    for name, data in make_files():
        files.write(os.path.join(folder, name), data)
        hashes[name] = files.sha256(data)
    write_hashes(folder, hashes)
    os.close(lock)


def main():
    parser = command.parser(__doc__)
    parser.add_argument("folder", metavar="DIR", help="folder to make: val/, val_label.txt, class_names.txt, resnet34-tiny.pth")
    parser.add_argument("--overwrite", action="store_true", help="make it again, also where it was changed")
    parser.add_argument("--check", action="store_true", help="do nothing; exit 0 when there is nothing to do, 1 when there is")
    args = parser.parse_args()
    reason = to_do(args.folder, args.overwrite)
    if args.check:
        sys.stdout.write(reason and reason + "\n")
        return bool(reason)
    if reason:
        make_folder(args.folder)
    kept = "" if reason else "kept: "
    print("%s%s: %d images, their labels, and %s fitted on %d others" % (kept, args.folder, IMAGES, WEIGHTS, FITTED_ON))


if __name__ == "__main__":
    command.run(main)
