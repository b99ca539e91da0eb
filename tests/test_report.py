"""report.py: the guide's table and what shows whether its numbers deserve trust, from files that a run left."""
import json
import re
import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import fails, interrupted, script, succeeds
from PIL import Image

SCRIPT = "report.py"
LATENCY = {"min": 1.0, "max": 9.0, "mean": 2.0, "median": 1.5, "count": 20}
# The published figures of the guide's table.
GUIDE = {1: 1775.08, 4: 4113.16, 8: 5140.21, 16: 5455.38, 32: 5527.69, 64: 5082.96}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A folder with the judged results of ten images at two batch sizes, as the stages by hand leave it."""
    folder = tmp_path_factory.mktemp("judged")
    scores = np.random.RandomState(2).standard_normal((10, 20)).astype("<f4")
    labels = scores.argmax(1) * np.tile([1, 0], 5)
    (folder / "labels").write_text("".join("image%d.JPEG %d\n" % pair for pair in enumerate(labels)))
    for size in (1, 4):
        (folder / ("result_bs%d" % size)).mkdir()
        for number, row in enumerate(scores):
            (folder / ("result_bs%d" % size) / ("image%d_0.bin" % number)).write_bytes(row.tobytes())
        (folder / ("result_bs%d_summary.json" % size)).write_text("{}")
        succeeds("imagenet_acc_eval.py", folder / ("result_bs%d" % size), folder / "labels", folder, "result_bs%d.json" % size)
        p99 = "percentile(99%)" if size == 1 else "P99"  # ais_bench 0.0.2's name of it, and that of newer ones
        summary = {"throughput": 1000.0 * size, "NPU_compute_time": dict(LATENCY, **{p99: 8.5})}
        (folder / ("perf_bs%d_summary.json" % size)).write_text(json.dumps(summary))
    return folder


@pytest.fixture
def folder(judged, tmp_path):
    shutil.copytree(str(judged), str(tmp_path / "r"))
    return tmp_path / "r"


def facts(*more, sizes="1 4", chip="Ascend310P3", device="0"):
    return ["--engine", "ais_bench", "--chip", chip, "--device", device, "--dataset", "val", "--batch-sizes", sizes, "--pth", "",
            "--commands", "one command", "another", "--failed"] + list(more)


def table_of(folder, heading=None):
    """The rows of a table of report.md as dictionaries; without a heading the guide's."""
    text = (folder / "report.md").read_text()
    text = text[text.index("\n## %s" % heading):] if heading else text
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group().splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def test_results_made_by_hand_give_a_report_without_a_recorded_run(folder):
    process = succeeds(SCRIPT, folder)
    rows = table_of(folder)
    assert [(row["Batch size"], row["images/s"], row["mean ms"], row["median ms"], row["P99 ms"]) for row in rows] == \
        [("1", "1000.00", "2.00", "1.50", "8.50"), ("4", "4000.00", "2.00", "1.50", "8.50")]
    accuracy = json.loads((folder / "result_bs1.json").read_text())
    assert rows[0]["Top-1"] == {item["key"]: item["value"] for item in accuracy["value"]}["Top1 accuracy"]
    assert rows[0]["Data set"] == "imagenet, 10 of 10 labelled images"
    interval = table_of(folder, "95 % intervals")[0]
    assert float(interval["Top-1 from"].rstrip("%")) == accuracy["interval95"]["top1"][0]
    assert process.stdout.splitlines()[:4] == (folder / "report.md").read_text().splitlines()[2:6]
    assert {path.name for path in folder.glob("report.*")} == {"report.md", "report.json", "report.png", "report.html"}


def test_the_guides_figure_and_the_ratio_stand_beside_the_guides_chip_alone(folder):
    succeeds(SCRIPT, folder, *facts())
    for row in table_of(folder):
        guide = GUIDE[int(row["Batch size"])]
        assert (row["guide's images/s"], row["ratio"]) == ("%.2f" % guide, "%.2f" % (float(row["images/s"]) / guide))
    rows = json.loads((folder / "report.json").read_text())["rows"]
    assert [row["guide_images_per_second"] for row in rows] == [GUIDE[1], GUIDE[4]]
    succeeds(SCRIPT, folder, *facts(chip="Ascend910B4"))
    assert "ratio" not in table_of(folder)[0]


