"""Interleaved tracks: each is the track it would be alone; who has the next trial; combined thresholds and states."""

import io

import numpy as np
import pytest

from psysim.errors import SpecError, StoreError
from psysim.procedures import Interleaved, PsychometricFunction, Status, UpDown, WeightedUpDown, next_track
from psysim.testing import assert_same_state, simulated_responder

STEPS = {"steps": [4.0, 2.0, 1.0], "n_reversals": 6, "max_trials": 300}
TWO = {"kind": "up_down", "n_down": 2, "level_start": -4.0, **STEPS}
THREE = {"kind": "up_down", "n_down": 3, "level_start": -30.0, **STEPS}
PEST = {"kind": "pest", "level_start": -4.0, "step_start": 4.0, "step_min": 1.0}


def answers(seed, shape, p=0.75):
    return np.random.default_rng(seed).random(shape) < p


@pytest.mark.parametrize("order", ["random_blocks", "random", "alternate"])
def test_each_track_is_the_track_it_would_be_alone(order):
    rule = Interleaved(rules=[TWO, THREE, PEST], order=order, seed=3, level_min=-60.0, level_max=10.0)
    alone = [part.init(7) for part in rule.rules]
    state = rule.init(7)
    for row in answers(1, (400, 7)):
        np.testing.assert_array_equal(
            rule.next_level(state), [alone[k].level[lane] for lane, k in enumerate(state.current)]
        )
        before, done = state, state.done
        state = rule.record(state, row)
        np.testing.assert_array_equal(state.last[~done], before.current[~done])
        for k, part in enumerate(rule.rules):
            live = ~done & (before.current == k)
            alone[k] = part.record(alone[k], row, live=live)
            np.testing.assert_array_equal(state.last_reversal[live], alone[k].last_reversal[live])
    assert state.done.all()
    for mine, theirs, part, summary in zip(state.tracks, alone, rule.rules, rule.track_summaries(state), strict=True):
        assert_same_state(mine, theirs)
        np.testing.assert_array_equal(summary.threshold, part.summary(theirs).threshold)


@pytest.mark.parametrize(("order", "lag"), [("random_blocks", 1), ("alternate", 1), ("random", 40)])
def test_turns(order, lag):
    """Running tracks stay within one trial of each other, except with order = random; the order is random."""
    rule = Interleaved(rules=[TWO, THREE, TWO], order=order, seed=8)
    state, largest, firsts = rule.init(300), 0, []
    for trial, row in enumerate(answers(2, (45, 300))):
        if trial % 3 == 0:
            firsts.append(state.current)
        state = rule.record(state, row)
        running = np.stack([t.n_trials for t in state.tracks])[:, ~np.any([t.done for t in state.tracks], axis=0)]
        largest = max(largest, int((running.max(axis=0) - running.min(axis=0)).max(initial=0)))
    assert largest <= lag
    if order == "random":
        assert largest > 3
    share = np.bincount(np.concatenate(firsts[:5]), minlength=3) / 1500
    if order == "alternate":
        assert share.tolist() == [1, 0, 0]
    else:
        assert np.all(np.abs(share - 1 / 3) < 4.5 * np.sqrt(2 / 9 / 1500))


def test_thresholds_one_by_one_and_together():
    listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    rule = Interleaved(rules=[TWO, THREE])
    responder, state, trial = simulated_responder(-14.0, 0.1, 1 / 3, seed=5), rule.init(2000), 0
    while not state.done.all():
        state = rule.record(state, responder(rule.next_level(state), np.arange(2000), trial))
        trial += 1
    summary, parts = rule.summary(state), rule.track_summaries(state)
    for part, target in zip(parts, (2**-0.5, 0.5 ** (1 / 3)), strict=True):
        error = np.nanstd(part.threshold) / np.sqrt(2000)
        # 0.4 dB for the bias of short tracks (docs/explanation/tracking_rules.md)
        assert abs(np.nanmean(part.threshold) - listener.inverse(target)) < 0.4 + 4 * error
    np.testing.assert_array_equal(summary.threshold, (parts[0].threshold + parts[1].threshold) / 2)
    np.testing.assert_array_equal(summary.n_trials, parts[0].n_trials + parts[1].n_trials)
    assert rule.target_proportion == pytest.approx((2**-0.5 + 0.5 ** (1 / 3)) / 2)
    both = (parts[0].status == Status.CONVERGED) & (parts[1].status == Status.CONVERGED)
    np.testing.assert_array_equal(summary.status == Status.CONVERGED, both)


def test_one_track_at_a_limit_leaves_no_mean():
    rule = Interleaved(rules=[TWO, TWO | {"level_max": 10.0, "level_start": 10.0}], order="alternate", level_max=0.0)
    state = rule.init(1)
    while not state.done.all():
        state = rule.record(state, state.level > 5.0)  # the first track never hears
    summary = rule.summary(state)
    assert [Status(t.status[0]) for t in state.tracks] == [Status.AT_CEILING, Status.CONVERGED]
    assert summary.status.tolist() == [Status.AT_CEILING]
    assert np.isnan(summary.threshold).all()
    assert np.isfinite(rule.track_summaries(state)[1].threshold).all()


