"""Tracks worked by hand: what a reversal is, when steps change, what limits do, what ends a track."""

import dataclasses

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures import Status, UpDown, WeightedUpDown

#: 1-up 2-down, start -4, steps 4, 2, 1 changed at every second reversal. Worked out on paper:
#: trial   1  2 | 3  4 | 5    | 6  7  | 8    | 9  10 | 11 12 | 13   | 14 | 15 16 | 17   | 18 19
#: level  -4 -4 |-8 -8 |-12   |-8 -8  |-10   |-8 -8  |-9 -9  |-10   |-9  |-8 -8  |-9    |-8 -8
#: answer  C  C | C  C | W    | C  C  | W    | C  C  | C  C  | W    | W  | C  C  | W    | C  C
#: move      -4 |   -4 |+4 R1 |  -2 R2|+2 R3 |  -1 R4|  -1   |+1 R5 |+1  |  -1 R6|+1 R7 |  R8: end
ANSWERS = "CCCCWCCWCCCCWWCCWCC"
LEVELS = [-4, -4, -8, -8, -12, -8, -8, -10, -8, -8, -9, -9, -10, -9, -8, -8, -9, -8, -8]
REVERSAL_TRIALS = [5, 7, 8, 10, 13, 16, 17, 19]


def rule(cls=UpDown, **changes):
    settings = {"level_start": -4.0, "level_max": 0.0, "steps": [4.0, 2.0, 1.0], "n_reversals": 4} | changes
    return cls(**settings)


def play(procedure, answers, lanes=1):
    """Return the levels presented, the trials (from 1) that were reversals, and the last state."""
    state, levels, reversals = procedure.init(lanes), [], []
    for number, answer in enumerate(answers, start=1):
        levels.append(float(procedure.next_level(state)[0]))
        state = procedure.record(state, np.full(lanes, answer == "C"))
        if state.last_reversal[0]:
            reversals.append(number)
    return levels, reversals, state


def test_track_worked_by_hand():
    procedure = rule()
    levels, reversals, state = play(procedure, ANSWERS)
    assert levels == LEVELS
    assert reversals == REVERSAL_TRIALS
    assert state.status[0] == Status.CONVERGED
    summary = procedure.summary(state)
    assert summary.threshold[0] == np.mean([-10, -8, -9, -8])  # R5 to R8: the reversals at the smallest step
    # pairs of reversals: midpoints -9 and -8.5, standard deviation 0.5 / sqrt(2), over sqrt(2 pairs)
    assert summary.threshold_sem[0] == pytest.approx(0.25, rel=1e-12)
    assert (summary.n_trials[0], summary.n_reversals[0], summary.n_averaged[0]) == (19, 8, 4)
    assert summary.n_limit_moves[0] == 0


def test_the_first_move_is_no_reversal_in_either_direction():
    assert play(rule(), "CC")[1] == []
    assert play(rule(), "W")[1] == []
    assert play(rule(), "WW")[1] == []


def test_a_track_has_no_threshold_until_it_ends():
    procedure = rule()
    summary = procedure.summary(play(procedure, ANSWERS[:-1])[2])
    assert summary.status[0] == Status.RUNNING
    assert np.isnan(summary.threshold[0])
    assert np.isnan(summary.threshold_sem[0])


def test_step_change_after_the_move():
    """The same answers; the move away from the reversal that changes the step still has the old size."""
    levels, reversals, _ = play(rule(step_change_timing="after_move"), "CCCCWCCWCCWC")
    assert levels == [-4, -4, -8, -8, -12, -8, -8, -12, -10, -10, -12, -11]
    assert reversals == [5, 7, 8, 10, 11]


@pytest.mark.parametrize(
    ("change", "at", "moves"),
    [  # moves away from reversals 1 (lower), 2 (upper), 3 (lower), 4 (upper), 5 (lower)
        ("every_reversal", None, [2, -1, 1, -1, 1]),
        ("every_second_reversal", None, [4, -2, 2, -1, 1]),
        ("lower_reversal", None, [2, -2, 1, -1, 1]),
        ("upper_reversal", None, [4, -2, 2, -1, 1]),
        ("at_reversals", [1, 4], [2, -2, 2, -1, 1]),
        ("at_reversals", [2, 3], [4, -2, 1, -1, 1]),
    ],
)
def test_step_change(change, at, moves):
    procedure = rule(step_change=change, step_change_at=at, level_start=-20.0)
    # two answers C bring every fall, one W every rise: a reversal at each move after the first
    levels, reversals, state = play(procedure, "CC" + "WCC" * 2 + "W")
    assert reversals == [3, 5, 6, 8, 9]
    presented = np.array([*levels, state.level[0]])
    assert np.diff(presented)[np.array(reversals) - 1].tolist() == moves


