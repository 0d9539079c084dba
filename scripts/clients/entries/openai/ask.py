"""Every model of the fleet, streamed, with the openai SDK."""

import base64
import os
from pathlib import Path

import openai

client = openai.OpenAI(base_url=os.environ["CONTROLLER"] + "/v1", api_key="none")
image = base64.b64encode(Path(os.environ["PICTURE"]).read_bytes()).decode()
content = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    {"type": "text", "text": "Describe the image."},
]
print("openai", openai.__version__)
for model in client.models.list():
    stream = client.chat.completions.create(
        model=model.id,
        messages=[{"role": "user", "content": content}],
        temperature=0,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    print(f"{model.id}: {text}")
