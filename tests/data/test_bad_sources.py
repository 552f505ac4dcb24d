"""Archives and folders that are wrong: one line that says what and where, exit status 2, no release, and nothing
written anywhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_archives as archives

from cim_plugin.data.celeba import ATTRIBUTES

# --- Waterbirds: the metadata and the images
# -------------------------------------------------------------------------------------


def _cell(row: int, column: str, value: str):
    """Another value in one cell of metadata.csv."""

    def change(folder: Path) -> None:
        lines = [line.split(",") for line in (folder / "metadata.csv").read_text().splitlines()]
        lines[row + 1][lines[0].index(column)] = value
        archives.write_csv(folder / "metadata.csv", lines[0], lines[1:])

    return change


def _lines(edit):
    """``edit`` changes the list of the lines of metadata.csv."""

    def change(folder: Path) -> None:
        lines = (folder / "metadata.csv").read_text().splitlines()
        edit(lines)
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")

    return change


def _without_column(name: str):
    def edit(lines: list[str]) -> None:
        column = lines[0].split(",").index(name)
        lines[:] = [",".join(cell for i, cell in enumerate(line.split(",")) if i != column) for line in lines]

    return _lines(edit)


def _image(edit):
    """``edit`` returns another content for the image of row 4."""

    def change(folder: Path) -> None:
        path = folder / "001.Bird" / "Bird_0004.jpg"
        path.write_bytes(edit(path.read_bytes()))

    return change


WATERBIRDS = {
    "no metadata": (lambda folder: (folder / "metadata.csv").unlink(), ["no metadata.csv"]),
    "two metadata": (
        lambda folder: archives.write(folder / "old" / "metadata.csv", b"x"),
        ["metadata.csv", "old/metadata.csv"],
    ),
    "empty metadata": (lambda folder: (folder / "metadata.csv").write_bytes(b""), ["metadata.csv", "no rows"]),
    "only a header": (_lines(lambda lines: lines.__delitem__(slice(1, None))), ["metadata.csv", "no rows"]),
    "metadata that are no text": (
        lambda folder: (folder / "metadata.csv").write_bytes(b"\xff\xfe\x00" * 9),
        ["metadata.csv", "UTF-8"],
    ),
    "open quotation mark": (
        _lines(lambda lines: lines.__setitem__(4, '4,"000.Bird/Bird_0003.jpg,0,0,1,x')),
        ["metadata.csv row 3"],
    ),
    "missing column": (_without_column("place"), ["metadata.csv", "no column 'place'"]),
    "extra column": (
        _lines(lambda lines: lines.__setitem__(slice(None), [f"{line},1" for line in lines])),
        ["unexpected column '1'"],
    ),
    "column twice": (
        _lines(lambda lines: lines.__setitem__(slice(None), [f"{line},{line.split(',')[2]}" for line in lines])),
        ["column twice"],
    ),
    "row too short": (_lines(lambda lines: lines.__setitem__(5, "5,a.jpg,0")), ["row 4", "3 cells", "6"]),
    "row too long": (_lines(lambda lines: lines.__setitem__(5, lines[5] + ",,")), ["row 4", "8 cells", "6"]),
    "label out of range": (_cell(7, "y", "2"), ["row 7", "y is '2'", "0 or 1"]),
    "label missing": (_cell(7, "y", ""), ["row 7", "y is ''", "0 or 1"]),
    "place out of range": (_cell(0, "place", "-1"), ["row 0", "place is '-1'"]),
    "unknown split": (_cell(2, "split", "3"), ["row 2", "split is '3'", "0 or 1 or 2"]),
    "empty split": (
        lambda folder: [_cell(row, "split", "0")(folder) for row in range(4, 8)],
        ["split 1", "val split is empty"],
    ),
    "image listed twice": (
        _cell(5, "img_filename", "001.Bird/Bird_0004.jpg"),
        ["row 5", "001.Bird/Bird_0004.jpg", "twice"],
    ),
    "image out of the folder": (
        _cell(5, "img_filename", "../../secret.jpg"),
        ["row 5", "../../secret.jpg", "not a plain path"],
    ),
    "image out of the folder, hidden": (
        _cell(5, "img_filename", "001.Bird/../../secret.jpg"),
        ["row 5", "001.Bird/../../secret.jpg", "not a plain path"],
    ),
    "absolute image": (_cell(5, "img_filename", "/etc/passwd"), ["row 5", "/etc/passwd", "not a plain path"]),
    "images missing": (
        lambda folder: [(folder / "001.Bird" / f"Bird_{i:04}.jpg").unlink() for i in (4, 7)],
        ["12 images", "2 of them", "row 4", "Bird_0004"],
    ),
    "truncated image": (_image(lambda content: content[:-200]), ["row 4", "001.Bird/Bird_0004.jpg", "truncated"]),
    "empty image": (_image(lambda content: b""), ["row 4", "001.Bird/Bird_0004.jpg", "not an image"]),
    "web page as an image": (
        _image(lambda content: b"<html>404</html>"),
        ["row 4", "001.Bird/Bird_0004.jpg", "not an image"],
    ),
    "metadata as an image": (_cell(5, "img_filename", "metadata.csv"), ["row 5", "'metadata.csv'", ".jpg"]),
    "synthetic release": (
        lambda folder: archives.write(folder / "RELEASE_v1.0.txt", b"SYNTHETIC: digits"),
        ["synthetic"],
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("change, words", WATERBIRDS.values(), ids=WATERBIRDS)
def test_wrong_waterbirds(refuse, tmp_path, change, words, packed):
    source = archives.waterbirds(tmp_path / "unpacked")
    change(source)
    line = refuse("waterbirds", "--from", archives.pack(source, tmp_path / "w.tar.gz") if packed else source)
    assert all(word in line for word in words), line


def test_a_truncated_image_is_found_where_a_host_has_told_pillow_to_accept_it(refuse, tmp_path, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    source = archives.waterbirds(tmp_path / "unpacked")
    WATERBIRDS["truncated image"][0](source)
    assert "row 4" in refuse("waterbirds", "--from", source)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


# --- CelebA
# ----------------------------------------------------------------------------------------------------------------------


def _replace(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        (path,) = folder.rglob(name)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def _swap_rows(name: str):
    def change(folder: Path) -> None:
        (path,) = folder.rglob(name)
        lines = path.read_text().splitlines(keepends=True)
        lines[3], lines[4] = lines[4], lines[3]
        path.write_text("".join(lines))

    return change


CELEBA = {
    "no partition": (
        "kaggle",
        lambda folder: (folder / "list_eval_partition.csv").unlink(),
        ["no list_eval_partition.csv or list_eval_partition.txt"],
    ),
    "renamed attribute": (
        "kaggle",
        _replace("list_attr_celeba.csv", "Blond_Hair", "Blonde_Hair"),
        ["list_attr_celeba.csv", "no column 'Blond_Hair'"],
    ),
    "extra attribute": (
        "authors",
        _replace("list_attr_celeba.txt", "Young", "Young Rich"),
        ["list_attr_celeba.txt", "unexpected column 'Rich'"],
    ),
    "attribute out of range": (
        "kaggle",
        _replace("list_attr_celeba.csv", "000005.jpg,-1,", "000005.jpg,2,"),
        ["row 4", "5_o_Clock_Shadow is '2'", "-1 or 1"],
    ),
    "wrong number of images": ("authors", _replace("list_attr_celeba.txt", "12\n", "202599\n"), ["202599", "has 12"]),
    "empty list": (
        "authors",
        lambda folder: (folder / "Anno" / "list_attr_celeba.txt").write_text(""),
        ["list_attr_celeba.txt"],
    ),
    "partition of another order": (
        "kaggle",
        _swap_rows("list_eval_partition.csv"),
        ["row 2", "000003.jpg", "000004.jpg", "order"],
    ),
    "partition too short": ("authors", _replace("list_eval_partition.txt", "000012.jpg 2\n", ""), ["12 rows", "11"]),
    "unknown split": (
        "kaggle",
        _replace("list_eval_partition.csv", "000002.jpg,0", "000002.jpg,7"),
        ["row 1", "partition is '7'"],
    ),
    "no images": (
        "kaggle",
        lambda folder: (folder / "img_align_celeba").rename(folder.parent / "elsewhere"),
        ["img_align_celeba", "holds 0"],
    ),
    "image missing": (
        "authors",
        lambda folder: (folder / "Img" / "img_align_celeba" / "000009.jpg").unlink(),
        ["1 of them", "row 8", "000009.jpg"],
    ),
    "unreadable image": (
        "kaggle",
        lambda folder: next(folder.rglob("000003.jpg")).write_bytes(b"\xff\xd8\xff"),
        ["row 2", "000003.jpg"],
    ),
}


@pytest.mark.parametrize("layout, change, words", CELEBA.values(), ids=CELEBA)
def test_wrong_celeba(refuse, tmp_path, layout, change, words):
    source = archives.celeba(tmp_path / "celeba", list(ATTRIBUTES), layout)
    change(source)
    line = refuse("celebA", "--from", source)
    assert all(word in line for word in words), line


# --- VLCS -------------------------------------------------------------------------------------------------------------


def _copy_environment(folder: Path) -> None:
    archives.write(folder / "caltech" / "bird" / "pic_0.jpg", archives.jpeg(7))


VLCS = {
    "unknown class": (
        lambda folder: (folder / "SUN09" / "dog").rename(folder / "SUN09" / "hund"),
        ["SUN09/hund/", "known: bird, car, chair, dog, person"],
    ),
    "class missing": (
        lambda folder: (folder / "LabelMe" / "dog").rename(folder / "dogs"),
        ["no images of 'dog' for LabelMe"],
    ),
    "environment missing": (
        lambda folder: (folder / "VOC2007").rename(folder / "ImageNet"),
        ["no images of 'bird' for VOC2007"],
    ),
    "environment twice": (_copy_environment, ["Caltech101/bird/pic_0.jpg", "caltech/bird/pic_0.jpg"]),
    "image without a class": (
        lambda folder: archives.write(folder / "SUN09" / "pic.jpg", archives.jpeg(1)),
        ["SUN09/pic.jpg", "known"],
    ),
    "unreadable image": (
        lambda folder: (folder / "SUN09" / "dog" / "pic_1.jpg").write_bytes(b"GIF89a"),
        ["SUN09/dog/pic_1.jpg"],
    ),
    "name that cannot be printed": (
        lambda folder: archives.write(folder / "SUN09" / "dog" / "a\nb.jpg", archives.jpeg(1)),
        ["a\\nb.jpg"],
    ),
}


@pytest.mark.parametrize("change, words", VLCS.values(), ids=VLCS)
def test_wrong_vlcs(refuse, tmp_path, change, words):
    source = archives.vlcs(tmp_path / "VLCS")
    change(source)
    line = refuse("vlcs", "--from", source)
    assert all(word in line for word in words), line


def test_real_photographs_under_other_class_names_are_refused_with_the_folder(refuse, shared_data):
    line = refuse("vlcs", "--from", shared_data / "VLCS_mini")
    assert "known: bird, car, chair, dog, person" in line and any(
        f"/{name}/" in line for name in ("auto", "hund", "mensch", "stuhl", "vogel")
    )


# --- folders
# -------------------------------------------------------------------------------------------------------------------


def test_a_source_that_is_not_there(refuse):
    assert "nowhere.tar.gz does not exist" in refuse("waterbirds", "--from", "nowhere.tar.gz")


def test_an_empty_folder_as_the_source(refuse, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no metadata.csv" in refuse("waterbirds", "--from", "empty")


def test_folders_that_link_to_each_other_are_walked_once(data, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    (source / "again").symlink_to(source, target_is_directory=True)
    assert data("waterbirds", "--from", source, "--root", "root")[0] == 0


def test_images_behind_a_link_are_copied(data, tmp_path):
    source = archives.waterbirds(tmp_path / "unpacked")
    (source / "001.Bird").rename(tmp_path / "birds")
    (source / "001.Bird").symlink_to(tmp_path / "birds", target_is_directory=True)
    assert data("waterbirds", "--from", source, "--root", "root")[0] == 0
    copied = tmp_path / "root" / "waterbirds_v1.0" / "001.Bird"
    assert (
        not copied.is_symlink()
        and (copied / "Bird_0004.jpg").read_bytes() == (tmp_path / "birds" / "Bird_0004.jpg").read_bytes()
    )


# --- targets
# ---------------------------------------------------------------------------------------------------------------------


TARGETS = {
    "a release of someone else": (
        lambda root: archives.write(root / "waterbirds_v1.0" / "metadata.csv", b"precious"),
        ["waterbirds_v1.0", "not made by"],
    ),
    "a file": (lambda root: archives.write(root / "waterbirds_v1.0", b"precious"), ["waterbirds_v1.0"]),
    "a synthetic release": (
        lambda root: archives.write(root / "waterbirds_v1.0" / "RELEASE_v1.0.txt", b"SYNTHETIC: x"),
        ["synthetic"],
    ),
    "a link instead of the unfinished folder": (
        lambda root: (root.mkdir(), (root / ".waterbirds_v1.0.partial").symlink_to(root.parent)),
        ["is a link"],
    ),
    "a file instead of the root": (lambda root: root.write_bytes(b"precious"), ["root"]),
}


@pytest.mark.parametrize("occupy, words", TARGETS.values(), ids=TARGETS)
def test_what_is_in_the_way_is_left_alone(refuse, tmp_path, occupy, words):
    occupy(tmp_path / "root")
    line = refuse("waterbirds", "--from", archives.waterbirds(tmp_path / "unpacked"))
    assert all(word in line for word in words), line


def test_a_full_disk_is_one_line_and_the_conversion_goes_on_later(data, tmp_path, monkeypatch):
    import errno

    source = archives.waterbirds(tmp_path / "unpacked")
    replace, left = os.replace, iter(range(6))

    def replace_until_full(part, path):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until_full)
        status, _, err = data("waterbirds", "--from", source, "--root", "root")
    assert (
        status == 2
        and "No space left on device" in err.splitlines()[-1]
        and os.listdir(tmp_path / "root") == [".waterbirds_v1.0.partial"]
    )
    assert data("waterbirds", "--from", source, "--root", "root")[0] == 0


@pytest.mark.parametrize(
    "words", [["waterbirds"], ["waterbirds", "--from"], ["nonsense"], [], ["waterbirds", "--form", "x"]], ids=" ".join
)
def test_wrong_words(data, words):
    with pytest.raises(SystemExit) as stopped:
        data(*words)
    assert stopped.value.code == 2
