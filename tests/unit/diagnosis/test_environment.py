"""What is told of the environment, and what is kept back."""

from __future__ import annotations

from dataflow.testing.diagnosis.environment import describe_variables
from dataflow.testing.diagnosis.installation import describe_servers
from dataflow.testing.server.embedded import ServerStatus


def test_only_variables_that_matter_are_told() -> None:
    check = describe_variables({"HOME": "/x", "PGP_PASSPHRASE": "s3cret", "PGPASSWORD": "s3cret", "CI": "1"})
    assert check.details == {"CI": "1", "PGPASSWORD": "***"}
    assert check.found == "2 set that matter here"


def test_a_mistyped_option_is_a_failure_with_its_correction_and_without_its_value() -> None:
    check = describe_variables({"DATAFLOW_TDD_POOLSIZE": "s3cret", "DATAFLOW_TDD_QQQQQQQQQQQQQQQQQQQQ": "1"})
    assert check.status == "failed"
    assert check.remedy == (
        "DATAFLOW_TDD_POOLSIZE: write DATAFLOW_TDD_POOL_SIZE; DATAFLOW_TDD_QQQQQQQQQQQQQQQQQQQQ: unset it"
    )
    assert "s3cret" not in str(check)


def test_nothing_set_is_said() -> None:
    assert describe_variables({}).found == "no variable that matters here is set"


def test_running_servers_are_listed() -> None:
    assert "none runs" in describe_servers(()).found
    server = ServerStatus("/s", 5432, 5433, "18.6", "wheel 1", "/d", 77, 0.0, None, None, True, ())
    check = describe_servers((server,))
    assert check.details["running"] == ("PostgreSQL 18.6 (wheel 1), port 5433, keeper process 77, 0 users",)
