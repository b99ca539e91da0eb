"""The report's tables: {"title", "header", "rows", "numeric"}, all texts, a line break where the guide's cells have one."""
import os
import re

from common.command import one_line
from common.rows import UNKNOWN, at, differ_in_images, is_int8, precision_of, with_files
from common.words import say

PRECISION, SIZE = ("Precision", precision_of), ("Batch size", lambda row: size_of(row))
TOPS = ("Top-1", "top1", "%.2f%%"), ("Top-5", "top5", "%.2f%%")


def figure(value, form="%.2f"):
    """A cell: a dash for None, "from to" for an interval, the form for a float; a text or a count is shown as it is."""
    if isinstance(value, list):
        return say("%s to %s") % tuple(form % end for end in value)
    return form % value if isinstance(value, float) else "-" if value is None else str(value)


def make_table(title, records, *columns):
    """A table of records, None without any; a column is (heading, a key for at() or a function of a record, a form for figure())."""
    if not records:
        return None
    cells = [["\n".join(one_line(line, 300) for line in figure(value(record) if callable(value) else at(record, value), *form).split("\n"))
              for _, value, *form in columns] for record in records]
    numeric = [all(re.match(r"[-+\d.%%e]+$|%s$" % say(UNKNOWN), cell) for cell in column) for column in zip(*cells)]
    return {"title": one_line(title, 300), "header": [say(column[0]) for column in columns], "rows": cells, "numeric": numeric}


def ratio(first, second):
    return first / second if first and second else None


def size_of(row):
    if row["batch_size_vouched"] is False:
        return say("%s (not verified)") % row["batch_size"]
    return row["batch_size"]


def int8_pairs(rows):
    """[(INT8 row, float row of the same batch size or None)]"""
    floats = {row["batch_size"]: row for row in rows if not is_int8(row)}
    return [(row, floats.get(row["batch_size"])) for row in rows if is_int8(row)]


def bits_of(row):
    """How many bits the weights of an INT8 model have, where that is recorded."""
    calibration = at(row, "model.calibration") or {}
    reduced = calibration.get("reduce_range")
    return calibration.get("bits") or (7 if reduced else 8 if reduced is False else say(UNKNOWN))


def class_name(names, number, name=None):
    name = names.get(number, name)
    return "%d (%s)" % (number, one_line(name, 80)) if name and name != str(number) else "%d" % number


def common(rows):
    """What is the same in all rows and stands above the table, and what is not: ([(heading, text)], [column])."""
    def images(row):
        left_out = say(", %d left out") % row["excluded"] if row["excluded"] else ""
        return row["judged"] and say("%d of %d labelled%s") % (row["judged"], row["labelled"], left_out)

    def model(row):
        name, sha256 = at(row, "model.weights"), at(row, "model.weights_sha256")
        alike = {at(other, "model.weights_sha256") for other in rows if at(other, "model.weights") == name}
        return "%s (%s)" % (name, sha256[:8]) if name and sha256 and len(alike - {None}) > 1 else name

    def preparation(row):
        recipe = at(row, "input.recipe")
        return recipe and say("resize %s, crop %s, %s, %s") % (
            recipe["resize"], recipe["crop"], recipe.get("interpolation", "bilinear"), recipe["dtype"])

    def labels(row):
        return row["labels"] and "%s (%s)" % (os.path.basename(row["labels"]), (row["labels_sha256"] or "")[:8])

    above, own, judged = [], [], [row for row in rows if row["top1"] is not None]
    columns = [("Engine", lambda row: row["engine"]), ("Device", lambda row: row["device"]), ("Model", model),
               ("Data set", lambda row: row["dataset"]), ("Preprocessing", preparation), ("Images", images)]
    if len({row["labels_sha256"] for row in judged}) > 1:
        columns.append(("Labels", labels))
    if any(differ_in_images(judged[0], row) for row in judged[1:]):
        columns.append(("Contents of the images", lambda row: (at(row, "input.images_hash") or "-")[:8]))
    for heading, value in columns:
        values = {value(row) for row in rows if not row["failed"]} - {None}
        if len(values) > 1:
            own.append((heading, value))
        else:
            above.append((say(heading), one_line(next(iter(values), say(UNKNOWN)))))
    return above, own


def guides(rows):
    """The table at the guide's end, cell for cell; INT8 is not in it."""
    def accuracy(row):
        return "acc-Top1:%.2f\nacc-Top5:%.2f" % (row["top1"], row["top5"]) if row["top1"] is not None else "-"

    def data_set(row):
        name = row["dataset"] or "-"
        return "imagenet" if row["published"] or re.search(r"(^|/)imagenet(/|$)", name, re.I) else name

    table = make_table("模型推理性能&精度", [row for row in rows if not is_int8(row)],
                       ("芯片型号", lambda row: re.sub("^Ascend", "", row["device"] or "-")), ("Batch Size", size_of),
                       ("数据集", data_set), ("精度", accuracy), ("性能", "images_per_second"))
    return table and dict(table, header=["芯片型号", "Batch Size", "数据集", "精度", "性能"], numeric=[False] * 5)


