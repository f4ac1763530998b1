"""Turns errors of Google's client libraries into sentences that say whether trying again can help."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pipeline.errors import BadInput, TaggerError, Unavailable


class Service(NamedTuple):
    """A service of Google's: its name, the roles that it asks for, and what it is asked to do, in words."""

    name: str
    roles: str
    asked: str


BIGQUERY = Service(
    "BigQuery", "the roles BigQuery Data Viewer, Job User and Read Session User", "the query or the filter"
)
VERTEX = Service("Vertex AI", "the role Vertex AI User, and read access to the bucket", "the model")


@contextmanager
def explained(name: str, service: Service) -> Iterator[None]:
    """Turn errors of a service's client into BadInput, or into Unavailable where a retry can succeed."""
    try:
        yield
    except TaggerError:
        raise
    except Exception as error:
        from google.api_core import exceptions
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

        if isinstance(error, DefaultCredentialsError):
            raise BadInput(
                f"{name} cannot be read without credentials of Google: run gcloud auth application-default login, or "
                "set GOOGLE_APPLICATION_CREDENTIALS or TAGGER_GOOGLE_CONNECTION"
            ) from error
        if isinstance(error, TransportError | ConnectionError) or type(error).__module__.startswith("requests"):
            raise Unavailable(f"{name}: {service.name} could not be reached; try again later") from error
        if isinstance(error, GoogleAuthError):
            raise BadInput(f"{name}: Google refuses the credentials ({_said(error)}); renew them") from error
        if isinstance(error, exceptions.GoogleAPIError):
            raise _of_google(error, name, service) from error
        raise


def _of_google(error: Any, name: str, service: Service) -> BadInput | Unavailable:
    """The sentence for an error that Google's service answered.

    Its reasons are those of https://cloud.google.com/bigquery/docs/error-messages.
    """
    from google.api_core import exceptions

    reasons = {each.get("reason") for each in getattr(error, "errors", []) if isinstance(each, dict)}
    said = _said(error)
    if "bytesBilledLimitExceeded" in reasons:
        return BadInput(f"{name}: the query is more expensive than max_bytes_billed ({said}); raise it in the source")
    if reasons & {"quotaExceeded", "rateLimitExceeded"} or isinstance(
        error, exceptions.TooManyRequests | exceptions.ResourceExhausted
    ):
        return Unavailable(
            f"{name}: a quota of {service.name} is used up ({said}); try again later, or raise the quota"
        )
    if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        return BadInput(f"{name}: Google denies access ({said}); grant {service.roles}")
    if isinstance(error, exceptions.NotFound):
        return BadInput(f"{name} does not exist in {service.name} ({said}): correct the source")
    if isinstance(error, exceptions.FailedPrecondition):
        return Unavailable(f"{name}: {service.name} ended before all was done ({said}); try again")
    if isinstance(error, exceptions.BadRequest):
        return BadInput(f"{name}: {service.name} refuses {service.asked} ({said}); correct it")
    return Unavailable(f"{name}: {service.name} failed ({said}); try again later")


def _said(error: Exception) -> str:
    """The first line of the service's own message, without its URL."""
    text = str(getattr(error, "message", "") or error).strip() or type(error).__name__
    text = re.sub(r"^(?:GET|POST|PUT) \S+: ", "", text.splitlines()[0])
    return re.sub(r"; reason: .*", "", text).rstrip(".")[:300]
