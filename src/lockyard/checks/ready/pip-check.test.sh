# Ready-made image test: what pip knows to be installed fits together.
exec "$PREFIX/bin/python" -m pip check --disable-pip-version-check
