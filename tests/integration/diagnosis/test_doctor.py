"""`dataflow-tdd doctor` in a process of its own: its words, its JSON and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import quote

import pytest

from dataflow.testing import tdd_support
from dataflow.testing.diagnosis.doctor import KEYS
from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, server_status

Doctor = Callable[..., "CompletedProcess[str]"]
PASSWORD = "p@ss/w:rd#%?'\" é"


def failures(done: CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """The failed checks of a JSON document, as ``key/name``."""
    document = json.loads(done.stdout)
    return {
        f"{key}/{check['name']}": check
        for key, diagnosis in document["diagnoses"].items()
        for check in diagnosis["checks"]
        if check["status"] == "failed"
    }


def test_a_machine_in_order(doctor: Doctor, embedded_is_down: EmbeddedOptions) -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert done.stdout.endswith("\nNothing failed.\n")
    assert "[ok]      connection: answered: embedded PostgreSQL" in done.stdout
    assert "[info]    mode: unset" in done.stdout
    assert "- dataflow-tdd diagnosis, held for" in done.stdout
    assert "state: in a transaction" in done.stdout
    assert server_status(embedded_is_down) is None


def test_the_json_is_one_document_with_stable_keys(doctor: Doctor, by_password: Dsn) -> None:
    done = doctor("--json", TEST_DATABASE_URL=by_password.url())
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert set(document) == {"format", "ok", "version", "diagnoses"}
    assert tuple(document["diagnoses"]) == KEYS
    for diagnosis in document["diagnoses"].values():
        assert set(diagnosis) == {"title", "ok", "checks"}
        for check in diagnosis["checks"]:
            assert set(check) == {"name", "status", "found", "cause", "remedy", "option", "details"}
    capabilities = document["diagnoses"]["capabilities"]["checks"][0]["details"]
    assert capabilities["create_database"] is True
    assert by_password.password is not None
    assert f":{by_password.password}@" not in done.stdout


def test_a_server_that_is_gone_fails_once_and_skips_what_needs_it(doctor: Doctor, nobody_there: Dsn) -> None:
    done = doctor(TEST_DATABASE_URL=nobody_there.url())
    assert done.returncode == 1
    assert done.stdout.endswith("\n1 check failed:\n  - Database connectivity: connection\n")
    assert done.stdout.count("[skipped]") == 4
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_password_is_shown_wherever_it_fails(
    doctor: Doctor, by_password: Dsn, arguments: tuple[str, ...]
) -> None:
    done = doctor(
        *arguments, TEST_DATABASE_URL=replace(by_password, password=PASSWORD).url(), PGPASSWORD="s3cret/2"
    )
    assert done.returncode == 1
    assert "refused user" in done.stdout
    secrets = (PASSWORD, json.dumps(PASSWORD)[1:-1], quote(PASSWORD, safe=""), quote(PASSWORD), "w:rd", "s3cret")
    for secret in secrets:
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:12/s3cret@localhost/a_test", "u:s3cret@h/a_test", "postgresql://u:s3cret#2@h/a_test"],
)
def test_a_url_with_an_unescaped_password_is_reported_and_not_shown(doctor: Doctor, url: str) -> None:
    done = doctor(TEST_DATABASE_URL=url)
    assert done.returncode == 1
    assert "percent-encode" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_every_failure_has_a_remedy(doctor: Doctor, by_password: Dsn, tmp_path: Path) -> None:
    done = doctor(
        "--json",
        TEST_DATABASE_URL=by_password.with_database("shop").url() + "?connect_timeout=3&sslmode=maybe",
        DATAFLOW_TDD_MODE="off",
        DATAFLOW_TDD_POOLSIZE="3",
    )
    assert done.returncode == 1
    failed = failures(done)
    assert set(failed) == {
        "installation/environment",
        "setup/mode",
        "connection_string/test database",
        "connection_string/sslmode",
        "connection_string/parameter connect_timeout",
        "connectivity/connection",
    }
    assert all(check["remedy"] for check in failed.values())


def test_invalid_settings_are_reported_and_crash_nothing(doctor: Doctor) -> None:
    done = doctor("--json", DATAFLOW_TDD_TIMEOUT="soon", DATAFLOW_TDD_POOL_SIZE="-1")
    assert done.returncode == 1
    failed = failures(done)
    assert set(failed) == {"setup/settings", "connectivity/settings"}
    assert len(failed["setup/settings"]["details"]["violations"]) == 2  # type: ignore[index]
    assert done.stderr == ""


def test_a_mode_switched_off_fails_and_the_server_is_examined_all_the_same(
    doctor: Doctor, by_password: Dsn
) -> None:
    done = doctor("--json", TEST_DATABASE_URL=by_password.url(), DATAFLOW_TDD_MODE="0")
    assert done.returncode == 1
    assert set(failures(done)) == {"setup/mode", "infrastructure/mode"}


def test_where_nothing_is_installed_it_says_so_and_ends(doctor: Doctor) -> None:
    source = str(Path(tdd_support.__file__).parents[2])
    done = doctor("--json", python=("-S",), PYTHONPATH=source, PATH="")
    assert done.returncode == 1
    assert json.loads(done.stdout)["version"] == "not installed"
    assert done.stderr == ""
