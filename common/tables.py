"""The report's tables: {"title", "header", "rows", "numeric"}, all texts; a line break where the guide's cells have one."""
import os
import re

from common.command import one_line
from common.rows import OTHER_IMAGES, UNKNOWN, at, differ, is_int8, precision_of, recipe_of, with_files
from common.words import say

PERCENT = "%.2f%%"


def figure(value, form="%.2f"):
    """A cell: a dash for None, "from to" for an interval, the form for a float; a text or a count is shown as it is."""
    if isinstance(value, list):
        return say("%s to %s") % tuple(form % end for end in value)
    return form % value if isinstance(value, float) else "-" if value is None else str(value)


def make_table(title, records, *columns):
    """A table of records, None without any; a column is (heading, key for at() or function of a record, form for figure())."""
    if not records:
        return None
    cells = [[one_line(figure(value(record) if callable(value) else at(record, value), *form), 300)
              for _, value, *form in columns] for record in records]
    numeric = [all(re.match(r"[-+\d.%%e]+$|%s$" % say(UNKNOWN), cell) for cell in column) for column in zip(*cells)]
    return {"title": one_line(title, 300), "header": [say(column[0]) for column in columns], "rows": cells, "numeric": numeric}


def ratio(first, second):
    return first / second if first and second else None


def size_of(row):
    return say("%s (not verified)") % row["batch_size"] if row["batch_size_vouched"] is False else row["batch_size"]


def int8_pairs(rows):
    """[(INT8 row, float row of the same batch size or None)]"""
    floats = {row["batch_size"]: row for row in rows if not is_int8(row)}
    return [(row, floats.get(row["batch_size"])) for row in rows if is_int8(row)]


def bits_of(row):
    return at(row, "model.calibration.weight_bits") or say(UNKNOWN)


def class_name(names, number, name=None):
    name = names.get(number, name)
    return "%d (%s)" % (number, one_line(name, 80)) if name and name != str(number) else "%d" % number


ROW = ("Precision", precision_of), ("Batch size", size_of)
TOPS = ("Top-1", "top1", PERCENT), ("Top-5", "top5", PERCENT)


def common(run):
    """What is the same in all rows and stands above the table, and what is not: ([(heading, text)], [column])."""
    def images(row):
        left_out = say(", %d left out") % row["excluded"] if row["excluded"] else ""
        return row["judged"] and say("%d of %d labelled%s") % (row["judged"], row["labelled"], left_out)

    def model(row):
        name, sha256 = at(row, "model.weights"), at(row, "model.weights_sha256")
        others = {at(other, "model.weights_sha256") for other in run.rows if at(other, "model.weights") == name} - {None}
        if not name and (row["engine"] or "").startswith("onnxruntime") and at(row, "model.sha256"):
            return "%s (%s)" % (os.path.basename(at(row, "model.path")), at(row, "model.sha256")[:8])
        return "%s (%s)" % (name, sha256[:8]) if name and sha256 and len(others) > 1 else name

    def preprocessing(row):
        made_with = recipe_of(row)
        return made_with and say(", ").join("%s %s" % (say(field), value) for field, value in made_with.as_json().items()
                                       if type(value) in (int, str))

    above, own = [], []
    columns = [("Engine", lambda row: row["engine"]), ("Device", lambda row: row["device"]), ("Model", model),
               ("Data set", lambda row: row["dataset"]), ("Preprocessing", preprocessing), ("Images", images)]
    if "Labels" in run.different:
        columns.append(("Labels", lambda row: row["labels"] and "%s (%s)" % (row["labels"], row["labels_sha256"][-8:])))
    if run.different & OTHER_IMAGES:
        columns.append(("Contents of the images", lambda row: (at(row, "input.images_hash") or UNKNOWN)[:12]))
    for heading, value in columns:
        values = {value(row) for row in run.rows if not row["failed"]} - {None}
        lacks = heading in ("Engine", "Device", "Model") and any(row["images_per_second"] and not value(row) for row in run.rows)
        if len(values) > 1 or values and lacks:
            own.append((heading, lambda row, value=value: value(row) or say(UNKNOWN)))
        else:
            above.append((say(heading), one_line(next(iter(values), say(UNKNOWN)))))
    return above, own


def guides(rows):
    """The table at the guide's end, cell for cell, which is in Chinese; INT8 is not in it."""
    def accuracy(row):
        return "acc-Top1:%.2f acc-Top5:%.2f" % (row["top1"], row["top5"]) if row["top1"] is not None else None

    def data_set(row):
        is_imagenet = row["judged"] == 50000 and re.search(r"(^|/)imagenet(/|$)", row["dataset"] or "", re.I)
        return "imagenet" if is_imagenet else row["dataset"]

    table = make_table("模型推理性能&精度", [row for row in rows if not is_int8(row)],
                       ("芯片型号", lambda row: row["device"] and re.sub("^Ascend", "", row["device"])), ("Batch Size", size_of),
                       ("数据集", data_set), ("精度", accuracy), ("性能", "images_per_second"))
    for row in table["rows"] if table else ():
        row[3] = row[3].replace(" ", "\n")
    return table and dict(table, numeric=[False] * 5)