def test_lower_and_upper_are_meant_numerically():
    """With harder = 1 the track is mirrored, and the first reversal is an upper one."""
    procedure = rule(harder=1, level_start=20.0, level_max=100.0, step_change="upper_reversal")
    levels, reversals, state = play(procedure, "CCWCCW")
    assert levels == [20, 20, 24, 22, 22, 24]
    assert state.level[0] == 23
    assert reversals == [3, 5, 6]


def test_upward_is_easier_whatever_the_direction_of_the_level():
    down = play(rule(level_start=0.0, level_max=100.0), ANSWERS)
    up = play(rule(level_start=0.0, level_max=100.0, harder=1), ANSWERS)
    assert [-level for level in up[0]] == down[0]
    assert up[1] == down[1]


def test_consecutive_answers_are_counted_from_the_last_move():
    levels, _, _ = play(rule(n_up=2, n_down=3, steps=[1.0], level_start=-4.0), "CCWCCCWWC")
    # CC W: neither 3 C nor 2 W in a row. CCC: down. WW: up.
    assert levels == [-4, -4, -4, -4, -4, -4, -5, -5, -4]


def test_one_up_one_down_until_the_first_reversal():
    levels, reversals, state = play(rule(steps=[2.0, 1.0], initial_rule="one_up_one_down"), "CCWCCC")
    assert levels == [-4, -6, -8, -6, -6, -7]  # then two C for a step down, and the smaller step from reversal 2
    assert reversals == [3, 5]
    assert state.level[0] == -7
    same = play(rule(steps=[2.0, 1.0]), "CCWCCC")
    assert same[0] == [-4, -4, -6, -4, -4, -5]


def test_initial_rule_ends_with_the_first_reversal_of_a_track_that_starts_wrong():
    levels, reversals, _ = play(rule(steps=[1.0], initial_rule="one_up_one_down"), "WWCCC")
    assert levels == [-4, -3, -2, -3, -3]
    assert reversals == [3]


def test_weighted_steps():
    """0.75 correct: a wrong answer moves three times as far as a correct one."""
    procedure = rule(WeightedUpDown, target_proportion=0.75, steps=[1.0], level_start=-8.0)
    levels, reversals, _ = play(procedure, "CCWCCCWC")
    assert levels == [-8, -9, -10, -7, -8, -9, -10, -7]
    assert reversals == [3, 4, 7, 8]


def test_unequal_steps_of_the_transformed_rule():
    levels, _, _ = play(rule(steps=[1.0], step_up_ratio=2.5), "CCW")
    assert levels == [-4, -4, -5]
    assert play(rule(steps=[1.0], step_up_ratio=2.5), "CCWC")[0][-1] == -2.5


def test_steps_in_db_multiply_the_level():
    procedure = UpDown(
        level_start=100.0, level_min=1.0, steps=[20.0, 6.0], step_unit="db", step_change="every_reversal", n_reversals=2
    )
    levels, _, state = play(procedure, "CCWWCCW")
    factor = 10 ** (6 / 20)
    expected = [100, 100, 10, 10 * factor, 10 * factor**2, 10 * factor**2, 10 * factor]
    np.testing.assert_allclose(levels, expected, rtol=1e-12)
    summary = procedure.summary(state)
    assert state.status[0] == Status.CONVERGED
    # geometric mean of the two reversals at the smallest step
    np.testing.assert_allclose(summary.threshold, 10 * factor**1.5, rtol=1e-12)
    assert np.isnan(summary.threshold_sem[0])  # one pair has no spread


def test_standard_error_of_a_geometric_mean_is_in_the_unit_of_the_level():
    in_db = UpDown(level_start=1000.0, steps=[2.0], step_unit="db", n_reversals=6)
    plain = UpDown(level_start=60.0, steps=[2.0], n_reversals=6)
    answers = "CCWCCCCWWCCW" + "CCW"
    ratio, added = in_db.summary(play(in_db, answers)[2]), plain.summary(play(plain, answers)[2])
    assert ratio.status[0] == added.status[0] == Status.CONVERGED
    assert added.threshold_sem[0] > 0
    np.testing.assert_allclose(20 * np.log10(ratio.threshold), added.threshold, rtol=1e-12)
    np.testing.assert_allclose(ratio.threshold_sem, added.threshold_sem * ratio.threshold * np.log(10) / 20, rtol=1e-9)


# -- thresholds ------------------------------------------------------------------------------------------------------


