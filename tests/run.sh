#!/bin/sh
# Runs the whole suite; arguments go to pytest, whose exit status this script returns.
# Everything the run makes lies in one directory, which tests/conftest.py empties and checks before pytest's
# last line; here it is removed also when pytest was killed.
set -u
cd "$(dirname "$0")/.." || exit 2

TDD_TESTS_DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/dft-XXXXXX") || exit 2
export TDD_TESTS_DIRECTORY
unset TEST_DATABASE_URL CI GITHUB_ACTIONS GITLAB_CI JENKINS CONTAINER
for name in $(env | sed -n 's/^\(DATAFLOW_TDD_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done

# A killed run leaves its keeper waiting for the next one; it is told to stop at once.
clean_up() {
    if [ -d "$TDD_TESTS_DIRECTORY/c" ]; then
        DATAFLOW_TDD_CACHE_DIR="$TDD_TESTS_DIRECTORY/c" python -m dataflow.testing.cli server stop --force \
            >/dev/null 2>&1
    fi
    rm -rf "$TDD_TESTS_DIRECTORY"
}
trap 'clean_up; exit 130' INT TERM HUP

python -m pytest -n 2 "$@"
status=$?
clean_up
exit "$status"
