"""Compares a run's data with the data that the champion was trained on, before the run makes anything of its data."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.files import scratch_folder
from pipeline.run.champion import manifests_of
from pipeline.run.work import Work
from pipeline.stages.plan import FREQUENT
from pipeline.store.manifest import Manifest
from pipeline.store.runs import Run

if TYPE_CHECKING:
    from pipeline.checks.drift import Drift

log = logging.getLogger(__name__)

SAME = {"tag_drift": 0.0, "word_drift": 0.0, "unknown_words": 0.0, "length_change": 1.0}
"""The figures of pipeline.checks.drift for the very data that the champion was trained on."""

CURE = (
    "nothing is trained and the live model stays; fix the source, or if its posts are right, raise the limit or start "
    "a run with force=drift and a force_reason"
)


def check_drift(work: Work) -> dict[str, Any]:
    """Measure how far the run's data drifted from the champion's, for the summary: `drift`, `changed` and `warnings`.

    `drift` is None if there is nothing to compare with; synthetic posts are not compared with real ones. `changed` are
    the tags and words that changed most. Raises BadInput, with both as evidence, if a figure is above its limit, unless
    the run forces `drift`.
    """
    champion = work.champion
    if champion is None or champion.card is None or champion.card.synthetic != work.source.synthetic:
        return {"drift": None, "warnings": []}
    version, lineage = champion.version, Run(work.run.store, champion.card.run)
    trained_on = manifests_of(work.run.store, champion.card)
    if all(stage in trained_on and trained_on[stage].digest == work.inputs[stage].digest for stage in work.inputs):
        return {"drift": {"live": version} | SAME, "warnings": []}
    # The DAG file imports this module, and is parsed without Arrow.
    from pipeline.checks import drift
    from pipeline.data.vocabulary import Vocabulary

    with scratch_folder("drift") as scratch:
        folders = Path(scratch, "now"), Path(scratch, "then")
        try:
            now = drift.Corpus.of(*counted_words(work.run, work.inputs, FREQUENT, folders[0]))
            then = drift.Corpus.of(*counted_words(lineage, trained_on, ".", folders[1]))
            by_chance = _by_chance(
                Vocabulary.load(folders[0] / FREQUENT).documents, lineage, trained_on["ingest"], folders[1]
            )
        except (KeyError, CorruptArtifact) as error:
            log.warning("the data that the live model was trained on cannot be read: %s", error)
            lost = (
                f"the data that the live model, version {version}, was trained on is lost, because its run was removed "
                "or did its stages again on other posts: drift was not measured"
            )
            return {"drift": None, "warnings": [lost]}
    figures = asdict(drift.measure(now, then, by_chance))
    changed = {of: [asdict(each) for each in found] for of, found in drift.changed_most(now, then).items()}
    measured = {"drift": {"live": version} | figures, "changed": changed}
    try:
        return measured | {"warnings": drift.judge(figures, work.settings, CURE, work.settings.forced("drift"))}
    except BadInput as refused:
        refused.evidence = measured
        raise


def _by_chance(new_posts: int, lineage: Run, ingested: Manifest, words: Path) -> "Drift":
    """How far that many new posts drift by chance from the train posts of a run, whose vocabulary is in the folder."""
    from pipeline.checks import chance, drift
    from pipeline.data import posts
    from pipeline.data.vocabulary import Vocabulary

    train_files = [name for name in ingested.files if name.startswith(f"{posts.of_side('train')}/")]
    if not train_files:
        return drift.NO_DRIFT  # the first release kept its posts in another form
    with scratch_folder("learned") as folder:
        lineage.files.fetch(ingested, Path(folder), train_files)
        several = lineage.existing().settings.multi_tag
        return chance.expected(new_posts, Path(folder), Vocabulary.load(words), several=several)


def counted_words(run: Run, manifests: Mapping[str, Manifest], words: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """The summary of the run's ingest, and the local folder with the word counts that its fit_vocabulary left.

    `words` is the folder of those counts among the files of fit_vocabulary; only they are fetched.
    """
    fitted = manifests["fit_vocabulary"]
    listed = {name: entry for name, entry in fitted.files.items() if Path(name).parent == Path(words)}
    run.store.download(fitted.path, listed, folder)
    return manifests["ingest"].summary, folder / words
