"""TerraIncognita's annotations, wrong and hostile; tests/data/test_get.py has those that are right."""

from __future__ import annotations

import json

import pytest
import small_archives as archives

from cim_plugin.data.source import Folder, Several
from cim_plugin.data.terra_incognita import ANNOTATIONS, plan
from cim_plugin.errors import InputError

IMAGE = {"id": 1, "location": 38, "file_name": "a.jpg"}
NOTE = {"image_id": 1, "category_id": 2}
CATEGORY = {"id": 2, "name": "bird"}


@pytest.fixture
def made(tmp_path):
    """A function of the first annotation file's tables, or its text: the plan, where the one image is a.jpg."""

    def make(**tables):
        text = tables.get(
            "text", json.dumps({"images": [IMAGE], "annotations": [NOTE], "categories": [CATEGORY]} | tables)
        )
        for name in ANNOTATIONS:
            archives.write(tmp_path / "a" / name, (text if name == ANNOTATIONS[0] else "{}").encode())
        archives.write(tmp_path / "b" / "images" / "a.jpg", archives.jpeg(0))
        return plan(Several(tmp_path, [Folder(tmp_path / "a"), Folder(tmp_path / "b")]))

    return make


def test_the_file_names_the_image(made):
    source, found = made()
    assert found.images == {"location_38/bird/a.jpg": "location_38/bird/a.jpg"}
    assert found.counts["location_38"] == 1 and source.read("location_38/bird/a.jpg") == archives.jpeg(0)


@pytest.mark.parametrize(
    "tables, said",
    [
        ({"images": [IMAGE | {"file_name": "../../a.jpg"}]}, "'../../a.jpg', which is not a plain name; it is refused"),
        ({"images": [IMAGE | {"file_name": 7}]}, "a file 7, which is not a plain name"),
        ({"images": [IMAGE | {"file_name": "b.jpg"}]}, "'b.jpg', which is in no archive"),
        ({"images": [{"id": 1}]}, "the annotations are wrong (KeyError: 'location')"),
        ({"images": [7]}, "the annotations are wrong (TypeError"),
        ({"annotations": [NOTE | {"category_id": 9}]}, "the annotations are wrong (KeyError: 9)"),
        ({"text": "<html>"}, "cis_test_annotations.json is not JSON"),
        ({"text": "[]"}, "cis_test_annotations.json holds no tables"),
    ],
)
def test_what_is_wrong_is_named(made, tables, said):
    with pytest.raises(InputError) as error:
        made(**tables)
    assert said in str(error.value)
