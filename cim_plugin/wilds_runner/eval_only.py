"""``--eval_only``: a saved model is evaluated again."""

from __future__ import annotations

import os

from ..errors import InputError
from ..files import read_json
from ..models.encoders import read_checkpoint
from ..runs.configuration import Configuration
from ..runs.layout import RESULTS, model_file, prediction_file
from . import checkpoint
from .datasets import difference_of_data
from .evaluation import evaluate, predict
from .logs import RunLog
from .training import Training


def evaluate_only(training: Training, log: RunLog) -> None:
    """Evaluate a saved model on every split but the training one and write its predictions, as run_expt does.

    Raises:
        InputError: there is no such model, or it is of another configuration.
    """
    config, folder = training.config, training.config.log_dir
    word = "best" if config.eval_epoch is None else str(config.eval_epoch)
    epoch = _load(training, os.path.join(folder, model_file(config.dataset, config.seed, word)))
    for key in training.splits:
        predicted, _ = predict(training, key)
        outcome = evaluate(training.data, training.data.splits[key], predicted)
        log.files.row(f"{key}_eval.csv", {"epoch": epoch, **outcome.metrics}, epoch)
        print(f"Eval split {key} at epoch {epoch}:\n{outcome.text}")
        if config.save_pred and training.fabric.global_rank == 0:
            for name in {str(epoch), word}:
                checkpoint.save_predictions(
                    os.path.join(folder, prediction_file(config.dataset, config.seed, key, name)), predicted
                )


def _load(training: Training, path: str) -> int:
    """Give the classifier the weights of a file; the epoch that they are of."""
    config = training.config
    saved = read_checkpoint(path, "--eval_only")
    _check_same_run(config, training.fingerprint, os.path.join(config.log_dir, RESULTS))
    try:
        training.classifier.load_state_dict(saved["algorithm"])
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"--eval_only: {path} is not a model of {config.algorithm} with --model {config.model}"
        ) from error
    return saved["epoch"]


#: of the configuration
NETWORK_AND_SPLITS = (
    "algorithm",
    "model_kwargs",
    "transform",
    "target_resolution",
    "resize_scale",
    "hyperparameters",
    "version",
    "split_scheme",
    "dataset_kwargs",
    "frac",
)


OF_TRAINING = ("cim_gradient", "cim_learning_rate")  #: hyperparameters that say nothing of what the weights compute


def _check_same_run(config: Configuration, data: dict[str, str], path: str) -> None:
    """What no weight's shape tells: with other images or another stride of m the weights fit, and say something else;
    predictions of other splits would replace the run's, and figures by other labels would stand beside them.
    """
    if not os.path.exists(path):
        return
    try:
        saved = read_json(path)
        before, data_before = dict(saved["config"]), dict(saved.get("data") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"--eval_only: {path} is damaged ({error!r}), so it cannot be seen whether this is the network that was "
            f"trained; move it away"
        ) from error
    if differs := checkpoint.difference(before, config, NETWORK_AND_SPLITS, OF_TRAINING):
        raise InputError(f"--eval_only: {path} has {differs}; repeat its flags")
    if differs := difference_of_data(data_before, data):
        raise InputError(
            f"--eval_only: {differs} of {config.dataset} in {config.root_dir} are not those that the run was "
            f"trained with, as {path} has them; restore them, or evaluate a copy of the model in a folder of its own"
        )
