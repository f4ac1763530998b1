"""Writes the model card that travels with a published model: what it does, how well, and what it was made from.

Its front matter is Hugging Face's (https://huggingface.co/docs/hub/model-cards#model-card-metadata). It names neither
run nor time nor source, so that the same model, compared with the same one, has the same card.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.errors import escape_control

FILE = "model-card.md"

USE = """\
```python
import tensorflow as tf

model = tf.saved_model.load(".")  # the folder of this file
answer = model.signatures["serving_default"](post=tf.constant(["How do I sort a list in place?"]))
print(answer["tag"], answer["probability"])
```"""


def text(
    evaluation: Mapping[str, Any], decision: Mapping[str, Any], network: Mapping[str, Any], *, synthetic: bool
) -> str:
    """The card as Markdown, from evaluation.json, decision.json, and the settings that shape the network."""
    several = "several_tags" in evaluation
    posts = "synthetic posts, so its figures say nothing about real ones" if synthetic else "Stack Overflow posts"
    parts = [
        _front_matter(evaluation, decision),
        "# Tag classifier for Stack Overflow posts",
        f"Reads the raw text of a post and answers with {_answers(evaluation)}. Trained on {posts}: a bag of words, "
        f"one hidden layer, {'sigmoid' if several else 'softmax'}, converted from Keras to a TensorFlow Estimator.",
        "## Use",
        USE.replace('answer["tag"], answer["probability"]', 'answer["tags"]') if several else USE,
        "## How well it tags",
        f"On {evaluation['rows']:,} held-out posts (sha256 `{decision['test_posts_sha256'][:16]}`):",
        _table(("", ""), _figures(evaluation)),
        _compared(decision),
        _table(
            ("tag", "precision", "recall", "F1", *(("threshold",) if several else ()), "test posts", "words for it"),
            _by_tag(evaluation),
        ),
        "It confuses most:",
        "\n".join(
            f"- {_inert(each['tag'])} with {_inert(each['predicted'])}: {each['posts']:,} posts"
            for each in evaluation.get("confusions", ())
        ),
        "By length of the post:",
        _table(("characters", "test posts", "accuracy"), _by_length(evaluation)),
        "## Limits",
        "It always answers with one of its tags, also where the text is about none of them. It knows English posts of "
        "the kind that it was trained on.",
        "## Network",
        _table(("setting", "value"), [(name, f"`{json.dumps(value)}`") for name, value in network.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answers(evaluation: Mapping[str, Any]) -> str:
    if "several_tags" in evaluation:
        return f"those of {evaluation['tags']} tags whose probability reaches the tag's threshold"
    return f"one of {evaluation['tags']} tags and its probability"


def _figures(evaluation: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    several = evaluation.get("several_tags")
    yield f"accuracy{' (exactly the right tags)' if several else ''}", f"{evaluation['accuracy']:.4f}"
    commonest = f"accuracy of always saying the commonest tag{'s' if several else ''}"
    yield commonest, f"{evaluation['accuracy_of_the_commonest_tag']:.4f}"
    if several:
        yield "micro F1", f"{several['micro_f1']:.4f}"
        yield "share of posts whose first tag is right", f"{several['first_tag_right']:.4f}"
    yield "macro F1", f"{evaluation['macro_f1']:.4f}"
    yield "loss", f"{evaluation['loss']:.4f}"
    yield "expected calibration error", f"{evaluation['calibration_error']:.4f}"


def _compared(decision: Mapping[str, Any]) -> str:
    """How the model did beside the one that was live before it; empty if there was none, or none to compare with."""
    comparison = decision.get("comparison") or {}
    if "coverage" not in comparison:
        return ""
    measured = f"Beside the model that was live before, {comparison['champion']['name']}: "
    if "difference" in comparison:
        measured += (
            f"accuracy {comparison['difference']:+.4f} ({comparison['confidence']:.0%} interval "
            f"{comparison['low']:+.4f} to {comparison['high']:+.4f}), "
        )
    return f"{measured}{comparison['coverage']}."


def _front_matter(evaluation: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    """Values are written as JSON, which is YAML, too."""
    metrics = [
        {"type": "accuracy", "value": evaluation["accuracy"]},
        {"type": "f1", "name": "macro F1", "value": evaluation["macro_f1"]},
    ]
    dataset = {"type": "stack-overflow-posts", "name": f"{evaluation['rows']} held-out posts"}
    dataset["revision"] = decision["test_posts_sha256"]
    result = {"task": {"type": "text-classification"}, "dataset": dataset, "metrics": metrics}
    fields = {
        "language": "en",
        "library_name": "tensorflow",
        "pipeline_tag": "text-classification",
        "tags": ["keras", "bag-of-words", "stack-overflow"],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": "stackoverflow_tagger", "results": [result]}],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _by_tag(evaluation: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for tag, each in evaluation["per_tag"].items():
        words = ", ".join(_inert(word) for word in evaluation.get("words", {}).get(tag, [])[:5])
        names = ("precision", "recall", "f1-score", "threshold")
        figures = (f"{each[name]:.3f}" for name in names if name in each)
        yield (_inert(tag), *figures, f"{each['support']:,.0f}", words)


def _by_length(evaluation: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for each in evaluation.get("slices", ()):
        yield f"{each['above'] + 1:,} to {each['to']:,}", f"{each['posts']:,}", f"{each['accuracy']:.4f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _inert(said: str) -> str:
    """Escape what a post's author may have written, so that Markdown shows it as it is."""
    shown = html.escape(escape_control(said))
    return "".join(f"&#{ord(sign)};" if sign in "\\`*_{}[]()#+-!|~:." else sign for sign in shown)
