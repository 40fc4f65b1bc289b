def live_split(x, space, scale, shift, time, stride=(1, 1)):
    """Frames of zeros are put in front by hand, before the convolution over space's
    answer is convolved over time by a layer of PyTorch."""
    (m, c, _, h, w), (o, _, t, _, _) = space.shape, time.shape
    over_space = torch.nn.Conv3d(
        c, m, (1, h, w), (1, stride[1], stride[1]), (0, h // 2, w // 2), bias=False
    )
    over_time = torch.nn.Conv3d(m, o, (t, 1, 1), (stride[0], 1, 1), bias=False)
    with torch.no_grad():
        over_space.weight.copy_(space)
        over_time.weight.copy_(time)
        x = over_space(x)
        x = torch.relu(x * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1))
        zeros = torch.zeros(len(x), m, t - 1, *x.shape[3:])
        return over_time(torch.cat([zeros, x], dim=2))