def test_an_unusable_answer_and_the_last_trial_end_the_lane():
    rule = Interleaved(rules=[TWO, THREE], max_trials=5)
    state = rule.record(rule.init(2), np.array([True, True]), invalid=np.array([False, True]))
    assert state.status.tolist() == [Status.RUNNING, Status.INVALID_OUTPUT]
    for _ in range(4):
        state = rule.record(state, np.array([True, True]))
    assert state.status.tolist() == [Status.MAX_TRIALS, Status.INVALID_OUTPUT]
    assert np.isnan(rule.summary(state).threshold).all()
    assert rule.summary(state).n_trials.tolist() == [5, 1]


def test_states_of_several_rules_survive_cutting_and_a_file():
    rule = Interleaved(rules=[TWO, PEST])
    state = rule.init(4)
    for row in answers(4, (9, 4)):
        state = rule.record(state, row)
    assert_same_state(state.put([2, 0], state.take([2, 0])), state)
    buffer = io.BytesIO()
    np.savez(buffer, **state.to_arrays())
    buffer.seek(0)
    with np.load(buffer) as stored:
        loaded = type(state).from_arrays(stored)
    assert_same_state(loaded, state)
    assert [type(t) for t in loaded.tracks] == [type(t) for t in state.tracks]
    arrays = state.to_arrays()
    with pytest.raises(StoreError, match=r"missing \['lane'\]"):
        type(state).from_arrays({name: a for name, a in arrays.items() if name != "lane"})
    with pytest.raises(StoreError, match="number of lanes"):
        type(state).from_arrays(arrays | {"current": arrays["current"][:2]})
    with pytest.raises(SpecError, match="different settings"):
        state.put([0], Interleaved(rules=[TWO, TWO]).init(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": [TWO]}, r"procedure\.rules"),
        ({"rules": [TWO, {"kind": "up_dwn"}]}, r"rules\[1\]: .*no procedure named 'up_dwn'.*Did you mean 'up_down'"),
        ({"rules": [TWO, {"level_start": 0.0}]}, r"rules\[1\]: kind is missing. Allowed: .*up_down"),
        (
            {"rules": [TWO, THREE | {"stpes": [1.0]}]},
            r"rules\[1\]: procedure\.stpes is not known.*Did you mean 'steps'",
        ),
        ({"rules": [TWO, TWO], "level_max": -10.0}, r"rules\[0\]: .*level_start = -4 is outside the limits"),
        ({"rules": [TWO, {"kind": "interleaved", "rules": [TWO, TWO]}]}, r"rules\[1\]: .*cannot be interleaved itself"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(SpecError, match=message):
        Interleaved(**settings)


def test_the_whole_has_a_start_for_the_check_of_sounds():
    assert Interleaved(rules=[TWO, THREE]).settings.level_start == -4.0


# -- a session of several conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["random_blocks", "random", "alternate"])
def test_conditions_in_one_session(order):
    """Two listeners with three conditions each: one live track per listener and trial, until all have ended."""
    rule = WeightedUpDown(level_start=0.0, steps=[2.0, 1.0], n_reversals=4, level_min=-40.0, level_max=20.0)
    group, state, trials = np.array([0, 0, 1, 1, 0, 1]), rule.init(6), []
    rng = np.random.default_rng(3)
    while not state.done.all():
        live = next_track(state, seed=9, order=order, group=group)
        assert not np.any(live & state.done)
        running = [bool(np.any(~state.done[group == g])) for g in (0, 1)]
        assert np.bincount(group[live], minlength=2).tolist() == [int(r) for r in running]
        trials.append(np.flatnonzero(live))
        state = rule.record(state, rng.random(6) < 0.75, live=live)
    if order == "alternate":
        assert [t.tolist() for t in trials[:4]] == [[0, 2], [1, 3], [4, 5], [0, 2]]
    if order == "random_blocks":
        assert sorted(np.concatenate(trials[:3]).tolist()) == [0, 1, 2, 3, 4, 5]
    assert not next_track(state, seed=9, order=order, group=group).any()


def test_the_order_of_conditions_is_keyed():
    rule = UpDown(level_start=0.0, steps=[1.0], stop="trials", n_trials=10)

    def order(seed):
        state, chosen = rule.init(4), []
        for _ in range(24):
            live = next_track(state, seed)
            chosen.append(int(np.flatnonzero(live)[0]))
            state = rule.record(state, np.ones(4, bool), live=live)
        return chosen

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert len({tuple(order(1)[i : i + 4]) for i in range(0, 24, 4)}) > 1
    with pytest.raises(SpecError, match=r"order = 'randm'.*Did you mean 'random'"):
        next_track(rule.init(2), 1, order="randm")
    with pytest.raises(SpecError, match="group must hold 2 whole numbers"):
        next_track(rule.init(2), 1, group=[0])
