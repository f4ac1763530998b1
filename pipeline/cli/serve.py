"""The command `serve`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import StoreOption, store_of
from pipeline.errors import BadInput
from pipeline.registry.registry import Registry


def serve(
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for HTTP.", min=1, max=65535)] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC; 0 for none.", min=0, max=65535)] = 8500,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that every client must send, of 16 characters or more.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name by which to be asked without a token, such as that of a proxy on this machine; may be "
            "repeated.",
        ),
    ] = None,
    keep_alive: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", help="How long an idle connection stays open; longer than a proxy's.", min=1, max=3600
        ),
    ] = 75,
    receive_within: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", help="Time for a request to arrive, and for its answer to be taken.", min=1, max=3600
        ),
    ] = 30,
    shadow: Annotated[
        int | None,
        typer.Option(help="A published version to ask the same posts on the side; /metrics says how often it agrees."),
    ] = None,
    record: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the requests to record, 0 to 1, for feedback and learning.", min=0, max=1
        ),
    ] = 0.0,
    record_text: Annotated[
        bool, typer.Option("--record-text", help="Record the posts' texts, too, not only their sha256.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Start also where there is no store yet, and answer once a run publishes.")
    ] = False,
    access_log: Annotated[bool, typer.Option(help="Print a line of JSON for each request, without its posts.")] = True,
) -> None:
    """Answer over HTTP and gRPC with the live version, and follow promotions and rollbacks.

    Speaks the protocols of TensorFlow Serving, Open Inference (KServe, Triton) and Vertex AI.
    """
    # Before NumPy is imported: batches are small, so its threads would wait for each other longer than they compute.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    there = store_of(store) if wait else store_of(store).require()
    token = _token(token_file)
    try:
        from pipeline.server.app import Server
        from pipeline.server.listen import Listen
        from pipeline.server.recording import Recorder
    except ModuleNotFoundError as error:
        raise BadInput(
            f"`tagger serve` needs the package {error.name}: pip install 'stackoverflow-tagger[serve]'"
        ) from None
    listen = Listen.of(
        os.environ,
        host=host,
        port=port,
        grpc_port=grpc_port or None,
        token=token,
        access_log=sys.stdout if access_log else None,
        keep_alive_seconds=keep_alive,
        receive_seconds=receive_within,
        allowed_hosts=tuple(allow_host or ()),
    )
    recorder = Recorder(there, record, keep_text=record_text) if record else None
    Server(Registry(there), listen, shadow=shadow, recorder=recorder).run()


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--token-file {file} cannot be read: {error}") from None
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise BadInput(f"--token-file {file} must hold one token of 16 printable ASCII characters or more")
    return token
