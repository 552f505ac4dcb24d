"""The runs of the table of subgroups, where they are, and the command line of each."""

from __future__ import annotations

import os
from typing import Any, Iterator, NamedTuple, Sequence

from . import kept
from .rows import BALANCED, OWN, ROWS
from .settings import FIRST_SEED, RATES, RULE, SEARCH_SEED, Settings

REFERENCES = "references"  #: the runs that find pseudo-environments, a seed's once for all rows

#: flags of a run of the search
SCORES_ONLY = "--save_best false --save_last false --save_pred false --evaluate_all_splits false".split()


class Run(NamedTuple):
    """One training, or one retraining."""

    row: str  #: of ROWS, or REFERENCES
    seed: int
    rate: float = RATES[0]


class Plan(NamedTuple):
    """What is wanted."""

    settings: Settings
    folder: str  #: of everything that is made
    rows: Sequence[str]
    seeds: int
    rates: Sequence[float] = RATES  #: that the search tries; one: no search

    # --- where -------------------------------------------------------------------------------------------------------

    def place(self, run: Run) -> str:
        """The folder of a run."""
        if run.row == REFERENCES:
            name = self.settings.references or self.settings.name
            return os.path.join(self.folder, name, run.row, f"seed_{run.seed}")
        return os.path.join(self.folder, self.settings.name, run.row, f"lr_{run.rate:g}", f"seed_{run.seed}")

    def results(self, run: Run) -> dict[str, Any] | None:
        """results.json of a run that is finished, with the overlap of its mask where that is known; else None."""
        folder = self.place(run)
        found = kept.of_folder(folder) if os.path.isdir(folder) else None
        return found or kept.packed_in(self.folder).get(kept.name_of(folder, self.folder))

    def is_there(self, run: Run) -> bool:
        """Whether the folder of a finished run is there, with its models, and not its results alone."""
        return kept.of_folder(self.place(run)) is not None

    @property
    def figures(self) -> str:
        """The folder of the data whose grounds are black."""
        return os.path.join(self.folder, "figures_only")

    # --- which -------------------------------------------------------------------------------------------------------

    @property
    def all_seeds(self) -> range:
        return range(FIRST_SEED, FIRST_SEED + self.seeds)

    def references(self) -> list[Run]:
        """The runs that find pseudo-environments, in the order of their turns."""
        return [Run(REFERENCES, seed) for seed in (*([SEARCH_SEED] if self.search() else []), *self.all_seeds)]

    def search(self) -> list[Run]:
        """Trainings of the search, of all rates of a row one after another; none where nothing is searched."""
        trained = [name for name in self.rows if ROWS[name].retrain is None]
        return [Run(name, SEARCH_SEED, rate) for name in trained for rate in self.rates if len(self.rates) > 1]

    def rate(self, name: str) -> float | None:
        """The rate that the search has chosen for a row, of equals the first; None while it has no finished run. A
        retrained row has that of the run that it starts from.
        """
        base = ROWS[name].retrain
        if base is not None:
            return self.rate(base[1])
        if len(self.rates) == 1:
            return self.rates[0]
        scores = {rate: self.score(Run(name, SEARCH_SEED, rate)) for rate in self.rates}
        known = [rate for rate in self.rates if scores[rate] is not None]
        return max(known, key=lambda rate: scores[rate], default=None)

    def score(self, run: Run) -> float | None:
        """The rule's, on validation data; None of a run that is not finished."""
        found = self.results(run)
        return None if found is None or RULE not in found["selection"] else found["selection"][RULE]["score"]

    def of_seed(self, seed: int, retrained: bool) -> list[Run]:
        """The runs of a seed that tables report, of the rows that are trained or of those that are retrained."""
        names = [name for name in self.rows if (ROWS[name].retrain is not None) is retrained]
        rates = {name: self.rate(name) for name in names}
        return [Run(name, seed, rate) for name, rate in rates.items() if rate is not None]

    def stages(self) -> Iterator[list[Run]]:
        """Runs that may go at the same time, those of a stage after all of the one before it. A stage is made when its
        turn comes, by what the search has chosen until then. Seeds are outermost: all rows have equally many.
        """
        references = [] if self.settings.references else self.references()
        yield [run for run in references if run.seed in (SEARCH_SEED, self.all_seeds[0])]
        yield self.search()
        for seed in self.all_seeds:
            following = [run for run in references if run.seed == seed + 1]
            yield [*following, *self.of_seed(seed, retrained=False)]
            yield self.of_seed(seed, retrained=True)

    @property
    def size(self) -> int:
        """How many runs there are in all."""
        references = 0 if self.settings.references else len(self.references())
        return len(self.search()) + self.seeds * len(self.rows) + references

    # --- how ---------------------------------------------------------------------------------------------------------

    def words(self, run: Run) -> list[str]:
        """The command line of a run, after ``cim-plugin``."""
        folder = self.place(run)
        if run.row == REFERENCES:
            found = ["--algorithm", "ERM", "--cross_fit", self.settings.cross_fit, "--n_epochs", "1"]
            return self._training(found, self.settings.root_dir, run, folder)
        row = ROWS[run.row]
        if row.retrain is not None:
            method, base = row.retrain
            return ["retrain", self.place(run._replace(row=base)), "--method", *method.split(), "--log_dir", folder]
        kept = [*self._pseudo(run), *(SCORES_ONLY if run.seed == SEARCH_SEED else [])]
        data = self.figures if row.figures_only else self.settings.root_dir
        return self._training(["--algorithm", *row.flags.split(), *kept], data, run, folder)

    def _training(self, flags: list[str], data: str, run: Run, folder: str) -> list[str]:
        common = ["--dataset", "waterbirds", "--root_dir", data, *self.settings.flags]
        return ["train", *common, *flags, "--lr", f"{run.rate:g}", "--seed", str(run.seed), "--log_dir", folder]

    def _pseudo(self, run: Run) -> list[str]:
        batches = ROWS[run.row].batches
        if batches == OWN:
            return []
        found = os.path.join(self.place(Run(REFERENCES, run.seed)), "cross_fit.csv")
        return ["--pseudo_environments", found, *(["--balance_batches", "false"] if batches != BALANCED else [])]
