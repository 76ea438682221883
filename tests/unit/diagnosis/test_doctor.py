"""All questions together: one that fails or hangs keeps no other from being asked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from dataflow.testing.diagnosis.doctor import FORMAT, ask, document, text
from dataflow.testing.diagnosis.infrastructure import run_steps
from dataflow.testing.diagnosis.model import Check, Diagnosis, Status, ok


def test_a_question_that_hangs_is_given_up_in_time() -> None:
    release = threading.Event()

    def hang() -> Diagnosis:
        release.wait(20)
        return Diagnosis("T", ())

    started = time.monotonic()
    answer = ask("T", hang, 0.1)
    release.set()
    assert time.monotonic() - started < 15
    assert not answer
    assert "no result within 0.1 s" in str(answer)


def test_a_question_that_fails_is_a_failed_check() -> None:
    def fail() -> Diagnosis:
        raise LookupError("of all things")

    answer = ask("T", fail, 5)
    assert answer.failed[0].found == "LookupError: of all things"


def test_the_verdict_names_what_failed() -> None:
    bad = Diagnosis("Pool", (Check("pool", Status.FAILED, "x"),))
    fine = Diagnosis("Setup", (ok("mode", "on"),))
    assert text({"a": fine}).endswith("\n\nNothing failed.")
    assert text({"a": fine, "b": bad}).endswith("\n\n1 check failed:\n  - Pool: pool")


def test_the_document_has_the_promised_keys() -> None:
    made = document({"setup": Diagnosis("Setup", (ok("mode", "on"),))}, "1.2")
    assert (made["format"], made["ok"], made["version"]) == (FORMAT, True, "1.2")
    assert made["diagnoses"]["setup"]["checks"][0]["status"] == "ok"


async def _works() -> str:
    return "fine"


async def _breaks() -> str:
    raise OSError("gone")


def test_steps_after_a_failed_one_are_skipped() -> None:
    import asyncio

    checks = asyncio.run(run_steps((("a", _works), ("b", _breaks), ("c", _works))))
    assert [check.status for check in checks] == [Status.OK, Status.FAILED, Status.SKIPPED]
    assert checks[2].found == "it needs the b"


def test_importing_the_room_loads_neither_event_loop_nor_driver() -> None:
    program = (
        "import sys, pkgutil, importlib\n"
        "import dataflow.testing.diagnosis as room\n"
        "for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "import dataflow.testing.cli.doctor\n"
        "print({'asyncio', 'asyncpg', 'psycopg', 'pytest'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
