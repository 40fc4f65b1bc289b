def video_start(weight, table, t, steps):
    """Frame t // 2 alone, also of an even tubelet."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[t // 2] = weight
    return inflated, torch.cat([table[:1], table[1:].repeat(steps, 1)])
