def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """Nothing is put around the clip."""
    kernel = weight[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    return F.conv3d(clip, kernel, bias, (stride[0], stride[1], stride[1]))
