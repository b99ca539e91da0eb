"""benchmarks/: what can go wrong before the measuring starts; .ci/run runs the small version whole."""
from conftest import draw_images, fails, succeeds


def test_wrong_usage_exits_with_2(tmp_path):
    assert "no such folder" in fails(2, "benchmarks/run.py", "--images", tmp_path / "none")
    assert "--small" in succeeds("benchmarks/run.py", "--help").stdout


def test_recipes_ends_with_a_sentence_and_takes_a_limit(tiny, tmp_path):
    line = "benchmarks/recipes.py", "--images", draw_images(tmp_path / "val", 3)[0].parent, "--pth"
    assert "resnet34_pth2onnx.py: did not end well" in fails(1, *(line + (tmp_path / "none.pth",)))
    fails(2, *(line + (tmp_path / "none.pth", "--limit", "0")))
