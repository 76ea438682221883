"""A template with all there is, a broker that lends copies of it, and the check that these are like it."""

from __future__ import annotations

import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
from tests.exactness.picture import Painter, damage
from tests.exactness.programs import Names, Program, run

from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.broker import Broker, Returned, Terms
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.reset.explain import explain
from dataflow.testing.server.protocol import TEST_ROLE

SCHEMA = Path(__file__).with_name("schema.sql")
# Sessions that a program leaves open are ended soon: nobody waits for them to go by themselves.
TERMS = Terms(spares=2, grace_s=0.05)
# Tables and indexes themselves are examined after every so many programs.
_EXAMINED_EVERY = 10
_HAS_AMCHECK = "SELECT FROM pg_available_extensions WHERE name = 'amcheck'"
_LOOKING = "-c search_path=pg_catalog -c TimeZone=UTC -c statement_timeout=60s"


def connect(dsn: Dsn, options: str = _LOOKING) -> psycopg.Connection:
    return psycopg.connect(dsn.url(), autocommit=True, options=options)


class World:
    """:param admin: the server as its superuser. :param say: prints."""

    def __init__(self, admin: Dsn, say: Callable[[str], None] = print) -> None:
        token = f"{os.getpid()}_{secrets.token_hex(3)}"
        self.names = Names(role=f"exact_{token}", gid=f"exact_{token}")
        self.ways: Counter[str] = Counter()
        self.always_new = bool(os.environ.get("EXACTNESS_ALWAYS_NEW"))
        self._say = say
        self._admin = admin.with_database("postgres")
        self._user = Dsn(admin.host, admin.port, TEST_ROLE, admin.password)
        self._template = f"exact_{token}"
        self._pristine = f"exact_{token}_pristine"
        self._histories: defaultdict[str, list[Program]] = defaultdict(list)
        self._build()
        self._looking = connect(admin.with_database(self._pristine))
        self.version = self._looking.info.parameter_status("server_version")
        self.painter = Painter(self._looking)
        self.broker = self._new_broker()

    def check(self, program: Program) -> None:
        """Run a program in a lease, give it back, and see that the next lease is as the template.

        :raises AssertionError: it is not.
        """
        if self.always_new:
            self.broker.close()
            self.broker = self._new_broker()
        lease = self.broker.lend("a program")
        self._histories[lease.name].append(program)
        left_open = run(program, lease, self._admin.with_database(lease.name))
        returned = self.broker.take_back(lease)
        for session in left_open:
            session.close()
        assert returned is not None
        self._count(returned)
        following = self.broker.lend("a look at it")
        differences = self._differences(following)
        self.broker.take_back(following)
        if differences:
            self.always_new = True  # from now on the failing program is made smaller
            text = self._report(lease.name, following.name, returned, differences)
            self._say(text)
            raise AssertionError(text)

    def close(self) -> None:
        self._looking.close()
        self.broker.close()
        with connect(self._admin) as admin:
            for name in (self._template, self._pristine):
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            for number in range(10):
                with suppress(psycopg.Error):
                    admin.execute(f"DROP ROLE IF EXISTS {self.names.role}_{number}".encode())

    def summary(self) -> str:
        lines = [f"{count:6}  {way}" for way, count in self.ways.most_common()]
        return "\n".join([f"{self.ways.total()} programs:", *lines])

    def _new_broker(self) -> Broker:
        return Broker(self._admin, self._user, lambda: self._template, TERMS)

    def _build(self) -> None:
        with connect(self._admin) as admin:
            admin.execute(f"CREATE DATABASE {self._template} OWNER {TEST_ROLE}".encode())
            with connect(self._admin.with_database(self._template), "") as inside:
                if inside.execute(_HAS_AMCHECK).fetchall():
                    inside.execute("CREATE EXTENSION amcheck")
            with connect(self._user.with_database(self._template), "") as inside:
                for part in _schema(inside.info.server_version).split("\n\n"):
                    inside.execute(part.encode())
            admin.execute(f"ALTER DATABASE {self._template} ALLOW_CONNECTIONS false".encode())
            admin.execute(
                f"CREATE DATABASE {self._pristine} OWNER {TEST_ROLE} TEMPLATE {self._template}".encode()
            )

    def _differences(self, lease: DatabaseLease) -> list[str]:
        with connect(self._admin.with_database(lease.name)) as connection:
            found = self.painter.differences(connection)
            if not found and self.ways.total() % _EXAMINED_EVERY == 0:
                found = damage(connection)
        return found

    def _count(self, returned: Returned) -> None:
        plan = returned.outcome.plan
        if plan.replace is not None:
            self.ways[f"replaced: {_kind(plan.replace)}"] += 1
        else:
            self.ways["put back in place" if plan.steps or plan.moved else "nothing to do"] += 1

    def _report(self, before: str, now: str, returned: Returned, differences: list[str]) -> str:
        programs = self._histories[before]
        return "\n".join(
            [
                f"{now} was lent, and is not as the template is:",
                *(f"  {line}" for line in differences[:40]),
                f"the reset of {before} before that:",
                *(f"  {line}" for line in explain(returned.outcome, before)),
                *(f"  left open: {backend}" for backend, _ in returned.leaked),
                f"the last of {len(programs)} programs in {before}:",
                *(f"  program {n}\n{program}" for n, program in list(enumerate(programs, 1))[-5:]),
            ]
        )


def _schema(server_version: int) -> str:
    text = SCHEMA.read_text()
    # PostgreSQL 14 has no unlogged sequences.
    return text if server_version >= 150_000 else text.replace("CREATE UNLOGGED SEQUENCE", "CREATE SEQUENCE")


def _kind(reason: str) -> str:
    """A reason without what differs each time."""
    return "failed, " + reason.split(": ", 1)[1][:70] if reason.startswith("putting it back failed") else reason
