from collections import Counter

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.checks.confusion_matrix import draw, figure

LONG = "a tag whose name is much longer than the picture can show"


def pixels(tmp_path, matrix, labels):
    draw(np.array(matrix), labels, tmp_path / "matrix.png")
    return imread(tmp_path / "matrix.png")[:, :, :3]


@pytest.mark.parametrize(
    "labels",
    [
        ["java", "python"],
        ["java", "python", "c#", "javascript"],
        [f"ruby-on-rails-{number}" for number in range(20)],
        [f"{LONG} {number}" for number in range(4)],
        ["$x^$", "$", "\x1b[31m\u202e" * 9, "accuracy"],
    ],
    ids=["two", "four", "twenty", "long names", "control characters and formulas"],
)
def test_no_text_is_cut_off(tmp_path, labels):
    picture = pixels(tmp_path, 9 * np.eye(len(labels), dtype=int), labels)
    edges = [picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]]
    assert [edge.min() for edge in edges] == [1, 1, 1, 1], "a letter or a line reaches the edge of the picture"


def test_a_share_has_the_same_colour_in_every_picture(tmp_path):
    def colours(matrix):
        """The colours of the cells, each a large area of one colour."""
        picture = pixels(tmp_path, matrix, ["java", "python"])
        counted = Counter(map(tuple, picture.reshape(-1, 3).tolist()))
        return {colour for colour, count in counted.items() if count > 20_000 and min(colour) < 1}

    half, mixed, whole = colours([[5, 5], [5, 5]]), colours([[5, 5], [0, 10]]), colours([[10, 0], [0, 10]])
    assert mixed == half | whole
    assert (len(half), len(whole), len(mixed)) == (1, 2, 3)


def test_a_number_can_be_read_on_its_colour():
    cells = figure(np.array([[0.3, 0.2, 0.5], [0.04, 0.9, 0.06], [1, 0, 0]]), ["a", "b", "c"], 9).axes[0].texts
    assert {cell.get_text(): cell.get_color() for cell in cells if cell.get_visible()} == {
        "0.30": "black",
        "0.20": "black",
        "0.50": "black",
        "0.04": "black",
        "0.90": "white",
        "0.06": "black",
        "1.00": "white",
    }


def test_a_thousand_tags_fit_in_a_picture_of_bounded_size(tmp_path):
    assert max(pixels(tmp_path, np.eye(1000, dtype=int), [f"tag{number}" for number in range(1000)]).shape) < 4000
