export LLM_USER_PATH=$PWD/llm
mkdir "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<END
- model_id: demo-llava
  model_name: demo-llava
  api_base: $CONTROLLER/v1
  vision: true
END
"$TOOL/bin/llm" --version
"$TOOL/bin/llm" -m demo-llava -a "$PICTURE" --key none -o temperature 0 "Describe the image."
"$TOOL/bin/llm" -c --key none -o temperature 0 "Is the circle above the square?"
