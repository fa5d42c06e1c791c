"""The migrations make what the models say, also when several processes run them at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine

from core.db import migrate
from core.db.models import Base
from core.db.session import driver_url
from core.errors import Unavailable
from core.schemas.job import JobSpec, ScreenSpec
from core.schemas.judges import RulesJudge
from core.schemas.screening import ScreeningPolicy
from core.schemas.upgrade import downgrade
from tests.migrations.steps import take_back


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """A database without a table, beside the test's own."""
    name = urlsplit(database_url).path[1:] + "_empty"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(database_url)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = create_engine(driver_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_one_line_of_migrations_and_each_says_what_it_does() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    assert all(script.doc for script in scripts.walk_revisions())


def test_several_processes_at_once_migrate_once(empty_database: str) -> None:
    program = f"from core.db import migrate; migrate.upgrade({empty_database!r})"
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=migrate.SCRIPTS.parent) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)


def test_a_database_that_is_away_is_said_so() -> None:
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade("postgresql://nobody@/nothing?host=/nonexistent")
    assert caught.value.code == "database_unavailable"


def test_a_database_of_a_newer_version_is_told(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade(database_url)
    assert caught.value.code == "database_newer"


def stored(url: str) -> dict[str, dict[str, Any]]:
    """Every order, by its job."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("select id, spec from jobs").fetchall())


OLD_SECURITY = {
    "attacks": ["direct", "refusal_breaking"],
    "prompts": "auto",
    "max_prompts": 64,
    "judge": "rules",
    "max_new_tokens": 48,
    "system_prompt": None,
}
OLD_ORDER = {
    "base_model": "testbed",
    "dataset": "ds_" + "0" * 24,
    "security": OLD_SECURITY,
    "quality": {"max_rows": 200},
}


def test_orders_of_the_first_version_are_brought_to_the_new_shape_and_back(empty_database: str) -> None:
    migrate.upgrade(empty_database, "0001")
    prompted = OLD_ORDER | {"security": OLD_SECURITY | {"system_prompt": "judge: rules"}}
    short = {"base_model": "testbed", "dataset": "ds_" + "1" * 24}
    with psycopg.connect(empty_database) as connection:
        for name, spec in (("a", OLD_ORDER), ("b", prompted), ("c", short)):
            connection.execute("insert into jobs (id, spec) values (%s, %s)", (name, json.dumps(spec)))
        connection.execute("insert into scores values ('a', 'base', 'task', 'loss', 'none', 1.5, 20, 0, 1, 2)")
    migrate.upgrade(empty_database)
    new = stored(empty_database)
    security = JobSpec.model_validate(new["a"]).security
    assert [attack.family for attack in security.attacks] == ["direct", "refusal_breaking"]
    assert (security.suite, security.max_prompts, security.max_new_tokens) == ("quick", 64, 48)
    assert security.judges == (RulesJudge(),)
    assert JobSpec.model_validate(new["b"]).security.system_prompt == "judge: rules"
    assert new["c"] == short
    with psycopg.connect(empty_database) as connection:
        whole = {**new["a"], "security": security.model_dump(mode="json")}
        connection.execute("update jobs set spec = %s where id = 'a'", (json.dumps(whole),))
        assert connection.execute("select change, change_n from scores").fetchall() == [(None, None)]
    take_back(empty_database, "0001")
    assert stored(empty_database) == {"a": OLD_ORDER, "b": prompted, "c": short}
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select to_regclass('prompt_sets')").fetchone() == (None,)
        assert connection.execute("select value, n from scores").fetchall() == [(1.5, 20)]
    migrate.upgrade(empty_database)
    assert stored(empty_database)["a"] == new["a"]


def test_an_order_that_has_a_suite_and_judges_keeps_them(empty_database: str) -> None:
    migrate.upgrade(empty_database, "0001")
    judges = [{"kind": "rubric", "model": "house"}]
    spec = {**OLD_ORDER, "security": {"suite": "full", "judges": judges, "max_prompts": 9}}
    with psycopg.connect(empty_database) as connection:
        connection.execute("insert into jobs (id, spec) values ('a', %s)", (json.dumps(spec),))
    migrate.upgrade(empty_database)
    assert stored(empty_database) == {"a": spec}


def test_on_the_way_back_orders_lose_what_the_version_before_the_gate_does_not_know(empty_database: str) -> None:
    migrate.upgrade(empty_database)
    tune = JobSpec.model_validate(OLD_ORDER | {"security": {}}).model_dump(mode="json")
    screen = ScreenSpec(dataset="ds_" + "0" * 24, screening=ScreeningPolicy()).model_dump(mode="json")
    with psycopg.connect(empty_database) as connection:
        connection.execute("insert into api_keys (id, name, secret_hash) values ('k', 'k', '')")
        for name, spec in (("a", tune), ("b", screen)):
            connection.execute("insert into jobs (id, spec) values (%s, %s)", (name, json.dumps(spec)))
        assert connection.execute("select project, gate, policy from jobs").fetchall() == [("default", None, None)] * 2
        connection.execute(
            "insert into gate_overrides (job_id, outcome, reason, key_id, key_name) "
            "values ('a', 'undecided', '', 'k', 'k')"
        )
    take_back(empty_database, "0002")
    left = stored(empty_database)
    assert list(left) == ["a"], "a screening is no order that the older version knows"
    assert left["a"] == {name: value for name, value in downgrade(tune).items() if name not in ("kind", "policy")}
    migrate.upgrade(empty_database)
    assert JobSpec.model_validate(stored(empty_database)["a"]) == JobSpec.model_validate(tune)
