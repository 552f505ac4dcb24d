"""Run folders from somebody else: code in pickles, names that lead outside, values that nobody expects."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Callable

from .judging import ended, refused
from .kills import difference
from .running import Room
from .sections import Case

#: what stands where something else is expected
VALUES: dict[str, Any] = {
    "null": None,
    "a text": "x",
    "-1": -1,
    "20 digits": 10**20,
    "NaN": float("nan"),
    "a list": [1],
    "an object": {"a": 1},
}
DEEP = "[" * 100_000 + "]" * 100_000
CONTROL = "a\x1b[2J\x07\r\nb\u202ec\u2028"
FORMULAS = ("=1+1", "+1+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1+1", "\r=1+1")


class _Code:
    """Unpickled, it runs a shell command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _copy(origin: Path, room: Room) -> Path:
    return Path(shutil.copytree(origin, room.folder / "run", symlinks=True))


def _edit(run: Path, change: Callable[[dict], Any]) -> None:
    record = json.loads((run / "results.json").read_text())
    changed = change(record)
    (run / "results.json").write_text(json.dumps(record if changed is None else changed))


# --- pickles ----------------------------------------------------------------------------------------------------------


def _pickle(path: Path, room: Room, protocol: int, in_zip: bool) -> None:
    code = {"algorithm": _Code(room.payload), "config": _Code(room.payload), "model_dict": _Code(room.payload)}
    if in_zip:
        import torch

        torch.save(code, path, pickle_protocol=max(protocol, 2))
    else:
        path.write_bytes(pickle.dumps(code, protocol))


def _try_pickle(material, kind, state, name, argv, protocol, in_zip, room: Room) -> list[str]:
    origin = material.domainbed() if kind == "domainbed" else getattr(material, state)(kind)
    run = _copy(origin, room)
    _pickle(run / name, room, protocol, in_zip)
    return refused(room.run(*argv(run)), name)


def _pickles(material) -> list[Case]:
    def train(kind: str, *more: str):
        return lambda run: material.words(kind, run, *more)

    readers = {
        "state.pth, --resume": ("CIM_VIB", "stopped", "state.pth", train("CIM_VIB", "--resume")),
        "best model, --eval_only": (
            "CIM_VIB",
            "finished",
            "waterbirds_seed:0_epoch:best_model.pth",
            train("CIM_VIB", "--eval_only"),
        ),
        "best model, show": (
            "CIM_VIB",
            "finished",
            "waterbirds_seed:0_epoch:best_model.pth",
            lambda run: ("show", run, "--json"),
        ),
        "model.pkl, show": ("domainbed", "finished", "model.pkl", lambda run: ("show", run, "--json")),
    }
    return [
        Case(
            f"code in {name}, {'zip' if in_zip else 'plain'} pickle {protocol}",
            functools.partial(_try_pickle, material, kind, state, file, argv, protocol, in_zip),
        )
        for name, (kind, state, file, argv) in readers.items()
        if kind != "domainbed" or material.domainbed()
        for protocol, in_zip in ((0, False), (4, False), (2, True))
    ]


# --- state.pth --------------------------------------------------------------------------------------------------------

OUTSIDE = ("{room}/canary", "../../canary", "a/../../../canary", "../run/../../canary")


def _try_state(material, change: Callable[[dict, Room], None], room: Room) -> list[str]:
    import torch

    run = _copy(material.stopped("CIM_VIB"), room)
    state = torch.load(run / "state.pth", weights_only=True)
    change(state, room)
    torch.save(state, run / "state.pth")
    outcome = room.run(*material.words("CIM_VIB", run, "--resume"))
    if outcome.status == 0:  # what is not needed, or is put right, may be missing
        return difference(run, material.finished("CIM_VIB"))
    return ended(outcome, "state.pth", "log_dir")


def _log_size(name: str, size: Any, state: dict, room: Room) -> None:
    state["log_sizes"][name.format(room=room.top)] = size


def _set(key: str, value: Any, state: dict, room: Room) -> None:
    state[key] = value


