#!/bin/sh
# Make .venv hold exactly what requirements/ locks, hash-checked, and Lockyard itself. Does nothing when it does already.
set -eu
cd "$(dirname "$0")/.."
want=$(cat requirements/dev.txt requirements/uv.txt pyproject.toml | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/.ready 2>/dev/null || true)" = "$want" ] && [ -x .venv/bin/lockyard ] && exit 0
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "Python 3.11 or newer is missing: apt-get install python3 python3-venv" >&2; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$("$python" --version) is too old: Lockyard needs Python 3.11 or newer (set PYTHON=/path/to/python3)" >&2; exit 2; }
"$python" -c 'import ensurepip' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv" >&2; exit 2; }
echo "setting up .venv (once)" >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip -q --upgrade
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
export VIRTUAL_ENV="$PWD/.venv"
.venv/bin/uv pip sync -q --require-hashes requirements/dev.txt
.venv/bin/uv pip install -q --no-deps --no-build-isolation -e .
printf '%s\n' "$want" > .venv/.ready
