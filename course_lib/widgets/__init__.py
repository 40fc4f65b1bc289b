"""Widgets for the notebooks: arrays in, a picture to play with out. `explore` opens any network."""

from course_lib.widgets.explorer import AttentionExplorer

__all__ = ["AttentionExplorer"]