def results(rows, own):
    """The guide's table, with latency beside it and, where the chip is the guide's, its published figure."""
    columns = own + list(ROW + TOPS)
    if any((row["chance_top5"] or 0) > 10 for row in rows):
        columns.append(("Top-5 by chance", "chance_top5", PERCENT))
    if any(row["real"] for row in rows):
        columns.append(("Top-1 by reassessed labels", "real.top1", PERCENT))
    columns += [("images/s", "images_per_second"), ("mean ms", "latency_ms.mean"), ("median ms", "latency_ms.median"),
                ("P90 ms", "latency_ms.p90"), ("P99 ms", "latency_ms.p99")]
    if any(row["guide_images_per_second"] for row in rows):
        columns += [("guide's images/s", "guide_images_per_second"),
                    ("ratio", lambda row: ratio(row["images_per_second"], row["guide_images_per_second"]))]
    return make_table(say("Accuracy and performance"), rows, *columns)


def int8_tables(rows):
    """What INT8 costs, image by image against the float results; what it gains, and what it was calibrated on."""
    def mlperf_verdict(paired):
        return say("passes with %.2f%%" if paired["passes"] else "FAILS with %.2f%%") % (100 * paired["ratio"])

    lines = []
    for row in filter(is_int8, rows):
        line, paired = {"row": row, "what": say("not compared image by image")}, row["paired"]
        if paired:
            lines.append(dict(paired["top1"], row=row, what="Top-1", verdict=mlperf_verdict(paired["mlperf"])))
            line = dict(paired["top5"], row=row, what="Top-5")
        lines.append(line)
    price = make_table(
        say("What INT8 costs"), lines, ("Batch size", "row.batch_size"), ("Accuracy", "what"), ("images", "row.paired.images"),
        ("float", "baseline", PERCENT), ("INT8", "accuracy", PERCENT), ("points lost", "lost"),
        ("95 % interval", "difference_interval95"), ("right to wrong", "right_to_wrong"), ("wrong to right", "wrong_to_right"),
        ("McNemar's p", "mcnemar_p", "%.3g"), ("MLPerf (99 %)", "verdict"))
    pairs = []
    for row, other in int8_pairs(rows):
        made = at(row, "model.calibration") or {}
        words = say("%s, %s images") % (" ".join(filter(None, (made.get("tool"), made.get("method")))), made.get("images"))
        pairs.append({"row": row, "float": other, "calibrated": words if made else say(UNKNOWN),
                      "shared": say({True: "YES: the accuracy flatters", False: "no", None: UNKNOWN}[row["calibration_shared"]])})
    gain = make_table(
        say("What INT8 gains"), pairs, ("Batch size", "row.batch_size"), ("float images/s", "float.images_per_second"),
        ("INT8 images/s", "row.images_per_second"),
        ("times as fast", lambda pair: None if differ(pair["row"], pair["float"], "device") else
         ratio(pair["row"]["images_per_second"], at(pair, "float.images_per_second"))),
        ("float MB", lambda pair: ratio(at(pair, "float.model.bytes"), 1e6)),
        ("INT8 MB", lambda pair: ratio(at(pair, "row.model.bytes"), 1e6)),
        ("bits of the weights", lambda pair: bits_of(pair["row"])), ("calibrated by", "calibrated"),
        ("shares images with the accuracy", "shared"))
    return {"price": price, "gain": gain}


def reference_table(pairs, reference):
    first = reference["rows"][0] if pairs else {}
    words = (reference["path"], first["engine"], first["device"], reference["date"]) if pairs else ("",) * 4
    return make_table(say("Beside %s (%s on %s, %s)") % tuple(word or say(UNKNOWN) for word in words),
                      [dict(row, there=other) for row, other in pairs], *ROW, TOPS[0], ("Top-1 there", "there.top1", PERCENT),
                      TOPS[1], ("Top-5 there", "there.top5", PERCENT), ("images/s", "images_per_second"),
                      ("images/s there", "there.images_per_second"),
                      ("ratio", lambda row: ratio(row["images_per_second"], row["there"]["images_per_second"])))


