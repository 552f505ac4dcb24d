"""What a session opens, and that transform and model follow from configuration and facts alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from cim_plugin.errors import InputError
from cim_plugin.models.transforms import make_transform
from cim_plugin.wilds_runner.facts import Facts
from cim_plugin.wilds_runner.model import build_model
from cim_plugin.wilds_runner.session import open_images, open_session, with_model


@pytest.mark.parametrize("algorithm", ["ERM", "groupDRO", "CIM_VIB"])
def test_a_model_is_made_again_from_configuration_and_facts_where_there_are_no_data(noise_config, algorithm):
    config = noise_config("--model", "small_cnn", "--target_resolution", "28", "--algorithm", algorithm)
    session = open_session(config, fresh=True)
    facts = Facts(**json.loads(json.dumps(session.facts._asdict())))
    elsewhere = replace(config, root_dir="gone")
    transform = make_transform(elsewhere, facts.original_resolution)
    again = build_model(elsewhere, facts, transform)
    assert (transform.size, transform.training_size) == (session.transform.size, session.transform.training_size)
    expected = session.classifier.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_facts_are_those_of_the_data(noise_config):
    _, facts, _ = open_images(noise_config("--groupby_fields", "background"))
    assert facts.n_classes == len(facts.class_names) == 2
    assert facts.class_names == ["landbird", "waterbird"]
    assert (facts.n_environments, facts.n_groups, facts.groups_in_training) == (2, 2, [0, 1])


def test_data_are_opened_once_for_several_models(noise_config):
    config, opened = noise_config("--model", "small_cnn", "--target_resolution", "28"), []

    def open_data(config):
        from cim_plugin.wilds_runner.datasets import open_dataset

        opened.append(config.dataset)
        return open_dataset(config)

    images = open_images(config, open_data)
    one, other = with_model(config, *images, fresh=True), with_model(config, *images, fresh=False)
    assert opened == ["waterbirds"] and one.data is other.data and one.classifier is not other.classifier


def test_images_that_the_model_cannot_take_are_refused_with_their_size(noise_config):
    config = noise_config("--model", "vit_b_16", "--model_kwargs", "pretrained=false", "--target_resolution", "24")
    with pytest.raises(InputError, match="--model vit_b_16 cannot take images of 24x24"):
        open_session(config, fresh=True)
