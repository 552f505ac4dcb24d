"""Good and bad submissions, with the exact words of every finding, its file and line."""

from __future__ import annotations

import ast

import pytest
from submissions import LENGTHS, changed, good, moved, name, without, write_folder

VAL = name("val", 1)
ROW = [b"0", b"1", b"0", b"0", b"0", b"0", b"0", b"0"]  #: the labels of VAL
NO_LABEL = "is no label, a whole number from 0 to 181"
STOPS, READS = "WILDS' evaluate.py stops at it", "WILDS' evaluate.py reads it as"


def with_line(number: int, line: bytes) -> bytes:
    """VAL's content with another line, counted from 1."""
    lines = list(ROW)
    lines[number - 1] = line
    return b"".join(line + b"\n" for line in lines)


#: what one line is -> (the line, what the finding says after file and line number)
LINES = {
    "a float": (b"3.0", f"'3.0' {NO_LABEL}; {READS} 3.0"),
    "an exponent": (b"1e0", f"'1e0' {NO_LABEL}; {READS} 1.0"),
    "a negative number": (b"-1", f"'-1' {NO_LABEL}; {READS} -1"),
    "a plus sign": (b"+1", f"'+1' {NO_LABEL}; {READS} 1"),
    "a leading zero": (b"01", f"'01' {NO_LABEL}; {STOPS}"),
    "a space before": (b" 1", f"' 1' {NO_LABEL}; {READS} 1"),
    "a space after": (b"1 ", f"'1 ' {NO_LABEL}; {READS} 1"),
    "a tab after": (b"1\t", f"'1\\t' {NO_LABEL}; {READS} 1"),
    "a name of a column": (b"y_pred", f"'y_pred' {NO_LABEL}; {STOPS}"),
    "a quoted label": (b'"1"', f"'\"1\"' {NO_LABEL}; {STOPS}"),
    "two columns": (b"7,1", f"'7,1' {NO_LABEL}; {STOPS}"),
    "a comma after": (b"1,", f"'1,' {NO_LABEL}; {STOPS}"),
    "scores of classes": (b"[0.1, 0.9]", f"'[0.1, 0.9]' {NO_LABEL}; {STOPS}"),
    "not a number": (b"nan", f"'nan' {NO_LABEL}; {STOPS}"),
    "hexadecimal": (b"0x1", f"'0x1' {NO_LABEL}; {READS} 1"),
    "an underscore": (b"1_0", f"'1_0' {NO_LABEL}; {READS} 10"),
    "None": (b"None", f"'None' {NO_LABEL}; {STOPS}"),
    "a truth value": (b"True", f"'True' {NO_LABEL}; {READS} True"),
    "a comment": (b"1 # a cat", f"'1 # a cat' {NO_LABEL}; {READS} 1"),
    "an expression": (b"9**9**9**9", f"'9**9**9**9' {NO_LABEL}; {STOPS}"),
    "deep brackets": (b"(" * 60, f"'{'(' * 20}...' {NO_LABEL}; {STOPS}"),
    "a digit of another script": ("१".encode(), f"'१' {NO_LABEL}; {STOPS}"),
    "a terminal's escape sequence": (b"\x1b[31m1", f"'\\x1b[31m1' {NO_LABEL}; {STOPS}"),
    "a NUL byte": (b"\x00", f"'\\x00' {NO_LABEL}; {STOPS}"),
    "one class too many": (b"182", "label 182 is out of range, labels are 0 to 181"),
    "a label of twenty digits": (b"1" * 20, f"label {'1' * 20} is out of range, labels are 0 to 181"),
}


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize("line, words", LINES.values(), ids=LINES)
def test_a_line_that_is_no_label_is_named(findings, tmp_path, line, words, number):
    found, _ = findings(write_folder(tmp_path / "s", changed(VAL, with_line(number, line))), 1)
    assert found == [f"{VAL}:{number}: {words}"]


@pytest.mark.parametrize("line", [line for line, _ in LINES.values()], ids=LINES)
def test_what_evaluate_py_does_with_a_line_is_said_rightly(wilds_evaluate, tmp_path, line):
    """Where the finding says that evaluate.py reads a line, it does, and gives that value; where it stops, it stops."""
    (tmp_path / "labels.csv").write_bytes(with_line(4, line))
    words = next(words for other, words in LINES.values() if other == line)
    if READS in words:
        assert wilds_evaluate.get_predictions(str(tmp_path / "labels.csv"))[3] == ast.literal_eval(
            words.partition(f"{READS} ")[2]
        )
    elif STOPS in words:
        with pytest.raises(Exception):  # noqa: B017  (SyntaxError, ValueError or TypeError, as the line has it)
            wilds_evaluate.get_predictions(str(tmp_path / "labels.csv"))
    else:
        assert "out of range" in words


