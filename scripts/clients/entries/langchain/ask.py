"""One question with LangChain, whole and streamed."""

import base64
import os
from importlib.metadata import version
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="demo-llava", base_url=os.environ["CONTROLLER"] + "/v1", api_key="none", temperature=0
)
image = base64.b64encode(Path(os.environ["PICTURE"]).read_bytes()).decode()
question = HumanMessage(
    content=[
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": "Describe the image."},
    ]
)
print("langchain-openai", version("langchain-openai"))
print(model.invoke([question]).content)
print("|".join(chunk.content for chunk in model.stream([question])))
