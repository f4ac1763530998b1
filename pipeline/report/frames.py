"""Reads runs, evaluations and predictions into pandas frames, for a notebook."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipeline.data import held_out, posts, tag_matrix
from pipeline.errors import BadInput, CorruptArtifact, StageOutOfOrder
from pipeline.files import read_lines, scratch_folder
from pipeline.report.facts import Facts
from pipeline.report.runs import SCORES, newest_first
from pipeline.settings import read
from pipeline.stages.plan import LABELS
from pipeline.store.objects import Store
from pipeline.store.runs import Run, find_run


class Runs:
    """The runs of a store, as pandas frames.

    `store` is a folder or fsspec URL; by default TAGGER_STORE, or `store` in this folder, as for the command line.
    """

    def __init__(self, store: str | None = None) -> None:
        self._store = Store(store or read(os.environ)[1].store).require()

    def frame(self) -> pd.DataFrame:
        """One row for each run, newest first, indexed by the run's name: outcome, scores and all settings.

        A run that cannot be read is left out, with a warning.
        """
        rows = []
        for each in newest_first(self._store, _warn):
            evaluated = each["stages"].get("evaluate", {}).get("summary", {})
            refused = each["refused"]["why"] if each["refused"] else "; ".join(each["reasons"])
            rows.append(
                {name: each[name] for name in ("run", "created", "verdict")}
                | {name: evaluated.get(name) for name in SCORES}
                | {"version": each["version"], "seconds": each["seconds"], "refused": refused or None}
                | each["settings"]
            )
        frame = pd.DataFrame(rows, columns=None if rows else ["run", "created"])
        frame["created"] = pd.to_datetime(frame["created"], utc=True, format="ISO8601")
        if "version" in frame:
            frame["version"] = frame["version"].astype("Int64")
        return frame.set_index("run")

    def by_tag(self, run: str) -> pd.DataFrame:
        """Precision, recall, F1 score and support of each tag in a run's evaluation, indexed by tag."""
        evaluation = Facts.of(self._run(run)).evaluation
        if not evaluation:
            raise StageOutOfOrder(f"run {run} has not been evaluated: run its stage evaluate first")
        return pd.DataFrame.from_dict(evaluation["per_tag"], orient="index").rename_axis("tag")

    def curve(self, run: str) -> pd.DataFrame:
        """Losses, and accuracy if there are validation posts, after each epoch of a run's training."""
        trained = self._run(run).manifest("train")
        curve = trained.summary.get("curve", []) if trained else []
        return pd.DataFrame(curve, columns=None if curve else ["epoch"]).set_index("epoch")

    def predictions(self, run: str) -> pd.DataFrame:
        """A run's answers to the test posts: row, post, tag, predicted tag, and the highest probability.

        Several tags are one text, such as `pandas|python`.
        """
        found = self._run(run)
        with _folders(found, "ingest", "fit_vocabulary", "evaluate") as folders:
            labels, several = read_lines(folders["fit_vocabulary"] / LABELS), found.existing().settings.multi_tag
            answers = pa.Table.from_batches(list(posts.batches(folders["evaluate"], "predictions")))
            shown = held_out.HeldOut(folders["ingest"], labels, several).batches()
            texts = pa.chunked_array([batch.column("post") for batch in shown], pa.string())
        probabilities = answers.column("probabilities").combine_chunks().flatten().to_numpy()
        return pd.DataFrame(
            {
                "row": answers.column("row").to_numpy(),
                "post": texts.to_pylist(),
                "tag": tag_matrix.tags_of(answers.column("label"), labels),
                "predicted": tag_matrix.tags_of(answers.column("predicted"), labels),
                "probability": probabilities.reshape(-1, len(labels)).max(axis=1),
            }
        )

    def _run(self, given: str) -> Run:
        run = find_run(self._store, given)
        if run is None:
            raise BadInput(f"{self._store.url} holds no run {given!r}: Runs().frame() lists its runs")
        return run


def _warn(run: Run, error: CorruptArtifact) -> None:
    import warnings

    warnings.warn(f"run {run.name} is left out: {error}", stacklevel=3)


@contextmanager
def _folders(run: Run, *stages: str) -> Iterator[dict[str, Path]]:
    """Copies of what these stages of the run left; StageOutOfOrder if one has not been run."""
    with scratch_folder("frames") as scratch:
        folders = {stage: Path(scratch, stage) for stage in stages}
        for stage, folder in folders.items():
            manifest = run.manifest(stage)
            if manifest is None:
                raise StageOutOfOrder(f"run {run.name} has no result of {stage}: run that stage first")
            run.files.fetch(manifest, folder)
        yield folders
