"""The chart: throughput and latency over the batch size, each with its spread; told apart by marker and line, not by colour."""
import io
import warnings

from common.rows import is_int8, spread

PANELS = {"throughput": "throughput (images/s)", "latency": "latency of a batch (ms)"}


def draw(rows, panels=tuple(PANELS), title=""):
    """PNG bytes, the panels side by side, whatever a matplotlibrc of the user's says."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    rows = [row for row in rows if row["images_per_second"] and row["batch_size"]]
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        matplotlib.rcdefaults()
        figure = Figure(figsize=(5 * len(panels), 4), dpi=160)
        FigureCanvasAgg(figure)
        sizes = sorted({row["batch_size"] for row in rows})
        precisions = sorted({row["precision"] or "" for row in rows}, key=lambda precision: (precision == "int8", precision))
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            for order, precision in enumerate(precisions):
                some = [row for row in rows if (row["precision"] or "") == precision]
                places = [sizes.index(row["batch_size"]) + 0.08 * (order - (len(precisions) - 1) / 2) for row in some]
                draw_throughput(axes, places, some, order) if panel == "throughput" else draw_latency(axes, places, some, order)
            axes.set(xticks=range(len(sizes)), xlim=(-0.5, max(len(sizes), 1) - 0.5), xlabel="batch size (images)",
                     ylabel=PANELS[panel], ylim=(0, 1.1 * axes.get_ylim()[1]))
            axes.set_xticklabels(["%d" % size for size in sizes])
            axes.grid(True, color="0.85")
            if rows:
                axes.legend(fontsize=8)
        figure.suptitle(title.replace("$", r"\$"), fontsize=10)
        figure.tight_layout()
        data = io.BytesIO()
        figure.savefig(data, format="png")
        return data.getvalue()


def name_of(rows):
    return (rows[0]["precision"] or "measured")[:20].replace("$", r"\$")


def draw_curve(axes, places, values, least, most, order, label):
    """Hollow and large beneath small and filled: both are seen where curves coincide."""
    bars = [[max(0, value - low) for low, value in zip(least, values)], [max(0, high - value) for value, high in zip(values, most)]]
    axes.errorbar(places, values, yerr=bars, label=label, fmt="os^"[order % 3] + ("-", "--", "-.")[order % 3], markersize=9,
                  color="0", markerfacecolor="none", capsize=8, linewidth=1)


def draw_throughput(axes, places, rows, order):
    least, most, how = zip(*map(spread, rows))
    draw_curve(axes, places, [row["images_per_second"] for row in rows], least, most, order,
               "%s, bar: %s" % (name_of(rows), " or ".join(sorted(set(how)))))
    if any(row["guide_images_per_second"] for row in rows):
        axes.plot(places, [row["guide_images_per_second"] or float("nan") for row in rows], "x:", color="0.45", markersize=7,
                  label="the guide's")


def draw_latency(axes, places, rows, order):
    times = [row["latency_ms"] for row in rows]
    last, called = ("p90", "P90") if all(each["p90"] for each in times) else ("max", "slowest")
    draw_curve(axes, places, [each["median"] for each in times], [each["min"] or each["median"] for each in times],
               [each[last] or each["median"] for each in times], order, "%s median, bar: fastest to %s" % (name_of(rows), called))
    axes.plot(places, [each["mean"] for each in times], "os^"[order % 3], color="0.35", markersize=4, label=name_of(rows) + " mean")
    if any(each["p99"] for each in times):
        axes.plot(places, [each["p99"] or float("nan") for each in times], "+x*"[order % 3], color="0.35", markersize=8,
                  label=name_of(rows) + " P99")


def in_words(rows, panel):
    """The figures of a panel, for who cannot see it."""
    points = [(row, row["images_per_second"] if panel == "throughput" else at_median(row)) for row in rows]
    return ", ".join("%s %s%s: %.2f" % (row["batch_size"], "INT8 " if is_int8(row) else "", PANELS[panel].split("(")[1][:-1], value)
                     for row, value in points if value)


def at_median(row):
    return row["latency_ms"] and row["latency_ms"]["median"]
