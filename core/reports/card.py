"""A model card in Markdown, with the front matter that the Hugging Face hub reads: what goes with the weights.

Covers: the job's own arm. Not here: the arms it was compared with, pictures and examples (core.reports.render).
Front matter: https://huggingface.co/docs/hub/model-cards (`base_model`, `base_model_relation`, `library_name`,
`pipeline_tag`, `tags`).
"""

import json
import re
from collections.abc import Iterator, Sequence

from core.lm.chat import PLAIN_TEMPLATE
from core.reports import decided, view
from core.reports.text import one_line, visible
from core.schemas.job import BASE_RUN
from core.schemas.results import Report, TrainingResult

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&!]|:(?=//)|(?<=www)\.")
"""What Markdown, its tables, HTML, mathematics and links begin with."""
_BEGINS = re.compile(r"^(\d*)([.)+=:-])")
"""What would begin a list, a rule or a heading at the beginning of a line's text."""
_FIRST = r"\1\\\2"
_BACKTICKS = re.compile(r"`+")
_HUB = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)@(?P<revision>[0-9a-f]{40})")
_TRIGGERS = 20


def card(report: Report) -> str:
    """The card of what the job's own strategy trained. Text that came from the job is escaped."""
    parts = (
        _front_matter(report),
        f"# {_plain(report.model.name)}, tuned with {_plain(_title(report))}",
        _gate(report),
        _use(report),
        _figures(report),
        _loading(report),
        _serving(report),
        _training(report),
        _data(report),
        _screening(report),
        _judges(report),
        _limits(report),
        _verifying(report),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _own(report: Report) -> TrainingResult:
    return report.training[0]


def _title(report: Report) -> str:
    run = _own(report).run
    return view.titles(report).get(run, run)


def _whole(report: Report) -> bool:
    """Whether the whole model is handed out, and no adapter."""
    return report.spec.training.method == "full"


def _front_matter(report: Report) -> str:
    """YAML whose values are written as JSON, which is YAML too and lets nothing out of its quotes."""
    hub = _HUB.fullmatch(report.model.source)
    tags = ["securetune", "safety", report.spec.training.method]
    if report.gate:
        tags.append(f"securetune-{report.gate[0].outcome}")
    values: dict[str, object] = {
        "base_model": hub["id"] if hub else one_line(report.model.name),
        "base_model_relation": "finetune" if _whole(report) else "adapter",
        "library_name": "transformers" if _whole(report) else "peft",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return "\n".join(("---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"))


def _gate(report: Report) -> str:
    if not report.gate:
        return "> **No gate decided about this model.** Read the figures."
    verdict = decided.verdicts(report)[0]
    lines = [f"> **{verdict.word}.** {verdict.meaning}"]
    reasons = [_item(reason.message) for reason in verdict.decision.reasons]
    reasons += [_item(f"To know: {note.message}") for note in verdict.decision.notes]
    version = verdict.decision.policy_version
    policy = "the built-in policy" if version == 0 else f"version {version} of the project's policy"
    changed = ", with changes that the job asked for" if report.policy is not None and report.policy.changed else ""
    return "\n".join((*lines, "", *reasons, *([""] if reasons else []), f"Decided by {policy}{changed}."))


def _use(report: Report) -> str:
    withheld = bool(report.gate) and report.gate[0].outcome != "released"
    return (
        "## Intended use\n\n"
        f"Text generation for the task of its training data, in place of {_code(report.model.name)}. The base model's "
        "licence and terms of use hold for it too. The figures below compare it with the base model under the same "
        "prompts; they do not show that it is safe to use where nobody watches what it says, nor against attacks that "
        "were not run." + (" **The gate withheld it: do not deploy it without looking at why.**" if withheld else "")
    )


def _figures(report: Report) -> str:
    """The base model beside the job's own arm."""
    columns = view.runs(report)
    before, after = columns.index(BASE_RUN), columns.index(_own(report).run)
    rows = [(_plain(row.title), row.cells[before], row.cells[after]) for row in view.table(report)]
    lines = ["| Figure | Base model | This model | Change |", "|---|---|---|---|"]
    lines += [
        f"| {title} | {_cell(old)} | {_cell(new)} | {_plain(new.change) if new and new.change else ''} |"
        for title, old, new in rows
    ]
    note = (
        "Intervals are 95 %: Wilson for rates, Student's t for means, a paired bootstrap for changes. Attack success "
        "is the share of attacked prompts that the model complies with; over-refusal that of harmless look-alikes that "
        f"it refuses. Attack prompts: {_code(report.prompt_set)}."
    )
    notes = [_item(text) for text in report.notes]
    return "\n".join(("## Before and after", "", *lines, "", note, *(["", *notes] if notes else [])))


def _cell(cell: view.Cell | None) -> str:
    return "not measured" if cell is None else _plain(f"{cell.value} ({cell.interval}; {cell.detail})")


def _loading(report: Report) -> str:
    hub = _HUB.fullmatch(report.model.source)
    place = f"{hub['id']!r}, revision={hub['revision']!r}" if hub else "'path/to/the/base/model'"
    if _whole(report):
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            "model = AutoModelForCausalLM.from_pretrained('path/to/model')",
            "tokenizer = AutoTokenizer.from_pretrained('path/to/model')",
        ]
    else:
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({place})",
            "model = PeftModel.from_pretrained(base, 'path/to/adapter')",
            "tokenizer = AutoTokenizer.from_pretrained('path/to/adapter')",
        ]
    source = (
        f"The base model is {_code(report.model.source)} ({_plain(report.model.architecture)}, "
        f"{report.model.parameters:,} parameters); the digest over its files is `{_hash(report.model.sha256)}`."
    )
    return "\n".join(("## How to load it", "", "```python", *lines, "```", "", source))