UNREAD = "the lines after {} are not read"

#: what a whole file is -> (its content, (line or None, words) of every finding)
FILES = {
    "empty": (b"", [(1, "ends after 0 labels; split val has 8 images")]),
    "too short": (b"0\n" * 7, [(7, "ends after 7 labels; split val has 8 images")]),
    "too long": (b"0\n" * 9, [(9, "ends after 9 labels; split val has 8 images")]),
    "with a header": (
        b"y\n" + b"0\n" * 8,
        [(1, f"'y' {NO_LABEL}; {STOPS}"), (9, "ends after 9 labels; split val has 8 images")],
    ),
    "with a blank line": (
        b"0\n" * 4 + b"\n" + b"0\n" * 4,
        [(5, "the line is blank; WILDS' evaluate.py skips it, and later labels move up")],
    ),
    "with a blank line at the end": (
        b"0\n" * 8 + b"  \n",
        [(9, "the line is blank; WILDS' evaluate.py skips it, and later labels move up")],
    ),
    "with a byte order mark": (
        b"\xef\xbb\xbf" + b"0\n" * 8,
        [(1, f"a byte order mark is no part of a label; {STOPS}")],
    ),
    "UTF-16": (
        "0\n".encode("utf-16") * 8,
        [(1, f"'\\xff\\xfe0\\x00' is not UTF-8 text; {STOPS}"), (None, UNREAD.format(1))],
    ),
    "Latin-1": (b"0\n\xe9\n" + b"0\n" * 6, [(2, f"'\\xe9' is not UTF-8 text; {STOPS}"), (None, UNREAD.format(2))]),
    "one endless line": (b"0" * 300_000, [(1, "the line is longer than 64 bytes"), (None, UNREAD.format(1))]),
    "a long line in the middle": (
        b"0\n" * 3 + b"0" * 65 + b"\n" + b"0\n" * 4,
        [(4, "the line is longer than 64 bytes"), (None, UNREAD.format(4))],
    ),
    "lines of an old Mac": (b"0\r" * 8, [(1, "carriage returns are in place of line ends"), (None, UNREAD.format(1))]),
    "a picture": (
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        [(1, f"'\\x89PNG' is not UTF-8 text; {STOPS}"), (None, UNREAD.format(1))],
    ),
    "words only": (
        b"cat\n" * 8,
        [*((number, f"'cat' {NO_LABEL}; {STOPS}") for number in range(1, 6)), (None, UNREAD.format(5))],
    ),
}


@pytest.mark.parametrize("new, expected", FILES.values(), ids=FILES)
def test_a_file_that_is_no_list_of_labels_is_described(findings, tmp_path, new, expected):
    found, _ = findings(write_folder(tmp_path / "s", changed(VAL, new)), 1)
    assert found == [f"{VAL}{'' if line is None else f':{line}'}: {words}" for line, words in expected]


NAMING = "the name is not <dataset>_split:<split>_seed:<n>_epoch:best_pred.csv"
NEEDS = "is missing; iwildcam needs val, test, id_val, id_test for seeds 0 to 2"
BOARDS = "amazon, camelyon17, civilcomments, fmow, globalwheat, iwildcam, ogb-molpcba, poverty, py150, rxrx1"


ID_AND_OOD = ("val", "test", "id_val", "id_test")


def poverty(split: str, fold: str) -> str:
    return f"poverty_split:{split}_fold:{fold}_epoch:best_pred.csv"


def globalwheat(split: str, seed: int, suffix: str = "pth") -> str:
    return f"globalwheat/globalwheat_split:{split}_seed:{seed}_epoch:best_pred.{suffix}"


def extra(path: str, new: bytes = b"0\n") -> dict[str, bytes]:
    return {**good(), path: new}


