"""A doctor in a fresh interpreter that finds stand-ins of torch and torchvision, an empty cache and no hosts but those
that a test makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from interpreters import run_python

TORCH = """
__version__ = "2.6.0"
class version: cuda = {cuda!r}; hip = None
class cuda:
    is_available = staticmethod(lambda: {gpus!r} != [])
    device_count = staticmethod(lambda: len({gpus!r}))
    get_device_name = staticmethod(lambda number: {gpus!r}[number])
def tensor(values): return values
"""
TORCHVISION = """
__version__ = "0.21.0"
class _Kept:
    def tolist(self): return [0]
class ops:
    @staticmethod
    def nms(boxes, scores, threshold):
        {nms}
class _Weights:
    def __init__(self, name):
        url = f"https://example.org/{{name}}-{digest}.pth"
        self.IMAGENET1K_V1 = type("Entry", (), {{"url": url}})
class models:
    get_model_weights = staticmethod(_Weights)
"""


class Environment(NamedTuple):
    """Folders of a test's own."""

    packages: Path  #: before site-packages
    cache: Path
    work: Path

    def torch(self, gpus: list[str] = [], cuda: str | None = None) -> None:  # noqa: B006
        self.package("torch", TORCH.format(gpus=gpus, cuda=cuda), "2.6.0")

    def torchvision(
        self,
        nms: str = "return _Kept()",
        digest: str = "0123abcd",
        needs: str = "torch==2.6.0",
        source: str | None = None,
    ) -> None:
        self.package("torchvision", source or TORCHVISION.format(nms=nms, digest=digest), "0.21.0", needs)

    def package(self, name: str, source: str, version: str, *needs: str) -> None:
        """A package with its metadata."""
        write_metadata(self.packages, name, version, *needs)
        (self.packages / name).mkdir(exist_ok=True)
        (self.packages / name / "__init__.py").write_text(source)

    def run(self, *words: str, **variables: str | None):
        settings = {
            "CIM_PLUGIN_AUTOLOAD": None,
            "DOMAINBED_HOME": None,
            "WILDS_HOME": None,
            "TORCH_HOME": None,
            "HF_HOME": None,
            "HF_HUB_CACHE": None,
        }
        settings |= {"XDG_CACHE_HOME": str(self.cache), "PYTHONPATH": str(self.packages), **variables}
        return run_python("-m", "cim_plugin.cli", "doctor", *words, cwd=self.work, **settings)

    def ask(self, *words: str, **variables: str | None) -> Answer:
        done = self.run("--json", *words, **variables)
        assert "Traceback" not in done.stderr, done.stderr
        said = json.loads(done.stdout)
        assert list(said) == ["status", "command", "findings"] and said["status"] == done.returncode
        assert all(
            list(finding) == ["check", "level", "what", "fix"] and "\n" not in finding["what"]
            for finding in said["findings"]
        )
        return Answer(done.returncode, said["findings"])


def write_metadata(folder: Path, name: str, version: str, *needs: str) -> None:
    """What an installer leaves of a package: name, version and requirements."""
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {one}" for one in needs),
    ]
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")


class Answer(NamedTuple):
    """What the doctor said."""

    status: int
    findings: list[dict]

    def of(self, check: str) -> list[tuple[str, str]]:
        """Level and words of a check's findings."""
        return [(finding["level"], finding["what"]) for finding in self.findings if finding["check"] == check]

    def worst(self) -> list[tuple[str, str]]:
        """The warnings and errors: check and words."""
        return [
            (finding["check"], finding["what"]) for finding in self.findings if finding["level"] in ("warning", "error")
        ]
