#!/usr/bin/env python3
"""Put the results of a run together as a report (the guide's last stage: its table of accuracy and performance).

    python3 report.py ./output

Measures and probes nothing. In DIR it reads every *_summary.json (the inference), every JSON with the ModelZoo's title (the
evaluation), fidelity*.json (compare_scores.py) and commands.sh; prints the table and writes DIR/report.md, report.json,
report.png and report.html. Exit code 0: done; 1: failed; 2: wrong usage; 3: all is written, but a gate, a fidelity or a figure
that had to be refused says no.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH=1 leaves it out
from common import command  # first, so that Ctrl-C while the rest is loaded ends in a sentence, too

import argparse
import base64
import io
import json
import re
import warnings

from common import chart, files, prepared, rows, tables
from common.command import fail, one_line, warn
from common.rows import UNKNOWN, at, is_int8
from common.words import say, speak

SCHEMA, OLDEST_REFERENCE = 4, 3  # of report.json; docs/report.md describes it
VERSION = 1  # of what is written; raised when the report of the same files changes
NAMES = ("report.json", "report.md", "report.html", "report.png")
PICTURE, FORMATS = 320, ("JPEG", "PNG", "BMP", "WEBP")  # longer side in the page; never EPS, which goes to Ghostscript
LARGEST_PICTURE, MOST_PIXELS = 64 << 20, 50 * 1000 * 1000


# ---- when there is nothing to do ----

def made_from(args, also_read):
    """All that decides the report: the options, and the hash of every file that is, or was, read."""
    options = {key: value for key, value in vars(args).items() if key not in ("folder", "quiet", "overwrite", "check")}
    paths = set(rows.json_files(args.folder)) | {os.path.join(args.folder, "commands.sh")} | set(also_read)
    if args.reference:
        paths |= set(rows.json_files(args.reference)) if os.path.isdir(args.reference) else {args.reference}
    inside = os.path.join(os.path.abspath(args.folder), "")
    named = {path: os.path.abspath(path) for path in paths if path}
    named = {path: os.path.relpath(whole, inside) if whole.startswith(inside) else path for path, whole in named.items()}
    return {"version": VERSION, "options": json.loads(json.dumps(options)),
            "files": {named[path]: rows.hash_of(path) for path in sorted(named)}}


def is_kept(args, earlier):
    """Whether the report that is there is of just these files and options, and whole."""
    known = earlier.get("made_from", {}).get("files", {})
    return bool(known) and made_from(args, [os.path.join(args.folder, path) for path in known]) == earlier["made_from"] and all(
        rows.hash_of(os.path.join(args.folder, name)) == hashed for name, hashed in earlier["written"].items())


def earlier_report(args):
    """report.json as it stands, or {}; exits where files of these names are not this script's."""
    path = os.path.join(args.folder, NAMES[0])
    content = {}
    if os.path.lexists(path):
        try:
            content = files.read_json(path)
        except command.Failure:
            if not args.overwrite:
                raise
    ours = "schema" in content and isinstance(content.get("rows"), list)
    for name in NAMES:
        files.check_output(os.path.join(args.folder, name), (args.reference if name == NAMES[0] and not ours else None,),
                           lambda _: ours, args.overwrite)
    return content if ours and content["schema"] == SCHEMA else {}


# ---- the rows, and another run's ----

def chosen(args, run):
    """The rows that --batch-sizes and --precisions ask for, by default all; each that is asked for must be there."""
    sizes, kinds = args.batch_sizes, {word == "int8" for word in args.precisions}
    some = [row for row in run.rows if (not sizes or row["batch_size"] in sizes) and (not kinds or is_int8(row) in kinds)]
    if not some:
        fail("%s: holds no result.json and no *_summary.json of pure inference%s; imagenet_acc_eval.py writes the one, an "
             "inference with --output ./ --output_dirname perf_bs1 the other"
             % (args.folder, " that is asked for" if sizes or kinds else ""))
    there = {(is_int8(row), row["batch_size"]) for row in some}
    for size in sizes:
        for int8 in kinds or {is_int8(row) for row in some}:
            if (int8, size) not in there:
                fail("%s: holds no %s results at batch size %d; make them, or leave that batch size out"
                     % (args.folder, "INT8" if int8 else "float", size))
    return some


