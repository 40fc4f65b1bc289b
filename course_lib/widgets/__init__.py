"""Widgets for the notebooks: arrays in, a picture to play with out. They never see a network."""

from course_lib.widgets.explorer import AttentionExplorer

__all__ = ["AttentionExplorer"]
