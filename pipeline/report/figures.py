"""The figures of a report, drawn by matplotlib as SVG that stands inside the page."""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.checks.saved_figure import save
from pipeline.errors import escape_control
from pipeline.registry.series import Observation

BLUE, ORANGE, GREY = "#3b76d4", "#d9772b", "#8a8f98"
SIZE = (5.2, 3.0)
MAX_TAGS = 40
"""With more tags than this, only the worst ones are drawn by tag."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, selected, and has the page's colour
    "svg.hashsalt": "report",  # the same ids, and so the same bytes, each time
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def learning_curve(curve: Sequence[Mapping[str, float]], best_epoch: int | None) -> str:
    """Plot loss by epoch, on the train and the validation posts, and the accuracy on the latter, as SVG."""
    epochs = [point["epoch"] for point in curve]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(epochs, [point["training_loss"] for point in curve], color=GREY, marker=".", label="training loss")
        if "loss" in curve[0]:
            axes.plot(epochs, [point["loss"] for point in curve], color=ORANGE, marker=".", label="validation loss")
            right = axes.twinx()
            accuracy = [point["accuracy"] for point in curve]
            right.plot(epochs, accuracy, color=BLUE, marker=".", label="validation accuracy")
            right.set_ylabel("accuracy", color=BLUE)
        if best_epoch:
            axes.axvline(best_epoch, color=GREY, linestyle=":", label="weights kept")
        axes.set(xlabel="epoch", ylabel="loss", xticks=epochs if len(epochs) <= 20 else epochs[:: len(epochs) // 10])
        handles = [handle for each in figure.axes for handle in each.get_legend_handles_labels()[0]]
        axes.legend(handles=handles, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
        return _svg(figure, "learning curve")


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Plot the curves of several runs in the same colours: training loss dotted, validation loss, accuracy, as SVG.

    Without validation posts there is no plot of the accuracy.
    """
    with mpl.rc_context(STYLE):
        validated = any("accuracy" in point for curve in curves.values() for point in curve)
        figure = Figure(figsize=((2 if validated else 1) * SIZE[0], SIZE[1]), layout="constrained")
        losses, *others = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
        for name, curve in curves.items():
            epochs = [point["epoch"] for point in curve]
            training = [point["training_loss"] for point in curve]
            [line] = losses.plot(epochs, training, marker=".", linestyle=":", label=_name(name))
            for axes, figure_of in zip((losses, *others), ("loss", "accuracy"), strict=False):
                if figure_of in curve[0]:
                    values = [point[figure_of] for point in curve]
                    axes.plot(epochs, values, marker=".", color=line.get_color(), label=_name(name))
        losses.set(ylabel="loss (training: dotted, validation: solid)")
        for axes in others:
            axes.set(ylabel="accuracy on the validation posts")
        for axes in (losses, *others):
            axes.set(xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = losses.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        figure.legend(shown.values(), shown.keys(), frameon=False, loc="outside upper left", ncols=4)
        return _svg(figure, "learning curves")


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Plot the accuracy of each bin of probabilities against its mean probability, as SVG."""
    filled = [each for each in bins if each["posts"]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as often right as it says")
        probabilities, accuracies = ([each[name] for each in filled] for name in ("probability", "accuracy"))
        axes.plot(probabilities, accuracies, color=BLUE, marker="o", label="this model")
        axes.set(xlabel="probability of the tag", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
        return _svg(figure, "calibration")


def recall_by_tag(recall: Mapping[str, float], champion: Mapping[str, float] | None) -> str:
    """Plot the recall of each tag, the worst first, with the champion's, as SVG."""
    tags = sorted(recall, key=recall.__getitem__)[:MAX_TAGS][::-1]
    places = range(len(tags))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 0.8 + 0.22 * len(tags)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(places, [recall[tag] for tag in tags], color=BLUE, height=0.6, label="this model")
        if champion:
            there = [champion.get(tag) for tag in tags]
            axes.plot(there, places, linestyle="none", marker="d", color=ORANGE, label="live model")  # type: ignore[arg-type]
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        axes.set(xlim=(0, 1), xlabel="recall", yticks=list(places), yticklabels=list(map(_name, tags)))
        return _svg(figure, "recall by tag")


def accuracy_over_time(points: Sequence[tuple[str, float, bool]]) -> str:
    """Plot versions: when each was published (ISO 8601), its accuracy, and whether it was ever live, as SVG."""
    times = [datetime.fromisoformat(at) for at, _, _ in points]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(times, [accuracy for _, accuracy, _ in points], color=GREY, linewidth=0.8)  # type: ignore[arg-type]
        for lived, face, label in ((True, BLUE, "was or is live"), (False, "none", "was never live")):
            chosen = [at for at, (_, _, ever) in enumerate(points) if ever is lived]
            if chosen:
                axes.plot(
                    [times[at] for at in chosen],  # type: ignore[arg-type]
                    [points[at][1] for at in chosen],
                    linestyle="none",
                    marker="o",
                    color=BLUE,
                    markerfacecolor=face,
                    label=label,
                )
        _dated(axes, min(times), max(times))
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        return _svg(figure, "accuracy of the versions over time")


def watched(series: Sequence[Observation]) -> str:
    """Plot the live version's accuracy on newly tagged posts, with its interval and its limit, as SVG."""
    times = np.array([datetime.fromisoformat(each.at) for each in series])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        axes = figure.add_subplot()
        accuracy = [each.live.accuracy for each in series]
        reach = [
            [each.live.accuracy - each.live.low for each in series],
            [each.live.high - each.live.accuracy for each in series],
        ]
        axes.errorbar(
            times, accuracy, yerr=reach, color=BLUE, marker="o", linewidth=0.8, capsize=2, label="live version"
        )
        before = [at for at, each in enumerate(series) if each.before]
        if before:
            there = [score.accuracy for each in series if (score := each.before)]
            axes.plot(times[before], there, linestyle="none", marker="d", color=GREY, label="the one before it")
        limits = [each.limit for each in series]
        axes.plot(times, limits, color=ORANGE, linestyle=":", marker="_", label="limit")
        axes.set_ylabel("accuracy on new posts")
        _dated(axes, times[0], times[-1])
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return _svg(figure, "accuracy of the live version on newly tagged posts over time")


def _dated(axes: Any, first: datetime, last: datetime) -> None:
    """Label the axis of times."""
    if last - first < timedelta(days=1):  # else matplotlib shows years around a single point
        axes.set_xlim(first - timedelta(days=1), last + timedelta(days=1))
    dates = ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(dates)


def _name(tag: str) -> str:
    """Shorten and escape a tag; matplotlib reads formulas between two dollars."""
    shown = escape_control(tag)
    return (shown if len(shown) <= 24 else f"{shown[:23]}…").replace("$", r"\$")


def _svg(figure: Figure, title: str) -> str:
    """Render the figure; its black becomes the colour of the page's text, so that it can be read on dark ground."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    text = io.StringIO()
    save(figure, text, format="svg", metadata={"Date": None, "Title": title})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return svg.replace("<text ", '<text fill="currentColor" ').replace("#000000", "currentColor")
