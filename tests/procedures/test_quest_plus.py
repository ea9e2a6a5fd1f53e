"""QUEST+ and psi: the same tracks as the package questplus, entropies from their definition, exactness, any shape."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures import Psi, PsiMarginal, QuestPlus, QuestPlusGrid, Status, concatenate
from psysim.procedures.bayes_grid import ExactTable, chunks
from psysim.testing import assert_same_state

GOLDEN = json.loads((Path(__file__).parent / "data" / "questplus.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}
SMALL = {"level_min": -20.0, "level_max": 0.0, "level_step": 4.0, "guess_rate": 0.5}


def contrast_sensitivity(stimulus, parameter):
    """Watson (2017), Eqs. (26)-(27), in dB."""
    threshold = np.maximum(
        parameter["min_thresh"],
        parameter["c0"] + parameter["cf"] * stimulus["spatial_freq"] + parameter["cw"] * stimulus["temporal_freq"],
    )
    miss = np.exp(-(10 ** (parameter["slope"] * (stimulus["contrast"] - threshold) / 20)))
    guess, lapse = parameter["lower_asymptote"], parameter["lapse_rate"]
    return 1 - lapse - (1 - guess - lapse) * miss


def ours(case):
    """Return our rule for a case of the golden file."""
    parameters, stimuli = case["parameters"], case["stimuli"]
    if case["func"] == "csf":
        return QuestPlusGrid(contrast_sensitivity, stimuli, parameters, n_trials=100)
    levels = stimuli["intensity"]
    common = {
        "level_min": levels[0],
        "level_max": levels[-1],
        "level_step": levels[1] - levels[0],
        "guess_rate": parameters["lower_asymptote"],
        "lapse_rate": parameters["lapse_rate"],
        "n_trials": 100,
    }
    if case["func"] == "weibull":
        return QuestPlus(shape="gumbel", slope=[beta * np.log(10) / 20 for beta in parameters["slope"]], **common)
    return Psi(slope=[1 / sd for sd in reversed(parameters["sd"])], **common)


@pytest.mark.parametrize("name", CASES)
def test_tracks_are_those_of_questplus(name):
    """The same stimulus at every trial, and the same posterior (benchmarks/peer_questplus.py made the numbers)."""
    case = CASES[name]
    rule, tracks = ours(case), case["tracks"]
    answers = np.array([track["correct"] for track in tracks]).T
    state, compared = rule.init(len(tracks)), 0
    for k, row in enumerate(answers):
        wanted = np.array([track["stimuli"][k] for track in tracks])
        np.testing.assert_allclose(rule.next_stimulus(state), wanted, rtol=0, atol=1e-9)  # rounding of the grids
        state = rule.record(state, row)
        if str(k + 1) in tracks[0]["posteriors"]:
            theirs = np.array([track["posteriors"][str(k + 1)] for track in tracks])
            if case["func"] == "norm_cdf":  # their SDs ascend, our slopes 1 / SD ascend
                n_sds = len(case["parameters"]["sd"])
                theirs = theirs.reshape(len(tracks), -1, n_sds)[:, :, ::-1].reshape(len(tracks), -1)
            np.testing.assert_allclose(rule.posterior(state), theirs, rtol=0, atol=1e-10)
            compared += 1
    assert compared == 2
    assert GOLDEN["made_with"]["package"] == "questplus"


# -- the definition --------------------------------------------------------------------------------------------------


def entropy(p):
    return -sum(x * np.log(x) for x in np.ravel(p) if x > 0)


def expected_entropy(grid, weights, keep=None):
    """Expected entropy after each stimulus from its definition: a posterior for every stimulus and outcome."""
    out = []
    shape = [len(axis) for axis in grid.axes]
    drop = tuple(k for k in range(len(shape)) if keep is not None and k not in keep)
    for x in range(len(grid.stimuli)):
        total = 0.0
        for r in range(grid.n_outcomes):
            joint = weights * grid.likelihood[:, x, r]
            after = (joint / joint.sum()).reshape(shape).sum(axis=drop)
            total += joint.sum() * entropy(after)
        out.append(total)
    return np.array(out)


def several(rule, lanes=4, trials=6, seed=3):
    """Return a state in the middle of some tracks."""
    rng, state = np.random.default_rng(seed), rule.init(lanes)
    for _ in range(trials):
        state = rule.record(state, rng.random(lanes) < 0.75)
    return state


def test_expected_entropy_is_that_of_the_definition():
    rule = QuestPlus(**SMALL, slope=[0.2, 0.5, 1.0], lapse_rate=[0.01, 0.05])
    posterior = rule.posterior(several(rule))
    given = rule.grid.expected_entropy(posterior)
    for lane, weights in enumerate(posterior):
        wanted = expected_entropy(rule.grid, weights) - entropy(weights)
        np.testing.assert_allclose(given[lane], wanted, rtol=0, atol=1e-11)


def test_expected_entropy_without_nuisance_parameters():
    rule = PsiMarginal(**SMALL, slope=[0.2, 0.5, 1.0], lapse_rate=[0.0, 0.03, 0.1], nuisance=["lapse_rate", "slope"])
    posterior = rule.posterior(several(rule))
    given = rule.grid.expected_entropy(posterior)
    for lane, weights in enumerate(posterior):
        wanted = expected_entropy(rule.grid, weights, keep=[0])
        np.testing.assert_allclose(given[lane], wanted, rtol=0, atol=1e-11)


def test_nuisance_parameters_in_the_middle():
    """Slope as nuisance, lapse rate kept: the axes are put in another order inside."""
    rule = PsiMarginal(**SMALL, slope=[0.2, 0.5, 1.0], lapse_rate=[0.0, 0.03, 0.1], nuisance=["slope"])
    weights = rule.posterior(several(rule))[:1]
    wanted = expected_entropy(rule.grid, weights[0], keep=[0, 3])
    np.testing.assert_allclose(rule.grid.expected_entropy(weights)[0], wanted, rtol=0, atol=1e-11)
    differs = PsiMarginal(**SMALL, slope=[0.2, 0.5, 1.0], lapse_rate=[0.0, 0.03, 0.1], nuisance=["lapse_rate"])
    assert not np.allclose(differs.grid.expected_entropy(weights)[0], wanted, atol=1e-3)


def three_answers(stimulus, parameter):
    """Lower, same, higher: a cumulative logistic with a band."""
    z = parameter["slope"] * (stimulus["level"] - parameter["threshold"])
    low, high = 1 / (1 + np.exp(z + 1)), 1 / (1 + np.exp(-z + 1))
    return np.stack([low, 1 - low - high, high], axis=-1)


def three_outcomes(**settings):
    return QuestPlusGrid(
        three_answers,
        stimuli={"level": np.arange(-6.0, 7.0, 2.0)},
        parameters={"threshold": np.arange(-6.0, 7.0, 1.0), "slope": [0.5, 1.0, 2.0]},
        n_outcomes=3,
        **settings,
    )


def test_more_than_two_outcomes():
    rule = three_outcomes(n_trials=60)
    state = rule.init(2)
    state = rule.record_outcome(state, [0, 2])
    weights = rule.posterior(state)
    np.testing.assert_allclose(
        rule.grid.expected_entropy(weights)[1],
        expected_entropy(rule.grid, weights[1]) - entropy(weights[1]),
        rtol=0,
        atol=1e-11,
    )
    rng, state = np.random.default_rng(5), rule.init(400)
    while not state.done.all():
        chances = three_answers({"level": rule.next_level(state)}, {"slope": 1.0, "threshold": 1.5})
        outcome = (rng.random((400, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
        state = rule.record_outcome(state, outcome)
    summary = rule.summary(state)
    assert np.all(summary.status == Status.CONVERGED)
    error = summary.threshold - 1.5
    assert abs(error.mean()) < 4 * error.std() / 20
    assert np.mean(np.abs(error) < 2 * summary.threshold_sem) > 0.9
    with pytest.raises(SpecError, match="3 outcomes, not right and wrong: use record_outcome"):
        rule.record(state, np.ones(400, bool))
    with pytest.raises(SpecError, match="outcome = 3 is out of range: from 0 to 2"):
        rule.record_outcome(rule.init(1), [3])
    with pytest.raises(SpecError, match="array of integers"):
        rule.record_outcome(rule.init(1), [0.5])


def test_nuisance_with_three_outcomes():
    rule = three_outcomes(nuisance=("slope",))
    weights = rule.posterior(rule.record_outcome(rule.init(1), [2]))
    wanted = expected_entropy(rule.grid, weights[0], keep=[0])
    np.testing.assert_allclose(rule.grid.expected_entropy(weights)[0], wanted, rtol=0, atol=1e-11)


# -- exactness -------------------------------------------------------------------------------------------------------


def test_sums_do_not_depend_on_the_batch():
    """Bit by bit: one row, all rows, another order, rows of zeros beside them, columns of the product reversed."""
    rng = np.random.default_rng(1)
    values, weights = rng.random((700, 37)), rng.exponential(size=(83, 700)) ** 6
    weights /= weights.sum(axis=1, keepdims=True) * (1 + 1e-15)
    table = ExactTable(values)
    together = table.expect(weights)
    np.testing.assert_allclose(together, weights @ values, rtol=0, atol=1e-12)
    for size in (1, 2, 3, 7, 40):
        np.testing.assert_array_equal(
            np.concatenate([table.expect(w) for w in np.split(weights, range(size, 83, size))]), together
        )
    order = rng.permutation(700)
    np.testing.assert_array_equal(ExactTable(values[order]).expect(weights[:, order]), together)
    plain = [(w[np.newaxis] @ values)[0] for w in weights]
    assert np.any(np.array(plain) != weights[:, order] @ values[order]), "a plain product would have passed too"


@pytest.mark.parametrize("kind", [QuestPlus, PsiMarginal])
def test_merging_lanes_changes_no_bit(kind):
    extra = {"nuisance": ["lapse_rate"]} if kind is PsiMarginal else {}
    rule = kind(
        level_min=-40.0, level_max=0.0, level_step=1.0, guess_rate=0.5,
        slope={"min": 0.1, "max": 2.0, "n": 7, "spacing": "log"}, lapse_rate=[0.0, 0.02, 0.05], n_trials=30, **extra,
    )  # fmt: skip
    assert len(list(chunks(101, rule.grid.n_candidates))) > 0
    answers = np.random.default_rng(2).random((8, 101)) < 0.8
    together, apart = rule.init(101), [rule.init(n) for n in (1, 63, 37)]
    for row in answers:
        together = rule.record(together, row)
        parts = np.split(row, [1, 64])
        apart = [rule.record(state, part) for state, part in zip(apart, parts, strict=True)]
    assert_same_state(concatenate(apart), together)
    order = np.random.default_rng(3).permutation(101)
    shuffled = rule.init(101)
    for row in answers:
        shuffled = rule.record(shuffled, row[order])
    assert_same_state(shuffled, together.take(order))


def test_fine_information_decides():
    """A posterior that is almost one candidate: information of 1e-9 still orders the stimuli as in exact arithmetic."""
    rule = QuestPlus(**SMALL, slope=[0.5], lapse_rate=0.01)
    weights = np.full((1, 6), 1e-9)
    weights[0, 2] = 1 - 5e-9
    given = rule.grid.expected_entropy(weights)[0]
    likelihood = rule.grid.likelihood
    exact = [
        sum(w * entropy(likelihood[p, x]) for p, w in enumerate(weights[0])) - entropy(weights[0] @ likelihood[:, x])
        for x in range(6)
    ]
    np.testing.assert_allclose(given, exact, rtol=0, atol=1e-12)


# -- many dimensions -------------------------------------------------------------------------------------------------


def duration_rule(**settings):
    def heard(stimulus, parameter):
        gain = parameter["per_doubling_db"] * np.log2(stimulus["duration_s"] / 0.1)
        return 0.5 + 0.48 / (1 + np.exp(-0.7 * (stimulus["level"] - parameter["threshold"] + gain)))

    return heard, QuestPlusGrid(
        heard,
        stimuli={"level": np.arange(0.0, 41.0, 2.0), "duration_s": [0.05, 0.1, 0.2, 0.4]},
        parameters={"threshold": np.arange(10.0, 31.0, 1.0), "per_doubling_db": np.arange(0.0, 6.1, 0.5)},
        **settings,
    )


def test_two_stimulus_dimensions_find_both_parameters():
    heard, rule = duration_rule(n_trials=60)
    truth = {"threshold": 21.0, "per_doubling_db": 2.6}
    rng, state = np.random.default_rng(7), rule.init(150)
    used = set()
    while not state.done.all():
        stimulus = rule.next_stimulus(state)
        assert np.array_equal(stimulus[:, 0], rule.next_level(state))
        used |= set(stimulus[:, 1].tolist())
        chance = heard({"level": stimulus[:, 0], "duration_s": stimulus[:, 1]}, truth)
        state = rule.record(state, rng.random(150) < chance)
    assert len(used) >= 2
    for name, (mean, sd) in rule.estimates(state).items():
        error = mean - truth[name]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(150) + 0.1 * sd.mean()
        assert 0.75 < error.std() / sd.mean() < 1.25
    assert "per_doubling_db (13 values from 0 to 6)" in rule.describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stimuli": {}}, "stimuli must name at least one dimension"),
        ({"stimuli": {"level": [1.0, 0.0]}}, r"stimuli\['level'\] = .* ascending"),
        ({"parameters": {"threshold": [np.nan]}}, r"parameters\['threshold'\]"),
        ({"n_outcomes": 1}, "n_outcomes = 1 must be at least 2"),
        ({"prior": [1.0, 2.0]}, r"prior must be an array \(3,\)"),
        ({"prior": [0.0, 0.0, 0.0]}, "prior must be"),
        ({"nuisance": ("slope",)}, r"nuisance = \['slope'\] must name some, not all, of the parameters: threshold"),
        ({"nuisance": ("threshold",)}, "must name some, not all"),
        ({"function": lambda s, p: s["level"] + p["threshold"] + 5.0}, "must return probabilities"),
        ({"function": lambda *_: np.zeros(5)}, r"returned an array \(5,\); \(3, 2\) is needed"),
        ({"n_outcomes": 3, "function": lambda *_: np.full((3, 2, 3), 0.5)}, "must sum to 1"),
        ({"n_trial": 3}, r"n_trial is not known.*Did you mean 'n_trials'"),
    ],
)  # fmt: skip
def test_grids_are_checked(changes, message):
    arguments = {
        "function": lambda s, p: 1 / (1 + np.exp(p["threshold"] - s["level"])),
        "stimuli": {"level": [0.0, 1.0]},
        "parameters": {"threshold": [0.0, 0.5, 1.0]},
    }
    QuestPlusGrid(**arguments)
    with pytest.raises(SpecError, match=message):
        QuestPlusGrid(**arguments | changes)


def test_a_prior_is_used():
    flat = np.ones((21, 5))
    peaked = flat.copy()
    peaked[5] = 1e6
    heard, _ = duration_rule()
    arguments = {
        "stimuli": {"level": np.arange(0.0, 41.0, 2.0), "duration_s": [0.1]},
        "parameters": {"threshold": np.arange(0.0, 41.0, 2.0), "per_doubling_db": [0.0, 1.0, 2.0, 3.0, 4.0]},
    }
    rules = [QuestPlusGrid(heard, **arguments, prior=prior) for prior in (flat, peaked)]
    means = [rule.estimates(rule.init(1))["threshold"][0][0] for rule in rules]
    np.testing.assert_allclose(means, [20.0, 10.0], atol=1e-3)


def test_all_combinations_are_candidates_in_order():
    rule = QuestPlus(**SMALL, slope=[0.2, 0.5], lapse_rate=[0.01, 0.05])
    wanted = list(itertools.product(rule.candidates.thresholds, [0.2, 0.5], [0.5], [0.01, 0.05]))
    np.testing.assert_array_equal(rule.grid.parameters, wanted)


def test_no_cuda_is_said():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        rule = QuestPlus(**SMALL, slope=0.5, device="cuda")
        cpu = QuestPlus(**SMALL, slope=0.5)
        answers = np.random.default_rng(0).random((20, 33)) < 0.75
        states = [rule.init(33), cpu.init(33)]
        for row in answers:
            states = [r.record(s, row) for r, s in zip((rule, cpu), states, strict=True)]
        assert_same_state(*states)
    else:
        with pytest.raises(SpecError, match=r"device = 'cuda', but torch finds no CUDA device: choose 'cpu'"):
            QuestPlus(**SMALL, slope=0.5, device="cuda").init(1)
