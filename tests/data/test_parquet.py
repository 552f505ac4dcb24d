"""Rows of parquet files: what they hold, what is refused, and what they cost."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="it is read by it")

import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402
import small_mirrors as mirrors_of  # noqa: E402

from cim_plugin.data import layouts  # noqa: E402
from cim_plugin.data.parquet import Parquet  # noqa: E402
from cim_plugin.data.releases import RELEASES  # noqa: E402
from cim_plugin.errors import InputError  # noqa: E402

HERE = Path("owner/name")


@pytest.fixture
def make(tmp_path):
    """A function of columns, names and classes: what `Parquet` makes of such a file, in the split "train"."""

    def made(columns, names, classes=None, **more):
        return Parquet(
            HERE, {"train": [mirrors_of.parquet(tmp_path / "a.parquet", columns, names, classes or {}, **more)]}
        )

    return made


def test_rows_over_files_and_groups_have_their_own_images(tmp_path):
    pictures = mirrors_of.digits()
    first = mirrors_of.parquet(tmp_path / "1.parquet", {"label": list(range(7))}, [None] * 7, {}, rows=3)
    second = mirrors_of.parquet(tmp_path / "2.parquet", {"label": [7, 8]}, ["a.jpg", "b.jpg"], {})
    source = Parquet(HERE, {"train": [first, second], "test": [second]})
    assert source.names == [*(f"train/{row:06}" for row in range(9)), "test/000000", "test/000001"]
    table = source.table(("label",))
    assert table["label"].tolist() == [*range(9), 7, 8] and table["split"].tolist() == ["train"] * 9 + ["test"] * 2
    assert table["file"].tolist() == [None] * 7 + ["a.jpg", "b.jpg"] * 2
    assert dict(source.contents(["train/000006", "train/000001", "train/000008", "test/000000"])) == {
        "train/000001": pictures[1],
        "train/000006": pictures[6],
        "train/000008": pictures[1],
        "test/000000": pictures[0],
    }
    assert source.read("train/000005") == pictures[5]


def test_classes_by_name_where_the_file_names_them(make):
    source = make({"label": [1, 0], "kind": ["b", "a"]}, [None] * 2, {"label": ("dog", "cat")})
    assert source.table(("label",))["label"].tolist() == [1, 0]
    table = source.table(("label", "kind"), named=("label", "kind"))
    assert table["label"].tolist() == ["cat", "dog"] and table["kind"].tolist() == ["b", "a"]


@pytest.mark.parametrize("name", ["../up.jpg", "/etc/passwd", "a/b.jpg", "a\\b.jpg", ".hidden.jpg", "a\n.jpg"])
def test_a_file_name_that_is_a_path_is_refused(make, name):
    with pytest.raises(InputError, match="which is not a plain file name; it is refused"):
        make({"label": [0]}, [name]).table(("label",))


@pytest.mark.parametrize(
    "columns, said",
    [
        ({"label": [0, 1]}, "has no column 'domain'; it has image, label"),
        ({"label": [0, None], "domain": ["a", "b"]}, "row train/000001 has no label"),
    ],
)
def test_columns(make, columns, said):
    with pytest.raises(InputError, match=said):
        make(columns, [None] * 2).table(("label", "domain"))


@pytest.mark.parametrize("image", [pyarrow.array([b"x"]), pyarrow.array([{"bytes": b"x"}])], ids=["bytes", "no path"])
def test_no_column_of_images(tmp_path, image):
    pyarrow.parquet.write_table(pyarrow.table({"image": image}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column 'image' of bytes and path"):
        Parquet(HERE, {"train": [tmp_path / "a.parquet"]})


def test_a_row_without_an_image(make):
    source = make({"label": [0, 1]}, [None] * 2, pictures=[b"x", None])
    with pytest.raises(InputError, match="row train/000001 holds no image"):
        list(source.contents(source.names))


def test_damage_in_the_middle(make, tmp_path):
    make({"label": list(range(20))}, [None] * 20)
    file = tmp_path / "a.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = b"\xff" * 4000
    file.write_bytes(content)
    with pytest.raises(InputError, match="is no parquet file, or is truncated or damaged"):
        source = Parquet(HERE, {"train": [file]})
        source.table(("label",))
        list(source.contents(source.names))


@pytest.mark.parametrize("rows", [50, 2000], ids=["groups of 50", "one group"])
def test_memory_does_not_grow_with_the_file(make, rows):
    """Python's own; 2,000 images of 50 kB are 100 MB."""
    source = make({"label": [0] * 2000}, [None] * 2000, rows=rows, pictures=[bytes(50_000)])
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    most = count = 0
    for _, content in source.contents(source.names):
        most = max(most, pyarrow.total_allocated_bytes() - before)
        count += len(content) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000 and peak + most < 30e6


