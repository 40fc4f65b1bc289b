def tubelets(clip, weight, bias, step):
    """The numbers of a tubelet lie as in the lesson, colours first."""
    t, h, w = weight.shape[:3]
    boxes = clip.unfold(1, t, step)
    pattern = "b nt (nh h) (nw w) c t -> b nt nh nw (c t h w)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3) + bias
