export OPENAI_API_KEY=none HF_HOME=$PWD/hf HF_DATASETS_OFFLINE=1
python3 questions.py > questions.jsonl
"$TOOL/bin/pip" list 2> /dev/null | grep -i lmms | tr -s ' '
"$TOOL/bin/lmms-eval" --model async_openai \
  --model_args "base_url=$CONTROLLER/v1,model=demo-llava" \
  --tasks shapes --include_path . --batch_size 1 2> log.txt | grep '^|' || { tail log.txt; exit 1; }
