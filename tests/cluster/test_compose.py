"""docker/: what can be said of the container files without a container engine."""

import re
import stat

import pytest

from tests.cluster.compose import FOLDER, ROOT, SECRET, SERVICES, filled, secrets_of, writable
from tests.cluster.conftest import MODELS, ONCE, PARTS, SERVE

TEXT = (FOLDER / "compose.yaml").read_text()
LASTING = [name for name, service in SERVICES.items() if service.get("restart") != "no"]

NOT_YET = {"serving"}
"""Not healthy before a first model is published."""

PAGES = (ROOT / "docs" / "how-to" / "several-machines.md", FOLDER / "README.md")


def words(part):
    """Every string in a part of the file."""
    if isinstance(part, dict):
        return [word for value in part.values() for word in words(value)]
    return [word for value in part for word in words(value)] if isinstance(part, list) else [str(part)]


@pytest.mark.parametrize("name", LASTING)
def test_every_service_that_stays_says_whether_it_is_healthy(name):
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_root_or_may_become_it(name):
    service = SERVICES[name]
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"} & set(service)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("postgres", "/var/lib/postgresql/data"),
        ("postgres", "/var/run/postgresql"),
        ("s3", "/store"),
    ],
)
def test_what_an_image_of_others_writes_is_in_a_place_that_may_be_written(name, path):
    assert any(f"{path}/".startswith(f"{place}/") for place in writable(name))


def ups(page):
    """Of each `docker compose up` that is shown: its options, and the services that it names."""
    shown = page.read_text().replace("\\\n", " ")
    for command in re.findall("^ .*docker compose --file docker/compose.yaml up ([^#\n]*)", shown, flags=re.MULTILINE):
        named = [word for word in command.split() if not word.startswith("--")]
        yield {word for word in command.split() if word.startswith("--")}, named


def started(names):
    """What compose starts where these are named: they, and what they depend on; all where none is."""
    needed = [name for each in names for name in SERVICES[each].get("depends_on", {})]
    return {*names, *started(needed)} if names else set()


@pytest.mark.parametrize("page", PAGES, ids=["several-machines", "docker/README"])
def test_the_commands_shown_start_every_service(page):
    assert set().union(*(started(names or list(SERVICES)) for _, names in ups(page))) == set(SERVICES)


@pytest.mark.parametrize("page", PAGES, ids=["several-machines", "docker/README"])
def test_no_command_shown_waits_for_what_does_not_become_healthy(page):
    """What ends by itself may only be waited for as something that another depends on."""
    for options, names in ups(page):
        if "--wait" in options:
            assert names
            assert not started(names) & NOT_YET
            assert set(names) <= set(LASTING)


def test_the_image_runs_as_the_same_user():
    stages = re.split("^FROM ", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users = [re.findall("^USER (.+)$", stage, flags=re.MULTILINE) for stage in stages]
    assert users == [[SERVICES["worker"]["user"]], [SERVICES["s3"]["user"]]]


def test_every_image_is_pinned():
    bases = re.findall("^FROM (.+?)(?: AS .+)?$", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    for image in [*bases, *(service["image"] for service in SERVICES.values())]:
        assert re.search(r":[\w.-]*\d+[.-]\d+[\w.-]*$", image), image
        assert "latest" not in image


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_published_is_for_this_machine_only(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_every_secret_is_made_by_make_env_for_its_owner_only(tmp_path):
    env = tmp_path / ".env"
    secrets = secrets_of(env)
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert set(SECRET.findall(TEXT)) == set(secrets)
    assert len(set(secrets.values())) == len(secrets)
    assert all(len(secret) >= 40 for secret in secrets.values())
    for word in words(SERVICES):
        filled(word, secrets)


def test_secrets_that_are_in_use_are_not_replaced(tmp_path):
    (tmp_path / ".env").write_text("in use")
    with pytest.raises(Exception, match="returned non-zero exit status 1"):
        secrets_of(tmp_path / ".env")
    assert (tmp_path / ".env").read_text() == "in use"


def test_no_secret_is_written_out():
    named = re.compile(r"PASSWORD|SECRET|FERNET|AUTH$|TOKEN")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if named.search(variable) and not variable.endswith("_FILE"):
                assert SECRET.fullmatch(value), f"{name}: {variable}"
            for password in re.findall(r"://[^/]*:([^@/]*)@", value):
                assert SECRET.fullmatch(password), f"{name}: {variable}"


def test_secrets_stay_out_of_git_and_out_of_the_image():
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()
    copied = [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert not [line for line in copied if ".env" in line or line.rstrip("/") in {"!docker", "!.", "!*"}]


def test_a_worker_cannot_open_airflows_database_or_sign_in_airflows_name():
    told = " ".join(words(SERVICES["worker"]["environment"]))
    assert not {"AIRFLOW_DB_PASSWORD", "POSTGRES_PASSWORD", "JWT_SECRET", "FERNET_KEY"} & set(SECRET.findall(told))


def test_the_stores_key_is_with_those_that_use_the_store():
    holders = {
        name for name, service in SERVICES.items() if "STORE_PASSWORD" in SECRET.findall(" ".join(words(service)))
    }
    assert holders == {"s3", "bucket", "worker", "models", "api-server", "serve"}


def test_the_services_that_the_cluster_test_starts_are_all_that_are_ours():
    ours = {name for name, service in SERVICES.items() if service["image"] == SERVICES["worker"]["image"]}
    assert ours == {*PARTS, *ONCE, MODELS, SERVE, "worker"}
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
