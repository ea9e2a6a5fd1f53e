"""The onset experiment of Osses2021; its golden files are tested with those of Dau1997 (test_dau1997_golden)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import Osses2021

DATA = Path(__file__).parent / "data"
DTYPES = [torch.float64, torch.float32]
OFF = {"enabled": False}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("limit", "steady", "ratio"), [(5, "66.20", "9.28"), (10, "63.67", "22.50")])
def test_onset_and_steady_response_to_a_tone(limit: int, steady: str, ratio: str, dtype: torch.dtype) -> None:
    """Osses Vecchi & Kohlrausch (2021), Fig. 11: 4 kHz, 70 dB, one channel, without ears, overshoot limits 5 and 10.

    Bounds in MU: those of the adaptation stage in the table that came with the file.
    """
    with np.load(DATA / "exp_osses2021_fig11.npz") as file:
        golden = dict(file)
    model = Osses2021(
        float(golden["fs"]),
        flow=4000.0,
        fhigh=4000.0,
        filterbank_kwargs={"basef": 4000.0},
        headphone_kwargs=OFF,
        middleear_kwargs=OFF,
        adaptation_kwargs={} if limit == 5 else {"limit": 10.0},
        dboffset=100.0,
        return_stages=True,
        dtype=dtype,
    )
    y = model(torch.as_tensor(golden["x"], dtype=dtype))[1]["adaptation"][0].numpy()
    bound = 5e-3 if dtype == torch.float64 else 2e-2
    assert np.abs(y[golden["t_idx"]] - golden[f"out{limit}"]).max() <= bound
    assert y.max() == pytest.approx(float(golden[f"onset{limit:02d}"]), abs=bound)
    # The published numbers, to their last digit
    assert f"{golden[f'steady{limit:02d}']:.2f}" == steady
    assert f"{y.max() / golden[f'steady{limit:02d}']:.2f}" == ratio
