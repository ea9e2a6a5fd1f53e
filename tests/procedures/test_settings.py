"""Settings that cannot work are refused with the key, the value and the remedy."""

import math

import pydantic
import pytest

from psysim.errors import SpecError
from psysim.procedures import UpDown, WeightedUpDown

GOOD = {"level_start": -4.0, "steps": [4.0, 2.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": []}, r"procedure\.steps = \[\] must have at least one step size, for instance"),
        ({"steps": [1.0, 2.0]}, r"procedure\.steps = \[1\.0, 2\.0\] must be descending.*\[2\.0, 1\.0\]"),
        ({"steps": [2.0, 2.0]}, r"procedure\.steps = .* must be descending, the largest first: \[2\.0\]"),
        ({"steps": [2.0, -1.0]}, r"procedure\.steps = .* must have sizes above 0"),
        ({"steps": [math.inf, 1.0]}, r"procedure\.steps = .* must have sizes above 0"),
        ({"steps": ["4"]}, r"procedure\.steps\.0 = '4' should be a valid number"),
        ({"level_start": 3.0, "level_max": 0.0}, r"level_start = 3 is outside the limits.*to 0 \(level_max\)"),
        ({"level_start": -9.0, "level_min": -5.0}, r"level_start = -9 is outside the limits.*from -5 \(level_min\)"),
        ({"level_start": math.nan}, r"procedure\.level_start = nan should be a finite number"),
        ({"level_min": 0.0, "level_max": -10.0}, r"level_min = 0 is not below level_max = -10: exchange the two"),
        ({"level_min": math.nan}, r"level_min = nan is not below level_max"),
        ({"steps": [4.0], "level_min": -6.0, "level_max": -2.0}, r"steps = \[4\.0\].*range.*choose smaller steps"),
        ({"n_reversals": 7}, r"n_reversals = 7 is odd, but even_reversals = true.*choose 8, or set even_reversals"),
        ({"n_reversals": 1}, r"procedure\.n_reversals = 1 should be greater than or equal to 2"),
        ({"n_reversals": 20, "max_trials": 20}, r"n_reversals = 20 cannot be reached in max_trials = 20"),
        ({"stop": "trial"}, r"procedure\.stop = 'trial' should be 'reversals',.*Did you mean 'trials'"),
        ({"stop": "trials"}, r"n_trials is missing: stop = 'trials' needs it"),
        ({"stop": "trials", "n_trials": 30, "n_reversals": 8}, r"n_reversals = 8 is not used by stop = 'trials'"),
        ({"n_trials": 30}, r"n_trials = 30 is not used by stop = 'reversals'"),
        ({"stop": "trials", "n_trials": 300}, r"n_trials = 300 is more than max_trials = 200.*raise max_trials"),
        ({"step_change": "at_reversals"}, r"step_change_at is missing.*for instance step_change_at = \[2, 4\]"),
        ({"step_change_at": [2, 4]}, r"step_change_at = \[2, 4\] is used by step_change = 'at_reversals' only"),
        ({"step_change": "at_reversals", "step_change_at": [2]}, r"does not fit 3 steps: give 2 ascending"),
        ({"step_change": "at_reversals", "step_change_at": [4, 2]}, r"step_change_at = \[4, 2\] does not fit"),
        ({"step_change": "at_reversals", "step_change_at": [0, 2]}, r"ascending reversal numbers from 1"),
        ({"threshold_from": "last_n_reversals"}, r"threshold_n_reversals is missing"),
        (
            {"threshold_n_reversals": 4},
            r"threshold_n_reversals = 4 is used by threshold_from = 'last_n_reversals' only",
        ),
        (
            {"threshold_from": "last_n_reversals", "threshold_n_reversals": 5},
            r"threshold_n_reversals = 5 is odd.*choose 6",
        ),
        (
            {"threshold_from": "last_n_reversals", "threshold_n_reversals": 10},
            r"threshold_n_reversals = 10 is more than n_reversals = 8",
        ),
        ({"upper_weight": 0.5, "reversals_at_limit": False}, r"upper_weight = 0\.5 needs upper and lower reversals"),
        ({"upper_weight": 1.5}, r"procedure\.upper_weight = 1\.5 should be less than or equal to 1"),
        ({"step_unit": "db"}, r"level_start = -4 cannot be multiplied by steps in dB.*level above 0"),
        ({"step_unit": "db", "level_start": 4.0, "level_min": -1.0}, r"level_min = -1 cannot be reached.*0 or more"),
        ({"harder": 0}, r"procedure\.harder = 0 should be -1 or 1"),
        ({"n_down": 0}, r"procedure\.n_down = 0 should be greater than or equal to 1"),
        ({"n_revesals": 8}, r"procedure\.n_revesals is not known\..*Did you mean 'n_reversals'\?"),
        ({"max_trials": 10.5}, r"procedure\.max_trials = 10\.5 should be a valid integer"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(SpecError, match=message):
        UpDown(**(GOOD | changes))


def test_missing_settings_say_what_they_mean():
    with pytest.raises(SpecError, match=r"procedure\.level_start is missing: level of the first trial"):
        UpDown(steps=[1.0])


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(SpecError) as caught:
        UpDown(**(GOOD | {"level_max": -10.0, "n_reversals": 7}))
    lines = str(caught.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["procedure.level_start", "procedure.n_reversals"]


def test_target_proportion_of_the_weighted_rule_is_a_proportion():
    for value in (0.0, 1.0, 75.0):
        with pytest.raises(SpecError, match="target_proportion"):
            WeightedUpDown(**GOOD, target_proportion=value)


def test_each_rule_refuses_the_keys_of_the_other():
    with pytest.raises(SpecError, match="n_down is not known"):
        WeightedUpDown(**GOOD, n_down=2)
    with pytest.raises(SpecError, match="target_proportion is not known"):
        UpDown(**GOOD, target_proportion=0.75)


def test_whole_numbers_may_be_written_without_a_point():
    assert UpDown(level_start=-4, steps=[4, 2, 1]).rule.steps == [4.0, 2.0, 1.0]


def test_defaults():
    rule = UpDown(**GOOD).rule
    assert rule.n_reversals == 8
    assert (rule.stop, rule.step_change, rule.max_trials) == ("reversals", "every_second_reversal", 200)
    assert UpDown(**GOOD, stop="trials", n_trials=50).rule.n_reversals is None


def test_the_model_validates_a_table_of_an_experiment_file():
    table = {"tracks": "depth_db", "n_up": 1, "n_down": 2, "level_start": -4.0, "level_max": 0.0, "steps": [4.0, 2.0]}
    assert UpDown.Settings.model_validate(table).tracks == "depth_db"
    with pytest.raises(pydantic.ValidationError, match="level_start = -4 is outside"):
        UpDown.Settings.model_validate(table | {"level_max": -10.0})


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        UpDown(**GOOD).settings.harder = 1
