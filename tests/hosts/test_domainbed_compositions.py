"""CIM on top of the host's algorithms: ``--algorithm CIM+<base>``."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import retired
from hosts import forked_host
from hosts.forked_host import SMALL_HOST

from cim_plugin.algorithms.mask_statistics import NAMES

DOCS = Path(__file__).parents[2] / "docs" / "compositions.md"
TRAIN = ("-m", "domainbed.scripts.train")

#: two algorithms with the same seed, on the same batches
MAKE = """
import contextlib, json, sys, torch
from domainbed import algorithms, hparams_registry
torch.set_num_threads(1)

def make(name, seed=0, **changes):
    hparams = {**hparams_registry.default_hparams(name, "Debug28"), **changes}
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(sys.stderr):
        return algorithms.get_algorithm_class(name)((3, 28, 28), 2, 3, hparams)

def batches(seed=0, size=4, brightness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [(brightness * torch.rand(size, 3, 28, 28, generator=generator), torch.arange(size) % 2) for _ in range(3)]
"""


def ask(host, code: str, plugin: str = "1", timeout: int = 100):
    """The JSON that code prints last."""
    done = forked_host.run(host, "-c", f"{MAKE}\n{textwrap.dedent(code)}", CIM_PLUGIN_AUTOLOAD=plugin, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
    documented = [line for line in DOCS.read_text().splitlines() if line.startswith("| `CIM+")]
    assert [row.split("|")[1] for row in found] == [row.split("|")[1] for row in documented]
    for row, expected in zip(found, documented):
        if "not tried" not in row + expected:  # that depends on what is installed
            assert row == expected
    assert not any("| fails |" in row for row in found)


#: one of each kind: clones, inner loops, averages, adversaries, masked and second-order gradients, several optimisers,
#: two featurizers
KINDS = [
    "Fish",
    "MLDG",
    "ERMPlusPlus",
    "DANN",
    "SagNet",
    "ANDMask",
    "IGA",
    "RSC",
    "IRM",
    "Mixup",
    "MTL",
    "ADRMX",
    "CausIRL_MMD",
    "URM",
]


@pytest.mark.host
def test_base_behind_a_constant_mask_does_what_it_does_on_darker_images(domainbed):
    """Every image passes psi exactly once, in every forward of an update, and nothing else of the base has changed."""
    code = """
    import numpy
    from cim_plugin.algorithms import contrastive, morphing

    def half(self, images):
        mask = (0.5 + 0 * self.network(images).mean()).expand(len(images), 1, 1, 1)
        return morphing.Morphed(images, mask, mask * images, mask * images)

    def without_random_numbers(self, *batch, inner=contrastive.TripletContrast.__call__):
        with torch.random.fork_rng(devices=[]):
            return inner(self, *batch)

    morphing.InputMorphing.forward = half
    contrastive.TripletContrast.__call__ = without_random_numbers

    def logged(name, brightness):
        hparams = hparams_registry.default_hparams(name, "Debug28")
        algorithm = make(name, **{key: 1 for key in hparams if key.endswith("iters") or key == "linear_steps"})
        torch.manual_seed(1)
        numpy.random.seed(1)
        steps = [algorithm.update(batches(seed, 2, brightness)) for seed in range(3)]
        return [{key: value for key, value in step.items() if key not in ADDED} for step in steps]

    print(json.dumps({base: [logged("CIM+" + base, 1.0), logged(base, 0.5)] for base in KINDS}))
    """
    for base, (composed, alone) in ask(
        domainbed, f"KINDS, ADDED = {KINDS}, {['L_con', *NAMES]}\n{textwrap.dedent(code)}"
    ).items():
        assert composed == alone, base


@pytest.mark.host
def test_a_step_moves_psi_by_the_bases_gradient_and_lambda_times_that_of_l_con(domainbed):
    told = ask(
        domainbed,
        """
        def moved(weight):
            algorithm = make("CIM+GroupDRO", cim_lambda=weight, cim_learning_rate=0.0)
            algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=1.0)
            torch.manual_seed(5)
            algorithm.update(batches())
            psi = algorithm.featurizer.psi
            others = [p for name, p in algorithm.named_parameters() if ".psi." not in name]
            return torch.cat([p.flatten() for p in psi.parameters()]), torch.cat([p.flatten() for p in others]), psi.network.features[0].weight.grad

        def _reference_gradient():
            algorithm = make("CIM+GroupDRO")
            psi = algorithm.featurizer.psi
            images = torch.cat([x for x, _ in batches()])
            labels = torch.cat([y for _, y in batches()])
            torch.manual_seed(5)
            s_pos, s_neg, (positive, negative, _) = [], [], __import__("cim_plugin.algorithms.triplets", fromlist=["x"]).draw_triplets(labels)
            from cim_plugin.algorithms.similarity.ms_ssim import choose_scales, triplet
            morphed = psi.network(images) * images
            s_pos, s_neg = triplet(morphed, images, positive, negative, choose_scales(28, 28), "smooth")
            return torch.cat([g.flatten() for g in torch.autograd.grad((s_neg - s_pos).mean(), list(psi.parameters()))])

        (without, others, grad), (added, same, own) = moved(0.0), moved(2.0)
        expected = without - 2.0 * _reference_gradient()
        print(json.dumps([float((added - expected).abs().max()), float((added - without).abs().max()), torch.equal(others, same), torch.equal(grad, own)]))
        """,
    )
    difference, effect, others_are_the_same, gradient_is_the_bases = told
    assert difference < 1e-6 < 1e-4 < effect
    assert others_are_the_same and gradient_is_the_bases


@pytest.mark.host
def test_cim_on_erm_is_cim_and_the_mechanism_gives_its_losses(domainbed):
    told = ask(
        domainbed,
        """
        from cim_plugin.hosts.domainbed.compositions import _Composition
        alias = algorithms.get_algorithm_class("CIM+ERM") is algorithms.CIM
        def logged(supervised):
            algorithm = make("CIM+ERM")
            steps = [algorithm.update(batches(seed)) for seed in range(5)]
            return [(step[supervised], step["L_con"]) for step in steps]

        own = logged("L_sup")
        setattr(algorithms, "CIM+ERM", type("CIM+ERM", (_Composition, algorithms.ERM), {"host": algorithms, "name": "CIM+ERM", "base": "ERM"}))
        print(json.dumps([alias, own, logged("loss")]))
        """,
    )
    alias, own, composed = told
    assert alias
    assert np.array(composed) == pytest.approx(np.array(own), abs=1e-5)


@pytest.mark.host
def test_predictions_are_psis_and_a_copy_of_the_algorithm_has_its_own(domainbed):
    told = ask(
        domainbed,
        """
        import copy
        algorithm = make("CIM+CORAL").eval()
        copied = copy.deepcopy(algorithm)
        images = torch.rand(4, 3, 28, 28)
        before = algorithm.predict(images)
        for parameter in copied.featurizer.psi.parameters():
            torch.nn.init.constant_(parameter, 1.0)
        print(json.dumps([torch.equal(before, algorithm.predict(images)), torch.allclose(before, copied.predict(images))]))
        """,
    )
    assert told == [True, False]


# --- names and hyperparameters ---------------------------------------------------------------------------------------


@pytest.mark.host
def test_the_docs_say_by_how_much_a_sweep_over_all_algorithms_grows(domainbed):
    with_us, without = (len(ask(domainbed, "print(json.dumps(algorithms.ALGORITHMS))", plugin)) for plugin in "10")
    assert f"grows from {without} to {with_us} algorithms" in DOCS.read_text()


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
        draws = lambda name: [hparams_registry.default_hparams(name, "Debug28")] + [hparams_registry.random_hparams(name, "Debug28", seed) for seed in (7, 12)]
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


MOVED = """
(psi,) = [module for module in algorithm.modules() if type(module).__name__ == "InputMorphing"]
own = {id(weight) for weight in psi.parameters()}
before = [(id(weight) in own, weight, weight.detach().clone()) for weight in algorithm.parameters()]
for number in range(STEPS):
    algorithm.update(batches(number))
