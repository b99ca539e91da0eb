#!/usr/bin/env python3
"""Make a tiny stand-in for ImageNet's validation set and ResNet34's weights, for people who have neither.

    python3 tools/make_tiny_imagenet.py DIR

Writes DIR/val/ILSVRC2012_val_00000001.JPEG ... (64 drawn images of 16 classes), DIR/val_label.txt, DIR/class_names.txt and
DIR/resnet34-tiny.pth: a real 1000-class ResNet34 whose convolutions are random and whose batch-norm statistics and last
layer are fitted, in closed form, on other drawings of the same 16 classes. The accuracy on DIR/val is thus earned.
The same images and weights on every run of one machine. DIR/.tiny.json holds the SHA-256 of this script and of the files:
a finished folder is kept when they are all the same, and refused when not.
Exit code 0: all there; 1: nothing was written; 2: wrong usage; 130, 143: stopped by Ctrl-C, SIGTERM.
"""
# ruff: noqa: E402 - the imports follow the handlers: Ctrl-C while they load gets a sentence, too
import os
import signal
import sys


def stopped(signum, frame):
    """Ctrl-C, or SIGTERM: a sentence; SystemExit removes the temporary folder on its way out."""
    signal.signal(signum, signal.SIG_IGN)
    try:
        os.write(2, b"stopped; what is finished is kept, the same line goes on\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    except OSError:  # stderr may be closed
        pass
    sys.exit(128 + signum)


for handled in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(handled) is not signal.SIG_IGN:  # started by nohup or with `&`: meant to be left alone
        signal.signal(handled, stopped)

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import re
import shutil
import stat

# numpy, Pillow and torch are imported by what uses them: a finished folder is told in a tenth of a second.

SEED = 34
CLASSES = range(5, 5 + 16 * 62, 62)  # which of the 1000 class indices are drawn
IMAGES, FITTED_ON = 64, 128  # images of val/, and other images the weights are fitted on
FOLDS = 4  # of the FITTED_ON drawings, to choose the temperature by
RECORD = ".tiny.json"
# Width, height: most of ImageNet's images are around 500 x 375; a few are far smaller or larger, or very wide.
SIZES = [(500, 375), (500, 333), (375, 500), (500, 500), (640, 480), (333, 500), (500, 281), (400, 300),
         (500, 375), (160, 120), (500, 375), (1280, 960), (500, 334), (96, 128), (500, 375), (900, 180)]


def fail(message, code=1):
    sys.stderr.write("error: %s\n" % " ".join(str(message).split()))
    sys.exit(code)


def sha256_of(path):
    """SHA-256 of a regular file; anything else (a FIFO would hang) is an OSError."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "is no regular file", path)
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def record_of(folder):
    """What identifies a finished folder: this script, and every file of the data set."""
    names = ["val_label.txt", "class_names.txt", "resnet34-tiny.pth"]
    names += ["val/" + name for name in sorted(os.listdir(os.path.join(folder, "val")))]
    return {"script_sha256": sha256_of(os.path.abspath(__file__)),
            "files": {name: sha256_of(os.path.join(folder, name)) for name in names}}


def insist_it_is_ours(folder):
    """Return when the folder is as this very script left it; else say what differs and what to do."""
    path, remedy = os.path.join(folder, RECORD), "remove the folder, or name a new one"
    try:
        if os.stat(path).st_size > 1 << 20:
            raise ValueError
        sha256_of(path)  # refuses what is no regular file
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
        made["files"].items()
        script = made["script_sha256"]
        now = record_of(folder)
    except FileNotFoundError as error:
        fail("%s: is gone from %s, which is no longer as this script made it; %s" % (error.filename, folder, remedy))
    except OSError as error:
        fail("%s: %s; %s" % (error.filename, error.strerror, remedy))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fail("%s: is damaged; %s" % (path, remedy))
    if script != now["script_sha256"]:
        fail("%s: was made by another version of make_tiny_imagenet.py; %s" % (folder, remedy))
    for name in sorted(set(made["files"]) | set(now["files"])):
        if made["files"].get(name) != now["files"].get(name):
            fail("%s: is not as this script made it; %s" % (os.path.join(folder, name), remedy))


def draw(kind, random, size):
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


def write_images(folder):
    """DIR/val and DIR/val_label.txt: 64 images, each class four times, in an order that tells nothing."""
    import numpy as np
    from PIL import Image
    random = np.random.RandomState(SEED)
    kinds = random.permutation(np.arange(IMAGES) % len(CLASSES))
    os.makedirs(os.path.join(folder, "val"))
    with open(os.path.join(folder, "val_label.txt"), "w", encoding="ascii") as labels:
        for number, kind in enumerate(kinds, 1):
            name = "ILSVRC2012_val_%08d.JPEG" % number
            image = Image.fromarray(draw(kind, random, SIZES[number % len(SIZES)]))
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
            image.save(os.path.join(folder, "val", name), **options)
            labels.write("%s %d\n" % (name, CLASSES[kind]))


def write_class_names(folder):
    """DIR/class_names.txt: a line for each of the 1000 classes."""
    names = ["never drawn"] * 1000
    for kind, index in enumerate(CLASSES):
        names[index] = "%s stripes, %s" % (("upright", "rising", "level", "falling")[kind % 4],
                                            ("red", "yellow-green", "cyan", "violet")[kind // 4])
    with open(os.path.join(folder, "class_names.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(names) + "\n")


def random_resnet34():
    """torchvision's resnet34 with He-normal convolutions drawn by numpy, whose stream is the same in every release."""
    try:
        import numpy as np
        import torch
        from torchvision.models import resnet34
    except Exception as error:  # torchvision beside another torch than its own raises RuntimeError and others
        fail("torch and torchvision are needed and cannot be imported (%s); pip install -r requirements.txt"
             % str(error).split("\n")[0])
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


def inverse_temperature(features, kinds, priors):
    """The factor of all scores under which drawings that the head was not fitted on are likeliest.

    With so few drawings the covariance is too small and each guess would be 100.00 %. In each of FOLDS rounds a head is
    fitted without a part of the drawings and judged by the log-likelihood of the softmax over all 1000 classes on it.
    The factor is a power of two: every score is then exact, and so no rank and no Top-k differs from those at factor 1.
    """
    import numpy as np
    scores = np.tile(priors, (len(kinds), 1))
    for fold in range(FOLDS):
        held_out = np.arange(len(kinds)) // len(CLASSES) % FOLDS == fold
        weight, bias = discriminants(features[~held_out], kinds[~held_out])
        scores[np.ix_(held_out, np.array(CLASSES))] = features[held_out] @ weight.T + bias
    own = scores[np.arange(len(kinds)), np.array(CLASSES)[kinds]]
    scores, own = scores - scores.max(axis=1)[:, None], own - scores.max(axis=1)
    return max((2.0 ** -power for power in range(12)),
               key=lambda factor: (factor * own - np.log(np.exp(factor * scores).sum(axis=1))).mean())


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
    images = torch.stack([recipe(Image.fromarray(draw(kind, random, (384, 288)))) for kind in kinds])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # take the statistics of the pass as they are
        model.train()(images[:64])
        head, model.fc = model.fc, torch.nn.Identity()
        features = torch.cat([model.eval()(images[first:first + 32]) for first in range(0, FITTED_ON, 32)]).double().numpy()
        model.fc = head

        # A class that was never drawn has the prior e^-40, and each a little less than the one before: no ties. The
        # factor takes them along, so that they stay where they were among the others.
        priors = -40 - np.arange(1000) / 100.0
        factor = inverse_temperature(features, kinds, priors)
        weight, bias = discriminants(features, kinds)
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy(factor * priors).float())
        head.weight[torch.tensor(CLASSES)] = torch.from_numpy(factor * weight).float()
        head.bias[torch.tensor(CLASSES)] = torch.from_numpy(factor * bias).float()
    return model.state_dict()


