"""Packages with post-link and activation scripts, as graphviz, gdk-pixbuf and librsvg have them."""

from support.packages import PLACEHOLDER, Node, Package

P = PLACEHOLDER.encode()
DOT = b"""#!/bin/sh
# Like `dot -c`: lists the plugins that are there, with absolute paths, in the order of the directory.
prefix=$(dirname "$(dirname "$0")")
for plugin in "$prefix"/lib/graphviz/libgvplugin_*.so; do echo "$plugin cairo"; done > "$prefix/lib/graphviz/config6"
"""
QUERY = (
    b"""#!/bin/sh
for loader in """
    + P
    + b"""/lib/gdk-pixbuf-2.0/2.10.0/loaders/*.so; do echo "\\"$loader\\""; done
"""
)
UPDATE = b"""\
"$PREFIX/bin/gdk-pixbuf-query-loaders" > "$PREFIX/lib/gdk-pixbuf-2.0/2.10.0/loaders.cache"
"""
GRAPHVIZ = b"""\
set -ex
test "$PKG_NAME-$PKG_VERSION-$PKG_BUILDNUM" = graphviz-9.0-0
test "$(id -u)" = 0
test "$(command -v dot)" = "$PREFIX/bin/dot"
"$PREFIX/bin/dot" -c
touch "$PREFIX/share/graphviz/untouched.txt"
rm "$PREFIX/share/graphviz/removed.txt"
chmod 600 "$PREFIX/share/graphviz/private.txt"
echo "graphviz is ready" >> "$PREFIX/.messages.txt"
"""
ACTIVATE = b"""\
export GDAL_DATA="$CONDA_PREFIX/share/gdal" LOADER_CACHE=$(cat "$CONDA_PREFIX/lib/gdk-pixbuf-2.0/2.10.0/loaders.cache" | wc -l)
export PATH="$CONDA_PREFIX/gdal/bin:$PATH"
[ -n "$NOT_SET" ] && export NOT_SET
local_only=1
echo "noise on stdout"
false
"""
LOADERS = "lib/gdk-pixbuf-2.0/2.10.0/loaders"


def graphviz(script: bytes = GRAPHVIZ, build: str = "0") -> Package:
    return Package(
        "graphviz", "9.0", build,
        files={
            "bin/dot": Node(DOT, 0o755),
            "bin/.graphviz-post-link.sh": Node(script),
            "lib/graphviz/libgvplugin_core.so": Node(b"\x7fELF core"),
            "lib/graphviz/libgvplugin_pango.so": Node(b"\x7fELF pango"),
            "share/graphviz/untouched.txt": Node(b"as it was\n"),
            "share/graphviz/removed.txt": Node(b"goes\n"),
            "share/graphviz/private.txt": Node(b"secret\n"),
        },
    )  # fmt: skip


def pixbuf() -> Package:
    return Package(
        "gdk-pixbuf", "2.42",
        files={
            "bin/gdk-pixbuf-query-loaders": Node(QUERY, 0o755, prefix="text"),
            "bin/.gdk-pixbuf-post-link.sh": Node(UPDATE),
            f"{LOADERS}/png.so": Node(b"png"),
        },
    )  # fmt: skip


def librsvg() -> Package:
    return Package(
        "librsvg", "2.56", depends=["gdk-pixbuf"],
        files={f"{LOADERS}/svg.so": Node(b"svg"), "bin/.librsvg-post-link.sh": Node(UPDATE)},
    )  # fmt: skip


def gdal(script: bytes = ACTIVATE) -> Package:
    return Package(
        "libgdal", "3.8", depends=["gdk-pixbuf"],
        files={
            "share/gdal/a.csv": Node(b"x\n"),
            "etc/conda/activate.d/gdal.sh": Node(script),
            "etc/conda/env_vars.d/gdal.json": Node(b'{"GDAL_DRIVER": "first", "PROJ_NETWORK": "ON"}'),
            "etc/conda/env_vars.d/later.json": Node(b'{"GDAL_DRIVER": "second"}'),
        },
    )  # fmt: skip
