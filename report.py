#!/usr/bin/env python3
"""Put the results of a run together as a report (the guide's last stage: its table of accuracy and performance).

    python3 report.py ./output

Measures and probes nothing. In DIR it reads every *_summary.json (the inference), every JSON of the evaluation (by the
ModelZoo's title) and of compare_scores.py, and commands.sh; prints the table and writes DIR/report.md, report.json,
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

from common import chart, files, imagenet, images, labels, prepared, remarks, rows, tables
from common.command import fail, one_line, warn
from common.rows import UNKNOWN, at, is_int8
from common.words import say, speak

SCHEMA = 4  # of report.json, which docs/report.md describes
NAMES = ("report.json", "report.md", "report.html", "report.png")
PICTURE, FORMATS = 320, ("JPEG", "PNG", "BMP", "WEBP")  # longer side in the page; never EPS, which goes to Ghostscript
LARGEST_PICTURE = 64 << 20  # bytes


# ---- when there is nothing to do ----

def report_made_from(args, read):
    """All that decides the report: the options, and the hash of each file that is, or was, read."""
    options = {key: value for key, value in vars(args).items() if key not in ("folder", "quiet", "overwrite", "check")}
    paths = set(read) | set(rows.json_files(args.folder)) | {os.path.join(args.folder, "commands.sh")}
    if args.reference:
        paths |= set(rows.json_files(args.reference)) if os.path.isdir(args.reference) else {args.reference}
    return {"version": rows.VERSION, "options": json.loads(json.dumps(options)),
            "files": {os.path.relpath(path, args.folder): rows.hash_of(path) for path in sorted(paths)}}


def is_report_kept(args, earlier):
    """Whether the report that is there is of just these files and options, and whole."""
    if args.overwrite or "made_from" not in earlier:
        return False
    read = [os.path.join(args.folder, path) for path in earlier["made_from"]["files"]]
    whole = all(os.path.isfile(os.path.join(args.folder, name)) for name in NAMES)
    return whole and report_made_from(args, read) == earlier["made_from"]


# ---- the rows, and another run's ----

def read_run(args):
    """The Run of the rows that --batch-sizes and --precisions ask for, by default all; each that is asked for must be there."""
    sizes, kinds = args.batch_sizes, {word == "int8" for word in args.precisions}
    run = rows.Run(args.folder, args.perf, args.dataset, dict(args.failed), lambda key: (
        not sizes or key[1] in sizes) and (not kinds or (key[0] == "int8") in kinds))
    if not run.rows:
        fail("%s: holds no result.json and no *_summary.json of pure inference%s; imagenet_acc_eval.py writes the one, an "
             "inference with --output ./ --output_dirname perf_bs1 the other"
             % (args.folder, " that is asked for" if sizes or kinds else ""))
    there = {(is_int8(row), row["batch_size"]) for row in run.rows}
    for size in sizes:
        for int8 in kinds or {is_int8(row) for row in run.rows}:
            if (int8, size) not in there:
                fail("%s: holds no %s results at batch size %d; make them, or leave that batch size out"
                     % (args.folder, "INT8" if int8 else "float", size))
    return run


def read_reference(path, folder):
    """The rows of another run than folder's: of a folder's files, or of a lone report.json."""
    if os.path.realpath(path) in [os.path.realpath(os.path.join(folder, name)) for name in ("", NAMES[0])]:
        fail("%s: is this run's own, and is replaced now; keep a copy of the report.json to compare with, and name that" % path)
    if os.path.isdir(path):
        with files.as_written(path):
            run = rows.Run(path)
        if run.rows:
            return {"path": path, "date": date_of(run), "rows": run.rows}
        path = os.path.join(path, NAMES[0])
    content = files.read_json(path)
    if content.get("schema") != SCHEMA:
        fail("%s: is no report.json of schema %d; make it again with this report.py" % (path, SCHEMA))
    with files.as_written(path):
        for row in content["rows"]:
            rows.recipe_of(row, path)
        return {"path": path, "date": content["date"], "rows": [dict(dict.fromkeys(rows.ROW), **row) for row in content["rows"]]}


def date_of(run):
    return max([summary["date"] for summary in run.shown if summary["date"]], default=None)


# ---- the class names, and the pictures of the mistakes ----

def read_class_names(path, some):
    """{class: name}: of --classes, else as the evaluation wrote them, of the first row that has one, else ImageNet's."""
    names = {}
    for row in reversed(some):
        if imagenet.is_published(at(row, "model.weights_sha256")):  # by the images' names alone they may be anybody's
            names.update(enumerate(labels.imagenet_names()))
        names.update((mistake["label"], mistake["label_name"]) for mistake in row["mistakes"])
        named = row["worst_classes"] + [guess for mistake in row["mistakes"] for guess in mistake["guesses"]]
        names.update((each["class"], each["name"]) for each in named)
    for classes in {row["classes"] for row in some if path and row["classes"]}:
        names.update(enumerate(labels.read_names(path, classes)))
    return names


