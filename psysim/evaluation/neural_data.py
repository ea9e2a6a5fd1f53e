"""Data sets of neural responses: one schema for recorded and simulated populations, in NetCDF files.

================  ======================================  ===========================================================
variable          dimensions                              content
================  ======================================  ===========================================================
``spectrogram``   (stimulus, band, frame)                 the sounds as a model takes them, or
``waveform``      (stimulus, sample)                      the sounds in the unit of a model's front-end
``responses``     (stimulus, neuron, repeat, frame)       spike counts per frame; NaN: not recorded
``strf``          (neuron, band, lag)                     optional: true receptive fields, the newest frame last
================  ======================================  ===========================================================

Attributes: ``dt_ms``, the duration of a frame in ms; ``fs`` in Hz with a waveform.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from psysim.errors import SpecError, StoreError, check_option, check_range
from psysim.rng import Keys, Purpose, normal, uniform

__all__ = ["check_neural_data", "open_neural_data", "poisson_counts", "save_neural_data", "simulate_population"]

DIMS = {
    "spectrogram": ("stimulus", "band", "frame"),
    "waveform": ("stimulus", "sample"),
    "responses": ("stimulus", "neuron", "repeat", "frame"),
    "strf": ("neuron", "band", "lag"),
}


def check_neural_data(ds: xr.Dataset) -> xr.Dataset:
    """Return ``ds`` if it is a data set of neural responses.

    Parameters
    ----------
    ds : xarray.Dataset

    Raises
    ------
    SpecError
        If a variable is missing, has other dimensions or impossible values.

    Examples
    --------
    >>> sorted(check_neural_data(simulate_population(n_stimuli=2, n_frames=20)).data_vars)
    ['responses', 'spectrogram', 'strf']
    """
    if "responses" not in ds or ("spectrogram" in ds) == ("waveform" in ds):
        raise SpecError(
            "A data set of neural responses has the variable 'responses', and either 'spectrogram' or 'waveform'; this "
            f"one has: {', '.join(map(str, ds.data_vars)) or 'none'}."
        )
    for name, dims in DIMS.items():
        if name in ds and ds[name].dims != dims:
            raise SpecError(f"{name} has the dimensions {ds[name].dims}; expected {dims}.")
    for name in ("dt_ms", *(["fs"] if "waveform" in ds else [])):
        value = ds.attrs.get(name)
        if not _positive(value):
            raise SpecError(f"The attribute {name} is {value!r}: it must be a number above 0.")
    counts = ds["responses"]
    if bool((counts < 0).any()) or not bool(counts.notnull().any()):
        raise SpecError("responses must be counts of at least 0, or NaN where nothing was recorded, and not all NaN.")
    sound = ds["spectrogram" if "spectrogram" in ds else "waveform"]
    if "frame" in sound.dims:
        heard = counts.notnull().any(("neuron", "repeat"))
        if bool((sound.isnull().any("band") & heard).any()):
            raise SpecError("spectrogram is NaN at frames that have responses.")
    elif bool(sound.isnull().any()):
        raise SpecError("waveform holds NaN: pad shorter sounds with zeros.")
    return ds


def _positive(value: object) -> bool:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) and number > 0


def open_neural_data(path: str | Path) -> xr.Dataset:
    """Read and check a data set of neural responses, a NetCDF file.

    Parameters
    ----------
    path : path

    Raises
    ------
    StoreError
        If the file cannot be read.
    SpecError
        If it is not such a data set; see `check_neural_data`.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as ds:
            found = ds.load()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as a NetCDF file ({error}).") from error
    try:
        return check_neural_data(found)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def save_neural_data(ds: xr.Dataset, path: str | Path) -> Path:
    """Check and write a data set of neural responses.

    Parameters
    ----------
    ds : xarray.Dataset
    path : path
        A name ending in ``.nc`` that does not exist.

    Raises
    ------
    StoreError
        If the name is another, or the file exists.
    SpecError
        If it is not such a data set; see `check_neural_data`.
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise StoreError(f"{path}: data sets are saved under a name that ends in .nc.")
    if path.exists():
        raise StoreError(f"{path} exists; it will not be replaced. Choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    check_neural_data(ds).to_netcdf(path, engine="h5netcdf")
    return path


def poisson_counts(rate: Tensor, n_repeats: int, seed: int) -> Tensor:
    """Return independent Poisson counts (B, N, R, T) with the means ``rate`` (B, N, T), by inversion.

    Parameters
    ----------
    rate : Tensor (B, N, T)
        Mean count per frame, at least 0.
    n_repeats : int
    seed : int

    Examples
    --------
    >>> import torch
    >>> poisson_counts(torch.full((1, 1, 1000), 2.0), 4, seed=1).mean().round(decimals=1).item()
    2.0
    """
    from scipy.stats import poisson

    n_stimuli, n_neurons, n_frames = rate.shape
    check_range("n_repeats", n_repeats, 1, 255)
    if not bool((rate >= 0).all()):
        raise SpecError("rate must be at least 0 everywhere.")
    keys = Keys.make(
        seed,
        track=torch.arange(n_stimuli)[:, None, None],
        trial=torch.arange(n_neurons)[:, None],
        interval=torch.arange(n_repeats),
    )
    drawn = uniform(keys, Purpose.SPIKES, n_frames).numpy()
    return torch.from_numpy(poisson.ppf(drawn, rate.double().numpy()[:, :, None]))


def simulate_population(
    n_neurons: int = 4,
    n_bands: int = 8,
    n_lags: int = 5,
    *,
    n_stimuli: int = 12,
    n_frames: int = 400,
    n_repeats: int = 8,
    dt_ms: float = 5.0,
    mean_count: float = 2.0,
    nonlinearity: str = "none",
    seed: int = 1,
) -> xr.Dataset:
    """Return the responses of neurons whose receptive fields are known, to noise spectrograms.

    A field is a Gaussian over bands times a damped cosine over lags, with a sum of squares of 1; the spectrograms are
    standard normal, independent at each band and frame. Counts are Poisson with the mean ``mean_count * g(drive)``:
    ``g(d) = max(1 + d/4, 0)``, or with "softplus" ``g(d) = log(1 + exp(2 d)) / 2``.

    Parameters
    ----------
    n_neurons, n_bands, n_lags, n_stimuli, n_frames, n_repeats : int
    dt_ms : float
        Duration of a frame, ms.
    mean_count : float
        Spikes per frame at g = 1.
    nonlinearity : {"none", "softplus"}
    seed : int

    Examples
    --------
    >>> dict(simulate_population(n_neurons=3).sizes)
    {'stimulus': 12, 'band': 8, 'frame': 400, 'neuron': 3, 'repeat': 8, 'lag': 5}
    """
    check_option("nonlinearity", nonlinearity, ("none", "softplus"))
    drawn = uniform(Keys.make(seed, trial=torch.arange(n_neurons)), Purpose.TRAINING, 4)[..., None]
    centre, width, period, phase = drawn.unbind(1)
    bands, lags = torch.arange(n_bands, dtype=torch.float64), torch.arange(n_lags, dtype=torch.float64).flip(0)
    spectral = torch.exp(-0.5 * ((bands - centre * (n_bands - 1)) / (0.6 + width)).square())
    cycle = (0.5 + period) * lags / n_lags + 0.25 * phase
    temporal = torch.exp(-2 * lags / n_lags) * torch.cos(2 * torch.pi * cycle)
    strf = spectral[:, :, None] * temporal[:, None]
    strf = strf / strf.square().sum((1, 2), keepdim=True).sqrt()
    noise = normal(Keys.make(seed, track=torch.arange(n_stimuli)), Purpose.CARRIER, n_bands * n_frames)
    x = noise.reshape(n_stimuli, n_bands, n_frames)
    drive = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (n_lags - 1, 0)), strf)
    softplus = torch.nn.functional.softplus
    g = (1 + drive / 4).clamp_min(0) if nonlinearity == "none" else softplus(2 * drive) / 2
    counts = poisson_counts(mean_count * g, n_repeats, seed)
    return xr.Dataset(
        {
            "spectrogram": (DIMS["spectrogram"], x.numpy()),
            "responses": (DIMS["responses"], counts.numpy()),
            "strf": (DIMS["strf"], strf.numpy()),
        },
        attrs={"dt_ms": dt_ms, "seed": seed, "nonlinearity": nonlinearity, "mean_count": mean_count},
    )
