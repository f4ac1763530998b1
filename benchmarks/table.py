"""The table of results: each row compares a figure with a peer's and with the bound that was set for it."""

from dataclasses import asdict, dataclass
from typing import Any

NOTEBOOK = "the article's notebook"

SAME = 0.99
"""The bound for accuracies: at least this ratio to the peer's, so at most 0.01 below it."""

LINE = "{:<40}{:>8} {:<12}{:<32}{:>8}{:>7}{:>8}  {}"


@dataclass(frozen=True)
class Row:
    """Our figure of `what`, in `unit`, and the peer's if there is one.

    `reach` is the bound of the ratio of ours to the peer's, or of our figure if there is no peer; None if none was set.
    With `least`, less is better and it is an upper bound, otherwise a lower bound.
    """

    what: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    reach: float | None = None
    least: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether the bound holds; None if there is none."""
        if self.reach is None:
            return None
        figure = self.ours if self.ratio is None else self.ratio
        return figure <= self.reach if self.least else figure >= self.reach

    def to_dict(self) -> dict[str, Any]:
        """The row for results.json."""
        return asdict(self) | {"ratio": self.ratio, "reached": self.reached}


def head() -> str:
    """The headings of the columns."""
    return LINE.format("what", "ours", "unit", "peer", "theirs", "ratio", "reach", "reached").rstrip()


def lines(rows: list[Row]) -> str:
    """Format the rows, one per line."""
    return "\n".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    bound = "" if row.reach is None else f"{'<=' if row.least else '>='} {row.reach:g}"
    reached = {None: "", True: "yes", False: "no"}[row.reached]
    ours, theirs = _number(row.ours), _number(row.theirs)
    return LINE.format(row.what, ours, row.unit, row.peer, theirs, ratio, bound, reached).rstrip()


def _number(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"
