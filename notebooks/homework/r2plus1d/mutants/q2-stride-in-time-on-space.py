def live_split(x, space, scale, shift, time, stride=(1, 1)):
    """Frames are dropped before time is looked at."""
    h, w = space.shape[3:]
    both = (stride[0], stride[1], stride[1])
    x = F.conv3d(x, space, stride=both, padding=(0, h // 2, w // 2))
    x = (x * scale.reshape(-1, 1, 1, 1) + shift.reshape(-1, 1, 1, 1)).relu()
    return F.conv3d(F.pad(x, (0, 0, 0, 0, time.shape[2] - 1, 0)), time)
