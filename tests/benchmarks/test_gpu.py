"""``scripts/bench gpu`` on a CPU: its logic at tiny sizes, its kernels where Triton interprets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from interpreters import HERE
from paired_rows import check_ratio

from scripts.benchmarks import gpu, gpu_page

pytestmark = pytest.mark.slow


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


#: the rows that need no compiler
FEW = gpu.QUICK._replace(triplet=gpu.QUICK.triplet[:1], variants=(gpu.VARIANTS[0], gpu.VARIANTS[-1]))


def test_without_a_gpu_it_is_one_line(mistake, no_gpu):
    assert mistake("gpu").startswith("scripts/bench gpu: error: torch finds no GPU here")


def test_every_section_has_rows_and_a_table(no_gpu):
    rows = list(gpu.measured(gpu.SECTIONS, FEW, "cpu", 600))
    assert list(dict.fromkeys(row["section"] for row in rows)) == list(gpu.SECTIONS)
    by_section = {section: [row for row in rows if row["section"] == section] for section in gpu.SECTIONS}
    assert all("TRITON_INTERPRET=1" in row["note"] for row in by_section["kernels"][1:])
    fused, plain, missing = by_section["triplet"]
    assert missing["note"] == "left out: it needs a GPU" and fused["name"].startswith("fused, 2 x 3 x 28 x 28")
    for row in (fused, plain, by_section["step"][0]):
        check_ratio(row)
    assert by_section["step"][1]["note"].startswith("left out: compiling")
    (profile,) = by_section["profile"]
    assert 0 < sum(operation["share"] for operation in profile["operations"]) <= 1
    assert all(rate > 0 for rate in by_section["loader"][0]["rates"].values())
    page = gpu_page.page(rows)
    assert all(f"### {title}" in page for title, _, _ in gpu_page.TABLES.values())
    assert "| small_cnn, float32, channels_last | " in page


def test_the_command_prints_and_writes_what_it_measured(bench, monkeypatch, no_gpu, tmp_path):
    times = iter([0.0])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(times, 1e9))  # nothing is in time
    rows = bench("gpu", "--device", "cpu", "--quick", "--output_dir", str(tmp_path))
    assert rows and all(row["note"] == "left out: the time was over" for row in rows)
    assert json.loads((tmp_path / "gpu.json").read_text()) == rows
    assert (tmp_path / "gpu.md").read_text() == gpu_page.page(rows)


def test_what_fails_or_comes_too_late_is_a_row_that_says_so(monkeypatch, no_gpu):
    def section(sizes, device):
        yield "broken", lambda: 1 / 0
        yield "late", lambda: clock.append(1e9) or {"rates": {"a": 2.0}}
        yield "later", lambda: {}

    clock = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[-1])
    rows = list(gpu.measured({"loader": section}, FEW, "cpu", 600))
    assert [row.get("note") for row in rows] == [
        "ZeroDivisionError: division by zero",
        None,
        "left out: the time was over",
    ]
    assert "- later: left out: the time was over" in gpu_page.page(rows)


def test_the_kernels_are_held_to_plain_autograd_where_triton_interprets_them():
    pytest.importorskip("triton")
    code = (
        "import json; from cim_plugin.algorithms.similarity import triton_kernels as t; t._BLOCK = 4096; "
        "from scripts.benchmarks import gpu_kernels as g; "
        "print(json.dumps([g.errors(case, 'cpu') for case in g.cases(((3, 2, 23, 22),))]))"
    )
    variables = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300)
    rows = json.loads(done.stdout)
    assert len(rows) == 6, done.stderr
    for row in rows:
        assert row["repeats"] and row["value_error"] < 1e-5 and row["gradient_error"] < 1e-3
        assert row["plain_value_error"] > 0


def test_what_takes_too_long_is_ended(no_gpu):
    def section(sizes, device):
        yield "long", lambda: time.sleep(60)
        yield "later", lambda: {}

    rows = gpu.measured({"loader": section}, FEW, "cpu", 0.12)
    assert [row["note"] for row in rows] == ["TimeoutError: the time was over", "left out: the time was over"]
