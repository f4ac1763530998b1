import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import posts
from pipeline.data.learned import EDGE, FILE, Learned, digests
from pipeline.errors import CorruptArtifact
from tests.conftest import TINY, write_posts

LONG = " ".join(f"word{number}" for number in range(3 * EDGE))
SHORT = "how do I center a div"


def learned(*texts):
    return Learned.of([pa.record_batch({"post": pa.array(texts, pa.string())})])


def has(text, of=(LONG, SHORT, "???")):
    (answer,) = learned(*of).has(pa.array([text]))
    return bool(answer)


@pytest.mark.parametrize(
    "copy",
    [
        LONG,
        SHORT,
        "???",
        SHORT.upper(),
        f"  {SHORT}?!\n",
        SHORT.replace(" ", "\n\t"),
        SHORT.replace(" ", "\r\n"),
        SHORT.replace(" ", "\u00a0"),
        SHORT.replace(" ", "\u3000"),
        f"\u201c{SHORT}\u201d \u2026\r\n",
        SHORT.replace(" a ", " \u2014 a \u2014 "),
        f"{LONG} edit: solved, thanks",
        f"Hello! {LONG}",
        LONG.replace("word40", "changed"),
        LONG.replace("word0 ", "changed "),
        LONG.replace("word50 ", ""),
    ],
)
def test_copies_are_known_also_after_an_edit(copy):
    assert has(copy)


@pytest.mark.parametrize(
    "other", ["how do I center a span", "", "!!!", " ".join(LONG.split()[::-1]), LONG.replace("word", "w"), "word40"]
)
def test_other_posts_are_not(other):
    assert not has(other)


def test_a_digest_depends_on_the_text_alone():
    texts = pa.array([LONG, SHORT, "", "???", "naïve 東京", "a" * 2**21])
    whole = digests(texts)
    assert whole.shape == (6, 2)
    assert whole.dtype == np.uint64
    for place in range(6):
        assert (digests(texts[place : place + 1]) == whole[place]).all()
    assert (digests(texts[2:5]) == whole[2:5]).all()
    assert (whole < 2**40).all()


def test_without_posts_nothing_is_learned():
    assert len(Learned.of([]).digests) == 0
    assert Learned.of([]).has(pa.array([], pa.string())).shape == (0,)


def test_train_and_validation_posts_are_learned_and_test_posts_are_not(tmp_path):
    folder = write_posts(tmp_path / "ingest", TINY, train_fraction=0.75)
    found = Learned.of_ingested(folder)
    known = found.has(pa.array([text for text, _ in TINY]))
    assert known.tolist() == [True] * 6 + [False] * 2


def test_validation_posts_are_learned(tmp_path):
    folder = write_posts(tmp_path / "ingest", TINY, train_fraction=0.75)
    (folder / "posts" / "validation").rename(tmp_path / "empty")
    posts.cut_validation(folder, 0.5)
    assert posts.rows(folder, "posts/validation")
    assert Learned.of_ingested(folder).has(pa.array([text for text, _ in TINY])).sum() == 6


@pytest.mark.parametrize("complete", [True, False])
def test_what_is_written_is_read(tmp_path, complete):
    written = Learned(learned(LONG, SHORT).digests, complete=complete)
    written.write(tmp_path / FILE)
    read = Learned.read(tmp_path / FILE)
    assert (read.digests == written.digests).all()
    assert read.complete == complete


def test_a_version_without_the_file_does_not_know(tmp_path):
    found = Learned.read(tmp_path / FILE)
    assert (len(found.digests), found.complete) == (0, False)


@pytest.mark.parametrize(
    "column",
    [
        {"other": pa.array([1])},
        {"digest": pa.array(["text"])},
        {"digest": pa.array([[1]])},
        {"digest": pa.array([1.5])},
        {"digest": pa.array([1, None])},
    ],
)
def test_a_file_of_another_form_is_refused_in_one_sentence(tmp_path, column):
    pq.write_table(pa.table(column), tmp_path / FILE)
    with pytest.raises(CorruptArtifact, match=r"learned\.parquet"):
        Learned.read(tmp_path / FILE)


def test_a_file_that_does_not_say_whether_it_is_complete_is_not(tmp_path):
    pq.write_table(pa.table({"digest": pa.array([1, 2])}), tmp_path / FILE)
    assert not Learned.read(tmp_path / FILE).complete


def test_a_damaged_file_is_read_or_refused_in_one_sentence(tmp_path):
    Learned(np.arange(1000, dtype=np.uint64) ** 3).write(tmp_path / FILE)
    whole, random, refused = (tmp_path / FILE).read_bytes(), np.random.default_rng(0), 0
    for _ in range(1000):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        (tmp_path / FILE).write_bytes(bytes(damaged)[: random.integers(len(whole), 2 * len(whole))])
        try:
            Learned.read(tmp_path / FILE)
        except CorruptArtifact:
            refused += 1
    assert refused


def test_a_file_that_claims_more_digests_than_it_has_bytes_is_not_read(tmp_path):
    Learned(np.zeros(10_000_000, np.uint64)).write(tmp_path / FILE)
    with pytest.raises(CorruptArtifact, match=r"learned\.parquet claims 10,000,000 digests in fewer bytes"):
        Learned.read(tmp_path / FILE)


def test_a_model_that_began_from_another_has_learned_both_ones_posts():
    both = learned(SHORT) | learned(LONG)
    assert both.has(pa.array([SHORT, LONG, "new"])).tolist() == [True, True, False]
    assert both.complete
    assert not (learned(SHORT) | Learned.unknown()).complete


def test_the_file_is_small(tmp_path):
    texts = [f"post number {number} of many" for number in range(20_000)]
    learned(*texts).write(tmp_path / FILE)
    assert (tmp_path / FILE).stat().st_size < 5 * len(texts)
    assert pq.read_schema(tmp_path / FILE).names == ["digest"]
