"""Ready-made image test: every file has an owner that the image knows, and only sticky directories are writable by all."""

import json
import os
import stat
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
if (
    len(Path("/proc/self/uid_map").read_text().split()) == 3
    and Path("/proc/self/uid_map").read_text().split()[2] == "1"
):
    print("the sandbox of an ordinary user knows no owners")
    sys.exit(77)


def ids(path: str) -> set[int]:
    """Return the numbers in the third column of an account file."""
    try:
        return {int(line.split(":")[2]) for line in Path(path).read_text().splitlines() if line.count(":") > 2}
    except OSError:
        return {0}


users, groups = ids("/etc/passwd"), ids("/etc/group")
users.add(context["owner"][0])
groups.add(context["owner"][1])
problems = []
for directory, names, files in os.walk("/"):
    names[:] = [
        name
        for name in names
        if (directory, name)
        not in {("/", "proc"), ("/", "sys"), ("/", "dev"), ("/", "tmp"), ("/", "run"), ("/", "lockyard")}
    ]
    for name in (*names, *files):
        path = os.path.join(directory, name)
        status = os.lstat(path)
        if status.st_uid not in users or status.st_gid not in groups:
            problems.append(f"{path}: owner {status.st_uid}:{status.st_gid} is not in /etc/passwd and /etc/group")
        if status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode) and not status.st_mode & stat.S_ISVTX:
            problems.append(f"{path}: writable by all ({stat.filemode(status.st_mode)})")
print("\n".join(problems[:50]) or "every owner is known, nothing is writable by all")
sys.exit(1 if problems else 0)
