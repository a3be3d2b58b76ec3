"""Tenants on PostgreSQL: a schema and a role for each in one database, kept apart by the server too (T79)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from tenant_kit import HostBench

from cloister.custodian.setup import backup_custodian, restore_custodian
from cloister.custodian.store.postgres import PostgresStore, plain_engine
from cloister.custodian.vaults.encrypted_file import KeyFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_kit import PostgresServer


@pytest.fixture
def schemas(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Yield the URL of each of three schemas of one database, each with a role that owns nothing else."""
    database = postgres.create()
    name, where = database.partition("@/")[2].split("?", 1)
    roles = {tenant: f"{name}_{tenant}" for tenant in ("acme", "zenith", "third")}
    for role in roles.values():
        postgres.sql(f"CREATE ROLE {role} LOGIN", database)
        postgres.sql(f"CREATE SCHEMA AUTHORIZATION {role}", database)
        postgres.sql(f"ALTER ROLE {role} SET search_path = {role}", database)
    yield {tenant: f"postgresql://{role}@/{name}?{where}" for tenant, role in roles.items()}
    postgres.drop(database)


def test_two_schemas_of_one_database_are_two_tenants(place: Path, schemas: dict[str, str]) -> None:
    with HostBench(place, bounds={"database_connections": 3}) as host:
        acme = host.tenant("acme", settings={"database": schemas["acme"]})
        zenith = host.tenant("zenith", settings={"database": schemas["zenith"]})
        ours, theirs = acme.lend(allowance=10), zenith.lend(allowance=7)
        ours.boot().renew()
        theirs.boot()
        assert acme.get(f"/v1/loans/{theirs.id}").status_code == 404
        assert host.shown("acme")["totals"]["loans"] == host.shown("zenith")["totals"]["loans"] == 1
        with plain_engine(schemas["acme"]) as engine, engine.connect() as connection:
            other = schemas["zenith"].partition("//")[2].partition("@")[0]
            with pytest.raises(Exception, match="permission denied"):
                connection.execute(text(f"SELECT * FROM {other}.loan"))  # noqa: S608 - a name of ours
        host.restart()
        assert (acme.get("/v1/loans").status_code, zenith.get("/v1/loans").status_code) == (200, 200)


def test_schemas_share_no_lock(schemas: dict[str, str]) -> None:
    """One that waits alone for ever keeps another waiting for nothing."""
    first, second = (PostgresStore(schemas[name], fence=name.encode()) for name in ("acme", "zenith"))
    assert first._locks != second._locks
    with first.writing(fenced=False, alone=True), second.writing(fenced=False, alone=True) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    first.close()
    second.close()


def test_a_schema_has_one_tenant(place: Path, schemas: dict[str, str]) -> None:
    with HostBench(place) as host:
        host.tenant("acme", settings={"database": schemas["acme"]})
        answer = host.call("POST", "/operator/tenants", {"name": "zenith", "settings": {"database": schemas["acme"]}})
        assert answer.status_code == 400
        assert "belongs to another custodian" in answer.json()["detail"]
        assert host.shown("acme")["health"] == "ready"


def test_a_search_path_that_leads_nowhere_says_so(postgres: PostgresServer) -> None:
    database = postgres.create()
    with pytest.raises(Exception, match="search path"):
        PostgresStore(f"{database}&options=-csearch_path%3Dnowhere", fence=b"x")
    postgres.drop(database)


def test_a_tenant_on_postgresql_is_backed_up_and_comes_back_in_another_schema(
    place: Path, schemas: dict[str, str], tmp_path: Path
) -> None:
    with HostBench(place) as host:
        acme = host.tenant("acme", settings={"database": schemas["acme"]})
        lent = acme.lend(allowance=5)
        host.change("acme", "suspend")
        backup_custodian(acme.home, tmp_path / "acme.backup")
        config = acme.home / "config.toml"
        config.write_text(config.read_text().replace(schemas["acme"], schemas["third"]))
        restore_custodian(acme.home, KeyFile(host.home / "keys" / "acme.key"), tmp_path / "acme.backup")
        host.change("acme", "resume")
        assert lent.balance() == 5


def test_a_database_that_is_away_is_one_tenants_trouble(place: Path, postgres: PostgresServer) -> None:
    database = postgres.create()
    with HostBench(place) as host:
        acme, zenith = host.tenant("acme", settings={"database": database}), host.tenant("zenith")
        postgres.drop(database)
        assert acme.get("/v1/loans").status_code == 503
        assert zenith.get("/v1/loans").status_code == 200
        assert host.shown("acme")["health"] == "failed"
