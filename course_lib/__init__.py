"""Ten years of video understanding, rebuilt one network at a time.

A clip flows one way:  file -> clip -> tokens -> attention -> logits -> training -> figures -> notebook.

Axis letters, the same in every file (capitals count pixels and frames, small letters count tokens):
    b clips in a batch    c colours    T H W frames, height, width of a clip
    t h w token grid      n m tokens in a row    d features    head attention heads
"""

__version__ = "0.1.0"
