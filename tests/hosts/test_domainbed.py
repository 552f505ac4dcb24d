"""Our algorithms, hyperparameters and data set inside DomainBed, and everything else of it as it was."""

from __future__ import annotations

import functools
import json
import textwrap

import numpy as np
import pytest
from hosts import forked_host
from hosts.forked_host import SMALL_HOST

from cim_plugin.algorithms.mask_statistics import NAMES

OURS = ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "CnC"]
SEEDS = [0, 7, 12]  #: the host draws batches of 276 and 451 small images for the last two

#: the hyperparameters that every algorithm must have beside the host's: default, and the draw of a sweep
MORPHING = {
    "cim_lambda": (1.0, lambda r: 10 ** r.uniform(-2, 1)),
    "cim_pairs": ("random", lambda r: "random"),
    "cim_targets": ("input", lambda r: "input"),
    "cim_reading": ("distance", lambda r: "distance"),
    "cim_mask_stride": (4, lambda r: 4),
    "cim_gradient": ("both", lambda r: "both"),
    "cim_learning_rate": (1e-3, lambda r: 1e-3),
    "cim_similarity": ("ms_ssim", lambda r: "ms_ssim"),
}
BOTTLENECK = {
    "vib_beta": (0.001, lambda r: 10 ** r.uniform(-5, 0)),
    "vib_dimension": (256, lambda r: int(r.choice([64, 128, 256]))),
}
CONTRASTIVE = {
    "scl_weight": (1.0, lambda r: 10 ** r.uniform(-2, 1)),
    "scl_temperature": (0.1, lambda r: float(r.choice([0.05, 0.1, 0.2]))),
    "scl_pairs": ("random", lambda r: "random"),
}
HYPERPARAMETERS = {
    "CIM": MORPHING,
    "CIM_VIB": {**MORPHING, **BOTTLENECK},
    "VIB": BOTTLENECK,
    "SCL_E2E": CONTRASTIVE,
    "CnC": {**CONTRASTIVE, "scl_pairs": ("cross_environment", lambda r: "cross_environment")},
}

#: what their steps log beside "loss" and "L_sup"
TERMS = {
    "CIM": ["L_con", *NAMES],
    "CIM_VIB": ["L_con", *NAMES, "KL"],
    "VIB": ["KL"],
    "SCL_E2E": ["L_scl"],
    "CnC": ["L_scl"],
}

#: an algorithm on random images of the host's smallest size; the code of a test goes on from here
MAKE = """
import torch
from domainbed import algorithms, hparams_registry

def make(name, shape=(3, 28, 28), seed=0, **changes):
    torch.manual_seed(seed)
    hparams = {**hparams_registry.default_hparams(name, "Debug28"), **changes}
    return algorithms.get_algorithm_class(name)(shape, 2, 2, hparams)

def batches(seed=0, labels=(0, 1)):
    torch.manual_seed(seed)
    return [(torch.rand(8, 3, 28, 28), torch.tensor(labels).repeat(8)[:8]) for _ in range(2)]
"""


