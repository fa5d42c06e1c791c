"""Experiments on real aligned models: what breaks their refusals, and what keeps them.

A plan (research/plans) names arms, rates and seeds. Every finished run is a file, so an interrupted experiment goes on
where it was.
"""
