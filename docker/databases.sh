#!/usr/bin/env bash
# Airflow's database, and one for what Celery's workers answer: a worker cannot open the other.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres <<SQL
CREATE ROLE airflow LOGIN PASSWORD '$AIRFLOW_DB_PASSWORD';
CREATE ROLE celery LOGIN PASSWORD '$CELERY_DB_PASSWORD';
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE celery OWNER celery;
REVOKE CONNECT ON DATABASE airflow, celery FROM PUBLIC;
SQL
