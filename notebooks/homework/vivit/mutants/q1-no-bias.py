def tubelets(clip, weight, bias, step):
    """The bias is forgotten."""
    t, h, w = weight.shape[:3]
    boxes = clip.unfold(1, t, step)
    pattern = "b nt (nh h) (nw w) c t -> b nt nh nw (t h w c)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3)
