"""run_infer.sh on ONNX Runtime: the whole guide in one line, what it skips and makes again, its stops, gates and refusals."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import DEMO, REPOSITORY, back_to, can_quantize, command, contents, fails, script, succeeds, wait_until

ENV = dict(os.environ, PYTHON=sys.executable)
ONE_LINE = ["--engine", "onnxruntime", "--loop", "2", "--batch-sizes", "4", "--limit", "8"]


def rows_of(folder):
    """The report's rows without what differs from run to run."""
    report = json.loads((folder / "report.json").read_text())
    keys = ("precision", "batch_size", "top1", "top5", "judged", "labelled")
    return [{key: row[key] for key in keys} for row in report["rows"]]


def done(process):
    """The stages that were not skipped."""
    return re.findall(r"^== (\w+): (?!skipped)", process.stdout, re.MULTILINE)


def made(folder):
    """What is in a folder but for the number of the process that locked it."""
    return {name: data for name, data in contents(folder).items() if name != ".stages/lock"}


def data_options(tiny, output, *more):
    return ["--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels", tiny / "val_label.txt", "--output",
            output] + ONE_LINE + list(more)


@pytest.fixture(scope="module")
def kept(tiny, tmp_path_factory):
    """Snapshots of one output folder: when only the export was done, and when a run over 8 images was."""
    place = tmp_path_factory.mktemp("kept")
    options = data_options(tiny, place / "o")
    succeeds("run_infer.sh", *(options + ["--stages", "export"]))
    shutil.copytree(str(place / "o"), str(place / "exported"))
    succeeds("run_infer.sh", *options)
    shutil.copytree(str(place / "o"), str(place / "finished"))
    return place


@pytest.fixture
def short_run(kept):
    """The finished run over 8 images at batch size 4, to look at."""
    return kept / "finished"


@pytest.fixture
def exported(kept, tiny):
    """An output folder in which only the export was done: (the folder, the options of its line)."""
    folder = back_to(kept, "exported")
    return folder, data_options(tiny, folder)


@pytest.fixture
def rerun(kept, tiny):
    """The finished run over 8 images: (its folder, a function that runs the same line again with more options)."""
    folder = back_to(kept, "finished")
    return folder, lambda *more, **how: succeeds("run_infer.sh", *(data_options(tiny, folder) + list(more)), **how)


def test_the_demo_ends_with_the_accuracy_that_pytorch_finds_at_every_batch_size(demo, pytorchs_hits):
    folder, said = demo
    hits = pytorchs_hits
    top1, top5 = 100 * hits[:, 0].mean(), 100 * hits.any(axis=1).mean()
    assert [(row["precision"], row["batch_size"], row["judged"]) for row in rows_of(folder)] == [
        ("fp32", 1, 64), ("fp32", 8, 64)]
    for row in rows_of(folder):
        assert row["top1"] == pytest.approx(top1) and row["top5"] == pytest.approx(top5)
    assert "%.2f%%" % top1 in said and "onnxruntime" in said


def test_every_file_of_the_guide_is_there(demo):
    folder = demo[0]
    names = {"prep_dataset", "resnet34.onnx", "report.md", "report.json", "report.png", "report.html", "commands.sh"}
    for size in (1, 8):
        names |= {form % size for form in ("result_bs%d", "result_bs%d_summary.json", "result_bs%d.json",
                                           "perf_bs%d_summary.json")}
        assert len(list((folder / ("result_bs%d" % size)).glob("*_0.txt"))) == 64
    assert names <= set(os.listdir(str(folder)))
    assert not [name for name in os.listdir(str(folder)) if name.endswith((".tmp", ".partial", ".new"))]


def test_commands_sh_holds_each_command_that_was_run_and_they_are_shown(demo):
    folder, said = demo
    lines = (folder / "commands.sh").read_text().splitlines()
    for name in ("make_tiny_imagenet.py", "resnet34_pth2onnx.py", "imagenet_torch_preprocess.py", "onnx_infer.py",
                 "imagenet_acc_eval.py"):
        assert any(name in line for line in lines), name
    assert all(line in said for line in lines)