def read_reference(path):
    """The rows of another run: of a folder's files, or of a lone report.json."""
    if os.path.isdir(path):
        run = rows.Run(path)
        if run.rows:
            return {"path": path, "date": date_of(run), "rows": run.rows}
        path = os.path.join(path, NAMES[0])
        if not os.path.exists(path):
            fail("%s: holds neither results nor a report.json; give the folder or the report.json of another run" % path)
    content = files.read_json(path)
    with files.as_written(path):
        if not OLDEST_REFERENCE <= content["schema"] <= SCHEMA:
            fail("%s: is no report.json of schema %d to %d; make it again" % (path, OLDEST_REFERENCE, SCHEMA))
        there = [dict(dict.fromkeys(rows.ROW), **row) for row in content["rows"]]
        for row in there:
            row["images_per_second"] = row["images_per_second"] and rows.positive(row["images_per_second"])
        return {"path": path, "date": content["date"], "rows": there}


def date_of(run):
    return max([summary["date"] for summary in run.summaries if summary["date"]], default=None)


def beside(some, reference):
    """[(row, its counterpart)]: the same batch size, INT8 with INT8 and float with float, of whichever engine."""
    there = {(is_int8(row), row["batch_size"]): row for row in reference["rows"]} if reference else {}
    return [(row, there[is_int8(row), row["batch_size"]]) for row in some if (is_int8(row), row["batch_size"]) in there]


def check_reference(run, some, reference):
    """Notes where the two runs differ; accuracies by other labels or of other images are not put beside each other."""
    pairs = beside(some, reference)
    for row in some:
        if row not in [met for met, _ in pairs]:
            run.warn("%s: has no row for %s at batch size %s, which is not compared", reference["path"], rows.precision_of(row),
                     row["batch_size"] or say(UNKNOWN))
    for what, key in (("models (weights)", "model.weights_sha256"), ("labels", "labels_sha256"), ("numbers of images", "judged"),
                      ("engines", "engine"), ("devices", "device")):
        known = [(at(row, key), at(other, key)) for row, other in pairs]
        if any(None not in pair and pair[0] != pair[1] for pair in known):
            run.warn("%s: that run and this one are of different %s", reference["path"], say(what))
    if any(rows.differ_in_images(row, other) for row, other in pairs):
        run.warn("%s: that run and this one are of different %s", reference["path"], say("images"))
    for row, other in pairs:
        if rows.differ_in_images(row, other) or None not in (row["labels_sha256"], other["labels_sha256"]) and \
                row["labels_sha256"] != other["labels_sha256"]:
            other.update(top1=None, top5=None)


# ---- what it says ----

def notes(run, some):
    """Notes what a reader of these rows must know."""
    for row in some:
        size = row["batch_size"] or say(UNKNOWN)
        if row["batch_size_vouched"] is False:
            run.warn("batch size %s of %s is not verified: nothing but ais_bench's --batchsize says so, which scales the throughput",
                     size, rows.precision_of(row))
        if row["labels_doubt"]:
            run.warn("%s", row["labels_doubt"])
        if row["results"] and row["results"] < row["labelled"]:
            run.warn("at batch size %s only %d of %d labelled images have a result; the accuracy is of those alone", size,
                     row["results"], row["labelled"])
    for row, other in tables.int8_pairs(some):
        source, known = at(row, "model.calibration.source_sha256"), at(other, "model.sha256")
        if source and known and source not in (known, other["model"]["onnx_sha256"]):
            run.warn("at batch size %s the INT8 model was not made from the float model beside it; quantise again", row["batch_size"])
    bits = sorted({str(tables.bits_of(row)) for row in some if is_int8(row) and row["vnni"] is False})
    if bits:
        run.warn("INT8 ran on a CPU without VNNI, with weights of %s bits: its speed is not that of a server that has it",
                 " / ".join(bits))


