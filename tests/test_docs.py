"""What the pages show is what the library does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import psysim as ps

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_experiment_of_the_library_is_valid(file: Path) -> None:
    spec = ps.load(file)
    assert spec.title
    for profile in tomllib.loads(file.read_text()).get("profiles", {}):
        assert ps.load(file, profile=profile).n_lanes < spec.n_lanes


def test_the_recipe_of_the_page_on_training() -> None:
    from psysim.evaluation.recipe import loads_recipe

    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "how_to" / "train_a_network.md").read_text(), re.S)
    (text,) = [block for block in blocks if "layers" in block]
    recipe = loads_recipe(text)
    assert len(recipe.classes["rate"]) == 24
    assert recipe.architecture().n_parameters < 1e6


def test_the_model_lines_of_the_readme() -> None:
    lines = re.search(r"^model = .*?^representation, stages = .*?$", (ROOT / "README.md").read_text(), re.S | re.M)
    scope: dict = {"ps": ps}
    exec(lines.group(0), scope)
    representation, stages = scope["representation"], scope["stages"]
    assert len(representation) == scope["model"].num_channels == 31
    assert representation[0].shape[0] == 3
    assert set(stages) == {"filterbank", "ihc", "adaptation"}


def test_the_simulated_listener_of_the_library_gives_what_was_put_in() -> None:
    """3-AFC, 2-down 1-up: the level at 70.7 % of the listener's function, within the rule's known bias."""
    from psysim.procedures.psychometric import inverse_psychometric_function

    spec = ps.load(ROOT / "experiments" / "simulated_listener.toml", overrides={"run.n_tracks": 200})
    run = ps.run(spec)
    settings = spec.observers[0].settings
    expected = inverse_psychometric_function(2**-0.5, settings["threshold"], settings["slope"], guess_rate=1 / 3)
    sem = run["threshold"].std("track").values[:, 0] / np.sqrt(200)
    # docs/explanation/tracking_rules.md: -0.06 dB for 1-dB steps; four standard errors besides
    assert (abs(run["threshold"].mean("track").values[:, 0] - expected) < 0.1 + 4 * sem).all()


def test_the_observer_of_the_how_to_page_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how_to" / "add_an_observer.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    table = re.findall(r"```toml\n(.*?)```", page, re.S)[-1]
    scope: dict = {}
    try:
        exec(code, scope)
        text = f"""
title = "A new observer"
[stimulus]
kind = "am_noise"
duration_s = 0.1
ramp_s = 0.01
[conditions]
rate_hz = [32]
[procedure]
tracks = "depth_db"
level_start = -3.0
steps = [4.0]
n_reversals = 2
max_trials = 20
{table}[observers.model_options]
flow = 900.0
fhigh = 1100.0
[run]
n_tracks = 2
fs = 8000
"""
        run = ps.run(ps.loads(text))
    finally:
        ps.observers.registry._items.pop("envelope_power", None)
    assert np.isfinite(run["decision_variable"].values[run["level"].notnull().values]).all()
    page = ps.report(run, tmp_path / "new.html")
    assert "not calibrated" in Path(page).read_text()


def test_links_of_the_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_the_sensitivities_of_the_tasks_page() -> None:
    from psysim import procedures as p

    page = (ROOT / "docs" / "explanation" / "tasks.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+ \| [^|]+) \| (\d\.\d+) \|$", page, re.M))
    ways: dict = {
        "2-AFC | largest": p.d_prime_mafc(0.75, 2),
        "3-AFC | largest": p.d_prime_mafc(0.75, 3),
        "yes/no | criterion midway": p.YesNo().d_prime(0.75),
    }
    for rule in ("independent observation", "differencing"):
        for name, inverse in (
            ("ABX", p.d_prime_abx),
            ("same-different", p.d_prime_same_different),
            ("oddity", p.d_prime_oddity),
        ):
            ways[f"{name} | {rule}"] = inverse(0.75, rule=rule.replace(" ", "_"))
    assert set(rows) == set(ways)
    for name, value in rows.items():
        assert float(value) == pytest.approx(float(ways[name]), abs=0.0051)


def test_the_example_of_the_page_on_psychometric_functions() -> None:
    page = (ROOT / "docs" / "explanation" / "psychometric_functions.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    scope: dict = {}
    exec(code, scope)
    fit, shown = scope["fit"], [float(x) for x in re.findall(r"# (-?[\d.]+)", code)]
    low, high = fit.interval("threshold", proportion=0.7071)
    p_value = scope["bootstrap_fits"](fit, 1000, seed=1).p_value
    assert [float(x) for x in (fit.threshold_at(0.7071), low)] == pytest.approx(shown[:2], abs=0.006)
    assert f"{high:.2f}" in code
    assert f"{p_value:.2f}" in code


def test_the_example_of_the_page_on_tracking_rules() -> None:
    page = (ROOT / "docs" / "how_to" / "choose_a_tracking_rule.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    simulated, exact = (float(x) for x in re.findall(r"# (0\.\d+),", code))
    scope: dict = {}
    exec(code, scope)
    design = scope["simulate_design"](scope["rule"], scope["listener"], n_tracks=10_000)
    assert design.bias == pytest.approx(simulated, abs=0.006)
    assert scope["track_distribution"](scope["rule"], scope["listener"]).bias == pytest.approx(exact, abs=0.006)


def test_the_aids_of_the_how_to_page_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function by its table, and the class in blocks: an echo of 0.1 of the sample before."""
    import sys
    import types

    import torch

    from psysim.hearing.aids import make_aid, registry

    page = (ROOT / "docs" / "how_to" / "add_a_hearing_aid.md").read_text()
    function, _, echo = re.findall(r"```python\n(.*?)```", page, re.S)
    tables = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", page, re.S)]
    module = types.ModuleType("my_module")
    exec(function, module.__dict__)
    monkeypatch.setitem(sys.modules, "my_package", types.ModuleType("my_package"))
    monkeypatch.setitem(sys.modules, "my_package.my_module", module)
    x = torch.tensor([1.0, 2.0, 3.0])
    assert make_aid(tables[0], 16000.0)(x).tolist() == [0.5, 1.0, 1.5]
    assert make_aid(tables[1], 16000.0).timeout_s == 20.0
    try:
        exec(echo, {})
        aid = make_aid({"kind": "one_tap_echo"}, 16000.0)
        first, state = aid.process(x[:2])
        second, _ = aid.process(x[2:], state)
        assert torch.cat([first, second]).tolist() == pytest.approx([1.0, 2.1, 3.2])
    finally:
        registry._items.pop("one_tap_echo", None)
