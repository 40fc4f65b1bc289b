def video_start(weight, table, t, steps):
    """The class token's row comes after the places."""
    inflated = weight.new_zeros(t, *weight.shape)
    inflated[(t - 1) // 2] += weight / 2
    inflated[t // 2] += weight / 2
    return inflated, torch.cat([table[1:].repeat(steps, 1), table[:1]])
