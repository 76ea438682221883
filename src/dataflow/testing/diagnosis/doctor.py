"""All questions one after the other: what `dataflow-tdd doctor` prints.

As JSON, one document, whose keys stay what they are; new ones may be added:

    format      number of this layout: 1
    ok          whether no check failed
    version     of dataflow-tdd
    diagnoses   object: the diagnoses by key (`KEYS`), each an object with
        title   in words
        ok      whether none of its checks failed
        checks  list of objects with
            name, found     texts
            status          "ok", "failed", "skipped" or "info"
            cause, remedy, option   texts or null
            details         object of texts, numbers, booleans, nulls and lists of texts;
                            names ending in _ms and _s are times, in _mb sizes
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from dataflow.testing.diagnosis.apart import apart
from dataflow.testing.diagnosis.model import Diagnosis, failure, skipped

FORMAT = 1
# Seconds for one question: the longest that an embedded server may take to start, and some more.
LIMIT_S = 70.0

Question = Callable[[], Diagnosis]


def examine(limit_s: float = LIMIT_S) -> dict[str, Diagnosis]:
    """Ask all questions; those that need a server only if one answers.

    :param limit_s: seconds that one question may take. None keeps the others from being asked.
    """
    answers = {key: ask(title, question, limit_s) for key, (title, question) in _without_server().items()}
    connected = bool(answers["connectivity"])
    for key, (title, question) in _with_server().items():
        answers[key] = ask(title, question, limit_s) if connected else _not_asked(title)
    return answers


def ask(title: str, question: Question, limit_s: float) -> Diagnosis:
    """The answer to one question, or why there is none within `limit_s` seconds."""
    try:
        return apart(question, limit_s)
    except Exception as error:
        return Diagnosis(title, (failure("examination", error),))


def text(answers: Mapping[str, Diagnosis]) -> str:
    """The answers for people. Pure."""
    return "\n\n".join([*map(str, answers.values()), _verdict(answers)])


def document(answers: Mapping[str, Diagnosis], version: str) -> dict[str, Any]:
    """The answers for programs. Pure."""
    return {
        "format": FORMAT,
        "ok": all(answers.values()),
        "version": version,
        "diagnoses": {key: answer.to_plain() for key, answer in answers.items()},
    }


def _verdict(answers: Mapping[str, Diagnosis]) -> str:
    failed = [f"{answer.title}: {check.name}" for answer in answers.values() for check in answer.failed]
    if not failed:
        return "Nothing failed."
    checks = "check" if len(failed) == 1 else "checks"
    return "\n".join([f"{len(failed)} {checks} failed:", *(f"  - {name}" for name in failed)])


def _not_asked(title: str) -> Diagnosis:
    return Diagnosis(title, (skipped("examination", "no server answered; see Database connectivity"),))


def _without_server() -> dict[str, tuple[str, Question]]:
    from dataflow.testing.diagnosis import address, connectivity, environment, setup

    return {
        "installation": ("Installation", environment.collect_installation),
        "setup": (setup.TITLE, setup.check_tdd_setup),
        "connection_string": (address.TITLE, address.verify_connection_string),
        "connectivity": (connectivity.TITLE, _run(connectivity.check_database_connectivity)),
    }


def _with_server() -> dict[str, tuple[str, Question]]:
    from dataflow.testing.diagnosis import capabilities, infrastructure, pool, transaction

    return {
        "capabilities": (capabilities.TITLE, _run(capabilities.check_server_capabilities)),
        "infrastructure": (infrastructure.TITLE, _run(infrastructure.check_tdd_infrastructure_status)),
        "pool": (pool.TITLE, _run(_pool_of_sample)),
        "transaction": (transaction.TITLE, _run(_transaction_of_sample)),
    }


KEYS = (
    "installation",
    "setup",
    "connection_string",
    "connectivity",
    "capabilities",
    "infrastructure",
    "pool",
    "transaction",
)


def _run(question: Callable[[], Coroutine[Any, Any, Diagnosis]]) -> Question:
    def run() -> Diagnosis:
        import asyncio

        return asyncio.run(question())

    return run


async def _pool_of_sample() -> Diagnosis:
    """The pool while a test has a connection of it: this process has no other test to look at."""
    from dataflow.testing.diagnosis.infrastructure import sample_context
    from dataflow.testing.diagnosis.pool import diagnose_connection_pool
    from dataflow.testing.runtime import runtime

    async with sample_context() as context:
        await runtime().manager.begin(context)
        return await diagnose_connection_pool()


async def _transaction_of_sample() -> Diagnosis:
    from dataflow.testing.diagnosis.infrastructure import sample_context
    from dataflow.testing.diagnosis.transaction import diagnose_transaction
    from dataflow.testing.runtime import runtime

    async with sample_context() as context:
        await runtime().manager.begin(context)
        return await diagnose_transaction(context.connection)
