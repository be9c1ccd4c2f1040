#!/bin/sh
# A database for the server, and an owner who is no superuser: PostgreSQL holds superusers to no row-level security.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$(cat "$POSTGRES_PASSWORD_FILE")" --username postgres <<'SQL'
CREATE ROLE keeper LOGIN PASSWORD :'password';
CREATE DATABASE bank OWNER keeper;
\connect bank
CREATE EXTENSION vector;
SQL
