def video_start(weight, table, t, steps):
    """Both frames next to the middle get all of the weights."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[(t - 1) // 2] = inflated[t // 2] = weight
    return inflated, torch.cat([table[:1], table[1:].repeat(steps, 1)])
