#!/bin/sh
# Prints the path of an interpreter for each version that is given ("3.12 3.13"), one a line: what PATH has if it
# runs, else the newest of pyenv's. Status 1 when one is not there; it is named on standard error.
# A pyenv shim is on PATH for every version that is installed, and runs only for those that are selected.
versions="${PYENV_ROOT:-$HOME/.pyenv}/versions"

is_version() {
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$2" ]
}

of_pyenv() {
    for found in $(ls -d "$versions/$1".*/bin/python3 2>/dev/null | sort -rV); do
        if is_version "$found" "$1"; then
            echo "$found"
            return
        fi
    done
    return 1
}

status=0
for version in "$@"; do
    if is_version "python$version" "$version"; then
        command -v "python$version"
    elif ! of_pyenv "$version"; then
        echo "no Python $version: neither python$version on PATH runs, nor is one in $versions" >&2
        status=1
    fi
done
exit $status
