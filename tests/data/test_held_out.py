"""What is said of the held-out posts, from a few whose answers are counted by hand."""

import pyarrow as pa
import pytest

from pipeline.data import held_out
from pipeline.data.vocabulary import count_words
from tests.conftest import write_posts

POSTS = [
    ("java list of a java list", "java"),
    ("c# list", "c#"),
    ("java list", "java"),  # all words known
    ("perl list a perl", "java"),  # perl twice unknown, of 4 words
    ("...", "c#"),  # no word by the rule keras, three signs by the other
    ("ruby", "ruby"),  # a tag that no train post has: not held out
]


@pytest.mark.parametrize(("rule", "expected"), [("keras", [0, 0.5, 0]), ("signs", [0, 0.5, 1])])
def test_the_share_of_unknown_words_of_each_post(tmp_path, rule, expected):
    ingested = write_posts(tmp_path, POSTS, 1 / 3)
    known = count_words([pa.array([text for text, _ in POSTS[:2]])], size=100, word_rule=rule)
    assert held_out.HeldOut(ingested, ["c#", "java"]).unknown_shares(known).tolist() == expected


def test_a_smaller_vocabulary_knows_fewer_words(tmp_path):
    ingested = write_posts(tmp_path, POSTS, 1 / 3)
    known = count_words([pa.array([text for text, _ in POSTS[:2]])], size=100).head(2)
    assert known.words.to_pylist() == ["list"]
    assert held_out.HeldOut(ingested, ["c#", "java"]).unknown_shares(known).tolist() == [0.5, 0.75, 0]
