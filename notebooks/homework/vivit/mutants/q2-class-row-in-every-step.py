def video_start(weight, table, t, steps):
    """The class token's row is repeated like the others."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[(t - 1) // 2] += weight / 2
    inflated[t // 2] += weight / 2
    return inflated, table.repeat(steps, 1)