def ask(host, code: str, plugin: str = "1"):
    """The JSON that code prints last."""
    done = forked_host.run(host, "-c", textwrap.dedent(code), CIM_PLUGIN_AUTOLOAD=plugin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def tables(host, plugin: str) -> dict:
    """The host's lists, its launchers, and hyperparameters of every algorithm on every data set: the default and a draw
    per seed.
    """
    return ask(
        host,
        f"""
        import json
        from domainbed import algorithms, command_launchers, datasets, hparams_registry as registry
        hparams = {{
            f"{{algorithm}} {{dataset}}": [registry.default_hparams(algorithm, dataset)]
            + [registry.random_hparams(algorithm, dataset, seed) for seed in {SEEDS}]
            for algorithm in algorithms.ALGORITHMS
            for dataset in datasets.DATASETS
        }}
        print(json.dumps({{
            "algorithms": algorithms.ALGORITHMS,
            "datasets": datasets.DATASETS,
            "launchers": list(command_launchers.REGISTRY),
            "hparams": hparams,
        }}, default=lambda value: ["not JSON", type(value).__name__, value.item()]))
        """,
        plugin,
    )


@pytest.mark.parametrize(
    "table, added",
    [("algorithms", OURS), ("datasets", ["DebugDigitsOnPhotos"]), ("launchers", ["cim_local", "cim_submitit"])],
)
def test_names_stand_after_the_hosts_own(table, added, host):
    assert tables(host, "1")[table] == tables(host, "0")[table] + added


@pytest.mark.host
def test_our_data_set_is_not_in_the_hosts_default_sweep(domainbed):
    code = "import json\nfrom domainbed.scripts import sweep\nprint(json.dumps(sweep.DATASETS))"
    assert ask(domainbed, code, plugin="1") == ask(domainbed, code, plugin="0")


def test_hyperparameters_of_the_hosts_algorithms_are_what_they_were(host):
    on, off = tables(host, "1")["hparams"], tables(host, "0")["hparams"]
    assert {key: on[key] for key in off} == off


@pytest.mark.parametrize("name", OURS)
def test_hyperparameters_are_erms_and_ours(name, host):
    for dataset in tables(host, "0")["datasets"]:
        erm, own = (tables(host, "1")["hparams"][f"{algorithm} {dataset}"] for algorithm in ("ERM", name))
        assert [
            {key: value for key, value in values.items() if key not in HYPERPARAMETERS[name]} for values in own
        ] == erm
        assert all(values.keys() - erm[0].keys() == HYPERPARAMETERS[name].keys() for values in own)


@pytest.mark.parametrize("name", OURS)
def test_values_are_drawn_by_name_and_can_be_written_as_json(name, host):
    code = f"""
    import json
    from domainbed.lib import misc
    print(json.dumps({{key: [misc.seed_hash(seed, key) for seed in {SEEDS}] for key in {list(HYPERPARAMETERS[name])}}}))
    """
    hashed = ask(host, code)
    default, *random = tables(host, "1")["hparams"][f"{name} Debug28"]
    for key, (expected, draw) in HYPERPARAMETERS[name].items():
        assert (default[key], type(default[key])) == (expected, type(expected))
        assert [values[key] for values in random] == [draw(np.random.RandomState(seed)) for seed in hashed[key]]


def test_our_data_set_has_the_hyperparameters_of_small_images(host):
    for algorithm in tables(host, "1")["algorithms"]:
        small, ours = (
            tables(host, "1")["hparams"][f"{algorithm} {dataset}"] for dataset in ("Debug28", "DebugDigitsOnPhotos")
        )
        assert small[-1]["batch_size"] > 256  # else this shows nothing
        assert ours == [{**values, "batch_size": min(values["batch_size"], 256)} for values in small]


def test_plugin_off_the_host_does_not_know_the_algorithms(host):
    code = f"""{MAKE}
import json
said = []
for name in ["ERM", *{OURS}]:
    try:
        said.append(algorithms.get_algorithm_class(name).__name__)
    except NotImplementedError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    assert ask(host, code, plugin="0") == ["ERM", *(f"Algorithm not found: {name}" for name in OURS)]
    assert ask(host, code, plugin="1") == ["ERM", *OURS]


@pytest.mark.parametrize("name, terms", TERMS.items())
def test_update_logs_the_same_python_floats_at_every_step(name, terms, host):
    code = f"""{MAKE}
import json
algorithm = make("{name}")
steps = [algorithm.update(batches(seed, labels)) for seed, labels in enumerate([(0, 1), (1,), (0, 1)])]
steps += [algorithm.update(batches(), unlabeled=[torch.rand(8, 3, 28, 28)])]
print(json.dumps([{{key: [type(value).__name__, value] for key, value in step.items()}} for step in steps]))
"""
    steps = ask(host, code)
    assert all(list(step) == list(steps[0]) and set(step) == {"loss", "L_sup", *terms} for step in steps)
    assert all(kind == "float" and abs(value) < 1e6 for step in steps for kind, value in step.values())
    if "no_triplet" in terms:
        assert [step["no_triplet"][1] for step in steps] == [0, 16, 0, 0]  # the second batch has one class only


@pytest.mark.parametrize(
    "name, bias, said_of_it",
    [
        ("CIM", -20, "m has a mean below 0.0001"),
        ("CIM_VIB", -20, "m has a mean below 0.0001"),
        ("CIM", 20, "m is 1 everywhere"),
    ],
)
def test_a_mask_that_lets_nothing_or_everything_through_is_said_once(name, bias, said_of_it, host):
    code = f"""{MAKE}
import json, warnings
algorithm = make("{name}")
(psi,) = [module for module in algorithm.modules() if type(module).__name__ == "InputMorphing"]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("default")
    steps = []
    for step in range(3):
        torch.nn.init.constant_(psi.network.features[-1].bias, {bias} * (1 + step / 100))
        steps.append(algorithm.update(batches()))
print(json.dumps([[step["mask_mean"] for step in steps], [str(warning.message) for warning in said]]))
"""
    means, said = ask(host, code)
    assert all(abs((bias > 0) - mean) < 1e-8 for mean in means)
    assert [text.split(", so")[0] for text in said] == [f"{name}: {said_of_it}"]


@pytest.mark.parametrize("name", OURS)
def test_the_loss_is_the_weighted_sum_of_its_terms(name, host):
    weights = {
        "CIM": "cim_lambda=0.25",
        "CIM_VIB": "cim_lambda=0.25, vib_beta=0.5",
        "VIB": "vib_beta=0.5",
        "SCL_E2E": "scl_weight=2.0",
        "CnC": "scl_weight=2.0",
    }[name]
    logged = ask(host, f"{MAKE}\nimport json\nprint(json.dumps(make('{name}', {weights}).update(batches())))")
    weight = {"L_sup": 1, "L_con": 0.25, "KL": 0.5, "L_scl": 2}
    assert logged["loss"] == pytest.approx(sum(weight.get(key, 0) * value for key, value in logged.items()), rel=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_optimiser_has_the_hosts_settings_and_every_parameter(name, host):
    code = f"""{MAKE}
import json
algorithm = make("{name}", lr=0.03, weight_decay=0.02)
optimised = [p for group in algorithm.optimizer.param_groups for p in group["params"]]
host = getattr(algorithm.optimizer, "parts", dict(others=algorithm.optimizer))["others"]
settings = [host.defaults[key] for key in ("lr", "weight_decay")]
print(json.dumps([settings, len(optimised) == len(set(optimised) | set(algorithm.parameters())) > 0]))
"""
    assert ask(host, code) == [[0.03, 0.02], True]


@pytest.mark.parametrize("name", ["CIM", "CIM_VIB"])
def test_a_learning_rate_of_the_networks_own_moves_it_by_that_in_the_first_step(name, host):
    code = f"""{MAKE}
import json
algorithm = make("{name}", lr=1e-5, cim_learning_rate=0.01)
before = dict((name, value.detach().clone()) for name, value in algorithm.named_parameters())
algorithm.update(batches())
moved = {{name: (value - before[name]).abs().max().item() for name, value in algorithm.named_parameters()}}
of_psi = [distance for name, distance in moved.items() if "morphing" in name]
others = [distance for name, distance in moved.items() if "morphing" not in name]
print(json.dumps([max(of_psi), max(others)]))
"""
    assert ask(host, code) == [pytest.approx(0.01, rel=1e-2), pytest.approx(1e-5, rel=1e-2)]


@pytest.mark.parametrize("labels, no_triplet", [([0, 1], 0), ([0], 16)])
def test_every_minibatch_is_an_environment_of_its_own(labels, no_triplet, host):
    """Two environments: pairs across them exist when both have both classes, and not when each has one of its own."""
    code = f"""{MAKE}
import json
(first, labels), (second, _) = batches(labels={labels})
print(json.dumps(make("CIM", cim_pairs="cross_environment").update([(first, labels), (second, 1 - labels)])))
"""
    assert ask(host, code)["no_triplet"] == no_triplet


@pytest.mark.parametrize(
    "shape, mean, words",
    [
        (
            (3, 224, 224),
            [0.485, 0.456, 0.406],
            "CIM: MS-SSIM with 5 scales for 224x224; inputs are ImageNet-normalised images",
        ),
        ((1, 224, 224), [0.0], "CIM: MS-SSIM with 5 scales for 224x224; inputs are pixels in [0, 1]"),
        ((2, 28, 28), [0.0, 0.0], "CIM: MS-SSIM with 2 scales for 28x28; inputs are pixels in [0, 1]"),
    ],
)
def test_pixels_are_found_as_the_host_normalised_them(shape, mean, words):
    code = (
        f"{MAKE}\nimport json\nprint(json.dumps(make('CIM', "
        f"{shape}).model.morphing.pixel_space.mean.flatten().tolist()))"
    )
    done = forked_host.run(SMALL_HOST, "-c", code)
    said, numbers = done.stdout.splitlines()
    assert said == words
    assert json.loads(numbers) == pytest.approx(mean)


@pytest.mark.parametrize("name", OURS)
def test_predict_is_deterministic_and_does_not_depend_on_the_batch(name, host):
    code = f"""{MAKE}
import json
algorithm = make("{name}")
algorithm.update(batches())
images = torch.rand(6, 3, 28, 28)
logits = algorithm.predict(images)
same = torch.equal(logits, algorithm.predict(images))
alone = torch.allclose(logits[2:4], algorithm.predict(images[2:4]), atol=1e-5)
print(json.dumps([list(logits.shape), same, alone]))
"""
    assert ask(host, code) == [[6, 2], True, True]


def test_encoder_and_head_start_as_erms_do(host):
    """The comparison with ERM at the same seed is then one of methods, not of initial weights."""
    code = f"""{MAKE}
import json
erm = list(make("ERM").network.parameters())
equal = {{}}
for name in {OURS}:
    model = make(name).model
    own = [*model.encoder.parameters(), *model.head.parameters()]
    equal[name] = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(erm, own, strict=True)]
