"""Tags as one text, as labels and as a matrix."""

import pyarrow as pa
import pytest

from pipeline.data import several_tags, tag_matrix

TAGS = ["a", "c#", "pandas", "python"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("python|pandas", ["pandas", "python"]),
        ("|python|pandas|", ["pandas", "python"]),
        ("<python><pandas>", ["pandas", "python"]),
        ("<python> <pandas>\n", ["pandas", "python"]),
        ("<python><pandas>|c#", ["c#", "pandas", "python"]),
        (" python | python |", ["python"]),
        ("<python>< python >", ["python"]),
        ("<c#>", ["c#"]),
        ("|c#|", ["c#"]),
        ("\t\u00a0c#\u3000\x1c", ["c#"]),
        ("|", []),
        ("", []),
        (" \t", []),
        ("<>", []),
        ("<><c#>", ["c#"]),
        ("ruby on rails", ["ruby on rails"]),
        ("List<int>", ["List<int>"]),
        ("<int", ["<int"]),
        ("<<", ["<<"]),
        ("a<b|c>d", ["a<b", "c>d"]),
        ("<a>b", ["<a>b"]),
        ("<a<b>>", ["<a<b>>"]),
    ],
)
def test_a_field_of_tags_has_one_meaning(field, expected):
    assert several_tags.tags_in(field) == expected


def test_labels_leave_out_unknown_tags():
    texts = pa.array(["x", "pandas|python", "c#", "", "a|python|zz", "y|z"])
    labels = several_tags.labels_of(texts, pa.array(TAGS))
    assert labels.to_pylist() == [[], [2, 3], [1], [], [0, 3], []]
    assert several_tags.labels_of(texts.slice(1, 2), pa.array(TAGS)).to_pylist() == [[2, 3], [1]]
    assert several_tags.any_of(texts, pa.array(TAGS)).to_pylist() == [False, True, True, False, True, False]


def test_only_the_tags_among_others_are_left_of_each_post():
    texts = pa.array(["x", "pandas|python", "c#", "", "a|python|zz", "y|z"])
    assert several_tags.among(texts, pa.array(TAGS)).to_pylist() == ["", "pandas|python", "c#", "", "a|python", ""]
    assert several_tags.among(texts.slice(4, 1), pa.array(TAGS)).to_pylist() == ["a|python"]


def test_a_post_counts_for_each_of_its_tags():
    assert several_tags.by_tag({"a|c#": 2, "a": 3}) == {"a": 5, "c#": 2}


def test_a_matrix_goes_there_and_back():
    labels = pa.array([[2, 3], [], [0]], pa.list_(pa.int32()))
    matrix = tag_matrix.matrix(labels, len(TAGS))
    assert matrix.toarray().tolist() == [[False, False, True, True], [False] * 4, [True, False, False, False]]
    assert tag_matrix.lists(matrix).equals(labels)
    assert tag_matrix.texts_of(matrix, TAGS) == ["pandas|python", "", "a"]
    assert tag_matrix.texts_of(tag_matrix.matrix(labels.slice(1), len(TAGS)), TAGS) == ["", "a"]
    assert tag_matrix.tags_of(pa.chunked_array([labels.slice(0, 1), labels.slice(2)]), TAGS) == ["pandas|python", "a"]
    assert tag_matrix.tags_of(pa.chunked_array([pa.array([1, 0], pa.int32())]), TAGS) == ["c#", "a"]
