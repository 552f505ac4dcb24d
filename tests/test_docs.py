"""The README and the guides: every command in them is one that its program takes, every page is in the site, and the
README's commands and lines of Python run.
"""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from interpreters import HERE

from cim_plugin import cli

ROOT = HERE.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("", "bash", "sh", "console")
MOST_WORDS = 1000  #: of the README


class Line(NamedTuple):
    """A command of a page."""

    page: str
    text: str

    def words(self) -> list[str]:
        """As a shell has them, without variables before the command and without what follows it."""
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        return [word for word in words if word not in ("&", ".", "...")]


#: programs whose commands are looked at; other lines of a block are output, maps and the like
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?P<program>cim-plugin|python|scripts(?=/\w))\b")


def commands() -> list[Line]:
    """All lines of code blocks that a shell would run."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in FENCE.findall(text):
            if language in SHELLS:
                found += [Line(page.name, part) for line in whole_lines(block) for part in line.split(" && ")]
    return [line for line in found if COMMAND.match(line.text)]


def whole_lines(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def of(program: str) -> list[Line]:
    """The commands of a program that are shown whole."""
    return [line for line in commands() if COMMAND.match(line.text)["program"] == program and is_whole(line)]


def as_ids(line: Line) -> str:
    return f"{line.page}: {line.text[:60]}"


def is_whole(line: Line) -> bool:
    """Prose may name the beginning of a command, or flags alone."""
    return not any(mark in line.text for mark in ("...", "ARCHIVE", "|"))


def test_there_are_commands():
    assert [len(of(program)) >= 5 for program in ("cim-plugin", "python", "scripts")] == [True] * 3


@pytest.mark.parametrize("line", of("cim-plugin"), ids=as_ids)
def test_a_command_of_ours_is_one_that_it_takes(line):
    _, *words = line.words()
    assert cli.build_parser(words[:1])[0].parse_known_args(words)[1] == []


def quoted() -> list[Line]:
    """What prose quotes of our command: flags without what else it needs, or the beginning."""
    pages = [(page.name, FENCE.sub("", page.read_text(encoding="utf-8"))) for page in PAGES]
    return [Line(name, code) for name, text in pages for code in re.findall(r"`(cim-plugin [^`]+)`", text)]


@pytest.mark.parametrize("line", quoted(), ids=as_ids)
def test_what_prose_quotes_is_there(line):
    """Commands, actions and flags."""
    _, *words = line.words()
    parser, _ = cli.build_parser(words[:1])
    while deeper := [action for action in parser._actions if isinstance(action.choices, dict)]:
        if not words or words[0].startswith("-"):
            break
        parser = deeper[0].choices[words.pop(0).partition("|")[0]]  # of a|b the first
    flags = [word for word in words if word.startswith("-")]
    assert [flag for flag in flags if flag not in parser._option_string_actions] == []


@pytest.mark.parametrize("line", [line for line in of("python") if "domainbed." in line.text], ids=as_ids)
def test_a_command_of_domainbed_is_one_that_it_takes(line, domainbed_files):
    _, _, module, *words = line.words()
    if module.startswith("cim_plugin."):
        importlib.import_module(module)
        return
    source = (domainbed_files / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    flags = [word for word in words if word.startswith("--")]
    assert flags and [flag for flag in flags if not re.search(rf"['\"]{flag}['\"]", source)] == []


@pytest.mark.parametrize("line", of("scripts"), ids=as_ids)
def test_a_script_is_there_and_has_the_flags(line):
    script, *words = line.words()
    path = ROOT / script
    assert path.is_file() and path.stat().st_mode & 0o100, f"{script} is not there, or cannot be executed"
    folders = (ROOT / "scripts", ROOT / "cim_plugin" / "runs")  # which has the flags of clusters
    package = "".join(file.read_text(encoding="utf-8") for folder in folders for file in folder.rglob("*.py"))
    known = path.read_text(encoding="utf-8") + package
    flags = [word for word in words if word.startswith("--")]
    assert [flag for flag in flags if flag not in known and f'"{flag[2:]}"' not in known] == []  # or made of its name


def test_every_page_is_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in nav] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert local and [link for link in local if not (ROOT / link).exists()] == []


def test_pictures_of_the_readme_are_small():
    pictures = re.findall(r'<img src="([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(pictures) == 1 and (ROOT / pictures[0]).stat().st_size < 300_000


# --- the README, run --------------------------------------------------------------------------------------------------


def blocks_of_the_readme(*languages: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [block for language, block in FENCE.findall(text) if language in languages]


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """Those of ours that need no network and no host, in order, with one epoch of a part of the data."""
    pytest.importorskip("wilds", reason="training needs wilds")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks_of_the_readme(*SHELLS) for line in whole_lines(block)]
    ran = []
    for line in lines:
        words = Line("README.md", line).words()
        if words[:1] != ["cim-plugin"] or words[1] in ("get-domainbed", "doctor"):
            continue
        arguments = [word for word in words[1:] if word != "train_output"]
        if words[1] == "train":
            arguments += ["--n_epochs", "1", "--frac", "0.2"]
        assert cli.main(arguments) == 0, capsys.readouterr().err
        ran.append(words[1])
    assert {"data", "train", "compare", "show"} <= set(ran)
    assert {Path(name).suffix for name in map(str, tmp_path.iterdir())} >= {".html"}


def test_the_lines_of_python_of_the_readme_run():
    (code,) = blocks_of_the_readme("python")
    assert len(code.split("\n\n", 1)[1].strip().splitlines()) <= 10
    found: dict = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["m"].shape[0] == found["images"].shape[0] and found["psi"].shape == found["x"].shape