print(json.dumps(equal))
"""
    equal = ask(host, code)
    assert all(equal["CIM"]) and all(equal["SCL_E2E"])
    assert all(equal["VIB"][:-2]) and all(equal["CIM_VIB"][:-2])  # their head reads the code, not the features


@pytest.mark.parametrize("name", [name for name in OURS if name != "CnC"])  # SCL_E2E with fewer pairs, of noise here
def test_steps_on_one_batch_lower_its_loss(name, host):
    code = (
        f"{MAKE}\nimport json\nalgorithm = make('{name}', "
        f"lr=1e-3)\nprint(json.dumps([algorithm.update(batches())['L_sup'] for _ in range(40)]))"
    )
    losses = ask(host, code)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "shape, changes, words",
    [
        ((3, 224, 224), {"vit": True}, "vit=true needs dinov2=true"),
        ((3, 224, 224), {"resnet18": True}, "CIM: the pretrained weights could not be downloaded (<urlopen error"),
        ((3, 96, 96), {}, "no network for images of 96x96; it has them for 28x28, 32x32 and 224x224"),
    ],
)
@pytest.mark.host
def test_what_domainbed_cannot_build_is_said_in_words(shape, changes, words, domainbed, tmp_path):
    code = f"""{MAKE}
import json
torch.hub.set_dir("{tmp_path}")
try:
    make("CIM", {shape}, **{changes})
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    kind, message = ask(domainbed, code)
    assert kind == "InputError" and words in message


