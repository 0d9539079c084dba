"$TOOL/bin/python" ask.py
