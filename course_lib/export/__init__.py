"""Lessons for those who have no kernel: slides, one self-contained page, the whole course as a static site."""
