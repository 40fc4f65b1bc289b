"""From batches to records: the loop, its checkpoints, its batches, and how a trained network is judged.

Knows torch alone: any module that maps clips to logits, any source of (clips, labels).
"""
