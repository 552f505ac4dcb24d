"""``cim-plugin doctor`` in fresh interpreters, in environments with one thing wrong."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest
from fake_environment import write_metadata
from interpreters import SMALL_HOST, run_python

from cim_plugin.data.releases import RELEASES
from cim_plugin.doctor import command, places
from cim_plugin.doctor.findings import Finding, Surroundings
from cim_plugin.hosts.domainbed.get import COMMIT, REPOSITORY_VARIABLES


def test_where_all_is_well(environment):
    said = environment.ask()
    assert said.status == 0 and said.worst() == []
    assert ("ok", "torch 2.6.0 with torchvision 0.21.0 go together") in said.of("torch")
    assert said.of("autoload")[0][0] == "ok"
    assert {finding["check"] for finding in said.findings} == set(command.CHECKS) - {"command"}


def test_a_line_per_finding_and_a_verdict(environment):
    done = environment.run()
    assert (done.returncode, done.stderr) == (0, "")
    *lines, verdict = done.stdout.splitlines()
    assert all(
        line.split()[0] in ("ok", "note", "warning", "error") and line.split()[1] in command.CHECKS for line in lines
    )
    assert verdict.startswith("all is well")


def test_its_own_process_imports_no_torch(environment):
    code = (
        "import sys; from cim_plugin.cli import main; main(['doctor', '--root_dir', 'x']); print('torch' in "
        "sys.modules, 'numpy' in sys.modules)"
    )
    assert (
        run_python("-c", code, cwd=environment.work, PYTHONPATH=str(environment.packages)).stdout.splitlines()[-1]
        == "False False"
    )


def test_gpus_are_named(environment):
    environment.torch(gpus=["Big One", "Small One"], cuda="12.4")
    assert ("ok", "2 GPU: Big One, Small One") in environment.ask().of("torch")


def test_a_gpu_that_is_not_seen_is_a_note(environment):
    environment.torch(cuda="12.4")
    (note,) = [what for level, what in environment.ask().of("torch") if level == "note"]
    assert "CUDA 12.4" in note and "no GPU" in note


DOES_NOT_EXIST = "raise RuntimeError('operator torchvision::nms does not exist')"
#: how torch and torchvision can fail -> (what is changed, what is said)
BROKEN = {
    "no operator": (
        lambda e: e.torchvision(nms=DOES_NOT_EXIST),
        "torchvision's operators fail (RuntimeError: operator torchvision::nms does not exist)",
    ),
    "a crash": (
        lambda e: e.torchvision(source="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
        "torchvision cannot be imported (ended by signal 11)",
    ),
    "silent end": (lambda e: e.torchvision(source="import os; os._exit(3)"), "ended with status 3"),
    "no import": (
        lambda e: e.torchvision(source="raise ImportError('undefined symbol: _ZN3c10')"),
        "undefined symbol: _ZN3c10",
    ),
    "wrong numbers": (
        lambda e: e.torchvision(nms="return type('Kept', (), {'tolist': lambda self: [1]})()"),
        "give wrong results",
    ),
    "no torch": (
        lambda e: e.package("torch", "raise ModuleNotFoundError('no torch')", "2.6.0"),
        "torch cannot be imported (ModuleNotFoundError: no torch)",
    ),
    "declared for another": (
        lambda e: e.torchvision(needs="torch==2.7.0"),
        "torchvision 0.21.0 is made for torch ==2.7.0, torch 2.6.0 is installed",
    ),
    "declared for a newer one": (lambda e: e.torchvision(needs="torch (>=2.14.0)"), "is made for torch >=2.14.0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_torchvision_that_does_not_fit_is_an_error_and_the_rest_is_said(environment, what):
    change, words = BROKEN[what]
    change(environment)
    said = environment.ask()
    assert said.status == 2
    assert any(level == "error" and words in text for level, text in said.of("torch"))
    assert all(said.of(check) for check in ("autoload", "DomainBed", "data", "disk"))


def test_the_autoload_switched_off(environment):
    said = environment.ask(CIM_PLUGIN_AUTOLOAD="0")
    ((check, what),) = said.worst()
    assert said.status == 1 and check == "autoload" and "switched off by CIM_PLUGIN_AUTOLOAD=0" in what


def test_no_autoload_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CIM_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(places.site, "getsitepackages", lambda: [])
    monkeypatch.setattr(places.site, "getusersitepackages", lambda: str(tmp_path))
    monkeypatch.setattr(places.sysconfig, "get_path", lambda name: str(tmp_path))
    (finding,) = places.autoload_state(Surroundings(None, None, []))
    assert finding.level == "warning" and "no cim_plugin_autoload.pth" in finding.what
    (tmp_path / places.PTH).touch()
    monkeypatch.setattr(places.sys, "meta_path", [])
    (finding,) = places.autoload_state(Surroundings(None, None, []))
    assert finding.level == "warning" and "was not run" in finding.what


# --- hosts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the package ``domainbed`` and one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in REPOSITORY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = shutil.copytree(SMALL_HOST, tmp_path / "checkout")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def git(folder, *words):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=A", "-c", "user.email=a@example.org", *words],
        check=True,
        capture_output=True,
    )


def test_domainbed_at_another_commit(environment, checkout):
    said = environment.ask(DOMAINBED_HOME=str(checkout))
    assert said.status == 1
    ((level, what),) = said.of("DomainBed")
    assert level == "warning" and str(checkout) in what and f"tested with {COMMIT[:12]}" in what


def test_domainbed_at_the_tested_commit_with_changes(checkout):
    head = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert places.checkout("DomainBed", str(checkout), head).level == "ok"
    (checkout / "domainbed" / "networks.py").write_text("")
    level, what, _ = places.checkout("DomainBed", str(checkout), head)
    assert level == "note" and "changes of yours" in what


def test_domainbed_without_git_and_damaged(environment, checkout):
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert "its commit is not known" in environment.ask(DOMAINBED_HOME=str(checkout)).of("DomainBed")[0][1]
    shutil.rmtree(checkout / ".git")
    assert "is no git checkout" in environment.ask(DOMAINBED_HOME=str(checkout)).of("DomainBed")[0][1]


def test_hosts_that_are_named_and_not_there(environment):
    said = environment.ask(DOMAINBED_HOME="/nowhere", WILDS_HOME="/nowhere")
    assert said.status == 1
    assert [check for check, _ in said.worst()] == ["DomainBed", "WILDS"]
    assert ("note", "no DomainBed is found; 'cim-plugin train' does without") in said.of("DomainBed")


def test_subpopbench_and_what_it_lacks(environment, tmp_path):
    assert environment.ask(SUBPOPBENCH_HOME="").of("SubpopBench") == [("note", "no SubpopBench is found")]
    (tmp_path / "host" / "subpopbench").mkdir(parents=True)
    assert (
        "holds no subpopbench/train.py"
        in environment.ask(SUBPOPBENCH_HOME=str(tmp_path / "host")).of("SubpopBench")[0][1]
    )
    (tmp_path / "host" / "subpopbench" / "train.py").touch()
    environment.package("transformers", "", "4.60.0")
    environment.package("netcal", "", "1.4.0")
    found, lacks = environment.ask(SUBPOPBENCH_HOME=str(tmp_path / "host")).of("SubpopBench")
    assert "is no git checkout" in found[1]
    assert "transformers<4.47" in lacks[1] and "netcal" not in lacks[1]


def test_a_wilds_checkout_in_the_current_folder(environment):
    (environment.work / "examples").mkdir()
    (environment.work / "examples" / "run_expt.py").touch()
    environment.package("transformers", "", "4.39.3")
    assert any(
        level == "note" and what.endswith("its run_expt.py knows our algorithms by the autoload")
        for level, what in environment.ask().of("WILDS")
    )
    off = environment.ask(CIM_PLUGIN_AUTOLOAD="0").of("WILDS")
    assert any(
        level == "note" and what.endswith("does not know our algorithms, the autoload is off") for level, what in off
    )
    environment.package("transformers", "", "4.57.1")
    shutil.rmtree(environment.packages / "transformers-4.39.3.dist-info")
    assert any(
        what.endswith("and does not start: transformers 4.57.1 is installed, <4.40 is needed")
        for _, what in environment.ask().of("WILDS")
    )


# --- data, weights, room ---------------------------------------------------------------------------------------------


def test_a_root_that_is_empty_and_one_that_is_not_there(environment):
    (environment.work / "empty").mkdir()
    said = environment.ask("--root_dir", "empty")
    assert (said.status, said.of("data")) == (
        0,
        [("note", f"not in empty: {', '.join(RELEASES)}")],
    )
    said = environment.ask("--root_dir", "nowhere", "--data_dir", "empty")
    assert said.status == 1 and said.worst() == [("data", "no folder nowhere with data sets")]


def test_an_incomplete_data_set(environment):
    folder = environment.work / "data" / "waterbirds_v1.0"
    folder.mkdir(parents=True)
    (folder / "RELEASE_v1.0.txt").touch()
    said = environment.ask()
    assert said.status == 1 and said.worst() == [
        ("data", "waterbirds is incomplete: data/waterbirds_v1.0 lacks metadata.csv")
    ]


def test_one_data_set_that_cannot_be_looked_at_hides_no_other(tmp_path, monkeypatch):
    from cim_plugin.data import check

    (tmp_path / "celebA_v1.0").mkdir()
    (tmp_path / "celebA_v1.0" / "x").touch()
    inner = check.examine

    def examine(release, root):
        if release.name == "waterbirds":
            raise PermissionError(13, "Permission denied")
        return inner(release, root)

    monkeypatch.setattr(check, "examine", examine)
    said = list(places.data(Surroundings(str(tmp_path), None, [])))
    assert [finding.level for finding in said] == ["warning", "warning", "note"]
    assert "cannot be looked at" in said[0].what and "celebA is incomplete" in said[1].what


def test_weights_that_are_there_and_that_are_damaged(environment):
    content = b"weights"
    environment.torchvision(digest=hashlib.sha256(content).hexdigest()[:8])
    folder = environment.cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    (folder / name.replace("resnet50", "densenet121")).write_bytes(content[:-1])
    said = environment.ask()
    assert said.status == 1
    assert [level for level, _ in said.of("weights")] == ["ok", "warning", "note", "note"]
    assert "densenet121" in said.worst()[0][1] and "damaged" in said.worst()[0][1]


def test_image_caches_and_what_a_killed_run_left(environment):
    folder = environment.cache / "cim_plugin" / "images"
    folder.mkdir(parents=True)
    (folder / "a.npy").write_bytes(bytes(20_000_000))
    (folder / "b.npy.part").touch()
    (size, left) = environment.ask().of("cache")
    assert size == ("ok", f"1 image caches in {folder}, 0.02 GB")
    assert left[0] == "note" and "b.npy.part" in left[1]


def test_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12, 5 * 10**8))
    assert {finding.level for finding in places.disk(Surroundings(str(tmp_path), None, []))} == {"warning"}


def test_a_check_that_fails_takes_no_other_down():
    def broken(surroundings):
        yield Finding("ok", "so far")
        raise OSError("the disk\nis gone")

    checks = {"first": broken, "second": lambda surroundings: [Finding("ok", "fine")]}
    so_far, failed, fine = command.findings(checks, Surroundings(None, None, []))
    assert so_far == ("first", Finding("ok", "so far")) and fine == ("second", Finding("ok", "fine"))
    assert failed[1].level == "warning" and "OSError: the disk is gone" in failed[1].what


def test_a_missing_package_of_an_extra_is_a_note_and_of_all_an_error(only_installed, tmp_path):
    from cim_plugin.doctor import packages

    only_installed(numpy="2.1", pandas="3.0.1", torch="2.3.1+cu121")
    needs = [
        "numpy",
        "torch>=2.4",
        "pytorch-msssim>=1.0",
        'pandas<3; extra == "wilds"',
        'timm; extra == "domainbed"',
        'scipy; extra == "test"',
        'cim_plugin[wilds]; extra == "all"',
    ]
    write_metadata(tmp_path / "installed", "cim_plugin", "1.0", *needs)
    said = [(finding.level, finding.what.split()[0]) for finding in packages.packages(Surroundings(None, None, []))]
    assert said == [
        ("warning", "torch"),
        ("error", "pytorch-msssim"),
        ("warning", "pandas"),
        ("note", "timm"),
        ("ok", "1"),
    ]


def test_versions_as_the_packaging_library_reads_them():
    from packaging.specifiers import SpecifierSet

    from cim_plugin.doctor.packages import allows

    clauses = [
        "",
        ">=2.4",
        "<3",
        "==2.4.0",
        "==2.4",
        "!=8.3.*,>=5.3.0",
        ">=2.4,<3",
        "~=2.4",
        "~=2.4.1",
        ">2",
        "<=2.4.0",
        "==2.*",
    ]
    for clause in clauses:
        for version in (
            "2",
            "2.0.1",
            "2.4",
            "2.4.0",
            "2.4.1",
            "2.10",
            "3",
            "3.0.0",
            "5.3",
            "8.3.1",
            "13.0.0",
            "2.4.0+cu121",
        ):
            if "+" in version and ">2" == clause:
                continue
            assert allows(clause, version) == SpecifierSet(clause).contains(version), (clause, version)
