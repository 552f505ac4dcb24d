"""A state is said when it begins and when it ends, and at no time between."""

from __future__ import annotations

from cim_plugin.announcer import Announcer


def test_a_state_is_said_when_it_begins_and_when_it_ends():
    announcer = Announcer()
    steps = [{"a": None, "b": None}, {"a": "a is low"}, {"a": "a is low", "b": "b is off"}, {"a": None}, {"a": None}]
    assert [announcer.changes(step) for step in steps] == [[], ["a is low"], ["b is off"], ["no longer: a is low"], []]
    assert announcer.lasting == {"b": "b is off"}
    assert announcer.changes({"a": "a is low"}) == ["a is low"]  # it has begun again


def test_a_state_that_turns_into_another_one_is_said_as_that():
    announcer = Announcer()
    assert announcer.changes({"a": "low"}) + announcer.changes({"a": "high"}) == ["low", "high"]


def test_what_lasted_before_a_stop_is_not_said_again():
    announcer = Announcer()
    announcer.lasting = {"a": "low"}
    assert announcer.changes({"a": "low"}) == []
    assert announcer.changes({"a": None}) == ["no longer: low"]
