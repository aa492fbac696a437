"""FROC, precision-recall, violin and scatter plots, one look for all of them."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullLocator

from ..io.files import whole_file

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#3c4f5c", "#56b4e9", "#8c6d1f")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # of the first, second and third curve in one colour
NARROW = 56  # letters of a name of which two fit beside each other below a figure
INSIDE = 6  # curves whose legend has room among them; that of more stands below
INK, GRID = "#22303a", "#dde3e8"


@contextmanager
def _figure(path, title: str, width: float = 6.4, height: float = 4.6, columns: int = 1):
    """Axes to draw in, saved as ``path`` at the end; pyplot's global state is left alone."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#8a97a1")
        ax.grid(True, color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(colors=INK, labelsize=9)
    figure.suptitle(_plain(title), fontsize=11.5, color=INK, x=0.02, ha="left", fontweight="bold")
    yield axes if columns > 1 else axes[0]
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _label(ax, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=10, color=INK)
    ax.set_ylabel(y, fontsize=10, color=INK)


def _fraction(value: float, _position=None) -> str:
    whole = round(1 / value) if 0 < value < 1 else 0
    return f"1/{whole}" if whole and abs(whole * value - 1) < 1e-6 else f"{value:g}"


def _plain(text: str) -> str:
    """A name as it is: a dollar is no formula, and a leading _ does not keep it out of the legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def plot_froc(path, curves: dict, unit: str = "sub-volume", title: str = "FROC") -> None:
    """Draw sensitivity over false positives per volume, on a log2 axis, with 95% intervals as bands.

    Args:
        path: of the picture.
        curves: {name: {"curve": (false positives per volume, sensitivity), "fps": (k,), "sensitivity": (k,),
            "average": float, and perhaps "ci": (k, 2)}}.
        unit: name of a volume.
        title: of the picture.
    """
    ticks = max((np.asarray(entry["fps"]) for entry in curves.values()), key=len)
    columns = 1 if max(map(len, curves)) > NARROW else 2
    below = 0 if len(curves) <= INSIDE else 0.2 * -(-(len(curves) + 1) // columns)
    with _figure(path, title, height=4.6 + below, width=9 if below else 6.4) as ax:
        for number, (colour, (name, entry)) in enumerate(zip(_cycle(len(curves)), curves.items(), strict=True)):
            dashes = DASHES[number // len(COLOURS) % len(DASHES)]
            x, y = (np.asarray(values, dtype=float) for values in entry["curve"])
            x, y = np.r_[0.0, x, max(ticks[-1], x.max(initial=0))], np.r_[0.0, y, y[-1] if len(y) else 0.0]
            shown = np.maximum(x, ticks[0] / 4)
            label = _plain(f"{name}  (average {entry['average']:.3f})")
            ax.plot(shown, y, color=colour, linewidth=1.8, linestyle=dashes, label=label)
            ax.plot(entry["fps"], entry["sensitivity"], "o", color=colour, markersize=4.5, clip_on=False, zorder=3)
            if entry.get("ci") is not None:
                low, high = np.asarray(entry["ci"]).T
                ax.fill_between(
                    entry["fps"], low, high, color=colour, alpha=0.13, linewidth=0, label="95% interval"
                )
        ax.set_xscale("log", base=2)
        ax.set_xlim(ticks[0] / 2**0.25, ticks[-1] * 2**0.25)
        ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(_fraction))
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_locator(MultipleLocator(0.1))
        _label(ax, f"False positives per {unit}", "Sensitivity")
        if below:
            ax.figure.legend(loc="outside lower left", ncols=columns, fontsize=8.5, frameon=False)
        else:
            ax.legend(loc="best", fontsize=9, frameon=True, framealpha=0.9, edgecolor=GRID)


def plot_panels(path, panels: dict, x: str, y: str, title: str) -> None:
    """Draw lines with a mark at each point, in panels side by side that share their axes.

    Args:
        path: of the picture.
        panels: {panel: {line: {x: values}}}; a point is the mean of its values, with their standard deviation as
            a bar if there are several. Equal lines of all panels have one colour.
        x, y: in words, what the axes show.
        title: of the picture.
    """
    lines = list(dict.fromkeys(line for panel in panels.values() for line in panel))
    values = [own for panel in panels.values() for line in panel.values() for own in line.values()]
    top = max(map(max, values), default=1.0) or 1.0
    with _figure(path, title, width=max(6.4, 3.3 * len(panels)), height=3.8, columns=len(panels)) as axes:
        axes = np.atleast_1d(axes)
        for ax, (panel, own) in zip(axes, panels.items(), strict=True):
            ax.set_title(_plain(panel), fontsize=10, color=INK)
            for name, points in own.items():
                number = lines.index(name)
                at = sorted(points)
                mean = [np.mean(points[key]) for key in at]
                spread = [np.std(points[key], ddof=1) if len(points[key]) > 1 else 0.0 for key in at]
                ax.errorbar(
                    at,
                    mean,
                    yerr=spread if any(spread) else None,
                    color=COLOURS[number % len(COLOURS)],
                    linestyle=DASHES[number % len(DASHES)],
                    marker="o",
                    markersize=4.5,
                    linewidth=1.8,
                    capsize=2.5,
                    label=_plain(name),
                )
            ax.xaxis.set_major_locator(FixedLocator(sorted({key for points in own.values() for key in points})))
            ax.set_ylim(0, min(1.0, 1.1 * top))
            _label(ax, x, y if ax is axes[0] else "")
        axes[0].legend(loc="best", fontsize=9, frameon=True, framealpha=0.9, edgecolor=GRID)


def plot_precision_recall(path, precision, recall, ap: float, given_recall: float | None = None) -> None:
    """Draw precision over recall with its monotone envelope (Lesion-Harvester, Fig. 8a).

    Args:
        path: of the picture.
        precision, recall: (n,).
        ap: average precision, for the legend.
        given_recall: recall of a set of annotations whose precision is taken as 1, drawn as a dot.
    """
    recall, precision = np.r_[0.0, recall], np.r_[precision[:1] if len(precision) else 0.0, precision]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    with _figure(path, "Precision and recall") as ax:
        ax.plot(recall, precision, color=COLOURS[0], alpha=0.35, linewidth=1.0)
        ax.plot(recall, envelope, color=COLOURS[0], linewidth=1.8, label=f"detections  (AP {ap:.3f})")
        for line in (0.8, 0.85, 0.9, 0.95):
            ax.axhline(line, color="#9aa7b1", linewidth=0.7, linestyle=(0, (4, 3)))
        if given_recall is not None:
            label = f"given annotations  (recall {given_recall:.3f})"
            ax.plot([given_recall], [1.0], "o", color=COLOURS[1], markersize=7, clip_on=False, label=label)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        _label(ax, "Recall", "Precision")
        ax.legend(loc="lower left", fontsize=9, frameon=True, framealpha=0.9, edgecolor=GRID)


def plot_harvest(path, panels: dict[str, dict], given_recall: float) -> None:
    """Draw precision over recall of label sets, and the original marks as a dot (Lesion-Harvester, Fig. 8).

    Args:
        path: of the picture.
        panels: {title: {name: ((n,) recall, (n,) precision)}}.
        given_recall: of the original marks, whose precision is taken as 1.
    """
    title = "Precision and recall of the labels"
    columns = max(len(panels), 2)
    with _figure(path, title, width=0.6 + 5.0 * columns, height=4.8, columns=columns) as axes:
        for ax, (subtitle, curves) in zip(axes, panels.items(), strict=False):
            for colour, (name, (recall, precision)) in zip(_cycle(len(curves)), curves.items(), strict=True):
                ax.plot(recall, precision, color=colour, linewidth=1.6, label=_plain(name))
            label = f"original marks  (recall {given_recall:.3f})"
            ax.plot([given_recall], [1.0], "o", color=INK, markersize=7, clip_on=False, zorder=4, label=label)
            for line in (0.8, 0.85, 0.9, 0.95):
                ax.axhline(line, color="#9aa7b1", linewidth=0.7, linestyle=(0, (4, 3)))
            ax.set_title(_plain(subtitle), fontsize=10, color=INK)
            ax.set(xlim=(0, 1), ylim=(0, 1.02))
            _label(ax, "Recall", "Precision")
            ax.legend(loc="lower left", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor=GRID)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)


def plot_violin(path, samples: dict[str, np.ndarray], label: str, title: str) -> None:
    """Draw a violin for each detector, quartiles as a bar and the median as a dot (Lesion-Harvester, Fig. 11).

    Args:
        path: of the picture.
        samples: {detector: values in [0, 1]}; a detector without values has a place but no violin.
        label: of the values.
        title: of the picture.
    """
    with _figure(path, title, width=max(4.2, 1.5 + 1.3 * len(samples))) as ax:
        for place, (colour, values) in enumerate(zip(_cycle(len(samples)), samples.values(), strict=True)):
            if len(values) == 0:
                continue
            if np.ptp(values) > 0:
                body = ax.violinplot([values], positions=[place], widths=0.8, showextrema=False)["bodies"][0]
                body.set(facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=1.0)
            low, middle, high = np.percentile(values, [25, 50, 75])
            ax.vlines(place, low, high, color=colour, linewidth=5)
            ax.plot([place], [middle], "o", color="white", markeredgecolor=colour, markersize=6, zorder=3)
            ax.annotate(f"{middle:.2f}", (place, middle), (9, -3), textcoords="offset points", fontsize=9)
        names = [f"{name}\nn = {len(values)}" for name, values in samples.items()]
        ax.set_xticks(range(len(samples)), names, fontsize=9)
        ax.set_xlim(-0.6, len(samples) - 0.4)
        ax.set_ylim(0, 1)
        ax.grid(False, axis="x")
        _label(ax, "", label)


def plot_embedding(path, points: np.ndarray, types: np.ndarray, mined: np.ndarray) -> None:
    """Draw lesions in two dimensions by type: the marked ones, and all (Lesion-Harvester, Fig. 12).

    Args:
        path: of the picture.
        points: (n, 2) places of the lesions.
        types: (n,) str.
        mined: (n,) bool, whether each is mined or marked.
    """
    names = sorted(set(types.tolist()))
    title = "Embedding of the lesions"
    with _figure(path, title, width=11.0, height=5.4, columns=2) as axes:
        for ax, some, subtitle in zip(
            axes,
            (~mined, np.ones(len(mined), dtype=bool)),
            (f"{(~mined).sum()} marked", f"the same and {mined.sum()} mined"),
            strict=True,
        ):
            for colour, name in zip(_cycle(len(names)), names, strict=True):
                for kind, marker, size in ((~mined, "o", 14), (mined, "^", 20)):
                    x, y = points[(types == name) & kind & some].T
                    look = {"s": size, "marker": marker, "edgecolors": "none" if marker == "o" else INK}
                    ax.scatter(x, y, color=colour, linewidths=0.4, alpha=0.8, **look)
            ax.set_title(_plain(subtitle), fontsize=10, color=INK)
            ax.set(xlim=_limits(points[:, 0]), ylim=_limits(points[:, 1]), xticks=[], yticks=[])
        for colour, name in zip(_cycle(len(names)), names, strict=True):
            axes[0].scatter([], [], s=24, color=colour, label=_plain(name))
        axes[0].scatter([], [], s=24, marker="^", color="white", edgecolors=INK, label="mined")
        axes[0].legend(loc="best", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor=GRID)


def _limits(values: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * max(float(np.ptp(values)), 1e-6)
    return float(values.min()) - margin, float(values.max()) + margin


def plot_concordance(path, panels: dict[str, dict], reference: str) -> None:
    """Draw recalls under each metric against those under the reference metric (Lesion-Harvester, Fig. 7).

    Args:
        path: of the picture.
        panels: {metric: {"pearson": float or None, "points": {detector: ((k,) reference, (k,) metric)}}}.
        reference: name of the reference metric.
    """
    title = f"Recalls at 1/8 to 16 false positives against {reference}"
    columns = max(len(panels), 2)
    with _figure(path, title, width=0.8 + 3.7 * columns, height=4.4, columns=columns) as axes:
        for ax, (metric, panel) in zip(axes, panels.items(), strict=False):
            for colour, (name, (x, y)) in zip(_cycle(len(panel["points"])), panel["points"].items(), strict=True):
                ax.plot(x, y, "o-", color=colour, markersize=4, linewidth=0.8, alpha=0.85, label=_plain(name))
            ax.plot([0, 1], [0, 1], color="#9aa7b1", linewidth=0.8, linestyle=(0, (4, 3)))
            pearson = "undefined" if panel["pearson"] is None else f"{panel['pearson']:.3f}"
            ax.set_title(f"{metric}   (Pearson {pearson})", fontsize=10, color=INK)
            ax.set(xlim=(0, 1), ylim=(0, 1))
            ax.set_box_aspect(1)
            _label(ax, f"Recall, {reference}", f"Recall, {metric}")
        axes[0].legend(loc="upper left", fontsize=8, frameon=True, framealpha=0.9, edgecolor=GRID)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)


def _cycle(number: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(number)]
