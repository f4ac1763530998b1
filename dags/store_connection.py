"""Opens the store for a task: with the keys of Airflow's connection where one is named, else with the environment's."""

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.store.objects import Store


def store_of(settings: Settings) -> Store:
    """The keys go from Airflow, which masks them in its logs from then on, to the filesystem and nowhere else.

    The connection's fields are those of Airflow's own AWS hooks: login and password, and in extra endpoint_url,
    region_name and aws_session_token. Raises BadInput where there is no such connection, or it is not for this store.
    """
    if settings.store_connection is None:
        return Store(settings.store)
    named = f"TAGGER_STORE_CONNECTION={settings.store_connection}"
    try:
        connection = Connection.get(settings.store_connection)
    except AirflowNotFoundException:
        raise BadInput(f"{named}: Airflow has no connection of that name; add it, or unset the variable") from None
    if connection.conn_type != "aws" or not settings.store.startswith("s3://"):
        raise BadInput(
            f"{named} is of type {connection.conn_type} and the store is {settings.store}: only one of type aws for an "
            "s3:// store can be used; for another store unset the variable, and give its credentials by the environment"
        )
    extra = connection.extra_dejson
    return Store(
        settings.store,
        key=connection.login,
        secret=connection.password,
        token=extra.get("aws_session_token"),
        client_kwargs={name: extra[name] for name in ("endpoint_url", "region_name") if name in extra},
    )
