"""The interface: states that can be cut, merged and stored; the registry; what every rule says of itself."""

import io

import numpy as np
import pytest

from psysim import procedures
from psysim.errors import SpecError, StoreError
from psysim.procedures import Procedure, Status, TrackState, UpDown, concatenate, registry
from psysim.testing import assert_same_state

KINDS = registry.names()


def some_state(kind="up_down", lanes=5, trials=12, seed=0):
    """Return lanes at different points of their tracks."""
    procedure = registry.get(kind)(**registry.get(kind).example_settings)
    rng = np.random.default_rng(seed)
    state = procedure.init(lanes)
    for _ in range(trials):
        state = procedure.record(state, rng.random(lanes) < 0.7, live=rng.random(lanes) < 0.8)
    return state


def test_built_in_rules_are_registered():
    assert {"up_down", "weighted_up_down"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_describes_itself(kind):
    cls = registry.get(kind)
    procedure = cls(**cls.example_settings)
    assert cls.description
    assert cls.__doc__
    assert 0 < procedure.target_proportion < 1
    assert f"{100 * procedure.target_proportion:.1f} % correct" in procedure.describe()
    assert procedure.describe().endswith(".")
    undescribed = [name for name, field in cls.Settings.model_fields.items() if not field.description]
    assert undescribed == []


@pytest.mark.parametrize("kind", KINDS)
def test_settings_survive_a_dump(kind):
    """The engine keeps the validated settings and builds the rule from them."""
    cls = registry.get(kind)
    procedure = cls(**cls.example_settings)
    assert cls(**procedure.settings.model_dump()).settings == procedure.settings


def test_unknown_rule():
    with pytest.raises(SpecError, match=r"no procedure named 'updown'.*Did you mean 'up_down'"):
        registry.get("updown")


def test_a_rule_of_your_own_is_found_by_name():
    @procedures.register("always_the_same_test_rule")
    class Same(UpDown):
        """A rule for this test."""

    try:
        assert registry.get("always_the_same_test_rule") is Same
        with pytest.raises(SpecError, match="registered already"):
            procedures.register("always_the_same_test_rule")(Procedure)
    finally:
        registry._items.pop("always_the_same_test_rule")


def test_every_status_has_a_sentence():
    assert {s.name: s.value for s in Status} == {
        "RUNNING": 0,
        "CONVERGED": 1,
        "MAX_TRIALS": 2,
        "AT_FLOOR": 3,
        "AT_CEILING": 4,
        "INVALID_OUTPUT": 5,
    }
    sentences = [status.sentence for status in Status]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


# -- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_take_put_concatenate_round_trip(kind):
    state = some_state(kind)
    order = np.array([3, 0, 4, 2, 1])
    assert_same_state(state.take(order).take(np.argsort(order)), state)
    assert_same_state(concatenate([state.take([0, 1]), state.take([2, 3, 4])]), state)
    assert_same_state(state.put(order, state.take(order)), state)
    mask = np.array([True, False, False, True, False])
    assert_same_state(state.take(mask), state.take([0, 3]))
    assert len(state.take([])) == 0
    assert_same_state(concatenate([state.take([]), state]), state)


@pytest.mark.parametrize("kind", KINDS)
def test_put_refills_lanes_and_leaves_the_input_alone(kind):
    state, fresh = some_state(kind), registry.get(kind)(**registry.get(kind).example_settings).init(2)
    copies = {name: array.copy() for name, array in state.to_arrays().items()}
    refilled = state.put([4, 1], fresh)
    assert refilled.n_trials[[1, 4]].tolist() == [0, 0]
    assert_same_state(refilled.take([0, 2, 3]), state.take([0, 2, 3]))
    for name, array in state.to_arrays().items():
        np.testing.assert_array_equal(array, copies[name])


def test_put_checks_its_lanes():
    state = some_state()
    with pytest.raises(SpecError, match=r"put: 2 lanes are put.*got \[1\]"):
        state.put([1], state.take([0, 1]))
    with pytest.raises(SpecError, match="each once"):
        state.put([1, 1], state.take([0, 1]))


@pytest.mark.parametrize("index", [[0.5], [[0, 1]], np.array([True, False]), ["a"]])
def test_lanes_are_integers_or_a_mask(index):
    with pytest.raises(SpecError, match=r"(?i)lanes"):
        some_state().take(index)


def test_states_of_different_rules_do_not_mix():
    short = UpDown(level_start=0.0, steps=[1.0], n_reversals=2).init(2)
    long = UpDown(level_start=0.0, steps=[1.0], n_reversals=4).init(2)
    for mix in (lambda: concatenate([short, long]), lambda: short.put([0, 1], long)):
        with pytest.raises(SpecError, match="different settings"):
            mix()
    with pytest.raises(SpecError, match="at least one state"):
        concatenate([])


def test_a_foreign_state_is_refused():
    procedure = UpDown(level_start=0.0, steps=[1.0])
    foreign = TrackState(
        level=np.zeros(1), n_trials=np.zeros(1, np.int32), status=np.zeros(1, np.int8), last_reversal=np.zeros(1, bool)
    )
    with pytest.raises(SpecError, match="StaircaseState made by its init, not on a TrackState"):
        procedure.record(foreign, np.array([True]))


@pytest.mark.parametrize("kind", KINDS)
def test_states_survive_a_file(kind):
    state, buffer = some_state(kind), io.BytesIO()
    np.savez(buffer, **state.to_arrays())
    buffer.seek(0)
    with np.load(buffer) as stored:
        assert_same_state(type(state).from_arrays(stored), state)
    assert registry.get(kind).State is type(state)


def test_stored_states_are_checked():
    state = some_state()
    arrays = state.to_arrays()
    with pytest.raises(StoreError, match=r"missing \['level'\], unknown \['levle'\]"):
        type(state).from_arrays({("levle" if name == "level" else name): a for name, a in arrays.items()})
    with pytest.raises(StoreError, match="number of lanes"):
        type(state).from_arrays(arrays | {"level": arrays["level"][:2]})
    with pytest.raises(StoreError, match="number of lanes"):
        type(state).from_arrays(arrays | {"level": np.float64(3.0)})


def test_done():
    procedure = UpDown(level_start=0.0, steps=[1.0])
    state = procedure.record(procedure.init(2), np.array([True, True]), invalid=np.array([False, True]))
    assert state.done.tolist() == [False, True]
    assert len(state) == 2