def hints(args, some):
    """The line that fills a dash: the guide's own for pure inference leaves no file."""
    lacking = [row for row in some if row["top1"] is not None and not row["images_per_second"] and not row["failed"]
               and not row["refused"] and row["batch_size"]]
    if not lacking:
        return []
    row, on_cpu = lacking[0], (lacking[0]["engine"] or "").startswith("onnxruntime")
    name = "%sbs%d" % ("int8_" if is_int8(row) else "", row["batch_size"])
    model = os.path.basename(at(row, "model.path") or "resnet34_%s.%s" % (name, "onnx" if on_cpu else "om"))
    line = "python3 %s --model=%s --loop=20 --batchsize=%d --output %s --output_dirname perf_%s" % (
        "onnx_infer.py" if on_cpu else "npu_infer.py", model, row["batch_size"], args.folder, name)
    return [say("no throughput at batch size %s: pure inference leaves a file only with --output; this line does: %s (a summary that "
                "lies elsewhere: --perf PATH)") % (", ".join(str(each["batch_size"]) for each in lacking), line)]


def verdicts(run, some, reference, slowdown):
    """Every gate of the rows, those of the evaluation too, the fidelities and what was refused: [{name, passes, text, ...}]"""
    gates = []
    for row in some:
        for text in row["refused"]:
            gates.append({"name": "refused", "measured": None, "limit": None, "passes": False, "text": text})
        for gate in row["gates"]:
            # Two digits, or more where those two would contradict the verdict.
            digits = "%.2f" if (round(gate["measured"], 2) >= gate["limit"]) == gate["passes"] else "%.15g"
            gates.append(dict(gate, text=say("%s %s%% is %s %.15g%% (%s, batch size %s)") % (
                gate["name"], digits % gate["measured"], say("at least" if gate["passes"] else "below"), gate["limit"],
                rows.precision_of(row), row["batch_size"] or say(UNKNOWN))))
    if slowdown is not None:
        gates += speed_gates(some, reference, slowdown)
    for fidelity in fidelities_of(some):
        text = say("%s %s with its reference: relative difference %.3g, limit %g%s") % (
            fidelity["result"], say("agrees" if fidelity["agrees"] else "does NOT agree"), fidelity["relative_difference"],
            fidelity["relative_limit"], "" if fidelity["agrees"] else say("; do not trust it before the cause is known"))
        gates.append({"name": "fidelity", "measured": fidelity["relative_difference"], "limit": fidelity["relative_limit"],
                      "passes": fidelity["agrees"], "text": text})
    return gates


def fidelities_of(some):
    found = {row["fidelity"]["path"]: row["fidelity"] for row in some if row["fidelity"]}
    return list(found.values())


def speed_gates(some, reference, slowdown):
    """A row fails only if even the upper end here is below the lower end there less the slowdown that is allowed."""
    gates = []
    for row, other in beside(some, reference):
        measured, there = row["images_per_second"], other["images_per_second"]
        if not there:
            continue
        limit = (1 - slowdown / 100) * rows.spread(other)[0]
        name = say("images/s of %s at batch size %s") % (rows.precision_of(row), row["batch_size"])
        gate = {"name": name, "measured": measured, "reference": there, "limit": limit, "passes": False, "interval95": None,
                "text": say("%s: there is none to compare with %.2f") % (name, there)}
        if measured:
            least, most, how = rows.spread(row)
            verdict = "reaches" if measured >= limit else "reaches, within its spread," if most >= limit else "stays below"
            text = say("%s: %.2f (%.2f to %.2f, %s) %s %.2f, the reference's %.2f (from %.2f on) less %g %%")
            gate.update(passes=most >= limit, interval95=row["images_per_second_interval95"], text=text % (
                name, measured, least, most, how, say(verdict), limit, there, rows.spread(other)[0], slowdown))
        gates.append(gate)
    if not gates:
        fail("%s: has no throughput at any of these batch sizes; give a run of the same ones" % reference["path"])
    return gates


