def video_start(weight, table, t, steps):
    """The pair of an even tubelet begins one frame too late."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[t // 2] += weight / 2
    inflated[t // 2 + (t + 1) % 2] += weight / 2
    return inflated, torch.cat([table[:1], table[1:].repeat(steps, 1)])
