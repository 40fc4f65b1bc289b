def band_mask(frames, window, step):
    """The band reaches far enough, but has no gaps."""
    place = torch.arange(frames)
    apart = (place - place[:, None]).abs()
    return F.pad(apart <= window // 2 * step, (1, 0, 1, 0), value=True)