def all_tables(run, rows, own, gates, pairs, reference, fidelities, names, chinese):
    """{name: table or None} in the order of the report."""
    judged = next((row for row in rows if row["top1"] is not None), None)
    return {"guide": guides(rows) if chinese else None, "results": results(rows, own),
            "gates": make_table(say("Verdicts"), gates, ("Verdict", lambda gate: "PASS" if gate["passes"] else "FAIL"),
                                ("What", "text")),
            "price": price(rows), "gain": gain(rows), "reference": beside(pairs, reference), "intervals": make_table(
                say("95 % intervals"), [row for row in rows if row["top1"] is not None or row["runs"]], PRECISION, SIZE,
                ("Top-1 %", "top1_interval95"), ("Top-5 %", "top5_interval95"), ("images/s", "images_per_second_interval95"),
                ("runs", "runs")),
            "wall": wall(rows), "fidelity": fidelity(fidelities), "different": make_table(
                say("Images that differ most"), fidelities[0]["most_different"] if fidelities else [], ("Image", "image"),
                ("relative difference", "relative_difference", "%.4g"), ("cosine", "cosine", "%.6f"),
                ("Top-1 here", lambda image: class_name(names, image["top1"])),
                ("Top-1 of the reference", lambda image: class_name(names, image["reference_top1"]))),
            "classes": judged and make_table(
                say("Worst classes, %s at batch size %s") % (precision_of(judged), figure(judged["batch_size"])),
                judged["worst_classes"], ("Class", lambda row: class_name(names, row["class"], row["name"])), ("images", "images"),
                *TOPS),
            "environment": environment(run, rows), "hashes": hashes(run)}


def results(rows, own):
    """The guide's table, with latency beside it and, where the chip is the guide's, its published figure."""
    columns = own + [PRECISION, SIZE, *TOPS]
    if any((row["chance_top5"] or 0) > 10 for row in rows):
        columns.append(("Top-5 by chance", "chance_top5", "%.2f%%"))
    if any(row["real"] for row in rows):
        columns.append(("Top-1 by reassessed labels", "real.top1", "%.2f%%"))
    columns += [("images/s", "images_per_second"), ("mean ms", "latency_ms.mean"), ("median ms", "latency_ms.median"),
                ("P90 ms", "latency_ms.p90"), ("P99 ms", "latency_ms.p99")]
    if any(row["guide_images_per_second"] for row in rows):
        columns += [("guide's images/s", "guide_images_per_second"),
                    ("ratio", lambda row: ratio(row["images_per_second"], row["guide_images_per_second"]))]
    return make_table(say("Accuracy and performance"), rows, *columns)


def price(rows):
    """What INT8 costs, image by image against the float results."""
    lines = []
    for row in filter(is_int8, rows):
        paired, line = row["paired"], {"batch_size": row["batch_size"], "what": say("not compared image by image")}
        if paired:
            verdict = say("passes with %.2f%%" if paired["mlperf"]["passes"] else "FAILS with %.2f%%") % (100 * paired["mlperf"]["ratio"])
            lines.append(dict(line, images=paired["images"], what="Top-1", verdict=verdict, **paired["top1"]))
            line.update(paired["top5"], images=paired["images"], what="Top-5")
        lines.append(line)
    return make_table(say("What INT8 costs"), lines, ("Batch size", "batch_size"), ("Accuracy", "what"), ("images", "images"),
                      ("float", "baseline", "%.2f%%"), ("INT8", "accuracy", "%.2f%%"), ("points lost", "lost"),
                      ("95 % interval", "difference_interval95"), ("right to wrong", "right_to_wrong"),
                      ("wrong to right", "wrong_to_right"), ("McNemar's p", "mcnemar_p", "%.3g"), ("MLPerf (99 %)", "verdict"))


def gain(rows):
    """What INT8 gains, and what it was calibrated on."""
    def calibrated(pair):
        made = at(pair["row"], "model.calibration")
        return say("%s, %s images") % (" ".join(filter(None, (made.get("tool"), made.get("method")))), made.get("images")) \
            if made else say(UNKNOWN)

    def shared(pair):
        known = pair["row"]["calibration_shared"]
        known = at(pair["row"], "model.calibration.shared") if known is None else known
        return say({True: "YES: the accuracy flatters", False: "no", None: UNKNOWN}[known])

    pairs = [{"row": row, "float": other} for row, other in int8_pairs(rows)]
    return make_table(say("What INT8 gains"), pairs, ("Batch size", "row.batch_size"), ("float images/s", "float.images_per_second"),
                      ("INT8 images/s", "row.images_per_second"), ("times as fast", lambda pair: ratio(
                          pair["row"]["images_per_second"], at(pair, "float.images_per_second"))),
                      ("float MB", lambda pair: ratio(at(pair, "float.model.bytes"), 1e6)),
                      ("INT8 MB", lambda pair: ratio(at(pair, "row.model.bytes"), 1e6)),
                      ("bits of the weights", lambda pair: bits_of(pair["row"])), ("calibrated by", calibrated),
                      ("shares images with the accuracy", shared))


