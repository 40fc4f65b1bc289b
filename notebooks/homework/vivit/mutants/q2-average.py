def video_start(weight, table, t, steps):
    """Filter inflation in place of the central frame."""
    inflated = repeat(weight, "h w c d -> t h w c d", t=t) / t
    return inflated, torch.cat([table[:1], table[1:].repeat(steps, 1)])
