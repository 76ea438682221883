"""Is TDD mode on, and where does each setting come from."""

from __future__ import annotations

import pytest

from dataflow.testing.diagnosis.model import Status
from dataflow.testing.diagnosis.setup import TDDSetup, describe_setup, invalid_settings
from dataflow.testing.errors import SettingsError
from dataflow.testing.settings import Sources, resolve


def diagnose(*, used: bool = False, **environment: str) -> TDDSetup:
    return describe_setup(resolve(Sources(environment=environment)), used=used)


def test_an_explicit_mode_is_on_with_its_origin() -> None:
    setup = diagnose(DATAFLOW_TDD_MODE="Yes")
    assert setup
    assert (setup.mode, setup.origin) == ("on", "DATAFLOW_TDD_MODE")
    assert setup.checks[0].found == "on (DATAFLOW_TDD_MODE)"


def test_a_mode_switched_off_fails_with_the_remedy() -> None:
    setup = diagnose(DATAFLOW_TDD_MODE="off")
    assert not setup
    assert setup.mode == "off"
    check = setup.checks[0]
    assert check.remedy == "set it to true, or unset it: then the first TDD fixture turns it on"
    assert check.option is not None
    assert "DATAFLOW_TDD_MODE" in check.option


@pytest.mark.parametrize(("used", "words"), [(False, "the first TDD fixture turns it on"), (True, "on since")])
def test_an_unset_mode_is_no_failure(used: bool, words: str) -> None:
    setup = diagnose(used=used)
    assert setup
    assert setup.mode == "unset"
    assert setup.checks[0].status is Status.INFO
    assert words in setup.checks[0].found


def test_every_setting_is_shown_with_its_origin() -> None:
    details = (
        diagnose(CI="1", DATAFLOW_TDD_TIMEOUT="7", TEST_DATABASE_URL="postgresql://u:s3cret@h/t")
        .checks[2]
        .details
    )
    assert details["pool_size"] == "3 (CI profile)"
    assert details["timeout"] == "7.0 (DATAFLOW_TDD_TIMEOUT)"
    assert details["leaks"] == "warn (default)"
    assert details["database_url"] == "postgresql://u:***@h:5432/t (TEST_DATABASE_URL)"


def test_invalid_settings_are_one_failure_that_lists_all() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(Sources(environment={"DATAFLOW_TDD_TIMEOUT": "x", "DATAFLOW_TDD_POOL_SIZE": "-1"}))
    check = invalid_settings(caught.value)
    assert check.status is Status.FAILED
    assert "DATAFLOW_TDD_TIMEOUT" in check.found
    assert len(check.details["violations"]) == 2  # type: ignore[arg-type]
    assert check.remedy is not None
