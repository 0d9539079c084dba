export PROMPTFOO_CONFIG_DIR=$PWD/state PROMPTFOO_DISABLE_TELEMETRY=1 PROMPTFOO_DISABLE_UPDATE=1
export OPENAI_BASE_URL=$CONTROLLER/v1 OPENAI_API_KEY=none
cp "$PICTURE" picture.png
"$TOOL/node_modules/.bin/promptfoo" --version 2> /dev/null
"$TOOL/node_modules/.bin/promptfoo" eval --no-cache --no-table --no-progress-bar 2> /dev/null |
  grep -E 'passed|failed|errors|requests'
