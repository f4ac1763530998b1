"""The tags of a post: read from the field of a source, as one text such as `pandas|python`, and as labels.

It needs only Arrow, because the process that decodes Parquet files imports it.
"""

import re
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "|"
"""Between the tags of a post, as in Stack Overflow's tables on BigQuery."""

BRACKETS = re.compile(r"\s*(?:<[^<>]*>\s*)+")
"""Tags as the Data Explorer and older dumps write them: `<pandas><python>`."""


def tags_in(field: str) -> list[str]:
    """The tags that a field of a source names, sorted and once each, without the blanks around them.

    The field is one tag, or several as `a|b`, `|a|b|` or `<a><b>`. So no tag contains a vertical bar, and angle
    brackets belong to a tag unless the whole of it consists of names in brackets: `List<int>` is one.
    """
    if SEPARATOR not in field and "<" not in field:  # one tag, as nearly every field is where posts have one each
        return [tag] if (tag := field.strip()) else []
    tags = set[str]()
    for part in field.split(SEPARATOR):
        names = re.split("[<>]", part) if BRACKETS.fullmatch(part) else [part]
        tags.update(name.strip() for name in names)
    return sorted(tags - {""})


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


def among(texts: pa.Array, tags: pa.Array) -> pa.Array:
    """The tags of each post that are among the sorted `tags`, as one text; empty if none is."""
    labels = labels_of(texts, tags)
    named = pa.ListArray.from_arrays(labels.offsets, tags.take(labels.values))
    return pc.binary_join(named, SEPARATOR)


def labels_of(texts: pa.Array, tags: pa.Array) -> pa.ListArray:
    """The labels of each post, ascending: the places of its normalized tags among the sorted `tags`, if there."""
    split = pc.split_pattern(texts, SEPARATOR)
    found = pc.index_in(split.flatten(), value_set=tags)
    known = pc.cumulative_sum(found.is_valid().cast(pa.int32()))
    ends = pa.concat_arrays([pa.array([0], pa.int32()), known]).take(split.offsets)
    return pa.ListArray.from_arrays(ends, found.drop_null())
