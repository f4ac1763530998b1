"""The page at `/`: a person pastes a post and sees its tags, their probabilities, and the words that spoke for them."""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.data.several_tags import SEPARATOR
from pipeline.report import html
from pipeline.server import bodies
from pipeline.server.errors import Refused
from pipeline.server.http import route
from pipeline.server.versions import Limits, Versions

SHOWN = 5
"""Tags, the most probable first."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser hides the origin of the form from the server, too
    "Cache-Control": "no-store",
}


class Page:
    """The form and its answer, without a script."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions

    def routes(self) -> list[Route]:
        """The page's address."""
        return [route("/", self.show, "GET", "POST")]

    async def show(self, request: Request) -> Response:
        """The form; to a post also what the live version says of it, or a sentence that says why it says nothing."""
        text, status = "", 200
        values: dict[str, object] = {"rows": [], "words": [], "error": "", "version": None}
        try:
            if request.method == "POST":
                text = await _text(request, self.versions.limits)
                values |= await self._answer(text)
            values["version"] = self.versions.named().version
        except Refused as error:
            status, values["error"] = error.status, str(error)
        page = html.render("serve", text=text, address=request.base_url, **values)
        return HTMLResponse(page, status, HEADERS)

    async def _answer(self, text: str) -> dict[str, object]:
        if not text.strip():
            raise Refused(400, "there is no text: paste a post")
        post = bodies.refuse_too_long(text.encode(errors="replace"), "the post", self.versions.limits)
        answer = await self.versions.tag([post])
        [probabilities] = answer.probabilities
        given = answer.given[0].split(SEPARATOR) if answer.several else answer.given
        # The tags that it gets come first, however many they are.
        order = sorted(range(len(answer.labels)), key=lambda at: (answer.labels[at] not in given, -probabilities[at]))
        order = order[: max(SHOWN, len(given))]
        words = await self.versions.words_for(post, order[0])
        largest = max((share for _, share in words), default=1.0)
        return {
            "rows": [(answer.labels[at], float(probabilities[at]), answer.labels[at] in given) for at in order],
            "of": answer.tags[0],
            "words": [(word, share / largest) for word, share in words],
        }


async def _text(request: Request, limits: Limits) -> str:
    """The field `post` of the form."""
    content = await request.body()
    if len(content) > 3 * limits.post_bytes + len("post="):  # each byte may be written as %20
        raise Refused(413, f"the form has {len(content):,} bytes: a post may have at most {limits.post_bytes:,}")
    try:
        fields = parse_qs(content.decode(), keep_blank_values=True, max_num_fields=2)
    except ValueError:
        raise Refused(400, "the form cannot be read: send the field `post`") from None
    return fields.get("post", [""])[0]
