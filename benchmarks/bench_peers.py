"""psysim beside its peers, on the same sounds in the same run: Dau1997 (torch_amt), and a bank of second-order filters.

    python benchmarks/bench_peers.py [--venv .venv-peers] [--seconds 1] [--batch 1 8] [--json PATH]

makes a virtual environment for the peers (the folder is ignored by git), which sees the packages of the environment
that runs this script, so that torch is not installed twice; installs the peers there without their dependencies, and
runs all contenders in turn, several times each. torch_amt is licensed under the GPL: it is installed and measured as a
black box, and psysim neither contains nor reads it. The filters (SciPy, torchaudio, torchlpc) are in peer_filters.py.

Both models get noise at 60 dB SPL, float32, 31 channels from 80 to 8000 Hz. Two of our banks are timed: the published
default (4 to 12 modulation filters per channel, 150-Hz lowpass before them), and one with the peer's eight filters in
every channel and no lowpass. The peer takes an amplitude of 1 as 100 dB SPL, so it gets half the pressure.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measure import FS, duration, noise, write_json
from peer_filters import measure_filters

ROOT = Path(__file__).resolve().parent.parent
# module, package; philtorch 0.7 needs a newer torch; questplus (peer_questplus.py) needs json_tricks
PEERS = {"torch_amt": "torch-amt", "torchlpc": "torchlpc", "json_tricks": "json-tricks", "questplus": "questplus"}


def prepare(folder: Path) -> Path:
    """Make the peers' environment unless it is there; return its Python."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    own = sysconfig.get_path("purelib")
    Path(where.stdout.strip(), "psysim_packages.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    for module, package in PEERS.items():
        if subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode:
            # A peer's metadata may exclude our Python; it runs all the same.
            options = ["--no-deps", "--ignore-requires-python", "--disable-pip-version-check", "--quiet"]
            if subprocess.run([python, "-m", "pip", "install", *options, package], check=False).returncode:
                print(f"{package} could not be installed; its rows are left out.")
    return python


def contenders() -> dict[str, Callable[[Any], Any]]:
    """Return the models by name, each as a function of sound in pascal (B, T)."""
    from psysim.models import Dau1997

    models: dict[str, Callable[[Any], Any]] = {}
    if find_spec("torch_amt"):
        import torch_amt

        peer = torch_amt.Dau1997(fs=FS)
        models["torch_amt"] = lambda x: peer(0.5 * x)
    bank = {"preset": "dau1997", "max_mfc": 150.0}
    eight = Dau1997(fs=FS, modulation_kwargs=bank)
    return models | {"psysim": Dau1997(fs=FS), "psysim, the peer's eight filters": eight}


def measure(batch: int, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Run the models in turn ``repeats`` times after one warm-up; return one row per model."""
    audio = noise(batch, round(seconds * FS), torch.float32, 0.02)
    models = contenders()
    durations: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        outputs = {name: sum(channel.numel() for channel in model(audio)) for name, model in models.items()}
        for _ in range(repeats):
            for name, model in models.items():
                durations[name].append(duration(lambda model=model: model(audio)))  # type: ignore[misc]
    rows = []
    for name, times in durations.items():
        median = statistics.median(times)
        row = {"model": name, "batch": batch, "seconds": seconds, "repeats": repeats, "output_values": outputs[name]}
        row |= {"median_s": median, "best_s": min(times), "times_real_time": batch * seconds / median}
        if "torch_amt" in durations:
            row["speed_up_over_torch_amt"] = statistics.median(durations["torch_amt"]) / median
        rows.append(row)
    return rows


def report(options: argparse.Namespace) -> None:
    """Measure and print (runs inside the peers' environment)."""
    print(f"{'model':<34}{'batch':>6}{'median (s)':>12}{'times real time':>18}{'speed-up':>10}")
    rows = []
    for batch in options.batch:
        for row in measure(batch, options.seconds, options.repeats):
            rows.append(row)
            numbers = f"{row['median_s']:12.3f}{row['times_real_time']:18.2f}"
            gain = f"{row['speed_up_over_torch_amt']:10.1f}" if "speed_up_over_torch_amt" in row else f"{'-':>10}"
            print(f"{row['model']:<34}{row['batch']:>6}{numbers}{gain}", flush=True)
    filters = measure_filters(options.channels, options.samples, options.repeats)
    write_json(options.json, ("scipy", "torchaudio", *PEERS.values()), rows=rows, filters=filters)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-peers", help="folder of the peers' environment")
    parser.add_argument("--seconds", type=float, default=1.0, help="sound for the models")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--channels", type=int, default=256, help="filters")
    parser.add_argument("--samples", type=int, default=24_000, help="samples for the filters")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "peers.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        report(options)
        return 0
    python = prepare(options.venv)
    return subprocess.run([python, Path(__file__).resolve(), *sys.argv[1:], "--inside"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
