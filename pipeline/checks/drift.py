"""What may be wrong with a run's data: copies, and how far it is from what the live model was trained on."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.special import rel_entr

from pipeline.data.words import Vocabulary
from pipeline.errors import BadInput
from pipeline.settings import Settings

SENTENCES = {
    "duplicates": "{:.2%} of the posts are copies of an earlier one",
    "leaked": "{:.2%} of the test posts are copies of a train post, so accuracy is too high",
    "tag_drift": "the tags are not shared out as those that the live model was trained on (divergence {:.4f})",
    "word_drift": "the words are not those that the live model was trained on (divergence {:.4f})",
    "unknown_words": "the share of words that the live model does not know rose by {:.4f}",
    "length_change": "the median post is {:.2f} times as long or as short as that which the live model was trained on",
}
"""What each figure says. Its limits are the settings `warn_<figure>` and `fail_<figure>`."""


@dataclass(frozen=True)
class Corpus:
    """Posts as they are compared: how many bear each tag, the median length in characters, and how often words occur.

    `words` may leave out rare ones; `occurrences` counts all.
    """

    posts_by_tag: dict[str, int]
    median_characters: float
    words: dict[str, int]
    occurrences: int

    @classmethod
    def of(cls, ingested: dict[str, Any], words: Path) -> Self:
        """The corpus by the summary of its ingest and a folder with the counts of its words."""
        vocabulary = Vocabulary.load(words)
        counts = dict(zip(vocabulary.words.to_pylist(), vocabulary.counts.tolist(), strict=True))
        return cls(ingested["posts_by_tag"], ingested["median_characters"], counts, vocabulary.occurrences)


@dataclass(frozen=True)
class Drift:
    """How far a corpus is from another, in the figures of SENTENCES: divergences in bits, 0 to 1."""

    tag_drift: float
    word_drift: float
    unknown_words: float
    length_change: float


def measure(corpus: Corpus, live: Corpus) -> Drift:
    """The corpus beside that of the live model, whose `words` are its vocabulary.

    Divergences are Jensen and Shannon's to base 2 (Lin 1991); words outside the vocabulary count as one more word.
    Where the corpus leaves out rare words, the vocabulary is taken to be no longer than its list.
    """
    tags = sorted(corpus.posts_by_tag.keys() | live.posts_by_tag.keys())
    cut_short = sum(corpus.words.values()) < corpus.occurrences
    words = list(live.words)[: len(corpus.words) if cut_short else None]
    now, then = (_shares(of.words, words, of.occurrences) for of in (corpus, live))
    longer, shorter = sorted((corpus.median_characters, live.median_characters), reverse=True)
    figures = Drift(
        tag_drift=_divergence(*(_shares(of.posts_by_tag, tags) for of in (corpus, live))),
        word_drift=_divergence(now, then),
        unknown_words=float(now[-1] - then[-1]),
        length_change=longer / max(shorter, 1),
    )
    return Drift(**{name: round(value, 6) for name, value in asdict(figures).items()})


def _shares(counts: dict[str, int], names: list[str], total: int | None = None) -> np.ndarray:
    """The share of each name and, last, of all others: float64 [len(names) + 1], sum 1."""
    known = np.array([counts.get(name, 0) for name in names], float)
    total = int(known.sum()) if total is None else total
    return np.append(known, total - known.sum()) / total if total else np.append(known, 1.0)


def _divergence(one: np.ndarray, other: np.ndarray) -> float:
    middle = (one + other) / 2
    return float(max(rel_entr(one, middle).sum() + rel_entr(other, middle).sum(), 0)) / 2 / math.log(2)


def judge(figures: dict[str, float], settings: Settings, cure: str, forced: str | None = None) -> list[str]:
    """Reservations about the data; BadInput, which ends in the cure, above a limit unless a reason forces the run."""
    refused, reservations = [], []
    for name, figure in figures.items():
        warn, fail = getattr(settings, f"warn_{name}"), getattr(settings, f"fail_{name}")
        if figure > fail:
            refused.append(f"{SENTENCES[name].format(figure)}, more than fail_{name}={fail:g}")
        elif figure > warn:
            reservations.append(f"{SENTENCES[name].format(figure)}, more than warn_{name}={warn:g}")
    if refused and not forced:
        raise BadInput(f"{'; '.join(refused)}: {cure}")
    return [*(f"{objection}; forced: {forced}" for objection in refused), *reservations]
