"""Is TDD mode on, and which settings hold, each with its origin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status, failure
from dataflow.testing.errors import SettingsError
from dataflow.testing.options import OPTIONS
from dataflow.testing.runtime import Runtime, runtime
from dataflow.testing.settings import Settings, resolve

TITLE = "TDD setup"
MODE_OPTION = "DATAFLOW_TDD_MODE, --tdd-mode, ini option tdd_mode"


@dataclass(frozen=True)
class TDDSetup(Diagnosis):
    """:param mode: ``on``, ``off`` or ``unset``; None when the settings cannot be read.
    :param origin: where the mode comes from.
    """

    mode: str | None = None
    origin: str | None = None


def check_tdd_setup() -> TDDSetup:
    """Whether TDD mode is on, and all settings. An unset mode is fine: the first TDD fixture turns it on."""
    current = runtime()
    read = read_settings(current)
    if isinstance(read, SettingsError):
        return TDDSetup(TITLE, (invalid_settings(read),))
    return describe_setup(read, used=_in_use(current))


def read_settings(current: Runtime) -> Settings | SettingsError:
    """The settings in force, or those that would be when a server is needed next."""
    try:
        return current.settings if current.started else resolve(current.sources)
    except SettingsError as error:
        return error


def _in_use(current: Runtime) -> bool:
    try:
        return current.is_tdd_mode()
    except SettingsError:  # the variable was changed after the settings were read
        return True


def invalid_settings(error: SettingsError) -> Check:
    found = failure("settings", error)
    remedy = "correct what is listed, or unset it to get the default"
    return Check(found.name, found.status, found.found, remedy, details={"violations": error.violations})


def describe_setup(settings: Settings, *, used: bool) -> TDDSetup:
    """The diagnosis of settings that could be read. Pure."""
    origin = settings.origins.get("mode", "default")
    mode = {True: "on", False: "off", None: "unset"}[settings.mode]
    profiles = ", ".join(settings.profiles) or "none"
    checks = (
        _mode_check(mode, origin, used=used),
        Check("profiles", Status.INFO, profiles),
        Check("settings", Status.OK, f"{len(OPTIONS)} settings are valid", details=_values(settings)),
    )
    return TDDSetup(TITLE, checks, mode, origin)


def _mode_check(mode: str, origin: str, *, used: bool) -> Check:
    if mode == "unset":
        state = "on since it was first used" if used else "the first TDD fixture turns it on"
        return Check("mode", Status.INFO, f"unset: {state}")
    if mode == "on":
        return Check("mode", Status.OK, f"on ({origin})")
    return Check(
        "mode",
        Status.FAILED,
        f"off ({origin})",
        "set it to true, or unset it: then the first TDD fixture turns it on",
        MODE_OPTION,
        cause="it was switched off explicitly, so tests with a TDD fixture are skipped",
    )


def _values(settings: Settings) -> dict[str, Detail]:
    shown: Callable[[str], str] = lambda name: settings.explain(name).removeprefix(f"{name} ")  # noqa: E731
    return {option.name: shown(option.name) for option in OPTIONS}