def test_a_failed_batch_size_has_dashes_and_its_reason(folder):
    (folder / "result_bs4.json").unlink()
    succeeds(SCRIPT, folder, *facts("4=atc | failed"))
    assert [table_of(folder)[1][key] for key in ("Top-1", "images/s", "P99 ms", "ratio")] == ["-"] * 4
    assert "| batch size 4 failed | atc \\| failed |" in (folder / "report.md").read_text()
    assert "atc | failed" in (folder / "report.html").read_text()


def test_the_commands_and_the_environment_are_there(folder):
    (folder / "resnet34.onnx").write_bytes(b"model")
    succeeds(SCRIPT, folder, *facts())
    text = (folder / "report.md").read_text()
    assert "```bash\none command\nanother\n```" in text
    assert {"chip", "driver", "cann", "machine", "python", "numpy"} <= {row["What"] for row in table_of(folder, "Environment")}
    run = json.loads((folder / "report.json").read_text())["run"]
    assert run["sha256"] == {"resnet34.onnx": "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"}
    assert run["sha256"]["resnet34.onnx"] in text


def test_report_json_has_a_schema_and_every_row(folder):
    succeeds(SCRIPT, folder)
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == 2 and [row["batch_size"] for row in report["rows"]] == [1, 4]
    row = report["rows"][0]
    assert row["latency_ms"] == {"mean": 2.0, "median": 1.5, "p99": 8.5} and row["engine"] == "ais_bench"
    assert len(row["mistakes"]) and len(row["worst_classes"]) and row["fidelity"] is None


def test_another_runs_figures_stand_beside(folder, judged):
    succeeds(SCRIPT, folder, "--reference", judged)
    row = table_of(folder, "Beside")[1]
    assert row["Top-1"] == row["Top-1 there"] and row["images/s there"] == "4000.00" and row["ratio"] == "1.00"


def test_results_that_contradict_their_reference_are_shown_and_are_an_error(folder):
    (folder / "other").mkdir()
    for path in (folder / "result_bs1").iterdir():
        (folder / "other" / path.name).write_bytes(np.fromfile(str(path), "<f4")[::-1].tobytes())
    assert script("imagenet_acc_eval.py", folder / "result_bs1", folder / "labels", folder, "result_bs1.json",
                  "--reference", folder / "other").returncode == 1
    assert "batch size 1 are not those of the reference" in fails(1, SCRIPT, folder)
    assert table_of(folder, "Fidelity")[0]["verdict"] == "DOES NOT AGREE"
    assert len(table_of(folder, "Images that differ most")) == 10
    assert "DOES NOT AGREE" in (folder / "report.html").read_text()


def test_class_names_are_a_files_or_plain_numbers(folder):
    succeeds(SCRIPT, folder)
    assert all(row["Class"].isdigit() for row in table_of(folder, "Ten worst classes"))
    (folder / "names").write_text("".join("<b>%d|\n" % number for number in range(20)))
    succeeds(SCRIPT, folder, "--classes", folder / "names")
    text = (folder / "report.html").read_text()
    assert "&lt;b&gt;" in text and "(<b>" not in text and " \\|)" not in text
    (folder / "names").write_text("one\n")
    assert "has 1 lines" in fails(1, SCRIPT, folder, "--classes", folder / "names")


def test_the_thousand_classes_take_torchvisions_names_without_importing_it(tmp_path):
    meta = Path(find_spec("torchvision").origin).parent / "models" / "_meta.py"
    if not meta.exists():
        pytest.skip("this torchvision has no list of names")
    names = runpy.run_path(str(meta))["_IMAGENET_CATEGORIES"]
    (tmp_path / "r").mkdir()
    scores = np.zeros(1000, "<f4")
    scores[7] = 1
    (tmp_path / "r" / "a_0.bin").write_bytes(scores.tobytes())
    (tmp_path / "labels").write_text("a.JPEG 999\n")
    succeeds("imagenet_acc_eval.py", tmp_path / "r", tmp_path / "labels", tmp_path, "result_bs1.json", "--per-class",
             tmp_path / "c.csv")
    assert "999,%s,1,0.00,0.00" % names[999] in (tmp_path / "c.csv").read_text()
    (tmp_path / "perf_bs1_summary.json").write_text(json.dumps(
        {"throughput": 1.0, "NPU_compute_time": dict(LATENCY, P99=1.0), "engine": "unknown (no summary beside the results)"}))
    succeeds(SCRIPT, tmp_path)
    assert "7 (%s)" % names[7] in (tmp_path / "report.html").read_text()


