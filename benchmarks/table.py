"""What every benchmark gives: rows of one table, each with its peer and what it is to reach."""

from dataclasses import asdict, dataclass
from typing import Any

NOTEBOOK = "the article's notebook"

SAME = 0.99
"""An accuracy is the peer's if it is at least so many times that: at most 0.01 below."""

LINE = "{:<40}{:>8} {:<12}{:<32}{:>8}{:>7}{:>8}  {}"


@dataclass(frozen=True)
class Row:
    """Our figure of `what`, in `unit`, beside the peer's where there is one.

    `ratio` is of ours to the peer's. `reach` bounds the ratio, or our figure where there is no peer: from above where
    `least`, the `unit` being one of which less is better, from below otherwise; None where nothing was set.
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
        """Whether the bound holds; None where there is none."""
        if self.reach is None:
            return None
        figure = self.ours if self.ratio is None else self.ratio
        return figure <= self.reach if self.least else figure >= self.reach

    def told(self) -> dict[str, Any]:
        """The row as JSON can say it."""
        return asdict(self) | {"ratio": self.ratio, "reached": self.reached}


def head() -> str:
    """What the columns are."""
    return LINE.format("what", "ours", "unit", "peer", "theirs", "ratio", "reach", "reached").rstrip()


def lines(rows: list[Row]) -> str:
    """A line a row."""
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
