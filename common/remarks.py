"""What a reader must know of a report's rows: what does not fit, the verdicts, what fills a dash, the sentence to quote."""
import os

from common import rows, statistics, tables
from common.command import one_line
from common.rows import UNKNOWN, at, differ, is_int8, precision_of
from common.words import say


def check_reference(run, reference):
    """[(row, its counterpart)]: the same batch size, INT8 with INT8 and float with float, of whichever engine. Notes where the
    runs differ; accuracies by other labels or of other images are not put beside each other."""
    here, there = ({(is_int8(row), row["batch_size"]): row for row in each} for each in (run.rows, reference["rows"]))
    for text, found, wanted in (("%s: has no row for %s at batch size %s, which is not compared", there, here),
                                ("%s: has a row for %s at batch size %s, and this run has none", here, there)):
        for row in [wanted[key] for key in wanted if key not in found]:
            run.note(text, reference["path"], precision_of(row), tables.figure(row["batch_size"]))
    pairs = [(row, there[is_int8(row), row["batch_size"]]) for row in run.rows if (is_int8(row), row["batch_size"]) in there]
    different = {}  # by heading
    for row, other in pairs:
        found = rows.differences(row, other)
        different.update(dict.fromkeys(found))
        if "Labels" in found or rows.OTHER_IMAGES & set(found):
            other.update(top1=None, top5=None)
        if row["images_per_second"] and not other["images_per_second"]:
            run.note("%s: has no throughput for %s at batch size %s, which is not compared", reference["path"],
                     precision_of(row), tables.figure(row["batch_size"]))
    if different:
        run.note("%s: that run and this one differ in: %s", reference["path"], say(", ").join(map(say, different)))
    return pairs


def check_rows(run):
    for row in run.rows:
        if row["batch_size_vouched"] is False:
            run.note("batch size %s (%s) is not verified: only --batchsize says it, by which ais_bench scales the throughput",
                     row["batch_size"], precision_of(row))
        if row["labels_doubt"]:
            run.note("%s", row["labels_doubt"])
        judged, labelled = row["judged_classes"], row["labelled_classes"]
        if judged and 2 * judged < min(row["judged"], labelled):
            run.note("the judged images are of %s of the %s classes that the labels have, so the accuracy says little of the "
                     "whole", judged, labelled)
        if row["results"] and row["results"] < row["labelled"]:
            run.note("at batch size %s only %d of %d labelled images have a result; the accuracy is of those alone",
                     row["batch_size"], row["results"], row["labelled"])
    for row, other in tables.int8_pairs(run.rows):
        source, known = at(row, "model.calibration.source_sha256"), at(other, "model.sha256")
        if source and known and source not in (known, at(other, "model.onnx_sha256")):
            run.note("at batch size %s the INT8 model was not made from the float model beside it; quantise again",
                     row["batch_size"])
    bits = sorted({str(tables.bits_of(row)) for row in run.rows if is_int8(row) and row["vnni"] is False})
    if bits:
        run.note("INT8 ran on a CPU without VNNI, with weights of %s bits: its speed is not that of a server that has it",
                 " / ".join(bits))


def hints(folder, some):
    """The line that fills a dash, in a list, or an empty one: the guide's own for pure inference leaves no file."""
    lacking = [row for row in some if row["top1"] is not None and row["batch_size"]
               and not (row["images_per_second"] or row["failed"] or row["refused"])]
    if not lacking:
        return []
    row = lacking[0]
    name = "%sbs%d" % ("int8_" if is_int8(row) else "", row["batch_size"])
    script = "onnx_infer.py" if (row["engine"] or "").startswith("onnxruntime") else "npu_infer.py"
    model = os.path.basename(at(row, "model.path") or "resnet34_%s.om" % name)  # ONNX Runtime's has its path recorded
    line = "python3 %s --model=%s --loop=20 --batchsize=%d --output %s --output_dirname perf_%s" % (
        script, model, row["batch_size"], folder, name)
    return [say("no throughput at batch size %s: pure inference leaves a file only with --output, as in this line: %s "
                "(a summary that lies elsewhere is named by --perf)")
            % (", ".join(str(each["batch_size"]) for each in lacking), line)]


