"""Posts with several tags as a sparse matrix of posts by tags: made from labels, and turned into labels and texts."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from pipeline.data.several_tags import SEPARATOR


def matrix(labels: pa.ListArray, tags: int) -> csr_matrix:
    """Which tags each post has: a sparse bool [posts, tags]."""
    places = labels.flatten().to_numpy()
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(labels).to_numpy())])
    return csr_matrix((np.ones(len(places), bool), places, ends), shape=(len(labels), tags))


def lists(chosen: csr_matrix) -> pa.ListArray:
    """The labels of each row of a matrix, ascending: int32 lists."""
    sorted_ = chosen.sorted_indices()
    return pa.ListArray.from_arrays(pa.array(sorted_.indptr, pa.int32()), pa.array(sorted_.indices, pa.int32()))


def tags_of(labels: pa.ChunkedArray, tags: Sequence[str]) -> list[str]:
    """The tag of each label, or the text of the tags of each list of labels."""
    column = labels.combine_chunks()
    if pa.types.is_list(column.type):
        return texts_of(matrix(column, len(tags)), tags)
    found: list[str] = np.array(tags, object)[column.to_numpy()].tolist()
    return found


def texts_of(chosen: csr_matrix, tags: Sequence[str]) -> list[str]:
    """The tags of each row of a matrix as one text."""
    names = np.array(tags, object)
    sorted_ = chosen.sorted_indices()
    return [SEPARATOR.join(names[each]) for each in np.split(sorted_.indices, sorted_.indptr[1:-1])]
