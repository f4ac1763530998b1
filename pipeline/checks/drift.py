"""Limits on what may be wrong with a run's data: duplicate posts, and drift from the live model's training data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import BadInput
from pipeline.settings import Settings

SENTENCES = {
    "duplicates": "{:.2%} of the posts are copies of an earlier one",
    "leaked": "{:.2%} of the test posts are copies of a train post, so accuracy is too high",
    "tag_drift": "the distribution of tags differs from that in the live model's training data (divergence {:.4f})",
    "word_drift": "the distribution of words differs from that in the live model's training data (divergence {:.4f})",
    "unknown_words": "the share of words outside the live model's vocabulary rose by {:.4f}",
    "length_change": "the median post length differs by a factor of {:.2f} from the live model's training data",
}
"""The sentence for each figure; its limits are the settings `warn_<figure>` and `fail_<figure>`."""


@dataclass(frozen=True)
class Corpus:
    """The statistics of a set of posts by which drift is measured.

    `words` maps the most frequent words, in that order, to how often each occurs; `occurrences` counts all words, also
    the rare ones that `words` leaves out.
    """

    posts_by_tag: dict[str, int]
    median_characters: float
    words: dict[str, int]
    occurrences: int

    @classmethod
    def of(cls, ingested: dict[str, Any], words: Path) -> Self:
        """Build it from the summary of a run's ingest and the folder of a saved Vocabulary."""
        vocabulary = Vocabulary.load(words)
        single = vocabulary.single_words
        words_alone = vocabulary.words.filter(pa.array(single)).to_pylist()
        counts = dict(zip(words_alone, vocabulary.counts[single].tolist(), strict=True))
        return cls(ingested["posts_by_tag"], ingested["median_characters"], counts, vocabulary.occurrences)


@dataclass(frozen=True)
class Drift:
    """How far one corpus is from another.

    `tag_drift` and `word_drift` are divergences in bits, 0 to 1; `unknown_words` is a difference of shares;
    `length_change` is a factor, 1 or more.
    """

    tag_drift: float
    word_drift: float
    unknown_words: float
    length_change: float


NO_DRIFT = Drift(0.0, 0.0, 0.0, 1.0)
"""The figures of the very posts that the live model learned from."""


@dataclass(frozen=True)
class Change:
    """The share of a tag among the posts, or of a word among all words: in the live model's data, and now."""

    name: str
    then: float
    now: float


Compared = tuple[list[str], np.ndarray, np.ndarray]
"""Names, and the shares now and then: float64 [len(names) + 1], the last that of all other names."""


@dataclass(frozen=True)
class Shares:
    """The shares of tags and of words in some posts, float64 with the sum 1, and their median length."""

    tags: np.ndarray
    words: np.ndarray
    median_characters: float


def between(now: Shares, then: Shares) -> Drift:
    """How far posts are from those before; the last share of the words is that of all unknown ones.

    Divergences are Jensen-Shannon's to base 2 (Lin 1991).
    """
    longer, shorter = sorted((now.median_characters, then.median_characters), reverse=True)
    return Drift(
        tag_drift=_divergence(now.tags, then.tags),
        word_drift=_divergence(now.words, then.words),
        unknown_words=float(now.words[-1] - then.words[-1]),
        length_change=longer / max(shorter, 1),
    )


def measure(corpus: Corpus, live: Corpus, chance: Drift = NO_DRIFT) -> Drift:
    """Measure the drift of a corpus from the live model's, whose `words` are that model's vocabulary.

    All words outside the vocabulary count as one more word. Where the corpus leaves out rare words, only as many words
    of the vocabulary are compared as the corpus lists. `chance` is what as many posts drift without a reason, see
    pipeline.checks.chance: only what is beyond it counts.
    """
    _, tags_now, tags_then = _tags(corpus, live)
    _, words_now, words_then = _words(corpus, live)
    drift = between(
        Shares(tags_now, words_now, corpus.median_characters),
        Shares(tags_then, words_then, live.median_characters),
    )
    return Drift(
        tag_drift=_beyond(drift.tag_drift, chance.tag_drift),
        word_drift=_beyond(drift.word_drift, chance.word_drift),
        unknown_words=_beyond(drift.unknown_words, chance.unknown_words),
        length_change=round(max(drift.length_change / chance.length_change, 1.0), 6),
    )


