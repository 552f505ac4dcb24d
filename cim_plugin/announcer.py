"""A state that a user should know of is said when it begins and when it ends, not all the while."""

from __future__ import annotations

from typing import Mapping


class Announcer:
    """What lasts at present, by name; of what is said the caller decides where it goes."""

    def __init__(self):
        self.lasting: dict[str, str] = {}  #: name of a state -> its words when it began; plain values, to be saved

    def changes(self, found: Mapping[str, str | None]) -> list[str]:
        """What to say now.

        Args:
            found: name of a state -> what is the matter, None where nothing is. Names that are not in it stay as they
                are.
        """
        said = []
        for name, words in found.items():
            before = self.lasting.get(name)
            if words == before:
                continue
            if words is None:
                del self.lasting[name]
                said.append(f"no longer: {before}")
            else:
                self.lasting[name] = words
                said.append(words)
        return said
