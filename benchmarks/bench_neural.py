"""Speed of the neural response models: forward and backward, beside deepSTRF in the same run.

    python benchmarks/bench_neural.py [--peer PYTHON] [--batch 1 8] [--repeats 9] [--json FILE]

F = 34 bands, N = 73 neurons, 1000 frames of 5 ms; float32, one thread, training mode, the gradient of the mean square
of the response with respect to all weights. With ``--peer`` the interpreter of an environment with deepSTRF runs the
same models in turn with ours, and the shortest time of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import duration, write_json

from psysim.models import neural

BANDS, NEURONS, HOP_MS = 34, 73, 5.0

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Linear": ("Linear", {}),
    "LinearNonlinear": ("LinearNonlinear", {}),
    "NetworkReceptiveField": ("NetworkReceptiveField", {}),
    "DNet": ("DNet", {}),
    "ConvNet2D": ("ConvNet2D", {}),
    "Transformer": ("Transformer", {}),
    "StateNet GRU": ("StateNet", {"rnn_type": "GRU"}),
    "StateNet LSTM": ("StateNet", {"rnn_type": "LSTM"}),
    "StateNet RNN": ("StateNet", {"rnn_type": "RNN"}),
    "StateNet LMU": ("StateNet", {"rnn_type": "LMU"}),
    "StateNet Mamba": ("StateNet", {"rnn_type": "Mamba"}),
    "StateNet Diagonal (theirs: S4)": ("StateNet", {"rnn_type": "Diagonal"}),
    "AdapTrans": ("AdapTrans", {}),
    "Linear with AdapTrans": ("Linear", {"adaptrans": True}),
    "ICNet (100 ms)": ("ICNet", {"audio_fs": 24000, "dt_ms": 10.0}),
}

PEER = """
import json, sys, time, torch
from deepSTRF.models import audio
from deepSTRF.models.prefiltering import make_prefiltering
torch.set_num_threads(1)
models = {}
def make(kind, options):
    adaptrans = lambda: make_prefiltering("adaptrans", n_frequency_bands=34, dt=5.0)
    if kind == "AdapTrans":
        return adaptrans()
    options = dict(options)
    if options.pop("adaptrans", False):
        options["prefiltering"] = adaptrans()
    if options.get("rnn_type") == "Diagonal":
        options["rnn_type"] = "S4"
    if kind != "ICNet":
        options["n_frequency_bands"] = 34
    return getattr(audio, kind)(out_neurons=73, **options)
for line in sys.stdin:
    kind, options, shape = json.loads(line)
    key = json.dumps([kind, options, shape])
    try:
        if key not in models:
            models[key] = make(kind, options).train(), torch.rand(shape)
        model, x = models[key]
        model.zero_grad()
        begin = time.perf_counter()
        model(x).square().mean().backward()
        took = time.perf_counter() - begin
    except Exception as error:
        took = repr(error)[:200]
    print(json.dumps(took), flush=True)
"""


def make(kind: str, options: dict[str, Any]) -> torch.nn.Module:
    """Return one of our models."""
    options = dict(options)
    if kind == "AdapTrans":
        return neural.AdapTrans(BANDS, HOP_MS)
    if options.pop("adaptrans", False):
        options["prefiltering"] = neural.AdapTrans(BANDS, HOP_MS)
    if kind != "ICNet":
        options["n_frequency_bands"] = BANDS
    return getattr(neural, kind)(out_neurons=NEURONS, **options)


def ours(kind: str, options: dict[str, Any], shape: list[int]) -> Callable[[], float]:
    """Return a function that measures one forward and backward pass of ours, seconds."""
    model = make(kind, options).train()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))

    def once() -> float:
        model.zero_grad()
        return duration(lambda: model(x).square().mean().backward())

    return once


def measure(name: str, batch: int, frames: int, repeats: int, peer: Any) -> dict[str, Any]:
    """Return the best of the passes of a model, ms, ours and theirs in turn."""
    kind, options = MODELS[name]
    shape = [batch, 1, BANDS, frames] if kind != "ICNet" else [batch, 1, 240 * max(1, frames // 100)]
    once = ours(kind, options, shape)
    once()
    times: list[float] = []
    others: list[float] = []
    failure = None
    for repeat in range(repeats + 1):
        times.append(once())
        if peer is not None and failure is None:
            print(json.dumps([kind, options, shape]), file=peer.stdin, flush=True)
            answer = json.loads(peer.stdout.readline())
            failure = answer if isinstance(answer, str) else None
            others += [answer] if failure is None and repeat else []
    result: dict[str, Any] = {"ours_ms": 1e3 * min(times)}
    if others:
        result |= {"deepstrf_ms": 1e3 * min(others), "times_faster": min(others) / min(times)}
    return result | ({"deepstrf_failed": failure} if failure else {})


def start(python: str) -> Any:
    """Start the peer's interpreter."""
    return subprocess.Popen([python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="interpreter of an environment with deepSTRF 0.1.0")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    peer = start(options.peer) if options.peer else None
    results: dict[str, dict[str, Any]] = {}
    try:
        for batch in options.batch:
            for name in options.models:
                result = measure(name, batch, options.frames, options.repeats, peer)
                results.setdefault(f"batch_{batch}", {})[name] = result
                values = (f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in result.items())
                print(f"batch {batch:2d}  {name:32s}", *values, flush=True)
                write_json(options.json, bands=BANDS, neurons=NEURONS, frames=options.frames, threads=1, neural=results)
    finally:
        torch.set_num_threads(before)
        if peer is not None:
            peer.stdin.close()
            peer.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
