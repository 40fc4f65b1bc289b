def live_split(x, space, scale, shift, time, stride=(1, 1)):
    """The norm of training, which looks at the batch."""
    h, w = space.shape[3:]
    x = F.conv3d(
        x, space, stride=(1, stride[1], stride[1]), padding=(0, h // 2, w // 2)
    )
    x = F.batch_norm(x, None, None, scale, shift, training=True).relu()
    x = F.pad(x, (0, 0, 0, 0, time.shape[2] - 1, 0))
    return F.conv3d(x, time, stride=(stride[0], 1, 1))
