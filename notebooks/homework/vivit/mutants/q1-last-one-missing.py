def tubelets(clip, weight, bias, step):
    """The range ends before the last place where a tubelet fits."""
    t, h, w = weight.shape[:3]
    first = range(0, clip.shape[1] - t, step)
    boxes = torch.stack([clip[:, i : i + t] for i in first], dim=1)
    pattern = "b nt t (nh h) (nw w) c -> b nt nh nw (t h w c)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3) + bias