def locked(path):
    """A descriptor that holds the lock of a folder; OSError where another process holds it, or path is no folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def temporary_beside(folder):
    """A new folder beside it, locked until this process ends; those of killed runs, which nobody locks, are removed."""
    parent, base = os.path.split(folder)
    for name in os.listdir(parent):
        if re.match(r"\.%s\.[0-9a-f]{8}\.tmp\Z" % re.escape(base), name):
            with contextlib.suppress(OSError):
                descriptor = locked(os.path.join(parent, name))
                shutil.rmtree(os.path.join(parent, name))
                os.close(descriptor)
    while True:
        path = os.path.join(parent, ".%s.%s.tmp" % (base, os.urandom(4).hex()))
        os.mkdir(path)
        try:
            if os.fstat(locked(path)).st_nlink:
                return path
        except (BlockingIOError, FileNotFoundError):
            pass  # another run is just taking it for a stray: a new name
        except OSError:
            return path  # a file system without locks on folders


def fill(folder):
    """Images, labels, names, weights and, last, their record."""
    write_images(folder)
    write_class_names(folder)
    torch, model = random_resnet34()
    buffer = io.BytesIO()  # a file would put its own name into the archive
    torch.save(fit(torch, model), buffer)
    with open(os.path.join(folder, "resnet34-tiny.pth"), "wb") as file:
        file.write(buffer.getvalue())
    with open(os.path.join(folder, RECORD), "w", encoding="utf-8") as file:
        json.dump(record_of(folder), file, indent=1)


def parse_args():
    parser = argparse.ArgumentParser(description="Make a tiny stand-in for ImageNet's validation set and ResNet34's weights.")
    parser.add_argument("folder", metavar="DIR", help="folder to make: val/, val_label.txt and resnet34-tiny.pth")
    return parser.parse_args()


def main():
    folder = os.path.realpath(parse_args().folder)
    if os.path.lexists(os.path.join(folder, RECORD)):
        insist_it_is_ours(folder)
        print("%s: is there already, kept as it is" % folder)
        return
    if os.path.lexists(os.path.join(folder, "resnet34-tiny.pth")):
        fail("%s: was made by another version of make_tiny_imagenet.py (it has no %s); remove the folder, or name a new one"
             % (folder, RECORD))
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        fail("%s: exists and is not empty; name a new folder" % folder)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    partial = temporary_beside(folder)
    try:
        fill(partial)
        os.rename(partial, folder)
    except OSError as error:
        fail("%s: %s" % (folder, error.strerror))
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # of its own; nothing is left there when all went well
    print("%s: %d images, their labels, and resnet34-tiny.pth fitted on %d others" % (folder, IMAGES, FITTED_ON))


def guarded():
    """main(), and a sentence for full disks, closed outputs and too little memory."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by `>&-`: an image that got its number would be printed into
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own flush at the end would complain as well
        fail("%s: %s" % (error.filename or "standard output", error.strerror))
    except MemoryError:
        fail("there is not enough memory to make the images and weights")


if __name__ == "__main__":
    guarded()
