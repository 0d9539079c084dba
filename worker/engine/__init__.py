"""Between the server and the model: admission, decoding, and the events of an answer."""
