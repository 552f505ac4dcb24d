"""Lines of results.jsonl read with what they repeat left out, against lines read one by one."""

from __future__ import annotations

import json

import pytest

from cim_plugin.errors import InputError
from cim_plugin.files import Unreadable, parse_json
from cim_plugin.runs import json_lines

ARGUMENTS = {"algorithm": "CIM", "hparams": '{"a": 1}', "test_envs": [0], "hparams_seed": 1}


def line(step: int, arguments=ARGUMENTS, hparams={"a": 1, "nested": {"b": [2]}}, **more) -> str:
    record = {"args": arguments, "hparams": hparams, "env0_in_acc": 0.5, "loss": 0.25 * step, "step": step, **more}
    return json.dumps(record, sort_keys=True)


#: lines as DomainBed writes them, and lines that are only nearly so
TEXTS = {
    "as the host writes them": [line(step) for step in range(4)],
    "other arguments in between": [line(0), line(1, {**ARGUMENTS, "hparams_seed": 2}), line(2), line(3)],
    "other hyperparameters in between": [line(0), line(1, hparams={"a": 2}), line(2), line(3, hparams=None)],
    "true for 1": [line(0), line(1, {**ARGUMENTS, "hparams_seed": True}), line(2)],
    "names in another order": [line(0), json.dumps({"step": 1, "loss": 2.0, "args": ARGUMENTS}), line(2)],
    "other spaces": [line(0), line(1).replace(": ", ":"), line(2).replace(", ", " , ")],
    "arguments twice": [line(0), line(1)[:-1] + ', "args": {"algorithm": "ERM"}}', line(2)],
    "hyperparameters in a text": [line(0), line(1, z='"hparams": {"a": 1, "nested": {"b": [2]}}, '), line(2)],
    "empty lines": [line(0), "", "  ", line(1)],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_every_line_is_what_it_is_when_read_alone(texts):
    read = list(json_lines.lines(texts, "results.jsonl"))
    expected = [(number, json.loads(text)) for number, text in enumerate(texts, 1) if text.strip()]
    assert [one.number for one in read] == [number for number, _ in expected]
    for one, (_, record) in zip(read, expected):
        without = {name: value for name, value in record.items() if name != "hparams"}
        assert {name: value for name, value in one.record.items() if name != "hparams"} == without
        assert one.arguments == json.dumps(record["args"], sort_keys=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],
        lambda text: text.replace('"loss": ', '"loss" '),
        lambda text: text + "}",
        lambda text: text.replace('"step"', "step"),
        lambda text: text[:40],
        lambda text: text.replace('"nested": {', '"nested": '),
    ],
)
def test_a_damaged_line_is_named_as_if_it_stood_alone(damage):
    text = damage(line(1))
    with pytest.raises(Unreadable) as alone:
        parse_json(text, "results.jsonl", 2)
    with pytest.raises(Unreadable) as found:
        list(json_lines.lines([line(0), text, line(2)], "results.jsonl"))
    assert str(found.value) == str(alone.value)


def test_arguments_that_are_null_the_second_time_are_seen():
    text = line(1)[:-1] + ', "args": null}'
    with pytest.raises((Unreadable, InputError), match="results.jsonl, line 2: field 'args'"):
        list(json_lines.lines([line(0), text], "results.jsonl"))
