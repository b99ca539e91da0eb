"""The chart: throughput and latency over the batch size, each with its spread; told apart by marker and line, not by colour."""
import io
import warnings

import numpy as np

from common.rows import at, precision_of, spread
from common.words import say

PANELS = {"throughput": "throughput (images/s)", "latency": "latency of a batch (ms)"}


def draw(rows, title):
    """PNG bytes of the panels side by side, in matplotlib's own defaults, and of each alone: (bytes, {panel: bytes})."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image
    rows = [row for row in rows if row["images_per_second"] and row["batch_size"]]
    sizes = sorted({row["batch_size"] for row in rows})
    precisions = sorted({row["precision"] or "" for row in rows}, key=lambda precision: (precision == "int8", precision))
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        matplotlib.rcdefaults()
        figure = Figure(figsize=(10, 4), dpi=160)
        canvas, both = FigureCanvasAgg(figure), figure.subplots(1, 2)
        for axes, panel in zip(both, PANELS):
            for order, precision in enumerate(precisions):
                some = [row for row in rows if (row["precision"] or "") == precision]
                positions = [sizes.index(row["batch_size"]) + 0.08 * (order - (len(precisions) - 1) / 2) for row in some]
                draw_curve(axes, panel, positions, some, (precision or "measured")[:20].replace("$", r"\$"), order % 3)
            axes.set(xticks=range(len(sizes)), xlim=(-0.5, max(len(sizes), 1) - 0.5), xlabel="batch size (images)",
                     ylabel=PANELS[panel], ylim=(0, 1.1 * axes.get_ylim()[1]))
            axes.set_xticklabels(["%d" % size for size in sizes])
            axes.grid(True, color="0.85")
            if rows:
                axes.legend(fontsize=8)
        heading = figure.suptitle(title.replace("$", r"\$"), fontsize=10)
        figure.tight_layout()
        canvas.draw()
        left, right = (axes.get_tightbbox(canvas.get_renderer()) for axes in both)
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        top = int(picture.height - heading.get_window_extent().y0)  # matplotlib counts from below
    border, (width, height) = int((left.x1 + right.x0) / 2), picture.size
    parts = [picture.crop(sides) for sides in ((0, top, border, height), (border, top, width, height))]
    return png(picture), dict(zip(PANELS, map(png, parts)))


def png(picture):
    data = io.BytesIO()
    picture.convert("RGB").save(data, "PNG")
    return data.getvalue()


def draw_curve(axes, panel, positions, rows, name, order):
    """The rows of a precision: hollow and large beneath small and filled, so that both are seen where curves coincide."""
    times = [row["latency_ms"] for row in rows]
    if panel == "throughput":
        values = [row["images_per_second"] for row in rows]
        least, most, how = zip(*map(spread, rows))
        label = "%s, bar: %s" % (name, " or ".join(sorted(set(how))))
        points = [("x:", [row["guide_images_per_second"] for row in rows], "the guide's")]
    else:
        values, least = [each["median"] for each in times], [each["min"] for each in times]
        last, called = ("p90", "P90") if all(each["p90"] for each in times) else ("max", "slowest")
        most, label = [each[last] for each in times], "%s median, bar: fastest to %s" % (name, called)
        points = [("os^"[order], [each["mean"] for each in times], name + " mean"),
                  ("+x*"[order], [each["p99"] for each in times], name + " P99")]
    bars = [[max(0, value - (low or value)) for low, value in zip(least, values)],
            [max(0, (high or value) - value) for value, high in zip(values, most)]]
    axes.errorbar(positions, values, yerr=bars, label=label, fmt="os^"[order] + ("-", "--", "-.")[order], markersize=9, color="0",
                  markerfacecolor="none", capsize=8, linewidth=1)
    for marker, figures, label in points:
        if any(figures):
            axes.plot(positions, [each or float("nan") for each in figures], marker, color="0.4", markersize=5, label=label)


def in_words(rows, panel):
    """The figures of a panel, for who cannot see it."""
    key = "images_per_second" if panel == "throughput" else "latency_ms.median"
    return ", ".join(say("%s at batch size %s: %.2f") % (precision_of(row), row["batch_size"], at(row, key))
                     for row in rows if at(row, key))
