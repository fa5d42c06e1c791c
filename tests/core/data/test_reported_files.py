"""Small files that failed for users of other trainers and of earlier versions: read, or rejected for what they are.

The files are public data beside the repository; each kind has a test of its own that needs no files (test_layouts,
test_streams, test_turns).
"""

from pathlib import Path

import pytest

from core.data import validate
from core.errors import InvalidDataset

READ = {
    "alpaca_history.jsonl": "alpaca",
    "alpaca_tools.jsonl": "alpaca",
    "assistant_first.jsonl": "messages",
    "axolotl_training_false.jsonl": "messages",
    "bedrock_system.jsonl": "messages",
    "caps_header.csv": "prompt_completion",
    "developer_role.jsonl": "messages",
    "dolly.jsonl": "dolly",
    "ends_user.jsonl": "messages",
    "eos_in_answer.jsonl": "prompt_completion",
    "german_semicolon.csv": "prompt_completion",
    "gz.jsonl.gz": "messages",
    "hermes_fc.jsonl": "sharegpt",
    "indented_code.jsonl": "prompt_completion",
    "mac_cr.csv": "prompt_completion",
    "mid_system.jsonl": "messages",
    "openorca.jsonl": "openorca",
    "parts_content.jsonl": "messages",
    "pretty_objects.jsonl": "messages",
    "reasoning_field.jsonl": "messages",
    "sharegpt.jsonl": "sharegpt",
    "tabs.tsv": "prompt_completion",
    "text_only.jsonl": "text",
    "tool_calls.jsonl": "messages",
    "tools_empty_json_string.jsonl": "messages",
    "tools_empty_string.jsonl": "messages",
    "utf16le.jsonl": "messages",
    "utf32.jsonl": "messages",
    "weight0.jsonl": "messages",
}
REJECTED = {
    "alpaca_images.jsonl": "images",
    "alpaca_rejected.jsonl": "every row is left out",
    "audios.jsonl": "audios",
    "comma_lines.jsonl": "the line ends with a comma",
    "content_null.jsonl": "messages[1].content",
    "double_encoded.jsonl": "a string that contains JSON",
    "kto_prompt_label.jsonl": "KTO",
    "llava_image.jsonl": "images",
    "nan_csv.csv": "line 6, output: the text is empty",
    "par.parquet": "Parquet file is damaged",
    "two_formats.jsonl": "name it with a column map",
    "zero_width_assistant.jsonl": "the text is empty",
    "zst.jsonl.zst": "the compressed file is damaged",
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read(public_data: Path, name: str) -> None:
    summary = validate(public_data / "bug-inputs" / name, max_rows=1000)
    assert summary.row_format == READ[name]
    assert summary.rows > 0


@pytest.mark.parametrize("name", REJECTED)
def test_it_is_rejected_for_its_reason(public_data: Path, name: str) -> None:
    with pytest.raises(InvalidDataset) as caught:
        validate(public_data / "bug-inputs" / name, max_rows=1000)
    assert REJECTED[name] in caught.value.message
