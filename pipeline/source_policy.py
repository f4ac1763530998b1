"""The rules for sources: which ones Airflow's runs may read, and that none carries or shows a secret."""

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import SourceRefused

SETTING = "TAGGER_ALLOWED_SOURCES"
SAMPLE, BIGQUERY = "sample://", "bigquery://"
WEB = re.compile("https?://", re.IGNORECASE)
LOCAL = re.compile("(?:file|local)://")
PORTS = {"http": 80, "https": 443}

SECRET_PARAMETER = re.compile(r"[?&][^=&#]*(?:token|sig|key|secret|passw|pwd|auth|cred)[^=&#]*=", re.IGNORECASE)
ENCODED = re.compile("%(?:2[ef5]|5c|00)", re.IGNORECASE)
"""An encoded dot, slash, percent sign, backslash or NUL, which a server may decode to another path."""

LONGEST_SHOWN = 200
"""Characters of a source that a message shows."""

GLOBAL_IPV6, NAT64 = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("64:ff9b::/96")
CLOUD_INTERNAL = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
"""Addresses of cloud metadata services (Oracle, Azure) that some releases of Python take for public ones."""


def is_url(source: str) -> bool:
    """Whether the source is a URL; any other is a path on this machine."""
    return "://" in source


def display(text: str) -> str:
    """The source, or the message that quotes one, as it may be shown: a URL without user, password and query.

    The query of a synthetic source or of BigQuery stays, because it says which posts these are; the latter is cut.
    """
    if not is_url(text) or (text.startswith((SAMPLE, BIGQUERY)) and not SECRET_PARAMETER.search(text)):
        return text if not text.startswith(BIGQUERY) or len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    return re.sub(r"[?#].*|(?<=://)[^/?#]*@", "", text, flags=re.DOTALL)


def without_scheme(source: str) -> str:
    """The source; one named by a file:// URL as a path."""
    local = LOCAL.match(source)
    return source[local.end() :] if local else source


def refuse_secrets(source: str) -> None:
    """Raise BadInput where the source holds a user, password or token: it is stored with the run for all to read.

    A secret in the path, or in a parameter with a harmless name, is not recognised.
    """
    users = re.findall(r"://([^/?#]*)@", source)
    if any(WEB.match(source) or ":" in user for user in users) or (is_url(source) and SECRET_PARAMETER.search(source)):
        raise _refused(
            source,
            "contains a user, password or token, which would be stored with the run for all to read: leave it out and "
            "pass it by the storage's own environment variables (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), "
            "or download the file and give its path",
        )


def checked(source: str, allowed: Sequence[str]) -> str:
    """Check the source against the allow-list, and return what to open: a file's real path, or the URL unchanged.

    `allowed` holds absolute paths of folders, and URLs; each allows itself and everything below it. Raises BadInput
    for any other source, and for one that two programs could read in different ways.
    """
    if ambiguity := _ambiguity(source):
        raise _refused(source, f"is refused because it contains {ambiguity}: remove that")
    path = _path(source)
    if path is None and any(_below(source, url) for url in allowed if _path(url) is None):
        return source
    folders = [folder for folder in map(_path, allowed) if folder]
    if path:
        real = os.path.realpath(path)
        if any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders):
            return real
    cure = f"put the file in {folders[0]}, or " if folders else ""
    raise _refused(source, f"is not one that Airflow's runs may read: {cure}ask the operator to add it to {SETTING}")


def reachable(address: str, port: int, allowed: Sequence[str]) -> bool:
    """Whether a download may connect to the IP address: a public one, or the host and port of an allowed URL."""
    return _public(ipaddress.ip_address(address)) or any(
        (address, port) == _site(url)[1:3] for url in allowed if WEB.match(url)
    )


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address belongs to the public internet; for an IPv4 address inside an IPv6 one, that one counts."""
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(ip.packed[-4:]) if ip in NAT64 else None)
        if within:
            return _public(within)
        return ip.is_global and ip in GLOBAL_IPV6
    internal = ip.is_multicast or ip.is_reserved or any(ip in network for network in CLOUD_INTERNAL)
    return ip.is_global and not internal


def _ambiguity(source: str) -> str | None:
    """What in the source two programs could read in different ways, or None."""
    web = WEB.match(source)
    if not source.isprintable() or source != source.strip():
        return "invisible characters"
    if "::" in source and not web:
        return "one URL within another"
    if not is_url(source) or LOCAL.match(source) or source.startswith(BIGQUERY):
        return None
    place = re.split("[?#]", source)[0]
    if "\\" in source or ENCODED.search(place):
        return "a backslash or an encoded dot, slash or percent sign"
    if re.search(r"/\.\.?(?:[/;]|$)", place):
        return "'.' or '..' in its path"
    if web and "@" in place.split("/")[2]:
        return "a user before its host"
    return None


def _path(source: str) -> str | None:
    """The path of a source that is a local file, else None; also for a file:// URL without an absolute path."""
    if local := LOCAL.match(source):
        rest = source[local.end() :]
        return rest if rest.startswith("/") else None
    return None if is_url(source) else os.path.expanduser(source)


def _below(source: str, url: str) -> bool:
    """Whether the source is the URL itself or a path below it; of BigQuery, a table in the dataset or project."""
    if source.startswith(BIGQUERY) and url.startswith(BIGQUERY):
        table, within = (text.removeprefix(BIGQUERY).partition("?")[0] for text in (source, url))
        return within == "" or table == within or table.startswith(f"{within}.")
    if not WEB.match(source):
        return not WEB.match(url) and _starts(source, url)
    if not WEB.match(url):
        return False
    scheme, *place, path = _site(url)
    asked_scheme, *asked_place, asked_path = _site(source)
    if not place[0]:  # the scheme alone, as https://, allows every host
        return asked_scheme == scheme and asked_place[0] != ""
    return (asked_scheme, asked_place) == (scheme, place) and _starts(asked_path, path)


def _starts(text: str, start: str) -> bool:
    return text == start or text.startswith(start.rstrip("/") + "/")


def _site(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path as httpx, which fetches the URL, reads them; BadInput where it cannot."""
    import httpx  # here, because most commands read no URL

    try:
        read = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _refused(url, "is not a valid URL: correct it", f"is not a valid URL ({error}): correct it") from None
    host, path = read.raw_host.decode("ascii").removesuffix("."), read.raw_path.decode("ascii").partition("?")[0]
    return read.scheme, host, read.port or PORTS[read.scheme], path


def _refused(source: str, why: str, why_in_full: str = "") -> SourceRefused:
    """The refusal of a source. `why`, without the source, may be stored; `why_in_full` may quote from it."""
    return SourceRefused(f"the source {_quoted(source)} {why_in_full or why}", f"the source that it was given {why}")


def _quoted(source: str) -> str:
    """The source without secrets, cut to LONGEST_SHOWN characters."""
    return display(source)[:LONGEST_SHOWN]
