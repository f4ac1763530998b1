"""Posts with several tags: a post's tags as one text, such as `pandas|python`, and as labels.

It needs only Arrow, because the process that decodes Parquet files imports it.
"""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "|"
"""Between the tags of a post, as in Stack Overflow's tables on BigQuery."""


def normalized(texts: pa.Array, keep: frozenset[str] = frozenset()) -> pa.Array:
    """The tags of each post in one form: stripped, once each, sorted; with `keep` only these. Empty if none is left."""
    encoded = texts.dictionary_encode()
    each = [_normalized(text, keep) for text in encoded.dictionary.to_pylist()]
    return pa.array(each, pa.string()).take(encoded.indices)


def _normalized(text: str, keep: frozenset[str]) -> str:
    tags = {tag.strip() for tag in text.split(SEPARATOR)} - {""}
    return SEPARATOR.join(sorted(tags & keep if keep else tags))


def by_tag(posts: Mapping[str, int]) -> Counter[str]:
    """How many posts have each tag, from the number of posts with each text of tags."""
    found = Counter[str]()
    for text, count in posts.items():
        for tag in text.split(SEPARATOR):
            found[tag] += count
    return found


def any_of(texts: pa.Array, tags: pa.Array) -> pa.Array:
    """Whether each post has one of the tags: bool [posts]."""
    return pc.greater(pc.list_value_length(labels_of(texts, tags)), 0)


def labels_of(texts: pa.Array, tags: pa.Array) -> pa.ListArray:
    """The labels of each post, ascending: the places of its normalized tags among the sorted `tags`, if there."""
    split = pc.split_pattern(texts, SEPARATOR)
    found = pc.index_in(split.flatten(), value_set=tags)
    known = pc.cumulative_sum(found.is_valid().cast(pa.int32()))
    ends = pa.concat_arrays([pa.array([0], pa.int32()), known]).take(split.offsets)
    return pa.ListArray.from_arrays(ends, found.drop_null())
