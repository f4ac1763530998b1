"""Which sources a person at Airflow's trigger form may name, and which addresses their downloads may reach."""

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

import httpx

from pipeline.errors import BadInput

SETTING = "TAGGER_ALLOWED_SOURCES"
WEB = re.compile("https?://", re.IGNORECASE)
LOCAL = re.compile("(?:file|local)://")
PORTS = {"http": 80, "https": 443}

SECRET_PARAMETER = re.compile(r"[?&][^=&#]*(?:token|sig|key|secret|passw|pwd|auth|cred)[^=&#]*=", re.IGNORECASE)
ENCODED = re.compile("%(?:2[ef5]|5c|00)", re.IGNORECASE)
"""Dot, slash, percent, backslash and NUL: what a server may decode into another path than the one compared."""

GLOBAL_IPV6, NAT64 = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("64:ff9b::/96")
INNER_IPV4 = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
"""Where clouds (Oracle, Azure) speak to their machines, and which some releases of Python take for public."""


def refuse_secrets(source: str) -> None:
    """BadInput where the source holds a user, a password or a token: it is stored with the run for all to read.

    A secret in the path, or in a parameter with an innocent name, cannot be told from the rest.
    """
    users = re.findall(r"://([^/?#]*)@", source)
    if any(WEB.match(source) or ":" in user for user in users) or ("://" in source and SECRET_PARAMETER.search(source)):
        raise BadInput(
            f"the source {_named(source)} carries a user, a password or a token, which would be kept with the run for "
            "all to read; leave it out and give it by the storage's own environment variables (such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or download the file and name its path"
        )


def checked(source: str, allowed: Sequence[str]) -> str:
    """What to open for the source: the real path of a file, any other source as it is.

    `allowed` holds folders, whole paths all, and URLs; a URL allows itself and what is below it. Raises BadInput for
    any other source, and for one that different programs may read differently.
    """
    if trick := _trick(source):
        raise BadInput(f"the source {_named(source)} is refused because it holds {trick}; write it without")
    path = _path(source)
    if path is None and any(_below(source, url) for url in allowed if _path(url) is None):
        return source
    folders = [folder for folder in map(_path, allowed) if folder]
    if path:
        real = os.path.realpath(path)
        if any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders):
            return real
    cure = f"put the file in {folders[0]}, or " if folders else ""
    raise BadInput(
        f"the source {_named(source)} is none that Airflow's runs may read; {cure}ask the operator to add it to "
        f"{SETTING}"
    )


def reachable(address: str, port: int, allowed: Sequence[str]) -> bool:
    """Whether the IP address is one of the public internet, or the very host, with this port, of an allowed URL."""
    return _public(ipaddress.ip_address(address)) or any(
        (address, port) == _site(url)[1:3] for url in allowed if WEB.match(url)
    )


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(ip.packed[-4:]) if ip in NAT64 else None)
        if within:
            return _public(within)
        return ip.is_global and ip in GLOBAL_IPV6
    inner = ip.is_multicast or ip.is_reserved or any(ip in network for network in INNER_IPV4)
    return ip.is_global and not inner


def _trick(source: str) -> str | None:
    """What makes a source ambiguous, or None."""
    web = WEB.match(source)
    if not source.isprintable() or source != source.strip():
        return "characters that cannot be seen"
    if "::" in source and not web:
        return "one URL within another"
    if "://" not in source or LOCAL.match(source):
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
    """The path of a source that is a file here, or None; a file:// URL without a whole path is as good as none."""
    if local := LOCAL.match(source):
        rest = source[local.end() :]
        return rest if rest.startswith("/") else None
    return None if "://" in source else os.path.expanduser(source)


def _below(source: str, url: str) -> bool:
    """Whether the source is the URL or, from a '/' on, below it."""
    if not WEB.match(source):
        return not WEB.match(url) and _starts(source, url)
    if not WEB.match(url):
        return False
    scheme, *place, path = _site(url)
    asked_scheme, *asked_place, asked_path = _site(source)
    if not place[0]:  # the scheme alone: any host, but one
        return asked_scheme == scheme and asked_place[0] != ""
    return (asked_scheme, asked_place) == (scheme, place) and _starts(asked_path, path)


def _starts(text: str, start: str) -> bool:
    return text == start or text.startswith(start.rstrip("/") + "/")


def _site(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path, as the client that fetches it reads them; BadInput where it cannot."""
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadInput(f"{_named(url)} is no URL ({error}); correct it") from None
    host, path = read.raw_host.decode("ascii").removesuffix("."), read.raw_path.decode("ascii").partition("?")[0]
    return read.scheme, host, read.port or PORTS[read.scheme], path


def _named(source: str) -> str:
    """The source without what may be secret or would steer a terminal."""
    plain = re.sub(r"[?#].*|(?<=://)[^/?#]*@", "", source, flags=re.DOTALL)[:200]
    return plain if plain.isprintable() else ascii(plain)
