"""common/recipe.py: one object says how an image becomes a model's input, and what two of them must share."""
import argparse
import json
import sys

import pytest
from conftest import FLOAT_RECIPE, REPOSITORY, UINT8_RECIPE

sys.path.insert(0, str(REPOSITORY))
from common import recipe
from common.command import Failure

OTHER = {"resize": 257, "crop": 192, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def parsed(words, model_type="resnet", dtype="float32"):
    parser = argparse.ArgumentParser()
    recipe.add_options(parser)
    return recipe.from_options(parser, parser.parse_args(words.split()), model_type, dtype)


def test_without_options_it_is_the_model_types_of_the_zoo():
    assert parsed("").as_json() == FLOAT_RECIPE == recipe.DEFAULT.as_json()
    assert parsed("", dtype="uint8").as_json() == UINT8_RECIPE == recipe.DEFAULT.with_dtype("uint8").as_json()
    assert (parsed("", "inceptionv3").resize, parsed("", "inceptionv3").crop) == (342, 299)
    assert parsed("", "inceptionv4").mean == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("field", list(recipe.FIELDS))
def test_each_field_has_an_option_travels_as_json_and_parts_two_recipes(field):
    value = OTHER[field]
    told = parsed("--%s %s" % (field, ",".join(map(str, value)) if isinstance(value, list) else value))
    assert told == recipe.DEFAULT._replace(**{field: value})
    assert recipe.from_json(json.dumps(told.as_json()), "x") == recipe.from_json(told.as_json(), "x") == told
    difference = recipe.difference(recipe.DEFAULT, told)
    assert difference == "%s %s, not %s" % (field, getattr(recipe.DEFAULT, field), value)
    with pytest.raises(Failure, match=field):
        recipe.check_fits(told, "prep", told.dtype, told.shape, recipe.DEFAULT)


def test_uint8_and_float32_of_one_recipe_are_the_same_pictures_unless_asked():
    uint8 = recipe.DEFAULT.with_dtype("uint8")
    assert recipe.difference(recipe.DEFAULT, uint8) == recipe.difference(None, uint8) == recipe.difference(uint8, None) == ""
    assert recipe.difference(recipe.DEFAULT, uint8, list(recipe.FIELDS) + ["dtype"]) == "dtype float32, not uint8"
    assert recipe.difference(recipe.DEFAULT, parsed("--resize 235 --interpolation bicubic")) == \
        "resize 256, not 235, interpolation bilinear, not bicubic"


@pytest.mark.parametrize("words", ["--crop 300", "--crop 0", "--resize 5000", "--resize 2000 --crop 1025", "--mean 123,116,103",
                                   "--mean nan,0,0", "--std 0,1,1", "--std 1,1", "--interpolation nearest"])
def test_what_no_net_is_trained_with_is_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(words)
    assert ended.value.code == 2 and words.split()[0] in capsys.readouterr().err


def test_what_an_artefact_was_made_from_names_only_what_is_not_the_default_so_that_a_new_field_remakes_nothing():
    assert recipe.DEFAULT.without_defaults() == {"dtype": "float32", "layout": "CHW"}
    assert parsed("--resize 235").without_defaults() == {"resize": 235, "dtype": "float32", "layout": "CHW"}


def test_a_recipe_written_before_there_was_an_interpolation_is_bilinear():
    before = {key: value for key, value in FLOAT_RECIPE.items() if key != "interpolation"}
    assert recipe.from_json(before, "x") == recipe.DEFAULT


@pytest.mark.parametrize("value", [None, 3, [], "", "{", "[" * 99999, dict(FLOAT_RECIPE, more=1), {"resize": 256}] + [
    dict(FLOAT_RECIPE, **{key: value}) for key, value in (
        ("crop", 0), ("crop", 2000), ("crop", 224.0), ("crop", True), ("resize", "256"), ("mean", [0.5]),
        ("mean", 3), ("mean", [0.4, 0.4, "x"]), ("std", [0, 1, 1]), ("std", [float("nan")] * 3), ("interpolation", "nearest"),
        ("interpolation", []), ("dtype", "float64"), ("dtype", {}), ("layout", "HWC"))])
def test_what_a_file_says_and_is_no_recipe_is_one_sentence(value):
    with pytest.raises(Failure, match="file.onnx: its recipe is none"):
        recipe.from_json(value, "file.onnx")


def test_a_recipe_fits_a_model_of_its_dtype_and_shape_only():
    uint8 = recipe.DEFAULT.with_dtype("uint8")
    assert recipe.DEFAULT.shape == [3, 224, 224]
    assert uint8.shape == [224, 224, 3]
    recipe.check_fits(recipe.DEFAULT, "prep", "float32", (3, 224, 224))
    recipe.check_fits(uint8, "prep", "uint8", (3, 224, 224), any_layout=True)
    for made_with, dtype, shape, problem in ((uint8, "float32", (3, 224, 224), "dtype uint8, not float32"),
                                             (uint8, "uint8", (3, 224, 224), "shape"),
                                             (recipe.DEFAULT, "float32", (3, 192, 192), "shape")):
        with pytest.raises(Failure, match="prep: .*" + problem):
            recipe.check_fits(made_with, "prep", dtype, shape)


def test_aipp_has_the_constants_of_the_zoo():
    """Those of contracts.md, in units of a pixel: 255 x mean, and 1 / (255 x std)."""
    text = recipe.DEFAULT.aipp()
    for line in ("src_image_size_w: 224", "src_image_size_h: 224",
                 "min_chn_0: 123.675", "min_chn_1: 116.28", "min_chn_2: 103.53", "var_reci_chn_0: 0.0171247538316637",
                 "var_reci_chn_1: 0.0175070028011204", "var_reci_chn_2: 0.0174291938997821"):
        assert "    %s\n" % line in text
    assert text.startswith("aipp_op {\n    aipp_mode: static\n    input_format: RGB888_U8\n") and text.endswith("\n}\n")
