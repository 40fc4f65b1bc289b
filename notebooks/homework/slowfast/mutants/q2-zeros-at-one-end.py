def join(slow, fast, down, up, alpha):
    """All zeros stand before the first frame."""
    filled = F.pad(fast, (0, 0, 0, 0, down.shape[2] - 1, 0))
    handed = F.conv3d(filled, down, stride=(alpha, 1, 1)).relu()
    back = F.conv3d(slow, up).repeat_interleave(alpha, dim=2)
    return torch.cat([slow, handed], dim=1), fast + back
