"""wildmerge: if I merge these fine-tuned LLMs, do I get something better?"""
