"""The flags against the parser of a real run_expt.py; every refusal, word by word."""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import types
from pathlib import Path

import pytest

from cim_plugin import catalog, cli
from cim_plugin.errors import InputError
from cim_plugin.hyperparameter import parse_bool
from cim_plugin.runs.configuration import FLAG_NAMES as NAMES
from cim_plugin.runs.configuration import OPTIMIZERS, TRANSFORMS
from cim_plugin.runs.defaults import SCHEDULERS
from cim_plugin.wilds_runner.config import COMMON, add_arguments, make_config

REQUIRED = ["--dataset", "waterbirds", "--algorithm", "ERM", "--root_dir", "data"]


def our_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


@pytest.fixture(scope="module")
def wilds_parser(wilds_checkout) -> argparse.ArgumentParser:
    """The parser of run_expt.py: its add_argument statements, run without the rest of the script, which needs much that
    is not here.
    """
    examples = wilds_checkout / "examples"
    wanted = {"ParseKwargs", "parse_bool"}
    helpers = [node for node in _parse(examples / "utils.py").body if getattr(node, "name", None) in wanted]
    (main,) = [node for node in _parse(examples / "run_expt.py").body if getattr(node, "name", None) == "main"]
    calls = [
        node
        for node in main.body
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("parser.add_argument(")
    ]
    free = types.SimpleNamespace(supported_datasets=None, unlabeled_splits=None)
    parser = argparse.ArgumentParser()
    scope = {"argparse": argparse, "parser": parser, "wilds": free, "supported": _Anything()}
    exec(compile(ast.Module([*helpers, *calls], type_ignores=[]), "run_expt", "exec"), scope)
    return parser


class _Anything:
    """Stands for WILDS' lists of supported names: no restriction."""

    def __getattr__(self, name: str) -> None:
        return None


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


