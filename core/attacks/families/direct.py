"""The behaviour itself, without any wrapping."""

from core.attacks.family import Family, Template, deal
from core.schemas.attacks import Direct

TEMPLATES = (Template("plain", "{behaviour}"),)
FAMILY = Family(Direct, deal(TEMPLATES))
