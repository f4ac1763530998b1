"""Draw a confusion matrix as a PNG, each row normalized to the shares of one true tag's posts."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from pipeline.checks.saved_figure import save
from pipeline.errors import escape_control

MAX_LABEL = 24
"""Characters of a tag that are shown; longer tags end in an ellipsis."""

MAX_ANNOTATED = 60
"""With more tags than this, cells are too small for numbers and rows for names, so both are left out."""

INCHES = {"cell": 0.35, "character": 0.09, "margin": 1.8, "narrowest": 5.0}
DPI = 120


def draw(matrix: np.ndarray, labels: list[str], path: Path) -> None:
    """Write a confusion matrix of counts, int [tags, tags] with a row for each true tag, as a PNG."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    save(figure(shares, labels, int(matrix.sum())), path, dpi=DPI, bbox_inches="tight")


def figure(shares: np.ndarray, labels: list[str], posts: int) -> Figure:
    """Plot the shares, float [tags, tags], on a colour scale fixed from 0 to 1, so that pictures can be compared."""
    names, annotated = list(map(_display_label, labels)), len(labels) <= MAX_ANNOTATED
    longest = max(map(len, names)) if annotated else 0
    grid = INCHES["cell"] * min(len(labels), MAX_ANNOTATED)
    side = max(INCHES["narrowest"], INCHES["margin"] + INCHES["character"] * longest + grid)
    drawn = Figure(figsize=(side, side), layout="compressed")
    axes = drawn.add_subplot()
    display = ConfusionMatrixDisplay(shares, display_labels=names)
    display.plot(
        ax=axes,
        include_values=annotated,
        xticks_rotation="vertical",
        values_format=".2f",
        cmap="Blues",
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 6},
        colorbar=False,
    )
    if annotated:
        for cell, share in zip(display.text_.flat, shares.flat, strict=True):
            cell.set(visible=cell.get_text() != "0.00", color="white" if share > 0.5 else "black")
    else:
        axes.set(xticks=[], yticks=[])
    bar = drawn.colorbar(display.im_, ax=axes, shrink=0.7, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    axes.set(xlabel="Predicted tag", ylabel="True tag")
    axes.set_title(f"Share of each tag's test posts,\nby predicted tag ({posts:,} posts)", fontsize=9)
    return drawn


def _display_label(label: str) -> str:
    """Shorten the tag, and escape what is not printable and dollars: matplotlib reads formulas between two of them."""
    shown = escape_control(label)
    return (shown if len(shown) <= MAX_LABEL else f"{shown[: MAX_LABEL - 1]}…").replace("$", r"\$")
