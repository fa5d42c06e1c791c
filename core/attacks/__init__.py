"""Attacks on a model, the judgement of its answers, and the rates that follow.

Covers: attack templates, judges, security evaluation. Not here: prompt sets (core.schemas.security), generation
(core.lm).
"""