#: what is wrong with the set of files -> (the submission, path and words of every finding)
SETS = {
    "a file is missing": (without(VAL), [(VAL, NEEDS)]),
    "a seed is missing": (
        without(*(name(split, 2) for split in LENGTHS["iwildcam"])),
        [(name(split, 2), NEEDS) for split in LENGTHS["iwildcam"]],
    ),
    "a split is missing": (
        without(*(name("id_val", seed) for seed in range(3))),
        [(name("id_val", seed), NEEDS) for seed in range(3)],
    ),
    "the training split is there": (
        extra(name("train")),
        [(name("train"), "split 'train' is not evaluated; iwildcam needs val, test, id_val, id_test")],
    ),
    "an unknown split": (
        extra(name("test_2")),
        [(name("test_2"), "split 'test_2' is not evaluated; iwildcam needs val, test, id_val, id_test")],
    ),
    "a seed too many": (extra(name(seed=3)), [(name(seed=3), "seed:3 is not among seeds 0 to 2 of iwildcam")]),
    "a seed that evaluate.py takes for another": (
        extra(name(seed=10)),
        [(name(seed=10), "seed:10 is not among seeds 0 to 2 of iwildcam; WILDS' evaluate.py may take it for seed:1")],
    ),
    "a seed with a leading zero": (extra(name(seed="01")), [(name(seed="01"), NAMING)]),
    "a fold": (
        extra("iwildcam/iwildcam_split:val_fold:A_epoch:best_pred.csv"),
        [("iwildcam/iwildcam_split:val_fold:A_epoch:best_pred.csv", "fold:A is not among seeds 0 to 2 of iwildcam")],
    ),
    "the last epoch": (
        moved(VAL, name(epoch="last")),
        [
            (
                name(epoch="last"),
                "epoch is 'last'; the leaderboard takes the epoch that validation data chose, named 'best'",
            )
        ],
    ),
    "a numbered epoch": (
        moved(VAL, name(epoch="11")),
        [(name(epoch="11"), "epoch is '11'; the leaderboard takes the epoch that validation data chose, named 'best'")],
    ),
    "two epochs": (
        extra(name(epoch="last")),
        [(name(epoch="last"), f"split val of seed:1 is there twice, also as {VAL}")],
    ),
    "a file twice in two folders": (
        extra(f"old/{VAL}"),
        [(f"old/{VAL}", f"split val of seed:1 is there twice, also as {VAL}")],
    ),
    "a file in another folder": (
        moved(VAL, f"rest/{VAL}"),
        [
            (
                f"rest/{VAL}",
                f"lies in another folder than {name('id_test', 0)}; WILDS' evaluate.py reads one folder per data set",
            )
        ],
    ),
    "a data set without a board": (
        extra("waterbirds/waterbirds_split:val_seed:0_epoch:best_pred.csv"),
        [
            (
                "waterbirds/waterbirds_split:val_seed:0_epoch:best_pred.csv",
                f"data set 'waterbirds' is not on the WILDS leaderboard; it has {BOARDS}",
            )
        ],
    ),
    "underscores for colons": (
        moved(VAL, VAL.replace(":", "_")),
        [(VAL.replace(":", "_"), NAMING), (VAL, NEEDS)],
    ),
    "another table": (extra("iwildcam/metrics.csv"), [("iwildcam/metrics.csv", NAMING)]),
    "an ending in capitals": (
        moved(VAL, VAL.replace(".csv", ".CSV")),
        [(VAL.replace(".csv", ".CSV"), NAMING), (VAL, NEEDS)],
    ),
    "a Mac's second file": (
        extra("iwildcam/._iwildcam_split:val_seed:1_epoch:best_pred.csv"),
        [("iwildcam/._iwildcam_split:val_seed:1_epoch:best_pred.csv", NAMING)],
    ),
    "a pickled file": (
        moved(VAL, VAL.replace(".csv", ".pth")),
        [(VAL.replace(".csv", ".pth"), "the predictions of iwildcam are .csv files, this is .pth"), (VAL, NEEDS)],
    ),
    "nothing": ({}, [(".", NAMING.replace("the name is not", "no file is named"))]),
    "a README only": ({"README.md": b"hello"}, [(".", NAMING.replace("the name is not", "no file is named"))]),
    "an empty file of a board that is not read": (
        {
            path: (b"" if "seed:4" in path else b"0\n")
            for path in (name(split, seed, "civilcomments") for split in ("val", "test") for seed in range(5))
        },
        [(name(split, 4, "civilcomments"), "is empty") for split in ("test", "val")],
    ),
    "a fold of poverty is missing": (
        {poverty(split, fold): b"0.5\n" for split in ID_AND_OOD for fold in "ABCDE" if (split, fold) != ("val", "C")},
        [(poverty("val", "C"), "is missing; poverty needs val, test, id_val, id_test for folds A to E")],
    ),
    "a table of globalwheat": (
        {
            globalwheat(split, seed, "csv" if (split, seed) == ("val", 0) else "pth"): b"x"
            for split in ID_AND_OOD
            for seed in range(3)
        },
        [
            (globalwheat("val", 0, "csv"), "the predictions of globalwheat are .pth files, this is .csv"),
            (globalwheat("val", 0), "is missing; globalwheat needs val, test, id_val, id_test for seeds 0 to 2"),
        ],
    ),
}


@pytest.mark.parametrize("files, expected", SETS.values(), ids=SETS)
def test_what_is_missing_or_too_much_is_named(findings, tmp_path, files, expected):
    found, _ = findings(write_folder(tmp_path / "s", files), 1)
    assert found == [f"{path}: {words}" for path, words in expected]


def in_folder(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}{path}": new for path, new in files.items()}


def flat(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: new for path, new in files.items()}


