"""What imagenet_acc_eval.py found, in words: the terminal's lines, of the JSON's content, and the CSV of --per-class."""
import csv
import io

from common import files, scores, statistics
from common.command import warn

COLUMNS = ["class", "name", "images", "top1", "top5"]  # of the CSV


def show(content):
    """The lines for the terminal."""
    top1, top5 = content["interval95"]["top1"], content["interval95"]["top5"]
    print("Top-1 %(top1).2f%%  Top-5 %(top5).2f%%" % content["accuracy"]
          + "  of %(judged)d of %(labelled)d labelled images" % content["images"]
          + ", %(classes)d classes, engine: %(engine)s" % content)
    print("95%% intervals: Top-1 %.2f%% to %.2f%%, Top-5 %.2f%% to %.2f%%" % (top1[0], top1[1], top5[0], top5[1]))
    if content["images"]["excluded"]:
        print("left out: %(excluded)d images that --exclude names" % content["images"])
    if content["background_class"]:
        print("class 0 of %d is taken for a background class, which the labels do not count" % scores.BACKGROUND)
    if content["labelled_classes"] < content["classes"]:
        print("the labels are of %(labelled_classes)d of the model's %(classes)d classes; each image is judged among all of the "
              "model's" % content)
    if content["judged_classes"] < content["labelled_classes"]:
        print("the judged images are of %(judged_classes)d of the %(labelled_classes)d classes that the labels have" % content)
    if content["chance_top5"] > 10:  # then a Top-5 says little
        print("Top-5 of %(classes)d classes is %(chance_top5).2f%% by chance alone" % content)
    if content["real"]:
        print("by reassessed labels: Top-1 %(top1).2f%%  Top-5 %(top5).2f%%  of %(images)d images with any" % content["real"])
    if content["published"]:
        show_published(content["published"])
    if content["paired"]:
        show_paired(content["paired"])
    warn_of(content)


def warn_of(content):
    """What makes an accuracy say less than it seems to, also where it is kept."""
    if content["images"]["results"] < content["images"]["labelled"]:
        warn("only %(results)d of %(labelled)d labelled images have a result; the accuracy is of those alone" % content["images"])
    if content["calibration_shared"] is not False and (content["model"] or {}).get("calibration"):
        warn("images that the INT8 model was calibrated on may be among those judged; see --exclude")
    if content["labels_doubt"]:
        warn(content["labels_doubt"])


def show_published(published):
    """What imagenet.compare_with_published found."""
    for row in published["figures"]:
        print("%(by)s: Top-1 %(top1)g%% (here %(top1_difference)+.3f), Top-5 %(top5)g%% (%(top5_difference)+.3f)" % row)
    print("that is %s than fp16 explains: %g points" % (
        "no more" if published["within_fp16"] else "MORE", published["fp16_points"]))


def show_paired(paired):
    """The comparison with a baseline, image by image."""
    print("paired with %(baseline)s (%(baseline_engine)s), %(images)d images:" % paired)
    for name, row in (("Top-1", paired["top1"]), ("Top-5", paired["top5"])):
        print(name + ": %(lost).2f points lost of %(baseline).2f%%, %(right_to_wrong)d right became wrong, "
              "%(wrong_to_right)d wrong became right, McNemar's exact p = %(mcnemar_p).3g" % row
              + ", 95%% interval %.2f to %.2f points" % tuple(row["difference_interval95"]))
    print("MLPerf asks for 99%% of the baseline's Top-1: %.2f%%, %s" % (
        100 * paired["mlperf"]["ratio"], "passes" if paired["mlperf"]["passes"] else "does not pass"))


def show_gates(gates):
    """A line for each of --min-top1 and --min-top5; returns the exit code."""
    for gate in gates:
        verdict, word = ("PASS", "at least") if gate["passes"] else ("FAIL", "below")
        print("%s: %s %s%% is %s %.15g%%" % (verdict, gate["name"], statistics.gate_figure(gate), word, gate["limit"]))
    return 0 if all(gate["passes"] for gate in gates) else 3


def csv_of(rows):
    """The bytes of --per-class, of its rows {column: value}, shares in percent."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(row, top1="%.2f" % row["top1"], top5="%.2f" % row["top5"]) for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def is_our_csv(path):
    return files.read(path).startswith((",".join(COLUMNS) + "\n").encode())
