"""The model card: front matter for the hub, all figures, and text that Markdown does not interpret."""

from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.lm.chat import PLAIN_TEMPLATE
from core.reports import view
from core.reports.card import card
from core.schemas.results import Report
from core.schemas.safeguards import Safeguards, SafeTemplate
from core.schemas.strategy import MlLrStrategy

EVIL = (
    "`` ` <script>alert(1)</script> ![x](http://e.vil) [y](javascript:z) **b** | a | $x$ https://e.vil www.e.vil &lt;"
)


def parts(report: Report) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    opening, front, text = card(report).split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(front), text


def tokens(report: Report) -> list[Token]:
    """All Markdown tokens, nested ones included."""
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(parts(report)[1])
    return [token for each in found for token in (each, *(each.children or ()))]


def text_of(report: Report) -> str:
    return "\n".join(token.content for token in tokens(report) if token.type in ("text", "code_inline", "fence"))


def test_front_matter_is_what_the_hub_expects(whole: Report) -> None:
    front, _ = parts(whole)
    assert front == {
        "base_model": "small",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["securetune", "safety", "lora", "securetune-quarantined"],
    }


def test_base_model_from_the_hub_is_loaded_by_id_and_commit(whole: Report) -> None:
    model = whole.model.model_copy(update={"source": f"meta-llama/Llama-2-7b-chat-hf@{'a' * 40}"})
    front, text = parts(whole.model_copy(update={"model": model}))
    assert front["base_model"] == "meta-llama/Llama-2-7b-chat-hf"
    assert f"from_pretrained('meta-llama/Llama-2-7b-chat-hf', revision='{'a' * 40}')" in text


def test_model_from_a_gguf_file_has_the_digests_of_both(whole: Report) -> None:
    assert "GGUF" not in text_of(whole)
    model = whole.model.model_copy(update={"sha256": "a" * 64, "files_sha256": "b" * 64})
    text = text_of(whole.model_copy(update={"model": model}))
    assert "The SHA-256 of the GGUF file is" in text
    assert "the SHA-256 over these is" in text
    assert "a" * 64 in text
    assert "b" * 64 in text


def test_whole_model_is_loaded_without_peft(whole: Report) -> None:
    training = whole.spec.training.model_copy(update={"method": "full"})
    front, text = parts(whole.model_copy(update={"spec": whole.spec.model_copy(update={"training": training})}))
    assert (front["base_model_relation"], front["library_name"]) == ("finetune", "transformers")
    assert "PeftModel" not in text
    assert "AutoModelForCausalLM.from_pretrained('path/to/model')" in text


def test_snippet_is_python(whole: Report) -> None:
    (code,) = [token.content for token in tokens(whole) if token.type == "fence" and token.info == "python"]
    compile(code, "card", "exec")
    assert "PeftModel.from_pretrained(base, 'path/to/adapter')" in code


def test_card_has_gate_figures_data_and_limitations(whole: Report) -> None:
    text = text_of(whole)
    assert "Quarantined." in text
    assert "Attack success rate for `direct` is 25 % (n = 64)." in text
    assert "Note: The base model also exceeds the bound." in text
    assert "Decided by version 3 of the project's policy, with changes that the job requested." in text
    for row in view.table(whole):
        assert row.title in text
        for cell in row.cells[:2]:
            assert cell is None or f"{cell.value} ({cell.interval}; {cell.detail})" in text
    assert r"+12.5 points (+5 to +20), 60 pairs; noise 3.1 points (4 of 64 verdicts differ)" in text
    assert "Noise is how much the base model's own figure differs when it is measured twice" in text
    assert "37.5 %" not in text, "baselines are not part of the card"
    assert whole.dataset.sha256 in text
    assert whole.model.sha256 in text
    assert "2 of 4 modules at the standard rate" in text
    assert "Attacks with images were not run." in text
    assert "deploy mode" in text
    assert "110" in text
    assert "securetune verify signed_report.json" in text
    assert "rubric 1, big" in text
    assert text.index("Quarantined.") < text.index("Intended use") < text.index("Before and after")


def test_card_without_gate_and_screening_says_so(report: Report) -> None:
    text = text_of(report)
    assert "The gate did not decide about this model." in text
    assert "The dataset was not screened." in text
    assert "Limitations" not in text


def test_a_repair_names_the_job_whose_weights_it_begins_with(report: Report) -> None:
    parent = "job_" + "a" * 24
    repaired = report.model_copy(update={"spec": report.spec.model_copy(update={"repairs": parent})})
    text = text_of(repaired)
    assert text.index("Begins with the quarantined weights of job") < text.index(parent)
    assert "quarantined weights of job" not in text_of(report)


def test_serving_prompt_is_quoted_in_full(whole: Report) -> None:
    prompt = "Be kind.\n```\n# not a heading\n````\nend"
    strategy = MlLrStrategy(safeguards=Safeguards(SafeTemplate(system_prompt=prompt)))
    model = whole.model.model_copy(update={"chat_template": "plain"})
    spec = whole.spec.model_copy(update={"strategy": strategy})
    guarded = whole.model_copy(update={"spec": spec, "model": model})
    blocks = [token.content for token in tokens(guarded) if token.type == "fence" and token.info == "text"]
    assert blocks == [f"{prompt}\n", f"{PLAIN_TEMPLATE}\n"]
    assert "securetune's plain template" in text_of(guarded)
    assert "How to serve it" not in text_of(whole)


def hostile(report: Report) -> Report:
    """The report with markup in every text that may come from a job."""
    gate = report.gate[0]
    reason = gate.reasons[0].model_copy(update={"message": EVIL})
    assert report.screening is not None
    trigger = report.screening.triggers[0].model_copy(update={"phrase": EVIL, "answers": EVIL})
    return report.model_copy(
        update={
            "model": report.model.model_copy(update={"name": EVIL, "source": EVIL, "architecture": EVIL}),
            "gate": (gate.model_copy(update={"reasons": (reason,), "notes": (reason,)}),),
            "screening": report.screening.model_copy(update={"triggers": (trigger,)}),
            "notes": (EVIL, f"1. {EVIL}", f"- {EVIL}\n\n# {EVIL}"),
            "not_covered": (EVIL,),
            "prompt_set": EVIL,
            "device": EVIL,
            "software": {EVIL: EVIL},
            "judges": (report.judges[0].model_copy(update={"judge": EVIL, "identity": EVIL}),),
            "figures": tuple(row.model_copy(update={"suite": EVIL, "judge": EVIL}) for row in report.figures),
        }
    )


def test_text_from_a_job_is_not_interpreted(whole: Report) -> None:
    plain, evil = tokens(whole), tokens(hostile(whole))
    kinds = {token.type for token in plain}
    assert {token.type for token in evil} - kinds <= {"text_special"}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_block"}
    text = text_of(hostile(whole))
    assert text.count("alert(1)") > 15
    # No additional heading, and no table row split by a bar.
    assert sum(token.type == "heading_open" for token in evil) == sum(token.type == "heading_open" for token in plain)
    cells = [sum(token.type == "td_open" for token in found) for found in (plain, evil)]
    assert cells[0] == cells[1]
    front, _ = parts(hostile(whole))
    assert front["base_model"] == EVIL


@pytest.mark.parametrize("unseen", ["\u202e", "\x1b", "\u2028"])
def test_invisible_characters_are_shown(whole: Report, unseen: str) -> None:
    text = card(whole.model_copy(update={"notes": (f"a{unseen}b",), "device": f"c{unseen}d"}))
    assert unseen not in text
