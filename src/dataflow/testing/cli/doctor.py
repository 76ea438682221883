"""`dataflow-tdd doctor`: what is wrong here, and what to do about it.

Exit status 1 when a check failed, 0 otherwise. With ``--json`` one JSON document goes to standard output; its
keys are described in `dataflow.testing.diagnosis.doctor`.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(subparsers: Subparsers) -> None:
    description = (
        "Examines this installation, its settings and the server that tests would use, and says what to do "
        "about each failure. Passwords are masked. A server that is started for this is stopped again."
    )
    parser = subparsers.add_parser(
        "doctor", help="find out what is wrong, and what to do", description=description
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from dataflow.testing.diagnosis.doctor import document, examine, text
    from dataflow.testing.diagnosis.installation import package_version

    answers = examine()
    if arguments.json:
        print(json.dumps(document(answers, package_version("dataflow-tdd")), indent=2))
    else:
        print(text(answers))
    return 0 if all(answers.values()) else 1
