"""A file of pseudo-environments: what it may look like, and what is said of one that is wrong."""

from __future__ import annotations

import csv

import pytest
from small_runs import read_metadata

from cim_plugin.errors import InputError
from cim_plugin.wilds_runner.environments_file import read_environments


@pytest.fixture
def expected(noise, noise_release) -> dict[str, list[str]]:
    """Split -> an environment per image, by the metadata of the release: the place, in words."""
    places: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for row in read_metadata(noise_release / "waterbirds_v1.0"):
        places[list(places)[int(row["split"])]].append(["land", "water"][int(row["place"])])
    return places


@pytest.fixture
def names(noise_release) -> dict[str, list[str]]:
    """Split -> the names of its images, by the metadata of the release."""
    found: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for row in read_metadata(noise_release / "waterbirds_v1.0"):
        found[list(found)[int(row["split"])]].append(row["img_filename"])
    return found


def write(path, header, rows) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def by_row(expected) -> list[list]:
    return [[split, row, word] for split in ("train", "val") for row, word in enumerate(expected[split])]


def numbered(expected, order=("land", "water")) -> dict[str, list[int]]:
    return {split: [order.index(word) for word in expected[split]] for split in ("train", "val")}


def as_lists(found) -> dict[str, list[int]]:
    return {key: values.tolist() for key, values in found.items()}


def test_lines_by_row_in_any_order(noise, expected, tmp_path):
    path = write(tmp_path / "f.csv", ["split", "row", "environment"], by_row(expected)[::-1])
    assert as_lists(read_environments(path, noise)) == numbered(expected)


def test_lines_by_image_with_other_columns_and_other_splits(noise, expected, names, tmp_path):
    rows = [[word, "x", name, split] for split in names for name, word in zip(names[split], expected[split])]
    path = write(tmp_path / "f.csv", ["environment", "note", "image", "split"], rows)
    assert as_lists(read_environments(path, noise)) == numbered(expected)


def test_the_file_of_another_run_is_taken_as_it_is(noise, expected, tmp_path):
    words = {"land": "1", "water": "0"}
    rows = [[split, row, 0, words[word]] for split, row, word in by_row(expected)]
    path = write(tmp_path / "f.csv", ["split", "row", "label", "pseudo_environment"], rows)
    assert as_lists(read_environments(path, noise)) == numbered(expected, ("water", "land"))


def test_whole_numbers_are_in_their_order_and_numbered_from_0(noise, expected, tmp_path):
    rows = [[split, row, 2 + 8 * (word == "water")] for split, row, word in by_row(expected)]
    path = write(tmp_path / "f.csv", ["split", "row", "environment"], rows)
    assert as_lists(read_environments(path, noise)) == numbered(expected)  # 2 before 10


HEADER = "split,row,environment"
#: name -> (lines -> lines, what is said)
FAULTS = {
    "no file": (lambda lines: None, "f.csv: cannot be read (No such file or directory)"),
    "nothing in it": (lambda lines: [], "f.csv, line 1: '' has not one column 'split'"),
    "no environment": (
        lambda lines: ["split,row", *lines[1:]],
        "f.csv, line 1: 'split,row' has not one column 'environment' or 'pseudo_environment'",
    ),
    "row and image": (lambda lines: ["split,row,image,environment"], "line 1: 'split,row,image,environment' has not"),
    "a cell too few": (
        lambda lines: [*lines[:4], "train,3", *lines[5:]],
        "f.csv, line 5: 2 cells where line 1 names 3",
    ),
    "no such split": (lambda lines: [*lines, "dev,0,1"], "f.csv, line 47: 'dev' is not a split (train, val, test)"),
    "no such row": (lambda lines: [*lines, "train,33,1"], "f.csv, line 47: '33' is no row of train"),
    "half a row": (lambda lines: [*lines, "train,1.5,1"], "f.csv, line 47: '1.5' is no row of train"),
    "a row below 0": (lambda lines: [*lines, "val,-1,1"], "f.csv, line 47: '-1' is no row of val"),
    "no word": (lambda lines: [*lines[:7], "train,6, ", *lines[8:]], "f.csv, line 8: the environment is empty"),
    "doubled": (lambda lines: [*lines, "train,4,1"], "f.csv, line 47: train 4 stands in line 6 already"),
    "missing": (
        lambda lines: [line for line in lines if not line.startswith("val,1")],
        "f.csv: no line for 3 of the 12 images of val, first row 1, ",
    ),
    "cut": (lambda lines: lines[:20], "f.csv: no line for 14 of the 33 images of train, first row 19, "),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS)
def test_a_wrong_file_is_named_with_its_line(noise, expected, tmp_path, change, message):
    sizes = {split: len(expected[split]) for split in ("train", "val")}
    lines = change([HEADER, *(",".join(map(str, row)) for row in by_row(expected))])
    message = message.replace("line 47", f"line {sum(sizes.values()) + 2}")
    message = message.replace("'33'", f"'{sizes['train']}'").replace("of the 12 ", f"of the {sizes['val']} ")
    message = message.replace("14 of the 33", f"{sizes['train'] - 19} of the {sizes['train']}")
    lines = None if lines is None else [line.replace("train,33,", f"train,{sizes['train']},") for line in lines]
    path = tmp_path / "f.csv"
    if lines is not None:
        path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError) as error:
        read_environments(path, noise)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_image_is_named(noise, expected, names, tmp_path):
    rows = [[split, name, 0] for split in ("train", "val") for name in names[split]]
    rows[2][1] = names["val"][0]
    path = write(tmp_path / "f.csv", ["split", "image", "environment"], rows)
    with pytest.raises(InputError, match=f"line 4: '{names['val'][0]}' is no image of train"):
        read_environments(path, noise)