print(json.dumps([max((weight - start).abs().max().item() for mine, weight, start in before if mine == of_psi) for of_psi in (True, False)]))
"""


@pytest.mark.host
def test_psi_moves_at_a_rate_of_its_own_in_the_bases_optimizer(domainbed):
    """The first step of an Adam is its rate, whatever the gradient."""
    for rate, moved in ((0.01, 0.01), (0.0, 1e-5)):
        code = f'algorithm, STEPS = make("CIM+CORAL", lr=1e-5, cim_learning_rate={rate}), 1\n{MOVED}'
        assert ask(domainbed, code) == [pytest.approx(moved, rel=1e-2), pytest.approx(1e-5, rel=1e-2)]


@pytest.mark.host
def test_with_l_con_alone_the_bases_loss_does_not_move_psi(domainbed):
    for gradient, moves in (("contrastive", False), ("both", True)):
        code = f'algorithm, STEPS = make("CIM+CORAL", cim_lambda=0.0, cim_gradient="{gradient}"), 2\n{MOVED}'
        psi, others = ask(domainbed, code)
        assert (psi > 0) == moves and others > 0


@pytest.mark.host
def test_between_steps_the_bases_optimizer_is_its_own(domainbed):
    """Fish saves and loads the state of one, which must have the groups that it was made with."""
    code = """
    algorithm = make("CIM+CORAL", cim_learning_rate=0.01)
    before = [[id(weight) for weight in group["params"]] for group in algorithm.optimizer.param_groups]
    algorithm.update(batches())
    print(json.dumps(before == [[id(weight) for weight in group["params"]] for group in algorithm.optimizer.param_groups]))
    """
    assert ask(domainbed, code)


def test_the_hosts_networks_are_as_they_were_afterwards(host):
    code = """
    before = algorithms.networks.Featurizer
    from cim_plugin.hosts.domainbed.compositions import _Composition
    setattr(algorithms, "CIM+ERM", type("CIM+ERM", (_Composition, algorithms.ERM), {"host": algorithms, "name": "CIM+ERM", "base": "ERM"}))
    make("CIM+ERM").update(batches())
    erm = make("ERM")
    erm.update(batches())
    from torch.optim import optimizer
    print(json.dumps([algorithms.networks.Featurizer is before, len(optimizer._global_optimizer_pre_hooks), [n for n, _ in erm.named_parameters() if "psi" in n]]))
    """
    assert ask(host, code) == [True, 0, []]


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
        print(json.dumps([after is before, issubclass(after, again.CORAL), again.get_algorithm_class("CIM+ERM") is again.CIM]))
        """,
    )
    assert told == [False, True, True]
