#!/bin/sh
# Says in one sentence what this machine lacks, before anything is built.
python=${PYTHON:-python3}
lack() { echo "setup: $1" >&2; exit 1; }

command -v c++ >/dev/null || lack "no C++ compiler; install one (Debian: apt install g++)"
command -v cargo >/dev/null || lack "no Rust toolchain; install rustup from https://rustup.rs"
command -v "$python" >/dev/null || lack "no $python; install Python 3.10 to 3.13 (Debian: apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    lack "$("$python" --version) does not fit the pins; install Python 3.10 to 3.13 and run make PYTHON=python3.12"
"$python" -c 'import venv, ensurepip' 2>/dev/null || lack "$python has no venv module (Debian: apt install python3-venv)"
if [ -d .venv ]; then
    # The first lines of pip hold the path that this folder had when it was set up.
    if [ -f .venv/bin/pip ] && [ ! -L .venv ] && ! head -n 3 .venv/bin/pip | grep -qF -e "$PWD/.venv/" -e "$(pwd -P)/.venv/"; then
        lack "this folder was moved after set-up; run rm -rf .venv target/debug/kd .evcxr/warm.stamp and then make setup"
    fi
    exit 0
fi
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free" -ge 14 ] || lack "$free GiB free here, 14 are needed; free some disk or clone to a larger one"