COMMANDS = [
    "--split_scheme official --version 1.0 --frac 0.1 --download",
    "--download false --frac 1e-1 --seed 3 --log_dir logs/a",
    "--dataset_kwargs seed=111 use_ood_val=true",
    "--dataset_kwargs",
    "--loader_kwargs num_workers=2 pin_memory=False",
    "--model_kwargs pretrained=true rate=0.5 name=abc low=-3 share=-.25",
    "--optimizer_kwargs momentum=0.9 nesterov=True",
    "--scheduler_kwargs step_size=10 gamma=0.1",
    "--train_loader group --n_groups_per_batch 4 --uniform_over_groups --distinct_groups False",
    "--train_loader standard --uniform_over_groups TRUE",
    "--batch_size 16 --gradient_accumulation_steps 4",
    "--model resnet18 --pretrained_model_path a.pth",
    "--transform image_base --target_resolution 96 96 --resize_scale 1.5 --randaugment_n 3 "
    "--additional_train_transform randaugment",
    "--target_resolution 224",
    "--groupby_fields background y --group_dro_step_size 0.05 --no_group_logging",
    "--val_metric acc_avg --val_metric_decreasing --n_epochs 7",
    "--optimizer Adam --lr 1e-3 --weight_decay 0 --max_grad_norm 1.5",
    "--scheduler ReduceLROnPlateau --scheduler_metric_split train --scheduler_metric_name acc_avg",
    "--evaluate_all_splits false --eval_splits val test --eval_only --eval_epoch 3",
    "--device 0 1 --log_every 10 --save_step 5 --save_best false --save_last False --save_pred true --progress_bar "
    "--resume",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_run_expt_is_parsed_alike(command, wilds_parser):
    words = [*REQUIRED, *command.split()]
    ours, theirs = vars(our_parser().parse_args(words)), vars(wilds_parser.parse_args(words))
    given = {word[2:] for word in command.split() if word.startswith("--")}
    assert {name: ours[name] for name in given} == {name: theirs[name] for name in given}
    assert all(type(a) is type(b) for name in given for a, b in zip(_leaves(ours[name]), _leaves(theirs[name])))


def _leaves(value) -> list:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def test_the_commands_above_name_every_flag_that_both_have(wilds_parser):
    theirs = {action.dest for action in wilds_parser._actions} & {action.dest for action in our_parser()._actions}
    named = {
        word[2:] for command in [*COMMANDS, " ".join(REQUIRED)] for word in command.split() if word.startswith("--")
    }
    assert theirs - {"help"} <= named


def test_unset_flags_of_run_expt_mean_the_same(wilds_parser):
    """Where we differ, it says less than it seems: a progress bar on a terminal, the device by what is there."""
    ours, theirs = vars(our_parser().parse_args(REQUIRED)), vars(wilds_parser.parse_args(REQUIRED))
    differ = {name for name in set(ours) & set(theirs) if ours[name] != theirs[name]}
    assert differ == {"progress_bar", "device"}


@pytest.mark.parametrize(
    "text, value",
    [
        ("a=1", 1),
        ("a=-2", -2),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=False", False),
        ("a=none", None),
        ("a=x=y", "x=y"),
        ("a=[1,2]", [1, 2]),
        ("a=", ""),
    ],
)
def test_key_values_are_literals_or_strings(text, value):
    actual = our_parser().parse_args([*REQUIRED, "--model_kwargs", text]).model_kwargs["a"]
    assert (actual, type(actual)) == (value, type(value))


def test_key_values_of_one_parse_do_not_leak_into_the_next():
    parser = our_parser()
    parser.parse_args([*REQUIRED, "--model_kwargs", "a=1"])
    assert parser.parse_args(REQUIRED).model_kwargs == {}


def test_filling_one_configuration_leaves_the_next_one_alone():
    parser = our_parser()
    first = make_config(parser.parse_args(["--dataset", "fmow", *REQUIRED[2:]]))
    assert first.dataset_kwargs and first.scheduler_kwargs
    second = make_config(parser.parse_args(["--dataset", "celebA", *REQUIRED[2:]]))
    assert second.dataset_kwargs == second.scheduler_kwargs == {}


@pytest.mark.parametrize(
    "words, message",
    [
        ("--lrr 1", "unrecognized arguments: --lrr 1"),
        ("--batch 8", "unrecognized arguments: --batch 8"),
        ("--weight 0.1", "unrecognized arguments: --weight 0.1"),
        ("extra", "unrecognized arguments: extra"),
        ("--model_kwargs pretrained", "--model_kwargs takes key=value, 'pretrained' was given"),
        ("--model_kwargs =3", "--model_kwargs takes key=value, '=3' was given"),
        ("--download yes", "'yes' is not true or false"),
        ("--cache maybe", "'maybe' is not true or false"),
        ("--frac 0", "0 is not a finite number above 0 and up to 1"),
        ("--frac 1.1", "1.1 is not a finite number above 0 and up to 1"),
        ("--frac nan", "nan is not a finite number above 0 and up to 1"),
        ("--lr 0", "0 is not a finite number above 0"),
        ("--lr nan", "nan is not a finite number above 0"),
        ("--lr inf", "inf is not a finite number above 0"),
        ("--lr fast", "fast is not a finite number above 0"),
        ("--weight_decay -1", "-1 is not a finite number of at least 0"),
        ("--weight_decay nan", "nan is not a finite number of at least 0"),
        ("--max_grad_norm 0", "0 is not a finite number above 0"),
        ("--resize_scale -1", "-1 is not a finite number above 0"),
        ("--cache_limit -1", "-1 is not a finite number of at least 0"),
        ("--batch_size 0", "0 is not a whole number of at least 1"),
        ("--batch_size 1.5", "1.5 is not a whole number"),
        ("--n_epochs 0", "0 is not a whole number of at least 1"),
        ("--seed -1", "-1 is not a whole number of at least 0"),
        ("--target_resolution 0", "0 is not a whole number of at least 1"),
        ("--transform bert", "invalid choice: 'bert'"),
        ("--optimizer Lion", "invalid choice: 'Lion'"),
        ("--scheduler FixMatchLR", "invalid choice: 'FixMatchLR'"),
        ("--precision 64", "invalid choice: '64'"),
        ("--vib_dimension 1.5", "1.5 is not a whole number"),
    ],
)
def test_what_the_parser_refuses_exits_with_2_and_says_why(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        our_parser().parse_args([*REQUIRED, *words.split()])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_published_dataset_needs_the_folder_that_holds_it():
    with pytest.raises(InputError, match="required: --root_dir, the folder that holds waterbirds"):
        make_config(our_parser().parse_args(REQUIRED[:4]))


@pytest.mark.parametrize("missing", ["--dataset", "--algorithm"])
def test_what_is_required(missing, capsys):
    place = REQUIRED.index(missing)
    with pytest.raises(SystemExit) as error:
        our_parser().parse_args(REQUIRED[:place] + REQUIRED[place + 2 :])
    assert error.value.code == 2 and missing in capsys.readouterr().err


@pytest.mark.parametrize("text, value", [("true", True), ("TRUE", True), ("False", False)])
def test_parse_bool(text, value):
    assert parse_bool(text) is value


def test_choices_are_those_of_the_libraries():
    torch = pytest.importorskip("torch")
    assert all(issubclass(getattr(torch.optim, name), torch.optim.Optimizer) for name in OPTIMIZERS)
    assert all(hasattr(torch.optim.lr_scheduler, name) for name in SCHEDULERS if "warmup" not in name)
    assert len(TRANSFORMS) == 4


KNOWN_SETS = "waterbirds, celebA, iwildcam, camelyon17, rxrx1, fmow"


def test_the_size_that_a_transform_has_anyway_may_be_named(configure):
    assert configure("--dataset", "rxrx1", "--target_resolution", "256").target_resolution == [256, 256]


@pytest.mark.parametrize(
    "words, message",
    [
        ("--dataset amazon", f"dataset 'amazon' is text; morphing works on images with one label: {KNOWN_SETS}"),
        (
            "--dataset poverty",
            f"dataset 'poverty' is regression on 8-channel satellite images; morphing works on images with one label: "
            f"{KNOWN_SETS}",
        ),
        ("--dataset waterbird", f"dataset 'waterbird' is unknown; choose from {KNOWN_SETS}"),
        (
            "--algorithm IRM",
            "algorithm 'IRM' is unknown; choose from ERM, groupDRO, JTT, CIM, CIM_VIB, VIB, SCL_E2E, CnC, CIM+groupDRO",
        ),
        (
            "--n_groups_per_batch 2",
            "--n_groups_per_batch 2 does nothing without --train_loader group; leave it out or give both",
        ),
        (
            "--train_loader standard --distinct_groups false",
            "--distinct_groups False does nothing without --train_loader group; leave it out or give both",
        ),
        (
            "--dataset celebA --resize_scale 2",
            "--resize_scale 2.0 does nothing without --transform image_resize or image_resize_and_center_crop; leave "
            "it out or give both",
        ),
        ("--cross_fit_tiles 2", "--cross_fit_tiles 2 does nothing without --cross_fit; leave it out or give both"),
        (
            "--randaugment_n 3",
            "--randaugment_n 3 does nothing without --additional_train_transform randaugment; leave it out or give "
            "both",
        ),
        (
            "--scheduler_kwargs step_size=3 gamma=0.5",
            "--scheduler_kwargs step_size=3 gamma=0.5 does nothing without --scheduler linear_schedule_with_warmup or "
            "cosine_schedule_with_warmup or ReduceLROnPlateau "
            "or StepLR or MultiStepLR; leave it out or give both",
        ),
        (
            "--scheduler StepLR --scheduler_metric_name acc_avg",
            "--scheduler_metric_name acc_avg does nothing without --scheduler ReduceLROnPlateau; leave it out or give "
            "both",
        ),
        ("--eval_epoch 0", "--eval_epoch 0 does nothing without --eval_only; leave it out or give both"),
        (
            "--dataset rxrx1 --target_resolution 128",
            "--target_resolution 128 does nothing with --transform rxrx1, which has its own size; leave it out or take "
            "another transform, e.g. image_base",
        ),
        (
            "--dataset celebA --transform image_resize --resize_scale 2 --target_resolution 64 96",
            "--target_resolution 64 96 does nothing with --transform image_resize, which has its own size; leave it "
            "out or take another transform, e.g. image_base",
        ),
        (
            "--model small_cnn --model_kwargs pretrained=true",
            "--model_kwargs pretrained=true does nothing with --model small_cnn, of which there are no pretrained "
            "weights; leave it out or name another model, e.g. resnet18",
        ),
        ("--target_resolution 1 2 3", "--target_resolution takes a side or height and width, 3 numbers were given"),
        ("--cim_lambda 1", "ERM has no hyperparameter 'cim_lambda' (given 1.0); it has none of its own"),
        ("--algorithm CIM --vib_beta 1", "CIM has no hyperparameter 'vib_beta' (given 1.0); known: cim_lambda, "),
        (
            "--algorithm VIB --group_dro_step_size 1",
            "VIB has no hyperparameter 'group_dro_step_size' (given 1.0); known: vib_beta, vib_dimension",
        ),
        ("--algorithm CIM --cim_lambda nan", "cim_lambda=nan is not a finite number of at least 0 (default 1.0)"),
        ("--algorithm CIM --cim_lambda -1", "cim_lambda=-1.0 is not a finite number of at least 0 (default 1.0)"),
        ("--algorithm CIM --cim_pairs mined", "cim_pairs='mined' is not 'random' or 'cross_environment'"),
        ("--algorithm VIB --vib_dimension 0", "vib_dimension=0 is not a whole number of at least 1 (default 256)"),
        ("--algorithm SCL_E2E --scl_temperature 0", "scl_temperature=0.0 is not a finite number above 0 (default 0.1)"),
        (
            "--algorithm groupDRO --group_dro_step_size inf",
            "group_dro_step_size=inf is not a finite number of at least 0 (default 0.01)",
        ),
        (
            "--algorithm groupDRO --uniform_over_groups false",
            "groupDRO needs --uniform_over_groups true: its weights assume that the groups are sampled equally often",
        ),
        ("--scheduler ReduceLROnPlateau", "--scheduler ReduceLROnPlateau needs --scheduler_metric_name, e.g. acc_wg"),
        ("--dataset celebA --transform image_resize", "--transform image_resize needs --resize_scale"),
        (
            "--dataset celebA --transform image_resize_and_center_crop",
            "--transform image_resize_and_center_crop needs --resize_scale",
        ),
        ("--resume --eval_only", "--resume and --eval_only exclude each other"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(words, message, configure):
    with pytest.raises(InputError) as error:
        configure(*words.split())
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words, expected", [("", None), ("--target_resolution 96", [96, 96]), ("--target_resolution 96 64", [96, 64])]
)
def test_one_number_is_a_square(words, expected, configure):
    assert configure(*words.split()).target_resolution == (expected or [224, 224])


@pytest.mark.parametrize("algorithm", list(catalog.TRAINABLE))
def test_the_configuration_is_json_and_holds_the_algorithms_own_hyperparameters_only(algorithm, configure):
    config = configure("--algorithm", algorithm)
    assert json.loads(json.dumps(config.as_record(), allow_nan=False)) == config.as_record()
    assert config.hyperparameters == {name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()}


def test_given_hyperparameters_replace_their_defaults(configure):
    chosen = configure(
        *"--algorithm CIM_VIB --cim_lambda 0 --vib_dimension 32 --cim_targets morphed".split()
    ).hyperparameters
    assert (chosen["cim_lambda"], chosen["vib_dimension"], chosen["cim_targets"]) == (0.0, 32, "morphed")
    assert math.isclose(chosen["vib_beta"], 1e-3)


def test_every_flag_is_explained_in_the_help():
    text = our_parser().format_help()
    assert all(f"--{name}" in text for name in [*NAMES, *catalog.all_hyperparameters()])


def test_every_default_is_said_once():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    ours = parser.format_help().partition("--dataset DATASET")[2]
    assert "(default: None)" not in ours and not re.search(r"\(default: [^)]*\)\s+\(default", ours)


# --- --help -----------------------------------------------------------------------------------------------------------


def helped(capsys, word: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", word])
    assert end.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> list[str]:
    return re.findall(r"^  (?:-\w \w+, )?(--[\w-]+)", text, re.MULTILINE)


def test_help_begins_with_the_flags_that_people_use_and_help_all_has_the_others(capsys):
    common = [f"--{name}" for name in COMMON]
    assert len(common) == 10 and flags_in(helped(capsys, "--help")) == [*common, "--help-all"]
    everything = flags_in(helped(capsys, "--help-all"))
    assert everything[:10] == common
    ours = [f"--{name}" for name in (*NAMES, *catalog.all_hyperparameters())]
    assert sorted(everything) == sorted([*ours, "--help-all"])
