"""psysim's Dau1997 beside torch_amt's, on the same sounds in the same run.

    python benchmarks/bench_peers.py [--venv .venv-peers] [--seconds 1] [--batch 1 8] [--json PATH]

makes a virtual environment for the peer (the folder is ignored by git), which sees the packages of the environment that
runs this script, so that torch is not installed twice; installs torch_amt there without its dependencies, and runs
both models alternately, several times each. torch_amt is licensed under the GPL: it is installed and measured as a
black box, and psysim neither contains nor reads it.

Both get noise at 60 dB SPL, float32, 31 channels from 80 to 8000 Hz. Two of our banks are timed: the published default
(4 to 12 modulation filters per channel, 150-Hz lowpass before them), and one with the peer's eight filters in every
channel and no lowpass. The peer takes an amplitude of 1 as 100 dB SPL, so it gets half the pressure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = "torch-amt"
FS = 44100.0


def prepare(folder: Path) -> Path:
    """Make the peer's environment unless it is there; return its Python."""
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
    if subprocess.run([python, "-c", "import torch_amt"], check=False, capture_output=True).returncode:
        # The peer's metadata excludes our Python; it runs all the same.
        options = ["--no-deps", "--ignore-requires-python", "--disable-pip-version-check", "--quiet"]
        subprocess.run([python, "-m", "pip", "install", *options, PEER], check=True)
    return python


def contenders() -> dict[str, Callable[[Any], Any]]:
    """Return the models by name, each as a function of sound in pascal (B, T)."""
    import torch_amt

    from psysim.models import Dau1997

    peer = torch_amt.Dau1997(fs=FS)
    default = Dau1997(fs=FS)
    bank = {"preset": "dau1997", "max_mfc": 150.0}
    eight = Dau1997(fs=FS, modulation_kwargs=bank)
    return {"torch_amt": lambda x: peer(0.5 * x), "psysim": default, "psysim, the peer's eight filters": eight}


def measure(batch: int, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Run the models in turn ``repeats`` times after one warm-up; return one row per model."""
    import numpy as np
    import torch

    samples = np.random.default_rng(1).standard_normal((batch, round(seconds * FS)))
    audio = torch.from_numpy(0.02 * samples).float()
    models = contenders()
    durations: dict[str, list[float]] = {name: [] for name in models}
    outputs: dict[str, int] = {}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, model in models.items():
                begin = time.perf_counter()
                result = model(audio)
                took = time.perf_counter() - begin
                outputs[name] = sum(channel.numel() for channel in result)
                del result
                if repeat:
                    durations[name].append(took)
    peer = statistics.median(durations["torch_amt"])
    rows = []
    for name, times in durations.items():
        median = statistics.median(times)
        row = {"model": name, "batch": batch, "seconds": seconds, "repeats": repeats, "output_values": outputs[name]}
        row |= {"median_s": median, "best_s": min(times), "times_real_time": batch * seconds / median}
        rows.append(row | {"speed_up_over_torch_amt": peer / median})
    return rows


def report(options: argparse.Namespace) -> None:
    """Measure and print (runs inside the peer's environment)."""
    print(f"{'model':<34}{'batch':>6}{'median (s)':>12}{'times real time':>18}{'speed-up':>10}")
    rows = []
    for batch in options.batch:
        for row in measure(batch, options.seconds, options.repeats):
            rows.append(row)
            numbers = f"{row['median_s']:12.3f}{row['times_real_time']:18.2f}{row['speed_up_over_torch_amt']:10.1f}"
            print(f"{row['model']:<34}{row['batch']:>6}{numbers}", flush=True)
    if options.json:
        from machine import describe

        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": describe(PEER), "rows": rows}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-peers", help="folder of the peer's environment")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "peers.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        report(options)
        return 0
    python = prepare(options.venv)
    return subprocess.run([python, Path(__file__).resolve(), *sys.argv[1:], "--inside"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
