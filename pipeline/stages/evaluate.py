"""Measure the Estimator on the test posts, and compare it with the thresholds and with the live model."""

import json
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.checks import gate, thresholds
from pipeline.checks.calibration import calibration
from pipeline.checks.comparison import Coverage
from pipeline.checks.mistakes import slices, surest
from pipeline.data import held_out, posts
from pipeline.data import learned as learned_posts
from pipeline.data.learned import Learned
from pipeline.data.vectors import as_matrix
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import BadInput, CorruptArtifact, GateNotPassed, TaggerError
from pipeline.files import read_lines
from pipeline.model import checkpoint, evaluation, input_fn, network, training
from pipeline.progress import Track
from pipeline.published import attribution
from pipeline.published.model import PublishedModel
from pipeline.settings import Settings
from pipeline.stages.answers import Answers, OneTag, Other, SeveralTags, recall_of
from pipeline.stages.context import Context
from pipeline.stages.plan import CARD, CHAMPION, DECISION, EVALUATION, LABELS, MODEL_DIR

LIMITS = (
    "min_accuracy",
    "min_tag_recall",
    "min_macro_f1",
    "max_regression",
    "min_compared_posts",
    "when_unsure",
    "retired_tags",
    "force",
    "force_reason",
)
CURE = (
    f"nothing is published and the live model stays; read {DECISION} and {EVALUATION}, then fix the data or the "
    "settings and start a new run"
)

EXAMPLES = 5
"""How many answers a person is shown."""

