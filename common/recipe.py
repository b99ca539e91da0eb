"""The recipe: how an image becomes a model's input. Its fields, defaults, options and JSON, and what two recipes must share.

To add a field: a line in FIELDS, and what it does to the pixels in imagenet_torch_preprocess.py.
"""
import argparse
import collections
import json

from common.command import fail, whole

MOST_RESIZE, MOST_CROP = 4096, 1024  # pixels; three float images of that side are 38 MB, and a proof's activations 2 GB
INTERPOLATIONS = ("bilinear", "bicubic")
LAYOUTS = {"float32": "CHW", "uint8": "HWC"}  # what a .bin of each type holds
ITEM_BYTES = {"float32": 4, "uint8": 1}
# ImageNet's channel mean and standard deviation (RGB, of values in 0..1), as torchvision's reference training has them.
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
# The ModelZoo's table: short side after resizing, side of the centre crop, mean, standard deviation.
MODEL_TYPES = {
    "resnet": dict(IMAGENET, resize=256, crop=224),
    "inceptionv3": dict(IMAGENET, resize=342, crop=299),
    "inceptionv4": dict(IMAGENET, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], resize=342, crop=299),
}


def three_numbers(text):
    """A type for argparse: "0.485,0.456,0.406", one for each of red, green and blue, of values in 0..1."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(0 <= each <= 1 for each in numbers):
        raise argparse.ArgumentTypeError("%r is not R,G,B, each from 0 to 1, such as 0.485,0.456,0.406" % text)
    return numbers


# What a net's images went through, and may be told to the preprocessing and the export: {field: argparse's keywords}.
FIELDS = collections.OrderedDict([
    ("resize", dict(metavar="N", type=whole(1, MOST_RESIZE), help="short side after resizing")),
    ("crop", dict(metavar="N", type=whole(1, MOST_CROP), help="side of the centre crop")),
    ("interpolation", dict(choices=INTERPOLATIONS, help="of the resizing")),
    ("mean", dict(metavar="R,G,B", type=three_numbers, help="channel means, of values in 0..1")),
    ("std", dict(metavar="R,G,B", type=three_numbers, help="channel standard deviations")),
])

ADDED_LATER = {"interpolation": "bilinear"}  # what older files, which do not name the field, were made with


class Recipe(collections.namedtuple("Recipe", list(FIELDS) + ["dtype", "layout"])):
    """dtype: "float32", normalised, layout "CHW"; or "uint8", the pixels before ToTensor, layout "HWC"."""

    def as_json(self):
        return dict(self._asdict())

    @property
    def shape(self):
        """Of one image."""
        return [3, self.crop, self.crop] if self.layout == "CHW" else [self.crop, self.crop, 3]

    @property
    def image_bytes(self):
        return 3 * self.crop ** 2 * ITEM_BYTES[self.dtype]

    def with_dtype(self, dtype):
        return self._replace(dtype=dtype, layout=LAYOUTS[dtype])

    def aipp(self):
        """atc's --insert_op_conf: (pixel - min_chn) * var_reci_chn, the mean and std in units of a pixel."""
        lines = ["aipp_mode: static", "input_format: RGB888_U8"]
        lines += ["src_image_size_%s: %d" % (side, self.crop) for side in "wh"]
        lines += ["min_chn_%d: %.15g" % (channel, 255 * mean) for channel, mean in enumerate(self.mean)]
        lines += ["var_reci_chn_%d: %.15g" % (channel, 1 / (255 * std)) for channel, std in enumerate(self.std)]
        return "aipp_op {\n%s}\n" % "".join("    %s\n" % line for line in lines)


DEFAULT = Recipe(dtype="float32", layout="CHW", **MODEL_TYPES["resnet"])


def add_options(parser, default="MODEL_TYPE's"):
    """The options that tell the fields of FIELDS."""
    for field, keywords in FIELDS.items():
        keywords = dict(keywords, help="%s (default: %s)" % (keywords["help"], default))
        parser.add_argument("--" + field, **keywords)


def from_options(parser, args, model_type="resnet", dtype="float32"):
    """The Recipe of parsed options; what they leave out is the model type's."""
    values = {field: getattr(args, field) or MODEL_TYPES[model_type][field] for field in FIELDS}
    if values["crop"] > values["resize"]:
        parser.error("--crop %(crop)d is larger than --resize %(resize)d" % values)
    if min(values["std"]) < 0.001:
        parser.error("--std %g: at least 0.001" % min(values["std"]))
    return Recipe(dtype=dtype, layout=LAYOUTS[dtype], **values)


def from_json(value, path):
    """The Recipe that a file carries (an object, or its text); a field it lacks has the value it had before there was one."""
    try:
        value = dict(ADDED_LATER, **(json.loads(value) if isinstance(value, str) else value))
        recipe = Recipe(**value)
        numbers, sides = recipe.mean + recipe.std, (recipe.resize, recipe.crop)
        if LAYOUTS[recipe.dtype] != recipe.layout or recipe.interpolation not in INTERPOLATIONS or len(numbers) != 6 \
                or not all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers) or not min(recipe.std) > 0 \
                or not all(type(side) is int for side in sides) or not 1 <= recipe.crop <= MOST_CROP:
            raise ValueError(value)
        return recipe
    except (ValueError, TypeError, KeyError, RecursionError):
        return fail("%s: its recipe is none: %s" % (path, str(value)[:200]))


def difference(first, second, fields=tuple(FIELDS)):
    """The first field in which two recipes differ, in words ("resize 256, not 224"), or "". Either may be None: not known.

    By default dtype and layout are left out: uint8 pixels pair with float32.
    """
    for field in fields if first and second else ():
        if getattr(first, field) != getattr(second, field):
            return "%s %s, not %s" % (field, getattr(first, field), getattr(second, field))
    return ""


def check_fits(recipe, path, dtype, shape, own=None, any_layout=False):
    """Exit unless the images that a recipe makes are what a model takes: by its input (dtype's name, shape of one image), and by
    its own Recipe where it has one. any_layout: the input is an .om's whose AIPP takes another layout than its graph."""
    order = sorted if any_layout else list
    problem = difference(recipe, own, tuple(FIELDS))
    if not problem and recipe.dtype != dtype:
        problem = "dtype %s, not %s" % (recipe.dtype, dtype)
    if not problem and order(recipe.shape) != order(shape):
        problem = "shape %s, not %s" % (recipe.shape, list(shape))
    if problem:
        fail("%s: its images are prepared otherwise than the model takes them (%s); prepare the images for this model"
             % (path, problem))
