"""Properties of every registered rule, and the up-down rules against a plain definition, one lane at a time."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.procedures import Staircase, Status, concatenate, registry
from psysim.testing import assert_same_state, procedure_settings, response_sequences

KINDS = registry.names()
UP_DOWN_KINDS = [kind for kind in KINDS if issubclass(registry.get(kind), Staircase)]
CHECK = settings(max_examples=25, deadline=None, derandomize=True)


def run(procedure, answers, state=None):
    """Return the state after all answers (trials, lanes)."""
    state = procedure.init(answers.shape[1]) if state is None else state
    for row in answers:
        if state.done.all():
            break
        state = procedure.record(state, row)
    return state


# -- the definition, written without looking at the implementation ---------------------------------------------------


def definition(s, n_up, n_down, ratio, one_by_one, answers):
    """Return levels, reversal flags, status and threshold of one track, straight from the written rules."""
    low = max(s.level_min, 0.0) if s.step_unit == "db" else s.level_min
    slack = 1e-9 * s.steps[-1] * (s.level_start if s.step_unit == "db" else 1.0)
    levels, flags, moves, reversals = [s.level_start], [], [], []
    status, answers_since_move, step = Status.RUNNING, [], 0
    for right in answers:
        if status != Status.RUNNING:
            break
        level = levels[-1]
        answers_since_move.append(bool(right))
        need_down, need_up = (1, 1) if one_by_one and not reversals else (n_down, n_up)
        tail_right = answers_since_move[-need_down:] == [True] * need_down
        tail_wrong = answers_since_move[-need_up:] == [False] * need_up
        direction = s.harder if tail_right else -s.harder if tail_wrong else 0
        is_reversal, beyond = False, False
        if direction:
            stretch = []  # moves since the last change of direction
            for move in reversed(moves):
                if move["direction"] != moves[-1]["direction"]:
                    break
                stretch.append(move)
            turned = bool(moves) and moves[-1]["direction"] != direction
            is_reversal = turned and (s.reversals_at_limit or not any(m["beyond"] for m in stretch))
            old_step = step
            if is_reversal:
                reversals.append({"level": level, "smallest": step == len(s.steps) - 1, "upper": direction < 0})
                step = step_after(s, reversals, step)
            used = step if s.step_change_timing == "before_move" else old_step
            size = s.steps[used] * (1.0 if direction == s.harder else ratio)
            target = (
                level * np.power(10.0, direction * size / 20.0) if s.step_unit == "db" else level + direction * size
            )
            beyond = target > s.level_max + slack or target < low - slack
            levels.append(min(max(target, low), s.level_max))
            moves.append({"direction": direction, "beyond": beyond})
            answers_since_move = []
        else:
            levels.append(level)
        flags.append(is_reversal)
        status = end(s, len(flags), reversals, moves, direction, levels[-1] - low, s.level_max - levels[-1])
    threshold, used = average(s, reversals, status)
    return {"levels": levels, "flags": flags, "status": status, "threshold": threshold, "n_averaged": used}


def step_after(s, reversals, step):
    last, count = len(s.steps) - 1, len(reversals)
    if s.step_change == "every_reversal":
        return min(count, last)
    if s.step_change == "every_second_reversal":
        return min(count // 2, last)
    if s.step_change == "at_reversals":
        return sum(count >= n for n in s.step_change_at)
    wanted = s.step_change == "upper_reversal"
    return min(step + (reversals[-1]["upper"] == wanted), last)


def pool(s, reversals):
    return reversals if s.threshold_from == "last_n_reversals" else [r for r in reversals if r["smallest"]]


def end(s, n_trials, reversals, moves, direction, above_floor, below_ceiling):
    enough = s.n_reversals is not None and sum(r["smallest"] for r in reversals) >= s.n_reversals
    late = s.n_trials is not None and n_trials >= s.n_trials
    met = {
        "reversals": enough,
        "trials": late,
        "reversals_and_trials": enough and late,
        "reversals_or_trials": enough or late,
    }[s.stop]
    if met and len(pool(s, reversals)) >= 2:
        if sum(m["beyond"] for m in moves) > s.limit_moves:
            return Status.AT_CEILING if below_ceiling <= above_floor else Status.AT_FLOOR
        return Status.CONVERGED
    tail = moves[-s.limit_trials :]
    if direction and len(tail) == s.limit_trials and all(m["beyond"] and m["direction"] == direction for m in tail):
        return Status.AT_CEILING if direction > 0 else Status.AT_FLOOR
    return Status.MAX_TRIALS if met or n_trials >= s.max_trials else Status.RUNNING


def average(s, reversals, status):
    chosen = pool(s, reversals)
    if s.threshold_from == "last_n_reversals":
        chosen = chosen[-s.threshold_n_reversals :]
    if s.even_reversals and len(chosen) % 2:
        chosen = chosen[1:]
    if len(chosen) < 2 or status not in (Status.CONVERGED, Status.MAX_TRIALS):
        return math.nan, 0
    mean = statistics.mean if s.threshold_statistic == "mean" else statistics.median
    scale = (lambda x: 20 * math.log10(x)) if s.step_unit == "db" else float
    if s.upper_weight is None:
        value = mean([scale(r["level"]) for r in chosen])
    else:
        upper = mean([scale(r["level"]) for r in chosen if r["upper"]])
        lower = mean([scale(r["level"]) for r in chosen if not r["upper"]])
        value = s.upper_weight * upper + (1 - s.upper_weight) * lower
    return (10 ** (value / 20) if s.step_unit == "db" else value), len(chosen)


@pytest.mark.parametrize("kind", UP_DOWN_KINDS)
@given(data=st.data())
@settings(CHECK, max_examples=200)
def test_lanes_follow_the_definition(kind, data):
    procedure = registry.get(kind)(**data.draw(procedure_settings(kind)))
    answers = data.draw(response_sequences(min_trials=100))
    state, levels, flags = procedure.init(answers.shape[1]), [], []
    for row in answers:
        levels.append(procedure.next_level(state))
        state = procedure.record(state, row)
        flags.append(state.last_reversal)
    summary = procedure.summary(state)
    for lane in range(answers.shape[1]):
        track = definition(
            procedure.settings,
            procedure.n_up,
            procedure.n_down,
            procedure.easier_ratio,
            procedure.one_by_one_first,
            answers[:, lane],
        )
        n = len(track["flags"])
        assert summary.n_trials[lane] == n
        # rounding: NumPy's power and the order of sums
        np.testing.assert_allclose([row[lane] for row in levels[:n]], track["levels"][:n], rtol=1e-12, atol=1e-12)
        assert [bool(row[lane]) for row in flags[:n]] == track["flags"]
        assert summary.n_reversals[lane] == sum(track["flags"])
        assert Status(summary.status[lane]) == track["status"]
        assert summary.n_averaged[lane] == track["n_averaged"]
        np.testing.assert_allclose(summary.threshold[lane], track["threshold"], rtol=1e-11, atol=1e-11)


# -- properties of every rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@CHECK
def test_levels_never_leave_the_limits(kind, data):
    given_settings = data.draw(procedure_settings(kind))
    procedure = registry.get(kind)(**given_settings)
    answers = data.draw(response_sequences())
    state = procedure.init(answers.shape[1])
    for row in answers:
        level = procedure.next_level(state)
        assert np.all((level >= given_settings["level_min"]) & (level <= given_settings["level_max"]))
        state = procedure.record(state, row)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@CHECK
def test_ended_tracks_never_change(kind, data):
    procedure = registry.get(kind)(**data.draw(procedure_settings(kind)))
    answers = data.draw(response_sequences())
    state = procedure.init(answers.shape[1])
    for row in np.concatenate([answers, ~answers]):
        ended, before = state.done, state
        state = procedure.record(before, row)
        if ended.any():
            after = procedure.record(procedure.record(before, row, invalid=~row), ~row)
            assert_same_state(after.take(ended), before.take(ended))
            assert_same_state(state.take(ended), before.take(ended))
        if ended.all():
            break


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@CHECK
def test_lanes_do_not_know_of_each_other(kind, data):
    """Permuting, splitting and merging lanes changes no track."""
    procedure = registry.get(kind)(**data.draw(procedure_settings(kind)))
    answers = data.draw(response_sequences(max_lanes=8))
    n_lanes = answers.shape[1]
    fresh, together = procedure.init(n_lanes), run(procedure, answers)
    order = np.array(data.draw(st.permutations(range(n_lanes))))
    assert_same_state(run(procedure, answers[:, order], fresh.take(order)), together.take(order))
    cut = data.draw(st.integers(0, n_lanes))
    lanes = np.arange(n_lanes)
    apart = [run(procedure, answers[:, part], fresh.take(part)) for part in (lanes[:cut], lanes[cut:])]
    assert_same_state(concatenate(apart), together)
    # some lanes are taken out, run to the end alone, and put back in the middle
    chosen, half = np.sort(order[:cut]), len(answers) // 2
    ahead = run(procedure, answers[:, chosen], fresh.take(chosen))
    state = run(procedure, answers[:half])
    rest = np.setdiff1d(np.arange(n_lanes), chosen)
    behind = run(procedure, answers[half:, rest], state.take(rest))
    assert_same_state(state.put(chosen, ahead).put(rest, behind), together)
    summaries = [procedure.summary(s) for s in (together.take(order), together)]
    np.testing.assert_array_equal(summaries[0].threshold, summaries[1].threshold[order])
    np.testing.assert_array_equal(summaries[0].threshold_sem, summaries[1].threshold_sem[order])


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_lanes_are_the_first_of_more_lanes(kind):
    procedure = registry.get(kind)(**registry.get(kind).example_settings)
    assert_same_state(procedure.init(3), procedure.init(7).take([0, 1, 2]))
    assert_same_state(procedure.init(0), procedure.init(7).take([]))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@CHECK
def test_lanes_that_rest_lose_nothing(kind, data):
    """Lanes that have their trials at different times get the tracks they get side by side."""
    procedure = registry.get(kind)(**data.draw(procedure_settings(kind)))
    answers = data.draw(response_sequences())
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    state, given_answers = procedure.init(answers.shape[1]), np.zeros(answers.shape[1], dtype=int)
    while np.any(given_answers < len(answers)):
        live = (given_answers < len(answers)) & (rng.random(len(state)) < 0.5)
        row = answers[np.minimum(given_answers, len(answers) - 1), np.arange(len(state))]
        state = procedure.record(state, row, live=live)
        given_answers += live
    assert_same_state(state, run(procedure, answers))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("right", [True, False])
@given(data=st.data())
@CHECK
def test_answers_without_end_end(kind, right, data):
    """Always right or always wrong: a track ends in time, and says at which limit if it has one."""
    given_settings = data.draw(procedure_settings(kind))
    procedure = registry.get(kind)(**given_settings)
    max_trials = getattr(procedure.settings, "max_trials", 1000)
    state = run(procedure, np.full((max_trials, 2), right))
    assert state.done.all()
    summary = procedure.summary(state)
    assert np.all(summary.n_trials <= max_trials)
    assert np.all(np.isnan(summary.threshold))
    rises = right == (given_settings.get("harder", -1) == 1)
    limit = given_settings["level_max"] if rises else given_settings["level_min"]
    allowed = {Status.MAX_TRIALS}
    if np.isfinite(limit):
        allowed.add(Status.AT_CEILING if rises else Status.AT_FLOOR)
    assert set(summary.status.tolist()) <= allowed


@pytest.mark.parametrize("kind", UP_DOWN_KINDS)
@pytest.mark.parametrize(("right", "status"), [(True, Status.AT_FLOOR), (False, Status.AT_CEILING)])
def test_example_settings_end_at_their_limits(kind, right, status):
    procedure = registry.get(kind)(**registry.get(kind).example_settings)
    state = run(procedure, np.full((200, 2), right))
    assert state.status.tolist() == [status, status]
    assert np.all(state.n_trials < 200)
