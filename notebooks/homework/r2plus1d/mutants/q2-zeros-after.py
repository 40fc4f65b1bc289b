def live_split(x, space, scale, shift, time, stride=(1, 1)):
    """Zeros behind the last frame: only the future is seen."""
    h, w = space.shape[3:]
    x = F.conv3d(
        x, space, stride=(1, stride[1], stride[1]), padding=(0, h // 2, w // 2)
    )
    x = (x * scale.reshape(-1, 1, 1, 1) + shift.reshape(-1, 1, 1, 1)).relu()
    x = F.pad(x, (0, 0, 0, 0, 0, time.shape[2] - 1))
    return F.conv3d(x, time, stride=(stride[0], 1, 1))
