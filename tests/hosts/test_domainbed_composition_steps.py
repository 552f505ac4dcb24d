"""What a step of ``CIM+<base>`` does to psi, to the base, and to what the base's optimizer holds."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
from hosts.composed import ask

from cim_plugin.algorithms.mask_statistics import NAMES

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
        from cim_plugin.algorithms.similarity.ms_ssim import choose_scales, triplet
        from cim_plugin.algorithms.triplets import draw_triplets

        def moved(weight):
            algorithm = make("CIM+GroupDRO", cim_lambda=weight, cim_learning_rate=0.0)
            algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=1.0)
            torch.manual_seed(5)
            algorithm.update(batches())
            psi = algorithm.featurizer.psi
            others = [p for name, p in algorithm.named_parameters() if ".psi." not in name]
            flat = [torch.cat([p.flatten() for p in parameters]) for parameters in (psi.parameters(), others)]
            return *flat, psi.network.features[0].weight.grad

        def _reference_gradient():
            algorithm = make("CIM+GroupDRO")
            psi = algorithm.featurizer.psi
            images = torch.cat([x for x, _ in batches()])
            labels = torch.cat([y for _, y in batches()])
            torch.manual_seed(5)
            positive, negative, _ = draw_triplets(labels)
            morphed = psi.network(images) * images
            s_pos, s_neg = triplet(morphed, images, positive, negative, choose_scales(28, 28), "smooth")
            return torch.cat([g.flatten() for g in torch.autograd.grad((s_neg - s_pos).mean(), list(psi.parameters()))])

        (without, others, grad), (added, same, own) = moved(0.0), moved(2.0)
        expected = without - 2.0 * _reference_gradient()
        differences = [float((added - values).abs().max()) for values in (expected, without)]
        print(json.dumps([*differences, torch.equal(others, same), torch.equal(grad, own)]))
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
        values = {"host": algorithms, "name": "CIM+ERM", "base": "ERM"}
        setattr(algorithms, "CIM+ERM", type("CIM+ERM", (_Composition, algorithms.ERM), values))
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
        after = algorithm.predict(images)
        print(json.dumps([torch.equal(before, after), torch.allclose(before, copied.predict(images))]))
        """,
    )
    assert told == [True, False]


MOVED = """
(psi,) = [module for module in algorithm.modules() if type(module).__name__ == "InputMorphing"]
own = {id(weight) for weight in psi.parameters()}
before = [(id(weight) in own, weight, weight.detach().clone()) for weight in algorithm.parameters()]
for number in range(STEPS):
    algorithm.update(batches(number))
moved = [(mine, (weight - start).abs().max().item()) for mine, weight, start in before]
print(json.dumps([max(distance for mine, distance in moved if mine == of_psi) for of_psi in (True, False)]))
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
    def groups():
        return [[id(weight) for weight in group["params"]] for group in algorithm.optimizer.param_groups]

    before = groups()
    algorithm.update(batches())
    print(json.dumps(before == groups()))
    """
    assert ask(domainbed, code)


def test_the_hosts_networks_are_as_they_were_afterwards(host):
    code = """
    before = algorithms.networks.Featurizer
    from cim_plugin.hosts.domainbed.compositions import _Composition
    values = {"host": algorithms, "name": "CIM+ERM", "base": "ERM"}
    setattr(algorithms, "CIM+ERM", type("CIM+ERM", (_Composition, algorithms.ERM), values))
    make("CIM+ERM").update(batches())
    erm = make("ERM")
    erm.update(batches())
    from torch.optim import optimizer
    of_psi = [name for name, _ in erm.named_parameters() if "psi" in name]
    hooks = len(optimizer._global_optimizer_pre_hooks)
    print(json.dumps([algorithms.networks.Featurizer is before, hooks, of_psi]))
    """
    assert ask(host, code) == [True, 0, []]
