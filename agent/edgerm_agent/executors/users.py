"""Operating system users by name, as tasks run as them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """Whom a task runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_user(name: str) -> User:
    """The user of this name or number; blocks. Raises `LookupError`, with the remedy, if the box has none."""
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError) as error:
        raise LookupError(f"no user {name!r} on this box: make one (useradd) or name another") from error
    return User(found.pw_name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(found.pw_name, found.pw_gid)))


def own_name() -> str:
    """The name of the user that we run as; empty if the box has none for it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def give(folder: str, user: User) -> None:
    """Make `user` the owner of a folder and all that is in it; follows no link. Blocks."""
    os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    for _, folders, files, fd in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, user.uid, user.gid, dir_fd=fd, follow_symlinks=False)