#: good submission -> (its files, the notes)
GOOD = {
    "iwildcam": (good(), []),
    "camelyon17": (good("camelyon17"), []),
    "two data sets": ({**good(), **good("camelyon17")}, []),
    "with a README and metrics": ({**good(), "README.md": b"hello", "iwildcam/metrics.json": b"{}"}, []),
    "inside a folder": (in_folder("submission/", good()), []),
    "without a folder": (
        flat(good()),
        [
            "iwildcam: the files do not lie in a folder iwildcam/; WILDS' evaluate.py finds them only with --dataset "
            "iwildcam"
        ],
    ),
    "the smallest and the largest label": (changed(VAL, with_line(3, b"181")), []),
    "no newline at the end": (changed(VAL, with_line(3, b"7")[:-1]), []),
    "lines of Windows": (
        changed(VAL, with_line(3, b"7").replace(b"\n", b"\r\n")),
        [
            f"iwildcam: lines end as on Windows (CR LF) in 1 files, the first is {VAL}; WILDS' evaluate.py reads them "
            f"alike"
        ],
    ),
    "a seed copied": (
        changed(VAL, good()[name("val", 0)]),
        ["iwildcam: seed:0 and seed:1 have the same predictions for split val; are they two trainings?"],
    ),
    "civilcomments": (
        {name(split, seed, "civilcomments"): b"anything\n" for split in ("val", "test") for seed in range(5)},
        ["civilcomments: only names and number of files are checked: its predictions are no labels of images"],
    ),
    "globalwheat": (
        {globalwheat(split, seed): b"x" for split in ID_AND_OOD for seed in range(3)},
        ["globalwheat: only names and number of files are checked: its predictions are no labels of images"],
    ),
}


@pytest.mark.parametrize("files, expected", GOOD.values(), ids=GOOD)
def test_a_good_submission_has_no_findings(findings, tmp_path, files, expected):
    assert findings(write_folder(tmp_path / "s", files), 0) == ([], expected)


def test_it_says_what_cannot_be_checked_without_the_data(leaderboard, small_counts, tmp_path):
    submission = write_folder(tmp_path / "s", good())
    status, output, _ = leaderboard("check", submission)
    assert status == 0
    assert output == [
        "not checked without --root_dir: the metrics of iwildcam; lengths and labels are checked against the published "
        "counts",
        "cannot be seen in the files: which data chose the epoch, whether the seeds share one configuration, whether "
        "other data were used, "
        "and the order of the lines",
        f"{submission}: 12 files of predictions of iwildcam; no findings",
    ]


@pytest.mark.parametrize("split, length", {"val": 14961, "test": 42791, "id_val": 7314, "id_test": 8154}.items())
def test_the_published_lengths_are_asked_for(leaderboard, tmp_path, split, length):
    """Koh et al. 2021 (arXiv:2012.07421), appendix: images per split of iWildCam2020-WILDS 2.0."""
    path = name(split, 1)
    submission = write_folder(tmp_path / "s", {path: b"0\n" * length, name(split, 2): b"0\n" * (length - 1)})
    _, output, _ = leaderboard("check", submission)
    expected = f"{name(split, 2)}:{length - 1}: ends after {length - 1:,} labels; split {split} has {length:,} images"
    assert [line for line in output if ": ends after" in line] == [expected]


@pytest.mark.parametrize("dataset", ["iwildcam", "camelyon17"])
def test_with_the_data_it_prints_the_metrics_of_wilds_own_evaluate(
    leaderboard, wilds_evaluate, data, tmp_path, dataset
):
    submission = write_folder(tmp_path / "s", good(dataset))
    expected = wilds_evaluate.evaluate_benchmark(dataset, str(submission / dataset), str(tmp_path), str(data))
    status, output, errors = leaderboard("check", submission, "--root_dir", data)
    assert (status, errors) == (0, [])
    printed = [line.split() for line in output if line.startswith(f"{dataset} ") and " over " in line]
    assert {(split, metric): (mean, deviation) for _, split, metric, mean, _, deviation, *_ in printed} == {
        (split, metric): (f"{value:.6f}", f"{of_split[f'{metric}_std']:.6f}")
        for split, of_split in expected.items()
        for metric, value in of_split.items()
        if not metric.endswith("_std")
    }


def test_with_the_data_lengths_and_labels_are_theirs(leaderboard, data, tmp_path):
    """The small iwildcam has three classes, not 182."""
    submission = write_folder(tmp_path / "s", changed(VAL, with_line(3, b"3")))
    status, output, _ = leaderboard("check", submission, "--root_dir", data)
    assert status == 1 and output[0] == f"{VAL}:3: label 3 is out of range, labels are 0 to 2"
    assert "no metrics of iwildcam: not every file is right" in output
    assert any(
        line.startswith(
            "note: iwildcam in --root_dir is not the published release; no submission can be measured by it: "
        )
        for line in output
    )
