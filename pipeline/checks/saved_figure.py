"""Saves figures of matplotlib without its warnings about the characters that its font lacks, which tags may have."""

import warnings
from pathlib import Path
from typing import Any, TextIO

from matplotlib.figure import Figure


def save(figure: Figure, target: Path | TextIO, **options: Any) -> None:
    """Save as Figure.savefig does; a character that the font lacks is a box in a PNG, and stays text in an SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure.savefig(target, **options)
