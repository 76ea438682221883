"""Whether pytest-django's databases are ours: found out once, at the start of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from dataflow.testing.errors import SettingsError

if TYPE_CHECKING:
    from dataflow.testing.layers.django import DjangoDatabases
    from dataflow.testing.plugin.run import Run

DATABASES: pytest.StashKey[DjangoDatabases] = pytest.StashKey()
_SETUP = "django_db_setup"
_NOT_OF_THE_PROJECT = ("pytest_django.", "dataflow.testing.")
_OPTION = "tdd_django, --tdd-django, DATAFLOW_TDD_DJANGO"


def register(config: pytest.Config, run: Run) -> None:
    """Bring the fixtures in, if the settings want them.

    :raises UsageError: they do, and pytest-django or Django's settings are missing; or settings are invalid.
    """
    if config.option.help or config.option.version:
        return
    try:
        if not run.runtime.settings.django:
            return
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    if not _pytest_django_is_active(config):
        raise pytest.UsageError(
            "tdd_django is on, and pytest-django is not active\n"
            "  likely cause: it is not installed, was switched off (-p no:django), or plug-ins are not loaded "
            "automatically\n"
            '  way out: pip install "dataflow-tdd[django]"; or name it: -p pytest_django.plugin\n'
            f"  option: {_OPTION}"
        )
    if not _settings_are_known():
        raise pytest.UsageError(
            "tdd_django is on, and Django has no settings\n"
            "  likely cause: pytest-django was not told where they are\n"
            "  way out: name their module in pytest's ini file (DJANGO_SETTINGS_MODULE = project.settings), in "
            "the environment, or by --ds\n"
            f"  option: {_OPTION}"
        )
    from dataflow.testing.plugin import django_fixtures

    # Behind pytest-django's, so that of fixtures with the same name ours are taken; a conftest's win over both.
    config.pluginmanager.register(django_fixtures, "dataflow-tdd-django-fixtures")
    config.pluginmanager.register(Overridden(), "dataflow-tdd-django")


class Overridden:
    """A project that overrides `django_db_setup`, as pytest-django's pages advise, puts rows of its own there."""

    def __init__(self) -> None:
        self._seen = False

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if fixturedef.argname != _SETUP:
            if self._seen and fixturedef.scope == "function":
                # It is set up, in all its definitions; fixtures of each test are not to pay for this.
                request.config.pluginmanager.unregister(self)
            return (yield)
        result = yield
        self._seen = True
        databases = request.config.stash.get(DATABASES, None)
        if databases is not None and not fixturedef.func.__module__.startswith(_NOT_OF_THE_PROJECT):
            databases.settle_later()
            if any(map(_commits, request.session.items)):
                databases.settle()
        return result


def _commits(item: pytest.Item) -> bool:
    """Whether a test will really commit, as far as one can tell before it runs."""
    from django.test import TestCase, TransactionTestCase

    cls = getattr(item, "cls", None)
    if cls is not None and issubclass(cls, TransactionTestCase):
        return not issubclass(cls, TestCase)
    fixtures = {"transactional_db", "live_server", "django_db_reset_sequences"}
    marker = item.get_closest_marker("django_db")
    return not fixtures.isdisjoint(getattr(item, "fixturenames", ())) or (
        marker is not None and bool(marker.args or marker.kwargs.get("transaction"))
    )


def _pytest_django_is_active(config: pytest.Config) -> bool:
    """By module, since its name as a plug-in depends on how it was loaded."""
    module = sys.modules.get("pytest_django.plugin")
    return module is not None and config.pluginmanager.is_registered(module)


def _settings_are_known() -> bool:
    conf = sys.modules.get("django.conf")
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) or (conf is not None and conf.settings.configured)