def test_median_and_weighted_reversals():
    def threshold(**changes):
        procedure = rule(**changes)
        return procedure.summary(play(procedure, ANSWERS)[2]).threshold[0]

    assert threshold(threshold_statistic="median") == -8.5  # of -10, -8, -9, -8
    assert threshold(upper_weight=0.25) == 0.25 * -8.0 + 0.75 * -9.5  # upper: -8, -8; lower: -10, -9
    assert threshold(upper_weight=0.5) == threshold()


def test_last_n_reversals_at_any_step():
    procedure = rule(threshold_from="last_n_reversals", threshold_n_reversals=2)
    assert procedure.summary(play(procedure, ANSWERS)[2]).threshold[0] == np.mean([-9, -8])


def test_an_odd_number_of_reversals_leaves_the_earliest_out():
    """Stopped by trials: R5, R6, R7 are at the smallest step."""
    even = rule(stop="trials", n_trials=18, n_reversals=None)
    odd = rule(stop="trials", n_trials=18, n_reversals=None, even_reversals=False)
    assert even.summary(play(even, ANSWERS)[2]).threshold[0] == np.mean([-8, -9])
    assert odd.summary(play(odd, ANSWERS)[2]).threshold[0] == np.mean([-10, -8, -9])


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "trials"),
    [
        ({"stop": "reversals"}, 19),
        ({"stop": "trials", "n_trials": 17, "n_reversals": None}, 17),
        ({"stop": "reversals_and_trials", "n_trials": 17}, 19),
        ({"stop": "reversals_and_trials", "n_trials": 24}, 24),
        ({"stop": "reversals_or_trials", "n_trials": 17}, 17),
        ({"stop": "reversals_or_trials", "n_trials": 24}, 19),
    ],
)
def test_stop_rules(settings, trials):
    _, _, state = play(rule(**settings), ANSWERS + "CCWCCWCC")
    assert state.status[0] == Status.CONVERGED
    assert state.n_trials[0] == trials


def test_trials_used_up_before_two_reversals_is_not_converged():
    procedure = rule(stop="trials", n_trials=6, n_reversals=None)
    summary = procedure.summary(play(procedure, ANSWERS)[2])
    assert summary.status[0] == Status.MAX_TRIALS
    assert summary.n_trials[0] == 6
    assert np.isnan(summary.threshold[0])


def test_max_trials_keeps_what_was_measured():
    procedure = rule(max_trials=17)
    summary = procedure.summary(play(procedure, ANSWERS)[2])
    assert summary.status[0] == Status.MAX_TRIALS
    assert summary.n_trials[0] == 17
    assert summary.threshold[0] == np.mean([-8, -9])


@pytest.mark.parametrize(("harder", "status"), [(-1, Status.AT_CEILING), (1, Status.AT_FLOOR)])
def test_held_at_the_easy_limit(harder, status):
    start = {-1: 7.0, 1: 3.0}[harder]
    procedure = UpDown(
        level_start=start, level_min=0.0, level_max=10.0, steps=[2.0], n_down=2, harder=harder, limit_trials=3
    )
    levels, _, state = play(procedure, "WWCWWC")
    limit = {-1: 10.0, 1: 0.0}[harder]
    # 9 (or 1), then shortened to the limit (1), an answer without a move, refused (2), refused (3): end
    assert levels == [start, start - 2 * harder, limit, limit, limit, limit]
    assert state.status[0] == status
    assert state.n_trials[0] == 5
    summary = procedure.summary(state)
    assert np.isnan(summary.threshold[0])
    assert summary.n_limit_moves[0] == 3


@pytest.mark.parametrize(("harder", "status"), [(-1, Status.AT_FLOOR), (1, Status.AT_CEILING)])
def test_held_at_the_hard_limit(harder, status):
    procedure = WeightedUpDown(
        level_start=5.0, level_min=0.0, level_max=10.0, steps=[5.0], harder=harder, limit_trials=2
    )
    _, _, state = play(procedure, "CCC")
    assert state.status[0] == status


def test_a_move_that_lands_on_the_limit_is_not_shortened():
    procedure = rule(steps=[2.0], level_start=-4.0)
    _, _, state = play(procedure, "WW")
    assert state.level[0] == 0.0
    assert state.n_limit_moves[0] == 0


def test_leaving_the_limit_restarts_the_count():
    procedure = rule(steps=[2.0], level_start=0.0, limit_trials=3)
    _, _, state = play(procedure, "WWCCWWW")
    assert state.status[0] == Status.RUNNING  # two refused, away, back, two refused
    assert play(procedure, "WWCCWWWW")[2].status[0] == Status.AT_CEILING