def beside(pairs, reference):
    lines = [dict(row, there=other) for row, other in pairs]
    if not lines:
        return None
    first = reference["rows"][0]
    title = say("Beside %s (%s on %s, %s)") % (reference["path"], first["engine"] or say(UNKNOWN), first["device"] or say(UNKNOWN),
                                               reference["date"] or say(UNKNOWN))
    return make_table(title, lines, PRECISION, SIZE, ("Top-1", "top1", "%.2f%%"), ("Top-1 there", "there.top1", "%.2f%%"),
                      ("Top-5", "top5", "%.2f%%"), ("Top-5 there", "there.top5", "%.2f%%"), ("images/s", "images_per_second"),
                      ("images/s there", "there.images_per_second"),
                      ("ratio", lambda row: ratio(row["images_per_second"], row["there"]["images_per_second"])))


def wall(rows):
    """From files to results beside the pure figure; the seconds are those the computation waited for the disk, and computed."""
    def resumed(row):
        return row["wall"] and say("yes: times of a resumed run" if row["wall"]["resumed"] else "no")

    columns = [("H2D ms", "h2d_ms", "%.3f"), ("D2H ms", "d2h_ms", "%.3f")] if any(row["h2d_ms"] is not None for row in rows) else []
    if any((row["loop"] or 1) > 1 for row in rows):  # of such a run images/s would count each image once and every run's time
        columns.append(("runs of each batch", "loop"))
    return make_table(say("End to end: from files to results"), rows if columns or any(row["wall"] for row in rows) else [],
                      PRECISION, SIZE, ("pure images/s", "images_per_second"), ("end to end images/s", "wall.images_per_second"),
                      ("seconds", "wall.seconds"), ("reading", "wall.reading"), ("computing", "wall.computing"),
                      ("writing", "wall.writing"), ("resumed", resumed), *columns)


def fidelity(fidelities):
    return make_table(say("Fidelity to another engine on the same inputs"), fidelities, ("Results", "result"),
                      ("Reference", lambda each: each["reference_engine"] or say(UNKNOWN)), ("images", "compared"),
                      ("Top-1 agreement", "top1_agreement", "%.2f%%"), ("equal Top-5 sets", "top5_set_agreement", "%.2f%%"),
                      ("cosine, mean", "cosine_mean", "%.6f"), ("cosine, worst", "cosine_worst", "%.6f"),
                      ("largest difference", "absolute_difference", "%.4g"), ("relative", "relative_difference", "%.4g"),
                      ("limit", "relative_limit", "%g"), ("verdict", lambda each: say("agrees" if each["agrees"] else "DOES NOT AGREE")))


def environment(run, rows):
    """The machine, the chip and the packages, as the stages wrote them down."""
    lines = []
    for what, values in run.environment.items():
        lines.append((say(what), with_files(values) if len(values) > 1 else next(iter(values))))
    vnni = sorted({str(summary["vnni"]) for summary in run.summaries if summary["vnni"] is not None})
    lines += [("vnni", " / ".join(vnni))] if vnni else []
    npu = {}
    for summary in run.summaries:
        facts = summary["npu"] or {}
        npu.update({name: text for name, text in facts.items() if isinstance(text, str)})
        for device in facts.get("devices") or []:
            npu["chip"] = say("%s, health %s") % (device.get("soc_version") or device.get("chip") or say(UNKNOWN),
                                                  device.get("health") or say(UNKNOWN))
    lines += list(npu.items())
    lines += [(say("%s at batch size %s failed") % (precision_of(row), figure(row["batch_size"])), row["failed"])
              for row in rows if row["failed"]]
    return make_table(say("Environment"), lines or [(say("packages"), say(UNKNOWN))], ("What", lambda line: line[0]),
                      ("Value", lambda line: line[1]))


def hashes(run):
    lines = {}
    for model in [record["model"] or {} for record in run.summaries + run.evaluations]:
        for key, what in (("sha256", "SHA-256"), ("bytes", "bytes"), ("weights", "weights"), ("weights_sha256", "weights, SHA-256")):
            if model.get("path") and model.get(key):
                lines["%s: %s" % (os.path.basename(model["path"]), say(what))] = str(model[key])
    return make_table("SHA-256", list(lines.items()), ("What", lambda line: line[0]), ("Value", lambda line: line[1]))
