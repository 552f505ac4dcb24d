"""``--algorithm CIM+<base>``: which bases it stands on, its names and hyperparameters, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import retired
from hosts import forked_host
from hosts.composed import MAKE, ask
from hosts.forked_host import SMALL_HOST

DOCS = Path(__file__).parents[2] / "docs"
TRAIN = ("-m", "domainbed.scripts.train")


# --- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_table_in_the_docs_is_what_a_run_over_all_algorithms_gives(domainbed):
    found = ask(
        domainbed,
        """
        from cim_plugin.hosts.domainbed import compositions_table
        print(json.dumps([compositions_table.markdown([row]).splitlines()[-1] for row in compositions_table.rows()]))
        """,
        timeout=300,
    )
    documented = [line for line in (DOCS / "compositions.md").read_text().splitlines() if line.startswith("| `CIM+")]
    assert [row.split("|")[1] for row in found] == [row.split("|")[1] for row in documented]
    for row, expected in zip(found, documented):
        if "not tried" not in row + expected:  # that depends on what is installed
            assert row == expected
    assert not any("| fails |" in row for row in found)


# --- names and hyperparameters ---------------------------------------------------------------------------------------


@pytest.mark.host
def test_the_docs_say_by_how_much_a_sweep_over_all_algorithms_grows(domainbed):
    with_us, without = (len(ask(domainbed, "print(json.dumps(algorithms.ALGORITHMS))", plugin)) for plugin in "10")
    assert f"grows from {without} to {with_us} algorithms" in (DOCS / "domainbed.md").read_text()


def test_names_are_found_and_stand_in_no_list(host):
    code = """
    print(json.dumps([algorithms.ALGORITHMS, algorithms.get_algorithm_class("CIM+ERM").__name__]))
    """
    names, found = ask(host, code)
    assert not [name for name in names if "+" in name] and found == "CIM"
    done = forked_host.run(host, "-c", f"{MAKE}\nalgorithms.get_algorithm_class('CIM+ERM')", CIM_PLUGIN_AUTOLOAD="0")
    assert done.stderr.splitlines()[-1] == "NotImplementedError: Algorithm not found: CIM+ERM"


@pytest.mark.host
@pytest.mark.parametrize("base", ["CORAL", "MLDG", "DANN"])
def test_hyperparameters_are_the_bases_and_cims(base, domainbed):
    base_alone, cim, composed = ask(
        domainbed,
        f"""
        def draws(name):
            drawn = [hparams_registry.random_hparams(name, "Debug28", seed) for seed in (7, 12)]
            return [hparams_registry.default_hparams(name, "Debug28"), *drawn]

        print(json.dumps([draws("{base}"), draws("CIM"), draws("CIM+{base}")], default=lambda value: value.item()))
        """,
    )
    for ours, its, values in zip(cim, base_alone, composed, strict=True):
        assert values == {**its, **{key: value for key, value in ours.items() if key.startswith("cim_")}}


@pytest.mark.host
def test_drawn_values_can_be_written_as_json_where_the_bases_own_cannot(domainbed):
    code = """
    for name in ("MLDG", "CIM+MLDG"):
        try:
            json.dumps(hparams_registry.random_hparams(name, "Debug28", 7))
        except TypeError as error:
            print(name, error, file=sys.stderr)
            failed = name
    print(json.dumps(failed))
    """
    assert ask(domainbed, code) == "MLDG"


# --- the host's scripts ----------------------------------------------------------------------------------------------


@pytest.mark.host
def test_train_writes_a_model_that_loads_and_tables_put_it_after_its_base(domainbed, tmp_path):
    for name in ("CIM+CORAL", "CORAL"):
        words = (
            "--algorithm",
            name,
            "--dataset",
            "DebugDigitsOnPhotos",
            "--steps",
            "2",
            "--hparams",
            '{"batch_size": 8}',
            "--test_envs",
            "2",
        )
        done = forked_host.run(domainbed, *TRAIN, *words, "--output_dir", str(tmp_path / name))
        assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "CIM+CORAL" / "results.jsonl").read_text().splitlines()[-1])
    assert (
        np.isfinite([record[key] for key in ("loss", "penalty", "L_con", "mask_std")]).all()
        and record["hparams"]["cim_lambda"] == 1.0
    )
    code = f"""
    saved = torch.load("{tmp_path}/CIM+CORAL/model.pkl", weights_only=True)
    loaded = make("CIM+CORAL", seed=3)
    loaded.load_state_dict(saved["model_dict"])
    print(json.dumps(sorted(name for name in saved["model_dict"] if "psi" in name)[:1]))
    """
    assert ask(domainbed, code) == ["featurizer.psi.network.features.0.bias"]
    done = forked_host.run(domainbed, "-m", "domainbed.scripts.collect_results", "--input_dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(CORAL|CIM\+CORAL) ", done.stdout, re.MULTILINE)[:2] == ["CORAL", "CIM+CORAL"]


# --- what is refused -------------------------------------------------------------------------------------------------

WRONG = {
    "unknown base": (("--algorithm", "CIM+Foo"), ("'Foo' is not an algorithm of DomainBed", "it has ERM")),
    "one of ours, misspelled": (("--algorithm", "CIM+VIP"), ("'VIP' is not an algorithm of DomainBed; it has ERM",)),
    "base in other letters": (("--algorithm", "CIM+ERm"), ("'ERm'", "did you mean 'CIM+ERM'?")),
    "no base": (("--algorithm", "CIM+"), ("'' is not an algorithm",)),
    "CIM on CIM": (("--algorithm", "CIM+CIM"), ("CIM is of this plugin", "'CIM' is what this would be")),
    "CIM on VIB": (("--algorithm", "CIM+VIB"), ("VIB is of this plugin", "'CIM_VIB' is what this would be")),
    "CIM twice": (("--algorithm", "CIM+CIM+ERM"), ("'CIM+ERM' is not an algorithm",)),
    "unknown key": (
        ("--algorithm", "CIM+ERM", "--hparams", '{"cim_lamda": 1}'),
        ("'cim_lamda'", "did you mean 'cim_lambda'?"),
    ),
}


@pytest.mark.parametrize("words, said", WRONG.values(), ids=WRONG.keys())
def test_wrong_composition_is_one_line(words, said, tmp_path):
    done = forked_host.run(SMALL_HOST, *TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(words in line for words in said)


#: bases that a user has added to the host's file
ADDED = """
class Base(algorithms.Algorithm):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        SHAPE

    def update(self, minibatches, unlabeled=None, EXTRA):
        return {}

