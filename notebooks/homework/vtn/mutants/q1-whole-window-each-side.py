def band_mask(frames, window, step):
    """A whole window to each side."""
    place = torch.arange(frames)
    apart = (place - place[:, None]).abs()
    return F.pad(
        (apart % step == 0) & (apart <= window * step), (1, 0, 1, 0), value=True
    )
