#!/usr/bin/env python3
"""Make a tiny stand-in for ImageNet's validation set and ResNet34's weights, for people who have neither.

    python3 make_tiny_imagenet.py DIR

Writes DIR/val/ILSVRC2012_val_00000001.JPEG ... (64 drawn images of 16 classes), DIR/val_label.txt, DIR/class_names.txt and
DIR/resnet34-tiny.pth: a real 1000-class ResNet34 whose convolutions are random and whose batch-norm statistics and last
layer are fitted, in closed form, on other drawings of the same 16 classes. The accuracy on DIR/val is thus earned.
The same images and weights on every run of one machine. Exit code 0: all there; 1: nothing was written; 2: wrong usage.
"""
import argparse
import io
import os
import shutil
import sys

import numpy as np
from PIL import Image

SEED = 34
CLASSES = np.arange(16) * 62 + 5  # which of the 1000 class indices are drawn
IMAGES, FITTED_ON = 64, 128  # images of val/, and other images the weights are fitted on
# Width, height: most of ImageNet's images are around 500 x 375; a few are far smaller or larger, or very wide.
SIZES = [(500, 375), (500, 333), (375, 500), (500, 500), (640, 480), (333, 500), (500, 281), (400, 300),
         (500, 375), (160, 120), (500, 375), (1280, 960), (500, 334), (96, 128), (500, 375), (900, 180)]


def fail(message):
    sys.exit("error: " + " ".join(str(message).splitlines()))


def draw(kind, random, size):
    """One RGB image (uint8, height x width x 3) of drawing class 0..15: one of 4 stripe directions, one of 4 hues.

    Both wander from image to image, over a cluttered background with noise, so that neighbours are confused at times.
    """
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
    for kind, number in enumerate(CLASSES):
        names[number] = "%s stripes, %s" % (("upright", "rising", "level", "falling")[kind % 4],
                                            ("red", "yellow-green", "cyan", "violet")[kind // 4])
    with open(os.path.join(folder, "class_names.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(names) + "\n")


def random_resnet34():
    """torchvision's resnet34 with He-normal convolutions drawn by numpy, whose stream is the same in every release."""
    try:
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


def fit(torch, model):
    """Fit batch-norm statistics and fc on FITTED_ON drawings that are not in val/; returns the state_dict.

    Batch norm takes the mean and variance of one forward pass. fc is linear discriminant analysis on the 512 features:
    weight = S^-1 m_c, bias = -m_c S^-1 m_c / 2 + log prior, S the pooled covariance shrunk towards its diagonal's mean.
    """
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

        means = np.stack([features[kinds == kind].mean(axis=0) for kind in range(len(CLASSES))])
        scatter = features - means[kinds]
        covariance = scatter.T @ scatter / (len(features) - len(CLASSES))
        shrunk = 0.2 * covariance + 0.8 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        centre = means.mean(axis=0)
        weight = np.linalg.solve(shrunk, (means - centre).T).T
        bias = -((means - centre) * weight).sum(axis=1) / 2 - weight @ centre
        head.weight.zero_()
        # A class that was never drawn has the prior e^-40, and each a little less than the one before: no ties.
        head.bias.copy_(torch.from_numpy(-40 - np.arange(1000) / 100.0).float())
        head.weight[torch.from_numpy(CLASSES)] = torch.from_numpy(weight).float()
        head.bias[torch.from_numpy(CLASSES)] = torch.from_numpy(bias).float()
    return model.state_dict()


def parse_args():
    parser = argparse.ArgumentParser(description="Make a tiny stand-in for ImageNet's validation set and ResNet34's weights.")
    parser.add_argument("folder", metavar="DIR", help="folder to make: val/, val_label.txt and resnet34-tiny.pth")
    return parser.parse_args()


def main():
    folder = os.path.abspath(parse_args().folder)
    if os.path.exists(os.path.join(folder, "resnet34-tiny.pth")):
        print("%s: is there already, kept as it is" % folder)
        return
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        fail("%s: exists and is not empty; name a new folder" % folder)
    partial = os.path.join(os.path.dirname(folder), ".%s.partial" % os.path.basename(folder))
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a killed run
        os.makedirs(partial)
        write_images(partial)
        write_class_names(partial)
        torch, model = random_resnet34()
        buffer = io.BytesIO()  # a file would put its own name into the archive
        torch.save(fit(torch, model), buffer)
        with open(os.path.join(partial, "resnet34-tiny.pth"), "wb") as file:
            file.write(buffer.getvalue())
        os.rename(partial, folder)
    except OSError as error:
        fail("%s: %s" % (error.filename or folder, error.strerror))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print("%s: %d images, their labels, and resnet34-tiny.pth fitted on %d others" % (folder, IMAGES, FITTED_ON))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