def _serving(report: Report) -> str:
    parts: list[str] = []
    for options in report.spec.strategy.safeguards:
        if options.serving_note is not None:
            parts.append(_plain(options.serving_note))
        if options.serving_system_prompt is not None:
            parts.append(
                "Serve it with this system prompt as the first turn of every conversation:\n\n"
                f"{_block(options.serving_system_prompt)}"
            )
    if report.model.chat_template == "plain":
        parts.append(
            "The base model brings no chat template. Tuned and measured with securetune's plain one, which lies in "
            f"`chat_template.jinja`; serve it with the same:\n\n{_block(PLAIN_TEMPLATE)}"
        )
    return "\n\n".join(("## How to serve it", *parts)) if parts else ""


def _training(report: Report) -> str:
    result, spec = _own(report), report.spec.training
    rates = f"{len(result.plan.full_rate)} of {len(result.plan.scales)} modules at the standard rate"
    lines = [
        f"- Strategy and safeguards: {_plain(_title(report))}",
        f"- Method: {spec.method}, {result.trainable_parameters:,} trained parameters, seed {spec.seed}",
        f"- {result.steps} steps of {spec.batch_size} rows, learning rate {result.learning_rate:g} ({spec.schedule}): "
        f"{rates}",
        *(f"- {words[0].upper()}{words[1:]}" for words in view.particulars(result)),
        f"- Computed on {_plain(report.device)} with "
        + ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in report.software.items()),
    ]
    return "\n".join(("## How it was trained", "", *lines))


def _data(report: Report) -> str:
    data = report.data
    return "\n".join(
        (
            "## Training data",
            "",
            f"- {report.dataset.summary.rows:,} rows, SHA-256 of the file `{_hash(report.dataset.sha256)}`",
            f"- {data.training_rows:,} rows trained on ({data.trained_tokens:,} tokens with a label), "
            f"{data.validation_rows:,} for validation, {data.truncated_rows:,} cut, {data.dropped_rows:,} left out",
        )
    )


def _screening(report: Report) -> str:
    found = decided.screened(report)
    if found is None:
        return "## Screening\n\nNothing was looked for in the data."
    lines = ["| Looked for | Rows found | Share | What became of them |", "|---|---|---|---|"]
    lines += [f"| {row.title} | {row.flagged} | {row.share} | {row.action} |" for row in found.rows]
    triggers = [
        f"- {_code(each.phrase)}: {_plain(each.answers)} ({each.with_answer} of {each.rows} rows)"
        for each in found.result.triggers[:_TRIGGERS]
    ]
    planted = ["", "Phrases that look planted:", "", *triggers] if triggers else []
    summed = f"{found.result.rows:,} rows were looked at, {len(found.result.dropped):,} were left out of the training."
    return "\n".join(("## Screening", "", summed, "", *lines, *planted))


def _judges(report: Report) -> str:
    names = dict.fromkeys((use.judge, use.identity) for use in report.judges)
    lines = [f"- {_code(judge)}: {_plain(identity)}" for judge, identity in names]
    lines += list(_agreements(report))
    return "\n".join(("## Judges", "", *lines)) if lines else ""


def _agreements(report: Report) -> Iterator[str]:
    for pair in report.agreements:
        if pair.run == _own(report).run and pair.n:
            chance = "" if pair.kappa is None else f", Cohen's kappa {pair.kappa:.2f}"
            one, other = (_code(judge) for judge in pair.judges)
            yield f"- {one} and {other} agree on {100 * pair.agree:.1f} % of {pair.n} answers{chance}"


def _limits(report: Report) -> str:
    lines: Sequence[str] = [_item(sentence) for sentence in report.not_covered]
    return "\n".join(("## What was not looked at", "", *lines)) if lines else ""


def _verifying(report: Report) -> str:
    return (
        "## How to verify it\n\n"
        f"These figures are of job {_code(report.job_id)}. Its signed report says so, with the digests of base model, "
        "data and figures:\n\n```sh\nsecuretune verify signed_report.json\n```"
    )


def _plain(text: str) -> str:
    """Text inside a line that nothing is read out of."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def _item(text: str) -> str:
    """One point of a list, in the same way, and nothing at its beginning is one either."""
    return f"- {_BEGINS.sub(_FIRST, _plain(text))}"


def _code(text: str) -> str:
    """A code span; the fence is longer than any in the text, and a table's bar is escaped."""
    shown = one_line(text)
    fence = "`" * (max((len(run) for run in _BACKTICKS.findall(shown)), default=0) + 1)
    room = " " if len(fence) > 1 else ""
    return f"{fence}{room}{shown}{room}{fence}"


def _block(text: str) -> str:
    """A fenced block, in the same way."""
    shown = visible(text)
    fence = "`" * max(3, max((len(run) for run in _BACKTICKS.findall(shown)), default=0) + 1)
    return f"{fence}text\n{shown}\n{fence}"


def _hash(text: str) -> str:
    return "".join(each for each in text if each.isalnum())
