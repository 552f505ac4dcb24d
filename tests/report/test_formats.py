"""The same report in every format, read back, and with hostile names in it."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata

import pytest
from run_folders import domainbed_records, wilds_record, write_domainbed, write_wilds

from cim_plugin.compare import formats, sheets, tables
from cim_plugin.runs import find

HOSTILE = "a_b$\\x^2|<script>alert(1)</script>&%#{}~`*[1](u)\n\x1b[31mred\u202e\ud800"
FORMATS = list(formats.FORMATS)


@pytest.fixture
def report(tmp_path):
    """Three seeds of two algorithms, a DomainBed run, a damaged folder, and what was published."""
    for algorithm, gain in (("ERM", 0), ("CIM", 0.1)):
        for seed in range(3):
            write_wilds(
                tmp_path / f"{algorithm}{seed}",
                algorithm,
                seed,
                (0.9, 0.5 + 0.01 * seed + gain, 0.4 + 0.03 * seed + gain, 0.8),
            )
    for target in (0, 1):
        write_domainbed(
            tmp_path / f"domainbed{target}",
            domainbed_records([target], [[(0.51, 0.5), (0.62, 0.5)]], dataset="Debug28"),
        )
    (write_wilds(tmp_path / "damaged") / "results.json").write_text("{")
    found = find.find([str(tmp_path)])
    return sheets.make_report(found, tables.build(found.runs), True)


@pytest.fixture
def hostile(tmp_path):
    """A report whose every name tries to break out."""
    record = wilds_record(HOSTILE, dataset=HOSTILE, config={"lr": HOSTILE}, versions={HOSTILE: HOSTILE})
    for chosen in record["selection"].values():
        groups = chosen["splits"]["test"]["groups"]
        chosen["splits"]["test"]["groups"] = {HOSTILE + name: value for name, value in groups.items()}
    name = HOSTILE.replace("/", "_").replace("\ud800", "")
    (write_wilds(tmp_path / (name + "1")) / "results.json").write_text(json.dumps(record))
    record["config"]["lr"] = 2
    record["status"] = "running"
    (write_wilds(tmp_path / (name + "2")) / "results.json").write_text(json.dumps(record))
    (write_wilds(tmp_path / (name + "3")) / "results.json").write_text("{")
    found = find.find([str(tmp_path)])
    return sheets.make_report(found, tables.build(found.runs), False)


def expected_cells(report) -> set[str]:
    """Every shown number of the measured tables, worked out again."""
    shown = set()
    for table in report.tables:
        for row in table.rows:
            shown |= {
                f"{100 * cell.mean:.1f} ± {100 * cell.spread:.1f}"
                for cell in row.cells.values()
                if cell.spread is not None
            }
            shown |= {f"{100 * cell.mean:+.1f} ± {100 * cell.spread:.1f}" for cell in row.gains.values()}
    assert len(shown) > 8
    return shown


@pytest.mark.parametrize("name", ["text", "markdown", "latex", "html"])
def test_every_number_is_shown(name, report):
    text = formats.FORMATS[name][1](report)
    for cell in expected_cells(report):
        assert (
            cell.replace("±", r"$\pm$").replace("-", "{-}" if name == "latex" else "-") in text
            if name == "latex"
            else cell in text
        ), cell
    for entry in report.published["tables"]:
        for row in entry["rows"]:
            assert all(number in text for number in row["cells"][1:] if "." in number)
    assert "PUBLISHED, not measured here" in text
    assert "damaged" in text and formats.LEFT_OUT in text and "SYNTHETIC" in text


def test_text_is_aligned(report):
    lines = formats.TEXT.render(report).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("algorithm") and "seeds" in line)
    column = lines[start].index("average") + len("average")
    rows = [line for line in lines[start + 2 :] if line.startswith(("ERM ", "CIM "))][:4]
    assert len(rows) == 4 and all(
        re.fullmatch(r"\d", line[column - 1]) and line[column : column + 2] == "  " for line in rows
    )


def test_markdown_tables_have_the_same_cells_in_every_line(report):
    blocks = re.findall(r"(?:^\|.*\|\n)+", formats.MARKDOWN.render(report), re.MULTILINE)
    assert len(blocks) == len(report.tables) + len(report.published["tables"])
    for block in blocks:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_latex_is_balanced_and_uses_booktabs(report, hostile):
    for text in (formats.LATEX.render(report), formats.LATEX.render(hostile)):
        plain = re.sub(r"\\[{}\\&%$#_]", "", text)
        assert plain.count("{") == plain.count("}")
        assert (
            text.count(r"\toprule")
            == text.count(r"\bottomrule")
            == text.count(r"\begin{tabular}")
            == text.count(r"\end{tabular}")
        )
        assert text.isascii()
        for block in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
            rows = [line for line in block.splitlines() if line.endswith(r"\\")]
            assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1


def test_csv_holds_full_precision_and_every_note(report):
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(report))))
    found = {
        (row["dataset"], row["selected_by"], row["algorithm"], row["quantity"]): row
        for row in rows
        if row["kind"] == "measured"
    }
    for table in report.tables:
        for row in table.rows:
            for name, cell in row.cells.items():
                line = found[table.dataset, row.rule, row.family.label, name]
                assert float(line["mean"]) == 100 * cell.mean and line["unit"] == "%" and int(line["n"]) == cell.n
                assert line["spread"] == ("" if cell.spread is None else repr(100 * cell.spread))
    published = [row for row in rows if row["kind"] == "published"]
    assert len(published) == 4 * 4 + 12 * 5 + 6 * 5 + 7 * 3 + 8 * 3
    assert any(row["quantity"] == "Worst group acc." and row["mean"] == "83.59" for row in published)
    assert [row["marks"] for row in rows if row["kind"] == "left out"] == report.left_out


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r=", "＝"])
def test_csv_holds_no_formula(tmp_path, begin):
    name = f"{begin}HYPERLINK(1)"
    record = wilds_record("CIM", dataset=name, config={"lr": name})
    for chosen in record["selection"].values():
        groups = chosen["splits"]["test"]["groups"]
        chosen["splits"]["test"]["groups"] = {name + group: value for group, value in groups.items()}
    (write_wilds(tmp_path / "run") / "results.json").write_text(json.dumps(record))
    (write_wilds(tmp_path / f"{begin.strip()}cmd") / "results.json").write_text("{")
    found = find.find([str(tmp_path)])
    rows = list(csv.reader(io.StringIO(formats.to_csv(sheets.make_report(found, tables.build(found.runs), True)))))
    cells = [cell for row in rows for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(formats.FORMULA) and not formats._is_number(cell)]
    column = rows[0].index("mean")
    assert any(float(row[column]) > 0 for row in rows[1:] if row[0] == "measured")


def test_json_holds_every_seed(report):
    value = json.loads(formats.to_json(report))
    (table,) = [table for table in value["measured"] if table["dataset"] == "waterbirds"]
    cim = next(row for row in table["rows"] if row["algorithm"] == "CIM" and row["selected_by"] == "worst_group")
    assert {seed: round(values["worst group"], 6) for seed, values in cim["seeds"].items()} == {
        "0": 50.0,
        "1": 53.0,
        "2": 56.0,
    }
    assert value["published"]["tables"][0]["rows"][0]["cells"][1] == "96.3"
    assert len(value["left_out"]) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_names_stay_names(name, hostile):
    text = formats.FORMATS[name][1](hostile)
    text.encode("utf-8")
    unsafe = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n"}
    assert not unsafe
    if name in ("markdown", "html"):
        assert "<script" not in text.replace("\\<script", "")
    if name in ("text", "markdown", "html"):
        assert "alert" in text
    if name == "json":
        json.loads(text)
    if name == "csv":
        assert {None} != set(map(len, csv.reader(io.StringIO(text)))) == {len(formats.FIELDS)}


def test_settings_that_are_no_json_numbers_become_words(tmp_path):
    (write_wilds(tmp_path / "run") / "results.json").write_text(
        json.dumps(wilds_record("CIM", hyperparameters={"cim_lambda": float("nan")}))
    )
    found = find.find([str(tmp_path)])
    value = json.loads(formats.to_json(sheets.make_report(found, tables.build(found.runs), False)))
    assert value["measured"][0]["rows"][0]["settings"] == {"cim_lambda": "NaN"}
