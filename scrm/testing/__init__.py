"""The kit with which plugins, and scrm itself, are tested; needs the `dev` extra."""

from scrm.testing.postgres import PostgresServer, postgres_server
from scrm.testing.postgres_process import PostgresUnavailableError

__all__ = ["PostgresServer", "PostgresUnavailableError", "postgres_server"]