@pytest.mark.host
def test_timm_weights_that_cannot_be_downloaded_are_said_in_words(domainbed, tmp_path):
    code = f"""{MAKE}
import json, torchvision, warnings
torchvision.models.resnet18 = lambda pretrained: torch.nn.Identity()  # torchvision's file, asked for first, is there
with warnings.catch_warnings(record=True) as caught:
    try:
        make("CIM", (3, 224, 224), resnet18=True)
    except Exception as error:
        warned = [str(w.message) for w in caught if w.category is RuntimeWarning]
        print(json.dumps([type(error).__name__, str(error), warned]))
"""
    kind, message, warned = ask(domainbed, code)
    assert kind == "InputError" and "the pretrained weights could not be downloaded" in message and "\n" not in message
    assert len(warned) == 1 and "resnet18=true has no effect" in warned[0]


def test_digits_on_photos_loads_as_the_host_loads_data_sets(host):
    code = """
    import json, torch
    from domainbed import datasets

    def load(seed):
        torch.manual_seed(seed)
        return datasets.DebugDigitsOnPhotos(None, [0], {})

    def equal(a, b):
        pairs = zip(a.datasets, b.datasets, strict=True)
        return [torch.equal(x, y) for one, other in pairs for x, y in zip(one.tensors, other.tensors)]

    first = load(0)
    images = [environment.tensors[0] for environment in first]
    print(json.dumps({
        "attributes": [
            *(first.N_WORKERS, first.ENVIRONMENTS, list(first.INPUT_SHAPE)),
            *(list(first.input_shape), first.num_classes, len(first)),
        ],
        "item": [list(first[0][5][0].shape), first[0][5][1].dtype == torch.int64],
        "sizes": [len(environment) for environment in first],
        "range": [min(float(x.min()) for x in images), max(float(x.max()) for x in images)],
        "same seed": equal(first, load(0)),
        "other seed": equal(first, load(1)),
    }))
    """
    told = ask(host, code)
    assert told["attributes"] == [0, ["+90%", "+80%", "-90%"], [3, 28, 28], [3, 28, 28], 2, 3]
    assert told["item"] == [[3, 28, 28], True]
    assert told["sizes"] == [599, 599, 599]
    assert 0 <= told["range"][0] < 0.2 and 0.8 < told["range"][1] <= 1
    assert all(told["same seed"]) and not any(told["other seed"])