WORDS, POSTS_ATTRIBUTED = 10, 10_000
"""How many words that speak for each tag are named, and on how many test posts at most they are found."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """The candidate's scores on `rows` test posts, and the gate's verdict; `action` is what is done because of it.

    `champion` is the version that was live, None if there was none. `champion_accuracy` is its accuracy on the
    `compared_posts`, those test posts that the comparison counts; None and 0 if it was not compared.
    """

    rows: int
    accuracy: float
    loss: float
    macro_f1: float
    calibration_error: float  # expected, see pipeline.checks.calibration
    tags: int
    verdict: str
    action: str
    reasons: list[str]
    warnings: list[str]
    champion: int | None
    champion_accuracy: float | None
    compared_posts: int
    coverage: str  # the numbers of pipeline.checks.comparison.Coverage in a sentence


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Evaluated:
    """Measure the candidate, and write decision.json, evaluation.json, confusion_matrix.png and `predictions` to `out`.

    With multi_tag there is no confusion matrix. Which posts the candidate has learned is written, too. Raises
    GateNotPassed, with the summary as evidence, if the gate keeps the live model, and TaggerError if the Estimator's
    own metric is not that of its predictions.
    """
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    if not posts.rows(inputs["vectorize"], "test"):
        raise BadInput("there is no test post to evaluate on: start a run with drop_test_posts=false")
    measured, answers = _measure(inputs, out, settings, labels, context.track)
    _check_metric(measured[network.metric(settings)], answers.own_metric)
    held = held_out.HeldOut(inputs["ingest"], labels, settings.multi_tag)
    report = answers.per_tag()
    learned = Learned.of_ingested(inputs["ingest"])
    if settings.warm_start == "live":
        learned |= Learned.read(inputs["train"] / learned_posts.FILE)
    learned.write(out / learned_posts.FILE)
    candidate = _candidate(answers.correct, report)
    champion = _champion(inputs, held, answers, learned, synthetic=context.source.synthetic)
    decision = gate.decide(candidate, champion, settings)
    comparison = decision.comparison or {}
    calibrated = calibration(answers.probability, answers.first_correct)
    summary = Evaluated(
        rows=len(candidate.correct),
        accuracy=round(candidate.accuracy, 6),
        loss=round(measured["loss"], 6),
        macro_f1=round(candidate.macro_f1, 6),
        calibration_error=calibrated["expected_error"],
        tags=len(labels),
        verdict=decision.verdict,
        action=decision.action,
        reasons=decision.reasons,
        warnings=decision.warnings,
        champion=_version(inputs),
        champion_accuracy=comparison["champion"]["accuracy"] if "difference" in comparison else None,
        compared_posts=comparison.get("compared", 0),
        coverage=comparison.get("coverage", ""),
    )
    _write_json(out / DECISION, _decision_document(inputs, settings, held, candidate, champion, decision))
    _write_json(
        out / EVALUATION,
        asdict(summary)
        | {"per_tag": report, "calibration": calibrated}
        | answers.figures(out)
        | _details(inputs, answers, held, settings),
    )
    for warning in decision.warnings:
        log.warning("warning: %s", warning)
    if "coverage" in comparison:
        log.info("%s, %s", comparison["champion"]["name"], comparison["coverage"])
    if decision.action == "keep":
        raise GateNotPassed(f"{'; '.join(decision.reasons)}: {CURE}", asdict(summary))
    return summary


def _details(
    inputs: Mapping[str, Path], answers: Answers, held: held_out.HeldOut, settings: Settings
) -> dict[str, Any]:
    """What evaluation.json has for a person: some answers, words, accuracy on slices of the posts, and mistakes."""
    correct = answers.correct
    vocabulary = Vocabulary.load(inputs["fit_vocabulary"]).head(settings.vocabulary_size)
    return {
        "accuracy_of_the_commonest_tag": round(answers.commonest(), 6),
        "slices": [asdict(each) for each in slices(held.lengths(), correct)],
        "slices_by_unknown_words": [asdict(each) for each in slices(held.unknown_shares(vocabulary), correct)],
        "words": _words(inputs, held.labels, vocabulary, settings),
    } | _examples(held, answers)


def _words(
    inputs: Mapping[str, Path], labels: list[str], vocabulary: Vocabulary, settings: Settings
) -> dict[str, list[str]]:
    """For each tag the WORDS words that speak most for it, the strongest first."""
    some = posts.spread(inputs["vectorize"], "test", POSTS_ATTRIBUTED)
    columns = attribution.strongest(
        attribution.Attribution(checkpoint.weights(inputs["train"] / MODEL_DIR)),
        as_matrix(some, settings.vocabulary_size),
        input_fn.labels(some, len(labels)),
        len(labels),
        WORDS,
    )
    words = [vocabulary.words.take(pa.array([column - 1 for column in each], pa.int64())) for each in columns]
    return {tag: each.to_pylist() for tag, each in zip(labels, words, strict=True)}


def _examples(held: held_out.HeldOut, answers: Answers) -> dict[str, Any]:
    """The first answers, the commonest confusions, and the mistakes that the model was surest of, with their texts."""
    commonest, surest_first = answers.confusions(), surest(answers.first_correct, answers.probability)
    rows, labels = answers.rows.to_numpy(), held.labels
    first = range(min(EXAMPLES, len(rows)))
    places = [*first, *surest_first, *(at for each in commonest for at in each.at)]
    texts = held_out.excerpts(held.folder, rows[places].tolist())

    def shown(at: int) -> dict[str, Any]:
        row, probability = int(rows[at]), round(float(answers.probability[at]), 4)
        return {"row": row, "post": texts[row]} | answers.shown(at) | {"probability": probability}

    return {
        "examples": [shown(at) for at in first],
        "confusions": [
            {
                "tag": labels[each.true],
                "predicted": labels[each.predicted],
                "posts": each.count,
                "examples": [shown(at) for at in each.at],
            }
            for each in commonest
        ],
        "mistakes": [shown(at) for at in surest_first],
    }


def _check_metric(evaluated: float, predicted: float) -> None:
    """Raise TaggerError if the Estimator's own metric is not that of the answers that were written."""
    if abs(evaluated - predicted) > 1e-6:
        raise TaggerError(
            f"the Estimator's own accuracy is {evaluated:.6f}, but that of its predictions is {predicted:.6f}: the two "
            "did not read the same test vectors; run vectorize again"
        )


def _candidate(correct: np.ndarray, report: Mapping[str, Mapping[str, float]]) -> gate.Scores:
    """The candidate's scores, from which posts it tagged correctly (bool [posts]) and its report by tag."""
    recall, f1 = recall_of(report), float(np.mean([figures["f1-score"] for figures in report.values()]))
    support = {tag: int(figures["support"]) for tag, figures in report.items()}
    untested = tuple(tag for tag in report if tag not in recall)
    return gate.Scores("the candidate", correct, recall, untested, f1, support)