def test_a_second_run_skips_everything_within_a_few_starts_of_python_and_says_the_same_table(demo):
    folder, first = demo
    before = made(folder)
    start = time.monotonic()
    again = succeeds("run_infer.sh", *DEMO, "--output", folder)
    seconds = time.monotonic() - start
    assert done(again) == [] and made(folder) == before
    assert again.stdout.splitlines()[-3:] == first.splitlines()[-3:]
    assert seconds < 10  # under 1 s on an idle machine (benchmarks/README.md); here other tests may be at work
    for more, code in (([], 0), (["--loop", "4"], 1)):
        check = script("run_infer.sh", *DEMO, "--output", folder, "--check", *more)
        assert check.returncode == code
    assert made(folder) == before


def test_what_was_damaged_is_made_again_and_only_that(rerun):
    folder, again = rerun
    rows = rows_of(folder)
    prepared = folder / "prep_dataset" / "ILSVRC2012_val_00000003.bin"
    scores = folder / "result_bs4" / "ILSVRC2012_val_00000003_0.txt"
    for damage, redone in [(lambda: scores.write_text("0"), "infer_bs4 evaluate_bs4 report"), (prepared.unlink, None),
                           (lambda: [(folder / name).unlink() for name in ("result_bs4.json", "perf_bs4_summary.json")],
                            "evaluate_bs4 perf_bs4 report")]:
        damage()
        stages = done(again())
        assert redone is None or stages == redone.split()
        assert rows_of(folder) == rows and done(again()) == []


def test_changed_options_weights_and_labels_reach_all_that_depends_on_them(rerun, tiny, tmp_path):
    folder, again = rerun
    assert done(again("--outfmt", "BIN")) == ["infer_bs4", "evaluate_bs4", "report"]
    assert done(again("--force-perf")) == ["infer_bs4", "evaluate_bs4", "perf_bs4", "report"]  # and back to TXT
    import torch
    weights = torch.load(str(tiny / "resnet34-tiny.pth"), map_location="cpu")
    weights["fc.weight"] = weights["fc.weight"].flip(0)
    torch.save(weights, str(tmp_path / "other.pth"))
    assert set(done(again("--pth", tmp_path / "other.pth"))) >= {"export_resnet34", "infer_bs4", "evaluate_bs4", "perf_bs4"}
    shutil.copy(str(tiny / "val_label.txt"), str(tmp_path / "labels.txt"))
    os.utime(str(tmp_path / "labels.txt"), (1, 1))
    (tmp_path / "labels.txt").write_text(re.sub(r" \d+\n", " 7\n", (tmp_path / "labels.txt").read_text()))
    again("--labels", tmp_path / "labels.txt")
    assert rows_of(folder)[0]["top1"] == 0


def test_another_data_set_with_equal_names_and_old_dates_in_the_same_folder_is_not_taken_for_the_first(
        kept, rerun, tiny, tmp_path):
    folder, again = rerun
    (tmp_path / "val").mkdir()
    names = sorted(os.listdir(str(tiny / "val")))
    for name, other in zip(names[:8], names[8:16]):
        shutil.copy(str(tiny / "val" / other), str(tmp_path / "val" / name))
        os.utime(str(tmp_path / "val" / name), (1340000000, 1340000000))  # 2012, as ImageNet's own are
    again("--images", tmp_path / "val")
    rows, results = rows_of(folder), contents(folder / "result_bs4")
    fresh = back_to(kept, "exported")
    succeeds("run_infer.sh", *data_options(tiny, fresh, "--images", tmp_path / "val"))
    scores = {name: data for name, data in contents(fresh / "result_bs4").items() if name.endswith(".txt")}
    assert len(scores) == 8 and scores == {name: data for name, data in results.items() if name.endswith(".txt")}
    assert rows == rows_of(fresh)


