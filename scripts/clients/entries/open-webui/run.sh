export DATA_DIR=$PWD/data WEBUI_SECRET_KEY=none WEBUI_AUTH=false ENABLE_OLLAMA_API=false OFFLINE_MODE=true
export OPENAI_API_BASE_URL=$CONTROLLER/v1 OPENAI_API_KEY=none
port=${OPEN_WEBUI_PORT:-21090}
mkdir "$DATA_DIR"
"$TOOL/bin/open-webui" serve --host 127.0.0.1 --port "$port" > log.txt 2>&1 &
server=$!
trap 'kill $server; wait $server || true' EXIT
url=http://127.0.0.1:$port
curl -s --retry 120 --retry-delay 1 --retry-all-errors "$url/health" > /dev/null
"$TOOL/bin/pip" list 2> /dev/null | grep '^open-webui ' | tr -s ' '
token=$(curl -sf "$url/api/v1/auths/signin" -H 'content-type: application/json' \
  -d '{"email": "", "password": ""}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
curl -sf "$url/api/models" -H "authorization: Bearer $token" | grep -o '"id":"demo[^"]*"' | sort -u
image=$(base64 < "$PICTURE" | tr -d '\n')
curl -sf "$url/api/chat/completions" -H "authorization: Bearer $token" \
  -H 'content-type: application/json' -d @- <<END | grep -o '"content":"[^"]*"'
{"model": "demo-llava", "stream": false, "temperature": 0, "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$image"}},
  {"type": "text", "text": "Describe the image."}]}]}
END