def verdicts(some, pairs, slowdown):
    """Every gate of the rows, those of the evaluation too, the fidelities and what was refused: [{name, passes, text, ...}]"""
    gates = []
    for row in some:
        gates += [{"name": "refused", "measured": None, "limit": None, "passes": False, "text": text} for text in row["refused"]]
        for gate in row["gates"]:
            gates.append(dict(gate, text=say("%s %s%% is %s %.15g%% (%s, batch size %s)") % (
                gate["name"], statistics.gate_figure(gate), say("at least" if gate["passes"] else "below"), gate["limit"],
                precision_of(row), tables.figure(row["batch_size"]))))
    gates += [speed_gate(row, other, slowdown) for row, other in pairs if slowdown is not None and other["images_per_second"]]
    for fidelity in tables.fidelities_of(some):
        agrees, off, limit = (fidelity[key] for key in ("agrees", "relative_difference", "relative_limit"))
        text = "%s agrees with its reference: relative difference %.3g, limit %g" if agrees else \
            "%s does NOT agree with its reference: relative difference %.3g, limit %g; do not trust it before the cause is known"
        gates.append({"name": "fidelity", "measured": off, "limit": limit, "passes": agrees,
                      "text": say(text) % (fidelity["result"], off, limit)})
    return gates


def speed_gate(row, other, slowdown):
    """A row fails only if even the upper end here is below the lower end there less the slowdown that is allowed."""
    measured, there, low = row["images_per_second"], other["images_per_second"], rows.spread(other)[0]
    limit, name = (1 - slowdown / 100) * low, say("images/s of %s at batch size %s") % (precision_of(row), row["batch_size"])
    gate = {"name": name, "measured": measured, "reference": there, "limit": limit, "passes": False, "interval95": None}
    if not measured:
        return dict(gate, text=say("%s: there is none to compare with %.2f") % (name, there))
    least, most, how = rows.spread(row)
    word = "reaches" if measured >= limit else "reaches, within its spread," if most >= limit else "stays below"
    text = say("%s: %.2f (%.2f to %.2f, %s) %s %.2f, the reference's %.2f (from %.2f on) less %g %%")
    return dict(gate, passes=most >= limit, interval95=row["images_per_second_interval95"],
                text=text % (name, measured, least, most, say(how), say(word), limit, there, low, slowdown))


def verdict(some):
    """The sentence to be quoted: the accuracy, its distance from what is published, the best throughput; of INT8 likewise."""
    sentences = []
    for group in filter(None, ([row for row in some if is_int8(row) == int8] for int8 in (False, True))):
        judged = next((row for row in group if row["top1"] is not None), None)
        # Quoted in one breath are rows that nothing tells to be of different engines, devices or models.
        alike = [row for row in group if not judged or not differ(row, judged, "precision")
                 and not {"Engine", "Device", "Model"} & set(rows.differences(row, judged))]
        fastest = max(alike, key=lambda row: row["images_per_second"] or 0)
        judged = fastest if fastest["top1"] is not None else judged
        parts = []
        if judged:
            parts.append(say("Top-1 %.2f%% and Top-5 %.2f%% on %d images") % (judged["top1"], judged["top5"], judged["judged"]))
        if judged and judged["published"]:
            figures = judged["published"]["figures"][0]
            parts.append(say("%+.2f points from the published Top-1 of %.2f%%") % (figures["top1_difference"], figures["top1"]))
        if fastest["images_per_second"]:
            parts.append(say("at best %.2f images/s, at batch size %s") % (fastest["images_per_second"], tables.size_of(fastest)))
        if parts and not sentences:
            parts.append(say("with %s on %s") % tuple(fastest[key] or say(UNKNOWN) for key in ("engine", "device")))
        if parts:
            sentences.append((say("INT8: ") if is_int8(group[0]) else "") + say(", ").join(parts))
    return one_line(say("; ").join(sentences) or say("Nothing here was measured"), 1000) + say(".")
