"""Renders the page of the published versions: what is live, since when, by whom and why, and what was before."""

from collections.abc import Callable

from markupsafe import Markup

from pipeline.registry.events import PROMOTE, PUBLISH, ROLLBACK, Event
from pipeline.registry.registry import Registry
from pipeline.registry.series import Series
from pipeline.report import figures, html

SHOWN = 30
"""Observations of the series that the page lists, the newest ones; the figure has all."""

WORDS = {PUBLISH: "Published", PROMOTE: "Promoted", ROLLBACK: "Rolled back"}

CHANGES = 50
"""Entries of the log on one page, which also has the versions that they are about."""


def render(
    registry: Registry,
    report_link: Callable[[str], str] | None = None,
    older_link: Callable[[int], str] | None = None,
    before: int | None = None,
) -> str:
    """The page as HTML, of the newest entries of the log, or of those before the one with this number.

    `report_link` makes the address of a run's report from the run's name, and `older_link` that of another page from
    the number of the entry before which it ends.
    """
    events = registry.events()
    shown = [event for event in events if before is None or event.number < before][-CHANGES:]
    has_older = bool(shown) and shown[0].number > 1
    cards = registry.cards_of(shown)
    live = registry.card(events[-1].live) if events else None
    entries = Series(registry.store)
    series, agreements = entries.observations(), entries.agreements()
    lived = {event.live for event in events}
    points = [(card.published, card.accuracy, card.version in lived) for card in reversed(cards)]
    return html.render(
        "models",
        live=live,
        since=_since(events),
        cards=cards,
        collected=registry.collected_versions(),
        events=shown[::-1],
        older=older_link(shown[0].number) if older_link and has_older else None,
        words=WORDS,
        series=series[::-1][:SHOWN],
        agreements=agreements[::-1][:SHOWN],
        watched=Markup(figures.watched(series)) if series else "",  # noqa: S704 - drawn from numbers
        report_link=report_link,
        drawn=Markup(figures.accuracy_over_time(points)) if points else "",  # noqa: S704 - drawn from numbers
    )


def _since(events: list[Event]) -> Event | None:
    """The event by which the live version went live; None if no version is live."""
    before = [None, *(event.live for event in events)]
    changes = [event for event, live in zip(events, before, strict=False) if event.live != live]
    return changes[-1] if changes else None
