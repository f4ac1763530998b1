"""How a published model turns posts into vectors: what its folder says of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.vocabulary import Vocabulary

EXTRA = "assets.extra"
"""The folder of a SavedModel whose files TensorFlow does not read."""

RULE = "words.json"
"""An extra asset: the settings of the conversion from posts to vectors."""

EXAMPLES, WORDS = 20, 30
"""How many texts `example_texts` makes, and of how many words of the vocabulary each at most."""


@dataclass(frozen=True)
class TextRule:
    """The arguments of pipeline.data.vectors.vectorize."""

    vocabulary: Vocabulary
    size: int
    mode: str

    @classmethod
    def of_model(cls, model: Path) -> "TextRule | None":
        """Load the text rule of a model; None if an older version of the pipeline exported it without one."""
        extra = model / EXTRA
        if not (extra / RULE).exists():
            return None
        rule = json.loads((extra / RULE).read_text())
        return cls(Vocabulary.load(extra), rule["vocabulary_size"], rule["vector_mode"])


def write(file: Path, *, size: int, mode: str) -> None:
    """Write all of a rule but its vocabulary, which is written by Vocabulary.save."""
    file.write_text(json.dumps({"vocabulary_size": size, "vector_mode": mode}))


def example_texts(vocabulary: Vocabulary) -> list[str]:
    """Make EXAMPLES texts of the vocabulary's words, frequent ones and rare ones in each, and a few of them twice."""
    step = max(1, len(vocabulary.words) // (EXAMPLES * WORDS))
    words = vocabulary.words.to_pylist()[::step]
    chosen = [words[start::EXAMPLES][:WORDS] for start in range(EXAMPLES)]
    return [" ".join(text + text[: WORDS // 5]) for text in chosen]
