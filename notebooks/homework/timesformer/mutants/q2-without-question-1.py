def class_token(space, time, x, cls, frames):
    """The patches do not go through the block first."""
    found = []
    for clip, token, n in zip(x, cls, frames):
        patches = rearrange(clip[:n], "t h w d -> t (h w) d")
        visits = token.expand(n, 1, -1)
        heard = space(torch.cat([visits, patches], dim=1))[:, :1]
        found.append(token + heard.mean(0))
    return torch.stack(found)