ENVIRONMENTS = ("art_painting", "cartoon", "photo", "sketch")


@pytest.mark.parametrize(
    "domains, labels, names, said",
    [
        (ENVIRONMENTS[:3], (0, 0, 0), [None] * 3, "has the environments art_painting, cartoon, photo, not"),
        (ENVIRONMENTS, (0, 0, 0, 1), [None] * 4, "only one of art_painting and sketch has the class 'cat'"),
        (("../x", *ENVIRONMENTS[1:]), (0, 0, 0, 0), [None] * 4, "domain '../x' is no name of a folder"),
        (ENVIRONMENTS, (0, 0, 0, 7), [None] * 4, "label 7 is no name of a folder"),
        ((*ENVIRONMENTS, "photo"), (0,) * 5, ["a.jpg"] * 5, "two images that would become photo/dog/a.jpg"),
        (ENVIRONMENTS, (0,) * 4, ["a.txt"] * 4, "'a.txt' does not end in"),
    ],
)
def test_environments_that_are_wrong(make, domains, labels, names, said):
    source = make({"domain": list(domains), "label": list(labels)}, names, {"label": ("dog", "cat")})
    with pytest.raises(InputError, match=said):
        layouts.plan_environments(source, RELEASES["PACS"])


CAMELYON = {name: [0, 1] for name in ("label", "image_id", "patient", "node", "x_coord", "y_coord", "slide")}


@pytest.mark.parametrize(
    "column, values, said",
    [
        ("image_id", [0, 2], "image_id does not count the images from 0 to 1"),
        ("center", [0, 5], "center is 5"),
        ("label", [0, 2], "tumor is 2"),
        ("patient", ["0", "../../x"], "patient is '0', it must be a whole number"),
        ("x_coord", [-1, 0], "x_coord is -1"),
    ],
)
def test_camelyon17_that_is_wrong(make, column, values, said):
    source = make({**CAMELYON, "center": [0, 3], column: values}, [None] * 2)
    with pytest.raises(InputError, match=said):
        layouts.plan_camelyon17(source, RELEASES["camelyon17"], None)


def test_a_split_that_numbers_only_its_own_hospitals_is_read_by_their_names(make):
    classes = {"center": ("train-center2", "train-center3"), "label": ("tumor", "non-tumor")}
    plan = layouts.plan_camelyon17(
        make({**CAMELYON, "center": [0, 1]}, [None] * 2, classes), RELEASES["camelyon17"], None
    )
    rows = plan.texts["metadata.csv"].decode().splitlines()
    assert rows[0] == ",patient,node,x_coord,y_coord,tumor,slide,center,split"
    assert rows[1:] == ["0,000,0,0,0,1,0,3,0", "1,001,1,1,1,0,1,4,0"]


def test_waterbirds_and_celeba_that_are_wrong(make):
    with pytest.raises(InputError, match="row train/000001: place is 2, it must be one of 0, 1"):
        layouts.plan_waterbirds(make({"label": [0, 1], "place": [0, 2]}, [None] * 2), RELEASES["waterbirds"], None)
    with pytest.raises(InputError, match="has no column '5_o_Clock_Shadow'"):
        layouts.plan_celeba(make({"label": [0, 1]}, [None] * 2), RELEASES["celebA"], None)