def _beyond(figure: float, chance: float) -> float:
    """What of a figure is more than chance; a negative one stays, because the share of unknown words may fall."""
    return round(figure - min(max(figure, 0.0), chance), 6)


def changed_most(corpus: Corpus, live: Corpus, count: int = 10) -> dict[str, list[Change]]:
    """The `tags` and `words` that add most to the divergences of `measure`, the first the most; unchanged ones never.

    What one of them adds is its term of the Jensen-Shannon divergence: the half of p log(p / m) + q log(q / m).
    """
    return {
        "tags": _most(*_tags(corpus, live), count),
        "words": _most(*_words(corpus, live), count),
    }


def _most(names: list[str], now: np.ndarray, then: np.ndarray, count: int) -> list[Change]:
    middle = (now + then) / 2
    terms = rel_entr(now, middle) + rel_entr(then, middle)
    order = np.argsort(-terms[: len(names)], kind="stable")[:count]
    return [
        Change(names[at], round(float(then[at]), 6), round(float(now[at]), 6)) for at in order if now[at] != then[at]
    ]


def _tags(corpus: Corpus, live: Corpus) -> Compared:
    """The tags of both, and their shares now and then."""
    names = sorted(corpus.posts_by_tag.keys() | live.posts_by_tag.keys())
    return names, _shares(corpus.posts_by_tag, names), _shares(live.posts_by_tag, names)


def _words(corpus: Corpus, live: Corpus) -> Compared:
    """The words of the live model's vocabulary that are compared, and their shares now and then."""
    truncated = sum(corpus.words.values()) < corpus.occurrences
    names = list(live.words)[: len(corpus.words) if truncated else None]
    now, then = (_shares(of.words, names, of.occurrences) for of in (corpus, live))
    return names, now, then


def _shares(counts: dict[str, int], names: list[str], total: int | None = None) -> np.ndarray:
    """The share of each name in the total and, last, of all other names: float64 [len(names) + 1], sum 1."""
    known = np.array([counts.get(name, 0) for name in names], float)
    total = int(known.sum()) if total is None else total
    return np.append(known, total - known.sum()) / total if total else np.append(known, 1.0)


def _divergence(one: np.ndarray, other: np.ndarray) -> float:
    """The Jensen-Shannon divergence in bits; SciPy returns the distance, which is its square root."""
    with np.errstate(invalid="ignore"):
        distance = jensenshannon(one, other, base=2)
    # For distributions equal but for rounding, SciPy may take the root of a number just below 0.
    return float(np.nan_to_num(distance)) ** 2


def above_limits(figures: Mapping[str, float], settings: Settings) -> tuple[list[str], list[str]]:
    """A sentence for each figure above its `fail_` limit, and for each other one above its `warn_` limit."""
    failures, warnings = list[str](), list[str]()
    for name, figure in figures.items():
        warn, fail = getattr(settings, f"warn_{name}"), getattr(settings, f"fail_{name}")
        if figure > fail:
            failures.append(f"{SENTENCES[name].format(figure)}, more than fail_{name}={fail:g}")
        elif figure > warn:
            warnings.append(f"{SENTENCES[name].format(figure)}, more than warn_{name}={warn:g}")
    return failures, warnings


def judge(figures: dict[str, float], settings: Settings, cure: str, forced: str | None = None) -> list[str]:
    """Return a warning for each figure above its `warn_` limit; raise BadInput for those above their `fail_` limit.

    `cure` ends the error's sentence. With `forced`, the reason to force the run, the errors become warnings too.
    """
    refusals, warnings = above_limits(figures, settings)
    if refusals and not forced:
        raise BadInput(f"{'; '.join(refusals)}: {cure}")
    return [*(f"{refusal}; forced: {forced}" for refusal in refusals), *warnings]
