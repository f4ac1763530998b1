"""The Google credentials that a task is lent by an Airflow connection."""

import json
import os
from pathlib import Path

import google.auth
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipeline.errors import BadInput
from pipeline.settings import Deployment
from tagger_airflow.google import google_credentials

OURS = Deployment(google_connection="ours")


@pytest.fixture
def key() -> dict[str, str]:
    """A service account's key as Google hands it out, with a private key of our own."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "theirs",
        "private_key": pem.decode(),
        "client_email": "tagger@theirs.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def connection(monkeypatch: pytest.MonkeyPatch, kind: str = "google_cloud_platform", **extra: object) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OURS", json.dumps({"conn_type": kind, "extra": extra}))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def test_googles_libraries_find_the_key_while_the_task_runs(monkeypatch, key):
    connection(monkeypatch, keyfile_dict=json.dumps(key), project="ours")
    with google_credentials(OURS):
        path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        assert path.parent.stat().st_mode & 0o077 == 0
        credentials, project = google.auth.default()
        assert credentials.service_account_email == key["client_email"]
        assert project == "ours"
    assert not path.exists()
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
    assert "GOOGLE_CLOUD_PROJECT" not in os.environ


def test_a_key_in_a_file_is_used_from_there(monkeypatch, key, tmp_path):
    (tmp_path / "key.json").write_text(json.dumps(key))
    connection(monkeypatch, key_path=f"{tmp_path}/key.json")
    with google_credentials(OURS):
        assert google.auth.default()[1] == "theirs"


def test_a_connection_that_cannot_be_used_is_refused(monkeypatch):
    connection(monkeypatch, kind="aws")
    with (
        pytest.raises(BadInput, match="TAGGER_GOOGLE_CONNECTION=ours has type aws and no key"),
        google_credentials(OURS),
    ):
        pass
    monkeypatch.delenv("AIRFLOW_CONN_OURS")
    with pytest.raises(BadInput, match="Airflow has no connection of that name"), google_credentials(OURS):
        pass


def test_without_the_setting_nothing_changes():
    before = dict(os.environ)
    with google_credentials(Deployment()):
        assert dict(os.environ) == before
