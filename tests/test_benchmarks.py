"""benchmarks/: what can go wrong before the measuring starts; .ci/run runs the small version whole."""
from conftest import fails, succeeds


def test_wrong_usage_exits_with_2(tmp_path):
    assert "no such folder" in fails(2, "benchmarks/run.py", "--images", tmp_path / "none")
    assert "--small" in succeeds("benchmarks/run.py", "--help").stdout
