"""Lends a task the Google credentials of an Airflow connection."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.files import scratch_folder
from pipeline.settings import Deployment
from tagger_airflow.store import connection_of

KEY, PROJECT = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"
"""The environment variables by which Google's libraries find a key and the project that pays."""


@contextmanager
def google_credentials(deployment: Deployment) -> Iterator[None]:
    """Let Google's libraries find the key of the connection that the setting google_connection names, if any.

    The connection's fields are those of Airflow's own Google hooks: in extra keyfile_dict or key_path, and project. The
    key is in a file that only this user can read, and is removed afterwards. Raises BadInput where there is no such
    connection, or none with a key.
    """
    if deployment.google_connection is None:
        yield
        return
    setting = f"TAGGER_GOOGLE_CONNECTION={deployment.google_connection}"
    connection = connection_of(setting, deployment.google_connection)
    extra = connection.extra_dejson
    key, path = extra.get("keyfile_dict"), extra.get("key_path")
    if connection.conn_type != "google_cloud_platform" or not (key or path):
        raise BadInput(
            f"{setting} has type {connection.conn_type} and {'a' if key or path else 'no'} key: it must be of type "
            "google_cloud_platform with keyfile_dict or key_path; or unset the variable"
        )
    before = dict(os.environ)
    with scratch_folder("key") as folder:
        if key:
            path = Path(folder, "key.json")  # the folder is its owner's only
            path.write_text(key if isinstance(key, str) else json.dumps(key), encoding="utf-8")
        os.environ[KEY] = str(path)
        if extra.get("project"):
            os.environ[PROJECT] = extra["project"]
        try:
            yield
        finally:
            for name in (KEY, PROJECT):
                os.environ.pop(name, None)
                os.environ.update({name: before[name]} if name in before else {})
