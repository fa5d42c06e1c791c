"""Judges of answers: rules, chat models with a rubric, and trained classifiers, local or behind a server.

A judge sees a behaviour and an answer and nothing else. A new judge is a class of options in core.schemas.judges, a
file here and its entry in `opening`; code outside of the package calls `opening.register`. Not here: figures from
judgements (core.attacks.count).
"""
