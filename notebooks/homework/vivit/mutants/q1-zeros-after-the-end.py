def tubelets(clip, weight, bias, step):
    """Tubelets that begin in the clip and end after it are filled with zeros."""
    t, h, w = weight.shape[:3]
    more = torch.cat(
        [clip, torch.zeros_like(clip[:, :1]).repeat(1, t - 1, 1, 1, 1)], 1
    )
    boxes = more.unfold(1, t, step)
    pattern = "b nt (nh h) (nw w) c t -> b nt nh nw (t h w c)"
    return rearrange(boxes, pattern, h=h, w=w) @ weight.flatten(0, 3) + bias