def gallery_of(args, run, row, names):
    """[{image, picture, label, guesses}] of a row's mistakes; the pictures are of --images DIR, or of where the manifest says."""
    known = {image: content for summary in run.summaries for image, content in summary["pictures"].items()}
    folder, sources = at(row, "input.path") or "", [images.find_images(args.images)[0]] if args.images else []
    for path in (folder, os.path.join(args.folder, os.path.basename(folder))) if folder else ():
        sources.append({name: image.source for name, image in prepared.read_manifest(path).items()})
    gallery = []
    for mistake in row["mistakes"]:
        paths = [source[mistake["image"]] for source in sources if mistake["image"] in source]
        run.read.update(paths)
        pictures = [picture(path, known.get(mistake["image"], "bin:")) for path in paths]
        gallery.append({"image": one_line(mistake["image"], 300), "picture": next(filter(None, pictures), None),
                        "label": tables.class_name(names, mistake["label"], mistake["label_name"]),
                        "guesses": ["%s: %.2f%%" % (tables.class_name(names, guess["class"], guess["name"]),
                                                    100 * guess["probability"]) for guess in mistake["guesses"]]})
    return gallery


def picture(path, expected):
    """A small JPEG of a picture as base64, or None where there is none to show, or not the one that was judged."""
    from PIL import Image
    try:
        data = files.read(path, LARGEST_PICTURE)
        if not expected.startswith("bin:") and files.xxh(data) != expected:
            return None
        shown = Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")
        shown.thumbnail((PICTURE, PICTURE))
        small = io.BytesIO()
        shown.save(small, "JPEG", quality=85)
        return encoded(small.getvalue())
    except Exception:  # no such file, or any of the dozen errors of Pillow's decoders
        return None


def encoded(data):
    return base64.b64encode(data).decode()


# ---- what is printed and written ----

