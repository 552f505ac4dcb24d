"""``python -m scripts.evidence domains``: which jobs in which order, what is printed of the host's tables, and that it
goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from hosts import forked_host
from hosts.photographs import write_photographs
from interpreters import HERE
from PIL import Image
from reproduce.stand_ins import SMALL_SWEEP

from cim_plugin.hosts.domainbed.image_size import KeptImages
from cim_plugin.runs import packed
from scripts.evidence import domains


def evidence(cwd: Path, *words: str, host: Path = SMALL_SWEEP) -> subprocess.CompletedProcess:
    """What the command does in a folder with data, weights and a host."""
    path = os.pathsep.join(map(str, (host, HERE.parent)))
    common = ["--data_dir", "data", "--weights", "weights.pt", "--output_dir", "out", "--image_size", "36"]
    places = {"PYTHONPATH": path, "DOMAINBED_HOME": str(host), "CUDA_VISIBLE_DEVICES": ""}
    return forked_host.run(host, "-m", "scripts.evidence", "domains", *common, *words, cwd=cwd, timeout=580, **places)


@pytest.fixture
def place(tmp_path) -> Path:
    write_photographs(tmp_path / "data")
    (tmp_path / "weights.pt").touch()
    return tmp_path


def arguments(folder: Path) -> list[dict]:
    return [run["records"][0]["args"] for run in packed.read(str(folder / "out" / domains.RUNS)).values()]


@pytest.mark.slow
def test_every_domain_is_left_out_trial_by_trial_and_the_same_command_goes_on(place):
    done = evidence(place, "--trials", "2", "--steps", "7")
    assert done.returncode == 0, done.stderr
    jobs = arguments(place)
    assert {(job["algorithm"], *job["test_envs"], job["trial_seed"]) for job in jobs} == {
        (name, domain, trial) for name in domains.ALGORITHMS for domain in range(4) for trial in range(2)
    }
    hparams = {json.dumps(json.loads(job["hparams"]), sort_keys=True) for job in jobs}
    wanted = {**domains.NETWORK, "pretrained_model_path": "FILE", "image_size": 36, "batch_size": 8}
    assert str(place) not in json.dumps(jobs) and {job["data_dir"] for job in jobs} == {"DATA"}
    assert hparams == {json.dumps(wanted, sort_keys=True)} and {job["steps"] for job in jobs} == {7}
    assert len(jobs) == 64 and not list((place / "out").rglob("model.pkl"))
    assert done.stdout.count("model selection method") == 1 and "training-domain validation set" in done.stdout
    assert f"64 runs in {place / 'out' / domains.RUNS}" in done.stdout
    folders = sorted((place / "out" / domains.JOBS).glob("*/done"), key=lambda path: path.stat().st_mtime_ns)
    trials = [json.loads((path.parent / "results.jsonl").read_text())["args"]["trial_seed"] for path in folders]
    assert trials == sorted(trials)

    more = evidence(place, "--trials", "3", "--steps", "7", "--leave_one_out")
    assert more.returncode == 0, more.stderr
    assert len(arguments(place)) == len(domains.ALGORITHMS) * 10 * 3
    assert all(path.exists() for path in folders) and more.stdout.count("model selection method") == 2
    assert "| CIM − ERM | 3 | +0.0 | +0.0 to +0.0 | open |" in more.stdout
    assert "leave-one-domain-out" in more.stdout and "oracle" not in more.stdout

    other = evidence(place, "--trials", "3", "--steps", "8")
    assert other.returncode == 2 and "holds jobs with steps 7, now it is 8" in other.stderr


def test_averages_are_of_the_step_that_validation_chooses_and_of_whole_trials_only(tmp_path):
    """ERM: better on validation images at its first step, whose test accuracies are 0.1, 0.2, 0.3, 0.4."""
    for row, trial, n_domains, best in (("ERM", 0, 4, 0), ("ERM", 1, 3, 0), ("CIM", 0, 4, 9), ("CIM", 1, 4, 9)):
        for domain in range(n_domains):
            arguments = {"algorithm": row, "dataset": "PACS", "trial_seed": trial, "test_envs": [domain]}
            arguments |= {"hparams_seed": 0, "hparams": None, "steps": 10}
            lines = []
            for step in (0, 9):
                test = (domain + 1) / 10 if step == best else 0.9
                inside = {f"env{number}_in_acc": test if number == domain else 0.5 for number in range(4)}
                outside = {f"env{number}_out_acc": 0.8 if step == best else 0.7 for number in range(4)}
                measured = {"step": step, "step_time": 0.1, "mem_gb": 0.0, "hparams": {}}
                lines.append(json.dumps({**measured, "args": arguments, **inside, **outside}))
            folder = tmp_path / f"{row}{trial}{domain}"
            folder.mkdir()
            (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
            (folder / "done").touch()
    found = domains.averages(tmp_path)
    assert found == {"ERM": {0: pytest.approx(25.0)}, "CIM": {0: pytest.approx(25.0), 1: pytest.approx(25.0)}}
    assert "| CIM − ERM | 1 | +0.0 |" in domains.differences(found) and "VIB" not in domains.differences(found)


def test_what_is_missing_is_one_line(place):
    (place / "weights.pt").unlink()
    done = evidence(place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--weights weights.pt is no file; name a state dict of timm's mobilenetv2_100" in done.stderr
    (place / "weights.pt").touch()
    (place / "data" / "PACS").rename(place / "data" / "VLCS")
    done = evidence(place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "PACS is absent: get it with" in done.stderr


def test_a_small_copy_holds_the_pixels_that_the_plugin_would_make_of_the_originals(tmp_path):
    write_photographs(tmp_path)
    domains.shrink(tmp_path / "PACS", tmp_path / "small", 36)
    keep = KeptImages(lambda path: Image.open(path).convert("RGB"), 36)
    files = sorted((tmp_path / "PACS").rglob("*.png"))
    assert len(files) == 24
    for file in files:
        small = tmp_path / "small" / file.relative_to(tmp_path / "PACS")
        assert keep(str(file)).tobytes() == Image.open(small).tobytes()
        assert keep(str(small)).tobytes() == Image.open(small).tobytes()


@pytest.mark.host
@pytest.mark.slow
def test_the_real_host_fills_the_table(domainbed, place):
    from timm import create_model

    torch.save(create_model("mobilenetv2_100", pad_type="same").state_dict(), place / "weights.pt")
    words = ["--algorithms", "ERM", "--trials", "1", "--steps", "1", "--batch_size", "2", "--at_once", "2"]
    done = evidence(place, *words, host=domainbed)
    assert done.returncode == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("ERM ")]
    runs = packed.read(str(place / "out" / domains.RUNS)).values()
    shown = {job["records"][0]["args"]["test_envs"][0]: job["records"][0] for job in runs}
    cells = [f"{100 * shown[domain][f'env{domain}_in_acc']:.1f}" for domain in range(4)]
    assert [word for word in row[1:-1:3]] == cells
