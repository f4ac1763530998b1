"""Finds the results of tunings, and gives a run the settings that won."""

from collections.abc import Iterator

from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.store.names import is_name, required
from pipeline.store.objects import Store
from pipeline.store.runs import RESULT, TUNINGS
from pipeline.tuning.documents import Result

LATEST = "latest"


def result_of(store: Store, name: str) -> Result | None:
    """The result of a tuning; None if it is not finished or does not exist."""
    return store.load(f"{TUNINGS}/{required(name, 'tuning')}/{RESULT}", Result)


def results(store: Store) -> Iterator[Result]:
    """The results of all finished tunings; anything else in their folder is ignored."""
    for name in filter(is_name, store.folders(TUNINGS)):
        if result := result_of(store, name):
            yield result


def latest(store: Store, without: str = "") -> Result | None:
    """The result of the tuning that finished last, leaving out the one of this name; None if there is none."""
    finished = [result for result in results(store) if result.tuning != without]
    return max(finished, key=lambda result: result.finished, default=None)


def with_tuned(store: Store, settings: Settings, known: Settings | None = None) -> Settings:
    """The run's settings with those of the winner that the setting `tuned` names; `tuned` is then the tuning's name.

    If the run was begun before, with the `known` settings, its latest tuning stays the one that was the latest then.
    Raises BadInput if there is no such tuning, or if it is not finished.
    """
    if settings.tuned is None:
        return settings
    named = known.tuned if known and known.tuned and settings.tuned == LATEST else settings.tuned
    result = latest(store) if named == LATEST else result_of(store, named)
    if result is None:
        which = "no tuning is finished" if settings.tuned == LATEST else f"tuning {settings.tuned!r} is not finished"
        raise BadInput(f"tuned={settings.tuned}: {which} in {store.url}; start one with `tagger tune`, or unset tuned")
    return Settings.of(settings.model_dump() | result.winning_settings | {"tuned": result.tuning})
