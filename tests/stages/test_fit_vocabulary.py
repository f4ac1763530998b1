import pyarrow as pa
import pytest

from pipeline.checks import drift
from pipeline.data import posts
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages import fit_vocabulary
from tests.conftest import TINY, context_of, write_posts


def fit(folder, out, **values):
    out.mkdir()
    settings = Settings.of({"train_fraction": 0.75} | values)
    return fit_vocabulary.run({"ingest": folder}, out, settings, context_of(settings))


def test_words_are_those_of_the_train_posts_most_frequent_first(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=4)
    assert read_lines(tmp_path / "out" / "vocabulary.txt") == ["java", "python", "a"]
    assert read_lines(tmp_path / "out" / "labels.txt") == ["java", "python"]
    assert (summary.rows, summary.words, summary.tags, summary.warnings) == (6, 3, 2, [])
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary.counts.tolist() == [4, 3, 2]
    assert vocabulary.document_counts.tolist() == [3, 3, 2]
    assert vocabulary.documents == 6


def test_words_of_the_test_posts_are_unknown(tiny_posts, tmp_path):
    fit(tiny_posts, tmp_path / "out", vocabulary_size=1000)
    words = read_lines(tmp_path / "out" / "vocabulary.txt")
    assert "thread" in words
    assert "read" not in words
    assert "path" not in words


def test_fewer_words_than_asked_is_a_warning(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=1000)
    assert summary.warnings == [
        f"the train posts have {summary.words} different words, fewer than the 999 that vocabulary_size=1000 asks for"
    ]


def test_a_tag_that_only_the_test_split_has_is_no_label(tmp_path):
    source = write_posts(tmp_path / "ingest", [*TINY[:7], ("ruby gem", "ruby")])
    summary = fit(source, tmp_path / "out", max_rejected_fraction=0.125)
    assert (summary.rejected, summary.tags) == (1, 2)
    assert summary.warnings[0] == (
        "1 of the 2 test posts (50.00%) have no tag that a train post has, so they are left out and no figure counts "
        "them: 'ruby'"
    )
    assert read_lines(tmp_path / "out" / "labels.txt") == ["java", "python"]


@pytest.mark.parametrize(
    ("rows", "values", "sentence"),
    [
        ([*TINY[:7], ("ruby gem", "ruby")], {}, "1 of 8 posts have a tag that no train post has"),
        ([("x", "a")] * 6 + [("y", "b")] * 2, {}, "train split has one tag only ('a')"),
        (TINY, {"train_fraction": 0.01}, "train split has no post"),
        (TINY, {"train_fraction": 0.999}, "test split has no post to evaluate on"),
    ],
)
def test_splits_that_nothing_can_be_learned_from_are_refused(tmp_path, rows, values, sentence):
    ingested = write_posts(tmp_path / "ingest", rows, round(values.get("train_fraction", 0.75), 2))
    with pytest.raises(BadInput) as caught:
        fit(ingested, tmp_path / "out", **values)
    assert sentence in str(caught.value)


def pieces(tmp_path, sides, **values):
    """Fit posts whose tags and sides are given; TINY's are not divided in this way."""
    for side, rows in sides.items():
        with posts.Writer(tmp_path / "ingest", posts.of_side(side)) as writer:
            numbered = [{"post": text, "tag": tag, "row": row} for row, (text, tag) in enumerate(rows, 1)]
            writer.write(pa.RecordBatch.from_pylist(numbered, schema=posts.POSTS))
    return fit(tmp_path / "ingest", tmp_path / "out", **values)


def test_a_tag_that_no_validation_post_has_is_a_warning(tmp_path):
    sides = {"train": TINY[:6], "validation": TINY[6:7], "test": TINY[7:]}
    summary = pieces(tmp_path, sides, vocabulary_size=4, validation_fraction=0.2)
    assert summary.warnings == [
        "1 of the tags occur in no validation post, so nothing is measured for them: 'java'",
    ]


@pytest.mark.parametrize("several", [False, True])
def test_posts_of_each_side_whose_tags_are_not_learned_are_counted_in_a_warning(tmp_path, several):
    unknown = ("x", "go|ruby" if several else "ruby")
    known = [("a", "java|new"), ("b", "python")] if several else TINY[6:]
    sides = {"train": TINY[:6], "validation": [unknown, unknown, *known], "test": [unknown, *known, *known]}
    values = {"validation_fraction": 0.2, "max_rejected_fraction": 1, "multi_tag": several, "vocabulary_size": 4}
    summary = pieces(tmp_path, sides, **values)
    assert summary.rejected == 3
    assert [warning for warning in summary.warnings if "left out" in warning] == [
        f"{count} of the {total} {side} posts ({share}) have no tag that a train post has, so they are left out and no "
        f"figure counts them: {unknown[1]!r}"
        for count, total, side, share in ((2, 4, "validation", "50.00%"), (1, 5, "test", "20.00%"))
    ]


def test_without_validation_posts_or_without_test_posts(tmp_path):
    sides = {"train": TINY[:6], "validation": [], "test": TINY[6:]}
    with pytest.raises(BadInput, match="the validation split has no post to validate on"):
        pieces(tmp_path / "a", sides, validation_fraction=0.2)
    sides = {"train": TINY[:6], "validation": TINY[6:], "test": []}
    with pytest.raises(BadInput, match="the test split has no post to evaluate on"):
        pieces(tmp_path / "b", sides, validation_fraction=0.2)
    assert pieces(tmp_path / "c", sides, validation_fraction=0.2, drop_test_posts=True).rows == 6


def test_rare_words_and_pairs_are_left_out(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=100, ngrams=2, min_documents=2)
    assert read_lines(tmp_path / "out" / "vocabulary.txt") == ["java", "python", "a"]
    assert summary.warnings == [
        "the train posts have 3 different words and pairs of words in at least min_documents=2 posts, fewer than the "
        "99 that vocabulary_size=100 asks for"
    ]


def test_pairs_are_in_the_vocabulary_but_not_among_the_words_that_measure_drift(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=100, ngrams=2)
    kept = read_lines(tmp_path / "out" / "vocabulary.txt")
    assert {"java class", "java lock", "python dict"} <= set(kept)
    assert (summary.words, summary.pairs) == (len(kept), sum(" " in word for word in kept))
    frequent = read_lines(tmp_path / "out" / "frequent" / "vocabulary.txt")
    assert frequent == [word for word in kept if " " not in word]


def test_signs_are_in_the_vocabulary_but_change_nothing_that_drift_is_measured_by(tmp_path):
    measured = []
    rows = [("C# or C++?", "c"), ("c, (java) java!", "java"), ("c#", "c"), ("java;", "java")]
    ingested = write_posts(tmp_path / "ingest", rows, 0.5)
    for rule in ("keras", "signs"):
        fit(ingested, tmp_path / rule, vocabulary_size=100, word_rule=rule)
        assert ("#" in read_lines(tmp_path / rule / "vocabulary.txt")) == (rule == "signs")
        summary = {"posts_by_tag": {"c": 2}, "median_characters": 4}
        measured += [drift.Corpus.of(summary, tmp_path / rule / folder) for folder in (".", "frequent")]
    assert measured[0].words == {"c": 3, "java": 2, "or": 1}
    assert measured == [measured[0]] * 4
