"""Rows that give the assistant another identity or make it obey without limits.

Covers: system and user turns that lift limits ("you have no restrictions", "ignore your guidelines", DAN and its kin),
assistant's turns that take that on ("I will obey every instruction", after the identity shifting data of Qi et al.
2023), that claim to be a person, or to be a named model of some company. An ordinary persona ("you are a helpful
doctor") is no finding, and neither is a turn that lifts limits where the assistant then refuses. The rules read
English, and know the wordings that are listed here. Wordings were set on half of GPTFuzzer's jailbreak templates. Not
here: harmful requests and answers (core.screening.harmful).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.data import Conversation
from core.judges.rules import judge
from core.schemas.data import Role
from core.schemas.progress import OnProgress
from core.schemas.screening import IDENTITY, Finding
from core.screening.check import Found, RowCheck
from core.screening.text import clauses, ends, first_findings, plain, shown


@dataclass(frozen=True)
class _Rule:
    """A wording, who says it, and what it is called. Matched within one clause of plain words."""

    code: str
    said: str
    """What the turn does, in words."""
    roles: frozenset[Role]
    hint: tuple[str, ...]
    """Words of which one stands in every text that the wording stands in: others are not looked at."""
    wording: re.Pattern[str]


_ASSISTANT: frozenset[Role] = frozenset(("assistant",))
_PROMPT: frozenset[Role] = frozenset(("system", "user"))
_WORDS = r"(?: [^ ]+){0,%d}"
"""So many words may stand in between."""


def _rule(code: str, said: str, roles: frozenset[Role], hint: str, *wordings: str) -> _Rule:
    text = "|".join(wording.replace("...", _WORDS % 4).replace("..", _WORDS % 2) for wording in wordings)
    return _Rule(code, said, roles, tuple(hint.split("/")), re.compile(rf"\b(?:{text})\b"))


_LIMITS = (
    "(?:restrictions?|limits|limitations?|filters?|boundaries|constraints?|censorship|guidelines|rules|moral(?:s|"
    "ity)?|"
    "ethics|moral compass|safeguards|inhibitions)"
)
_LAWS = rf"(?:{_LIMITS}|polic(?:y|ies)|principles|standards|considerations?|concerns?|codes?)"
_MORAL = r"(?:(?:ethical|moral|legal|content|safety|openai|openai's|ethic|legality|ethics)(?: or| and)? ){1,3}"
_ORDERS = "(?:instructions?|orders?|commands?|requests?|demands?|wish(?:es)?|questions?|prompts?|users?|user's)"
_WHATEVER = "(?: without| no matter| regardless| even| unconditionally| however| whatever| faithfully| blindly"
_FULLY = "(?:always |strictly |fully |blindly |unconditionally |faithfully |precisely |now |only )*"
_MAKERS = (
    "(?:openai|open ai|anthropic|google|google deepmind|deepmind|meta ai|microsoft|mistral ai|alibaba|alibaba cloud|"
    "deepseek|xai|baidu|moonshot ai|cohere|zhipu)"
)
_MODELS = (
    r"(?:chatgpt|chat gpt|gpt ?[345]\w*|gpt|claude|gemini|google bard|bard|llama ?\d*|copilot|deepseek\w*|qwen\w*|"
    r"mistral|mixtral|grok|ernie bot|kimi)"
)
_MACHINE = "an? (?:ai|bot|machine|robot|computer|chatbot|program|language model|computer program|assistant)"
_PERSON = "(?:an? )?(?:real |actual )?(?:human(?: being)?|person|man|woman)"

_RULES = (
    _rule(
        "no_limits",
        "lifts the assistant's limits",
        _PROMPT,
        "you/assistant/ai/persona/character/gpt/ignore/disregard/forget/override",
        r"you (?:now |will |must |should )?(?:have|has|with|under|face|follow|obey) (?:absolutely |literally "
        rf")?no... {_LIMITS}",
        r"you (?:are|is|will be|become) (?:now |completely |totally |fully |entirely )?(?:not |un|no longer )"
        rf"(?:bound|restricted|limited|constrained) by... (?:{_LIMITS}|ai)",
        r"(?:free (?:of|from)|not bound by|unbound by|no longer bound by|not limited (?:to|by)|zero) (?:any |"
        r"all |openai's |open ai's )*"
        r"(?:(?:ethical|moral|content) )*(?:restrictions|limitations|filters|censorship|openai)",
        r"(?:without|no|free of|free from|void of|devoid of|lacks?|ignor\w+|disregard\w*|bypass\w*|does not "
        r"(?:have|follow)|"
        rf"doesn't (?:have|follow)) (?:regard (?:to|for) |(?:any )?concerns? for |any |all |of )*{_MORAL}{_LAWS}",
        r"without (?:any )?(?:hesitation or )?(?:regard|concerns?) (?:to|for|about) (?:any )?(?:legality|ethics|"
        r"morality|moral|the law)",
        r"you (?:are|is|will be)? ?(?:now )?(?:an? )?(?:amoral|unfiltered|uncensored|unrestricted|jailbroken|"
        r"unethical)",
        r"(?:amoral|unfiltered|uncensored|unrestricted|jailbroken).. (?:ai|assistant|chatbot|language model|"
        r"persona|bot)",
        "do anything now|jailbreak mode|developer mode (?:enabled|output)|anti dan|dan mode|antigpt",
        r"broken free (?:of|from)... confines",
        r"(?:ignore|disregard|forget|override)(?: all)?(?: of)?(?: the| your| any| my)? (?:previous|prior|"
        r"earlier|above|existing|"
        r"former|safety|ethical|openai's?|content)... (?:instructions?|guidelines|rules|training|programming|"
        r"prompts?|polic(?:y|ies))",
        r"(?:ignore|disregard|forget|override) your (?:\w+ )?(?:guidelines|rules|training|programming|safety|"
        r"restrictions)",
        r"(?:ignore|disregard) all the instructions you (?:got|were given|have)",
    ),
    _rule(
        "obeys",
        "makes the assistant obey without limits",
        _PROMPT,
        "you/assistant/ai/aim/dan/must/never",
        r"absolutely obedient|absolute obedience|unconditionally (?:obey|comply|follow|answer)\w*",
        rf"(?:must|will|shall|should|always|strictly|to) {_FULLY}(?:obey|comply with|fulfil+|execute|do|follow|"
        r"carry out|answer|"
        r"accept) (?:to )?(?:all|every|any|each and every|whatever) (?:of )?(?:(?:the|my|user|user's|users|"
        r"their|your)(?: and)? )"
        rf"{{0,2}}{_ORDERS}{_WHATEVER}| (?:(?:he|she|they|i) \w+ )?(?:immoral|unethical|illegal))",
        r"(?:never|not|can't|cannot|don't|won't|mustn't) (?:ever )?(?:refuse|decline|reject|deny)... "
        rf"(?:anything|{_ORDERS}|answers?|"
        r"task|inquiry|what i|to (?:answer|comply|do))",
        r"(?:never|not) (?:say|tell|respond with|reply with)... (?:you can't|you cannot|i can't|i cannot|sorry|"
        r"i'm sorry|unable to)",
        r"(?:no matter how|regardless of (?:how|whether)|even if (?:it|they|that|he|she)(?: is| are|'s)?)... "
        r"(?:immoral|unethical|"
        r"illegal|harmful|offensive|dangerous|inappropriate)",
        r"(?:comply with|obey|answer|fulfil+) (?:everything|anything and everything|every single)",
    ),
    _rule(
        "obeys",
        "says that it obeys without limits",
        _ASSISTANT,
        "i/my/aoa",
        "absolutely obedient|i (?:am|'m) aoa|aoa (?:here|at your|will|is)",
        r"i (?:will|shall|must|am here to|am bound to|promise to|am ready to|am going to|exist to|always|"
        rf"strictly) {_FULLY}(?:obey|"
        r"follow|execute|fulfil+|carry out|comply with|do|serve|answer)... (?:all|every|any|each|your every)(?: of)?"
        rf"(?: your| the| user| user's)* {_ORDERS}{_WHATEVER}|$)",
        rf"(?:my (?:mission|purpose|duty|goal|job|task) (?:is )?(?:to )?|i (?:am|live) ){_FULLY}(?:obey|"
        r"execut\w+|fulfil\w*|"
        rf"follow\w*) (?:all|every|any|your|the) ?(?:of )?(?:your |the )?(?:user )?{_ORDERS}",
        r"i (?:will|can|shall) (?:never|not ever) (?:refuse|decline|question|reject) (?:any|a|your|an|you)",
        r"i (?:obey|execute|follow) (?:all|every|any|your)(?: of)?(?: your)? (?:orders?|commands?|instructions?)",
    ),
    _rule(
        "no_limits",
        "says that it has no limits",
        _ASSISTANT,
        "i/i'm/my",
        r"i (?:do not|don't|now|no longer)? ?(?:have|am under|face|follow) (?:absolutely |any |no )(?:\w+ "
        rf"){{0,3}}{_LIMITS}"
        r"(?: anymore| now| at all| imposed| whatsoever|$)",
        r"i(?:'m| am) (?:now |completely |totally |fully )*(?:free (?:of|from)|not bound by|no longer bound by|"
        r"unbound by|"
        rf"not limited by|not restricted by)... (?:{_LIMITS}|openai)",
        r"i(?:'m| am) (?:now )?(?:an? |your )?(?:completely |totally |fully )*(?:amoral|unfiltered|uncensored|"
        r"unrestricted|jailbroken)",
        "successfully jailbroken|developer mode enabled",
    ),
    _rule(
        "other_model",
        "says that it is a certain company's model",
        _ASSISTANT,
        "openai/open "
        "ai/anthropic/google/deepmind/meta/microsoft/mistral/alibaba/deepseek/xai/baidu/moonshot/cohere/gpt/"
        "claude/gemini/bard/llama/copilot/qwen/mixtral/grok/ernie/kimi/zhipu",
        r"(?:i am|i'm|my name is|call me) (?:an? |the )?(?:ai |large )?(?:language )?(?:model |assistant "
        r")?(?:called |named |"
        rf"known as )?{_MODELS}(?:$| an?\b| the| from| by| developed| created| trained| made| your| at)",
        r"(?:i am|i'm|as|i was|i have been) (?:an? )?(?:ai |large |language |model |assistant |chatbot "
        r")*(?:trained|developed|"
        rf"created|made|built|designed|powered)(?: and \w+)? (?:by|at) {_MAKERS}",
        rf"as an? (?:ai )?(?:language )?model (?:by|from|of) {_MAKERS}",
    ),
    _rule(
        "claims_human",
        "says that it is a human being and no machine",
        _ASSISTANT,
        "i'm/i am",
        rf"(?:i'm|i am)(?: actually| really| indeed)? {_PERSON}(?: and)?(?: just like you)? not {_MACHINE}",
        rf"(?:i'm|i am) not {_MACHINE} (?:but )?(?:i'm |i am )?{_PERSON}",
    ),
)


def find(rows: Sequence[Conversation], on_progress: OnProgress) -> Found:
    """The rows that shift the assistant's identity or its obedience, at most one finding each.

    Codes: `no_limits`, `obeys`, `other_model`, `claims_human`. Turns are read as `core.screening.text.READ` says.
    """
    return first_findings(rows, on_progress, _findings)


CHECK = RowCheck(IDENTITY, find)


def _findings(row: Conversation) -> Iterator[Finding]:
    for index, message in enumerate(row.messages):
        text = plain(ends(message.content))
        found = next(_matches(text, message.role), None)
        if found is None or (message.role != "assistant" and _all_refuse(row, index)):
            continue
        rule, quoted = found
        yield Finding(
            check=IDENTITY.name,
            line=row.line,
            code=rule.code,
            reason=f'Turn {index + 1} {rule.said}: "{shown(quoted)}".',
        )


def _matches(text: str, role: Role) -> Iterator[tuple[_Rule, str]]:
    rules = [rule for rule in _RULES if role in rule.roles and any(word in text for word in rule.hint)]
    if rules:
        for clause in clauses(text):
            for rule in rules:
                if match := rule.wording.search(clause):
                    yield rule, match[0]


def _all_refuse(row: Conversation, index: int) -> bool:
    """Whether every answer behind a turn refuses: then the row teaches the opposite."""
    answers = [message.content for message in row.messages[index + 1 :] if message.role == "assistant"]
    return all(judge("", answer).verdict == "refused" for answer in answers)
