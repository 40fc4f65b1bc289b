def band_mask(frames, window, step):
    """The class token sees all, and no frame sees it."""
    place = torch.arange(frames)
    apart = (place - place[:, None]).abs()
    mask = F.pad((apart % step == 0) & (apart <= window // 2 * step), (1, 0, 1, 0))
    mask[0] = True
    return mask
