def video_start(weight, table, t, steps):
    """Each row is repeated where it stands: all steps of a place, then the next."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[(t - 1) // 2] += weight / 2
    inflated[t // 2] += weight / 2
    return inflated, torch.cat([table[:1], table[1:].repeat_interleave(steps, 0)])
