"""The rules that move one level against plain definitions, one lane at a time, and tracks worked by hand."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.procedures import Adjustment, Asa, Bekesy, MethodOfLimits, Pest, Status, registry
from psysim.procedures.keyed import keyed_uniform
from psysim.testing import procedure_settings, response_sequences

CHECK = settings(max_examples=80, deadline=None, derandomize=True)
KINDS = ("pest", "asa", "bekesy", "method_of_limits", "adjustment")


# -- the definitions, written without looking at the implementation --------------------------------------------------
# Each is a generator: it is sent an answer (True: harder) and gives (next level, is it a reversal, stop, threshold).
# Levels are on the axis of the rule, limits are applied outside and the level that was really taken is sent back.


def pest(s, start, lane):
    x, size, direction, history, led_to_reversal = start, s.step_start, 0, [], False
    answers, step_max = [], s.step_max or 2 * s.step_start
    reversals, result = 0, None
    while True:
        right, x = yield result
        answers.append(right)
        expected, got = s.target_proportion * len(answers), sum(answers)
        reversal = stop = False
        if got - expected >= s.deviation_limit - 1e-9 or expected - got >= s.deviation_limit - 1e-9:
            wanted = s.harder if got > expected else -s.harder
            reversal = direction not in (0, wanted)
            if reversal:  # rule 1
                led_to_reversal = history[-1]
                size, history = size / 2, [False]
            elif direction == 0:
                history = [False]
            else:
                number = len(history) + 1
                # rules 2, 4 and 3
                double = False if number == 2 else not led_to_reversal if number == 3 else True
                size = min(2 * size, step_max) if double else size
                history.append(double)
            direction, answers = wanted, []
            reversals += reversal
            stop = size <= s.step_min
            x += wanted * size
        result = x, reversal, stop, (None if not stop else "level")


def asa(s, start, lane):
    x, n, shifts, before, result = start, 0, 0, None, None
    while True:
        right, x = yield result
        n += 1
        shift = before is not None and right != before
        shifts, before = shifts + shift, right
        divisor = n if s.method == "robbins_monro" or n <= 2 else 2 + shifts
        x += s.harder * s.gain / divisor * ((1 if right else 0) - s.target_proportion)
        following = n + 1 if s.method == "robbins_monro" or n + 1 <= 2 else 2 + shifts
        largest = s.gain * max(s.target_proportion, 1 - s.target_proportion) / following
        stop = (s.n_trials is not None and n >= s.n_trials) or (s.step_min is not None and largest < s.step_min)
        result = x, shift, stop, ("level" if shifts >= 2 else None)


def bekesy(s, start, lane):
    x, before, turns, result = start, None, [], None
    while True:
        right, x = yield result
        turned = before is not None and right != before
        if turned:
            turns.append(x)
        before = right
        x += (s.harder if right else -s.harder) * (s.rate if turns or s.rate_start is None else s.rate_start)
        kept = turns[s.n_skip :]
        pairs = kept[: len(kept) // 2 * 2]
        result = x, turned, len(kept) >= s.n_reversals, (statistics.mean(pairs) if pairs else None)


def limits(s, start, lane):
    x, series, opened, crossings, previous, result = start, 0, False, [], None, None
    hard = 20 * math.log10(s.level_start_hard) if s.step_unit == "db" else s.level_start_hard
    while True:
        right, x = yield result
        first_answer = series % 2 == 0  # series 0, 2, ... begin with "heard"
        ended = opened and right != first_answer
        if ended:
            crossings.append((x + previous) / 2)
            series, opened = series + 1, False
            jump = (
                math.floor(keyed_uniform(s.seed, [lane], trial=series, stream=1)[0, 0] * (s.start_jitter + 1)) * s.step
            )
            x = start + s.harder * jump if series % 2 == 0 else hard - s.harder * jump
            result = x, True, series >= s.n_series, None
        else:
            opened = opened or right == first_answer
            previous = x
            x += (s.harder if right else -s.harder) * s.step
            result = x, False, False, None
        pairs = crossings[: len(crossings) // 2 * 2]
        result = (*result[:3], statistics.mean(pairs) if pairs else None)


def adjustment(s, start, lane):
    x, made, direction, turns, result = start, [], 0, [], None
    while True:
        right, x = yield result
        wanted = s.harder if right else -s.harder
        turned = direction not in (0, wanted)
        if turned:
            turns.append(x)
        direction = wanted
        if len(turns) >= s.n_turns:
            made.append((turns[-1] + turns[-2]) / 2)
            turns, direction = [], 0
            x = start + s.setting_range * (keyed_uniform(s.seed, [lane], trial=len(made), stream=2)[0, 0] - 0.5)
        else:
            x += wanted * s.steps[min(len(turns), len(s.steps) - 1)]
        result = x, turned, len(made) >= s.n_settings, (statistics.mean(made) if made else None)


DEFINITIONS = dict(zip(KINDS, (pest, asa, bekesy, limits, adjustment), strict=True))


def follow(kind, s, smallest_step, start, lane, answers):
    """Return levels, reversals, status and threshold of one track of a definition, limits applied."""
    axis = (lambda v: 20 * math.log10(v) if v > 0 else -math.inf) if s.step_unit == "db" else float
    back = (lambda v: 10 ** (v / 20)) if s.step_unit == "db" else float
    low, high = axis(max(s.level_min, 0.0) if s.step_unit == "db" else s.level_min), axis(s.level_max)
    slack = 1e-9 * smallest_step
    rule, x = DEFINITIONS[kind](s, axis(start), lane), axis(start)
    next(rule)
    levels, flags, streak, side, limited, status, estimate = [back(x)], [], 0, 0, 0, Status.RUNNING, None
    for n, right in enumerate(answers, start=1):
        if status != Status.RUNNING:
            break
        target, reversal, stop, estimate = rule.send((bool(right), x))
        beyond = 1 if target > high + slack else -1 if target < low - slack else 0
        if beyond:
            streak, side, limited = (streak + 1 if side == beyond else 1), beyond, limited + 1
        elif target != x:
            streak, side = 0, 0
        x = min(max(target, low), high)
        levels.append(back(x))
        flags.append(reversal)
        nearest = Status.AT_CEILING if s.level_max - back(x) <= back(x) - back(low) else Status.AT_FLOOR
        if stop and estimate is not None:
            status = nearest if limited > s.limit_moves else Status.CONVERGED
        elif streak >= s.limit_trials:
            status = Status.AT_CEILING if side > 0 else Status.AT_FLOOR
        elif stop or n >= s.max_trials:
            status = Status.MAX_TRIALS
    given = estimate is not None and status in (Status.CONVERGED, Status.MAX_TRIALS)
    threshold = (levels[-1] if estimate == "level" else back(estimate)) if given else math.nan
    return levels, flags, status, threshold


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@CHECK
def test_lanes_follow_the_definition(kind, data):
    procedure = registry.get(kind)(**data.draw(procedure_settings(kind)))
    answers = data.draw(response_sequences(min_trials=100, max_lanes=4))
    state, levels, flags = procedure.init(answers.shape[1]), [], []
    starts = state.level
    for row in answers:
        levels.append(procedure.next_level(state))
        state = procedure.record(state, row)
        flags.append(state.last_reversal)
    summary = procedure.summary(state)
    for lane in range(answers.shape[1]):
        want, turns, status, threshold = follow(
            kind, procedure.settings, procedure.smallest_step, starts[lane], lane, answers[:, lane]
        )
        n = len(turns)
        assert summary.n_trials[lane] == n
        # rounding: steps in dB go to the logarithm and back in every trial
        np.testing.assert_allclose([row[lane] for row in levels[:n]], want[:n], rtol=1e-10, atol=1e-10)
        assert [bool(row[lane]) for row in flags[:n]] == turns
        assert summary.n_reversals[lane] == sum(turns)
        assert Status(summary.status[lane]) == status
        np.testing.assert_allclose(summary.threshold[lane], threshold, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "method_of_limits"])
@given(data=st.data())
@CHECK
def test_reversals_are_changes_of_direction(kind, data):
    """Without limits, a reversal is a trial after which the level goes the other way than it went before.

    (The reversals of the method of limits end a series; the definition above has them.)
    """
    drawn = data.draw(procedure_settings(kind)) | {"level_min": -np.inf, "level_max": np.inf, "step_unit": "level"}
    if kind == "adjustment":
        drawn |= {"n_settings": 1}  # the start of a new setting is no move
    procedure = registry.get(kind)(**drawn)
    answers = data.draw(response_sequences())
    state, direction = procedure.init(answers.shape[1]), np.zeros(answers.shape[1])
    for row in answers:
        before, live = state, ~state.done
        state = procedure.record(state, row)
        move = np.sign(state.level - before.level)
        turned = (move * direction < 0) & ~(state.done & (kind == "adjustment"))
        check = live & ~(state.done & (kind == "adjustment"))
        np.testing.assert_array_equal(state.last_reversal[check], turned[check])
        direction = np.where(move != 0, move, direction)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("right", "status"), [(True, Status.AT_FLOOR), (False, Status.AT_CEILING)])
def test_constant_answers_end_at_the_limit(kind, right, status):
    cls = registry.get(kind)
    # Kesten's steps stay large without a change of the answer, those of Robbins and Monro do not: not in this test
    settings = dict(cls.example_settings) | ({"n_trials": None, "step_min": 0.1} if kind == "asa" else {})
    procedure = cls(**settings)
    state = procedure.init(2)
    for _ in range(procedure.settings.max_trials):
        state = procedure.record(state, np.full(2, right))
    assert state.status.tolist() == [status, status]
    assert np.isnan(procedure.summary(state).threshold).all()


# -- worked by hand ---------------------------------------------------------------------------------------------------


def track(procedure, answers):
    """Return the levels of one track and its state; answers are a string of C and W."""
    state, levels = procedure.init(1), []
    for answer in answers:
        levels.append(float(state.level[0]))
        state = procedure.record(state, np.array([answer == "C"]))
    return [*levels, float(state.level[0])], state


def test_pest_rules_of_the_step():
    """Steps 2, 2, 4 (doubled), 8, then a reversal from a doubled step: 4, 4, 4 (not doubled), 8 and 16."""
    rule = Pest(level_start=0.0, step_start=2.0, step_min=0.5, step_max=16.0, target_proportion=0.5)
    levels, state = track(rule, "CC" * 4 + "WW" * 5)
    visited = levels[::2]
    assert visited == [0.0, -2.0, -4.0, -8.0, -16.0, -12.0, -8.0, -4.0, 4.0, 20.0]
    assert state.n_reversals.tolist() == [1]
    # a reversal after two equal steps: the third step after it is doubled
    levels, _ = track(rule, "CC" * 2 + "WW" * 4)
    assert levels[::2] == [0.0, -2.0, -4.0, -3.0, -2.0, 0.0, 4.0]


def test_pest_ends_with_the_smallest_step():
    """Steps 4, 2, 1 with two reversals; the step of 1 ends the track, and its level is the threshold."""
    rule = Pest(level_start=0.0, step_start=4.0, step_min=1.0, target_proportion=0.5)
    levels, state = track(rule, "CCWWCC")
    assert levels[::2] == [0.0, -4.0, -2.0, -3.0]
    assert state.status.tolist() == [Status.CONVERGED]
    assert rule.summary(state).threshold.tolist() == [-3.0]


@pytest.mark.parametrize(
    ("target", "limit", "right", "wrong"), [(0.75, 1.0, 4, 2), (0.5, 1.0, 2, 2), (0.75, 1.5, 6, 2)]
)
def test_pest_shortest_tests(target, limit, right, wrong):
    """All correct reach the bound when n - p n >= W, all wrong when p n >= W."""
    rule = Pest(level_start=0.0, step_start=4.0, step_min=1.0, target_proportion=target, deviation_limit=limit)
    for answer, n in (("C", right), ("W", wrong)):
        levels, _ = track(rule, answer * n)
        assert levels[:n] == [0.0] * n
        assert levels[n] != 0.0


def test_asa_by_hand():
    """Kesten (1958): divisors 1, 2, then 2 plus the shifts."""
    rule = Asa(target_proportion=0.5, gain=8.0, level_start=0.0, n_trials=6)
    levels, state = track(rule, "CCCWWC")
    assert levels == pytest.approx([0.0, -4.0, -6.0, -8.0, -8 + 4 / 3, -8 + 8 / 3, -8 + 8 / 3 - 1.0])
    assert rule.summary(state).threshold[0] == pytest.approx(-8 + 8 / 3 - 1)
    monro = Asa(target_proportion=0.5, gain=8.0, level_start=0.0, n_trials=4, method="robbins_monro")
    levels, _ = track(monro, "CCWW")
    assert levels == pytest.approx([0.0, -4.0, -6.0, -6 + 4 / 3, -6 + 4 / 3 + 1.0])


def test_bekesy_by_hand():
    rule = Bekesy(level_start=0.0, rate=1.0, rate_start=5.0, n_reversals=2, n_skip=1)
    levels, state = track(rule, "CCWWCCW")
    assert levels == [0.0, -5.0, -10.0, -9.0, -8.0, -9.0, -10.0, -9.0]
    # reversals at -10 (skipped), -8 and -10
    assert state.status.tolist() == [Status.CONVERGED]
    assert rule.summary(state).threshold.tolist() == [-9.0]


def test_a_series_that_starts_on_the_wrong_side_turns_back():
    rule = MethodOfLimits(level_start=0.0, level_start_hard=-10.0, step=1.0, n_series=2)
    levels, _ = track(rule, "WWCW")
    assert levels == [0.0, 1.0, 2.0, 1.0, -10.0]


def test_limits_are_symmetric():
    """Answers that only depend on the side of -5.5: both kinds of series cross there."""
    rule = MethodOfLimits(level_start=0.0, level_start_hard=-10.0, step=1.0, n_series=6, start_jitter=3, seed=4)
    state, starts = rule.init(50), []
    while not state.done.all():
        after = rule.record(state, state.level > -5.5)
        starts += after.level[after.last_reversal & ~after.done & ~state.done].tolist()
        state = after
    assert set(starts) == {0.0, -1.0, -2.0, -3.0, -10.0, -9.0, -8.0, -7.0}
    summary = rule.summary(state)
    assert np.all(summary.threshold == -5.5)
    assert np.all(summary.threshold_sem == 0.0)
    assert np.all(summary.n_averaged == 6)


def test_settings_start_around_the_start():
    rule = Adjustment(level_start=0.0, steps=[1.0], n_settings=50, n_turns=2, setting_range=6.0, max_trials=1000)
    state, starts = rule.init(20), []
    while not state.done.all():
        after = rule.record(state, state.level > 0.25)
        starts += after.level[(after.setting > state.setting) & ~after.done].tolist()
        state = after
    starts = np.array(starts)
    assert len(np.unique(starts)) == len(starts) == 49 * 20
    assert np.all(np.abs(starts) <= 3.0)
    assert starts.std() == pytest.approx(6 / math.sqrt(12), rel=0.1)  # 980 draws: 3 standard errors are 7 %
    summary = rule.summary(state)
    assert np.all(np.abs(summary.threshold - 0.25) < 0.5)  # a setting lies within half a step
    assert np.all(summary.threshold_sem > 0)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Pest, {"step_start": 1.0, "step_min": 2.0}, r"step_min = 2 is not smaller than step_start = 1"),
        (Pest, {"step_start": 4.0, "step_min": 1.0, "step_max": 2.0}, r"step_max = 2 is smaller than step_start = 4"),
        (Asa, {"gain": 4.0}, r"n_trials is missing: a track ends by n_trials, step_min or both"),
        (Asa, {"gain": 4.0, "n_trials": 900}, r"n_trials = 900 is more than max_trials = 500"),
        (Asa, {"gain": 4.0, "n_trials": 9, "methd": "a"}, r"procedure\.methd is not known.*Did you mean 'method'"),
        (Bekesy, {"rate": 1.0, "n_reversals": 5}, r"n_reversals = 5 is odd.*choose 6"),
        (Bekesy, {"rate": 1.0, "max_trials": 8}, r"cannot be reached in max_trials = 8"),
        (
            MethodOfLimits,
            {"step": 1.0, "level_start_hard": 4.0},
            r"level_start_hard = 4 is not on the hard side.*below",
        ),
        (MethodOfLimits, {"step": 1.0, "level_start_hard": -4.0, "n_series": 3}, r"n_series = 3 is odd.*choose 4"),
        (
            MethodOfLimits,
            {"step": 1.0, "level_start_hard": -4.0, "start_jitter": 4},
            r"reach from one start to the other",
        ),
        (MethodOfLimits, {"step": 1.0, "level_start_hard": -90.0}, r"level_start_hard = -90 is outside the limits"),
        (Adjustment, {"steps": []}, r"steps = \[\] must have at least one size"),
        (Adjustment, {"steps": [1.0, 2.0]}, r"steps = \[1\.0, 2\.0\] must be descending"),
        (Adjustment, {"steps": [1.0], "setting_range": 200.0}, r"setting_range = 200 reaches from -100 to 100"),
        (
            Bekesy,
            {"rate": 1.0, "level_start_range": 200.0},
            r"level_start_range = 200 reaches from -100 to 100, beyond",
        ),
    ],
)
def test_settings_that_cannot_work(cls, settings, message):
    with pytest.raises(SpecError, match=message):
        cls(**{"level_start": 0.0, "level_min": -50.0, "level_max": 50.0} | settings)


def test_a_foreign_state_is_refused():
    with pytest.raises(SpecError, match="Pest works on a PestState made by its init, not on a AsaState"):
        Pest(level_start=0.0, step_start=4.0, step_min=1.0).record(
            Asa(level_start=0.0, gain=4.0, n_trials=9).init(1), np.array([True])
        )