def _states(material) -> list[Case]:
    import torch

    keys = sorted(torch.load(material.stopped("CIM_VIB") / "state.pth", weights_only=True))
    changes = {
        **{f"log_sizes to {name}": functools.partial(_log_size, name, 0) for name in OUTSIDE},
        **{f"log_sizes of {word}": functools.partial(_log_size, "log.txt", value) for word, value in VALUES.items()},
        "log_sizes to a folder": functools.partial(_log_size, ".", 0),
        "log_sizes to NUL": functools.partial(_log_size, "a\0b", 0),
        **{f"without {key}": lambda state, room, key=key: state.pop(key) and None for key in keys},
        **{f"{key} is {word}": functools.partial(_set, key, value) for key in keys for word, value in VALUES.items()},
    }
    return [
        Case(f"state.pth, {name}", functools.partial(_try_state, material, change)) for name, change in changes.items()
    ]


# --- results.json -----------------------------------------------------------------------------------------------------


def _readers(material) -> dict[str, Callable[[Path], tuple]]:
    return {
        "compare": lambda run: ("compare", run, "-o", "out.csv"),
        "show": lambda run: ("show", run, "--json"),
        "pack": lambda run: ("leaderboard", "pack", run, "-o", "out.tar.gz"),
        "eval_only": lambda run: material.words("CIM_VIB", run, "--eval_only"),
    }


def _try_results(material, argv, change: Callable[[dict, Room], Any], room: Room) -> list[str]:
    run = _copy(material.finished("CIM_VIB"), room)
    _edit(run, lambda record: change(record, room))
    return ended(room.run(*argv(run))) + _clean_table(room)


def _clean_table(room: Room) -> list[str]:
    """Cells of a table hold no formula and no control character."""
    table = room.folder / "out.csv"
    if not table.exists():
        return []
    cells = [cell for line in csv.reader(io.StringIO(table.read_text())) for cell in line]
    formulas = [cell for cell in cells if cell[:1] in ("=", "+", "@", "-", "\t", "\r") and not _is_number(cell)]
    strange = [cell for cell in cells if not cell.isprintable()]
    return [
        *(f"out.csv holds a FORMULA: {cell!r}" for cell in formulas[:1]),
        *(f"out.csv holds control characters: {cell!r}" for cell in strange[:1]),
    ]


def _is_number(text: str) -> bool:
    try:
        return bool(float(text) + 1)
    except ValueError:
        return False


def _try_values(material, argv, path: tuple[str, ...], room: Room) -> list[str]:
    """Every value in the place of one field, then the field left out."""
    run = _copy(material.finished("CIM_VIB"), room)
    original = (run / "results.json").read_text()
    faults = []
    for word, value in {**VALUES, "left out": ...}.items():
        record = json.loads(original)
        parent = functools.reduce(lambda place, key: place[key], path[:-1], record)
        if value is ...:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        (run / "results.json").write_text(json.dumps(record))
        faults += [f"{word}: {fault}" for fault in ended(room.run(*argv(run)))]
    return faults


def _try_text(text: str, argv, material, room: Room) -> list[str]:
    run = _copy(material.finished("CIM_VIB"), room)
    (run / "results.json").write_text(text)
    return refused(room.run(*argv(run)), "results.json")


def _into_config(values: dict[str, Any], record: dict, room: Room) -> None:
    record["config"].update(json.loads(json.dumps(values).replace("PAYLOAD", str(room.folder / "payload.pth"))))
    _pickle(room.folder / "payload.pth", room, 2, True)


