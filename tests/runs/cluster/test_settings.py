"""Flags and files of a submission."""

from __future__ import annotations

import argparse
import json

import pytest

from cim_plugin.errors import InputError
from cim_plugin.runs.cluster import settings
from cim_plugin.runs.cluster.settings import Settings, of_environment, of_flags


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def file(tmp_path):
    def write(**values) -> str:
        (tmp_path / "cluster.json").write_text(json.dumps(values))
        return str(tmp_path / "cluster.json")

    return write


def test_jobs_run_here_unless_asked():
    assert of_flags(flags()) is None


def test_flags_count_more_than_the_file(file):
    path = file(cluster="local", partition="cpu", time=30, account="vision")
    asked = of_flags(flags("--launcher", "submitit", "--cluster_file", path, "--time", "60", "--array", "2"))
    assert asked == Settings("local", "cpu", gpus=0, time=60, array=2, own={"account": "vision"})


def test_a_host_is_told_by_a_variable(file, monkeypatch):
    monkeypatch.setenv("CIM_PLUGIN_CLUSTER", file(cluster="local", gpus=1))
    assert of_environment() == Settings("local", gpus=1)


def test_what_is_written_is_read(tmp_path, monkeypatch):
    asked = Settings("local", "cpu", gpus=2, time=60, array=2, own={"account": "vision"})
    settings.write(asked, tmp_path / "cluster.json")
    monkeypatch.setenv("CIM_PLUGIN_CLUSTER", str(tmp_path / "cluster.json"))
    assert of_environment() == asked


@pytest.mark.parametrize(
    "values, wrong",
    [
        ({"cluster": "pbs"}, "cluster is 'pbs'; choose slurm or local"),
        ({"cluster": 1}, "cluster is 1, which is not a text"),
        ({"gpus": -1}, "gpus is -1, which is not a whole number from 0 to 64"),
        ({"time": "1h"}, "time is '1h', which is not a whole number"),
        ({"array": True}, "array is True, which is not a whole number"),
    ],
)
def test_a_wrong_file_is_one_line(file, values, wrong):
    with pytest.raises(InputError, match=wrong):
        of_flags(flags("--launcher", "submitit", "--cluster_file", file(**values)))


def test_flags_of_a_cluster_need_one():
    with pytest.raises(InputError, match="--partition is for --launcher submitit"):
        of_flags(flags("--partition", "gpu"))


def test_without_slurm_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not on the path"):
        of_flags(flags("--launcher", "submitit"))
