"""Of a configuration that somebody else wrote only known and harmless values are taken; nothing is executed."""

from __future__ import annotations

import json
import os

import pytest
import torch

from cim_plugin.errors import InputError
from cim_plugin.models.encoders import make_encoder
from cim_plugin.models.foreign import MODEL_KWARGS, taken_from
from cim_plugin.runs.defaults import DATASETS


@pytest.fixture
def written(configure):
    """A function (changes) -> a configuration as a file has it."""
    config = configure("--algorithm", "CIM").as_record()
    return lambda **changes: {**json.loads(json.dumps(config)), **changes}


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_the_command_line_makes_is_taken(configure, dataset):
    config = configure("--dataset", dataset, "--algorithm", "CIM_VIB", "--root_dir", "data")
    assert taken_from(json.loads(json.dumps(config.as_record())), "results.json") == config


def test_paths_of_weights_and_logs_are_left_out(written):
    taken = taken_from(written(pretrained_model_path="/w.pth", log_dir="/elsewhere", download=True), "results.json")
    assert (taken.pretrained_model_path, taken.download, taken.log_dir) == (None, False, "./logs")


def test_the_name_of_own_data_is_taken_with_the_defaults_of_own_data(written):
    taken = taken_from(written(dataset="photos", groupby_fields=["environment", "y"]), "results.json")
    assert (taken.dataset, taken.optimizer, taken.groupby_fields) == ("photos", "AdamW", ["environment", "y"])


@pytest.mark.parametrize(
    "value", [{"drop_rate": 0.1}, {"pretrained": True, "img_size": [64, 32], "global_pool": "avg", "pad_type": "same"}]
)
def test_arguments_that_shape_a_network_are_taken(written, value):
    assert taken_from(written(model_kwargs=value), "results.json").model_kwargs == value
    assert value.keys() <= MODEL_KWARGS.keys()


HOSTILE = {
    "a pickle": {"model_kwargs": {"checkpoint_path": "bomb.pth"}},
    "a pickle by a configuration": {"model_kwargs": {"pretrained_cfg_overlay": {"file": "bomb.pth"}}},
    "an address": {"model_kwargs": {"pretrained_cfg": {"url": "http://127.0.0.1:9/x"}}},
    "weights": {"model_kwargs": {"weights": "DEFAULT"}},
    "a folder of weights": {"model_kwargs": {"cache_dir": "/etc"}},
    "other outputs": {"model_kwargs": {"features_only": True}},
    "a path as a pooling": {"model_kwargs": {"global_pool": "../../x"}},
    "a layer of a billion": {"model_kwargs": {"embed_dim": 10**9}},
    "a number that is none": {"model_kwargs": {"drop_rate": float("nan")}},
    "arguments that are a list": {"model_kwargs": []},
    "a model of a hub": {"model": "hf-hub:somebody/model"},
    "a model of timm's hub": {"model": "timm/hf_hub:somebody/model"},
    "a model of a folder": {"model": "local-dir:/tmp/model"},
    "a model that is a list": {"model": ["resnet18"]},
    "another data set": {"dataset": "../x"},
    "a data set that is no picture": {"dataset": "civilcomments"},
    "a data set above": {"dataset": ".."},
    "a data set that is a list": {"dataset": ["waterbirds"]},
    "a release elsewhere": {"version": "1.0/../../x"},
    "a split scheme of a megabyte": {"split_scheme": "x" * 10**6},
    "a data set that downloads": {"dataset_kwargs": {"download": True}},
    "a data set elsewhere": {"dataset_kwargs": {"root_dir": "/"}},
    "a root that is a number": {"root_dir": 3},
    "a root with a zero": {"root_dir": "/\0"},
    "pictures of a terapixel": {"target_resolution": [10**6, 10**6]},
    "pictures of no size": {"target_resolution": [0, -1]},
    "pictures a thousand times larger": {"resize_scale": 1000.0},
    "a seed that is a path": {"seed": "/x"},
    "a seed that is none": {"seed": True},
    "fields that are none": {"groupby_fields": "y"},
    "a hyperparameter of a billion": {"hyperparameters": {"cim_lambda": 10**9}},
    "hyperparameters that are a list": {"hyperparameters": []},
    "an algorithm that is a list": {"algorithm": []},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_not_known_to_be_harmless_is_one_line(written, what):
    (name,) = HOSTILE[what]
    with pytest.raises(InputError) as raised:
        taken_from(written(**HOSTILE[what]), "results.json")
    said = str(raised.value)
    assert said.startswith("results.json: ") and name.rstrip("s") in said and "\n" not in said and len(said) < 400


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18", "small_cnn"])
def test_weights_that_a_library_would_load_are_refused_on_the_command_line_too(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save(_Bomb(), "bomb.pth")
    for options in ({"checkpoint_path": "bomb.pth"}, {"pretrained_cfg_overlay": {"file": "bomb.pth"}}):
        with pytest.raises(InputError, match="give the file by --pretrained_model_path"):
            make_encoder(name, {"pretrained": True, **options}, None)
    assert os.listdir() == ["bomb.pth"]