def wall(rows):
    """From files to results beside the pure figure; the seconds are those the computation waited for the disk, and computed."""
    def resumed(row):
        return row["wall"] and say("yes: times of a resumed run" if row["wall"]["resumed"] else "no")

    copies = [("H2D ms", "h2d_ms", "%.3f"), ("D2H ms", "d2h_ms", "%.3f")]
    copies = copies if any(row["h2d_ms"] is not None for row in rows) else []
    loops = [("runs of each batch", "loop")] if any((row["loop"] or 1) > 1 for row in rows) else []
    return make_table(say("End to end: from files to results"), rows if copies or any(row["wall"] for row in rows) else [],
                      *ROW, ("pure images/s", "images_per_second"), ("end to end images/s", "wall.images_per_second"),
                      ("seconds", "wall.seconds"), ("reading", "wall.reading"), ("computing", "wall.computing"),
                      ("writing", "wall.writing"), ("resumed", resumed), *copies + loops)


def comparison(fidelities, names):
    """How far two engines are apart, and where most."""
    return {"fidelity": make_table(
        say("Fidelity to another engine on the same inputs"), fidelities, ("Results", "result"),
        ("Reference", lambda each: each["reference_engine"] or say(UNKNOWN)), ("images", "compared"),
        ("Top-1 agreement", "top1_agreement", PERCENT), ("equal Top-5 sets", "top5_set_agreement", PERCENT),
        ("cosine, mean", "cosine_mean", "%.6f"), ("cosine, worst", "cosine_worst", "%.6f"),
        ("largest difference", "absolute_difference", "%.4g"), ("relative", "relative_difference", "%.4g"),
        ("limit", "relative_limit", "%g"), ("verdict", lambda each: say("agrees" if each["agrees"] else "DOES NOT AGREE"))),
        "different": make_table(
            say("Images that differ most"), fidelities[0]["most_different"] if fidelities else [], ("Image", "image"),
            ("relative difference", "relative_difference", "%.4g"), ("cosine", "cosine", "%.6f"),
            ("Top-1 here", lambda image: class_name(names, image["top1"])),
            ("Top-1 of the reference", lambda image: class_name(names, image["reference_top1"])))}


def environment(run):
    """The machine, the packages, the chip, as the stages wrote them down, and what failed; the SHA-256 of the models."""
    lines = {say(what): with_files(values) if len(values) > 1 else next(iter(values)) for what, values in run.environment.items()}
    lines = lines or {say("packages"): say(UNKNOWN)}
    hashes = {}
    for summary in run.shown:
        npu, model = summary["npu"] or {}, summary["model"] or {}
        lines.update({say(name): text for name, text in npu.items() if isinstance(text, str)})
        lines.update({say("chip"): say("%s, health %s") % (device.get("soc_version") or device.get("chip"), device.get("health"))
                      for device in npu.get("devices") or []})
        lines.update({"vnni": summary["vnni"]} if summary["vnni"] is not None else {})
        for key, what in (("sha256", "SHA-256"), ("bytes", "bytes"), ("weights", "weights"),
                          ("weights_sha256", "weights, SHA-256")):
            if model.get(key):
                hashes["%s: %s" % (os.path.basename(model["path"]), say(what))] = model[key]
    lines.update({say("%s at batch size %s failed") % (precision_of(row), figure(row["batch_size"])): row["failed"]
                  for row in run.rows if row["failed"]})
    return [make_table(title, list(each.items()), ("What", lambda line: line[0]), ("Value", lambda line: line[1]))
            for title, each in ((say("Environment"), lines), ("SHA-256", hashes))]


def fidelities_of(rows):
    return list({row["fidelity"]["path"]: row["fidelity"] for row in rows if row["fidelity"]}.values())


def all_tables(run, own, gates, pairs, reference, names, language):
    """{name: table} in the order of the report."""
    rows, (known, hashes) = run.rows, environment(run)
    judged = next((row for row in rows if row["top1"] is not None), dict.fromkeys(("precision", "batch_size", "worst_classes")))
    found = dict(
        guide=guides(rows) if language == "zh" else None, results=results(rows, own),
        gates=make_table(say("Verdicts"), gates, ("Verdict", lambda gate: "PASS" if gate["passes"] else "FAIL"),
                         ("What", "text")),
        **int8_tables(rows), reference=reference_table(pairs, reference), intervals=make_table(
            say("95 % intervals"), [row for row in rows if row["top1"] is not None or row["runs"]], *ROW,
            ("Top-1 %", "top1_interval95"), ("Top-5 %", "top5_interval95"), ("images/s", "images_per_second_interval95"),
            ("runs", "runs")),
        wall=wall(rows), **comparison(fidelities_of(rows), names), environment=known, classes=make_table(
            say("Worst classes, %s at batch size %s") % (precision_of(judged), figure(judged["batch_size"])),
            judged["worst_classes"], ("Class", lambda row: class_name(names, row["class"], row["name"])),
            ("images", "images"), *TOPS), hashes=hashes)
    return {name: table for name, table in found.items() if table}
