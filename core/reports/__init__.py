"""Renders a Report as HTML, Markdown, Parquet and SVG. Not here: the figures (the stages)."""
