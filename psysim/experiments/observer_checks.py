"""What an experiment file says of its observers: decision, model, options, audiogram."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from psysim.errors import PsysimError, PsysimWarning, did_you_mean
from psysim.experiments.messages import show, unknown_key
from psysim.experiments.spec import ObserverSpec, TaskSpec

if TYPE_CHECKING:
    from psysim.experiments.validation import _Checker

__all__ = ["checked_observers"]


def checked_observers(check: _Checker, fs: float, task: TaskSpec) -> tuple[ObserverSpec, ...]:
    """Return the observers of a description whose other parts are checked; add what is wrong to its problems."""
    entries = check.tables.get("observers", [])
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        if "observers" in check.tables:
            check.add("observers", "must be one or more tables, each written [[observers]].")
        return ()
    found = [_observer(check, i, dict(entry), fs) for i, entry in enumerate(entries)]
    if not check.problems and task.make().identifies:
        for i, observer in enumerate(found):
            if observer is not None and not check.registries["observer"].get(observer.decision).identifies:
                check.add(f"observers[{i}].decision", f"= '{observer.decision}' cannot name what it hears.")
    for i, observer in enumerate(found if _for_two_ears(check) else ()):
        kind = None if observer is None else check.registries["observer"].get(observer.decision)
        if kind is not None and kind.needs_sound and not kind.two_ears:
            check.add(f"observers[{i}].decision", "hears one ear, but the stimulus is for two: use 'binaural'.")
    names = [o.name for o in found if o is not None]
    for name in sorted({n for n in names if names.count(n) > 1}):
        check.add("observers", f"two observers are named '{name}': give each a name of its own (name = \"...\").")
    return tuple(o for o in found if o is not None)


def _for_two_ears(check: _Checker) -> bool:
    name, registry = check.table("stimulus").get("kind"), check.registries["stimulus"]
    return isinstance(name, str) and name in registry and registry.get(name).n_ears == 2


def _observer(check: _Checker, i: int, entry: dict[str, Any], fs: float) -> ObserverSpec | None:
    key = f"observers[{i}]"
    registry = check.registries["observer"]
    decision, model = entry.pop("decision", None), entry.pop("model", None)
    name, options = entry.pop("name", None), entry.pop("model_options", {})
    audiogram, share = _located(check, entry.pop("audiogram", None)), entry.pop("ohc_share", None)
    if share is not None and (audiogram is None or isinstance(share, bool) or not isinstance(share, int | float)):
        check.add(f"{key}.ohc_share", "must be a number from 0 to 1, beside an audiogram.")
        share = None
    aid, aid_folder = _aid(check, key, entry.pop("aid", None), fs, audiogram)
    _fitted_to(check, key, entry.pop("fitted_to", []))
    if decision is None:
        check.add(f"{key}.decision", f"is missing. Known: {', '.join(registry.names())}.")
        return None
    if decision not in registry:
        hint = did_you_mean(decision, registry.names())
        known = ", ".join(registry.names())
        check.add(f"{key}.decision", f"= {show(decision)} is not known. Known: {known}.{hint}")
        return None
    kind = registry.get(decision)
    if isinstance(entry.get("path"), str):
        entry["path"] = str(check.folder / entry["path"])
    settings = check.settings(kind.Settings, entry, key)
    if not isinstance(options, dict):
        check.add(f"{key}.model_options", "must be a table of the model's arguments.")
        options = {}
    if kind.needs_model:
        _model(check, key, model, options, fs, audiogram, share)
    elif model is not None:
        check.add(f"{key}.model", f"{decision} uses no model: remove this key.")
    elif audiogram is not None:
        check.add(f"{key}.audiogram", f"{decision} uses no model: remove this key.")
    if aid is not None and not kind.needs_model and not kind.needs_sound:
        check.add(f"{key}.aid", f"{decision} hears no sound: remove this key.")
    _inline(check, i, aid, audiogram)
    name = name or (model if kind.needs_model else decision)
    if settings is None or not isinstance(name, str):
        return None
    return ObserverSpec(
        name=name,
        decision=decision,
        model=model,
        model_options=options,
        audiogram=audiogram if isinstance(audiogram, str | dict) else None,  # anything else is a problem already
        ohc_share=share,
        aid=aid,
        aid_folder=aid_folder,
        settings=settings.model_dump(),
    )


def _inline(check: _Checker, i: int, aid: dict[str, Any] | None, audiogram: object) -> None:
    """Put what the files of an aid and an audiogram hold in place of their names.

    The description is stored with the result, and compared when a run is continued: a file that was changed in between
    is then another experiment. An aid that names further files (a user's candidate) stays a name: they are beside it.
    """
    from psysim.hearing import as_audiogram

    stored = check.tables["observers"][i]
    if aid is not None and isinstance(stored.get("aid"), str) and not _names_files(aid):
        stored["aid"] = aid
    if isinstance(audiogram, dict) and "file" in audiogram:
        try:
            ear = as_audiogram(audiogram)
        except PsysimError:
            return  # a problem already
        stored["audiogram"] = {
            "name": ear.name,
            "frequency_hz": list(ear.frequency_hz),
            "level_db_hl": list(ear.level_db_hl),
        }


def _names_files(value: object) -> bool:
    if isinstance(value, dict):
        return bool({"file", "folder", "command"} & value.keys()) or any(map(_names_files, value.values()))
    return isinstance(value, list) and any(map(_names_files, value))


def _fitted_to(check: _Checker, key: str, names: object) -> None:
    """Check the data sets that an observer's parameters are said to be fitted to; reports tell them from the others."""
    from psysim import human

    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        check.add(f"{key}.fitted_to", 'must be a list of data sets, for instance ["tmtf_parameters"].')
        return
    for name in names:
        if name not in human.names():
            check.add(f"{key}.fitted_to", f"= {show(name)} is no data set.{did_you_mean(name, human.names())}")


def _located(check: _Checker, audiogram: object) -> object:
    """Return what states the audiogram, with the path of a file from the experiment's folder."""
    if isinstance(audiogram, dict) and isinstance(audiogram.get("file"), str):
        return {**audiogram, "file": str(check.folder / audiogram["file"])}
    return audiogram


def _aid(check: _Checker, key: str, given: object, fs: float, audiogram: object) -> tuple[dict[str, Any] | None, str]:
    """Check the hearing aid of an observer: the name of a file beside the experiment, or a table."""
    if given is None:
        return None, "."
    from psysim.hearing.aids import make_aid
    from psysim.hearing.aids.files import read_aid

    try:
        path = check.folder / given if isinstance(given, str) else None
        table = given if path is None else read_aid(path)
        folder = check.folder if path is None else path.parent
        aid = make_aid(table, fs, audiogram, folder)  # type: ignore[arg-type]
    except PsysimError as error:
        check.add(f"{key}.aid", str(error) if not isinstance(given, str) else f"= {show(given)}: {error}")
        return None, "."
    if aid.needs_sources:
        check.add(f"{key}.aid", "needs target and noise apart, which an experiment does not give: use another aid.")
    return dict(table), str(folder)  # type: ignore[call-overload]


def _model(
    check: _Checker, key: str, name: object, options: dict[str, Any], fs: float, audiogram: object, share: float | None
) -> None:
    from psysim.hearing import as_audiogram, hearing_loss_options
    from psysim.models import registry

    known = ", ".join(registry.names())
    if name is None:
        check.add(f"{key}.model", f"is missing. Known: {known}.")
    elif name not in registry:
        hint = did_you_mean(name, registry.names())
        check.add(f"{key}.model", f"= {show(name)} is not known. Known: {known}.{hint}")
    else:
        import inspect

        kind = registry.get(str(name))
        allowed = [p for p in inspect.signature(kind).parameters if p not in ("fs", "learnable", "return_stages")]
        unknown = [option for option in options if option not in allowed]
        for option in unknown:
            check.add(f"{key}.model_options.{option}", unknown_key(option, allowed))
        if not unknown:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", PsysimWarning)  # what a library user may want, a run may not
                    model = kind(fs=fs, **options)
            except (PsysimError, PsysimWarning, TypeError, ValueError) as error:
                check.add(f"{key}.model_options", str(error))
                return
            if audiogram is not None:
                try:
                    hearing_loss_options(str(name), model, as_audiogram(audiogram), share)
                except PsysimError as error:
                    check.add(f"{key}.audiogram", str(error))
