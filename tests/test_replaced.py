"""Which objects of ours tests replace, and why: what a test varies is an argument, and what it watches it watches from
outside, in files, in results or by torch's own hooks.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

TESTS = Path(__file__).parent
OURS = ("algorithms", "cim_plugin", "scripts")

#: file -> what it replaces, and why nothing else will do
REPLACED = {
    "doctor/test_doctor.py": "check.examine: root can read every folder that could make it fail",
    "experiments/test_study.py": "jobs.function: a process per job would take minutes",
    "leaderboard/conftest.py": "truth.published_lengths: those that count have 73,000 lines per seed",
    "leaderboard/test_run.py": "run.PROGRAM: a whole submission takes days",
    "models/test_load_train.py": "results.publish: the logits of the training's own process are to be seen",
    "test_folder_lock.py": "folder_lock.BEAT: a lock is stale after seconds",
    "wilds_runner/test_defaults.py": "the tables of defaults: which of them goes before another one",
    "wilds_runner/test_image_cache.py": "image_cache._checksum: that a cache is not read through again",
    "wilds_runner/test_pseudo_runs.py": "pseudo_environments.STEPS: the last look is after 640 steps of eight models",
    "wilds_runner/test_system.py": "system.SYSTEM: there is no Windows here",
}


def names_of_ours(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            yield from (name.asname or name.name for name in node.names)
        elif isinstance(node, ast.Import):
            found = (name for name in node.names if name.name.split(".")[0] in OURS)
            yield from (name.asname or name.name.split(".")[0] for name in found)


def is_ours(target: ast.expr, ours: set[str]) -> bool:
    """Of a name, a string of one, or a class in a module; a library that a module has imported is none of ours."""
    if isinstance(target, ast.Constant):
        return str(target.value).split(".")[0] in OURS
    if isinstance(target, ast.Attribute) and target.attr[:1].isupper():
        target = target.value
    return isinstance(target, ast.Name) and target.id in ours


def replaced(path: Path) -> int:
    tree = ast.parse(path.read_text())
    ours = set(names_of_ours(tree))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return sum(call.func.attr == "setattr" and is_ours(call.args[0], ours) for call in calls)


def test_what_tests_replace_of_ours_has_its_reason():
    found = {str(path.relative_to(TESTS)): replaced(path) for path in TESTS.rglob("*.py")}
    assert {name: number for name, number in found.items() if number} == dict.fromkeys(REPLACED, 1)


def test_a_replaced_object_is_found(tmp_path):
    (tmp_path / "test.py").write_text(
        "import os\nfrom cim_plugin.runs import jobs\n"
        "def test(monkeypatch):\n"
        "    monkeypatch.setattr(jobs, 'function', None)\n"
        "    monkeypatch.setattr(jobs.Runner, 'run', None)\n"
        "    monkeypatch.setattr('cim_plugin.cli.main', None)\n"
        "    monkeypatch.setattr(jobs.os, 'replace', None)\n"
        "    monkeypatch.setattr(os, 'replace', None)\n"
    )
    assert replaced(tmp_path / "test.py") == 3
