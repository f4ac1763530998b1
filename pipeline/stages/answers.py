"""The Estimator's answers to the test posts: written as they come, and what they say of the candidate.

OneTag is for posts of one tag each, and SeveralTags for posts that have several.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix, vstack
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from typing_extensions import override

from pipeline.checks import thresholds
from pipeline.checks.confusion_matrix import MAX_ANNOTATED, draw
from pipeline.checks.mistakes import Confusion, confusions
from pipeline.data import posts, several_tags, tag_matrix
from pipeline.stages.plan import CONFUSION_MATRIX


@dataclass(frozen=True)
class Other:
    """The answers of another model: which posts it tagged correctly, and as `recall` the method of Answers."""

    correct: np.ndarray
    recall: Callable[[np.ndarray], dict[str, float]]


class Answers(ABC):
    """The answers to the test posts, in their order.

    `probability`, float32 [posts], is that of `first`, int32 [posts], the label that a post gets, or the most probable
    one of those that it gets.
    """

    def __init__(self, vectors: Path, labels: list[str], writer: posts.Writer) -> None:
        table = pa.Table.from_batches(list(posts.batches(vectors, "test", ["row", "label"])))
        self.rows, self.label = (table[name].combine_chunks() for name in ("row", "label"))
        self.labels, self.writer, self.done = labels, writer, 0
        self.first, self.probability = np.empty(len(table), np.int32), np.empty(len(table), np.float32)

    def add(self, probabilities: np.ndarray) -> None:
        """Take the answers to the next posts, float32 [n, tags], and write them."""
        count, tags = probabilities.shape
        now = slice(self.done, self.done + count)
        predicted = self._take(now, probabilities)
        self.probability[now] = probabilities[np.arange(count), self.first[now]]
        starts = pa.array(np.arange(count + 1) * tags, pa.int32())
        lists = pa.ListArray.from_arrays(starts, pa.array(probabilities.ravel()))
        columns = [self.rows[now], self.label[now], predicted, lists]
        self.writer.write(pa.RecordBatch.from_arrays(columns, schema=self.writer.schema))
        self.done += count

    @abstractmethod
    def _take(self, now: slice, probabilities: np.ndarray) -> pa.Array:
        """Keep what the posts `now` are said to be, fill `first`, and return the column `predicted`."""

    @property
    @abstractmethod
    def own_metric(self) -> float:
        """The Estimator's own metric, pipeline.model.network.metric, computed from the answers."""

    @property
    @abstractmethod
    def correct(self) -> np.ndarray:
        """Which posts got their tag, or exactly their tags: bool [posts]."""

    @property
    @abstractmethod
    def first_correct(self) -> np.ndarray:
        """For which posts `first` is a tag of theirs: bool [posts]."""

    @property
    @abstractmethod
    def members(self) -> np.ndarray:
        """The tags of the posts: int32 [posts], or where they have several bool [posts, tags]."""

    @abstractmethod
    def per_tag(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 score and support of each tag."""

    @abstractmethod
    def figures(self, out: Path) -> dict[str, Any]:
        """What evaluation.json has only for posts of this kind, and its pictures in `out`."""

    @abstractmethod
    def commonest(self) -> float:
        """The accuracy of always saying the commonest tag, or the commonest tags."""

    @abstractmethod
    def confusions(self) -> list[Confusion]:
        """The commonest pairs of a tag that a post has and does not get, and one that it gets instead."""

    @abstractmethod
    def shown(self, at: int) -> dict[str, str]:
        """The tags of a post, and those that it gets, for a person."""

    @abstractmethod
    def recall(self, compared: np.ndarray) -> dict[str, float]:
        """The recall of each tag that one of the compared posts, bool [posts], has."""

    @abstractmethod
    def of_other(self, given: pa.ChunkedArray) -> "Other":
        """The answers of another model, which gave the posts these tags, or texts of several tags."""


class OneTag(Answers):
    """The answers where each post has one tag, the most probable."""

    @override
    def _take(self, now: slice, probabilities: np.ndarray) -> pa.Array:
        self.first[now] = probabilities.argmax(axis=1)
        return pa.array(self.first[now])

    @property
    @override
    def members(self) -> np.ndarray:
        true: np.ndarray = self.label.to_numpy()
        return true

    @property
    @override
    def correct(self) -> np.ndarray:
        same: np.ndarray = self.members == self.first
        return same

    @property
    @override
    def first_correct(self) -> np.ndarray:
        return self.correct

    @property
    @override
    def own_metric(self) -> float:
        return float(self.correct.mean())

    @override
    def per_tag(self) -> dict[str, dict[str, float]]:
        return figures_by_tag(self.members, self.first, self.labels)

    @override
    def figures(self, out: Path) -> dict[str, Any]:
        matrix = confusion_matrix(self.members, self.first, labels=range(len(self.labels)))
        draw(matrix, self.labels, out / CONFUSION_MATRIX)
        return {"confusion_matrix": matrix.tolist()} if len(self.labels) <= MAX_ANNOTATED else {}

    @override
    def commonest(self) -> float:
        return float(np.bincount(self.members).max() / len(self.first))

    @override
    def confusions(self) -> list[Confusion]:
        return confusions(self.members, self.first, self.probability)

    @override
    def shown(self, at: int) -> dict[str, str]:
        return {"tag": self.labels[self.members[at]], "predicted": self.labels[self.first[at]]}

    @override
    def recall(self, compared: np.ndarray) -> dict[str, float]:
        return self._recall(self.correct, compared)

    @override
    def of_other(self, given: pa.ChunkedArray) -> Other:
        labels = pc.index_in(given, value_set=pa.array(self.labels, pa.string()))
        correct = pc.fill_null(labels, -1).to_numpy() == self.members
        return Other(correct, partial(self._recall, correct))

    def _recall(self, correct: np.ndarray, compared: np.ndarray) -> dict[str, float]:
        true, right = self.members[compared], correct[compared]
        return {tag: float(right[true == at].mean()) for at, tag in enumerate(self.labels) if (true == at).any()}


class SeveralTags(Answers):
    """The answers where a post may have several tags: all that reach their thresholds, float32 [tags]."""

    def __init__(self, vectors: Path, labels: list[str], writer: posts.Writer, limits: np.ndarray) -> None:
        super().__init__(vectors, labels, writer)
        self.limits, self.own_right = limits, 0
        self.true = tag_matrix.matrix(self.label, len(labels))
        self._chosen: list[csr_matrix] = []

    @override
    def _take(self, now: slice, probabilities: np.ndarray) -> pa.Array:
        chosen = thresholds.chosen(probabilities, self.limits)
        self.first[now] = thresholds.first(probabilities, chosen)
        self.own_right += int(((probabilities > thresholds.UNPICKED) == self.true[now].toarray()).sum())
        self._chosen.append(csr_matrix(chosen))
        return tag_matrix.lists(self._chosen[-1])

    @cached_property
    def predicted(self) -> csr_matrix:
        """Which tags each post gets, once all answers were taken: a sparse bool [posts, tags]."""
        return vstack(self._chosen, format="csr")

    @property
    @override
    def members(self) -> np.ndarray:
        dense: np.ndarray = self.true.toarray()
        return dense

    @property
    @override
    def correct(self) -> np.ndarray:
        return _same_rows(self.true, self.predicted)

    @property
    @override
    def first_correct(self) -> np.ndarray:
        right: np.ndarray = np.asarray(self.true[np.arange(len(self.first)), self.first]).ravel()
        return right

    @property
    @override
    def own_metric(self) -> float:
        return float(self.own_right / (len(self.first) * len(self.labels)))

    @override
    def per_tag(self) -> dict[str, dict[str, float]]:
        found = figures_by_tag(self.true, self.predicted, self.labels)
        limits = thresholds.plain(self.limits)
        return {tag: found[tag] | {"threshold": limit} for tag, limit in zip(found, limits, strict=True)}

    @override
    def figures(self, out: Path) -> dict[str, Any]:
        return {
            "several_tags": {
                "micro_f1": round(float(f1_score(self.true, self.predicted, average="micro", zero_division=0)), 6),
                "first_tag_right": round(float(self.first_correct.mean()), 6),
                "tags_per_post": round(self.true.nnz / len(self.first), 4),
                "tags_given_per_post": round(self.predicted.nnz / len(self.first), 4),
            }
        }

    @override
    def commonest(self) -> float:
        counts = pa.array(tag_matrix.texts_of(self.true, self.labels)).value_counts().field("counts")
        return float(pc.max(counts).as_py() / len(self.first))

    @override
    def confusions(self) -> list[Confusion]:
        pairs = _table(self.true > self.predicted).merge(_table(self.predicted > self.true), on="post")
        places = pairs["post"].to_numpy()
        found = confusions(pairs["tag_x"].to_numpy(), pairs["tag_y"].to_numpy(), self.probability[places])
        return [Confusion(each.true, each.predicted, each.count, places[each.at].tolist()) for each in found]

    @override
    def shown(self, at: int) -> dict[str, str]:
        [tag], [predicted] = (tag_matrix.texts_of(each[at], self.labels) for each in (self.true, self.predicted))
        return {"tag": tag, "predicted": predicted}

    @override
    def recall(self, compared: np.ndarray) -> dict[str, float]:
        return self._recall(self.predicted, compared)

    @override
    def of_other(self, given: pa.ChunkedArray) -> Other:
        tags = pa.array(self.labels, pa.string())
        said = tag_matrix.matrix(several_tags.labels_of(given.combine_chunks(), tags), len(tags))
        return Other(_same_rows(self.true, said), partial(self._recall, said))

    def _recall(self, said: csr_matrix, compared: np.ndarray) -> dict[str, float]:
        true = self.true[compared]
        support = np.asarray(true.sum(axis=0)).ravel()
        right = np.asarray(true.multiply(said[compared]).sum(axis=0)).ravel()
        return {tag: float(right[at] / support[at]) for at, tag in enumerate(self.labels) if support[at]}


def _same_rows(one: csr_matrix, other: csr_matrix) -> np.ndarray:
    same: np.ndarray = np.asarray((one != other).sum(axis=1)).ravel() == 0
    return same


def _table(cells: csr_matrix) -> pd.DataFrame:
    post, tag = cells.nonzero()
    return pd.DataFrame({"post": post, "tag": tag})


def figures_by_tag(true: Any, predicted: Any, labels: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 score and support of each tag.

    `true` and `predicted` are labels, int [posts], or sparse matrices, bool [posts, tags]. scikit-learn's
    classification_report would put keys such as `accuracy`, which may be a tag, in the same dictionary.
    """
    columns = precision_recall_fscore_support(true, predicted, labels=range(len(labels)), average=None, zero_division=0)
    names = ("precision", "recall", "f1-score", "support")
    return {
        tag: dict(zip(names, map(float, figures), strict=True)) for tag, *figures in zip(labels, *columns, strict=True)
    }


def recall_of(report: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The recall of each tag that a test post has."""
    return {tag: figures["recall"] for tag, figures in report.items() if figures["support"]}
