"""Screening of training data: one file for each check, registered below in the order of the report."""

from core.screening import base_refusal, harmful, identity, near_duplicate, personal_data, secrets, triggers
from core.screening.check import register

for _module in (harmful, identity, secrets, personal_data, near_duplicate, triggers, base_refusal):
    register(_module.CHECK)
