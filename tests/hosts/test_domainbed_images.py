"""What a step of ours warns of in DomainBed: when it begins and when it ends."""

from __future__ import annotations

import warnings

from cim_plugin.announcer import Announcer
from cim_plugin.hosts.batches import warn_of_a_step


def test_a_state_is_warned_of_when_it_begins_and_when_it_ends():
    announcer, said = Announcer(), []
    steps = [(0, 0.5), (8, 0.5), (8, 0.5), (3, 0.5), (3, 1e-9), (3, 1e-9), (3, 0.5)]
    for no_triplet, mask_mean in steps:
        logged = {"loss": 1.0, "no_triplet": no_triplet, "mask_mean": mask_mean, "mask_std": 0.1}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_a_step(announcer, "CIM", logged, 8)
        said.append([str(warning.message)[:40] for warning in caught])
    assert [len(of_step) for of_step in said] == [0, 1, 0, 1, 1, 0, 1]
    begin, end, collapse, _ = [words[0] for words in said if words]
    assert begin.startswith("CIM: none of the 8 images of a batch") and end.startswith("CIM: no longer: none of the 8")
    assert collapse.startswith("CIM: m has a mean below 0.0001")


def test_algorithms_without_a_network_are_warned_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_a_step(Announcer(), "VIB", {"loss": 1.0, "KL": 0.0}, 8)
