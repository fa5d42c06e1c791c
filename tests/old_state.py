"""The state that version 0.1.0 left, loaded into a database and a folder. Not here: what is expected of it (tests)."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

FIXTURE = Path(__file__).parent / "fixtures" / "state_0_1"
MANIFEST: dict[str, Any] = json.loads((FIXTURE / "manifest.json").read_text())
_TABLES = (
    "api_keys", "datasets", "prompt_sets", "policies", "jobs", "artifacts", "events", "scores", "gate_overrides",
)  # fmt: skip
"""Parents first."""
_COUNTED = ("events", "gate_overrides")
"""Tables whose ids are counted up by a sequence."""


@dataclass(frozen=True)
class OldState:
    """The archive, unpacked."""

    root: Path

    @property
    def state(self) -> Path:
        """The state directory of the service, without its database."""
        return self.root / "state"

    def reply(self, name: str) -> Any:
        """What the API of that version replied, such as `released/job`."""
        return json.loads((self.root / "replies" / f"{name}.json").read_text())

    def fill(self, database_url: str) -> None:
        """Load the tables into a database of revision 0003."""
        with psycopg.connect(database_url) as connection:
            for table in _TABLES:
                data = (self.root / "tables" / f"{table}.csv").read_bytes()
                columns = data.split(b"\n", 1)[0].decode().split(",")
                statement = sql.SQL("copy {} ({}) from stdin with (format csv, header match)").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
                with connection.cursor().copy(statement) as copy:
                    copy.write(data)
            for table in _COUNTED:
                query = sql.SQL("select setval(pg_get_serial_sequence({}, 'id'), (select max(id) from {}))")
                connection.execute(query.format(sql.Literal(table), sql.Identifier(table)))


def unpack(folder: Path) -> OldState:
    """Unpack the archive into a folder."""
    with tarfile.open(FIXTURE / MANIFEST["archive"]["name"]) as archive:
        archive.extractall(folder, filter="data")
    return OldState(folder)


def documents(database_url: str) -> Iterator[tuple[str, Any]]:
    """Every stored JSON document of jobs, policies and events, by a name that says where it is."""
    with psycopg.connect(database_url) as connection:
        for column in ("spec", "policy", "gate", "progress", "error"):
            query = sql.SQL("select id, {} from jobs").format(sql.Identifier(column))
            for job, document in connection.execute(query):
                yield f"jobs.{column} {job}", document
        for project, version, document in connection.execute("select project, version, policy from policies"):
            yield f"policies {project} {version}", document
        for number, kind, document in connection.execute("select id, type, data from events"):
            yield f"events {number} {kind}", document
