"""The error of a request that is not answered, as each protocol's own shape tells it."""

from collections.abc import Mapping

LONGEST = 600
"""Characters of a sentence: what it quotes of a request may be as long as the request."""


class Refused(Exception):
    """A request is not answered: `status` is the HTTP status, `str(error)` the sentence for the client."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]}...")
        self.status, self.headers = status, headers or {}
