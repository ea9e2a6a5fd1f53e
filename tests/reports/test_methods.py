"""The Methods paragraph says everything that the experiment description fixes."""

from __future__ import annotations

import json
import tomllib

import pytest
import tomli_w

from psysim.errors import SpecError
from psysim.reports import methods


def changed(ds, table, **values):
    spec = tomllib.loads(ds.attrs["spec_toml"])
    spec[table] = {**spec.get(table, {}), **values}
    return ds.assign_attrs(spec_toml=tomli_w.dumps(spec))


@pytest.mark.parametrize(
    "text",
    [
        "three-interval forced-choice task (3-AFC)",
        "sinusoidally amplitude-modulated noise",
        "level 70 dB SPL",
        "duration 500 ms",
        "ramp duration 50 ms",
        "the level was the same with and without modulation",
        "psysim's defaults for 'am_noise'",
        "modulation rate (4, 8, 16, 32, 64, 128, 256, 512 Hz): 8 conditions",
        "modulation depth, 20 log m (levels and steps in dB)",
        "1-up 2-down",
        "70.7 % correct",
        "4, 2, 1",
        "started at −4",
        "at most 0",
        "6 reversals at the smallest step",
        "120 trials",
        "8 tracks were run per condition and observer",
        "95 % bootstrap intervals over tracks",
        "model dau1997 with the decision stage optimal_detector",
        "internal noise was calibrated (standard deviation 4.2)",
        "44.1 kHz",
        "seed 1",
        "psysim 0.1.0",
    ],
)
def test_states(tmtf, text):
    assert text in methods(tmtf)


def test_reads_as_text(tmtf, hard, bandwidths, single, tone):
    for ds in (tmtf, hard, bandwidths, single, tone):
        text = methods(ds)
        assert text.endswith(".")
        assert "  " not in text
        assert ".." not in text
        assert "inf " not in text
        assert "None" not in text
        assert "nan" not in text


def test_yes_no_and_frozen_noise_and_rove(tmtf):
    text = methods(changed(tmtf, "task", kind="yes_no", p_target=0.4, noise="frozen", rove_db=6.0))
    assert "yes/no task" in text
    assert "40 % of the trials" in text
    assert "same noise token" in text
    assert "roved over 6 dB" in text


def test_two_factors_are_crossed(bandwidths):
    text = methods(bandwidths)
    assert "bandwidth (3, 31, 314 Hz) and modulation rate (4, 8, 16, 32, 64, 128 Hz), in all combinations: 18" in text


def test_cases_are_listed_with_what_varies_together(bandwidths):
    spec = tomllib.loads(bandwidths.attrs["spec_toml"])
    del spec["conditions"]["bandwidth_hz"]
    spec["cases"] = [{"bandwidth_hz": 3}, {"bandwidth_hz": 31}, {"bandwidth_hz": 314, "band_limit": "after"}]
    edge = ("condition", ["after" if b == 314 else "before" for b in bandwidths["bandwidth_hz"].values], {"units": "1"})
    ds = bandwidths.assign_coords(band_limit=edge).assign_attrs(spec_toml=tomli_w.dumps(spec))
    text = methods(ds)
    assert "the cases (bandwidth 3 Hz, band limit before; bandwidth 31 Hz, band limit before; bandwidth 314 Hz" in text
    assert "band limit after) and modulation rate (4, 8, 16, 32, 64, 128 Hz), in all combinations: 18" in text


def test_one_track(single):
    assert "One track was run" in methods(single)


def test_the_calibration_task_is_described(make):
    task = {"jnd_db": 1.0, "frequency_hz": 1000.0, "level_db_spl": 60.0, "n_intervals": 3, "target_proportion": 2**-0.5}
    ds = make(n_tracks=1, calibration={"dau1997": {"status": "calibrated", "internal_noise_std": 9.5, "task": task}})
    assert "a level difference of 1 dB of a 1000-Hz tone at 60 dB SPL is heard in 70.7 %" in methods(ds)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        ({}, "how its internal noise was set is not stated"),
        ({"dau1997": {}}, "internal noise was not calibrated"),
        ({"dau1997": {"status": "not calibrated"}}, "internal noise was not calibrated"),
        (
            {"dau1997": {"status": "given", "internal_noise_std": 3.0}},
            "internal noise was given (standard deviation 3), not calibrated",
        ),
        ({"dau1997": {"status": "given psychometric function"}}, "given psychometric function"),
    ],
)
def test_states_of_calibration(single, calibration, text):
    facts = json.loads(single.attrs["provenance"]) | {"calibration": calibration}
    assert text in methods(single.assign_attrs(provenance=json.dumps(facts)))


def test_settings_of_the_observer_are_listed(tmtf):
    spec = tomllib.loads(tmtf.attrs["spec_toml"])
    spec["observers"][0] |= {"template_level": -6.0, "model_options": {"flow": 80.0}}
    text = methods(tmtf.assign_attrs(spec_toml=tomli_w.dumps(spec)))
    assert "template level −6" in text
    assert "flow 80" in text


def test_a_rule_that_is_not_installed_is_listed_by_its_settings(tmtf):
    spec = tomllib.loads(tmtf.attrs["spec_toml"])
    spec["procedure"] = {"kind": "quest_of_a_plugin", "tracks": "depth_db", "prior_sd_db": 5.0}
    text = methods(tmtf.assign_attrs(spec_toml=tomli_w.dumps(spec)))
    assert "The procedure 'quest_of_a_plugin' tracked 70.7 % correct (prior sd 5 dB)" in text


def test_a_run_without_description_is_refused(tmtf):
    with pytest.raises(SpecError, match="spec_toml"):
        methods(tmtf.assign_attrs(spec_toml=""))


def test_a_standard_before_the_alternatives(tmtf):
    text = methods(changed(tmtf, "task", standard="first"))
    assert "three-interval task, the first interval was the reference; the target was in one of the other two" in text
    assert "2-AFC with a reminder" in text