def verdict(some):
    """The sentence to be quoted: the accuracy, how far it is from what is published, and the best throughput; of INT8 likewise."""
    sentences = []
    for kind in (False, True):
        group = [row for row in some if is_int8(row) == kind]
        fastest = max(group, key=lambda row: row["images_per_second"] or 0, default=None)
        judged = next((row for row in [fastest] + group if row and row["top1"] is not None), None)
        parts = []
        if judged:
            parts.append(say("Top-1 %.2f%% and Top-5 %.2f%% on %d images") % (judged["top1"], judged["top5"], judged["judged"]))
        for figures in (at(judged, "published.figures") or [])[:1]:
            parts.append(say("Top-1 %+.2f points from the published %.2f%% (%s)") % (
                figures["top1_difference"], figures["top1"], figures["by"]))
        if fastest and fastest["images_per_second"]:
            parts.append(say("at best %.2f images/s, at batch size %s") % (fastest["images_per_second"], tables.size_of(fastest)))
        if parts and not sentences:
            parts.append(say("with %s on %s") % tuple((fastest or judged)[key] or say(UNKNOWN) for key in ("engine", "device")))
        if parts:
            sentences.append(("INT8: " if kind else "") + ", ".join(parts))
    return one_line("; ".join(sentences) + say(".") if sentences else say("Nothing here could be measured."), 1000)


def class_names(path, some):
    """{class: name}: of --classes, else as the evaluation wrote them, of the first row that has one."""
    names = {}
    for row in reversed(some):
        for mistake in row["mistakes"]:
            names[mistake["label"]] = mistake["label_name"]
            names.update((guess["class"], guess["name"]) for guess in mistake["guesses"])
        names.update((worst["class"], worst["name"]) for worst in row["worst_classes"])
    if path:
        lines = files.lines_of(files.read(path, LARGEST_PICTURE))
        while lines and not lines[-1]:
            lines.pop()
        wrong = [row["classes"] for row in some if row["classes"] not in (None, len(lines))]
        if wrong:
            fail("%s: has %d lines, the results have %d classes; it needs one name a line" % (path, len(lines), wrong[0]))
        names.update(enumerate(lines))
    return names


# ---- the pictures of the mistakes ----

def find_pictures(args, run, row):
    """{image: path} of the row's mistakes: in --images DIR, else where the manifest says; always the picture that was judged."""
    known, found = {}, {}
    for summary in run.summaries:
        known.update(summary["images"])
    for source in paths_of_pictures(args, row):
        for mistake in row["mistakes"]:
            name = mistake["image"]
            path = source.get(name)
            if path and name not in found and (name not in known or known[name].startswith("bin:")
                                               or known[name] == hash_of_picture(path)):
                found[name] = path
    run.read.update(found.values())
    return found


def paths_of_pictures(args, row):
    if args.images:
        from common import images
        yield images.find_images(args.images)[0]
    for folder in filter(None, (at(row, "input.path"), os.path.join(args.folder, os.path.basename(at(row, "input.path") or "")))):
        yield {name: image.source for name, image in prepared.read_manifest(folder).items()}


def hash_of_picture(path):
    try:
        return files.xxh(files.read(path, LARGEST_PICTURE))
    except OSError:
        return None


def picture(path):
    """A small JPEG of a picture as base64, or None where there is none to show."""
    from PIL import Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown = Image.open(io.BytesIO(files.read(path, LARGEST_PICTURE)), formats=FORMATS)
            if shown.size[0] * shown.size[1] > MOST_PIXELS:
                return None
            shown.draft("RGB", (2 * PICTURE, 2 * PICTURE))
            shown = shown.convert("RGB")
        shown.thumbnail((PICTURE, PICTURE))
        data = io.BytesIO()
        shown.save(data, "JPEG", quality=85)
        return base64.b64encode(data.getvalue()).decode()
    except Exception:  # no such file (None), or any of the dozen errors of Pillow's decoders
        return None


def gallery_of(args, run, row, names):
    """[{image, picture, label, guesses}] of a row's mistakes."""
    pictures = find_pictures(args, run, row) if row else {}
    return [{"image": one_line(mistake["image"], 300), "picture": picture(pictures.get(mistake["image"])),
             "label": tables.class_name(names, mistake["label"], mistake["label_name"]),
             "guesses": [(tables.class_name(names, guess["class"], guess["name"]), "%.2f%%" % (100 * guess["probability"]))
                         for guess in mistake["guesses"]]} for mistake in (row or {"mistakes": []})["mistakes"]]


# ---- what is printed and written ----

