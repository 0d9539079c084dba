image=$(base64 < "$PICTURE" | tr -d '\n')
curl -sf "$CONTROLLER/v1/chat/completions" -H 'content-type: application/json' -d @- <<END | grep -o '"content":"[^"]*"'
{"model": "demo-llava", "temperature": 0, "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$image"}},
  {"type": "text", "text": "Describe the image."}]}]}
END
