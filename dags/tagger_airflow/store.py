"""Opens the store, and the run in it, for a task, with the keys of an Airflow connection or of the environment."""

from datetime import datetime

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from pipeline.errors import BadInput
from pipeline.settings import Deployment
from pipeline.store.objects import Store
from pipeline.store.runs import Run, identifier_of, name_of


def store_of(deployment: Deployment) -> Store:
    """Open the deployment's store; the setting store_connection names the Airflow connection with its keys.

    The connection's fields are those of Airflow's own AWS hooks: login and password, and in extra endpoint_url,
    region_name and aws_session_token. Airflow masks them in its logs, and they are passed to the filesystem only.
    Raises BadInput where there is no such connection, or where it is not of type aws or the store not on S3.
    """
    if deployment.store_connection is None:
        return Store(deployment.store)
    setting = f"TAGGER_STORE_CONNECTION={deployment.store_connection}"
    connection = connection_of(setting, deployment.store_connection)
    if connection.conn_type != "aws" or not deployment.store.startswith("s3://"):
        raise BadInput(
            f"{setting} has type {connection.conn_type} and the store is {deployment.store}: only type aws with an "
            "s3:// store is supported; for another store unset the variable and set its keys in the environment"
        )
    extra = connection.extra_dejson
    return Store(
        deployment.store,
        key=connection.login,
        secret=connection.password,
        token=extra.get("aws_session_token"),
        client_kwargs={name: extra[name] for name in ("endpoint_url", "region_name") if name in extra},
    )


def connection_of(setting: str, name: str) -> Connection:
    """The Airflow connection of that name, which `setting` asks for; BadInput if there is none."""
    try:
        found: Connection = Connection.get(name)
    except AirflowNotFoundException:
        raise BadInput(f"{setting}: Airflow has no connection of that name; add it, or unset the variable") from None
    return found


def run_of(deployment: Deployment, run_id: str, logical_date: datetime | None) -> Run:
    """The run in the deployment's store that belongs to a run of Airflow's; BadInput as `store_of`, `identifier_of`."""
    return Run(store_of(deployment), name_of(identifier_of(run_id, logical_date)))
