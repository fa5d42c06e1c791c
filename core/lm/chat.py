"""The plain chat template: for a tokenizer that brings none, where the server's list of models asks for it.

It is never taken silently: `chat_template = "plain"` stands in the model's entry, the job warns, and report and adapter
say so. Not here: templates that models bring (core.lm.prompts, core.data.template).
"""

from transformers import PreTrainedTokenizerBase

from core.errors import InvalidModel

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] }}"
    "{{ eos_token + '\\n' if message['role'] == 'assistant' else '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
"""`### User:`, the text, a blank line, `### Assistant:`, the text, end of sequence. No token of its own."""


def use_plain_template(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give `PLAIN_TEMPLATE` to a tokenizer that has no chat template; saving the tokenizer saves it too.

    Raises:
        InvalidModel: code `chat_template_exists`, or `chat_template_unsupported` without an end-of-sequence token.
    """
    if tokenizer.chat_template is not None:
        raise InvalidModel(
            f"Base model {name!r} has a chat template of its own, and is to be asked as it was trained: take "
            'chat_template = "plain" out of its entry in the server\'s list of models.',
            code="chat_template_exists",
            param="base_model",
        )
    if tokenizer.eos_token_id is None:
        raise InvalidModel(
            f"The tokenizer of base model {name!r} has no end-of-sequence token, with which the plain chat template "
            "ends a turn: give it one, or a chat template of its own.",
            code="chat_template_unsupported",
            param="base_model",
        )
    tokenizer.chat_template = PLAIN_TEMPLATE