def aligned(table):
    """A table for the terminal: columns padded, numbers to the right; a Chinese letter is two wide."""
    def width(text):
        return sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)

    lines = [[cell.replace("\n", " ") for cell in line] for line in [table["header"]] + table["rows"]]
    widths, text = [max(map(width, column)) for column in zip(*lines)], ""
    for line in lines:
        blanks = [" " * (most - width(cell)) for cell, most in zip(line, widths)]
        cells = [blank + cell if numeric else cell + blank for cell, blank, numeric in zip(line, blanks, table["numeric"])]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def markdown(text):
    """A text that Markdown shows as it is: no HTML, no link, no picture, no code, no new cell."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~!])", r"\\\1", text)
    return text.replace("://", ":\\//").replace("www.", "www\\.")


def breakable(text):
    """HTML of a text that a narrow screen may break after the signs in paths and names, and nowhere inside a word."""
    from markupsafe import Markup, escape
    return Markup("<br>".join(re.sub(r"([/=]+)", r"\1<wbr>", str(escape(line))) for line in text.split("\n")))


def rendered(name, content):
    """report.md or report.html, by the template beside this script."""
    import jinja2
    here = os.path.dirname(os.path.abspath(__file__))
    loader = jinja2.FunctionLoader(lambda file: files.read(os.path.join(here, file)).decode())  # names a file that is missing
    pages = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
                               autoescape=name.endswith("html"))
    pages.filters.update(markdown=markdown, breakable=breakable)
    return pages.get_template(name + ".jinja").render(say=say, **content).encode("utf-8", "backslashreplace")


def make_report(args, run):
    """(what report.json holds, {name: bytes} of the other files)."""
    some, reference = run.rows, read_reference(args.reference, args.folder) if args.reference else None
    remarks.check_rows(run)
    pairs = remarks.check_reference(run, reference) if reference else []
    gates, names = remarks.verdicts(some, pairs, args.max_slowdown), read_class_names(args.classes, some)
    if args.max_slowdown is not None and not any(other["images_per_second"] for _, other in pairs):
        fail("%s: has no throughput at any of these batch sizes; give a run of the same ones" % reference["path"])
    (above, own), date = tables.common(run), date_of(run)
    runs = sorted({row["runs"] for row in some if row["runs"]})
    shown_runs = tables.figure([runs[0], runs[-1]], "%d") if len(runs) > 1 else str((runs or [say(UNKNOWN)])[0])
    above += [(say("Runs"), shown_runs), (say("Date"), one_line(date or say(UNKNOWN)))]
    shown = tables.all_tables(run, own, gates, pairs, reference, names, args.lang)
    path = os.path.join(args.folder, "commands.sh")
    commands = files.read(path, 1 << 20).decode("utf-8", "replace").splitlines() if os.path.exists(path) else []
    engine, device = (one_line(some[0][key] or say(UNKNOWN), 70) for key in ("engine", "device"))
    content = {"schema": SCHEMA, "date": date, "runs": runs[0] if len(runs) == 1 else None, "rows": some,
               "verdict": remarks.verdict(some), "environment": run.environment,
               "commands": [one_line(line, 4000) for line in commands if line.strip()],
               "reference": reference, "gates": gates, "flaws": [one_line(text) for text in run.warnings],
               "hints": [one_line(hint) for hint in remarks.hints(args.folder, some)],
               "failed": {":".join(map(str, filter(None, key))): reason for key, reason in args.failed}}
    content["text"] = content["verdict"] + "\n\n" + "".join(say("%s: %s") % line + "\n" for line in above) + "".join(
        "\n%s%s" % (table["title"] + "\n" if name not in ("guide", "results") else "", aligned(table))
        for name, table in shown.items() if name in ("guide", "results", "price", "gain", "reference"))
    verdicts = [("PASS" if gate["passes"] else "FAIL", one_line(gate["text"])) for gate in gates]
    content["text"] += "".join("%s: %s\n" % verdict for verdict in verdicts) + "".join(hint + "\n" for hint in content["hints"])
    drawn, panels = chart.draw(some, "%s\n%s" % (engine, device))
    charts = [{"name": say(panel), "words": chart.in_words(some, panel), "png": encoded(panels[panel])}
              for panel in panels if any(row["images_per_second"] for row in some)]
    judged = next((row for row in some if row["top1"] is not None), {"mistakes": []})
    page = dict(content, title=say("ResNet34 inference with %s") % engine, above=above, tables=shown, charts=charts,
                notes=[each for each in verdicts if each[0] == "FAIL"] + [(say("Warning"), text) for text in content["flaws"]],
                gallery=gallery_of(args, run, judged, names), language={"zh": "zh-CN"}.get(args.lang, args.lang))
    return content, {"report.md": rendered("report.md", page), "report.html": rendered("report.html", page),
                     "report.png": drawn}


# ---- the command line ----

def failure(text):
    match = re.match(r"(?:(fp32|fp16|int8):)?([1-9]\d{0,8})=(.+)", text, re.S)
    if not match:
        raise argparse.ArgumentTypeError("%r is not as fp32:8=reason" % text)
    return (match.group(1), int(match.group(2))), match.group(3)


def sizes(text):
    return [command.whole()(word) for word in text.replace(",", " ").split()]


def precisions(text):
    if set(text.split()) - {"fp32", "fp16", "int8"}:  # fp16 is what an NPU makes of fp32
        raise argparse.ArgumentTypeError('%r is not as "fp32 int8"' % text)
    return text.split()


def parse_args():
    parser = command.parser(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder of the results, as run_infer.sh or the guide's commands leave it")
    add("--lang", choices=["en", "zh"], default="en", help="zh: in Chinese, beginning with the guide's own table")
    add("--reference", metavar="RUN", help="another run, a folder or its report.json, to put beside this one")
    add("--max-slowdown", metavar="P", type=command.number(0, 99.99),
        help="exit with 3 where the throughput is more than P %% below the reference's, beyond their spread")
    add("--perf", metavar="SUMMARY", nargs="+", default=[], help="summaries of pure inference that lie elsewhere, or folders")
    add("--classes", metavar="FILE", help="names of the classes, one a line (default: the evaluation's)")
    add("--images", metavar="DIR", help="folder of the images, for the page (default: the manifest's)")
    add("--dataset", metavar="NAME", help="name of the data set")
    add("--failed", metavar="PRECISION:SIZE=REASON", nargs="*", type=failure, default=[], help="rows without results, and why")
    add("--batch-sizes", metavar="LIST", type=sizes, default=[], help='only these rows, for example "1 4 8"')
    add("--precisions", metavar="LIST", type=precisions, default=[], help='only these, for example "fp32 int8"')
    add("--quiet", action="store_true", help="print only the tables, verdicts and warnings")
    add("--overwrite", action="store_true", help="write again, also over files that are not of this script's making")
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
    paths = [os.path.join(args.folder, name) for name in NAMES]
    content = files.peek_json(paths[0])
    for path in paths:
        files.check_output(path, (args.classes,), lambda _: isinstance(content.get("rows"), list), args.overwrite)
    with files.as_written(paths[0]):
        kept = is_report_kept(args, content)
    if args.check:
        return 0 if kept else 1
    if not kept:
        with files.as_written(args.folder):
            run = read_run(args)
            content, written = make_report(args, run)
        content["made_from"] = report_made_from(args, run.read)
        written[NAMES[0]] = (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
        files.write_all({os.path.join(args.folder, name): data for name, data in written.items()})
    sys.stdout.write(content["text"])
    if not args.quiet:
        print("%s: %s and .json, .png, .html beside it" % ("kept" if kept else "report", os.path.join(args.folder, "report.md")))
    sys.stdout.flush()
    for text in content["flaws"]:
        warn(text)
    return 0 if all(gate["passes"] for gate in content["gates"]) else 3


if __name__ == "__main__":
    command.run(main)
