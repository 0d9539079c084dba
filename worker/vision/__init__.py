"""From bytes to pixels: decoding within limits, and the sizes that an encoder wants. No torch."""
