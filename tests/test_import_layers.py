"""Imports run one way: no folder and no module is part of a circle, and the method knows nothing of what is around
it.
"""

from __future__ import annotations

from graphlib import CycleError

import pytest

from scripts.import_layers import by_room, graph, layers


@pytest.mark.parametrize("edges", [graph(), by_room(graph())], ids=["modules", "folders"])
def test_there_is_no_circle(edges):
    assert sorted(name for layer in layers(edges) for name in layer) == sorted(edges)


def test_the_method_imports_nothing_of_the_plugin():
    for name, targets in graph().items():
        if name.startswith("cim_plugin.algorithms"):
            assert all(target.startswith("cim_plugin.algorithms") for target in targets), name


def test_what_runs_leave_is_below_what_makes_and_shows_them():
    place = {name: number for number, layer in enumerate(layers(by_room(graph()))) for name in layer}
    order = ["algorithms", "catalog", "runs", "wilds_runner", "hosts", "doctor"]
    assert [place[f"cim_plugin.{name}"] for name in order] == sorted({place[f"cim_plugin.{name}"] for name in order})


def test_a_circle_is_found():
    with pytest.raises(CycleError):
        layers({"a": {"b"}, "b": {"a"}})
