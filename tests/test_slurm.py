"""run_slurm.sh on a real Slurm of two emulated nodes: the report of one piece, kills, failures, and nothing done twice."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL_RECIPE, fails, script, some_python, succeeds, wait_until

TOOLS = ("slurmctld", "slurmd", "sbatch", "munged")
ONE = ["--engine", "onnxruntime", "--loop", "2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment that submits to a running cluster."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=path)]
    if missing or os.geteuid():
        pytest.skip("Slurm cannot be run here: %s" % (", ".join(missing) + " not installed" if missing else "not root"))
    folder = tmp_path_factory.mktemp("slurm")
    start = ["bash", str(REPOSITORY / "tests" / "slurm_cluster.sh")]
    env = dict(os.environ, PATH=path)
    process = subprocess.run(start + ["start", str(folder)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             encoding="utf-8", errors="replace")
    if process.returncode:
        pytest.skip("Slurm does not start here: %s" % process.stderr.strip().splitlines()[-1])
    # As many CPUs as the nodes have: pure inference on another number is measured again.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield dict(env, SLURM_CONF=str(folder / "slurm.conf"), PYTHON=some_python())
    os.sched_setaffinity(0, before)
    subprocess.run(start + ["stop", str(folder)], env=env, check=True)


def jobs_of(process):
    return re.search(r"--jobs=([\d,]+)", process.stdout).group(1)


def until_done(cluster, process, seconds=400):
    """Wait until none of the jobs is queued or running."""
    def gone():
        told = subprocess.run(["squeue", "-h", "--jobs", jobs_of(process)], env=cluster, capture_output=True)
        return told.returncode != 0 or not told.stdout.strip()
    wait_until(gone, seconds=seconds, pause=0.3)  # each look takes the daemons' time, and the jobs'


def rows_of(folder):
    report = json.loads((folder / "report.json").read_text())
    keys = ("precision", "batch_size", "top1", "top5", "judged", "labelled")
    return [{key: row[key] for key in keys} for row in report["rows"]]


def logs_of(folder):
    return "".join(path.read_text() for path in sorted((folder / "logs").glob("*.txt")))


def test_4_shards_end_with_the_report_of_one_piece_and_a_second_submission_does_nothing(cluster, light, tiny, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "in shards"
    options = ["--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels", tiny / "val_label.txt",
               "--batch-sizes", "8"] + ONE + SMALL_RECIPE
    for path in (whole, folder):
        shutil.copytree(str(light), str(path))
    succeeds("run_infer.sh", *(options + ["--output", whole]), env=cluster)
    told = succeeds("run_slurm.sh", "--shards", "4", *(options + ["--output", folder, "--", "--time=10"]), env=cluster)
    assert "are still queued" in fails(1, "run_slurm.sh", "--shards", "4", *(options + ["--output", folder]), env=cluster)
    until_done(cluster, told)
    assert (folder / "report.json").exists(), logs_of(folder)
    assert rows_of(folder) == rows_of(whole) != []
    results = {path.name: path.read_bytes() for path in (folder / "result_bs8").glob("shard*/*.txt")}
    assert results == {path.name: path.read_bytes() for path in (whole / "result_bs8").glob("*.txt")} and len(results) == 64
    again = succeeds("run_slurm.sh", "--shards", "4", *(options + ["--output", folder]), env=cluster)
    assert "nothing was submitted" in again.stdout


def test_a_cancelled_task_and_a_failed_one_are_submitted_again_and_only_they(cluster, tiny, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "out"
    shutil.copytree(str(tiny), str(data))
    broken = data / "val" / "ILSVRC2012_val_00000020.JPEG"  # of the second shard
    good = broken.read_bytes()
    broken.write_bytes(b"no image")
    options = ["--shards", "3", "--pth", data / "resnet34-tiny.pth", "--images", data / "val", "--labels", data / "val_label.txt",
               "--batch-sizes", "1", "--limit", "48", "--output", folder] + ONE
    told = succeeds("run_slurm.sh", *options, env=cluster)
    partial = folder / "result_bs1" / ".shard1_of_3.partial"
    wait_until(lambda: len(list(partial.glob("*_0.txt"))) >= 2, seconds=200)
    array = jobs_of(told).split(",")[1]
    subprocess.run(["scancel", array + "_1"], env=cluster, check=True)
    until_done(cluster, told)
    assert sorted(path.name for path in (folder / "result_bs1").glob("shard*")) == ["shard3_of_3", "shard3_of_3_summary.json"]
    assert "stopped" in logs_of(folder) and not (folder / "report.json").exists()
    assert "ILSVRC2012_val_00000020.JPEG: cannot be read as an image" in logs_of(folder)
    broken.write_bytes(good)
    again = succeeds("run_slurm.sh", *options, env=cluster)
    assert "shards 1 2 of 3" in again.stdout and "prepare: finished before" in again.stdout
    until_done(cluster, again)
    assert rows_of(folder)[0]["judged"] == 48
    summary = json.loads((folder / "result_bs1" / "shard1_of_3_summary.json").read_text())
    assert summary["wall"]["resumed"]  # it went on where it was cancelled


def test_an_int8_model_that_is_refused_costs_the_jobs_its_rows_alone(cluster, tiny, tmp_path):
    folder = tmp_path / "out"
    told = succeeds("run_slurm.sh", "--shards", "2", "--pth", tiny / "resnet34-tiny.pth", "--images", tiny / "val", "--labels",
                    tiny / "val_label.txt", "--batch-sizes", "4", "--limit", "8", "--int8", "--calibration-images", "4",
                    "--max-error", "0.0", "--output", folder, *SMALL_RECIPE, *ONE, env=cluster)
    until_done(cluster, told)
    assert (folder / "report.json").exists(), logs_of(folder)
    float_row, given_up = rows_of(folder)
    assert float_row["judged"] == 8 and (given_up["precision"], given_up["top1"]) == ("int8", None)
    assert "no whole result for int8:4: stage export left no model of just this line" in logs_of(folder)


@pytest.mark.parametrize("options,words", [
    (["--demo"], "--shards"), (["--shards", "0", "--demo"], "--shards"), (["--shards", "2", "--stages", "infer"], "itself"),
    (["--shards", "2", "--no-such-option", "1"], "unrecognized"),
    (["--shards", "9", "--demo", "--limit", "8"], "more than the 8 images"),
    (["--shards", "9", "--demo", "--limit=8"], "more than the 8 images")])
def test_wrong_usage_is_said_before_anything_is_submitted(options, words, tmp_path):
    env = dict(os.environ, PYTHON=sys.executable, PATH=str(fake_sbatch(tmp_path)) + ":" + os.environ["PATH"])
    (tmp_path / "o").mkdir()
    assert words in fails(2, "run_slurm.sh", *(options + ["--output", tmp_path / "o"]), env=env)


def fake_sbatch(folder):
    (folder / "bin").mkdir()
    for name in ("sbatch", "squeue"):
        (folder / "bin" / name).write_text("#!/bin/sh\necho must not run >&2\nexit 9\n")
        (folder / "bin" / name).chmod(0o755)
    return Path(str(folder / "bin"))


def test_without_slurm_a_sentence_says_so_and_a_dry_run_shows_the_three_jobs(tmp_path):
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(tmp_path)}
    dry = script("run_slurm.sh", "--shards", "3", "--dry-run", "--demo", "--output", tmp_path / "it's", "--", "--gres=npu:1",
                 env=env)
    assert dry.returncode == 0 and dry.stderr.count("--gres=npu:1") == 3 and "--array=1\\,2\\,3" in dry.stderr
    assert dry.stderr.count("--dependency=afterok:") == 2
    assert not (tmp_path / "it's").exists()
