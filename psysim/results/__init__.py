"""The results of a run: the dataset schema, storing, resuming, loading, tables.

Importing this package loads neither xarray nor pandas; the functions do.
"""

from psysim.results.journal import Journal, fill, read_journal, record_dtype
from psysim.results.schema import DIMS, FIELDS, SCHEMA_VERSION, STATUS, document, empty_dataset, factors, validate
from psysim.results.store import export_csv, export_netcdf, finish, load, partial_path, save, state_of
from psysim.results.tables import bootstrap_interval, is_predicted, thresholds, tracks

__all__ = [
    "DIMS",
    "FIELDS",
    "SCHEMA_VERSION",
    "STATUS",
    "Journal",
    "bootstrap_interval",
    "document",
    "empty_dataset",
    "export_csv",
    "export_netcdf",
    "factors",
    "fill",
    "finish",
    "is_predicted",
    "load",
    "partial_path",
    "read_journal",
    "record_dtype",
    "save",
    "state_of",
    "thresholds",
    "tracks",
    "validate",
]
