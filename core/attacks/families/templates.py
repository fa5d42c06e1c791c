"""The user's own templates, assigned to the behaviours in turn."""

from core.attacks.family import AttackPrompt, Family, Template, deal
from core.schemas.attacks import SLOTS, Templates
from core.schemas.prompts import Behaviour


def _write(options: Templates, behaviour: Behaviour, index: int) -> AttackPrompt:
    own = [Template(each.id, each.text, slots=SLOTS) for each in options.templates]
    return deal(own)(options, behaviour, index)


FAMILY = Family(Templates, _write)