def aligned(table):
    """A table for the terminal: columns padded, numbers to the right; a Chinese letter is two wide."""
    def width(text):
        return sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)

    lines = [[cell.replace("\n", " ") for cell in line] for line in [table["header"]] + table["rows"]]
    widths, text = [max(map(width, column)) for column in zip(*lines)], ""
    for line in lines:
        blanks = [" " * (most - width(cell)) for cell, most in zip(line, widths)]
        text += "  ".join(blank + cell if numeric else cell + blank for cell, blank, numeric in zip(
            line, blanks, table["numeric"])).rstrip() + "\n"
    return text


def markdown(text):
    """A text that Markdown shows as it is: no HTML, no link, no picture, no code, no new cell."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~!])", r"\\\1", text)
    return text.replace("://", ":\\//").replace("www.", "www\\.")


def breakable(text):
    """HTML of a text that a narrow screen may break after the signs in paths and names, and nowhere inside a word."""
    from markupsafe import Markup, escape
    return Markup("<br>").join(Markup(re.sub(r"([/_@=]+)", r"\1<wbr>", str(escape(line)).replace("/", "/"))) for line in text.split("\n"))


def rendered(name, **content):
    """report.md or report.html, by the template beside this script."""
    import jinja2
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".jinja")
    pages = jinja2.Environment(autoescape=name.endswith("html"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters.update(markdown=markdown, breakable=breakable)
    return pages.from_string(files.read(path).decode()).render(say=say, **content).encode("utf-8", "backslashreplace")


def make_report(args, run):
    """Everything that the report says: what report.json holds, {name: bytes} of the other files."""
    some = chosen(args, run)
    reference = read_reference(args.reference) if args.reference else None
    notes(run, some)
    if reference:
        check_reference(run, some, reference)
    gates, names = verdicts(run, some, reference, args.max_slowdown), class_names(args.classes, some)
    above, own = tables.common(some)
    runs, date = {row["runs"] for row in some if row["runs"]}, date_of(run)
    above += [(say("Runs"), say(" to ").join("%d" % number for number in sorted({min(runs), max(runs)})) if runs else say(UNKNOWN)),
              (say("Date"), one_line(date or say(UNKNOWN)))]
    shown = tables.all_tables(run, some, own, gates, beside(some, reference), reference, fidelities_of(some), names, args.lang == "zh")
    path = os.path.join(args.folder, "commands.sh")
    commands = files.read(path, 1 << 20).decode("utf-8", "replace").splitlines() if os.path.exists(path) else []
    commands = [one_line(line, 4000) for line in commands if line.strip()]
    quote, more = verdict(some), hints(args, some)
    text = "%s\n\n%s\n%s" % (quote, "".join("%s: %s\n" % line for line in above), aligned(shown["guide"] or shown["results"]))
    for table in filter(None, (shown["guide"] and shown["results"], shown["price"], shown["gain"], shown["reference"])):
        text += "\n%s\n%s" % (table["title"], aligned(table))
    text += "".join("%s: %s\n" % ("PASS" if gate["passes"] else "FAIL", one_line(gate["text"])) for gate in gates)
    text += "".join(hint + "\n" for hint in more)
    content = {"schema": SCHEMA, "date": date, "runs": runs.pop() if len(runs) == 1 else None, "verdict": quote, "rows": some,
               "environment": run.environment, "commands": commands, "reference": reference, "gates": gates,
               "warnings": [one_line(warning) for warning in run.warnings], "hints": more, "text": text,
               "failed": {":".join(map(str, filter(None, key))): why for key, why in args.failed.items()}}
    title = one_line(say("ResNet34 inference with %s") % (some[0]["engine"] or say("an engine that is not recorded")), 300)
    judged = next((row for row in some if row["top1"] is not None), None)
    page = dict(content, title=title, above=above, tables=shown, rows=some, language={"en": "en", "zh": "zh-CN"}[args.lang])
    with_chart = any(row["images_per_second"] for row in some)
    png = chart.draw(some, title=one_line("%s\n%s" % (some[0]["engine"] or UNKNOWN, some[0]["device"] or UNKNOWN), 140))
    charts = [(say(panel), chart.in_words(some, panel), base64.b64encode(chart.draw(some, [panel])).decode())
              for panel in chart.PANELS] if with_chart else []
    fence = "`" * max([3] + [len(mark) + 1 for mark in re.findall("`+", "".join(commands))])
    return content, {"report.md": rendered("report.md", fence=fence, **page), "report.png": png,
                     "report.html": rendered("report.html", charts=charts, gallery=gallery_of(args, run, judged, names), **page)}


def parse_args():
    def pattern(form, example, make):
        """A type for argparse: what matches the form, made of the match's groups."""
        def convert(text):
            match = re.match(form + r"\Z", text.strip(), re.DOTALL)
            if not match:
                raise argparse.ArgumentTypeError("%r is not %s" % (text, example))
            return make(*match.groups())
        return convert

    failure = pattern(r"(?:(fp32|fp16|int8):)?([1-9]\d{0,8})=(.+)", "as fp32:8=reason",
                      lambda precision, size, reason: ((precision, int(size)), reason))
    numbers = pattern(r"([1-9]\d{0,8}(?:\s+[1-9]\d{0,8})*)", 'as "1 4 8"', lambda text: [int(word) for word in text.split()])
    kinds = pattern(r"((?:fp32|fp16|int8)(?:\s+(?:fp32|fp16|int8))*)", 'as "fp32 int8"', str.split)
    parser = argparse.ArgumentParser(description="Put the results of a run together as a report.", allow_abbrev=False)
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder of the results, as run_infer.sh or the guide's commands leave it")
    add("--lang", choices=["en", "zh"], default="en", help="language; zh begins with the guide's own table (default: %(default)s)")
    add("--reference", metavar="RUN", help="another run, a folder or its report.json, to put beside this one")
    add("--max-slowdown", metavar="P", type=command.number(0, 99.99),
        help="exit with 3 where the throughput is more than P %% below the reference's, beyond their spread")
    add("--perf", metavar="SUMMARY", nargs="+", default=[], help="summaries of pure inference that lie elsewhere, or their folders")
    add("--classes", metavar="FILE", help="names of the classes, one a line (default: the evaluation's)")
    add("--images", metavar="DIR", help="folder of the images, for the page (default: the manifest's)")
    add("--dataset", metavar="NAME", help="name of the data set")
    add("--failed", metavar="PRECISION:SIZE=REASON", nargs="*", type=failure, default=[], help="rows that came to nothing, and why")
    add("--batch-sizes", metavar="LIST", type=numbers, default=[], help='only these rows, for example "1 4 8"')
    add("--precisions", metavar="LIST", type=kinds, default=[], help='only these, for example "fp32 int8"')
    add("--quiet", action="store_true", help="print only the tables, verdicts and warnings")
    add("--overwrite", action="store_true", help="write again; replace files that are not of this script's making")
    add("--check", action="store_true", help="do nothing; exit code 0 where the report is there and of these files, else 1")
    args = parser.parse_args()
    if args.max_slowdown is not None and not args.reference:
        parser.error("--max-slowdown needs --reference")
    return args


def main():
    args = parse_args()
    speak(args.lang)
    if not os.path.isdir(args.folder):
        fail("%s: is no folder; give the one with the results" % args.folder)
    content = earlier_report(args)
    kept = not args.overwrite and is_kept(args, content)
    if args.check:
        return 0 if kept else 1
    if not kept:
        pairs, args.failed = args.failed, dict(args.failed)
        run = rows.Run(args.folder, args.perf, args.dataset, args.failed)
        with files.as_written(args.folder):
            content, written = make_report(args, run)
        args.failed = pairs
        content.update(made_from=made_from(args, run.read), written={name: files.sha256(data) for name, data in written.items()})
        written = dict({NAMES[0]: (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()}, **written)
        files.write_all({os.path.join(args.folder, name): data for name, data in written.items()})
    sys.stdout.write(content["text"])
    if not args.quiet:
        print("%s: %s and .json, .png, .html beside it" % ("kept" if kept else "report", os.path.join(args.folder, "report.md")))
    sys.stdout.flush()
    for warning in content["warnings"]:
        warn(warning)
    return 0 if all(gate["passes"] for gate in content["gates"]) else 3


if __name__ == "__main__":
    command.run(main)
