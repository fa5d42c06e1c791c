"""The plain chat template, for a tokenizer without its own, if the server's list of models requests it.

It is never used silently: the model's entry contains `chat_template = "plain"`, the job warns, and report and adapter
name it. Not here: the templates of models (core.lm.prompts, core.data.template).
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
"""`### User:`, the text, a blank line, `### Assistant:`, the text, end of sequence. It adds no tokens."""


def use_plain_template(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give `PLAIN_TEMPLATE` to a tokenizer that has no chat template; saving the tokenizer saves it too.

    Raises:
        InvalidModel: code `chat_template_exists`, or `chat_template_unsupported` without an end-of-sequence token.
    """
    if tokenizer.chat_template is not None:
        raise InvalidModel(
            f"Base model {name!r} has its own chat template, which it was trained with. Remove "
            'chat_template = "plain" from its entry in the server\'s list of models.',
            code="chat_template_exists",
            param="base_model",
        )
    if tokenizer.eos_token_id is None:
        raise InvalidModel(
            f"The tokenizer of base model {name!r} has no end-of-sequence token, which the plain chat template needs "
            "to end a turn. Add an end-of-sequence token or a chat template to the tokenizer.",
            code="chat_template_unsupported",
            param="base_model",
        )
    tokenizer.chat_template = PLAIN_TEMPLATE
