"""Documents of earlier versions in the words of this one, and back.

Version 2 (this one) renamed fields of version 1, renamed some of their values and removed three fields. Covers: jobs,
policies, decisions and events in the database (migration 0004), and the reports, maps and answers that version 1 left
on disk. The functions map JSON to JSON and are frozen: a later version adds its own step and does not edit this one.
Not here: what the fields mean (the other modules of core.schemas), reading files (core.signing, securetune.client).
"""

from collections.abc import Mapping

from pydantic import JsonValue

Json = dict[str, JsonValue]

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
    "code": {"data_refused": "data_rejected"},
    "stage": {"refused": "base_refusal"},
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
_FREE = frozenset({"scales", "warmup_scales", "codes", "software", "columns"})
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
    return upgrade(document) | {"version": 2} if document.get("version") == 1 else document


def _upgraded(name: str, value: JsonValue, of: Json) -> JsonValue:
    match value:
        case dict():
            return value if name in _FREE else upgrade(value)
        case list():
            return [_upgraded(name, each, of) for each in value if not _of_pull(each)]
        case "highest" if name == "rule" and of.get("metric") not in _RATES:
            return "max_value"
        case "pull" if name == "stage":
            return "base_refusal"  # the other stage in which the base model read the rows
        case str():
            return _RULES.get(value, value) if name == "rule" else _VALUES.get(name, {}).get(value, value)
        case _:
            return value


def _downgraded(name: str, value: JsonValue) -> JsonValue:
    match value:
        case dict():
            return value if name in _FREE else downgrade(value)
        case list():
            return [_downgraded(name, each) for each in value]
        case str():
            return _OLD_RULES.get(value, value) if name == "rule" else _OLD_VALUES.get(name, {}).get(value, value)
        case _:
            return value


def _of_pull(value: JsonValue) -> bool:
    return isinstance(value, dict) and value.get("check") == "pull"
