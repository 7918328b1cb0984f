"""KernelSHAP of `explainer` and of the `shap` package, on games with known Shapley values.

    PYTHON -m benchmarks.kernel_shap

PYTHON's environment has NumPy and shap, which is no dependency of this project. A game has twelve
players, two classes, and interactions of pairs; both methods evaluate 498 coalitions and the empty
and the full one.
"""

import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.conditions import print_results
from image_classifier.explainer import shapley

PLAYERS, SAMPLES, GAMES = 12, 500, 10

Values: TypeAlias = npt.NDArray[np.float64]
Game: TypeAlias = Callable[[npt.NDArray[np.bool_]], Values]


def game(seed: int) -> Game:
    """Return a function that maps coalitions (S, M) to the scores (S, 2) of two classes."""
    random = np.random.default_rng(seed)
    alone = 0.7 * random.normal(size=(PLAYERS, 2))
    together = random.normal(size=(PLAYERS, PLAYERS)) / PLAYERS

    def play(members: npt.NDArray[np.bool_]) -> Values:
        shown = np.asarray(members, dtype=float)
        strength = shown @ alone
        strength[:, 0] += np.einsum("si,ij,sj->s", shown, together, shown)
        scores: Values = 1 / (1 + np.exp(-strength))
        return scores

    return play


def ours(play: Game, seed: int) -> Values:
    """Return values (M, 2) of `explainer`."""
    chosen = shapley.sample(PLAYERS, SAMPLES - 2, np.random.default_rng(seed))
    ends = play(np.array([[False] * PLAYERS, [True] * PLAYERS]))
    values = play(chosen.coalitions)
    return shapley.kernel(chosen.coalitions, chosen.weights, values, empty=ends[0], full=ends[1])


def theirs(play: Game, seed: int) -> Values:
    """Return values (M, 2) of the package."""
    import shap  # noqa: PLC0415 - takes seconds

    # The package draws from the global generator.
    np.random.seed(seed)  # noqa: NPY002
    explainer = shap.KernelExplainer(play, np.zeros((1, PLAYERS)))
    found = explainer.shap_values(
        np.ones((1, PLAYERS)), nsamples=SAMPLES - 2, l1_reg=False, silent=True
    )
    return np.asarray(found).reshape(PLAYERS, 2)


def main() -> None:
    """Compare, print a table and one JSON document."""
    start = time.monotonic()
    theirs(game(0), 0)
    print(f"import and first call of shap: {time.monotonic() - start:.1f} s")
    results = {}
    for name, method in (("explainer", ours), ("shap", theirs)):
        errors, seconds = [], []
        for seed in range(GAMES):
            play = game(seed)
            exact = shapley.exact(play(shapley.all_coalitions(PLAYERS)))
            start = time.monotonic()
            found = method(play, seed)
            seconds.append(time.monotonic() - start)
            errors.append(float(np.abs(found - exact).max()))
        results[name] = {
            "mean_error": float(np.mean(errors)),
            "largest_error": max(errors),
            "best_ms": 1000 * min(seconds),
        }
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in results[name].items()))
    print_results(["numpy", "shap"], results=results)


if __name__ == "__main__":
    main()
