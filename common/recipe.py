"""The recipe: how an image becomes a model's input. Its fields, defaults, options and JSON, and what two recipes must share.

To add a field: an entry in FIELDS, and what it does to the pixels in imagenet_torch_preprocess.py.
"""
import argparse
import collections
import json

from common.command import fail, whole

LAYOUTS = {"float32": "CHW", "uint8": "HWC"}  # what a .bin of each type holds


def three_numbers(least):
    """A type for argparse: "0.485,0.456,0.406", one for each of red, green and blue, of values in 0..1."""
    def parse_numbers(text):
        try:
            numbers = [float(word) for word in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(least <= each <= 1 for each in numbers):
            raise argparse.ArgumentTypeError("%r is not R,G,B, each from %g to 1, such as 0.485,0.456,0.406" % (text, least))
        return numbers
    return parse_numbers


# What a net's images went through, in this order: {field: (its value where nothing is told, its option)}. The values are those of
# torchvision's reference training for ResNet. A file that lacks a field was made with that value, before there was the field.
FIELDS = collections.OrderedDict([
    ("resize", (256, dict(metavar="N", type=whole(1, 4096), help="short side after resizing"))),
    # Three float images of this side are 38 MB, and the proof's activations 2 GB.
    ("crop", (224, dict(metavar="N", type=whole(1, 1024), help="side of the centre crop"))),
    ("interpolation", ("bilinear", dict(metavar="NAME", choices=("bilinear", "bicubic"), help="bilinear or bicubic"))),
    ("mean", ([0.485, 0.456, 0.406], dict(metavar="R,G,B", type=three_numbers(0), help="channel means, 0 to 1"))),
    ("std", ([0.229, 0.224, 0.225], dict(metavar="R,G,B", type=three_numbers(0.001), help="channel standard deviations"))),
])
# The ModelZoo's table: what its model types have otherwise.
MODEL_TYPES = {
    "resnet": {},
    "inceptionv3": {"resize": 342, "crop": 299},
    "inceptionv4": {"resize": 342, "crop": 299, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


class Recipe(collections.namedtuple("Recipe", list(FIELDS) + ["dtype", "layout"])):
    """dtype: "float32", normalised, layout "CHW"; or "uint8", the pixels before ToTensor, layout "HWC"."""

    def as_json(self):
        return dict(self._asdict())

    def without_defaults(self):
        """The fields that are not FIELDS' own: what an artefact was made from does not change when a field is added."""
        return {field: value for field, value in self.as_json().items() if field not in FIELDS or value != FIELDS[field][0]}

    @property
    def shape(self):
        """Of one image."""
        return [3, self.crop, self.crop] if self.layout == "CHW" else [self.crop, self.crop, 3]

    def with_dtype(self, dtype):
        return self._replace(dtype=dtype, layout=LAYOUTS[dtype])

    def aipp(self):
        """atc's --insert_op_conf: (pixel - min_chn) * var_reci_chn, the mean and std in units of a pixel."""
        lines = ["aipp_mode: static", "input_format: RGB888_U8"]
        lines += ["src_image_size_%s: %d" % (side, self.crop) for side in "wh"]
        lines += ["min_chn_%d: %.15g" % (channel, 255 * mean) for channel, mean in enumerate(self.mean)]
        lines += ["var_reci_chn_%d: %.15g" % (channel, 1 / (255 * std)) for channel, std in enumerate(self.std)]
        return "aipp_op {\n%s}\n" % "".join("    %s\n" % line for line in lines)


DEFAULT = Recipe(dtype="float32", layout="CHW", **{field: default for field, (default, _) in FIELDS.items()})


def add_options(parser, default="MODEL_TYPE's"):
    """The options that tell the fields of FIELDS."""
    for field, (_, option) in FIELDS.items():
        parser.add_argument("--" + field, **dict(option, help="%s (default: %s)" % (option["help"], default)))


def from_options(parser, args, model_type="resnet", dtype="float32"):
    """The Recipe of parsed options; what they leave out is the model type's."""
    options = {field: getattr(args, field) for field in FIELDS if getattr(args, field) is not None}
    recipe = DEFAULT.with_dtype(dtype)._replace(**dict(MODEL_TYPES[model_type], **options))
    if recipe.crop > recipe.resize:
        parser.error("--crop %d is larger than --resize %d" % (recipe.crop, recipe.resize))
    return recipe


def from_json(value, path):
    """The Recipe that a file carries (an object, or its text)."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
        recipe = DEFAULT._replace(**value)
        if {"resize", "crop", "mean", "std", "dtype", "layout"} - set(value) or LAYOUTS[recipe.dtype] != recipe.layout \
                or not all(is_taken(option, getattr(recipe, field)) for field, (_, option) in FIELDS.items()):
            raise ValueError(value)
        return recipe
    except (ValueError, TypeError, KeyError, RecursionError, argparse.ArgumentTypeError):
        return fail("%s: its recipe is none: %s" % (path, str(value)[:200]))


def is_taken(option, value):
    """Whether an option takes just this value."""
    if "choices" in option:
        return value in option["choices"]
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return option["type"](text) == value


def difference(first, second, fields=tuple(FIELDS)):
    """The fields in which two recipes differ, in words ("resize 256, not 224"), or "". Either may be None: not known.

    By default dtype and layout are left out: uint8 pixels pair with float32.
    """
    pairs = [(field, getattr(first, field), getattr(second, field)) for field in fields] if first and second else []
    return ", ".join("%s %s, not %s" % each for each in pairs if each[1] != each[2])


def check_fits(recipe, path, dtype, shape, own=None, any_layout=False):
    """Exit unless the images that a recipe makes are what a model takes: by its input (dtype's name, shape of one image), and by
    its own Recipe where it has one. any_layout: the input is an .om's whose AIPP takes another layout than its graph."""
    order = sorted if any_layout else list
    problem = difference(recipe, own)
    if not problem and recipe.dtype != dtype:
        problem = "dtype %s, not %s" % (recipe.dtype, dtype)
    if not problem and order(recipe.shape) != order(shape):
        problem = "shape %s, not %s" % (recipe.shape, list(shape))
    if problem:
        fail("%s: its images are prepared otherwise than the model takes them (%s); prepare the images for this model"
             % (path, problem))
