"""What the tables of a Django project, and the rows that `migrate` makes, follow from."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataflow.testing.template.imported import imported
from dataflow.testing.template.importing import file_of, is_users
from dataflow.testing.template.inputs import Input, named_contents

# Those that make tables or rows of Django's own apps differ.
_SETTINGS = (
    "AUTH_USER_MODEL",
    "DEFAULT_AUTO_FIELD",
    "DEFAULT_INDEX_TABLESPACE",
    "DEFAULT_TABLESPACE",
    "LANGUAGE_CODE",
    "SITE_ID",
    "TIME_ZONE",
    "USE_I18N",
    "USE_TZ",
)
_IMPORTS = re.compile(rb"^\s*(?:from|import)\s+(?!django\b)", re.MULTILINE)


def parts(alias: str) -> Iterator[bytes]:
    """For a fingerprint: versions, settings, and the files that migrations, unmigrated models, routers and
    handlers of `post_migrate` are in. Django is set up.

    :param alias: of the database; routers may give it but some of the tables.
    """
    import django
    from django.apps import apps
    from django.conf import settings
    from django.db import connections, router
    from django.db.models import signals

    database = connections[alias].settings_dict
    options = database.get("OPTIONS", {})
    yield from _texts(
        django.get_version(),
        alias,
        database["ENGINE"],
        database["TEST"].get("MIGRATE", True),
        options.get("assume_role"),
        options.get("options"),
        *(getattr(settings, name, None) for name in _SETTINGS),
        *((name, cache.get("BACKEND"), cache.get("LOCATION")) for name, cache in settings.CACHES.items()),
    )
    unmigrated = database["TEST"].get("MIGRATE", True) is False
    for app in apps.get_app_configs():
        package = None if unmigrated else migrations_of(app.label)
        yield from _texts(app.name, app.label, package is not None)
        yield from _package(*package) if package else _models(app)
        yield from _texts(*(_derived(model) for model in app.get_models(include_auto_created=True)))
        yield from named_contents(_fixtures(Path(app.path) / "fixtures"))
    for folder in settings.FIXTURE_DIRS:
        yield from named_contents(_files(Path(folder)))
    for thing in (
        *map(type, router.routers),
        *_receivers(signals.pre_migrate),
        *_receivers(signals.post_migrate),
    ):
        yield from _code(thing)


def migrations_of(label: str) -> tuple[str, Path] | None:
    """Name and folder of an app's migrations, where Django would find them; None without migrations."""
    from django.db.migrations.loader import MigrationLoader

    name, _ = MigrationLoader.migrations_module(label)
    if name is None:
        return None
    with suppress(ImportError):
        if (spec := find_spec(name)) is not None and spec.submodule_search_locations and spec.origin:
            return name, Path(spec.origin).parent
    return None


def _package(name: str, folder: Path) -> Iterator[bytes]:
    """All that lies beside the migrations, and modules of the project's that they import."""
    files = _files(folder)
    yield from named_contents(files)
    if not is_users(folder / "__init__.py"):
        return
    for file in files:
        if file.path.suffix == ".py" and _IMPORTS.search(file.path.read_bytes()):
            module = f"{name}.{file.name.removesuffix('.py').replace('/', '.')}"
            yield from named_contents(imported(module, file.path))


def _models(app: Any) -> Iterator[bytes]:
    """Tables of an app without migrations follow from its models."""
    for model in app.get_models(include_auto_created=True):
        yield from _code(model)


def _derived(model: Any) -> tuple[object, ...]:
    """What content types and permissions are made from, whatever the migrations say."""
    meta = model._meta
    permissions = (*meta.permissions, *meta.default_permissions)
    return meta.label, meta.managed, meta.proxy, permissions, str(meta.verbose_name_raw)


def _receivers(signal: Any) -> Iterator[Callable[..., Any]]:
    for _, receiver, *_ in signal.receivers:
        function = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
        if function is not None:
            yield function


def _code(thing: Any) -> Iterator[bytes]:
    """The file that something is in, and if that is the project's, those that it imports."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    yield from _texts(named.__module__, named.__qualname__)
    if (module := file_of(named)) is not None:
        yield from named_contents((Input(*module),))
        if is_users(module[1]):
            yield from named_contents(imported(*module))


def _fixtures(folder: Path) -> tuple[Input, ...]:
    """Data that migrations may load; of the project's own apps."""
    return _files(folder) if is_users(folder / "__init__.py") else ()


def _files(folder: Path) -> tuple[Input, ...]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return tuple(Input(path.relative_to(folder).as_posix(), path) for path in found)


def _texts(*values: object) -> Iterable[bytes]:
    return (repr(value).encode() for value in values)
