"""`dataflow-tdd templates`: look at the template databases of the server that tests use, and drop old ones."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerUnreachable
from dataflow.testing.server.choice import embedded_options
from dataflow.testing.server.embedded import lease_database
from dataflow.testing.server.external import GUIDE_DSN, answers, check_test_database
from dataflow.testing.server.lease import locate
from dataflow.testing.server.protocol import ADMIN_DATABASE
from dataflow.testing.settings import Settings, Sources, resolve
from dataflow.testing.template.pruning import Pruned, duration
from dataflow.testing.template.session import connect
from dataflow.testing.template.store import TemplateInfo, TemplateStore

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_UNUSED_DAYS = 7.0
_DAY_S = 86_400.0
_NO_SERVER = "no server runs, and so no templates"


def register(subparsers: Subparsers) -> None:
    description = (
        "Template databases: each holds a schema and its seed data, built once, and copied for tests. Looks at "
        "the server that tests would use: TEST_DATABASE_URL, or the embedded one."
    )
    group = subparsers.add_parser("templates", help="the template databases", description=description)
    commands = group.add_subparsers(title="commands", required=True, metavar="command")
    text = "show them, and who uses them"
    commands.add_parser("list", help=text, description=text).set_defaults(run=_list)
    text = f"drop those that nobody has used for {_UNUSED_DAYS:g} days; never one that a live process uses"
    prune = commands.add_parser("prune", help=text, description=text)
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--unused-days", type=_days, metavar="N", help="that nobody has used for N days")
    which.add_argument("--all", action="store_true", help="all that no live process uses")
    prune.add_argument("names", nargs="*", metavar="NAME", help="only these, however long they are unused")
    prune.set_defaults(run=_prune)


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return value


def _list(arguments: argparse.Namespace) -> int:
    with _store() as store:
        if store is None:
            print(_NO_SERVER)
            return 0
        now = time.time()
        print("\n".join(describe(template, now) for template in store.templates()) or "there are no templates")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    with _store() as store:
        if store is None:
            print(_NO_SERVER)
            return 0
        pruned = store.prune(_unused_for_s(arguments), arguments.names or None)
    print("\n".join(map(outcome, pruned)) or "there are no templates")
    if _unused_for_s(arguments) and not all(template.dropped for template in pruned):
        print("--all drops also those that were used lately, if no live process uses them")
    # Whoever names a template wants that one gone.
    return 1 if arguments.names and not all(template.dropped for template in pruned) else 0


def _unused_for_s(arguments: argparse.Namespace) -> float:
    if arguments.unused_days is not None:
        return float(arguments.unused_days) * _DAY_S
    return 0.0 if arguments.all or arguments.names else _UNUSED_DAYS * _DAY_S


def describe(template: TemplateInfo, now: float) -> str:
    """What a person wants to know of a template. :param now: seconds since the epoch."""
    lines = [f"{template.name}: {template.description or 'without a readable note'}"]
    if template.built is not None:
        took = f", in {template.built_ms:.0f} ms" if template.built_ms is not None else ""
        lines.append(f"  built     {duration(now - template.built)} ago{took}")
    if template.ready and template.used is not None:
        lines.append(f"  used      {duration(now - template.used)} ago")
    if not template.ready:
        lines.append(f"  state     {_state(template)}")
    if template.size is not None:
        lines.append(f"  size      {template.size / 1e6:.1f} MB")
    doing = "used by  " if template.built is not None else "built by "
    lines += [f"  {doing} {user}" for user in template.users]
    return "\n".join(lines)


def _state(template: TemplateInfo) -> str:
    if template.built is not None or template.description is None:
        return (
            "not usable: changed by hand, of another version of dataflow-tdd, or with unlogged tables, which the "
            "server emptied when it crashed"
        )
    return "being built" if template.users else "half-built: its builder died"


def outcome(pruned: Pruned) -> str:
    return f"{pruned.name} is {'dropped' if pruned.dropped else 'kept'}: {pruned.why}"


@contextmanager
def _store() -> Iterator[TemplateStore | None]:
    """The templates of the server that tests would use; None when that is the embedded one and was never
    started. One that has stopped may have templates: it is started for this."""
    settings = resolve(Sources.of_process())
    external = _external(settings)
    if external is not None:
        with closing(TemplateStore(external, external)) as store:
            yield store
        return
    options = embedded_options(settings)
    if not locate(options).instance.data.is_dir():
        yield None
        return
    # The lease keeps the server from stopping under us.
    with closing(lease_database(options, what="dataflow-tdd templates")) as lease:
        with closing(TemplateStore(lease.admin_dsn.with_database(ADMIN_DATABASE), lease.dsn)) as store:
            yield store


def _external(settings: Settings) -> Dsn | None:
    if settings.server == "embedded":
        return None
    if settings.database_url is not None:
        check_test_database(settings.database_url, settings.allow_database)
        return settings.database_url
    if answers(GUIDE_DSN) is not None:
        return None
    try:
        connect(GUIDE_DSN).close()
    except ServerUnreachable:
        return None
    return GUIDE_DSN
