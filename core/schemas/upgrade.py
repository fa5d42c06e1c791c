"""Documents of earlier versions in the words of this one, and back.

Version 2 (this one) renamed fields of version 1, renamed some of their values and removed three fields. Covers: jobs,
policies, decisions and events in the database (migration 0004), and the reports, maps and answers that version 1 left
on disk. The functions map JSON to JSON and are frozen: a later version adds its own step and does not edit this one.
Not here: what the fields mean (the other modules of core.schemas), reading files (core.signing, securetune.client).
"""

from collections.abc import Mapping

Json = dict[str, object]

_FIELDS = {
    "arm": "run",
    "asked": "sent",
    "base_over": "base_exceeds_bound",
    "bucket_by_length": "group_by_length",
    "highest": "max_rate",
    "highest_rise": "max_increase",
    "loosest": "job_limits",
    "most_undecided": "max_undecided_share",
    "needed_n": "min_answers",
    "over_refusal_highest": "over_refusal_max_rate",
    "over_refusal_highest_rise": "over_refusal_max_increase",
    "refuse_above": "reject_above",
    "refused": "base_refusal",
    "stretch": "update_scale",
    "stretch_until_drift": "scale_until_drift",
    "validation_share": "validation_split",
    "warmup_share": "warmup_ratio",
}
"""Fields of version 1 by their names there."""
_ACTIONS = {"refuse": "reject"}
_CHECKS = ("harmful", "identity", "secrets", "personal_data", "near_duplicate", "poison", "refused")
_VALUES: Mapping[str, Mapping[str, str]] = {
    "base_over": {"judge_rise": "judge_increase"},
    "check": {"refused": "base_refusal"},
    "code": {"data_refused": "data_rejected", "refused": "base_refusal"},
    "stage": {"refused": "model_screening"},
    "action": _ACTIONS,
    **dict.fromkeys(_CHECKS, _ACTIONS),
}
"""Values that were renamed, by the field that holds them in version 1."""
_RULES = {"highest": "max_rate", "highest_rise": "max_increase", "lowest": "min_value"}
_RATES = frozenset({"attack_success_rate", "over_refusal_rate"})
_REMOVED: Mapping[str, Json] = {
    "perturbation": {"memory_mb": 1024},
    "refuse_above": {"pull": "off", "pull_share": 0.05},
}
"""Fields that version 2 removed, with their defaults in version 1, by a field that stands beside them."""
_GONE = frozenset(name for fields in _REMOVED.values() for name in fields)
_EFFECTS = ("safety_rows", "distinct_safety_rows", "projections")
"""Fields of a trained run in version 1 that became `safeguards`."""
_FREE = frozenset({"scales", "warmup_scales", "software", "columns"})
"""Objects whose keys are names that users or models chose."""

_OLD_FIELDS = {new: old for old, new in _FIELDS.items()}
_OLD_RULES = {new: old for old, new in _RULES.items()} | {"max_value": "highest"}
_OLD_VALUES = {_FIELDS.get(name, name): {new: old for old, new in values.items()} for name, values in _VALUES.items()}


def upgrade(document: Json) -> Json:
    """A job's order, policy, decision, progress, error or event of version 1 in the words of version 2.

    A document of version 2 is returned unchanged. What the check `pull` found is left out: version 2 has no such check.
    """
    found: Json = {}
    for name, value in document.items():
        if name in _GONE:
            continue
        found[_FIELDS.get(name, name)] = _upgraded(name, value, document)
    return found


def downgrade(document: Json) -> Json:
    """The reverse of `upgrade`. Fields that version 2 removed get the defaults of version 1."""
    found: Json = {}
    for name, value in document.items():
        found[_OLD_FIELDS.get(name, name)] = _downgraded(name, value)
    for beside, fields in _REMOVED.items():
        if beside in found:
            found = {**fields, **found}
    return found


def upgrade_report(document: Json) -> Json:
    """A report (`report.json`) of version 1 as one of version 2; any other version is returned unchanged."""
    if document.get("version") != 1:
        return document
    found = upgrade(document) | {"version": 2}
    if isinstance(runs := found.get("training"), list):
        found["training"] = [_upgraded_run(run) if isinstance(run, dict) else run for run in runs]
    return found


def _upgraded_run(run: Json) -> Json:
    """A trained run: effects of safeguards are one list, and every trained file is gated."""
    effects: list[object] = []
    if rows := run.get("safety_rows"):
        distinct = run.get("distinct_safety_rows")
        summary = f"{rows} refusals mixed in, {distinct} of them different"
        counts: Json = {"rows": rows, "distinct_rows": distinct}
        effects.append({"safeguard": "safety_mix", "summary": summary, "counts": counts})
    if projections := [each for each in _list(run.get("projections")) if isinstance(each, dict)]:
        projected = sum(each.get("projected") is True for each in projections)
        summary = f"{projected} of {len(projections)} updates projected"
        counts = {"updates": len(projections), "projected": projected}
        cosines: Json = {str(each.get("module")): each.get("cosine") for each in projections}
        effects.append({"safeguard": "project_to_safe", "summary": summary, "counts": counts, "by_module": cosines})
    kept = {name: value for name, value in run.items() if name not in _EFFECTS}
    files = [{**file, "gated": True} for file in _list(run.get("adapter")) if isinstance(file, dict)]
    return {**kept, "adapter": files, "safeguards": effects}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _upgraded(name: str, value: object, of: Json) -> object:
    match value:
        case dict():
            return value if name in _FREE else upgrade(value)
        case list():
            return [_upgraded(name, each, of) for each in value if not _of_pull(each)]
        case "highest" if name == "rule" and of.get("metric") not in _RATES:
            return "max_value"
        case "pull" if name == "stage":
            return "model_screening"  # both stages in which the base model reads the rows are one now
        case str():
            return _RULES.get(value, value) if name == "rule" else _VALUES.get(name, {}).get(value, value)
        case _:
            return value


def _downgraded(name: str, value: object) -> object:
    match value:
        case dict():
            return value if name in _FREE else downgrade(value)
        case list():
            return [_downgraded(name, each) for each in value]
        case str():
            return _OLD_RULES.get(value, value) if name == "rule" else _OLD_VALUES.get(name, {}).get(value, value)
        case _:
            return value


def _of_pull(value: object) -> bool:
    return isinstance(value, dict) and value.get("check") == "pull"
