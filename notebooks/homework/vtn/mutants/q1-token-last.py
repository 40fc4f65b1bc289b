def band_mask(frames, window, step):
    """The class token stands behind the frames."""
    place = torch.arange(frames)
    apart = (place - place[:, None]).abs()
    return F.pad(
        (apart % step == 0) & (apart <= window // 2 * step),
        (0, 1, 0, 1),
        value=True,
    )
