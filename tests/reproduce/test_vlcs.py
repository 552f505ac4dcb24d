"""VLCS through a sweep: which jobs, with what, and the table of the three selection methods."""

from __future__ import annotations

import argparse
import fcntl
import json
from pathlib import Path

import pytest
import torch
import torchvision
from hosts import forked_host
from stand_ins import SMALL_SWEEP, VLCS, cells_of, reproduce, write_vlcs

WEIGHTS = {"resnet18": "resnet18-f37072fd.pth", "resnet50": "resnet50-0676ba61.pth"}


def write_weights(root: Path, name: str) -> None:
    """Weights that are not pretrained, where torchvision keeps those that are."""
    folder = root / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(getattr(torchvision.models, name)().state_dict(), folder / WEIGHTS[name])


def jobs(folder: Path) -> list[dict]:
    return [json.loads(path.read_text())["args"] for path in folder.glob("*/results.jsonl")]


@pytest.mark.slow
def test_every_environment_and_pair_is_held_out_and_a_failed_job_is_done_again(tmp_path):
    write_vlcs(tmp_path / "data")
    write_weights(tmp_path, "resnet50")
    folder = tmp_path / "reproduction" / "vlcs"
    folder.mkdir(parents=True)
    (folder / "FAIL").write_text("CIM")
    words = ["--published-setup", "--algorithms", "ERM", "CIM", "--n_hparams", "2", "--n_trials", "1", "--steps", "7"]
    done = reproduce("vlcs", *words, cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 2 and f"{folder}/sweep.txt says why; the same command does them again" in done.stderr
    assert cells_of(done.stdout, "training_domain", "ERM")  # of what did not fail
    done = reproduce("vlcs", *words, cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 0, done.stderr
    other = reproduce("vlcs", *words[:-1], "8", cwd=tmp_path, host=SMALL_SWEEP)
    assert (
        other.returncode == 2
        and f"{folder} holds jobs with steps 7, now it is 8; repeat the flags or choose another --output_dir"
        in other.stderr
    )
    with open(folder / "CIM.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = reproduce("vlcs", *words, cwd=tmp_path, host=SMALL_SWEEP)
    assert (
        other.returncode == 2 and f"{folder}/CIM.lock is locked: a sweep of that algorithm is running" in other.stderr
    )
    assert not list(folder.glob("*/model.pkl"))
    found = jobs(folder)
    assert len(found) == 2 * 10 * 2 and {len(job["test_envs"]) for job in found} == {1, 2}
    assert {(job["dataset"], job["steps"], job["hparams"]) for job in found} == {
        ("VLCS", 7, '{"resnet50_augmix": false, "freeze_bn": true}')
    }
    for rule in ("training_domain", "leave_one_out", "oracle"):
        line = cells_of(done.stdout, rule, "CIM")
        assert [cell.split()[0] for cell in line if "±" in cell][:4] == ["50.0", "60.0", "70.0", "80.0"]
    assert (
        "PUBLISHED, not measured here: VLCS (Out" in done.stdout
        and "PUBLISHED, not measured here: VLCS in DomainBed" in done.stdout
        and done.stdout.count("PUBLISHED") == 2
    )
    assert (
        done.stdout.splitlines()[-1]
        == "DomainBed's hyperparameters, but for {'resnet50_augmix': False, 'freeze_bn': True}."
    )
    assert (
        "VLCS: data/VLCS: unlike the published release: " in done.stderr and "warning: torch sees no GPU" in done.stderr
    )


def test_quick_links_a_few_images_and_trains_two_algorithms_for_two_steps(tmp_path):
    write_vlcs(tmp_path / "data")
    write_weights(tmp_path, "resnet18")
    done = reproduce("vlcs", "--quick", "--keep_models", cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 0 and "no GPU" not in done.stderr, done.stderr
    folder = tmp_path / "reproduction" / "quick" / "vlcs"
    expected = [(name, [number], 2) for name in ("CIM_VIB", "ERM") for number in range(4)]
    assert sorted((job["algorithm"], job["test_envs"], job["steps"]) for job in jobs(folder)) == expected
    assert len(list(folder.glob("*/model.pkl"))) == len(expected)
    for environment in VLCS["environments"]:
        for label in VLCS["classes"]:
            images = sorted((folder / "data" / "VLCS" / environment / label).iterdir())
            assert [image.name for image in images] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
            assert images[0].read_bytes() == (tmp_path / "data" / "VLCS" / environment / label / "0.jpg").read_bytes()

    (tmp_path / "data").rename(tmp_path / "moved")
    done = reproduce("vlcs", "--quick", "--data", "moved", cwd=tmp_path, host=SMALL_SWEEP)
    assert done.returncode == 0, done.stderr
    assert all(image.exists() for image in (folder / "data").glob("VLCS/*/*/*"))


@pytest.mark.host
def test_the_real_sweep_makes_these_jobs_of_our_flags(domainbed, tmp_path):
    from scripts.reproduce.sweep import ALGORITHMS, flags
    from scripts.reproduce.vlcs import PUBLISHED_SETUP

    args = argparse.Namespace(
        algorithms=list(ALGORITHMS), n_hparams=1, n_trials=1, steps=None, quick=False, launcher="here"
    )
    words = [
        {"cim_local": "dummy"}.get(word, word)
        for word in flags("VLCS", tmp_path / "two words", tmp_path / "out", args, PUBLISHED_SETUP)
    ]
    done = forked_host.run(domainbed, "-m", "domainbed.scripts.sweep", "launch", *words)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if "--algorithm" in line]
    assert len(commands) == 6 * 10
    for flag in ("""--hparams '{"resnet50_augmix": false, "freeze_bn": true}'""", f"--data_dir '{tmp_path}/two words'"):
        assert all(flag in command for command in commands)
    assert {command.split("--algorithm ")[1].split()[0] for command in commands} == set(ALGORITHMS)
