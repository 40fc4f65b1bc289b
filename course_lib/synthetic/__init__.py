"""Clips that the course draws itself, with exact labels, object masks and optical flow."""
