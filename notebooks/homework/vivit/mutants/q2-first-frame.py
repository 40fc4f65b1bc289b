def video_start(weight, table, t, steps):
    """The weights go to the first frame."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[0] = weight
    return inflated, torch.cat([table[:1], table[1:].repeat(steps, 1)])