def test_other_packages_behind_the_same_python_make_everything_again(rerun, tmp_path):
    _, again = rerun
    (tmp_path / "site" / "pillow-99.0.dist-info").mkdir(parents=True)
    stages = done(again(env=dict(ENV, PYTHONPATH=str(tmp_path / "site"))))
    assert {"preprocess", "infer_bs4", "evaluate_bs4", "perf_bs4", "report"} <= set(stages)


def test_an_edited_script_is_noticed(tiny, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(str(REPOSITORY), str(copy), ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "output"))
    options = [str(word) for word in data_options(tiny, tmp_path / "o", "--stages", "preprocess")]
    run = ["bash", str(copy / "run_infer.sh")] + options
    subprocess.run(run, env=ENV, check=True, stdout=subprocess.DEVNULL)
    preprocess = copy / "imagenet_torch_preprocess.py"
    preprocess.write_text(preprocess.read_text().replace("0.485", "0.585"))
    process = subprocess.run(run, env=ENV, capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and "was made for mean [0.485" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("theirs", ["resnet34.onnx", "report.md", "result_bs4/x_0.txt", "tiny-imagenet/val/a.JPEG"])
def test_a_folder_with_files_of_the_users_own_is_refused_untouched(theirs, tiny, tmp_path):
    path = tmp_path / "mine" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("my own")
    assert "not made by run_infer.sh" in fails(1, "run_infer.sh", *data_options(tiny, tmp_path / "mine"))
    assert contents(tmp_path / "mine") == {theirs: b"my own"}


def test_in_its_own_folder_a_file_of_the_users_own_is_not_replaced(rerun, tiny):
    folder, _ = rerun
    (folder / "result_bs2").mkdir()
    (folder / "result_bs2" / "notes.txt").write_text("my own")
    sentence = fails(1, "run_infer.sh", *data_options(tiny, folder, "--batch-sizes", "2"))
    assert "run_infer.sh did not make it" in sentence and (folder / "result_bs2" / "notes.txt").read_text() == "my own"


def test_links_planted_in_the_output_folder_are_not_written_through(tiny, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "o"
    (folder / ".stages").mkdir(parents=True)
    (folder / ".stages" / "lock").symlink_to(victim)
    assert "lock" in fails(1, "run_infer.sh", *data_options(tiny, folder))
    assert victim.read_text() == "precious"


def test_a_planted_module_in_the_current_folder_is_not_executed(tiny, tmp_path):
    for name in ("re.py", "json.py", "numpy.py", "argparse.py"):
        (tmp_path / name).write_text("open('%s', 'w').write('executed')" % (tmp_path / "proof"))
    succeeds("run_infer.sh", *data_options(tiny, tmp_path / "o", "--stages", "preprocess"), cwd=str(tmp_path))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_mid_inference_ends_at_once_and_the_same_line_goes_on(number, code, exported):
    folder, options = exported
    options += ["--limit", "48", "--batch-sizes", "1"]
    process = subprocess.Popen(command("run_infer.sh", *options), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               encoding="utf-8")
    wait_until(lambda: len(list((folder / ".result_bs1.partial").glob("*_0.txt"))) >= 3, process)
    process.send_signal(number)
    start = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == code and time.monotonic() - start < 15 and "stopped" in errors and "Traceback" not in errors
    assert not (folder / "result_bs1").exists()
    again = succeeds("run_infer.sh", *options)
    assert done(again) == ["infer_bs1", "evaluate_bs1", "perf_bs1", "report"] and rows_of(folder)[0]["judged"] == 48
    assert json.loads((folder / "result_bs1_summary.json").read_text())["wall"]["resumed"]


def test_a_second_run_at_the_same_time_is_refused(exported):
    folder, options = exported
    process = subprocess.Popen(command("run_infer.sh", *options), env=ENV, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (folder / ".stages" / "lock").read_text() == "%d\n" % process.pid, process)
        assert "is at work there" in fails(1, "run_infer.sh", *options)
    finally:
        assert process.wait() == 0


def test_gates_that_hold_pass_and_gates_that_fail_end_with_3(rerun, short_run, tiny):
    folder, options = rerun[0], data_options(tiny, rerun[0])
    held = succeeds("run_infer.sh", *(options + ["--min-top1", "10", "--quiet"]))
    assert "PASS" in held.stdout and "==" not in held.stdout
    failing = script("run_infer.sh", *(options + ["--min-top1", "100", "--min-top5", "100"]))
    assert failing.returncode == 3 and re.search(r"FAIL: Top-1 [\d.]+% is below 100", failing.stdout)
    assert rows_of(folder) == rows_of(short_run)  # the report is there all the same


def test_a_run_slower_than_its_reference_ends_with_3(rerun, tiny, tmp_path):
    folder, _ = rerun
    report = json.loads((folder / "report.json").read_text())
    for row in report["rows"]:
        row["images_per_second"] *= 100
        row["images_per_second_interval95"] = [row["images_per_second"]] * 2
    (tmp_path / "fast.json").write_text(json.dumps(report))
    options = ["--reference", tmp_path / "fast.json", "--max-slowdown", "10", "--seconds", "3"]
    line = [word for word in data_options(tiny, folder) if word not in ("--loop", "2")] + options
    process = script("run_infer.sh", *line)
    assert process.returncode == 3 and "FAIL" in process.stdout, process.stdout + process.stderr


def test_uint8_files_give_the_same_results_byte_for_byte_and_int8_is_reported_beside_them(short_run, exported):
    folder, options = exported
    options += ["--dtype", "uint8"]
    process = succeeds("run_infer.sh", *(options + (["--int8", "--calibration-images", "4"] if can_quantize() else [])))
    for path in sorted((short_run / "result_bs4").glob("*.txt")):
        assert path.read_bytes() == (folder / "result_bs4" / path.name).read_bytes()
    if not can_quantize():
        refused = script("run_infer.sh", *(options + ["--int8"]))
        assert refused.returncode == 1 and "1.13" in refused.stderr
        return
    assert [(row["precision"], row["batch_size"]) for row in rows_of(folder)] == [("fp32", 4), ("int8", 4)]
    assert "int8" in process.stdout
    assert json.loads((folder / "result_int8_bs4.json").read_text())["paired"]["top1"]["lost"] is not None


def test_two_shards_at_once_and_the_rest_end_with_the_report_of_a_whole_run(short_run, exported):
    folder, options = exported
    succeeds("run_infer.sh", *(options + ["--stages", "export,compile"]))
    shards = [subprocess.Popen(command("run_infer.sh", *(options + ["--stages", "preprocess,infer", "--shard", "%d/2" % number])),
                               env=ENV, stdout=subprocess.DEVNULL) for number in (1, 2)]
    assert [process.wait() for process in shards] == [0, 0]
    succeeds("run_infer.sh", *(options + ["--stages", "evaluate,perf,report"]))
    assert rows_of(folder) == rows_of(short_run)
    for path in sorted((short_run / "result_bs4").glob("*.txt")):
        (of_shard,) = (folder / "result_bs4").glob("shard*_of_2/" + path.name)
        assert path.read_bytes() == of_shard.read_bytes()
    check = options + ["--stages", "preprocess,infer", "--check", "--shard"]
    assert script("run_infer.sh", *(check + ["1/2"])).returncode == 0
    assert script("run_infer.sh", *(check + ["1/3"])).returncode == 1


def test_paths_with_spaces_quotes_newlines_and_a_leading_dash_work(short_run, tiny, tmp_path):
    odd = tmp_path / "a 'b\" $(c)\nd"
    odd.mkdir()
    (odd / "-images").symlink_to(tiny / "val")
    shutil.copy(str(tiny / "resnet34-tiny.pth"), str(odd / "-w.pth"))
    shutil.copy(str(tiny / "val_label.txt"), str(odd / "-l.txt"))
    succeeds("run_infer.sh", "--pth", "-w.pth", "--images", "-images", "--labels", "-l.txt", "--output", "-o",
             *ONE_LINE, cwd=str(odd))
    assert rows_of(odd / "-o") == rows_of(short_run)


@pytest.mark.parametrize("options,code,words", [
    (["--batch-sizes", ","], 2, "empty"), (["--batch-sizes", "0"], 2, "positive"),
    (["--loop", "3", "--seconds", "2"], 2, "exclude"),
    (["--min-top1", "abc"], 2, "percentage"), (["--max-slowdown", "10"], 2, "needs --reference"),
    (["--reference", "nothere"], 1, "no report.json"), (["--mean", "1,2"], 2, "0.5,0.5,0.5"), (["--crop", "x"], 2, "pixels"),
    (["--demo", "--pth", "x"], 2, "--demo"), (["--no-such"], 2, "unknown"), (["--shard", "3/2"], 2, "K/N"),
    (["--shard", "1/2"], 2, "--stages"), (["--stages", "infer,nonsense"], 2, "nonsense"), (["--dtype", "int4"], 2, "float32"),
    (["--pth", "missing.pth"], 1, "wget"), (["--images", "missing"], 1, "no such folder"),
    (["--labels", "missing"], 1, "no such file"),
    (["--labels", "."], 1, "is a folder"), (["--engine", "ais_bench"], 1, "ais_bench")])
def test_wrong_usage_and_missing_inputs_are_said_before_any_work(options, code, words, tiny, tmp_path):
    env = dict(ENV, CDPATH="/tmp", ASCEND_SET_ENV="/nonexistent")
    line = ([] if "--demo" in options else data_options(tiny, tmp_path / "o")) + options
    assert words in fails(code, "run_infer.sh", *line, env=env, cwd=str(tmp_path))
    assert not (tmp_path / "o" / "prep_dataset").exists()


def test_stages_left_out_must_have_been_made_by_this_very_line(rerun, tiny, tmp_path):
    folder, again = rerun
    before = made(folder)
    (tmp_path / "val").mkdir()
    for options in (["--images", tmp_path / "val"], ["--limit", "4"]):
        line = data_options(tiny, folder) + ["--stages", "evaluate,perf,report"] + options
        assert "prep_dataset: was made by another line" in fails(1, "run_infer.sh", *line)
    assert made(folder) == before
    assert done(again("--stages", "evaluate,report", "--min-top1", "1")) == ["evaluate_bs4", "report"]
    line = data_options(tiny, folder, "--stages", "report", "--min-top1", "2")
    assert "evaluate in --stages" in fails(1, "run_infer.sh", *line)


def test_a_comparison_that_is_not_asked_for_any_more_does_not_stay_in_the_report(rerun, tiny):
    folder, again = rerun
    assert "agrees with its reference" in again("--fidelity", "2").stdout and (folder / "fidelity_bs4.json").exists()
    before = made(folder)
    assert script("run_infer.sh", *data_options(tiny, folder, "--check")).returncode == 1 and made(folder) == before
    assert "agrees" not in again().stdout and not (folder / "fidelity_bs4.json").exists()
    assert "compare_scores" not in (folder / "commands.sh").read_text()


def test_unlabelled_images_are_refused_before_they_are_prepared(tiny, tmp_path):
    (tmp_path / "labels.txt").write_text("".join((tiny / "val_label.txt").read_text().splitlines(True)[1:]))
    sentence = fails(1, "run_infer.sh", *data_options(tiny, tmp_path / "o", "--labels", tmp_path / "labels.txt"))
    assert "preprocess" in sentence and not list((tmp_path / "o").glob("prep_dataset/*.bin"))
