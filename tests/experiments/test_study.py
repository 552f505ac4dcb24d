"""The study from end to end, its search and its tables."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from experiments.mnist_files import write_mnist
from PIL import Image
from scipy import stats

from cim_plugin.errors import InputError
from cim_plugin.runs import jobs, packed
from cim_plugin.runs.folder_lock import FolderLock
from scripts import study as command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def study(mnist: Path, output: Path, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "scripts.study",
        "--mnist",
        str(mnist),
        "--output_dir",
        str(output),
        "--jobs",
        "1",
        *words,
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def in_this_process(context, target, *arguments):
    """What stands for a job in a process of its own: what it does is done when it starts."""

    def start(environment) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            target(*arguments)
        return SimpleNamespace(poll=lambda: end.value.code)

    return start


@pytest.fixture
def jobs_here(monkeypatch):
    """Jobs are done in this process."""
    monkeypatch.setattr(jobs, "function", in_this_process)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the command sets


@pytest.fixture
def study_here(jobs_here, monkeypatch, capsys):
    """The same in this process: returns exit status, standard output and standard error."""

    def study_here(mnist: Path, output: Path, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["study", "--mnist", str(mnist), "--output_dir", str(output), "--jobs", "1", *words]
        )
        try:
            status = command.main()
        except SystemExit as refused:  # the parser's
            status = refused.code
        return (status, *capsys.readouterr())

    return study_here


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    """No more images than training on photographs takes, and a tenth of them for validation and test."""
    return write_mnist(tmp_path_factory.mktemp("mnist"), 4_400, 400)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(mnist, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    done = study(mnist, output, "--quick", "--search", "1")
    assert done.returncode == 0, done.stderr[-2000:]
    return output, done.stdout


def test_quick_trains_every_row_of_the_table_and_prints_it(quick):
    from scripts.experiments.rows import GROUPS

    output, text = quick
    results = {(result := json.loads(file.read_text()))["row"]: result for file in output.rglob("results.json")}
    assert results.keys() == GROUPS["table"].keys() and len(results) == 10
    for name, result in results.items():
        chosen = result["selection"]["worst_group"]["splits"]["test"]
        least = min(group["accuracy"] for group in chosen["groups"].values())
        assert result["status"] == "finished" and chosen["metrics"]["acc_wg"] == least
        assert f"| {name} | {100 * least:.1f} |" in text


def test_finished_runs_are_not_done_again(mnist, quick, study_here):
    output, text = quick
    before = {file: file.stat().st_mtime_ns for file in output.rglob("results.json")}
    status, again, _ = study_here(mnist, output, "--quick", "--search", "1")
    assert status == 0 and again == text
    assert {file: file.stat().st_mtime_ns for file in output.rglob("results.json")} == before


def test_packed_runs_are_in_one_file_that_tables_and_compare_read(mnist, quick, study_here, tmp_path, capsys):
    from cim_plugin import cli

    output = tmp_path / "study"
    shutil.copytree(quick[0], output)
    text = (study_here(mnist, output, "--quick", "--search", "1", "--tables"), compare(output, capsys))
    files = list(output.rglob("results.json"))
    before = {str(file.parent.relative_to(output / "quick")): json.loads(file.read_text()) for file in files}
    (output / "quick" / "steps_2" / "photos_95" / "ERM" / "11").mkdir()  # of a run that goes on
    file = output / "quick" / packed.NAME
    assert study_here(mnist, output, "--quick", "--pack")[:2] == (0, f"{len(before)} runs packed into {file}\n")
    assert packed.read(str(file)) == before
    left = {str(path.relative_to(output / "quick")) for path in output.rglob("*")}
    assert left >= {packed.NAME, "steps_2/photos_95/ERM/11"} and len(left) == 6
    assert (
        study_here(mnist, output, "--quick", "--search", "1", "--tables"),
        compare(file, capsys),
    ) == text

    assert study_here(mnist, output, "--quick", "--search", "1")[0] == 0 and not list(output.rglob("results.json"))
    assert study_here(mnist, output, "--quick", "--rows", "ERM")[0] == 0
    assert study_here(mnist, output, "--quick", "--pack")[1] == f"1 runs packed into {file}\n"
    assert packed.read(str(file)).keys() - before == {"steps_2_draw_1/photos_95/ERM/10"}

    file.write_bytes(file.read_bytes()[:-1])
    assert study_here(mnist, output, "--quick", "--tables")[::2] == (
        2,
        f"scripts/study: error: {file}: damaged, it ends early\n",
    )
    assert cli.main(["compare", str(file)]) == 2 and capsys.readouterr().err.count("\n") == 1


def compare(path: Path, capsys) -> str:
    from cim_plugin import cli

    assert cli.main(["compare", str(path), "--rules", "last"]) == 0
    text = capsys.readouterr().out
    assert "photos_95" in text and "SYNTHETIC" in text and "groupDRO" in text
    return text


def test_runs_are_shared_out_among_commands_and_a_failed_one_stops_no_other(jobs_here, tmp_path, capsys):
    from scripts.experiments.runs import Run

    def train(run, folders):
        assert run.row != "CIM_VIB"
        return {}

    def do_missing(*rows):
        runs = [Run("photos_95", row, 10, 2) for row in rows]
        command.do_missing(SimpleNamespace(jobs=1, mnist=None, pacs=None), train, runs, tmp_path)

    folder = tmp_path / "steps_2" / "photos_95"
    with FolderLock(str(folder / "CIM" / "10")):
        with pytest.raises(InputError) as failed:
            do_missing("ERM", "CIM", "CIM_VIB", "groupDRO")
        assert "row='CIM_VIB', seed=10, steps=2, draw=0) failed:" in capsys.readouterr().err
        assert str(failed.value) == (
            "2 of 4 runs are not done, some failed (exit status 1); the same command does them"
        )
        assert sorted(file.parts[-3] for file in folder.rglob("results.json")) == ["ERM", "groupDRO"]
        do_missing("ERM", "CIM", "groupDRO")
        assert capsys.readouterr().err.splitlines()[-1] == "1 of 1 runs are left to the command that is at them"
    do_missing("CIM")
    assert Run("photos_95", "CIM", 10, 2).file(tmp_path).exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--rows", "ERN"], "row 'ERN' is unknown"),
        (["--jobs", "0"], "argument --jobs: 0 is not a whole number of at least 1"),
        (["--rule", "last"], "--rule last cannot choose hyperparameters on validation data; add --search 1"),
        (
            ["--against", "CIM", "--differences", "nothing.png"],
            "nothing.png would be empty: no task has results of a row of --against",
        ),
    ],
)
def test_a_mistake_is_said_in_one_line(mnist, tmp_path, study_here, words, said):
    status, _, err = study_here(mnist, tmp_path, "--quick", *words)
    assert status == 2 and len(err.splitlines()) == 1 and said in err


def test_data_that_are_not_there_are_said_in_one_line(mnist, tmp_path):
    done = study(mnist, tmp_path, "--quick", "--mnist", "nowhere")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "nowhere/train-images-idx3-ubyte.gz is not there; name the folder of MNIST's four .gz files"
        in done.stderr.splitlines()[-1]
    )


# --- search -----------------------------------------------------------------------------------------------------------


def test_draws_share_the_learning_rate_and_leave_what_makes_a_row():
    from scripts.experiments.rows import ROWS
    from scripts.experiments.search import draw

    assert all(draw(row, 0) == row for row in ROWS.values())
    rates = []
    for number in (1, 2, 3):
        drawn = {name: draw(row, number) for name, row in ROWS.items()}
        assert len({row.learning_rate for row in drawn.values()}) == 1
        rates.append(drawn["ERM"].learning_rate)
        assert drawn["CIM, λ=0"].hyperparameters == ROWS["CIM, λ=0"].hyperparameters
        assert 1e-2 <= drawn["CIM"].hyperparameters["cim_lambda"] <= 10
    assert rates == [1e-2, 3e-2, 1e-3]
    row = ROWS["CIM_VIB"]
    assert draw(row, 1).hyperparameters != draw(row, 2).hyperparameters
    assert draw(row, 4).learning_rate == row.learning_rate and draw(row, 4).hyperparameters != row.hyperparameters


def test_the_draw_with_the_best_validation_score_is_chosen_where_all_are_done(tmp_path):
    from scripts.experiments.runs import Run, chosen

    searched = [
        Run("photos_95", row, seed, 5, number) for row in ("ERM", "CIM") for seed in (10, 11) for number in range(3)
    ]
    for run, score in zip(
        searched, (0.2, 0.9, 0.5, 0.7, 0.7, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5)
    ):  # of the last one there is none
        run.file(tmp_path).parent.mkdir(parents=True)
        run.file(tmp_path).write_text(json.dumps({"selection": {"average": {"score": score}}}))
    assert chosen(tmp_path, searched, "average") == [
        Run("photos_95", "ERM", 10, 5, 1),
        Run("photos_95", "ERM", 11, 5, 0),
        Run("photos_95", "CIM", 10, 5, 2),
    ]


def test_a_search_trains_the_chosen_draw(mnist, study_here, tmp_path):
    status, out, err = study_here(mnist, tmp_path, "--quick", "--rows", "ERM")
    assert status == 0, err
    files = sorted(str(file.relative_to(tmp_path / "quick")) for file in tmp_path.rglob("results.json"))
    assert files == ["steps_2/photos_95/ERM/10/results.json", "steps_2_draw_1/photos_95/ERM/10/results.json"]
    found = [json.loads((tmp_path / "quick" / file).read_text())["selection"]["worst_group"] for file in files]
    best = found[found[0]["score"] < found[1]["score"]]
    assert f"| ERM | {100 * best['splits']['test']['metrics']['acc_wg']:.1f} |" in out


# --- tables -----------------------------------------------------------------------------------------------------------


def _reference_interval(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    return stats.ttest_rel(ours, theirs).confidence_interval(0.95)


WORST = {
    ("a", "ERM"): (60.0, 64.0, 62.0),
    ("a", "CIM"): (70.0, 75.0, 74.0),
    ("b", "CIM"): (80.0,),
    ("c", "VIB"): (50.0,),
}


def made(worst: dict[tuple[str, str], tuple[float, ...]]) -> dict:
    """Results of a task and a row, a seed each."""
    return {(*key, seed): _result(value) for key, values in worst.items() for seed, value in enumerate(values)}


def test_the_table_has_a_line_per_row_and_a_column_per_task():
    from scripts.experiments.tables import table

    assert table(made(WORST), ["a", "b"], ["ERM", "VIB", "CIM"], "last").splitlines() == [
        "| row | a | b |",
        "|---|---|---|",
        "| ERM | 62.0 ± 2.0 |  |",
        "| CIM | 73.0 ± 2.6 | 80.0 |",
    ]


def test_differences_have_a_line_per_task_and_row():
    from scripts.experiments.tables import differences

    low, high = _reference_interval(WORST["a", "CIM"], WORST["a", "ERM"])
    results = made({**WORST, ("b", "ERM"): (79.0,)})
    assert differences(results, ["a", "b", "c"], ["ERM", "CIM"], ["ERM", "VIB"], "last").splitlines() == [
        f"- a, CIM: {(low + high) / 2:+.1f} ± {(high - low) / 2:.1f} against ERM",
        "- b, CIM: +1.0 against ERM",
    ]


def test_two_seeds_have_no_interval():
    from scripts.experiments.tables import difference

    assert difference({1: 3.0, 2: 5.0, 3: 9.0}, {1: 1.0, 2: 4.0}) == "+1.5"


def test_differences_are_paired_and_carry_their_interval():
    from scripts.experiments.tables import difference

    ours, theirs = [80.0, 82.5, 79.0, 85.0], [70.0, 75.5, 71.0, 69.0]
    low, high = _reference_interval(ours, theirs)
    text = difference(dict(enumerate(ours)), {**dict(enumerate(theirs)), 9: 0.0})
    mean, half = (float(word) for word in text.split(" ± "))
    assert (mean - half, mean + half) == (pytest.approx(low, abs=0.1), pytest.approx(high, abs=0.1))


def test_differences_are_drawn_as_the_tables_say_them(tmp_path, monkeypatch):
    from scripts.experiments import figures
    from scripts.experiments.tables import difference

    worst = {"ERM": (60.0, 64.0, 61.0), "CIM": (70.0, 69.0, 74.0), "VIB": (61.0,)}
    results = {
        ("photos_95", row, seed): _result(value) for row, values in worst.items() for seed, value in enumerate(values)
    }
    drawn, errorbar = [], figures.pyplot_without_screen().Axes.errorbar
    monkeypatch.setattr(
        figures.pyplot_without_screen().Axes,
        "errorbar",
        lambda axis, x, y, xerr, **words: drawn.append((x, y, xerr)) or errorbar(axis, x, y, xerr=xerr, **words),
    )
    figures.draw_differences(
        results, ["colours_95", "photos_95"], worst, ["groupDRO", "ERM"], "last", tmp_path / "differences.png"
    )
    ((means, names, halves),) = drawn
    assert names == ["CIM", "VIB"] and means[1] == 1.0
    assert f"{means[0]:+.1f} ± {halves[0]:.1f}" == difference(
        dict(enumerate(worst["CIM"])), dict(enumerate(worst["ERM"]))
    )
    assert Image.open(tmp_path / "differences.png").size[0] > 600


def _result(worst_group: float) -> dict:
    """What tables read of a run."""
    return {"selection": {"last": {"splits": {"test": {"metrics": {"acc_wg": worst_group / 100}}}}}}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_tables_of_a_page_are_what_its_commands_print(tmp_path):
    from scripts.experiments.docs_page import END, refresh

    page = tmp_path / "page.md"
    page.write_text(
        f'# Page\n\n`scripts/study --tables --rows "CIM, λ=0" ERM`:\n\nold\n\n{END}\n\nText of `scripts/study '
        f"--tables`: stays.\n\n`scripts/study --tables`:\n{END}\n"
    )
    refresh(page, lambda words: f"new {words}")
    written = page.read_text()
    assert written == (
        f"# Page\n\n`scripts/study --tables --rows \"CIM, λ=0\" ERM`:\n\nnew ['--rows', 'CIM, λ=0', 'ERM']\n\n{END}\n\n"
        f"Text of `scripts/study --tables`: stays.\n\n`scripts/study --tables`:\n\nnew []\n\n{END}\n"
    )
    refresh(page, lambda words: f"new {words}")
    assert page.read_text() == written


PAGE = ROOT / "docs" / "study.md"


def test_the_table_of_the_docs_is_that_of_the_committed_runs(tmp_path, study_here):
    copy = Path(shutil.copy(PAGE, tmp_path))
    status, _, err = study_here(tmp_path, PAGE.parent / "study", "--page", str(copy))
    assert status == 0, err
    assert copy.read_text() == PAGE.read_text(), "scripts/study --page docs/study.md writes the table anew"


def test_the_differences_in_the_words_of_the_docs_are_those_of_its_commands(tmp_path, study_here):
    text = PAGE.read_text()
    (block,) = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = block.replace("\\\n", " ").replace("docs/study/differences.png", str(tmp_path / "differences.png"))
    printed = [study_here(tmp_path, PAGE.parent / "study", *shlex.split(line)[1:])[1] for line in lines.splitlines()]
    words = re.sub(r"^\| .*$", "", text.split("## Where")[0], flags=re.MULTILINE)
    said = re.findall(r"\d+\.\d ± \d+\.\d", words)
    assert len(said) > 20 and [number for number in said if not any(number in out for out in printed)] == []


def test_the_page_is_short():
    assert len(PAGE.read_text().split()) <= 900