def test_the_page_holds_everything_and_loads_nothing(demo):
    text = (demo[0] / "report.html").read_text()
    row = json.loads((demo[0] / "report.json").read_text())["rows"][0]
    mistakes = row["mistakes"]
    assert len(mistakes) == 12 and all(mistake["image"] in text for mistake in mistakes)
    assert text.count('src="data:image/jpeg;base64,') == 12 and text.count('src="data:image/png;base64,') == 1
    assert "<script" not in text and not re.search(r'(src|href)="(?!data:)', text) and "http" not in text
    assert "stripes" in text and "%.2f%%" % row["top1"] in text


def test_a_picture_that_is_gone_is_said_to_be(folder):
    succeeds(SCRIPT, folder, "--images", folder / "gone")
    assert "(picture not found in" in (folder / "report.html").read_text()


def test_the_chart_is_a_picture_without_colour(demo):
    with Image.open(str(demo[0] / "report.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[0] > 500 and pixels.min() < 50
    assert np.abs(pixels - pixels.mean(axis=2, keepdims=True)).max() < 2


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_overflows_and_every_picture_shows(width, demo, tmp_path):
    """In a real Chromium, where there is one: the page in a frame of the given width, measured by a script outside of it."""
    import html
    import subprocess
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    inner = (demo[0] / "report.html").read_text()
    wrapper = """<iframe id="page" style="border:0; width:%dpx; height:900px" srcdoc="%s"></iframe><script>
        page.onload = () => { const frame = page.contentDocument; const wide = [...frame.querySelectorAll("body *")].filter(
          element => element.getBoundingClientRect().right > %d + 1);
          document.title = [frame.documentElement.scrollWidth, wide.length, frame.images.length,
            [...frame.images].filter(image => image.naturalWidth).length].join(" "); }</script>"""
    (tmp_path / "w.html").write_text(wrapper % (width, html.escape(inner), width))
    shown = subprocess.run([chromium, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--disable-quic",
                            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                            "--user-data-dir=%s" % (tmp_path / "profile"), "--virtual-time-budget=5000", "--dump-dom",
                            "file://%s" % (tmp_path / "w.html")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    title = re.search(r"<title>(.*?)</title>", shown.stdout.decode("utf-8", "replace"))
    assert title and title.group(1) == "%d 0 13 13" % width


def test_what_is_missing_or_broken_is_named(folder, tmp_path):
    perf = json.loads((folder / "perf_bs4_summary.json").read_text())
    for content, said in ((json.dumps(dict(perf, engine="another")), "measure both with one engine"), ("{", "is not JSON"),
                          ("{}", "is not as the inference writes it")):
        (folder / "perf_bs4_summary.json").write_text(content)
        sentence = fails(1, SCRIPT, folder)
        assert said in sentence
    (folder / "perf_bs4_summary.json").unlink()
    assert "perf_bs4_summary.json" in fails(1, SCRIPT, folder)
    (folder / "result_bs4.json").write_text('{"value": []}')
    assert "is not as imagenet_acc_eval.py writes it" in fails(1, SCRIPT, folder)
    (folder / "run.json").write_text("[]")
    assert "run.json" in fails(1, SCRIPT, folder)
    (tmp_path / "empty").mkdir()
    assert "holds no run.json" in fails(1, SCRIPT, tmp_path / "empty")


def test_ctrl_c_leaves_the_earlier_report(folder):
    (folder / "report.md").write_text("earlier")
    assert "run it again" in interrupted(folder / "run.json", SCRIPT, folder)
    assert (folder / "report.md").read_text() == "earlier"


def test_wrong_usage_exits_with_2(folder):
    fails(2, SCRIPT)
    fails(2, SCRIPT, folder, "--engine", "onnxruntime")
    fails(2, SCRIPT, folder, *facts(sizes="x"))
    fails(2, SCRIPT, folder, *facts(device="x"))