def _results(material) -> list[Case]:
    readers = _readers(material)
    record = json.loads((material.finished("CIM_VIB") / "results.json").read_text())
    paths = [(key,) for key in record] + [("config", key) for key in record["config"]]
    paths += [("selection", "best", key) for key in record["selection"]["best"]]
    found = [
        Case(f"{name}, results.json, {'.'.join(path)}", functools.partial(_try_values, material, readers[name], path))
        for name in ("compare", "show")
        for path in paths
    ]
    texts = {
        "nested 100,000 deep": DEEP,
        "a field nested 100,000 deep": '{"config": ' + DEEP + "}",
        "a number of 100,000 digits": '{"epochs": ' + "9" * 100_000 + "}",
        "names twice": '{"config": {}, "config": 1}',
        "BOM": "\ufeff{}",
        "a megabyte of text": json.dumps({"config": "x" * 1_000_000}),
    }
    configs = {
        "checkpoint_path": {"model": "timm/resnet18", "model_kwargs": {"checkpoint_path": "PAYLOAD"}},
        "pretrained_cfg file": {
            "model": "timm/resnet18",
            "model_kwargs": {"pretrained": True, "pretrained_cfg": {"file": "PAYLOAD"}},
        },
        "pretrained_cfg_overlay": {
            "model": "timm/resnet18",
            "model_kwargs": {"pretrained": True, "pretrained_cfg_overlay": {"file": "PAYLOAD"}},
        },
        "pretrained_strict and url": {
            "model": "timm/resnet18",
            "model_kwargs": {"pretrained": True, "pretrained_cfg": {"url": "file://PAYLOAD"}},
        },
        "hf-hub model": {"model": "timm/hf-hub:nobody/nothing"},
        "hf-hub model without prefix": {"model": "hf-hub:nobody/nothing"},
        "local-dir model": {"model": "timm/local-dir:PAYLOAD"},
        "model that is a path": {"model": "../../canary"},
        "model that is a dunder": {"model": "__import__"},
        "pretrained_model_path": {"pretrained_model_path": "PAYLOAD"},
        "weights": {"model": "resnet18", "model_kwargs": {"weights": "PAYLOAD"}},
        "data set that is a path": {"dataset": "../../canary"},
        "root_dir that is the canary": {"root_dir": "../../canary"},
        "num_workers of a million": {"loader_kwargs": {"num_workers": 1_000_000}},
        "worker_init_fn": {"loader_kwargs": {"num_workers": 0, "worker_init_fn": "os.system"}},
        "resolution of 20 digits": {"target_resolution": [10**20, 10**20]},
        "resolution of a million": {"target_resolution": [1_000_000, 1_000_000]},
    }
    for name, argv in readers.items():
        found += [
            Case(f"{name}, results.json, {word}", functools.partial(_try_text, text, argv, material))
            for word, text in texts.items()
        ]
        found += [
            Case(
                f"{name}, results.json, {word}",
                functools.partial(_try_results, material, argv, functools.partial(_into_config, values)),
            )
            for word, values in configs.items()
        ]
    names = {f"formula {word!r}": word for word in FORMULAS} | {
        "control characters": CONTROL,
        "100,000 letters": "x" * 100_000,
    }
    found += [
        Case(
            f"{name}, results.json, {key} is {word}",
            functools.partial(_try_results, material, argv, functools.partial(_rename, key, value)),
        )
        for name, argv in readers.items()
        for word, value in names.items()
        for key in ("algorithm", "dataset", "group", "flag")
    ]
    return found


def _rename(key: str, value: str, record: dict, room: Room) -> None:
    if key == "group":
        for chosen in record["selection"].values():
            for split in chosen["splits"].values():
                split["groups"] = {value: next(iter(split["groups"].values()))}
    elif key == "flag":
        record["config"][value] = value
        record["config"]["val_metric"] = value
    else:
        record[key] = record["config"][key] = value


# --- links ------------------------------------------------------------------------------------------------------------


def _try_link(material, name: str, target: str, argv, state: str, room: Room) -> list[str]:
    run = _copy(getattr(material, state)("CIM_VIB"), room)
    place = run / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return ended(room.run(*argv(run)))


def _links(material) -> list[Case]:
    def train(*more: str):
        return lambda run: material.words("CIM_VIB", run, *more)

    names = sorted(
        str(path.relative_to(material.finished("CIM_VIB"))) for path in material.finished("CIM_VIB").iterdir()
    )
    names += [f"{name}.part" for name in ("state.pth", "results.json", "waterbirds_seed:0_epoch:last_model.pth")] + [
        ".probe",
        ".lock",
    ]
    return [
        Case(f"{word}, {name} is a link to {target}", functools.partial(_try_link, material, name, target, argv, state))
        for word, argv, state in (
            ("resume", train("--resume"), "stopped"),
            ("eval_only", train("--eval_only"), "finished"),
        )
        for name in names
        for target in ("../../canary", "../..")
    ]


def cases(material) -> list[Case]:
    """Pickles, states, results and links."""
    return [*_pickles(material), *_states(material), *_results(material), *_links(material)]
