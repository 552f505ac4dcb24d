"""Whether the path of an archive's member may be used. Decided by its words alone: no disk is looked at, whatever the
Python.
"""

from __future__ import annotations


def outside(name: str) -> str | None:
    """Why a member's path does not stay in the folder of the archive, in words; links, which could lead out all the
    same, are refused elsewhere.
    """
    if name.startswith("/"):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has a path that leads out of the folder"
    return None