algorithms.Base = Base
algorithms.ALGORITHMS.append("Base")
try:
    make("CIM+Base")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""

CANNOT = {
    "labels of the test environment": (
        "pass",
        "*, test_labels",
        "needs more than the training environments' minibatches and unlabeled images",
    ),
    "a featurizer of its own": (
        "self.featurizer = torch.nn.Flatten()",
        "",
        "builds no featurizer by networks.Featurizer",
    ),
    "other inputs": (
        "self.featurizer = algorithms.networks.Featurizer((4, 28, 28), hparams)",
        "",
        "inputs of shape (4, 28, 28), not the images of shape (3, 28, 28)",
    ),
}


@pytest.mark.parametrize("body, extra, words", CANNOT.values(), ids=CANNOT.keys())
def test_base_that_psi_cannot_be_put_before_is_refused_with_the_reason(body, extra, words, host):
    kind, message = ask(host, ADDED.replace("SHAPE", body).replace(", EXTRA", f", {extra}" if extra else ""))
    assert kind == "InputError" and message.startswith("CIM+Base: ") and words in message


@pytest.mark.parametrize(
    "values, said",
    [
        ("cim_composites=True", f"CIM: {retired.said('cim_composites')}"),
        ("cim_mask='per_channel'", f"CIM: {retired.said('cim_mask')}"),
    ],
)
def test_what_only_our_own_classifier_can_do_and_what_is_no_more_is_refused(values, said, host):
    kind, message = ask(
        host, ADDED.replace("SHAPE", "pass").replace(", EXTRA", "").replace('"CIM+Base"', f'"CIM+Base", {values}')
    )
    assert kind == "InputError" and message.startswith(said)


def test_command_prints_the_table_and_its_counts():
    done = forked_host.run(SMALL_HOST, "-m", "cim_plugin.domainbed", "compositions")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "| `--algorithm` | outcome | note |",
        "|---|---|---|",
        "| `CIM+ERM` | works | `CIM` itself |",
        "",
        "1 works",
    ]
    asked = forked_host.run(SMALL_HOST, "-m", "cim_plugin.domainbed", "compositions", "--help")
    assert asked.returncode == 0 and "CIM+<base>" in asked.stdout


@pytest.mark.host
def test_after_a_reload_compositions_stand_on_the_new_classes(domainbed):
    told = ask(
        domainbed,
        """
        import importlib
        before = algorithms.get_algorithm_class("CIM+CORAL")
        again = importlib.reload(algorithms)
        after = again.get_algorithm_class("CIM+CORAL")
        is_cim = again.get_algorithm_class("CIM+ERM") is again.CIM
        print(json.dumps([after is before, issubclass(after, again.CORAL), is_cim]))
        """,
    )
    assert told == [False, True, True]
