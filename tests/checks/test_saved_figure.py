"""Tags in any script are drawn without a warning on the user's terminal."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.checks import confusion_matrix
from pipeline.report import figures

TAGS = ["日本語", "한국어", "العربية", "עברית", "हिन्दी", "ไทย", "😀👩‍💻", "𝔘𝔫𝔦", "\ue000", "é", "c\u0301", "\U000e0041"]
CURVE = [{"epoch": 1, "training_loss": 0.5}]


def confusions(folder: Path) -> None:
    confusion_matrix.draw(np.eye(len(TAGS), dtype=int), TAGS, folder / "matrix.png")
    assert (folder / "matrix.png").stat().st_size > 1000


def recall(folder: Path) -> None:
    assert "日本語" in figures.recall_by_tag(dict.fromkeys(TAGS, 0.5), dict.fromkeys(TAGS, 0.4))


def curves(folder: Path) -> None:
    assert "日本語" in figures.learning_curves(dict.fromkeys(TAGS, CURVE))


@pytest.mark.parametrize("draw", [confusions, recall, curves])
def test_characters_that_the_font_lacks_are_no_warning(tmp_path: Path, draw: Callable[[Path], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path)
