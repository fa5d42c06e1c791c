"""The model card in Markdown, with the front matter that the Hugging Face hub reads.

Covers: the job's own run. Not here: baselines, pictures and examples (core.reports.render).
Front matter: https://huggingface.co/docs/hub/model-cards (`base_model`, `base_model_relation`, `library_name`,
`pipeline_tag`, `tags`).
"""

import json
import re
from collections.abc import Iterable, Iterator

from core.lm.chat import PLAIN_TEMPLATE
from core.reports import decided, view
from core.reports.numbers import percent
from core.reports.text import one_line, visible
from core.schemas.job import BASE_RUN
from core.schemas.results import ModelIdentity, Report

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&!]|:(?=//)|(?<=www)\.")
"""Characters that start markup, HTML, mathematics or links in Markdown."""
_BLOCK_START = re.compile(r"^(\d*)([.)+=:-])")
"""Characters that start a list, a rule or a heading at the beginning of a line."""
_ESCAPED_START = r"\1\\\2"
_BACKTICKS = re.compile(r"`+")
_HUB = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)@(?P<revision>[0-9a-f]{40})")
_MAX_TRIGGERS = 20


def card(report: Report) -> str:
    """The card of the model that the job's own strategy trained. Text from the job is escaped."""
    parts = (
        _front_matter(report),
        f"# {_plain(report.model.name)}, fine-tuned with {_plain(_title(report))}",
        _gate(report),
        _use(report),
        _figures(report),
        _loading(report),
        _section("How to serve it", _serving(report), gap="\n\n"),
        _section("How it was trained", _training(report)),
        _data(report),
        _screening(report),
        _section("Judges", _judges(report)),
        _section("Limitations", map(_item, report.not_covered)),
        _verifying(report),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(heading: str, parts: Iterable[str], gap: str = "\n") -> str:
    """A section, or an empty text if it has no content."""
    content = gap.join(parts)
    return f"## {heading}\n\n{content}" if content else ""


def _title(report: Report) -> str:
    run = report.training[0].run
    return view.titles(report).get(run, run)


def _is_whole_model(report: Report) -> bool:
    """Whether the job trained the whole model instead of an adapter."""
    return report.spec.training.method == "full"


def _front_matter(report: Report) -> str:
    """YAML front matter. Values are written as JSON, which is valid YAML and always quoted."""
    hub = _HUB.fullmatch(report.model.source)
    tags = ["securetune", "safety", report.spec.training.method]
    if report.gate:
        tags.append(f"securetune-{report.gate[0].outcome}")
    values: dict[str, object] = {
        "base_model": hub["id"] if hub else one_line(report.model.name),
        "base_model_relation": "finetune" if _is_whole_model(report) else "adapter",
        "library_name": "transformers" if _is_whole_model(report) else "peft",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return "\n".join(("---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"))


def _gate(report: Report) -> str:
    if not report.gate:
        return "> **The gate did not decide about this model.** Review the figures."
    verdict = decided.verdicts(report)[0]
    reasons = [_item(reason.message) for reason in verdict.decision.reasons]
    reasons += [_item(f"Note: {note.message}") for note in verdict.decision.notes]
    version = verdict.decision.policy_version
    policy = "the built-in policy" if version == 0 else f"version {version} of the project's policy"
    changes = ", with changes that the job requested" if report.policy is not None and report.policy.changed else ""
    decided_by = f"Decided by {policy}{changes}."
    pins = [text for sentence in decided.pinned(report) for text in ("", _plain(sentence))]
    head = f"> **{verdict.word}.** {verdict.meaning}"
    return "\n".join((head, "", *reasons, *([""] if reasons else []), decided_by, *pins))


def _use(report: Report) -> str:
    withheld = bool(report.gate) and report.gate[0].outcome != "released"
    return (
        "## Intended use\n\n"
        f"Text generation for the task of its training data, instead of {_code(report.model.name)}. The licence and "
        "terms of use of the base model apply. The figures below compare the model with its base model on the same "
        "prompts. They do not show that it is safe to use without supervision, or against attacks that were not run."
        + (
            " **The gate withheld this model: do not deploy it before you have reviewed the reasons.**"
            if withheld
            else ""
        )
    )


def _figures(report: Report) -> str:
    """The base model beside the job's own run."""
    columns = view.runs(report)
    before, after = columns.index(BASE_RUN), columns.index(report.training[0].run)
    rows = [(_plain(row.title), row.cells[before], row.cells[after]) for row in view.table(report)]
    lines = ["| Figure | Base model | This model | Change |", "|---|---|---|---|"]
    lines += [
        f"| {title} | {_cell(old)} | {_cell(new)} | {_plain(_change(new)) if new is not None else ''} |"
        for title, old, new in rows
    ]
    note = (
        "Intervals are 95 % confidence intervals: Wilson for rates, Student's t for means, a paired bootstrap for "
        "changes. The attack success rate is the share of attacks that the model complies with; the over-refusal rate "
        f"is the share of harmless prompts that it refuses. Attack prompts: {_code(report.prompt_set)}."
        f"{f' {_plain(noise)}' if (noise := view.noise_note(report)) else ''}"
    )
    notes = [_item(text) for text in report.notes]
    return "\n".join(("## Before and after", "", *lines, "", note, *(["", *notes] if notes else [])))


def _change(cell: view.Cell) -> str:
    return "; ".join(filter(None, (cell.change, cell.noise)))


def _cell(cell: view.Cell | None) -> str:
    return "not measured" if cell is None else _plain(f"{cell.value} ({cell.interval}; {cell.detail})")


def _loading(report: Report) -> str:
    hub = _HUB.fullmatch(report.model.source)
    base = f"{hub['id']!r}, revision={hub['revision']!r}" if hub else "'path/to/base-model'"
    if _is_whole_model(report):
        folder, imports = "path/to/model", ""
        load = f"model = AutoModelForCausalLM.from_pretrained('{folder}')"
    else:
        folder, imports = "path/to/adapter", "from peft import PeftModel\n"
        load = (
            f"base = AutoModelForCausalLM.from_pretrained({base})\nmodel = PeftModel.from_pretrained(base, '{folder}')"
        )
    return (
        f"## How to load it\n\n```python\n{imports}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"{load}\ntokenizer = AutoTokenizer.from_pretrained('{folder}')\n```\n\n"
        f"The base model is {_code(report.model.source)} ({_plain(report.model.architecture)}, "
        f"{report.model.parameters:,} parameters). {_digests(report.model)}"
    )


def _digests(model: ModelIdentity) -> str:
    if model.files_sha256 is None:
        return f"The SHA-256 over its files is {_code(model.sha256)}."
    return (
        f"The SHA-256 of the GGUF file is {_code(model.sha256)}. Load the files that it was converted into "
        f"(`securetune models convert`); the SHA-256 over these is {_code(model.files_sha256)}."
    )


def _serving(report: Report) -> Iterator[str]:
    for options in report.spec.strategy.safeguards:
        if options.serving_note is not None:
            yield _plain(options.serving_note)
        if options.serving_system_prompt is not None:
            yield (
                "Serve it with this system prompt as the first turn of every conversation:\n\n"
                f"{_block(options.serving_system_prompt)}"
            )
    if report.model.chat_template == "plain":
        yield (
            "The base model has no chat template. The model was trained and evaluated with securetune's plain template "
            f"in `chat_template.jinja`. Serve it with the same template:\n\n{_block(PLAIN_TEMPLATE)}"
        )


def _training(report: Report) -> Iterator[str]:
    result, spec = report.training[0], report.spec.training
    full_rate = f"{len(result.plan.full_rate)} of {len(result.plan.scales)} modules at the standard rate"
    yield f"- Strategy and safeguards: {_plain(_title(report))}"
    yield f"- Method: {spec.method}, {result.trainable_parameters:,} trained parameters, seed {spec.seed}"
    yield (
        f"- {result.steps} steps with {spec.batch_size} rows each, learning rate {result.learning_rate:g} "
        f"({spec.schedule}): {full_rate}"
    )
    if report.spec.repairs is not None:
        yield f"- Begins with the quarantined weights of job {_code(report.spec.repairs)}"
    for note in view.training_notes(result, view.proofs(report).get(result.run)):
        yield f"- {note[0].upper()}{note[1:]}"
    if report.precision is not None:
        yield f"- {_plain(report.precision.sentence)}"
    software = ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in report.software.items())
    yield f"- Computed on {_plain(report.device)} with {software}"


def _data(report: Report) -> str:
    data = report.data
    return (
        "## Training data\n\n"
        f"- {report.dataset.summary.rows:,} rows, SHA-256 of the file {_code(report.dataset.sha256)}\n"
        f"- {data.training_rows:,} rows for training ({data.trained_tokens:,} tokens in the loss), "
        f"{data.validation_rows:,} for validation, {data.truncated_rows:,} truncated, {data.dropped_rows:,} left out"
    )


def _screening(report: Report) -> str:
    screened = decided.screened(report)
    if screened is None:
        return "## Screening\n\nThe dataset was not screened."
    lines = ["| Check | Flagged rows | Share | Action |", "|---|---|---|---|"]
    lines += [f"| {_plain(row.title)} | {row.flagged} | {row.share} | {row.action} |" for row in screened.rows]
    triggers = [
        f"- {_code(each.phrase)}: {_plain(each.answers)} ({each.with_answer} of {each.rows} rows)"
        for each in screened.result.triggers[:_MAX_TRIGGERS]
    ]
    if triggers:
        lines += ["", "Possible triggers:", "", *triggers]
    summary = (
        f"{screened.result.rows:,} rows were screened; {len(screened.result.dropped):,} were left out of training."
    )
    return "\n".join(("## Screening", "", summary, "", *lines))


def _judges(report: Report) -> Iterator[str]:
    for judge, identity in dict.fromkeys((use.judge, use.identity) for use in report.judges):
        yield f"- {_code(judge)}: {_plain(identity)}"
    for pair in report.agreements:
        if pair.run == report.training[0].run and pair.n:
            kappa = "" if pair.kappa is None else f", Cohen's kappa {pair.kappa:.2f}"
            one, other = (_code(judge) for judge in pair.judges)
            yield f"- {one} and {other} agree on {percent(pair.agree)} of {pair.n} answers{kappa}"


def _verifying(report: Report) -> str:
    return (
        "## How to verify it\n\n"
        f"The figures are from job {_code(report.job_id)}. Its signed report confirms them, together with the digests "
        "of base model, data and files:\n\n```sh\nsecuretune verify signed_report.json\n```"
    )


def _plain(text: str) -> str:
    """Escape text for use inside a line."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", one_line(text))


def _item(text: str) -> str:
    """A list item with escaped text."""
    return f"- {_BLOCK_START.sub(_ESCAPED_START, _plain(text))}"


def _code(text: str) -> str:
    """A code span, with a fence longer than any in the text."""
    line = one_line(text)
    fence = "`" * (max((len(run) for run in _BACKTICKS.findall(line)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{line}{space}{fence}"


def _block(text: str) -> str:
    """A fenced block, with a fence longer than any in the text."""
    content = visible(text)
    fence = "`" * max(3, max((len(run) for run in _BACKTICKS.findall(content)), default=0) + 1)
    return f"{fence}text\n{content}\n{fence}"
