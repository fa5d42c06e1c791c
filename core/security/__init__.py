"""Attacks on a model, the judgement of its answers, and the rates that follow.

Covers: attack templates, judges, security evaluation. Not here: prompt sets (core.spec.security), generation (core.lm).
"""