def test_bouncing_between_the_limits_is_not_being_held_at_one():
    """Steps larger than the range: every move is shortened, but never two in a row at the same limit."""
    procedure = rule(
        n_down=1,
        steps=[8.0, 1.0],
        step_change="at_reversals",
        step_change_at=[50],
        level_start=-1.0,
        level_min=-3.0,
        limit_trials=2,
    )
    levels, _, state = play(procedure, "CWCWCW")
    assert levels == [-1, -3, 0, -3, 0, -3]
    assert state.n_limit_moves[0] == 6
    assert state.status[0] == Status.RUNNING
    assert play(procedure, "CWCWCWW")[2].status[0] == Status.AT_CEILING


def test_rounding_at_a_limit_is_not_a_limit_move():
    """0.1 + 0.1 + ... misses 0 by rounding: the level is put on the limit, and nothing is counted."""
    procedure = rule(steps=[0.1], level_start=-1.0, level_max=0.0)
    _, _, state = play(procedure, "W" * 10)
    assert abs(state.level[0]) < 1e-12
    assert state.level[0] <= 0.0
    assert state.n_limit_moves[0] == 0


@pytest.mark.parametrize(("counts", "reversals"), [(True, [3, 4, 6]), (False, [4, 6])])
def test_reversals_at_a_limit(counts, reversals):
    """W is refused at the limit; the turn at trial 3 comes after it. The turns at 4 and 6 are natural."""
    _, found, _ = play(rule(steps=[2.0], level_start=0.0, reversals_at_limit=counts), "WCCWCC")
    assert found == reversals


# -- lanes that do not take part -------------------------------------------------------------------------------------


def test_invalid_output_ends_the_track_where_it_is():
    procedure = rule()
    before = play(procedure, "CC", lanes=3)[2]
    after = procedure.record(before, np.array([True, True, False]), invalid=np.array([False, True, True]))
    assert after.status.tolist() == [Status.RUNNING, Status.INVALID_OUTPUT, Status.INVALID_OUTPUT]
    assert after.n_trials.tolist() == [3, 3, 3]
    assert after.level.tolist() == [-8, -8, -8]
    assert np.isnan(procedure.summary(after).threshold).all()


def test_a_level_that_is_no_number_ends_the_track():
    procedure = rule()
    state = dataclasses.replace(procedure.init(2), level=np.array([np.nan, -4.0]))
    after = procedure.record(state, np.array([True, True]))
    assert after.status.tolist() == [Status.INVALID_OUTPUT, Status.RUNNING]


def test_lanes_that_are_not_live_do_not_change():
    procedure = rule()
    before = play(procedure, "CCC", lanes=2)[2]
    after = procedure.record(before, np.array([True, True]), live=np.array([True, False]))
    assert after.level.tolist() == [-12, -8]
    assert after.n_trials.tolist() == [4, 3]
    assert after.streak.tolist() == [0, 1]


def test_record_leaves_its_input_alone():
    procedure = rule()
    before = play(procedure, ANSWERS[:-2], lanes=2)[2]
    copies = {name: array.copy() for name, array in before.to_arrays().items()}
    after = procedure.record(procedure.record(before, np.array([True, False])), np.array([True, False]))
    for name, array in before.to_arrays().items():
        np.testing.assert_array_equal(array, copies[name], err_msg=name)
        assert not np.shares_memory(array, getattr(after, name)), name


def test_zero_lanes():
    procedure = rule()
    state = procedure.record(procedure.init(0), np.zeros(0, dtype=bool))
    assert len(procedure.summary(state).threshold) == 0


# -- doors -----------------------------------------------------------------------------------------------------------


def test_starting_levels_per_lane():
    procedure = rule()
    assert procedure.init(2, level_start=[-10.0, -2.0]).level.tolist() == [-10, -2]
    with pytest.raises(SpecError, match=r"level_start = 3 is outside the limits.*0 \(level_max\)"):
        procedure.init(2, level_start=[-10.0, 3.0])
    with pytest.raises(SpecError, match="one level or 2 levels"):
        procedure.init(2, level_start=[-10.0, -3.0, -2.0])
    with pytest.raises(SpecError, match="n_lanes = -1"):
        procedure.init(-1)


@pytest.mark.parametrize("correct", [np.array([1, 0]), np.array([True]), np.array([0.5, np.nan]), True])
def test_answers_must_be_booleans_one_per_lane(correct):
    procedure = rule()
    with pytest.raises(SpecError, match=r"correct must be a boolean array of shape \(2,\)"):
        procedure.record(procedure.init(2), correct)


def test_masks_must_be_booleans_one_per_lane():
    procedure = rule()
    right = np.array([True, True])
    with pytest.raises(SpecError, match="live must be a boolean array"):
        procedure.record(procedure.init(2), right, live=np.array([0, 1]))
    with pytest.raises(SpecError, match="invalid must be a boolean array"):
        procedure.record(procedure.init(2), right, invalid=np.array([True]))