def _decision_document(
    inputs: Mapping[str, Path],
    settings: Settings,
    held: held_out.HeldOut,
    candidate: gate.Scores,
    champion: gate.Champion | gate.Incomparable | gate.Absent,
    decision: gate.Decision,
) -> dict[str, Any]:
    """The content of decision.json: the verdict, and which model, posts and thresholds led to it."""
    return {
        "verdict": decision.verdict,
        "action": decision.action,
        "reasons": decision.reasons,
        "warnings": decision.warnings,
        "thresholds": {name: getattr(settings, name) for name in LIMITS},
        "candidate": candidate.to_dict() | {"checkpoint": training.checkpoint_digest(inputs["train"] / MODEL_DIR)},
        "champion": _version(inputs),
        "comparison": decision.comparison,
        "champion_recall": champion.recall if isinstance(champion, gate.Champion) else None,
        "test_posts": len(candidate.correct),
        "test_posts_sha256": held.digest(),
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")


def _version(inputs: Mapping[str, Path]) -> int | None:
    if CHAMPION not in inputs:
        return None
    return int(_card(inputs)["version"])


def _card(inputs: Mapping[str, Path]) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((inputs[CHAMPION] / CARD).read_text())
    return card


def _champion(
    inputs: Mapping[str, Path], held: held_out.HeldOut, answers: Answers, learned: Learned, *, synthetic: bool
) -> gate.Champion | gate.Incomparable | gate.Absent:
    """Tag the same test posts with the live model, from their texts, as `tagger predict` does.

    `learned` are the posts that the candidate has learned. A candidate trained on synthetic posts is incomparable with
    a model of real posts, so it does not replace it unless the run is forced; where only the champion is synthetic,
    there is nothing to compare with.
    """
    if CHAMPION not in inputs:
        return gate.Absent("no model was live to compare with: this is the first")
    name, model = f"version {_version(inputs)}", inputs[CHAMPION] / "model"
    champion_synthetic = _card(inputs).get("synthetic", False)
    if champion_synthetic and not synthetic:
        return gate.Absent(
            f"the live model, {name}, was trained on synthetic posts, so this model of real posts was not "
            "compared with it"
        )
    if synthetic and not champion_synthetic:
        return gate.Incomparable(name, "it was trained on real posts, this candidate on synthetic posts")
    try:
        with closing(PublishedModel.open(model)) as published:
            if (published.limits is not None) != held.several:
                return gate.Incomparable(name, f"it gives a post {'one tag' if held.several else 'several tags'}")
            champion_learned = Learned.read(model / learned_posts.FILE)
            answered = published.answer_batches(held.batches())
            given = pa.chunked_array([pa.array(each.given, pa.string()) for _, each in answered], pa.string())
    except CorruptArtifact as error:
        return gate.Incomparable(name, f"it cannot be loaded or used: {error}")
    compared = _compared(name, published.labels, answers.of_other(given), held, answers, learned, champion_learned)
    own_checkpoint = training.checkpoint_digest(inputs["train"] / MODEL_DIR)
    return replace(compared, is_candidate=_card(inputs).get("checkpoint") == own_checkpoint)


def _compared(
    name: str,
    champion_tags: list[str],
    given: Other,
    held: held_out.HeldOut,
    answers: Answers,
    learned: Learned,
    champion_learned: Learned,
) -> gate.Champion:
    """The champion's answers, with the test posts that count: new to both models, and of tags that both know."""
    of_shared_tags = held.with_all_tags_in(set(champion_tags) & set(held.labels))
    champion_knows, candidate_knows = held.copies_of(champion_learned, learned)
    compared = of_shared_tags & ~champion_knows & ~candidate_knows
    coverage = Coverage(
        test_posts=len(compared),
        compared=int(compared.sum()),
        learned=int(champion_knows.sum()),
        other_tags=int((~of_shared_tags & ~champion_knows).sum()),
        candidate_learned=int((candidate_knows & of_shared_tags & ~champion_knows).sum()),
        learned_is_known=champion_learned.complete,
    )
    return gate.Champion(
        name=name,
        correct=given.correct,
        compared=compared,
        coverage=coverage,
        recall=given.recall(compared),
        candidate_recall=answers.recall(compared),
        new_tags=sorted(set(held.labels) - set(champion_tags)),
        lost_tags=sorted(set(champion_tags) - set(held.labels)),
    )


def _measure(
    inputs: Mapping[str, Path], out: Path, settings: Settings, labels: list[str], track: Track
) -> tuple[dict[str, float], Answers]:
    """Return the Estimator's own metric and loss, and its answers, which are written to `predictions`."""
    vectors, tags = inputs["vectorize"], len(labels)
    with (
        network.trained(inputs["train"] / MODEL_DIR, settings, tags) as estimator,
        track("evaluate", "posts", posts.rows(vectors, "test")) as advance,
        posts.Writer(out, "predictions", several=settings.multi_tag) as writer,
    ):
        if settings.multi_tag:
            limits = thresholds.read(inputs["train"] / thresholds.FILE)
            answers: Answers = SeveralTags(vectors, labels, writer, limits)
        else:
            answers = OneTag(vectors, labels, writer)
        feed = input_fn.testing(vectors, columns=settings.vocabulary_size, tags=tags)

        def add(probabilities: np.ndarray) -> None:
            answers.add(probabilities)
            advance(len(probabilities))

        return evaluation.evaluate(estimator, feed, add), answers
